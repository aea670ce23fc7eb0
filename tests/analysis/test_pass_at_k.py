"""pass@k, votes and summaries against enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.analysis.pass_at_k import clustered_mean, majority_vote, pass_at_k, pass_at_k_interval, summarise
from rheostat.errors import RheostatError

outcomes = st.integers(1, 7).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1, max_size=4))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(outcomes, st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_completion(correct, data):
    n = len(correct[0])
    k = data.draw(st.integers(1, n))
    expected = [np.mean([any(row[i] for i in subset) for subset in itertools.combinations(range(n), k)]) for row in correct]
    np.testing.assert_allclose(pass_at_k(correct, k), expected, atol=1e-12)


@given(outcomes)
def test_pass_at_1_is_the_accuracy_and_pass_at_k_grows(correct):
    n = len(correct[0])
    values = np.stack([pass_at_k(correct, k) for k in range(1, n + 1)])
    np.testing.assert_allclose(values[0], np.mean(correct, axis=1))
    np.testing.assert_allclose(values[-1], np.any(correct, axis=1))
    assert (np.diff(values, axis=0) >= -1e-12).all()


def test_pass_at_k_of_many_completions_does_not_overflow():
    correct = np.zeros((1, 4000), dtype=bool)
    correct[0, :3] = True
    exact = 1 - math.comb(3997, 2000) / math.comb(4000, 2000)
    assert pass_at_k(correct, 2000)[0] == pytest.approx(exact, rel=1e-9)


def test_pass_at_k_is_unbiased_where_drawing_with_replacement_is_not():
    truth = 1 - 0.7**4
    correct = rng(1).random((40_000, 8)) < 0.3
    redrawn = rng(2).integers(0, 8, (40_000, 4))
    assert pass_at_k(correct, 4).mean() == pytest.approx(truth, abs=0.005)
    assert np.take_along_axis(correct, redrawn, 1).any(1).mean() < truth - 0.02


def test_invalid_completions_are_left_out_not_wrong():
    correct = [[True, False, False, False], [True, True, False, False]]
    valid = [[True, True, False, False], [True, False, False, False]]
    np.testing.assert_allclose(pass_at_k(correct, 1, valid=valid), [0.5, 1.0])
    values = pass_at_k(correct, 2, valid=valid)
    assert values[0] == 1.0 and math.isnan(values[1])
    interval = pass_at_k_interval(correct, 2, valid=valid)
    assert interval.n == 1 and interval.estimate == 1.0


def test_what_an_invalid_completion_holds_does_not_matter():
    correct = np.array([[1.0, np.nan], [0.0, 7.0]])
    valid = np.array([[True, False], [True, False]])
    np.testing.assert_allclose(pass_at_k(correct, 1, valid=valid), [1.0, 0.0])


def test_the_share_of_invalid_completions_is_a_matter_of_prompts_too():
    """A grader that fails on all completions of a prompt failed once: more completions of the same prompts are no more evidence."""
    fails = rng(0).random((40, 1)) < 0.2
    few, many = (summarise(np.ones((40, n)), np.ones((40, n)), valid=np.repeat(~fails, n, axis=1)).invalid for n in (1, 16))
    assert (few.low, few.estimate, few.high) == pytest.approx((many.low, many.estimate, many.high))
    assert few.estimate == fails.mean() and few.high - few.low > 0.15


def test_the_units_of_intervals_are_prompts_not_completions():
    always = np.repeat(rng(0).random((50, 1)) < 0.5, 64, axis=1)  # the completions of a prompt agree: 50 facts, not 3200
    interval = pass_at_k_interval(always, 1)
    width = interval.high - interval.low
    assert width == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(50), rel=0.15)


def test_intervals_cover_as_often_as_they_say():
    draw = rng(3)
    skill = lambda: draw.beta(2, 2, 60)  # noqa: E731
    covered = 0
    for _ in range(300):
        correct = draw.random((60, 4)) < skill()[:, None]
        interval = pass_at_k_interval(correct, 1)
        covered += interval.low <= 0.5 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_the_vote():
    answers = [["5", "5", "6", None], ["1", "2", "2", "1"], [None] * 4, ["7", "7", "8", "9"]]
    correct = [[True, True, False, False], [False, True, True, False], [False] * 4, [False, False, True, False]]
    np.testing.assert_allclose(majority_vote(answers, correct), [1.0, 0.5, 0.0, 0.0])
    valid = np.ones((4, 4), dtype=bool)
    valid[3, :2] = False
    np.testing.assert_allclose(majority_vote(answers, correct, valid=valid), [1.0, 0.5, 0.0, 0.5])


def test_a_vote_of_one_is_the_accuracy_on_average():
    draw = rng(0)
    answers = [[str(draw.integers(3)) for _ in range(12)] for _ in range(30)]
    correct = [[answer == "0" for answer in row] for row in answers]
    votes = majority_vote(answers, correct, 1, generator=rng(), draws=400)
    np.testing.assert_allclose(votes.mean(), np.mean(correct), atol=0.02)
    np.testing.assert_allclose(majority_vote(answers, correct, 12), majority_vote(answers, correct))


def test_the_summary():
    correct = torch.tensor([[True, False, True, True], [False, False, False, True]])
    summary = summarise(
        correct,
        [[4, 2, 4, 6], [1, 1, 1, 1]],
        valid=[[True] * 4, [True, True, True, False]],
        answers=[["5", "6", "5", "5"], ["1", "1", "2", "2"]],
        entropy=[[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]],
        truncated=[[False, False, True, False], [False] * 4],
        task={"step_by_step": torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])},
    )
    scalars = summary.scalars()
    assert scalars == pytest.approx(
        {
            "pass@1": 0.375, "pass@2": 0.5, "pass@4": 1.0, "majority": 0.5, "length": 2.5, "invalid": 1 / 8, "entropy": 0.6,
            "truncated": 1 / 8, "step_by_step": 0.5,
        }
    )  # fmt: skip
    assert summary.accuracy == summary.pass_at[1]
    assert summary.accuracy.low <= 0.375 <= summary.accuracy.high
    assert set(summarise(correct, np.ones((2, 4)), ks=[3]).pass_at) == {1, 3}


def test_nothing_touches_the_global_random_streams_and_seeds_repeat():
    np.random.seed(3)
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    correct = rng(0).random((20, 8)) < 0.5
    first, second = (summarise(correct, np.ones((20, 8))) for _ in "ab")
    assert first == second
    assert torch.equal(before, torch.get_rng_state()) and np.array_equal(numpy_before, np.random.get_state()[1])


def test_bad_input():
    ones = np.ones((2, 3))
    for call, message in (
        (lambda: pass_at_k(ones, 4), "pass@4 needs at least 4"),
        (lambda: pass_at_k(ones, 0), "k of at least 1"),
        (lambda: pass_at_k([True, False], 1), "table of prompts x completions"),
        (lambda: pass_at_k(np.ones((0, 3)), 1), "table of prompts x completions"),
        (lambda: pass_at_k(ones * 0.5, 1), "must be True or False"),
        (lambda: pass_at_k(ones, 1, valid=np.ones((3, 2))), r"valid has the shape \[3, 2\]"),
        (lambda: pass_at_k_interval(ones, 1, valid=ones * 0), "No prompt has 1"),
        (lambda: clustered_mean(ones, valid=ones * 0), "no valid completion"),
        (lambda: majority_vote([["1"] * 3], ones), "one answer"),
        (lambda: majority_vote([["1"] * 3] * 2, ones, 4), "4 completions cannot vote"),
        (lambda: majority_vote([["1"] * 3] * 2, ones, 2), "give a generator"),
        (lambda: summarise(ones, ones, valid=ones * 0), "nothing to summarise"),
        (lambda: summarise(ones, np.ones((3, 2))), r"lengths has the shape"),
        (lambda: pass_at_k_interval(ones, 1, level=2.0), "confidence level"),
    ):
        with pytest.raises(RheostatError, match=message):
            call()


def test_kinds_of_prompts_are_told_apart():
    """pass@k of a kind is that of its prompts alone; what has no kind counts only in the whole."""
    right = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]], bool)
    summary = summarise(right, np.ones((4, 4)), families=["b", "a", "b", None], chance=0.1)
    assert list(summary.families) == ["a", "b"] and set(summary.families["a"]) == {1, 2, 4}
    assert summary.families["a"][1].estimate == 1 and summary.families["b"][1].estimate == pytest.approx(1 / 8)
    assert summary.families["b"][4].estimate == pytest.approx(1 / 2) and summary.chance == 0.1
    assert summary.scalars()["pass@4 (b)"] == pytest.approx(1 / 2)
