"""Pictures for methods with replays and data sets: alone, and among the entries of a Dict or a Tuple, each with a network of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rheostat
from rheostat.errors import RheostatError
from rheostat.policies.control.balance import sin_cos_encoding
from rheostat.policies.control.pixels import Pixels
from rheostat.training.run import Run
from rheostat.training.settings_from_options import settings_for
from tests.tiny_control import OFF_POLICY, gather, having, reads_data

IMAGE = spaces.Box(0, 255, (8, 8, 1), np.uint8)
VECTOR = spaces.Box(-1, 1, (2,), np.float32)
SEEN = {
    "image": IMAGE,
    "dict": spaces.Dict({"v": VECTOR, "cam": IMAGE}),
    "tuple": spaces.Tuple((spaces.Box(0, 255, (3, 9, 9), np.uint8), spaces.Discrete(3), IMAGE)),
}
PICTURES = {"image": 1, "dict": 1, "tuple": 2}


class Bright(gymnasium.Env):
    """Which half of the picture is bright? Five questions; everything else that is seen is noise."""

    def __init__(self, seen: str = "image", continuous: bool = True) -> None:
        self.seen, self.continuous = seen, continuous
        self.observation_space = SEEN[seen]
        self.action_space = spaces.Box(-1, 1, (1,), np.float32) if continuous else spaces.Discrete(2)

    def look(self) -> Any:
        self.side = int(self.np_random.integers(2))
        picture = self.np_random.integers(0, 60, IMAGE.shape, np.uint8)
        picture[:, 4 * self.side : 4 * self.side + 4] += 150
        self.observation_space.seed(int(self.np_random.integers(1 << 30)))
        noise = self.observation_space.sample()
        return picture if self.seen == "image" else noise | {"cam": picture} if self.seen == "dict" else (*noise[:2], picture)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        chosen = float(action[0]) > 0 if self.continuous else bool(action)
        self.t += 1
        right = float(chosen == bool(self.side))
        return self.look(), right, self.t == 5, False, {}


def options_of(method: str, tmp_path: Path, task: Any) -> dict[str, Any]:
    found = having(method, OFF_POLICY | {"replay_capacity": 1000, "evaluation_episodes": 2}) | {"steps": 60}
    if reads_data(method) == "first":
        found |= {"offline": str(gather(task, 100).save(tmp_path / "data")), "steps": 20} | ({"online_steps": 30} if method != "bc" else {})
    return found


CONTINUOUS = ("awac", "bc", "cql", "famo2o", "famo2o-cql", "iql", "pmoe", "rlpd", "sac", "td3", "td3-bc")
ALONE = ("famo2o", "famo2o-cql", "iql", "pmoe", "sac")


PICTURED = [*((method, "tuple") for method in CONTINUOUS), *((method, "image") for method in ALONE), ("iql", "dict")]


@pytest.mark.parametrize(("method", "seen"), PICTURED)
def test_pictures_are_read_by_networks_of_their_own(method: str, seen: str, tmp_path: Path) -> None:
    def task() -> Bright:
        return Bright(seen)

    run = Run.create(tmp_path / "run", settings_for(method, task, **options_of(method, tmp_path, task)), task=task)
    models = run.method.context.models
    parts = [models[name].network for name in ("policy", "critics", "target critics", "value", "balance") if name in models]
    pictures = [[module for module in part.modules() if isinstance(module, Pixels)] for part in parts]
    assert all(len(found) == PICTURES[seen] for found in pictures)
    before = [module.project[0].weight.clone() for found in pictures for module in found]
    run.train()
    after = [module.project[0].weight for found in pictures for module in found]
    assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert run.finished and np.isfinite(run.summary["evaluation_return"])
    observation = task().reset(seed=0)[0]
    again = rheostat.load(tmp_path / "run")  # without the environment
    assert np.array_equal(again.policy(observation), run.policy(observation))
    assert task().action_space.contains(again.policy(observation))


@pytest.mark.parametrize("method", ["awac", "cql", "iql"])
def test_choices_by_pictures(method: str, tmp_path: Path) -> None:
    def task() -> Bright:
        return Bright("dict", continuous=False)

    run = rheostat.train(method, task, directory=tmp_path / "run", progress=False, **options_of(method, tmp_path, task))
    assert run.finished and task().action_space.contains(rheostat.load(tmp_path / "run").policy(task().reset(seed=0)[0]))


def test_what_a_picture_says_is_learned(tmp_path: Path) -> None:
    """Half of the actions of the data are wrong."""

    def task() -> Bright:
        return Bright("tuple", continuous=False)

    data = str(gather(task, 300).save(tmp_path / "data"))
    options = {"hidden": (16,), "batch_size": 32, "learning_rate": 1e-3, "gamma": 0.0, "inverse_temperature": 10.0, "progress": False}
    run = rheostat.train("iql", task, offline=data, steps=100, directory=tmp_path / "run", evaluation_episodes=10, **options)
    assert run.summary["evaluation_return"] >= 4.5  # of 5; by chance 2.5


def test_numbers_beside_pictures_are_standardised_and_pixels_are_not(tmp_path: Path) -> None:
    def task() -> Bright:
        return Bright("dict")

    options = options_of("td3-bc", tmp_path, task)
    run = rheostat.train("td3-bc", task, directory=tmp_path / "run", progress=False, **options)
    context = run.method.context
    raw, _ = context.environments.encode(task().reset(seed=0)[0])
    seen = context.see(raw)
    pixels = 8 * 8
    assert torch.equal(seen[:, :pixels], raw[:, :pixels]) and float(raw[:, :pixels].max()) <= 1
    assert not torch.equal(seen[:, pixels:], raw[:, pixels:])
    known = context.offline.transitions.observation[:, pixels:]
    torch.testing.assert_close(seen[:, pixels:], (raw[:, pixels:] - known.mean(0)) / (known.std(0, unbiased=False) + 1e-3))


def test_what_cannot_act_on_images_is_refused(tmp_path: Path) -> None:
    options = options_of("cql", tmp_path, Bright)
    with pytest.raises(RheostatError, match="normalise would do nothing: images are scaled by their own network"):
        rheostat.train("cql", Bright, directory=tmp_path / "run", **options, normalise_states=True)
    with pytest.raises(RheostatError, match="normalise would do nothing: images are scaled by their own network"):
        options = options_of("famo2o", tmp_path / "famo2o", Bright)
        rheostat.train("famo2o", Bright, directory=tmp_path / "run", **options, normalise_states=True)
    for seen in ("image", "dict"):

        def task(seen: str = seen) -> Bright:
            return Bright(seen)

        options = options_of("uni-o4", tmp_path / seen, task) | {"steps": 400}
        with pytest.raises(RheostatError, match=r"uni-o4 cannot read the images of .*: it gates and chooses its policies in episodes"):
            rheostat.train("uni-o4", task, directory=tmp_path / "run", **options)
    with pytest.raises(RheostatError, match="This network reads vectors of numbers, and the environment shows images: use ppo"):
        rheostat.train("pmoe-ppo", lambda: Bright("dict"), directory=tmp_path / "run", steps=64)


def test_a_coefficient_stands_beside_the_pixels_of_an_image(tmp_path: Path) -> None:
    """The network of the picture sees the picture; the perceptron sees its features and the encoded coefficient."""
    options = options_of("famo2o", tmp_path, Bright)
    run = Run.create(tmp_path / "run", settings_for("famo2o", Bright, **options), task=Bright)
    context = run.method.context
    policy, family = context.models["policy"], run.method.config.family
    raw, _ = context.environments.encode(np.stack([Bright().observation_space.sample() for _ in range(3)]))
    seen = context.see(raw)
    assert raw.dtype == torch.uint8 and torch.equal(seen, raw.flatten(1) / 255)
    front = policy.network.front
    features = torch.cat([front.network.networks[0](raw / 255), sin_cos_encoding(torch.tensor([1.0, 2.0, 3.0]), family.encoding_size)], 1)
    member = policy.distribution(family.beside(context, seen, torch.tensor([1.0, 2.0, 3.0])))
    torch.testing.assert_close(member.mean, policy.network.stack(features)[0].tanh())
    assert not torch.equal(member.mean, policy.distribution(family.beside(context, seen, torch.full((3,), 5.0))).mean)
