"""What a learned model costs beside SAC: ``python -m benchmarks.model_based``.

SAC, MBPO and VaGraM on HalfCheetah-v5: one environment, one gradient step per environment step, batches of 256, hidden layers of 256-256,
after the same uniform steps. The models are those of the methods (seven networks of four layers of 200), fitted every 250 steps in at
most ``PASSES`` passes, with 10 rollouts of one step per environment step; the unit is environment steps, and a turn holds whole rounds.

Every side is a process on one thread, and all of them take turns (:mod:`benchmarks.race`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks import race
from benchmarks.control import quiet
from benchmarks.off_policy import Ours, method_of
from benchmarks.race import Side, Trainer, Work
from benchmarks.rows import machine

EVERY, START, PASSES = 250, 1_000, 5
SMALL: dict[str, Any] = {}
"""Options of a toy form."""
SIDES = ("sac", "mbpo", "vagram")


def options_of(name: str) -> dict[str, Any]:
    """What differs from a method's defaults."""
    common = {"steps": 10**7, "start_steps": START, "replay_capacity": 100_000, "update_to_data": 1.0}
    if name == "sac":
        return common
    model = {"model_every": EVERY, "model_passes": PASSES, "model_batch_size": 256, "rollouts_per_step": 10, "imagined_mixing": "rows"}
    return common | model | {"imagined_share": (0.95, 0.95), "rollout_length": (1, 1)} | SMALL


def trainer(name: str) -> Trainer:
    """One of the methods, past its uniform steps and its first round."""
    quiet()
    method = method_of(name, **options_of(name))
    while method.steps < START + 1:
        method.turn()
    return Ours(method)


def side(name: str) -> Side:
    """A side of the race."""
    made: dict[str, Callable[..., Trainer]] = {"sac": sac, "mbpo": mbpo, "vagram": vagram}
    return Side(name, "rheostat", made[name])


def sac() -> Trainer:
    """SAC's."""
    return trainer("sac")


def mbpo() -> Trainer:
    """MBPO's."""
    return trainer("mbpo")


def vagram() -> Trainer:
    """VaGraM's."""
    return trainer("vagram")


def compare(*, turns: int, steps: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for every side."""
    work = Work("models beside SAC, HalfCheetah-v5", "steps", {}, steps, steps)
    return race.race(work, [side(name) for name in SIDES], turns=turns, to_return=False, say=say)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_based", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--turns", type=int, default=3, help="turns of every side")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of the model per turn")
    arguments = parser.parse_args()

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    say(machine())
    rows = compare(turns=arguments.turns, steps=EVERY * arguments.rounds, say=say)
    print(race.dump([rows]) if arguments.json else race.shown(rows))


if __name__ == "__main__":
    main()
