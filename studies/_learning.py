"""Learning curves of control methods, with the sampling error of the data every target update was made from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rheostat.methods.method import iterate
from studies._control import build


def learn(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: one run of one method.

    Arguments: ``method``, ``config`` (with ``sampling_error_every``), ``task``, ``seed``, ``steps``, ``evaluate_every`` updates,
    ``episodes`` of each evaluation.

    Returns:
        ``steps`` and ``returns``: deterministic evaluations of the learned policy, before training and then every so many updates;
        ``error_steps`` and ``sampling_error``: the window of a target update against the policy it was collected for, nats per step;
        ``behaviour_kl``: mean k3 of the behaviour policy, nats (absent where the policy itself acts).
    """
    method = build(arguments["method"], arguments["config"], arguments, steps=arguments["steps"])
    steps, returns = [0], [method.evaluate(arguments["episodes"])["evaluation_return"]]
    error_steps: list[int] = []
    errors: list[float] = []
    shifts: list[float] = []
    while method.steps < arguments["steps"]:
        updates = method.updates
        metrics = iterate(method)
        if "behaviour_kl" in metrics:
            shifts.append(metrics["behaviour_kl"])
        if "meter/sampling_error" in metrics:
            error_steps.append(method.steps)
            errors.append(round(metrics["meter/sampling_error"], 8))
        moved = method.updates > updates
        if (moved and method.updates % arguments["evaluate_every"] == 0) or method.steps >= arguments["steps"]:
            steps.append(method.steps)
            returns.append(round(method.evaluate(arguments["episodes"])["evaluation_return"], 4))
    method.close()
    assert all(map(math.isfinite, returns + errors))
    result: dict[str, Any] = {"steps": steps, "returns": returns, "error_steps": error_steps, "sampling_error": errors}
    return result | ({"behaviour_kl": sum(shifts) / len(shifts)} if shifts else {})
