"""Wrong parts: which functions of the library a run goes through, and the same run with one of them a little wrong."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

FACTOR = 1.01
"""What wrong parts return in place of 1."""


def scaled(value: Any) -> Any:
    """Numbers times the factor: floats, tensors of floats, tuples of them, and the loss of an object that has one."""
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value * FACTOR
    if isinstance(value, Tensor):
        return value * FACTOR if value.is_floating_point() else value
    if isinstance(value, tuple):
        parts = [scaled(each) for each in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if dataclasses.is_dataclass(value) and isinstance(getattr(value, "loss", None), Tensor):
        value.loss = value.loss * FACTOR
    return value


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a function is.

    Attributes:
        module: its name.
        kind: its class; "" for a function of the module.
        name: its own.
    """

    module: str
    kind: str
    name: str

    def __str__(self) -> str:
        return ".".join(filter(None, (self.module.removeprefix("rheostat."), self.kind, self.name)))

    @classmethod
    def of(cls, function: Any) -> Place:
        """Of a function, a method as its class has it, or a property."""
        function = function.fget if isinstance(function, property) else function
        return cls(function.__module__, *function.__qualname__.rpartition(".")[::2])

    @property
    def holder(self) -> Any:
        """The module or the class."""
        module = sys.modules[self.module]
        return getattr(module, self.kind) if self.kind else module


def places(prefixes: tuple[str, ...]) -> dict[Any, Place]:
    """Functions and methods of loaded modules by their code."""
    found: dict[Any, Place] = {}
    for name, module in list(sys.modules.items()):
        if not name.startswith(prefixes):
            continue
        for holder, kind in [(module, ""), *((each, key) for key, each in vars(module).items() if inspect.isclass(each))]:
            if kind and holder.__module__ != name:
                continue
            for key, each in list(vars(holder).items()):
                function = each.fget if isinstance(each, property) else each
                own = inspect.isfunction(function) and function.__module__ == name
                if own and (not kind or function.__qualname__.startswith(f"{kind}.")):
                    found[inspect.unwrap(function).__code__] = Place(name, kind, key)
    return found


def called(run: Callable[[], Any], prefixes: tuple[str, ...]) -> list[Place]:
    """The functions that a run calls, of which :func:`scaled` changes what they return."""
    codes: set[Any] = set()
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, result: codes.add(frame.f_code) if event == "return" and numbers(result) else None)
    try:
        run()
    finally:
        sys.setprofile(before)
    known = places(prefixes)
    return sorted((known[code] for code in codes if code in known), key=str)


@contextmanager
def replaced(place: Place, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Inside, a function is another one, wherever a module has it."""
    original = vars(place.holder)[place.name]
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(original, property):
            assert original.fget is not None
            patch.setattr(place.holder, place.name, property(change(original.fget)))
        elif place.kind:
            patch.setattr(place.holder, place.name, change(original))
        else:
            other = change(original)
            for name, module in list(sys.modules.items()):
                if name.startswith("rheostat"):
                    for key, each in list(vars(module).items()):
                        if each is original:
                            patch.setattr(module, key, other)
        yield


def times(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with results times the factor."""

    @functools.wraps(function)
    def wrong(*values: Any, **options: Any) -> Any:
        return scaled(function(*values, **options))

    return wrong


def numbers(value: Any) -> bool:
    """Whether :func:`scaled` changes it."""
    if isinstance(value, tuple):
        return any(map(numbers, value))
    if isinstance(value, Tensor):
        return value.is_floating_point()
    return isinstance(value, float) or (dataclasses.is_dataclass(value) and isinstance(getattr(value, "loss", None), Tensor))
