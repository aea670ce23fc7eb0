"""Policy emulator: a small table whose values are those of the real process, for every policy of a class at once.

For h = H - 1 .. 0:

1. Draw m states of layer h from the reset distribution: the table's states.
2. From every one of them and every action, draw successors by local resets, and decode each: it goes, in equal parts, to all states of
   layer h + 1 whose Monte-Carlo action values under every test policy are within the tolerance of its own (to the nearest if there are
   none).
3. Compare the table's action values in layer h with Monte-Carlo ones for every policy of the class. The policy that disagrees most becomes
   a test of the decoder, and the layer is built again, until none disagrees or the worst one is a test already.

A reconstruction of PLHR (Krishnamurthy, Li and Sekhari 2025, arXiv 2504.05405) from its abstract: hybrid resets, an emulator, tests where
table and process disagree. Rules and sizes are ours. Decoding compares action values, not values: in a block MDP those depend on the latent
state alone, while a policy's first action depends on the observation; equal parts then average over observations as the process does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tabular.exploration import simulated_action_values
from rheostat.tabular.mdp import LayeredMDP, require_distribution, require_shape
from rheostat.tabular.policies import require_class


@dataclass(frozen=True, slots=True)
class Emulator:
    """The small table: m states in each of H layers."""

    state: Tensor
    """int64 ``[H, m]``, the real state behind every state of the table: policies act in it as they do there."""
    transition: Tensor
    """float64 ``[H - 1, m, A, m]``."""
    reward: Tensor
    """float64 ``[H, m, A]``."""
    start: Tensor
    """float64 ``[m]``."""
    tests: tuple[tuple[int, ...], ...]
    """Indices of the test policies that decode layers 1 .. H - 1, and of those that decode first states, in layer 0; all by layer."""

    def values(self, policies: Tensor) -> Tensor:
        """The table's value of every policy, float64 ``[N]``; policies int64 ``[N, H, S]``."""
        horizon, size = self.state.shape
        ahead = torch.zeros(len(policies), size, dtype=torch.float64)
        for h in reversed(range(horizon)):
            ahead = self.action_values(h, ahead).gather(-1, policies[:, h][:, self.state[h], None])[..., 0]
        return ahead @ self.start

    def action_values(self, h: int, ahead: Tensor) -> Tensor:
        """Q in layer h, ``[N, m, A]``, from values ``[N, m]`` in the next one."""
        return _table_values(self.reward[h], self.transition[h] if h < len(self.transition) else None, ahead)


def policy_emulator(
    mdp: LayeredMDP,
    policies: Tensor,
    resets: Tensor,
    *,
    size: int,
    rollouts: int = 200,
    successors: int = 200,
    tolerance: float = 0.1,
    generator: torch.Generator,
) -> Emulator:
    """Build an emulator with resets alone.

    Args:
        mdp: the real process; only its samples are used.
        policies: int64 ``[N, H, S]``, the class.
        resets: float64 ``[H, S]``, mu; every layer sums to 1.
        size: states of the table per layer, m.
        rollouts: per Monte-Carlo estimate.
        successors: drawn from every state and action of the table, and as first states.
        tolerance: within which values match.
        generator: draws everything.

    Raises:
        RheostatError: a class for another process, a layer of mu without support, or a size below 1.
    """
    require_class(policies, mdp)
    require_shape("resets", resets, mdp.shape[:2])
    require_distribution("resets", resets)
    if min(size, rollouts, successors) < 1 or not tolerance > 0:
        raise RheostatError("An emulator needs a size, rollouts and successors of at least 1, and a tolerance above 0.")
    horizon, states, actions = mdp.shape
    real = simulated_action_values(mdp, policies, rollouts, generator)  # H of [N, S, A]
    layers = torch.multinomial(resets, size, replacement=True, generator=generator)
    transitions, tests = [], []
    ahead = torch.zeros(len(policies), size, dtype=torch.float64)
    for h in reversed(range(horizon)):
        reward = mdp.reward[h, layers[h]]
        move = None
        if h < horizon - 1:
            rows = mdp.transition[h, layers[h]].flatten(0, 1)
            drawn = torch.multinomial(rows, successors, replacement=True, generator=generator)
            found = _decoded(_counts(drawn, states), real[h + 1], layers[h + 1], reward, ahead, real[h][:, layers[h]], tolerance)
            move, tested = found
            transitions.append(move)
            tests.append(tested)
        ahead = _table_values(reward, move, ahead).gather(-1, policies[:, h][:, layers[h], None])[..., 0]
    first = _counts(torch.multinomial(mdp.start, successors, replacement=True, generator=generator)[None], states)
    value = real[0].gather(-1, policies[:, 0, :, None])[..., 0] @ first[0]
    begin, tested = _decoded(first, real[0], layers[0], torch.zeros(1, 1, dtype=torch.float64), ahead, value[:, None, None], tolerance)
    tests.append(tested)
    stacked = torch.stack(transitions[::-1]) if transitions else torch.zeros(0, size, actions, size, dtype=torch.float64)
    rewards = torch.stack([mdp.reward[h, layers[h]] for h in range(horizon)])
    return Emulator(layers, stacked, rewards, begin[0, 0], tuple(tests[::-1]))


def _decoded(
    drawn: Tensor, real: Tensor, layer: Tensor, reward: Tensor, ahead: Tensor, wanted: Tensor, tolerance: float
) -> tuple[Tensor, tuple[int, ...]]:
    """Transitions into the table's next layer, and the test policies that were needed.

    Args:
        drawn: ``[m A, S]``, shares of real successors.
        real: ``[N, S, A]``, Monte-Carlo action values there.
        layer: ``[m']``, real states of the table there.
        reward: ``[m, A]``.
        ahead: ``[N, m']``, the table's values there.
        wanted: ``[N, m, A]``, Monte-Carlo action values here.
        tolerance: within which values match.

    Returns:
        ``[m, A, m']`` and the tests.
    """
    tests: list[int] = []
    while True:
        gap = torch.zeros(real.shape[1], len(layer), dtype=torch.float64)  # [S, m']
        if tests:
            q = real[tests].transpose(0, 1).flatten(1)  # [S, tests * A]
            gap = (q[:, None] - q[layer][None]).abs().amax(-1)
        match = (gap <= tolerance) | (gap == gap.amin(1, keepdim=True))
        share = match / match.sum(1, keepdim=True).double()
        move = (drawn @ share).view(*reward.shape, len(layer))
        wrong = (_table_values(reward, move, ahead) - wanted).abs().amax((1, 2))  # [N]
        worst = int(wrong.argmax())
        if float(wrong[worst]) <= tolerance or worst in tests:
            return move, tuple(tests)
        tests.append(worst)


def _table_values(reward: Tensor, move: Tensor | None, ahead: Tensor) -> Tensor:
    """Q in a layer of the table, ``[N, m, A]``."""
    if move is None:
        return reward.expand(len(ahead), *reward.shape)
    return reward + torch.einsum("sat,nt->nsa", move, ahead)


def _counts(drawn: Tensor, states: int) -> Tensor:
    """Shares ``[B, S]`` of states among draws int64 ``[B, n]``."""
    found = torch.zeros(len(drawn), states, dtype=torch.float64)
    return found.scatter_add_(1, drawn, torch.full(drawn.shape, 1 / drawn.shape[1], dtype=torch.float64))
