"""ReLIC: what is computed again, options, evaluation by episode, resuming, refusals, and trials for a recurrent policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.analysis.metrics import BY_EPISODE
from rheostat.analysis.records import group_arms, read_records
from rheostat.cli.entry import main
from rheostat.collect.control.trial_evaluation import returns_by_episode
from rheostat.errors import RheostatError
from rheostat.learner.control import build
from rheostat.learner.trial_updates import BY_EPISODE as prefix
from rheostat.learner.trial_updates import by_episode
from rheostat.options import options_of
from rheostat.policies.control.in_context import TransformerActorCritic
from rheostat.reporting.in_context_panel import in_context
from rheostat.reporting.report import write_report
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.run import Run
from rheostat.training.settings import configure
from tests.tiny_control import small

TINY: dict[str, Any] = {
    "collect.environments": 4, "collect.steps": 48, "collect.updates": 3, "network.layers": 1, "network.width": 8, "network.heads": 2,
    "network.inner": 8, "update.epochs": 2, "update.minibatches": 4, "update.accumulated": 2, "update.learning_rate": 1e-2,
    "update.warmup": 20, "update.decay": 200,
}  # fmt: skip
WORLD: dict[str, Any] = {"size": 3, "horizon": 5}


def built(task: Any = "darkroom", policy: Any = None, world: dict[str, Any] | None = None, **options: Any) -> Any:
    """A small learner; options by their paths."""
    of_world = (WORLD if task == "darkroom" else {}) if world is None else world
    passes = ("update.epochs", "update.minibatches", "update.accumulated") if "dial.updates_per_batch" in options else ()
    config = configure("relic", {name: value for name, value in (TINY | options).items() if name not in passes})
    return build(config, "relic", lambda n, s: make(task, num_envs=n, seed=s, **of_world), Streams(0), 10_000, policy=policy)


def credited(one: Any) -> Any:
    """The batch of a turn, with what it is worth."""
    return one.credit(one.retain(one.collect()))


# --- what is computed again ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["darkroom", "keys-and-doors", "CartPole-v1", "MiniGrid-MemoryS7-v0"])
def test_cached_acting_is_the_full_pass(task: str) -> None:
    """In the first update of a trial, after a refresh of a permuted context, and in the next trial; with rows between episodes, too."""
    one = built(task, world={"size": 3, "horizon": 4} if "-v" not in task else {}, **{"collect.steps": 24 if "-v" not in task else 240})
    for turn in range(4):
        batch = credited(one)
        rows, seen = batch.rows, batch.columns["seen"]
        newest = seen & (torch.arange(rows.shape[1]) >= rows.shape[1] - one.composition.collect.vector_steps)
        torch.testing.assert_close(rows.learner_logp[newest], rows.sampler_logp[newest], atol=2e-5, rtol=0)
        assert turn % 3 == 0 or not torch.allclose(rows.learner_logp[seen], rows.sampler_logp[seen], atol=1e-4)
        one.improve(batch)


def test_without_a_refresh_acting_is_behind() -> None:
    one = built(**{"keep.refresh": False})
    one.turn()
    batch = credited(one)
    assert not torch.allclose(batch.rows.learner_logp[:, -4:], batch.rows.sampler_logp[:, -4:], atol=1e-4)


def test_a_trial_is_one_task_and_then_comes_another() -> None:
    one = built()
    trial, vector = one.context.stores["trial"], one.context.environments._envs.vector
    tasks = []
    for turn in range(7):
        one.turn()
        tasks.append(vector.task.copy())
        done = (turn + 1) % 3 == 0
        assert (trial.rows is None) == done and trial.number == (turn + 1) // 3
        assert trial.memory.cache.length == (0 if done else 12 * (turn % 3 + 1))
    assert (tasks[0] == tasks[2]).all() and (tasks[3] == tasks[5]).all() and not (tasks[2] == tasks[3]).all()


def test_a_permuted_context_holds_the_same_episodes() -> None:
    one = built(**{"keep.shuffle": True, "collect.steps": 80, "collect.updates": 2})
    batch = one.retain(one.collect())
    before = batch.rows.observation.clone()
    one.improve(one.credit(batch))
    after = one.context.stores["trial"].rows.observation
    assert not torch.equal(before, after)
    for row in range(len(before)):
        blocks = [[part.tolist() for part in each[row].split(5)] for each in (before, after)]
        assert sorted(blocks[0]) == sorted(blocks[1])


def test_gradients_of_minibatches_are_summed() -> None:
    """Of four equal trials, four minibatches give four times the gradient of one, before the limit."""
    norms = []
    for pieces in (1, 4):
        one = built(**{"update.minibatches": pieces, "update.accumulated": 4, "update.epochs": 1, "update.max_grad_norm": 1e9})
        batch = credited(one)
        for name, value in batch.rows.items():
            if value is not None:
                setattr(batch.rows, name, value[:1].expand(4, *value.shape[1:]).clone())
        batch.columns = {name: value[:1].expand(4, *value.shape[1:]).clone() for name, value in batch.columns.items()}
        norms.append(one.composition.update_of().improve(one.context, batch)["meter/gradient_norm"])
    assert norms[1] == pytest.approx(4 * norms[0], rel=1e-3)


def test_the_learning_rate_goes_by_environment_steps() -> None:
    update = configure("relic", {"learning_rate": 1e-3, "warmup_steps": 1000, "decay_steps": 4000}).compose().update_of()
    assert [update.rate(steps) for steps in (0, 500, 1000)] == pytest.approx([1e-6, 5.005e-4, 1e-3])
    assert [update.rate(steps) for steps in (3000, 5000, 9000)] == pytest.approx([5.05e-4, 1e-5, 1e-5])
    assert configure("relic", {"warmup_steps": 0, "decay_steps": 0}).compose().update_of().rate(7) == 2e-4


# --- measuring ----------------------------------------------------------------------------------------------------------------------------


def test_returns_are_told_by_episode() -> None:
    """A policy that stays is paid only where the goal is in the corner; one that walks there, one step later in every episode."""
    worlds = make("darkroom", num_envs=2, seed=0, size=2, horizon=3)
    worlds.reset()
    worlds._envs.vector.task[:] = [0, 1]  # type: ignore[union-attr]
    worlds._envs.reset = lambda: worlds._envs.vector._observe()  # type: ignore[method-assign, union-attr]
    found = returns_by_episode(lambda seen, acting: torch.tensor([4, 3]), worlds, 7)
    assert found.tolist() == [[3, 3], [3, 3]]
    metrics = by_episode(torch.tensor([[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]]))
    assert (metrics["evaluation_return"], metrics["evaluation_return_first"], metrics["evaluation_return_last"]) == (4.0, 2.0, 7.0)
    assert [metrics[f"in_context/episode_{k}"] for k in (1, 2, 3)] == [2.0, 3.0, 7.0] and metrics["evaluation_trials"] == 2
    assert metrics["evaluation_deviation"] == pytest.approx(2**0.5)
    assert len([name for name in by_episode(torch.zeros(1, 500)) if name.startswith("in_context/")]) == 64


def test_an_episode_without_an_end_counts_as_it_is_where_the_trial_ends() -> None:
    found = returns_by_episode(lambda seen, acting: torch.ones(2, dtype=torch.int64), make("CartPole-v1", num_envs=2, seed=0), 4)
    assert found.tolist() == [[4.0], [4.0]]


def test_evaluation_is_on_held_out_tasks_and_changes_nothing() -> None:
    one = built(**{"log.evaluate_every": 48, "log.evaluate_episodes": 5})
    made: list[Any] = []
    make_worlds = one.context.make

    def watched(rows: int, seed: int) -> Any:
        made.append(make_worlds(rows, seed))
        close = made[-1].close
        made[-1].close = lambda: (made[-1].tasks_seen.extend(made[-1]._envs.vector.task.tolist()), close())
        made[-1].tasks_seen = []
        return made[-1]

    one.context.make = watched
    before = json.dumps(one.state_dict(), default=lambda each: each.tolist() if hasattr(each, "tolist") else str(each))
    metrics = one.evaluate(5)
    assert json.dumps(one.state_dict(), default=lambda each: each.tolist() if hasattr(each, "tolist") else str(each)) == before
    vector = one.context.environments._envs.vector
    assert made[0].num_envs == 5 and set(made[0].tasks_seen) <= set(vector._split[True])
    assert metrics["evaluation_trials"] == 5 and "in_context/episode_7" in metrics and "in_context/episode_8" not in metrics
    assert metrics == one.evaluate(5)


def test_a_trial_as_an_episode_is_told_by_episode_for_any_policy() -> None:
    worlds = make("darkroom", num_envs=3, seed=1, trial_episodes=4, size=2, horizon=2)
    found = returns_by_episode(lambda seen, acting: torch.full((3,), 4), worlds, 8)
    assert found.shape == (3, 4) and set(found.flatten().tolist()) <= {0.0, 2.0}


# --- options ------------------------------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "collect.environments": 8, "collect.steps": 32, "collect.updates": 4, "keep.full": 0, "keep.shuffle": False, "keep.refresh": False,
    "normalisation.observations": True, "normalisation.rewards": True, "gae.gamma": 0.5, "gae.lam": 0.5, "network.layers": 2,
    "network.width": 16, "network.heads": 4, "network.inner": 4, "network.sink": "key", "network.across_episodes": False,
    "network.reads_reward": False, "network.longest_episode": 20, "objective.epsilon": 1e-3, "objective.clip_kind": "detached",
    "objective.value": True, "objective.ratio_to": "start", "update.epochs": 1, "update.minibatches": 2, "update.learning_rate": 1e-3,
    "update.entropy_coefficient": 0.5, "update.value_coefficient": 0.1, "update.max_grad_norm": 1e-3, "update.normalise_advantage": True,
    "update.accumulated": 1, "update.warmup": 100, "update.decay": 50, "update.depth_dropout": 0.5, "dial.updates_per_batch": 1,
}  # fmt: skip
TOGETHER: dict[str, dict[str, Any]] = {"objective.clip_kind": {"objective.epsilon": 1e-3}, "objective.value": {"objective.epsilon": 1e-3}}
"""With what an option acts."""
REFUSED = {"dial.lag", "dial.replay_share", "dial.replay_age", "dial.expert_share", "dial.refresh_every"}
MEASURING = {"log.evaluate_every", "log.evaluate_episodes", "log.actions"}  # which change no training


@pytest.mark.parametrize("path", [pytest.param(path, id=path) for path in CHANGES])
def test_every_option_acts(path: str) -> None:
    found = []
    for own in ({}, {path: CHANGES[path]}):
        one = built(**({"keep.full": 1} | TOGETHER.get(path, {}) | own))
        told = [one.turn() for _ in range(3)]
        found.append((told, torch.cat([value.flatten() for value in one.policy.state_dict().values()]).tolist()))
    assert found[0] != found[1]


def test_the_list_of_options_is_whole() -> None:
    assert {each.path for each in options_of(configure("relic", {}))} == set(CHANGES) | REFUSED | MEASURING


def refused(sentence: str, **options: Any) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built(**options)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_refusals() -> None:
    refused("rheostat/Darkroom-v0 has one task to train on: a policy learns it by heart", world={"size": 1})
    refused("may last 100 steps, and a trial has 36, so that a task would end before an episode", world={})
    refused("longest_episode 99 is more than the 36 steps of a trial", **{"network.longest_episode": 99})
    refused("full_updates 2 must divide updates_per_trial 3", **{"keep.full": 2})
    refused("50 steps do not divide over 4 environments", **{"collect.steps": 50})
    refused("8 minibatches cannot be cut from 4 sequences", **{"update.minibatches": 8})
    refused("cannot honour dial.lag: the context is in the present policy's keys", **{"dial.lag": 1})
    refused("cannot honour dial.replay_share: a context holds the steps of one trial", **{"dial.replay_share": 0.5})
    refused("cannot honour dial.expert_share: a context holds the policy's own steps", **{"dial.expert_share": 0.5})
    refused("keep.refresh would do nothing: updates_per_trial is 1", **{"collect.updates": 1, "keep.refresh": False})
    refused("keep.shuffle would do nothing: steps see their own", **{"network.across_episodes": False, "keep.shuffle": False})
    refused("update.accumulated would do nothing: all 4 minibatches", **{"update.accumulated": 9})
    refused("trains a policy that reads whole trials, and Linear does not", policy=torch.nn.Linear(4, 2))
    short = TransformerActorCritic(*spaces_of_darkroom(), steps=20, longest_episode=5, width=4, heads=1)
    refused("The network holds contexts of 20 steps, and a trial has 36", policy=short)
    one = built(**{"network.longest_episode": 3})
    with pytest.raises(RheostatError, match="lasts longer than the 3 steps that this policy has positions for"):
        one.turn()


def spaces_of_darkroom() -> tuple[Any, Any]:
    world = make("darkroom", num_envs=1, seed=0, **WORLD)
    return world.observation_space, world.action_space


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    usual = configure("relic", {}).network
    options: dict[str, Any] = {name: getattr(usual, name) for name in ("layers", "width", "heads", "inner")}

    def network() -> TransformerActorCritic:
        return TransformerActorCritic(*spaces_of_darkroom(), steps=32, longest_episode=5, layers=1, width=4, heads=1)

    settings = small("relic", "darkroom", environment_options=WORLD, **options)
    run = Run.create(tmp_path / "run", settings, policy=network()).train()
    again = Run.load(tmp_path / "run", policy=network())
    assert again.method.policy.width == 4 and torch.equal(again.method.policy.token.weight, run.method.policy.token.weight)


# --- runs ---------------------------------------------------------------------------------------------------------------------------------


def test_a_run_acts_in_context(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("relic", "darkroom", environment_options=WORLD)).train()
    world, memory = make("darkroom", num_envs=1, seed=3, **WORLD), run.memory()
    seen = world.reset()
    for _ in range(8):
        action = run.policy(seen[0], memory)
        step = world.step(torch.as_tensor([action]))
        memory.observe(step.reward, step.ended)
        seen = step.observation
    assert memory.cache.length == 8 and memory.cache.episode[0, :8].tolist() == [1] * 5 + [2] * 3
    with pytest.raises(RheostatError, match=r"act with run.policy\(observation, memory\)"):
        run.policy(seen[0])


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "relic", "darkroom", "--environment", "size", "3", "horizon", "5", "--steps", "96", "--batch-steps", "48",
             "--num-envs", "4", "--updates-per-trial", "2", "--layers", "1", "--width", "8", "--heads", "2", "--inner", "8",
             "--minibatches", "4", "--epochs", "1", "--evaluation-episodes", "2", "--directory", str(tmp_path / "run")]  # fmt: skip
    main(words)
    assert "in_context/episode_4" in json.loads((tmp_path / "run" / "summary.json").read_text())
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run"), "--episodes", "3"])
    said = capsys.readouterr().out
    assert "evaluation return" in said and "return of episode 4 in context" in said
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text()
    assert "Return by episode in context" in page and "in_context/episode" not in page
    (arms,) = group_arms(read_records([tmp_path / "run"])[0]).values()
    (panel,) = in_context(arms)
    assert panel["chart"]["series"][0]["x"]["own"] == [1, 2, 3, 4]
    assert prefix == BY_EPISODE
