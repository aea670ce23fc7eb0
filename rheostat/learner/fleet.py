"""Building the learner of a fleet: many vehicles that share one policy, and a matching that decides about all of them at once.

The parts are those of every learner; what is of its own is the context: a turn is one episode of several cities, and a step of the budget
is a minute of a city.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rheostat.collect.fleet.fleet_episodes import Minute, nearest, of_policy, play
from rheostat.collect.fleet.matching import match
from rheostat.credit.fleet_advantages import FleetAdvantage
from rheostat.errors import RheostatError
from rheostat.learner.compute import Asked, Compute
from rheostat.learner.context import LearnerContext
from rheostat.learner.control import composition_of, prepare
from rheostat.learner.learner import Composition, Learner
from rheostat.learner.starting_weights import StartingWeights
from rheostat.options import refuse_idle
from rheostat.parts import Batch, Metrics
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.fleet.city import Cities, City, Scene
from rheostat.tasks.fleet.roads import Ints

MakeCity = Callable[[], City]
EPISODES_KEPT = 100
"""Whose mean the log shows."""


class FleetContext(LearnerContext):
    """What the parts of a fleet's method share.

    Args:
        make: the task's city; it is called again for every evaluation, which may be in another city.
        streams: the run's random streams.
        total_steps: the budget of city minutes.
        who: the method's name, for sentences.
        known: advantages that vehicles are told, see :class:`~rheostat.collect.fleet.fleet_episodes.FleetRollout`.

    Attributes:
        city: that is learned in.
        turns: episodes of all cities side by side.
    """

    unit = "environment steps"

    def __init__(self, make: MakeCity, streams: Streams, total_steps: int, *, who: str, known: FleetAdvantage | None) -> None:
        super().__init__(streams, total_steps)
        self.make, self.who, self.known = make, who, known
        self.city = make()
        self.compute = Compute()
        self.turns = self.minutes = self.episodes = 0
        self.finished: deque[list[float]] = deque(maxlen=EPISODES_KEPT)

    # --- what parts ask ---------------------------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        return self.minutes

    @property
    def origin(self) -> dict[str, int | str]:
        """Where the city's data come from, for printing; nothing where they are drawn."""
        return {"roads and trips of": self.city.licence} if self.city.licence else {}

    @property
    def policy(self) -> Any:
        """The deployed network."""
        return self.models[self.deployed].network

    def values(self, vehicles: Tensor) -> Tensor:
        """The critic's values ``[n]`` of vehicles ``[n, F]``, without a gradient."""
        with torch.no_grad():
            found: Tensor = self.models["value"].network(vehicles)
        return found

    def played(self, cities: Cities) -> None:
        """Count an episode that was learned from."""
        self.turns += 1
        self.minutes += len(cities.seeds) * self.city.minutes
        self.episodes += len(cities.seeds)
        tally = cities.tally
        self.finished.extend(
            [float(each) for each in row]
            for row in zip(tally.reward, tally.served, tally.pick_up, tally.orders, tally.outside, strict=True)
        )

    def measure(self, purpose: str, episodes: int, value: Any = None, city: City | None = None) -> tuple[Cities, list[Minute]]:
        """Episodes without exploration, with demand that nobody learns from; the same one every time.

        Args:
            purpose: of the measurement, which names its demand.
            episodes: how many.
            value: of pairs; None takes the deployed policy's.
            city: None takes the one that is learned in.
        """
        cities = Cities(city or self.city, [derive_seed(self.streams.seed, purpose, index) for index in range(episodes)])
        return cities, play(cities, value or of_policy(self.policy), known=self.known)

    # --- what the learner asks --------------------------------------------------------------------------------------------------------

    def empty(self, batch: Batch) -> bool:
        """Whether nothing was accepted."""
        return not len(batch.rows)

    def finish_turn(self, batch: Batch) -> Metrics:
        """The last episodes, at most 100, and a measurement where one is due."""
        reward, served, pick_up, orders, outside = (list(each) for each in zip(*self.finished, strict=True))
        found: Metrics = {
            "episodes": self.episodes,
            "episode_return": statistics.fmean(reward),
            "episode_length": float(self.city.minutes),
            "served": statistics.fmean(served),
            "orders": statistics.fmean(orders),
        }
        found |= {"pick_up_minutes": sum(pick_up) / sum(served)} if sum(served) else {}
        found |= {"orders_outside": statistics.fmean(outside)} if sum(outside) else {}
        return found | self.measure_due(self.episodes_due())

    def evaluate(self, episodes: int) -> Metrics:
        """Reward, served orders and pick-up minutes of the policy without exploration, and the reward of the nearest-vehicle matching."""
        city = self.make()
        cities, _ = self.measure("evaluation", episodes, city=city)
        plain, _ = self.measure("evaluation", episodes, nearest, city)
        tally, reward = cities.tally, cities.tally.reward.tolist()
        found: Metrics = {
            "evaluation_return": statistics.fmean(reward),
            "evaluation_deviation": statistics.stdev(reward) if episodes > 1 else 0.0,
            "evaluation_length": float(city.minutes),
            "evaluation_episodes": episodes,
            "evaluation_served": float(tally.served.mean()),
            "evaluation_nearest_return": float(plain.tally.reward.mean()),
        }
        served = int(tally.served.sum())
        return found | ({"evaluation_pick_up_minutes": float(tally.pick_up.sum()) / served} if served else {})

    def act(self, observation: Any, memory: Any = None) -> Ints:
        """Which order each vehicle takes, ``[C, N]``, the order's column or -1.

        Args:
            observation: a :class:`~rheostat.tasks.fleet.city.Scene`.
            memory: none.

        Raises:
            RheostatError: something else.
        """
        self.remember(memory)
        if not isinstance(observation, Scene):
            raise RheostatError(f"The policy of {self.who} matches the orders of a whole scene: hand over Cities(...).scene(totals).")
        return match(of_policy(self.policy)(observation), observation.free, observation.open)

    def remember(self, episodes: Any) -> None:
        """Nothing can be remembered.

        Raises:
            RheostatError: something is asked for.
        """
        if episodes is not None:
            raise RheostatError(f"The policy of {self.who} acts on single scenes and has no memory: leave it out.")

    def restart_episodes(self) -> None:
        """Nothing to begin anew: between two turns no episode is under way."""

    def state_dict(self) -> dict[str, Any]:
        """Counters and streams."""
        own = {"turns": self.turns, "minutes": self.minutes, "episodes": self.episodes, "finished": [list(each) for each in self.finished]}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.turns, self.minutes, self.episodes = state["turns"], state["minutes"], state["episodes"]
        self.finished = deque((list(each) for each in state["finished"]), maxlen=EPISODES_KEPT)

    def close(self) -> None:
        """Nothing is open."""


def build(
    config: Any,
    who: str,
    make: MakeCity,
    streams: Streams,
    total_steps: int,
    *,
    policy: Any = None,
    weights: StartingWeights | None = None,
    compute: Asked = "plain",
) -> Learner:
    """The learner of a fleet's method.

    Args:
        config: the method's dataclass object.
        who: its name.
        make: makes the task's city.
        streams: the run's random streams.
        total_steps: the budget of city minutes.
        policy: the user's network.
        weights: of another run, to begin with.
        compute: who makes the gradient steps; ``context.compute`` of the result says who does.

    Raises:
        RheostatError: what :func:`~rheostat.learner.control.composition_of` refuses, a network of the user's, or a city in which nothing
            can be learned.
    """
    composition = composition_of(config, who)
    assert isinstance(composition, Composition)
    if policy is not None:
        raise RheostatError(f"{who} makes its own network, which scores pairs of a vehicle and an order: set hidden instead.")
    context = FleetContext(make, streams, total_steps, who=who, known=composition.collect.known)
    refuse_nothing_to_learn(context.city, config.advantage)
    context.begins_with, context.compute.asked = weights, compute
    prepare(composition, context)  # type: ignore[arg-type]
    found = Learner(config, composition, context)
    context.compute.settle(who)
    refuse_idle(config, who, context)
    return found


def refuse_nothing_to_learn(city: City, advantage: FleetAdvantage) -> None:
    """Refuse a city in which no gradient can say anything.

    Raises:
        RheostatError: it has no orders, or one vehicle whose rewards are compared with those of the others.
    """
    if not city.demand.rate:
        raise RheostatError(f"{city.name} has no orders, so there is nothing to learn: raise demand.")
    if city.vehicles == 1 and advantage.groups == "minute":
        raise RheostatError(
            f"{city.name} has one vehicle, and its reward is compared with those of the other vehicles of the same minute, which are none: "
            "add vehicles, or set standardise to episode or none."
        )
