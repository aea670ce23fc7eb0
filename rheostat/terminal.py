"""Tables and JSON on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, numbers: Sequence[str] = ()) -> None:
    """An aligned table; the columns named in ``numbers`` stand to the right."""
    from rich.console import Console
    from rich.table import Table

    result = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        result.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        result.add_row(*(str(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file has no width of its own
    console.print(result)


def json_or_text(value: str) -> Any:
    """What was typed as the value of an option: JSON where it is JSON, else the text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def print_json(value: Any) -> None:
    """Readable JSON."""
    print(json.dumps(value, indent=2))
