"""The context of control methods, and building a control method's learner.

What outlives a stage is a store: the environments with their collector, replay and data set, statistics. Who acts is the name of a model;
``see`` gives observations as that model reads them. Time is counted in environment steps and, in offline phases, in gradient steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.offline import OfflineData
from rheostat.collect.control.evaluation_episodes import measure_returns
from rheostat.collect.control.stepping import Collector
from rheostat.errors import RheostatError
from rheostat.learner.compute import Asked, Compute
from rheostat.learner.context import LearnerContext
from rheostat.learner.dial_for_control import hidden, rewrite
from rheostat.learner.learner import Composition, Learner
from rheostat.learner.own_networks import named_networks
from rheostat.learner.running import RunningMethod
from rheostat.learner.stages import Staged, Stages
from rheostat.learner.starting_weights import StartingWeights
from rheostat.learner.teamed import Teamed
from rheostat.objectives.temporal_difference import min_over_critics
from rheostat.options import check_domains, refuse_idle
from rheostat.parts import Batch, Metrics
from rheostat.policies.control.in_context import Memory
from rheostat.policies.control.pixels import PIXEL_RANGE
from rheostat.policies.control.squashed import Bounds, Rescaled
from rheostat.policies.control.views import space_of_pixels
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.control.environments import Environments

MakeEnvironments = Callable[[int, int], Environments]
"""``(num_envs, seed) -> Environments``."""
Actor = Callable[[Tensor], Any]
"""Raw observations ``[N, ...]`` to the distribution of actions."""


class ControlContext(LearnerContext):
    """What the parts of a control method share.

    Args:
        make: builds the task's environments, from their number and a seed.
        streams: the run's random streams.
        total_steps: the budget of environment steps, or of gradient steps on a data set that comes first.
        environments: how many step together.
        who: the method's name, for sentences.
        online_steps: environment steps after the data set.
        offline: the data set.
        expert: who acts beside the policy.
        policy: the user's networks by the names of their models.

    Attributes:
        collector: the environments.
        updates: gradient steps, or PPO updates: the version of the next data.
        data_first: whether a data set is learned from before anybody acts.
        turns: of the loop in which somebody acted.
        gradient_steps: of the present stage.
        spent: of the budget, beside the steps of the collector.
        bounds: of continuous actions, where networks act in ``[-1, 1]``.
        restarts: how often environments that cannot be saved were made anew.
        on_restart: what else begins anew then.
        log: what puts numbers in rows; None where every turn has its own.
        compute: who makes the gradient steps.
        ranked: whether the replay wants to know how wrong the critics are.
    """

    def __init__(
        self,
        make: MakeEnvironments,
        streams: Streams,
        total_steps: int,
        *,
        environments: int,
        who: str,
        online_steps: int = 0,
        offline: OfflineData | None = None,
        expert: Actor | None = None,
        policy: Any = None,
    ) -> None:
        super().__init__(streams, total_steps)
        self.make, self.who, self.online_steps, self.offline, self.expert = make, who, online_steps, offline, expert
        self.networks |= {} if policy is None else policy
        for network in self.networks.values():
            network.eval()
        self.collector = Collector(make(environments, derive_seed(streams.seed, "pool", 0)))
        self.stores["environments"] = self.collector
        self.data_first = False
        self.turns = 0
        self.gradient_steps = 0
        self.spent = 0
        self.stage, self.started = 0, -1
        self.stages: list[int | None] = [None]
        self.restarts = 0
        self.bounds: Bounds | None = None
        self.on_restart: list[Callable[[], None]] = []
        self.log: Any = None
        self.ranked = False
        self.compute = Compute()
        self.measurement: Callable[[Any, int], Metrics] | None = None
        self.pixels_as_numbers = False

    # --- spaces and units -------------------------------------------------------------------------------------------------------------

    @property
    def never_acts(self) -> bool:
        """Whether the run only learns from a data set."""
        return self.data_first and not self.online_steps

    @property
    def environments(self) -> Environments:
        """The environments that data are collected from."""
        return self.collector.environments

    @property
    def observation_space(self) -> Any:
        """Space of one environment; of images as vectors of pixels where the networks read them so."""
        space = self.environments.observation_space
        return space_of_pixels(space) if self.pixels_as_numbers else space

    @property
    def action_space(self) -> Any:
        """Space of one environment."""
        return self.environments.action_space

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of an observation and of a continuous action."""
        return self.observation_space.shape[0], self.action_size

    @property
    def action_size(self) -> int:
        """Numbers of a continuous action."""
        assert self.bounds is not None
        return len(self.bounds.centre)

    @property
    def continuous(self) -> bool:
        """Whether actions are vectors of floats."""
        from gymnasium.spaces import Box

        return isinstance(self.action_space, Box)

    @property
    def images(self) -> bool:
        """Whether observations are images."""
        return len(self.environments.observation_space.shape) == 3

    def see(self, observation: Tensor, model: str = "policy") -> Tensor:
        """Raw observations as a model reads them, by the statistics that belong to it (a lagged policy has those of its time)."""
        if self.pixels_as_numbers:
            observation = observation.flatten(-3) / PIXEL_RANGE
        statistics = getattr(self.models.get(model), "statistics", None) or self.stores.get("observations")
        return observation if statistics is None else statistics.normalise(observation)

    def in_environment_units(self, policy: Any) -> Any:
        """A distribution of unit actions as one of the environment's actions."""
        return policy if self.bounds is None else Rescaled(policy, self.bounds)

    def act_on_target(self, observation: Tensor, memory: Memory | None = None) -> Any:
        """The deployed policy's distribution of actions for raw observations ``[N, ...]``, without exploration noise of the collector.

        Args:
            observation: the next one of every episode.
            memory: what the policy remembers of them; it is brought up to date.

        Raises:
            RheostatError: a policy that remembers, without its memory.
        """
        seen = self.see(observation, self.deployed)
        return self.in_environment_units(self.models[self.deployed].distribution(seen) if memory is None else memory(seen))

    def act(self, observation: Any, memory: Memory | None = None) -> Any:
        """The deployed policy's deterministic action, in the environment's own action space, for one raw observation or several of them.

        Args:
            observation: as the environment gives it, or several with a leading axis in every array.
            memory: what the policy remembers; it is brought up to date.

        Raises:
            RheostatError: an observation of another shape, or a policy that remembers, without its memory.
        """
        seen, single = self.environments.encode(observation)
        with torch.no_grad():
            action = self.environments.decode(self.act_on_target(seen, memory).mode())
        return action[0] if single else action

    def remember(self, episodes: int) -> Memory:
        """The initial memory of the deployed policy for so many episodes (or trials).

        Raises:
            RheostatError: it remembers nothing.
        """
        if not hasattr(self.policy, "memory"):
            raise RheostatError(f"The policy of {self.who} acts on single observations and has no memory: use run.policy(observation).")
        found: Memory = self.policy.memory(episodes)
        return found

    def draw(self, observation: Tensor, generator: torch.Generator, acting: str = "") -> tuple[Tensor, Tensor]:
        """Sample actions of the collecting model for raw observations; returns them with their log-probabilities under it."""
        name = acting or self.deployed
        policy = self.in_environment_units(self.models[name].exploring(self.see(observation, name)))
        action = policy.sample(generator)
        return action, policy.log_prob(action)

    def value(self, observation: Tensor) -> Tensor:
        """Values of raw observations ``[N, ...]`` under the deployed policy, ``[N]``: V where there is one, else the
        smallest critic at the policy's deterministic action.

        Raises:
            RheostatError: there is no critic.
        """
        seen, acting = self.see(observation, self.deployed), self.models[self.deployed]
        if hasattr(acting, "value"):
            found: Tensor = acting.value(seen)
        elif "value" in self.models:
            found = self.models["value"].network(seen)
        elif "critics" in self.models:
            found = min_over_critics(self.models["critics"].network(seen, acting.distribution(seen).mode()))
        elif hasattr(getattr(acting, "network", None), "value"):
            found = acting.network.value(seen)
        else:
            raise RheostatError(f"{self.who} has no critic, so it knows no values: use td3-bc, iql or cql for those.")
        return found

    # --- time -------------------------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> str:
        """Name of the counter that versions the data: that of gradient steps, or of PPO updates."""
        return "updates"

    def version(self, model: str) -> int:
        """Version of the policy that collects data."""
        return max(0, self.updates - getattr(self.models[model], "lag", 0))

    @property
    def length(self) -> int | None:
        """Gradient steps of the present stage; None where the stage lasts until the environment steps are used up."""
        return self.stages[self.stage]

    @property
    def acting(self) -> bool:
        """Whether the offline stages are over."""
        return self.length is None

    @property
    def offline_budget(self) -> int:
        """Gradient steps of the offline stages."""
        return sum(length for length in self.stages if length is not None)

    @property
    def budget(self) -> int:
        """The whole budget, offline and online."""
        return self.total_steps + self.online_steps

    @property
    def unit(self) -> str:
        """Unit of the budget."""
        return "gradient steps, then environment steps" if self.offline_budget else "environment steps"

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        return self.spent + (0 if self.acting else self.gradient_steps) + self.collector.steps

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Inside, networks of the user's are in training mode."""
        for network in self.networks.values():
            network.train()
        try:
            yield
        finally:
            for network in self.networks.values():
                network.eval()

    def finish_gradient_step(self) -> None:
        """Count one gradient step, after all updates of it."""
        self.updates += 1
        self.gradient_steps += 1

    # --- what the learner asks --------------------------------------------------------------------------------------------------------

    def empty(self, batch: Batch) -> bool:
        """Whether a batch has no row to learn from."""
        return not len(batch.rows)

    def finish_turn(self, batch: Batch) -> Metrics:
        """The metrics of this turn."""
        return self.collector.metrics() | self.measure_due(self.episodes_due()) if self.log is None else self.log.row(self, batch)

    def evaluate(self, episodes: int) -> Metrics:
        """Deterministic actions in a fresh pool with its own seed and frozen statistics; with a data set of known references, the
        normalised score too. A composition may measure in a way of its own."""
        if self.measurement is not None:
            return self.measurement(self, episodes)
        copies = self.environments.copies_for(episodes)
        environments = self.make(copies, derive_seed(self.streams.seed, "evaluation", self.updates))
        distribution = self.models[self.deployed].evaluated(self)
        forget = getattr(distribution, "forget", None)

        def act(observation: Tensor) -> Tensor:
            action: Tensor = self.in_environment_units(distribution(self.see(observation, self.deployed))).mode()
            return action

        found = measure_returns(act, environments, episodes, forget)
        if self.offline is not None and self.offline.reference is not None:
            found["normalised_score"] = self.offline.normalised_score(found["evaluation_return"])
        return found

    @property
    def policy(self) -> Any:
        """The deployed network."""
        model = self.models[self.deployed]
        return getattr(model, "policy", None) or model.network

    def restart_episodes(self) -> None:
        """Reset environments that could not be restored; their unfinished episodes count as truncated."""
        if self.acting and not self.environments.can_save:
            self.restarts += 1
            self.collector.restart(derive_seed(self.streams.seed, "pool", self.restarts))
            for restart in self.on_restart:
                restart()

    def state_dict(self) -> dict[str, Any]:
        """Counters and streams; the data set is named by the run and read again."""
        own = {name: getattr(self, name) for name in COUNTERS}
        data = {"data": None if self.offline is None else self.offline.digest}
        return super().state_dict() | {"own": own} | data

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state.

        Raises:
            RheostatError: the data set is not the one it was.
        """
        if self.offline is not None and state.get("data", self.offline.digest) != self.offline.digest:
            raise RheostatError(
                f"This run began with other data than {self.offline.name} holds now: put that one back, or start a new run."
            )
        super().load_state_dict(state)
        for name in COUNTERS:
            setattr(self, name, state["own"][name])

    def close(self) -> None:
        """Release environments and the files of replays."""
        for store in self.stores.values():
            if isinstance(store, Collector):
                store.environments.close()
            elif hasattr(store, "close"):
                store.close()


COUNTERS = ("gradient_steps", "spent", "stage", "started", "turns", "restarts")


# --- building -----------------------------------------------------------------------------------------------------------------------------


def composition_of(config: Any, who: str) -> Composition | Staged | Teamed:
    """A control method's parts with its dial, checked.

    Raises:
        RheostatError: numbers outside their domains, options that cannot act, parts that cannot work together, or a dial that they
            cannot honour.
    """
    check_domains(config, who)
    refuse_idle(config, who)
    composition = rewrite(config.dial, config.compose(), who)
    composition.check(who)
    return composition


def prepare(composition: Composition | Staged | Teamed, context: ControlContext) -> None:
    """Call ``prepare`` of every part once, before models are bound; parts create stores in it that outlive a turn."""
    prepared: set[int] = set()
    for part in composition.parts().values():
        if hasattr(part, "prepare") and id(part) not in prepared:
            prepared.add(id(part))
            part.prepare(context)


def derived(config: Any, who: str) -> dict[str, int | str]:
    """Derived numbers of a configuration, for printing.

    Raises:
        RheostatError: an impossible combination, and what to change.
    """
    found: dict[str, int | str] = {}
    for part in composition_of(config, who).parts().values():
        if hasattr(part, "describe"):
            found |= part.describe()
    return found


def hidden_options(config: Any, who: str) -> frozenset[str]:
    """Paths of options that every value but the default is refused for in this method; help and documentation hide them."""
    return hidden(composition_of(config, who))


def build(
    config: Any,
    who: str,
    make: MakeEnvironments,
    streams: Streams,
    total_steps: int,
    *,
    online_steps: int = 0,
    offline: OfflineData | None = None,
    expert: Actor | None = None,
    policy: Any = None,
    weights: StartingWeights | None = None,
    compute: Asked = "plain",
) -> RunningMethod:
    """A control method's learner.

    Args:
        config: the method's dataclass object.
        who: its name.
        make: builds the task's environments, from their number and a seed.
        streams: the run's random streams.
        total_steps: the budget of environment steps, or of gradient steps on the data set (methods that begin with one).
        online_steps: environment steps after the data set.
        offline: the data set.
        expert: from raw observations to the distribution that the expert of ``dial.expert_share`` acts by.
        policy: the user's network, or several by the names of their models.
        weights: of another run, to begin with.
        compute: who makes the gradient steps; ``context.compute`` of the result says who does.

    Raises:
        RheostatError: what :func:`composition_of` refuses; a data set where none is read, none where one is needed, or one of another
            task; a network where the method makes its own; or a budget in which something would never happen.
    """
    composition = composition_of(config, who)
    assert not isinstance(composition, Teamed), "rheostat.learner.teams builds those"
    if config.dial.lag:
        config.dial.check_budget(total_steps // composition.innermost.steps)
    networks = named_networks(policy, composition.models, who)
    if offline is not None and not composition.any("reads_data"):
        raise RheostatError(f"{who} does not read a data set: leave --offline out, or use a method that does, for example rlpd.")
    context = ControlContext(
        make,
        streams,
        total_steps,
        environments=composition.innermost.environments,
        who=who,
        online_steps=online_steps,
        offline=offline,
        expert=expert,
        policy=networks,
    )
    context.data_first = isinstance(composition, Staged)
    context.begins_with = weights
    context.compute.asked = compute
    if isinstance(composition, Staged):
        context.compute.leave("there is none for methods that begin with a data set")
    try:
        prepare(composition, context)
        with torch.random.fork_rng(devices=[]):  # layers draw weights from the global generator before ours replace them
            found = Stages(config, composition, context) if isinstance(composition, Staged) else Learner(config, composition, context)
        context.compute.settle(who)
        return found
    except BaseException:
        context.close()
        raise
