"""Every picture of the laboratory by its name: theorems, and mode-seeking against mode-covering."""

from __future__ import annotations

from collections.abc import Callable

from rheostat.diagnostics.mode_seeking import mode_seeking
from rheostat.diagnostics.theorems import THEOREMS, Picture
from rheostat.errors import unknown

PICTURES: dict[str, Callable[..., Picture]] = THEOREMS | {"mode-seeking": mode_seeking}
"""By name."""


def picture(name: str, *, seed: int = 0) -> Picture:
    """The numbers of a picture.

    Args:
        name: of :data:`PICTURES`.
        seed: of what is drawn.

    Raises:
        RheostatError: an unknown name.
    """
    if name not in PICTURES:
        raise unknown("theorem", name, PICTURES)
    return PICTURES[name](seed=seed)
