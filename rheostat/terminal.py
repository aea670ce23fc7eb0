"""Tables, JSON, times and foreign text on the terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from rheostat.json_text import NotJSON, dumps, loads

if TYPE_CHECKING:
    from rich.console import Console

PIPED = 160
"""Columns of what is written into a file, which has no width of its own."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Text without characters that steer a terminal or turn its direction: they become their code, as in ``<0x1b>``."""
    return _CONTROL.sub(lambda found: f"<0x{ord(found[0]):02x}>", text)


def clock(seconds: float) -> str:
    """``h:mm:ss``."""
    whole = int(seconds + 0.5)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def console(**options: Any) -> Console:
    """A console as wide as what shows it: the terminal, ``$COLUMNS``, or the terminal that a pipe was begun in.

    Args:
        **options: of :class:`rich.console.Console`.
    """
    from rich.console import Console

    found = Console(**options)
    if found.is_terminal or "COLUMNS" in os.environ:
        return found
    return Console(width=_behind_the_pipe() or PIPED, **options)


def _behind_the_pipe() -> int | None:
    """Columns of the terminal that one of the other streams of this process goes to; None where there is none."""
    for stream in (2, 0):
        try:
            return os.get_terminal_size(stream).columns or None
        except OSError:
            continue
    return None


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    numbers: Collection[str] = (),
    optional: Sequence[str] = (),
    lines: bool = True,
    on: Console | None = None,
) -> None:
    """An aligned table.

    Args:
        title: above it.
        columns: their names.
        rows: as many cells each; text in them is shown as it is.
        numbers: names of columns that stand to the right.
        optional: names of columns that are left out, the last first, where the table would not fit; a line below names them.
        lines: whether lines stand between the columns; without them a table takes less room.
        on: where it is printed; None takes a console of its own.
    """
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    on = on or console()
    cells = [[visible(str(cell)) for cell in row] for row in rows]

    def drawn(left_out: Sequence[str]) -> Table:
        kept = [index for index, column in enumerate(columns) if column not in left_out]
        style = {} if lines else {"box": box.SIMPLE_HEAD, "show_edge": False}
        result = Table(header_style="bold", **style)  # type: ignore[arg-type]
        for index in kept:
            result.add_column(Text(columns[index]), justify="right" if columns[index] in numbers else "left", overflow="fold")
        for row in cells:
            result.add_row(*(Text(row[index]) for index in kept))
        return result

    present, left_out = [column for column in optional if column in columns], list[str]()
    while present and Measurement.get(on, on.options.update(max_width=10_000), drawn(left_out)).maximum > on.width:
        left_out.append(present.pop())
    on.print(Text(title, style="italic"))  # of its own width: that of a narrow table would break it
    on.print(drawn(left_out))
    if left_out:
        on.print(f"Not shown for want of room: {', '.join(reversed(left_out))}.", markup=False, highlight=False, soft_wrap=True)


def json_or_text(value: str) -> Any:
    """What was typed as the value of an option: JSON where it is JSON, else the text."""
    try:
        return loads(value)
    except NotJSON:
        return value


def print_json(value: Any) -> None:
    """Readable JSON; what is not a number is null."""
    print(dumps(value, indent=2))
