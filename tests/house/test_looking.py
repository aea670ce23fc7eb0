"""Looking never changes training: a run that is looked at in every way after every row of its log ends where one does that nobody looks at.

For every method of the table: its weights, moments, kept data, counters and random streams, the generators of the process, and every number
of its log. Looking is the evaluation (due after every update, and asked for from outside), the saving of rollouts, the replay of the run's
next batch through two methods, the microscope, a checkpoint, and drawing the run.
"""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rheostat
from rheostat.api import settings_for
from rheostat.diagnostics.microscope.gradients import NO_REWARD, looked_at
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.reporting.plots import plot_run
from rheostat.training import checkpoint
from rheostat.training.progress import Silent
from rheostat.training.run import Run
from tests.golden.cases import CASES, Setting, setting
from tests.golden.inputs import given
from tests.tiny_control import having

DRAWN = ("grpo", "ppo")
"""Methods whose runs are drawn, and put under the microscope: one of each domain, since neither depends on the method."""
NOT_REPLAYED = {*NO_REWARD, "dialtree-rpo", "treepo"}
"""Language methods whose batch no method can be shown again."""
OWN_POLICY = ("pmoe-ppo",)
"""Methods with a policy that no other method has: they are shown the batch beside themselves with another setting."""
OFTEN = 4
"""Rows of the log after which somebody looks at most."""


def plainest(method: str) -> Setting:
    """The golden run that says the least."""
    known = [name for name in CASES if name.startswith(f"{method}/")]
    assert known, f"{method} has no golden run"
    return setting(f"{method}/plain" if f"{method}/plain" in known else next(iter(known)))


def created(directory: Path, method: str, **more: Any) -> tuple[Run, dict[str, Any]]:
    """A small run of a method, untrained, and the objects that it was made with; of further options, those that the method has."""
    case = plainest(method)
    own = given({"task": case.task, "policy": case.options.get("policy")})
    options = given({name: value for name, value in case.options.items() if name not in ("policy", "preset", "evaluate_episodes")})
    options |= (
        {"evaluation_episodes": 0, "evaluate_every": 0, "rollouts_kept": 0} | ({"log_every": 40} if method == "uni-o4" else {}) | more
    )
    if not options["evaluate_every"]:
        options.pop("evaluate_episodes", None)
    objects = {"task": None if isinstance(own["task"], str) else own["task"], "policy": own["policy"]}
    settings = settings_for(method, own["task"], preset=case.options.get("preset"), **having(method, options))
    return Run.create(directory, settings, **objects), objects


def process_generators() -> tuple[Any, ...]:
    """States of the generators that the whole process shares."""
    numpy: Any = np.random.get_state(legacy=False)
    return random.getstate(), torch.get_rng_state().tolist(), numpy["state"]["key"].tolist(), numpy["state"]["pos"]


class Looks(Silent):
    """Looks at a run while it trains, in every way.

    Args:
        run: while it trains.
        objects: that it was made with.
    """

    def __init__(self, run: Run, objects: dict[str, Any]) -> None:
        self.run, self.objects, self.count = run, objects, 0

    def update(self, done: int, metrics: dict[str, Any]) -> None:
        """After a row of the log."""
        if self.count == OFTEN:
            return
        self.count += 1
        before, run = process_generators(), self.run
        assert run.evaluate(1)
        run.method.rollouts(3)
        run.save()
        if self.count == 2:
            self.look_closely()
        assert process_generators() == before

    def look_closely(self) -> None:
        """What takes longer, once."""
        method = self.run.settings.method
        others = ("reinforce-pp", "reinforce") if table.entry(method).domain == "language" else ("ppo", "a2c")
        other = f"{method}:clip=0.1" if method in OWN_POLICY else next(one for one in others if one != method)
        pair = [method, other]
        if looked_at(method) and method not in NOT_REPLAYED:
            assert rheostat.disagree(self.run.directory, pair, **self.objects).rows
        else:
            with pytest.raises(RheostatError, match=r"cannot replay|never sees a reward|no policy-gradient method"):
                rheostat.disagree(self.run.directory, pair, **self.objects)
        if method in DRAWN:
            plot_run(self.run, self.run.directory / "curves.png")
            assert rheostat.microscope([method], batches=4).rows


class Listens(rheostat.Callback):
    """Looks when it is told of a measurement."""

    def on_evaluation(self, run: Run, metrics: dict[str, Any]) -> None:
        """Measure once more."""
        before = process_generators()
        assert run.evaluate(1) and process_generators() == before


def state_of(run: Run) -> tuple[Any, dict[str, Tensor]]:
    """Everything that training goes on from."""
    return checkpoint.split_state(run.method.state_dict())


def unlike(one: Any, other: Any, where: str = "") -> list[str]:
    """Places in which two nested states differ, when the next evaluation is due aside."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [each for name in one.keys() | other.keys() for each in unlike(one.get(name), other.get(name), f"{where}.{name}")]
    if where.endswith("stores.log.next") and isinstance(one, list):
        one, other = one[:1], other[:1]
    if where.endswith("calendar"):
        return []
    return [] if one == other else [f"{where}: {one!r:.60} and {other!r:.60}"]


QUICK = ("ppo", "sac", "iql", "grpo", "dpo")
"""One method of each kind; the others are tried in the nightly tests."""


@pytest.mark.parametrize("method", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in table.METHODS])
def test_looking_changes_nothing(method: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone, _ = created(tmp_path / "alone", method)
        start = state_of(alone)[1]
        alone.train()
        often = 1 if table.entry(method).domain == "language" else 30
        looked = {"evaluate_every": often, "evaluate_episodes": 1, "evaluation_prompts": 4, "rollouts_kept": 3}
        looked |= {} if table.entry(method).domain == "compression" else {"save_best": True}
        seen, objects = created(tmp_path / "seen", method, evaluation_episodes=1, **looked)
        watching = Looks(seen, objects)
        seen.train(progress=watching, callbacks=[Listens()])
    assert (seen.directory / "best" / "best.json").exists() == bool(seen.method.context.measures)
    assert watching.count >= 2 and seen.summary.keys() > alone.summary.keys()
    if table.entry(method).domain == "control":
        measured = [row["steps"] for row in seen.metrics if "evaluation_return" in row]
        assert measured[0] == 0 and len(measured) > 2 and not any("evaluation_return" in row for row in alone.metrics)
    (facts, tensors), (seen_facts, seen_tensors) = state_of(alone), state_of(seen)
    assert unlike(facts, seen_facts) == [] and tensors.keys() == seen_tensors.keys()
    assert [name for name, value in tensors.items() if not same(value, seen_tensors[name])] == []
    assert any(not same(value, start[name]) for name, value in tensors.items() if name in start)
    rows, seen_rows = alone.metrics, {row["iteration"]: row for row in seen.metrics}
    for row in rows:
        assert {name: seen_rows[row["iteration"]].get(name) for name in row} == row
    alone.close()
    seen.close()


def same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit; NaN is NaN."""
    return one.shape == other.shape and torch.equal(one.nan_to_num(nan=-1.25), other.nan_to_num(nan=-1.25))
