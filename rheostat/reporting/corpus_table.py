"""Files of expert rows side by side, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rheostat.analysis.corpus import CorpusFacts
from rheostat.terminal import print_table


def print_corpora(found: Sequence[CorpusFacts]) -> None:
    """One row per file; what was not measured is left out."""
    unit = found[0].unit
    columns = ["file", "rows", "questions", "duplicates", f"mean {unit}", "median", "longest", "distance", "entropy", "latent shift"]
    cells = [[Path(each.name).name, *_numbers(each)] for each in found]
    used = [number for number in range(len(columns)) if any(line[number] for line in cells)]
    shown = [columns[number] for number in used]
    optional = [name for name in ("median", "longest", "questions") if name in shown]
    title = f"Expert rows (distance: of two answers to a question, in {unit} of the longer one; entropy: nats per token)"
    print_table(title, shown, [[line[number] for number in used] for line in cells], numbers=set(shown) - {"file"}, optional=optional)


def _numbers(each: CorpusFacts) -> list[str]:
    lengths = [f"{each.mean_length:.1f}", f"{each.median_length:g}", f"{each.longest:,}"]
    measured = ["" if value is None else f"{value:.3f}" for value in (each.distance, each.entropy, each.latent_shift)]
    return [f"{each.rows:,}", f"{each.questions:,}", f"{each.duplicates:.1%}", *lengths, *measured]
