"""N2N learning: two recurrent policies cut a trained network down, first layers, then their sizes, by the policy gradient.

Paper: Ashok, Rhinehart, Beainy and Kitani 2017, arXiv 1709.06030, "N2N Learning: Network to Network Compression via Policy Gradient
Reinforcement Learning". An episode is one architecture, a decision is about one layer, and the reward comes at the end.

Equations (a network of P weights, cut from one of P_0; accuracy A, the teacher's A_T)
    C        = 1 - P / P_0,                    R_c = C (2 - C),                    R_a = A / A_T
    R        = R_a R_c;                        -1 where it cannot be built or P >= P_0
    R        = (eps_e - 1) + eps_e R_a R_c     where it breaks a constraint,       eps_e = max(1 - e / 15, 0)^4 in epoch e
    b_e      = mean over epochs before e of their mean rewards
    loss     = - 1/N sum_i (R_i - b_e) sum_{t not fixed} log pi(a_t)
    taught   = mean (student's logits - teacher's logits)^2

WHO ACTS   in the first stage a bidirectional LSTM that keeps or removes every layer, in the second two stacked LSTM cells that shrink
           kernel, stride, size and padding of one layer after the other. Every network that they make is trained for a few epochs.
KEPT       the networks of one epoch; and what every architecture was found to be worth, so that equal ones are trained once.
WORTH      the network's own reward less the mean of earlier epochs, on every decision that could change something.
MOVES      one gradient step of Adam per epoch. The best network of the first stage is cut on in the second, and the best of that is
           trained until it gets no better on the validation set.

What the authors' code does otherwise: every rollout of an epoch gets the same signal, the epoch's mean reward less the baseline
(``signal=epoch``), so that rollouts are never compared with each other; the baseline divides the sum of e epochs by e + 1
(``baseline_divisor=epochs+1``); there is one step per rollout (``step_per=rollout``; its log-probabilities are those of now, where theirs
are those of before the earlier steps); decisions about fixed layers get gradient, too, and here they are masked; strided convolutions do
not shrink (``strided_convolutions=fixed``); the reward is measured on the test set, and here on a validation set; layers are read as
raw numbers, which saturate the LSTM, and here they are scaled; in the second stage networks are taught by the student of the first and
compared with its accuracy, and here by and with the teacher; eps_e rises again after epoch 15, and here it stays 0; the store of rewards
is never filled. The first epoch, before which there is none, is compared with its own mean where signal and baseline are ours.
Reconstruction: which sizes a residual block may change follows the authors' rule (the filters of inner convolutions), and what the sum
forces to be equal follows the shortcut.
Checked against: the authors' code, number by number (``tests/vectors``: n2n); a plain implementation (``tests/plain/test_n2n.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from rheostat.collect.compression.search import Rollouts, Worth
from rheostat.credit.running_baseline import RunningBaseline
from rheostat.learner.compression import Drawn, controllers, staged
from rheostat.learner.learner import Composition
from rheostat.learner.stages import Staged
from rheostat.learner.update import Update
from rheostat.objectives.clipping import DetachedClip
from rheostat.objectives.terms import PolicyGradient
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted
from rheostat.tasks.compression.lessons import Lessons


@dataclass(frozen=True)
class Controllers:
    """How the controllers move."""

    removal_rate: float = option(0.003, short="removal_learning_rate", above=0)
    """Step size of the controller of removal."""
    shrinkage_rate: float = option(0.1, short="shrinkage_learning_rate", above=0)
    """Step size of the controller of shrinkage."""
    step_per: Literal["epoch", "rollout"] = option("epoch")
    """One gradient step for all rollouts of an epoch, or (as in the authors' code) one for each."""
    max_grad_norm: float = option(1e6, above=0)
    """Global gradient norm limit; the default limits nothing."""

    def rate(self, controller: str) -> float:
        """Step size of a controller."""
        return self.removal_rate if controller == "removal" else self.shrinkage_rate

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "chance draws the networks, so nothing is learned"
        found = dict.fromkeys(("removal_rate", "shrinkage_rate", "step_per", "max_grad_norm"), why) if method.by_chance else {}
        share = method.stages.removal_share
        found |= {"removal_rate": "no epoch removes layers"} if share == 0 else {}
        found |= {"shrinkage_rate": "no epoch shrinks layers"} if share == 1 else {}
        return found | ({"step_per": "there is one rollout per epoch"} if method.rollouts.count == 1 else {})


@dataclass(frozen=True)
class SearchStages:
    """What the epochs are spent on."""

    removal_share: float = option(0.5, share=True)
    """Share of the epochs that remove layers, before the others shrink them; 1 is removal alone."""


@dataclass(frozen=True)
class StudentTraining:
    """How the best network is trained at the end: as those of the search, until it gets no better."""

    epochs: int = option(100, short="student_epochs", at_least=1)
    """Passes over the training images at most."""
    patience: int = option(10, short="student_patience", at_least=0)
    """Passes without a better validation accuracy after which training ends; 0 takes all passes. The best weights are kept."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"patience": "there are no more passes than that"} if self.patience >= self.epochs else {}


@dataclass(frozen=True)
class N2N:
    """The authors' sizes."""

    rollouts: Rollouts = Rollouts()
    lessons: Lessons = Lessons()
    worth: Worth = Worth()
    baseline: RunningBaseline = RunningBaseline()
    controllers: Controllers = Controllers()
    stages: SearchStages = SearchStages()
    student: StudentTraining = StudentTraining()
    presets: ClassVar[dict[str, dict[str, Any]]] = {"small": {"child_epochs": 2, "child_learning_rate": 5e-3, "child_batch_size": 50}}
    """``small``: lessons for a thousand images instead of fifty thousand, as the built-in worlds have."""

    @property
    def by_chance(self) -> bool:
        """Whether chance draws the networks."""
        return self.rollouts.by == "chance"

    def compose(self) -> Staged:
        """The four answers, of both stages."""
        models = controllers(self.controllers)
        return staged({name: self.stage(name) for name in models}, models, self.stages.removal_share)

    def stage(self, name: str) -> Composition:
        """The four answers of one stage."""
        rollouts = replace(self.rollouts, stage=name)
        if self.by_chance:
            return Composition(rollouts, [], [], [Drawn(name)], {})
        steps = self.rollouts.count if self.controllers.step_per == "rollout" else 1
        term = PolicyGradient(Tokens(Aggregate("sequence-sum")), DetachedClip())
        update = Update(minibatches=steps, learning_rate=self.controllers.rate(name), max_grad_norm=self.controllers.max_grad_norm).of(
            Weighted(term), model=name
        )
        return Composition(rollouts, [], [self.baseline], [update], {})
