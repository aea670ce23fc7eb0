"""CHORD: on-policy reinforcement and off-policy experts in every step, by a global coefficient and a weight per token.

Paper: Zhang et al. 2025, arXiv 2508.11408.

Equations (own = tokens of the policy's completions, expert = tokens of the expert rows, s = the update, from 0)
    loss   = (1 - mu(s)) L_GRPO(own) + mu(s) L_SFT(expert)
    L_GRPO = 1/N_own    sum over own     max(-ratio A, -clip(ratio, 0.8, 1.2) A),  at most -3 A where A < 0        (dual clip)
    L_SFT  = 1/N_expert sum over expert  -sg[w(p)] log p
    mu(s)  = a warm-up from 0 to the peak, then a cosine down to the valley
    w(p)   = p (1 - p)  (CHORD-phi: only tokens the policy is undecided about teach),  or 1  (CHORD-mu)

Presets: ``phi`` (constant mu = 0.1 with w = p (1 - p); the default), ``mu`` (mu from 0.9 to 0.05 over 200 updates, w = 1), ``released``
(the example of the authors' code, which is neither: phi with a schedule from 0 over 0.5 to 0.02), and ``tiny`` and ``tiny-mu`` for the tiny
bases. A constant mu with w = 1 is GRPO with an SFT loss; ``--mu-decay-form switch --mu-peak 1 --mu-valley 0`` is SFT and then GRPO.
``searched`` and ``tiny-searched`` are in no paper: phi with BAPO's searched bounds for own tokens, whose ratio is then to whoever sampled,
and eight gradient steps on a batch, without which there is little to limit. ``--limit searched`` alone gives these bounds to any setting.

WHO ACTS   the policy samples ``group_size`` completions per prompt; the expert never acts.
KEPT       the fresh batch, and beside it expert rows from a stream of their own: ``expert_ratio`` of the whole batch.
WORTH      own rows as in GRPO; expert rows have no reward, no advantage and no part in any statistic.
MOVES      the two losses above, each over a denominator of its own, so that long expert rows do not outweigh the rollouts. The
           denominators count tokens and not weights: phi also makes the whole expert gradient smaller, at most a quarter of plain SFT.

What differs from grpo: the expert rows and their loss, the factor (1 - mu), tokens that weigh equally, the dual clip, no KL; a KL or an
entropy bonus, where asked for, is of own tokens alone and not multiplied by (1 - mu). Paper and code: the dual clip is in the code only
(``dual_clip`` None switches it off); the paper gives two lengths for mu's decay, 30 in an appendix and 200, which the code's comment
repeats. The authors' code weighs micro-batches by their rows, so that its loss depends on how a batch is split; here it does not.
``cutoff`` is a variant of the code: tokens more likely than it give no gradient.
Checked against: the authors' code, Trinity-RFT 0.6.0 (``tests/vectors``: chord).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.collect.language.experts import ExpertStream
from rheostat.collect.language.groups import World
from rheostat.errors import RheostatError
from rheostat.learner.method import Metrics
from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, GRPOConfig
from rheostat.objectives.policy_gradient import PolicyLoss
from rheostat.objectives.schedules import Decay, PeakSchedule
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.weights import ExpertWeight, expert_weight
from rheostat.policies.language.model import TokenScores
from rheostat.streams import Streams
from rheostat.trajectories import Source, Trajectories, join_rows


@dataclass(frozen=True)
class CHORDConfig(GRPOConfig):
    """CHORD-phi, with the batch of the authors' example: 32 prompts x 8 completions and 64 expert rows."""

    prompts_per_batch: int = 32
    """Prompts per batch."""
    group_size: int = 8
    """Completions per prompt (G)."""
    expert_ratio: float = 0.2
    """Share of the whole batch's rows that an expert wrote."""
    mu_peak: float = 0.1
    """Weight of the expert loss after the warm-up."""
    mu_valley: float = 0.1
    """Weight of the expert loss after the decay."""
    mu_warmup: int = 0
    """Updates over which mu rises from 0 to its peak."""
    mu_decay: int = 0
    """Updates over which mu then falls to its valley."""
    mu_decay_form: Decay = "cosine"
    """How it falls; ``switch`` stays at the peak until the end."""
    expert_weight: ExpertWeight = "phi"
    """w(p) of an expert's token."""
    cutoff: float | None = None
    """Expert tokens more likely than this give no gradient; None for all of them."""
    aggregation: Aggregation = "token-mean"
    """Every token of a part weighs the same."""
    dual_clip: float | None = 3.0
    """Where A < 0, a ratio above this gives no gradient."""
    kl_coefficient: float = 0.0
    """No KL."""


MU: dict[str, Any] = {"mu_peak": 0.9, "mu_valley": 0.05, "mu_decay": 200, "expert_weight": "none"}
SEARCHED: dict[str, Any] = {"limit": "searched", "clip_low": 0.4, "epochs": 2, "minibatches": 4}


class CHORD(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = CHORDConfig
    config: CHORDConfig
    uses_experts: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "phi": {},
        "mu": MU,
        "released": {"mu_peak": 0.5, "mu_valley": 0.02, "mu_warmup": 200, "mu_decay": 400},
        "tiny": {"learning_rate": 2e-4},
        "tiny-mu": MU | {"learning_rate": 2e-4, "mu_decay": 60},
        "searched": SEARCHED,
        "tiny-searched": SEARCHED | {"learning_rate": 2e-4},
    }
    dial_refused: ClassVar[dict[str, str]] = {"expert_share": "it has expert rows beside the groups already; set expert_ratio instead"}

    def __init__(self, config: CHORDConfig, world: World, streams: Streams, *, total_steps: int) -> None:
        super().__init__(config, world, streams, total_steps=total_steps)
        self.experts = ExpertStream(world, streams.seed)
        if config.budget == "updates":
            schedule(config).check(total_steps, "mu")

    @classmethod
    def derived(cls, config: GRPOConfig) -> dict[str, int | str]:
        """GRPO's numbers and the expert rows.

        Raises:
            RheostatError: an impossible combination, and what to change.
        """
        assert isinstance(config, CHORDConfig)
        if not 0 <= config.expert_ratio < 1:
            raise RheostatError(f"expert_ratio is {config.expert_ratio}: a share of the batch, at least 0 and below 1.")
        for name in ("mu_peak", "mu_valley"):
            if not 0 <= getattr(config, name) <= 1:
                raise RheostatError(f"{name} is {getattr(config, name)}: the loss is (1 - mu) GRPO + mu SFT, so mu lies between 0 and 1.")
        if config.cutoff is not None and not 0 < config.cutoff <= 1:
            raise RheostatError(f"cutoff is {config.cutoff}: a probability above 0 and at most 1, or None.")
        if config.temperature != 1:
            raise RheostatError(
                f"temperature is {config.temperature}: CHORD weighs expert tokens by their probability under the model itself, so sample "
                "at temperature 1."
            )
        if config.aggregation == "constant":
            raise RheostatError("CHORD's two losses have a denominator each: choose an aggregation that counts, not 'constant'.")
        schedule(config)
        return super().derived(config) | {"expert rows per batch": expert_rows_per_batch(config)}

    @property
    def mu(self) -> float:
        """Weight of the expert loss in this update."""
        return schedule(self.config).at(self.updates)

    def retain(self, fresh: Trajectories) -> Trajectories:
        """WHAT IS KEPT? The fresh batch, and the next rows of the expert stream below it."""
        kept = super().retain(fresh)
        count = expert_rows_per_batch(self.config)
        return join_rows([kept, self.experts.take(count)]) if count else kept

    def advantages(self, rows: Trajectories, reward: Tensor) -> Tensor:
        """GRPO's for the policy's own rows; 0 for the expert's, which enter no statistic."""
        return super().advantages(self.own(rows), reward)

    def own(self, rows: Trajectories) -> Trajectories:
        """The same rows with the expert's masked and out of every statistic."""
        seen = rows.clone(recurse=False)
        mine = rows.source != int(Source.EXPERT)
        seen.mask, seen.valid = rows.mask & mine, rows.valid & mine
        return seen

    def measured(self, rows: Trajectories) -> Tensor:
        """The policy's own tokens."""
        return rows.mask & (rows.source != int(Source.EXPERT))

    def denominator(self, rows: Trajectories) -> Tensor:
        """What own tokens and expert tokens are divided by, ``[2]``."""
        theirs = rows.clone(recurse=False)
        theirs.mask = rows.mask & ~self.measured(rows)
        return torch.stack([super().denominator(self.own(rows)), super().denominator(theirs)])

    def surrogate(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> PolicyLoss:
        """(1 - mu) times GRPO's loss."""
        policy = super().surrogate(scores, rows, denominator)
        return PolicyLoss((1 - self.mu) * policy.loss, policy.terms)

    def losses(self, scores: TokenScores, rows: Trajectories, denominator: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """GRPO's loss of the policy's own tokens and mu times the weighted likelihood of the expert's."""
        config = self.config
        own, expert = denominator.unbind()
        loss, parts = super().losses(scores, self.own(rows), own)
        imitation = weighted_likelihood(
            scores.logp,
            mask=rows.mask & ~self.measured(rows),
            weight=expert_weight(scores.logp, config.expert_weight),
            ceiling=config.cutoff,
            aggregate=config.aggregation,
            denominator=expert,
        )
        return loss + self.mu * imitation, parts | {"expert_loss": imitation.detach()}

    def improve(self, batch: Trajectories) -> Metrics:
        """GRPO's, with mu in the log."""
        mu = self.mu
        return super().improve(batch) | {"mu": mu}

    def state_dict(self) -> dict[str, Any]:
        """GRPO's state and the cursor of the expert stream."""
        return super().state_dict() | {"experts": self.experts.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        self.experts.load_state_dict(state["experts"])
        super().load_state_dict(state)


def schedule(config: CHORDConfig) -> PeakSchedule:
    """mu as a function of the update."""
    return PeakSchedule(config.mu_peak, config.mu_valley, config.mu_warmup, config.mu_decay, config.mu_decay_form)


def expert_rows_per_batch(config: CHORDConfig) -> int:
    """Expert rows beside the policy's own, so that they are ``expert_ratio`` of both; rounded up."""
    own = config.prompts_per_batch * config.group_size
    return math.ceil(round(own * config.expert_ratio / (1 - config.expert_ratio), 6))
