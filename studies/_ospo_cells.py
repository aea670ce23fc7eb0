"""Cells of the OSPO study: gradients of both advantages where nothing is carried over, and what a finished run is measured by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.collect.fleet.fleet_episodes import nearest, of_policy
from rheostat.credit.fleet_advantages import FleetAdvantage
from rheostat.streams import Streams

FEATURES = 4
"""Numbers that an order shows to a vehicle."""


def gradients(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: in each of many episodes every vehicle chooses among orders of its own, drawn anew every minute, by a softmax policy.

    Nothing is carried from minute to minute, so that rewards to go add noise and no knowledge. Every episode gives one gradient of each
    advantage, without a fairness term: that of the mean of advantage times log-probability.

    Returns:
        ``cosine`` of the mean gradients of both, and ``variance_ratio``: variance over the squared length of the mean, of to-go over that
        of one-step.
    """
    shape = (arguments["minutes"], arguments["vehicles"])
    found: dict[str, list[Tensor]] = {"one-step": [], "to-go": []}
    chance = Streams(arguments["seed"])["gradients"]
    weights, policy = torch.randn(2, FEATURES, generator=chance, dtype=torch.float64)
    for _ in range(arguments["episodes"]):
        orders = torch.randn(*shape, arguments["orders"], FEATURES, generator=chance, dtype=torch.float64)
        share = (orders @ (policy / 2)).softmax(-1)
        chosen = torch.multinomial(share.flatten(0, 1), 1, generator=chance).view(*shape)
        taken = orders.gather(2, chosen[..., None, None].expand(*shape, 1, FEATURES)).squeeze(2)
        reward = taken @ weights + torch.randn(shape, generator=chance, dtype=torch.float64)
        score = taken - (share[..., None] * orders).sum(2)  # of the log-probability, by the policy's weights
        for form, gradients_so_far in found.items():
            gradients_so_far.append((advantages(form, reward)[..., None] * score).mean((0, 1)))
    both = {form: torch.stack(each) for form, each in found.items()}
    means = {form: each.mean(0) for form, each in both.items()}
    noise = {form: float(each.var(0).sum() / means[form].square().sum()) for form, each in both.items()}
    return {
        "cosine": float(torch.nn.functional.cosine_similarity(means["one-step"], means["to-go"], dim=0)),
        "variance_ratio": noise["to-go"] / noise["one-step"],
    }


def advantages(form: Any, reward: Tensor) -> Tensor:
    """Of rewards ``[T, N]``, one per vehicle and minute, without a fairness term."""
    minutes, vehicles = reward.shape
    minute = torch.arange(minutes).repeat_interleave(vehicles)
    gap = torch.where(minute < minutes - 1, 1, -1)
    nothing = torch.zeros(minutes * vehicles, dtype=torch.float64)
    vehicle = torch.arange(vehicles).repeat(minutes)
    return FleetAdvantage(form).advantages(reward.flatten(), minute, vehicle, gap, nothing)[0].view(minutes, vehicles)


def look(run: Any) -> dict[str, float]:
    """The final policy, the first one and the nearest vehicle on the same held-out demand: reward, served orders, pick-up minutes."""
    context, episodes = run.method.context, run.settings.evaluation_episodes
    untrained = run.method.config.network.policy(context)
    found: dict[str, float] = {}
    for name, value in (("final", of_policy(context.policy)), ("first", of_policy(untrained)), ("nearest", nearest)):
        tally = context.measure("evaluation", episodes, value)[0].tally
        served = int(tally.served.sum())
        found |= {
            f"{name}_reward": float(tally.reward.mean()),
            f"{name}_served": served / episodes,
            f"{name}_pick_up": float(tally.pick_up.sum()) / max(1, served),
        }
    return found
