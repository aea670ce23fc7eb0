"""WHO ACTS in the search for an architecture: a controller that draws architectures, each of which is trained a little and judged.

An episode is one architecture, and its reward comes at its end. Equal architectures are judged once: what a network is worth depends on
its architecture and the seed of the run alone, so a stored judgement is the one that would be found again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.compression_reward import FAILURE, HORIZON, compression_reward, constrained_reward
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.tasks.compression.architecture import Architecture, ConvNet
from rheostat.tasks.compression.cutting import fault_of, removable, removed, shrinkable, shrunken
from rheostat.tasks.compression.images import Images
from rheostat.tasks.compression.lessons import Lessons, accuracy_of, logits_of, new_network, train_network, train_until
from rheostat.trajectories import Source, Trajectories

STAGES = ("removal", "shrinkage")
"""In their order; the log says which is under way by its number."""


@dataclass(frozen=True)
class Worth:
    """What makes a network good."""

    most_parameters: int = option(0, at_least=0)
    """A network with more weights breaks a constraint; 0 allows any number."""
    least_accuracy: float = option(0.0, share=True)
    """A network of a lower validation accuracy breaks a constraint; 0 allows any."""
    horizon: int = option(HORIZON, short="constraint_horizon", at_least=1)
    """Epochs of a stage over which a broken constraint comes to cost all of the reward."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        free = not self.most_parameters and not self.least_accuracy
        return {"horizon": "nothing is constrained, so set most_parameters or least_accuracy too"} if free else {}

    def keeps(self, parameters: int, accuracy: float) -> bool:
        """Whether a network breaks no constraint."""
        return (not self.most_parameters or parameters <= self.most_parameters) and accuracy >= self.least_accuracy


@dataclass(frozen=True)
class Judgement:
    """What was found out about one architecture.

    Attributes:
        architecture: of the network.
        accuracy: on the validation images; 0 of one that was not trained.
        parent_parameters: of the network that it was cut from.
        fault: why it is worth nothing; empty where it is sound.
    """

    architecture: Architecture
    accuracy: float
    parent_parameters: int
    fault: str = ""

    def reward(self, worth: Worth, base_accuracy: float, epoch: int) -> float:
        """In an epoch of the search, from 0."""
        if self.fault:
            return FAILURE
        parameters = self.architecture.parameters
        free = compression_reward(self.accuracy, parameters, base_accuracy, self.parent_parameters)
        return constrained_reward(free, worth.keeps(parameters, self.accuracy), epoch, worth.horizon)


class Search:
    """Teacher, images, judgements so far, and the best network of them.

    Args:
        teacher: the network to compress.
        images: that it tells apart.
        lessons: how a network is trained before it is judged.
        worth: what makes a network good.
        seed: of weights and orders.

    Attributes:
        parent: the network that is cut now.
        best: of the present stage; None before the first sound one.
        judged: accuracies by the digests of architectures.
    """

    def __init__(self, teacher: ConvNet, images: Images, lessons: Lessons, worth: Worth, seed: int) -> None:
        self.teacher, self.images, self.lessons, self.worth, self.seed = teacher, images, lessons, worth, seed
        self.base_accuracy = accuracy_of(teacher, images.validation)
        self.targets = logits_of(teacher, images.train[0]) if lessons.targets == "logits" else images.train[1]
        self.parent = teacher.architecture
        self.best: Judgement | None = None
        self.judged: dict[str, float] = {}

    @property
    def teacher_digest(self) -> str:
        """16 hexadecimal digits over the teacher's architecture and weights."""
        total = hashlib.sha256(self.teacher.architecture.digest.encode())
        for value in self.teacher.state_dict().values():
            total.update(value.contiguous().numpy().tobytes())
        return total.hexdigest()[:16]

    def judge(self, child: Architecture) -> Judgement:
        """Train a network a little, unless an equal one was, and measure it on the validation images."""
        fault = fault_of(child, self.parent)
        if fault is not None:
            return Judgement(child, 0.0, self.parent.parameters, fault)
        if child.digest not in self.judged:
            network = self.trained(child)
            self.judged[child.digest] = accuracy_of(network, self.images.validation)
        return Judgement(child, self.judged[child.digest], self.parent.parameters)

    def trained(self, child: Architecture) -> ConvNet:
        """A new network of an architecture, trained by the lessons."""
        return train_network(new_network(child, self.seed), self.images.train[0], self.targets, self.lessons, self.seed)

    def student(self, child: Architecture, most: int, patience: int) -> tuple[ConvNet, int]:
        """A new network of an architecture, trained until the validation images say that it gets no better, and the number of passes."""
        network, images = new_network(child, self.seed), self.images
        how: dict[str, Any] = {"part": images.validation, "most": most, "patience": patience}
        return train_until(network, images.train[0], self.targets, self.lessons, self.seed, **how)

    def remember(self, found: Judgement) -> None:
        """Keep the best network: among those that keep the constraints the one of the largest reward without them, else of all."""
        if not found.fault and (self.best is None or self.rank(found) > self.rank(self.best)):
            self.best = found

    def rank(self, found: Judgement) -> tuple[bool, float]:
        """By which judgements are compared."""
        parameters = found.architecture.parameters
        free = compression_reward(found.accuracy, parameters, self.base_accuracy, found.parent_parameters)
        return self.worth.keeps(parameters, found.accuracy), free

    def go_on_from_best(self) -> None:
        """The best network of a stage is what the next stage cuts; without a sound one, the parent stays."""
        if self.best is not None:
            self.parent, self.best = self.best.architecture, None

    def state_dict(self) -> dict[str, Any]:
        """Everything but the teacher and the images."""
        best = self.best
        return {
            "parent": self.parent.to_json(),
            "judged": dict(self.judged),
            "best": None if best is None else [best.architecture.to_json(), best.accuracy, best.parent_parameters],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.parent, self.judged, best = Architecture.from_json(state["parent"]), dict(state["judged"]), state["best"]
        self.best = None if best is None else Judgement(Architecture.from_json(best[0]), *best[1:])


@dataclass(frozen=True)
class Rollouts:
    """Architectures that a controller draws in an epoch."""

    count: int = option(5, short="rollouts", at_least=1)
    """Architectures per epoch."""
    strided: Literal["filters", "fixed"] = option("filters", short="strided_convolutions")
    """What may shrink of a strided convolution: its number of filters, or (as in the authors' code) nothing."""
    by: Literal["controller", "chance"] = option("controller", short="drawn_by")
    """Who draws: the controller that learns, or chance, every action as likely, so that nothing is learned (random search)."""
    stage: str = "removal"
    """The stage, and the name of its controller."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"strided": "no epoch shrinks layers"} if method.stages.removal_share == 1 else {}

    def free(self, parent: Architecture) -> list[bool]:
        """Which decisions over a network count."""
        if self.stage == "removal":
            return removable(parent)
        return [free for layer in shrinkable(parent, strided=self.strided == "filters") for free in layer]

    def child(self, parent: Architecture, actions: Sequence[int]) -> Architecture:
        """The network that decisions make."""
        if self.stage == "removal":
            return removed(parent, actions)
        return shrunken(parent, actions, strided=self.strided == "filters")

    def collect(self, context: Any) -> Batch:
        """Draw, build, train and judge ``count`` networks; their rows are ``[count, decisions]``."""
        search: Search = context.stores["search"]
        layers, mask = layers_of(search.parent), torch.tensor(self.free(search.parent))
        action = self.draw(context, layers, mask)
        before = len(search.judged)
        found = [search.judge(self.child(search.parent, row)) for row in action.tolist()]
        rewards = [each.reward(search.worth, search.base_accuracy, context.epoch) for each in found]
        for each in found:
            search.remember(each)
        rows = self.rows(context, layers, action, mask, rewards)
        return Batch(rows, metrics=self.metrics(search, found, rewards, len(search.judged) - before))

    def draw(self, context: Any, layers: Tensor, mask: Tensor) -> Tensor:
        """Actions int64 ``[count, decisions]``."""
        network, generator = context.models[self.stage].network, context.streams["architectures"]
        if self.by == "controller":
            drawn: Tensor = network.draw(layers, mask, self.count, generator)
            return drawn
        chosen = torch.randint(network.actions, (self.count, len(mask)), generator=generator)
        return torch.where(mask, chosen, network.kept)

    def rows(self, context: Any, layers: Tensor, action: Tensor, mask: Tensor, rewards: list[float]) -> Trajectories:
        """Rows whose reward is earned by the last decision."""
        count, length = action.shape
        full = mask.expand(count, length).clone()
        reward = torch.zeros(count, length)
        reward[:, -1] = torch.tensor(rewards)
        last = torch.zeros(count, length, dtype=torch.bool)
        last[:, -1] = True
        with torch.no_grad():
            logp = context.models[self.stage].network.score(layers, action, full).logp
        if self.by == "chance":
            logp = torch.full((count, length), float("nan"))

        def fact(value: int) -> Tensor:
            return torch.full((count, length), value)

        return Trajectories(
            action=action,
            mask=full,
            reward=reward,
            terminated=last,
            truncated=torch.zeros_like(last),
            sampler_logp=logp,
            source=fact(int(Source.FRESH)),
            version=fact(context.updates),
            group=fact(context.epoch),
            valid=torch.ones_like(last),
            batch_size=[count, length],
        )

    def metrics(self, search: Search, found: list[Judgement], rewards: list[float], trained: int) -> Metrics:
        """What the log says of an epoch."""
        sound = [each for each in found if not each.fault]
        whole = search.teacher.architecture.parameters
        said: Metrics = {
            "stage": STAGES.index(self.stage),
            "reward": sum(rewards) / len(rewards),
            "failed_share": 1 - len(sound) / len(found),
            "trained_networks": trained,
            "judged_networks": len(search.judged),
        }
        if sound:
            said["network_accuracy"] = sum(each.accuracy for each in sound) / len(sound)
            said["compression"] = sum(whole / each.architecture.parameters for each in sound) / len(sound)
        if search.best is not None:
            said["best_network_reward"] = search.rank(search.best)[1]
            said["best_accuracy"] = search.best.accuracy
            said["best_compression"] = whole / search.best.architecture.parameters
        return said


def layers_of(architecture: Architecture) -> Tensor:
    """A network as controllers read it, float32 ``[L, 5]``."""
    return torch.tensor([place.layer.numbers for place in architecture.places], dtype=torch.float32)


def refuse_uncuttable(name: str, architecture: Architecture, stages: Sequence[Rollouts]) -> None:
    """Refuse a teacher of which nothing can be cut in a stage that is asked for.

    Raises:
        RheostatError: naming the stage.
    """
    for each in stages:
        if not any(each.free(architecture)):
            verb = "removed" if each.stage == "removal" else "shrunk"
            layers = ", ".join(dict.fromkeys(place.layer.kind for place in architecture.places))
            raise RheostatError(
                f"Nothing of the network {name} can be {verb}: its first layer, its last one, linear layers, average pools and shortcuts "
                f"stay, and it has {layers}."
            )
