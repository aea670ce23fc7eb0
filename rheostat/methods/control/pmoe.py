"""PMOE: soft actor-critic with a probabilistic mixture of experts for a policy.

Paper: Ren et al. 2021, "Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning", arXiv 2104.09122.

Equations (K experts; q_k = min_j Q_j(s, a_k) with a_k reparameterised from expert k; k* = argmax_k q_k, the first of equals)
    pi(a|s)     = sum_k w_k(s) N_k(a|s),      w = softmax(W s + b)
    y           = r + gamma (1 - terminated) [min_j Qbar_j(s', a') - alpha log pi_k'(a'|s')],      k' ~ w(s'), a' ~ pi_k'(s')
    experts     = mean [alpha log pi_k*(a_k*|s) - q_k*]
    weights     = mean over rows and k of (w_k - 1{k = k*})^2
    temperature = -log alpha mean (log pi_k*(a_k*|s) + target)

WHO ACTS   one expert, drawn from the weights.
KEPT       as in sac.
WORTH      as in sac, of an action of one drawn expert.
MOVES      the best expert alone, along the critic's gradient; the weights, towards how often each expert is the best.

What differs from sac: the policy, the loss of its weights, and which expert moves. With one expert it is sac, number by number. The index
of an expert has no derivative; the weights' regression on the best one is the paper's "frequency approximate gradient", and
``mixture_gradient`` has what it is compared with. ``update`` says which experts move: the best (max), all, or the one that was drawn
(sampled: with gumbel or score, the ordinary gradient of such a policy). That "all" is a mean over experts is a reconstruction, as is the
form of the two other gradients: the paper's text was not at hand, only the code of one of its authors.
Nothing balances the experts: one that is never the best does not move and is asked less and less; the log shows it (``mixture/...``).

What the authors' code does otherwise: it standardises rewards inside every batch, times 10 (``batch_reward_scale``), which changes the
objective from batch to batch; its deterministic action is that of an expert drawn from the weights (``deterministic``); the preset
"authors" has both, and their widths. Its critics' last layer starts within +-0.003 too (here only the experts' does). As there, the entropy
is that of the expert that acted, which makes the mixture more spread out than alpha thinks; ``entropy_of`` mixture takes the density of the
whole, which is another algorithm: its gradient moves all experts and the weights.
Checked against: the authors' code (``tests/vectors``: pmoe, cases sac_update and sac_update_tied_q).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.learner.method import Metrics
from rheostat.learner.off_policy import OffPolicyConfig
from rheostat.masking import standardise
from rheostat.methods.control.mixture_options import (
    MixtureConfig,
    check_mixture,
    draw_choice,
    evaluation_chooser,
    mean_action,
    weights_loss,
)
from rheostat.methods.control.sac import SAC, SACConfig
from rheostat.objectives.actor import TemperatureForm, soft_actor_loss
from rheostat.objectives.mixture_of_experts import best_expert, expert_shares
from rheostat.objectives.temporal_difference import least, soft_value
from rheostat.policies.control.mixture_networks import MixtureActor
from rheostat.policies.control.mixtures import SquashedMixture, of_expert
from rheostat.trajectories import Transitions

REWARD_EPSILON = 1e-6
"""Added to the deviation that the rewards of a batch are divided by."""


@dataclass(frozen=True)
class PMOEConfig(MixtureConfig, SACConfig):
    """The authors' setting, but for the rewards."""

    batch_size: int = 300
    """Transitions per gradient step."""
    tau: float = 0.01
    """Share of the new critics in the slow ones after each gradient step."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Hidden layers of the critics, and of the experts' network unless it has its own."""
    actor_hidden: tuple[int, ...] | None = None
    """Hidden layers of the experts' network; None takes hidden."""
    mixture_hidden: tuple[int, ...] = ()
    """Hidden layers of the weights' network; none is a single linear layer, as the authors have it."""
    initial_output: float | None = 3e-3
    """The experts' last layer starts uniform in +- this; None starts it as sac does."""
    temperature_form: TemperatureForm = "log"
    """The temperature's loss has the factor alpha (exp) or log alpha (log)."""
    update: Literal["max", "all", "sampled"] = "max"
    """Experts that move in a gradient step: the one with the best action, all (the mean of their losses), or the one that was drawn."""
    entropy_of: Literal["component", "mixture"] = "component"
    """Density in the entropy terms: of the expert that acted (the authors), or of the whole mixture."""
    batch_reward_scale: float | None = None
    """Standardise the rewards of every batch, times this (the authors: 10); None takes them as they are."""


class PMOE(SAC):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = PMOEConfig
    config: PMOEConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "authors": {"actor_hidden": (512, 512, 512, 512), "batch_reward_scale": 10.0, "deterministic": "sampled"}
    }
    policy: MixtureActor  # type: ignore[assignment]
    chooser: torch.Generator | None = None
    """Draws the expert of deterministic actions while an evaluation lasts."""

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """As in sac, and the experts."""
        assert isinstance(config, PMOEConfig)
        check_mixture(config)
        return super().derived(config) | {"experts": config.mixture_size}

    def build_actor(self) -> MixtureActor:  # type: ignore[override]
        """Experts and weights."""
        config = self.config
        seen, acted = self.sizes
        return MixtureActor(
            seen,
            acted,
            experts=config.mixture_size,
            hidden=config.hidden if config.actor_hidden is None else config.actor_hidden,
            mixture_hidden=config.mixture_hidden,
            initial_output=config.initial_output,
            generator=self.streams["networks"],
        )

    def distribution(self, observation: Tensor) -> SquashedMixture:  # type: ignore[override]
        """The mixture of unit actions."""
        return self.policy.distribution(observation, self.chooser)

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """As in sac, with the rewards of the batch standardised if asked for."""
        if self.config.batch_reward_scale is not None:
            rows = rows.clone(recurse=False)
            rows.reward = self.config.batch_reward_scale * standardise(rows.reward, eps=REWARD_EPSILON)
        return super().gradient_step(rows)

    def draw_soft(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """An action of one drawn expert and its log-probability, for the critics' target."""
        mixture = self.distribution(observation)
        index = mixture.choose(self.streams["experts"])
        action, log_prob = self.draw_all(mixture)
        return of_expert(action, index), of_expert(log_prob, index)

    def draw_all(self, mixture: SquashedMixture) -> tuple[Tensor, Tensor]:
        """A reparameterised action of every expert ``[B, K, D]`` and its log-probability ``[B, K]``."""
        noise = mixture.noise(self.streams["updates"])
        action, log_prob = mixture.draw(noise)
        return action, mixture.mixture_log_prob(noise, log_prob) if self.config.entropy_of == "mixture" else log_prob

    def actor_step(self, rows: Transitions, alpha: float) -> dict[str, Tensor | float]:
        """One step of experts and weights, and of the temperature."""
        config, mixture = self.config, self.distribution(rows.observation)
        action, log_prob = self.draw_all(mixture)  # [B, K, D], [B, K]
        q = self.judge_all(rows, action)
        best = best_expert(q)
        choice = draw_choice(config, mixture.logits, self.streams["experts"])
        if config.update == "all":
            value, density = q.flatten(), log_prob.flatten()
        else:
            moved = best if config.update == "max" else choice.drawn
            value, density = of_expert(q, moved), of_expert(log_prob, moved)
        loss = soft_actor_loss(value, density, alpha)

        fixed, constant = action.detach(), log_prob.detach()

        def relaxed_value(relaxed: Tensor) -> Tensor:
            return soft_value(self.judge(rows, mean_action(relaxed, fixed)), (relaxed * constant).sum(-1), alpha)

        of_weights = weights_loss(config, mixture.logits, best, soft_value(q.detach(), constant, alpha), choice, relaxed_value)
        self.actor.descend(loss + config.mixture_coefficient * of_weights)
        entropy = self.temperature_step(density)
        found: dict[str, Tensor | float] = {f"mixture/{name}": share for name, share in expert_shares(mixture.logits, best).items()}
        return found | {"policy_loss": loss.detach(), "mixture_loss": of_weights.detach(), "entropy": entropy, "temperature": alpha}

    def judge_all(self, rows: Transitions, action: Tensor) -> Tensor:
        """The critics' word on an action of every expert, ``[B, K, D]`` to ``[B, K]``; the gradient flows through the action alone."""
        q = self.critics.network.of_many(rows.observation, action, frozen=True)
        return least(q.flatten(1)).view(q.shape[1:])

    def evaluate(self, episodes: int) -> Metrics:
        """Deterministic actions of the likeliest expert, or of one drawn with a stream of its own."""
        self.chooser = evaluation_chooser(self.config, self.streams, self.updates)
        try:
            return super().evaluate(episodes)
        finally:
            self.chooser = None
