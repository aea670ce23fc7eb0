"""The methods' own parts on recorded numbers: what their update minimises, and what their annotation says a row is worth.

An adapter that put a loss together by itself would go on passing whatever a method made of the same functions.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rheostat.parts import Batch
from rheostat.policies.language.model import TokenScores
from rheostat.trajectories import Source, Trajectories


def batch_of(mask: Tensor, *, columns: dict[str, Tensor] | None = None, units: Tensor | None = None, **fields: Tensor | None) -> Batch:
    """Rows of tokens of which only some facts are known.

    Args:
        mask: ``[B, T]`` bool.
        columns: of the batch.
        units: ``[B]``, which rows belong together.
        fields: of :class:`~rheostat.trajectories.Trajectories`; what is missing is unknown, and every row fresh and valid.
    """
    no = torch.zeros_like(mask)
    nothing = torch.zeros(mask.shape, dtype=torch.float64)
    known: dict[str, Any] = {
        "action": no.long(), "mask": mask, "reward": nothing, "terminated": no, "truncated": no,
        "sampler_logp": nothing * float("nan"), "source": torch.full(mask.shape, int(Source.FRESH)), "valid": torch.ones_like(mask),
    }  # fmt: skip
    known |= {name: value for name, value in fields.items() if value is not None}
    return Batch(Trajectories(**known, batch_size=list(mask.shape)), columns or {}, units)


def written_by(expert: Tensor) -> Tensor:
    """Sources of tokens: an expert's, and fresh ones."""
    return torch.where(expert, int(Source.EXPERT), int(Source.FRESH))


def update_terms(config: Any) -> list[Any]:
    """The terms that a method's update adds up, without their weights."""
    return [each.term for each in config.compose().update_of().terms]


def around(update: int = 0, longest: int = 0) -> Any:
    """What terms ask of a learner: its update, counted from 0, and the tokens that a completion may have."""
    return SimpleNamespace(updates=update, updates_of=lambda model: update, longest=longest)


def scores_of(logp: Tensor) -> TokenScores:
    """Log-probabilities ``[B, T]`` as a model gives them; entropies are not asked for."""
    return TokenScores(logp, torch.zeros_like(logp))


def minimised(
    config: Any, logp: Tensor, batch: Batch, *, update: int = 0, longest: int = 0, denominators: list[Any] | float | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """What one gradient step of a method minimises, and what is told of it.

    Args:
        config: the method.
        logp: ``[B, T]``, carries the gradient.
        batch: rows as the update receives them.
        update: counted from 0.
        longest: tokens that a completion may have.
        denominators: what each term divides by, or all of them; None: as the method says.
    """
    part, context = config.compose().update_of(), around(update, longest)
    if denominators is None:
        counts = [each.term.denominator(batch, context) for each in part.terms]
    else:
        counts = denominators if isinstance(denominators, list) else [torch.tensor(denominators)] * len(part.terms)
    loss, _, told, _ = part.losses(context, scores_of(logp), batch, counts)
    return loss, told


def advantage(config: Any, reward: Tensor, group: Tensor, mask: Tensor | None = None, **fields: Any) -> Tensor:
    """A method's token advantages ``[B, T]``, or without a mask of rows ``[B]``, from row rewards ``[B]``."""
    kept = torch.ones(len(reward), 1, dtype=torch.bool) if mask is None else mask
    batch = batch_of(kept, group=group[:, None].expand(kept.shape), **fields)
    found: Tensor = config.advantage.of(batch.rows, reward)
    return found[:, 0] if mask is None else found
