"""WHO ACTS? Episodes of a fleet: every minute the policy scores all pairs, a matching decides, and what was accepted is a row.

The stored probability is the policy's share of the order that was taken. It is not the probability of taking it: the matching decides about
all vehicles together, and exploration forces pairs on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rheostat.collect.fleet.matching import FORCED, match
from rheostat.credit.fleet_advantages import LAST, FleetAdvantage, fairness
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.dispatch_policy import shares
from rheostat.streams import derive_seed
from rheostat.tasks.fleet.city import Cities, City, Scene
from rheostat.tasks.fleet.roads import Floats, Ints
from rheostat.trajectories import Source, Transitions

Scores = Callable[[Tensor, Tensor], Tensor]
"""Vehicles ``[C, N, F]`` and orders ``[C, O, G]`` to scores ``[C, N, O]``."""
Value = Callable[[Scene], Floats]
"""What a pair is worth to the matching, ``[C, N, O]``."""


class Minute(NamedTuple):
    """What happened in a minute in which there were orders."""

    minute: int
    scene: Scene
    value: Floats
    """Of pairs, before exploration, ``[C, N, O]``."""
    forced: np.ndarray
    """bool ``[C, N, O]``."""
    choice: Ints
    """``[C, N]``, -1 for none."""
    reward: Floats
    """``[C, N]``."""
    fairness: Floats
    """u, ``[C]``."""


def play(
    cities: Cities, value: Value, *, exploration: float = 0.0, generator: Any = None, known: FleetAdvantage | None = None
) -> list[Minute]:
    """One episode of every city.

    Args:
        cities: at their beginning.
        value: of pairs, above 0.
        exploration: probability with which a pair is forced.
        generator: of chance, where there is exploration.
        known: vehicles are told their cumulative advantage by this instead of their cumulative reward.

    Returns:
        The minutes in which some city had a free vehicle and an open order.

    Raises:
        RheostatError: a pair whose value is no finite number.
    """
    found: list[Minute] = []
    told = np.zeros_like(cities.totals)
    while not cities.over:
        scene = cities.scene(told)
        if (scene.free.any(1) & scene.open.any(1)).any():
            before = cities.totals
            worth = value(scene)
            if not np.isfinite(worth).all():
                raise RheostatError("The policy's shares of the orders are not finite any more: lower the learning rate.")
            forced = np.zeros(worth.shape, bool)
            if exploration:
                forced = (torch.rand(worth.shape, generator=generator) < exploration).numpy() & scene.open[:, None]
            choice = match(np.where(forced, FORCED, worth), scene.free, scene.open)
            reward = cities.accept(scene, choice)
            fair = fairness(torch.from_numpy(before), torch.from_numpy(cities.totals))
            told = cities.totals if known is None else told + known.of_minute(torch.from_numpy(reward), torch.from_numpy(choice >= 0), fair)
            found.append(Minute(cities.minute, scene, worth, forced, choice, reward, fair.numpy()))
        cities.drive()
    return found


def of_policy(scores: Scores) -> Value:
    """The policy's shares as values of pairs; those of vehicles that are not free, or orders that are not open, are 0."""

    def value(scene: Scene) -> Floats:
        found = np.zeros((*scene.free.shape, scene.open.shape[1]))
        some = scene.open.any(1) & scene.free.any(1)  # without any order there are no shares of them
        first = np.argsort(~scene.free[some], axis=1, kind="stable")[:, : scene.free.sum(1).max()]  # only these are scored
        rows = np.flatnonzero(some)[:, None]
        with torch.no_grad():
            vehicles, orders = torch.from_numpy(scene.vehicles[rows, first]).float(), torch.from_numpy(scene.orders[some]).float()
            share = shares(scores(vehicles, orders), torch.from_numpy(scene.open[some]).unsqueeze(1))
        found[rows, first] = share.double().numpy() * scene.free[rows, first][..., None]
        return found

    return value


def nearest(scene: Scene) -> Floats:
    """The nearest vehicle takes the order: values fall with the minutes to the pick-up, and stay above 0."""
    longest = scene.pick_up.max(initial=0)
    return 1.0 / (1.0 + longest) + (longest - scene.pick_up).astype(float)


def rows_of(minutes: Sequence[Minute], city: City, *, version: int) -> Batch:
    """What was accepted as rows, in the order of time.

    Args:
        minutes: of an episode.
        city: of which they are.
        version: of the policy.

    Returns:
        Transitions ``[n]`` with the vehicle's numbers as observation and the order's column as action. Columns: ``city``, ``minute``,
        ``stored`` (the minute of the vehicle's next order; the last of the episode, for its last row), ``vehicle`` (of all cities), ``gap``
        (minutes between them, -1 for the last), ``fairness``, ``forced`` and ``table``, which names the row of the facts ``orders``
        ``[M, O, G]`` and ``open`` ``[M, O]``.
    """
    if not any((each.choice >= 0).any() for each in minutes):
        return Batch(Transitions.none())
    width = max(each.scene.orders.shape[1] for each in minutes)
    tables, is_open, parts = [], [], []
    for number, each in enumerate(minutes):
        count = len(each.choice)
        empty = width - each.scene.orders.shape[1]
        tables.append(np.pad(each.scene.orders, ((0, 0), (0, empty), (0, 0))))
        is_open.append(np.pad(each.scene.open, ((0, 0), (0, empty))))
        place, vehicle = np.nonzero(each.choice >= 0)
        chosen = each.choice[place, vehicle]
        pair = (place, vehicle, chosen)
        parts.append(
            {
                "observation": each.scene.vehicles[place, vehicle],
                "action": chosen,
                "reward": each.reward[place, vehicle],
                "share": each.value[pair],
                "forced": each.forced[pair],
                "city": place,
                "minute": np.full(len(place), each.minute),
                "vehicle": place * city.vehicles + vehicle,
                "fairness": each.fairness[place],
                "table": number * count + place,
            }
        )
    found = {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}
    gap, stored = gaps(found["vehicle"], found["minute"], city.minutes - 1)
    count = len(gap)
    rows = Transitions(
        observation=found.pop("observation").float(),
        action=found.pop("action"),
        reward=found.pop("reward").float(),
        terminated=gap == LAST,
        truncated=torch.zeros(count, dtype=torch.bool),
        sampler_logp=found.pop("share").log().float(),
        source=torch.full((count,), int(Source.FRESH)),
        version=torch.full((count,), version),
        batch_size=[count],
    )
    facts = {"orders": torch.from_numpy(np.concatenate(tables)).float(), "open": torch.from_numpy(np.concatenate(is_open))}
    return Batch(rows, found | {"gap": gap, "stored": stored}, facts=facts)


def gaps(vehicle: Tensor, minute: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """Minutes until the same vehicle's next row (-1 for its last), and the minute of that next row (``end`` for its last), ``[n]`` each."""
    order = torch.argsort(vehicle, stable=True)
    following = torch.full_like(minute, LAST)
    same = vehicle[order][1:] == vehicle[order][:-1]
    following[order[:-1][same]] = minute[order[1:][same]]
    last = following == LAST
    return torch.where(last, LAST, following - minute), torch.where(last, end, following)


@dataclass(frozen=True)
class FleetRollout:
    """Plays one episode of several cities."""

    writes: ClassVar[tuple[str, ...]] = ("city", "minute", "stored", "vehicle", "gap", "fairness", "forced", "table")
    refuses: ClassVar[dict[str, str]] = {
        "lag": "its data are of the present policy alone",
        "replay_share": "samples of earlier episodes are not kept",
        "expert_share": "no expert matches orders to vehicles",
        "updates_per_batch": "updates_per_turn says how many gradient steps there are",
    }

    cities: int = option(4, at_least=1)
    """Cities side by side, each with a demand of its own."""
    exploration: float = option(1.0, share=True)
    """Probability with which a pair of vehicle and order is forced on the matching, in the first turn; 0 forces none at any time."""
    exploration_decay: float = option(0.95, above=0, at_most=1)
    """Factor of that probability per turn."""
    exploration_floor: float = option(5e-4, share=True)
    """What it does not fall below."""
    forced_rows: bool = option(True)
    """Learn from orders that exploration has forced, as the release does, although their stored probability is not that of taking them."""
    known: Any = None
    """A :class:`~rheostat.credit.fleet_advantages.FleetAdvantage` by which vehicles are told their cumulative advantage instead of their
    cumulative reward."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.exploration:
            return {}
        return dict.fromkeys(("exploration_decay", "exploration_floor", "forced_rows"), "exploration is 0, so leave it alone")

    @property
    def environments(self) -> int:
        """Cities side by side."""
        return self.cities

    def probability(self, turn: int) -> float:
        """Of forcing a pair, in a turn counted from 0."""
        return float(max(self.exploration_floor, self.exploration * self.exploration_decay**turn)) if self.exploration else 0.0

    def collect(self, context: Any) -> Batch:
        """Everything that was accepted in an episode."""
        seeds = [derive_seed(context.streams.seed, "demand", context.turns, index) for index in range(self.cities)]
        cities = Cities(context.city, seeds)
        minutes = play(
            cities,
            of_policy(context.models["policy"].network),
            exploration=self.probability(context.turns),
            generator=context.streams["exploration"],
            known=self.known,
        )
        batch = rows_of(minutes, context.city, version=context.updates)
        forced = batch.columns.get("forced")
        batch.metrics |= {"exploration": self.probability(context.turns)}
        if forced is not None:
            batch.metrics["forced_share"] = float(forced.double().mean())
            if not self.forced_rows:
                batch.columns["used"] = ~forced
        context.played(cities)
        return batch
