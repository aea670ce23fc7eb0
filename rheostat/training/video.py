"""A film of one episode of a control policy, as an animated GIF that every browser shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rheostat import plugins
from rheostat.errors import RheostatError, shown_error
from rheostat.policies.control.in_context import TrialMemory
from rheostat.streams import derive_seed
from rheostat.training.settings import CUSTOM

if TYPE_CHECKING:
    from rheostat.training.run import Run

FOLDER = "videos"
MOST_STEPS, MOST_FRAMES, WIDEST = 1_000, 200, 320
"""Environment steps of a film, and what of them is kept: frames, and pixels of their width."""


def record_episode(run: Run, path: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Act deterministically for one episode and keep what it looks like.

    Args:
        run: of a control method with one agent, on a task with a name.
        path: of the film (.gif); None takes ``videos/step-NUMBER.gif`` in the run's directory.

    Returns:
        Where it is, and ``return``, ``length`` and ``frames``.

    Raises:
        RheostatError: the task cannot be drawn here, or the policy is none of control.
    """
    path = path or run.directory / FOLDER / f"step-{run.method.steps:09d}.gif"
    environment = _drawable(run.settings.task, run.settings.environment_options)
    try:
        frames, total, length = _play(run, environment)
    finally:
        environment.close()
    speed = float(environment.metadata.get("render_fps") or 30)
    skip = -(-len(frames) // MOST_FRAMES)
    kept = [_smaller(frame) for frame in frames[::skip]]
    _write(path, kept, 1000 * skip / speed)
    return path, {"return": total, "length": length, "frames": len(kept)}


def newest_video(directory: Path) -> Path | None:
    """The film of the latest step that a run has kept; None where there is none."""
    return max((directory / FOLDER).glob("step-*.gif"), default=None)


def _drawable(task: str, options: dict[str, Any]) -> Any:
    """The task as a Gymnasium environment that draws.

    Raises:
        RheostatError: there is none.
    """
    import gymnasium

    from rheostat.tasks.control.distractors import take_distractors, wrapped
    from rheostat.tasks.control.registration import register

    register()
    name = task.removeprefix("gymnasium:").removeprefix("envpool:")
    if task.startswith(CUSTOM):
        raise RheostatError(f"There is no film of {task.removeprefix(CUSTOM)}: only tasks with a name can be drawn.")
    if name in plugins.added("tasks") and name not in gymnasium.registry:
        raise RheostatError(f"There is no film of {task}: only tasks that Gymnasium knows can be drawn.")
    try:
        distractors, own = take_distractors(options)
        return wrapped(lambda: gymnasium.make(name, render_mode="rgb_array", **own), distractors)()
    except Exception as error:
        raise _no_film(task, error) from error


def _play(run: Run, environment: Any) -> tuple[list[NDArray[np.uint8]], float, int]:
    """Frames, return and length of an episode."""
    memory = run.memory() if hasattr(run.method.policy, "memory") else None
    observation, _ = environment.reset(seed=derive_seed(run.settings.seed, "video") % 2**31)
    frames, total, length, over = [_frame(run, environment)], 0.0, 0, False
    while not over and length < MOST_STEPS:
        observation, reward, terminated, truncated, _ = environment.step(run.policy(observation, memory))
        total, length, over = total + float(reward), length + 1, terminated or truncated
        if isinstance(memory, TrialMemory):
            memory.observe(reward, over)
        frames.append(_frame(run, environment))
    return frames, total, length


def _frame(run: Run, environment: Any) -> NDArray[np.uint8]:
    """What the environment looks like now, ``[height, width, 3]``."""
    try:
        frame = environment.render()
    except Exception as error:
        raise _no_film(run.settings.task, error) from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise RheostatError(f"There is no film of {run.settings.task}: it draws no picture (render_mode rgb_array).")
    return frame


def _no_film(task: str, error: Exception) -> RheostatError:
    return RheostatError(f"There is no film of {task}: it cannot be drawn here ({type(error).__name__}: {shown_error(error)}).")


def _smaller(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every so many pixels, so that a frame is at most :data:`WIDEST` wide."""
    every = -(-frame.shape[1] // WIDEST)
    return frame[::every, ::every]


def _write(path: Path, frames: list[NDArray[np.uint8]], milliseconds: float) -> None:
    import imageio.v3

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        imageio.v3.imwrite(path, np.stack(frames), duration=milliseconds, loop=0, extension=".gif")
    except OSError as error:
        raise RheostatError(f"Could not write the film {path}: {error}.") from error
