"""Callbacks of a run: those of the user, the one that keeps the best policy, and the one that stops early.

A callback is called between two iterations of the loop, when the state is consistent. It may evaluate (``run.evaluate``, ``run.policy``),
save (``run.save``) and end the run (``run.stop``). An error that it raises stops training, and the run can be resumed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.errors import RheostatError, unknown
from rheostat.json_text import NotJSON
from rheostat.json_text import read as read_json

if TYPE_CHECKING:
    from rheostat.training.run import Run
    from rheostat.training.settings import Settings

HOOKS = ("on_update", "on_evaluation", "on_checkpoint")
MEASURED: dict[str, tuple[str, ...]] = {
    "control": ("evaluation_return", "evaluation_length", "normalised_score"),
    "language": ("accuracy", "validation_preference_accuracy"),
    "compression": (),
}
"""Metrics of an evaluation by which a run may be stopped, by domain."""
SPOKEN = {"validation_reward": "accuracy"}
"""Metrics as tables and curves name them, where the log has another name."""
MAIN = ("evaluation_return", "accuracy", "validation_preference_accuracy")
"""Metrics by which the best policy is chosen: the first that an evaluation has."""


class Callback:
    """Base class that does nothing; a subclass overrides the methods it needs. Any object with some of these methods is a callback."""

    def on_update(self, run: Run, metrics: dict[str, Any]) -> None:
        """After every row of the log, which holds ``metrics``."""

    def on_evaluation(self, run: Run, metrics: dict[str, Any]) -> None:
        """After an evaluation during training, with the row that holds it: ``evaluation_return`` or ``accuracy`` among others."""

    def on_checkpoint(self, run: Run, path: Path) -> None:
        """After a checkpoint was written to ``path``."""


class KeepBest(Callback):
    """Keeps the policy of the best evaluation so far in ``best``; of equal ones the first."""

    def __init__(self) -> None:
        self.best: float | None = None  # None: nothing was compared in this process yet

    def on_evaluation(self, run: Run, metrics: dict[str, Any]) -> None:
        """Compare with the best of the evaluations before, which the log holds; it is read once."""
        name = next((name for name in MAIN if name in metrics), None)
        if name is None or not math.isfinite(metrics[name]):
            return
        if self.best is None:
            before = (row[name] for row in run.metrics if name in row and row["iteration"] < metrics["iteration"])
            self.best = max(before, default=-math.inf)
        if metrics[name] > self.best:
            self.best = metrics[name]
            run.keep_best({key: metrics[key] for key in ("steps", "updates", name)})


class StopAt(Callback):
    """Ends the run when an evaluation reaches a value.

    Args:
        metric: of the evaluation.
        value: the one to reach.
    """

    def __init__(self, metric: str, value: float) -> None:
        self.metric, self.value = SPOKEN.get(metric, metric), value

    def on_evaluation(self, run: Run, metrics: dict[str, Any]) -> None:
        """Stop if the value is reached."""
        if self.metric not in metrics:
            raise RheostatError(f"stop_at names {self.metric}, which this run does not measure: it has {', '.join(run.method.measured)}.")
        if metrics[self.metric] >= self.value:
            run.stop(f"{self.metric} is {metrics[self.metric]:.6g}, and stop_at asks for {self.value:.6g}")


def standing(settings: Settings) -> list[Callback]:
    """The callbacks that a run's settings ask for: the best policy is kept before the run may end."""
    keep = [KeepBest()] if settings.save_best else []
    return [*keep, *([StopAt(*settings.stop_at)] if settings.stop_at else [])]


def check_measured(settings: Settings, domain: str, measures: bool) -> None:
    """Refuse callbacks that need evaluations where there are none.

    Args:
        settings: of the run.
        domain: of its method.
        measures: whether the policy is evaluated during training.

    Raises:
        RheostatError: no measurement, or a metric of none.
    """
    asked = [name for name in ("save_best", "stop_at") if getattr(settings, name)]
    if asked and not MEASURED[domain]:
        raise RheostatError(
            f"{asked[0]} goes by measurements while training, and {settings.method} measures its result at the end alone: leave it out."
        )
    names = [*MEASURED[domain], *(spoken for spoken, name in SPOKEN.items() if name in MEASURED[domain])]
    if settings.stop_at and settings.stop_at[0] not in names:
        raise unknown("metric for stop_at", settings.stop_at[0], names)
    if asked and not measures:
        raise RheostatError(f"{asked[0]} goes by measurements while training, and evaluate_every is 0: set that too.")


def listening_ones(callbacks: Iterable[Any]) -> list[Any]:
    """The callbacks of a user, checked.

    Raises:
        RheostatError: one that listens to nothing, or to what there is not.
    """
    found = list(callbacks)
    for each in found:
        name = each.__name__ if isinstance(each, type) else type(each).__name__
        if isinstance(each, type):
            raise RheostatError(f"The callback {name} is a class: hand over an object of it, {name}().")
        for method in dir(each):
            if method.startswith("on_") and method not in HOOKS:
                raise unknown(f"method of the callback {name}", method, HOOKS)
        if not any(callable(getattr(each, hook, None)) for hook in HOOKS):
            raise RheostatError(f"The callback {name} listens to nothing: give it one of the methods {', '.join(HOOKS)}.")
    return found


def call(callbacks: Iterable[Any], hook: str, run: Run, told: Any) -> None:
    """Call a method of every callback that has it. An error is raised unchanged, with a note that names the callback."""
    for each in callbacks:
        method = getattr(each, hook, None)
        if method is None:
            continue
        try:
            method(run, dict(told) if isinstance(told, dict) else told)
        except RheostatError:
            raise
        except Exception as error:
            error.add_note(
                f"This happened in {hook} of your callback {type(each).__name__}, at step {run.method.steps:,}. The run is intact: "
                f"`rheostat resume {run.directory}` (or rheostat.resume with callbacks=...) goes on from its newest checkpoint."
            )
            raise


def best_in(directory: Path) -> dict[str, Any]:
    """The facts about the best policy that a run has kept.

    Raises:
        RheostatError: it has kept none, or the file is damaged.
    """
    path = directory / "best" / "best.json"
    if not path.exists():
        raise RheostatError(f"{directory} has kept no best policy: train with --save-best and --evaluate-every.")
    try:
        found: dict[str, Any] = read_json(path)
    except (OSError, NotJSON) as error:
        raise RheostatError(f"{path} is damaged: {error}.") from error
    return found
