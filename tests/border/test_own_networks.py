"""Networks of the user's own: for every family of methods, in the right mode, named in the run, refused where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rheostat
from rheostat.errors import RheostatError
from rheostat.policies.control.distributions import Categorical, Gaussian
from rheostat.policies.control.squashed import SquashedGaussian
from tests.tiny_control import OFF_POLICY, ON_POLICY, having, random_data, reads_data

PENDULUM, CARTPOLE = "Pendulum-v1", "CartPole-v1"


def body(inputs: int, outputs: int, *, modes: bool = True) -> nn.Sequential:
    """Dropout and batch normalisation, which act differently in the two modes."""
    middle: list[nn.Module] = [nn.BatchNorm1d(8), nn.Dropout(0.5)] if modes else []
    return nn.Sequential(nn.Linear(inputs, 8), *middle, nn.Tanh(), nn.Linear(8, outputs))


class Net(nn.Module):
    """One network, and what a policy makes of its numbers."""

    def __init__(self, inputs: int, outputs: int, make: Any = None, **how: Any) -> None:
        super().__init__()
        self.body, self.make = body(inputs, outputs, **how), make

    def forward(self, observation: Tensor) -> Any:
        found = self.body(observation)
        return found.squeeze(-1) if self.make is None else self.make(found)

    def distribution(self, observation: Tensor) -> Any:
        return self(observation)


class Critics(nn.Module):
    """Q(s, a) of two networks."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList([body(inputs, 1), body(inputs, 1)])

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        joined = torch.cat([observation, action], -1)
        return torch.stack([part(joined).squeeze(-1) for part in self.parts])


class Both(nn.Module):
    """A policy and its values, as methods that learn from fresh data take them."""

    def __init__(self, choices: int = 2, *, column: bool = False) -> None:
        super().__init__()
        self.actor, self.critic, self.column = body(4, choices), body(4, 1), column

    def distribution(self, observation: Tensor) -> Categorical:
        return Categorical(self.actor(observation))

    def value(self, observation: Tensor) -> Tensor:
        found = self.critic(observation)
        return found if self.column else found.squeeze(-1)


def soft(numbers: Tensor) -> SquashedGaussian:
    mean, log_std = numbers.chunk(2, -1)
    return SquashedGaussian(mean, log_std.clamp(-5, 2))


def likely(numbers: Tensor) -> Gaussian:
    return Gaussian(numbers.tanh(), torch.zeros(1))


def networks(method: str) -> tuple[str, Any]:
    """A task and networks for it."""
    if method in ("ppo", "a2c"):
        return CARTPOLE, Both()
    if method == "dqn":
        return CARTPOLE, Net(4, 2, lambda found: found)
    if method == "iql discrete":
        critics = Net(4, 2, lambda found: found)
        return CARTPOLE, {"policy": Net(4, 2, Categorical), "critics": critics, "value": Net(4, 1)}
    policy = Net(3, 2, soft) if method in ("sac", "rlpd", "cql") else Net(3, 1, likely if method in ("iql", "awac") else torch.tanh)
    return PENDULUM, {"policy": policy, "critics": Critics(4)} | ({"value": Net(3, 1)} if method == "iql" else {})


def options_of(method: str, task: str) -> dict[str, Any]:
    name = method.split()[0]
    found = {"steps": 128} | having(name, ON_POLICY if name in ("ppo", "a2c") else OFF_POLICY) | {"checkpoint_every": 30}
    found |= {"epochs": 1, "minibatches": 1} if name == "a2c" else {}
    found |= {"offline": random_data(task), "steps": 40, "online_steps": 30} if reads_data(name) == "first" else {}
    own = {key: value for key, value in found.items() if key != "hidden"}
    return (
        own | {"evaluation_episodes": 2, "progress": False, "normalise_states": False}
        if name in ("iql", "awac", "td3-bc")
        else own
        | {
            "evaluation_episodes": 2,
            "progress": False,
        }
    )


METHODS = ("ppo", "a2c", "sac", "rlpd", "td3", "dqn", "iql", "iql discrete", "awac", "cql", "td3-bc")


@pytest.mark.parametrize("method", METHODS)
def test_own_networks_train_act_and_are_needed_again(method: str, tmp_path: Path) -> None:
    name = method.split()[0]
    task, given = networks(method)
    modules = list(given.values()) if isinstance(given, dict) else [given]
    before = [{key: value.clone() for key, value in each.state_dict().items()} for each in modules]
    run = rheostat.train(name, task, policy=given, directory=tmp_path / "run", **options_of(method, task))
    for old, each in zip(before, modules, strict=True):
        new = each.state_dict()
        assert all(not torch.equal(old[key], new[key]) for key in new if key.endswith(("weight", "running_mean"))), "it did not learn"
        assert not any(module.training for module in each.modules()), "it acts in training mode"
    trained = [{key: value.clone() for key, value in each.state_dict().items()} for each in modules]
    observation = np.linspace(-0.3, 0.3, 3 if task == PENDULUM else 4, dtype=np.float32)
    action = run.policy(observation)
    assert np.array_equal(run.policy(observation), action)  # no dropout, and one observation is enough
    assert run.evaluate(2) == run.evaluate(2)
    for old, each in zip(trained, modules, strict=True):
        assert all(torch.equal(old[key], value) for key, value in each.state_dict().items()), "measuring moved the statistics"
    with pytest.raises(RheostatError, match=r"trained with a network of your own \(.*test_own_networks.*policy=\.\.\."):
        rheostat.load(tmp_path / "run")
    again = rheostat.load(tmp_path / "run", policy=networks(method)[1])
    assert np.array_equal(again.policy(observation), action)


def test_an_own_critic_is_a_constant_for_the_policy(tmp_path: Path) -> None:
    _, given = networks("sac")
    from rheostat.learner.own_networks import OwnCritics

    space = type("Space", (), {"shape": (3,), "dtype": "float32"})
    context = type("Context", (), {"observation_space": space, "action_size": 1, "images": False})
    critics = OwnCritics(given["critics"].eval(), context)
    observation, action = torch.randn(5, 3), torch.randn(5, 1, requires_grad=True)
    value = critics(observation, action, frozen=True)
    assert value.shape == (2, 5) and torch.equal(value, critics(observation, action))
    value.sum().backward()
    assert action.grad is not None and all(each.grad is None for each in critics.parameters())
    many = torch.randn(5, 4, 1)
    expected = torch.stack([critics(observation, many[:, k]) for k in range(4)], -1)
    torch.testing.assert_close(critics.of_many(observation, many), expected)
    assert critics(observation, action, subset=torch.tensor([1])).shape == (1, 5)


class Torch(Both):
    def distribution(self, observation: Tensor) -> Any:
        return torch.distributions.Categorical(logits=self.actor(observation))


class Broken(Both):
    def value(self, observation: Tensor) -> Tensor:
        raise ValueError("no such thing")


REFUSED: list[tuple[str, Any, str]] = [
    ("ppo", Both(3), r"has 3 numbers per observation, and Discrete\(2\) needs 2"),
    ("ppo", Both(column=True), r"value\(observation\) of the network 'policy' gives \[2, 1\] for 2 observations: it must be \[N\]"),
    ("ppo", Torch(), r"returns a torch.distributions.categorical.Categorical: return a Categorical"),
    ("ppo", Both, "is the class Both: hand over an object"),
    ("ppo", object(), "is a object: hand over an object of a torch.nn.Module"),
    ("ppo", Both().double(), r"has weights of torch.float64: convert it to float32"),
    ("ppo", nn.Linear(4, 2), r"\(Linear\) has no distribution\(observation\): add it"),
    ("ppo", Broken(), r"value of the network 'policy' fails with observations \[2, 4\] of float32: no such thing"),
    ("ppo", {"critics": Both()}, "ppo takes no network 'critics': hand over 'policy'"),
    ("sac", Net(3, 1, likely), "returns a rheostat.policies.control.distributions.Gaussian: return a SquashedGaussian"),
    ("sac", {"critics": Net(4, 1)}, "forward of the network 'critics' fails"),
    ("sac", {"value": Net(3, 1)}, "sac takes no network 'value': hand over 'policy' or 'critics'"),
    ("td3", Net(3, 1, lambda found: found * 0 + 3), r"leaves \[-1, 1\]: end it with a tanh"),
    ("dqn", Net(4, 3, lambda found: found), r"gives \[2, 3\] for 2 observations: it must be \[N, 2\]"),
    ("uni-o4", Net(3, 1, likely), "uni-o4 makes its own actor and critics"),
]


@pytest.mark.parametrize(("method", "given", "message"), REFUSED, ids=[f"{row[0]}-{row[2][:25]}" for row in REFUSED])
def test_what_does_not_fit_is_refused_before_anything_is_written(method: str, given: Any, message: str, tmp_path: Path) -> None:
    task = CARTPOLE if method in ("ppo", "dqn") else PENDULUM
    options = {"steps": 400} | ({"offline": random_data(task)} if reads_data(method) == "first" else {})
    with pytest.raises(RheostatError, match=message):
        rheostat.train(method, task, policy=given, directory=tmp_path / "run", progress=False, **options)
    assert not (tmp_path / "run").exists()


def test_options_of_networks_that_were_handed_over_are_refused(tmp_path: Path) -> None:
    task, given = networks("sac")
    for option in ({"hidden": (8,)}, {"critics": 3}):
        with pytest.raises(RheostatError, match="handed over is as it is"):
            rheostat.train("sac", task, policy=given, directory=tmp_path / "run", steps=10, **option)
