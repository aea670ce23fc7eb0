"""Worked traces: what is kept, what is found, and the laws of the scores."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.buffers.traces import Trace, TraceBuffer, bm25_scores, terms
from rheostat.errors import RheostatError

DOCUMENTS = st.lists(st.lists(st.sampled_from("abcde"), max_size=6), min_size=1, max_size=5)
QUERY = st.lists(st.sampled_from("abcdez"), max_size=5)


def plainly(query: list[str], documents: list[list[str]], k1: float, b: float) -> list[float]:
    """The sum of the docstring, in loops."""
    mean = sum(map(len, documents)) / len(documents)
    found = []
    for document in documents:
        counts, total = Counter(document), 0.0
        for term in query:
            df = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            if counts[term]:
                total += idf * counts[term] * (k1 + 1) / (counts[term] + k1 * (1 - b + b * len(document) / mean))
        found.append(total)
    return found


@given(QUERY, DOCUMENTS, st.floats(0.1, 3), st.floats(0, 1))
def test_scores_are_those_of_the_formula(query: list[str], documents: list[list[str]], k1: float, b: float) -> None:
    np.testing.assert_allclose(bm25_scores(query, documents, k1=k1, b=b), plainly(query, documents, k1, b), atol=1e-9)


def test_no_documents_cannot_be_searched() -> None:
    with pytest.raises(RheostatError, match="no documents to search: give at least one"):
        bm25_scores(["a"], [])


def test_words_numbers_and_signs() -> None:
    assert terms("Rosa has 12+3=") == ["rosa", "has", "12", "+", "3", "="]


def trace(number: int, question: str | None = None) -> Trace:
    return Trace(f"key {number}", question or f"problem {number}", f"answer {number}", ("wrong",))


@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=20))
def test_the_oldest_go_and_a_problem_has_one_trace(capacity: int, numbers: list[int]) -> None:
    buffer = TraceBuffer(capacity)
    for number in numbers:
        buffer.add([trace(number)])
    newest = list(dict.fromkeys(reversed(numbers)))[:capacity]
    assert [each.key for each in buffer.traces.values()] == [f"key {number}" for number in reversed(newest)]
    again = TraceBuffer(capacity)
    again.load_state_dict(buffer.state_dict())
    assert again.traces == buffer.traces and list(again.traces) == list(buffer.traces)


@given(st.lists(st.sampled_from(["a b", "a", "c", ""]), max_size=6), st.integers(0, 4), st.integers(0, 5))
def test_a_problem_never_finds_its_own_trace(questions: list[str], count: int, own: int) -> None:
    buffer = TraceBuffer(9)
    buffer.add(trace(number, question) for number, question in enumerate(questions))
    found = buffer.nearest("a", count, without=f"key {own}")
    assert f"key {own}" not in {each.key for each in found}
    assert len(found) == min(count, len(questions) - (own < len(questions)))


def test_equal_traces_are_found_by_age_and_new_ones_at_once() -> None:
    buffer = TraceBuffer(9)
    buffer.add([trace(1, "x y"), trace(2, "x y")])
    assert [each.key for each in buffer.nearest("x", 2, without="")] == ["key 1", "key 2"]
    buffer.add([trace(3, "x x x")])
    assert buffer.nearest("x", 1, without="")[0].key == "key 3"
