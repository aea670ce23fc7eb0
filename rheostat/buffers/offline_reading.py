"""From the files of an offline data set to tensors: encoded observations, true successors, and actions as policies know them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rheostat.buffers.minari_format import Stored
from rheostat.errors import RheostatError

if TYPE_CHECKING:
    from gymnasium import Space
    from gymnasium.spaces import Box

Encode = Callable[[Any, int], Tensor]
"""Raw observations and their number to one tensor ``[rows, ...]``."""
MakeEncoder = Callable[["Space"], tuple[Encode, "Box"]]
"""An observation space to its encoder and the space of what that gives; the adapter of control tasks is one."""


def observed(stored: Stored, name: str, encode: MakeEncoder | None, final: str) -> tuple[Stored, tuple[Tensor, Space], Tensor]:
    """The data set with every successor known, its observations with their space, and its next observations."""
    space = stored.observation_space
    rows = int(stored.observation_rows.sum())
    make = plain_encoder(name) if encode is None else encode
    encoder, encoded_space = make(space)
    encoded = encoder(stored.observations, rows)
    first_row = torch.from_numpy(np.cumsum(stored.observation_rows) - stored.observation_rows)
    lengths = torch.from_numpy(stored.lengths)
    episode = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    step = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths)[episode]
    here = first_row[episode] + step
    there = here + 1
    missing = torch.from_numpy(stored.observation_rows == stored.lengths)[episode] & (step == lengths[episode] - 1)
    if not missing.any():
        return stored, (encoded[here], encoded_space), encoded[there]
    lost = missing & ~torch.from_numpy(stored.terminations)
    if final == "error" and lost.any():
        raise RheostatError(
            f"Episode {int(episode[lost][0])} of {name} has as many observations as steps, so what followed its last step is unknown: add "
            "the final observation, or leave that step out with --repair.final-observation drop (repair={'final_observation': 'drop'})."
        )
    there = torch.where(missing, here, there)
    keep = (~lost).numpy()
    return _without(stored, keep, episode.numpy(), name), (encoded[here[~lost]], encoded_space), encoded[there[~lost]]


def _without(stored: Stored, keep: np.ndarray, episode: np.ndarray, name: str) -> Stored:
    """Without the last steps whose successor is unknown; their episodes are cut one step earlier."""
    if keep.all():
        return stored
    lengths = np.bincount(episode[keep], minlength=len(stored.lengths))
    if (lengths == 0).any():
        raise RheostatError(f"Episode {int(np.argmin(lengths))} of {name} has one step and no final observation: remove it.")
    truncations = stored.truncations.copy()
    shorter = np.flatnonzero(~keep)
    truncations[shorter - 1] = True
    cut = np.zeros(len(lengths), bool) if stored.cut is None else stored.cut.copy()
    cut[episode[shorter]] = True
    return Stored(
        observation_space=stored.observation_space,
        action_space=stored.action_space,
        lengths=lengths,
        observations=None,
        observation_rows=lengths + 1,
        actions=stored.actions[keep],
        rewards=stored.rewards[keep],
        terminations=stored.terminations[keep],
        truncations=truncations[keep],
        infos={key: value[keep] for key, value in stored.infos.items()},
        cut=cut,
        continued=stored.continued,
        metadata=stored.metadata,
    )


def split_after_ends(stored: Stored) -> None:
    """Split every episode after each step that ended the environment; what follows begins an episode of its own, marked as continued."""
    ended = stored.terminations | stored.truncations
    last = np.zeros(len(ended), bool)
    last[np.cumsum(stored.lengths) - 1] = True
    ends = np.flatnonzero(ended | last)
    begins = np.concatenate([[0], ends[:-1] + 1])
    first = np.zeros(len(ended), bool)
    first[np.cumsum(stored.lengths) - stored.lengths] = True
    if stored.cut is not None:
        episode = np.repeat(np.arange(len(stored.lengths)), stored.lengths)
        stored.cut = stored.cut[episode[ends]] & last[ends]  # only the last piece was cut
    before = np.zeros(len(stored.lengths), bool) if stored.continued is None else stored.continued
    stored.continued = ~first[begins]
    stored.continued[first[begins]] = before
    stored.lengths = np.diff(np.concatenate([[-1], ends]))


def check_ends(stored: Stored, name: str, unknown_end: str) -> None:
    """Close episodes whose end is unknown, where that is allowed; the others are refused later, with their place."""
    if unknown_end != "truncate":
        return
    last = np.cumsum(stored.lengths) - 1
    unknown = ~(stored.terminations[last] | stored.truncations[last])
    stored.truncations[last[unknown]] = True
    stored.cut = unknown if stored.cut is None else stored.cut | unknown


def plain_encoder(name: str) -> MakeEncoder:
    """Boxes of numbers as one float32 vector; images with the channels first as they are."""

    def make(space: Space) -> tuple[Encode, Box]:
        from gymnasium.spaces import Box

        if isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[0] <= space.shape[2]:
            return lambda raw, rows: torch.from_numpy(_shaped(raw, rows, space, name)), space
        if not isinstance(space, Box) or (space.dtype == np.uint8 and len(space.shape) in (2, 3)):
            raise RheostatError(
                f"The observations of {name} are {space}, which must be encoded: load it for its task, with "
                "rheostat.collect.control.offline_data.load_for(environments, source)."
            )
        width = math.prod(space.shape)

        def flat(raw: Any, rows: int) -> Tensor:
            return torch.from_numpy(_shaped(raw, rows, space, name).reshape(rows, width).astype(np.float32))

        return flat, Box(-np.inf, np.inf, (width,), np.float32)

    return make


def _shaped(raw: np.ndarray, rows: int, space: Space, name: str) -> np.ndarray:
    if raw.shape != (rows, *(space.shape or ())) or raw.dtype.kind not in "fiub":
        raise RheostatError(f"The observations of {name} have shape {list(raw.shape[1:])} and dtype {raw.dtype}; their space is {space}.")
    return raw


def policy_actions(actions: Any, space: Space, name: str) -> tuple[Tensor, Space]:
    """Actions and their space as policies know them: float32, or categories from 0."""
    from gymnasium import spaces

    if isinstance(actions, np.ndarray):
        if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
            floats = spaces.Box(space.low.astype(np.float32), space.high.astype(np.float32), dtype=np.float32)
            return torch.from_numpy(actions.astype(np.float32)), floats
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) and actions.dtype.kind in "iub":
            first = np.int64(0) if isinstance(space, spaces.MultiBinary) else np.asarray(space.start, np.int64)
            categories = torch.from_numpy(actions.astype(np.int64) - first)
            if isinstance(space, spaces.Discrete):
                return categories, spaces.Discrete(int(space.n))
            return categories, space if isinstance(space, spaces.MultiBinary) else spaces.MultiDiscrete(space.nvec)
    raise RheostatError(
        f"The actions of {name} are {space}; supported are a Box of floats, Discrete, MultiDiscrete and MultiBinary: convert the data set."
    )


def reference_of(metadata: dict[str, Any], ours: dict[str, Any]) -> tuple[tuple[float, float] | None, str]:
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if low is None or high is None or low == high:
        return None, ""
    return (float(low), float(high)), str(ours.get("reference_source") or "the data set's metadata")


def environment_of(metadata: dict[str, Any]) -> str:
    """Id of the environment in Minari's metadata; empty where it has none."""
    try:
        return str(json.loads(metadata.get("env_spec") or "{}").get("id", ""))
    except json.JSONDecodeError:
        return ""


def foreign_facts_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of another library's data set."""
    names = {"algorithm_name": "behaviour", "dataset_id": "dataset_id", "description": "description"}
    return {ours: metadata[theirs] for theirs, ours in names.items() if metadata.get(theirs)}
