"""Roads of a city: places, and how long and how far it is from each to each.

A grid is a square of cells, driven along columns and rows. A network is what a traffic simulator's file says: junctions, and edges with a
length and a speed; its fastest paths are found once. The clock of a city ticks in minutes, so that times are whole minutes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rheostat.errors import RheostatError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Roads:
    """Z places of a city.

    Attributes:
        x, y: where they are, ``[Z]``, in metres.
        minutes: whole minutes of driving from a place to another, ``[Z, Z]``.
        metres: length of that drive, ``[Z, Z]``.
        towards: the place where a vehicle is after one minute on its way from a place to another, ``[Z, Z]``.
        segments: road segments for a picture, ``[S, 2]``, as pairs of places.
    """

    x: Floats
    y: Floats
    minutes: Ints
    metres: Floats
    towards: Ints
    segments: Ints

    def __len__(self) -> int:
        return len(self.x)

    @property
    def scaled(self) -> tuple[Floats, Floats]:
        """Coordinates from 0 to 1, as policies read them, ``[Z]`` each; 0 where all places share one."""
        return _scaled(self.x), _scaled(self.y)


def _scaled(values: Floats) -> Floats:
    span = float(np.ptp(values))
    return (values - values.min()) / span if span else np.zeros_like(values)


def grid(size: int, metres: float = 500.0) -> Roads:
    """A square of ``size`` x ``size`` cells, a minute apart; vehicles drive along x first, then along y.

    Args:
        size: cells of a side, at least 1.
        metres: between neighbours.
    """
    index = np.arange(size * size)
    x, y = index % size, index // size
    dx, dy = x[None, :] - x[:, None], y[None, :] - y[:, None]
    cells = np.abs(dx) + np.abs(dy)
    step_x = np.sign(dx)
    step_y = np.where(dx == 0, np.sign(dy), 0)
    towards = (y[:, None] + step_y) * size + x[:, None] + step_x
    right = np.stack([index, index + 1], 1)[x < size - 1]
    below = np.stack([index, index + size], 1)[y < size - 1]
    return Roads(
        (x * metres).astype(np.float64),
        (y * metres).astype(np.float64),
        cells.astype(np.int64),
        cells * metres,
        towards.astype(np.int64),
        np.concatenate([right, below]).astype(np.int64),
    )


def network(x: Floats, y: Floats, edges: Ints, metres: Floats, seconds: Floats) -> Roads:
    """Fastest paths on directed edges, among the places of which each can be reached from each.

    Args:
        x, y: of the junctions, ``[J]``, in metres.
        edges: from which to which, ``[E, 2]``.
        metres, seconds: of the edges, ``[E]``, above 0.

    Returns:
        The roads; place k is the k-th junction of :func:`connected`.

    Raises:
        RheostatError: no two junctions can be reached from each other.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    kept = connected(len(x), edges)
    if len(kept) < 2:
        raise RheostatError("No two junctions of this road network can be reached from each other: it has no city to drive in.")
    place = np.full(len(x), -1)
    place[kept] = np.arange(len(kept))
    inside = (place[edges] >= 0).all(1) & (edges[:, 0] != edges[:, 1])
    ends, length, time = place[edges[inside]], metres[inside], seconds[inside]
    order = np.lexsort((length, time, ends[:, 1], ends[:, 0]))  # of parallel edges the fastest
    ends, length, time = ends[order], length[order], time[order]
    first = np.unique(ends, axis=0, return_index=True)[1]
    ends, length, time = ends[first], length[first], time[first]
    count = len(kept)
    graph = csr_array((time, (ends[:, 0], ends[:, 1])), shape=(count, count))
    along, before = dijkstra(graph, return_predecessors=True)
    lengths = np.zeros((count, count))
    lengths[ends[:, 0], ends[:, 1]] = length
    return Roads(
        x[kept],
        y[kept],
        np.maximum(np.ceil(along / 60 - 1e-9), 0).astype(np.int64),
        _path_lengths(before, lengths, along),
        _after_a_minute(before, along),
        ends.astype(np.int64),
    )


def connected(junctions: int, edges: Ints) -> Ints:
    """The largest set of junctions of which each can be reached from each, sorted."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    graph = csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(junctions, junctions))
    _, label = connected_components(graph, directed=True, connection="strong")
    return np.flatnonzero(label == np.bincount(label).argmax())


def _path_lengths(before: Ints, lengths: Floats, along: Floats) -> Floats:
    """Metres of the fastest paths: those to the place before the last, and the last edge; near places come first."""
    found = np.zeros_like(along)
    rows = np.arange(len(along))
    for column in np.argsort(along, axis=1).T[1:]:
        last = before[rows, column]
        found[rows, column] = found[rows, last] + lengths[last, column]
    return found


def _after_a_minute(before: Ints, along: Floats) -> Ints:
    """The last place of each path that is passed in the first minute."""
    count = len(along)
    rows = np.broadcast_to(np.arange(count)[:, None], (count, count))
    found = np.broadcast_to(np.arange(count)[None, :], (count, count)).copy()
    while True:
        late = (along[rows, found] > 60) & (found != rows)
        if not late.any():
            return found.astype(np.int64)
        found[late] = before[rows[late], found[late]]
