"""RL-PLUS: hybrid-policy optimisation, with experts in the group, multiple importance sampling and an exploration-based advantage.

Paper: Dong et al. 2025, arXiv 2508.00222.

Equations (p, p_old = probability of a token under the learner now and when this update began)
    A           = R - mean_g R,       the expert's completion is a member of the group
    own tokens  -(p / p_old) A        (no clip, as released)
    expert      -rho A sg[(1 - p)^gamma],   rho = 2 p / (p_old + omega),   omega = (p_old + 1) / 2
    loss        = sum over tokens / constant  -  entropy_coefficient x entropy

omega estimates the probability under the expert, which nobody knows. The denominator is the balance heuristic of two samplers, so rho
stays below 2 p / (0.75 x 2 p_old + 0.5) and below 4 whatever p_old is; p / p_old alone explodes on tokens that only the expert would
write, and p alone ignores what the policy samples by itself. At p = p_old the whole weight of an expert token's log-probability is
A 4 p (1 - p)^gamma / (3 p + 1): 0 at p = 0, largest at p = 0.457 (gamma 0.5), 0 at p = 1 (our algebra). "Tokens the model finds unlikely"
count more than under -p A or CHORD's p (1 - p), but a token with p = 1e-4 is still almost ignored.

WHO ACTS   the policy samples ``group_size`` - 1 completions per prompt; an expert adds one, which is graded like the others.
KEPT       the fresh batch, for one pass of 2 gradient steps. No group is filtered.
WORTH      reward minus the mean of the mixed group. A group that is all right teaches nothing, so an expert's solution of an easy prompt
           is not imitated; one that fails the verifier is pushed down.
MOVES      the two terms above.

What differs from grpo: the mixed group, the expert's term, no clip, no deviation, a constant denominator (rows x longest completion), a
small entropy bonus, no KL. Paper and code: the paper divides the advantage by the group's deviation (``--advantage grpo``), the released
run does not; the paper's uniform distribution is the constant 1 in the code, not 1 / vocabulary, and so it is here (with 1 / vocabulary
every rho would be near 4/3). The released code sums the loss over a micro-batch's rows and divides by the padded width, and takes the
entropy's mean over tokens, so that their balance depends on the micro-batch; here both share the denominator of the whole step.
``statistics own`` is the code's second estimator: mean and deviation of the policy's own rows, a deviation of 0 counting as 1.
``external`` has the paper's ablations: ``certain`` (omega = 1 alone: the ratio is p) and ``learner`` (the ratio is p / p_old).
Checked against: the authors' code (``tests/vectors``: rl-plus).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.credit.groups import split_advantage, to_tokens
from rheostat.errors import RheostatError
from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, Advantage, GRPOConfig, LimitName
from rheostat.objectives.limits import Clip, Limit, Unlimited
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.objectives.ratio import external_logp, mixture_logp
from rheostat.objectives.weights import expert_weight
from rheostat.policies.language.model import TokenScores
from rheostat.trajectories import Source, Trajectories

External = Literal["mixed", "certain", "learner"]


@dataclass(frozen=True)
class RLPlusConfig(GRPOConfig):
    """The flags of the released run."""

    prompts_per_batch: int = 128
    """Prompts per batch."""
    group_size: int = 8
    """Completions per prompt (G), the expert's included."""
    expert_rows: int = 1
    """Completions of every group that an expert writes."""
    minibatches: int = 2
    """Gradient steps per batch."""
    exploration: float = 0.5
    """gamma of (1 - p)^gamma on expert tokens; 0 switches it off."""
    external: External = "mixed"
    """Denominator of the expert tokens' ratio: with the estimate of the expert, certainty (1), or the learner when the update began."""
    omega: float = 0.5
    """Share of the constant 1 in the estimate of the expert; the rest is the learner when the update began."""
    external_cap: float | None = None
    """Largest ratio of expert tokens, above which they give no gradient; None for no cap."""
    external_weight: float = 1.0
    """Factor on the advantage of expert tokens."""
    advantage: Advantage = "mean-baseline"
    """Reward minus the mean of the group."""
    statistics: Literal["all", "own"] = "all"
    """Whose rewards make the group's mean and deviation: those of all its rows, or of the policy's own."""
    limit: LimitName = "none"
    """Own tokens are not clipped."""
    aggregation: Aggregation = "constant"
    """Sum over tokens, divided by a constant."""
    kl_coefficient: float = 0.0
    """No KL."""
    entropy_coefficient: float = 0.001
    """Weight of an entropy bonus."""


class RLPlus(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = RLPlusConfig
    config: RLPlusConfig
    search_refused: ClassVar[str] = "the experts of its groups have a weight of their own, which no window limits"
    uses_experts: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "prompts_per_batch": 16}}
    dial_refused: ClassVar[dict[str, str]] = {"expert_share": "it has experts in every group already; set expert_rows instead"}

    @classmethod
    def derived(cls, config: GRPOConfig) -> dict[str, int | str]:
        """GRPO's numbers and the policy's own completions.

        Raises:
            RheostatError: an impossible combination, and what to change.
        """
        assert isinstance(config, RLPlusConfig)
        if not 1 <= config.expert_rows < config.group_size:
            raise RheostatError(
                f"expert_rows is {config.expert_rows} of a group of {config.group_size}: at least 1, and at least one of the group must be "
                "the policy's own."
            )
        if config.exploration < 0:
            raise RheostatError(f"exploration is {config.exploration}: the exponent of 1 - p is 0 (off) or more.")
        if not 0 < config.omega <= 1:
            raise RheostatError(
                f"omega is {config.omega}: a share above 0 and at most 1 (for the learner alone choose external 'learner')."
            )
        if config.external_cap is not None and config.external_cap <= 0:
            raise RheostatError(f"external_cap is {config.external_cap}: a ratio above 0, or None for no cap.")
        if config.ratio != "token":
            raise RheostatError(f"rl-plus compares tokens of two samplers: leave ratio at 'token', not {config.ratio!r}.")
        if config.statistics == "own" and config.advantage not in ("grpo", "mean-baseline"):
            raise RheostatError("statistics 'own' is for the advantages grpo and mean-baseline, which have a mean of the group.")
        return super().derived(config) | {"own completions per prompt": config.group_size - config.expert_rows}

    @property
    def experts_per_group(self) -> int:
        """As configured."""
        return self.config.expert_rows

    def measured(self, rows: Trajectories) -> Tensor:
        """The policy's own tokens."""
        return rows.mask & (rows.source != int(Source.EXPERT))

    def advantages(self, rows: Trajectories, reward: Tensor) -> Tensor:
        """Relative to the mixed group, or to its own rows."""
        config = self.config
        expert = rows.source[:, 0] == int(Source.EXPERT)
        if config.statistics == "all":
            found = super().advantages(rows, reward)
        else:
            scale: Literal["group", "none"] = "group" if config.advantage == "grpo" else "none"
            options: dict[str, Any] = {"scale": scale, "eps": config.advantage_epsilon, "valid": rows.valid[:, 0]}
            found = to_tokens(split_advantage(reward, rows.group[:, 0], ~expert, **options), rows.mask)
        return torch.where(expert[:, None], config.external_weight * found, found)

    def surrogate(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> PolicyLoss:
        """The policy's own tokens by importance sampling, the expert's by multiple importance sampling, over one denominator."""
        config = self.config
        expert = rows.source == int(Source.EXPERT)
        start = scores.logp.detach() if rows.learner_logp is None else rows.learner_logp
        common: dict[str, Any] = {"aggregate": config.aggregation, "denominator": denominator}
        own = policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=start,
            mask=rows.mask & ~expert,
            limit=self.limiter(),
            weight=self.correction(rows) if config.sampler_correction != "none" else None,
            **common,
        )
        theirs = policy_gradient(
            scores.logp,
            rows.advantage,
            denominator_logp=external_denominator(start, config.external, config.omega),
            mask=rows.mask & expert,
            limit=external_limit(config.external_cap),
            weight=expert_weight(scores.logp, "exploration", gamma=config.exploration),
            **common,
        )
        return PolicyLoss(own.loss + theirs.loss, own.terms)


def external_denominator(start_logp: Tensor, external: External = "mixed", omega: float = 0.5) -> Tensor:
    """Log of what an expert token's ratio is divided by: (p_old + omega) / 2 with the expert estimated, 1, or p_old.

    Args:
        start_logp: log-prob of expert tokens under the learner at the start of the update, any shape.
        external: see :class:`RLPlusConfig`.
        omega: share of the constant in the estimate.
    """
    if external == "certain":
        return torch.zeros_like(start_logp)
    if external == "learner":
        return start_logp
    return mixture_logp([start_logp, external_logp(start_logp, flat=omega)])


def external_limit(cap: float | None) -> Limit:
    """Nothing, or a cap on the expert tokens' ratio whatever the sign of the advantage."""
    return Unlimited() if cap is None else Clip(1.0, cap - 1.0, upper=cap)
