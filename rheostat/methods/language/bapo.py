"""BAPO: balanced policy optimisation with adaptive clipping.

Paper: Xi et al. 2025, arXiv 2510.18927; code: WooooDyy/BAPO, a recipe for verl.

Equations (r = pi / pi_behaviour per token, A the group advantage)
    loss  = token mean of -min(r A, clip(r, c_low, c_high) A)
    share = ( sum_{A>0} w min(r, c_high) A ) / ( the same + sum_{A<0} w max(r, c_low) |A| ),      w = pi_behaviour(y_t)
    start at c_low = 0.6, c_high = 1.2;  while share < 0.4:  c_high += 0.05 up to 3.0, then c_low += 0.02 up to 0.9

WHO ACTS   any earlier version of the policy; in the published runs the one at the start of a batch that is used for eight gradient steps.
KEPT       the last batch, for ``epochs`` x ``minibatches`` gradient steps (stale, replayed or expert data: see the dial).
WORTH      a verifier's reward, relative to the group.
MOVES      PPO's clip with two bounds that are searched for in every gradient step.

What differs from grpo: the ratio is to the *behaviour* policy (``sampler_logp``), never to the learner at the start of the update, with
which r would be 1 in the first step and the search would do nothing; the window is searched for; tokens weigh equally; no KL. Where
the sampler is unknown (experts), the denominator is the learner at the start of the update, as in grpo. All of it is the setting
``clip=searched`` (``rheostat/objectives/searched_clip.py``), which the other methods of token ratios take, too: ``rheostat train chord
chain-sum --preset tiny-searched`` puts BAPO's window on CHORD's mixture.

Paper and released code differ (``--search released``): the code measures the quotient positive / negative without w, moves the *lower*
bound first, and adds a dual clip of 3. Its configuration (target 1.0, bounds to 0.8 and 2.0 by 0.05) is the preset ``released``, that of
its example script (target 0.5, which is a share of 1/3; the README calls it a share of 0.5) the preset ``released-script``. verl searches
per micro-batch, so bounds change inside a gradient step; here the search sees all tokens of a gradient step, and micro-batches change
nothing (they cost one more forward pass per step).

Raising c_low can only increase the negative side, so it never helps to reach the target, in either form; what it does is to take the
gradient away from negative tokens that have already become unlikely. On the meter stand the positive share before and after the search
and the Entropy-Clip Rule: which way the kept and the cut gradients push the entropy.

Reconstruction: the paper's form, its numbers and its hyperparameters are from public notes, not from the paper's text; the notes' sampling
temperature of 0.6 is not taken over (1.0, as in the script).
Checked against: the authors' code (released form) and the equations (``tests/vectors``: bapo).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.searched_clip import SearchedClip
from rheostat.objectives.terms import PolicyGradient
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted

RELEASED: dict[str, Any] = {"search": "released", "learning_rate": 1e-6, "dual_clip": 3.0, "clip_high_end": 1.0}


@dataclass(frozen=True)
class BAPO:
    """The paper's search."""

    groups: Groups = Groups()
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: GroupAdvantage = GroupAdvantage("grpo")
    clip: SearchedClip = SearchedClip(0.4, 0.2)
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(epochs=2, minibatches=4, learning_rate=2e-6, weight_decay=0.1)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 2e-4, "weight_decay": 0.0},
        "released": RELEASED | {"target": 1.0, "clip_low": 0.4, "clip_low_end": 0.2, "clip_low_step": 0.05, "clip_high_step": 0.05},
        "released-script": RELEASED
        | {"target": 0.5, "clip_low": 0.2, "clip_low_end": 0.05, "clip_low_step": 0.05, "clip_high_step": 0.1, "top_k": 100},
    }

    def compose(self) -> Composition:
        """The four answers."""
        return group_policy_gradient(self, Weighted(PolicyGradient(Tokens(self.aggregate), self.clip)))
