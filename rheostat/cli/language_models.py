"""Commands about language models outside of training: export one from a run, measure one that no run has trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from rheostat.errors import RheostatError
from rheostat.methods import table


@dataclass
class Export:
    """Write the language model of a run, at any checkpoint that is kept, as an ordinary Hugging Face folder."""

    run_directory: Positional[Path]
    """Directory of the run."""
    output: Path | None = None
    """The folder to write; by default model-CHECKPOINT in the run."""
    checkpoint: str | None = None
    """Name of a folder under checkpoints; by default the newest."""
    adapters: bool = False
    """Write the adapters alone, not merged into their base model."""

    def run(self) -> None:
        from rheostat.training.run import Run

        run = Run.load(self.run_directory, at=self.checkpoint)
        policy: Any = getattr(run.method, "policy", None)
        if table.entry(run.settings.method).domain != "language" or policy is None:
            raise RheostatError(f"{self.run_directory} trained a control policy: only language models are exported.")
        if self.adapters and not policy.adapted:
            raise RheostatError(f"The model of {self.run_directory} has no adapters: leave --adapters out.")
        output = self.output or self.run_directory / f"model-{self.checkpoint or 'newest'}"
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise RheostatError(f"{output} already exists and is not an empty folder: choose another --output.")
        policy.save_pretrained(output, adapters_only=self.adapters)
        run.close()
        print(f"Model of update {run.method.updates}: {output}")
