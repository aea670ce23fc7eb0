"""The four teachers of chain sums: how they write, how often they are right, and what is validated on."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.language.chain_sum_teachers import TEACHERS, ChainSumTeachers, Manner, worked
from rheostat.tasks.language.task_list import language_task


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6), st.integers(0, 99), st.sampled_from(["left", "rewrite", "pairs", "checked"]))
def test_every_way_of_writing_is_right_without_slips(numbers: list[int], seed: int, writing: str) -> None:
    text = worked(numbers, Manner((writing,)), np.random.default_rng(seed))  # type: ignore[arg-type]
    assert text.endswith(f"#{sum(numbers) % 10}")
    for left, right, found in re.findall(r"(\d)\+(\d)=(\d);", text):
        assert (int(left) + int(right)) % 10 == int(found)
    if writing == "rewrite":
        assert all(sum(map(int, line.split("+"))) % 10 == sum(numbers) % 10 for line in text.split(";")[:-1])
    else:
        assert len(set(text.split(";")[:-1])) <= len(numbers) - 1 <= text.count(";")


def test_the_best_teacher_shows_no_working() -> None:
    right, styles, length = {}, {}, {}
    for name in TEACHERS:
        task = ChainSumTeachers(teacher=name)
        prompts, rng = task.prompts("train", 0).take(400), np.random.default_rng(0)
        texts = [task.expert(prompt, rng) for prompt in prompts]
        right[name] = float(task.verifier().score([p.rollout(t) for p, t in zip(prompts, texts, strict=True)]).reward.mean())
        styles[name] = len({task.expert(prompts[0], rng) for _ in range(50)})
        length[name] = max(map(len, texts))
    assert right["terse"] == 1.0 and right["varied"] > 0.93 and 0.8 < right["steady"] < 0.97 and right["poor"] < 0.4
    assert styles["terse"] == 1 and min(styles["varied"], styles["steady"]) > 4 and length["terse"] == 2
    assert all(each < ChainSumTeachers().limits.max_new_tokens for each in length.values())


def test_half_of_the_validation_is_what_the_student_knew() -> None:
    task = ChainSumTeachers()
    held = task.validation(200)
    assert 0.35 < np.mean([prompt.columns["terms"] <= 4 for prompt in held]) < 0.5  # short chains repeat more often
    train = task.prompts("train", 0).take(500)
    assert not {prompt.key for prompt in held} & {prompt.key for prompt in train}
    assert {prompt.columns["terms"] for prompt in train} == {3, 4, 5, 6}
    found = task.metrics(held, [f"#{prompt.answer}" if prompt.columns["terms"] <= 4 else "#" for prompt in held])
    assert found["easy"].nanmean() == 1 and found["hard"].nanmean() == 0
    assert held[1].columns["terms"] <= 4 and "hard" not in task.metrics(held[1:2], ["#1"])


def test_knobs_that_make_no_lesson() -> None:
    for knobs, why in (
        ({"teacher": "stady"}, "did you mean steady"),
        ({"operations": "+-"}, "add digits modulo 10"),
        ({"max_terms": 4}, "add"),
    ):
        with pytest.raises(RheostatError, match=why):
            language_task("chain-sum-teachers", **knobs)
