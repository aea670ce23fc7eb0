"""word-sums: every problem has the answer that its story says, and the verifier finds it where it is stated."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rheostat.errors import RheostatError
from rheostat.tasks.language import language_task
from rheostat.tasks.language.word_sums import FACTORS, LARGEST, NAMES, PLACES, SKILLS, THINGS, WordSums, final_number, states_answer


def by_hand(skill: str, text: str) -> int:
    """The answer worked out from the numbers of the story alone."""
    numbers = [int(each) for each in re.findall(r"\d+", text)]
    if skill == "two-steps":
        return numbers[0] + numbers[1] - numbers[2]
    first, second = numbers
    return {"add": first + second, "subtract": first - second, "multiply": first * second, "share": first // second}[skill]


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_answers_follow_from_the_story(difficulty: int) -> None:
    task = language_task("word-sums", difficulty=difficulty)
    prompts = task.prompts("train", 0).take(300)
    assert {prompt.columns["skill"] for prompt in prompts} == set(SKILLS)
    for prompt in prompts:
        (message,) = prompt.content
        assert message["role"] == "user" and int(prompt.answer) == by_hand(prompt.columns["skill"], message["content"])
        assert 0 < int(prompt.answer) <= max(2 * LARGEST[difficulty], FACTORS[difficulty] ** 2)
        expert = task.expert(prompt, np.random.default_rng(0))
        graded = task.verifier().score([prompt.rollout(expert), prompt.rollout(expert + "1"), prompt.rollout(f"= {prompt.answer}.")])
        assert graded.reward.tolist() == [1.0, 0.0, 1.0] and graded.parts["stated"].tolist() == [1.0, 1.0, 0.0]
    assert not {prompt.key for prompt in prompts} & {prompt.key for prompt in task.validation(100)}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 12, that is 5 + 7", "12"),
        ("so 3 + 4 = 7. answer: 7.", "7"),
        ("Answer: 3 no, Answer: 5", "5"),
        ("**Answer:** 1,204", "1204"),
        ("Answer: 007", "7"),
        ("Answer: -3", "-3"),
        ("Leo has 5 + 7 = 12 coins now.", "12"),
        ("2 boxes of 5", "5"),
        ("12.0 coins", "12"),
        ("7.5", "7.5"),
        ("8-3", "3"),
        ("The answer is 4", "4"),
        ("12", "12"),
        ("twelve", None),
        ("", None),
    ],
)
def test_the_last_stated_answer_counts_else_the_last_number(text: str, answer: str | None) -> None:
    assert final_number(text) == answer


def test_stated_is_the_form_asked_for() -> None:
    assert states_answer("Answer: 12") and not states_answer("The answer is 12.") and not states_answer("Answer: twelve")


def test_there_are_as_many_problems_as_the_description_says() -> None:
    """Names, things, places and numbers of the rarest skill, counted for difficulty 1."""
    assert len(NAMES) * len(THINGS) * min(len(PLACES) * (FACTORS[1] - 1) ** 2, (LARGEST[1] - 1) ** 2) > 10_000


def test_skills_can_be_chosen() -> None:
    task = WordSums(skills=("share",))
    assert {prompt.columns["skill"] for prompt in task.prompts("train", 0).take(20)} == {"share"} and task.family(
        task.validation(1)[0]
    ) is None


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"difficulty": 4}, "difficulties 1, 2 and 3"),
        ({"skills": ("divide",)}, "different ones of"),
        ({"validation_share": 1.0}, "lies in"),
    ],
)
def test_knobs_that_make_no_problems(knobs: dict[str, object], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        language_task("word-sums", **knobs)
