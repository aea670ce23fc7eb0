"""Fitted Q evaluation: a critic of one policy from the data of another, iterated until it is its own fixed point.

    Q <- argmin_q mean (q(s, a) - r - gamma (1 - terminated) Q(s', pi(s')))^2        (Le et al. 2019, Voloshin et al. 2021)

The error is squared for discrete actions too: the minimum of the squared error is a mean, that of Huber's lies between mean and median.

Every iteration propagates rewards one step back, so k iterations cover k steps, and the mean error shrinks only by ``gamma`` each. The
slowest part is a constant offset of all values: after every iteration Q is replaced by ``a Q + b`` with the two numbers whose Bellman error
is orthogonal to Q and to 1 (a projection onto two features, solved exactly). It does not change a fixed point. The fit ends when the
policy's value has converged, and estimates the remaining error.

A time limit that cuts an episode is bootstrapped through: the value is that of an infinite horizon. With a ``horizon`` of H steps there are
exactly H iterations from zero, and the value is that of H steps.

Differs from d3rlpy's FQE: squared instead of Huber error, targets by iterations until a tolerance instead of a fixed number, values learned
as multiples of their expected size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rheostat.analysis.fitted_q_config import FQEConfig
from rheostat.buffers.offline import OfflineData
from rheostat.buffers.replay import Replay
from rheostat.errors import RheostatError
from rheostat.objectives.temporal_difference import critic_loss, td_target
from rheostat.policies.control.critics import EnsembleQ
from rheostat.policies.control.discrete_q import DiscreteQ, scores_of
from rheostat.policies.control.squashed import Bounds
from rheostat.policies.parameters import OptimizedNetwork, PolyakCopy
from rheostat.streams import Streams

ROWS = 4096
"""Steps on which ``a`` and ``b`` are solved for and the remaining error is measured."""
PATIENCE = 10
"""Iterations over which the value may not move."""
COARSE, FINE = 1.0, 0.1
"""Factors of the learning rate: until the value has converged, and then once more."""


class Judged:
    """A policy as the estimators evaluate it.

    Args:
        act: raw observations ``[N, ...]`` to a distribution of the environment's actions (``run.method.act_on_target``).
        data: defines the spaces.
        streams: sample the actions.
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
        """The environment's actions as a critic reads them: unit actions, or choices."""
        return action if self.bounds is None else self.bounds.to_unit(action)


class FittedQ:
    """The critic of one policy on one data set.

    Args:
        policy: the one to evaluate.
        data: the data set it is fitted to.
        config: see :class:`FQEConfig`.
        streams: draw initial weights and batches.
        sampled: the policy acts by sampling; False by its deterministic action.

    Attributes:
        converged: whether the value had converged when the fit ended.
        left: estimate of the remaining error of the value when the fit ended, in units of return.
    """

    def __init__(self, policy: Judged, data: OfflineData, config: FQEConfig, streams: Streams, *, sampled: bool) -> None:
        self.policy, self.config, self.streams = policy, config, streams
        self.choose = policy.drawn if sampled else policy.best
        self.rows = rows = data.transitions
        if rows.observation.dtype != torch.uint8:
            flat = rows.observation.flatten(1)
            self.shift, self.scale = flat.mean(0), flat.std(0, unbiased=False) + 1e-3
        draw = streams["networks"]
        network: Any
        if policy.discrete:
            network = DiscreteQ(data.observation_space, int(data.action_space.n), hidden=config.hidden, generator=draw)  # type: ignore[attr-defined]
        else:
            assert policy.bounds is not None
            network = EnsembleQ(rows.observation.shape[1], len(policy.bounds.centre), networks=1, hidden=config.hidden, generator=draw)
        self.critic = OptimizedNetwork(network, config.learning_rate)
        self.slow = PolyakCopy(self.critic)
        self.replay = Replay(len(rows), gamma=config.gamma)
        self.replay.append_transitions(rows, data.breaks)
        begun = data.from_the_start()
        self.firsts = begun.transitions.observation[[episode.start for episode in begun.episodes][:ROWS]]
        self.some = torch.randperm(len(rows), generator=streams["measured"])[:ROWS]
        lasting = 1 - config.gamma * (1 - rows.terminated.double().mean().item())
        self.ahead = min(1 / max(lasting, 1e-6), config.horizon or math.inf)  # discounted steps that a value sums
        size = max(rows.reward.double().square().mean().sqrt().item(), 1e-8) * self.ahead
        start = 0.0 if config.horizon else rows.reward.double().mean().item() * self.ahead
        self.affine, self.slow_affine = (start, size), (start, size)  # Q = first + second * network
        self.size = size
        self.converged, self.left = config.horizon is not None, 0.0

    def normalise(self, observation: Tensor) -> Tensor:
        """The critic's inputs; images unchanged."""
        return observation if observation.dtype == torch.uint8 else (observation - self.shift) / self.scale

    def of(self, network: Any, observation: Tensor, action: Tensor) -> Tensor:
        """The network at raw observations and at actions as a critic reads them, ``[N]``, in multiples of the values' size."""
        seen = self.normalise(observation)
        return scores_of(network(seen), action) if self.policy.discrete else network(seen, action)[0]

    def fit(self, watch: Callable[[int, float], None] = lambda step, loss: None) -> FittedQ:
        """Make the gradient steps; ``watch`` is called with the step and its loss at intervals."""
        config = self.config
        every = config.target_every if config.horizon is None else config.steps // config.horizon
        values: list[float] = []
        if config.horizon is not None:
            self.slow_affine = (0.0, 0.0)  # with no step left the value is 0
        rate = COARSE
        for step in range(1, config.steps + 1):
            loss = self._step(step)
            if step % every:
                continue
            watch(step, loss)
            if config.horizon is not None:
                if step == every * config.horizon:
                    break
                self.slow.update_target(1.0)
                self.slow_affine = self.affine
                continue
            self._correct()
            self.slow.update_target(1.0)
            self.slow_affine = self.affine
            values.append(self.value(self.firsts).double().mean().item())
            if len(values) > PATIENCE and self._still(values[-PATIENCE - 1 :]):
                if rate == FINE:
                    self.converged = True
                    break
                rate, values = FINE, []
                self.critic.learning_rate = config.learning_rate * rate
        if config.horizon is None:
            self.left = self._remaining()
            recent = values[-PATIENCE:]
            self.left = max(self.left, (max(recent) - min(recent)) / 2 if recent else self.size)
        return self

    def _still(self, values: list[float]) -> bool:
        half = len(values) // 2
        first, second = sum(values[:half]) / half, sum(values[half:]) / (len(values) - half)
        return abs(second - first) < self.config.tolerance * self.size

    def _step(self, step: int) -> float:
        """One gradient step; returns the loss, in units of value squared."""
        rows = self.replay.sample(self.config.batch_size, self.streams["batches"])
        shift, size = self.affine
        with torch.no_grad():
            following = self._slow_q(rows.next_observation, self.choose(rows.next_observation))
            target = (td_target(rows.reward, following, rows.discount) - shift) / size
        loss = critic_loss(self.of(self.critic.network, rows.observation, self.policy.seen(rows.action)).unsqueeze(0), target)
        if not math.isfinite(loss.item()):
            raise RheostatError(f"The loss of fitted Q evaluation became {loss.item()} in step {step}: lower its learning rate.")
        self.critic.step(loss)
        return loss.item() * size**2

    def _slow_q(self, observation: Tensor, action: Tensor) -> Tensor:
        return self.slow_affine[0] + self.slow_affine[1] * self.of(self.slow.network, observation, action)

    @torch.no_grad()
    def _errors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Q, its discounted successor and the reward on some steps, float64 ``[n]``."""
        rows = self.rows[self.some]
        here = self.q(rows.observation, rows.action).double()
        there = self._q(rows.next_observation, self.choose(rows.next_observation)).double()
        return here, self.config.gamma * there * ~rows.terminated, rows.reward.double()

    def _correct(self) -> None:
        """Replace Q by ``a Q + b`` where that is safe; see the module docstring."""
        here, there, reward = self._errors()
        going = self.config.gamma * (~self.rows.terminated[self.some]).double()
        features = torch.stack([here / self.size, torch.ones_like(here)], 1)
        following = torch.stack([there / self.size, going], 1)
        matrix = features.t() @ (features - following) / len(here) + 1e-9 * torch.eye(2, dtype=torch.float64)
        a, b = torch.linalg.lstsq(matrix, features.t() @ reward / len(here)).solution.tolist()
        a /= self.size
        error, better = (reward + there - here), (reward + a * there + b * going - a * here - b)
        if 0.2 < a < 5 and better.mean().abs() <= error.mean().abs() and better.square().mean() <= 1.05 * error.square().mean():
            self.affine = (a * self.affine[0] + b, a * self.affine[1])

    def _remaining(self) -> float:
        """The mean Bellman error, summed over all future steps: the distance of the values from a fixed point, as a constant."""
        here, there, reward = self._errors()
        return abs((reward + there - here).mean().item()) * self.ahead

    def error_of_returns(self, data: OfflineData) -> float:
        """Standard error of the value by the noise of the data: the deviation over episodes of their discounted Bellman errors."""
        rows = data.transitions
        with torch.no_grad():
            error = rows.reward.double() - self.q(rows.observation, rows.action).double()
            error += self.config.gamma * self._q(rows.next_observation, self.choose(rows.next_observation)).double() * ~rows.terminated
        discount = self.config.gamma ** torch.arange(int(data.lengths.max()), dtype=torch.float64)
        sums = torch.stack([(error[e] * discount[: e.stop - e.start]).sum() for e in data.episodes])
        seen = torch.stack([discount[: e.stop - e.start].sum() for e in data.episodes]).mean().item()
        return sums.std().item() / math.sqrt(len(sums)) * max(1.0, self.ahead / seen)

    @torch.no_grad()
    def value(self, observation: Tensor) -> Tensor:
        """Q at the policy's action, ``[N]``; a mean over several where it samples."""
        draws = self.config.draws if self.choose == self.policy.drawn else 1
        return torch.stack([self._q(observation, self.choose(observation)) for _ in range(draws)]).mean(0)

    def _q(self, observation: Tensor, seen: Tensor) -> Tensor:
        return self.affine[0] + self.affine[1] * self.of(self.critic.network, observation, seen)

    @torch.no_grad()
    def q(self, observation: Tensor, action: Tensor) -> Tensor:
        """Q of the environment's actions, ``[N]``."""
        return self._q(observation, self.policy.seen(action))
