"""Plain data: the contents of an environment as nested dicts and lists of tensors, numbers and strings that a checkpoint can hold."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEEPEST = 64
"""Containers within containers that are followed; a chain that is longer (or closes on itself) is not plain."""
SEQUENCES: dict[str, Any] = {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}
MAPPINGS: dict[str, Any] = {"pairs": dict, "OrderedDict": collections.OrderedDict, "Counter": collections.Counter}


class NotPlain(TypeError):
    """A value that cannot be saved; the message ends the sentence "... holds"."""


def pack(value: Any, depth: int = 0) -> Any:
    """Pack a value so that :func:`unpack` restores the same types.

    Args:
        value: None, truth values, numbers, text, bytes, numpy's arrays and scalars of numbers, tensors, and the standard containers of
            these, by their exact types.
        depth: of the containers around it.

    Raises:
        NotPlain: it holds something else, or containers nested more than :data:`DEEPEST` deep.
    """
    kind = type(value)
    if depth > DEEPEST:
        raise NotPlain(f"values nested more than {DEEPEST} deep")
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if abs(value) < 2**63 else {"big": hex(value)}  # PCG64 holds 128 bits
    if kind is np.str_:
        return {"scalar": str(value)}
    if isinstance(value, np.generic):
        return {"scalar": _tensor(np.array(value))}
    if kind is np.ndarray:
        return {"array": _tensor(value.copy())}
    if kind is Tensor:
        return value.detach().clone()
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is collections.deque:
        return {"deque": [pack(list(value), depth + 1), value.maxlen]}
    if kind.__name__ in SEQUENCES and kind is SEQUENCES[kind.__name__]:
        return {kind.__name__: [pack(item, depth + 1) for item in value]}
    if kind is dict and all(type(key) is str for key in value):
        return {"dict": {key: pack(item, depth + 1) for key, item in value.items()}}
    for name, mapping in MAPPINGS.items():
        if kind is mapping:
            return {name: [[pack(key, depth + 1), pack(item, depth + 1)] for key, item in value.items()]}
    raise NotPlain(f"a {kind.__name__}")


def _tensor(array: np.ndarray) -> Tensor:
    """An array of numbers as a tensor of the same type."""
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:  # dates, text, objects, long double, foreign byte orders
        raise NotPlain(f"numpy data of type {array.dtype}") from error


def unpack(value: Any) -> Any:
    """The inverse of :func:`pack`."""
    if not isinstance(value, dict):
        return value.clone() if isinstance(value, Tensor) else value
    ((kind, content),) = value.items()
    if kind == "big":
        return int(content, 16)
    if kind == "scalar":
        return np.str_(content) if isinstance(content, str) else content.numpy()[()]
    if kind == "array":
        return content.numpy().copy()
    if kind == "dict":
        return {key: unpack(item) for key, item in content.items()}
    if kind in MAPPINGS:
        return MAPPINGS[kind]({unpack(key): unpack(item) for key, item in content})
    if kind == "deque":
        return collections.deque(unpack(content[0]), maxlen=content[1])
    if kind == "bytes":
        return bytes.fromhex(content)
    return SEQUENCES[kind](unpack(item) for item in content)


def save_generator(generator: np.random.Generator | None) -> Any:
    """The state of numpy's generator; None where there is none yet."""
    return None if generator is None else pack(generator.bit_generator.state)


def restore_generator(saved: Any) -> np.random.Generator | None:
    """The inverse of :func:`save_generator`."""
    if saved is None:
        return None
    state = unpack(saved)
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)
