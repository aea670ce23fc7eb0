"""MBPO and VaGraM: schedules, what is refused, what a checkpoint holds, and runs on distracted tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rheostat
from rheostat.buffers import imagined
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.learner.model_based import Imagination, ramp
from rheostat.learner.value_functions import ValueFunctions
from rheostat.training.run import Run
from tests.tiny_control import IMAGINING, OFF_POLICY

TINY: dict[str, Any] = OFF_POLICY | IMAGINING | {"steps": 100, "backend": "gymnasium", "progress": False}


@given(st.integers(0, 300), st.integers(0, 50), st.integers(1, 100))
def test_schedules_rise_once_between_their_ends(now: int, first: int, more: int) -> None:
    steps = (first, first + more)
    assert ramp((1, 5), steps, 0 if first else -1) == 1 and ramp((1, 5), steps, first + more) == 5
    assert 1 <= ramp((1, 5), steps, now) <= ramp((1, 5), steps, now + 1) <= 5
    lengths = Imagination(length=(1, 5), length_steps=steps)
    assert lengths.length_at(first) == 1 and lengths.length_at(first + more) == 5


def test_rollout_lengths_are_rounded_down() -> None:
    lengths = Imagination(length=(1, 5), length_steps=(0, 8))
    assert [lengths.length_at(step) for step in range(10)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("method", ["mbpo", "vagram"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "MountainCar-v0"}, "needs continuous actions"),
        ({"task": "rheostat/TwoGoals-v0"}, "It is not known when rheostat/TwoGoals-v0 ends"),
        ({"start_steps": 3}, "start_steps is 3, and the first model is learned from the steps before: use at least 10"),
        ({"model_elites": 4}, "4 elites cannot be chosen from 3 networks"),
        ({"imagined_share_steps": (9, 3), "imagined_share": (0.1, 0.5)}, "imagined_share_steps is 9 and 3: the first"),
        ({"rollout_length": (0, 2)}, "length is 0; it must be at least 1"),
        ({"imagined_share": (0.0, 1.5)}, "share is 1.5; it must be at least 0 and at most 1"),
        ({"batch_size": 400}, "A batch of 400 cannot be drawn from a replay of 300"),
        ({"offline": "nowhere"}, "learns from its own data only"),
        ({"rollout_length_steps": (0, 9)}, "length_steps would do nothing: rollout_length is the same"),
        ({"imagined_share": (1.0, 1.0), "imagined_mixing": "other"}, "mixing would do nothing"),
        ({"tau": 0.0, "target_every": 7}, "target_every would do nothing: tau is 0"),
        ({"temperature": 0.1, "temperature_learning_rate": 0.1}, "temperature_learning_rate would do nothing: a fixed temperature"),
    ],
)
def test_mistakes_are_refused_before_anything_is_spent(method: str, options: dict[str, Any], says: str, tmp_path: Path) -> None:
    if options.get("imagined_mixing") == "other":
        options = options | {"imagined_mixing": "batches" if method == "mbpo" else "rows"}
    task = options.get("task", "Pendulum-v1")
    with pytest.raises(RheostatError, match=says) as error:
        rheostat.train(method, task, directory=tmp_path / "run", **(TINY | {k: v for k, v in options.items() if k != "task"}))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"model_loss": "mse", "value_functions": "targets"},
        {"model_loss": "mse", "accumulate_gradients": True},
        {"model_loss": "mse", "squared_error_steps": 5},
        {"model_loss": "itervaml", "accumulate_gradients": True},
        {"model_loss": "itervaml", "gradient_quantile": 0.9},
    ],
)
def test_what_a_loss_does_not_ask_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RheostatError, match=r"vagram: weights.* would do nothing"):
        rheostat.train("vagram", "Pendulum-v1", **(TINY | options))


def test_a_model_buffer_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(imagined, "free_memory", lambda: 2_000)
    with pytest.raises(RheostatError, match=r"The model would keep 160 imagined steps in .* lower rollouts_per_step, rollout_length or"):
        rheostat.train("mbpo", "Pendulum-v1", directory=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_images_are_refused() -> None:
    with pytest.raises(RheostatError, match="its model predicts vectors of numbers: use sac"):
        rheostat.train("mbpo", picture_task, **(TINY | {"backend": "auto"}))


def picture_task() -> Any:
    """A task of images with continuous actions."""
    import gymnasium
    import numpy as np

    class Picture(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return np.zeros((8, 8, 3), np.uint8), {}

        def step(self, action: Any) -> Any:
            return np.zeros((8, 8, 3), np.uint8), 0.0, False, False, {}

    return Picture()


def test_the_checkpoint_holds_the_model_its_optimiser_its_normaliser_and_what_it_imagined(tmp_path: Path) -> None:
    run = rheostat.train("vagram", "Pendulum-v1", directory=tmp_path / "run", **TINY)
    loaded = rheostat.load(tmp_path / "run")
    one, other = (each.method.context for each in (run, loaded))
    mine, theirs = one.models["world model"], other.models["world model"]
    for name in ("best", "errors", "elites"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name))
    assert torch.equal(mine.learner.parameters.vector, theirs.learner.parameters.vector)
    assert torch.equal(mine.learner.optimizer.moments["exp_avg"], theirs.learner.optimizer.moments["exp_avg"])
    assert torch.equal(mine.ensemble.shift, theirs.ensemble.shift) and mine.ensemble.shift.abs().sum() > 0
    assert torch.equal(mine.used.scale, theirs.used.scale)
    seen, action = torch.randn(5, 3), torch.rand(5, 1)
    drawn = [each.predict(seen, action, torch.Generator().manual_seed(0))[0] for each in (mine, theirs)]
    assert torch.equal(drawn[0], drawn[1])
    assert one.stores["imagined"].lengths == other.stores["imagined"].lengths != []


def test_the_log_says_how_wrong_the_model_is(tmp_path: Path) -> None:
    options = TINY | {"environment_options": {"distractors": 2}}
    run = rheostat.train("vagram", "Pendulum-v1", directory=tmp_path / "run", **options)
    row = run.metrics[-1]
    assert [row[f"model/error/{d}"] > 0 for d in range(5)] == [True] * 5 and "model/error/5" not in row
    assert row["model/value_error"] > 0 and row["model/reward_error"] > 0 and row["model_passes"] == 2 and row["rollout_length"] == 2
    assert 0 < row["imagined_share"] < 1 and row["imagined_steps"] == 80


@pytest.mark.parametrize("method", ["mbpo", "vagram"])
def test_values_in_other_units_of_the_state_have_other_gradients_and_the_same_weights(method: str, tmp_path: Path) -> None:
    """The law of VaGraM with real critics: ``g e`` does not depend on the units of the state."""
    run = rheostat.train(method, "Pendulum-v1", directory=tmp_path / "run", **TINY)
    values, scale = ValueFunctions(run.method.context, "all"), torch.tensor([0.5, 3.0, 10.0])
    seen, error = torch.randn(6, 3), torch.randn(6, 3)
    own = values.gradients(seen)
    rescaled = (scale * seen).requires_grad_()
    total = values(rescaled / scale)
    other = torch.stack([torch.autograd.grad(value.sum(), rescaled, retain_graph=True)[0] for value in total])
    torch.testing.assert_close(other * (scale * error), own * error)


def test_a_run_from_the_command_line_on_hopper_with_distractors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "train vagram Hopper-v5 --preset small --steps 60 --start-steps 40 --num-envs 2 --hidden 8 --model-hidden 8 --model-passes 1"
    words += " --rollouts-per-step 1 --update-to-data 0.5 --batch-size 8 --evaluation-episodes 0 --environment distractors 3"
    main([*words.split(), "--directory", str(tmp_path / "run")])
    assert "vagram on Hopper-v5" in capsys.readouterr().out
    run = Run.load(tmp_path / "run")
    assert run.method.context.environments.name == "Hopper-v5 with 3 distractors"
    assert run.method.context.models["world model"].ensemble.observations == 14
