"""A deterministic policy and two critics with slow copies of all, as TD3 has them: options, models, and a gradient step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rheostat.credit.td_annotations import SmoothedTarget
from rheostat.learner.actor_critic_updates import CriticStep, DeterministicActorStep, deterministic_actor, ensemble_q
from rheostat.learner.control_models import TargetNetwork, TrainableNetwork, own_hidden
from rheostat.learner.off_policy import PerStep
from rheostat.learner.own_networks import OwnDeterministicPolicy, own_critics
from rheostat.learner.rhythm import Delayed
from rheostat.options import option, value_or
from rheostat.policies.control.squashed import DeterministicAction, UnitPolicy


class NoisyPolicy(TrainableNetwork):
    """A deterministic policy that acts with Gaussian noise.

    Args:
        hidden: hidden layers.
        learning_rate: Adam step size.
        deviation: of the noise, in unit actions.
    """

    def __init__(self, hidden: tuple[int, ...], learning_rate: float, deviation: float) -> None:
        super().__init__(deterministic_actor(hidden), learning_rate, own=OwnDeterministicPolicy)
        self.deviation = deviation

    def exploring(self, seen: Tensor) -> UnitPolicy:
        """The action with noise."""
        return DeterministicAction(self.network(seen), self.deviation)


@dataclass(frozen=True)
class TwinCritics:
    """Networks and step sizes."""

    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of actor and critics."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the policy."""
    critic_learning_rate: float | None = option(None, at_least=0)
    """Adam step size of the critics; None takes learning_rate, and 0 freezes them."""
    tau: float = option(0.005, share=True)
    """Share of the networks in their slow copies when these follow."""
    exploration_noise: float = option(0.1, at_least=0)
    """Standard deviation of the noise on the actions that are taken, in unit actions."""
    target_noise: float = option(0.2, at_least=0)
    """Standard deviation of the noise on the actions of the target, in unit actions."""
    noise_clip: float = option(0.5, at_least=0)
    """Largest size of the target's noise, in unit actions."""
    policy_delay: int = option(2, at_least=1)
    """Steps of the critics per step of the policy and of the slow copies."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found: dict[str, str] = {}
        if not self.target_noise:
            found["noise_clip"] = "target_noise is 0, so there is no noise to limit; raise it, or leave noise_clip alone"
        elif not self.noise_clip:
            found["target_noise"] = "noise_clip is 0, which leaves no noise; raise it, or leave target_noise alone"
        return found

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return own_hidden(context, "policy", "critics")

    def models(self) -> dict[str, Any]:
        """Policy and critics with their slow copies, by name, in the order in which networks are drawn."""
        return {
            "policy": NoisyPolicy(self.hidden, self.learning_rate, self.exploration_noise),
            "target policy": TargetNetwork("policy", self.tau),
            "critics": TrainableNetwork(ensemble_q(self.hidden), value_or(self.critic_learning_rate, self.learning_rate), own=own_critics),
            "target critics": TargetNetwork("critics", self.tau, self.policy_delay),
        }

    def step(self, size: int, alpha: float | None = None) -> PerStep:
        """Critics; every so many times the policy and the slow copies too.

        Args:
            size: rows of a gradient step.
            alpha: weight of the critic against imitation (TD3+BC).
        """
        target = SmoothedTarget(self.target_noise, self.noise_clip)
        return PerStep(size, [target], [CriticStep(), Delayed(self.policy_delay, [DeterministicActorStep(alpha)])])
