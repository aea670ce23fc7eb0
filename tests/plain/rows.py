"""What the plain side reads of a batch, row by row, and what the raw Hugging Face model says about a row: no padding, no packing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rheostat.trajectories import Source


@dataclass(eq=False)
class Row:
    """One prompt with its completion."""

    ids: list[int]
    """Every token of the row, prompt first."""
    places: list[int]
    """Where in ``ids`` the tokens stand that the policy, or whoever stood in for it, chose."""
    sampled: list[float]
    """Of those tokens, the log-probability under whoever sampled them; NaN where unknown."""
    reward: float
    group: int
    unit: int | None
    source: Source
    version: int
    """How many updates the policy that sampled it had made."""
    valid: bool
    cut: bool
    """It ends at the length limit."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What a collector says of the row in a column of its own."""
    recall: Callable[[str, Row], list[float]] = lambda when, row: []
    """What the policy of an earlier time says of the row."""

    @cached_property
    def old(self) -> list[float]:
        """Log-probabilities of the chosen tokens under the policy when this update began."""
        return self.recall("old", self)

    @cached_property
    def reference(self) -> list[float]:
        """The same under the base model."""
        return self.recall("reference", self)

    @cached_property
    def previous(self) -> list[float]:
        """The same under the policy one update earlier."""
        return self.recall("previous", self)

    @property
    def behaviour(self) -> list[float]:
        """Log-probabilities under whoever sampled; where that is unknown, under the policy when this update began."""
        return self.old if math.isnan(self.sampled[0]) else self.sampled

    @property
    def expert(self) -> bool:
        """Whether an expert wrote it."""
        return self.source == Source.EXPERT

    def __len__(self) -> int:
        return len(self.places)


def read_rows(batch: Any, first: int = 0) -> list[Row]:
    """The rows of a batch from the ``first`` on."""
    rows, found = batch.rows, []
    for index in range(first, len(rows)):
        real, chosen = rows.attention[index], rows.mask[index]
        found.append(
            Row(
                ids=rows.action[index][real].tolist(),
                places=chosen[real].nonzero().flatten().tolist(),
                sampled=rows.sampler_logp[index][chosen].tolist(),
                reward=float(rows.reward[index].sum()),
                group=int(rows.group[index, 0]),
                unit=None if batch.units is None else int(batch.units[index]),
                source=Source(int(rows.source[index, 0])),
                version=int(rows.version[index][chosen].max()) if chosen.any() else -1,
                valid=bool(rows.valid[index, 0]),
                cut=bool(rows.truncated[index].any()),
                facts={name: column[index].tolist() for name, column in batch.columns.items()},
            )
        )
    return found


def log_softmax(logits: Tensor) -> Tensor:
    """By its definition, along the last dimension."""
    shifted = logits - logits.max(-1, keepdim=True).values
    return shifted - shifted.exp().sum(-1, keepdim=True).log()


def speak(causal: Any, row: Row, temperature: float = 1.0, top_k: int = 0) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a row's chosen tokens, and the entropies of the distributions they were drawn from, ``[n]`` each.

    With ``top_k`` a token competes with the k most likely ones alone.
    """
    logits = causal(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0] / temperature
    places = torch.tensor(row.places)
    before, tokens = logits[places - 1], torch.tensor(row.ids)[places]
    if top_k:
        kept = before >= before.topk(top_k).values[:, -1:]
        kept[torch.arange(len(tokens)), tokens] = True
        before = torch.where(kept, before, -1e9)
    logps = log_softmax(before)
    return logps[torch.arange(len(tokens)), tokens], -(logps.exp() * logps).sum(-1)


def distributions(causal: Any, row: Row) -> list[list[float]]:
    """Probabilities of every token of the vocabulary, at each place where the row's chosen tokens stand."""
    with torch.no_grad():
        return vocabulary(causal, row).exp().tolist()


def vocabulary(causal: Any, row: Row) -> Tensor:
    """Log-probabilities of every token of the vocabulary, at each place where the row's chosen tokens stand, ``[n, V]``."""
    logits = causal(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0]
    return log_softmax(logits[torch.tensor(row.places) - 1])


def appraise(causal: Any, head: Any, row: Row) -> tuple[Tensor, Tensor]:
    """A scalar head's values before and after a row's chosen tokens, ``[n]`` each."""
    hidden = causal.base_model(input_ids=torch.tensor([row.ids]), use_cache=False).last_hidden_state[0]
    values = (hidden * head.weight[0]).sum(-1) + head.bias
    places = torch.tensor(row.places)
    return values[places - 1], values[places]
