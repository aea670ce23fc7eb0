"""Which member of a class of policies is best? Trajectory trees, importance sampling from core policies, and POPLER.

    trees     one successor of every (state, action) of a layer that the class needs; at most H C(Pi) pairs a tree
    core      w = K 1{tau ~ pi} / #{core policies that tau is consistent with}, tau from a core policy drawn uniformly among K
    uniform   w = A^H 1{tau ~ pi}, actions drawn uniformly
    sunflower every partial trajectory of pi is one of a core policy too, or passes one of pi's petals strictly inside

Trees are those of Kearns et al. 1999 with states of a layer merged: one tree is a deterministic process drawn from the real one, so the
number of its pairs is bounded by the spanning capacity. The core weight is unbiased if every trajectory of pi is one of a core policy.
With petals it holds segment by segment, and POPLER chains the segments as a small Markov reward process. Source: Jia et al. 2023
(arXiv 2310.06113). The sunflower and the steps of POPLER are a reconstruction from memory; their sample sizes are free here, because those
of the theory cannot be run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tabular.mdp import LayeredMDP
from rheostat.tabular.policies import consistent, require_class


class Trees(NamedTuple):
    """Estimates of every policy from T trees."""

    returns: Tensor
    """float64 ``[T, N]``, the return of every policy on every tree; their mean over trees is unbiased."""
    pairs: Tensor
    """int64 ``[T, H]``, pairs of state and action that the class needs in every layer: calls of the generative model."""


def trajectory_trees(mdp: LayeredMDP, policies: Tensor, number: int, *, noise: float = 0.0, generator: torch.Generator) -> Trees:
    """Evaluate a whole class on the same few samples of a generative model.

    Args:
        mdp: in layers.
        policies: int64 ``[N, H, S]``.
        number: trees T.
        noise: standard deviation of a Gaussian on every sampled reward.
        generator: draws everything.

    Raises:
        RheostatError: see :func:`~rheostat.tabular.policies.require_class`.
    """
    require_class(policies, mdp)
    horizon, states, actions = mdp.shape
    here = torch.multinomial(mdp.start, number, replacement=True, generator=generator)[:, None].expand(-1, len(policies))
    members = torch.arange(len(policies))
    returns, pairs = torch.zeros(number, len(policies), dtype=torch.float64), []
    for h in range(horizon):
        pair = here * actions + policies[members, h, here]
        pairs.append(torch.zeros(number, states * actions, dtype=torch.int64).scatter_(1, pair, 1).sum(1))
        reward = mdp.reward[h].flatten().expand(number, -1)
        if noise:
            reward = reward + noise * torch.randn(reward.shape, generator=generator, dtype=torch.float64)
        returns = returns + reward.gather(1, pair)
        if h < horizon - 1:
            here = drawn_successors(mdp, h, number, generator).flatten(1).gather(1, pair)
    return Trees(returns, torch.stack(pairs, 1))


def drawn_successors(mdp: LayeredMDP, h: int, number: int, generator: torch.Generator) -> Tensor:
    """One successor of every state and action of a layer, ``number`` times: int64 ``[T, S, A]``."""
    _, states, actions = mdp.shape
    rows = mdp.transition[h].flatten(0, 1)
    return torch.multinomial(rows, number, replacement=True, generator=generator).T.reshape(number, states, actions)


def simulated_action_values(mdp: LayeredMDP, policies: Tensor, rollouts: int, generator: torch.Generator) -> list[Tensor]:
    """Monte-Carlo Q of every policy in every state of every layer, by a local simulator.

    Args:
        mdp: in layers.
        policies: int64 ``[N, H, S]``.
        rollouts: T per state and action. Those of different states share their later samples, as the branches of a trajectory tree do, so
            every estimate is unbiased, and estimates are dependent.
        generator: draws everything.

    Returns:
        H tensors float64 ``[N, S, A]``.
    """
    require_class(policies, mdp)
    horizon, states, _ = mdp.shape
    ahead = torch.zeros(rollouts, len(policies), states, dtype=torch.float64)
    found = []
    for h in reversed(range(horizon)):
        q = mdp.reward[h].expand(rollouts, len(policies), -1, -1)
        if h < horizon - 1:
            successor = drawn_successors(mdp, h, rollouts, generator).flatten(1)[:, None].expand(-1, len(policies), -1)
            q = q + ahead.gather(2, successor).view(rollouts, len(policies), *mdp.shape[1:])
        found.append(q.mean(0))
        ahead = q.gather(-1, policies[:, h, :, None].expand(rollouts, -1, -1, -1))[..., 0]
    return found[::-1]


# --- episodes ----------------------------------------------------------------------------------------------------------------------------


class Episodes(NamedTuple):
    """B whole episodes."""

    state: Tensor
    """int64 ``[B, H]``."""
    action: Tensor
    """int64 ``[B, H]``."""
    reward: Tensor
    """float64 ``[B, H]``."""


def sample_episodes(mdp: LayeredMDP, policies: Tensor, *, noise: float = 0.0, generator: torch.Generator) -> Episodes:
    """One episode of every policy.

    Args:
        mdp: in layers.
        policies: int64 ``[B, H, S]``, repeated as often as they shall act.
        noise: standard deviation of a Gaussian on every reward.
        generator: draws states and noise.
    """
    rows = torch.arange(len(policies))
    state = torch.multinomial(mdp.start, len(policies), replacement=True, generator=generator)
    steps = []
    for h in range(mdp.shape[0]):
        action = policies[rows, h, state]
        steps.append((state, action, mdp.reward[h, state, action]))
        state = torch.multinomial(mdp.transition[h, state, action], 1, generator=generator)[:, 0]
    states, actions, rewards = (torch.stack(x, 1) for x in zip(*steps, strict=True))
    if noise:
        rewards = rewards + noise * torch.randn(rewards.shape, generator=generator, dtype=torch.float64)
    return Episodes(states, actions, rewards)


def mixture(policies: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Policies drawn uniformly with replacement, int64 ``[B, H, S]`` from ``[K, H, S]``."""
    return policies[torch.randint(len(policies), (number,), generator=generator)]


def random_actions(mdp: LayeredMDP, number: int, generator: torch.Generator) -> Tensor:
    """Policies whose every action is drawn uniformly, int64 ``[B, H, S]``: an episode of each is one of uniform exploration."""
    return torch.randint(mdp.shape[2], (number, *mdp.shape[:2]), generator=generator)


def core_weights(core: Tensor, target: Tensor, state: Tensor, action: Tensor) -> Tensor:
    """Importance weights of whole episodes that the uniform mixture of core policies has collected.

    Args:
        core: int64 ``[K, H, S]``.
        target: int64 ``[N, H, S]``, the policies to evaluate.
        state, action: int64 ``[B, H]``.

    Returns:
        float64 ``[N, B]``: ``K 1{tau ~ pi} / #{core policies that tau is consistent with}``; 0 for an episode of no core policy, which the
        mixture cannot have collected.

    Raises:
        RheostatError: an empty core or target.
    """
    require_class(core)
    require_class(target)
    count = consistent(core, state, action).sum(0)
    weight = torch.where(count > 0, len(core) / count.clamp(min=1).double(), 0.0)
    return consistent(target, state, action) * weight


def core_values(core: Tensor, target: Tensor, episodes: Episodes) -> Tensor:
    """The core estimate of every target policy, float64 ``[N]``; arguments of :func:`core_weights`."""
    return core_weights(core, target, episodes.state, episodes.action) @ episodes.reward.sum(1) / len(episodes.reward)


def uniform_values(target: Tensor, actions: int, episodes: Episodes) -> Tensor:
    """The estimate from episodes of uniform actions, float64 ``[N]``: the weight ``A^H`` on one episode in ``A^H``.

    Args:
        target: int64 ``[N, H, S]``.
        actions: A.
        episodes: of :func:`random_actions`.
    """
    require_class(target)
    weight = float(actions) ** target.shape[1] * consistent(target, episodes.state, episodes.action).double()
    return weight @ episodes.reward.sum(1) / len(episodes.reward)


# --- sunflowers and POPLER ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sunflower:
    """A class with a core and with petals (a reconstruction).

    Raises:
        RheostatError: an empty class or core, or petals of another shape.
    """

    policies: Tensor
    """int64 ``[N, H, S]``."""
    core: Tensor
    """int64 ``[K, H, S]``."""
    petals: Tensor
    """bool ``[N, H, S]``, the petals of every policy; at most D of each."""

    def __post_init__(self) -> None:
        require_class(self.policies)
        require_class(self.core)
        if self.petals.dtype != torch.bool or self.petals.shape != self.policies.shape:
            raise RheostatError(
                f"Petals are bool {list(self.policies.shape)}, like the policies, not {self.petals.dtype} {list(self.petals.shape)}."
            )

    @property
    def width(self) -> int:
        """D, the most petals of a policy."""
        return int(self.petals.sum((1, 2)).max())

    def violation(self) -> int | None:
        """The first policy some partial trajectory of which is of no core policy and passes no petal strictly inside; None if there is
        none. Every sequence of states counts, whatever the process."""
        agree = (self.policies[:, None] == self.core[None]).permute(0, 2, 3, 1)  # [N, H, S, K]
        powers = [1 << k for k in range(len(self.core))]
        for index in range(len(self.policies)):
            masks: set[int] = set()
            for h, layer in enumerate(agree[index].tolist()):
                codes = [sum(power for power, same in zip(powers, row, strict=True) if same) for row in layer]
                inside = [code for code, petal in zip(codes, self.petals[index, h].tolist(), strict=True) if not petal]
                masks = {mask & code for mask in masks for code in inside} | set(codes)
                if 0 in masks:
                    return index
        return None


class Popler(NamedTuple):
    """What POPLER found."""

    member: int
    """Index of the chosen policy; of equal ones one at random."""
    values: Tensor
    """float64 ``[N]``, estimates of all policies."""
    explored: list[tuple[int, int]]
    """Petals (layer, state) that got data of their own, in that order."""
    episodes: int
    """Episodes that were collected."""


@dataclass(frozen=True, slots=True)
class _Segments:
    """What the data from one start say about every policy: estimates up to the first petal of that policy, or to the end."""

    layer: int
    """Of the start; -1 for the beginning of episodes."""
    move: Tensor
    """float64 ``[N, H, S]``, probability that the first petal on the way is this one."""
    reward: Tensor
    """float64 ``[N]``, expected reward on the way."""


def popler(
    mdp: LayeredMDP,
    flower: Sunflower,
    *,
    first: int,
    second: int,
    epsilon: float = 0.1,
    noise: float = 0.0,
    generator: torch.Generator,
) -> Popler:
    """Find the best member of a sunflower with online episodes alone.

    Args:
        mdp: where it acts; only its samples are used.
        flower: the class.
        first: episodes of the core mixture from the start, n1.
        second: episodes that go to a new petal and on with the core mixture, n2.
        epsilon: wanted accuracy; petals are explored that some policy reaches with an estimated probability of ``epsilon / (8 D)``.
        noise: standard deviation of a Gaussian on every reward.
        generator: draws everything.

    Raises:
        RheostatError: a class for another process, or less than one episode.
    """
    require_class(flower.policies, mdp)
    if min(first, second) < 1:
        raise RheostatError(f"POPLER needs at least one episode from the start and from every petal, not {first} and {second}.")
    threshold = epsilon / (8 * max(flower.width, 1))
    core = flower.core
    data = sample_episodes(mdp, mixture(core, first, generator), noise=noise, generator=generator)
    known: dict[tuple[int, int], _Segments] = {(-1, 0): _segments(flower, data, -1)}
    while True:
        reach = _reach(flower, known)
        for layer, state in known:
            if layer >= 0:
                reach[:, layer, state] = 0.0
        best, policy = (reach * flower.petals).max(0)
        if float(best.max()) < threshold:
            break
        layer, state = divmod(int(best.argmax()), mdp.shape[1])
        arriving = flower.policies[policy[layer, state]].expand(second, -1, -1)
        plan = torch.cat([arriving[:, :layer], mixture(core, second, generator)[:, layer:]], 1)
        found = sample_episodes(mdp, plan, noise=noise, generator=generator)
        hit = found.state[:, layer] == state
        known[layer, state] = _segments(flower, Episodes(*(x[hit] for x in found)), layer)
    values = _values(flower, known)
    best_ones = (values >= values.max() - 1e-12).nonzero()[:, 0]
    chosen = best_ones[torch.randint(len(best_ones), (1,), generator=generator)]
    explored = [place for place in known if place[0] >= 0]
    return Popler(int(chosen), values, explored, first + second * len(explored))


def _segments(flower: Sunflower, data: Episodes, layer: int) -> _Segments:
    """Importance-sampled estimates from episodes that are at ``layer`` (or at the beginning) and go on with the core mixture."""
    policies, petals, core = flower.policies, flower.petals, flower.core
    number, horizon, _ = policies.shape
    rows = len(data.state)
    if not rows:
        return _Segments(layer, torch.zeros(petals.shape, dtype=torch.float64), torch.zeros(number, dtype=torch.float64))
    layers = torch.arange(horizon)
    begun = layers >= max(layer, 0)
    mine = (policies[:, layers, data.state] == data.action) | ~begun  # [N, B, H]
    theirs = (core[:, layers, data.state] == data.action) | ~begun
    # weight of the steps before step t, for t = 0 .. H
    before = torch.nn.functional.pad(mine.cumprod(-1), (1, 0), value=1)
    count = torch.nn.functional.pad(theirs.cumprod(-1), (1, 0), value=1).sum(0)  # [B, H + 1], at least 1: a core policy acted
    weight = before * len(core) / count.double()
    petal = petals[:, layers, data.state] & (layers > layer)  # [N, B, H], strictly after the start
    passed = petal.cumsum(-1)
    here = petal & (passed == 1)
    stop = torch.where(petal.any(-1), here.to(torch.int8).argmax(-1), horizon)  # [N, B]
    final = weight.gather(-1, stop[..., None])[..., 0]
    earned = (data.reward * ((layers < stop[..., None]) & begun)).sum(-1)
    move = torch.zeros(number, horizon, flower.petals.shape[2], dtype=torch.float64)
    for h in range(horizon):
        move[:, h] = move[:, h].index_add(1, data.state[:, h], final * here[..., h]) / rows
    return _Segments(layer, move, (final * earned).sum(1) / rows)


def _reach(flower: Sunflower, known: dict[tuple[int, int], _Segments]) -> Tensor:
    """Estimated probability that every policy comes to every petal of its own, ``[N, H, S]``."""
    reach = torch.zeros(flower.petals.shape, dtype=torch.float64)
    for (layer, state), found in sorted(known.items(), key=lambda item: item[0][0]):
        mass = torch.ones(len(reach), dtype=torch.float64) if layer < 0 else reach[:, layer, state]
        reach = reach + mass[:, None, None] * found.move
    return reach


def _values(flower: Sunflower, known: dict[tuple[int, int], _Segments]) -> Tensor:
    """Values ``[N]`` of the Markov reward processes: backwards through the explored petals; unexplored ones are worth 0."""
    values = torch.zeros(flower.petals.shape, dtype=torch.float64)
    total = torch.zeros(len(values), dtype=torch.float64)
    for (layer, state), found in sorted(known.items(), key=lambda item: -item[0][0]):
        total = found.reward + (found.move * values).sum((1, 2))
        if layer >= 0:
            values[:, layer, state] = total
    return total
