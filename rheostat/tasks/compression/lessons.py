"""Training a network on images: from its classes, or from the logits of a teacher (distillation)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from rheostat.objectives.compression_reward import logit_mse
from rheostat.options import option
from rheostat.streams import derive_seed
from rheostat.tasks.compression.architecture import Architecture, ConvNet

Part = tuple[Tensor, Tensor]
"""Images float32 ``[n, C, H, W]`` and their classes int64 ``[n]``."""
ROWS = 1_000
"""Images per pass without a gradient."""


@dataclass(frozen=True)
class Lessons:
    """How a network that was cut is trained before it is judged."""

    epochs: int = option(5, short="child_epochs", at_least=1)
    """Passes over the training images before a network is judged."""
    learning_rate: float = option(5e-4, short="child_learning_rate", above=0)
    """Step size of Adam."""
    weight_decay: float = option(5e-4, short="child_weight_decay", at_least=0)
    """Weight of half the squared norm, as part of the gradient."""
    batch_size: int = option(200, short="child_batch_size", at_least=2)
    """Images per step."""
    targets: Literal["logits", "labels"] = option("logits", short="child_targets")
    """What a network is taught by: the teacher's logits by their squared error, or the images' classes by cross-entropy."""


def new_network(architecture: Architecture, seed: int) -> ConvNet:
    """A network of an architecture whose weights depend on nothing but the seed and the architecture."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", architecture.digest))
        return ConvNet(architecture)


def train_network(network: ConvNet, images: Tensor, targets: Tensor, lessons: Lessons, seed: int, *, epochs: int | None = None) -> ConvNet:
    """Train a network in place.

    Args:
        network: to be trained.
        images: float32 ``[n, C, H, W]``.
        targets: logits float32 ``[n, K]``, or classes int64 ``[n]``.
        lessons: how.
        seed: of the order of the images, and of what dropout drops.
        epochs: in place of the lessons' own.

    Returns:
        The network, ready to be used.
    """
    for _ in islice(passes(network, images, targets, lessons, seed), lessons.epochs if epochs is None else epochs):
        pass
    return network.eval()


def train_until(
    network: ConvNet, images: Tensor, targets: Tensor, lessons: Lessons, seed: int, *, part: Part, most: int, patience: int
) -> tuple[ConvNet, int]:
    """Train a network in place until it gets no better; its weights are those of the pass with the best accuracy, of equal ones the first.

    Args:
        network, images, targets, lessons, seed: see :func:`train_network`.
        part: images and classes by which it is judged after every pass.
        most: passes at most.
        patience: passes without a better accuracy after which it ends; 0 takes all.

    Returns:
        The network, ready to be used, and how many passes there were.
    """
    best, since, done, kept = -1.0, 0, 0, network.state_dict()
    for _ in islice(passes(network, images, targets, lessons, seed), most):
        accuracy = accuracy_of(network.eval(), part)
        done, since = done + 1, since + 1
        if accuracy > best:
            best, since = accuracy, 0
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        if patience and since >= patience:
            break
    network.load_state_dict(kept)
    return network.eval(), done


def passes(network: ConvNet, images: Tensor, targets: Tensor, lessons: Lessons, seed: int) -> Iterator[None]:
    """Train without end; what asks for the next pass may measure the network in between. See :func:`train_network`."""
    loss = logit_mse if targets.is_floating_point() else functional.cross_entropy
    optimizer = torch.optim.Adam(network.parameters(), lessons.learning_rate, weight_decay=lessons.weight_decay)
    order = torch.Generator().manual_seed(derive_seed(seed, "order", network.architecture.digest))
    for number in count():
        network.train()
        with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
            torch.manual_seed(derive_seed(seed, "dropout", network.architecture.digest, number))
            for rows in torch.randperm(len(images), generator=order).split(lessons.batch_size):
                if len(rows) < 2:  # batch normalisation of one image has no variance
                    continue
                optimizer.zero_grad(set_to_none=True)
                loss(network(images[rows]), targets[rows]).backward()
                optimizer.step()
        yield


@torch.no_grad()
def logits_of(network: nn.Module, images: Tensor) -> Tensor:
    """Logits ``[n, K]`` of images ``[n, C, H, W]``."""
    return torch.cat([network(rows) for rows in images.split(ROWS)])


def accuracy_of(network: nn.Module, part: Part) -> float:
    """Share of the images of a part whose class has the largest logit; 0 where logits are not finite."""
    images, labels = part
    logits = logits_of(network, images)
    if not bool(logits.isfinite().all()):
        return 0.0
    return float((logits.argmax(-1) == labels).float().mean())
