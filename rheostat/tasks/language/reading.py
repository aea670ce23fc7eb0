"""Rows of the files people have: JSON lines, a JSON array, csv, parquet, a folder of ``datasets``; each with the place it stands at."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from rheostat.errors import MissingExtra, RheostatError

KINDS = ".jsonl, .json, .csv, .tsv or .parquet file, or a folder written by save_to_disk"


def read_rows(source: str | Path | Any, what: str = "prompts") -> Iterable[Mapping[str, Any]]:
    """The rows of a source.

    Args:
        source: ``*.jsonl``/``*.ndjson``/``*.json`` (lines, or one array), ``*.csv``/``*.tsv`` (with a header; empty cells are gaps),
            ``*.parquet``, a folder written by ``Dataset.save_to_disk``, or any iterable of rows (a list, a ``datasets.Dataset``).
        what: they are, for messages.

    Raises:
        RheostatError: no such file, an unknown kind, or a malformed one (which line, and what is wrong with it).
    """
    if not isinstance(source, (str, Path)):
        if isinstance(source, Mapping):  # a datasets.DatasetDict, among others
            raise RheostatError(f"The {what} are a mapping with the keys {', '.join(map(str, source))}: pass one of its entries.")
        if not isinstance(source, Iterable):
            raise RheostatError(f"{what.capitalize()} cannot be read from a {type(source).__name__}: give a path or rows.")
        return cast("Iterable[Mapping[str, Any]]", source)
    path = Path(source).expanduser()
    if not path.exists():
        raise RheostatError(f"There is no file of {what} at {source}: check the path.")
    if path.is_dir():
        return _read_folder(path)
    kind = path.suffix.lower()
    if kind in (".jsonl", ".json", ".ndjson"):
        return _read_json(path)
    if kind in (".csv", ".tsv"):
        return _read_table(path, "\t" if kind == ".tsv" else ",")
    if kind == ".parquet":
        return _read_parquet(path)
    raise RheostatError(f"{what.capitalize()} cannot be read from {source}: give a {KINDS}.")


class _Line(dict[str, Any]):
    """A row that knows the line it was read from."""

    where = ""


def named_rows(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row with where it stands, for messages."""
    for number, row in enumerate(rows, 1):
        yield row.where if isinstance(row, _Line) else f"Row {number} of {name}", row


def _line(row: dict[str, Any], where: str) -> _Line:
    line = _Line(row)
    line.where = where
    return line


def _read_json(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as lines:  # some editors put a byte-order mark first
            first = ""
            while not first.strip() and (first := lines.readline()):
                pass
            if first.lstrip().startswith("["):
                lines.seek(0)
                yield from _read_array(path, lines.read())
                return
            lines.seek(0)
            for number, line in enumerate(lines, 1):
                line = line.removeprefix("\ufeff")
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.rstrip())
                except json.JSONDecodeError as error:
                    what = error.msg.removesuffix(" at")
                    raise RheostatError(
                        f"Line {number} of {path} is not JSON ({what} at column {error.colno}): write one object per line, or one array "
                        "of objects."
                    ) from error
                if not isinstance(row, dict):
                    raise RheostatError(f"Line {number} of {path} is a JSON {type(row).__name__}: write one object per line.")
                yield _line(row, f"Line {number} of {path}")
    except UnicodeDecodeError as error:
        raise RheostatError(f"{path} is not text in UTF-8 ({error.reason}): convert it.") from error


def _read_array(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    try:
        rows = json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise RheostatError(
            f"Line {error.lineno} of {path} is not JSON ({error.msg} at column {error.colno}): the file begins as one array of objects, so "
            "it has to be one to its end."
        ) from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RheostatError(f"Entry {number} of {path} is a JSON {type(row).__name__}: write an array of objects.")
        yield _line(row, f"Entry {number} of {path}")


def _read_table(path: Path, delimiter: str) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, delimiter=delimiter, strict=True)
            names = lines.fieldnames or []
            if len(set(names)) < len(names):
                raise RheostatError(f"The header of {path} names a column twice ({', '.join(names)}): rename one.")
            for row in lines:
                where = f"Line {lines.line_num} of {path}"
                if None in row:
                    raise RheostatError(f"{where} has more cells than the header has names ({len(names)}): quote cells that hold commas.")
                yield _line({name: cell or None for name, cell in row.items()}, where)
    except csv.Error as error:
        raise RheostatError(f"{path} is not a table ({error}): write it again.") from error
    except UnicodeDecodeError as error:
        raise RheostatError(f"{path} is not text in UTF-8 ({error.reason}): convert it.") from error


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "data", "Reading parquet files") from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise RheostatError(f"{path} is not a parquet file ({error}): write it again.") from error


def _read_folder(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "data", "Reading a folder of a saved data set") from error
    try:
        found = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise RheostatError(f"{path} is no folder written by Dataset.save_to_disk: give a {KINDS}.") from error
    if isinstance(found, Mapping):
        raise RheostatError(
            f"{path} holds several splits ({', '.join(map(str, found))}): give the folder of one, {path}/{next(iter(found))}."
        )
    return read_rows(found)
