"""Plain values as bytes: a candidate program's results leave its process without being trusted.

One byte gives the kind, a length or count follows where there is one. Only the exact built-in types below are taken, so no object with an
``__eq__`` of its own reaches the comparison. Depth and size are bounded at both ends.

| byte | kind |
|---|---|
| ``N``, ``T``, ``F`` | None, True, False |
| ``i`` | int: length, signed big-endian bytes |
| ``f`` | float: 8 bytes |
| ``s``, ``b`` | str (UTF-8, surrogates kept), bytes: length, content |
| ``l``, ``t`` | list, tuple: count, items |
| ``d`` | dict: count, keys and values in turn |
"""

from __future__ import annotations

import math
import struct
from typing import Any

from rheostat.credit.verifiers.sandbox.wire import LONGEST, Garbled

DEPTH = 50
_COUNT = struct.Struct(">I")
_FLOAT = struct.Struct(">d")


def encode(value: Any) -> bytes:
    """A plain value as bytes.

    Raises:
        ValueError: another type, nested deeper than ``DEPTH``, or larger than a frame may be.
    """
    pieces: list[bytes] = []
    _encode(value, pieces, 0, [LONGEST - 16])
    return b"".join(pieces)


def _encode(value: Any, pieces: list[bytes], depth: int, room: list[int]) -> None:
    if depth > DEPTH:
        raise ValueError(f"a value nested more than {DEPTH} deep")

    def add(piece: bytes) -> None:
        room[0] -= len(piece)
        if room[0] < 0:
            raise ValueError(f"a value of more than {LONGEST} bytes")
        pieces.append(piece)

    kind = type(value)
    if value is None or kind is bool:
        add(b"N" if value is None else b"T" if value else b"F")
    elif kind is int:
        content = value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
        add(b"i" + _COUNT.pack(len(content)) + content)
    elif kind is float:
        add(b"f" + _FLOAT.pack(value))
    elif kind in (str, bytes):
        content = value.encode("utf-8", "surrogatepass") if kind is str else value
        add((b"s" if kind is str else b"b") + _COUNT.pack(len(content)) + content)
    elif kind in (list, tuple):
        add((b"l" if kind is list else b"t") + _COUNT.pack(len(value)))
        for item in value:
            _encode(item, pieces, depth + 1, room)
    elif kind is dict:
        add(b"d" + _COUNT.pack(len(value)))
        for key, item in value.items():
            _encode(key, pieces, depth + 1, room)
            _encode(item, pieces, depth + 1, room)
    else:
        raise ValueError(f"a value of type {kind.__name__}")


def decode(content: bytes) -> Any:
    """Decode the bytes of a plain value.

    Raises:
        Garbled: bytes that no value has.
    """
    value, end = _decode(content, 0, 0)
    if end != len(content):
        raise Garbled("a value with bytes after its end")
    return value


def _decode(content: bytes, place: int, depth: int) -> tuple[Any, int]:
    if depth > DEPTH or place >= len(content):
        raise Garbled("a value that ends too early or lies too deep")
    kind, place = content[place : place + 1], place + 1
    if kind in (b"N", b"T", b"F"):
        return {b"N": None, b"T": True, b"F": False}[kind], place
    if kind == b"f":
        return _FLOAT.unpack(_piece(content, place, 8))[0], place + 8
    (count,) = _COUNT.unpack(_piece(content, place, 4))
    place += 4
    if kind in (b"i", b"s", b"b"):
        piece, place = _piece(content, place, count), place + count
        try:
            return (int.from_bytes(piece, "big", signed=True) if kind == b"i" else piece if kind == b"b" else _text(piece)), place
        except UnicodeDecodeError as error:
            raise Garbled("text that is no UTF-8") from error
    if kind not in (b"l", b"t", b"d") or count > len(content) - place:  # every item takes a byte at least
        raise Garbled("a value of no known kind")
    items = []
    for _ in range(count * (2 if kind == b"d" else 1)):
        item, place = _decode(content, place, depth + 1)
        items.append(item)
    if kind == b"d":
        try:
            return dict(zip(items[::2], items[1::2], strict=True)), place
        except TypeError as error:
            raise Garbled("a dictionary whose key is no key") from error
    return (items if kind == b"l" else tuple(items)), place


def _piece(content: bytes, place: int, count: int) -> bytes:
    piece = content[place : place + count]
    if len(piece) < count:
        raise Garbled("a value that ends too early")
    return piece


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogatepass")


def same(found: Any, expected: Any, tolerance: float = 1e-9) -> bool:
    """Whether a program's output is the expected one: lists equal tuples, numbers are close, truth values are no numbers.

    Args:
        found, expected: plain values.
        tolerance: relative and absolute, where a float is involved.
    """
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, float) or isinstance(expected, float):
        if not (isinstance(found, (int, float)) and isinstance(expected, (int, float))):
            return False
        try:
            close = math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
        except OverflowError:  # an int beyond every float
            return False
        return close or (found != found and expected != expected)
    if isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(same(a, b, tolerance) for a, b in zip(found, expected, strict=True))
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(value, expected[key], tolerance) for key, value in found.items())
    return type(found) is type(expected) and bool(found == expected)
