"""Which answers to learn from: edit distances between several answers to one question, and the choice of a few that lie far apart.

Paper: DED, arXiv 2508.09883, third stage. It says "the farthest" and leaves open what a set of far answers is, so both readings stand here:
``greedy_max_min`` spreads the answers one by one, ``exact_max_sum`` takes the set whose distances add up to most.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from rheostat.errors import RheostatError

Form = Literal["any", "think"]
Choice = Literal["max-min", "max-sum", "random", "all"]
Distances = NDArray[np.float64]

MOST_EXACT = 12
"""Answers to one question among which the best set is searched exactly; there are 924 sets of 6 of 12."""

OPENED, CLOSED = "<think>", "</think>"


def edit_distances(answers: Sequence[Sequence[Hashable]], *, normalise: bool = False) -> Distances:
    """Levenshtein distances ``[n, n]`` between sequences: the fewest symbols to insert, delete or substitute.

    Args:
        answers: texts, or lists of token ids.
        normalise: divide by the length of the longer one; two empty ones stay 0 apart.
    """
    if not answers:
        return np.zeros((0, 0))
    found = process.cdist(answers, answers, scorer=Levenshtein.distance, dtype=np.int64).astype(np.float64)
    if normalise:
        lengths = np.array([len(each) for each in answers], dtype=np.float64)
        found /= np.maximum(np.maximum(lengths[:, None], lengths[None, :]), 1.0)
    return found


def greedy_max_min(distances: Distances, count: int) -> list[int]:
    """Up to ``count`` different indices in the order of their selection.

    It begins with the pair of the largest distance, and adds what is farthest from the nearest of those that are taken. The lowest index
    wins ties. A single answer is the one with the largest sum of distances. All are taken, in order, where there are no more.

    Args:
        distances: ``[n, n]``, symmetric, at least 0.
        count: at least 1.
    """
    n = len(distances)
    if count >= n:
        return list(range(n))
    if count == 1:
        return [int(distances.sum(1).argmax())]
    rows, columns = np.triu_indices(n, 1)  # the diagonal is no pair, also where every distance is 0
    first = int(distances[rows, columns].argmax())
    chosen = [int(rows[first]), int(columns[first])]
    while len(chosen) < count:
        nearest = distances[:, chosen].min(1)
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return chosen


def exact_max_sum(distances: Distances, count: int) -> list[int]:
    """The set of up to ``count`` indices whose distances add up to most, in order; of equal sets the first in lexicographic order.

    Args:
        distances: ``[n, n]``, symmetric, at least 0.
        count: at least 1.

    Raises:
        RheostatError: more than :data:`MOST_EXACT` answers, of which there are too many sets.
    """
    n = len(distances)
    if n > MOST_EXACT:
        raise RheostatError(f"The exact choice compares all sets of at most {MOST_EXACT} answers, and a question has {n}: take max-min.")
    sets = list(itertools.combinations(range(n), min(count, n)))
    sums = [sum(distances[i, j] for i, j in itertools.combinations(each, 2)) for each in sets]
    return list(sets[int(np.argmax(sums))])


def far_apart(
    answers: Sequence[Sequence[Hashable]], count: int, choice: Choice, rng: np.random.Generator, *, normalise: bool = False
) -> list[int]:
    """Indices of up to ``count`` answers to one question, in order.

    Args:
        answers: texts, or lists of token ids.
        count: at least 1.
        choice: a rule of this module, ``random`` (the control: as many, without regard to distance) or ``all``.
        rng: for the random choice.
        normalise: see :func:`edit_distances`.
    """
    if choice == "all" or len(answers) <= count:
        return list(range(len(answers)))
    if choice == "random":
        return sorted(rng.choice(len(answers), count, replace=False).tolist())
    rule = greedy_max_min if choice == "max-min" else exact_max_sum
    return sorted(rule(edit_distances(answers, normalise=normalise), count))


def well_formed(text: str, form: Form) -> bool:
    """Whether an answer has the form that is asked for: ``think`` is one block ``<think>...</think>`` with an answer behind it."""
    if form == "any":
        return True
    once = text.count(OPENED) == text.count(CLOSED) == 1
    return once and text.lstrip().startswith(OPENED) and bool(text.partition(CLOSED)[2].strip())
