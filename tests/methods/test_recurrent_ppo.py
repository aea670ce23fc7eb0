"""Recurrent PPO: what is computed again equals what was recorded, memory is carried and forgotten, Recall, acting, refusals."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rheostat.api import settings_for
from rheostat.cli.entry import main
from rheostat.collect.control.evaluation_episodes import run_episodes
from rheostat.errors import RheostatError
from rheostat.learner.control import build
from rheostat.options import options_of
from rheostat.policies.control.recurrent import EpisodeMemory, RecurrentActorCritic, Sequences
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.tasks.control.recall import BEST, CHANCE, Recall
from rheostat.training.run import Run
from rheostat.training.settings import configure
from tests.learners import credited
from tests.tiny_control import learner, small

RAW: dict[str, Any] = {"normalise_observations": False, "normalise_rewards": False}


MODES = ("NextStep", "SameStep", "Disabled")


class Counting(gymnasium.Env):
    """Episodes of three to six steps, cut or ended; saves nothing, which these tests do not need."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left, self.ends = int(self.np_random.integers(3, 7)), bool(self.np_random.integers(2))
        return self.seen(), {}

    def seen(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return self.seen(), float(action), self.left == 0 and self.ends, self.left == 0 and not self.ends, {}


def worlds(mode: str) -> Any:
    """Four copies that begin their next episodes in this autoreset mode."""
    return gymnasium.vector.SyncVectorEnv([Counting] * 4, autoreset_mode=gymnasium.vector.AutoresetMode(mode))


TINY: dict[str, Any] = {
    "collect.environments": 4, "collect.steps": 64, "network.hidden": (8,), "network.units": 8,
    "normalisation.observations": False, "normalisation.rewards": False,
}  # fmt: skip


def built(task: Any = Counting, policy: Any = None, **options: Any) -> Any:
    """A small learner; options by their paths. A task with an autoreset mode is named by it."""
    found = (lambda: worlds(task))() if isinstance(task, str) and task in MODES else task
    config = configure("recurrent-ppo", TINY | options)
    return build(config, "recurrent-ppo", lambda n, s: make(found, num_envs=n, seed=s), Streams(0), 10_000, policy=policy)


# --- what is computed again ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_what_is_computed_again_is_what_was_recorded(mode: str) -> None:
    """Across ends of episodes inside rows, across the border of two batches, and after the policy has moved."""
    one = built(mode)
    for turn in range(3):
        batch = credited(one)
        rows = batch.rows
        assert (rows.terminated | rows.truncated).any() and (mode == "NextStep") != bool(rows.mask.all())
        assert turn == 0 or (~batch.columns["begins"][:, 0]).any()  # some episode goes on from the batch before
        torch.testing.assert_close(rows.learner_logp[rows.mask], rows.sampler_logp[rows.mask], atol=1e-6, rtol=0)
        steps: list[Any] = []
        update = one.composition.update_of()
        update.one_pass(one.context, rows.transitions(), update.read(one.context, batch), steps, [])
        ratio = (steps[0].log_prob - steps[0].targets.old_logp).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-6, rtol=0)


def test_episodes_inside_rows_are_episodes_alone() -> None:
    one = built()
    one.turn()
    batch = one.collect()
    network, begins = one.policy, batch.columns["begins"]
    every = torch.ones_like(begins)
    inside = network.features(Sequences(batch.rows.observation, begins, every, batch.columns["memory"])).view(*begins.shape, -1)
    found = 0
    for row in range(len(begins)):
        cuts = [*begins[row].nonzero().flatten().tolist(), begins.shape[1]]
        for start, end in itertools.pairwise(cuts):
            seen = batch.rows.observation[row : row + 1, start:end]
            alone = network.features(Sequences(seen, torch.zeros(1, end - start, dtype=torch.bool), every[:1, start:end], network.start(1)))
            torch.testing.assert_close(alone, inside[row, start:end], atol=1e-6, rtol=0)
            found += 1
    assert found > 10


def test_values_of_successors_go_one_step_on() -> None:
    one = built()
    batch = credited(one)
    rows, network = batch.rows, one.policy
    memory, begins = batch.columns["memory"].clone(), batch.columns["begins"]
    for t in range(rows.shape[1]):
        memory[begins[:, t]] = 0.0
        features, memory = network.step(rows.observation[:, t], memory)
        beyond, _ = network.step(rows.next_observation[:, t], memory)
        torch.testing.assert_close(rows.value[:, t], network.judge(features), atol=1e-6, rtol=0)
        torch.testing.assert_close(rows.next_value[:, t], network.judge(beyond), atol=1e-6, rtol=0)


def test_sequences_are_not_torn_and_all_are_used() -> None:
    one = built(**{"collect.environments": 5, "collect.steps": 80, "update.minibatches": 3})
    batch = credited(one)
    update, rows = one.composition.update_of(), batch.rows.transitions()
    pieces = list(update.passed(one.context, rows, update.read(one.context, batch)))
    assert sorted(torch.cat([piece.places for piece in pieces]).tolist()) == list(range(len(rows)))
    owner = torch.arange(5).repeat_interleave(batch.rows.mask.sum(1))
    assert [len(owner[piece.places].unique()) for piece in pieces] == [2, 2, 1]
    for piece in pieces:
        torch.testing.assert_close(rows.action[piece.places], piece.action)
        log_prob = one.policy.distribution(piece.observation).log_prob(piece.action)
        torch.testing.assert_close(log_prob, piece.targets.old_logp, atol=1e-6, rtol=0)


# --- Recall ------------------------------------------------------------------------------------------------------------------------------


def test_without_a_memory_recall_pays_one_half() -> None:
    """Both cues lead to one observation, so the exact expected return of a policy of observations is 1/2, whatever it has learned."""
    asked = []
    for cue in (0, 1):
        world = Recall(delay=2)
        world.reset(seed=0)
        world.load_state({"cue": cue, "time": 0})
        asked.append([world.step(0)[0], world.step(0)[0]][-1])
    assert np.array_equal(*asked)
    one = learner("ppo", "rheostat/Recall-v0", learning_rate=1e-2)
    for _ in range(5):
        one.turn()
    right = one.context.act_on_target(torch.from_numpy(asked[0])[None]).log_probs.exp()[0]
    assert 0.5 * right[0] + 0.5 * right[1] == pytest.approx(CHANCE)


def test_with_a_memory_recall_is_solved(tmp_path: Path) -> None:
    settings: dict[str, Any] = RAW | {"num_envs": 16, "batch_steps": 64, "minibatches": 1, "lstm_units": 8, "hidden": (8,), "clip": 0.2}
    options = {"steps": 2_400, "learning_rate": 3e-2, "environment_options": {"delay": 1}} | settings
    run = Run.create(tmp_path / "run", settings_for("recurrent-ppo", "rheostat/Recall-v0", **options)).train()
    assert run.summary["evaluation_return"] == BEST
    world, right = gymnasium.make("rheostat/Recall-v0", delay=1), 0.0
    for seed in range(6):
        memory, (observation, _), over = run.memory(), world.reset(seed=seed), False
        while not over:
            observation, reward, over, _, _ = world.step(run.policy(observation, memory))
            right += float(reward)
    assert right == 6


@pytest.mark.slow
def test_recall_over_five_steps(tmp_path: Path) -> None:
    from tests.probing import mistakes

    assert mistakes("recurrent-ppo", "Recall", False, tmp_path / "run") == []


# --- acting ------------------------------------------------------------------------------------------------------------------------------


def test_a_memory_is_of_its_episodes(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("recurrent-ppo")).train()
    observations = [np.random.default_rng(i).normal(size=(3, 4)).astype(np.float32) for i in range(4)]
    together = run.memory(3)
    side = [run.policy(seen, together) for seen in observations]
    for row in range(3):
        memory = run.memory()
        assert [int(run.policy(seen[row], memory)) for seen in observations] == [int(actions[row]) for actions in side]
    together.forget([False, True, False])
    fresh = run.memory()
    run.policy(observations[0], together), run.policy(observations[0][1], fresh)
    torch.testing.assert_close(together.memory[1], fresh.memory[0])
    assert not torch.equal(together.memory[0], run.memory(1).memory[0])
    with pytest.raises(RheostatError, match=r"The memory is of 3 episodes, and there are 1 observations"):
        run.policy(observations[0][0], together)
    with pytest.raises(RheostatError, match=r"cannot judge an observation alone: act with run.policy\(observation, memory\)"):
        run.policy(observations[0][0])
    plain = Run.create(tmp_path / "plain", small("ppo"))
    with pytest.raises(RheostatError, match=r"ppo acts on single observations and has no memory"):
        plain.memory()


def test_an_evaluation_forgets_where_episodes_begin() -> None:
    """Each of several episodes in a row is measured as if it were the first."""
    one = built()
    network, heard = one.policy, []
    memory = EpisodeMemory(network)

    def act(observation: torch.Tensor) -> torch.Tensor:
        heard.append((memory.begins.clone(), observation))
        return memory(observation).mode()

    _, lengths = run_episodes(act, make(Counting, num_envs=2, seed=5), 6, memory.forget)
    begun = torch.stack([begins for begins, _ in heard[1:]])
    assert len(lengths) == 6 and int(begun.sum()) >= 2 * 4  # the fake row, and the first of the next episode


def test_restarted_environments_are_forgotten() -> None:
    one = built()
    one.turn()
    memory = one.context.stores["memory"]
    assert memory.memory.abs().sum() > 0
    one.context.environments.can_save = False
    one.restart_episodes()
    assert memory.begins.all() and memory.memory.abs().sum() == 0


# --- options -----------------------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "collect.environments": 8, "collect.steps": 32, "normalisation.observations": True, "normalisation.rewards": True, "gae.gamma": 0.5,
    "gae.lam": 0.5, "gae.bootstrap_on_truncation": False, "network.hidden": (4,), "network.units": 4, "network.activation": "relu",
    "objective.epsilon": 1e-3, "objective.clip_kind": "detached", "objective.value": True, "objective.ratio_to": "sampler",
    "sampler.correction": "token", "sampler.cap": 1.0001, "stop.target": 1e-9, "stop.when": "before-step", "update.epochs": 1,
    "update.minibatches": 1, "update.learning_rate": 1e-3, "update.anneal": False, "update.entropy_coefficient": 0.5,
    "update.value_coefficient": 0.1, "update.max_grad_norm": 1e-3, "update.normalise_advantage": False, "dial.lag": 1,
    "dial.updates_per_batch": 1,
}  # fmt: skip
TOGETHER: dict[str, dict[str, Any]] = {
    "objective.ratio_to": {"dial.lag": 1},
    "objective.clip_kind": {"objective.epsilon": 1e-3},
    "objective.value": {"objective.epsilon": 1e-3},
    "sampler.correction": {"dial.lag": 1},
    "sampler.cap": {"dial.lag": 1, "sampler.correction": "token"},
    "stop.when": {"stop.target": 1e-9},
}
"""With what an option acts."""
REFUSED = {"dial.replay_share", "dial.replay_age", "dial.expert_share", "dial.refresh_every"}


@pytest.mark.parametrize("path", [pytest.param(path, id=path) for path in CHANGES])
def test_every_option_acts(path: str) -> None:
    found = []
    for own in ({}, {path: CHANGES[path]}):
        one = built(**({"update.learning_rate": 1e-2} | TOGETHER.get(path, {}) | own))
        told = [one.turn() for _ in range(3)]
        found.append((told, torch.cat([value.flatten() for value in one.policy.state_dict().values()]).tolist()))
    assert found[0] != found[1]


def test_the_list_of_options_is_whole() -> None:
    measuring = {"log.evaluate_every", "log.evaluate_episodes"}  # which change no training
    assert {each.path for each in options_of(configure("recurrent-ppo", {}))} == set(CHANGES) | REFUSED | measuring


def refused(sentence: str, **options: Any) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built(**options)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_refusals() -> None:
    refused("cannot honour dial.replay_share: a replayed sequence begins with a memory that an older policy", **{"dial.replay_share": 0.5})
    refused("cannot honour dial.expert_share: an expert's sequences begin with no memory", **{"dial.expert_share": 0.5})
    refused("8 minibatches cannot be cut from 4 sequences, one per environment: use at most 4", **{"update.minibatches": 8})
    refused("recurrent-ppo has no option window", window=2)
    refused("trains a policy with a memory, and Linear has none: hand over a RecurrentActorCritic", policy=torch.nn.Linear(4, 2))
    with pytest.raises(RheostatError, match="it must be at least 1"):
        Recall(delay=0)


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    world = make("CartPole-v1", num_envs=1, seed=0)

    class Deeper(RecurrentActorCritic):
        """Two layers before the LSTM."""

    def network() -> Any:
        return Deeper(world.observation_space, world.action_space, hidden=(6, 5), units=4)

    usual = configure("recurrent-ppo", {}).network
    options = {"hidden": usual.hidden, "lstm_units": usual.units}  # which the network decides
    run = Run.create(tmp_path / "run", small("recurrent-ppo", **options), policy=network()).train()
    again = Run.load(tmp_path / "run", policy=network())
    assert type(again.method.policy) is Deeper and again.method.policy.units == 4
    assert torch.equal(again.method.policy.lstm.weight_hh_l0, run.method.policy.lstm.weight_hh_l0)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "recurrent-ppo", "CartPole-v1", "--steps", "256", "--batch-steps", "128", "--num-envs", "4", "--epochs", "1",
             "--lstm-units", "8", "--evaluation-episodes", "1", "--directory", str(tmp_path / "run")]  # fmt: skip
    main(words)
    assert (tmp_path / "run" / "summary.json").exists()
    main(["evaluate", str(tmp_path / "run"), "--episodes", "1"])
    assert "evaluation return" in capsys.readouterr().out
