"""Offline data sets and environments: read one for a task, or record one with a policy.

Recording. ``num_envs`` environments run side by side, but a data set is made of whole episodes: first the first episode of every
environment, then the second of every one, and so on, until there are enough steps; what was collected beyond is dropped. So short episodes
are not over-represented, and only the last episode of a data set is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from rheostat.buffers.offline import OfflineData
from rheostat.buffers.offline_reading import Encode, MakeEncoder
from rheostat.buffers.repairs import Repairs
from rheostat.collect.control.stepping import Collector, Draw
from rheostat.errors import RheostatError
from rheostat.tasks.control.environments import Environments
from rheostat.tasks.control.reference_returns import D4RL_SOURCE, published
from rheostat.tasks.control.spaces import ObservationEncoder
from rheostat.tasks.control.state_rewards import StateReward
from rheostat.trajectories import Trajectories, Transitions, join_in_time

if TYPE_CHECKING:
    from gymnasium import Space
    from gymnasium.spaces import Box


class Piece(NamedTuple):
    """A stretch of one episode in a block of rows."""

    row: int
    steps: Tensor  # int64 [length], places on the time axis
    ended: bool  # the episode ended with the last of them


def adapter(task: str, fields: tuple[str, ...] | None = None) -> MakeEncoder:
    """How the control tasks turn observations into tensors, for reading data sets.

    Args:
        task: name used in error messages.
        fields: entries of a Dict observation to keep; all by default.
    """

    def make(space: Space) -> tuple[Encode, Box]:
        encoder = ObservationEncoder(space, task, fields=fields)
        return encoder, encoder.space

    return make


def load_for(
    environments: Environments | None,
    source: str | Path,
    *,
    fields: tuple[str, ...] | None = None,
    unknown_end: Literal["error", "truncate"] = "error",
    outside: Literal["error", "clip"] = "error",
    final_observation: Literal["error", "drop"] = "error",
    split_after_success: bool = False,
) -> OfflineData:
    """Read a data set as a task sees it: observations encoded as by its environments, spaces checked against theirs.

    Where the data set has no reference returns of its own, the published ones of its task are filled in.

    Args:
        environments: of the task; None checks nothing against a task.
        source: folder, or id of a local Minari data set.
        fields: entries of a Dict observation to keep, as given to the environments.
        unknown_end: see :meth:`rheostat.buffers.offline.OfflineData.load`, as for the next three.
        outside: actions beyond their bounds.
        final_observation: episodes without one.
        split_after_success: episodes that continue after the environment ended.

    Raises:
        RheostatError: not found, damaged, wrong data, or of another task.
        MissingExtra: minari is not installed.
    """
    name = f"the data set {source}"
    data = OfflineData.load(
        source,
        encode=adapter(name, fields),
        unknown_end=unknown_end,
        outside=outside,
        final_observation=final_observation,
        split_after_success=split_after_success,
    )
    if environments is not None:
        data.require_spaces(environments.observation_space, environments.action_space, environments.name)
    if data.reference is None and (found := published(data.task)) is not None:
        data.reference, data.reference_source = found, D4RL_SOURCE
    return data


def import_for(environments: Environments, source: str | Path, repairs: Repairs) -> OfflineData:
    """A published data set as one of a task, with the task's own name and reference returns.

    Args:
        environments: of the task.
        source: as for :func:`load_for`.
        repairs: of its faults.

    Raises:
        RheostatError: as :func:`load_for`.
    """
    data = load_for(environments, source, **asdict(repairs))
    data.task = environments.name
    data.facts.setdefault("description", f"imported from {Path(source).name}")
    if data.reference is None and (found := published(data.task)) is not None:
        data.reference, data.reference_source = found, D4RL_SOURCE
    vars(data).pop("digest", None)  # it names the task
    return data


def relabelled(data: OfflineData, reward: StateReward) -> OfflineData:
    """The same steps with another reward, that of the state after each action; without reference returns, which were of the old one.

    Args:
        data: the steps.
        reward: what is paid.

    Raises:
        RheostatError: the reward cannot be computed from the observations of the data.
    """
    rows = data.transitions.clone(recurse=False)
    rows.reward = reward(rows.next_observation)
    return OfflineData(
        rows,
        data.breaks,
        observation_space=data.observation_space,
        action_space=data.action_space,
        task=data.task,
        drawn_action=data.drawn_action,
        cut=data.cut,
        continued=data.continued,
        facts=data.facts | {"reward": reward.name},
        name=f"{data.name} with the reward {reward.name}",
    )


def uniform(space: Space) -> Draw:
    """The random policy: every action equally likely.

    Raises:
        RheostatError: a Box without bounds, where no such policy exists.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        if not space.is_bounded():
            raise RheostatError(f"Random actions need bounds, but the action space is {space}: bound it, for example with RescaleAction.")
        low, width = torch.from_numpy(space.low), torch.from_numpy(space.high - space.low)
        log_prob = -float(width.double().log().sum())

        def draw(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            rows = len(observation)
            return low + width * torch.rand(rows, *space.shape, generator=generator), torch.full((rows,), log_prob)

        return draw
    sizes = torch.as_tensor(space.n if isinstance(space, spaces.Discrete) else getattr(space, "nvec", [2] * math.prod(space.shape or ())))

    def choose(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = len(observation)
        number = torch.rand(rows, *sizes.shape, generator=generator, dtype=torch.float64) * sizes
        return number.long(), torch.full((rows,), -float(sizes.double().log().sum()))

    return choose


def record(draw: Draw, environments: Environments, steps: int, *, generator: torch.Generator, facts: dict[str, Any]) -> OfflineData:
    """A data set of exactly ``steps`` steps.

    Args:
        draw: samples the actions.
        environments: freshly seeded; used from a reset.
        steps: at least 1.
        generator: draws the actions.
        facts: stored with it (behaviour, seed, ...).
    """
    collector = Collector(environments)
    blocks: list[Trajectories] = []
    size = -(-steps // environments.num_envs)
    while True:  # collect the steps needed at least, then a few more until the rounds are full
        blocks.append(collector.collect(draw, size, generator=generator, version=0))
        size = max(64, -(-steps // (8 * environments.num_envs)))
        rows = join_in_time(blocks)
        rounds = in_rounds(pieces_of(rows))
        known = 0
        for piece in rounds:  # an unfinished episode counts only if it is the last one needed
            known += len(piece.steps)
            if known >= steps:
                return assemble(rows, rounds, steps, environments, facts)
            if not piece.ended:
                break


def replayed(
    blocks: list[Trajectories], steps: int | None, environments: Environments, *, generator: torch.Generator, facts: dict[str, Any]
) -> OfflineData:
    """A data set of the blocks collected in training, in the order of time.

    Args:
        blocks: ``[E, T]`` each, one after the other in time.
        steps: at most so many, from episodes drawn at random; None, or more than there are, takes everything.
        environments: of the collection.
        generator: draws the episodes.
        facts: stored with it.
    """
    rows = join_in_time(blocks)
    pieces = sorted((piece for row in pieces_of(rows) for piece in row), key=lambda piece: (int(piece.steps[0]), piece.row))
    total = sum(len(piece.steps) for piece in pieces)
    if steps is None or steps >= total:
        return assemble(rows, pieces, total, environments, facts)
    chosen, known = [], 0
    for index in torch.randperm(len(pieces), generator=generator).tolist():
        if known >= steps:
            break
        chosen.append(index)
        known += len(pieces[index].steps)
    return assemble(rows, [pieces[index] for index in sorted(chosen)], steps, environments, facts)


def pieces_of(rows: Trajectories) -> list[list[Piece]]:
    """The episodes of every row in the order of time; the last one of a row may be unfinished."""
    result: list[list[Piece]] = []
    ended = rows.terminated | rows.truncated
    for row in range(len(rows)):
        places = rows.mask[row].nonzero().flatten()
        ends = ended[row][places].nonzero().flatten()
        sizes = torch.diff(torch.cat([torch.tensor([-1]), ends])).tolist()
        rest = len(places) - sum(sizes)
        parts = places.split([*sizes, rest] if rest else sizes)
        result.append([Piece(row, part, number < len(sizes)) for number, part in enumerate(parts) if len(part)])
    return result


def in_rounds(pieces: Sequence[Sequence[Piece]]) -> list[Piece]:
    """The first episode of every row, then the second of every row, ..., up to and including the first unfinished one."""
    result: list[Piece] = []
    for number in range(max(map(len, pieces), default=0)):
        for row in pieces:
            if number >= len(row):
                return result
            result.append(row[number])
            if not row[number].ended:
                return result
    return result


def assemble(rows: Trajectories, pieces: Sequence[Piece], steps: int, environments: Environments, facts: dict[str, Any]) -> OfflineData:
    """The first ``steps`` steps of these pieces as a data set; stretches that do not reach the end of their episode are cut there."""
    at_row, at_step, last, cut = [], [], [], []
    left = steps
    for piece in pieces:
        if left <= 0:
            break
        taken = piece.steps[:left]
        left -= len(taken)
        at_row.append(torch.full_like(taken, piece.row))
        at_step.append(taken)
        last.append(len(taken))
        cut.append(len(taken) < len(piece.steps) or not piece.ended)
    row, step = torch.cat(at_row), torch.cat(at_step)
    breaks = torch.zeros(len(row), dtype=torch.bool)
    ends = torch.tensor(last).cumsum(0) - 1
    breaks[ends] = True
    truncated = rows.truncated[row, step]
    truncated[ends] |= torch.tensor(cut)
    drawn = rows.action[row, step]
    action = inside(drawn, environments.action_space)
    transitions = Transitions(
        observation=rows.observation[row, step],
        next_observation=rows.next_observation[row, step],
        action=action,
        reward=rows.reward[row, step],
        terminated=rows.terminated[row, step],
        truncated=truncated,
        sampler_logp=rows.sampler_logp[row, step],
        version=rows.version[row, step],
        batch_size=[len(row)],
    )
    return OfflineData(
        transitions,
        breaks,
        observation_space=environments.observation_space,
        action_space=environments.action_space,
        task=environments.name,
        drawn_action=None if torch.equal(drawn, action) else drawn,
        cut=torch.tensor(cut),
        facts=facts,
        name=f"the data set of {environments.name}",
    )


def inside(action: Tensor, space: Space) -> Tensor:
    """The actions that the environment executes: Box actions clipped to their bounds."""
    from gymnasium.spaces import Box

    return action.clamp(torch.from_numpy(space.low), torch.from_numpy(space.high)) if isinstance(space, Box) else action
