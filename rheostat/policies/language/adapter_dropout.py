"""Dropout of adapters (Hu et al. 2021, arXiv 2106.09685, section 5), from a random stream of its own.

Inputs of adapters are dropped, and only inside :func:`dropping`, where the gradient of a loss is computed. Everywhere else
(sampling, scoring, measuring, exporting) nothing is dropped, so a token has the same log-probability whenever it is scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rheostat.streams import derive_seed


class AdapterDropout(nn.Module):
    """Sets a share of one adapter's inputs to 0 and scales the rest up, so that their mean stays.

    The seed and the number alone decide which entries. So a layer that is computed again in the backward pass drops the same
    entries, and so does a resumed run.

    Args:
        share: that is dropped.
        number: of the adapter within its model.
    """

    def __init__(self, share: float, number: int) -> None:
        super().__init__()
        self.share, self.number = share, number
        self.seed: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``x`` of any shape, unchanged where no seed is set."""
        if self.seed is None:
            return x
        generator = torch.Generator(x.device).manual_seed(derive_seed(self.seed, self.number))
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= self.share
        return x * kept / (1 - self.share)


def install(model: nn.Module, share: float) -> list[AdapterDropout]:
    """Put a dropout before every adapter that can have one, in place of any that is there.

    Args:
        model: with LoRA adapters of ``peft``.
        share: that is dropped, 0 < share < 1.
    """
    found: list[AdapterDropout] = []
    for _, module in model.named_modules():
        slots = getattr(module, "lora_dropout", None)
        if isinstance(slots, nn.ModuleDict):
            for name in list(slots):
                found.append(AdapterDropout(share, len(found)))
                slots[name] = found[-1]
    return found


@contextmanager
def dropping(dropouts: list[AdapterDropout], seed: int) -> Iterator[None]:
    """Drop a share of the adapters' inputs inside the context."""
    for each in dropouts:
        each.seed = seed
    try:
        yield
    finally:
        for each in dropouts:
            each.seed = None
