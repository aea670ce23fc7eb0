"""The completions of one prompt as the tree that they are: where they part, what each part is worth, and what the update did with it.

Any group of completions is a tree of common beginnings, whoever sampled it; a method that grows trees makes the branches. Everything a
model wrote is foreign text: it only enters the page through a template that escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rheostat.terminal import visible

Row = dict[str, Any]

LEAST_SHARED = 0.05
"""Share of a group's tokens that a tree must save to be drawn."""
MOST_LEAVES = 32
WIDTH, ROW, LEFT, RIGHT, TOP = 720.0, 18.0, 10.0, 78.0, 12.0
"""Of the drawing, in pixels."""
TEXT = 1_200
"""Characters of a completion on the page; the beginning of a longer one is left out."""


@dataclass(eq=False)
class Part:
    """A run of tokens that the same completions have in common."""

    start: int
    """Tokens before it."""
    tokens: list[str]
    rows: list[int]
    """Completions that go through it."""
    parts: list[Part] = field(default_factory=list)
    """What follows, in the order of the completions."""
    y: float = 0.0

    @property
    def end(self) -> int:
        """Tokens up to its last one."""
        return self.start + len(self.tokens)

    def all(self) -> list[Part]:
        """This part and all that follow it."""
        return [self, *(below for part in self.parts for below in part.all())]


def tree_of(texts: Sequence[Sequence[str]]) -> Part:
    """The tree of some completions, each a sequence of tokens. The first part is what all of them begin with, maybe nothing."""
    return _part(texts, list(range(len(texts))), 0)


def _part(texts: Sequence[Sequence[str]], rows: list[int], start: int) -> Part:
    end = start
    while all(len(texts[row]) > end for row in rows) and len({texts[row][end] for row in rows}) == 1:
        end += 1
    found = Part(start, list(texts[rows[0]][start:end]), rows)
    if len(rows) > 1:
        branches: dict[str | None, list[int]] = {}
        for row in rows:
            branches.setdefault(texts[row][end] if len(texts[row]) > end else None, []).append(row)
        for token, members in branches.items():  # equal completions end together, each in a part without tokens
            found.parts += [_part(texts, members, end)] if token is not None else [Part(end, [], [row]) for row in members]
    return found


def shared_share(tree: Part) -> float:
    """Share of the tokens of all completions that the tree has only once."""
    whole = sum(len(part.tokens) * len(part.rows) for part in tree.all())
    return 1 - sum(len(part.tokens) for part in tree.all()) / whole if whole else 0.0


def most_telling(groups: Sequence[Sequence[Row]]) -> Sequence[Row] | None:
    """The group whose tree says most: rewards differ, then most different completions, then most in common.

    None where no tree would save :data:`LEAST_SHARED` of its tokens.
    """
    told = []
    for group in groups:
        texts = [tuple(row["tokens"]) for row in group]
        if 2 <= len(group) <= MOST_LEAVES and any(texts) and (share := shared_share(tree_of(texts))) >= LEAST_SHARED:
            told.append((len({row["reward"] for row in group}) > 1, len(set(texts)), share, group))
    return max(told, key=lambda each: each[:3])[3] if told else None


def drawing(group: Sequence[Row], full: float) -> dict[str, Any]:
    """What the template draws: one line per part, one dot where completions part or end.

    Args:
        group: completions of one prompt.
        full: advantage at which the colour is full.
    """
    order = sorted(range(len(group)), key=lambda index: [visible(token) for token in group[index]["tokens"]])
    rows = [group[index] for index in order]
    tree = tree_of([row["tokens"] for row in rows])
    parts = tree.all()
    for part in reversed(parts):  # leaves first
        part.y = sum(below.y for below in part.parts) / len(part.parts) if part.parts else TOP + ROW * part.rows[0]
    longest = max(part.end for part in parts) or 1

    def x(tokens: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * tokens / longest, 1)

    lines = []
    for part in parts:
        below = [rows[row] for row in part.rows]
        value = sum(row["reward"] for row in below) / len(below)
        advantage = _mean([number for row in below for number in (row.get("advantage") or [])[part.start : part.end] if number is not None])
        before = "".join(rows[part.rows[0]]["tokens"][: part.end])
        lines.append(
            {
                "x0": x(part.start),
                "x1": x(part.end),
                "y": round(part.y, 1),
                "lowest": round(max((below.y for below in part.parts), default=part.y), 1),
                "highest": round(min((below.y for below in part.parts), default=part.y), 1),
                "leaf": not part.parts,
                "count": len(below),
                "value": value,
                "advantage": advantage,
                "warmth": 0.0 if advantage is None else max(-1.0, min(1.0, advantage / full)),
                "text": visible(before)[-TEXT:],
                "cut": len(visible(before)) > TEXT,
            }
        )
    best, worst = max(row["reward"] for row in rows), min(row["reward"] for row in rows)
    for line in lines:
        line["worth"] = (line["value"] - worst) / (best - worst) if best > worst else 0.5
    height = TOP + ROW * len(rows)
    return {"lines": lines, "width": WIDTH, "height": height, "shared": shared_share(tree), "longest": longest, "leaves": len(rows)}


def _mean(numbers: list[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
