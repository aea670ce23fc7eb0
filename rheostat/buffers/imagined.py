"""Steps that a model imagined, for the batches of a replay method: the newest rounds of rollouts are kept (MBPO, Janner et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.ring import step_layout
from rheostat.buffers.storage import free_memory
from rheostat.errors import RheostatError
from rheostat.tensors import TensorDict
from rheostat.trajectories import Transitions

MOST = 0.5
"""Share of the free memory that imagined steps may take."""


class ImaginedSteps:
    """The steps of the last rounds of rollouts, and batches of them.

    Args:
        rounds: that are kept, at least 1.
        gamma: discount of a step, in the batches.
    """

    def __init__(self, rounds: int, gamma: float) -> None:
        self.rounds, self.gamma = rounds, gamma
        self.lengths: list[int] = []  # steps of every kept round, oldest first
        self.columns: dict[str, Tensor] = {}  # [n, ...] each

    def __len__(self) -> int:
        return sum(self.lengths)

    def append(self, steps: dict[str, Tensor]) -> None:
        """Keep a round; forget the oldest one where there are too many.

        Args:
            steps: fields of :class:`~rheostat.trajectories.Transitions` ``[n, ...]``; the same in every round.
        """
        if len(self.lengths) == self.rounds:
            dropped = self.lengths.pop(0)
            self.columns = {name: column[dropped:] for name, column in self.columns.items()}
        self.columns = {name: torch.cat([self.columns[name], new]) if self.lengths else new for name, new in steps.items()}
        self.lengths.append(len(steps["reward"]))

    def sample(self, size: int, generator: torch.Generator) -> Transitions:
        """``size`` steps, each equally likely, with ``discount`` and ``index``, their place among those that are kept.

        Raises:
            RheostatError: none are kept.
        """
        if not len(self):
            raise RheostatError("No step has been imagined: train the model and roll it out before drawing from its steps.")
        index = torch.randint(len(self), (size,), generator=generator)
        fields = {name: column.index_select(0, index) for name, column in self.columns.items()}
        fields |= {"discount": self.gamma * ~fields["terminated"], "index": index}
        return Transitions.from_tensordict(TensorDict(fields, batch_size=[size]))

    def state_dict(self) -> dict[str, Any]:
        """Every kept step, and how many each round has."""
        return {"lengths": list(self.lengths), "columns": dict(self.columns)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.lengths = list(state["lengths"])
        self.columns = {name: column.clone() for name, column in state["columns"].items()}


def require_memory(steps: int, observation: Tensor, action: Tensor) -> None:
    """Refuse more imagined steps than the memory holds.

    Args:
        steps: that will be kept at most.
        observation, action: of one step, for their shapes.

    Raises:
        RheostatError: they need more than half of the free memory.
    """
    needed, free = steps * step_layout(observation, action).width, free_memory()
    if free is not None and needed > MOST * free:
        raise RheostatError(
            f"The model would keep {steps:,} imagined steps in {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB of memory are free, of which "
            f"{MOST:.0%} may be used: lower rollouts_per_step, rollout_length or imagined_kept."
        )
