"""Schedules: a coefficient as a function of the policy update, from 0. Pure numbers; the log of a run holds the values that were used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rheostat.errors import RheostatError
from rheostat.options import option

Decay = Literal["cosine", "linear", "switch"]


@dataclass(frozen=True)
class PeakSchedule:
    """A rise to a peak, then a fall to a valley, which is kept.

    The unit of time is the caller's: policy updates, counted from 0, in the coefficients of language methods; environment steps
    in the exploration of dqn. With s the time, W the warm-up and D the decay::

        s < W            peak * s / W                     (so 0 at s = 0)
        W <= s < W + D   peak to valley: (1 + cos(pi x)) / 2 of the way left (cosine), 1 - x (linear), or still the peak (switch),
                         with x = (s - W) / D
        s >= W + D       valley

    CHORD's mu is the cosine; a ``switch`` from 1 to 0 is imitation first and reinforcement afterwards.

    Raises:
        RheostatError: a length below 0, or a decay that does not exist.
    """

    peak: float = option(1.0, at_least=0)
    """Value after the warm-up."""
    valley: float = option(0.0, at_least=0)
    """Value after the decay."""
    warmup: int = option(0, at_least=0)
    """W, updates over which the value rises from 0 to its peak."""
    decay: int = option(0, at_least=0)
    """D, updates over which it then falls to its valley."""
    decay_form: Decay = option("cosine")
    """Form of the fall; ``switch`` stays at the peak until the end."""

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.decay < 0:
            raise RheostatError(f"A schedule warms up over {self.warmup} updates and decays over {self.decay}: both count from 0.")
        if self.decay_form not in get_args(Decay):
            raise RheostatError(f"Unknown decay {self.decay_form!r}: one of {', '.join(get_args(Decay))}.")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that have no effect, and why."""
        if self.peak == self.valley:
            return dict.fromkeys(("decay", "decay_form"), "the peak is the valley, so nothing falls; leave it alone")
        if self.decay:
            return {}
        found = {"decay_form": "decay is 0; leave it alone"}
        return found if self.warmup else found | {"peak": "without a warm-up or a decay the value is the valley; set one, or the valley"}

    @property
    def end(self) -> int:
        """The first update at the valley."""
        return self.warmup + self.decay

    def at(self, update: int) -> float:
        """The value at an update.

        Raises:
            RheostatError: an update below 0.
        """
        if update < 0:
            raise RheostatError(f"A schedule begins at update 0; there is no update {update}.")
        if update < self.warmup:
            return self.peak * update / self.warmup
        if update >= self.end:
            return self.valley
        if self.decay_form == "switch":
            return self.peak
        x = (update - self.warmup) / self.decay
        return self.valley + (self.peak - self.valley) * ((1 + math.cos(math.pi * x)) / 2 if self.decay_form == "cosine" else 1 - x)

    def check(self, updates: int, name: str) -> None:
        """Refuse a schedule that does not end within the run: the run would be another method than the requested one.

        Args:
            updates: that the run makes.
            name: of the schedule, for the error message.

        Raises:
            RheostatError: it ends after the last update.
        """
        if self.end > updates:
            raise RheostatError(
                f"The schedule of {name} ends at update {self.end} ({self.warmup} of warm-up, {self.decay} of decay), but the run makes "
                f"{updates}: shorten the schedule or raise steps."
            )


@dataclass(frozen=True)
class Complement:
    """One minus a schedule: the weight of the other part of a mixture."""

    schedule: PeakSchedule

    def at(self, update: int) -> float:
        """The value at an update."""
        return 1 - self.schedule.at(update)
