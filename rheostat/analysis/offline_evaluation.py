"""What a trained policy would earn, judged from a data set alone: fitted Q evaluation, importance sampling, doubly robust.

Fitted Q evaluation (FQE; Le et al. 2019, Voloshin et al. 2021) regresses one critic on ``y = r + gamma (1 - terminated) Qbar(s', pi(s'))``
and reports the mean of ``Q(s_0, pi(s_0))``; the slow copy takes over every so many steps. Importance sampling and doubly robust need to
know how likely the data's actions were; see :mod:`rheostat.credit.off_policy_evaluation`.

All values are discounted returns from the first state of an episode. Where a time limit cuts episodes, FQE goes on beyond it, because it
bootstraps there; the others count what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.buffers.offline import OfflineData
from rheostat.buffers.replay import Replay
from rheostat.credit.off_policy_evaluation import Estimate, doubly_robust, importance_sampling
from rheostat.errors import RheostatError, unknown
from rheostat.objectives.temporal_difference import critic_loss, td_target
from rheostat.policies.control.critics import EnsembleQ
from rheostat.policies.control.discrete_q import ChoiceScores, scores_of
from rheostat.policies.control.squashed import Bounds
from rheostat.policies.parameters import Target, Trained
from rheostat.streams import Streams

ESTIMATORS = ("data", "fqe", "is", "wis", "pdis", "wpdis", "dr", "wdr")
"""The data's own return; FQE; importance sampling: ordinary, weighted, per-decision, weighted per-decision; doubly robust, and weighted."""
WEIGHTED = ("is", "wis", "pdis", "wpdis", "dr", "wdr")


@dataclass(frozen=True)
class FQEConfig:
    """d3rlpy's defaults, with batches of 256."""

    steps: int = 10_000
    """Gradient steps."""
    batch_size: int = 256
    """Transitions per gradient step."""
    learning_rate: float = 1e-4
    """Adam step size."""
    target_every: int = 100
    """Gradient steps after which the slow copy takes over."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of the critic."""
    gamma: float = 0.99
    """Discount per step, of all estimators."""
    draws: int = 4
    """Actions per state where the policy's value is the mean over its actions (doubly robust)."""


class Judged:
    """A policy as the estimators ask it.

    Args:
        act: raw observations ``[N, ...]`` to a distribution of the world's actions (``run.method.context.act_on_target``).
        data: for the spaces.
        streams: draws actions.
    """

    def __init__(self, act: Callable[[Tensor], Any], data: OfflineData, streams: Streams) -> None:
        from gymnasium.spaces import Discrete

        self.act, self.streams = act, streams
        self.discrete = isinstance(data.action_space, Discrete)
        self.bounds = None if self.discrete else Bounds.of(data.action_space, "Off-policy evaluation")

    def best(self, observation: Tensor) -> Tensor:
        """The deterministic action, as a critic reads it."""
        return self.seen(self.act(observation).mode())

    def drawn(self, observation: Tensor) -> Tensor:
        """A sampled action, as a critic reads it."""
        return self.seen(self.act(observation).sample(self.streams["actions"]))

    def seen(self, action: Tensor) -> Tensor:
        """The world's actions as a critic reads them: unit actions, or choices."""
        return action if self.bounds is None else self.bounds.to_unit(action)


class FittedQ:
    """The critic of one policy on one data set.

    Args:
        policy: whose value.
        data: what it is fitted to.
        config: see :class:`FQEConfig`.
        streams: draws initial weights and batches.
        sampled: the policy acts by sampling; False by its deterministic action.
    """

    def __init__(self, policy: Judged, data: OfflineData, config: FQEConfig, streams: Streams, *, sampled: bool) -> None:
        self.policy, self.config, self.streams = policy, config, streams
        self.choose = policy.drawn if sampled else policy.best
        rows = data.transitions
        flat = rows.observation.flatten(1) if rows.observation.dtype != torch.uint8 else None
        if flat is not None:
            self.shift, self.scale = flat.mean(0), flat.std(0, unbiased=False) + 1e-3
        draw = streams["networks"]
        network: Any
        if policy.discrete:
            network = ChoiceScores(data.observation_space, int(data.action_space.n), hidden=config.hidden, generator=draw)  # type: ignore[attr-defined]
        else:
            assert policy.bounds is not None
            network = EnsembleQ(rows.observation.shape[1], len(policy.bounds.centre), networks=1, hidden=config.hidden, generator=draw)
        self.critic = Trained(network, config.learning_rate)
        self.slow = Target(self.critic)
        self.replay = Replay(len(rows), gamma=config.gamma)
        self.replay.append_transitions(rows, data.breaks)

    def normalise(self, observation: Tensor) -> Tensor:
        """What the critic reads; images as they are."""
        return observation if observation.dtype == torch.uint8 else (observation - self.shift) / self.scale

    def of(self, network: Any, observation: Tensor, action: Tensor) -> Tensor:
        """Q of raw observations and of actions as a critic reads them, ``[N]``."""
        seen = self.normalise(observation)
        return scores_of(network(seen), action) if self.policy.discrete else network(seen, action)[0]

    def fit(self, watch: Callable[[int, float], None] = lambda step, loss: None) -> FittedQ:
        """Make the gradient steps; ``watch`` is told the step and its loss now and then."""
        for step in range(1, self.config.steps + 1):
            rows = self.replay.sample(self.config.batch_size, self.streams["batches"])
            with torch.no_grad():
                following = self.of(self.slow.network, rows.next_observation, self.choose(rows.next_observation))
            target = td_target(rows.reward, following, rows.discount)
            q = self.of(self.critic.network, rows.observation, self.policy.seen(rows.action)).unsqueeze(0)
            loss = critic_loss(q, target, huber=1.0 if self.policy.discrete else None)
            if not math.isfinite(loss.item()):
                raise RheostatError(f"The loss of fitted Q evaluation became {loss.item()} in step {step}: lower its learning rate.")
            self.critic.descend(loss)
            if step % self.config.target_every == 0:
                self.slow.follow(1.0)
                watch(step, loss.item())
        return self

    @torch.no_grad()
    def value(self, observation: Tensor) -> Tensor:
        """Q at the policy's action, ``[N]``; a mean over several where it samples."""
        draws = self.config.draws if self.choose == self.policy.drawn else 1
        return torch.stack([self.of(self.critic.network, observation, self.choose(observation)) for _ in range(draws)]).mean(0)

    @torch.no_grad()
    def q(self, observation: Tensor, action: Tensor) -> Tensor:
        """Q of the world's actions, ``[N]``."""
        return self.of(self.critic.network, observation, self.policy.seen(action))


@dataclass(frozen=True)
class Row:
    """One estimator's word."""

    estimator: str
    value: float
    standard_error: float
    effective_episodes: float | None
    """Episodes that carry the weights; None where nothing is weighted."""


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
        act: raw observations to a distribution of actions.
        data: whose ``sampler_logp`` the weighted estimators need.
        estimators: of :data:`ESTIMATORS`.
        config: of the critic; its ``gamma`` is everyone's.
        seed: of weights, batches and actions.
        sampled: FQE judges the sampling policy instead of the deterministic one. Weighted estimators always judge the sampling one, and so
            does the critic inside doubly robust.
        watch: told how the fits go.

    Raises:
        RheostatError: an estimator that does not exist, weights for data of unknown probability or for a policy without a density, fewer
            than two episodes.
    """
    config = config or FQEConfig()
    for name in estimators:
        if name not in ESTIMATORS:
            raise unknown("estimator", name, ESTIMATORS)
    data.require_episodes(2, "Off-policy evaluation")
    streams = Streams(seed)
    policy = Judged(act, data, streams)
    rows = data.transitions
    first = torch.tensor([episode.start for episode in data.episodes])
    found: list[Row] = []
    ratio = log_ratios(policy, data) if set(estimators) & set(WEIGHTED) else None
    critics: dict[bool, FittedQ] = {}

    def critic(by_sampling: bool) -> FittedQ:
        if by_sampling not in critics:
            critics[by_sampling] = FittedQ(policy, data, config, Streams(seed), sampled=by_sampling).fit(watch)
        return critics[by_sampling]

    def spread(values: Tensor) -> tuple[float, float]:
        return values.double().mean().item(), values.double().std().item() / math.sqrt(len(values))

    for name in estimators:
        if name == "data":
            discount = config.gamma ** torch.arange(int(data.lengths.max()), dtype=torch.float64)
            returns = torch.stack([(rows.reward[e].double() * discount[: e.stop - e.start]).sum() for e in data.episodes])
            found.append(Row(name, *spread(returns), None))
        elif name == "fqe":
            found.append(Row(name, *spread(critic(sampled).value(rows.observation[first])), None))
        else:
            assert ratio is not None
            found.append(row_of(name, weighted_estimate(name, ratio, data, config.gamma, critic)))
    return found


def log_ratios(policy: Judged, data: OfflineData) -> Tensor:
    """log pi(a|s) - log mu(a|s) of every step, ``[n]``, on the draws before clipping where they are kept.

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
    """One of the weighted estimators."""
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


def row_of(name: str, estimate: Estimate) -> Row:
    """An estimate as plain numbers."""
    numbers = (estimate.value, estimate.standard_error, estimate.effective_sample_size)
    return Row(name, *(float(np.float64(number.item())) for number in numbers))
