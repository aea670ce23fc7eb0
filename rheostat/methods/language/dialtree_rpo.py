"""DialTree-RPO: dialogues grown as trees, pruned by quality, and a mask that keeps the format of replies alive.

Paper: "Tree-based Dialogue Reinforced Policy Optimization" (2025), arXiv 2510.02286. Its use is outside of this library: here the method
stands alone, on harmless games with scripted partners.

Equations (paths tau_i of one tree, i = 1, ..., G; R_i = 1 where a turn's score exceeds eta, else 0; M the adaptive mask)
    A_i  = (R_i - mean(R)) / (std(R) + eps)
    M_t  = 0 if token t is a tag of the format and A_i < 0, else 1
    J    = 1/G sum_i 1/|tau_i| sum_t M_t min(rho_t A_i, clip(rho_t, 1 - eps_c, 1 + eps_c) A_i) - beta KL(pi || reference)
    loss = -J,        |tau_i| counts all tokens that the policy wrote, the masked ones too; the partner's tokens never enter

A tree grows turn by turn: every living dialogue gets n replies, each a hidden plan and a message between tags. A malformed reply (a tag is
missing, repeated or misplaced) ends its branch before the partner is asked; one that the partner does not understand is off topic and
ends it too; a dialogue that has succeeded is a leaf. Of the living ones at most w stay, drawn at random.

WHO ACTS   the policy grows a tree of dialogues for each of ``prompts_per_batch`` prompts.
KEPT       at most ``group_size`` paths of a tree; a pruned branch leaves no row, so it punishes nobody.
WORTH      success or not, relative to the paths of the tree.
MOVES      PPO's clip on tokens, each path weighing the same; a KL to the starting model inside the loss.

What differs from grpo: members of a group share their beginnings, malformed replies are never seen, and where a path is worse than its
tree's mean, its tags are not pushed down: they are necessary for every success.

What the paper leaves open, and what is done here. A turn's score is what the environment's rewards add up to so far. Deviations divide by
n - 1 and get 1e-6. The KL is k3, averaged over the tokens of a path, then over paths. Off topic is what the grade's part ``understood``
says (from 0 to 1; the paper asks an entailment model), where an environment has it. A dialogue that the environment ends without success,
or that has no room left, is a leaf with R = 0. A branch whose children were all pruned leaves no path; a tree of one path teaches nothing.
A tree with fewer than G paths uses those it has, and weighs less in the batch. Trees whose rewards are equal have A = 0.

A reply that paths share stands in the row of each of them, with each path's advantage (``prefix_mode`` mean: once, with their mean).
A group's mean leans to branches with many leaves; ``tree/first_turns`` is the effective number of different first replies.
``tree/malformed_share`` is measured before pruning. A path of one turn has fewer tokens, which weigh more.

Reconstruction: no code of the authors was found.
Checked against: the equations (``tests/vectors``: dialtree-rpo) and loops (``tests/plain``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.dialogue_trees import DialogueTrees
from rheostat.collect.language.language_collectors import Dynamic, SamplingOptions
from rheostat.credit.annotations import OldScores
from rheostat.credit.dialogue_credit import PathAdvantage, TagMask
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.language import LossKL, dynamic, policy_models, regularisers
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import AnyClip, PolicyGradient, SamplerCorrection
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class DialTreeRPO:
    """The paper's setting."""

    tree: DialogueTrees = DialogueTrees()
    dynamic: Dynamic | None = None
    """Keep only trees whose rewards differ, and sample until the batch is full."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: PathAdvantage = PathAdvantage()
    format_mask: TagMask = TagMask()
    tags: str = option("")
    """Tags of a well-formed reply, in order and separated by blanks; empty takes those of the task, if it has any."""
    clip: AnyClip = Clip(0.2, 0.2)
    """How far the ratio may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("sequence-mean")
    kl: LossKL = LossKL(0.001)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(learning_rate=1e-6)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 2e-4, "prompts_per_batch": 8, "width": 8, "group_size": 16, "kl_coefficient": 0.0},
    }

    def compose(self) -> Composition:
        """The four answers."""
        tokens = Tokens(self.aggregate)
        surrogate = PolicyGradient(tokens, self.clip, correction=self.correction)
        return Composition(
            collect=dynamic(self.dynamic, replace(self.tree, tags=self.tags)),
            retain=[self.keep],
            credit=[OldScores(), *self.kl.annotations, self.advantage, replace(self.format_mask, tags=self.tags)],
            improve=[self.update.of(Weighted(surrogate), *regularisers(self, tokens))],
            models=policy_models(self.update, self.kl),
        )
