"""``rheostat microscope``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from rheostat.options import option
from rheostat.terminal import json_or_text, print_json


@dataclass
class Microscope:
    """Compare gradient, KL or advantage estimators with exact values: bias, variance, direction, improvement.

    Names are methods (grpo, rloo, ppo, ...), plain importance-sampling estimators (is:sequence, ...), estimators of the KL (kl:k3, ...)
    or of advantages (advantage:gae-0.95, ...); a family's name alone (is, kl, advantage) means all of it. Without names: the language
    methods and the family is.
    """

    names: Positional[tuple[str, ...]] = ()
    """What to look at; one kind and one domain at a time."""
    lag: int = option(4, at_least=0)
    """Steps of exact gradient ascent between the policy that samples and the learner; 0 is strictly on-policy."""
    updates: int = option(0, at_least=0)
    """Such steps already made on the batch: the ratio to the start of the update is then not 1."""
    batches: int = option(200, at_least=3)
    """Batches drawn per method."""
    problem: str | None = None
    """tiny-words (language), gridworld or two-step (control); by default what the names need."""
    length: int = option(0, at_least=0)
    """Tokens of a completion or steps of an episode; 0 takes the problem's own."""
    step_size: float | None = option(None, above=0)
    """Of the exact steps; by default the problem's own."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of the sampling."""
    options: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Settings for every method, as names and JSON values, e.g. --options group_size 8."""
    output: Path | None = None
    """Folder for the table (JSON) and the picture (PNG, SVG)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.api import save, show
        from rheostat.diagnostics.microscope.microscope_result import microscope

        result = microscope(
            self.names,
            problem=self.problem,
            lag=self.lag,
            updates=self.updates,
            batches=self.batches,
            seed=self.seed,
            step_size=self.step_size,
            length=self.length,
            progress=True,
            **{name: json_or_text(value) for name, value in self.options.items()},
        )
        written = save(result, self.output) if self.output else []
        if self.json:
            print_json(result.to_json())
            return
        show(result)
        for path in written:
            print(path)
