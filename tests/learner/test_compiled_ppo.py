"""Compiled gradient steps: equal to autograd under every option that they know, the same bits every time, and refused elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete

import rheostat
from rheostat.errors import RheostatError
from rheostat.learner import compute
from rheostat.learner.fast_ppo import FastPPO
from rheostat.training import checkpoint
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from tests.crash import differences
from tests.learners import credited
from tests.tasks.worlds import Spaces
from tests.tiny_control import learner, small
from tests.training.test_run import StopAfter

pytest.importorskip("numba")

FEW: dict[str, Any] = {"num_envs": 4, "batch_steps": 64, "epochs": 3, "minibatches": 3, "hidden": (8, 6), "learning_rate": 3e-3}
OPTIONS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "relu": {"activation": "relu"},
    "one hidden layer": {"hidden": (5,)},
    "no hidden layer": {"hidden": ()},
    "one row a minibatch": {"minibatches": 64, "epochs": 1},
    "one minibatch": {"minibatches": 1, "clip": 0.001},
    "narrow clip": {"clip": 0.005},
    "detached": {"clip_kind": "detached", "clip": 0.005},
    "no clip": {"clip_kind": "none"},
    "clipped value": {"clip_value": True},
    "ratio to the sampler": {"ratio_to": "sampler", "window": 2},
    "sampler correction": {"sampler_correction": "token", "sampler_cap": 1.01, "window": 2},
    "entropy": {"entropy_coefficient": 0.1},
    "value coefficient": {"value_coefficient": 2.0},
    "advantages as they are": {"normalise_advantage": False},
    "gradient limit": {"max_grad_norm": 0.01},
    "stopped before a step": {"target_kl": 1e-4, "kl_stop": "before-step"},
    "stopped after a pass": {"target_kl": 1e-4, "kl_stop": "after-epoch"},
    "stopped never": {"target_kl": 1e4},
    "dial": {"dial.updates_per_batch": 4, "epochs": 10, "minibatches": 32},
    "replay": {"dial.replay_share": 0.25, "dial.replay_age": 2},
    "other methods": {"method": "props", "behaviour_steps": 32, "behaviour_epochs": 2},
    "ros": {"method": "ros", "behaviour_steps": 32},
    "robust acting": {"method": "robust-acting"},
    "ppo-buffer": {"method": "ppo-buffer"},
}


class Choosing(gymnasium.Wrapper):
    """Several choices at once, with a reward for each choice of 0."""

    def __init__(self) -> None:
        super().__init__(Spaces(Box(-1, 1, (3,)), MultiDiscrete([3, 2, 4])))

    def step(self, action: Any) -> Any:
        return self.env.observation_space.sample(), float((action == 0).sum()), False, False, {}


def pair(task: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """A learner whose gradient steps are compiled, and one of PyTorch's, on the same data."""
    options = FEW | options
    method = options.pop("method", "ppo")
    name = task if isinstance(task, str) else "custom:Choosing"
    fast, plain = (build_method(small(method, name, **options, compute=asked), task) for asked in ("fast", "plain"))
    assert fast.context.compute.fast and not plain.context.compute.fast
    return fast, plain


def by_autograd(update: Any, context: Any, rows: Any, observation: Any) -> tuple[int, int, dict[str, float]]:
    """What :meth:`FastPPO.passes` does, by autograd and PyTorch's optimiser."""
    model = context.models["policy"]
    vector = model.parameters.vector
    optimizer = torch.optim.Adam([vector], lr=model.learning_rate, eps=1e-5)
    steps, losses = 0, []
    for _ in range(update.epochs):
        for minibatch in update.passed(context, rows, observation):
            distribution, value = model.policy.distribution(minibatch.observation), model.policy.value(minibatch.observation)
            found = update.objective.policy_loss(distribution.log_prob(minibatch.action), minibatch.targets)
            if update.stop.target is not None and update.stop.when == "before-step" and found.approx_kl > update.stop.target:
                return result(steps, losses)
            error = update.objective.value_loss(value, minibatch.targets)
            bonus = update.entropy_coefficient * distribution.entropy().mean()
            model.parameters.gradient.zero_()
            (found.loss - bonus + update.value_coefficient * error).backward()
            norm = torch.nn.utils.clip_grad_norm_([vector], update.max_grad_norm)
            optimizer.step()
            steps += 1
            losses.append((len(value), *(float(x.detach()) for x in (found.loss, error, found.approx_kl, found.clip_fraction, norm))))
        if update.stop.target is not None and update.stop.when == "after-epoch" and found.approx_kl > update.stop.target:
            break
    return result(steps, losses)


def result(steps: int, losses: list[tuple[float, ...]]) -> tuple[int, int, dict[str, float]]:
    """Means over rows, and over steps for the norm."""
    rows, *means, norms = (torch.tensor(column, dtype=torch.float64) for column in zip(*losses, strict=True))
    names = ("policy_loss", "value_loss", "approx_kl", "meter/clip_fraction")
    found = {name: float((rows * mean).sum() / rows.sum()) for name, mean in zip(names, means, strict=True)}
    return steps, int(rows.sum()), found | {"meter/gradient_norm": float(norms.mean())}


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1", "choices"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_kernel_is_what_autograd_finds(task: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights to 1e-6 and metrics after a whole update, and the same orders drawn."""
    squashed = {"tanh_mean": True} if task == "Pendulum-v1" and name in ("as they are", "entropy") else {}
    fast, plain = pair(Choosing if task == "choices" else task, OPTIONS[name] | squashed)
    monkeypatch.setattr(FastPPO, "passes", by_autograd)
    before = plain.context.models["policy"].parameters.vector.detach().clone()
    found = [each.improve(credited(each)) for _ in range(plain.composition.innermost.turns) for each in (fast, plain)][-2:]
    ours, theirs = (each.context.models["policy"].parameters.vector.detach() for each in (fast, plain))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6), (ours - theirs).abs().max()
    assert (theirs - before).abs().max() > 1e-3
    for key, value in found[1].items():
        assert found[0][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    orders = [each.context.streams["minibatches"].get_state() for each in (fast, plain)]
    assert torch.equal(*orders)
    fast.close()
    plain.close()


# --- the same bits ------------------------------------------------------------------------------------------------------------------------


def test_a_compiled_run_goes_on_exactly(tmp_path: Path) -> None:
    """Train 2N == train N, stop between two checkpoints, load anew, train N; the head of the run and the checkpoint say who computes."""
    settings = small("ppo", compute="fast", epochs=3)
    whole = Run.create(tmp_path / "whole", settings).train()
    halted = Run.create(tmp_path / "halted", settings)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(7))
    continued = Run.load(tmp_path / "halted").train()
    assert continued.metrics == whole.metrics
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
    assert whole.method.arithmetic["gradient steps by"].startswith("a compiled kernel (Numba ")
    newest = sorted((tmp_path / "whole" / "checkpoints").iterdir())[-1]
    assert checkpoint.read_manifest(newest)["identity"]["compute"]["by"] == whole.method.arithmetic["gradient steps by"]


DIGEST = """
import hashlib, torch
from tests.tiny_control import learner
one = learner("ppo", compute="fast", hidden=(64, 64), num_envs=8, batch_steps=512, epochs=4)
assert one.context.compute.fast
for _ in range(3):
    one.turn()
print(hashlib.sha256(one.context.models["policy"].parameters.vector.detach().numpy().tobytes()).hexdigest())
"""


def in_a_process(code: str, **variables: str) -> str:
    """The last line that a program prints."""
    root = Path(rheostat.__file__).parents[1]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=os.environ | variables, check=True, capture_output=True, text=True, timeout=600
    )
    return found.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_the_bits_are_the_same_cold_and_warm(tmp_path: Path) -> None:
    """Compiled in this process, and read from the cache that it filled."""
    cold = in_a_process(DIGEST, NUMBA_CACHE_DIR=str(tmp_path))
    assert list(tmp_path.rglob("*.nbc"))
    assert in_a_process(DIGEST, NUMBA_CACHE_DIR=str(tmp_path)) == cold


# --- where there is no kernel -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        ("a2c", {}, "does not know the objective PlainSurrogate"),
        ("pmoe-ppo", {}, "does not know the loss that .* adds"),
        ("recurrent-ppo", {}, "knows single steps"),
        ("dqn", {}, "gradient steps of sac and td3 only"),
        ("rlpd", {}, "gradient steps of sac and td3 only"),
        ("td3-bc", {}, "there is none for methods that begin with a data set"),
    ],
)
def test_what_has_no_kernel_is_refused_or_computed_by_pytorch(method: str, options: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=f"compute=fast needs .*{sentence}.*: choose auto or plain"):
        Run.create(tmp_path / "fast", small(method, **options, compute="fast"))
    assert not (tmp_path / "fast").exists()
    auto = Run.create(tmp_path / "auto", small(method, **options, compute="auto"))
    (said,) = (each for each in auto.warnings if "PyTorch makes the gradient steps, not a compiled kernel: " in each)
    assert auto.method.arithmetic["gradient steps by"] == "PyTorch" and said.endswith(".")
    auto.close()


def test_without_the_extra_the_same_run_is_computed_by_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "find_spec", lambda name: None)
    run = Run.create(tmp_path / "auto", small("ppo", compute="auto")).train()
    assert run.metrics == Run.create(tmp_path / "plain", small("ppo")).train().metrics
    (said,) = (each for each in run.summary["warnings"] if "compiled kernel" in each)
    assert "numba is not installed (pip install " in said


NO_PLACE = """
from numba.core.caching import CacheImpl
CacheImpl._locator_classes = []
from tests.tiny_control import learner
print(learner("ppo", compute="auto").context.compute.sentence)
"""


def test_a_cache_that_cannot_be_written_is_said_in_one_sentence() -> None:
    said = in_a_process(NO_PLACE)
    assert said.startswith("PyTorch makes the gradient steps, not a compiled kernel: Numba could not compile or store it (cannot cache ")
    assert said.endswith("NUMBA_CACHE_DIR names a folder for its cache).")


def test_a_run_goes_on_only_as_it_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def halted(name: str) -> Path:
        run = Run.create(tmp_path / name, small("ppo", compute="auto"))
        with pytest.raises(Interrupted):
            run.train(progress=StopAfter(7))
        return run.directory

    compiled = halted("compiled")
    with monkeypatch.context() as missing:
        missing.setattr(compute, "find_spec", lambda name: None)
        plain = halted("plain")
        with pytest.raises(RheostatError, match=r"PyTorch makes the gradient steps now \(numba is not .*a compiled kernel .*did when"):
            rheostat.resume(compiled, progress=False)
        assert len(Run.load(compiled).evaluate(1)) > 1  # looking at it needs no kernel
    with pytest.raises(RheostatError, match=r"A compiled kernel \(Numba .* makes the gradient steps now, and PyTorch did when"):
        rheostat.resume(plain, progress=False)
    accepted = rheostat.resume(plain, progress=False, accept_changes=True)
    assert any("From iteration 7 on: A compiled kernel" in each for each in accepted.summary["warnings"])


def test_agents_of_a_team_are_computed_alike() -> None:
    fast, plain = (learner("ippo", compute=asked) for asked in ("fast", "plain"))
    assert fast.compute.fast and not plain.compute.fast
    for _ in range(2):
        fast.turn()
        plain.turn()
    for name, member in fast.context.members.items():
        assert member.compute.fast
        theirs = plain.context.members[name].models["policy"].parameters.vector
        assert torch.allclose(member.models["policy"].parameters.vector, theirs, rtol=0, atol=1e-6)
