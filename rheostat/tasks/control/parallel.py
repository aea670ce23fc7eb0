"""Environments of several agents that act at the same time, in PettingZoo's parallel interface.

An agent may leave before the others and is out until the next episode, which begins when no agent is left. Observations and actions may
have other spaces for every agent. Every episode is seeded, with a seed of its own, so that an environment that is deterministic given its
seed comes back by that seed and the episode's actions; one with ``save_state()`` and ``load_state(state)`` (plain data) is saved instead.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import MissingExtra, RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.control.actions import ActionDecoder
from rheostat.tasks.control.copies import code_of, put
from rheostat.tasks.control.cursor import LONGEST, WHY
from rheostat.tasks.control.environment_list import working_directory_on_path
from rheostat.tasks.control.environments import Step, check_seed
from rheostat.tasks.control.recording import checksum, pack, unpack
from rheostat.tasks.control.spaces import ObservationEncoder

PREFIX = "pettingzoo:"
METHODS = ("reset", "step", "observation_space", "action_space")


@dataclass
class Joint:
    """One step of E environments with A agents each; observations are raw, one entry per environment."""

    observation: dict[str, list[Any]]
    """Next observation of each agent."""
    following: dict[str, list[Any]]
    """True successor of its action: its last observation where it left."""
    reward: np.ndarray
    """float64 ``[E, A]``, 0 for agents that are out."""
    terminated: np.ndarray
    """bool ``[E, A]``."""
    truncated: np.ndarray
    """bool ``[E, A]``; never where terminated."""
    valid: np.ndarray
    """bool ``[E, A]``: the agent acted."""
    over: np.ndarray
    """bool ``[E]``: the episode is over, and the next has begun."""


class ParallelEnvironments:
    """``num_envs`` copies of one parallel environment, stepped together.

    Args:
        maker: makes one.
        name: of the task.
        num_envs: number of environments E.
        seed: episode k of environment i is seeded from it, i and k.

    Attributes:
        agents: all that can take part, in the environment's order.
        alive: bool ``[E, A]``: the agents that act in the next step.
        can_save: False where a saved state could not be restored, until new episodes begin.
        warnings: sentences about state that a resume could not restore.

    Raises:
        RheostatError: what is made is not a parallel environment.
    """

    def __init__(self, maker: Callable[[], Any], name: str, num_envs: int, seed: int) -> None:
        self.name, self.num_envs, self.seed = name, num_envs, check_seed(seed, num_envs)
        self.copies: list[Any] = []
        for index in range(num_envs):
            with code_of(index, name, "constructor"):
                self.copies.append(maker())
        self.agents = self._agents_of(self.copies[0])
        if any(self._agents_of(each) != self.agents for each in self.copies):
            raise RheostatError(f"The copies of {name} do not have the same possible_agents: the agents of a task are fixed.")
        self.spaces = {agent: (self.copies[0].observation_space(agent), self.copies[0].action_space(agent)) for agent in self.agents}
        self.can_save, self.warnings = True, list[str]()
        self._begin_all()

    def _agents_of(self, environment: Any) -> list[str]:
        agents = list(getattr(environment, "possible_agents", None) or ())
        if hasattr(environment, "agent_iter"):
            raise RheostatError(f"In {self.name} agents act in turns: wrap it with pettingzoo.utils.conversions.aec_to_parallel.")
        if not agents or not all(callable(getattr(environment, method, None)) for method in METHODS):
            raise RheostatError(
                f"{self.name} makes a {type(environment).__name__}, which is no parallel environment of PettingZoo: it needs "
                f"possible_agents, {', '.join(METHODS)}."
            )
        if not all(isinstance(agent, str) for agent in agents):
            raise RheostatError(f"The agents of {self.name} are {agents}: name them by text.")
        return agents

    # --- episodes ---------------------------------------------------------------------------------------------------------------------

    def _begin_all(self) -> None:
        from gymnasium.wrappers.utils import create_zero_array

        self.episodes = [0] * self.num_envs
        self.alive = np.zeros((self.num_envs, len(self.agents)), dtype=bool)
        self.last: dict[str, list[Any]] = {agent: [create_zero_array(space)] * self.num_envs for agent, (space, _) in self.spaces.items()}
        self._log: list[list[dict[str, Any]]] = [[] for _ in self.copies]
        self._checksum = [0] * self.num_envs
        for index in range(self.num_envs):
            self._begin(index)

    def _begin(self, index: int) -> None:
        """The next episode of an environment."""
        environment = self.copies[index]
        with code_of(index, self.name, "reset()"):
            answer = environment.reset(seed=derive_seed(self.seed, index, self.episodes[index]))
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[0], dict):
            raise RheostatError(f"reset() of {self.name} returned something malformed: it must be (observations, infos) by agent.")
        self.episodes[index] += 1
        self._log[index], self._checksum[index] = [], 0
        self._see(index, answer[0])
        self.alive[index] = self._present(index, answer[0])
        if not self.alive[index].any():
            raise RheostatError(f"An episode of {self.name} begins without any agent: somebody must act.")

    def _present(self, index: int, seen: dict[str, Any]) -> list[bool]:
        """Determine the agents that act next.

        Raises:
            RheostatError: an agent without an observation.
        """
        present = set(self.copies[index].agents)
        blind = [agent for agent in self.agents if agent in present and agent not in seen]
        if blind:
            raise RheostatError(f"Environment {index} of {self.name} gave no observation to {blind[0]}, which is among its agents.")
        return [agent in present for agent in self.agents]

    def _see(self, index: int, seen: dict[str, Any]) -> None:
        self._checksum[index] = checksum(seen, self._checksum[index])
        for agent in self.agents:
            if agent in seen:
                self.last[agent][index] = copy.deepcopy(seen[agent])  # environments may reuse an array

    def restart(self, seed: int) -> None:
        """Start over with another seed, as if just made."""
        self.seed, self.can_save = check_seed(seed, self.num_envs), True
        self._begin_all()

    # --- acting -----------------------------------------------------------------------------------------------------------------------

    def step(self, commands: dict[str, np.ndarray]) -> Joint:
        """Take the actions of all agents that are in.

        Args:
            commands: by agent, ``[E, ...]`` in its own action space; those of agents that are out are ignored.

        Raises:
            RheostatError: the environment returned something malformed.
        """
        valid, shape = self.alive.copy(), self.alive.shape
        reward, flags, over = np.zeros(shape), np.zeros((2, *shape), dtype=bool), np.zeros(self.num_envs, dtype=bool)
        for index in range(self.num_envs):
            actions = {agent: commands[agent][index] for a, agent in enumerate(self.agents) if valid[index, a]}
            reward[index], flags[:, index] = self._step_one(index, actions)
        following = {agent: list(each) for agent, each in self.last.items()}
        for index in np.flatnonzero(~self.alive.any(1)).tolist():
            over[index] = True
            self._begin(index)
        observation = {agent: list(each) for agent, each in self.last.items()}
        return Joint(observation, following, reward, flags[0], flags[1], valid, over)

    def _step_one(self, index: int, actions: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Rewards ``[A]``, and ``terminated`` and ``truncated`` ``[2, A]``; stores the agents that act next."""
        acted = self.alive[index].copy()
        self._log[index].append({agent: np.array(action) for agent, action in actions.items()})
        with code_of(index, self.name, "step()"):
            answer = self.copies[index].step(actions)
        if not isinstance(answer, tuple) or len(answer) != 5 or not all(isinstance(part, dict) for part in answer):
            raise RheostatError(
                f"step() of {self.name} returned something malformed: it must be (observations, rewards, terminations, truncations, "
                "infos), each by agent."
            )
        seen, paid, ended, cut, _ = answer
        self._see(index, seen)
        self._checksum[index] = checksum([paid, ended, cut], self._checksum[index])
        present = self._present(index, seen)
        reward, flags = np.zeros(len(self.agents)), np.zeros((2, len(self.agents)), dtype=bool)
        for a, agent in enumerate(self.agents):
            if not acted[a]:
                continue
            reward[a] = self._number(index, agent, paid)
            flags[1, a] = bool(cut.get(agent, False))
            flags[0, a] = bool(ended.get(agent, False)) or (not present[a] and not flags[1, a])  # left without a reported end
            flags[1, a] &= not flags[0, a]
        self.alive[index] = np.array(present) & ~flags.any(0)
        return reward, flags

    def _number(self, index: int, agent: str, paid: dict[str, Any]) -> float:
        value = np.asarray(paid.get(agent, np.nan))
        if value.size != 1 or value.dtype.kind not in "fiub" or not np.isfinite(value).all():
            raise RheostatError(
                f"The reward of {agent} in environment {index} of {self.name} is {paid.get(agent)!r}: one finite number is needed."
            )
        return float(value.reshape(-1)[0])

    # --- exact state ------------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue bit for bit."""
        return {
            "name": self.name,
            "seed": self.seed,
            "episodes": list(self.episodes),
            "checksums": list(self._checksum),
            "alive": torch.from_numpy(self.alive.copy()),
            "last": {agent: pack(each) for agent, each in self.last.items()},
            "copies": [self._save(index) for index in range(self.num_envs)],
        }

    def _save(self, index: int) -> dict[str, Any]:
        environment = self.copies[index]
        if hasattr(environment, "save_state") and hasattr(environment, "load_state"):
            return {"state": pack(environment.save_state())}
        log = self._log[index]
        return {"actions": pack(log) if len(log) <= LONGEST else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was saved; where that is impossible, ``warnings`` gives the reason, and new episodes begin.

        Raises:
            RheostatError: the state is of another task or number of environments.
        """
        if (state["name"], len(state["copies"])) != (self.name, self.num_envs):
            raise RheostatError(
                f"The saved environments are {len(state['copies'])} of {state['name']}, these are {self.num_envs} of {self.name}."
            )
        self.seed = state["seed"]
        lost = ""
        for index, saved in enumerate(state["copies"]):
            lost = lost or self._bring(index, saved, state["episodes"][index], state["checksums"][index])
        if lost:
            self.warnings.append(
                f"The environments of {self.name} could not be brought back to where they were, because {lost}: every environment begins "
                "a new episode. Give it save_state() and load_state(state) to make it resumable."
            )
            self.restart(derive_seed(self.seed, "after", sum(state["episodes"])))
            self.can_save = False
            return
        self.alive = state["alive"].numpy().copy()
        self.last = {agent: unpack(each) for agent, each in state["last"].items()}

    def _bring(self, index: int, saved: dict[str, Any], episodes: int, expected: int) -> str:
        """Restore an environment; returns why that is impossible, or nothing."""
        self.episodes[index] = episodes - 1
        self._begin(index)
        if "state" in saved:
            self.copies[index].load_state(unpack(saved["state"]))
            self._checksum[index] = expected
            return ""
        if saved["actions"] is None:
            return f"its episode is too long to be repeated and {LONGEST:,} steps are the most that are repeated"
        for actions in unpack(saved["actions"]):
            self._step_one(index, {agent: action[()] if not action.ndim else action for agent, action in actions.items()})
        same = self._checksum[index] == expected
        return "" if same else f"repeating the last {len(self._log[index]):,} steps went another way: {WHY}"

    def wake(self) -> None:
        """They are always open."""

    def park(self) -> None:
        """They stay open."""

    def close(self) -> None:
        """Close every copy."""
        for environment in self.copies:
            if hasattr(environment, "close"):
                environment.close()


class AgentRows:
    """Some agents of equal spaces as rows, one per environment and agent: a policy uses them as its environments.

    Args:
        environments: in which they act.
        agents: their names.

    Attributes:
        num_envs: number of rows, E x agents; row ``i A + a`` is agent a in environment i.
        observation_space: of one encoded observation.
        action_space: of one action, as policies see it.
    """

    opened, can_save = True, True

    def __init__(self, environments: ParallelEnvironments, agents: list[str]) -> None:
        from gymnasium.vector.utils import create_empty_array

        self.environments, self.agents = environments, agents
        self.name = f"{environments.name} ({', '.join(agents)})"
        self.places = [environments.agents.index(agent) for agent in agents]
        self.num_envs = environments.num_envs * len(agents)
        raw, acted = environments.spaces[agents[0]]
        self._raw, self._new = raw, create_empty_array
        self._encode = ObservationEncoder(raw, self.name, copy=False)
        self._decode = ActionDecoder(acted, self.name, self.num_envs)
        self.observation_space, self.action_space = self._encode.space, self._decode.space

    def reset(self) -> Tensor:
        """The present observations of all rows, ``[E A, ...]``; the environments do not change."""
        return self._rows(self.environments.last)

    def _rows(self, seen: dict[str, list[Any]]) -> Tensor:
        rows = [seen[agent][index] for index in range(self.environments.num_envs) for agent in self.agents]
        found = self._encode(put(self._raw, rows, self._new(self._raw, n=len(rows)), (), self.name), len(rows))
        if found.dtype != torch.uint8 and not torch.isfinite(found).all():
            raise RheostatError(f"An observation of {self.name} is not finite: correct the environment.")
        return found

    def encode(self, raw: Any) -> tuple[Tensor, bool]:
        """See :meth:`rheostat.tasks.control.environments.Environments.encode`."""
        return self._encode.any(raw)

    def decode(self, action: Tensor) -> np.ndarray:
        """See :meth:`rheostat.tasks.control.environments.Environments.decode`."""
        return self._decode(action, len(action))

    def commands(self, action: Tensor) -> dict[str, np.ndarray]:
        """Actions of the rows ``[E A, ...]`` by agent, ``[E, ...]``."""
        decoded = self._decode(action)
        return {agent: decoded[a :: len(self.agents)] for a, agent in enumerate(self.agents)}

    def read(self, joint: Joint) -> Step:
        """The part of a step that belongs to these rows."""
        reward, terminated, truncated, valid = (
            torch.from_numpy(np.ascontiguousarray(each[:, self.places]).reshape(-1))
            for each in (joint.reward.astype(np.float32), joint.terminated, joint.truncated, joint.valid)
        )
        return Step(self._rows(joint.observation), self._rows(joint.following), reward, terminated, truncated, valid)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the environments are saved once for all their agents."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing: the environments are closed once for all their agents."""


# --- tasks ------------------------------------------------------------------------------------------------------------------------


def maker_of(task: Any, options: dict[str, Any]) -> tuple[Callable[[], Any], str]:
    """The function that makes one environment of a task, and its name.

    Args:
        task: ``MODULE:NAME`` (a class or function), ``pettingzoo:KIND.NAME`` (``pettingzoo:sisl.pursuit_v4``), or such a function.
        options: given to it.

    Raises:
        RheostatError: it is none of these, or there is no such module or name.
        MissingExtra: PettingZoo is not installed.
    """
    found = _named(task) if isinstance(task, str) else task
    if not callable(found):
        raise RheostatError(
            f"Several copies of a {type(task).__name__} are needed: hand over a function that makes one, not the environment."
        )
    name = task if isinstance(task, str) else str(getattr(task, "__name__", type(task).__name__))

    def make() -> Any:
        try:
            return found(**options)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise RheostatError(f"{name} cannot be made with the options {', '.join(options)}: {error}.") from error

    return make, name


def _named(task: str) -> Callable[..., Any]:
    module, colon, name = task.rpartition(":")
    if task.startswith(PREFIX):
        module, name = f"pettingzoo.{task.removeprefix(PREFIX)}", "parallel_env"
    elif not colon:
        raise RheostatError(
            f"{task} is no environment of several agents: name a function that makes a parallel environment of PettingZoo as MODULE:NAME, "
            f"or one of PettingZoo's own as {PREFIX}KIND.NAME."
        )
    with working_directory_on_path(True):
        if module.startswith("pettingzoo") and importlib.util.find_spec("pettingzoo") is None:
            raise MissingExtra("pettingzoo", "agents", f"The task {task}")
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise RheostatError(f"The task {task} cannot be imported ({error}): start where {module}.py is, or install it.") from error
    if not callable(found):
        raise RheostatError(f"The module {module} has no {name} to make an environment with.")
    return found


def make_parallel(task: Any, *, num_envs: int, seed: int, **options: Any) -> ParallelEnvironments:
    """The environments of a task of several agents; see :func:`maker_of` and :class:`ParallelEnvironments`."""
    maker, name = maker_of(task, options)
    return ParallelEnvironments(maker, name, num_envs, seed)
