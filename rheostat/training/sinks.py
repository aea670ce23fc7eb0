"""Optional copies of the metrics for other people's dashboards; ``metrics.jsonl`` stays the truth."""

from __future__ import annotations

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
    """Event files in ``directory/tensorboard``."""

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "tensorboard", "Logging to TensorBoard") from error
        self.writer: Any = SummaryWriter(str(directory / "tensorboard"))

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write every number of one row."""
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(name, value, steps)

    def close(self) -> None:
        """Flush."""
        self.writer.close()


class Trackio:
    """A local trackio project named ``rheostat``."""

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        try:
            import trackio
        except ImportError as error:
            raise MissingExtra("trackio", "trackio", "Logging to trackio") from error
        self.trackio: Any = trackio
        trackio.init(project="rheostat", name=directory.name, config=settings, resume="allow")

    def log(self, steps: int, metrics: dict[str, Any]) -> None:
        """Write one row."""
        self.trackio.log(dict(metrics), step=steps)

    def close(self) -> None:
        """Flush."""
        self.trackio.finish()


SINKS: dict[str, type[TensorBoard] | type[Trackio]] = {"tensorboard": TensorBoard, "trackio": Trackio}


def open_sinks(names: tuple[str, ...], directory: Path, settings: dict[str, Any]) -> list[Sink]:
    """Open the named sinks.

    Raises:
        RheostatError: an unknown name. MissingExtra: its package is not installed.
    """
    for name in names:
        if name not in SINKS:
            raise unknown("sink", name, SINKS)
    return [SINKS[name](directory, settings) for name in names]
