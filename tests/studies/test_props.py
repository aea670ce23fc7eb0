"""What the cells of the PROPS study measure, and what its arms share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rheostat.objectives.sampling_error import sampling_error_tabular
from rheostat.policies.control.actor_critic import ActorCritic, TabularSoftmax
from studies import _fixed_target, _two_step
from studies._props_claims import Sizes, behaviour, ros
from studies.props import claims

GRID = {
    "task": "rheostat/GridWorld5x5-v0",
    "options": {"vector_kwargs": {"autoreset_mode": "SameStep"}},
    "target": {"kind": "tabular", "scale": 0.5},
    "at": [64, 128],
    "seed": 0,
}


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
        method.turn()
    observation = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            fixed.policy.distribution(seen(observation)).parameters, method.context.act_on_target(observation).parameters
        )
        torch.testing.assert_close(fixed.policy.value(seen(observation)), method.policy.value(method.context.see(observation)))
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
        if claim.title[0] == "C":
            configs = {arm: next(iter(cells.values())).arguments["config"] for arm, cells in claim.arms.items()}
            own = set(behaviour(1, 1.0, 1.0, 1.0, 1)) | {"window"}
            for config in configs.values():
                assert {k: v for k, v in config.items() if k not in own} == configs["PPO"]
            assert configs["PPO-Buffer"]["window"] == configs["PROPS"]["window"] == 2
        seeds = {len(cells) for cells in claim.arms.values()}
        assert seeds == {{"A": 8, "B": 1, "C": 8, "D": 8}[claim.title[0]]}
