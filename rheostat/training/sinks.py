"""Optional copies of the metrics for other people's dashboards; ``metrics.jsonl`` stays the truth.

A dashboard never harms the run: where it cannot be opened or written to (no network, no login, a full disk), a sentence says so and the run
goes on without it. Two runs whose folders have one name do not merge in a dashboard: every run has an identity of its own, in
``trackers.json``. Dashboards that cannot take rows back are not told again what they have seen before a crash: the rows are the same.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from rheostat.errors import MissingExtra, shown_error, unknown
from rheostat.files import write_atomically
from rheostat.options import flatten

PROJECT = "rheostat"
"""The project, or experiment, that all runs are in."""
TRACKERS = "trackers.json"
INIT_SECONDS = 30
"""Seconds that W&B may take to answer."""
LONGEST_PARAMETER, PARAMETERS_AT_A_TIME = 500, 100
"""What MLflow takes."""

Say = Callable[[str], None]


class Sink(Protocol):
    """Somewhere metrics are copied to."""

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Copy a row of the log."""
        ...

    def close(self) -> None:
        """Write what is still in memory."""
        ...


class Identity:
    """What a run is called in dashboards, and how far each of them has been told about it.

    Args:
        directory: of the run. A copy of it is another run; where it is moved to, it stays the same.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / TRACKERS
        here = {"folder": str(directory.resolve()), "inode": directory.stat().st_ino}
        found: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.path.read_text())
        if "id" not in found or (found["folder"] != here["folder"] and found["inode"] != here["inode"]):
            found = {"id": uuid.uuid4().hex[:12]}
        self.facts = found | here
        self.id = str(self.facts["id"])
        self.name = f"{directory.name}-{self.id[:4]}"

    def told(self, tracker: str) -> int:
        """The last step that a dashboard has seen; -1 before any."""
        return int(self.facts.get("told", {}).get(tracker, -1))

    def tell(self, tracker: str, steps: int) -> None:
        """Note that a dashboard has seen a step."""
        self.keep(told=self.facts.get("told", {}) | {tracker: steps})

    def keep(self, **facts: Any) -> None:
        """Write something down."""
        self.facts |= facts
        write_atomically(self.path, json.dumps(self.facts))


class TensorBoard:
    """Event files in ``directory/tensorboard``. When a run resumes from a checkpoint, rows after it are purged: they are written again."""

    package = "tensorboard"

    def __init__(self, directory: Path, settings: dict[str, Any], begun: int | None, say: Say) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=None if begun is None else begun + 1)

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write every number of one row."""
        for name, value in numbers(metrics).items():
            self.writer.add_scalar(name, value, steps)

    def close(self) -> None:
        """Flush."""
        self.writer.close()


class Forward(ABC):
    """A dashboard that cannot take rows back: it is told every step once.

    Args:
        directory: of the run.
        begun: steps after which a run goes on; None at its beginning, when everything is told.
    """

    package = ""

    def __init__(self, directory: Path, begun: int | None) -> None:
        self.identity = Identity(directory)
        self.last = -1 if begun is None else self.identity.told(self.package)

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write one row, unless it is there already."""
        if steps > self.last:
            self.send(steps, metrics)
            self.identity.tell(self.package, steps)

    @abstractmethod
    def send(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write one row."""


class Trackio(Forward):
    """A local trackio project."""

    package = "trackio"

    def __init__(self, directory: Path, settings: dict[str, Any], begun: int | None, say: Say) -> None:
        import trackio

        super().__init__(directory, begun)
        self.trackio: Any = trackio
        trackio.init(project=PROJECT, name=self.identity.name, config=settings, resume="allow")

    def send(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write one row."""
        self.trackio.log(dict(metrics), step=steps)

    def close(self) -> None:
        """Flush."""
        self.trackio.finish()


class WandB(Forward):
    """A Weights & Biases run. Without a login, or where W&B does not answer, it is kept offline in the run's directory."""

    package = "wandb"

    def __init__(self, directory: Path, settings: dict[str, Any], begun: int | None, say: Say) -> None:
        import wandb

        super().__init__(directory, begun)
        options: dict[str, Any] = {"project": PROJECT, "name": directory.name, "id": self.identity.id, "dir": directory}
        options |= {"config": settings, "resume": "allow", "reinit": "create_new"}

        def begin(mode: Any) -> Any:
            return wandb.init(**options, mode=mode, settings=wandb.Settings(console="off", silent=True, init_timeout=INIT_SECONDS))

        mode = os.environ.get("WANDB_MODE")
        later = f"it is kept offline; `wandb sync {directory / 'wandb' / 'offline-run-*'}` sends it later."
        if mode is None and not wandb.api.api_key:
            mode = "offline"
            say(f"W&B has no login here (`wandb login`), so {later}")
        try:
            self.run = begin(mode or "online")
        except Exception as error:
            if mode == "offline":
                raise
            say(f"W&B cannot be reached ({shown_error(error)}), so {later}")
            self.run = begin("offline")

    def send(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write one row."""
        self.run.log(dict(metrics), step=steps)

    def close(self) -> None:
        """Flush."""
        self.run.finish()


class MLflow(Forward):
    """An MLflow run where ``MLFLOW_TRACKING_URI`` says, else in the file store ``mlruns`` beside the run's directory."""

    package = "mlflow"

    def __init__(self, directory: Path, settings: dict[str, Any], begun: int | None, say: Say) -> None:
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if place is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which newer versions ask for
            place = (directory.resolve().parent / "mlruns").as_uri()
        from mlflow import MlflowClient
        from mlflow.entities import Param

        super().__init__(directory, begun)
        self.client: Any = MlflowClient(tracking_uri=place)
        run = None if begun is None else self.identity.facts.get("mlflow")
        if run is None:
            experiment = self.client.get_experiment_by_name(PROJECT)
            number = self.client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
            run = self.client.create_run(number, run_name=self.identity.name, tags={"rheostat.id": self.identity.id}).info.run_id
            said = [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in flatten(settings)]
            for first in range(0, len(said), PARAMETERS_AT_A_TIME):
                self.client.log_batch(run, params=said[first : first + PARAMETERS_AT_A_TIME])
            self.identity.keep(mlflow=run)
        else:
            self.client.update_run(run, status="RUNNING")
        self.run: str = run

    def send(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write every number of one row."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run, metrics=[Metric(name, value, now, steps) for name, value in numbers(metrics).items()])

    def close(self) -> None:
        """Say that nothing more comes for now."""
        self.client.set_terminated(self.run)


Kind = type[TensorBoard] | type[Trackio] | type[WandB] | type[MLflow]
SINKS: dict[str, Kind] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": WandB, "mlflow": MLflow}


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers of a row."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


class Guarded:
    """A sink whose failures are said once and cost the run nothing.

    Args:
        name: of the sink.
        open: makes it.
        say: is told, in a sentence, that it failed.
    """

    def __init__(self, name: str, open: Callable[[], Sink], say: Say) -> None:
        self.name, self.say = name, say
        self.sink: Sink | None = None
        self.sink = self._try(open)

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            self.sink = None
            self.say(f"The dashboard {self.name} failed ({type(error).__name__}: {shown_error(error)}): the run goes on without it.")

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Copy a row of the log, if the sink works."""
        if (sink := self.sink) is not None:
            self._try(lambda: sink.log(steps, metrics))

    def close(self) -> None:
        """Write what is still in memory."""
        if (sink := self.sink) is not None:
            self._try(sink.close)


def check_sinks(names: Sequence[str]) -> None:
    """Refuse sinks that cannot be opened here, before anything is spent.

    Raises:
        RheostatError: an unknown name. MissingExtra: its package is not installed.
    """
    for name in names:
        if name not in SINKS:
            raise unknown("sink", name, SINKS)
        package = SINKS[name].package
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, name, f"Logging to {name}")


def open_sinks(names: Sequence[str], directory: Path, settings: dict[str, Any], begun: int | None = None, say: Say = print) -> list[Sink]:
    """Open the named sinks.

    Args:
        names: of :data:`SINKS`.
        directory, settings: of the run.
        begun: steps after which a run resumes; None at its beginning.
        say: is told, in sentences, what does not work.

    Raises:
        RheostatError: an unknown name. MissingExtra: its package is not installed.
    """
    check_sinks(names)
    return [Guarded(name, lambda kind=SINKS[name]: kind(directory, settings, begun, say), say) for name in names]  # type: ignore[misc]
