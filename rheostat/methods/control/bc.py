"""BC: behaviour cloning, the imitation of a data set and nothing else; %BC imitates its best episodes.

Paper: Pomerleau 1988 (NeurIPS 1); %BC: Chen et al. 2021, arXiv 2106.01345.

Equations (mu, pi: the policy; s, a: of the data)
    deterministic  = mean (mu(s) - a)^2
    stochastic     = -mean log pi(a|s),      a Gaussian around tanh of its mean
    discrete       = -mean log pi(a|s),      the cross-entropy of a softmax

WHO ACTS   no one.
KEPT       the episodes with the highest returns: the share ``best_share`` of them, rounded, and at least one.
WORTH      every kept action as much as any other.
MOVES      supervised regression, one gradient step per step of the budget.

Returns are undiscounted, and an episode that was cut counts with what it had collected. CORL's any_percent_bc is the deterministic form
with ``best_share`` 0.1 (rounded down) and ``normalise_states``, which is off here. Reward settings change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import DataAlone, Draw, States, per_turn
from rheostat.collect.control.control_collectors import Nobody
from rheostat.learner.cloning import BestEpisodes, ClonedPolicy, Imitation, ImitationStep
from rheostat.learner.control_models import CONVOLUTIONS
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Batches, Logging, PerStep, UsesData
from rheostat.learner.stages import GradientSteps, Stage, Staged
from rheostat.options import option


@dataclass(frozen=True)
class BC:
    """Plain behaviour cloning of everything."""

    data: BestEpisodes = BestEpisodes()
    keep: DataAlone = DataAlone()
    states: States = States()
    batches: Batches = Batches()
    imitation: Imitation = option("deterministic")
    """Of continuous actions: the squared distance of one action, or the likelihood of a Gaussian."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size."""
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers; with discrete actions images have three convolutions and a layer of 512 alone."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: they collect no data."""

    uses_data: ClassVar[UsesData] = "first"
    discrete: ClassVar[bool | None] = None
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        found: dict[str, str] = {}
        if context.images and not context.continuous:
            found["hidden"] = CONVOLUTIONS
        if not context.continuous:
            found["imitation"] = "discrete actions have one likelihood, so leave it alone"
        return found

    def compose(self) -> Staged:
        """The four answers; when the data set has been learned from, there is nothing more to do."""
        models = {"policy": ClonedPolicy(self.hidden, self.learning_rate, self.imitation)}
        read, size = AsRead(discrete=None), self.batches.size
        cloning = Composition(Nobody(), [Draw(size, per_turn)], [read], [PerStep(size, [], [ImitationStep()])], models)
        stages = [Stage("offline", cloning, GradientSteps(lambda context: context.total_steps))]
        stages.append(Stage("finished", Composition(Nobody(), [], [], [], models)))
        return Staged(stages, models, stores=[read, self.data, self.states, self.keep, self.log])
