"""How many of a batch are sampled now and how many come from a window of recent ones."""

from __future__ import annotations

from rheostat.errors import RheostatError


def mixed_counts(size: int, stale_share: float, *, window: int | None = None) -> tuple[int, int]:
    """Fresh and stale units (groups, or rows) of a batch of ``size``: ``round(stale_share * size)`` are stale, the rest fresh.

    Exact halves round to the even number. The published mixtures state only the share.

    Args:
        size: units of a batch.
        stale_share: share of it that is not sampled now, at least 0 and below 1.
        window: batches that are remembered, to check that their fresh units can ever supply the stale ones.

    Raises:
        RheostatError: a share outside its range, nothing left to be fresh, or a window that never holds enough.
    """
    if not 0 <= stale_share < 1:
        raise RheostatError(f"A stale share of {stale_share} leaves nothing fresh: it must be at least 0 and below 1.")
    stale = round(stale_share * size)
    fresh = size - stale
    if fresh < 1:
        raise RheostatError(f"A stale share of {stale_share:g} of a batch of {size} leaves nothing fresh: lower it, or enlarge the batch.")
    if window is not None:
        if window < 1 and stale:
            raise RheostatError(f"A window of {window} batches holds nothing stale: remember at least 1, or set the stale share to 0.")
        if window * fresh < stale:
            raise RheostatError(
                f"A stale share of {stale_share:g} asks for {stale} of a batch of {size}, but a window of {window} batches with {fresh} "
                f"fresh ones each holds only {window * fresh}: lower the share or widen the window."
            )
    return fresh, stale
