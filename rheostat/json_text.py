"""JSON as the standard has it, in both directions: no NaN, no infinity, no half of a surrogate pair, and files of a bounded size.

Every file of JSON that the library reads comes through :func:`read`, everything it shows through :func:`dumps`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from rheostat.errors import shown_error

DIGEST = "sha256"
MOST_BYTES = 64 * 2**20
"""That a file may have, unless its format says otherwise."""


class NotJSON(ValueError):
    """A text that is not JSON, or holds something else than expected."""


def loads(text: str | bytes) -> Any:
    """The value that a text in JSON says.

    Raises:
        NotJSON: it is none, holds a number that is none, an integer of more than 300 digits or half a surrogate pair, or is nested too
            deeply.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=whole)
        if "\\ud" in text or "\\uD" in text:  # the only way to write half a pair in UTF-8
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise NotJSON(shown_error(error)) from error
    return value


def _no_number(name: str) -> Any:
    raise ValueError(f"it holds {name}, which JSON does not know")


def whole(text: str) -> int:
    """An integer, no larger than a float can be.

    Raises:
        ValueError: it has more than 300 digits.
    """
    if len(text) > 300:
        raise ValueError("it holds a whole number of more than 300 digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it holds the number {text[:40]}, which is larger than any float")
    return value


def read(path: Path, kind: type = dict, *, at_most: int = MOST_BYTES) -> Any:
    """The value in a file of JSON.

    Args:
        path: the file.
        kind: of the value: ``dict`` or ``list``.
        at_most: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        NotJSON: it is too large, no JSON, or holds another kind of value; the end of a sentence.
    """
    with path.open("rb") as file:
        data = file.read(at_most + 1)
    if len(data) > at_most:
        raise NotJSON(f"it has more than {at_most:,} bytes")
    value = loads(data)
    if not isinstance(value, kind):
        raise NotJSON("it holds no JSON object" if kind is dict else "it holds no list")
    return value


def digest_of(value: Mapping[str, Any]) -> str:
    """The SHA-256 of an object in JSON, in hexadecimal digits, whatever the order of its names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def signed(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object with its own digest under ``sha256``, which :func:`unsigned` compares.

    Raises:
        ValueError: it has something else of that name, which the digest would replace.
    """
    if DIGEST in value:
        raise ValueError(f"{DIGEST} names the digest of the object itself; call what it holds otherwise")
    return {**value, DIGEST: digest_of(value)}


def unsigned(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object without its digest; one of a version that wrote none is as it is.

    Raises:
        NotJSON: it is not what the digest is of.
    """
    content = {name: inner for name, inner in value.items() if name != DIGEST}
    if DIGEST in value and value[DIGEST] != digest_of(content):
        raise NotJSON("it does not match its own digest")
    return content


def plain(value: Any) -> Any:
    """A value as JSON can say it: numbers that are none become null, paths text, tuples and sets lists, objects of fields their fields."""
    if hasattr(value, "tolist"):  # of NumPy and PyTorch
        value = value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(value: Any, *, indent: int | None = None) -> str:
    """A value in strict JSON, see :func:`plain`."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)
