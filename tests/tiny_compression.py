"""Small networks and images for the tests of methods that compress."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rheostat.api import settings_for
from rheostat.tasks.compression.architecture import Architecture, Block, ConvNet, Layer
from rheostat.tasks.compression.image_teachers import save_network
from rheostat.tasks.compression.images import Images, load_images
from rheostat.tasks.compression.lessons import Lessons, new_network, train_network
from rheostat.training.building import build_method

PICTURES = {"side": 6, "classes": 2, "images": 180, "noise": 0.05}
"""Options of the task ``shapes``: discs and squares of 6 x 6 pixels."""
OPTIONS: dict[str, Any] = {
    "environment_options": PICTURES,
    "steps": 4,
    "rollouts": 3,
    "child_epochs": 1,
    "child_batch_size": 30,
    "child_learning_rate": 0.01,
    "student_epochs": 2,
}


@functools.cache
def pictures() -> Images:
    """The images."""
    return load_images("shapes", PICTURES)


def convolution(size: int, stride: int = 1, kernel: int = 3) -> Layer:
    """One that keeps the side of an image, or halves it."""
    return Layer("Conv2d", kernel=kernel, stride=stride, size=size, padding=kernel // 2)


END = (Layer("AdaptiveAvgPool2d", kernel=1), Layer("Flatten"), Layer("Linear", size=2))
RELU, NORM, POOL = Layer("ReLU"), Layer("BatchNorm2d"), Layer("MaxPool2d", kernel=2, stride=2)
CHAIN = Architecture((convolution(12), NORM, RELU, convolution(16), RELU, POOL, convolution(20), RELU, *END), (1, 6, 6))
BLOCKS = Architecture(
    (
        convolution(12),
        RELU,
        Block((convolution(14), RELU, convolution(12))),
        RELU,
        Block((convolution(20, 2), NORM, RELU, convolution(20)), (convolution(20, 2, 1),)),
        RELU,
        *END,
    ),
    (1, 6, 6),
)


@functools.cache
def network(architecture: Architecture = CHAIN) -> ConvNet:
    """A network that tells discs from squares; its last digits do not depend on the threads of the process."""
    lessons, threads = Lessons(learning_rate=0.01, batch_size=30), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train_network(new_network(architecture, 0), *pictures().train, lessons, 0, epochs=12)
    finally:
        torch.set_num_threads(threads)


@functools.cache
def teacher(architecture: Architecture = CHAIN) -> str:
    """The folder of such a network."""
    folder = Path(tempfile.mkdtemp(prefix="rheostat-teacher-"))
    save_network(network(architecture), folder)
    return str(folder)


def built(architecture: Architecture = CHAIN, **options: Any) -> Any:
    """A learner of n2n on the small images."""
    settings = settings_for("n2n", "shapes", **(OPTIONS | {"teacher": teacher(architecture)} | options))
    return build_method(settings, settings.task)


class Residual(nn.Module):
    """A user's residual block, written as users write them."""

    def __init__(self, reads: int, makes: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(reads, makes, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(makes)
        self.two = nn.Conv2d(makes, makes, 3, 1, 1)
        self.down = nn.Sequential(nn.Conv2d(reads, makes, 1, stride)) if stride > 1 or reads != makes else None

    def forward(self, image: Tensor) -> Tensor:
        around = image
        out = self.two(torch.relu(self.norm(self.one(image))))
        if self.down is not None:
            around = self.down(image)
        out += around
        return torch.relu(out)


class Own(nn.Module):
    """A user's residual network of one-channel images and ``classes``."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.blocks = nn.Sequential(Residual(12, 12, 1), Residual(12, 16, 2), nn.Identity())
        self.head = nn.Linear(16, classes)

    def forward(self, image: Tensor) -> Tensor:
        return torch.log_softmax(self.head(self.blocks(torch.relu(self.stem(image))).mean((2, 3))), 1)
