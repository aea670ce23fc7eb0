"""Golden vectors of VaGraM: the weighted error in both forms, the released accumulation, limited gradients, and IterVAML."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.objectives.value_aware import accumulated, limited, value_difference_error, value_gradient_error
from tests.vectors.tools import Unsupported, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    for start, case in CASES.items():
        if name.startswith(start):
            return plain(case(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def released(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """An ensemble's loss as the authors' code computes it: with accumulated gradients where there are several value functions."""
    prediction, target = leaf(inputs["pred"]), tensor(inputs["target"])
    gradient = accumulated(tensor(inputs["value_gradients"]))
    everywhere = gradient.unsqueeze(1).expand(-1, len(prediction), -1, -1)  # the same for all networks
    error = value_gradient_error(prediction - target, everywhere, form="unbounded" if params["use_vaml"] else "bounded")
    loss = error.mean()
    return {"per_element_loss": error, "loss": loss, "grad_pred": gradients(loss, prediction)[0]}


def independent(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One network's loss, every value function with its own gradient."""
    error = leaf(inputs["error"])
    loss = value_gradient_error(error, tensor(inputs["value_gradients"])).mean()
    return {"loss": loss, "grad_error": gradients(loss, error)[0]}


def quantile(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Long gradients."""
    clipped, bound = limited(tensor(inputs["value_gradients"]), params["quantile"])
    return {"bound": bound, "clipped": clipped}


def itervaml(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One quadratic value function."""
    weight, matrix, predicted = tensor(inputs["value_w"]), tensor(inputs["value_M"]), leaf(inputs["pred_next_state"])

    def value(state: Tensor) -> Tensor:
        return (state @ weight + 0.5 * ((state @ matrix) * state).sum(-1)).unsqueeze(0)

    no_error = torch.zeros(len(predicted), dtype=torch.float64)
    loss = value_difference_error(value(predicted), value(tensor(inputs["next_state"])), no_error).mean()
    return {"loss": loss, "grad_pred": gradients(loss, predicted)[0]}


CASES: dict[str, Any] = {
    "vagram_bounded_single_vf": released,
    "vagram_unbounded_single_vf": released,
    "vagram_bounded_4vf_official": released,
    "vagram_bounded_4vf_independent": independent,
    "zero_value_gradient": independent,
    "gradient_quantile": quantile,
    "itervaml_loss": itervaml,
}
