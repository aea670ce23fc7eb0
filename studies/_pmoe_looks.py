"""What finished runs of the PMOE study are asked: where the policy acts, what its weights tell apart, and where it has been."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rheostat.streams import derive_seed
from rheostat.tasks.control.two_optima import HALF_HEIGHT, distance_to_peak, pay, side

DRAWS = 4_000
CELLS = 20
"""Cells of the grid of positions on either axis."""
EPISODES = 100


def generator_of(run: Any) -> torch.Generator:
    """A stream that training does not use."""
    return torch.Generator().manual_seed(derive_seed(run.method.context.streams.seed, "study look"))


@torch.no_grad()
def bumps(run: Any) -> dict[str, float]:
    """Of 4,000 actions as the policy draws them: the share on either bump (where it pays at least half), of the rarer one, and the mean
    reward."""
    action = run.method.context.act_on_target(torch.zeros(DRAWS, 1)).sample(generator_of(run)).double().numpy()
    found = {name: float((distance_to_peak(action, which) <= HALF_HEIGHT).mean()) for name, which in (("upper", 1.0), ("lower", -1.0))}
    return found | {"rarer": min(found.values()), "reward": float(pay(action, side(action)).mean())}


@torch.no_grad()
def context(run: Any) -> dict[str, float]:
    """On a grid of contexts: the share for which the likelier of two experts is that of the context's sign, whichever expert that is, and
    the mean reward of drawn actions."""
    grid = torch.linspace(-1, 1, DRAWS)  # an even number: 0 is not among them
    mixture = run.method.context.models["policy"].distribution(grid.unsqueeze(-1))
    agrees = float(((mixture.logits.argmax(-1) == 1) == (grid > 0)).double().mean())
    action = run.method.context.act_on_target(grid.unsqueeze(-1)).sample(generator_of(run)).double().numpy()
    reward = pay(action, np.where(grid.numpy() > 0, 1.0, -1.0))
    return {"accuracy": max(agrees, 1 - agrees), "reward": float(reward.mean())}


def goals(run: Any) -> dict[str, float]:
    """Cells of a 20 x 20 grid of positions that the policy has been in (the uniform actions before it left out), and the share of the last
    100 episodes that ended on either goal, and of the rarer one."""
    replay = run.method.context.stores["replay"]
    stored = {name: replay.columns[name][: len(replay)] for name in ("version", "next_observation", "truncated")}
    position = stored["next_observation"][:, :2]
    cell = ((position + 1) / 2 * CELLS).long().clamp(max=CELLS - 1)[stored["version"] > 0]
    last = position[stored["truncated"]][-EPISODES:].double().numpy()
    found = {name: float((distance_to_peak(last, which) <= HALF_HEIGHT).mean()) for name, which in (("upper", 1.0), ("lower", -1.0))}
    return found | {"rarer": min(found.values()), "cells": float(len(torch.unique(cell[:, 0] * CELLS + cell[:, 1])))}
