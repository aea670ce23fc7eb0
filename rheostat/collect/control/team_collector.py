"""Several policies in the same environments: all agents act at once, and each policy has the rows of its own agents."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rheostat.collect.control.evaluation_episodes import STEP_LIMIT
from rheostat.collect.control.stepping import EPISODES_KEPT, Collector, Draw
from rheostat.tasks.control.parallel import AgentRows, Joint, ParallelEnvironments
from rheostat.trajectories import Trajectories


class Acting(NamedTuple):
    """The policy that acts for its agents."""

    draw: Draw
    generator: torch.Generator
    version: int


class Returns:
    """The running return of every agent in the episodes of E environments.

    Args:
        agents: their names, in order (A).
        environments: E.
    """

    def __init__(self, agents: list[str], environments: int) -> None:
        self.agents = agents
        self.running = torch.zeros(environments, len(agents), dtype=torch.float64)
        self.length = torch.zeros(environments, dtype=torch.int64)

    def add(self, joint: Joint) -> list[tuple[int, list[float], int]]:
        """Record a step; returns the episodes that ended with it: environment, return of every agent, length."""
        self.running += torch.from_numpy(joint.reward)
        self.length += 1
        found = [(index, self.running[index].tolist(), int(self.length[index])) for index in np.flatnonzero(joint.over).tolist()]
        for index, *_ in found:
            self.running[index], self.length[index] = 0.0, 0
        return found

    def restart(self) -> None:
        """Drop the unfinished episodes."""
        self.running.zero_()
        self.length.zero_()


class TeamCollector:
    """Steps the environments of several policies and yields a block of rows for each.

    Args:
        environments: the environments.
        rows: those of every policy, by its name.

    Attributes:
        members: by policy, the collector of its rows.
        steps: taken since the beginning, over all environments.
        episodes: that ended since the beginning.
    """

    def __init__(self, environments: ParallelEnvironments, rows: dict[str, AgentRows]) -> None:
        self.environments, self.rows = environments, rows
        self.members = {name: Collector(cast(Any, each)) for name, each in rows.items()}
        self.returns = Returns(environments.agents, environments.num_envs)
        self.finished: deque[tuple[list[float], int]] = deque(maxlen=EPISODES_KEPT)
        self.episodes = self.steps = 0

    @torch.no_grad()
    def collect(self, acting: dict[str, Acting], steps: int) -> dict[str, Trajectories]:
        """``steps`` steps of all environments.

        Args:
            acting: the acting policies, by name.
            steps: of each environment.

        Returns:
            By policy, ``[environments x agents, steps]``.
        """
        for _ in range(steps):
            drawn: dict[str, tuple[Tensor, Tensor]] = {}
            commands: dict[str, np.ndarray] = {}
            for name, who in acting.items():
                drawn[name] = who.draw(self.members[name].observation, who.generator)
                commands |= self.rows[name].commands(drawn[name][0])
            joint = self.environments.step(commands)
            for name, (action, log_prob) in drawn.items():
                self.members[name].take(action, log_prob, self.rows[name].read(joint))
            for _, paid, length in self.returns.add(joint):
                self.finished.append((paid, length))
                self.episodes += 1
        self.steps += steps * self.environments.num_envs
        return {name: self.members[name].block(who.version) for name, who in acting.items()}

    def metrics(self) -> dict[str, float]:
        """Mean return (of all agents together, and of each) and length of the last episodes that ended, at most 100."""
        found: dict[str, float] = {"episodes": self.episodes}
        if self.finished:
            paid = [each for each, _ in self.finished]
            found["episode_return"] = sum(map(sum, paid)) / len(paid)
            found["episode_length"] = sum(length for _, length in self.finished) / len(paid)
            found |= {
                f"episode_return/{agent}": sum(each[a] for each in paid) / len(paid) for a, agent in enumerate(self.environments.agents)
            }
        return found

    def restart(self, seed: int) -> None:
        """Begin new episodes in freshly seeded environments; unfinished ones are not counted."""
        self.environments.restart(seed)
        self.returns.restart()
        self.look_again()

    def look_again(self) -> None:
        """Read the next observations of every policy again, after the environments were restored."""
        for name, member in self.members.items():
            member.observation = self.rows[name].reset()

    def state_dict(self) -> dict[str, Any]:
        """Environments and counters; the policies' observations come from the environments."""
        return {
            "worlds": self.environments.state_dict(),
            "running": self.returns.running,
            "length": self.returns.length,
            "finished": [[list(paid), length] for paid, length in self.finished],
            "episodes": self.episodes,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        self.environments.load_state_dict(state["worlds"])
        self.returns.running, self.returns.length = state["running"], state["length"]
        self.finished = deque(((list(paid), length) for paid, length in state["finished"]), maxlen=EPISODES_KEPT)
        self.episodes, self.steps = state["episodes"], state["steps"]
        self.look_again()


@torch.no_grad()
def team_returns(
    act: dict[str, Any], environments: ParallelEnvironments, rows: dict[str, AgentRows], episodes: int
) -> list[tuple[list[float], int]]:
    """Returns of every agent and lengths of exactly ``episodes`` episodes, as evenly from all environments as possible.

    An environment without an end is cut after 100,000 steps, and unfinished episodes count as they are.

    Args:
        act: by policy, observations of its rows ``[E A, ...]`` to their actions.
        environments: freshly made.
        rows: of the policies.
        episodes: how many, at least 1.
    """
    wanted = [episodes // environments.num_envs + (index < episodes % environments.num_envs) for index in range(environments.num_envs)]
    found: list[list[tuple[list[float], int]]] = [[] for _ in wanted]
    returns = Returns(environments.agents, environments.num_envs)
    seen = {name: each.reset() for name, each in rows.items()}
    for step in range(STEP_LIMIT):
        commands: dict[str, np.ndarray] = {}
        for name, each in rows.items():
            commands |= each.commands(act[name](seen[name]))
        joint = environments.step(commands)
        if step == STEP_LIMIT - 1:
            joint.over[:] = True
        for index, paid, length in returns.add(joint):
            found[index].append((paid, length))
        if all(len(each) >= count for each, count in zip(found, wanted, strict=True)):
            break
        seen = {name: each.read(joint).observation for name, each in rows.items()}
    return [each[k] for k in range(max(wanted)) for each, count in zip(found, wanted, strict=True) if k < min(count, len(each))]
