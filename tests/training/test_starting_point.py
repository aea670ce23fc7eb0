"""A run that begins with another run's weights: what is taken, what begins anew, what is said of it, and what does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rheostat
from rheostat.cli.entry import parse
from rheostat.errors import RheostatError
from rheostat.training.run import Interrupted, Run
from tests.crash import differences
from tests.tiny_control import random_data, replays, small
from tests.training.test_run import StopAfter

SHORT: dict[str, Any] = {"steps": 128, "normalise_observations": True, "normalise_rewards": True}


def short(method: str, **options: Any) -> Any:
    """Small settings of a run of a few updates."""
    own = {"ppo": SHORT, "a2c": SHORT, "props": SHORT, "recurrent-ppo": SHORT}.get(method, {"steps": 80 if replays(method) else 128})
    return small(method, **(own | options))


def weights(run: Run) -> dict[str, Any]:
    """Parameters of the models that are no copies."""
    models = run.method.context.models
    kept = {name: each.state_dict() for name, each in models.items() if hasattr(each, "state_dict") and not hasattr(each, "begins_as_copy")}
    found = {name: state.get("parameters", state.get("network")) for name, state in kept.items()}
    return {name: each for name, each in found.items() if each is not None}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return torch.equal(one, other)


@pytest.mark.parametrize(
    "method",
    [
        "ppo",
        "sac",
        "iql",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("recurrent-ppo", "dqn", "td3", "rlpd", "cql", "td3-bc", "pmoe", "pmoe-ppo")
        ),
    ],
)
def test_the_weights_are_taken_and_everything_else_is_new(method: str, tmp_path: Path) -> None:
    first = Run.create(tmp_path / "first", short(method)).train()
    own = Run.create(tmp_path / "own", short(method, seed=1))
    run = Run.create(tmp_path / "run", short(method, seed=1, from_run=str(tmp_path / "first")))
    assert same(weights(run), weights(first)) and not same(weights(own), weights(first))
    for name, model in run.method.context.models.items():
        if hasattr(model, "begins_as_copy"):
            assert torch.equal(model.parameters.vector, run.method.context.models[model.of].parameters.vector)
        optimizer = getattr(model, "optimizer", None)
        assert optimizer is None or not optimizer.state, name
    assert run.method.steps == 0 and run.method.updates == 0
    statistics = [each.method.context.stores.get("observations") for each in (first, run)]
    assert statistics[0] is None or all(torch.equal(*pair) for pair in zip(*(_tensors(each) for each in statistics), strict=True))
    scales = [each.method.context.stores.get("rewards") for each in (first, run)]
    assert scales[0] is None or torch.equal(scales[0].statistics.variance, scales[1].statistics.variance)
    if method != "recurrent-ppo":
        shape = run.method.context.environments.observation_space.shape
        seen = np.random.default_rng(0).normal(0.0, 3.0, (256, *shape)).astype(np.float32)  # enough that two policies differ on one
        np.testing.assert_array_equal(run.policy(seen), first.policy(seen))
        assert not np.array_equal(own.policy(seen), first.policy(seen)) or method == "dqn"


def _tensors(statistics: Any) -> list[torch.Tensor]:
    return [value for value in statistics.state_dict().values() if isinstance(value, torch.Tensor)]


def test_a_team_begins_with_a_team(tmp_path: Path) -> None:
    first = Run.create(tmp_path / "first", short("ippo")).train()
    run = Run.create(tmp_path / "run", short("ippo", seed=1, from_run=str(tmp_path / "first")))
    for name, member in first.method.context.members.items():  # type: ignore[attr-defined]
        mine = run.method.context.members[name].models["policy"]  # type: ignore[attr-defined]
        assert same(mine.state_dict()["network"], member.models["policy"].state_dict()["network"])


def test_a_copy_of_a_policy_begins_as_a_copy(tmp_path: Path) -> None:
    """PROPS's behaviour policy follows the policy of another method, that was taken, and not its own first one."""
    first = Run.create(tmp_path / "first", short("ppo")).train()
    run = Run.create(tmp_path / "run", short("props", from_run=str(tmp_path / "first")))
    models = run.method.context.models
    assert same(weights(run)["policy"], weights(first)["policy"])
    assert torch.equal(models["behaviour"].parameters.vector, models["policy"].parameters.vector)


def test_it_resumes_exactly_without_the_other_run_and_says_where_it_began(tmp_path: Path) -> None:
    steps = Run.create(tmp_path / "first", short("ppo", steps=128)).train().method.steps
    options = {"steps": 512, "checkpoint_every": 128, "from_run": str(tmp_path / "first")}
    whole = Run.create(tmp_path / "whole", short("ppo", **options)).train()
    halted = Run.create(tmp_path / "halted", short("ppo", **options))
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(3))
    again = Run.load(tmp_path / "halted").train()
    assert again.metrics == whole.metrics and differences(tmp_path / "whole", tmp_path / "halted") == []
    (said,) = again.summary["warnings"]
    assert said == f"It began with the weights of {tmp_path / 'first'} (ppo on CartPole-v1, seed 0, its policy at step {steps}): policy."
    newest = sorted((tmp_path / "halted" / "checkpoints").iterdir())[-1]
    began = json.loads((newest / "manifest.json").read_text())["identity"]["began"]
    assert began["steps"] == steps and len(began["sha256"]) == 64
    assert json.loads((tmp_path / "halted" / "config.json").read_text())["began"] == began
    from rheostat.reporting.report import write_report

    assert "It began with the weights of" in write_report([tmp_path / "halted"], tmp_path / "report.html").read_text()


def test_the_best_policy_and_any_checkpoint_can_be_begun_with(tmp_path: Path) -> None:
    best = {"save_best": True, "evaluate_every": 64, "evaluate_episodes": 2, "checkpoint_every": 64}
    first = Run.create(tmp_path / "first", short("ppo", steps=192, **best)).train()
    run = Run.create(tmp_path / "best", short("ppo", from_run=str(tmp_path / "first" / "best")))
    assert same(weights(run), weights(Run.load(tmp_path / "first", at="best")))
    assert run.warnings[0].endswith(
        f"its best policy at step {json.loads((tmp_path / 'first/best/best.json').read_text())['steps']}): policy."
    )
    earlier = min(path.name for path in (tmp_path / "first" / "checkpoints").iterdir())
    run = Run.create(tmp_path / "earlier", short("ppo", from_run=str(tmp_path / "first" / "checkpoints" / earlier)))
    assert same(weights(run), weights(Run.load(tmp_path / "first", at=earlier))) and not same(weights(run), weights(first))


def test_offline_weights_go_on_with_other_data_or_online_at_once(tmp_path: Path) -> None:
    """States are read by the statistics that the policy was trained with; no gradient step is needed before acting."""
    first = Run.create(tmp_path / "first", short("iql")).train()
    options: dict[str, Any] = {"from_run": str(tmp_path / "first"), "offline": random_data("Pendulum-v1", seed=1)}
    other = Run.create(tmp_path / "other", short("iql", **options))
    seen = torch.randn(3, 3)
    assert torch.equal(other.method.context.see(seen), first.method.context.see(seen))
    assert not torch.equal(Run.create(tmp_path / "own", short("iql", **options | {"from_run": None})).method.context.see(seen), seen)
    awac = Run.create(tmp_path / "awac", short("awac", **options | {"steps": 0, "online_steps": 40, "offline_share": 0.5})).train()
    assert awac.finished and awac.method.steps == 40 and awac.metrics[-1]["meter/share_offline"] == 0.5
    assert awac.warnings[0].endswith("): policy, critics.")


def test_the_command_line_and_python_begin_with_a_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_envs": 2, "batch_steps": 32, "minibatches": 1, "evaluation_episodes": 0, "steps": 64}
    rheostat.train("ppo", "CartPole-v1", directory=tmp_path / "first", progress=False, **options)
    words = ["--num-envs", "2", "--batch-steps", "32", "--minibatches", "1", "--evaluation-episodes", "0", "--steps", "64"]
    parse(["train", "ppo", "CartPole-v1", *words, "--from-run", str(tmp_path / "first"), "--directory", str(tmp_path / "words")]).run()
    run = rheostat.train("ppo", "CartPole-v1", directory=tmp_path / "python", progress=False, from_run=tmp_path / "first", **options)
    assert run.metrics == Run.load(tmp_path / "words").metrics and run.settings.from_run == str(tmp_path / "first")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of PPO."""
    return Run.create(tmp_path_factory.mktemp("trained") / "run", short("ppo", steps=64)).train().directory


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("ppo", {"hidden": (4,)}, r"hidden is \[8\] there and \[4\] here, so give this run the same --hidden"),
        ("ppo", {"activation": "relu"}, "activation is tanh there and relu here"),
        ("ppo", {"task": "Acrobot-v1"}, r"observations are \[4\] there and \[6\] here"),
        ("ppo", {"normalise_observations": False}, "normalises observations, and this run does not: give both the same options"),
        ("recurrent-ppo", {}, "does not fit: of its policy"),
        ("grpo", {"task": "chain-sum"}, "has trained a control policy, and this run trains a language model"),
    ],
)
def test_what_does_not_fit_is_one_sentence(method: str, options: dict[str, Any], message: str, trained: Path, tmp_path: Path) -> None:
    options = options | {"from_run": str(trained), "directory": tmp_path / "run", "progress": False}
    if method != "grpo":
        settings = short(method, **{name: value for name, value in options.items() if name not in ("directory", "progress")})
        with pytest.raises(RheostatError, match=message):
            Run.create(tmp_path / "run", settings)
    else:
        with pytest.raises(RheostatError, match=message):
            rheostat.train(method, **options)
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_or_has_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="There is no run in"):
        Run.create(tmp_path / "run", short("ppo", from_run=str(tmp_path / "nothing")))
    Run.create(tmp_path / "offline", short("uni-o4"))
    with pytest.raises(RheostatError, match="The policy of this method is not one network"):
        Run.create(tmp_path / "run", short("uni-o4", from_run=str(tmp_path / "offline")))
    Run.create(tmp_path / "first", short("ppo"))
    with pytest.raises(RheostatError, match="has kept no best policy"):
        (tmp_path / "first" / "best").mkdir()
        Run.create(tmp_path / "run", short("ppo", from_run=str(tmp_path / "first" / "best")))
    assert not (tmp_path / "run").exists()
