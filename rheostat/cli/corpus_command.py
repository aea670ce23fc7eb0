"""``rheostat corpus``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from rheostat.terminal import print_json


@dataclass
class Corpus:
    """Compare files of expert rows before anything learns from them: length, duplicates, distance, entropy per token, latent shift.

    A teacher whose answers have a low entropy, and whose student moves little, tends to be the better one to learn from (DED); the trial
    of a recipe measures it.
    """

    files: Positional[tuple[Path, ...]]
    """Files of expert rows (JSON lines or parquet): prompt and completion, as text or chat messages."""
    model: str | None = None
    """The model whose entropy per token is measured, the writer of the answers or a student, and whose tokens are counted: a run's
    directory, a Hugging Face folder or hub name, or a base-model recipe. Without it characters are counted."""
    after: str | None = None
    """What became of --model by training, for the latent shift: a run's directory, say."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat import api

        found = api.corpus(*self.files, model=self.model, after=self.after)
        if self.json:
            print_json([vars(each) for each in found])
            return
        from rheostat.reporting.corpus_table import print_corpora

        print_corpora(found)
