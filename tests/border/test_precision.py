"""Weights in low precision are trained as if they were not, and stops change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rheostat
from rheostat.errors import RheostatError
from rheostat.policies.optimizers import MasterAdamW, language_optimizer, load_many, save_many
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings_from_options import settings_for
from tests.border.models import SMALL
from tests.crash import differences
from tests.training.test_run import StopAfter


def test_weights_in_bfloat16_move_and_are_exported_as_such(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    options = SMALL | {"steps": 6, "kl_coefficient": 0.0, "learning_rate": 1e-5}
    for kind in ("bfloat16", "float32"):
        rheostat.train("grpo", model=model, prompts=prompts, rewards=(digits,), dtype=kind, directory=tmp_path / kind, **options)
    low, high = (load_file(tmp_path / kind / "model" / "model.safetensors") for kind in ("bfloat16", "float32"))
    start = load_file(f"{model}/model.safetensors")
    assert {value.dtype for value in low.values()} == {torch.bfloat16}
    rough = sum(int((low[name] != start[name].bfloat16()).sum()) for name in start)
    fine = sum(int((high[name].bfloat16() != start[name].bfloat16()).sum()) for name in start)
    assert fine > 1000 and 0.6 < rough / fine < 2.0  # about as many weights pass to the next number as do with float32 throughout


def test_master_weights_take_the_steps_of_float32() -> None:
    torch.manual_seed(0)
    start = torch.randn(7, 5).bfloat16()
    low, high = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    ours, plain = MasterAdamW([low], 1e-5, weight_decay=0.1), torch.optim.AdamW([high], 1e-5, weight_decay=0.1, fused=True)
    for _ in range(50):
        gradient = torch.randn(7, 5).bfloat16()
        low.grad, high.grad = gradient, gradient.float()
        ours.step()
        plain.step()
    assert torch.equal(ours.state[low]["master"], high.detach()) and torch.equal(low.detach(), high.detach().bfloat16())
    assert not torch.equal(high.detach(), start.float())


def test_weights_written_by_somebody_else_are_taken_over() -> None:
    low = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    ours = MasterAdamW([low], 1e-6)
    low.grad = torch.ones_like(low)
    ours.step()
    with torch.no_grad():
        low[0] = 2.0
    ours.step()
    master = ours.state[low]["master"]
    assert master[0] > 1.99 and (master[1:] < 1 - 1.5e-6).all()  # the others go on from what they were before rounding


def test_master_weights_are_saved_and_loaded() -> None:
    ends = []
    for stop in (False, True):
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
        optimizer = language_optimizer(network, 1e-4)
        for step in range(4):
            if stop and step == 2:
                state, weights = save_many(optimizer), {name: value.clone() for name, value in network.state_dict().items()}
                network = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
                network.load_state_dict(weights)
                optimizer = language_optimizer(network, 1e-4)
                load_many(optimizer, state)
            optimizer.zero_grad()
            network(torch.full((1, 3), step + 1.0, dtype=torch.bfloat16)).square().sum().backward()
            optimizer.step()
        ends.append(optimizer.state[network.weight]["master"])
    assert torch.equal(*ends)


def test_a_run_in_bfloat16_resumes_exactly(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    options = {key: value for key, value in SMALL.items() if key != "progress"} | {"steps": 3, "dtype": "bfloat16", "checkpoint_every": 2}
    settings = settings_for("grpo", "prompts", model=model, prompts=prompts, rewards=(digits,), **options)
    Run.create(tmp_path / "whole", settings).train()
    halted = Run.create(tmp_path / "halted", settings)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    Run.load(tmp_path / "halted").train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_float16_is_refused(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="float16 cannot be trained"):
        rheostat.train("grpo", model=model, prompts=prompts, rewards=(digits,), dtype="float16", directory=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()
