"""RL-PLUS: hybrid-policy optimisation, with experts in the group, multiple importance sampling and an exploration-based advantage.

Paper: Dong et al. 2025, arXiv 2508.00222.

Equations (p, p_old = probability of a token under the learner now and when this update began)
    A           = R - mean_g R,       the expert's completion is a member of the group
    own tokens  -(p / p_old) A        (no clip, as released)
    expert      -rho A sg[(1 - p)^gamma],   rho = 2 p / (p_old + omega),   omega = (p_old + 1) / 2
    loss        = sum over tokens / constant  -  entropy_coefficient x entropy

omega estimates the probability under the expert, which is unknown. The denominator is the balance heuristic of two samplers, so rho
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
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import MixedAdvantage
from rheostat.errors import RheostatError
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, group_policy_gradient, with_experts_inside
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import NoClip
from rheostat.objectives.foreign_terms import External, ExternalExperts
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted
from rheostat.trajectories import Source


@dataclass(frozen=True)
class RLPlus:
    """The flags of the released run."""

    groups: Groups = Groups(128, 8)
    expert_rows: int = option(1, at_least=1)
    """Completions of every group that an expert writes."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: MixedAdvantage = MixedAdvantage("mean-baseline")
    exploration: float = option(0.5, at_least=0)
    """gamma of (1 - p)^gamma on expert tokens; 0 switches it off."""
    external: External = option("mixed")
    """Denominator of the expert tokens' ratio: with the estimate of the expert, certainty (1), or the learner when the update began."""
    omega: float = option(0.5, above=0, at_most=1)
    """Share of the constant 1 in the estimate of the expert; the rest is the learner when the update began."""
    external_cap: float | None = option(None, above=0)
    """Largest ratio of expert tokens, above which they give no gradient; None for no cap."""
    clip: AnyClip = NoClip()
    """How far the ratio of own tokens may move: as released, as far as it likes."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("constant")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.001)
    """Weight of an entropy bonus."""
    update: Update = Update(minibatches=2)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    fixed: ClassVar[frozenset[str]] = frozenset({"dial.expert_share"})
    """Every group has an expert already."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4, "prompts_per_batch": 16}}

    def __post_init__(self) -> None:
        if self.omega != 0.5 and self.external != "mixed":
            raise RheostatError(f"omega is a share of the estimate of the expert, which external {self.external!r} does not use.")

    def compose(self) -> Composition:
        """The four answers."""
        own = PolicyGradient(Tokens(self.aggregate, without=Source.EXPERT), self.clip, clamp_log_ratio=False, correction=self.correction)
        theirs = Tokens(self.aggregate, only=Source.EXPERT)
        experts = ExternalExperts(theirs, self.external, self.omega, self.external_cap, self.exploration)
        collect = with_experts_inside(self.groups, self.expert_rows)
        return group_policy_gradient(self, Weighted(own), Weighted(experts, name="expert"), collect=collect)
