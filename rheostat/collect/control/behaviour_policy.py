"""A behaviour policy: a copy of the learned policy that acts in its place and is trained by an objective of its own."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from rheostat.collect.control.normalise import RunningStatistics
from rheostat.policies.control.actor_critic import ControlPolicy, Evaluation, evaluate
from rheostat.policies.control.fast_control import fast
from rheostat.policies.lagged import ParameterHistory
from rheostat.policies.parameters import Adam, ParameterVector, load_optimizer_state, optimizer_state


class LaggedActor:
    """The policy of ``lag`` updates ago, with its observation statistics.

    Args:
        policy: the learned one, at its start.
        parameters: its parameters.
        statistics: its observation statistics.
        lag: updates to look back.
    """

    def __init__(self, policy: ControlPolicy, parameters: ParameterVector, statistics: RunningStatistics, lag: int) -> None:
        acting = BehaviourPolicy(policy)
        self.network, self.parameters = acting.network, acting.parameters
        self.statistics = copy.deepcopy(statistics)
        self.history = ParameterHistory(lag, [parameters.vector, statistics.mean, statistics.variance])

    def remember(self, parameters: ParameterVector, statistics: RunningStatistics) -> None:
        """Remember the parameters after an update of the policy."""
        self.history.push([parameters.vector, statistics.mean, statistics.variance])
        self._become_oldest()

    def _become_oldest(self) -> None:
        self.history.write_oldest([self.parameters.vector, self.statistics.mean, self.statistics.variance])

    def normalise(self, observation: Tensor) -> Tensor:
        """Raw observations to those that the older policy read, normalised by its statistics."""
        return self.statistics.normalise(observation)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved copies."""
        self.history.load_state_dict(state)
        self._become_oldest()


class BehaviourPolicy:
    """``phi``: starts as a copy of the target policy ``theta`` and restarts from it on request; optimiser moments are kept across
    restarts.

    Args:
        target: the learned policy.
        learning_rate: Adam step size; None moves by plain gradient descent, which the caller does on ``parameters``.
    """

    def __init__(self, target: ControlPolicy, learning_rate: float | None = None) -> None:
        network = copy.deepcopy(target)
        self.parameters = ParameterVector(cast(nn.Module, network))
        self.network: ControlPolicy = fast(network, self.parameters)
        self.optimizer = None
        if learning_rate is not None:
            self.optimizer = Adam(self.parameters.vector, learning_rate)

    def restart_from(self, target: ParameterVector) -> None:
        """``phi <- theta``."""
        self.parameters.copy_from(target)

    def evaluate(self, observation: Tensor) -> Evaluation:
        """Evaluate the behaviour policy at normalised observations ``[N, ...]``, with the backward pass to its parameters."""
        return evaluate(self.network, observation, critic=False)

    def step(self, now: Evaluation, gradient: Tensor, *, max_grad_norm: float | None = None, step_size: float | None = None) -> None:
        """One step down a loss: with Adam, or by ``step_size`` times the gradient.

        Args:
            now: the result of :meth:`evaluate`.
            gradient: derivative of the loss with respect to the parameters of the distribution, ``[N, P]``.
            max_grad_norm: global norm limit of the gradient.
            step_size: of plain descent.
        """
        self.parameters.gradient.zero_()
        now.backward(gradient)
        if max_grad_norm is not None:
            self.parameters.clip_gradient(max_grad_norm)
        if self.optimizer is not None:
            self.optimizer.step()
        else:
            assert step_size is not None
            with torch.no_grad():
                self.parameters.vector.sub_(self.parameters.gradient, alpha=step_size)

    def state_dict(self) -> dict[str, Any]:
        """Parameters and moments."""
        return {"parameters": self.parameters.vector.detach(), "optimizer": optimizer_state(self.optimizer) if self.optimizer else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        with torch.no_grad():
            self.parameters.vector.copy_(state["parameters"])
        if self.optimizer:
            load_optimizer_state(self.optimizer, state["optimizer"])
