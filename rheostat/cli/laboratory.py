"""``rheostat lab``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.terminal import print_json, print_table


@dataclass
class Laboratory:
    """Draw a theorem's picture from exact numbers of small decision processes; without a name, list the theorems.

    Realizability (arXiv 2211.05311), agnostic reinforcement learning (arXiv 2506.01884) and the objectives of preference learning (arXiv
    2404.14367), each picture in under a minute.
    """

    name: Positional[str] = ""
    """The theorem: amplification, exploration, completeness or mode-seeking."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of what is drawn beside the exact numbers."""
    output: Path | None = None
    """Folder for the numbers (NAME.json) and the picture (NAME.png and NAME.svg)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.diagnostics.pictures import picture
        from rheostat.reporting.theorem_figures import print_theorem, save_theorem

        if not self.name:
            self.show_list()
            return
        found = picture(self.name, seed=self.seed)
        written = save_theorem(found, self.output) if self.output else []
        if self.json:
            print_json(found.to_json())
            return
        print_theorem(found)
        for path in written:
            print(path)

    def show_list(self) -> None:
        """The names, and what each picture shows.

        Raises:
            RheostatError: a folder for a picture that has no name.
        """
        from rheostat.diagnostics.pictures import PICTURES

        if self != Laboratory(json=self.json):
            raise RheostatError(f"Say which theorem to draw: {', '.join(PICTURES)}.")
        rows: list[dict[str, Any]] = [
            {"theorem": name, "shows": " ".join((make.__doc__ or "").partition("\n\n")[0].split())} for name, make in PICTURES.items()
        ]
        if self.json:
            print_json(rows)
            return
        print_table("Theorems", ["theorem", "shows"], [list(row.values()) for row in rows])
