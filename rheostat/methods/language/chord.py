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
and eight gradient steps on a batch, without which there is little to limit. ``--clip searched`` alone gives these bounds to any setting.

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
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.experts import ExpertsBeside
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, OldScores
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.update import Logged, Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.schedules import Complement, PeakSchedule
from rheostat.objectives.terms import AnyClip, Likelihood, PolicyGradient, SamplerCorrection
from rheostat.objectives.weights import ExpertWeight
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted
from rheostat.trajectories import Source

MU: dict[str, Any] = {"mu_peak": 0.9, "mu_valley": 0.05, "mu_decay": 200, "expert_weight": "none"}
SEARCHED: dict[str, Any] = {"clip": "searched", "clip_low": 0.4, "epochs": 2, "minibatches": 4}


@dataclass(frozen=True)
class CHORD:
    """CHORD-phi, with the batch of the authors' example: 32 prompts x 8 completions and 64 expert rows."""

    groups: Groups = Groups(32, 8)
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    expert_ratio: float = option(0.2, at_least=0, below=1)
    """Share of the whole batch's rows that an expert wrote."""
    mu: PeakSchedule = PeakSchedule(0.1, 0.1)
    expert_weight: ExpertWeight = option("phi")
    """w(p) of an expert's token."""
    cutoff: float | None = option(None, above=0, at_most=1)
    """Expert tokens more likely than this give no gradient; None for all of them."""
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: AnyClip = Clip(0.2, 0.2, dual=3.0)
    """How far the ratio of own tokens may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus of own tokens."""
    update: Update = Update()
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    fixed: ClassVar[frozenset[str]] = frozenset({"sampling.temperature", "aggregate.constant"})
    """Refused with any other value, as ``__post_init__`` says why."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "phi": {},
        "mu": MU,
        "released": {"mu_peak": 0.5, "mu_valley": 0.02, "mu_warmup": 200, "mu_decay": 400},
        "tiny": {"learning_rate": 2e-4},
        "tiny-mu": MU | {"learning_rate": 2e-4, "mu_decay": 60},
        "searched": SEARCHED,
        "tiny-searched": SEARCHED | {"learning_rate": 2e-4},
    }

    def __post_init__(self) -> None:
        for name in ("peak", "valley"):
            if getattr(self.mu, name) > 1:
                raise RheostatError(f"mu.{name} is {getattr(self.mu, name)}: the loss is (1 - mu) GRPO + mu SFT, so mu is at most 1.")
        if self.sampling.temperature != 1:
            raise RheostatError(
                f"temperature is {self.sampling.temperature}: CHORD weighs expert tokens by their probability under the model itself, so "
                "sample at temperature 1."
            )
        if self.aggregate.mode == "constant":
            raise RheostatError("CHORD's two losses have a denominator each: choose an aggregation that counts, not 'constant'.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if not self.expert_ratio:
            return dict.fromkeys(("expert_weight", "cutoff"), "expert_ratio is 0, so there are no expert tokens; leave it alone")
        never = not self.mu.valley and not (self.mu.peak and self.mu.end)
        return dict.fromkeys(("expert_weight", "cutoff"), "mu is always 0; leave it alone") if never else {}

    @property
    def expert_rows(self) -> int:
        """Expert rows beside the policy's own, so that they are ``expert_ratio`` of both; rounded up."""
        return math.ceil(round(self.groups.rows * self.expert_ratio / (1 - self.expert_ratio), 6))

    def compose(self) -> Composition:
        """The four answers."""
        own, experts = Tokens(self.aggregate, without=Source.EXPERT), Tokens(self.aggregate, only=Source.EXPERT)
        surrogate = PolicyGradient(own, self.clip, correction=self.correction)
        imitation = Likelihood(experts, self.expert_weight, self.cutoff)
        update = self.update.of(
            Weighted(surrogate, Complement(self.mu)),
            *regularisers(self, own),
            Weighted(imitation, self.mu, "expert"),
        )
        return Composition(
            collect=self.groups,
            retain=[self.keep, ExpertsBeside(self.expert_rows)],
            credit=[OldScores(), *self.kl.annotations, replace(self.advantage, without=Source.EXPERT)],
            improve=[Logged("mu", self.mu), update],
            models=policy_models(self.update, self.kl),
        )
