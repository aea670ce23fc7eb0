"""What training cannot do without, alone: stepping environments, and matrix products. Both are sides that take their turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rheostat.tasks.control.environments import make

STEPPING, PRODUCTS = "EnvPool alone", "matrix products alone"


class Stepping:
    """EnvPool with random actions, and with as many environments and threads as our side uses."""

    def __init__(self, task: str, environments: int) -> None:
        made = make(task, num_envs=environments, seed=1)
        made.reset()
        self.pool, self.environments = made._envs, environments
        made.action_space.seed(0)
        self.actions = [np.stack([made.action_space.sample() for _ in range(environments)]) for _ in range(32)]

    def advance(self, steps: int) -> int:
        """Steps of all environments."""
        rounds = -(-steps // self.environments)
        for index in range(rounds):
            self.pool.step(self.actions[index % len(self.actions)])
        return rounds * self.environments

    def episode_return(self) -> float:
        """Of nobody."""
        return float("nan")


@dataclass(frozen=True)
class Pass:
    """A pass of some rows through a perceptron."""

    widths: tuple[int, ...]
    """Inputs, hidden units, outputs."""
    rows: int
    kind: Literal["forward", "train", "input"] = "forward"
    """Forward alone; with the gradient of weights; or with that of the input alone."""
    times: float = 1.0
    """Per round of :class:`Products`; below 1 only in some rounds."""


class Products:
    """The matrix products of some passes, in NumPy; what stands between them is left out, NumPy's calls are not.

    Args:
        passes: of one round.
        steps: that one round stands for.
    """

    def __init__(self, passes: Sequence[Pass], steps: int) -> None:
        self.passes, self.steps, self.rounds = passes, steps, 0
        draw = np.random.default_rng(0)
        rows = max(each.rows for each in passes)
        shapes = {shape for each in passes for shape in zip(each.widths, each.widths[1:], strict=False)}
        new: Any = lambda *shape: draw.standard_normal(shape, dtype=np.float32)  # noqa: E731
        self.room = {(i, o): (new(o, i), new(rows, i), new(rows, o), new(o, i), new(rows, i)) for i, o in sorted(shapes)}

    def advance(self, steps: int) -> int:
        """Whole rounds."""
        rounds = -(-steps // self.steps)
        for _ in range(rounds):
            self.rounds += 1
            for each in self.passes:
                for _ in range(int(each.times * self.rounds) - int(each.times * (self.rounds - 1))):
                    self.make(each)
        return rounds * self.steps

    def make(self, each: Pass) -> None:
        """One pass."""
        layers = [self.room[shape] for shape in zip(each.widths, each.widths[1:], strict=False)]
        n = each.rows
        for weight, x, y, _, _ in layers:
            np.matmul(x[:n], weight.T, out=y[:n])
        if each.kind == "forward":
            return
        for layer, (weight, x, y, dweight, dx) in reversed(list(enumerate(layers))):
            if each.kind == "train":
                np.matmul(y[:n].T, x[:n], out=dweight)
            if layer or each.kind == "input":
                np.matmul(y[:n], weight, out=dx[:n])

    def episode_return(self) -> float:
        """Of nobody."""
        return float("nan")


def sizes_of(task: str) -> tuple[int, int]:
    """Numbers of an observation, and of an action or its choices."""
    made = make(task, num_envs=1, seed=1)
    space: Any = made.action_space
    found = int(np.prod(made.observation_space.shape)), int(getattr(space, "n", 0) or np.prod(space.shape))
    made.close()
    return found
