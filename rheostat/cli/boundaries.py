"""``rheostat boundary``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from rheostat.options import option
from rheostat.terminal import print_json


@dataclass
class BoundaryCommand:
    """What training gained and lost between two language models: pass@k of both, problems lost and gained, right solutions harmed.

    Each model is a run's directory, a Hugging Face folder or hub name, or a base-model recipe. Both answer the same validation prompts.
    """

    before: Positional[str]
    """The model to begin with, such as the base of a run."""
    after: Positional[str]
    """The model to compare with it, such as the run."""
    task: str | None = None
    """The task, where neither model is a run."""
    episodes: int = option(200, at_least=2)
    """Validation prompts; an interval over prompts needs 2."""
    samples: int = option(64, at_least=1)
    """Completions of each prompt by each model: pass@k is known up to this k."""
    threshold: float = option(1.0)
    """Smallest reward that counts as right."""
    right_by: str | None = None
    """The reward that is compared with --threshold, of several; by default the first."""
    output: Path | None = None
    """Folder for the picture of pass@k (boundary.png and boundary.svg)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat import api

        options: dict[str, Any] = {
            "prompts": self.episodes,
            "samples": self.samples,
            "threshold": self.threshold,
            "right_by": self.right_by,
        }
        found = api.boundary(self.before, self.after, task=self.task, **options)
        if self.json:
            print_json(found.to_json())
        else:
            api.show(found)
        if self.output is not None:
            from rheostat.reporting.boundary_figure import draw_boundary

            written = draw_boundary(found, self.output, (f"before: {Path(self.before).name}", f"after: {Path(self.after).name}"))
            if not self.json:
                print("Picture: " + ", ".join(map(str, written)))
