"""Scores keep three things apart: a reward, a grader that abstains, and a grader that failed."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.credit.verifiers import (
    ExactMatch,
    FunctionVerifier,
    Grade,
    Rollout,
    Scores,
    Verifier,
    WeightedSum,
    load_rewards,
    require_valid,
)
from rheostat.credit.verifiers.answer_extraction import EXTRACTORS, extractor
from rheostat.credit.verifiers.conventions import grades_of
from rheostat.errors import RheostatError

grades = st.builds(
    Grade,
    reward=st.none() | st.floats(width=32),
    parts=st.dictionaries(st.sampled_from(["a", "b"]), st.floats(-5, 5, width=32)),
    notes=st.dictionaries(st.just("why"), st.text(max_size=3)),
    failed=st.booleans(),
    message=st.sampled_from(["", "broke"]),
)


@given(st.lists(grades, max_size=6))
def test_a_row_is_valid_abstained_or_failed_and_only_valid_rows_have_a_reward(rows):
    scores = Scores.from_grades(rows)
    assert len(scores) == len(rows)
    assert torch.equal(scores.valid.int() + scores.abstained.int() + scores.failed.int(), torch.ones(len(rows), dtype=torch.int32))
    assert torch.equal(scores.valid, scores.reward.isfinite())
    for row, grade in enumerate(rows):
        usable = grade.reward is not None and math.isfinite(grade.reward) and not grade.failed
        assert bool(scores.valid[row]) == usable
        assert bool(scores.abstained[row]) == (grade.reward is None and not grade.failed)
        if bool(scores.failed[row]):
            assert scores.messages[row]


@given(st.lists(grades, max_size=6))
def test_scores_survive_the_way_to_grades_and_back(rows):
    once = Scores.from_grades(rows)
    again = Scores.from_grades(grades_of(once))
    assert torch.equal(once.valid, again.valid) and torch.equal(once.abstained, again.abstained)
    assert torch.equal(once.reward[once.valid], again.reward[once.valid])
    assert once.messages == again.messages and once.notes == again.notes
    for name, part in again.parts.items():
        assert torch.equal(part.nan_to_num(99), once.parts[name].nan_to_num(99))


def test_a_reward_that_is_not_finite_is_a_failure_that_says_so():
    scores = Scores.from_grades([Grade(math.nan), Grade(-math.inf), Grade(0.0)])
    assert scores.valid.tolist() == [False, False, True]
    assert "nan" in scores.messages[0] and "inf" in scores.messages[1]
    assert scores.invalid_share == pytest.approx(2 / 3)


class Raises:
    def __float__(self):
        raise ZeroDivisionError

    def __repr__(self):
        raise ZeroDivisionError


NUMBERS = [
    (True, 1.0),
    (np.float64(0.5), 0.5),
    (np.float16(0.5), 0.5),
    (np.int8(-3), -3.0),
    (np.bool_(True), 1.0),
    (np.array([2.0]), 2.0),
    (torch.tensor(2), 2.0),
    (Decimal("0.25"), 0.25),
    (Fraction(1, 4), 0.25),
    (3.4e38, 3.4e38),
    (10**38, 1e38),
]
NO_NUMBERS = [
    *(
        "1e400",
        "1.0",
        b"1",
        bytearray(b"1"),
        [1.0],
        {"a": 1},
        object(),
        1j,
        np.complex64(1),
        torch.tensor(1j),
        np.array([1.0, 2.0]),
        Raises(),
    ),
    *(10**400, -(10**400), 10**5000, Decimal("1e400"), Decimal("NaN"), Decimal("sNaN"), math.nan, math.inf, -math.inf, 3.5e38, -1e300),
    *(np.float32("nan"), np.datetime64("2020"), torch.tensor(math.inf)),
]


@pytest.mark.parametrize(("given", "value"), NUMBERS, ids=repr)
def test_whatever_is_a_number_is_a_reward(given, value):
    for grade in (FunctionVerifier(lambda rollout: given), FunctionVerifier(lambda rollout: {"score": given, "part": given})):
        scores = grade.score([Rollout("q", "a")])
        assert scores.valid.all() and scores.reward.item() == pytest.approx(value, rel=1e-6)
    assert Scores.from_grades([Grade(given, {"part": given})]).parts["part"].item() == pytest.approx(value, rel=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_finite_number_is_a_failure_in_one_sentence(given):
    for returned in ({"score": given}, Grade(given), *([] if isinstance(given, dict) else [given])):
        scores = FunctionVerifier(lambda rollout, returned=returned: returned).score([Rollout("q", "a")])
        assert scores.failed.all() and scores.reward.isnan().all(), returned
        assert "not a number" in scores.messages[0] or "not a reward" in scores.messages[0]
        assert "\n" not in scores.messages[0] and len(scores.messages[0]) < 200
    alone = Scores.from_grades([Grade(given), Grade(0.0, {"part": given})])
    assert alone.failed.tolist() == [True, False] and alone.parts["part"][1].isnan()


@pytest.mark.parametrize(
    ("reward", "valid", "message"),
    [([1.0, math.inf], [True, True], "Row 1 .* reward is inf"), ([1.0], [True, True], "shapes"), ([[1.0], [2.0]], [True, True], "shapes")],
)
def test_scores_that_contradict_themselves_are_refused(reward, valid, message):
    with pytest.raises(RheostatError, match=message):
        Scores(torch.tensor(reward), torch.tensor(valid), torch.zeros(len(valid), dtype=torch.bool))


def constant(name, value):
    return FunctionVerifier(lambda rollout: value, name)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.0, 0.0), "all 0"),
        ((1.0, math.nan), "nan of a reward is not a finite number"),
        ((math.inf, 1.0), "inf of a reward"),
        (("a", 1.0), "'a' of a reward"),
        ((10**400, 1.0), "not a finite number"),
        ((1.0,), "2 rewards have 1 weights"),
        ((), "2 rewards have 0 weights"),
    ],
)
def test_weights_that_cannot_weigh(weights, message):
    for make in (
        lambda: WeightedSum([constant("a", 1.0), constant("b", 2.0)], weights),
        lambda: load_rewards(["nowhere.py:f"] * 2, weights),
    ):
        with pytest.raises(RheostatError, match=message):
            make()


def test_sums_beyond_float32_are_failures():
    scores = WeightedSum([constant("a", 3e38), constant("b", 3e38)]).score([Rollout("q", "a")])
    assert scores.failed.all() and "not a reward" in scores.messages[0] and scores.parts["a"].isfinite().all()
    scores = WeightedSum([constant("a", 3e38), constant("b", math.inf)], [-1, 0]).score([Rollout("q", "a")])
    assert scores.valid.all() and scores.reward.item() == pytest.approx(-3e38)


def test_too_many_failures_stop_with_the_first_reasons():
    scores = Scores.from_grades([Grade(1.0)] * 6 + [Grade.failure("no table."), Grade.failure("no table."), Grade.failure("hung")])
    with pytest.raises(RheostatError, match=r"3 of 9 completions \(33%.*row 6: no table; row 8: hung\. Failed rows are masked"):
        require_valid(scores, 0.3)
    require_valid(scores, 0.34)


def test_abstaining_stops_nothing():
    scores = Scores.from_grades([Grade(), Grade()])
    require_valid(scores, 0.0)
    assert scores.invalid_share == 0.0 and not scores.valid.any()
    require_valid(Scores.from_grades([]), 0.0)


def test_verifiers_satisfy_the_protocol():
    assert isinstance(ExactMatch(), Verifier)
    assert isinstance(FunctionVerifier(lambda rollout: 1.0, "one"), Verifier)
    assert not isinstance(lambda rollouts: [], Verifier)


@pytest.mark.parametrize(
    ("name", "completion", "found"),
    [
        ("whole", " 5 \n", "5"),
        ("last-line", "a\nb\n\n", "b"),
        ("last-line", "", None),
        ("hash", "3+7=0;#0", "0"),
        ("hash", "so #### 42", "42"),
        ("hash", "none", None),
        ("tag", "<answer>1</answer> no, <answer> 2\n</answer>", "2"),
        ("tag", "2", None),
        ("tag-or-whole", "2 ", "2"),
        ("tag-or-whole", "x<answer></answer>", ""),
        ("boxed", r"\boxed{1} or \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{1", None),
    ],
)
def test_finding_the_answer(name, completion, found):
    assert extractor(name)(completion) == found


def test_exact_match_is_invalid_without_a_reference_and_wrong_without_an_answer():
    verifier = ExactMatch("hash")
    scores = verifier.score([Rollout("p", "#5", answer=5), Rollout("p", "5", answer=5), Rollout("p", "#6", answer=5), Rollout("p", "#5")])
    assert scores.reward[:3].tolist() == [1.0, 0.0, 0.0]
    assert scores.parts["answered"][:3].tolist() == [1.0, 0.0, 1.0]
    assert scores.failed.tolist() == [False, False, False, True]
    assert set(EXTRACTORS) >= {"whole", "hash", "tag", "boxed", "last-line"}
    with pytest.raises(RheostatError, match="did you mean hash"):
        ExactMatch("hsh")


def test_the_text_of_a_chat_prompt():
    assert Rollout("p", "").prompt_text == "p"
    assert Rollout([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], "").prompt_text == "a\nb"
