"""Repairs of faults that published data sets often have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from rheostat.errors import unknown
from rheostat.options import by_type, type_hints


@dataclass(frozen=True)
class Repairs:
    """Every fault is an error unless asked otherwise."""

    unknown_end: Literal["error", "truncate"] = "error"
    """An episode whose last step is neither terminated nor truncated is an error, or counts as cut there."""
    outside: Literal["error", "clip"] = "error"
    """Actions beyond the bounds of their space are an error, or are clipped."""
    final_observation: Literal["error", "drop"] = "error"
    """An episode without the observation after its last step is an error, or loses that step."""
    split_after_success: bool = False
    """An episode that continues after the environment ended (after a goal was reached) is split there; otherwise it is an error."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Repairs:
        """From options by name.

        Raises:
            RheostatError: one that does not exist, or a value that it cannot have.
        """
        hints = type_hints(cast(Any, cls))
        for name in given:
            if name not in hints:
                raise unknown("repair of a data set", name, hints)
        return cls(**{name: by_type(f"repair.{name}", value, hints[name]) for name, value in given.items()})

    @property
    def asked(self) -> dict[str, Any]:
        """Those that were asked for, by name."""
        return {name: value for name, value in asdict(self).items() if value not in ("error", False)}
