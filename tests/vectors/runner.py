"""Run golden vectors: find the adapter of a file, run its cases, compare every output, explain what differs.

Adapters compute in float64 by giving the library float64 tensors; torch's default stays float32, so that a place where the library forgets
the precision of its inputs shows up as a difference.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rheostat.errors import RheostatError
from tests.vectors.tools import Unsupported, plain

DATA = Path(__file__).parent / "data"
RELATIVE = 1e-6
ABSOLUTE = 1e-9
"""Floor of the tolerance: what is exactly 0 there may be rounding error here."""


@dataclass(frozen=True)
class Result:
    """What became of one case."""

    case: str
    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""


def load(file: str | Path) -> dict[str, Any]:
    """A vector file, by path or by its bare name in ``data/`` (with or without ``.json``).

    Raises:
        RheostatError: no such file, or not a file of cases.
    """
    candidates = [Path(file)]
    if Path(file).name == str(file):
        candidates += [DATA / str(file), DATA / f"{file}.json"]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise RheostatError(
            f"There is no vector file {str(file)!r}: give a path, or one of {', '.join(sorted(p.stem for p in DATA.glob('*.json')))}."
        )
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise RheostatError(f"{path} is not JSON: {error}.") from error
    cases = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(cases, list) or not all(isinstance(case, dict) and {"name", "outputs"} <= set(case) for case in cases):
        raise RheostatError(
            f"{path} has no list of cases: a vector file is {{'system', 'cases': [{{'name', 'inputs', 'params', 'outputs'}}]}}."
        )
    return {"stem": path.stem, **content}


def find_adapter(content: dict[str, Any]) -> Any | None:
    """The module ``tests.vectors.<slug with underscores>`` of the file's system, or of its name; None where there is neither."""
    for slug in (content.get("system"), content["stem"]):
        name = f"tests.vectors.{str(slug).replace('-', '_')}"
        if slug and importlib.util.find_spec(name) is not None:
            module = importlib.import_module(name)
            if hasattr(module, "run"):
                return module
    return None


def run_file(file: str | Path) -> Iterator[Result]:
    """Run every case of a file."""
    content = load(file)
    broken, adapter = "", None
    try:
        adapter = find_adapter(content)
    except Exception as error:
        broken = f"the adapter cannot be imported: {type(error).__name__}: {error}"
    for case in content["cases"]:
        if broken:
            yield Result(case["name"], "failed", broken)
        elif adapter is None:
            slug = str(content.get("system", content["stem"])).replace("-", "_")
            yield Result(case["name"], "skipped", f"there is no adapter tests/vectors/{slug}.py")
        else:
            yield run_case(adapter, case)


def run_case(adapter: Any, case: dict[str, Any]) -> Result:
    """Run one case through an adapter and compare what it returns."""
    name, expected = case["name"], case["outputs"]
    try:
        actual = plain(adapter.run(name, case.get("inputs", {}), case.get("params", {})))
    except Unsupported as error:
        return Result(name, "skipped", str(error))
    except Exception as error:
        return _refused(name, expected, error)
    if not isinstance(actual, dict):
        return Result(name, "failed", f"the adapter returned {type(actual).__name__}, not a dict of outputs")
    relative, absolute = _tolerance(case.get("tolerance"))
    problems = [problem for key in expected for problem in _compare_output(key, expected, actual, relative, absolute)]
    return Result(name, "failed", "\n".join(problems)) if problems else Result(name, "passed")


def _refused(name: str, expected: dict[str, Any], error: Exception) -> Result:
    """A case whose recorded output is an error passes when ours is of that name, or is a refusal of the same input."""
    wanted = expected.get("error")
    if wanted is not None and (type(error).__name__ == wanted or isinstance(error, RheostatError)):
        return Result(name, "passed")
    import traceback

    place = traceback.extract_tb(error.__traceback__)[-1]
    return Result(name, "failed", f"raised {type(error).__name__}: {error} ({Path(place.filename).name}, line {place.lineno})")


def _tolerance(given: Any) -> tuple[float, float]:
    if isinstance(given, dict):
        return float(given.get("relative", given.get("rtol", RELATIVE))), float(given.get("absolute", given.get("atol", ABSOLUTE)))
    return (RELATIVE if given is None else float(given)), ABSOLUTE


def _compare_output(key: str, expected: dict[str, Any], actual: dict[str, Any], relative: float, absolute: float) -> Iterator[str]:
    if key not in actual:
        yield f"{key}: missing; the adapter returned {', '.join(actual) or 'nothing'}"
        return
    differences = list(differ(expected[key], actual[key], relative, absolute))
    for where, wanted, got in differences[:3]:
        gap = f", off by {abs(wanted - got):.3g}" if _is_number(wanted) and _is_number(got) else ""
        yield f"{key}{where}: expected {_show(wanted)}, got {_show(got)}{gap}"
    if len(differences) > 3:
        yield f"{key}: and {len(differences) - 3} more entries differ"


def differ(expected: Any, actual: Any, relative: float, absolute: float, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every place where two nested values differ, as (path, expected, actual)."""
    if isinstance(expected, dict):
        if not isinstance(actual, dict) or set(actual) != set(expected):
            yield where, expected, actual
            return
        for key in expected:
            yield from differ(expected[key], actual[key], relative, absolute, f"{where}.{key}")
    elif isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            yield where, expected, actual
            return
        for index, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
            yield from differ(wanted, got, relative, absolute, f"{where}[{index}]")
    elif not _same_leaf(expected, actual, relative, absolute):
        yield where, expected, actual


def _same_leaf(expected: Any, actual: Any, relative: float, absolute: float) -> bool:
    if expected is None:
        return actual is None or (_is_number(actual) and math.isnan(actual))
    if isinstance(expected, str) and _is_number(actual) and expected.lstrip("+-").lower() in ("inf", "infinity", "nan"):
        expected = float(expected)  # JSON has no infinity
    if not _is_number(expected) or not _is_number(actual):
        return type(expected) is type(actual) and bool(expected == actual)
    if math.isnan(expected) or math.isinf(expected):
        return expected == actual or (math.isnan(expected) and math.isnan(actual))
    return abs(actual - expected) <= max(relative * abs(expected), absolute)


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float)  # a bool counts as 0 or 1: official code often returns masks as floats


def _show(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 80 else f"{text[:77]}..."
