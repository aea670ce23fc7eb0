"""Numbers about a corpus of expert rows: how long, how often the same, how far apart, how uncertain its tokens, how far it moves a model.

Paper: DED, arXiv 2508.09883, explains by the last two which teacher is good to learn from: its answers have a low entropy per token, and
its student's latent representation moves little.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rheostat.masking import masked_mean
from rheostat.tasks.language.trajectory_choice import edit_distances


@dataclass(frozen=True)
class CorpusFacts:
    """What can be told of one file.

    Attributes:
        name: of the file.
        rows: answers.
        questions: different prompts.
        duplicates: share of the rows whose prompt and answer stood before.
        unit: what lengths and distances count: tokens of the model, or characters.
        mean_length, median_length, longest: of the answers, with their end if counted in tokens.
        distance: mean edit distance of two answers to one question, in lengths of the longer one; None where no question has two.
        entropy: nats per token under the model; None without one.
        latent_shift: between the model and the one after, see :func:`latent_shift`; None without both.
    """

    name: str
    rows: int
    questions: int
    duplicates: float
    unit: str
    mean_length: float
    median_length: float
    longest: int
    distance: float | None
    entropy: float | None = None
    latent_shift: float | None = None


def facts_of(
    name: str,
    questions: Sequence[str],
    answers: Sequence[Sequence[Hashable]],
    unit: str,
    *,
    entropy: float | None = None,
    shift: float | None = None,
) -> CorpusFacts:
    """The facts of rows.

    Args:
        name: of the file.
        questions: the key of every row's prompt.
        answers: of every row, as text or token ids; at least one.
        unit: what an answer is a sequence of.
        entropy: nats per token, where it was measured.
        shift: latent shift, where it was measured.
    """
    lengths = np.array([len(each) for each in answers])
    different = {(question, tuple(answer)) for question, answer in zip(questions, answers, strict=True)}
    return CorpusFacts(
        name, len(answers), len(set(questions)), 1 - len(different) / len(answers), unit,
        float(lengths.mean()), float(np.median(lengths)), int(lengths.max()), mean_distance(questions, answers), entropy, shift,
    )  # fmt: skip


def mean_distance(questions: Sequence[str], answers: Sequence[Sequence[Hashable]]) -> float | None:
    """Mean of the normalised edit distances between every two answers to one question, over all such pairs; None without a pair."""
    together: dict[str, list[Sequence[Hashable]]] = {}
    for question, answer in zip(questions, answers, strict=True):
        together.setdefault(question, []).append(answer)
    pairs = [edit_distances(each, normalise=True)[np.triu_indices(len(each), 1)] for each in together.values() if len(each) > 1]
    return float(np.concatenate(pairs).mean()) if pairs else None


def mean_token_entropy(entropy: Tensor, mask: Tensor) -> Tensor:
    """Mean entropy of the distributions that the tokens of a mask were drawn from, both ``[B, T]``: ``[]`` nats."""
    return masked_mean(entropy, mask)


def latent_shift(before: Tensor, after: Tensor) -> float:
    """How far the mean representation of some answers moves when a model is trained.

    Both clouds are projected on the first two principal components of all points together, and the distance of their means is taken. The
    paper shows the projection and gives no formula; this one is a reconstruction.

    Args:
        before: ``[N, C]``, one pooled hidden state per answer.
        after: ``[N, C]``, of the same answers after training.
    """
    points = torch.cat([before, after]).double()
    centred = points - points.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    projected = centred @ directions[:2].T
    return float((projected[: len(before)].mean(0) - projected[len(before) :].mean(0)).norm())
