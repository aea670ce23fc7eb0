"""Every case of every vector file in ``data/``, and the runner itself on files made to pass, fail, skip and refuse."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from tests.vectors.__main__ import main
from tests.vectors.runner import DATA, find_adapter, load, run_case, run_file
from tests.vectors.tools import Unsupported

FILES = sorted(path.stem for path in DATA.glob("*.json"))
CASES = [pytest.param(stem, case, id=f"{stem}:{case['name']}") for stem in FILES for case in load(stem)["cases"]]


@pytest.mark.parametrize(("stem", "case"), CASES)
def test_golden_vector(stem: str, case: dict[str, Any]) -> None:
    adapter = find_adapter(load(stem))
    if adapter is None:
        pytest.skip("no adapter")
    result = run_case(adapter, case)
    if result.outcome == "skipped":
        pytest.skip(result.reason)
    assert result.outcome == "passed", result.reason


def outcome(outputs: dict[str, Any], returned: Any, **case: Any) -> str:
    def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    return run_case(SimpleNamespace(run=run), {"name": "case", "outputs": outputs, **case}).outcome


@pytest.mark.parametrize(
    ("expected", "returned", "verdict"),
    [
        (1.0, 1.0 + 9e-7, "passed"),
        (1.0, 1.0 + 2e-6, "failed"),
        (0.0, 1e-10, "passed"),
        (0.0, 1e-8, "failed"),
        (True, True, "passed"),
        (True, False, "failed"),
        (1.0, True, "passed"),
        ("hit", "hit", "passed"),
        ("hit", "miss", "failed"),
        ("inf", math.inf, "passed"),
        ("-inf", math.inf, "failed"),
        (math.nan, math.nan, "passed"),
        (math.nan, 0.0, "failed"),
        (None, None, "passed"),
        (None, math.nan, "passed"),
        (None, 0.0, "failed"),
        ([1.0, [2.0]], [1.0, [2.0]], "passed"),
        ([1.0, 2.0], [1.0], "failed"),
        ([[1.0]], [1.0], "failed"),
        ({"a": [1.0]}, {"a": torch.ones(1)}, "passed"),
        ({"a": 1.0}, {"a": 1.0, "b": 1.0}, "failed"),
    ],
)
def test_comparison(expected: Any, returned: Any, verdict: str) -> None:
    assert outcome({"x": expected}, {"x": returned}) == verdict


def test_case_tolerance_replaces_the_default() -> None:
    assert outcome({"x": 1.0}, {"x": 1.001}, tolerance=0.01) == "passed"
    assert outcome({"x": 1.0}, {"x": 1.001}, tolerance={"relative": 0.0, "absolute": 0.01}) == "passed"
    assert outcome({"x": 1.0}, {"x": 1.001}, tolerance=1e-4) == "failed"


def test_missing_output_fails_and_extra_output_does_not() -> None:
    assert outcome({"x": 1.0, "y": 2.0}, {"x": 1.0}) == "failed"
    assert outcome({"x": 1.0}, {"x": 1.0, "y": 2.0}) == "passed"


def test_recorded_errors() -> None:
    assert outcome({"error": "KeyError"}, KeyError("x")) == "passed"
    assert outcome({"error": "NotImplementedError"}, RheostatError("refused")) == "passed"
    assert outcome({"error": "KeyError"}, ZeroDivisionError()) == "failed"
    assert outcome({"x": 1.0}, RheostatError("refused")) == "failed"
    assert outcome({"error": "KeyError"}, {"x": 1.0}) == "failed"


def test_unsupported_is_skipped_and_other_exceptions_fail() -> None:
    assert outcome({"x": 1.0}, Unsupported("later")) == "skipped"
    assert outcome({"x": 1.0}, TypeError("bug")) == "failed"
    assert outcome({"x": 1.0}, 1.0) == "failed"


def write(path: Path, **changes: Any) -> str:
    case = next(case for case in load("props")["cases"] if case["name"] == "sampling_error_tabular_exact")
    path.write_text(json.dumps({"system": "props", "cases": [case | changes]}))
    return str(path)


def test_command_line_ends_with_the_totals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "never-seen-before.json")
    assert main([good]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed"
    unknown = write(tmp_path / "unknown.json", name="a case nobody knows", inputs={})
    bad = write(tmp_path / "bad.json", outputs={"sampling_error": 0.5})
    assert main([good, bad, unknown]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "1 passed, 1 failed, 1 skipped"
    assert "sampling_error: expected 0.5, got 0.7168" in out and "a case nobody knows" in out


def test_file_without_an_adapter_is_skipped_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nowhere.json"
    path.write_text(json.dumps({"system": "no-such-system", "cases": [{"name": "one", "outputs": {}}]}))
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "tests/vectors/no_such_system.py" in out and out.splitlines()[-1] == "0 passed, 0 failed, 1 skipped"


def test_broken_adapter_fails_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(content: dict[str, Any]) -> None:
        raise ImportError("no module")

    monkeypatch.setattr("tests.vectors.runner.find_adapter", explode)
    results = list(run_file(write(tmp_path / "props.json")))
    assert [result.outcome for result in results] == ["failed"] and "no module" in results[0].reason


def test_unreadable_files_are_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "nameless.json").write_text('{"cases": [{"outputs": {}}]}')
    for file in (
        "missing.json",
        str(tmp_path / "props.json"),
        *(str(tmp_path / f"{stem}.json") for stem in ("broken", "list", "nameless")),
    ):
        assert main([file]) == 2
    assert main([]) == 2
    out = capsys.readouterr().out
    assert "props" in out and "not JSON" in out and "list of cases" in out and "usage" in out
