"""Single steps to be drawn again: uniform or prioritised, one-step or n-step, and as whole episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.priorities import SumTree
from rheostat.buffers.ring import Ring, step_layout
from rheostat.buffers.storage import Layout
from rheostat.errors import RheostatError
from rheostat.tensors import TensorDict
from rheostat.trajectories import Transitions

LEAST_ERROR = 1e-6
"""Added to every error, so that every step keeps a chance to be drawn."""
TRIES = 20
"""How often unusable rows are drawn anew before the usable ones are listed."""


class Replay(Ring):
    """The last ``capacity`` steps, and batches of them; see :class:`rheostat.buffers.ring.Ring` for what is kept and how.

    The n-step return of a step is the discounted sum of up to ``n_step`` rewards from it on; it stops at a termination, a truncation, a
    cut, and the newest step that is stored, and is then shorter.

    With ``priority`` above 0, steps are drawn in proportion to ``(|error| + 1e-6) ** priority`` (Schaul et al. 2016, proportional variant,
    stratified); a new step counts as much as the largest so far. Drawing takes the same time however full the replay is; prioritised, it
    grows with the logarithm of the capacity.

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
        if n_step < 1:
            raise RheostatError(f"A return sums at least 1 reward, but n_step is {n_step}.")
        if not 0 <= gamma <= 1 or not 0 <= priority <= 1:
            raise RheostatError(f"A replay needs gamma and priority between 0 and 1; they are {gamma:g} and {priority:g}.")
        self.n_step, self.gamma, self.priority = n_step, gamma, priority
        self.powers = torch.tensor([gamma**k for k in range(n_step + 1)], dtype=torch.float32)
        super().__init__(capacity, memory_map=memory_map, memory_share=memory_share, beside=SumTree.BYTES if priority else 0.0)

    def close(self) -> None:
        """Forget all steps and priorities and give their memory or file back."""
        super().close()
        self.tree: SumTree | None = None
        self.largest = 1.0  # priority of a new step

    @staticmethod
    def bytes_per_step(observation: Tensor, action: Tensor, *, priority: float = 0.0) -> float:
        """What one step takes, for an example of an observation and of an action of one step."""
        return step_layout(observation, action).width + (SumTree.BYTES if priority else 0.0)

    def _allocate(self, layout: Layout) -> None:
        super()._allocate(layout)
        self.tree = SumTree(self.capacity) if self.priority else None

    def _store(self, rows: Tensor, before: Tensor) -> Tensor:
        place = super()._store(rows, before)
        if self.tree is not None and len(place):
            self.tree.set(place, torch.full(place.shape, self.largest, dtype=torch.float64))
        return place

    # --- drawing ------------------------------------------------------------------------------------------------------------------

    def sample(self, size: int, generator: torch.Generator, *, sarsa: bool = False, beta: float = 1.0) -> Transitions:
        """``size`` steps, drawn with replacement.

        Args:
            size: rows of the batch.
            generator: chooses.
            sarsa: also give ``next_action``, the action that was taken in ``next_observation``. Steps of which it is unknown (the
            environment did
                not end, and nothing that follows is stored) are left out, and an n-step return stops before them.
            beta: how far the weights undo the priorities: ``(p_least / p) ** beta``, 1 entirely (Schaul et al. raise it from 0.4 to 1).

        Returns:
            Transitions ``[size]`` with the n-step ``reward``; ``next_observation``, ``terminated`` and ``truncated`` of the last step that
            was summed; ``discount`` = gamma^k after k steps, 0 where the environment ended; ``index``, the place in the replay; ``weight``
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
        # In random order: callers cut one draw into several batches.
        part = torch.randperm(size, generator=generator) + torch.rand(size, generator=generator, dtype=torch.float64)
        return self.tree.find(part * (self.tree.total() / size))

    def _draw_known(self, size: int, generator: torch.Generator) -> Tensor:
        """As ``_draw``, among the steps that ended the environment or have a successor."""
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

    def state_dict(self) -> dict[str, Any]:
        """Steps and priorities; the tensors are views: write or copy them before the next append."""
        priorities = None if self.tree is None else self.tree.leaves[: len(self)]
        return {**super().state_dict(), "prioritised": self.priority > 0, "priorities": priorities, "largest": self.largest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken.

        Raises:
            RheostatError: it was saved from a replay of another capacity, or only one of the two is prioritised.
        """
        if state["prioritised"] != (self.priority > 0):
            kinds = ("prioritised", "uniform") if state["prioritised"] else ("uniform", "prioritised")
            raise RheostatError(f"The saved replay is {kinds[0]} and this one {kinds[1]}: resume with the settings of the run.")
        super().load_state_dict(state)
        self.largest = state["largest"]
        if self.tree is not None and len(self):
            self.tree.set(torch.arange(len(self)), state["priorities"])
