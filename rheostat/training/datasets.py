"""Offline data sets of known quality, made by one seeded command.

| kind | behaviour policy |
|---|---|
| random | uniform actions |
| rnd | PPO that climbs the novelty of what it meets, and no reward (:mod:`rheostat.training.exploring`) |
| medium | the teacher's first policy with a return at a given share of the way from random to expert (a half; D4RL took about a third) |
| expert | the teacher's last policy |
| medium-replay | the teacher in training, until it had the medium policy: the requested number of steps of what it collected |
| medium-expert, medium-random, random-expert | one after the other, a given share of the steps each (half by default) |

Policies act by sampling, as in training. The teacher is PPO (:mod:`rheostat.training.teachers`). The same arguments give the same bytes on
the same machine with the same versions.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rheostat.buffers.offline import OfflineData
from rheostat.collect.control.offline_data import record, replayed, uniform
from rheostat.errors import RheostatError, unknown
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.control.reference_returns import D4RL_SOURCE, MEASURED_SOURCE, published
from rheostat.training.exploring import explored
from rheostat.training.identity import versions
from rheostat.training.progress import Bar, Progress, Silent
from rheostat.training.teachers import EnvironmentSpec, Teacher, TeacherRecipe, teacher_for

KINDS: dict[str, tuple[str, ...]] = {
    "random": ("random",),
    "rnd": ("rnd",),
    "medium": ("medium",),
    "expert": ("expert",),
    "medium-replay": ("replay",),
    "medium-expert": ("medium", "expert"),
    "medium-random": ("medium", "random"),
    "random-expert": ("random", "expert"),
}
"""Kind to the parts it is made of."""
REWARD_FREE = ("random", "rnd")
"""Kinds whose behaviour knows no reward, so that no teacher is needed for it."""


class Order(NamedTuple):
    """The requested data set."""

    task: str
    kind: str
    steps: int
    seed: int
    medium_share: float
    mixture: float
    reference: bool
    num_envs: int

    def command(self, spec: EnvironmentSpec, teacher: TeacherRecipe | None) -> str:
        """The command that makes the same data."""
        words = ["rheostat", "dataset", "make", self.task, self.kind, "--steps", str(self.steps), "--seed", str(self.seed)]
        for name in ("medium_share", "mixture", "num_envs"):
            words += [f"--{name.replace('_', '-')}", f"{getattr(self, name):g}"]
        words += [] if self.reference else ["--no-reference"]
        words += [] if spec.backend == "auto" else ["--backend", spec.backend]
        words += _pairs("--environment", spec.options)
        if teacher is not None:
            for name in ("steps", "evaluations", "evaluation_episodes", "reference_episodes"):
                words += [f"--teacher-{name.replace('_', '-')}", str(getattr(teacher, name))]
            words += _pairs("--teacher-options", teacher.options)
        return shlex.join(words)


def make_dataset(
    task: str,
    kind: str,
    steps: int = 100_000,
    seed: int = 0,
    *,
    teacher: TeacherRecipe | None = None,
    medium_share: float = 0.5,
    mixture: float = 0.5,
    reference: bool = True,
    num_envs: int = 8,
    backend: Literal["auto", "envpool", "gymnasium"] = "auto",
    environment_options: dict[str, Any] | None = None,
    progress: bool | Progress = False,
    cache: Path | None = None,
) -> OfflineData:
    """Make a data set; ``save`` it to keep it.

    Args:
        task: id of a control task.
        kind: one of :data:`KINDS`.
        steps: exactly so many; ``medium-replay`` has fewer where the teacher's training was shorter.
        seed: of the teacher's training and of the collecting.
        teacher: how it is trained; None takes the recipe of the task.
        medium_share: how far the medium policy is on the way from random to expert, between 0 and 1.
        mixture: of a kind with two parts, the share of the steps that the first one has.
        reference: measure the returns that count as 0 and 100 percent where none are published; that needs a teacher even for random data.
        num_envs: environments side by side; part of the definition of the data.
        backend: the simulator.
        environment_options: options of the environment, as JSON.
        progress: show the progress of the teacher's training.
        cache: where teachers are cached; by default ``$RHEOSTAT_CACHE``, else the user's cache folder.

    Raises:
        RheostatError: unknown task, kind or setting, or a teacher that did not learn.
    """
    if kind not in KINDS:
        raise unknown("kind of data set", kind, KINDS)
    for name, value, least in (("steps", steps, 1), ("num_envs", num_envs, 1), ("seed", seed, 0)):
        if value < least:
            raise RheostatError(f"{name} is {value}: it must be at least {least}.")
    if not 0 < mixture < 1:
        raise RheostatError(f"mixture is {mixture:g}: it must lie between 0 and 1.")
    if len(KINDS[kind]) > 1 and not 0 < round(steps * mixture) < steps:
        raise RheostatError(f"{steps} steps cannot be shared {mixture:g} to {1 - mixture:g} between two policies: take more.")
    order = Order(task, kind, steps, seed, medium_share, mixture, reference, num_envs)
    spec = EnvironmentSpec(task, backend, environment_options or {})
    display = (Bar(f"teacher of {task}") if progress else Silent()) if isinstance(progress, bool) else progress
    teaching: Teacher | None = None
    if kind not in REWARD_FREE or (reference and published(task) is None):
        teaching = teacher_for(spec, seed, teacher, progress=display, cache=cache)
    first = round(steps * mixture)
    sizes = [steps] if len(KINDS[kind]) == 1 else [first, steps - first]
    parts = [_part(name, size, order, spec, teaching, display) for name, size in zip(KINDS[kind], sizes, strict=True)]
    behaviours = [part.behaviour for part in parts]
    facts: dict[str, Any] = {
        "kind": kind,
        "behaviour": behaviours[0] if len(parts) == 1 else "; then ".join(behaviours),
        "seed": seed,
        "command": order.command(spec, None if teaching is None else teaching.recipe),
        "versions": versions(),
    }
    facts["description"] = f"{kind} data of {task}: {facts['behaviour']}."
    if teaching is not None:
        recipe = dataclasses.asdict(teaching.recipe)
        facts["teacher"] = {"method": "ppo", "seed": seed, **recipe, "final_steps": teaching.policies[-1]["steps"]}
        facts["measured"] = {
            "random": teaching.random,
            "expert": teaching.expert,
            "expert_sampled": teaching.expert_sampled,
            "episodes": teaching.recipe.reference_episodes,
        }
        if {"medium", "replay"} & set(KINDS[kind]):
            facts["medium"] = {"share": medium_share} | teaching.policies[teaching.medium(medium_share)]
    data = OfflineData.join(parts, facts=facts, name=f"the {kind} data of {task}")
    found = published(task)
    if found is not None:
        data.reference, data.reference_source = found, D4RL_SOURCE
    elif reference and teaching is not None:
        data.reference, data.reference_source = (teaching.random, teaching.expert), MEASURED_SOURCE
    return data


def _part(name: str, steps: int, order: Order, spec: EnvironmentSpec, teaching: Teacher | None, progress: Progress) -> OfflineData:
    """The data of one policy."""
    generator = Streams(order.seed)[f"offline {name}"]
    environments = spec.make(order.num_envs, derive_seed(order.seed, "offline pool", name))
    try:
        if name == "random":
            return record(
                uniform(environments.action_space), environments, steps, generator=generator, facts={"behaviour": "uniform actions"}
            )
        if name == "rnd":
            blocks = explored(spec, steps, order.seed, order.num_envs, progress)
            facts = {"behaviour": "PPO on the novelty of random network distillation"}
            return replayed(blocks, steps, environments, generator=generator, facts=facts)
        assert teaching is not None
        number = len(teaching.policies) - 1 if name == "expert" else teaching.medium(order.medium_share)
        learned = f"{teaching.policies[number]['steps']:,} steps"
        if name == "replay":
            blocks = teaching.training_data(number, progress)
            facts = {"behaviour": f"PPO in the first {learned} of its training"}
            return replayed(blocks, steps, environments, generator=generator, facts=facts)
        return record(teaching.draw(number), environments, steps, generator=generator, facts={"behaviour": f"PPO after {learned}"})
    finally:
        environments.close()


def _pairs(option: str, values: dict[str, Any]) -> list[str]:
    return [option, *(word for key, value in values.items() for word in (key, json.dumps(value)))] if values else []
