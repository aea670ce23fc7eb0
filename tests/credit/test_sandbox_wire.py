"""What comes out of a grading process is taken apart without trust."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.credit.verifiers.sandbox import wire
from rheostat.credit.verifiers.verifier_interface import Grade

harmless = st.characters(codec="utf-8", exclude_categories=("Cc",), include_characters="\t\n")
names = st.text(alphabet=harmless, max_size=20)
grades = st.builds(
    Grade,
    reward=st.none() | st.floats(allow_nan=False),
    parts=st.dictionaries(names, st.floats(allow_nan=False), max_size=5),
    notes=st.dictionaries(names, names, max_size=5),
    failed=st.booleans(),
    message=st.text(alphabet=harmless, max_size=50),
)


@given(grades)
def test_grades_survive_the_way(grade):
    assert wire.decode_grade(wire.encode_grade(grade)) == grade


def test_nothing_that_steers_a_terminal_comes_out():
    found = wire.decode_grade(wire.encode_grade(Grade(1.0, {"\x1b[2J": 1.0}, {"a": "\x1b]0;x\x07\x9b\ny"}, message="\r\x08")))
    assert found == Grade(1.0, {" [2J": 1.0}, {"a": " ]0;x  \ny"}, message="  ") and wire.text_of(b"\x1b\x00") == "  "


def test_long_texts_are_cut_and_what_is_too_much_left_out():
    grade = Grade(1.0, {f"p{n}": 1.0 for n in range(99)}, {"note": "x" * 99_999, "\ud800": "\ud800"}, message="é" * 9_999)
    found = wire.decode_grade(wire.encode_grade(grade))
    assert len(found.parts) == wire.PARTS and len(found.notes["note"]) == wire.TEXT and len(found.message.encode()) <= wire.TEXT + 2
    assert len(wire.encode_grade(grade)) < wire.LONGEST


@given(st.binary(max_size=80))
def test_any_bytes_are_a_grade_or_garbled(content):
    try:
        grade = wire.decode_grade(content)
    except wire.Garbled:
        return
    assert len(grade.parts) <= wire.PARTS


@given(st.dictionaries(names, st.floats(allow_nan=False), max_size=5))
def test_numbers_survive_the_way(numbers):
    assert wire.decode_numbers(wire.encode_numbers(numbers)) == numbers


@given(st.lists(st.tuples(st.sampled_from(sorted(wire.FROM_CHILD)), st.binary(max_size=30)), max_size=6), st.integers(1, 9))
def test_frames_are_the_same_however_the_bytes_come(sent, step):
    frames = wire.Frames(10)
    content = b"".join(wire.frame(kind, number, piece) for number, (kind, piece) in enumerate(sent))
    found = [one for start in range(0, len(content), step) for one in frames.feed(content[start : start + step])]
    assert found == [(kind, number, piece) for number, (kind, piece) in enumerate(sent)] and not frames.partial


@pytest.mark.parametrize(
    "content",
    [
        struct.pack(">BII", 99, 0, 0),
        struct.pack(">BII", wire.READY, 0, 0),
        struct.pack(">BII", wire.RECORD, 0, wire.LONGEST + 1),
        wire.frame(wire.RECORD, 2),
        wire.frame(wire.RECORD, 1) * 2,
    ],
)
def test_frames_that_do_not_belong_are_garbled(content):
    with pytest.raises(wire.Garbled):
        wire.Frames(2, wire.FROM_CHILD).feed(content)


@given(st.binary(max_size=60))
def test_any_bytes_are_frames_or_garbled(content):
    frames = wire.Frames(3, wire.FROM_CHILD)
    try:
        found = frames.feed(content)
    except wire.Garbled:
        return
    assert all(kind in wire.FROM_CHILD and len(piece) < len(content) for kind, _, piece in found)
