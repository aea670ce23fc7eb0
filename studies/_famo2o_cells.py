"""Cells of the FamO2O study: the data, and what a finished run says about its coefficients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rheostat.collect.control.offline_data import record
from rheostat.experiments.studies.training import DATA
from rheostat.learner.off_policy import AsRead
from rheostat.parts import Batch
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.control.environments import make
from rheostat.tasks.control.two_halves import halves

TASK = "rheostat/TwoHalves-v0"
ROW = 21
"""Positions of the grid on either axis, at rest, on which coefficients are read."""


def gather(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: a data set of the point mass; left an expert, right uniform actions."""
    seed = arguments["seed"]
    worlds = make(TASK, num_envs=10, seed=derive_seed(seed, "data"))
    data = record(halves, worlds, arguments["steps"], generator=Streams(seed)["data"], facts={"kind": "two-halves", "seed": seed})
    worlds.close()
    data.save(place / DATA)
    left = data.transitions.observation[:, 0] < 0
    return {
        "steps": len(data),
        "return": float(data.whole_returns.mean()),
        "left_share": float(left.float().mean()),
        "digest": data.digest,
    }


@torch.no_grad()
def look(run: Any) -> dict[str, float]:
    """Coefficients left and right, and how far the members at both ends of the range are from the data's actions."""
    context = run.method.context
    if "balance" not in context.models:
        return {}
    family = run.method.config.family
    places = torch.cartesian_prod(torch.linspace(-1, 1, ROW), torch.linspace(-1, 1, ROW))
    observation = context.see(torch.cat([places, torch.zeros_like(places)], -1))
    coefficient = context.models["balance"].network.mode(observation)
    rows = AsRead()(context, Batch(context.offline.transitions[:5000])).rows
    distance = {}
    for name, value in (("low", family.low), ("high", family.high)):
        beside = family.beside(context, rows.observation, torch.full((len(rows),), value))
        member = context.models["policy"].distribution(beside)
        distance[f"distance_{name}"] = float((member.mode() - rows.action).square().mean())
    left = places[:, 0] < 0
    right = places[:, 0] > 0
    return {"left": float(coefficient[left].mean()), "right": float(coefficient[right].mean())} | distance
