"""The three forms of chain-sum in which effects can appear: what is asked, what is right, what guessing earns."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.language import BASE_RECIPES, ChainSum, language_task
from rheostat.tasks.language.task_interface import Prompt

TASKS = ("chain-sum-elicit", "chain-sum-teach", "chain-sum-interfere")


def reward(task: ChainSum, prompt: Prompt, text: str) -> float:
    scores = task.verifier().score([prompt.rollout(text)])
    assert scores.valid.item()
    return float(scores.reward.item())


@pytest.mark.parametrize("name", TASKS)
def test_the_worked_solution_is_right_and_the_answer_alone_is_not(name: str) -> None:
    task = language_task(name)
    for prompt in task.prompts("train", 0).take(64):
        solution = str(prompt.columns["solution"])
        bare = solution[solution.rindex("#") :]
        assert reward(task, prompt, solution) == 1
        assert reward(task, prompt, bare) == (1 if name.endswith("interfere") and prompt.columns["terms"] == 2 else 0)
        assert reward(task, prompt, solution.replace(";", "; ", 1)) == 0
        assert task.expert(prompt, np.random.default_rng(0), error_rate=0.0) == solution
        assert task.locate(Prompt(prompt.content)) == ("train", prompt)


def test_the_sign_of_teach_means_addition() -> None:
    prompt = language_task("chain-sum-teach").problem([6, 9, 5, 4, 4], "****")
    assert prompt.content == "6*9*5*4*4=" and prompt.columns["solution"] == "6*9=5;5*5=0;0*4=4;4*4=8;#8"


def test_an_expert_slips_as_often_as_its_knob_says() -> None:
    task, rng = language_task("chain-sum-elicit"), np.random.default_rng(5)
    wrong = {"+": [], "-": []}
    for prompt in task.prompts("train", 1).take(800):
        text = task.expert(prompt, rng)
        for left, sign, right, result in re.findall(r"(\d+)([-+])(\d+)=(\d+);", text):
            wrong[sign].append(int(result) != (int(left) + (1 if sign == "+" else -1) * int(right)) % 10)
    assert np.mean(wrong["+"]) == pytest.approx(0.2, abs=0.04) and np.mean(wrong["-"]) == pytest.approx(0.6, abs=0.05)


def test_lengths_come_as_often_as_their_weights_say() -> None:
    task = language_task("chain-sum-interfere")
    terms = [prompt.columns["terms"] for prompt in task.prompts("train", 0).take(2000)]
    assert terms.count(3) == 0 and np.mean(np.array(terms) == 2) == pytest.approx(0.85, abs=0.04)
    assert task.locate(Prompt("1+2+3=")) is None, "a length that never occurs is no prompt of the task"
    kinds = {task.family(prompt) for prompt in task.prompts("train", 0).take(100)}
    assert kinds == {"up to 2 terms", "over 2 terms"}


@given(st.integers(2, 4), st.integers(0, 2), st.sampled_from(["answer", "working"]), st.integers(2, 3))
def test_chance_is_what_guessing_earns(low: int, more: int, graded: str, modulus: int) -> None:
    """Guessing every digit of the right form, counted exactly over all guesses."""
    task = ChainSum(min_terms=low, max_terms=low + more, modulus=modulus, graded=graded)  # type: ignore[arg-type]
    expected = np.mean([1 / modulus if graded == "answer" else modulus ** -(terms - 1.0) for terms in range(low, low + more + 1)])
    assert task.chance == pytest.approx(expected)


def test_chance_by_sampling() -> None:
    task, rng = ChainSum(min_terms=2, max_terms=3, modulus=2, graded="working"), np.random.default_rng(0)
    earned = []
    for prompt in task.prompts("train", 0).take(3000):
        numbers, operations, _ = task.parse(str(prompt.content))
        value, steps = numbers[0], ""
        for sign, right in zip(operations, numbers[1:], strict=True):
            result = int(rng.integers(2))
            steps, value = f"{steps}{value}{sign}{right}={result};", result
        earned.append(reward(task, prompt, f"{steps}#{value}"))
    assert np.mean(earned) == pytest.approx(task.chance, abs=0.03)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"length_weights": (1.0,)}, "one weight of at least 0 for each of 3 to 6 terms"),
        ({"graded": "steps"}, "grades the answer or the working"),
        ({"bare_up_to": 3}, "needs graded='working'"),
        ({"bare_up_to": 9, "graded": "working"}, "a number of terms that occurs"),
        ({"slips": (0.1, 0.2)}, "one chance in"),
        ({"slips": (1.5,)}, "one chance in"),
        ({"reads": "+=+"}, "two different signs"),
        ({"reads": "+-"}, "pairs such as"),
        ({"reads": "-=+"}, "does not occur"),
        ({"reads": "+=*", "modulus": None}, "needs a modulus"),
    ],
)
def test_knobs_that_make_no_world(knobs: dict[str, object], sentence: str) -> None:
    with pytest.raises(RheostatError, match=re.escape(sentence)):
        ChainSum(**knobs)  # type: ignore[arg-type]


def test_recipes_of_before_keep_their_content_hash() -> None:
    known = {"chain-sum": "6bb0d7df87930f66", "chain-sum-rare": "c9197a8bc3b13878", "chain-sum-short": "d169af8e0443d3b5"}
    assert {name: BASE_RECIPES[name].digest for name in known} == known
