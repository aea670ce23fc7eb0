"""Several answers of the policy's own to each prompt, which stay together and of which none repeats another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.collect.language.language_collectors import Groups
from rheostat.credit.preference_strength import first_of_each
from rheostat.errors import RheostatError
from rheostat.parts import Batch

REWARD = ("reward", "reward_spread", "abstained_share")
"""What is told of rewards, which say nothing where nobody grades."""


@dataclass(frozen=True)
class DistinctAnswers(Groups):
    """The policy answers each of the next prompts several times; answers that repeat an earlier one, token by token, are masked."""

    lesson: ClassVar[str] = "pairs"
    makes_units: ClassVar[bool] = True
    single_turn: ClassVar[str] = "answers that are compared are one completion each"
    refuses: ClassVar[Mapping[str, str]] = {
        "replay_share": "its answers are thrown away after their update",
        "expert_share": "all answers that are compared are the policy's",
    }

    def check(self, composition: Any) -> None:
        """Refuse groups of one."""
        if self.size < 2:
            raise RheostatError("Answers are compared with each other: group_size must be at least 2.")

    def collect(self, context: Any) -> Batch:
        """``[prompts * size, T]``, the members of a group next to each other and one unit."""
        batch = super().collect(context)
        new = first_of_each(batch.rows.action, batch.rows.mask, self.size)
        batch.rows.mask = batch.rows.mask & new[:, None]
        batch.units = batch.rows.group[:, 0].clone()
        batch.metrics["repeated_share"] = 1 - new.float().mean().item()
        if not context.setup.gradable:
            batch.metrics = {name: value for name, value in batch.metrics.items() if name not in REWARD}
        return batch
