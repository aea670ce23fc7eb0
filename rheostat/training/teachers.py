"""Teachers: the PPO policies that make offline data sets, trained once per (task, seed, recipe) and cached.

A teacher keeps its policy at regular points of its training together with the return of each. It gives the expert (its last policy), the
medium policy (its first one with a sufficient return), and the data of its own training until then. Training is deterministic, so these
data are not stored but collected again.

Policies are evaluated as they collect, by sampling. Only the return that counts as 100 percent is that of the last policy's most likely
actions, because learned policies are evaluated that way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from rheostat.collect.control.evaluation_episodes import run_episodes
from rheostat.collect.control.offline_data import uniform
from rheostat.collect.control.stepping import Draw
from rheostat.errors import RheostatError
from rheostat.files import cache_root
from rheostat.learner.learner import Learner
from rheostat.parts import Metrics
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.control.environments import Environments, make
from rheostat.training import checkpoint
from rheostat.training.building import build_method, of_environment
from rheostat.training.identity import versions
from rheostat.training.progress import Progress, Silent
from rheostat.training.settings import Settings
from rheostat.training.settings_from_options import settings_for
from rheostat.trajectories import Trajectories

MEASURE_ENVIRONMENTS = 10


@dataclass(frozen=True)
class TeacherRecipe:
    """How a teacher is trained."""

    steps: int = 500_000
    """Budget in environment steps."""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of PPO, see `rheostat show ppo`."""
    evaluations: int = 40
    """How often its policy is evaluated and kept in training: the candidates for the medium policy."""
    evaluation_episodes: int = 5
    """Episodes of each of these evaluations."""
    reference_episodes: int = 50
    """Episodes of the returns that count as 0 and 100 percent."""

    def __post_init__(self) -> None:
        for name in ("steps", "evaluations", "evaluation_episodes", "reference_episodes"):
            if getattr(self, name) < 1:
                raise RheostatError(f"{name} of a teacher is {getattr(self, name)}: it must be at least 1.")


TEACHERS: dict[str, TeacherRecipe] = {
    "CartPole-v1": TeacherRecipe(50_000, {"batch_steps": 1024, "minibatches": 16, "learning_rate": 1e-3}, evaluation_episodes=10),
    "Pendulum-v1": TeacherRecipe(150_000, {"gamma": 0.9, "learning_rate": 1e-3}, evaluation_episodes=10),
    "InvertedDoublePendulum-v5": TeacherRecipe(300_000),
    "Hopper-v5": TeacherRecipe(1_000_000),
    "HalfCheetah-v5": TeacherRecipe(1_000_000),
}
"""Recipes by task; every other task has the default recipe."""


class EnvironmentSpec(NamedTuple):
    """A task and how to make it."""

    task: str
    backend: str = "auto"
    options: dict[str, Any] = {}  # noqa: RUF012 (never changed)

    def make(self, num_envs: int, seed: int) -> Environments:
        """Its environments."""
        return make(self.task, num_envs=num_envs, seed=seed, backend=self.backend, **of_environment(self.options))  # type: ignore[arg-type]


class Teacher:
    """A trained teacher.

    Attributes:
        folder: where it is cached.
        policies: per kept policy its ``steps``, ``updates`` and ``evaluated`` return, oldest first.
        random: mean return of uniform actions.
        expert: mean return of the last policy's most likely actions.
        expert_sampled: mean return of the last policy as it collects.
    """

    def __init__(self, folder: Path, state: dict[str, Any], spec: EnvironmentSpec, seed: int, recipe: TeacherRecipe) -> None:
        self.folder, self.spec, self.seed, self.recipe = folder, spec, seed, recipe
        self.policies: list[dict[str, Any]] = [
            {key: policy[key] for key in ("steps", "updates", "evaluated")} for policy in state["policies"]
        ]
        self.random: float = state["random"]
        self.expert: float = state["expert"]
        self.expert_sampled: float = state["expert_sampled"]
        self._states = state["policies"]

    def medium(self, share: float) -> int:
        """Number of the first policy whose evaluated return is at least ``random + share (expert - random)``, all by sampling.

        Raises:
            RheostatError: the teacher did not learn, or no policy reached that return when it was evaluated.
        """
        if not 0 < share < 1:
            raise RheostatError(f"The medium share is {share:g}: it must lie between 0 and 1 (D4RL used about a third).")
        if self.expert_sampled <= self.random:
            raise RheostatError(
                f"The teacher on {self.spec.task} earned {self.expert_sampled:.1f} after {self.recipe.steps:,} steps, no more than random "
                f"actions ({self.random:.1f}): give it more steps or other settings of PPO."
            )
        least = self.random + share * (self.expert_sampled - self.random)
        for number, policy in enumerate(self.policies):
            if policy["evaluated"] >= least:
                return number
        raise RheostatError(
            f"No policy of the teacher on {self.spec.task} was measured at {least:.1f} or more (best: "
            f"{max(policy['evaluated'] for policy in self.policies):.1f}): measure it more often, or lower the medium share."
        )

    def draw(self, number: int) -> Draw:
        """Sampled actions of one of its policies, with their log-probabilities."""
        context = self._learner(number).context
        return cast(Draw, context.draw)

    def _learner(self, number: int) -> Learner:
        learner = learner_of(self.spec, self.seed, self.recipe)
        state = self._states[number]
        cast(nn.Module, learner.policy).load_state_dict(state["policy"])
        if "observations" in learner.context.stores:
            learner.context.stores["observations"].load_state_dict(state["observations"])
        learner.context.environments.close()
        return learner

    def training_data(self, number: int, progress: Progress | None = None) -> list[Trajectories]:
        """The data that it collected before it had this policy: its training is repeated up to there.

        Raises:
            RheostatError: that training does not reproduce the cached policy (another machine or version made the cache).
        """
        progress = progress or Silent()
        until = self.policies[number]
        blocks: list[Trajectories] = []
        learner = learner_of(self.spec, self.seed, self.recipe)
        progress.note(f"Training the teacher again for the data of its first {until['steps']:,} steps.")
        progress.start(0, until["steps"], "environment steps")
        try:
            for fresh, metrics in _training(learner):
                blocks.append(fresh)
                progress.update(learner.steps, metrics)
                if learner.updates >= until["updates"]:
                    break
        finally:
            progress.stop()
            learner.context.environments.close()
        arrived = cast(nn.Module, learner.policy).state_dict()
        if any(not torch.equal(value, arrived[name]) for name, value in self._states[number]["policy"].items()):
            raise RheostatError(f"Training the teacher again did not arrive at the policy in {self.folder}: remove that folder.")
        return blocks


def teacher_for(
    spec: EnvironmentSpec, seed: int, recipe: TeacherRecipe | None = None, *, progress: Progress | None = None, cache: Path | None = None
) -> Teacher:
    """The teacher of a task, trained unless the cache has it.

    Args:
        spec: the task.
        seed: of the teacher's training.
        recipe: None takes the one in :data:`TEACHERS`, or the default.
        progress: display of the training.
        cache: folder to cache in; by default ``$RHEOSTAT_CACHE``, else the user's cache folder.

    Raises:
        RheostatError: unknown task or setting, or the cache cannot be written.
    """
    recipe = recipe or recipe_for(spec.task)
    folder = teacher_path(spec, seed, recipe, cache)
    if not (folder / "manifest.json").is_file():
        state = _train(spec, seed, recipe, progress or Silent())
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            workshop = Path(tempfile.mkdtemp(prefix=".training-", dir=folder.parent))
        except OSError as error:
            raise RheostatError(
                f"Cannot write teachers to {folder.parent} ({error.strerror}): set RHEOSTAT_CACHE to another folder."
            ) from error
        try:
            made = checkpoint.write(workshop, folder.name, state)
            if not folder.exists():  # another process may have been first: its result is the same
                made.rename(folder)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    try:
        state = checkpoint.read(folder)
    except RheostatError as error:
        raise RheostatError(f"{str(error).rstrip('.')}: remove that folder, and the teacher is trained again.") from error
    return Teacher(folder, state, spec, seed, recipe)


def recipe_for(task: str) -> TeacherRecipe:
    """The recipe of a task: its own in :data:`TEACHERS`, or the default."""
    return TEACHERS.get(task.removeprefix("gymnasium:").removeprefix("envpool:")) or TeacherRecipe()


def teacher_path(spec: EnvironmentSpec, seed: int, recipe: TeacherRecipe, cache: Path | None = None) -> Path:
    """Where a teacher is cached: named after the task, the seed, and a digest of everything that its training depends on."""
    what = {"settings": _settings(spec, seed, recipe).to_json(), "recipe": dataclasses.asdict(recipe), "versions": versions()}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    return cache_root(cache) / "teachers" / f"{re.sub(r'[^-.0-9A-Za-z]', '-', spec.task)}-s{seed}-{digest}"


def _settings(spec: EnvironmentSpec, seed: int, recipe: TeacherRecipe) -> Settings:
    return settings_for(
        "ppo", spec.task, seed=seed, steps=recipe.steps, backend=spec.backend, environment_options=spec.options, **recipe.options
    )


def learner_of(spec: EnvironmentSpec, seed: int, recipe: TeacherRecipe) -> Learner:
    """An untrained teacher."""
    settings = _settings(spec, seed, recipe)
    torch.set_num_threads(settings.threads)  # sums over other numbers of threads differ in their last digits
    return cast(Learner, build_method(settings, spec.task))


def _training(learner: Learner) -> Iterator[tuple[Trajectories, Metrics]]:
    """The training loop, with the data collected in every iteration."""
    while learner.steps < learner.context.total_steps:
        fresh = learner.collect()
        yield fresh.rows, learner.improve(learner.credit(learner.retain(fresh)))


def _train(spec: EnvironmentSpec, seed: int, recipe: TeacherRecipe, progress: Progress) -> dict[str, Any]:
    """Train a teacher: its policies with their returns, and the reference returns."""
    learner = learner_of(spec, seed, recipe)
    context = learner.context
    policies: list[dict[str, Any]] = []
    due = 0.0
    progress.start(0, recipe.steps, "environment steps")
    try:
        for _, metrics in _training(learner):
            last = learner.steps >= recipe.steps
            if last or learner.steps >= due:
                due = learner.steps + recipe.steps / recipe.evaluations
                evaluated = _measure(spec, seed, f"policy {learner.updates}", context.draw, recipe.evaluation_episodes)
                metrics = metrics | {"evaluation_return": evaluated}
                seen = context.stores.get("observations")
                policies.append(
                    {
                        "steps": learner.steps,
                        "updates": learner.updates,
                        "evaluated": evaluated,
                        "policy": {name: value.clone() for name, value in cast(nn.Module, learner.policy).state_dict().items()},
                        "observations": {} if seen is None else seen.state_dict(),
                    }
                )
            progress.update(learner.steps, metrics)
    finally:
        progress.stop()
        context.environments.close()
    count = recipe.reference_episodes
    return {
        "policies": policies,
        "random": _measure(spec, seed, "random", uniform(context.action_space), count),
        "expert": _measure(spec, seed, "expert", lambda observation, _: (context.act_on_target(observation).mode(), observation), count),
        "expert_sampled": _measure(spec, seed, "expert sampled", context.draw, count),
    }


def _measure(spec: EnvironmentSpec, seed: int, who: str, draw: Draw, episodes: int) -> float:
    """Mean return, in a pool and with a random stream of its own."""
    environments = spec.make(min(MEASURE_ENVIRONMENTS, episodes), derive_seed(seed, "teacher measured", who))
    generator = Streams(seed)[f"teacher measured {who}"]
    returns, _ = run_episodes(lambda observation: draw(observation, generator)[0], environments, episodes)
    environments.close()
    return sum(returns) / len(returns)
