"""Teachers: the networks that are compressed. Built-in ones are trained by a recipe and cached; others are the user's.

A network is kept as a folder: ``architecture.json``, and ``weights.pt``, a plain file of ``torch.save`` with the state of
:class:`~rheostat.tasks.compression.architecture.ConvNet`.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rheostat.credit.verifiers.reward_loading import load_object
from rheostat.errors import RheostatError, shown_error, unknown
from rheostat.files import cache_root
from rheostat.json_text import NotJSON
from rheostat.json_text import read as read_json
from rheostat.locks import held
from rheostat.tasks.compression.architecture import Architecture, Block, ConvNet, Impossible, Item, Layer
from rheostat.tasks.compression.images import Images, chance
from rheostat.tasks.compression.lessons import Lessons, accuracy_of, new_network, train_network
from rheostat.tasks.compression.network_reading import read_network

ARCHITECTURE, WEIGHTS = "architecture.json", "weights.pt"
FORMAT = 1
"""Raised when the same recipe would train another network."""
COMPARED = 16
"""Images on which a user's network is compared with what was read of it."""


@dataclass(frozen=True)
class Recipe:
    """A built-in teacher."""

    widths: tuple[int, ...]
    """Channels of its stages; after each but the last the side halves."""
    depth: int = 2
    """Convolutions of a stage."""
    residual: bool = False
    lessons: Lessons = Lessons(epochs=15, learning_rate=3e-3, batch_size=50, weight_decay=1e-4, targets="labels")
    settling: int = 5
    """Further passes at a tenth of the step size."""
    seed: int = 7

    def architecture(self, images: Images) -> Architecture:
        """For these images: convolutions of 3 x 3 with batch normalisation, a mean over the image, and a linear layer."""
        items = self._blocks() if self.residual else self._chain()
        items += [Layer("AdaptiveAvgPool2d", kernel=1), Layer("Flatten"), Layer("Linear", size=images.classes)]
        return Architecture(tuple(items), images.shape)

    def trained(self, images: Images) -> ConvNet:
        """The teacher of these images."""
        network = train_network(new_network(self.architecture(images), self.seed), *images.train, self.lessons, self.seed)
        settling = replace(self.lessons, epochs=self.settling, learning_rate=self.lessons.learning_rate / 10)
        return train_network(network, *images.train, settling, self.seed + 1)

    def _chain(self) -> list[Item]:
        items: list[Item] = []
        for number, width in enumerate(self.widths):
            items += [layer for _ in range(self.depth) for layer in (*_convolution(width), Layer("ReLU"))]
            items += [Layer("MaxPool2d", kernel=2, stride=2)] if number < len(self.widths) - 1 else []
        return items

    def _blocks(self) -> list[Item]:
        items: list[Item] = [*_convolution(self.widths[0]), Layer("ReLU")]
        for number, width in enumerate(self.widths):
            stride = 2 if number else 1
            branch = (*_convolution(width, stride), Layer("ReLU"), *_convolution(width))
            shortcut = _convolution(width, stride, 1) if number else ()
            items += [Block(branch, shortcut), Layer("ReLU")]
        return items


def _convolution(width: int, stride: int = 1, kernel: int = 3) -> tuple[Layer, Layer]:
    """A convolution that keeps the side of an image (or halves it), and its normalisation."""
    made = Layer("Conv2d", kernel=kernel, stride=stride, size=width, padding=kernel // 2, bias=False)
    return made, Layer("BatchNorm2d")


TEACHERS = {
    "plain": Recipe((24, 48, 64)),
    "residual": Recipe((24, 48, 64), residual=True),
    "small": Recipe((16, 32), depth=1),
}
"""The built-in ones, by name."""


# --- folders ------------------------------------------------------------------------------------------------------------------------------


def save_network(network: ConvNet, folder: Path) -> None:
    """Write a network into a folder.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ARCHITECTURE).write_text(json.dumps(network.architecture.to_json(), indent=1), encoding="utf-8")
    torch.save({name: value.detach().clone() for name, value in network.state_dict().items()}, folder / WEIGHTS)


def load_network(folder: str | Path) -> ConvNet:
    """A network that was saved: a run's student is in the folder ``model`` of its directory.

    Args:
        folder: with its architecture and its weights.

    Returns:
        A module that makes logits ``[B, K]`` of images float32 ``[B, C, H, W]``.

    Raises:
        RheostatError: there is none, or it is damaged.
    """
    folder = Path(folder)
    if not (folder / ARCHITECTURE).is_file():
        raise RheostatError(f"There is no network in {folder}: it would hold {ARCHITECTURE} and {WEIGHTS}.")
    try:
        network = ConvNet(Architecture.from_json(read_json(folder / ARCHITECTURE)))
        network.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    except (OSError, NotJSON, KeyError, TypeError, ValueError, RuntimeError, Impossible, EOFError) as error:
        raise RheostatError(f"The network in {folder} is damaged: {shown_error(error)}.") from error
    except Exception as error:  # what unpickling refuses has types of its own
        raise RheostatError(f"The weights in {folder} cannot be read: {shown_error(error)}.") from error
    return network.eval()


# --- teachers -----------------------------------------------------------------------------------------------------------------------------


def built_in(name: str, images: Images, cache_dir: str | Path | None = None) -> ConvNet:
    """A built-in teacher for these images, trained unless the cache has it.

    Raises:
        RheostatError: unknown name, or a cache folder that cannot be written.
    """
    if name not in TEACHERS:
        raise unknown("teacher", name, [*TEACHERS, "FILE.py:NAME"])
    recipe = TEACHERS[name]
    content = {**asdict(recipe), "images": images.digest, "format": FORMAT, "torch": torch.__version__}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    target = cache_root(cache_dir) / "teachers" / f"{name}-{images.name}-{digest}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(target.with_name(f".{target.name}.lock"), f"the teacher {name}", patience=math.inf):
            if not (target / WEIGHTS).is_file():
                network = recipe.trained(images)
                workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
                save_network(network, workshop)
                shutil.rmtree(target, ignore_errors=True)
                workshop.rename(target)
    except OSError as error:
        raise RheostatError(
            f"Cannot write teachers to {target.parent} ({error.strerror}): set RHEOSTAT_CACHE to another folder."
        ) from error
    return load_network(target)


def load_teacher(teacher: Any, images: Images) -> ConvNet:
    """The network to compress, read as an architecture.

    Args:
        teacher: a module; the name of a built-in one; ``FILE.py:NAME`` or ``MODULE:NAME`` of a module with its weights, or of a function
            that makes one; or a folder of a saved network.
        images: that it is to tell apart.

    Raises:
        RheostatError: there is none, it cannot be cut, it does not fit the images, or it is not better than chance.
    """
    name = teacher if isinstance(teacher, str) else f"the teacher ({type(teacher).__name__})"
    if isinstance(teacher, str):
        if Path(teacher).is_dir():
            teacher = load_network(teacher)
        elif ":" in teacher:
            teacher = _made(teacher)
        else:
            teacher = built_in(teacher, images)
    network = read_network(teacher, images.validation[0][:COMPARED], name)
    if network.architecture.outputs != images.classes:
        raise RheostatError(f"{name} knows {network.architecture.outputs} classes, and {images.name} has {images.classes}.")
    accuracy, guessing = accuracy_of(network, images.validation), chance(images)
    if accuracy <= guessing:
        raise RheostatError(
            f"{name} is right on {accuracy:.3g} of the validation images of {images.name}, and the commonest class alone is on "
            f"{guessing:.3g}: train it first, on images that are scaled as these are."
        )
    return network


def _made(name: str) -> Any:
    """The module that a name means; functions and classes are called without arguments."""
    found = load_object(name, kind="network")
    if isinstance(found, nn.Module) or not callable(found):
        return found
    try:
        return found()
    except Exception as error:
        raise RheostatError(f"{name}() fails, which makes the network to compress: {shown_error(error)}.") from error
