"""Win rates, judges asked in both orders, calibration and the length bias of reward models, on numbers whose right values are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.credit.preference_measures import calibration_error, correlation, judged, length_bias, win_rate
from rheostat.errors import RheostatError

REWARDS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12)


@given(REWARDS)
def test_a_win_rate_and_that_of_the_other_side_add_up_to_1(pairs: list[tuple[int, int]]) -> None:
    mine, theirs = (torch.tensor(side, dtype=torch.float32) for side in zip(*pairs, strict=True))
    expected = sum(a > b or 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert win_rate(mine, theirs) == pytest.approx(expected)
    assert win_rate(mine, theirs) + win_rate(theirs, mine) == pytest.approx(1)
    assert win_rate(mine, mine) == 0.5


def test_rows_without_both_rewards_are_left_out() -> None:
    nan = math.nan
    assert win_rate(torch.tensor([1.0, nan, 0.0]), torch.tensor([0.0, 5.0, nan])) == 1.0
    assert math.isnan(win_rate(torch.tensor([nan]), torch.tensor([1.0])))
    with pytest.raises(RheostatError, match="must have one shape"):
        win_rate(torch.zeros(2), torch.zeros(3))


@given(st.lists(st.floats(0.05, 0.95), min_size=1, max_size=10), st.floats(0.0, 0.6))
def test_a_preference_for_a_position_cancels(quality: list[float], bias: float) -> None:
    """A judge that adds something to whatever stands first says the same of both policies as one that does not."""

    def judge(prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Tensor:
        better = torch.tensor(quality) if first[0] == "mine" else 1 - torch.tensor(quality)
        return better + bias

    found = judged(judge, ["?"] * len(quality), ["mine"] * len(quality), ["theirs"] * len(quality))
    plain = sum(1.0 if q > 0.5 else 0.5 if q == 0.5 else 0.0 for q in torch.tensor(quality).tolist()) / len(quality)
    if all(abs(q - 0.5) > 1e-3 for q in quality):
        assert found.win_rate == pytest.approx(plain)
    assert found.position_bias == pytest.approx(bias, abs=1e-6)


def test_a_judge_of_positions_alone_knows_nothing() -> None:
    found = judged(lambda prompts, first, second: torch.ones(len(prompts)), ["?"] * 4, ["a"] * 4, ["b"] * 4)
    assert found == (0.5, 0.5, 1.0)


def test_calibration() -> None:
    assert calibration_error(torch.tensor([0.75, 0.75, 0.75, 0.25])) == pytest.approx(0.0)  # sure by 3/4, right in 3 of 4
    assert calibration_error(torch.full((8,), 0.9)) == pytest.approx(0.1)  # too modest: right in all
    assert calibration_error(torch.full((8,), 0.1)) == pytest.approx(0.9)  # sure, and wrong in all
    assert calibration_error(torch.tensor([0.95, 0.05, 0.55, 0.45])) == pytest.approx(0.25)  # (.95 - .5 + .55 - .5) / 2
    assert math.isnan(calibration_error(torch.zeros(0)))


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_a_calibration_error_is_a_distance_of_shares(probability: list[float]) -> None:
    assert 0 <= calibration_error(torch.tensor(probability)) <= 1


def test_length_bias() -> None:
    chosen, rejected = torch.tensor([4.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 3.0])
    lengths = torch.tensor([4.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 5.0])
    found = length_bias(chosen, rejected, *lengths)
    assert found["accuracy_longer_chosen"] == 1.0 and found["accuracy_shorter_chosen"] == 0.0  # equal rewards are wrong
    x, y = torch.cat([chosen, rejected]), torch.cat(lengths)
    assert found["length_correlation"] == pytest.approx(torch.corrcoef(torch.stack([x, y]))[0, 1].item(), abs=1e-6)
    assert correlation(torch.ones(3), torch.arange(3.0)) == 0.0
    assert set(length_bias(chosen, rejected, lengths[0], lengths[0])) == {"length_correlation"}
