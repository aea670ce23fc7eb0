"""Distractors: further numbers in an observation that move by themselves and matter for no reward (VaGraM, Voelcker et al. 2022).

They are options of any task of Gymnasium with a vector of numbers as its observation (``--environment distractors 10``) and stand behind
the task's own numbers. The map by which they move is drawn once from ``distractor_map``, so training and evaluation know the same one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from rheostat.errors import RheostatError, shown, unknown
from rheostat.options import whole

if TYPE_CHECKING:
    from gymnasium import Env

Kind = Literal["linear", "switching", "noise"]
LIMIT = 20.0
"""Size at which a switching distractor is put back."""


@dataclass(frozen=True)
class DistractorOptions:
    """How many distractors there are, and how they move.

    linear      x' = L x with L Gaussian, divided by its spectral radius, so that x neither dies out nor grows without bound
    switching   x' = L x with L standard Gaussian; a number beyond 20 is put back to a place of its own, as in the authors' code
    noise       x' is standard normal

    An episode begins with x ~ N(0, scale^2).
    """

    distractors: int
    distractor_kind: Kind = "linear"
    distractor_scale: float = 0.1
    distractor_map: int = 0
    """Seed of L."""
    distractor_correlated: bool = False
    """L also reads the task's own observation."""

    def __post_init__(self) -> None:
        whole("distractors", self.distractors, at_least=1, at_most=10_000)
        whole("distractor_map", self.distractor_map, at_least=0)
        if self.distractor_kind not in get_args(Kind):
            raise unknown("kind of distractors", str(self.distractor_kind), get_args(Kind))
        scale = self.distractor_scale
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= LIMIT:
            raise RheostatError(f"distractor_scale is {shown(scale)}; it must be a number from 0 to {LIMIT:g}.")
        if not isinstance(self.distractor_correlated, bool):
            raise RheostatError(f"distractor_correlated is {shown(self.distractor_correlated)}; it must be true or false.")
        if self.distractor_kind == "noise" and (self.distractor_map or self.distractor_correlated or scale != 0.1):
            raise RheostatError("Distractors of noise follow no map and begin nowhere: leave the other options of distractors alone.")


NAMES = tuple(DistractorOptions.__dataclass_fields__)


def take_distractors(options: dict[str, Any]) -> tuple[DistractorOptions | None, dict[str, Any]]:
    """The options of distractors among those of an environment, None where there are none, and the rest.

    Raises:
        RheostatError: options of distractors without their number, or ones that cannot be.
    """
    own = {name: value for name, value in options.items() if name in NAMES}
    if not own:
        return None, options
    if "distractors" not in own:
        raise RheostatError(f"{next(iter(own))} is of distractors, and there are none: say how many with the option distractors.")
    return DistractorOptions(**own), {name: value for name, value in options.items() if name not in own}


def name_with(task: str, options: DistractorOptions | None) -> str:
    """What a task is called with distractors.

    >>> name_with("Hopper-v5", DistractorOptions(10))
    'Hopper-v5 with 10 distractors'
    """
    return task if options is None else f"{task} with {options.distractors} distractors"


def own_task(name: str) -> tuple[str, int]:
    """The inverse of :func:`name_with`: the task and the number of distractors.

    >>> own_task("Hopper-v5 with 10 distractors"), own_task("Hopper-v5")
    (('Hopper-v5', 10), ('Hopper-v5', 0))
    """
    found = re.fullmatch(r"(.*) with (\d+) distractors", name)
    return (name, 0) if found is None else (found[1], int(found[2]))


def wrapped(make: Callable[[], Env], options: DistractorOptions | None) -> Callable[[], Env]:
    """The function that makes an environment, with distractors."""
    if options is None:
        return make
    from rheostat.tasks.control.distracted import Distracted

    return lambda: Distracted(make(), options)
