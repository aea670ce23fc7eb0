"""What learning in context costs beside a recurrent memory, in turn on one machine: ``python -m benchmarks.in_context``.

ReLIC on trials of ten episodes of Darkroom (6 x 6 cells, 20 steps) runs beside recurrent PPO on the same trials as episodes (RL^2), with as
many environment steps, environments and units. Of ReLIC two sides: five updates per trial with two passes each, and one update with two
passes, which visits the steps as often as a method without partial updates. Every side is a process on one thread, and all take turns
(:mod:`benchmarks.race`); the unit is environment steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks import race
from benchmarks.race import Side, Work
from benchmarks.rows import machine

TASK = "darkroom"
WORLD = {"size": 6, "horizon": 20}
EPISODES, ENVIRONMENTS, WIDTH = 10, 32, 64
PARTS = 5


class Ours:
    """A method on the trials.

    Args:
        name: of the method.
        world: options of the environments.
        options: of the method.
    """

    def __init__(self, name: str, world: dict[str, Any], **options: Any) -> None:
        from rheostat.api import settings_for
        from rheostat.training.run import build_method

        settings = settings_for(name, TASK, steps=10**9, environment_options=world, num_envs=ENVIRONMENTS, **options)
        self.method: Any = build_method(settings, settings.task)

    def advance(self, steps: int) -> int:
        """Turns of the training loop, to the end of a trial."""
        before = self.method.steps
        while self.method.steps < before + steps:
            self.method.turn()
        return int(self.method.steps - before)

    def episode_return(self) -> float:
        """Of training."""
        return float(self.method.context.collector.metrics().get("episode_return", float("nan")))


def relic(parts: int) -> Ours:
    """ReLIC with so many updates per trial."""
    rollout = ENVIRONMENTS * EPISODES * WORLD["horizon"]
    return Ours("relic", WORLD, preset="small", width=WIDTH, inner=WIDTH, batch_steps=rollout // parts, updates_per_trial=parts)


def recurrent() -> Ours:
    """Recurrent PPO, with as many passes of as many minibatches."""
    rollout = ENVIRONMENTS * EPISODES * WORLD["horizon"]
    world = WORLD | {"trial_episodes": EPISODES}
    return Ours("recurrent-ppo", world, lstm_units=WIDTH, batch_steps=rollout, epochs=2, minibatches=2)


def in_parts() -> Ours:
    """ReLIC with partial updates."""
    return relic(PARTS)


def at_once() -> Ours:
    """ReLIC with one update per trial."""
    return relic(1)


SIDES = [
    Side("recurrent-ppo", "rheostat", recurrent),
    Side("relic, one update", "rheostat", at_once),
    Side("relic, five updates", "rheostat", in_parts),
]


def compare(*, turns: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for every side; a turn is a trial of every environment."""
    steps = ENVIRONMENTS * EPISODES * WORLD["horizon"]
    return race.race(Work("Darkroom in context", "steps", {}, steps, steps), SIDES, turns=turns, to_return=False, say=say)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.in_context", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--turns", type=int, default=5, help="turns of every side")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    say(machine())
    rows = compare(turns=arguments.turns, say=say)
    say(race.shown(rows))
    if arguments.json:
        print(race.dump([rows]))


if __name__ == "__main__":
    main()
