"""BC: behaviour cloning, the imitation of a data set and nothing else; %BC imitates its best episodes.

Paper: Pomerleau 1988 (NeurIPS 1); %BC: Chen et al. 2021, arXiv 2106.01345.

Equations (mu, pi: the policy; s, a: of the data)
    deterministic  = mean (mu(s) - a)^2
    stochastic     = -mean log pi(a|s),      a Gaussian around tanh of its mean
    discrete       = -mean log pi(a|s),      the cross-entropy of a softmax

WHO ACTS   nobody.
KEPT       the episodes with the highest returns: the share ``best_share`` of them, rounded, and at least one.
WORTH      every kept action as much as any other.
MOVES      supervised regression, one gradient step per step of the budget.

Returns are undiscounted, and an episode that was cut counts with what it had collected. CORL's any_percent_bc is the deterministic form
with ``best_share`` 0.1 (rounded down) and ``normalise_states``, which is off here. Reward settings change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from rheostat.buffers.control_retainers import DataAlone, DataSet, Draw, LearnedRewards, States, per_turn
from rheostat.collect.control.collectors import Nobody
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic import Found
from rheostat.learner.control_models import Trainable
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Batches, Logging, PerStep, UsesData
from rheostat.learner.stages import GradientSteps, Stage, Staged
from rheostat.objectives.supervised import squared_distance, weighted_likelihood
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.actors import DeterministicActor, TanhMeanActor
from rheostat.policies.control.discrete_q import ChoiceScores
from rheostat.policies.control.distributions import Categorical

Imitation = Literal["deterministic", "stochastic"]


@dataclass(frozen=True)
class BestEpisodes(DataSet):
    """The data set that is imitated."""

    best_share: float = option(1.0, above=0, at_most=1)
    """Share of the episodes that is imitated, those with the highest returns (%BC)."""

    def prepare(self, context: Any) -> None:
        """Compare the data set with the environments, and choose; rewards only rank episodes.

        Raises:
            RheostatError: as :class:`DataSet`, or steps after the data set: the policy would imitate itself.
        """
        if context.online_steps:
            raise RheostatError("bc imitates a data set and would only imitate itself in online_steps: leave them out, or use td3-bc.")
        super().prepare(context)
        context.stores["learned rewards"] = LearnedRewards(1.0, 0.0)


class ClonedPolicy(Trainable):
    """The policy of unit actions, or of choices."""

    def __init__(self, hidden: tuple[int, ...], learning_rate: float, imitation: Imitation) -> None:
        def build(context: Any) -> nn.Module:
            draw = context.streams["networks"]
            if context.bounds is None:
                return ChoiceScores(context.observation_space, int(context.action_space.n), hidden=hidden, generator=draw)
            actor = DeterministicActor if imitation == "deterministic" else TanhMeanActor
            return actor(*context.sizes, hidden=hidden, generator=draw)

        super().__init__(build, learning_rate)

    def distribution(self, seen: Tensor) -> Any:
        """The policy."""
        return Categorical(self.network(seen)) if isinstance(self.network, ChoiceScores) else self.network.distribution(seen)


@dataclass(frozen=True)
class ImitationStep:
    """Every action of the data counts as much as any other."""

    models: ClassVar[tuple[str, ...]] = ("policy",)

    def step(self, context: Any, batch: Batch) -> Found:
        """One step towards the data's actions."""
        rows, model = batch.rows, context.models["policy"]
        if isinstance(model.network, DeterministicActor):
            loss = squared_distance(model.network(rows.observation), rows.action)
        else:
            loss = weighted_likelihood(model.distribution(rows.observation).log_prob(rows.action))
        model.descend(loss)
        context.finish_update("policy")
        return {"policy_loss": loss.detach()}


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
    """Hidden layers for vectors; images have three convolutions and a layer of 512."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: nobody acts."""

    uses_data: ClassVar[UsesData] = "first"
    discrete: ClassVar[bool | None] = None
    presets: ClassVar[dict[str, dict[str, Any]]] = {}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        found: dict[str, str] = {}
        if context.images:
            found["hidden"] = "images are read by convolutions of a fixed shape, so leave it alone"
        if not context.continuous:
            found["imitation"] = "discrete actions have one likelihood, so leave it alone"
        return found

    def compose(self) -> Staged:
        """The four answers; when the data set has been learned from, there is nothing more to do."""
        models = {"policy": ClonedPolicy(self.hidden, self.learning_rate, self.imitation)}
        read, size = AsRead(discrete=None, images=True), self.batches.size
        cloning = Composition(Nobody(), [Draw(size, per_turn)], [read], [PerStep(size, [], [ImitationStep()])], models)
        stages = [Stage("offline", cloning, GradientSteps(lambda context: context.total_steps))]
        stages.append(Stage("finished", Composition(Nobody(), [], [], [], models)))
        return Staged(stages, models, stores=[read, self.data, self.states, self.keep, self.log])
