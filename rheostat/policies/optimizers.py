"""The optimiser of language models, and its state by position so that it can be saved without pickling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError
from rheostat.objectives.meter import gradient_snr


def language_optimizer(policy: nn.Module, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999) on everything trainable; matrices are decayed, vectors (norms, biases) are not."""
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    if not trainable:
        raise RheostatError("The language model has no trainable parameters: unfreeze it, or add adapters.")
    groups = [
        {"params": [parameter for parameter in trainable if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=True)


def moments_on_the_meter(optimizer: Any) -> dict[str, float]:
    """``meter/gradient_snr`` over the last steps, where the optimiser keeps both moments and the ratio is a number; see
    :func:`~rheostat.objectives.meter.gradient_snr`."""
    states = [state for state in optimizer.state.values() if {"exp_avg", "exp_avg_sq"} <= set(state)]
    if not states:
        return {}
    mean, square = (torch.cat([state[name].flatten() for state in states]) for name in ("exp_avg", "exp_avg_sq"))
    ratio = gradient_snr(mean, square, float(states[0]["step"]))
    return {"meter/gradient_snr": ratio} if math.isfinite(ratio) else {}


def save_many(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """The moments of every parameter, in the order of the parameter groups (empty dicts before the first step)."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [
        {name: value.clone() if isinstance(value, Tensor) else value for name, value in optimizer.state.get(p, {}).items()}
        for p in parameters
    ]


def load_many(optimizer: torch.optim.Optimizer, state: list[dict[str, Any]]) -> None:
    """Continue from :func:`save_many`.

    Raises:
        RheostatError: the state is of a model with another number of parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if len(parameters) != len(state):
        raise RheostatError(f"The saved optimiser has {len(state)} parameters, this model {len(parameters)}: they do not belong together.")
    optimizer.state.clear()
    for parameter, moments in zip(parameters, state, strict=True):
        if moments:
            optimizer.state[parameter] = {name: value.clone() if isinstance(value, Tensor) else value for name, value in moments.items()}
