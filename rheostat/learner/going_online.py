"""Uni-O4's online phase: the choice of a member, data collection, and the parts of the PPO update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.collect.control.evaluation_episodes import run_episodes
from rheostat.errors import RheostatError
from rheostat.learner.fast_ppo import FastPPO
from rheostat.learner.gated_ensemble import Choice, Cloning
from rheostat.objectives.control_terms import ClippedSurrogate
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.distributions import Gaussian
from rheostat.policies.control.ensembles import TrainableEnsemble
from rheostat.streams import derive_seed
from rheostat.trajectories import Source

ADAM_EPSILON = 1e-5


@dataclass(frozen=True)
class Drawing:
    """Collects one batch with the deployed policy; the environment clips actions to its bounds."""

    environments: int
    steps: int
    clip_actions: bool = False

    def check(self, composition: Any) -> None:
        """Refuse a number of steps that is no multiple of the number of environments."""
        if self.steps % self.environments:
            raise RheostatError(f"online_batch_steps {self.steps} do not divide over {self.environments} environments: change one of them.")

    def draw(self, context: Any, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample actions for raw observations; returns them with their log-probabilities."""
        policy = context.models["policy"].distribution(context.see(observation))
        unit = policy.sample(generator)
        unit = unit.clamp(-1.0, 1.0) if self.clip_actions else unit
        return context.bounds.to_environment(unit), policy.log_prob(unit) - context.bounds.log_volume

    def collect(self, context: Any) -> Batch:
        """``[environments, steps]``."""

        def draw(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return self.draw(context, observation, generator)

        generator, count = context.streams["actions"], self.steps // self.environments
        return Batch(context.collector.collect(draw, count, generator=generator, version=context.updates))


@dataclass(frozen=True)
class FreshRows:
    """Keeps the fresh batch only, with transformed rewards."""

    keeps_units: ClassVar[bool] = True

    def retain(self, context: Any, batch: Batch) -> Batch:
        """``[environments, steps]``."""
        batch.rows.source = torch.full(batch.rows.shape, int(Source.FRESH))
        return batch.with_rows(context.stores["learned rewards"](batch.rows))


class OnlinePolicy(TrainableEnsemble):
    """The policy that is trained online: an ensemble with one member.

    Args:
        cloning: the shape of the policies.
        learning_rate: Adam step size.
        squash: whether the deviation is squashed a second time, as in the authors' code.
    """

    def __init__(self, cloning: Cloning, learning_rate: float, *, squash: bool = False) -> None:
        self._cloning, self._rate, self._squash = cloning, learning_rate, squash

    def bind(self, context: Any, name: str) -> None:
        """Build the network."""
        super().__init__(self._cloning.policies(context, 1, squash=self._squash), self._rate, eps=ADAM_EPSILON)

    def distribution(self, seen: Tensor) -> Gaussian:
        """The policy of unit actions for observations ``[N, n]``."""
        alone = self.network.distribution(seen)
        return Gaussian(alone.mean[0], alone.log_std[0])


class ChosenMember:
    """The deployed policy: the chosen member once training is online; before that, the member with the best latest score."""

    def __init__(self, choice: Choice) -> None:
        self.choice, self.chosen = choice, -1

    def bind(self, context: Any, name: str) -> None:
        """Keep references; the models it reads have been bound before."""
        self.context, self.models = context, context.models

    @property
    def network(self) -> Any:
        """Network of the chosen member; before the choice, of the whole ensemble."""
        return self.models["online policy"].network if self.chosen >= 0 else self.models["members"].policies

    def distribution(self, seen: Tensor) -> Gaussian:
        """The policy of unit actions."""
        if self.chosen >= 0:
            found: Gaussian = self.models["online policy"].distribution(seen)
            return found
        members = self.models["members"]
        everyone, index = members.policies.distribution(seen), int(members.scores.argmax())
        return Gaussian(everyone.mean[index], everyone.log_std[index])

    exploring = distribution

    def evaluated(self, context: Any) -> Any:
        """The policy that is evaluated."""
        return self.distribution

    def value(self, seen: Tensor) -> Tensor:
        """V, ``[N]``."""
        critic = self.models["value"] if self.chosen >= 0 else self.models["behaviour critics"].values
        found: Tensor = critic.network(seen)
        return found

    def become(self, index: int) -> None:
        """Start online training from one member and the offline V."""
        self.chosen = index
        candidates = self.models["members"].candidates(self.choice.deploy)
        self.models["online policy"].network.become(candidates, torch.tensor([index]))
        self.models["value"].parameters.copy_from(self.models["behaviour critics"].values.parameters)

    def end_offline(self, context: Any) -> None:
        """Update the scores; with ``choose am-q``, choose the member with the best one."""
        members = self.models["members"]
        members.end()
        if self.choice.by == "am-q":
            self.become(members.ranking(self.choice.deploy)[0])

    def choose_by_return(self, context: Any) -> None:
        """Measure the best members online, each in one environment, and count their steps."""
        if self.chosen >= 0:
            return
        members, bounds, returns = self.models["members"], context.bounds, {}
        policies = members.candidates(self.choice.deploy)
        for index in members.ranking(self.choice.deploy)[: self.choice.among]:
            environments = context.make(1, derive_seed(context.streams.seed, "choice", index))

            def act(observation: Tensor, index: int = index) -> Tensor:
                action: Tensor = bounds.to_environment(policies.distribution(context.see(observation)).mean[index])
                return action

            found, lengths = run_episodes(act, environments, self.choice.episodes)
            environments.close()
            returns[index] = sum(found) / len(found)
            context.spent += sum(lengths)
        self.become(max(returns, key=lambda index: returns[index]))

    def state_dict(self) -> dict[str, Any]:
        """Index of the chosen member."""
        return {"chosen": self.chosen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.chosen = state["chosen"]


@dataclass(frozen=True)
class Online:
    """Options of the last stage: PPO that starts from the chosen member and the offline V."""

    environments: int = option(1, short="num_envs", at_least=1)
    """Environments stepped together."""
    batch_steps: int = option(2048, short="online_batch_steps", at_least=1)
    """Environment steps per online update."""
    minibatch: int = option(128, short="online_minibatch", at_least=1)
    """Steps per gradient step online."""
    epochs: int = option(10, short="online_epochs", at_least=1)
    """Passes over every online batch (the authors: 5 to 30)."""
    learning_rate: float = option(3e-5, short="online_learning_rate", at_least=0)
    """Adam step size of the policy online (the authors: 1e-5 to 3e-5)."""
    critic_learning_rate: float = option(2e-4, short="online_critic_learning_rate", at_least=0)
    """Adam step size of V online."""
    anneal: bool = option(True, short="online_anneal")
    """Anneal both step sizes to 0 over ``--online-steps``."""
    clip: float = option(0.05, short="online_clip", at_least=0)
    """Clip range of the ratio online, and of V around its value before the update."""
    entropy_coefficient: float = option(0.01)
    """Weight of the entropy bonus online."""
    lam: float = option(0.95, share=True)
    """GAE lambda."""
    log_std: Literal["same", "double-tanh"] = option("same", short="log_std_online")
    """The online deviation: that of the offline network, or squashed a second time as in the authors' code."""
    clip_actions: bool = option(False)
    """Compute online log-probabilities for the clipped action, as in the authors' code, and not for the sampled one."""

    def update(self, max_grad_norm: float) -> FastPPO:
        """The PPO update, with separate optimisers for the policy and V."""
        return FastPPO(
            self.epochs,
            learning_rate=self.learning_rate,
            anneal=self.anneal,
            entropy_coefficient=self.entropy_coefficient,
            max_grad_norm=max_grad_norm,
            objective=ClippedSurrogate(self.clip, value=True, value_scale=1.0),
            rows=self.batch_steps,
            minibatch_size=self.minibatch,
            critic="value",
            critic_learning_rate=self.critic_learning_rate,
            model="online policy",
        )
