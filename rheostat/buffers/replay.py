"""Single steps to be drawn again: uniform or prioritised, one-step or n-step, and as whole episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from rheostat.buffers.priorities import FAN, SumTree
from rheostat.buffers.storage import Layout, allocate
from rheostat.errors import RheostatError
from rheostat.trajectories import Source, Trajectories, Transitions

LEAST_ERROR = 1e-6
"""Added to every error, so that no step is never drawn again."""
TRIES = 20
"""How often rows that may not be used are drawn anew before the usable ones are listed."""


class Replay:
    """A ring of the last ``capacity`` steps, each with its true successor; the oldest step is overwritten first.

    Every step knows the place of the next step of its episode. The n-step return of a step is the discounted sum of up to ``n_step``
    rewards from it on; it stops at a termination, a truncation, a cut, and the newest step that is stored, and is then shorter.

    With ``priority`` above 0, steps are drawn in proportion to ``(|error| + 1e-6) ** priority`` (Schaul et al. 2016, proportional variant,
    stratified); a new step counts as much as the largest so far. Drawing takes the same time however full the replay is, or grows with
    the logarithm of its capacity when prioritised.

    Args:
        capacity: steps that are kept.
        n_step: rewards that are summed at most.
        gamma: discount factor of a step.
        priority: exponent alpha in [0, 1]; 0 is uniform.
        memory_map: folder for a file that holds the steps when they need more than ``memory_share`` of the free memory; None: never.
        memory_share: share of the free memory that the steps may take; 0 with a folder always maps.

    Raises:
        RheostatError: an argument outside its range; when the first steps come, a capacity that fits neither memory nor disk.
    """

    def __init__(
        self,
        capacity: int,
        *,
        n_step: int = 1,
        gamma: float = 0.99,
        priority: float = 0.0,
        memory_map: Path | None = None,
        memory_share: float = 0.5,
    ) -> None:
        if capacity < 1 or n_step < 1:
            raise RheostatError(f"A replay keeps and sums at least 1 step: its capacity is {capacity} and n_step is {n_step}.")
        if not 0 <= gamma <= 1 or not 0 <= priority <= 1 or not 0 <= memory_share <= 1:
            raise RheostatError(
                f"A replay needs gamma ({gamma:g}), priority ({priority:g}) and memory_share ({memory_share:g}) between 0 and 1."
            )
        self.capacity, self.n_step, self.gamma, self.priority = capacity, n_step, gamma, priority
        self.memory_map, self.memory_share = memory_map, memory_share
        self.powers = torch.tensor([gamma**k for k in range(n_step + 1)], dtype=torch.float32)
        self.close()

    def close(self) -> None:
        """Forget all steps and give their memory or file back."""
        self.layout: Layout | None = None
        self.tree: SumTree | None = None
        self.data = torch.zeros(0, 0, dtype=torch.uint8)  # [capacity, bytes of a row]
        self.columns: dict[str, Tensor] = {}  # views of it, [capacity, ...] each
        self.total = 0  # steps ever appended; the step with number i lies in row i % capacity
        self.newest: Tensor | None = None  # [E] number of the last step of each environment, -1 where the next one does not follow it
        self.largest = 1.0  # priority of a new step

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    # --- room ---------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def bytes_per_step(observation: Tensor, action: Tensor, *, priority: float = 0.0) -> float:
        """What one step takes, for an example of an observation and of an action (of one step, without batch dimensions)."""
        return _layout(observation, action).width + _beside(priority)

    def reserve(self, observation: Tensor, action: Tensor) -> None:
        """Take the room for all steps now, for examples as in ``bytes_per_step``; appending does it otherwise.

        Raises:
            RheostatError: it fits neither memory nor disk.
        """
        if self.layout is None:
            self._allocate(_layout(observation, action))

    def _allocate(self, layout: Layout) -> None:
        self.data = allocate(
            self.capacity, layout.width, beside=_beside(self.priority), folder=self.memory_map, memory_share=self.memory_share
        )
        self.columns = layout.views(self.data)
        self.layout = layout
        self.tree = SumTree(self.capacity) if self.priority else None

    # --- keeping ------------------------------------------------------------------------------------------------------------------

    def append(self, block: Trajectories) -> None:
        """Keep the steps of a block ``[E, T]`` whose mask is True; it continues the block before, unless ``cut`` was called.

        A step that is masked breaks the episode: what comes after it does not follow what came before. Steps are marked as replayed, an
        expert's and a data set's stay what they are.

        Raises:
            RheostatError: other environments, shapes or types than before, or a number that is not finite.
        """
        if self.newest is None:
            self.newest = torch.full((len(block),), -1)
        if len(self.newest) != len(block):
            raise RheostatError(
                f"A replay is fed by the same environments all along: it had {len(self.newest)}, this block has {len(block)}; "
                "call cut() first if they were restarted."
            )
        mask = _exactly(block.mask, block, "mask").T  # [T, E]
        kept = mask.reshape(-1).nonzero().squeeze(1)  # in order of time, so that the oldest are overwritten first
        rows = {name: value.transpose(0, 1).flatten(0, 1).index_select(0, kept) for name, value in self._fields(block).items()}
        self._check(rows)
        number = (self.total - 1 + mask.reshape(-1).cumsum(0)).view(mask.shape)
        follows = ~(block.terminated | block.truncated).T & mask  # whether the next step continues it
        last = torch.where(follows, number, -1)
        before = torch.cat([self.newest.unsqueeze(0), last])[:-1]  # [T, E] number of the step before, -1 for none
        self._store(rows, before.reshape(-1)[kept])
        if len(last):
            self.newest = last[-1]

    def append_transitions(self, rows: Transitions, breaks: Tensor) -> None:
        """Keep a data set ``[n]`` in order of time; ``breaks`` ``[n]`` is True on the last step of each episode.

        It lies in the same ring: steps collected later overwrite it, oldest first. Its source is OFFLINE and its version -1 where unknown.

        Raises:
            RheostatError: it is larger than the capacity, or as in ``append``.
        """
        if len(rows) > self.capacity:
            raise RheostatError(f"The data set has {len(rows):,} steps, but the replay only {self.capacity:,}: enlarge its capacity.")
        fields = self._fields(rows)
        self._check(fields)
        ends = _exactly(breaks, rows, "breaks") | rows.terminated | rows.truncated
        before = torch.arange(self.total - 1, self.total - 1 + len(rows))
        before[:1] = -1
        before[1:][ends[:-1]] = -1
        self._store(fields, before)

    def cut(self) -> None:
        """The environments were restarted: mark their newest steps as truncated; the next block does not continue them."""
        if self.newest is not None and self.layout is not None:
            open_ = self.newest[(self.newest >= 0) & (self.newest >= self.total - self.capacity)]
            self.columns["truncated"][open_ % self.capacity] = True
        self.newest = None

    def _fields(self, block: Trajectories | Transitions) -> dict[str, Tensor]:
        """What is stored of ``[E, T]`` or ``[n]``, checked for shapes that do not depend on the layout."""
        if block.observation is None or block.next_observation is None:
            raise RheostatError("A replay keeps observations and their true successors, and this block has none: it is for control tasks.")
        default = Source.OFFLINE if isinstance(block, Transitions) else Source.REPLAY
        source = torch.full(block.shape, int(default)) if block.source is None else block.source.long()
        own = (source == int(Source.FRESH)) | (source == int(Source.STALE))
        return {
            "version": torch.full(block.shape, -1) if block.version is None else block.version.long(),
            "source": torch.where(own, int(Source.REPLAY), source),
            "reward": _exactly(block.reward, block, "reward").float(),
            "sampler_logp": _exactly(block.sampler_logp, block, "sampler_logp").float(),
            "action": block.action,
            "observation": block.observation,
            "next_observation": block.next_observation,
            "terminated": _exactly(block.terminated, block, "terminated"),
            "truncated": _exactly(block.truncated, block, "truncated"),
        }

    def _check(self, rows: dict[str, Tensor]) -> None:
        """Refuse what does not belong to the steps that are stored, and what would spoil every network."""
        if self.layout is None and len(rows["reward"]):
            self._allocate(_layout(rows["observation"][0], rows["action"][0]))
        for name in ("observation", "next_observation", "action", "reward"):
            value = rows[name]
            if self.layout is not None:
                dtype, shape = self.layout.fields[name]
                same = value.dtype == dtype or (value.dtype.is_floating_point and dtype.is_floating_point)
                if tuple(value.shape[1:]) != shape or not same:
                    raise RheostatError(
                        f"The replay holds {name}s of shape {shape} and type {dtype}, but these steps have {tuple(value.shape[1:])} and "
                        f"{value.dtype}: use one replay per task."
                    )
            if value.dtype.is_floating_point and not value.isfinite().all():
                wrong = (~value.reshape(len(value), -1).isfinite().all(1)).nonzero()[0].item()
                raise RheostatError(
                    f"The {name.replace('_', ' ')} of a step is not finite (kept step {wrong} of {len(value)}, in order of time): mend the "
                    "world or mask the step before it is kept."
                )

    def _store(self, rows: dict[str, Tensor], before: Tensor) -> None:
        """Write rows ``[n, ...]`` in order of time and link them to the steps ``before`` ``[n]`` them."""
        count = len(before)
        if not count or self.layout is None:
            return
        packed = torch.zeros(count, self.layout.width, dtype=torch.uint8)
        fields = self.layout.views(packed)
        for name, value in rows.items():
            fields[name].copy_(value)
        fields["following"].fill_(-1)
        number = torch.arange(self.total, self.total + count)
        self.total += count
        place = number % self.capacity
        fresh = number >= self.total - self.capacity  # of more steps than fit, the newest stay
        self.data[place[fresh]] = packed[fresh]
        linked = (before >= 0) & (before >= self.total - self.capacity)
        self.columns["following"][before[linked] % self.capacity] = place[linked]
        if self.tree is not None:
            self.tree.set(place[fresh], torch.full((int(fresh.sum()),), self.largest, dtype=torch.float64))

    # --- drawing ------------------------------------------------------------------------------------------------------------------

    def sample(self, size: int, generator: torch.Generator, *, sarsa: bool = False, beta: float = 1.0) -> Transitions:
        """``size`` steps, drawn with replacement.

        Args:
            size: rows of the batch.
            generator: chooses.
            sarsa: also give ``next_action``, the action that was taken in ``next_observation``. Steps of which it is unknown (the world did
                not end, and nothing that follows is stored) are left out, and an n-step return stops before them.
            beta: how far the weights undo the priorities: ``(p_least / p) ** beta``, 1 entirely (Schaul et al. raise it from 0.4 to 1).

        Returns:
            Transitions ``[size]`` with the n-step ``reward``; ``next_observation``, ``terminated`` and ``truncated`` of the last step that
            was summed; ``discount`` = gamma^k after k steps, 0 where the world ended; ``index``, the place in the replay; ``weight``
            (None when uniform; the largest of the batch is 1).

        Raises:
            RheostatError: nothing is stored, nothing is asked for, or no step has a known next action.
        """
        if not self.total or self.layout is None:
            raise RheostatError("The replay is empty: collect steps or append a data set before drawing from it.")
        if size < 1:
            raise RheostatError(f"A batch of {size} rows holds nothing: ask for at least 1.")
        index = self._draw_known(size, generator) if sarsa else self._draw(size, generator)
        fields = self.layout.views(self.data.index_select(0, index))
        following = fields.pop("following")
        if self.n_step > 1:
            last, following, count = self._walk(index, following, fields, sarsa)
            for name in ("next_observation", "terminated", "truncated"):
                fields[name] = self.columns[name].index_select(0, last)
            fields["discount"] = self.powers.index_select(0, count) * ~fields["terminated"]
        else:
            last = index
            fields["discount"] = fields["terminated"].logical_not() * self.powers[1]
        if sarsa:
            fields["next_action"] = self.columns["action"].index_select(0, torch.where(following >= 0, following, last))
        if self.tree is not None:
            priority = self.tree.leaves[index]
            fields["weight"] = (priority.min() / priority).pow_(beta).float()
        fields["index"] = index
        return Transitions.from_tensordict(TensorDict(fields, batch_size=[size]))

    def _walk(self, index: Tensor, following: Tensor, fields: dict[str, Tensor], sarsa: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Sum the rewards of the following steps into ``fields``; returns the last step ``[n]``, its successor or -1, and how many."""
        last, count = index, torch.ones_like(index)
        reward = fields["reward"].clone()
        for k in range(1, self.n_step):
            going = following >= 0
            step = torch.where(going, following, last)
            beyond = self.columns["following"].index_select(0, step)
            if sarsa:
                going = going & ((beyond >= 0) | self.columns["terminated"].index_select(0, step))
                step = torch.where(going, following, last)
            reward += torch.where(going, self.columns["reward"].index_select(0, step), 0.0) * self.powers[k]
            last, count = step, count + going
            following = torch.where(going, beyond, following) if sarsa else beyond
        fields["reward"] = reward
        return last, following, count

    def _draw(self, size: int, generator: torch.Generator) -> Tensor:
        """Places ``[size]`` by priority, one from each of ``size`` equal parts of the total; or each equally likely."""
        if self.tree is None:
            return torch.randint(len(self), (size,), generator=generator)
        part = torch.arange(size) + torch.rand(size, generator=generator, dtype=torch.float64)
        return self.tree.find(part * (self.tree.total() / size))

    def _draw_known(self, size: int, generator: torch.Generator) -> Tensor:
        """As ``_draw``, among the steps that ended the world or have a successor."""
        index = self._draw(size, generator)
        for _ in range(TRIES):
            wrong = (~self._known(index)).nonzero().squeeze(1)
            if not len(wrong):
                return index
            index[wrong] = self._draw(len(wrong), generator)
        usable = self._known(torch.arange(len(self))).nonzero().squeeze(1)
        if not len(usable):
            raise RheostatError("No step in the replay has a known next action: collect more than one step per episode.")
        wrong = (~self._known(index)).nonzero().squeeze(1)
        share = self.tree.leaves[usable] if self.tree is not None else torch.ones(len(usable), dtype=torch.float64)
        mass = torch.rand(len(wrong), generator=generator, dtype=torch.float64) * share.sum()
        index[wrong] = usable[torch.searchsorted(share.cumsum(0), mass, right=True).clamp_(max=len(usable) - 1)]
        return index

    def _known(self, index: Tensor) -> Tensor:
        return (self.columns["following"].index_select(0, index) >= 0) | self.columns["terminated"].index_select(0, index)

    def set_priorities(self, index: Tensor, error: Tensor) -> None:
        """Give steps ``index`` ``[n]`` of the last draw their errors ``[n]`` (any sign); of a step drawn twice the largest counts.

        Raises:
            RheostatError: the replay is uniform, the shapes differ, or an error is not finite.
        """
        if self.tree is None:
            raise RheostatError("This replay draws uniformly and has no priorities: make it with priority above 0.")
        if index.shape != error.shape or index.ndim != 1:
            raise RheostatError(f"Priorities need one error per step: index has shape {list(index.shape)}, error {list(error.shape)}.")
        value = (error.detach().to("cpu", torch.float64).abs() + LEAST_ERROR) ** self.priority
        if not value.isfinite().all():
            raise RheostatError("An error given as a priority is not finite: the loss has diverged; lower the learning rate.")
        place, group = index.cpu().unique(return_inverse=True)
        largest = torch.zeros(len(place), dtype=torch.float64).scatter_reduce_(0, group, value, "amax")
        self.tree.set(place, largest)
        self.largest = max(self.largest, value.max().item()) if len(value) else self.largest

    def episodes(self) -> list[Tensor]:
        """The places of each episode's steps in order of time, oldest episode first; one that was partly overwritten starts later, and one
        under way ends at its newest step."""
        size = len(self)
        if not size:
            return []
        order = (torch.arange(size) + (self.total if self.total > size else 0)) % self.capacity  # places by age
        following = self.columns["following"][:size]
        root = torch.arange(size)  # place of the step before; finally of the first of the episode
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

    # --- state --------------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The filled rows in bytes (a view: write or copy it before the next append), what they hold, and where the ring stands."""
        return {
            "capacity": self.capacity,
            "layout": {} if self.layout is None else self.layout.state_dict(),
            "rows": self.data[: len(self)],
            "total": self.total,
            "newest": self.newest,
            "priorities": None if self.tree is None else self.tree.leaves[: len(self)],
            "largest": self.largest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken.

        Raises:
            RheostatError: it was saved from a replay of another capacity, or of the other kind (uniform, prioritised).
        """
        if state["capacity"] != self.capacity or (self.priority > 0) != (state["priorities"] is not None or not state["layout"]):
            raise RheostatError(
                f"The saved replay has a capacity of {state['capacity']:,} and this one {self.capacity:,}, or only one of them is "
                "prioritised: resume with the settings of the run."
            )
        self.close()
        self.total, self.newest, self.largest = state["total"], state["newest"], state["largest"]
        if state["layout"]:
            self._allocate(Layout.from_state(state["layout"]))
            self.data[: len(self)] = state["rows"]
            if self.tree is not None:
                self.tree.set(torch.arange(len(self)), state["priorities"])


def _layout(observation: Tensor, action: Tensor) -> Layout:
    """A row for steps like these; what an n-step return visits comes first."""
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


def _beside(priority: float) -> float:
    """Bytes per step of the priorities and their sums."""
    return 8 * FAN / (FAN - 1) if priority else 0.0


def _exactly(value: Tensor, block: Trajectories | Transitions, name: str) -> Tensor:
    """The value, if it has one number per step: a trailing dimension would be broadcast silently."""
    if value.shape != block.shape:
        raise RheostatError(f"{name} must have the shape {list(block.shape)} of the steps, it has {list(value.shape)}.")
    return value
