"""From a run's settings to its method on its task, with the environments it makes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.starting_weights import StartingWeights
from rheostat.methods import table
from rheostat.options import refuse_idle
from rheostat.streams import Streams
from rheostat.training.settings import Settings, configure

if TYPE_CHECKING:
    from pathlib import Path

    from rheostat.buffers.offline import OfflineData
    from rheostat.tasks.control.environments import Environments
    from rheostat.tasks.control.facts import Facts
    from rheostat.tasks.fleet.city import City


class RunEnvironments:
    """The environments of a control run: ``environments(num_envs, seed)``.

    Args:
        task: an id, an environment, a function that makes one, or a vector environment; None where the run is open without it.
        settings: of the run.
        facts: description of the environments, where it is known: they are then opened when they are first needed.
    """

    def __init__(self, task: Any, settings: Settings, facts: Facts | None = None) -> None:
        self.task, self.settings, self.facts = task, settings, facts
        self.options = of_environment(settings.environment_options)
        self._lazy = facts is not None
        self._made: list[weakref.ref[Environments]] = []

    def __call__(self, num_envs: int, seed: int) -> Environments:
        from rheostat.tasks.control.environments import asleep, make

        if not isinstance(self.task, str) and hasattr(self.task, "single_observation_space"):
            num_envs = self.task.num_envs  # a vector environment has a fixed number
        if not isinstance(self.task, str) and not isinstance(self.task, type) and hasattr(self.task, "observation_space"):
            self.park()  # one object, used in turn
        where: dict[str, Any] = {"num_envs": num_envs, "seed": seed, "backend": self.settings.backend}
        if self._lazy and self.facts is not None:
            found = asleep(self.facts, self.task, **where, **self.options)
        else:
            found = make(self.task, **where, **self.options)
            if self.facts is None:
                self.facts = found.facts
        self._made.append(weakref.ref(found))
        return found

    @property
    def alive(self) -> list[Environments]:
        """The environments that are still in use."""
        self._made = [each for each in self._made if each() is not None]
        return [found for each in self._made if (found := each()) is not None]

    def wake(self) -> tuple[list[str], bool]:
        """Restore all environments to the loaded states; returns what could not be restored, and whether new episodes must begin."""
        for environments in self.alive:
            environments.wake()
        found = [each for environments in self.alive for each in environments.warnings]
        for environments in self.alive:
            environments.warnings = []
        return found, not all(environments.can_save for environments in self.alive)

    def park(self) -> None:
        """Close all environments; they open again in the same state when they are needed."""
        for environments in self.alive:
            environments.park()

    @contextmanager
    def instead(self, task: Any, options: dict[str, Any] | None) -> Iterator[None]:
        """Inside the context, environments are those of another task with the same spaces.

        Raises:
            RheostatError: its spaces differ.
        """
        from rheostat.buffers.offline_checks import agree
        from rheostat.tasks.control.environments import make

        mine = self.facts
        before = (self.task, self.options, self.facts, self._lazy)
        self.task = self.task if task is None else task
        self.options = self.options if options is None else of_environment(options)
        self.facts, self._lazy = None, False
        try:
            if mine is not None:
                theirs = make(self.task, num_envs=getattr(task, "num_envs", 1), seed=0, backend=self.settings.backend, **self.options)
                known = _spaces_of(mine)
                for kind, space, other in zip(
                    ("observations", "actions"), known, (theirs.observation_space, theirs.action_space), strict=True
                ):
                    if not agree(space, other, bounds=kind == "actions"):
                        raise RheostatError(
                            f"The policy knows the {kind} {space}, and {theirs.name} has {other}: evaluate it where they agree."
                        )
                theirs.close()
            yield
        finally:
            self.task, self.options, self.facts, self._lazy = before


class RunTeamEnvironments(RunEnvironments):
    """The same for environments of several agents."""

    def __call__(self, num_envs: int, seed: int) -> Any:
        from rheostat.tasks.control.parallel import make_parallel

        if self.settings.backend != "auto":
            raise RheostatError(f"backend says who simulates a task of one agent, and {self.settings.method} has several: leave it out.")
        found = make_parallel(self.task, num_envs=num_envs, seed=seed, **self.options)
        self._made.append(cast(Any, weakref.ref(found)))
        return found

    @contextmanager
    def instead(self, task: Any, options: dict[str, Any] | None) -> Iterator[None]:
        """See :meth:`RunEnvironments.instead`; agents must have the same names and spaces."""
        mine, before = next(iter(self.alive)), (self.task, self.options)
        self.task = self.task if task is None else task
        self.options = self.options if options is None else dict(options)
        try:
            theirs: Any = self(1, 0)
            theirs.close()
            if theirs.spaces != cast(Any, mine).spaces:
                raise RheostatError(f"The policies know the agents {', '.join(cast(Any, mine).agents)}, and {theirs.name} has others.")
            yield
        finally:
            self.task, self.options = before


class RunCities:
    """The city of a fleet's run: ``cities()``.

    Args:
        task: a name, a city, or a function that makes one.
        settings: of the run.

    Attributes:
        facts: none; a city is made anew whenever the run is opened.
    """

    facts: None = None

    def __init__(self, task: Any, settings: Settings) -> None:
        if settings.backend != "auto":
            raise RheostatError(f"backend says who simulates a task of one agent, and {settings.method} has a fleet: leave it out.")
        self.task, self.options = task, of_environment(settings.environment_options)

    def __call__(self) -> City:
        from rheostat.tasks.fleet.city_list import make_city

        return make_city(self.task, **self.options)

    @contextmanager
    def instead(self, task: Any, options: dict[str, Any] | None) -> Iterator[None]:
        """See :meth:`RunEnvironments.instead`; vehicles must have as many seats, which is what the policy reads.

        Raises:
            RheostatError: they have not.
        """
        mine, before = self(), (self.task, self.options)
        self.task = self.task if task is None else task
        self.options = (self.options if task is None else {}) if options is None else of_environment(options)
        try:
            theirs = self()
            if theirs.seats != mine.seats:
                raise RheostatError(f"The policy knows vehicles of {mine.seats} seats, and those of {theirs.name} have {theirs.seats}.")
            yield
        finally:
            self.task, self.options = before


def of_environment(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the environment itself.

    Raises:
        RheostatError: one that is the run's.
    """
    for name in ("num_envs", "seed", "backend", "threads", "fields"):
        if name in options:
            raise RheostatError(f"{name} is no option of the environment: leave it out of environment_options, where it has no effect.")
    return dict(options)


def _spaces_of(facts: Facts) -> tuple[Any, Any]:
    """Observation and action space as policies see them."""
    from rheostat.tasks.control.actions import ActionDecoder
    from rheostat.tasks.control.spaces import ObservationEncoder

    return ObservationEncoder(facts.observation_space, facts.name).space, ActionDecoder(facts.action_space, facts.name, 1).space


def build_method(
    settings: Settings,
    task: Any,
    policy: Any = None,
    facts: dict[str, Any] | None = None,
    weights: StartingWeights | None = None,
    data: OfflineData | Path | None = None,
) -> Any:
    """The method of a run on its task.

    Args:
        settings: what defines the run.
        task: a name or an object; None for a run on a Python environment that is opened without it.
        policy: the user's own network.
        facts: description of the environments, where it was saved; then they are opened only when they are needed.
        weights: of another run, to begin with.
        data: the object that was given as ``offline``, or where it is kept.
    """
    entry = table.entry(settings.method)
    config = configure(settings.method, settings.config)
    streams = Streams(settings.seed)
    if entry.domain == "language":
        from rheostat.learner import language
        from rheostat.training.language_setup import build_setup

        setup = build_setup(settings, config, task, policy)
        return language.build(config, settings.method, setup, streams, settings.steps, weights=weights)
    if entry.domain == "compression":
        return build_compression(settings, config, policy, streams, weights)
    from rheostat.learner import control
    from rheostat.tasks.control.facts import Facts

    if settings.experts is not None and not config.dial.expert_share:
        raise RheostatError(f"--experts {settings.experts} has no effect without dial.expert_share: set that, or leave it out.")
    if getattr(entry.load(), "several_agents", False):
        from rheostat.learner import teams

        data_for(entry.load(), settings)  # refuses what it cannot use
        team = RunTeamEnvironments(task, settings)
        rest: dict[str, Any] = {"policy": policy, "weights": weights, "compute": settings.compute}
        return teams.build(config, settings.method, team, streams, settings.steps, **rest)
    if getattr(entry.load(), "answers", False):
        return _build_on_preferences(config, settings, task, policy, weights)
    if getattr(entry.load(), "fleet", False):
        from rheostat.learner import fleet

        data_for(entry.load(), settings)  # refuses what it cannot use
        given: dict[str, Any] = {"policy": policy, "weights": weights, "compute": settings.compute}
        return fleet.build(config, settings.method, RunCities(task, settings), streams, settings.steps, **given)
    environments = RunEnvironments(task, settings, None if facts is None else Facts.from_json(facts))
    expert = load_expert(settings) if config.dial.expert_share else None
    others: dict[str, Any] = {"expert": expert, "policy": policy, "weights": weights, "compute": settings.compute}
    others |= data_for(entry.load(), settings, data)
    found = control.build(config, settings.method, environments, streams, settings.steps, **others)
    try:
        refuse_idle(config, settings.method, found.context)
    except RheostatError:
        found.close()
        raise
    return found


def _build_on_preferences(config: Any, settings: Settings, task: Any, policy: Any, weights: StartingWeights | None) -> Any:
    """A method on a small world of preferences, which brings data, policy and reward of its own.

    Raises:
        RheostatError: a setting that such a world has no use for.
    """
    from rheostat.learner import preferences

    data_for(table.entry(settings.method).load(), settings)  # refuses what it cannot use
    for name, unused in (("backend", settings.backend != "auto"), ("environment_options", settings.environment_options)):
        if unused:
            raise RheostatError(f"{name} is about environments, and {settings.method} learns on a world of preferences: leave it out.")
    if policy is not None:
        raise RheostatError(f"The policy of {settings.method} belongs to its world: hand over no network.")
    return preferences.build(
        config, settings.method, task, Streams(settings.seed), settings.steps, weights=weights, compute=settings.compute
    )


def build_compression(settings: Settings, config: Any, teacher: Any, streams: Streams, weights: StartingWeights | None) -> Any:
    """The method of a run that compresses a network.

    Args:
        settings: of the run.
        config: of its method.
        teacher: the network, where it was handed over as an object.
        streams: of chance.
        weights: controllers of another run, to begin with.
    """
    from rheostat.learner import compression
    from rheostat.tasks.compression.image_teachers import load_teacher
    from rheostat.tasks.compression.images import load_images

    images = load_images(settings.task, settings.environment_options)
    network = load_teacher(settings.teacher if teacher is None else teacher, images)
    return compression.build(config, settings.method, network, images, streams, settings.steps, weights=weights)


def data_for(cls: Any, settings: Settings, given: OfflineData | Path | None = None) -> dict[str, Any]:
    """Further arguments of a method that learns from data sets: ``offline`` and ``online_steps``; none for other methods.

    Args:
        cls: the method's.
        settings: of the run.
        given: the data set, or its folder, in the place of the one that the settings name.

    Raises:
        RheostatError: a data set or steps after it for a method that cannot use them, or a data set that cannot be read.
    """
    uses = getattr(cls, "uses_data", "no")
    if settings.repair and settings.offline is None:
        raise RheostatError(f"repair.{next(iter(settings.repair))} is about a data set, and there is none: name one with --offline.")
    if settings.online_steps and uses != "first":
        raise RheostatError(f"online_steps follow a data set, and {settings.method} does not begin with one: its steps are all online.")
    if uses == "no":
        if settings.offline is not None:
            raise RheostatError(
                f"{settings.method} learns from its own data only: leave --offline out, or use a method that reads a data set."
            )
        return {}
    from rheostat.buffers.offline import OfflineData

    data = given if isinstance(given, OfflineData) else None
    if settings.offline is not None and data is None:
        from rheostat.buffers.repairs import Repairs
        from rheostat.collect.control.offline_data import load_for

        place = settings.offline if given is None else cast("Path", given)
        data = load_for(None, place, **asdict(Repairs.of(settings.repair)))  # the method compares it with its environment
    return {"offline": data} | ({"online_steps": settings.online_steps} if uses == "first" else {})


def load_expert(settings: Settings) -> Callable[[Tensor], Any]:
    """The policy of another control run, as the expert of ``dial.expert_share``.

    Raises:
        RheostatError: none was named, or it was trained on another task.
    """
    if settings.experts is None:
        raise RheostatError("dial.expert_share needs an expert: name the directory of a run whose policy is one (--experts DIRECTORY).")
    from rheostat.training.run import Run

    other = Run.load(settings.experts)
    if other.settings.task != settings.task:
        raise RheostatError(f"The expert in {settings.experts} was trained on {other.settings.task}, not on {settings.task}.")
    return actor_of(other)


def actor_of(run: Any) -> Callable[[Tensor], Any]:
    """From raw observations ``[N, ...]`` to the distribution of a run's learned policy's actions.

    Raises:
        RheostatError: the run's method trains no control policy, or several of them.
    """
    act: Callable[[Tensor], Any] | None = getattr(control_context(run), "act_on_target", None)
    if act is None:
        raise RheostatError(f"{run.settings.method} trains a policy for every agent: what takes one control policy cannot take them.")
    return act


def control_context(run: Any) -> Any:
    """The policy that acts in a run.

    Raises:
        RheostatError: the run's method trains no control policy.
    """
    if table.entry(run.settings.method).domain != "control":
        no_control(run.settings.method)
    return run.method.context


def no_control(method: str) -> Any:
    """Refuse operations that only control policies have."""
    raise RheostatError(f"{method} does not train a control policy: run.policy(observation) does not apply to it.")
