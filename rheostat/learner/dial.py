"""The dial: how far off-policy the data of a policy-gradient method may be.

Any such method, for control or for language, takes these numbers (``--dial.lag 4``). At zero everywhere the data are strictly on-policy:
sampled by the present policy, used for one gradient step, and thrown away.

    lag                who acts: the policy of so many updates ago, whose parameters are kept for it
    refresh_every      who acts (language): a copy of the policy that is taken anew every so many updates; 0 keeps the first one
    replay_share       what is kept: this share of every training batch was used before
    expert_share       who acts: this share of every training batch was written (or acted) by an expert
    updates_per_batch  how the policy moves: gradient steps on the same batch

The dial rewrites a composition; no method mentions it, and what a composition lacks the parts for is refused. Everything is deterministic
and part of the run's state. The dial says where data come from and corrects nothing: whether a method corrects for it is the method's own
answer, and the meter shows the price.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from rheostat.buffers.retainers import MarkStale, RecentGroups, Valid
from rheostat.collect.language.language_collectors import ExpertsInside, Groups, experts_of
from rheostat.errors import RheostatError
from rheostat.learner.learner import Composition, first
from rheostat.learner.models import Lagged
from rheostat.options import option


@dataclass(frozen=True)
class Dial:
    """Zero everywhere is strictly on-policy."""

    lag: int = option(0, at_least=0)
    """Rollouts are sampled with the parameters of this many policy updates ago (of the start, while there are fewer)."""
    refresh_every: int = option(1, at_least=0)
    """Language: rollouts are sampled with a copy of the parameters that is taken anew after so many updates: 1 is online, more is
    semi-online, and 0 is offline, where the policy of the start samples all of them."""
    replay_share: float = option(0.0, at_least=0, below=1)
    """Share of every training batch that is drawn from earlier batches; the fresh part keeps its size, so the batch grows."""
    replay_age: int = option(8, at_least=1)
    """Oldest data that may be replayed, in policy updates."""
    expert_share: float = option(0.0, at_least=0, below=1)
    """Share of every training batch that an expert made: of every group (language), or of all rows (control)."""
    updates_per_batch: int | None = option(None, at_least=0)
    """Gradient steps on every batch, each on the whole of it; 0 and 1 are strictly on-policy. None: as the method says."""

    def __post_init__(self) -> None:
        if self.replay_share + self.expert_share >= 1:
            raise RheostatError(
                f"dial.replay_share {self.replay_share} and dial.expert_share {self.expert_share} leave nothing for the policy's own data: "
                "their sum must be below 1."
            )
        if 0 < self.replay_share < 1 and (wanted := self.replay_share / (1 - self.replay_share)) > self.replay_age + 1e-9:
            raise RheostatError(
                f"dial.replay_share {self.replay_share:g} asks for {wanted:.3g} times as many old data as fresh ones, but dial.replay_age "
                f"keeps only the last {self.replay_age} batches: lower the share or raise the age."
            )
        if self.lag and self.refresh_every != 1:
            raise RheostatError("dial.lag and dial.refresh_every both say whose parameters sample: use one of them.")
        if self.replay_age != 8 and not self.replay_share:
            raise RheostatError("dial.replay_age is the age of replayed data: set dial.replay_share too.")

    @property
    def off(self) -> bool:
        """Whether nothing is asked for."""
        return self == Dial()

    def check_budget(self, updates: int) -> None:
        """Refuse a lag that the run never reaches.

        Args:
            updates: policy updates that the whole run makes.

        Raises:
            RheostatError: the lag is not smaller.
        """
        if self.refresh_every > 1 and self.refresh_every >= updates:
            raise RheostatError(
                f"dial.refresh_every is {self.refresh_every}, but the whole run makes about {updates} updates, so the copy would never be "
                "taken anew: lower it, raise the budget, or say so with 0."
            )
        if self.lag >= max(updates, 1) and self.lag:
            raise RheostatError(
                f"dial.lag is {self.lag}, but the whole run makes about {updates} updates, so no update would ever see data of a policy "
                "that has learned: lower the lag or raise the budget."
            )

    def refuse(self, composition: Any, who: str) -> None:
        """Refuse what a part of the method says it cannot honour.

        Args:
            composition: a method's parts, in one stage or in several.
            who: the method's name, for the sentence.

        Raises:
            RheostatError: with the part's reason.
        """
        off = Dial()
        for name, why in refused(composition).items():
            if getattr(self, name) != getattr(off, name):
                raise RheostatError(f"{who} cannot honour dial.{name}: {why}.")

    def rewrite(self, composition: Composition, who: str) -> Composition:
        """The composition of a language method with these data.

        Raises:
            RheostatError: the method lacks the parts for it.
        """
        if self.off:
            return composition
        self.refuse(composition, who)
        found = replace(composition, retain=list(composition.retain), improve=list(composition.improve), models=dict(composition.models))
        place = first(found.retain, Valid)
        after = 0 if place is None else place + 1
        if self.replay_share:
            if found.any("keeps_history"):
                raise RheostatError(f"{who} cannot honour dial.replay_share: it keeps earlier batches by options of its own.")
            found.retain.insert(after, RecentGroups(self.replay_age, self.replay_share))
        if self.lag or self.refresh_every != 1:
            found.models["acting"] = Lagged(self.lag, refresh=None if self.lag else self.refresh_every)
            found.retain.insert(after, MarkStale())
        if self.expert_share:
            found.collect = self._with_experts(found.collect, who)
        if self.updates_per_batch is not None:
            steps = max(1, self.updates_per_batch)
            found.improve = [replace(part, epochs=steps, minibatches=1) if hasattr(part, "epochs") else part for part in found.improve]
        return found

    def _with_experts(self, collector: Any, who: str) -> Any:
        """An expert in every group."""
        if getattr(collector, "selects_groups", False):
            return replace(collector, inner=self._with_experts(collector.inner, who))
        if not isinstance(collector, Groups):
            raise RheostatError(f"{who} cannot honour dial.expert_share: it has experts, or prompts, of its own.")
        count = experts_of(self.expert_share, collector.size, "dial.expert_share")
        return ExpertsInside(replace(collector, size=collector.size - count), count)


def refused(composition: Any) -> dict[str, str]:
    """The numbers of the dial that parts of a composition (or of stages) cannot honour at all, and why."""
    found = {name: why for part in composition.parts().values() for name, why in getattr(part, "refuses", {}).items()}
    return found | ({"refresh_every": found["lag"]} if "lag" in found else {})


def hidden_options(names: Iterable[str]) -> frozenset[str]:
    """Paths of the dial's numbers that every value but the default is refused for; an age of data needs a share of them."""
    found = set(names)
    return frozenset(f"dial.{name}" for name in found | ({"replay_age"} if "replay_share" in found else set()))
