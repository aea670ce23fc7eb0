"""The PROPS study in its smoke form, what its cells measure, and the committed result."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.objectives.sampling_error import sampling_error_tabular
from rheostat.policies.control import ActorCritic, TabularSoftmax
from studies import _fixed_target, _two_step
from studies._cells import compute, with_needs
from studies._props_claims import SMOKE, Sizes, behaviour, ros
from studies.props import claims, compact, run

GRID = {
    "task": "rheostat/GridWorld5x5-v0",
    "options": {"vector_kwargs": {"autoreset_mode": "SameStep"}},
    "target": {"kind": "tabular", "scale": 0.5},
    "at": [64, 128],
    "seed": 0,
}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All cells of the smoke form, computed in this process, and the study made from them."""
    folder = tmp_path_factory.mktemp("cells")
    for cell in with_needs(cell for claim in claims(SMOKE) for arm in claim.arms.values() for cell in arm.values()):
        compute(cell, folder, cell.key)
    return folder, run(SMOKE, folder, say=lambda line: None)


def test_the_smoke_form_has_everything_the_study_has(smoke: tuple[Path, dict[str, Any]]) -> None:
    study = json.loads(compact(smoke[1]))
    assert study == json.loads(json.dumps(smoke[1]))
    assert [claim["part"] for claim in study["claims"]] == ["A", "A", "B", "C", "D"]
    for claim in study["claims"]:
        assert claim["verdict"] in ("held", "not held", "undecided")
        assert claim["rule"] and claim["setting"] and claim["published"] and len(claim["arms"]) >= 2
    assert set(study["verdicts"]) == set("ABCD")
    assert study["provenance"]["cells"] == len(list(smoke[0].glob("*/result.json")))
    learning = study["claims"][3]["metrics"]["curves"]["PROPS"]["0"]
    assert learning["steps"][0] == 0 and len(learning["steps"]) == len(learning["returns"]) >= 2
    assert len(learning["sampling_error"]) == 2


def test_the_study_is_drawn(smoke: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from studies._props_report import draw, table

    draw(smoke[1], tmp_path / "props.png")
    assert (tmp_path / "props.png").read_bytes().startswith(b"\x89PNG")
    table(smoke[1])
    assert "Learning TwoStep" in capsys.readouterr().out


def test_a_part_can_be_run_alone(smoke: tuple[Path, dict[str, Any]]) -> None:
    study = run(SMOKE, smoke[0], parts="B", say=lambda line: None)
    assert [claim["name"] for claim in study["claims"]] == ["two-step"] and set(study["verdicts"]) == {"B"}


def test_a_frozen_target_and_its_exact_error(tmp_path: Path) -> None:
    """The window is what the method kept; more repaired data err less than on-policy data of the same target."""
    common = {"num_envs": 1, "batch_steps": 128, "window": 1}
    plain = common | {"batch_steps": 64, "window": 2}
    on_policy = _fixed_target.sampling_error(GRID | {"method": "ppo-buffer", "config": plain}, tmp_path)
    repaired = _fixed_target.sampling_error(GRID | {"method": "ros", "config": common | ros(1, 1000.0)}, tmp_path)
    assert on_policy["rows"] == repaired["rows"] == [64, 128]  # same-step reset: every row is a transition
    assert repaired["sampling_error"][1] < 0.6 * on_policy["sampling_error"][1]


def test_error_of_a_table_is_the_exact_one() -> None:
    policy = TabularSoftmax(3, 2, scale=1.0, generator=torch.Generator().manual_seed(0))
    states, actions = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 1])
    counts = torch.tensor([[1, 1], [0, 1], [2, 1]])
    expected = sampling_error_tabular(policy.logits.detach().double().softmax(-1), counts).item()
    assert _fixed_target.error_of(policy, torch.eye(3)[states], actions, torch.Generator(), 0) == pytest.approx(expected, rel=1e-12)


def test_a_stored_target_acts_as_it_did_in_training(tmp_path: Path) -> None:
    """Normalisation included: the frozen network reads raw observations."""
    arguments = {"task": "CartPole-v1", "config": {"num_envs": 8, "batch_steps": 64, "minibatches": 2}, "steps": 128, "seed": 3}
    place = tmp_path / "cell"
    place.mkdir()
    evaluation = _fixed_target.train_target(arguments, place)
    assert evaluation["evaluation_episodes"] == 20
    fixed = _fixed_target.fixed_target({"task": "CartPole-v1", "target": {"kind": "trained", "cell": "cell"}, "seed": 0}, tmp_path)
    assert fixed.statistics is not None and isinstance(fixed.policy, ActorCritic)
    seen = fixed.statistics.normalise
    method = _fixed_target.build("ppo", arguments["config"], arguments, steps=128)  # type: ignore[arg-type]
    while method.steps < 128:
        _fixed_target.iterate(method)
    observation = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(fixed.policy.distribution(seen(observation)).parameters, method.act_on_target(observation).parameters)
        torch.testing.assert_close(fixed.policy.value(seen(observation)), method.policy.value(method.normalise(observation)))
    before = seen(observation)
    fixed.statistics.update(100 + observation)
    assert torch.equal(seen(observation), before)  # frozen
    method.close()


def test_repaired_sampling_in_two_step() -> None:
    shared = {"seeds": 40, "seed": 0, "updates": 8, "trajectories": 12, "learning_rate": 8.0}
    arms = {
        "on-policy": {},
        "ros": {"learning_rate": 1000.0},
        "props": {"learning_rate": 0.5, "every": 4, "clip": 0.3, "epochs": 16},
    }
    results = {arm: _two_step.learn(shared | {"arm": arm, "settings": settings}, Path()) for arm, settings in arms.items()}
    for result in results.values():
        assert len(result["optimal"]) == len(result["sampling_error"]) == 40 and len(result["curve"]) == 8
        assert sum(result["optimal"]) > 30
    first = {arm: result["curve"][0] for arm, result in results.items()}  # the same target in every arm
    assert first["ros"] < 0.5 * first["on-policy"]


def test_settings_are_the_declared_ones() -> None:
    """Arms of a learning claim differ in the method, the window and the behaviour policy, and in nothing else."""
    for claim in claims(Sizes()):
        if claim.part == "C":
            configs = {arm: next(iter(cells.values())).arguments["config"] for arm, cells in claim.arms.items()}
            own = set(behaviour(1, 1.0, 1.0, 1.0, 1)) | {"window"}
            for config in configs.values():
                assert {k: v for k, v in config.items() if k not in own} == configs["PPO"]
            assert configs["PPO-Buffer"]["window"] == configs["PROPS"]["window"] == 2
        seeds = {len(cells) for cells in claim.arms.values()}
        assert seeds == {{"A": 10, "B": 1, "C": 6, "D": 6}[claim.part]}


def test_the_command_line_refuses_unknown_parts() -> None:
    done = subprocess.run([sys.executable, "-m", "studies.props", "--part", "AX"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "choose letters from ABCD" in done.stderr
