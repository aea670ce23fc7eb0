"""Rows of common file formats: JSON lines, a JSON array, csv, parquet, a folder of ``datasets``; each with its place."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from rheostat.errors import MissingExtra, RheostatError, shown_error

KINDS = ".jsonl, .json, .csv, .tsv or .parquet file, or a folder written by save_to_disk"


def read_rows(source: str | Path | Any, what: str = "prompts") -> Iterable[Mapping[str, Any]]:
    """The rows of a source.

    Args:
        source: ``*.jsonl``/``*.ndjson``/``*.json`` (lines, or one array), ``*.csv``/``*.tsv`` (with a header; empty cells are gaps),
            ``*.parquet``, a folder written by ``Dataset.save_to_disk``, or any iterable of rows (a list, a ``datasets.Dataset``).
        what: the kind of rows, for messages.

    Raises:
        RheostatError: no such file, an unknown kind, or a malformed one (which line, and what is wrong with it). A file is read row by
            row, so these are raised during the iteration.
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
        return _readable(path, _read_json(path))
    if kind in (".csv", ".tsv"):
        return _readable(path, _read_table(path, "\t" if kind == ".tsv" else ","))
    if kind == ".parquet":
        return _readable(path, _read_parquet(path))
    raise RheostatError(f"{what.capitalize()} cannot be read from {source}: give a {KINDS}.")


def _readable(path: Path, rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows; errors of the file system or of the encoding become one sentence."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise RheostatError(f"{path} is not text in UTF-8 ({error.reason}): convert it.") from error
        except OSError as error:
            raise RheostatError(f"{path} cannot be read ({error.strerror or error}): check the file and its rights.") from error
        yield row


LONGEST_LINE = 2**26
"""Characters that a row of JSON lines may have."""


class _Line(dict[str, Any]):
    """A row with the line it was read from."""

    where = ""


def named_rows(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row with its place, for messages."""
    for number, row in enumerate(rows, 1):
        yield row.where if isinstance(row, _Line) else f"Row {number} of {name}", row


def placed(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A row that knows its place."""
    line = _Line(row)
    line.where = where
    return line


def _read_json(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as lines:  # some editors put a byte-order mark first
        first = ""
        while not first.strip() and (first := lines.readline(LONGEST_LINE + 1)):
            pass
        lines.seek(0)
        if first.lstrip().startswith("["):
            yield from _read_array(path, lines.read())
            return
        for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE + 1), ""), 1):
            if not line.strip():
                continue
            where = f"Line {number} of {path}"
            if len(line) > LONGEST_LINE:
                raise RheostatError(f"{where} has more than {LONGEST_LINE:,} characters: a row of prompts is shorter.")
            row = _loads(line.removeprefix("\ufeff").rstrip(), where, "write one object per line, or one array of objects")
            if not isinstance(row, dict):
                raise RheostatError(f"{where} is a JSON {type(row).__name__}: write one object per line.")
            yield placed(row, where)


def _read_array(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    rows = _loads(text.removeprefix("\ufeff"), str(path), "the file begins as one array of objects, so it has to be one to its end")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RheostatError(f"Entry {number} of {path} is a JSON {type(row).__name__}: write an array of objects.")
        yield placed(row, f"Entry {number} of {path}")


def _loads(text: str, where: str, remedy: str) -> Any:
    """The value of a text in JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = "" if where.startswith("Line ") else f"line {error.lineno}, "
        raise RheostatError(f"{where} is not JSON ({error.msg.removesuffix(' at')} at {line}column {error.colno}): {remedy}.") from error
    except RecursionError as error:
        raise RheostatError(f"{where} is nested too deep to be read: write flat columns.") from error
    except ValueError as error:  # a number with more digits than Python reads
        raise RheostatError(f"{where} holds what cannot be read ({error}): write it as text.") from error


def _read_table(path: Path, delimiter: str) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(2**31 - 1)  # a cell may be a whole text; the default is 131,072 characters
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
                yield placed({name: cell or None for name, cell in row.items()}, where)
    except csv.Error as error:
        raise RheostatError(f"{path} is not a table ({error}): write it again.") from error


def _read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "data", "Reading parquet files") from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError) as error:  # a cut file, names twice, a date that Python does not have
        raise RheostatError(f"{path} cannot be read as a parquet file ({shown_error(error)}): write it again.") from error


def _read_folder(path: Path) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets", "data", "Reading a folder of a saved data set") from error
    try:
        found = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise RheostatError(f"{path} is no folder written by Dataset.save_to_disk: give a {KINDS}.") from error
    except Exception as error:  # datasets or pyarrow may raise anything on a damaged file
        raise RheostatError(f"{path} cannot be read as a saved data set ({shown_error(error)}): save it again.") from error
    if isinstance(found, Mapping):
        raise RheostatError(
            f"{path} holds several splits ({', '.join(map(str, found))}): give the folder of one, {path}/{next(iter(found))}."
        )
    return read_rows(found)
