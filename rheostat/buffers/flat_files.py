"""Offline data as D4RL keeps it (https://arxiv.org/abs/2004.07219): one file of flat arrays, one row per step, in HDF5 or npz.

    observations, actions, rewards, terminals [n]     needed
    timeouts [n]                                      where a time limit struck; without it, episodes end where the environment did
    next_observations [n]                             true successors; without them the one of an episode's last step is unknown
    infos/action_log_probs [n]                        how likely the actions were

Such a file does not hold the bounds of actions: they are those of the task it is used for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rheostat.buffers.minari_format import Stored
from rheostat.errors import MissingExtra, RheostatError, shown_error

SUFFIXES = (".hdf5", ".h5", ".npz")
NAMES = {"terminals": ("terminals", "terminations", "dones"), "timeouts": ("timeouts", "truncations")}
"""Other names that these columns go by."""
LOG_PROBS = ("infos/action_log_probs", "action_log_probs")


def read_flat(path: Path) -> Stored:
    """The content of a flat file.

    Raises:
        RheostatError: it cannot be read, a column is missing, or columns have other shapes than they should.
        MissingExtra: h5py is not installed.
    """
    stored = stored_of(_columns(path), str(path))
    stored.metadata["description"] = f"read from {path.name}"
    return stored


def stored_of(columns: dict[str, np.ndarray], path: str) -> Stored:
    """Flat arrays as a data set.

    Args:
        columns: by their names.
        path: where they come from, for error messages.

    Raises:
        RheostatError: a column is missing, or columns have other shapes than they should.
    """
    for name, others in NAMES.items():
        found = next((columns[other] for other in others if other in columns), None)
        if found is not None:
            columns[name] = found
    for name in ("observations", "actions", "rewards", "terminals"):
        if name not in columns:
            raise RheostatError(
                f"{path} has no column {name!r} (it has {', '.join(sorted(columns)) or 'none'}): a file of D4RL's kind has observations, "
                "actions, rewards and terminals, and best timeouts and next_observations."
            )
    count = len(columns["rewards"]) if columns["rewards"].ndim else 0
    if not count:
        raise RheostatError(f"{path} is empty: it has no step.")
    for name in ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations"):
        _check_rows(columns, name, count, path)
    return _stored(columns, path)


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Every array of the file by its name, with slashes where it lies in a group."""
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception as error:  # zipfile, numpy and the file system each raise their own
            raise RheostatError(f"{path} cannot be read as npz ({shown_error(error)}): write it again, without pickled objects.") from error
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "offline", "Reading HDF5 files") from error
    columns: dict[str, np.ndarray] = {}

    def take(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape:
            columns[name] = node[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except OSError as error:
        raise RheostatError(f"{path} cannot be read as HDF5 ({shown_error(error)}): write it again.") from error
    return columns


def _check_rows(columns: dict[str, np.ndarray], name: str, count: int, path: str) -> None:
    value = columns.get(name)
    if value is None:
        return
    if value.dtype.kind not in "fiub":
        raise RheostatError(f"The column {name!r} of {path} has dtype {value.dtype}: numbers are needed.")
    if name not in ("observations", "next_observations", "actions") and value.ndim == 2 and value.shape[1] == 1:
        value = columns[name] = value[:, 0]
    if len(value) != count:
        raise RheostatError(f"The column {name!r} of {path} has {len(value)} rows and rewards have {count}: one row per step is needed.")
    if name in ("rewards", "terminals", "timeouts") and value.ndim != 1:
        raise RheostatError(f"The column {name!r} of {path} has shape {list(value.shape)}: one number per step is needed.")
    if name == "next_observations" and value.shape != columns["observations"].shape:
        raise RheostatError(f"The next_observations of {path} have shape {list(value.shape)}, unlike its observations: they must agree.")


def _stored(columns: dict[str, np.ndarray], path: str) -> Stored:
    """The columns, split into episodes."""
    observations, following = columns["observations"], columns.get("next_observations")
    terminated = columns["terminals"].astype(bool)
    truncated = columns["timeouts"].astype(bool) & ~terminated if "timeouts" in columns else np.zeros(len(terminated), bool)
    if "timeouts" not in columns and following is not None:  # an episode that does not continue in the next row was stopped there
        truncated[:-1] = (following[:-1] != observations[1:]).reshape(len(following) - 1, -1).any(1) & ~terminated[:-1]
    last = np.flatnonzero(terminated | truncated)
    last = last if len(last) and last[-1] == len(terminated) - 1 else np.append(last, len(terminated) - 1)
    lengths = np.diff(np.concatenate([[-1], last]))
    rows = lengths
    if following is not None:
        observations, rows = np.insert(observations, last + 1, following[last], axis=0), lengths + 1
    space = observation_space_of(observations)
    log_probs = next((columns[name] for name in LOG_PROBS if name in columns), None)
    return Stored(
        observation_space=space,
        action_space=action_space_of(columns["actions"], path),
        lengths=lengths,
        observations=observations.astype(space.dtype),
        observation_rows=rows,
        actions=columns["actions"],
        rewards=columns["rewards"],
        terminations=terminated,
        truncations=truncated,
        infos={} if log_probs is None else {"sampler_logp": log_probs.reshape(len(terminated))},
    )


def observation_space_of(observations: np.ndarray) -> Any:
    """Pixels, or numbers without bounds."""
    from gymnasium.spaces import Box

    if observations.dtype == np.uint8 and observations.ndim in (4, 5):
        return Box(0, 255, observations.shape[1:], np.uint8)
    return Box(-np.inf, np.inf, observations.shape[1:], np.float32)


def action_space_of(actions: np.ndarray, path: str) -> Any:
    """The range that the actions span; the bounds are the task's."""
    from gymnasium.spaces import Box, Discrete

    if actions.dtype.kind in "iu" and actions.ndim == 1:
        if actions.min() < 0:
            raise RheostatError(f"The actions of {path} are integers down to {actions.min()}: number them from 0.")
        return Discrete(int(actions.max()) + 1)
    if actions.dtype.kind != "f" or actions.ndim < 2:
        raise RheostatError(
            f"The actions of {path} have dtype {actions.dtype} and shape {list(actions.shape)}: floats [n, k], or one integer per step."
        )
    return Box(actions.min(0).astype(np.float32), actions.max(0).astype(np.float32), dtype=np.float32)
