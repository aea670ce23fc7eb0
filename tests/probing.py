"""Methods on probes, whose right answers are known in closed form: ``python -m tests.probing [METHOD ...]``.

Prints a table of control methods and probe environments, with discrete actions and with continuous ones, and a table of language methods
and token worlds (:mod:`tests.token_probes`): a dot where everything is right, - where a method cannot act or nothing of it can be checked.
Without names: every method of the table.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat import api
from rheostat.methods import table
from rheostat.policies.control.recurrent import Sequences
from rheostat.tasks.control import probes
from rheostat.tasks.control.recall import BEST
from rheostat.terminal import print_table
from rheostat.training.run import Run
from tests import token_probes
from tests.tiny_control import (
    CONTINUOUS,
    CONTROL,
    ZERO_SHOT,
    discrete,
    fleet,
    having,
    random_data,
    reads_data,
    remembers,
    replays,
    several_agents,
)

GAMMA = 0.9
FAST = {
    "num_envs": 8,
    "batch_steps": 128,
    "epochs": 4,
    "minibatches": 2,
    "learning_rate": 1e-2,
    "gamma": GAMMA,
    "hidden": (16,),
    "normalise_observations": False,
    "normalise_rewards": False,
    "clip_value": False,
    "anneal": True,
}
OWN = {
    "a2c": {"batch_steps": 64, "epochs": 1, "minibatches": 1, "normalise_advantage": True},
    "props": {"behaviour_steps": 64, "behaviour_epochs": 2, "behaviour_minibatches": 2, "target_kl": None},
    "ros": {"behaviour_steps": 64, "behaviour_learning_rate": 0.01},
    "robust-acting": {"repair_probability": 0.1},
    "recurrent-ppo": {"lstm_units": 16},
}
STEPS = {"TimeLimit": 16_000, "Recall": 24_000}
REPLAY = {
    "num_envs": 8,
    "batch_size": 64,
    "start_steps": 400,
    "update_to_data": 0.125,
    "replay_capacity": 10_000,
    "learning_rate": 3e-3,
    "gamma": GAMMA,
    "tau": 0.1,
    "hidden": (32, 32),
    "log_every": 100_000,
    "checkpoint_every": 100_000,
}
"""One gradient step per step of the eight environments."""
IMAGINING: dict[str, object] = {
    "temperature": 0.01,
    "rollouts_per_step": 4,
    "imagined_share": (0.5, 0.5),
    "model_hidden": (16,),
    "model_networks": 2,
    "model_elites": 2,
    "model_passes": 5,
    "model_batch_size": 64,
    "model_learning_rate": 1e-2,
}
REPLAY_OWN: dict[str, dict[str, object]] = {
    "awac": {"advantage_temperature": 0.1},
    "bc": {"best_share": 0.1},
    "cql": {"temperature": 0.01, "conservative_weight": 0.1, "penalty_actions": 5, "critic_learning_rate": 1e-2},
    "dqn": {"tau": 1.0, "target_every": 20},
    "famo2o": {"coefficient_low": 5.0, "coefficient_high": 15.0, "expectile": 0.9},
    "famo2o-cql": {"temperature": 0.01, "conservative_weight": 0.1, "penalty_actions": 5, "critic_learning_rate": 1e-2},
    "iql": {"inverse_temperature": 10.0, "expectile": 0.9},
    "mbpo": IMAGINING,
    "pmoe": {"temperature": 0.01},
    "rlpd": {"temperature": 0.01},
    "sac": {"temperature": 0.01},
    "td3-bc": {"alpha": 25.0},  # the data's mean action is 0, and imitation pulls there
    "uni-o4": {
        "critic_part": 3.0,
        "model_part": 1.0,
        "cloning_part": 1.0,
        "policy_part": 3.0,
        "critic_learning_rate": 1e-2,
        "policy_learning_rate": 1e-2,
        "critic_hidden": (32, 32),
        "value_hidden": (32, 32),
        "model_hidden": (16,),
        "model_networks": 2,
        "model_elites": 2,
        "members": 2,
        "gate_every": 10,
        "horizon": 1,
        "starts": 32,
    },
    "vagram": IMAGINING | {"critic_learning_rate": 3e-3, "target_every": 1},
}
DISCRETE_OWN: dict[str, dict[str, object]] = {"cql": {"conservative_weight": 0.1, "critic_learning_rate": 1e-2}}
"""What differs where actions are discrete: CQL has no policy then, and draws no actions."""
GRADIENT_STEPS = {"TimeLimit": 1_200}
DATA_STEPS = 600
IMAGINE = {"mbpo", "vagram"}
"""Methods that must know when a task ends."""
NO_VALUE = {"bc"}
"""Methods without a critic."""
PESSIMISTIC = {"cql", "famo2o", "famo2o-cql", "iql", "uni-o4"}
"""Methods whose critics judge the data's actions, or push values down: their actions are checked, and values where no action matters."""


def train_on(method: str, task: str, steps: int, directory: Path, **options: object) -> Run:
    settings = api.settings_for(method, task, steps=steps, evaluation_episodes=0, **(having(method, FAST) | OWN.get(method, {}) | options))
    return Run.create(directory, settings).train()


def train_replay_on(method: str, task: str, updates: int, directory: Path, **options: object) -> Run:
    """A method with a replay; those that begin with a data set learn from uniform actions alone."""
    own = DISCRETE_OWN.get(method) if "Continuous" not in task else None
    options = having(method, REPLAY) | (REPLAY_OWN.get(method, {}) if own is None else own) | options
    if reads_data(method) == "first":
        options.pop("update_to_data", None)  # nobody acts
    data = {} if reads_data(method) == "no" else {"offline": random_data(task, DATA_STEPS)}
    steps = updates if reads_data(method) == "first" else int(REPLAY["start_steps"] + REPLAY["num_envs"] * updates)  # type: ignore[operator]
    return Run.create(directory, api.settings_for(method, task, steps=steps, evaluation_episodes=0, **data, **options)).train()


def can_fail(method: str, probe: str, continuous: bool) -> bool:
    """Whether a method can take a probe's actions, and has anything to be checked there; what must be remembered is for those that can."""
    if several_agents(method) or fleet(method):
        return False
    if probe == "Recall":
        return remembers(method) and not continuous
    if method in IMAGINE and probe == "DelayedReward":
        return False  # its last observation is also its first, and a rule of observations cannot tell when it ends
    if not replays(method):
        return continuous or method not in CONTINUOUS
    return discrete(method) in (None, not continuous) and (method not in NO_VALUE or "Action" in probe or "Both" in probe)


def places() -> list[tuple[str, bool]]:
    """Probes and kinds of actions."""
    return [(probe, continuous) for probe in (*probes.CLASSES, "Recall") for continuous in (False, True)]


def remembered(run: Run, probe: str) -> Callable[[Tensor], Sequences]:
    """Observations ``[n, 1]`` as a policy that remembers meets them: two steps of one episode (DelayedReward), or first ones each."""

    def sequences(observation: Tensor) -> Sequences:
        seen = observation.unsqueeze(0) if probe == "DelayedReward" else observation.unsqueeze(1)
        every = torch.ones(seen.shape[:2], dtype=torch.bool)
        return Sequences(seen, torch.zeros_like(every), every, run.method.policy.start(len(seen)))

    return sequences


def recalls(directory: Path, method: str) -> list[str]:
    """What is wrong with a method trained on Recall: its mean return in whole episodes."""
    options = {"clip": 0.2, "entropy_coefficient": 0.01, "learning_rate": 5e-3, "num_envs": 16, "batch_steps": 256}
    run = train_on(method, "rheostat/Recall-v0", STEPS["Recall"], directory, **options)
    found = run.evaluate(20)["evaluation_return"]
    return [] if found == BEST else [f"Recall: the return {found} should be {BEST}: look at what is carried from step to step."]


def mistakes(method: str, probe: str, continuous: bool, directory: Path) -> list[str]:
    """Train a method on a probe; what it then thinks or does wrong, in sentences."""
    torch.set_num_threads(1)
    if probe == "Recall":
        return recalls(directory, method)
    task = probes.task_id(probe, continuous)
    acted = "Action" in probe or "Both" in probe
    if replays(method):
        run = train_replay_on(method, task, GRADIENT_STEPS.get(probe, 400), directory)
        value = None if method in NO_VALUE or (method in PESSIMISTIC and acted) else run.method.context.value
        policy = run.method.context.act_on_target
    else:
        run = train_on(method, task, STEPS.get(probe, 8_000), directory)
        # where the reward depends on a stochastic continuous action, the value is that of the policy as it still explores
        network, met = run.method.policy, remembered(run, probe) if remembers(method) else lambda observation: observation
        value = None if continuous and acted else lambda observation: network.value(met(observation))

        def policy(observation: Tensor) -> Any:
            return network.distribution(met(observation))

    return probes.check(probe, gamma=GAMMA, continuous=continuous, value=value, act=lambda observation: policy(observation).mode())


def main(methods: list[str]) -> int:
    """Print the tables; returns how many entries are wrong."""
    for method in methods:
        table.entry(method)  # refuses what is no method
    control = [method for method in CONTROL if method not in ZERO_SHOT and (not methods or method in methods)]
    language = [method for method in token_probes.LANGUAGE if not methods or method in methods]
    wrong: list[str] = []
    if control:
        rows = [[method, *_paired(_row(method, places(), _on_probe, wrong))] for method in control]
        print_table("Probes: discrete actions, continuous actions", ["method", *probes.CLASSES, "Recall"], rows)
    if language:
        worlds = [*token_probes.WORLDS, token_probes.PREFERRED]
        rows = [[method, *_row(method, [(world,) for world in worlds], _in_world, wrong)] for method in language]
        print_table("Token worlds", ["method", *worlds], rows)
    print("\n".join(wrong) or "Nothing is wrong.")
    return len(wrong)


def _row(method: str, where: Sequence[tuple[Any, ...]], look: Callable[..., list[str] | None], wrong: list[str]) -> list[str]:
    """A method's row of a table; what is wrong is appended."""
    row = []
    for place in where:
        found = look(method, *place)
        row.append("-" if found is None else "wrong" if found else ".")
        wrong += [f"{method} on {place[0]}: {sentence}" for sentence in found or []]
    print(f"{method}: {row.count('.')} right, {row.count('wrong')} wrong", file=sys.stderr, flush=True)
    return row


def _paired(row: list[str]) -> list[str]:
    """Both kinds of actions of a probe in one entry."""
    return [f"{discrete} {continuous}" for discrete, continuous in zip(row[::2], row[1::2], strict=True)]


def _on_probe(method: str, probe: str, continuous: bool) -> list[str] | None:
    """What is wrong with a method on a probe; None where nothing can be."""
    if not can_fail(method, probe, continuous):
        return None
    with tempfile.TemporaryDirectory() as directory:
        return mistakes(method, probe, continuous, Path(directory) / "run")


def _in_world(method: str, world: str) -> list[str] | None:
    """What is wrong with a method in a token world; None where nothing can be."""
    return token_probes.mistakes(method, world) if token_probes.can_fail(method, world) else None


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
