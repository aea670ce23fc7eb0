"""The exact cell of the BAPO study: the Entropy-Clip Rule on random contexts, against the change of the entropy itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.objectives.entropy_clip import clipped_gradient, entropy_change, softmax_entropy

LOW, HIGH, WIDE = 0.8, 1.2, 3.0


def predict(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell.

    Arguments: ``seed``, ``contexts`` (with 5 to 50 actions each).

    Returns:
        ``error``: by kind of update, the largest difference over all contexts between the predicted change of the entropy and the exact
        derivative of the entropy along the step, relative to that derivative or to 1; ``admitted``: contexts in which a wider upper
        bound admits positive actions, all of them with log pi < -H; ``rises``: by kind the number of them in which that raises the
        entropy.
    """
    generator = torch.Generator().manual_seed(arguments["seed"])
    worst = {"natural": 0.0, "plain": 0.0}
    rises = {"natural": 0, "plain": 0}
    admitted = 0
    for _ in range(arguments["contexts"]):
        actions = int(torch.randint(5, 51, (), generator=generator))
        logits, advantage, moved = (torch.randn(actions, generator=generator, dtype=torch.float64) for _ in range(3))
        logits = 2 * logits
        ratio = (torch.log_softmax(logits, -1) - torch.log_softmax(logits + 0.4 * moved, -1)).exp()
        for kind, step in steps(logits, advantage, ratio, HIGH).items():
            eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
            (exact,) = torch.autograd.grad(softmax_entropy(logits + eta * step), eta)
            error = (entropy_change(logits, step) - exact).abs() / exact.abs().clamp(min=1.0)
            worst[kind] = max(worst[kind], error.item())
        unlikely = torch.log_softmax(logits, -1) < -softmax_entropy(logits)
        between = (advantage > 0) & (ratio > HIGH) & (ratio <= WIDE)
        if not bool((between & unlikely).any()):
            continue
        admitted += 1
        advantage = torch.where(between & ~unlikely, 0.0, advantage)  # only unlikely ones are admitted
        narrow, wide = (steps(logits, advantage, ratio, high) for high in (HIGH, WIDE))
        for kind in rises:
            rises[kind] += int(entropy_change(logits, wide[kind]) > entropy_change(logits, narrow[kind]))
    return {"error": worst, "admitted": admitted, "rises": rises}


def steps(logits: Tensor, advantage: Tensor, ratio: Tensor, high: float) -> dict[str, Tensor]:
    """Direction of the update in the logits, by kind."""
    found = clipped_gradient(logits, advantage, ratio, low=LOW, high=high)
    return {"natural": found.natural, "plain": found.gradient}
