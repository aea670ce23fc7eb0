"""``rheostat disagree``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from rheostat.options import option
from rheostat.terminal import json_or_text, print_json


@dataclass
class Disagree:
    """Replay the frozen batch of a run through several methods: where do their gradients and their tokens' weights differ?

    A method may carry settings of its own: grpo:clip_high=0.28,kl_coefficient=0. The run's own method has the run's settings, any other
    its defaults. The run is only read.
    """

    run_directory: Positional[Path]
    """Directory of the run, finished or stopped."""
    methods: Positional[tuple[str, ...]]
    """At least two methods of the run's domain, as NAME or NAME:SETTING=VALUE,..."""
    update: int | None = option(None, at_least=0)
    """Open the run at the checkpoint after this many policy updates; by default the newest."""
    steps: int = option(0, at_least=0)
    """Moves of the run's own method on the batch before the gradient is looked at; above 0, ratios are not 1 and limits act."""
    rows: int = option(2, at_least=1)
    """Rollouts shown in the picture, the most disputed first."""
    options: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Settings for every method, as names and JSON values, e.g. --options kl_coefficient 0."""
    output: Path | None = None
    """Folder for the numbers (JSON, safetensors), the picture (PNG, SVG) and the page (HTML)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.api import save, show
        from rheostat.diagnostics.disagreement.disagreement_result import disagree

        options = {name: json_or_text(value) for name, value in self.options.items()}
        found = disagree(self.run_directory, self.methods, update=self.update, steps=self.steps, rows=self.rows, progress=True, **options)
        written = save(found, self.output) if self.output else []
        if self.json:
            print_json(found.to_json())
        else:
            show(found)
        for path in written:
            print(path, file=sys.stderr if self.json else sys.stdout)
