"""Stages: what is refused, what runs once, what a stage without a step does, and what goes on after a stop or a death in any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.learner.control import ControlContext
from rheostat.learner.learner import Composition
from rheostat.learner.stages import GradientSteps, Stage, Staged, Stages
from rheostat.parts import Batch
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.run import Run
from tests.crash import differences
from tests.golden.run import Killed, created, opened
from tests.tiny_control import learner


@dataclass(frozen=True)
class Quiet:
    """Nobody acts, and one gradient step is made."""

    environments: int = 1

    def collect(self, context: Any) -> Batch:
        context.finish_gradient_step()
        return Batch([])


def composition() -> Composition:
    return Composition(Quiet(), [], [], [], {})


def staged(log: list[str], lengths: tuple[int, ...], **last: Any) -> Staged:
    """Stages of so many steps and one that lasts, each of which notes when it starts and finishes."""

    def note(text: str) -> Any:
        return lambda context: log.append(text)

    names = "abcd"[: len(lengths)]
    stages = [
        Stage(name, composition(), GradientSteps(lambda context, n=n: n), start=note(f"start {name}"), finish=note(f"finish {name}"))
        for name, n in zip(names, lengths, strict=True)
    ]
    return Staged([*stages, Stage("last", composition(), start=note("start last"), **last)], {})


def built(log: list[str], lengths: tuple[int, ...]) -> Stages:
    steps = max(1, sum(lengths))
    context = ControlContext(lambda n, s: make("CartPole-v1", num_envs=n, seed=s), Streams(0), steps, environments=1, who="test")
    return Stages(None, staged(log, lengths), context)


def test_a_stage_that_never_ends_before_another_is_refused() -> None:
    wrong = staged([], (2,))
    wrong.stages[0] = replace(wrong.stages[0], until=None)
    with pytest.raises(RheostatError, match="the stage 'a' never ends, so 'last' is never reached"):
        wrong.check("test")
    wrong = staged([], (2, 2))
    wrong.stages[1] = replace(wrong.stages[1], name="a")
    with pytest.raises(RheostatError, match="two stages of one name"):
        wrong.check("test")
    staged([], (2, 2)).check("test")


def test_hooks_run_once_and_stages_without_a_step_are_passed() -> None:
    log: list[str] = []
    one = built(log, (2, 0, 1))
    assert log == []  # building starts nothing
    one.turn()
    assert log == ["start a"] and one.stage.name == "a" and one.steps == 1
    one.turn()
    assert log == ["start a", "finish a", "finish b"] and one.stage.name == "c" and one.steps == 2
    one.turn()
    assert log[-2:] == ["start c", "finish c"] and one.context.acting and one.steps == 3
    one.turn()
    one.turn()
    assert log.count("start last") == 1
    one.close()


def test_a_first_stage_without_a_step_is_passed_at_the_first_turn() -> None:
    log: list[str] = []
    one = built(log, (0, 1))
    one.turn()
    assert log == ["finish a", "start b", "finish b"]
    one.close()


def test_what_has_started_is_not_started_again_after_loading() -> None:
    log: list[str] = []
    one = built(log, (3, 1))
    one.turn()
    state = one.state_dict()
    again: list[str] = []
    other = built(again, (3, 1))
    other.load_state_dict(state)
    assert other.stage.name == "a" and other.steps == 1
    for each in (one, other):
        for _ in range(4):
            each.turn()
    assert log == ["start a", *again] and again == ["finish a", "start b", "finish b", "start last"]
    for each in (one, other):
        each.close()


def test_models_are_bound_once_and_shared() -> None:
    one = learner("iql")
    assert all(each.context is one.context for each in one.learners)
    names = [name for name in one.state_dict() if name.startswith("models.")]
    assert sorted(names) == sorted(f"models.{name}" for name in one.context.models)
    one.close()


# --- deaths ------------------------------------------------------------------------------------------------------------------------------


def counted(run: Run, stage: int, *, last: int | None = None) -> list[int]:
    """Count the turns of a stage from now on, into the list; after the ``last`` one its models have moved, and the run dies in it."""
    learner, count = run.method.learners[stage], [0]
    move = learner.move

    def moved(batch: Batch) -> Any:
        found = move(batch)
        count[0] += 1
        if count[0] == last:
            raise Killed
        return found

    learner.move = moved
    return count


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["iql/plain", *(pytest.param(name, marks=pytest.mark.slow) for name in ("famo2o-cql/plain", "uni-o4/plain"))]
)
def test_a_death_in_any_stage_changes_nothing(name: str, tmp_path: Path) -> None:
    """In the first turn of a stage, when its start has not been saved yet, and in its last."""
    whole = created(tmp_path / "whole", name)
    task, stages = opened(name)[1], range(len(whole.method.learners))
    turns = [counted(whole, stage) for stage in stages]
    whole.train().close()
    for stage in stages:
        for (last,) in {(1,), tuple(turns[stage])}:
            place = tmp_path / f"{stage}-{last}"
            run = created(place, name)
            counted(run, stage, last=last)
            with pytest.raises(Killed):
                run.train()
            run.close()
            Run.load(place, **task).train().close()
            assert differences(tmp_path / "whole", place) == [], (stage, last)
