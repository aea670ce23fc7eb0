"""OSP: the policy answers every prompt several times, judges its own answers, and learns from how strongly it prefers one to another.

Paper: Zhai et al. 2024, "Online Self-Preferring Language Models", arXiv 2405.14103.

Equations (K answers of a prompt, y_b one of them, s the judge's probability that what stands first is better, w_i the log-ratio of y_i)
    q_i  = 1/2 (s(y_i, y_b) + 1 - s(y_b, y_i)),      q_b = 1/2
    p_ij = sigmoid(logit q_i - logit q_j),           q in [c, 1 - c]
    loss = -mean over pairs of [ p_ij log sigmoid(beta (w_i - w_j)) + (1 - p_ij) log sigmoid(-beta (w_i - w_j)) ]

WHO ACTS   the present policy, ``group_size`` answers per prompt; with ``dial.refresh_every`` a copy of it.
KEPT       the answers of the present batch; exact repetitions are left out.
WORTH      what the policy itself says: two questions about each answer, in both orders, and the probabilities of two verdict tokens.
           ``judge_refresh_every`` lets a copy judge; ``compare_by judge`` asks the run's judge. No reward is needed.
MOVES      the cross-entropy to these probabilities, which are constants, over all pairs of a prompt.

What differs from online-dpo: the policy judges itself, all pairs of a ranking instead of its ends, and probabilities instead of labels. The
optimum ``beta D = logit p`` is finite, where labels ask for ever larger margins; ``labels hard`` are such labels, on the same pairs.

What is reconstruction: no code was released, and of the paper only descriptions were at hand. The loss is its name written out; that
answers are compared with one baseline is what two surveys say. Ours are how strengths are composed (``labels``), the choice of the
baseline, the verdict tokens, the mean over both orders, K, beta and the clip. The paper first trains its policy to judge:
``rheostat.collect.language.self_judge.judging_rows`` makes demonstrations for that from pairs. A judge that begins to drift is seen
where pairs are held out (``--preferences``), and ``judge_floor`` ends the run.
Checked against: numbers computed independently from these equations (``tests/vectors``: osp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.collect.language.distinct_answers import DistinctAnswers
from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.credit.annotations import ModelScores
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.judging import PreferenceStrength
from rheostat.learner.language import policy_models
from rheostat.learner.language_preferences import measure
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen
from rheostat.learner.update import Update
from rheostat.objectives.preference_terms import PreferenceTerm, SoftPreference
from rheostat.options import option
from rheostat.parts import Metrics, Weighted


@dataclass(frozen=True)
class OSP:
    """Four answers, DPO's scale, and a step size for large models."""

    data: DistinctAnswers = DistinctAnswers(32, 4)
    strength: PreferenceStrength = PreferenceStrength()
    beta: float = option(0.1, above=0)
    """Scale of the log-ratios: a pair of strength p is learned when its margin is ``logit p / beta``."""
    sampling: SamplingOptions = SamplingOptions()
    update: Update = Update(learning_rate=1e-6)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {"tiny": {"learning_rate": 2e-4}}

    def compose(self) -> Composition:
        """The four answers."""
        return Composition(
            collect=self.data,
            retain=[],
            credit=[ModelScores(), self.strength],
            improve=[self.update.of(Weighted(SoftPreference(beta=self.beta), 1.0, "preference"))],
            models=policy_models(self.update) | {"reference": Frozen()} | self.strength.own_models,
            measure=self.measure,
        )

    def measure(self, context: Any, count: int) -> Metrics:
        """How policy and judge rank held-out pairs, and what the policy samples, where that can be graded."""
        return measure(context, count, PreferenceTerm(beta=self.beta)) | self.strength.measure(context, count)
