"""Optional copies of the metrics for other people's dashboards; ``metrics.jsonl`` stays the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from rheostat.errors import MissingExtra, unknown


class Sink(Protocol):
    """Somewhere metrics are copied to."""

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Copy a row of the log."""
        ...

    def close(self) -> None:
        """Write what is still in memory."""
        ...


class TensorBoard:
    """Event files in ``directory/tensorboard``. Of a run that goes on from a checkpoint, rows after it are purged: they come again."""

    def __init__(self, directory: Path, settings: dict[str, Any], begun: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard", "Logging to TensorBoard") from error
        self.writer: Any = SummaryWriter(str(directory / "tensorboard"), purge_step=None if begun is None else begun + 1)

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write every number of one row."""
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, steps)

    def close(self) -> None:
        """Flush."""
        self.writer.close()


class Trackio:
    """A local trackio project named ``rheostat``. It cannot take rows back, so of a run that goes on from a checkpoint, rows that it has
    already are left out: they are the same. The step it has seen last is in ``directory/trackio.json``."""

    def __init__(self, directory: Path, settings: dict[str, Any], begun: int | None = None) -> None:
        try:
            import trackio
        except ImportError as error:
            raise MissingExtra("trackio", "trackio", "Logging to trackio") from error
        self.trackio: Any = trackio
        self.seen = directory / "trackio.json"
        self.last = json.loads(self.seen.read_text())["steps"] if begun is not None and self.seen.exists() else -1
        trackio.init(project="rheostat", name=directory.name, config=settings, resume="allow")

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write one row, unless it is there already."""
        if steps > self.last:
            self.trackio.log(dict(metrics), step=steps)
            self.seen.write_text(json.dumps({"steps": steps}))

    def close(self) -> None:
        """Flush."""
        self.trackio.finish()


SINKS: dict[str, type[TensorBoard] | type[Trackio]] = {"tensorboard": TensorBoard, "trackio": Trackio}


def open_sinks(names: tuple[str, ...], directory: Path, settings: dict[str, Any], begun: int | None = None) -> list[Sink]:
    """Open the named sinks.

    Args:
        names: of :data:`SINKS`.
        directory, settings: of the run.
        begun: steps after which a run goes on; None at its beginning.

    Raises:
        RheostatError: an unknown name. MissingExtra: its package is not installed.
    """
    for name in names:
        if name not in SINKS:
            raise unknown("sink", name, SINKS)
    return [SINKS[name](directory, settings, begun) for name in names]
