"""Keys and values of rows that are continued later, so that their beginning is not computed again.

A tree of completions grows in segments: every segment continues a row that an engine has just decoded. Inside of ``engine.remembering()``
the embedded engine keeps what it has computed of rows that were cut by their limit, and finds it again by the tokens of the prompt, so a
caller only passes token ids, as always. What is kept belongs to one version of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

MOST_TOKENS = 2**18
"""Tokens whose keys and values are kept at once; rows beyond are computed again."""


@dataclass(frozen=True, eq=False)
class Beginning:
    """What a row has computed: the rest of an earlier beginning."""

    parent: Beginning | None
    layers: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values ``[key heads, n, D]`` of every layer, for the tokens after the parent's."""
    length: int = field(init=False)
    """Tokens, with the parent's."""

    def __post_init__(self) -> None:
        own = self.layers[0][0].shape[1]
        object.__setattr__(self, "length", own + (self.parent.length if self.parent else 0))

    @property
    def line(self) -> list[Beginning]:
        """From the first part to this one."""
        found: list[Beginning] = []
        part: Beginning | None = self
        while part is not None:
            found.append(part)
            part = part.parent
        return found[::-1]


class Memory:
    """Beginnings by their tokens.

    Args:
        most: tokens that are kept; 0 keeps nothing.
    """

    def __init__(self, most: int = MOST_TOKENS) -> None:
        self.most, self.tokens = most, 0
        self._found: dict[tuple[int, ...], Beginning] = {}

    def of(self, prompt: Sequence[int]) -> Beginning | None:
        """All of a prompt but its last token, which has to be computed for the token after it; None where it is not kept."""
        return self._found.get(tuple(prompt[:-1]))

    def computed(self, prompt: Sequence[int]) -> int:
        """Tokens of a prompt that are computed to continue it."""
        return len(prompt) if self.of(prompt) is None else 1

    def keep(self, ids: Sequence[int], beginning: Beginning) -> None:
        """Keep the beginning whose tokens these are, if there is room."""
        new = beginning.length - (beginning.parent.length if beginning.parent else 0)
        if self.tokens + new <= self.most and tuple(ids) not in self._found:
            self._found[tuple(ids)] = beginning
            self.tokens += new

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self._found.clear()
        self.tokens = 0


@contextmanager
def remembering(engine: Any) -> Iterator[Memory]:
    """What the engine keeps inside of the context: nothing, where an engine cannot."""
    if not hasattr(engine, "remembering"):
        yield Memory(0)
        return
    with engine.remembering() as memory:
        yield memory
