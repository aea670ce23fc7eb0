"""What a replay keeps: a ring of steps, each of which knows the place of the step that follows it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.storage import Layout, allocate
from rheostat.errors import RheostatError
from rheostat.trajectories import Source, Trajectories, Transitions


class Ring:
    """The last ``capacity`` steps of any number of environments, each with its true successor; the oldest is overwritten first.

    A step and its follower are linked unless the episode ended, was cut, or a masked step lies between them. A follower is always
    younger, so a link never leads to a step that was overwritten.

    Args:
        capacity: steps that are kept.
        memory_map: folder for a file that holds the steps when they need more than ``memory_share`` of the free memory; None: never.
        memory_share: share of the free memory that the steps may take; 0 with a folder always maps.
        beside: bytes per step that the caller keeps in memory in addition.

    Raises:
        RheostatError: an argument outside its range; when the first steps come, a capacity that fits neither memory nor disk.
    """

    def __init__(self, capacity: int, *, memory_map: Path | None = None, memory_share: float = 0.5, beside: float = 0.0) -> None:
        if capacity < 1:
            raise RheostatError(f"A replay keeps at least 1 step, but its capacity is {capacity}.")
        if not 0 <= memory_share <= 1:
            raise RheostatError(f"A replay can use a share between 0 and 1 of the free memory, not {memory_share:g}.")
        self.capacity, self.memory_map, self.memory_share, self.beside = capacity, memory_map, memory_share, beside
        self.close()

    def close(self) -> None:
        """Forget all steps and give their memory or file back."""
        self.layout: Layout | None = None
        self.data = torch.zeros(0, 0, dtype=torch.uint8)  # [capacity, bytes of a row]
        self.columns: dict[str, Tensor] = {}  # views of it, [capacity, ...] each
        self.total = 0  # steps ever appended; the step with number i lies in row i % capacity
        self.newest: Tensor | None = None  # [E] number of the last step of each environment, -1 where nothing can follow it

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    @property
    def oldest(self) -> int:
        """Number of the oldest step that is stored."""
        return max(self.total - self.capacity, 0)

    def reserve(self, observation: Tensor, action: Tensor) -> None:
        """Allocate the memory of all steps now, by an example of an observation and of an action of one step; otherwise the first append
        does so.

        Raises:
            RheostatError: it fits neither memory nor disk.
        """
        if self.layout is None:
            self._allocate(step_layout(observation, action))

    def _allocate(self, layout: Layout) -> None:
        self.data = allocate(self.capacity, layout.width, beside=self.beside, folder=self.memory_map, memory_share=self.memory_share)
        self.columns = layout.views(self.data)
        self.layout = layout

    def append(self, block: Trajectories) -> None:
        """Keep the steps of a block ``[E, T]`` whose mask is True; it continues the block before, unless ``cut`` was called.

        The step after a masked one does not continue the step before it. Steps are marked as replayed; those of an expert or of a data set
        keep their marks.

        Raises:
            RheostatError: other environments, shapes or types than before, or a number that is not finite.
        """
        newest = torch.full((block.shape[0],), -1) if self.newest is None else self.newest
        if len(newest) != block.shape[0]:
            raise RheostatError(
                f"A replay is fed by the same environments all along: it had {len(newest)}, this block has {block.shape[0]}; "
                "call cut() first if they were restarted."
            )
        mask = _one_per_step(block.mask, block, "mask").T  # [T, E]
        flat = mask.reshape(-1)
        kept = flat.nonzero().squeeze(1)  # in order of time, so that the oldest are overwritten first
        rows = self._pack(block, kept)
        number = (flat.cumsum(0) + (self.total - 1)).view(mask.shape)
        last = torch.where((block.terminated | block.truncated).T | ~mask, -1, number)
        before = torch.cat([newest.unsqueeze(0), last])  # [T + 1, E] number of the step before, -1 for none
        self.newest = before[-1]
        self._store(rows, before[:-1].reshape(-1)[kept])

    def append_transitions(self, rows: Transitions, breaks: Tensor) -> None:
        """Keep a data set ``[n]`` in order of time; ``breaks`` ``[n]`` is True on the last step of each episode.

        It lies in the same ring: steps collected later overwrite it, oldest first. Its source is OFFLINE and its version -1 where unknown.

        Raises:
            RheostatError: it is larger than the capacity, or as in ``append``.
        """
        if len(rows) > self.capacity:
            raise RheostatError(f"The data set has {len(rows):,} steps, but the replay only {self.capacity:,}: enlarge its capacity.")
        packed = self._pack(rows, torch.arange(len(rows)))
        before = torch.arange(self.total - 1, self.total - 1 + len(rows))
        before[:1] = -1
        before[1:][(_one_per_step(breaks, rows, "breaks") | rows.terminated | rows.truncated)[:-1]] = -1
        self._store(packed, before)

    def cut(self) -> None:
        """The environments were restarted: mark their newest steps as truncated; the next block does not continue them."""
        if self.newest is not None and self.layout is not None:
            under_way = self.newest[(self.newest >= 0) & (self.newest >= self.oldest)]
            self.columns["truncated"][under_way % self.capacity] = True
        self.newest = None

    def _pack(self, block: Trajectories | Transitions, kept: Tensor) -> Tensor:
        """Rows in bytes ``[k, width]`` of the ``kept`` ``[k]`` steps of ``[E, T]`` (counted in order of time) or ``[n]``, checked."""
        if block.observation is None or block.next_observation is None:
            raise RheostatError("A replay keeps observations and their true successors, and this block has none: it is for control tasks.")
        in_time = isinstance(block, Transitions)
        values = {
            "reward": _one_per_step(block.reward, block, "reward"),
            "sampler_logp": _one_per_step(block.sampler_logp, block, "sampler_logp"),
            "terminated": _one_per_step(block.terminated, block, "terminated"),
            "truncated": _one_per_step(block.truncated, block, "truncated"),
            "action": block.action,
            "observation": block.observation,
            "next_observation": block.next_observation,
        }
        count = block.batch_size.numel()
        if not count:
            return torch.zeros(0, 0, dtype=torch.uint8)
        if self.layout is None:
            step = (0,) * block.batch_dims
            self._allocate(step_layout(block.observation[step], block.action[step]))
        assert self.layout is not None
        for name in ("action", "observation", "next_observation"):
            self._check_kind(name, values[name], block.batch_dims)
        packed = torch.zeros(count, self.layout.width, dtype=torch.uint8)
        fields = self.layout.views(packed)
        fields["following"].fill_(-1)
        for name, default in (("version", -1), ("source", int(Source.OFFLINE if in_time else Source.REPLAY))):
            value = getattr(block, name)
            if value is None:
                fields[name].fill_(default)
            else:
                values[name] = value
        for name, value in values.items():
            fields[name].copy_(value if in_time else value.transpose(0, 1).flatten(0, 1))
        source = fields["source"]
        source.masked_fill_((source == int(Source.FRESH)) | (source == int(Source.STALE)), int(Source.REPLAY))
        if len(kept) < len(packed):
            packed = packed.index_select(0, kept)
            fields = self.layout.views(packed)
        for name in ("reward", "action", "observation", "next_observation"):
            _check_finite(name, fields[name])
        return packed

    def _check_kind(self, name: str, value: Tensor, batch_dims: int) -> None:
        """Refuse values of another shape or type than the stored ones; floating-point numbers of another width are converted."""
        assert self.layout is not None
        dtype, shape = self.layout.fields[name]
        own = tuple(value.shape[batch_dims:])
        if own != shape or (value.dtype != dtype and not (value.dtype.is_floating_point and dtype.is_floating_point)):
            raise RheostatError(
                f"The replay holds {name}s of shape {list(shape)} and type {dtype}, but these steps have {list(own)} and {value.dtype}: "
                "use one replay per task."
            )

    def _store(self, rows: Tensor, before: Tensor) -> Tensor:
        """Write rows in bytes ``[n, width]``, in order of time, and link them to the steps with the numbers ``before`` ``[n]`` them.

        Returns:
            The places ``[k]`` that were written; of more steps than fit, the newest are.
        """
        first = self.total
        self.total += len(rows)
        place = torch.arange(first, self.total) % self.capacity
        skipped = max(self.oldest - first, 0)
        if skipped:
            self.data[place[skipped:]] = rows[skipped:]
        elif len(rows):
            start = first % self.capacity
            whole = min(len(rows), self.capacity - start)
            self.data[start : start + whole] = rows[:whole]
            self.data[: len(rows) - whole] = rows[whole:]
        linked = (before >= self.oldest).nonzero().squeeze(1)  # -1 is older than everything
        if len(linked):
            self.columns["following"].index_copy_(0, before[linked] % self.capacity, place[linked])
        return place[skipped:]

    def episodes(self) -> list[Tensor]:
        """The places of each episode's steps in order of time, oldest episode first; one that was partly overwritten starts later, and one
        under way ends at its newest step."""
        size = len(self)
        if not size:
            return []
        order = torch.arange(self.oldest, self.total) % self.capacity  # places by age
        following = self.columns["following"][:size]
        root = torch.arange(size)  # place of the step before; in the end of the first of the episode
        linked = (following >= 0).nonzero().squeeze(1)
        root[following[linked]] = linked
        while not torch.equal(further := root[root], root):
            root = further
        age = torch.empty_like(order)
        age[order] = torch.arange(size)
        first = age[root[order]]  # age of the first step of each step's episode
        by_episode = first.argsort(stable=True)
        _, lengths = first[by_episode].unique_consecutive(return_counts=True)
        return list(order[by_episode].split(lengths.tolist()))

    def state_dict(self) -> dict[str, Any]:
        """The filled rows in bytes (a view: write or copy it before the next append), their layout, and the ring's position."""
        return {
            "capacity": self.capacity,
            "layout": {} if self.layout is None else self.layout.state_dict(),
            "rows": self.data[: len(self)],
            "total": self.total,
            "newest": self.newest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken.

        Raises:
            RheostatError: it was saved from a replay of another capacity.
        """
        if state["capacity"] != self.capacity:
            raise RheostatError(
                f"The saved replay has a capacity of {state['capacity']:,} steps and this one of {self.capacity:,}: resume with the "
                "settings of the run."
            )
        self.close()
        self.total, self.newest = state["total"], state["newest"]
        if state["layout"]:
            self._allocate(Layout.from_state(state["layout"]))
            self.data[: len(self)] = state["rows"]


def step_layout(observation: Tensor, action: Tensor) -> Layout:
    """A row for steps like these examples; what an n-step return visits comes first.

    Args:
        observation: of one step, its own shape ``[...]`` and dtype.
        action: of one step, likewise.
    """
    return Layout(
        {
            "following": (torch.int64, ()),
            "version": (torch.int64, ()),
            "source": (torch.int64, ()),
            "reward": (torch.float32, ()),
            "sampler_logp": (torch.float32, ()),
            "action": (action.dtype, tuple(action.shape)),
            "observation": (observation.dtype, tuple(observation.shape)),
            "next_observation": (observation.dtype, tuple(observation.shape)),
            "terminated": (torch.bool, ()),
            "truncated": (torch.bool, ()),
        }
    )


def _one_per_step(value: Tensor, block: Trajectories | Transitions, name: str) -> Tensor:
    """The value, if it has one number per step: a trailing dimension would be broadcast silently."""
    if value.shape != block.batch_size:
        raise RheostatError(f"{name} must have the shape {list(block.batch_size)} of the steps, it has {list(value.shape)}.")
    return value


def _check_finite(name: str, value: Tensor) -> None:
    """Refuse a number that would spoil every network, among ``[n, ...]``."""
    # One sum is faster than a check of every number, which is only needed when the sum overflows.
    if not value.dtype.is_floating_point or math.isfinite(value.sum().item()):
        return
    wrong = (~value.reshape(len(value), -1).isfinite().all(1)).nonzero().flatten().tolist()
    if wrong:
        raise RheostatError(
            f"The {name.replace('_', ' ')} of {len(wrong)} of {len(value)} steps is not finite, first of step {wrong[0]} (in order of "
            "time, from 0): mend the environment or the data set, or mask these steps."
        )
