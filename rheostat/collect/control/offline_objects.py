"""Data sets as Python objects: Rheostat's own, blocks of trajectories, a table of arrays, or an opened Minari data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rheostat.buffers.flat_files import action_space_of, observation_space_of, stored_of
from rheostat.buffers.offline import OfflineData
from rheostat.buffers.repairs import Repairs
from rheostat.collect.control.offline_data import adapter, pieces_of
from rheostat.errors import RheostatError
from rheostat.trajectories import Trajectories, Transitions, join_in_time

NAME = "the data set that was handed over"


def handed_data(given: Any, repairs: Repairs) -> OfflineData | str:
    """The argument ``offline`` as a data set, or as the name of one.

    Args:
        given: a name or a path; an :class:`~rheostat.buffers.offline.OfflineData`; ``Trajectories`` ``[E, T]`` or a list of such blocks in
            the order of time; a mapping of flat arrays, with the names of D4RL's columns; or a ``minari.MinariDataset``.
        repairs: of faults of a mapping's arrays.

    Raises:
        RheostatError: another type, faults of the data, or repairs of an object that has no faults to repair.
    """
    if isinstance(given, (str, Path)):
        return str(given)
    place = getattr(getattr(given, "spec", None), "data_path", None)
    if place is not None:
        return str(Path(place).parent if Path(place).name == "data" else place)
    if isinstance(given, Mapping):
        columns = {str(name): np.asarray(value) for name, value in given.items()}
        return OfflineData.of_stored(stored_of(columns, NAME), name=NAME, encode=adapter(NAME), adopts=True, **asdict(repairs))
    blocks = [given] if isinstance(given, Trajectories) else given
    ours = isinstance(given, OfflineData)
    if not ours and not (isinstance(blocks, Sequence) and blocks and all(isinstance(block, Trajectories) for block in blocks)):
        raise RheostatError(
            f"offline is a {type(given).__name__}: name a data set, or hand over an OfflineData, Trajectories, a mapping of arrays with "
            "the names of D4RL's columns, or a MinariDataset."
        )
    if repairs.asked:
        raise RheostatError(
            f"repair.{next(iter(repairs.asked))} is about files and arrays: a {type(given).__name__} is whole, leave it out."
        )
    return copy(given) if ours else of_trajectories(list(blocks))


def of_trajectories(blocks: list[Trajectories]) -> OfflineData:
    """The episodes of every row, one row after the other; those that do not reach their end are cut there.

    Args:
        blocks: ``[E, T]`` each, one after the other in time.

    Raises:
        RheostatError: blocks of different rows, of tokens, or without a step.
    """
    rows = join_in_time(blocks)
    if rows.observation is None or rows.next_observation is None:
        raise RheostatError("Trajectories of a data set need observations and next observations: these are tokens of a language model.")
    pieces = [piece for row in pieces_of(rows) for piece in row]
    if not pieces:
        raise RheostatError(f"{NAME[:1].upper()}{NAME[1:]} is empty: it has no step.")
    lengths = torch.tensor([len(piece.steps) for piece in pieces])
    row = torch.repeat_interleave(torch.tensor([piece.row for piece in pieces]), lengths)
    step = torch.cat([piece.steps for piece in pieces])
    cut = torch.tensor([not piece.ended for piece in pieces])
    breaks = torch.zeros(len(step), dtype=torch.bool)
    breaks[lengths.cumsum(0) - 1] = True
    truncated = rows.truncated[row, step]
    truncated[breaks] |= cut
    transitions = Transitions(
        observation=rows.observation[row, step],
        next_observation=rows.next_observation[row, step],
        action=rows.action[row, step],
        reward=rows.reward[row, step],
        terminated=rows.terminated[row, step],
        truncated=truncated,
        sampler_logp=rows.sampler_logp[row, step],
        version=None if rows.version is None else rows.version[row, step],
        batch_size=[len(step)],
    )
    return OfflineData(
        transitions,
        breaks,
        observation_space=observation_space_of(transitions.observation.numpy()),
        action_space=action_space_of(transitions.action.numpy(), NAME),
        cut=cut,
        name=NAME,
        outside="clip",  # as the environment did
        adopts=True,
        drawn_action=transitions.action,
    )
