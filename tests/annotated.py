"""Methods that learn from annotated answers unless they are told otherwise, and small files of such answers for them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from rheostat.methods import table
from rheostat.tasks.language.preference_rows import PreferencePrompts

Row = dict[str, Any]


@cache
def lesson_of(method: str) -> str | None:
    """What a method learns from by default: pairs, labels or scores of annotators; None: from its own samples, or from an expert."""
    if table.entry(method).domain != "language":
        return None
    parts = table.entry(method).load()().compose().parts().values()
    return next((part.lesson for part in parts if getattr(part, "annotated", False)), None)


ANNOTATED = tuple(name for name in table.METHODS if lesson_of(name) is not None)
"""Methods that do not sample by default."""
GROUPS = Path(__file__).parent / "groups.jsonl"
"""Groups of three-address code in the vocabulary of the tiny models."""


def sums(count: int = 100) -> list[Row]:
    """Sums, right and wrong by one; the wrong answer is longer, and some are longer still."""
    rows = [
        {"prompt": f"{a}+{b}=", "chosen": str((a + b) % 10) * (1 + b % 2), "rejected": f"{(a + b + 1) % 10}{a}" * (1 + a % 2)}
        for a in range(10)
        for b in range(10)
    ]
    return rows[:count]


def sizes(method: str, count: int = 4) -> Row:
    """The options that say how many answers or pairs are in a batch."""
    return {"pairs_per_batch" if lesson_of(method) in ("pairs", "zoo") else "answers_per_batch": count}


def zoo(row: Row, reference: str = "#") -> Row:
    """A pair as the answers of two policies: the one that wrote the chosen answer has written a reference, too."""
    rest = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
    return rest | {"completions": [reference, row["chosen"], row["rejected"]], "policies": ["one", "one", "other"]}


def annotated(method: str, rows: list[Row] | None = None, **options: Any) -> PreferencePrompts:
    """The same as the task of a method."""
    rows, lesson = sums() if rows is None else rows, lesson_of(method) or "pairs"
    rows = [zoo(row) if "chosen" in row else row for row in rows] if lesson == "zoo" else rows
    return PreferencePrompts(rows, lesson, **options)  # type: ignore[arg-type]
