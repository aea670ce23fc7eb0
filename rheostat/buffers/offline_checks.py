"""Checks of an offline data set; their error messages name the episode and the step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.trajectories import Transitions

if TYPE_CHECKING:
    from gymnasium import Space

TOLERANCE = 1e-5
"""Actions may lie this far outside their bounds (rounding of float32); they are put on the bound."""


def title(name: str) -> str:
    """A name at the beginning of a sentence."""
    return name[:1].upper() + name[1:]


def place(breaks: Tensor, index: int) -> str:
    """``step 3 of episode 2`` for a row, both counted from 0; ``breaks`` is True on the last step of every episode, ``[n]``."""
    before = breaks[:index].nonzero().flatten()
    first = int(before[-1]) + 1 if len(before) else 0
    return f"step {index - first} of episode {len(before)}"


def check_shapes(rows: Transitions, breaks: Tensor, observation_space: Space, action_space: Space, name: str) -> None:
    """Refuse what is empty, or not one row per step.

    Raises:
        RheostatError: no steps, missing fields, wrong shapes, or a last step that ends no episode.
    """
    count = len(rows)
    if count == 0:
        raise RheostatError(f"{title(name)} is empty: it has no step.")
    if tuple(breaks.shape) != (count,) or breaks.dtype != torch.bool:
        raise RheostatError(f"breaks must be bool [{count}], one per transition, not {breaks.dtype} {list(breaks.shape)}.")
    if not breaks[-1]:
        raise RheostatError(f"The last step of {name} does not end an episode: mark it in breaks (and as truncated).")
    for field in ("observation", "next_observation"):
        if getattr(rows, field) is None:
            raise RheostatError(f"The transitions of {name} have no {field}.")
        shape = tuple(getattr(rows, field).shape[1:])
        if shape != observation_space.shape:
            raise RheostatError(f"The {field}s of {name} have shape {list(shape)}; their space is {observation_space}.")
    if tuple(rows.action.shape[1:]) != tuple(action_space.shape or ()):
        raise RheostatError(f"The actions of {name} have shape {list(rows.action.shape[1:])}; their space is {action_space}.")


def check_values(rows: Transitions, breaks: Tensor, name: str) -> None:
    """Refuse NaN, infinity, episodes that end in the middle or whose end is unknown, and steps out of order.

    Raises:
        RheostatError: with the first place where something is wrong.
    """
    for field in ("observation", "action", "reward", "next_observation"):
        value: Tensor = getattr(rows, field)
        if value.is_floating_point() and not value.isfinite().all():
            index = _first(~value.isfinite())
            what = "is not a number" if value[index].isnan().any() else "is infinite"
            raise RheostatError(
                f"{title(name)}: the {field.replace('_', ' ')} of {place(breaks, index)} {what}: leave that episode out, or mend it."
            )
    ended = rows.terminated | rows.truncated
    if (ended & ~breaks).any():
        where = place(breaks, _first(ended & ~breaks))
        raise RheostatError(
            f"{title(name)} says that the episode ended at {where}, but more steps follow: split it there with "
            "--repair.split-after-success (repair={'split_after_success': True}), or correct the flags."
        )
    if (breaks & ~ended).any():
        where = place(breaks, _first(breaks & ~ended))
        raise RheostatError(
            f"{title(name)}: {where} is the last one and neither terminated nor truncated, so it is unknown how the episode ended: set one "
            "of the two, or read it with --repair.unknown-end truncate (repair={'unknown_end': 'truncate'}) if it was only stopped there."
        )
    jumps = (rows.next_observation[:-1] != rows.observation[1:]).flatten(1).any(1) & ~breaks[:-1]
    if jumps.any():
        raise RheostatError(
            f"{title(name)}: the next observation of {place(breaks, _first(jumps))} is not the observation of the step after it: the steps "
            "are not in the order of time."
        )


def inside(action: Tensor, space: Space, breaks: Tensor, outside: str, name: str) -> Tensor:
    """Actions inside the action space, ``[n, ...]``.

    Args:
        action: as stored.
        space: of one action.
        breaks: bool ``[n]``, to say where something is wrong.
        outside: ``error`` or ``clip``, for a Box; a category outside its space is always an error.
        name: of the data set.

    Raises:
        RheostatError: actions outside.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
        beyond = (torch.maximum(low - action, action - high) > TOLERANCE).reshape(len(action), -1).any(1)
        if outside == "error" and beyond.any():
            index = _first(beyond)
            raise RheostatError(
                f"{title(name)}: the action {_short(action[index])} of {place(breaks, index)} lies outside {_short(low)} to {_short(high)} "
                f"({int(beyond.sum()):,} of {len(action):,} actions do): clip them with --repair.outside clip "
                "(repair={'outside': 'clip'}), or correct the action space."
            )
        return action.clamp(low, high)
    most = torch.as_tensor(space.n if isinstance(space, spaces.Discrete) else getattr(space, "nvec", 2))
    wrong = (action < 0) | (action >= most)
    if wrong.any():
        index = _first(wrong)
        raise RheostatError(f"{title(name)}: the action {_short(action[index])} of {place(breaks, index)} is not in {space}: mend it.")
    return action


def agree(mine: Any, theirs: Any, *, bounds: bool) -> bool:
    """Whether two spaces are of the same kind, shape and dtype and, where asked, have the same bounds or categories."""
    if type(mine) is not type(theirs) or mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return False
    if not bounds:
        return True
    if hasattr(mine, "low"):
        return bool(np.allclose(mine.low, theirs.low) and np.allclose(mine.high, theirs.high))
    return bool(mine == theirs)


def _first(wrong: Tensor) -> int:
    """The first row where anything is wrong."""
    return int(wrong.reshape(len(wrong), -1).any(1).nonzero()[0])


def _short(value: Tensor) -> str:
    """A few numbers of a tensor, readable."""
    numbers = [f"{number:.6g}" for number in value.flatten()[:6].tolist()]
    return numbers[0] if value.numel() == 1 else "[" + ", ".join(numbers) + (", ...]" if value.numel() > 6 else "]")
