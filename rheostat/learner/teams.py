"""Several policies that learn side by side in the same environments, each as if the others were a part of its environment.

Every policy has a learner of its own: network, statistics, data and update. What they share is the environments, in which all of them act
at the same time (:mod:`rheostat.learner.teamed`).
"""

from __future__ import annotations

import copy
import statistics
from typing import Any, cast

import torch
from torch import Tensor

from rheostat.collect.control.team_collector import Acting, TeamCollector, team_returns
from rheostat.errors import RheostatError
from rheostat.learner.compute import Asked, Compute
from rheostat.learner.context import LearnerContext
from rheostat.learner.control import ControlContext, MakeEnvironments, composition_of, prepare
from rheostat.learner.learner import Learner
from rheostat.learner.running import RunningMethod
from rheostat.learner.starting_weights import StartingWeights
from rheostat.learner.teamed import Teamed
from rheostat.options import refuse_idle
from rheostat.parts import Batch, Metrics
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.control.parallel import AgentRows, ParallelEnvironments
from rheostat.trajectories import Trajectories

EVERYBODY = "policy"
"""Name of the policy that plays every agent."""


def policies_of(environments: ParallelEnvironments, share: bool) -> dict[str, AgentRows]:
    """Who is played by which policy, by the policy's name.

    Args:
        environments: the environments.
        share: one policy for all agents of equal spaces, named by the first of them (``policy`` where it is the only one); else one for
            every agent, named as the agent is.
    """
    groups: list[list[str]] = []
    for agent in environments.agents:
        equal = next((group for group in groups if share and environments.spaces[group[0]] == environments.spaces[agent]), None)
        groups.append([agent]) if equal is None else equal.append(agent)
    alone = share and len(groups) == 1
    return {EVERYBODY if alone else group[0]: AgentRows(environments, group) for group in groups}


class TeamContext(LearnerContext):
    """What a team shares: the environments and the budget, whose steps are those of environments, whoever acts in them.

    Args:
        make: builds the task's environments, from their number and a seed.
        streams: the run's random streams.
        total_steps: the budget of environment steps.
        environments: how many step together.
        who: the method's name, for sentences.
        share: see :class:`Teamed`.

    Attributes:
        collector: the environments.
        members: the context of every policy, by its name.
        compute: who makes the gradient steps, of all policies.
    """

    unit = "environment steps"

    def __init__(self, make: Any, streams: Streams, total_steps: int, *, environments: int, who: str, share: bool) -> None:
        super().__init__(streams, total_steps)
        self.make, self.who, self.share = make, who, share
        made = make(environments, derive_seed(streams.seed, "pool", 0))
        self.collector = TeamCollector(made, policies_of(made, share))
        self.members: dict[str, MemberContext] = {}
        self.compute = Compute()
        self.restarts = 0

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        return self.collector.steps

    @property
    def policy(self) -> Any:
        """Every policy's network, by name."""
        return torch.nn.ModuleDict({name: member.policy for name, member in self.members.items()})

    def act(self, observation: Any, memory: Any = None) -> dict[str, Any]:
        """Deterministic actions, as the environment takes them.

        Args:
            observation: raw, by agent, or several of each with a leading axis; agents may be missing.
            memory: none.

        Raises:
            RheostatError: no dict by agent, or an agent that there is not.
        """
        self.remember(memory)
        found: dict[str, Any] = {}
        for agent in observation if isinstance(observation, dict) else [""]:
            name = next((name for name, rows in self.collector.rows.items() if agent in rows.agents), None)
            if name is None:
                known = ", ".join(self.collector.environments.agents)
                raise RheostatError(f"{self.who} has a policy for each of {known}: hand over a dict of their observations.")
            rows = self.collector.rows[name]
            seen, single = rows.encode(observation[agent])
            with torch.no_grad():
                action = rows.decode(self.members[name].act_on_target(seen).mode())
            found[agent] = action[0] if single else action
        return found

    def remember(self, episodes: Any) -> None:
        """Nothing can be remembered.

        Raises:
            RheostatError: something is asked for.
        """
        if episodes is not None:
            raise RheostatError(f"The policies of {self.who} act on single observations and have no memory: leave it out.")

    def evaluate(self, episodes: int) -> Metrics:
        """Deterministic actions of all policies in fresh environments; the return of all agents together, and of each."""
        copies = max(1, min(episodes, 10, self.collector.environments.num_envs))
        environments = self.make(copies, derive_seed(self.streams.seed, "evaluation", self.updates))
        try:
            act = {name: member.act_deterministically for name, member in self.members.items()}
            found = team_returns(act, environments, policies_of(environments, self.share), episodes)
        finally:
            environments.close()
        together = [sum(paid) for paid, _ in found]
        each = {f"evaluation_return/{agent}": statistics.fmean(paid[a] for paid, _ in found) for a, agent in enumerate(environments.agents)}
        return {
            "evaluation_return": statistics.fmean(together),
            "evaluation_deviation": statistics.stdev(together) if len(found) > 1 else 0.0,
            "evaluation_length": statistics.fmean(length for _, length in found),
            "evaluation_episodes": len(found),
        } | each

    def restart_episodes(self) -> None:
        """Reset environments that could not be restored; their unfinished episodes count as truncated."""
        self.restarts += 1
        self.collector.restart(derive_seed(self.streams.seed, "pool", self.restarts))
        for member in self.members.values():
            for restart in member.on_restart:
                restart()

    def state_dict(self) -> dict[str, Any]:
        """Counters, streams and environments."""
        return super().state_dict() | {"restarts": self.restarts, "collector": self.collector.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_state_dict(state)
        self.restarts = state["restarts"]
        self.collector.load_state_dict(state["collector"])

    def close(self) -> None:
        """Release the environments."""
        self.collector.environments.close()


class MemberContext(ControlContext):
    """The context of one policy, whose environments are the rows of its agents.

    Args:
        team: what it shares with the others.
        name: of the policy.
        rows: of its agents.

    Attributes:
        block: what its agents did in this turn.
    """

    block: Trajectories

    def __init__(self, team: TeamContext, name: str, rows: AgentRows) -> None:
        streams = Streams(derive_seed(team.streams.seed, "policy", name))
        make = cast(MakeEnvironments, lambda environments, seed: rows)
        super().__init__(make, streams, team.total_steps, environments=rows.num_envs, who=team.who)
        self.team, self.name, self.collector = team, name, team.collector.members[name]
        self.stores["environments"] = self.collector

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        return self.team.steps

    def finish_update(self, model: str) -> None:
        """A model has moved; the team counts the updates of every policy."""
        super().finish_update(model)
        if model == self.deployed:
            self.team.finish_update(f"policy {self.name}")

    def act_deterministically(self, observation: Tensor) -> Tensor:
        """For raw observations ``[N, ...]``."""
        action: Tensor = self.act_on_target(observation).mode()
        return action


class Team(RunningMethod):
    """A team at work. What flows between the four questions is a batch whose rows are, by policy, that policy's batch.

    Args:
        config: the method's dataclass object, for whoever asks.
        teamed: what it says of itself.
        context: what the policies share.
    """

    def __init__(self, config: Any, teamed: Teamed, context: TeamContext) -> None:
        super().__init__(config, teamed, context)
        teamed.log.prepare(context)
        self.members: dict[str, Learner] = {}
        for name, rows in context.collector.rows.items():
            composition = copy.deepcopy(teamed.member)  # models and some parts remember
            member = context.members[name] = MemberContext(context, name, rows)
            member.compute.asked = context.compute.asked
            member.begins_with = None if context.begins_with is None else context.begins_with.of_policy(name)
            prepare(composition, member)
            self.members[name] = Learner(config, composition, member)
            context.models[name] = member.models[member.deployed]
        context.compute.agree([member.compute for member in context.members.values()])

    def collect(self) -> Batch:
        """WHO ACTS? Everybody; a policy whose agents were out all the time has no batch, and waits."""
        acting, steps = {}, 0
        for name, member in self.members.items():
            rollout, context = member.composition.collect, member.context
            acting[name] = Acting(rollout.draw(context), context.streams["actions"], context.version(rollout.acting))
            steps = rollout.vector_steps
        batches = {}
        for name, block in self.context.collector.collect(acting, steps).items():
            if bool(block.mask.any()):
                self.members[name].context.block = block
                batches[name] = self.members[name].collect()
        return Batch(batches)

    def retain(self, batch: Batch) -> Batch:
        """WHAT IS KEPT?"""
        return Batch({name: self.members[name].retain(each) for name, each in batch.rows.items()})

    def credit(self, batch: Batch) -> Batch:
        """WHAT IS IT WORTH?"""
        return Batch({name: self.members[name].credit(each) for name, each in batch.rows.items()})

    def improve(self, batch: Batch) -> Metrics:
        """HOW DO THE POLICIES MOVE?"""
        reports = {name: self.members[name].move(each) for name, each in batch.rows.items()}
        self.context.updates += 1
        return report(reports) | self.context.collector.metrics() | self.context.measure_due(self.context.episodes_due())

    def state_dict(self) -> dict[str, Any]:
        """The environments, and every policy's learner."""
        shared = {"context": self.context} | self.context.stores
        members = {f"policy.{name}": member for name, member in self.members.items()}
        return {name: each.state_dict() for name, each in (shared | members).items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        for name, member in self.members.items():
            member.load_state_dict(state[f"policy.{name}"])
        for name, store in self.context.stores.items():
            store.load_state_dict(state[name])
        self.context.load_state_dict(state["context"])

    def acting_state(self) -> dict[str, Any]:
        """What the policies act by."""
        return {name: member.acting_state() for name, member in self.members.items()}

    def load_acting_state(self, state: dict[str, Any]) -> None:
        """Load the state that ``acting_state`` returned."""
        for name, member in self.members.items():
            member.load_acting_state(state[name])


def report(reports: dict[str, Metrics]) -> Metrics:
    """Numbers of several policies: the mean of each, and beside it every policy's own as ``POLICY/NAME``."""
    names = {name: None for each in reports.values() for name in each}
    found = {name: statistics.fmean(each[name] for each in reports.values() if name in each) for name in names}
    if len(reports) > 1:
        found |= {f"{policy}/{name}": value for policy, each in reports.items() for name, value in each.items()}
    return found


def build(
    config: Any,
    who: str,
    make: Any,
    streams: Streams,
    total_steps: int,
    *,
    policy: Any = None,
    weights: StartingWeights | None = None,
    compute: Asked = "plain",
) -> Team:
    """The learner of a method of several policies.

    Args:
        config: the method's dataclass object.
        who: its name.
        make: builds the task's environments, from their number and a seed.
        streams: the run's random streams.
        total_steps: the budget of environment steps.
        policy: the user's network.
        weights: of another run, to begin with.
        compute: who makes the gradient steps; ``context.compute`` of the result says who does.

    Raises:
        RheostatError: what :func:`~rheostat.learner.control.composition_of` refuses, or a network of the user's.
    """
    teamed = composition_of(config, who)
    assert isinstance(teamed, Teamed)
    if policy is not None:
        raise RheostatError(f"{who} makes a network for every policy: set hidden instead of handing over one.")
    if config.dial.lag:
        config.dial.check_budget(total_steps // teamed.innermost.steps)
    context = TeamContext(make, streams, total_steps, environments=teamed.innermost.environments, who=who, share=teamed.share)
    context.begins_with = weights
    context.compute.asked = compute
    try:
        with torch.random.fork_rng(devices=[]):  # layers draw weights from the global generator before ours replace them
            team = Team(config, teamed, context)
        refuse_idle_in_all(config, who, list(context.members.values()))
        return team
    except BaseException:
        context.close()
        raise


def refuse_idle_in_all(config: Any, who: str, members: list[MemberContext]) -> None:
    """Refuse an option that can act for none of the policies.

    Raises:
        RheostatError: naming it.
    """
    refused: list[RheostatError] = []
    for member in members:
        try:
            refuse_idle(config, who, member)
        except RheostatError as error:
            refused.append(error)
    if len(refused) == len(members):
        raise refused[0]
