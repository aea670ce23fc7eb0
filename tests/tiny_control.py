"""Small settings under which every control method of the table can be tried: tasks, options, and data sets for those that read one."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch

from rheostat.api import settings_for
from rheostat.buffers.offline import OfflineData
from rheostat.methods import table
from rheostat.options import having as options_having
from rheostat.tasks.control.environments import make
from rheostat.training.building import build_method
from rheostat.training.settings import Settings, applies_to
from rheostat.training.settings_from_options import SETTINGS
from rheostat.trajectories import Transitions
from tests.by_hand import ByHand

ANSWERS = [name for name, row in table.METHODS.items() if row.domain == "control" and getattr(row.load(), "answers", False)]
"""Methods on worlds of preferences, which have no environment: tests/learner/test_preferences.py."""
CONTROL = [name for name, row in table.METHODS.items() if row.domain == "control" and name not in ANSWERS]
ZERO_SHOT = {name for name in CONTROL if getattr(table.entry(name).load(), "zero_shot", False)}
"""Methods that learn no reward: what they do for one is another question than that of the probes."""
ON_POLICY: dict[str, Any] = {"num_envs": 4, "batch_steps": 64, "epochs": 2, "minibatches": 2, "hidden": (8,), "evaluation_episodes": 0}
OFF_POLICY: dict[str, Any] = {
    "num_envs": 2,
    "batch_size": 16,
    "hidden": (8,),
    "start_steps": 40,
    "update_to_data": 0.5,
    "replay_capacity": 300,
    "log_every": 20,
    "evaluation_episodes": 0,
}
IMAGINING: dict[str, Any] = {
    "rollouts_per_step": 2,
    "model_every": 20,
    "model_networks": 3,
    "model_elites": 2,
    "model_hidden": (8,),
    "model_batch_size": 16,
    "model_passes": 2,
    "imagined_kept": 40,
    "rollout_length": (2, 2),
    "imagined_share": (0.5, 0.5),
}
"""What imagines, small."""
REWARD_FREE: dict[str, Any] = {
    "steps": 800,
    "checkpoint_every": 300,
    "online_steps": 0,
    "task_features": 4,
    "task_hidden": (8,),
    "task_rows": 100,
}
"""What learns from a data set alone and no rewards, small."""
OWN: dict[str, dict[str, Any]] = {
    "a2c": {"epochs": 1, "minibatches": 1},
    "bc": {"steps": 1000, "checkpoint_every": 300, "online_steps": 0},
    "forward-backward": REWARD_FREE,
    "laplacian": REWARD_FREE,
    "td-jepa": REWARD_FREE | {"state_features": 5},
    "dqn": {"target_every": 10, "exploration_share": 0.8},
    "ospo": {
        "cities": 1,
        "batch_size": 32,
        "updates_per_turn": 3,
        "judge_every": 2,
        "judge_cities": 2,
        "steps": 360,
        "checkpoint_every": 100,
    },
    "mbpo": IMAGINING,
    "pmoe": {"mixture_size": 3},
    "pmoe-ppo": {"mixture_size": 3, "judge_hidden": (8,)},
    "props": {"behaviour_steps": 32, "behaviour_epochs": 2, "sampling_error_every": 2},
    "recurrent-ppo": {"lstm_units": 8},
    "relic": {"updates_per_trial": 2, "layers": 1, "width": 8, "heads": 2, "inner": 8, "warmup_steps": 0, "decay_steps": 1000},
    "ros": {"behaviour_steps": 32},
    "uni-o4": {
        "critic_part": 1.0,
        "model_part": 1.0,
        "cloning_part": 1.0,
        "policy_part": 1.0,
        "critic_hidden": (8,),
        "value_hidden": (8,),
        "model_hidden": (8,),
        "model_networks": 3,
        "model_elites": 2,
        "model_batch_size": 16,
        "members": 2,
        "gate_every": 20,
        "horizon": 5,
        "starts": 8,
        "online_batch_steps": 16,
        "online_minibatch": 8,
        "online_epochs": 2,
    },
    "vagram": IMAGINING,
}
"""What a method needs besides, to be small."""
CONTINUOUS = {"pmoe-ppo"}
"""Methods without a replay that act continuously only."""


def reads_data(method: str) -> str:
    """ "no", "optional" or "first": see :data:`rheostat.learner.off_policy.UsesData`."""
    return str(getattr(table.entry(method).load(), "uses_data", "no"))


def replays(method: str) -> bool:
    """Whether its gradient steps learn from a replay or a data set."""
    return hasattr(getattr(table.entry(method).load()(), "log", None), "every")


def several_agents(method: str) -> bool:
    """Whether it trains policies of several agents."""
    return bool(getattr(table.entry(method).load(), "several_agents", False))


def fleet(method: str) -> bool:
    """Whether it trains the policy of a fleet."""
    return bool(getattr(table.entry(method).load(), "fleet", False))


def backends(method: str) -> tuple[str, ...]:
    """Who can simulate its tasks."""
    return ("auto",) if several_agents(method) or fleet(method) else ("envpool", "gymnasium")


def remembers(method: str) -> bool:
    """Whether its policy has a memory."""
    return method == "recurrent-ppo"


def discrete(method: str) -> bool | None:
    """Whether a method with a replay takes choices among a number of actions; None: those and continuous ones."""
    found: bool | None = getattr(table.entry(method).load(), "discrete", False)
    return found


def acts_in(method: str) -> str:
    """A small task with actions it can take."""
    if several_agents(method):
        return "rheostat.tasks.control.games:Coordination"
    if method in ANSWERS:
        return "preference-game-tiny" if method == "online-offline-gap" else "bandit-away"
    if fleet(method):
        return "city"
    continuous = method in CONTINUOUS or (replays(method) and not discrete(method))
    return "Pendulum-v1" if continuous else "CartPole-v1"


def having(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of some options that a method, or every run, has."""
    own = {name: value for name, value in options.items() if name not in SETTINGS}
    known = options_having(table.entry(method).load()(), own, method)
    domain = table.entry(method).domain
    return {name: value for name, value in options.items() if name in known or (name in SETTINGS and applies_to(name, domain))}


@functools.cache
def random_data(task: str, steps: int = 200, seed: int = 0) -> str:
    """Folder of a data set of uniform actions, made once per process."""
    folder = Path(tempfile.mkdtemp(prefix="rheostat-data-"))
    return str(gather(task, steps, seed).save(folder / "data-set"))


def gather(task: Any, steps: int, seed: int = 0) -> OfflineData:
    """A data set of uniform actions in one environment; the last episode is cut."""
    worlds = make(task, num_envs=1, seed=10_000 * seed + 77)
    worlds.action_space.seed(seed)
    observation, rows = worlds.reset(), []
    while len(rows) < steps:
        action = torch.as_tensor(worlds.action_space.sample()).unsqueeze(0)
        step = worlds.step(action)
        if bool(step.valid):
            rows.append((observation, action, step.reward, step.next_observation, step.terminated, step.truncated))
        observation = step.observation
    worlds.close()
    seen, action, reward, following, terminated, truncated = (torch.cat(column) for column in zip(*rows, strict=True))
    truncated[-1] = not terminated[-1]
    transitions = Transitions(
        observation=seen,
        action=action,
        reward=reward,
        next_observation=following,
        terminated=terminated,
        truncated=truncated,
        sampler_logp=torch.full((steps,), float("nan")),
        batch_size=[steps],
    )  # type: ignore[call-arg]
    return OfflineData(
        transitions,
        terminated | truncated,
        observation_space=worlds.observation_space,
        action_space=worlds.action_space,
        task=task if isinstance(task, str) else worlds.name,
    )


def small_options(method: str, task: str) -> dict[str, Any]:
    """Options of a run of about a second, with two checkpoints on the way."""
    general: dict[str, Any] = {"steps": 1000, "checkpoint_every": 300} | ON_POLICY
    if replays(method):
        general = {"steps": 240, "checkpoint_every": 80} | OFF_POLICY
    if reads_data(method) != "no":
        general |= {"offline": random_data(task)} | ({"online_steps": 100} if reads_data(method) == "first" else {})
    return having(method, general) | OWN.get(method, {})


def small(method: str, task: str | None = None, **options: Any) -> Settings:
    """The same as settings, with more options."""
    task = task or acts_in(method)
    return settings_for(method, task, **(small_options(method, task) | options))


def flags(options: dict[str, Any]) -> list[str]:
    """Options as words of a command line."""
    found = []
    for name, value in options.items():
        found += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    return found


def learner(method: str, task: str | None = None, **options: Any) -> Any:
    """The method's learner, small and untrained."""
    settings = small(method, task, **options)
    return build_method(settings, settings.task)


def built(method: str, task: str | None = None, **options: Any) -> ByHand:
    """The same, to be looked at or moved by hand."""
    return ByHand(learner(method, task, **options))


def one_batch(method: ByHand) -> Transitions:
    """A batch of a method with a replay as its gradient step gets it, in the default dtype."""
    return method.one_batch()
