"""The optimiser of language models, and its state by position so that it can be saved without pickling.

Weights in bfloat16 have 8 bits: a step below 1/256 of a weight rounds to nothing, which at usual learning rates is nearly every step. So
what is optimised is a float32 copy of them (the master weights, Micikevicius et al. 2018, arXiv 1710.03740, section 3.1), with float32
moments; the model computes with the copy rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from rheostat.errors import RheostatError
from rheostat.objectives.meter import gradient_snr


class MasterAdamW(torch.optim.AdamW):
    """AdamW whose arithmetic is float32 whatever the dtype of the parameters.

    The state of a parameter in low precision holds its float32 master weights and the moments; a parameter in float32 is its own master.
    Weights that other code wrote since the last step (a loaded checkpoint, say) become the new master weights, except where
    they are the old master weights rounded.

    Args:
        params: parameters or groups of them, as of every optimiser of PyTorch.
        lr: step size.
        weight_decay: of groups that do not bring their own.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=True)
        self._written: dict[Tensor, int] = {}  # version of each parameter's memory after our last step

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, low = self.state[parameter], parameter.dtype in (torch.bfloat16, torch.float16)
        if "step" not in state:
            kind = torch.float32 if low else parameter.dtype
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter, dtype=kind) for _ in range(2))
        if low:
            if "master" not in state:
                state["master"] = parameter.detach().float()
            elif self._written.get(parameter) != parameter._version:
                state["master"] = torch.where(state["master"].to(parameter.dtype) == parameter, state["master"], parameter.float())
        master = state["master"] if low else parameter
        assert parameter.grad is not None
        adamw(
            [master],
            [parameter.grad.float() if low else parameter.grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        if low:
            parameter.copy_(master)
            self._written[parameter] = parameter._version


def language_optimizer(policy: nn.Module, learning_rate: float, weight_decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999) on everything trainable; matrices are decayed, vectors (norms, biases) are not.

    Weights in bfloat16 are trained through float32 master weights (:class:`MasterAdamW`).

    Raises:
        RheostatError: nothing is trainable, or the weights are float16.
    """
    trainable = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    if not trainable:
        raise RheostatError("The language model has no trainable parameters: unfreeze it, or add adapters.")
    if any(parameter.dtype == torch.float16 for parameter in trainable):
        raise RheostatError(
            "Weights in float16 cannot be trained here (small gradients become 0 in it, and no loss is scaled): use bfloat16 or float32."
        )
    groups = [
        {"params": [parameter for parameter in trainable if parameter.dim() >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if any(parameter.dtype == torch.bfloat16 for parameter in trainable):
        return MasterAdamW(groups, learning_rate)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


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
