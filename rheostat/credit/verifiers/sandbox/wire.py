"""The bytes that leave a grading process: frames of a fixed head and bounded length, records of numbers and short texts.

The reader treats the sender as hostile: nothing is unpickled or parsed as JSON, every length is checked before it is used,
and a frame of another form raises :class:`Garbled`. Jobs are sent pickled, which is safe, because only the trainer writes them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import Any

from rheostat.credit.verifiers.verifier_interface import Grade

HEAD = struct.Struct(">BII")
"""Kind, row, bytes that follow."""
JOB = struct.Struct(">I")
"""Bytes of the job that follows."""

READY, REFUSED, RECORD, METRICS, DONE, DIED, LATE, SPOILT = range(8)
"""Kinds of frames. A child sends only RECORD, METRICS, REFUSED and DONE; the process that forked it, all."""
FROM_CHILD = frozenset({RECORD, METRICS, REFUSED, DONE})

LONGEST = 1 << 20
"""Bytes of one frame."""

PARTS, NAME, TEXT = 64, 200, 4000
"""Most parts and notes of a grade, and most bytes of a name and of a text."""

_GRADE = struct.Struct(">BdBBH")  # flags, reward, number of parts, number of notes, bytes of the message
_PART = struct.Struct(">Bd")
_NOTE = struct.Struct(">BH")
_HAS_REWARD, _FAILED = 1, 2
_CONTROLS = dict.fromkeys([code for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"], " ")


class Garbled(ValueError):
    """The bytes received are no answer."""


class Frames:
    """Takes a stream of frames apart as its bytes come.

    Args:
        rows: rows of the job; a frame about any other is garbled.
        kinds: that may come.
    """

    def __init__(self, rows: int, kinds: frozenset[int] | None = None) -> None:
        self._rows, self._kinds, self._content = rows, kinds, bytearray()
        self._answered: set[int] = set()

    def feed(self, piece: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that are complete now: kind, row, content.

        Raises:
            Garbled: an unknown kind, a row that does not exist or was answered before, or a frame longer than any may be.
        """
        self._content += piece
        found = []
        while len(self._content) >= HEAD.size:
            kind, row, length = HEAD.unpack_from(self._content)
            if kind > SPOILT or length > LONGEST or (self._kinds is not None and kind not in self._kinds):
                raise Garbled(f"a frame of kind {kind} and {length} bytes")
            if len(self._content) < HEAD.size + length:
                break
            if kind == RECORD and (row >= self._rows or row in self._answered):
                raise Garbled(f"an answer for row {row}")
            self._answered.add(row) if kind == RECORD else None
            found.append((kind, row, bytes(self._content[HEAD.size : HEAD.size + length])))
            del self._content[: HEAD.size + length]
        return found

    @property
    def partial(self) -> bool:
        """Whether the stream is within a frame."""
        return bool(self._content)


def frame(kind: int, row: int = 0, content: bytes = b"") -> bytes:
    """One frame."""
    return HEAD.pack(kind, row, len(content)) + content


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def short(text: str, most: int = TEXT) -> bytes:
    """A text as at most so many bytes of UTF-8."""
    return text[:most].encode("utf-8", "replace")[:most]


def text_of(content: bytes) -> str:
    """The text of some bytes, whatever they are, without characters that steer a terminal."""
    return content[:TEXT].decode("utf-8", "replace").translate(_CONTROLS)


def encode_grade(grade: Grade) -> bytes:
    """A grade as bytes; long texts are cut, and parts or notes beyond ``PARTS`` left out."""
    parts, notes = list(grade.parts.items())[:PARTS], list(grade.notes.items())[:PARTS]
    flags = (_HAS_REWARD if grade.reward is not None else 0) | (_FAILED if grade.failed else 0)
    message = short(grade.message)
    content = [_GRADE.pack(flags, grade.reward or 0.0, len(parts), len(notes), len(message)), encode_numbers(dict(parts))]
    for name, text in notes:
        label, body = short(name, NAME), short(text)
        content += [_NOTE.pack(len(label), len(body)), label, body]
    return b"".join([*content, message])


def decode_grade(content: bytes) -> Grade:
    """Decode the bytes of a grade.

    Raises:
        Garbled: bytes that no grade has.
    """
    reader = _Reader(content)
    flags, reward, parts, notes, message = reader.unpack(_GRADE)
    if flags > (_HAS_REWARD | _FAILED) or parts > PARTS or notes > PARTS:
        raise Garbled("a grade with impossible counts")
    grade = Grade(reward if flags & _HAS_REWARD else None, failed=bool(flags & _FAILED))
    for _ in range(parts):
        length, value = reader.unpack(_PART)
        grade.parts[reader.text(length)] = value
    for _ in range(notes):
        label, body = reader.unpack(_NOTE)
        name = reader.text(label)
        grade.notes[name] = reader.text(body)
    grade.message = reader.text(message)
    reader.end()
    return grade


def encode_numbers(numbers: Mapping[str, float]) -> bytes:
    """Named numbers as bytes."""
    labels = [(short(name, NAME), float(value)) for name, value in list(numbers.items())[:PARTS]]
    return b"".join(_PART.pack(len(label), value) + label for label, value in labels)


def decode_numbers(content: bytes) -> dict[str, float]:
    """Decode the bytes of named numbers.

    Raises:
        Garbled: bytes that are no numbers.
    """
    reader = _Reader(content)
    found: dict[str, float] = {}
    while reader.rest:
        length, value = reader.unpack(_PART)
        found[reader.text(length)] = value
    return found


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    @property
    def rest(self) -> int:
        return len(self._content) - self._place

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self._take(form.size))

    def text(self, length: int) -> str:
        return self._take(length).decode("utf-8", "replace").translate(_CONTROLS)

    def _take(self, length: int) -> bytes:
        if length > self.rest:
            raise Garbled("an answer that ends too early")
        self._place += length
        return self._content[self._place - length : self._place]

    def end(self) -> None:
        if self.rest:
            raise Garbled("an answer with bytes after its end")
