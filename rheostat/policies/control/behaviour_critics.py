"""Critics of the policy that made a data set: V and Q are fitted to it once and evaluate actions from then on (BPPO, Uni-O4)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rheostat.objectives.expectile import expectile_loss
from rheostat.objectives.temporal_difference import critic_loss, min_over_critics, td_target
from rheostat.objectives.value import value_loss
from rheostat.policies.control.critics import EnsembleQ, StateValue
from rheostat.policies.parameters import OptimizedNetwork, PolyakCopy
from rheostat.trajectories import Transitions

Kind = Literal["sarsa", "iql"]
PARTS = ("critics", "targets", "values")


class BehaviourCritics:
    """One gradient step at a time.

    Args:
        observations, actions: features of an observation and of a unit action.
        kind: sarsa fits V to returns and one Q to ``r + gamma Qbar(s', a')``, a' the action that the data took next; iql fits V to an
            expectile of the smaller of two target critics and both critics to ``r + gamma V(s')``.
        critic_hidden, value_hidden: hidden layers.
        learning_rate: Adam step size of all.
        tau, target_every: the target critics move by tau every so many steps.
        expectile: of iql.
        generator: draws the initial weights.
    """

    def __init__(
        self,
        observations: int,
        actions: int,
        *,
        kind: Kind = "sarsa",
        critic_hidden: tuple[int, ...],
        value_hidden: tuple[int, ...],
        learning_rate: float,
        tau: float,
        target_every: int,
        expectile: float,
        generator: torch.Generator,
    ) -> None:
        self.kind, self.tau, self.target_every, self.expectile = kind, tau, target_every, expectile
        networks = 2 if kind == "iql" else 1
        critics = EnsembleQ(observations, actions, networks=networks, hidden=critic_hidden, generator=generator)
        self.critics = OptimizedNetwork(critics, learning_rate)
        self.targets = PolyakCopy(self.critics)
        self.values = OptimizedNetwork(StateValue(observations, hidden=value_hidden, generator=generator), learning_rate)
        self.steps = 0

    @torch.no_grad()
    def value(self, observation: Tensor) -> Tensor:
        """V, ``[N]``."""
        return self.values.network(observation)

    @torch.no_grad()
    def q(self, observation: Tensor, action: Tensor) -> Tensor:
        """Q, the smaller of two where there are two, ``[N]``."""
        return min_over_critics(self.critics.network(observation, action))

    def step(self, rows: Transitions, returns: Tensor | None = None) -> dict[str, Tensor | float]:
        """One step of V, then of Q (for iql towards the V just updated), then of the target critics.

        Args:
            rows: ``[B]``; sarsa needs ``next_action``; V too learns only from steps where it is known.
            returns: ``[B]``, what V regresses on (sarsa).
        """
        with torch.no_grad():
            slow = self.targets.network
            following = None if self.kind == "iql" else min_over_critics(slow(rows.next_observation, rows.next_action))
            goal = min_over_critics(slow(rows.observation, rows.action)) if self.kind == "iql" else returns
        assert goal is not None
        value = self.values.network(rows.observation)
        error = expectile_loss(value, goal, self.expectile) if self.kind == "iql" else value_loss(value, goal, scale=1.0)
        self.values.step(error)
        target = td_target(rows.reward, self.value(rows.next_observation) if following is None else following, rows.discount)
        q = self.critics.network(rows.observation, rows.action)
        loss = critic_loss(q, target)
        self.critics.step(loss)
        self.steps += 1
        if self.steps % self.target_every == 0:
            self.targets.update_target(self.tau)
        return {"value_loss": error.detach(), "critic_loss": loss.detach(), "value": value.detach().mean(), "q": q.detach().mean()}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, target critics and the count of steps."""
        return {name: getattr(self, name).state_dict() for name in PARTS} | {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.steps = state["steps"]
