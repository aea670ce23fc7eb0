"""OORL: code translation graded by execution, and beside it groups of representations of which some mean the same and some do not.

Paper: Wu et al. 2025, "On-Policy Optimization with Group Equivalent Preference for Multi-Programming Language Understanding",
arXiv 2505.12723.

Equations (w_1..w_n and l_1..l_m: summed log-ratios to the reference of the equivalent and the inequivalent members of a group)
    L_RL   = REINFORCE++:  r_t = -b (log pi_old - log pi_ref)_t + R at the last token, returns-to-go whitened over the batch, PPO's clip
    L_GEPO = mean over groups of  -log sigmoid(beta (mean w - mean l)) + lambda Var(w)
    L      = L_RL + 0.01 L_GEPO

WHO ACTS   the present policy translates; nobody acts in the groups, which are fixed text.
KEPT       the fresh batch for one update; groups come from a stream of their own, ``groups_per_batch`` of them in every batch.
WORTH      1 where the program in the answer passes all tests, else 0, whitened over the batch; of groups only which members are equivalent.
MOVES      both losses in the same gradient step; the members of a group are never in different ones.

What differs from reinforce-pp: the groups. ``preference_weight 0`` is REINFORCE++; ``equivalents 1`` and ``inequivalents 1`` are DPO on
pairs beside it; ``spread_weight 0`` asks for the margin alone. With more members the margin is of their means, which is not the mean of
DPO over all pairs. The variance asks that equivalent members have become likelier by the same amount, whatever their lengths, and it can be
lowered by making all of them less likely: ``equivalent_log_ratio`` shows that. It is in squared nats, so its small weight does not make it
small: the log has both losses.

What is reconstruction: no code was released, and the formulas were at hand as the sentences around them. Ours are the population variance
of log-ratios without beta (``variance``, ``beta_inside_variance``), beta, the clip, the KL, both losses in one step, 32 groups per batch
(9600 groups and 2400 problems in batches of 8, each seen once), completions per prompt, and that a batch of equal rewards is skipped
(``flat_batches``), whose KL alone would be whitened to unit variance. Groups in the paper are LLVM representations of C at several levels
of optimisation, and corruptions of them.
Checked against: numbers computed independently from these equations, and veRL for the advantage (``tests/vectors``: oorl).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.groups_beside import GroupsBeside, RepresentationGroups, measure_groups
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage, ModelScores, OldScores
from rheostat.credit.flat_batches import FlatBatches
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, RewardKL, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.group_preference import GroupPreference, Variance
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Metrics, Tokens, Weighted
from rheostat.trajectories import Source


@dataclass(frozen=True)
class OORL:
    """The paper's weights and learning rate; see the module for what is ours."""

    groups: Groups = Groups(8, 8)
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    representations: RepresentationGroups = RepresentationGroups(32)
    preference_weight: float = option(0.01, at_least=0)
    """Weight of the loss of groups beside that of translations; 0 is REINFORCE++."""
    beta: float = option(0.1, above=0)
    """Scale of the log-ratios of groups: the smaller, the further the policy may go from the starting model."""
    spread_weight: float = option(1.0, at_least=0)
    """lambda: weight of the variance of the log-ratios within the equivalent members; 0 asks for a margin alone."""
    variance: Variance = option("population")
    """Divide that variance's sum of squares by the number of equivalent members, or by one less (sample)."""
    beta_inside_variance: bool = option(False)
    """Take the variance of the log-ratios times beta, which makes it smaller by the square of beta."""
    advantage: GroupAdvantage = GroupAdvantage("reinforce-pp")
    flat: FlatBatches = FlatBatches()
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio of translations may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL | RewardKL = RewardKL(0.01)
    """The KL of translations to the starting model: part of the token rewards, or in the loss."""
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus of translations."""
    update: Update = Update(learning_rate=5e-7, warmup=9, decay="cosine")
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    fixed: ClassVar[frozenset[str]] = frozenset({"sampling.top_k", "sampling.top_p", "aggregate.constant"})
    """Refused with any other value, as ``__post_init__`` says why."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "learning_rate": 2e-4,
            "warmup": 0,
            "learning_rate_decay": "none",
            "kl_coefficient": 0.0,
            "prompts_per_batch": 32,
            "groups_per_batch": 8,
        }
    }

    def __post_init__(self) -> None:
        if not self.sampling.whole:
            raise RheostatError("Representations may lie outside top_k and top_p, where their probability is 0: leave both off.")
        if self.aggregate.mode == "constant":
            raise RheostatError("Groups would count in the constant of the translations' loss: choose an aggregation that counts tokens.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        spreading = ("variance", "beta_inside_variance")
        if not self.preference_weight:
            groups = [f"representations.{name}" for name in ("groups", "equivalents", "inequivalents", "file")]
            why = "preference_weight is 0, so no group is learned from; leave it alone"
            return dict.fromkeys((*groups, "beta", "spread_weight", *spreading), why)
        if self.representations.equivalents == 1:
            return dict.fromkeys(("spread_weight", *spreading), "equivalents is 1, and one member has no variance; leave it alone")
        return {} if self.spread_weight else dict.fromkeys(spreading, "spread_weight is 0; raise it, or leave this alone")

    @property
    def preference(self) -> GroupPreference:
        """The loss of groups."""
        return GroupPreference(beta=self.beta, spread=self.spread_weight, variance=self.variance, beta_inside=self.beta_inside_variance)

    def compose(self) -> Composition:
        """The four answers."""
        own = Tokens(self.aggregate, without=Source.ANNOTATION)
        surrogate = PolicyGradient(own, self.clip, correction=self.correction)
        learns = bool(self.preference_weight)
        preference = Weighted(self.preference, self.preference_weight, "preference") if learns else None
        return Composition(
            collect=self.groups,
            retain=[self.keep, *([GroupsBeside(self.representations)] if learns else [])],
            credit=[
                OldScores(),
                *([ModelScores()] if learns or self.kl.coefficient else []),
                replace(self.advantage.with_kl(self.kl.penalty), without=Source.ANNOTATION),
                self.flat,
            ],
            improve=[self.update.of(Weighted(surrogate), *regularisers(self, own), preference)],
            models=policy_models(self.update) | {"reference": Frozen()},
            measure=partial(measure, groups=self.representations, term=self.preference, required=learns),
        )


def measure(context: Any, count: int, *, groups: RepresentationGroups, term: GroupPreference, required: bool) -> Metrics:
    """Translations of held-out prompts, and how the policy ranks held-out groups.

    Args:
        context: of the learner.
        count: prompts, and groups, at most.
        groups: which groups.
        term: compares their members.
        required: whether groups are learned from; else they are measured only where the task makes them.
    """
    with context.evaluating():
        found: Metrics = context.collector.validation(count, context.sampling, version=context.updates)
    return found | (measure_groups(context, groups, term, count) if required or groups.there(context.setup.task) else {})
