"""Rejection: tokens and completions that are too far from their sampler leave the policy's update, in every method that corrects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.options import options_of
from rheostat.parts import Batch
from rheostat.training.run import Run
from rheostat.training.settings import configure
from rheostat.training.warnings import no_signal
from rheostat.trajectories import Source
from tests.learners import credited, update_of, weights
from tests.methods.test_language_methods import LANGUAGE, Lenient, built, save, small

CORRECTING = [name for name in LANGUAGE if any(each.path == "correction.level" for each in options_of(configure(name, {})))]
NEAR: dict[str, Any] = {"rejection": "mean", "rejection_high": 0.01}
TOKENS: dict[str, dict[str, Any]] = {"oprl": {"ratio": "token"}}
"""What a method needs to have ratios of single tokens."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def drifted(one: Any, by: float = 0.5) -> Batch:
    """A credited batch in which every second row is further from its sampler than is accepted: k3 of .5 nats is .107."""
    context = one.context
    context.needs_old_scores = True
    batch = credited(one)
    batch.rows.sampler_logp[::2] = batch.rows.sampler_logp[::2] + by
    return batch


def test_every_method_that_corrects_is_here() -> None:
    assert {"grpo", "tis", "dapo", "ppo-lm", "chord", "prime", "treepo", "reinforce"} <= set(CORRECTING)


@pytest.mark.parametrize("method", CORRECTING)
def test_what_is_rejected_is_as_if_it_had_never_been_there(method: str, model: str) -> None:
    own = TOKENS.get(method, {})
    rejecting, without = built(method, model, **NEAR, **own), built(method, model, **own)
    batch, other = drifted(rejecting), drifted(without)
    others = torch.tensor([int(Source.EXPERT), int(Source.ANNOTATION)])
    mine = ~torch.isin(other.rows.source, others) & other.rows.mask
    metrics = update_of(rejecting).improve(rejecting.context, batch)
    other.rows.mask[::2] &= ~mine[::2]
    expected = update_of(without).improve(without.context, other)
    torch.testing.assert_close(weights(rejecting.policy), weights(without.policy), atol=0, rtol=0)
    gone = int(mine[::2].sum())
    assert metrics["meter/rejected_token_share"] == pytest.approx(gone / int(batch.rows.mask.sum()))
    assert metrics["meter/rejected_completion_share"] > 0 and metrics["gradient_steps"] == expected["gradient_steps"] > 0
    assert not any("rejected" in name for name in expected)


def test_single_tokens_leave_alone(model: str) -> None:
    one = built("grpo", model, rejection="token", rejection_statistic="k1", rejection_low=-0.1, rejection_high=0.2)
    batch = drifted(one, by=0.0)
    mask = batch.rows.mask
    first = mask.int().argmax(1)
    rows = torch.arange(len(batch))
    batch.rows.sampler_logp[rows, first] += torch.where(rows % 2 == 0, 0.3, -0.3)
    kept, shares = update_of(one).accepted(batch)
    expected = mask.clone()
    expected[rows, first] = False
    assert torch.equal(kept.rows.mask, expected) and torch.equal(batch.rows.mask, mask)
    assert shares["meter/rejected_token_share"] == pytest.approx(len(batch) / int(mask.sum()))


@pytest.mark.parametrize("method", ["prime", "process-reward"])
def test_a_reward_model_learns_from_all_completions(method: str, model: str) -> None:
    own = TOKENS.get(method, {})
    rejecting, without = built(method, model, **NEAR, **own), built(method, model, **own)
    for one in (rejecting, without):
        one.improve(drifted(one))
    ends = [weights(one.context.models["reward"].network) for one in (rejecting, without)]
    torch.testing.assert_close(ends[0], ends[1], atol=0, rtol=0)
    assert not torch.equal(weights(rejecting.policy), weights(without.policy))


def test_a_batch_that_is_rejected_whole_moves_nothing_and_a_run_says_so(model: str, tmp_path: Path) -> None:
    one = built("grpo", model, rejection="max", rejection_high=0.0)
    batch = drifted(one)
    batch.rows.sampler_logp += 1.0
    start = weights(one.policy)
    metrics = one.improve(batch)
    assert torch.equal(weights(one.policy), start)
    assert metrics["meter/rejected_token_share"] == metrics["meter/rejected_completion_share"] == 1.0 and metrics["gradient_steps"] == 0
    (sentence,) = no_signal([metrics] * 3)
    assert sentence.startswith("Every token was rejected in the last 3 updates, so nothing was learned") and "rejection_high" in sentence
    assert no_signal([metrics] * 2) == no_signal([metrics, metrics, metrics | {"meter/rejected_token_share": 0.9}]) == []


def test_an_experts_tokens_are_never_rejected(model: str) -> None:
    """Who wrote them is no sampler: no log-probability of theirs is known."""
    one = built("grpo", model, max_new_tokens=48, **NEAR, **{"dial.expert_share": 0.25})
    batch = drifted(one)
    kept, _ = update_of(one).accepted(batch)
    theirs = batch.rows.source == int(Source.EXPERT)
    assert bool((theirs & batch.rows.mask).any()) and torch.equal(kept.rows.mask & theirs, batch.rows.mask & theirs)


def test_a_run_rejects_what_is_stale(model: str, tmp_path: Path) -> None:
    """After an update that rejects everything the sampler is the learner again."""
    options = NEAR | {"rejection_high": 1e-5, "steps": 3, "learning_rate": 0.05, "dial.lag": 1}
    run = Run.create(tmp_path / "run", small("grpo", model, **options), task=Lenient()).train()
    assert [row["meter/rejected_completion_share"] for row in run.metrics] == [0.0, 1.0, 0.0]
    assert [row["gradient_steps"] for row in run.metrics] == [1, 0, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rejection": "mean"}, "rejection 'mean' rejects what is outside of its bounds, and there are none: set rejection_high."),
        ({"rejection_high": 0.1}, "correction.rejection.high would do nothing: nothing is rejected, so choose a rejection"),
        ({"rejection_statistic": "k1"}, "correction.rejection.statistic would do nothing: nothing is rejected"),
        ({"rejection": "sum", "rejection_high": 0.1, "rejection_low": -0.1}, "k3 is never negative; only k1 has a lower bound"),
        ({"rejection": "sum", "rejection_high": -0.1}, "must be at least 0"),
        ({"rejection": "sum", "rejection_statistic": "k1", "rejection_low": 0.1}, "must be at most 0"),
        ({"rejection": "row", "rejection_high": 0.1}, "rejection"),
    ],
)
def test_mistakes_are_refused(options: dict[str, Any], said: str, model: str) -> None:
    with pytest.raises(RheostatError) as error:
        built("grpo", model, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_searched_window_can_stand_beside_a_rejection(model: str) -> None:
    """A mask is no second weight: what is left keeps its ratio to the sampler."""
    one = built("grpo", model, clip="searched", **NEAR)
    assert update_of(one).improve(one.context, drifted(one))["meter/rejected_completion_share"] == 0.5
