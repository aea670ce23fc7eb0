"""Restoring an environment that cannot save itself: its contents before the present episode, and the actions of that episode.

Before every reset the plain attributes of the environment and its wrappers are kept (numbers, text, arrays, lists, dicts, generators, and
objects made of these), so that a curriculum or a counter that persists across episodes is restored with it. The resume puts them into a new
environment, resets it and repeats the actions. A checksum of everything the environment returned tells whether the results agree; where
they do not (it uses another random source, it reads a clock), the resume warns and a new episode begins.

An object that is no plain data and outlives ``reset`` (a simulator's handle) may hold anything. Then all actions since the environment was
made are repeated, up to :data:`LONGEST` steps. An environment with ``replayable = False`` (hardware) is never repeated.
"""

from __future__ import annotations

import datetime
import enum
import fractions
import functools
import logging
import pathlib
import random
import re
import types
import zlib
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rheostat.tasks.control.cursor import LONGEST, WHY, Lost
from rheostat.tasks.control.plain_data import DEEPEST, NotPlain, pack, restore_generator, save_generator, unpack

CONSTANT = (
    types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, gymnasium.envs.registration.EnvSpec,
    pathlib.PurePath, enum.Enum, re.Pattern, np.dtype, datetime.date, datetime.timedelta, fractions.Fraction, logging.Logger, range,
)  # fmt: skip


HEAP = 1 << 9
"""Flag of a class that a ``class`` statement made."""


def checksum(answer: Any, before: int = 0) -> int:
    """Of numbers and arrays, nested in dicts, tuples and lists, continued from another one; anything else is skipped."""
    if isinstance(answer, dict):
        answer = [answer[key] for key in sorted(answer, key=str)]
    if isinstance(answer, tuple | list):
        for part in answer:
            before = checksum(part, before)
        return before
    if isinstance(answer, bool | int | float | np.ndarray | np.generic):
        return zlib.crc32(np.ascontiguousarray(answer).tobytes(), before)
    return zlib.crc32(answer.detach().cpu().numpy().tobytes(), before) if isinstance(answer, Tensor) else before


# -- attributes ------------------------------------------------------------------------------------------------------------------------


def attributes_of(owner: Any, seen: dict[int, str], path: str = "", depth: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain attributes of an object, packed, and those that are not plain, by their paths.

    Args:
        owner: the object.
        seen: paths of mutable objects met before, by identity: a second path to one is stored as such, so that they stay one object.
        path: of the owner: the number of its layer, then names.
        depth: objects around the owner; a chain of more than :data:`DEEPEST` is not plain.
    """
    plain: dict[str, Any] = {}
    other: dict[str, Any] = {}
    for name, value in vars(owner).items():
        where = f"{path}{name}"  # "0/sim.clock"
        if name == "env" and isinstance(owner, gymnasium.Wrapper):
            continue
        if isinstance(value, CONSTANT):
            continue
        if not isinstance(value, str | int | float | bool | tuple | bytes | frozenset | np.generic | None):
            if id(value) in seen:
                plain[name] = {"alias": seen[id(value)]}
                continue
            seen[id(value)] = where
        if isinstance(value, np.random.Generator):
            plain[name] = {"generator": save_generator(value)}
        elif isinstance(value, random.Random) and type(value) is random.Random:
            plain[name] = {"random": pack(value.getstate())}
        elif isinstance(value, np.random.RandomState):
            plain[name] = {"legacy": pack(value.get_state())}
        elif isinstance(value, gymnasium.Space):
            plain[name] = {"space": _space_generators(value)}
        elif depth < DEEPEST and _is_plain_object(value):
            inner, beyond = attributes_of(value, seen, where + ".", depth + 1)
            plain[name] = {"object": inner}
            other |= beyond
        else:
            try:
                plain[name] = {"value": pack(value)}
            except NotPlain:
                other[where] = value
    return plain, other


def put_attributes(owner: Any, saved: dict[str, Any], aliases: list[tuple[Any, str, str]]) -> None:
    """Put packed attributes into an object that was made in the same way; second paths to one object are added to ``aliases``.

    Raises:
        Lost: the object is built differently now.
    """
    for name, entry in saved.items():
        ((kind, content),) = entry.items()
        if kind == "alias":
            aliases.append((owner, name, content))
            continue
        if kind == "value":
            setattr(owner, name, unpack(content))
            continue
        if kind == "generator":
            setattr(owner, name, restore_generator(content))
            continue
        if kind == "random":
            setattr(owner, name, random.Random())
            getattr(owner, name).setstate(unpack(content))
            continue
        if kind == "legacy":
            setattr(owner, name, np.random.RandomState())
            getattr(owner, name).set_state(unpack(content))
            continue
        present = vars(owner).get(name)
        if present is None:
            raise Lost(f"its attribute {name} is not there before the first reset")
        if kind == "space":
            _put_space_generators(present, content)
        else:
            put_attributes(present, content, aliases)
    for name in [name for name, value in vars(owner).items() if name not in saved and _is_scalar(value)]:
        delattr(owner, name)  # it did not exist yet


def _is_scalar(value: Any) -> bool:
    return type(value) in (bool, int, float, str, np.ndarray)


def _is_plain_object(value: Any) -> bool:
    """Whether it is an instance of ordinary Python classes, whose attributes are its whole state."""
    if isinstance(value, gymnasium.Env | gymnasium.Wrapper | torch.nn.Module) or not hasattr(value, "__dict__"):
        return False
    ordinary = [cls for cls in type(value).__mro__ if cls is not object]
    return all(cls.__flags__ & HEAP and type(cls).__module__ in ("builtins", "abc") and not vars(cls).get("__slots__") for cls in ordinary)


def _parts(space: Any) -> list[Any]:
    inner = getattr(space, "spaces", None)
    parts = list(inner.values()) if isinstance(inner, dict) else list(inner) if inner is not None else []
    return [space, *(each for part in parts for each in _parts(part))]


def _space_generators(space: Any) -> list[Any]:
    return [save_generator(part._np_random) for part in _parts(space)]


def _put_space_generators(space: Any, saved: list[Any]) -> None:
    for part, state in zip(_parts(space), saved, strict=True):
        part._np_random = restore_generator(state)


def layers_of(environment: Any) -> list[Any]:
    """The wrappers from the outermost to the environment itself, or to its :class:`Recorder`."""
    layers = [environment]
    while isinstance(layers[-1], gymnasium.Wrapper) and not isinstance(layers[-1], Recorder):
        layers.append(layers[-1].env)
    return layers


# -- one environment -------------------------------------------------------------------------------------------------------------------


class Recorder(gymnasium.Wrapper):
    """The outermost wrapper of one environment: stores what restores it. It changes no return value of the environment."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.layers = layers_of(environment)
        self.reason = "" if getattr(environment.unwrapped, "replayable", True) else "it says that it cannot be replayed"
        self.kept: list[str] = []  # objects that outlive reset and are no plain data
        self.resets = 0
        self.before: list[dict[str, Any]] | None = None
        self.log: list[tuple[str, Any]] = []  # ("reset", seed) or ("step", action)
        self.checksum = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """As the environment."""
        other: dict[str, Any] = {}
        earlier = (self.before, self.log, self.checksum)
        if not self.reason and not self.kept:
            self.before, other = self._look()
            self.log, self.checksum = [], 0
        answer = self.env.reset(seed=seed) if options is None else self.env.reset(seed=seed, options=options)
        if self.reason:
            return answer
        if other:
            now = self._look()[1]
            self.kept = [name for name, value in other.items() if now.get(name) is value]
            if self.kept and self.resets == 1:  # the first reset made it
                self.before, self.log, self.checksum = earlier
            elif self.kept and self.resets > 1:
                self.reason = f"its {self._name(self.kept[0])} is kept from episode to episode and cannot be saved"
        self.resets += 1
        self.log.append(("reset", seed))
        self._note(answer[0] if isinstance(answer, tuple) and answer else answer)
        return answer

    @staticmethod
    def _name(path: str) -> str:
        return path.partition("/")[2]

    def step(self, action: Any) -> Any:
        """As the environment."""
        if not self.reason:
            self.log.append(("step", np.array(action)))
            if len(self.log) > LONGEST:
                kept = f"its {self._name(self.kept[0])} is kept from episode to episode" if self.kept else ""
                what = kept or "its episode is too long to be repeated"
                self.reason = f"{what} and {LONGEST:,} steps are the most that are repeated"
                self.log, self.before = [], None
        answer = self.env.step(action)
        if not self.reason and isinstance(answer, tuple) and len(answer) == 5:
            self._note(answer[:4])
        return answer

    def _look(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        seen = {id(layer): f"{number}/" for number, layer in enumerate(self.layers)}
        found = [attributes_of(layer, seen, f"{number}/") for number, layer in enumerate(self.layers)]
        return [plain for plain, _ in found], {name: value for _, other in found for name, value in other.items()}

    def _note(self, answer: Any) -> None:
        """Add the environment's return values to the checksum."""
        self.checksum = checksum(answer, self.checksum)

    @property
    def class_state(self) -> dict[str, Any]:
        """Numbers and text in the classes of the environment and its wrappers: shared by all copies, and not restored."""
        found: dict[str, Any] = {}
        for layer in self.layers:
            for cls in type(layer).__mro__:
                if cls.__module__.split(".")[0] not in ("gymnasium", "builtins", "typing", "abc", "rheostat"):
                    values = {f"{cls.__name__}.{key}": value for key, value in vars(cls).items() if type(value) in (bool, int, float, str)}
                    found |= {key: value for key, value in values.items() if not key.split(".")[1].startswith("__")}
        return found

    def save_state(self) -> dict[str, Any]:
        """Plain data, tensors among them."""
        facts = {"reason": self.reason, "classes": self.class_state, "resets": self.resets}
        if self.reason:
            return facts
        actions = [value for kind, value in self.log if kind == "step"]
        return facts | {
            "before": self.before,
            "kept": list(self.kept),
            "kinds": [kind == "reset" for kind, _ in self.log],
            "seeds": [value for kind, value in self.log if kind == "reset"],
            "actions": torch.from_numpy(np.stack(actions)) if actions else None,
            "checksum": self.checksum,
        }

    def load_state(self, state: dict[str, Any]) -> list[str]:
        """Restore a newly made environment; returns sentences about what cannot be checked.

        Raises:
            Lost: it cannot be restored, or returned other results.
        """
        self.reason, self.kept, self.resets = state["reason"], list(state.get("kept", [])), state["resets"]
        if self.reason:
            raise Lost(self.reason)
        now = self.class_state
        changed = [name for name, value in state["classes"].items() if name in now and now[name] != value]
        self.before = state["before"]
        assert self.before is not None
        aliases: list[tuple[Any, str, str]] = []
        for layer, saved in zip(self.layers, self.before, strict=True):
            put_attributes(layer, saved, aliases)
        for owner, name, path in aliases:
            number, _, names = path.partition("/")
            setattr(owner, name, functools.reduce(getattr, names.split(".") if names else [], self.layers[int(number)]))
        self.log, self.checksum = [], 0
        seeds, actions = list(state["seeds"]), [] if state["actions"] is None else list(state["actions"].numpy())
        for is_reset in state["kinds"]:
            if is_reset:
                seed = seeds.pop(0)
                self.log.append(("reset", seed))
                self._note(self.env.reset(seed=seed)[0])
            else:
                action = actions.pop(0)
                action = action[()] if action.ndim == 0 else action
                self.log.append(("step", np.array(action)))
                self._note(self.env.step(action)[:4])
        if self.checksum != state["checksum"]:
            raise Lost(f"repeating its last {len(state['kinds']):,} steps went another way: {WHY}")
        return [f"it keeps numbers in its class ({', '.join(changed)}), which are not brought back"] if changed else []
