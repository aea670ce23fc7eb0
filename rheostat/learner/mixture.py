"""What the methods with a mixture of experts for a policy share: their options, the loss of the mixture's weights, and how it moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import Found
from rheostat.learner.control_models import OWN_NETWORK, Build, PolicyNetwork, TrainableNetwork
from rheostat.learner.fast_ppo import Minibatch
from rheostat.objectives.actor import soft_actor_loss
from rheostat.objectives.mixture_of_experts import best_expert, expert_shares, frequency_loss, relaxed_choice, score_loss
from rheostat.objectives.temporal_difference import critic_loss, min_over_critics, soft_value
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.mixture_networks import MixtureActorCritic
from rheostat.policies.control.mixtures import SquashedMixture, choose_expert, of_expert
from rheostat.streams import derive_seed

MixtureGradient = Literal["frequency", "gumbel", "score"]
Deterministic = Literal["likeliest", "sampled"]


@dataclass(frozen=True)
class Mixture:
    """How many experts, and how their weights learn."""

    size: int = option(2, short="mixture_size", at_least=1)
    """Gaussians in the mixture (K); 1 is the plain policy."""
    gradient: MixtureGradient = option("frequency", short="mixture_gradient")
    """What moves the weights: a regression on the expert whose action the critic likes best (PMOE), a relaxed choice of an expert
    (Gumbel-softmax, straight through), or the score function with the critic's value and the expected value as baseline."""
    coefficient: float = option(1.0, short="mixture_coefficient", at_least=0)
    """Factor of the weights' loss."""
    gumbel_temperature: float = option(1.0, above=0)
    """Of the relaxed choice."""
    deterministic: Deterministic = option("likeliest")
    """Whose mean is the action when the policy is evaluated: the likeliest expert's, or that of an expert drawn from the weights (the
    authors). A trained policy in use takes the likeliest."""

    def __post_init__(self) -> None:
        if self.gumbel_temperature != 1.0 and self.gradient != "gumbel":
            raise RheostatError("gumbel_temperature is that of a relaxed choice: set mixture_gradient gumbel too.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.size == 1:
            why = "one expert has nothing to choose between, so leave it alone, or raise mixture_size"
            return dict.fromkeys(("gradient", "coefficient", "gumbel_temperature", "deterministic"), why)
        why = "mixture_coefficient is 0, so the weights have no loss; raise it, or leave this alone"
        return {} if self.coefficient else dict.fromkeys(("gradient", "gumbel_temperature"), why)

    def choice(self, logits: Tensor, generator: torch.Generator) -> Choice:
        """Draw from the weights ``softmax(logits)``, ``[B, K]``."""
        if self.gradient != "gumbel":
            return Choice(choose_expert(logits.detach(), generator), None)
        gumbel = -torch.empty_like(logits).exponential_(generator=generator).log()
        relaxed = relaxed_choice(logits, gumbel, self.gumbel_temperature)
        return Choice(relaxed.detach().argmax(-1), relaxed)

    def loss(self, logits: Tensor, best: Tensor, value: Tensor, choice: Choice, relaxed_value: Callable[[Tensor], Tensor]) -> Tensor:
        """What the weights descend, a scalar.

        Args:
            logits: ``[B, K]``; carries the gradient.
            best: int64 ``[B]``, the expert whose action is the best.
            value: ``[B, K]``, Q of an action of every expert; a constant.
            choice: see :meth:`choice`.
            relaxed_value: from a relaxed choice ``[B, K]`` to Q of the mixed action, ``[B]``; the gradient flows through it.
        """
        if self.gradient == "frequency":
            return frequency_loss(logits, best)
        if self.gradient == "score":
            return score_loss(logits, choice.drawn, value)
        assert choice.relaxed is not None
        return -relaxed_value(choice.relaxed).mean()

    def expert_generator(self, context: Any) -> torch.Generator | None:
        """What draws the expert of deterministic actions in an evaluation; None takes the likeliest."""
        if self.deterministic == "likeliest":
            return None
        return torch.Generator().manual_seed(derive_seed(context.streams.seed, "evaluation experts", context.updates))


class Choice(NamedTuple):
    """An expert drawn for every row."""

    drawn: Tensor
    """int64 ``[B]``."""
    relaxed: Tensor | None
    """``[B, K]``, one-hot with a gradient (Gumbel only)."""


def mean_action(choice: Tensor, action: Tensor) -> Tensor:
    """Actions ``[B, K, D]`` of all experts, averaged by a choice ``[B, K]``: ``[B, D]``."""
    return (choice.unsqueeze(-1) * action).sum(-2)


# --- with a replay ------------------------------------------------------------------------------------------------------------------------


class MixturePolicy(TrainableNetwork):
    """Experts and weights of unit actions.

    Args:
        build: the untrained network.
        learning_rate: Adam step size.
        mixture: says whose action is the deterministic one of an evaluation.
    """

    def __init__(self, build: Build, learning_rate: float, mixture: Mixture) -> None:
        super().__init__(build, learning_rate)
        self.mixture = mixture

    def evaluated(self, context: Any) -> Callable[[Tensor], Any]:
        """The mixture, whose deterministic action may be that of an expert drawn with a stream of its own."""
        expert_generator = self.mixture.expert_generator(context)
        return lambda seen: self.network.distribution(seen, expert_generator)


EntropyOf = Literal["component", "mixture"]


def draw_all(context: Any, mixture: SquashedMixture, entropy_of: EntropyOf) -> tuple[Tensor, Tensor]:
    """A reparameterised action of every expert ``[B, K, D]`` and its log-probability ``[B, K]``."""
    noise = mixture.noise(context.streams["updates"])
    action, log_prob = mixture.draw(noise)
    return action, mixture.mixture_log_prob(noise, log_prob) if entropy_of == "mixture" else log_prob


@dataclass(frozen=True)
class OfDrawnExpert:
    """An action of one drawn expert and its log-probability, for the critics' target."""

    entropy_of: EntropyOf = "component"

    def __call__(self, context: Any, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Actions ``[B, D]``, log-probabilities ``[B]``."""
        mixture = context.models["policy"].distribution(observation)
        index = mixture.choose(context.streams["experts"])
        action, log_prob = draw_all(context, mixture, self.entropy_of)
        return of_expert(action, index), of_expert(log_prob, index)


def judged(context: Any, batch: Batch, action: Tensor) -> Tensor:
    """The smallest critic of an action of every expert, ``[B, K, D]`` to ``[B, K]``; the gradient flows through the action alone."""
    q = context.models["critics"].network.of_many(batch.rows.observation, action, frozen=True)
    return min_over_critics(q.flatten(1)).view(q.shape[1:])


@dataclass(frozen=True)
class MixtureActorStep:
    """Experts and weights; leaves the column ``log_prob`` for the temperature."""

    mixture: Mixture
    update: Literal["max", "all", "sampled"] = "max"
    entropy_of: EntropyOf = "component"
    models: ClassVar[tuple[str, ...]] = ("policy", "critics")
    reads: ClassVar[tuple[str, ...]] = ("alpha",)
    writes: ClassVar[tuple[str, ...]] = ("log_prob",)

    def describe(self) -> dict[str, int | str]:
        """The experts."""
        return {"experts": self.mixture.size}

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of experts and weights at observations ``[B, n]``; reads the fact ``alpha``, writes ``log_prob`` (``[B]``, or
        ``[B * K]`` where all experts move).

        Returns:
            ``policy_loss``, ``mixture_loss``, ``entropy`` (nats of unit actions), ``temperature``, and the experts' shares.
        """
        rows, alpha = batch.rows, batch.facts["alpha"]
        mixture = context.models["policy"].distribution(rows.observation)
        action, log_prob = draw_all(context, mixture, self.entropy_of)  # [B, K, D], [B, K]
        q = judged(context, batch, action)
        best = best_expert(q)
        choice = self.mixture.choice(mixture.logits, context.streams["experts"])
        if self.update == "all":
            value, density = q.flatten(), log_prob.flatten()
        else:
            moved = best if self.update == "max" else choice.drawn
            value, density = of_expert(q, moved), of_expert(log_prob, moved)
        loss = soft_actor_loss(value, density, alpha)

        fixed, constant = action.detach(), log_prob.detach()

        def relaxed_value(relaxed: Tensor) -> Tensor:
            q = min_over_critics(context.models["critics"].network(rows.observation, mean_action(relaxed, fixed), frozen=True))
            return soft_value(q, (relaxed * constant).sum(-1), alpha)

        of_weights = self.mixture.loss(mixture.logits, best, soft_value(q.detach(), constant, alpha), choice, relaxed_value)
        context.models["policy"].step(loss + self.mixture.coefficient * of_weights)
        context.finish_update("policy")
        batch.columns["log_prob"] = density
        found: Found = {f"mixture/{name}": share for name, share in expert_shares(mixture.logits, best).items()}
        return found | {
            "policy_loss": loss.detach(),
            "mixture_loss": of_weights.detach(),
            "entropy": -density.detach().mean(),
            "temperature": alpha,
        }


# --- on PPO -------------------------------------------------------------------------------------------------------------------------------


class MixturePolicyNetwork(PolicyNetwork):
    """A mixture with its critic and its action critic.

    Args:
        build: the untrained network.
        learning_rate: Adam step size.
        mixture: says whose action is the deterministic one of an evaluation.
    """

    def __init__(self, build: Build, learning_rate: float, mixture: Mixture) -> None:
        super().__init__(build, learning_rate)
        self.mixture = mixture

    def adapted(self, given: nn.Module, context: Any) -> nn.Module:
        """The user's network; what it must be is checked by its class."""
        return given

    def bind(self, context: Any, name: str) -> None:
        """Take the user's network or build one.

        Raises:
            RheostatError: the user's is no mixture.
        """
        given = context.networks.get(name)
        if given is not None and not isinstance(given, MixtureActorCritic):
            raise RheostatError(
                f"{context.who} trains a mixture of experts with an action critic, and {type(given).__name__} is none: use "
                "MixtureActorCritic, or ppo."
            )
        super().bind(context, name)

    def evaluated(self, context: Any) -> Callable[[Tensor], Any]:
        """The mixture, whose deterministic action may be that of an expert drawn with a stream of its own."""
        expert_generator = self.mixture.expert_generator(context)
        return (
            self.distribution
            if expert_generator is None
            else lambda seen: replace(self.distribution(seen), expert_generator=expert_generator)
        )


@dataclass(frozen=True)
class ActionCritic:
    """The critic of actions that says which expert's is the best."""

    hidden: tuple[int, ...] = option((64, 64, 64), short="judge_hidden", at_least=1)
    """Hidden layers of the action critic."""
    coefficient: float = option(1.0, short="judge_coefficient")
    """Factor of the action critic's loss; one optimiser moves everything, and the limit of the gradient's norm holds for all of it."""

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return {"hidden": OWN_NETWORK} if "policy" in context.networks else {}


@dataclass(frozen=True)
class MixtureTerms:
    """What a minibatch of PPO minimises besides: the action critic's regression on the returns of actions, and the weights' loss."""

    mixture: Mixture
    judge: ActionCritic
    model: str = "policy"

    def add_gradient(self, context: Any, mixture: Any, minibatch: Minibatch, outputs: Tensor) -> dict[str, float]:
        """Add the gradient of the distribution's parameters to ``outputs`` ``[N, P]``, and that of the action critic to its parameters."""
        judge, observation = context.models[self.model].policy.judge, minibatch.observation.flatten(1)
        samples = mixture.sample_experts(context.streams["experts"])  # [B, K, D]
        value = judge.of_many(observation, samples)[0]  # [B, K]
        best = best_expert(value)
        with torch.enable_grad():
            logits = mixture.logits.clone().requires_grad_()
            choice = self.mixture.choice(logits, context.streams["experts"])

            def relaxed_value(relaxed: Tensor) -> Tensor:
                found: Tensor = judge(observation, mean_action(relaxed, samples), frozen=True)[0]
                return found

            of_weights = self.mixture.loss(logits, best, value, choice, relaxed_value)
            (gradient,) = torch.autograd.grad(of_weights, logits)
            of_judge = critic_loss(judge(observation, minibatch.action.flatten(1)), minibatch.targets.value_target)
            (self.judge.coefficient * of_judge).backward()
        outputs[:, : self.mixture.size].add_(gradient, alpha=self.mixture.coefficient)
        shares = {f"mixture/{name}": share for name, share in expert_shares(mixture.logits, best).items()}
        return {"mixture_loss": of_weights.item(), "judge_loss": of_judge.item()} | shares


@dataclass(frozen=True)
class Experts:
    """Hidden layers of experts and critic."""

    hidden: tuple[int, ...] = option((64, 64), at_least=1)
    """Hidden layers of actor and critic."""
    activation: Literal["tanh", "relu"] = option("tanh")
    """Activation of the hidden layers."""

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        return dict.fromkeys(("hidden", "activation"), OWN_NETWORK) if "policy" in context.networks else {}
