"""``rheostat doctor`` and ``completion``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from rheostat.terminal import print_json, print_table


@dataclass
class Doctor:
    """Check the installation: versions, devices, and which extras are missing."""

    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.training.doctor import examine

        rows = examine()
        if self.json:
            print_json(rows)
        else:
            print_table("Doctor", ["part", "found", "remark"], [list(row.values()) for row in rows])


@dataclass
class Completion:
    """Print a shell completion script: `eval "$(rheostat completion bash)"`."""

    shell: Positional[Literal["bash", "zsh"]]
    """Your shell."""

    def run(self) -> None:
        from rheostat.cli.completing import script

        print(script(self.shell), end="")
