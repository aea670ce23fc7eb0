"""Worked traces: the last problems that were solved, found again by the words that they share with a problem (BM25)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import bm25s
import numpy as np

from rheostat.errors import RheostatError

_TERM = re.compile(r"\w+|[^\w\s]")


def terms(text: str) -> list[str]:
    """Words and numbers in lower case, and every other sign by itself."""
    return _TERM.findall(text.lower())


def bm25_scores(query: Sequence[str], documents: Sequence[Sequence[str]], *, k1: float = 1.5, b: float = 0.75) -> np.ndarray:
    """How well documents answer a query, ``[N]`` float64.

    With N documents of the mean length L, of which df hold the term w, and tf times the term in a document d, summed over the query's terms
    (a repeated one counts each time)

        ln(1 + (N - df + 1/2) / (df + 1/2))  tf (k1 + 1) / (tf + k1 (1 - b + b |d| / L))

    Args:
        query: terms.
        documents: terms of each, at least one in some of them.
        k1: how soon a repeated term stops to count.
        b: how much long documents are held back, 0 to 1.

    Raises:
        RheostatError: no documents.
    """
    return Index(documents, k1=k1, b=b).scores(query)


class Index:
    """Documents that are asked several times; see :func:`bm25_scores`."""

    def __init__(self, documents: Sequence[Sequence[str]], *, k1: float, b: float) -> None:
        if not documents:
            raise RheostatError("There are no documents to search: give at least one.")
        self.count, self.known = len(documents), {term for document in documents for term in document}
        self.bm25 = bm25s.BM25(k1=k1, b=b, method="atire", idf_method="lucene", dtype="float64")
        if self.known:
            self.bm25.index([list(document) for document in documents], show_progress=False)

    def scores(self, query: Sequence[str]) -> np.ndarray:
        """``[N]`` float64."""
        asked = [term for term in query if term in self.known]
        found: np.ndarray = self.bm25.get_scores(asked) if asked else np.zeros(self.count)
        return found


@dataclass(frozen=True)
class Trace:
    """A problem and an answer to it that was right."""

    key: str
    """Of the problem."""
    question: str
    answer: str
    attempts: tuple[str, ...] = ()
    """Wrong answers that the right one was shown."""


class TraceBuffer:
    """The last traces, one of each problem: a newer one takes the place of an older one, and the oldest go where room is needed.

    Args:
        capacity: most traces.
        k1, b: see :func:`bm25_scores`.
    """

    def __init__(self, capacity: int, *, k1: float = 1.5, b: float = 0.75) -> None:
        self.capacity, self.k1, self.b = capacity, k1, b
        self.traces: dict[str, Trace] = {}
        self._index: Index | None = None

    def __len__(self) -> int:
        return len(self.traces)

    def add(self, traces: Iterable[Trace]) -> None:
        """Put traces behind the others, in their order."""
        for trace in traces:
            self.traces.pop(trace.key, None)
            self.traces[trace.key] = trace
        for key in list(self.traces)[: max(0, len(self.traces) - self.capacity)]:
            del self.traces[key]
        self._index = None

    def nearest(self, question: str, count: int, *, without: str) -> list[Trace]:
        """The ``count`` traces that share most with a question, the best first; of equal ones the older first.

        Args:
            question: a text.
            count: at most so many.
            without: key of the problem, whose own trace would give its answer away.
        """
        if not self.traces or not count:
            return []
        if self._index is None:
            self._index = Index([terms(trace.question) for trace in self.traces.values()], k1=self.k1, b=self.b)
        order = np.argsort(-self._index.scores(terms(question)), kind="stable").tolist()
        traces = list(self.traces.values())
        return [traces[place] for place in order if traces[place].key != without][:count]

    def state_dict(self) -> dict[str, Any]:
        """Every trace."""
        return {"traces": [asdict(trace) for trace in self.traces.values()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with saved traces."""
        self.traces = {}
        self.add(Trace(**{**trace, "attempts": tuple(trace["attempts"])}) for trace in state["traces"])
