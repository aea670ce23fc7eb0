"""TreePO: completions grown as trees, and an advantage from every group that a tree contains.

Paper: Li et al. 2025, arXiv 2508.17445; code: multimodal-art-projection/TreePO, a recipe for verl.

Equations (R_i the reward of leaf i; g_0 all leaves of its prompt, g_j those below its node at level j, its own level left out)
    a_i0 = R_i - mean(g_0)          a_ij = R_i - mean(g_j)  where |g_j| > 1
    A_i  = average of the a_ij, on all tokens of the leaf, then (A - mean) / sqrt(var + 1e-8) over all tokens of the batch
    L    = token mean of max(-A r, -A clip(r, 0.8, 1.28)), where A < 0 at most -10 A
    branches of a tree's next segment = max( min(W - finished, d (finished now + a)), a ),      a = its paths alive

A tree grows to W finished paths in segments of S tokens, with d branches each while the width allows: spread evenly, the last path takes
the remainder. A path ends at its end token, at the longest completion, at D segments, or when a segment repeats itself. A tree that dries
up below W branches again inside its finished paths, at random segment boundaries.

WHO ACTS   the policy grows a tree for each prompt, segment by segment: what paths have in common is generated once.
KEPT       trees whose rewards differ (sampled until the batch is full), for ``epochs`` x ``minibatches`` gradient steps.
WORTH      a verifier's reward, relative to every group of the leaf's path; whitened over the batch, no group by its own deviation.
MOVES      PPO's clip of 0.2 / 0.28 with a dual clip of 10; tokens weigh equally; no KL.

What differs from grpo: a group is a tree, whose members share their beginnings; the group's mean is one of several baselines; nothing is
divided by a group's deviation; DAPO's dynamic sampling, clip and overlong penalty. Shared tokens stand in the row of every leaf below
them and are trained with each leaf's advantage: their average is the value of the node.

Other answers to the same questions: ``advantage`` root (the whole tree alone), progress (a segment's node against its parent) and siblings
(SPO's); ``tree.branching`` by probability; ``tree.root_random`` draws the first branches between ``branches`` and ``root_branches`` (2 to 8
in the paper's last experiment).

The authors' code does otherwise in places that are taken as errors: random first branches never happen (the two numbers are overwritten
before they are read); a dried-up tree continues from text that its row does not hold, because the engine's input keeps segments that
were cut off (here a path is always continued from the ids of its row); truncation by 0 tokens empties a row; the training script's fallback
window of -1 raises. Rewards are -1 and +1 there and the task's own here, which whitening makes equal but for the overlong penalty: its
largest value is one right answer here, half of one there. Whether an answer is boxed plays no part in the variant that was kept; a
task that ends with its answer has stop strings.

Leaves of a tree are no independent completions: what paths that have ended would have grown is handed to the living ones, so long
completions are more frequent than the policy makes them, and the root's mean leans to subtrees with many leaves. The reward of a batch is
therefore not the policy's accuracy; measurements sample for themselves.

What paths have in common is computed once (``tree.share``): the embedded engine keeps keys and values between segments, and rows that begin
alike are laid out as a tree in gradient steps. ``tree/generated_tokens`` and ``tree/prefilled_tokens`` say what a batch took.

Reconstruction: the paper's text was not at hand; equations, defaults and growing rules are from the authors' code, the random first
branches from the name of an experiment.
Checked against: the authors' code (advantages, allocation, loss; ``tests/vectors``: treepo).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Dynamic, SamplingOptions
from rheostat.collect.language.trees import Trees
from rheostat.credit.annotations import OldScores, OverlongPenalty
from rheostat.credit.tree_advantages import AnyTreeAdvantage, SubgroupAdvantage
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
class TreePO:
    """The paper's last setting, with batch sizes for one machine."""

    tree: Trees = Trees()
    dynamic: Dynamic | None = Dynamic()
    """Keep only trees whose rewards differ, and sample until the batch is full."""
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    advantage: AnyTreeAdvantage = SubgroupAdvantage()
    """What a leaf or a segment is compared with: every group of its path, the whole tree alone, its parent, its siblings."""
    overlong: OverlongPenalty = OverlongPenalty(None)
    clip: AnyClip = Clip(0.2, 0.28, dual=10.0)
    """How far the ratio may move."""
    correction: SamplerCorrection = SamplerCorrection()
    aggregate: Aggregate = Aggregate("token-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(warmup=10, weight_decay=0.1)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {
            "learning_rate": 2e-4, "warmup": 0, "weight_decay": 0.0, "segment": 6, "repetition_count": 0, "overlong_buffer": 8,
        },
        "paper": {
            "prompts_per_batch": 512, "minibatches": 16, "max_new_tokens": 7168, "tree_depth": 14, "overlong_buffer": 512,
            "root_branches": 8, "root_random": True,
        },
    }  # fmt: skip

    def compose(self) -> Composition:
        """The four answers."""
        tokens = Tokens(self.aggregate)
        surrogate = PolicyGradient(tokens, self.clip, correction=self.correction)
        return Composition(
            collect=dynamic(self.dynamic, self.tree),
            retain=[self.keep],
            credit=[OldScores(), *self.kl.annotations, self.overlong, self.advantage.with_segment(self.tree.segment)],
            improve=[self.update.of(Weighted(surrogate), *regularisers(self, tokens))],
            models=policy_models(self.update, self.kl),
        )
