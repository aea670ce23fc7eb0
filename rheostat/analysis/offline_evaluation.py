"""Off-policy evaluation of a trained policy from a data set alone: fitted Q evaluation, importance sampling, doubly robust.

Fitted Q evaluation is in :mod:`rheostat.analysis.fitted_q`. Importance sampling and doubly robust need the probability of the data's
actions; see :mod:`rheostat.credit.off_policy_evaluation`.

All values are discounted returns from the first state of an episode, and every row gives the number of steps: where a time limit cuts
episodes, FQE bootstraps beyond it (unless it has a ``horizon``); the others count only observed rewards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.analysis.fitted_q import FittedQ, FQEConfig, Judged
from rheostat.buffers.offline import OfflineData
from rheostat.credit.off_policy_evaluation import Estimate, doubly_robust, importance_sampling
from rheostat.errors import RheostatError, unknown
from rheostat.streams import Streams

ESTIMATORS = ("data", "fqe", "is", "wis", "pdis", "wpdis", "dr", "wdr")
"""The data's own return; FQE; importance sampling: ordinary, weighted, per-decision, weighted per-decision; doubly robust, and weighted."""
WEIGHTED = ("is", "wis", "pdis", "wpdis", "dr", "wdr")


@dataclass(frozen=True)
class Row:
    """The result of one estimator."""

    estimator: str
    value: float
    standard_error: float
    """Standard error from the first states and the noise of the data; for FQE also from the remaining error of the fit."""
    effective_episodes: float | None
    """Episodes that carry the weights; None where nothing is weighted."""
    horizon: str = ""
    """Number of steps of the return."""
    converged: bool | None = None
    """Whether the fit reached its tolerance; None where nothing is fitted."""


def evaluate_offline(
    act: Callable[[Tensor], Any],
    data: OfflineData,
    estimators: tuple[str, ...] = ESTIMATORS,
    *,
    config: FQEConfig | None = None,
    seed: int = 0,
    sampled: bool = False,
    watch: Callable[[int, float], None] = lambda step, loss: None,
) -> list[Row]:
    """Estimates of a policy's discounted return, in the order asked for.

    Args:
        act: raw observations ``[n, ...]`` to a distribution of actions.
        data: the data set; the weighted estimators need its ``sampler_logp``.
        estimators: of :data:`ESTIMATORS`.
        config: of the critic; its ``gamma`` holds for all estimators.
        seed: of weights, batches and actions.
        sampled: FQE evaluates the sampling policy instead of the deterministic one. Weighted estimators always evaluate the sampling one,
            and so does the critic inside doubly robust.
        watch: called with the progress of the fits.

    Raises:
        RheostatError: an estimator that does not exist, weights for data of unknown probability or for a policy without a density, fewer
            than two episodes.
    """
    config = config or FQEConfig()
    for name in estimators:
        if name not in ESTIMATORS:
            raise unknown("estimator", name, ESTIMATORS)
    data.from_the_start().require_episodes(2, "Off-policy evaluation")
    streams = Streams(seed)
    policy = Judged(act, data, streams)
    begun = data.from_the_start()
    found: list[Row] = []
    ratio = log_ratios(policy, begun) if set(estimators) & set(WEIGHTED) else None
    critics: dict[bool, FittedQ] = {}

    def critic(by_sampling: bool) -> FittedQ:
        if by_sampling not in critics:
            critics[by_sampling] = FittedQ(policy, data, config, Streams(seed), sampled=by_sampling).fit(watch)
        return critics[by_sampling]

    def spread(values: Tensor) -> tuple[float, float]:
        return values.double().mean().item(), values.double().std().item() / math.sqrt(len(values))

    seen = f"as seen, at most {int(begun.lengths.max()):,} steps"
    for name in estimators:
        if name == "data":
            discount = config.gamma ** torch.arange(int(begun.lengths.max()), dtype=torch.float64)
            reward = begun.transitions.reward.double()
            returns = torch.stack([(reward[e] * discount[: e.stop - e.start]).sum() for e in begun.episodes])
            found.append(Row(name, *spread(returns), None, seen))
        elif name == "fqe":
            judge = critic(sampled)
            value, error = spread(judge.value(begun.transitions.observation[[e.start for e in begun.episodes]]))
            error = math.hypot(error, judge.error_of_returns(begun), judge.left)
            horizon = f"{config.horizon:,} steps" if config.horizon else "no end, beyond time limits"
            found.append(Row(name, value, error, None, horizon, judge.converged))
        else:
            assert ratio is not None
            found.append(row_of(name, weighted_estimate(name, ratio, begun, config.gamma, critic), seen))
    return found


def log_ratios(policy: Judged, data: OfflineData) -> Tensor:
    """log pi(a|s) - log mu(a|s) of every step, ``[n]``, of the actions before clipping where they are stored.

    Raises:
        RheostatError: see :func:`evaluate_offline`.
    """
    rows = data.transitions
    if bool(rows.sampler_logp.isnan().any()):
        raise RheostatError(
            f"{data.name} does not say how likely its actions were, so nothing can be weighted: use the estimators data and fqe, or a data "
            "set of `rheostat dataset make`."
        )
    action = rows.action if data.drawn_action is None else data.drawn_action
    with torch.no_grad():
        logp = policy.act(rows.observation).log_prob(action)
    if bool(logp.isnan().any()):
        raise RheostatError("The policy is deterministic and has no density to weigh by: use the estimators data and fqe.")
    return logp - rows.sampler_logp


def weighted_estimate(name: str, ratio: Tensor, data: OfflineData, gamma: float, critic: Callable[[bool], FittedQ]) -> Estimate:
    """One of the weighted estimators.

    Args:
        name: of :data:`ESTIMATORS`.
        ratio: ``[n]``, log-probability of every step under the policy less that under the behaviour policy, in nats.
        data: ``n`` steps in episodes.
        gamma: discount per step.
        critic: makes the fitted critic; called only for a doubly robust estimator.
    """
    rows = data.transitions
    longest = int(data.lengths.max())

    def padded(values: Tensor) -> Tensor:
        found = values.new_zeros(len(data.episodes), longest)
        for index, episode in enumerate(data.episodes):
            found[index, : episode.stop - episode.start] = values[episode]
        return found

    mask = torch.arange(longest) < data.lengths.unsqueeze(-1)
    log_ratio, reward = padded(ratio), padded(rows.reward)
    weighted = name.startswith("w")
    if name.endswith("dr"):
        judge = critic(True)
        q, value = padded(judge.q(rows.observation, rows.action)), padded(judge.value(rows.observation))
        return doubly_robust(log_ratio, reward, q, value, mask, gamma=gamma, weighted=weighted)
    return importance_sampling(log_ratio, reward, mask, gamma=gamma, per_decision="pd" in name, weighted=weighted)


def row_of(name: str, estimate: Estimate, horizon: str) -> Row:
    """An estimate as plain numbers."""
    numbers = (estimate.value, estimate.standard_error, estimate.effective_sample_size)
    value, error, episodes = (float(np.float64(number.item())) for number in numbers)
    return Row(name, value, error, episodes, horizon)
