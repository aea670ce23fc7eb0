"""Learning curves of control methods, with the sampling error of the data every target update was made from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rheostat.learner.learner import Learner
from studies._control import build


def learn(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: one run of one method.

    Arguments: ``method``, ``config`` (with ``sampling_error_every``), ``task``, ``seed``, ``steps``, ``evaluate_every`` updates,
    ``episodes`` of each evaluation.

    Returns:
        ``curve``: columns ``steps``, ``updates``, ``flops``, ``evaluation_return`` (deterministic evaluations of the learned policy, before
        training and then every so many updates) and ``meter/sampling_error`` (the window of a target update against the policy it was
        collected for, nats per step); None where a row has not measured it. ``behaviour_kl``: mean k3 of the behaviour policy, nats
        (absent where the policy itself acts).
    """
    method = build(arguments["method"], arguments["config"], arguments, steps=arguments["steps"])
    rows: list[dict[str, float | None]] = [row_of(method, {}, evaluate(method, arguments))]
    shifts: list[float] = []
    while method.steps < arguments["steps"]:
        updates = method.updates
        metrics = method.turn()
        if "behaviour_kl" in metrics:
            shifts.append(metrics["behaviour_kl"])
        moved = method.updates > updates
        looking = (moved and method.updates % arguments["evaluate_every"] == 0) or method.steps >= arguments["steps"]
        if looking or "meter/sampling_error" in metrics:
            rows.append(row_of(method, metrics, evaluate(method, arguments) if looking else None))
    method.close()
    assert all(math.isfinite(value) for row in rows for value in row.values() if value is not None)
    curve = {name: [row[name] for row in rows] for name in rows[0]}
    return {"curve": curve} | ({"behaviour_kl": sum(shifts) / len(shifts)} if shifts else {})


def evaluate(method: Learner, arguments: dict[str, Any]) -> float:
    """Mean return of deterministic episodes."""
    return round(method.evaluate(arguments["episodes"])["evaluation_return"], 4)


def row_of(method: Learner, metrics: dict[str, float], evaluation: float | None) -> dict[str, float | None]:
    """One row of the curve."""
    error = metrics.get("meter/sampling_error")
    return {
        "steps": method.steps,
        "updates": method.updates,
        "flops": float(f"{metrics.get('flops', method.context.flops):.5g}"),
        "evaluation_return": evaluation,
        "meter/sampling_error": None if error is None else round(error, 8),
    }
