"""CQL: conservative Q-learning, SAC whose critics are pushed down where the data have nothing to say.

Paper: Kumar et al. 2020, arXiv 2006.04779, CQL(H).

Equations (beyond sac; a_i: n actions each from uniform, pi(s) and pi(s'), all judged at s; mu: the density that drew each)
    gap_k       = log mean_i exp(Q_k(s, a_i) - log mu(a_i)) - Q_k(s, a)
    critics     = sum_k [mean (Q_k(s, a) - y)^2 + weight mean gap_k],         y without the entropy of later actions
    with a gap_threshold, weight becomes multiplier * weight * (mean gap_k - gap_threshold), and the multiplier climbs the same term

WHO ACTS   nobody, then the policy of sac.
KEPT       one buffer that begins with the data set, uniformly; or a fixed share of either (``offline_share``).
WORTH      sac's target, learned by critics that stay below it outside the data.
MOVES      sac's step, with a slower policy.

Codes differ. CORL (preset) has weight 10, the sum over i instead of the mean (``sum_over_actions``; larger by log 3n, which counts with
a threshold or limits only), standardised states, and judges the policy by the critics from before their step (``simultaneous``). Its
warm-up by imitation (``imitation_steps``) never reads the data's action; this one does, as the authors' does. CORL's policy has two more
learned numbers, a factor and an offset of the log standard deviation; this one does not.
Checked against: CORL (``tests/vectors``: baselines-control, cases cql_critic_importance and cql_critic_plain).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.off_policy import OffPolicyConfig, UsesData
from rheostat.methods.control.sac import SAC, SACConfig
from rheostat.objectives.actor import TemperatureForm
from rheostat.objectives.conservative import (
    conservative_gap,
    conservative_penalty,
    lagrange_multiplier,
    multiplier_loss,
    uniform_log_density,
)
from rheostat.objectives.temporal_difference import absolute_td_error, critic_loss, td_target
from rheostat.policies.control.actors import Temperature
from rheostat.policies.parameters import Trained
from rheostat.trajectories import Transitions

SampledForm = Literal["importance", "plain"]


class Asked(NamedTuple):
    """What a step of the critics takes from policy and slow critics; constants."""

    target: Tensor  # [B]
    action: Tensor  # [B, 3n, d] of uniform, pi(s), pi(s')
    log_density: Tensor  # [B, 3n] nats


@dataclass(frozen=True)
class CQLConfig(SACConfig):
    """The paper's setting for locomotion, with a fixed weight."""

    learning_rate: float = 3e-5
    """Adam step size of the policy and of the temperature."""
    critic_learning_rate: float | None = 3e-4
    """Adam step size of the critics and of the multiplier; None takes learning_rate."""
    hidden: tuple[int, ...] = (256, 256, 256)
    """Hidden layers of actor and critics."""
    entropy_in_backup: bool = False
    """The entropy of later actions counts in the critics' target."""
    temperature_form: TemperatureForm = "log"
    """The temperature's loss has the factor alpha (exp) or log alpha (log)."""
    conservative_weight: float = 5.0
    """Weight of the gap in the critics' loss."""
    conservative_weight_online: float | None = None
    """The same once the policy acts; None keeps it."""
    penalty_actions: int = 10
    """Actions from each of the three sources (n)."""
    gap_form: SampledForm = "importance"
    """Actions count by the density that drew them, or (plain) all alike and the data's action with them."""
    gap_temperature: float = 1.0
    """t of ``t log mean exp(Q / t)``."""
    sum_over_actions: bool = False
    """Sum instead of mean over actions in the importance form (the codes)."""
    smallest_gap: float | None = None
    """Gaps of rows below this count as this, and no longer pull; None for no limit."""
    largest_gap: float | None = None
    """The same from above."""
    gap_threshold: float | None = None
    """Largest wanted mean gap, held by a learned multiplier; None keeps the weight fixed."""
    initial_multiplier: float = 1.0
    """Where the multiplier starts (CORL: e)."""
    best_next_action: bool = False
    """The target takes the best of ``penalty_actions`` actions at s' instead of one (AntMaze)."""
    imitation_steps: int = 0
    """First gradient steps, in which the policy imitates the data instead of asking the critics."""
    simultaneous: bool = False
    """The policy is judged by the critics from before their step (CORL), not from after it."""


class CQL(SAC):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = CQLConfig
    config: CQLConfig
    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "corl": {"conservative_weight": 10.0, "sum_over_actions": True, "normalise_states": True, "simultaneous": True},
        "corl-antmaze": {
            "learning_rate": 1e-4,
            "conservative_weight": 5.0,
            "sum_over_actions": True,
            "simultaneous": True,
            "gap_threshold": 0.8,
            "smallest_gap": -200.0,
            "initial_multiplier": 2.718281828459045,
            "best_next_action": True,
            "reward_scale": 10.0,
            "reward_shift": -5.0,
            "hidden": (256,) * 5,
        },
    }

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """The chassis's numbers and the size of the penalty."""
        assert isinstance(config, CQLConfig)
        if config.penalty_actions < 1:
            raise RheostatError(f"penalty_actions is {config.penalty_actions}: the penalty needs at least 1 action of each source.")
        if config.conservative_weight < 0 or (config.conservative_weight_online or 0) < 0:
            raise RheostatError("conservative_weight and conservative_weight_online must be at least 0.")
        if not config.gap_temperature > 0:
            raise RheostatError(f"gap_temperature is {config.gap_temperature}: it must be above 0.")
        low, high = config.smallest_gap, config.largest_gap
        if low is not None and high is not None and not low < high:
            raise RheostatError(f"smallest_gap is {low} and largest_gap {high}: the first must be below the second.")
        if config.sum_over_actions and config.gap_form != "importance":
            raise RheostatError("sum_over_actions belongs to gap_form importance; the plain form sums already.")
        return super().derived(config) | {"critic evaluations per row": config.critics * (1 + 3 * config.penalty_actions)}

    def build(self) -> None:
        """SAC's networks and the multiplier."""
        super().build()
        self.multiplier = Temperature(self.config.initial_multiplier)
        self.constraint = Trained(self.multiplier, self.config.critic_learning_rate or self.config.learning_rate)

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return super().parts() | {"multiplier": self.constraint}

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """Critics and policy, each from what the other was before this step or the policy from the new critics; then the slow critics."""
        alpha = self.temperature.value
        asked = self.ask(rows, alpha)
        if self.config.simultaneous:
            found = self.actor_step(rows, alpha)
            found |= self.regress(rows, asked)
        else:
            found = self.regress(rows, asked)
            found |= self.actor_step(rows, alpha)
        self.targets.follow(self.config.tau)
        return found

    @torch.no_grad()
    def ask(self, rows: Transitions, alpha: float) -> Asked:
        """Everything about the policy that the critics' step needs."""
        target = self.target(rows, alpha)
        here, here_density = self.propose(rows.observation)
        there, there_density = self.propose(rows.next_observation)
        anywhere = 2 * torch.rand(here.shape, generator=self.streams["updates"]) - 1
        bound = torch.ones(here.shape[-1])
        return Asked(
            target,
            torch.cat([anywhere, here, there], 1),
            torch.cat([uniform_log_density(-bound, bound).expand_as(here_density), here_density, there_density], 1),
        )

    def propose(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Actions of the policy ``[B, n, d]`` and their log-densities ``[B, n]``, nats."""
        policy = self.distribution(observation)
        noise = torch.randn((self.config.penalty_actions, *policy.mean.shape), generator=self.streams["updates"])
        action, log_density = policy.draw(noise)
        return action.transpose(0, 1), log_density.transpose(0, 1)

    def target(self, rows: Transitions, alpha: float) -> Tensor:
        """SAC's, or from the best of several next actions, ``[B]``."""
        if not self.config.best_next_action:
            return super().target(rows, alpha)
        with torch.no_grad():
            action, log_density = self.propose(rows.next_observation)
            value = self.targets.network.of_many(rows.next_observation, action).amin(0)
            value, best = value.max(-1)
            if self.config.entropy_in_backup:
                value = value - alpha * log_density.gather(-1, best.unsqueeze(-1)).squeeze(-1)
            return td_target(rows.reward, value, rows.discount)

    def regress(self, rows: Transitions, asked: Asked) -> dict[str, Tensor | float]:
        """One step of all critics, and of the multiplier; the critics take the multiplier from before its step."""
        config, network = self.config, self.critics.network
        q = network(rows.observation, rows.action)
        gap = conservative_gap(
            q,
            network.of_many(rows.observation, asked.action),
            asked.log_density if config.gap_form == "importance" else None,
            form=config.gap_form,
            temperature=config.gap_temperature,
            average=not config.sum_over_actions,
        )
        error = critic_loss(q, asked.target, critics=config.over_critics, scale=config.critic_scale, weight=rows.weight)
        penalty = self.penalty(gap, rows)
        self.critics.descend(error + penalty)
        self.rank(rows, absolute_td_error(q, asked.target))
        return {
            "critic_loss": error.detach(),
            "penalty_loss": penalty.detach(),
            "gap": gap.detach().mean(),
            "multiplier": self.multiplier.value,
            "q": q.detach().mean(),
            "target": asked.target.mean(),
        }

    def penalty(self, gap: Tensor, rows: Transitions) -> Tensor:
        """Weight times gap, a scalar; moves the multiplier where there is one."""
        config = self.config
        online = self.acting and config.conservative_weight_online is not None
        weight = config.conservative_weight_online if online else config.conservative_weight
        assert weight is not None
        if config.smallest_gap is not None or config.largest_gap is not None:
            gap = gap.clamp(config.smallest_gap, config.largest_gap)
        if config.gap_threshold is None:
            return conservative_penalty(gap, alpha=weight, critics=config.over_critics, weight=rows.weight)
        penalty = conservative_penalty(
            gap,
            alpha=weight,
            multiplier=lagrange_multiplier(self.multiplier.log),
            threshold=config.gap_threshold,
            critics=config.over_critics,
            weight=rows.weight,
        )
        self.constraint.descend(multiplier_loss(self.multiplier.log, gap, threshold=config.gap_threshold, alpha=weight, weight=rows.weight))
        return penalty

    def judge(self, rows: Transitions, action: Tensor) -> Tensor:
        """SAC's; during the warm-up the likelihood of the data's action, ``[B]``."""
        if self.updates < self.config.imitation_steps:
            return self.distribution(rows.observation).log_prob(rows.action)
        return super().judge(rows, action)
