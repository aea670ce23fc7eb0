"""Baselines of scores and the running normalisation, beside loops."""

from __future__ import annotations

import statistics

import pytest
import torch

from rheostat.credit.score_baselines import RunningRewards, ScoreBaseline
from rheostat.errors import RheostatError

SCORE = torch.tensor([[0.3, 0.9, 0.1], [0.5, 0.5, 0.8]], dtype=torch.float64)


def test_every_reward_is_normalised_by_all_before_it_and_itself() -> None:
    values = SCORE.flatten().tolist()
    wanted = [(value - statistics.fmean(values[: i + 1])) / (statistics.pstdev(values[: i + 1]) + 1e-12) for i, value in enumerate(values)]
    whole = RunningRewards()
    torch.testing.assert_close(whole.normalise(SCORE).flatten(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    halves, resumed = RunningRewards(), RunningRewards()
    first = halves.normalise(SCORE[:1])
    resumed.load_state_dict(halves.state_dict())
    torch.testing.assert_close(torch.cat([first, resumed.normalise(SCORE[1:])]).flatten().tolist(), wanted, rtol=1e-6, atol=1e-6)
    assert float(first[0, 0]) == 0


def test_baselines() -> None:
    mean = SCORE.mean()
    torch.testing.assert_close(ScoreBaseline("none")(SCORE), SCORE)
    torch.testing.assert_close(ScoreBaseline("batch-mean")(SCORE), SCORE - mean)
    torch.testing.assert_close(ScoreBaseline("prompt-mean")(SCORE), SCORE - SCORE.mean(1, keepdim=True))
    others = torch.tensor([[(row.sum() - value) / 2 for value in row] for row in SCORE])
    torch.testing.assert_close(ScoreBaseline("leave-one-out")(SCORE), SCORE - others.double())
    moving, running = ScoreBaseline("moving-average"), ScoreBaseline("running-mean")
    torch.testing.assert_close(moving(SCORE), SCORE - mean)
    torch.testing.assert_close(moving(SCORE + 1), SCORE + 1 - (0.9 * mean + 0.1 * (mean + 1)))
    torch.testing.assert_close(running(SCORE), SCORE - mean)
    resumed = ScoreBaseline("running-mean")
    resumed.load_state_dict(running.state_dict())
    torch.testing.assert_close(resumed(SCORE + 1), SCORE + 1 - (mean + 0.5))


def test_refusals() -> None:
    with pytest.raises(RheostatError, match="at least 2"):
        ScoreBaseline("leave-one-out")(SCORE[:, :1])
    with pytest.raises(RheostatError, match="batch-mean"):
        ScoreBaseline("median")  # type: ignore[arg-type]
