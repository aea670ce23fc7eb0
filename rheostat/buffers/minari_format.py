"""Reading and writing the files of an offline data set in Minari's format (https://minari.farama.org, 0.4 and 0.5).

    ID/data/metadata.json     spaces, environment, who made it, how long it is
    ID/data/main_data.hdf5    episode_0, episode_1, ...: observations [T + 1], actions, rewards, terminations, truncations [T], infos

That is HDF5, in which we write; :mod:`rheostat.buffers.minari_columns` reads the episodes of Minari's other formats.

Files only: nothing here knows what a policy or a return is. Arrays leave this module joined over episodes. Error messages about a file
name the episode.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rheostat.buffers.minari_columns import FORMATS, count_episodes, read_arrays
from rheostat.errors import MissingExtra, RheostatError, shown_error
from rheostat.json_text import DIGEST, NotJSON, signed, unsigned
from rheostat.json_text import read as read_json

if TYPE_CHECKING:
    from gymnasium import Space

HDF5 = "hdf5"
DATA, METADATA, MAIN = "data", "metadata.json", "main_data.hdf5"
ARRAYS = ("observations", "actions", "rewards", "terminations", "truncations")
LEAST_IMAGE = 32  # Minari stores uint8 boxes of at least this many rows and columns as JPEG by default


@dataclass
class Stored:
    """The content of the files, joined over episodes; n steps in all."""

    observation_space: Space
    action_space: Space
    lengths: np.ndarray  # int64 [episodes], T of each
    observations: Any  # array [sum of observation_rows, ...], or nested dicts and tuples of such arrays
    observation_rows: np.ndarray  # int64 [episodes], T + 1 of each; T where the final observation is missing
    actions: np.ndarray  # [n, ...]
    rewards: np.ndarray  # [n]
    terminations: np.ndarray  # bool [n]
    truncations: np.ndarray  # bool [n]
    infos: dict[str, np.ndarray] = field(default_factory=dict)  # [n, ...] each: what every episode has for every step
    cut: np.ndarray | None = None  # bool [episodes], the collection was stopped within this episode
    continued: np.ndarray | None = None  # bool [episodes], this one continues after the environment ended without a reset
    metadata: dict[str, Any] = field(default_factory=dict)


def find_data(source: str | Path) -> Path:
    """The folder with the two files: ``source`` itself, its ``data``, or the local data set with this Minari id.

    Raises:
        RheostatError: there is none; nothing is downloaded.
    """
    path = Path(source).expanduser()
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")
    for folder in (path, path / DATA, root / str(source) / DATA):
        if (folder / METADATA).is_file():
            return folder
    if path.is_file():
        raise RheostatError(
            f"{path} is a file; a data set in Minari's format is a folder with {DATA}/{METADATA} and {DATA}/{MAIN}, and files of D4RL's "
            "kind end in .hdf5, .h5 or .npz."
        )
    raise RheostatError(
        f"There is no data set {source}: it is neither a folder with {DATA}/{METADATA} nor a Minari data set in {root}; "
        f"make one with `rheostat dataset make`, or fetch it with `minari download {source}`."
    )


def read_metadata(folder: Path) -> dict[str, Any]:
    """``metadata.json`` of a data folder.

    Raises:
        RheostatError: it cannot be read, does not match its own digest, or is in a file format that is unknown here.
    """
    try:
        metadata: dict[str, Any] = unsigned(read_json(folder / METADATA))
    except (OSError, NotJSON) as error:
        raise RheostatError(
            f"{folder / METADATA} cannot be read: {error}; if you changed it on purpose, remove its entry {DIGEST}."
        ) from error
    if metadata.get("data_format", HDF5) not in (HDF5, *FORMATS):
        raise RheostatError(
            f"{folder} is stored as {metadata['data_format']}; {HDF5}, {' and '.join(FORMATS)} can be read: copy it with Minari into a "
            f"data set of data_format='{HDF5}'."
        )
    return metadata


def read(folder: Path, infos: Sequence[str] = ()) -> Stored:
    """Read a data folder.

    Args:
        folder: from :func:`find_data`.
        infos: names of the infos to read, those that every episode has with a number (or row of numbers) per step; others are skipped.

    Raises:
        RheostatError: a file is missing or damaged, an array is missing, lengths do not fit, or there is no episode or an empty one.
        MissingExtra: minari is not installed.
    """
    metadata = read_metadata(folder)
    _packages()  # spaces are understood by Minari
    observation_space = _space_of(metadata, "observation_space", folder)
    action_space = _space_of(metadata, "action_space", folder)
    jpeg = bool(metadata.get("jpeg_encoding", True))
    kind, named = metadata.get("data_format", HDF5), {"observations": observation_space, "actions": action_space}
    groups = _hdf5_groups(folder, metadata) if kind == HDF5 else _column_groups(folder, metadata, kind, named)
    try:
        episodes = [_read_episode(nodes, marks, observation_space, action_space, jpeg, infos, where) for nodes, marks, where in groups]
    except RheostatError:
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, MemoryError) as error:  # whatever readers meet
        place = folder / MAIN if kind == HDF5 else folder
        raise RheostatError(f"{place} cannot be read as {kind.upper()}: {shown_error(error)}.") from error
    lengths = np.array([len(episode["rewards"]) for episode in episodes], dtype=np.int64)
    shared = set.intersection(*(set(episode["infos"]) for episode in episodes))
    return Stored(
        observation_space=observation_space,
        action_space=action_space,
        lengths=lengths,
        observations=_join([episode["observations"] for episode in episodes]),
        observation_rows=np.array([_rows(episode["observations"]) for episode in episodes], dtype=np.int64),
        actions=_join([episode["actions"] for episode in episodes]),
        rewards=np.concatenate([episode["rewards"] for episode in episodes]),
        terminations=np.concatenate([episode["terminations"] for episode in episodes]).astype(bool),
        truncations=np.concatenate([episode["truncations"] for episode in episodes]).astype(bool),
        infos={name: np.concatenate([episode["infos"][name] for episode in episodes]) for name in sorted(shared)},
        cut=np.array([episode["cut"] for episode in episodes], dtype=bool),
        continued=np.array([episode["continued"] for episode in episodes], dtype=bool),
        metadata=metadata,
    )


def _hdf5_groups(folder: Path, metadata: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any, str]]:
    """Every episode's arrays by name, its marks, and what error messages call it."""
    h5py, _ = _packages()
    with h5py.File(folder / MAIN, "r") as file:
        _check_count(len(file), folder, folder / MAIN, metadata)
        for number in range(len(file)):
            where = f"Episode {number} of {folder}"
            if f"episode_{number}" not in file:
                raise RheostatError(f"{where} is missing: episodes must be numbered from 0 without gaps.")
            group = file[f"episode_{number}"]
            yield dict(group.items()), group.attrs, where


def _column_groups(
    folder: Path, metadata: dict[str, Any], kind: str, spaces: dict[str, Space]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """The same of Arrow and Parquet."""
    count = count_episodes(folder)
    _check_count(count, folder, folder, metadata)
    for number in range(count):
        where = f"Episode {number} of {folder}"
        yield read_arrays(folder, number, kind, spaces, where), {}, where


def _check_count(count: int, folder: Path, place: Path, metadata: dict[str, Any]) -> None:
    if count == 0 or not metadata.get("total_episodes", count):
        raise RheostatError(f"The data set {folder} is empty: it has no episode.")
    if metadata.get("total_episodes", count) != count:
        raise RheostatError(f"{place} holds {count} episodes, but {METADATA} says {metadata['total_episodes']}: the data set is damaged.")


def write(folder: Path, stored: Stored) -> None:
    """Write a data folder that Minari reads; it appears in one piece. The same content gives the same bytes.

    Args:
        folder: ``.../data``; must not exist.
        stored: flat observations [T + 1 per episode]; ``metadata`` needs ``dataset_id``, the counts and spaces are filled in.

    Raises:
        RheostatError: the folder exists or cannot be written.
        MissingExtra: minari is not installed.
    """
    h5py, minari = _packages()
    if folder.exists():
        raise RheostatError(f"{folder} already exists: choose another place for the data set, or remove it first.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    except OSError as error:
        raise RheostatError(f"Cannot write a data set to {folder} ({error.strerror}).") from error
    try:
        with h5py.File(workshop / MAIN, "w") as file:
            for number, arrays in enumerate(_episodes(stored)):
                group = file.create_group(f"episode_{number}")
                group.attrs["id"] = number
                group.attrs["total_steps"] = len(arrays["rewards"])
                for name, marked in (("cut", stored.cut), ("continued", stored.continued)):
                    if marked is not None and marked[number]:
                        group.attrs[name] = True
                for name, value in arrays.items():
                    group.create_dataset(name, data=value)  # a name with a slash lies in a group
        size = (workshop / MAIN).stat().st_size / 1e6
        metadata = stored.metadata | {
            "total_episodes": len(stored.lengths),
            "total_steps": int(stored.lengths.sum()),
            "data_format": HDF5,
            "jpeg_encoding": False,
            "observation_space": minari.serialization.serialize_space(stored.observation_space),
            "action_space": minari.serialization.serialize_space(stored.action_space),
            "minari_version": minari.__version__,
            "dataset_size": round(size, 1),
        }
        (workshop / METADATA).write_text(json.dumps(signed(metadata), indent=1) + "\n")
        workshop.chmod(0o755)  # temporary folders are private; a data set is not
        workshop.rename(folder)
    except OSError as error:
        raise RheostatError(f"Cannot write the data set {folder}: {error}.") from error
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _packages() -> tuple[Any, Any]:
    try:
        import h5py
        import minari
        import minari.serialization
    except ImportError as error:
        raise MissingExtra("minari[hdf5]", "offline", "Reading and writing offline data sets") from error
    return h5py, minari


def _episodes(stored: Stored) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of every episode by their names in the file."""
    first = first_row = 0
    for length, rows in zip(stored.lengths.tolist(), stored.observation_rows.tolist(), strict=True):
        steps = slice(first, first + length)
        yield {
            "observations": stored.observations[first_row : first_row + rows],
            "actions": stored.actions[steps],
            "rewards": stored.rewards[steps],
            "terminations": stored.terminations[steps],
            "truncations": stored.truncations[steps],
        } | {f"infos/{name}": value[steps] for name, value in stored.infos.items()}
        first, first_row = first + length, first_row + rows


def _space_of(metadata: dict[str, Any], name: str, folder: Path) -> Space:
    if name not in metadata:
        raise RheostatError(f"{folder / METADATA} has no {name}: write the data set again with a present Minari (0.4 or newer).")
    try:
        return _space(json.loads(metadata[name]))
    except (LookupError, TypeError, ValueError, AttributeError, NotImplementedError, AssertionError, MemoryError) as error:
        raise RheostatError(f"The {name} in {folder / METADATA} cannot be understood: {error}.") from error


def _space(description: dict[str, Any]) -> Space:
    """As Minari does, except that the entries of a Dict keep their order, which is the environment's."""
    from gymnasium.spaces import Dict, Tuple

    if description["type"] == "Dict":
        return Dict([(key, _space(part)) for key, part in description["subspaces"].items()])
    if description["type"] == "Tuple":
        return Tuple([_space(part) for part in description["subspaces"]])
    _, minari = _packages()
    return minari.serialization.deserialize_space(description)


def _read_episode(
    nodes: dict[str, Any], marks: Any, observation_space: Space, action_space: Space, jpeg: bool, infos: Sequence[str], where: str
) -> dict[str, Any]:
    for name in ARRAYS:
        if name not in nodes:
            raise RheostatError(f"{where} has no {name}: Minari's format needs {', '.join(ARRAYS)}; write the data set again with them.")
    found: dict[str, Any] = {
        "observations": _decode(nodes["observations"], observation_space, jpeg, f"{where}: observations"),
        "actions": _decode(nodes["actions"], action_space, jpeg, f"{where}: actions"),
    }
    for name in ARRAYS[2:]:
        found[name] = np.asarray(nodes[name][()])
        if found[name].ndim != 1:
            raise RheostatError(f"{where}: {name} have shape {list(found[name].shape)}; one number per step is needed.")
    length = len(found["rewards"])
    if length == 0:
        raise RheostatError(f"{where} has no step: remove it.")
    for name in ("actions", "terminations", "truncations"):
        if _rows(found[name]) != length:
            raise RheostatError(f"{where} has {length} rewards but {_rows(found[name])} {name}: there must be one per step.")
    if _rows(found["observations"]) not in (length, length + 1):
        raise RheostatError(
            f"{where} has {length} steps and {_rows(found['observations'])} observations: there must be one more than steps, the last "
            "being the observation after the last step."
        )
    beside = nodes.get("infos", {})
    values = {name: beside[name][()] for name in infos if name in beside}
    found["infos"] = {
        name: value for name, value in values.items() if np.ndim(value) and len(value) == length and value.dtype.kind in "fiub"
    }
    found |= {name: bool(marks.get(name, False)) for name in ("cut", "continued")}
    return found


def _decode(node: Any, space: Space, jpeg: bool, where: str) -> Any:
    """One entry of the file by its space: an array, or a dict or tuple of arrays."""
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        return {key: _decode(_entry(node, key, where), part, jpeg, f"{where}[{key!r}]") for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
        return tuple(_decode(_entry(node, f"_index_{key}", where), part, jpeg, f"{where}[{key}]") for key, part in parts)
    if not hasattr(node, "shape"):
        raise RheostatError(f"{where} are a group of arrays; their space {space} says that they are one array.")
    if jpeg and isinstance(space, spaces.Box) and _as_jpeg(space):
        from PIL import Image

        return np.stack([np.asarray(Image.open(io.BytesIO(bytes(row)))) for row in node[()]])
    return node[()]


def _entry(node: Any, name: str, where: str) -> Any:
    if not hasattr(node, "keys") or name not in node:
        raise RheostatError(f"{where} have no entry {name!r}, which their space has.")
    return node[name]


def _as_jpeg(space: Space) -> bool:
    """Minari's rule for what it stores as JPEG."""
    shape = space.shape or ()
    pixels = space.dtype == np.uint8 and len(shape) in (2, 3) and min(shape[:2]) >= LEAST_IMAGE
    return bool(pixels and np.all(space.low == 0) and np.all(space.high == 255))  # type: ignore[attr-defined]


def _rows(value: Any) -> int:
    """Length of the leading axis of the first array inside."""
    while isinstance(value, dict | tuple):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return len(value)


def _join(parts: list[Any]) -> Any:
    """The same structure with arrays joined along the first axis."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: _join([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(_join([part[index] for part in parts]) for index in range(len(first)))
    if len({part.shape[1:] for part in parts}) > 1:
        raise RheostatError(f"Episodes have arrays of different shapes: {sorted({part.shape[1:] for part in parts})}.")
    return np.concatenate(parts)
