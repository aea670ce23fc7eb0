"""Compiled gradient steps of SAC and TD3: those of PyTorch up to rounding under every option that they know, and exact when resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.training.run import Interrupted, Run
from tests.crash import differences
from tests.tiny_control import learner, small
from tests.training.test_run import StopAfter

pytest.importorskip("numba")

FEW: dict[str, Any] = {"start_steps": 40, "learning_rate": 1e-3, "update_to_data": 1.0}
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "sac": ("sac", {}),
    "one critic": ("sac", {"critics": 1}),
    "three critics": ("sac", {"critics": 3, "hidden": (8, 6, 5)}),
    "mean over critics": ("sac", {"over_critics": "mean"}),
    "half the loss": ("sac", {"critic_scale": 0.5}),
    "entropy not in the backup": ("sac", {"entropy_in_backup": False}),
    "fixed temperature": ("sac", {"temperature": 0.3}),
    "temperature's logarithm": ("sac", {"temperature_form": "log", "initial_temperature": 0.1, "target_entropy": -3.0}),
    "own step size of the critics": ("sac", {"critic_learning_rate": 3e-3}),
    "frozen critics": ("sac", {"critic_learning_rate": 0.0}),
    "ranked rows": ("sac", {"priority": 0.6}),
    "several steps": ("sac", {"n_step": 3, "gamma": 0.9, "tau": 0.1}),
    "td3": ("td3", {}),
    "td3, every step": ("td3", {"policy_delay": 1}),
    "td3, every third step": ("td3", {"policy_delay": 3, "tau": 0.1}),
    "td3 without noise": ("td3", {"target_noise": 0.0}),
    "td3 with much noise": ("td3", {"target_noise": 1.0, "noise_clip": 2.0, "exploration_noise": 0.5}),
    "td3, own step size": ("td3", {"critic_learning_rate": 3e-3}),
}


def vectors(one: Any) -> dict[str, torch.Tensor]:
    """Parameters of every model."""
    return {name: model.parameters.vector.detach().clone() for name, model in one.context.models.items()}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_kernel_is_what_pytorch_finds(name: str) -> None:
    """After ten gradient steps all models, priorities and metrics; actions are drawn from the same streams."""
    method, options = OPTIONS[name]
    fast, plain = (learner(method, "Pendulum-v1", **(FEW | options), compute=asked) for asked in ("fast", "plain"))
    assert fast.context.compute.fast, fast.context.compute.why_plain
    before = vectors(plain)
    rows: list[list[dict[str, float]]] = [[], []]
    for one, found in zip((fast, plain), rows, strict=True):
        while one.updates < 10:
            found.append(one.turn())
    assert fast.updates == plain.updates and fast.steps == plain.steps
    ours, theirs = vectors(fast), vectors(plain)
    for model, vector in theirs.items():
        assert torch.allclose(ours[model], vector, rtol=0, atol=1e-6), (model, (ours[model] - vector).abs().max())
    moved = {model for model, vector in theirs.items() if not torch.equal(vector, before[model])}
    still = {"critics", "target critics"} if name == "frozen critics" else {"temperature"} if name == "fixed temperature" else set()
    assert moved == set(theirs) - still
    for mine, other in zip(*rows, strict=True):
        assert mine.keys() == other.keys()
        for key, value in other.items():
            assert mine[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
    assert torch.equal(*(one.context.streams["updates"].get_state() for one in (fast, plain)))
    fast.close()
    plain.close()


@pytest.mark.parametrize("method", ["sac", "td3"])
def test_a_compiled_run_goes_on_exactly(method: str, tmp_path: Path) -> None:
    settings = small(method, compute="fast")
    whole = Run.create(tmp_path / "whole", settings).train()
    halted = Run.create(tmp_path / "halted", settings)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(7))
    continued = Run.load(tmp_path / "halted").train()
    assert continued.metrics == whole.metrics
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
