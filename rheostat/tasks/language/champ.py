"""CHAMP's competition problems with their hints, concepts and worked solutions, as prompts (extra ``champ``).

Mao, Kim and Zhou 2024, "CHAMP: A Competition-level Dataset for Fine-Grained Analyses of LLMs' Mathematical Reasoning Capabilities"; the
package ``champ-dataset`` carries the problems. Nothing of the package is run.

Many answers are expressions or words (``4^n``, ``No``), so ``exact-boxed`` is strict with them; the reward ``math`` (extra ``math``) knows
equal expressions.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from rheostat.errors import MissingExtra, RheostatError

INSTRUCTION = "Solve the following problem and end with the final answer as \\boxed{{answer}}.\n\n{problem}"
Shown = Literal["none", "hints", "concepts", "both"]
HEADINGS = {"hints": "Hints", "concepts": "Concepts that may help"}


def champ_rows(show: Shown = "none", *, numbers: bool = False) -> list[dict[str, Any]]:
    """Rows of chat prompts with ``answer``, ``completion`` (the worked solution), ``hints`` and ``concepts`` (lists of texts), ``category``
    and ``source``.

    Args:
        show: what stands in the prompt besides; a problem that lacks any of it is left out.
        numbers: only problems whose answer is a whole number.

    Raises:
        MissingExtra: the package is not installed.
        RheostatError: no problem is left.
    """
    rows = rows_of(_packaged(), show, numbers=numbers)
    if not rows:
        raise RheostatError("No problem of CHAMP is left: show less, or take other answers than whole numbers too.")
    return rows


def rows_of(data: dict[str, Any], show: Shown = "none", *, numbers: bool = False) -> list[dict[str, Any]]:
    """The rows of the package's data; see :func:`champ_rows`."""
    rows = []
    for name, problem in data["problems"].items():
        helps = {
            "hints": [data["hints"][each]["_text"] for each in problem["ch_list"] if each in data["hints"]],
            "concepts": [data["concepts"][each]["_text"] for each in problem["ch_list"] if each in data["concepts"]],
        }
        answer, wanted = problem["_answer"], {"none": (), "both": tuple(HEADINGS)}.get(show, (show,))
        if not all(helps[each] for each in wanted) or (numbers and not answer.lstrip("-").isdecimal()):
            continue
        parts = [problem["_text"], *(f"{HEADINGS[each]}:\n" + "\n".join(f"- {text}" for text in helps[each]) for each in wanted)]
        steps = [step["_text"] for step in problem["solution"]["steps"]]
        rows.append(
            {
                "prompt": [{"role": "user", "content": INSTRUCTION.format(problem="\n\n".join(parts))}],
                "answer": answer,
                "completion": "\n".join([*steps, f"\\boxed{{{answer}}}"]),
                **helps,
                "category": problem["category"],
                "source": name,
            }
        )
    return rows


def _packaged() -> dict[str, Any]:
    """The data as the package has it; its code is not imported."""
    found = find_spec("champ_dataset")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("champ-dataset", "champ", "CHAMP")
    data: dict[str, Any] = json.loads((Path(found.submodule_search_locations[0]) / "dataset_files" / "v0.json").read_text(encoding="utf-8"))
    return data
