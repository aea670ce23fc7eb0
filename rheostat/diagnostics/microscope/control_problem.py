"""MDPs given by tables, with a tabular softmax policy: every path through them is listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rheostat.diagnostics.microscope.exact import UNCOUNTED, Problem, assign, flat, require_small
from rheostat.errors import RheostatError
from rheostat.policies.control.actor_critic import TabularSoftmax
from rheostat.tasks.control.tabular import TabularEnvironment, TabularMDP

if TYPE_CHECKING:
    from rheostat.tasks.control.environments import Environments


def unrolled(mdp: TabularMDP) -> TabularMDP:
    """The same MDP with the number of the step as part of the state, so that the limit is an end like any other.

    State ``t * S + s``; nothing is truncated any more, and the value of a state is one number.
    """
    states, actions = mdp.next_state.shape
    later = torch.arange(mdp.limit).clamp(max=mdp.limit - 1)
    following = (later + 1).clamp(max=mdp.limit - 1)
    next_state = (following[:, None, None] * states + mdp.next_state).reshape(-1, actions)
    ends = mdp.ends.expand(mdp.limit, states, actions).clone()
    ends[-1] = True
    start = torch.zeros(mdp.limit * states, dtype=torch.float64)
    start[:states] = mdp.start
    return TabularMDP(next_state, mdp.reward.repeat(mdp.limit, 1), ends.reshape(-1, actions), start, mdp.limit)


class ControlProblem(Problem):
    """A table and a tabular softmax policy.

    Args:
        name: of the problem.
        mdp: every episode of which ends by itself within ``limit`` steps (see :func:`unrolled`).
        spread: standard deviation of the initial logits.
        seed: of these logits.
        step: see :class:`Problem`.

    Raises:
        RheostatError: more outcomes than can be listed, or an MDP whose limit truncates.

    Attributes:
        state, action: int64 ``[N, T]``, every path through the MDP.
        reward: float64 ``[N, T]``, 0 after the end.
        mask: bool ``[N, T]``.
    """

    domain = "control"

    def __init__(self, name: str, mdp: TabularMDP, *, spread: float = 0.5, seed: int = 0, step: float = 1.0) -> None:
        self.name, self.mdp, self.step = name, mdp, step
        require_small(name, self._count())
        self._list()
        draw = torch.Generator().manual_seed(seed)
        self.logits = (torch.randn(mdp.num_states, mdp.num_actions, generator=draw) * spread).requires_grad_()
        self.theta = flat(self.parameters)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.logits]

    def _count(self) -> int:
        """Number of paths through the MDP, without listing them; not far beyond ``UNCOUNTED``."""
        counts = dict.fromkeys(self.mdp.start.nonzero().flatten().tolist(), 1)
        next_state, ends, total = self.mdp.next_state.tolist(), self.mdp.ends.tolist(), 0
        for _ in range(self.mdp.limit):
            later: dict[int, int] = {}
            for state, ways in counts.items():
                for following, end in zip(next_state[state], ends[state], strict=True):
                    if end:
                        total += ways
                    else:
                        later[following] = later.get(following, 0) + ways
            counts = later
            if total + sum(counts.values()) > UNCOUNTED:
                return total + sum(counts.values())
        if counts:
            raise RheostatError(f"Episodes of {self.name} can outlast its limit of {self.mdp.limit} steps: unroll the MDP first.")
        return total

    def _list(self) -> None:
        paths: list[list[tuple[int, int]]] = []
        open_: list[tuple[int, list[tuple[int, int]]]] = [(state, []) for state in self.mdp.start.nonzero().flatten().tolist()]
        while open_:
            state, path = open_.pop()
            for action in range(self.mdp.num_actions):
                longer = [*path, (state, action)]
                if self.mdp.ends[state, action]:
                    paths.append(longer)
                else:
                    open_.append((int(self.mdp.next_state[state, action]), longer))
        width = max(map(len, paths))
        padded = torch.tensor([[*path, *[(0, 0)] * (width - len(path))] for path in paths])
        self.state, self.action = padded.unbind(-1)
        self.mask = torch.arange(width) < torch.tensor([len(path) for path in paths])[:, None]
        self.reward = self.mdp.reward[self.state, self.action].double() * self.mask
        self.returns = self.reward.sum(1)

    def step_logp(self, theta: Tensor) -> Tensor:
        """Log-probability of every action of every outcome, ``[N, T]`` float64, 0 after the end."""
        assign(self.parameters, theta)
        return self.logits.double().log_softmax(-1)[self.state, self.action] * self.mask

    def outcome_logp(self, theta: Tensor) -> Tensor:
        start = self.mdp.start / self.mdp.start.sum()
        return self.step_logp(theta).sum(1) + start[self.state[:, 0]].log()

    def probabilities(self, theta: Tensor) -> Tensor:
        """The policy ``[S, A]`` float64."""
        return theta.view(self.mdp.num_states, -1).double().softmax(-1)

    def action_values(self, theta: Tensor, gamma: float = 1.0) -> Tensor:
        """Q ``[S, A]`` float64, exact."""
        policy, reward = self.probabilities(theta), self.mdp.reward.double()
        q = reward
        for _ in range(self.mdp.limit):
            following = (policy * q).sum(-1)[self.mdp.next_state].masked_fill(self.mdp.ends, 0.0)
            q = reward + gamma * following
        return q

    def state_values(self, theta: Tensor, gamma: float = 1.0) -> Tensor:
        """V ``[S]`` float64, exact."""
        return (self.probabilities(theta) * self.action_values(theta, gamma)).sum(-1)

    def policy(self) -> nn.Module:
        """A network of its own for a method, with this table of logits and values of 0."""
        network = TabularSoftmax(self.mdp.num_states, self.mdp.num_actions, generator=torch.Generator())
        assign([network.logits], self.theta)
        return network

    def environments(self, num_envs: int, seed: int) -> Environments:
        """The MDP as environments for a method."""
        from rheostat.tasks.control.environments import make

        return make(lambda: TabularEnvironment(self.mdp), num_envs=num_envs, seed=seed)
