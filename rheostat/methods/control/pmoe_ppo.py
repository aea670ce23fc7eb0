"""PMOE on PPO: proximal policy optimisation with a probabilistic mixture of experts for a policy.

Paper: Ren et al. 2021, "Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning", arXiv 2104.09122.

Equations (K experts; a_k a fresh draw of expert k, a constant; k* = argmax_k Q(s, a_k), the first of equals; R the target of GAE)
    pi(a|s)     = sum_k w_k(s) N(a; mu_k(s), sigma_k),      w = softmax(W s + b)
    policy      = as in ppo, with the ratio of the whole mixture's density
    judge       = mean (Q(s, a) - R)^2
    weights     = mean over rows and k of (w_k - 1{k = k*})^2
    loss        = policy - c_H entropy + c_V value + judge + weights

WHO ACTS   one expert, drawn from the weights.
KEPT       as in ppo.
WORTH      GAE, as in ppo; the judge Q learns what an action led to, and says which expert's action is the best.
MOVES      all experts and the weights by the clipped ratio; the weights also towards how often each expert is the best.

What differs from ppo: the policy, the judge, and the loss of the weights. With one expert it is ppo, but for the judge's share in the limit
of the gradient's norm. The weights hear two voices: the density of the mixture, in which they are a part of the policy, and the regression
on the best expert; ``mixture_coefficient`` 0 leaves the first alone, and ``mixture_gradient`` has the alternatives to the second, which are
a reconstruction (see pmoe). Derivatives of the mixture are by hand. The entropy is an estimate that is
exact for one expert.

What the authors' code does otherwise: it takes the logarithm of a sum of exponentials, which is minus infinity for far actions; its
advantages run on across the ends of its buffer and its time limits are deaths; its judge's last layer starts within +-0.003. Constant
learning rate and five experts are its, observations, rewards and everything else those of ppo.
Checked against: the authors' code (``tests/vectors``: pmoe, cases gmm_log_prob* and ppo_total_loss).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.method import Metrics
from rheostat.methods.control.mixture_options import (
    MixtureConfig,
    check_mixture,
    draw_choice,
    evaluation_chooser,
    mean_action,
    weights_loss,
)
from rheostat.methods.control.ppo import PPO, MakeEnvironments, PPOConfig, Step, Worth
from rheostat.objectives.mixture_of_experts import best_expert, expert_shares
from rheostat.objectives.temporal_difference import critic_loss
from rheostat.policies.control.actor_critic import ControlPolicy, Evaluation
from rheostat.policies.control.distributions import Distribution
from rheostat.policies.control.mixture_networks import MixtureActorCritic
from rheostat.policies.control.mixtures import MixtureOfGaussians
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.control.environments import Environments


@dataclass(frozen=True)
class PMOEPPOConfig(MixtureConfig, PPOConfig):
    """The authors' setting, on the environments of ppo."""

    anneal: bool = False
    """Decay the learning rate linearly to 0 over the budget."""
    mixture_size: int = 5
    """Gaussians in the mixture (K); 1 is the plain policy."""
    judge_hidden: tuple[int, ...] = (64, 64, 64)
    """Hidden layers of the judge of actions."""
    judge_coefficient: float = 1.0
    """Factor of the judge's loss; one optimiser moves everything, and the limit of the gradient's norm holds for all of it."""


class PMOEPPO(PPO):
    """See the module docstring.

    Args:
        config, make, streams, total_steps: as in :class:`~rheostat.methods.control.ppo.PPO`.
        policy: a :class:`~rheostat.policies.control.mixture_networks.MixtureActorCritic` of your own; None builds one.

    Raises:
        RheostatError: another network, discrete actions, images, or what ppo refuses.
    """

    Config: ClassVar[type[PPOConfig]] = PMOEPPOConfig
    config: PMOEPPOConfig
    chooser: torch.Generator | None = None
    """Draws the expert of deterministic actions while an evaluation lasts."""

    def __init__(
        self, config: PMOEPPOConfig, make: MakeEnvironments, streams: Streams, *, total_steps: int, policy: ControlPolicy | None = None
    ) -> None:
        if policy is not None and not isinstance(policy, MixtureActorCritic):
            raise RheostatError(
                f"pmoe-ppo moves a mixture of experts with a judge, and {type(policy).__name__} is none: use a MixtureActorCritic, or ppo."
            )
        self.seen: list[dict[str, float]] = []
        super().__init__(config, make, streams, total_steps=total_steps, policy=policy)

    @classmethod
    def derived(cls, config: PPOConfig) -> dict[str, int | str]:
        """As in ppo, and the experts."""
        assert isinstance(config, PMOEPPOConfig)
        check_mixture(config)
        if config.tanh_mean:
            raise RheostatError("tanh_mean squashes the mean of a single Gaussian: leave it off for a mixture, or use ppo.")
        return super().derived(config) | {"experts": config.mixture_size}

    def build_policy(self, environments: Environments) -> MixtureActorCritic:  # type: ignore[override]
        """The mixture with its critic and its judge."""
        config = self.config
        return MixtureActorCritic(
            environments.observation_space,
            environments.action_space,
            experts=config.mixture_size,
            hidden=config.hidden,
            judge_hidden=config.judge_hidden,
            activation=config.activation,
            seed=derive_seed(self.streams.seed, "network"),
        )

    def act_on_target(self, observation: Tensor) -> Distribution:
        """As in ppo; in an evaluation, an expert may be drawn for the deterministic action."""
        mixture = cast(MixtureOfGaussians, super().act_on_target(observation))
        return mixture if self.chooser is None else replace(mixture, chooser=self.chooser)

    def add_gradient(self, now: Evaluation, observation: Tensor, action: Tensor, worth: Worth, outputs: Tensor) -> None:
        """The judge's regression on what the actions led to, and the weights' loss."""
        config, mixture = self.config, cast(MixtureOfGaussians, now.distribution)
        judge, observation = cast(MixtureActorCritic, self.policy).judge, observation.flatten(1)
        samples = mixture.sample_experts(self.streams["experts"])  # [B, K, D]
        value = judge.of_many(observation, samples)[0]  # [B, K]
        best = best_expert(value)
        with torch.enable_grad():
            logits = mixture.logits.clone().requires_grad_()
            choice = draw_choice(config, logits, self.streams["experts"])

            def relaxed_value(relaxed: Tensor) -> Tensor:
                return judge(observation, mean_action(relaxed, samples), frozen=True)[0]

            of_weights = weights_loss(config, logits, best, value, choice, relaxed_value)
            (slope,) = torch.autograd.grad(of_weights, logits)
            of_judge = critic_loss(judge(observation, action.flatten(1)), worth.target)
            (config.judge_coefficient * of_judge).backward()
        outputs[:, : config.mixture_size].add_(slope, alpha=config.mixture_coefficient)
        shares = {f"mixture/{name}": share for name, share in expert_shares(mixture.logits, best).items()}
        self.seen.append({"mixture_loss": of_weights.item(), "judge_loss": of_judge.item()} | shares)

    def report(self, steps: list[Step]) -> Metrics:
        """As in ppo, and what became of the mixture and its judge."""
        seen, self.seen = self.seen, []
        means = {name: sum(row[name] for row in seen) / len(seen) for name in seen[0]} if seen else {}
        return super().report(steps) | means

    def evaluate(self, episodes: int) -> Metrics:
        """Deterministic actions of the likeliest expert, or of one drawn with a stream of its own."""
        self.chooser = evaluation_chooser(self.config, self.streams, self.updates)
        try:
            return super().evaluate(episodes)
        finally:
            self.chooser = None
