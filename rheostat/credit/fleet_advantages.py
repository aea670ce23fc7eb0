"""WHAT IS IT WORTH? What a vehicle of a fleet that shares one policy gained by an order.

The fleet is the group. With r_i the reward of an acceptance, S the vehicles that accepted in the same minute of the same city, and C the
cumulative rewards of the whole fleet before the minute and C' after it:

    one-step (OSPO)   A_i = (r_i - mean_S r) / (std_S r + 1e-8) + w u,                  u = -(std C' - std C)
    to-go (GRPO)      z_i = (r_i - mean r) / (std r + 1e-8) over the episode,           G_i = z_i + gamma^dt G_next,    A_i = G_i + w u
    critic (PPO)      delta_i = r_i + gamma^dt V(s_next) - V(s_i),    A_i = delta_i + (gamma lambda)^dt A_next,   standardised,  + w u

"Next" is the next order that the same vehicle accepts, dt minutes later; after its last one there is nothing. Standard deviations are those
of a population. u is one number per minute: it tells no vehicle from another.

Paper: Zhao and Li 2025, arXiv 2507.15351.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.options import option
from rheostat.parts import Batch

EPSILON = 1e-8
LAST = -1
"""``gap`` of a vehicle's last order."""
Form = Literal["one-step", "to-go", "critic"]
Groups = Literal["usual", "minute", "episode", "none"]
USUAL: dict[str, Groups] = {"one-step": "minute", "to-go": "episode", "critic": "episode"}


def fairness(before: Tensor, after: Tensor) -> Tensor:
    """By how much the cumulative rewards ``[..., N]`` of a fleet have come closer to each other: minus the growth of their deviation."""
    return before.std(-1, correction=0) - after.std(-1, correction=0)


def deviation(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each value's group.

    Args:
        values: ``[n]``.
        group: int64 ``[n]``, 0 and up.

    Returns:
        ``[n]`` each.
    """
    size = int(group.max()) + 1 if len(group) else 0
    count = torch.bincount(group, minlength=size).clamp(min=1).to(values.dtype)
    mean = torch.zeros(size, dtype=values.dtype).index_add_(0, group, values) / count
    squares = torch.zeros(size, dtype=values.dtype).index_add_(0, group, (values - mean[group]).square()) / count
    return mean[group], squares.sqrt()[group]


def standardise_groups(values: Tensor, group: Tensor) -> Tensor:
    """``(value - mean) / (std + 1e-8)`` of each value's group, ``[n]``; 0 where a group has one value."""
    mean, std = deviation(values, group)
    return (values - mean) / (std + EPSILON)


def next_rows(vehicle: Tensor, gap: Tensor) -> Tensor:
    """The row of the same vehicle's next order, int64 ``[n]``; -1 after its last one.

    Args:
        vehicle: int64 ``[n]``; the rows of each vehicle are in the order of time.
        gap: minutes until the next order, ``[n]``; negative after the last one.
    """
    order = torch.argsort(vehicle, stable=True)
    following = torch.full_like(vehicle, LAST)
    same = vehicle[order][1:] == vehicle[order][:-1]
    following[order[:-1][same]] = order[1:][same]
    return torch.where(gap < 0, LAST, following)


def discounted_sums(values: Tensor, vehicle: Tensor, gap: Tensor, discount: float) -> Tensor:
    """``s_i = value_i + discount^gap_i s_next``, ``[n]``; arguments as in :func:`next_rows`."""
    following = next_rows(vehicle, gap).tolist()
    factor = (discount ** gap.clamp(min=0).to(values.dtype)).tolist()
    found = values.tolist()
    for row in range(len(found) - 1, -1, -1):
        if following[row] >= 0:
            found[row] += factor[row] * found[following[row]]
    return torch.tensor(found, dtype=values.dtype)


@dataclass(frozen=True)
class FleetAdvantage:
    """The advantage of every accepted order."""

    reads: ClassVar[tuple[str, ...]] = ("city", "minute", "stored", "vehicle", "gap", "fairness")
    writes: ClassVar[tuple[str, ...]] = ("advantage", "value_target")

    form: Form = option("one-step", short="advantage")
    """The reward of this minute alone, compared with the other vehicles' (one-step, OSPO); rewards to go (to-go, the fleet form of
    GRPO); or generalised advantage estimation with a critic (critic, independent PPO)."""
    standardise: Groups = option("usual")
    """Over what rewards (of critic: advantages) are standardised: vehicles of one minute, an episode, or not at all. usual: the minute for
    one-step, else the episode."""
    fairness: float = option(1.0)
    """Weight of the fairness term, which is negative where the fleet's rewards drift apart; -1 rewards growing inequality, as the released
    code of the fleet form of GRPO does, and 0 leaves it out."""
    spread: bool = option(False)
    """Subtract the deviation of the rewards to go of the same minute."""
    stored_minutes: bool = option(False)
    """Vehicles count as of one minute that stored their sample in it, which is when they accept their next order, as in the released code
    of the fleet form of GRPO; else those that accepted in it."""
    gamma: float = option(0.99, short="gamma", at_least=0, at_most=1)
    """Discount per minute of later rewards, and of the reward that decides about the reference."""
    gae_lambda: float = option(0.95, short="gae_lambda", share=True)
    """Lambda of generalised advantage estimation, per minute."""

    @property
    def groups(self) -> Groups:
        """Over what is standardised."""
        return USUAL[self.form] if self.standardise == "usual" else self.standardise

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found = {} if self.form == "critic" else {"gae_lambda": "only advantage=critic estimates advantages with it, so leave it alone"}
        by_minute = self.groups == "minute" or self.spread
        return found if by_minute else found | {"stored_minutes": "nothing is compared within a minute, so leave it alone"}

    def __call__(self, context: Any, batch: Batch) -> Batch:
        """Write ``advantage``, and with a critic ``value_target``."""
        rows, columns = batch.rows, batch.columns
        values = context.values(rows.observation) if self.form == "critic" else None
        minute = columns["stored" if self.stored_minutes else "minute"]
        found, target = self.advantages(
            rows.reward, minute, columns["vehicle"], columns["gap"], columns["fairness"], city=columns["city"], values=values
        )
        rows.advantage = found.to(rows.reward.dtype)
        if target is not None:
            rows.value_target = target.to(rows.reward.dtype)
        return batch

    def advantages(
        self,
        reward: Tensor,
        minute: Tensor,
        vehicle: Tensor,
        gap: Tensor,
        fairness: Tensor,
        *,
        city: Tensor | None = None,
        values: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Advantages ``[n]``, and what the critic regresses on.

        Args:
            reward: ``[n]``, in the order of time.
            minute: int64 ``[n]``.
            vehicle: int64 ``[n]``, another number for every vehicle of every city.
            gap: minutes to the vehicle's next row, ``[n]``; negative after its last one.
            fairness: u of each row's minute, ``[n]``.
            city: int64 ``[n]``; None: there is one.
            values: of the critic, ``[n]``.
        """
        reward = reward.double()
        city = torch.zeros_like(minute) if city is None else city
        in_minute = city * (int(minute.max()) + 1 if len(minute) else 1) + minute
        target: Tensor | None = None
        if values is not None:
            worth, target = self._estimated(reward, vehicle, gap, values.double())
        else:
            worth = reward
        if self.groups != "none":
            worth = standardise_groups(worth, in_minute if self.groups == "minute" else city)
        if self.form == "to-go":
            worth = discounted_sums(worth, vehicle, gap, self.gamma)
        worth = worth + self.fairness * fairness
        if self.spread:
            worth = worth - deviation(discounted_sums(reward, vehicle, gap, self.gamma), in_minute)[1]
        return worth, target

    def of_minute(self, reward: Tensor, accepted: Tensor, fairness: Tensor) -> Any:
        """What is known of the advantages while the episode goes on.

        Args:
            reward: of this minute, ``[C, N]``.
            accepted: bool ``[C, N]``.
            fairness: u, ``[C]``.

        Returns:
            float64 array ``[C, N]``, 0 where nothing was accepted.
        """
        city, vehicle = accepted.nonzero(as_tuple=True)
        found = torch.zeros_like(reward)
        if len(city):
            now, own, alone = torch.zeros_like(city), torch.arange(len(city)), torch.full_like(city, LAST)
            found[city, vehicle], _ = self.advantages(reward[accepted], now, own, alone, fairness[city], city=city)
        return found.numpy()

    def _estimated(self, reward: Tensor, vehicle: Tensor, gap: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        following = next_rows(vehicle, gap)
        later = torch.where(following >= 0, values[following.clamp(min=0)], 0.0)
        delta = reward + self.gamma ** gap.clamp(min=0) * later - values
        found = discounted_sums(delta, vehicle, gap, self.gamma * self.gae_lambda)
        return found, found + values
