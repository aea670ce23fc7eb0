"""What all methods with a replay or a data set keep: how often they learn, from what, what they log, and what they refuse."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import rheostat
from rheostat.buffers.control_retainers import OFFLINE_TURN
from rheostat.collect.control.control_collectors import draw_uniform
from rheostat.errors import RheostatError
from rheostat.learner.control import build
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.run import Run
from rheostat.training.settings import configure
from rheostat.trajectories import Source
from tests.by_hand import ByHand
from tests.tasks.worlds import Counting
from tests.tiny_control import OFF_POLICY, built, having, small


class Recorded(Counting):
    """Writes down every step it really takes."""

    log: ClassVar[list[tuple[float, ...]]] = []

    def __init__(self, choices: int = 0) -> None:
        super().__init__()
        if choices:
            self.action_space = gymnasium.spaces.Discrete(choices)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        before = self._observe()
        result = super().step(np.atleast_1d(action).astype(np.float32))
        after, reward, terminated, truncated, _ = result
        self.log.append((*before, float(np.asarray(action).reshape(())), reward, *after, float(terminated), float(truncated)))
        return result


class Spoiled(gymnasium.Env):
    """Its third reward is NaN, or its rewards are too large for any network."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, reward: float = math.nan) -> None:
        self.reward = reward

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(2, np.float32), self.reward if self.steps >= 3 else 0.0, False, False, {}


class Images(gymnasium.Env):
    """Random images; nothing to learn."""

    observation_space = gymnasium.spaces.Box(0, 255, (2, 6, 6), np.uint8)

    def __init__(self, continuous: bool = False) -> None:
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32) if continuous else gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.integers(0, 256, (2, 6, 6), np.uint8), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.np_random.integers(0, 256, (2, 6, 6), np.uint8), 1.0, False, False, {}


class Unbounded(Spoiled):
    """Actions without bounds."""

    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)


def method_on(name: str, task: Any, **options: Any) -> ByHand:
    """A small method on an environment of our own."""
    known = {key: value for key, value in OFF_POLICY.items() if key != "evaluation_episodes"}
    config = configure(name, known | options)
    return ByHand(build(config, name, lambda rows, seed: make(task, num_envs=rows, seed=seed), Streams(0), 10_000))


# --- how often ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", ["0", "1/10", "29/100", "1/3", "7/10", "1", "5/2", "20"])
def test_gradient_steps_are_the_exact_share_of_the_environment_steps(ratio: str) -> None:
    """However many environments step together, and whichever only begin an episode. A sum of floats is late after ten steps of 0.1."""
    exact = Fraction(ratio)
    method = built("sac", update_to_data=float(exact), start_steps=40)
    made, turns = 0, itertools.cycle((1, 1, 3, 0, 8, 7, 2))
    while method.collector.steps < 20_000:
        method.collector.steps += next(turns)
        made += method.due()
        assert made == math.floor(exact * max(0, method.collector.steps - 40)), method.collector.steps
    method.close()


@pytest.mark.parametrize(("ratio", "envs"), [(0.3, 4), (2.0, 1)])
def test_a_run_makes_the_gradient_steps_that_its_ratio_says(ratio: float, envs: int) -> None:
    """Rows that only begin an episode are no steps: the world's episodes are short."""
    method = method_on("sac", Counting, update_to_data=ratio, num_envs=envs, batch_size=4)
    seen = set()
    while method.steps < 100:
        method.turn()
        assert method.updates == math.floor(Fraction(str(ratio)) * max(0, method.steps - 40))
        seen.add(method.updates)
    assert len(seen) > 10
    method.close()


def test_a_data_set_is_learned_from_before_anyone_acts() -> None:
    method = built("td3-bc", steps=250, online_steps=20, num_envs=1, update_to_data=0.5)
    turns = []
    while method.steps < 250:
        method.turn()
        turns.append((method.steps - method.collector.steps, method.collector.steps, len(method.replay)))
    assert turns == [(OFFLINE_TURN, 0, 200), (2 * OFFLINE_TURN, 0, 200), (250, 0, 200)]
    while method.steps < 270:
        method.turn()
    assert (method.collector.steps, method.updates, method.context.spent) == (20, 260, 250)
    method.close()


# --- from what ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("name", ["sac", "dqn"])
def test_the_replay_holds_the_true_steps_of_the_world_and_nothing_else(name: str, envs: int) -> None:
    """Final observations included, and none of the rows that a vector world spends on a reset."""
    Recorded.log.clear()
    method = method_on(name, lambda: Recorded(3 if name == "dqn" else 0), num_envs=envs, start_steps=30, batch_size=4)
    while method.steps < 90:
        method.turn()
    held, size = method.replay.columns, len(method.replay)
    numbers = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
    rows = torch.cat([held[field][:size].reshape(size, -1).double() for field in numbers], 1)
    np.testing.assert_allclose(sorted(rows.tolist()), sorted(map(list, Recorded.log)), rtol=1e-6)
    assert len(Recorded.log) == method.steps == len(method.replay)
    assert any(row[-1] for row in Recorded.log) and any(row[-2] for row in Recorded.log)
    batch = method.draw_batches(40)
    torch.testing.assert_close(batch.discount, torch.where(batch.terminated, 0.0, 0.99))
    assert batch.truncated.any() and batch.terminated.any()
    method.close()


def test_envpool_gives_final_observations_too() -> None:
    method = built("dqn", "CartPole-v1", backend="envpool", start_steps=300)
    while method.steps < 300:
        method.turn()
    held = method.replay.columns
    position, _, angle, _ = held["next_observation"][held["terminated"]].T
    assert len(angle) > 5 and bool(((position.abs() > 2.4) | (angle.abs() > 12 * 2 * math.pi / 360)).all())
    followed = (held["following"][: len(method.replay)] >= 0).nonzero().squeeze(1)
    torch.testing.assert_close(held["next_observation"][followed], held["observation"][held["following"][followed]])
    method.close()


@pytest.mark.parametrize(("share", "offline_rows"), [(0.25, 4), (0.5, 8), (0.0, 0), (1.0, 16)])
def test_a_share_of_every_batch_comes_from_the_data_set(share: float, offline_rows: int) -> None:
    method = built("td3-bc", steps=100, online_steps=40, offline_share=share)
    method.turn()
    assert method.acting and not len(method.replay)
    while method.steps < 120:
        method.turn()
    source = method.draw_batches(5).source.view(5, 16)
    assert (source == int(Source.OFFLINE)).sum(1).tolist() == [offline_rows] * 5
    assert (source == int(Source.REPLAY)).sum(1).tolist() == [16 - offline_rows] * 5
    method.close()


def test_without_a_share_one_buffer_begins_with_the_data_set() -> None:
    method = built("td3-bc", steps=100, online_steps=40, replay_capacity=210)
    while method.steps < 140:
        method.turn()
    source = method.replay.columns["source"][: len(method.replay)]
    assert len(method.replay) == 210  # the oldest 30 of 200 made room for 40
    assert (source == int(Source.OFFLINE)).sum() == 170 and (source == int(Source.REPLAY)).sum() == 40
    method.close()


def test_states_are_standardised_by_the_data_set_alone() -> None:
    method = built("td3-bc", steps=100, online_steps=40)
    seen = method.offline.transitions.observation
    normal = method.normalise(seen)
    torch.testing.assert_close(normal.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal * (seen.std(0, unbiased=False) + 1e-3) + seen.mean(0), seen)
    before = method.context.stores["observations"].shift.clone()
    while method.steps < 140:
        method.turn()
    assert torch.equal(method.context.stores["observations"].shift, before)
    batch = method.draw_batches(1)
    torch.testing.assert_close(method.read(batch).observation, method.normalise(batch.observation))
    method.close()


def test_actions_are_unit_actions_inside_and_the_worlds_outside() -> None:
    method = built("sac", "Pendulum-v1", start_steps=20)
    while method.steps < 60:
        method.turn()
    batch = method.draw_batches(2)
    assert batch.action.abs().max() > 1  # torques up to 2
    torch.testing.assert_close(method.read(batch).action, batch.action / 2)
    policy = method.act_on_target(batch.observation)
    inner = method.distribution(batch.observation)
    torch.testing.assert_close(policy.log_prob(batch.action), inner.log_prob(batch.action / 2) - math.log(2))
    method.close()


@pytest.mark.parametrize(("name", "task", "density"), [("sac", "Pendulum-v1", 1 / 4), ("dqn", "CartPole-v1", 1 / 2)])
def test_the_first_actions_are_uniform_and_know_their_probability(name: str, task: str, density: float) -> None:
    method = built(name, task)
    action, logp = draw_uniform(method.context, torch.zeros(2_000, 1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(logp, torch.full((2_000,), math.log(density)))
    middle = {"sac": 0.0, "dqn": 0.5}[name]
    assert action.double().mean().item() == pytest.approx(middle, abs=0.1)
    assert action.double().var().item() == pytest.approx({"sac": 4 / 3, "dqn": 0.25}[name], rel=0.1)
    method.close()


# --- what is logged -------------------------------------------------------------------------------------------------------------------


def test_rows_come_at_the_interval_and_at_the_end(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("sac", steps=150, log_every=40)).train()
    assert [row["steps"] for row in run.metrics] == [2, 40, 80, 120, 150]
    assert [row["gradient_steps"] for row in run.metrics] == [0, 0, 20, 20, 15]
    assert [row["updates"] for row in run.metrics] == [0, 0, 20, 40, 55]
    assert [row["replay"] for row in run.metrics] == [2, 40, 80, 120, 150]
    assert all(("critic_loss" in row) == (row["gradient_steps"] > 0) for row in run.metrics)


def test_the_meter_tells_the_sources_apart(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("td3-bc", steps=100, online_steps=40, offline_share=0.25)).train()
    before, after = run.metrics[0], run.metrics[-1]
    assert before["meter/share_offline"] == 1.0 and "meter/ess" not in before  # nobody knows how likely the data's actions were
    assert (after["meter/share_offline"], after["meter/share_replay"]) == (0.25, 0.75)
    assert 0 < after["meter/replay/ess"] <= 1 and "meter/offline/logp" in after and "meter/offline/ess" not in after
    assert after["meter/age_max"] <= 20


def test_the_meter_is_one_for_data_of_the_present_policy() -> None:
    for name in ("sac", "td3", "dqn"):
        method = built(name, start_steps=0, update_to_data=0)
        for _ in range(20):
            method.turn()
        found = method.meter(method.read(method.draw_batches(2)))
        if name != "dqn":  # whose epsilon falls with every step
            assert found["meter/ess"] == pytest.approx(1, abs=1e-3) and found["meter/gap"] == pytest.approx(0, abs=2e-3)
        else:
            assert 0.95 < found["meter/ess"] < 1
        assert found["meter/age_max"] == 0
        method.close()


def test_a_policy_without_density_has_no_ratios() -> None:
    method = built("td3", start_steps=20, exploration_noise=0.0)
    while method.steps < 60:
        method.turn()
    found = method.meter(method.read(method.draw_batches(1)))
    assert "meter/ess" not in found and all(math.isfinite(value) for value in found.values())
    method.close()


@pytest.mark.parametrize("name", ["sac", "td3", "dqn"])
def test_evaluating_never_changes_training(name: str, tmp_path: Path) -> None:
    plain = Run.create(tmp_path / "plain", small(name, steps=80))
    watched = Run.create(tmp_path / "watched", small(name, steps=80))
    for _ in range(25):
        plain.method.turn()
        watched.method.turn()
    assert watched.method.evaluate(1)["evaluation_episodes"] == 1
    assert plain.train().metrics == watched.train().metrics


# --- what goes wrong ------------------------------------------------------------------------------------------------------------------


def test_a_reward_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=r"The reward of environment 0 of .* is not finite"):
        rheostat.train("sac", Spoiled, directory=tmp_path / "run", progress=False, steps=100, **OFF_POLICY)
    assert (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"priority": 0.6}])
def test_a_loss_that_is_no_number_stops_the_run_and_the_batch_is_kept(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=r"in gradient step \d+.*the batch that caused it is in .*nonfinite.safetensors"):
        rheostat.train(
            "sac", lambda: Spoiled(1e30), directory=tmp_path / "run", progress=False, steps=100, **(OFF_POLICY | {"num_envs": 1} | options)
        )
    batch = load_file(tmp_path / "run" / "nonfinite.safetensors")
    size = options.get("batch_size", 16)
    assert batch["observation"].shape == (size, 2) and batch["reward"].shape == (size,)


REFUSED: list[tuple[str, Any, dict[str, Any], str]] = [
    ("sac", "Pendulum-v1", {"dial.lag": 2}, "sac cannot honour dial.lag: it learns from a replay, so its data are old anyway"),
    ("sac", "Pendulum-v1", {"dial.replay_share": 0.5}, "sac cannot honour dial.replay_share: all it learns from is replay"),
    ("td3", "Pendulum-v1", {"dial.replay_age": 2}, "dial.replay_age is the age of replayed data"),
    ("dqn", "CartPole-v1", {"dial.expert_share": 0.5}, "dqn cannot honour dial.expert_share: an expert's data come as a data set"),
    ("td3-bc", "Pendulum-v1", {"dial.updates_per_batch": 2}, "td3-bc cannot honour dial.updates_per_batch: gradient steps per"),
    (
        "sac",
        "CartPole-v1",
        {},
        "sac needs continuous actions (a Box), and this environment has Discrete(2): use ppo, or dqn for",
    ),
    (
        "td3",
        "CartPole-v1",
        {},
        "td3 needs continuous actions (a Box), and this environment has Discrete(2): use ppo, or dqn for",
    ),
    ("dqn", "Pendulum-v1", {}, "dqn needs discrete actions, and Pendulum-v1 has Box(-2.0, 2.0, (1,), float32): use ppo, or sac"),
    (
        "sac",
        Unbounded,
        {},
        "sac acts inside finite bounds, and this environment's actions go from -inf to inf: give the",
    ),
    ("sac", "Pendulum-v1", {"replay_capacity": 10, "batch_size": 256}, "A batch of 256 cannot be drawn from a replay of 10"),
    ("sac", "Pendulum-v1", {"offline": "nowhere"}, "sac learns from its own data only: leave --offline out"),
    ("sac", "Pendulum-v1", {"online_steps": 10}, "online_steps follow a data set, and sac does not begin with one"),
    ("rlpd", "Pendulum-v1", {"normalise_states": True}, "normalise_states takes its statistics from a data set"),
    ("sac", "Pendulum-v1", {"normalise_states": True}, "sac has no option normalise_states"),
    ("sac", "Pendulum-v1", {"num_envs": 0}, "collect.environments is 0; it must be at least 1."),
    ("sac", "Pendulum-v1", {"batch_size": 0}, "batches.size is 0; it must be at least 1."),
    ("sac", "Pendulum-v1", {"update_to_data": -1.0}, "batches.per_environment_step is -1.0; it must be at least 0."),
    ("sac", "Pendulum-v1", {"gamma": 1.5}, "gamma is 1.5; it must be at least 0 and at most 1."),
    ("sac", "Pendulum-v1", {"n_step": 0}, "replay.n_step is 0; it must be at least 1."),
    ("td3-bc", "Pendulum-v1", {"offline_share": 1.5}, "replay.offline_share is 1.5; it must be at least 0 and at most 1."),
    ("td3-bc", "Pendulum-v1", {"offline_share": 0.01}, "offline_share 0.01 of a batch of 16 leaves one source without a row"),
    ("td3-bc", "Pendulum-v1", {"offline_share": 0.5, "priority": 0.6}, "priority ranks one buffer, and offline_share draws from two"),
    ("td3-bc", "Pendulum-v1", {}, "td3-bc learns from a data set first: name one with --offline"),
    ("sac", "Pendulum-v1", {"policy": torch.nn.Linear(3, 1)}, "(Linear) has no distribution(observation): add it"),
    ("sac", "Pendulum-v1", {"update_to_dat": 1.0}, "did you mean update_to_data"),
]


@pytest.mark.parametrize(("name", "task", "options", "sentence"), REFUSED, ids=[f"{row[0]}-{row[3][:40]}" for row in REFUSED])
def test_what_cannot_work_is_one_sentence_before_anything_is_written(
    name: str, task: Any, options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(RheostatError) as error:
        rheostat.train(name, task, directory=tmp_path / "run", progress=False, **(having(name, {"steps": 100} | OFF_POLICY) | options))
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_data_of_another_task_are_refused(tmp_path: Path) -> None:
    from tests.tiny_control import random_data

    with pytest.raises(RheostatError, match="belong to another task"):
        rheostat.train("bc", "Pendulum-v1", directory=tmp_path / "run", progress=False, steps=10, offline=random_data("CartPole-v1"))
