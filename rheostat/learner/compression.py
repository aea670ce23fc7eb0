"""What the parts of a compressing method share, and its learner: two stages, of which the second cuts what the first has found."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rheostat.collect.compression.search import Search, layers_of, refuse_uncuttable
from rheostat.learner.context import LearnerContext
from rheostat.learner.models import Trainable
from rheostat.learner.stages import GradientSteps, Stage, Staged, Stages
from rheostat.learner.starting_weights import StartingWeights
from rheostat.objectives.compression_reward import compression_reward
from rheostat.options import refuse_idle
from rheostat.parts import Batch, Metrics
from rheostat.policies.compression.controllers import DecisionScores, RemovalController, ShrinkageController
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.compression.architecture import Architecture, ConvNet
from rheostat.tasks.compression.cutting import LOOKUP
from rheostat.tasks.compression.image_teachers import save_network
from rheostat.tasks.compression.images import Images
from rheostat.tasks.compression.lessons import accuracy_of
from rheostat.trajectories import Trajectories

TEACHER = "teacher.json"
"""File beside a student with the architecture of its teacher."""
CONTROLLERS: dict[str, Callable[[], Any]] = {"removal": RemovalController, "shrinkage": lambda: ShrinkageController(LOOKUP)}


@dataclass(frozen=True)
class Drawn:
    """An epoch of random search: it is counted, and nothing moves."""

    model: str = "removal"
    gradient_steps: int = 0

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Count the epoch."""
        context.finish_update(self.model)
        return {"gradient_steps": 0}


class Student:
    """The best network that was found, trained to the end; it is a store, so that a run keeps it.

    Args:
        teacher: the network that it was cut from.
    """

    def __init__(self, teacher: Architecture) -> None:
        self.teacher = teacher
        self.network: ConvNet | None = None
        self.passes = 0

    def save_pretrained(self, folder: Path) -> None:
        """Write its architecture and its weights, as :func:`rheostat.tasks.compression.image_teachers.load_network` reads them, and beside
        them the architecture of its teacher."""
        assert self.network is not None
        save_network(self.network, folder)
        (folder / TEACHER).write_text(json.dumps(self.teacher.to_json(), indent=1), encoding="utf-8")

    def state_dict(self) -> dict[str, Any]:
        """Architecture and weights."""
        if self.network is None:
            return {"architecture": None, "weights": {}, "passes": 0}
        return {"architecture": self.network.architecture.to_json(), "weights": dict(self.network.state_dict()), "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.network, self.passes = None, state["passes"]
        if state["architecture"] is not None:
            self.network = ConvNet(Architecture.from_json(state["architecture"])).eval()
            self.network.load_state_dict(state["weights"])


class CompressionContext(LearnerContext):
    """The context of a compressing method.

    Args:
        search: teacher, images and judgements.
        streams: the run's random streams.
        total_steps: epochs of the whole search.
        lessons: of the best network at the end: the most passes over the training images, and the patience.
    """

    unit = "epochs"
    log = None
    longest = 0

    def __init__(self, search: Search, streams: Streams, total_steps: int, *, lessons: tuple[int, int]) -> None:
        super().__init__(streams, total_steps)
        self.search, self.student, self.lessons = search, Student(search.teacher.architecture), lessons
        self.stores |= {"search": search, "student": self.student}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(streams.seed, "controllers"))
            self.networks |= {name: make() for name, make in CONTROLLERS.items()}
        self.deployed = "removal"
        self.stages: list[int | None] = []
        self.stage, self.started, self.spent, self.epoch = 0, -1, 0, 0
        self.learner_tokens = 0

    # --- stages -----------------------------------------------------------------------------------------------------------------------

    @property
    def gradient_steps(self) -> int:
        """What a stage's length counts: here epochs of the present stage, whatever the gradient steps of each."""
        return self.epoch

    @gradient_steps.setter
    def gradient_steps(self, value: int) -> None:
        self.epoch = value

    @property
    def length(self) -> int:
        """Epochs of the present stage; -1 lasts until the end."""
        planned = self.stages[self.stage]
        return -1 if planned is None else planned

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        return self.spent + self.epoch

    @property
    def spent_share(self) -> float:
        """Of the budget, before this epoch."""
        return min(1.0, self.steps / max(1, self.total_steps))

    @property
    def clock(self) -> str:
        """Epochs number the data, whichever controller moves in them."""
        return "epochs"

    # --- what parts ask ---------------------------------------------------------------------------------------------------------------

    def score(self, rows: Trajectories, model: str = "policy", *, entropy: bool = True, count: bool = True) -> DecisionScores:
        """A controller's log-probabilities ``[B, T]`` of the decisions over the network that is cut now."""
        found: DecisionScores = self.models[model].network.score(layers_of(self.search.parent), rows.action, rows.mask)
        return found

    def drops(self, model: str) -> bool:
        """Whether a controller drops something in training."""
        return False

    def dropping(self, model: str) -> AbstractContextManager[None]:
        """Nothing is dropped."""
        return nullcontext()

    def count_flops(self, operations: int, rows: Trajectories, model: str = "policy") -> None:
        """Operations of controllers are nothing beside the training of networks, and are not counted."""

    def empty(self, batch: Batch) -> bool:
        """Whether a batch has no decision to learn from."""
        return not bool(batch.rows.mask.any())

    def finish_update(self, model: str) -> None:
        """A controller has been improved, or has had its epoch: it makes one update in each."""
        super().finish_update(model)
        self.updates += 1
        self.epoch += 1

    # --- what the learner asks --------------------------------------------------------------------------------------------------------

    def finish_turn(self, batch: Batch) -> Metrics:
        """The epoch is over; after the last one the student is trained."""
        self.student.network = None  # a larger budget may find a better one
        return self.measure_student("validation") if self.steps >= self.total_steps else {}

    def train_student(self) -> ConvNet:
        """The best network, trained to the end, unless it is already; the teacher itself where no smaller one was found."""
        if self.student.network is None:
            search = self.search
            best = search.parent if search.best is None else search.best.architecture
            if best == search.teacher.architecture:
                self.student.network, self.student.passes = search.teacher, 0
            else:
                self.student.network, self.student.passes = search.student(best, *self.lessons)
        return self.student.network

    def measure_student(self, part: str) -> Metrics:
        """Accuracy of the student and of the teacher on a part of the images, and how small the student is."""
        images, student, teacher = getattr(self.search.images, part), self.train_student(), self.search.teacher
        accuracy, whole = accuracy_of(student, images), max(accuracy_of(teacher, images), 1 / len(images[0]))
        return {
            f"student_{part}_reward": compression_reward(accuracy, student.architecture.parameters, whole, teacher.architecture.parameters),
            f"student_{part}_accuracy": accuracy,
            f"teacher_{part}_accuracy": whole,
            f"kept_{part}_accuracy": accuracy / whole,
            "student_passes": self.student.passes,
            "student_parameters": student.architecture.parameters,
            "teacher_parameters": teacher.architecture.parameters,
            "student_compression": teacher.architecture.parameters / student.architecture.parameters,
        }

    def evaluate(self, episodes: int) -> Metrics:
        """The student on the whole test part, which nothing else reads."""
        return self.measure_student("test")

    @property
    def policy(self) -> Student:
        """The student, trained, which can be saved as a folder."""
        self.train_student()
        return self.student

    def restart_episodes(self) -> None:
        """Nothing to begin anew: between two epochs no network is in training."""

    def close(self) -> None:
        """Nothing is open."""

    def state_dict(self) -> dict[str, Any]:
        """Counters, streams and the stage."""
        stage = {name: getattr(self, name) for name in ("stage", "started", "spent", "epoch", "deployed", "learner_tokens")}
        return super().state_dict() | stage

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_state_dict(state)
        for name in ("stage", "started", "spent", "epoch", "deployed", "learner_tokens"):
            setattr(self, name, state[name])


def controllers(update: Any) -> dict[str, Any]:
    """Both controllers, each with its optimiser.

    Args:
        update: of the method, with their step sizes.
    """
    return {name: Trainable(update.rate(name), max_grad_norm=update.max_grad_norm) for name in CONTROLLERS}


def begins(name: str) -> Callable[[Any], None]:
    """What happens when a stage begins: its controller numbers the data, and the baseline starts anew."""

    def start(context: Any) -> None:
        context.deployed = name
        if "baseline" in context.stores:
            context.stores["baseline"].restart()

    return start


def ends(context: Any) -> None:
    """What happens when a stage is over: the next one cuts its best network."""
    context.search.go_on_from_best()


def staged(stages: dict[str, Any], models: dict[str, Any], removal_share: float) -> Staged:
    """Removal for a share of the epochs, then shrinkage.

    Args:
        stages: compositions by the names of the stages.
        models: of both.
        removal_share: of the epochs.
    """
    last = 1.0 - removal_share
    return Staged(
        [
            Stage(
                "removal",
                stages["removal"],
                GradientSteps(lambda context: round(removal_share * context.total_steps)),
                begins("removal"),
                ends if last else lambda context: None,
            ),
            Stage("shrinkage", stages["shrinkage"], None, begins("shrinkage")),
        ],
        models,
        deployed="removal",
        report=True,
    )


# --- building -----------------------------------------------------------------------------------------------------------------------------


def composition_of(config: Any, who: str) -> Staged:
    """A compressing method's stages, checked.

    Raises:
        RheostatError: an option that cannot act, or parts that cannot work together.
    """
    refuse_idle(config, who)
    found: Staged = config.compose()
    found.check(who)
    return found


def derived(config: Any, who: str) -> dict[str, int | str]:
    """Numbers that follow from a configuration, for printing.

    Raises:
        RheostatError: an impossible combination.
    """
    composition_of(config, who)
    return {"networks per epoch": config.rollouts.count}


def hidden_options(config: Any, who: str) -> frozenset[str]:
    """Paths of options that every value but the default is refused for: none."""
    return frozenset()


def build(
    config: Any, who: str, teacher: ConvNet, images: Images, streams: Streams, total_steps: int, *, weights: StartingWeights | None = None
) -> Stages:
    """A compressing method's learner.

    Args:
        config: the method's dataclass object.
        who: its name.
        teacher: the network to compress.
        images: that it tells apart.
        streams: the run's random streams.
        total_steps: epochs of the whole search.
        weights: controllers of another run, to begin with.

    Raises:
        RheostatError: what :func:`composition_of` refuses, or a teacher that cannot be cut.
    """
    found = composition_of(config, who)
    asked = [stage.composition.collect for stage in found.stages]
    shares = config.stages.removal_share
    wanted = [each for each, share in zip(asked, (shares, 1 - shares), strict=True) if share]
    refuse_uncuttable("to compress", teacher.architecture, wanted)
    search = Search(teacher, images, config.lessons, config.worth, streams.seed)
    context = CompressionContext(search, streams, total_steps, lessons=(config.student.epochs, config.student.patience))
    context.begins_with = weights
    return Stages(config, found, context)
