"""The hand-written actor-critic has the numbers and the gradients of the plain one, through autograd."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rheostat.learner.control import build
from rheostat.policies.control.actor_critic import ActorCritic, Evaluation, evaluate
from rheostat.policies.control.fast_control import FastPerceptrons, SharedTrunk, fast
from rheostat.policies.parameters import Adam, ParameterVector
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.settings import configure

VECTOR = spaces.Box(-np.inf, np.inf, (5,))
ACTIONS = {
    "box": spaces.Box(-1, 1, (3,)),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(2),
}


def pair(action_space: Any, **options: Any) -> tuple[ActorCritic, FastPerceptrons, ParameterVector]:
    policy = ActorCritic(VECTOR, action_space, log_std=-0.3, seed=1, **options)
    parameters = ParameterVector(policy)
    network = fast(policy, parameters)
    assert isinstance(network, FastPerceptrons)
    return policy, network, parameters


@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"hidden": (16,)}, {"hidden": ()}, {"tanh_mean": True}], ids=str)
@pytest.mark.parametrize("kind", ACTIONS)
def test_values_and_gradients_are_those_of_the_plain_network(kind: str, options: dict[str, Any]) -> None:
    policy, network, parameters = pair(ACTIONS[kind], **options)
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(33, 5, generator=generator)
    plain, quick = Evaluation(policy.distribution(observation), policy.value(observation)), evaluate(network, observation)
    assert plain.value is not None and quick.value is not None
    torch.testing.assert_close(quick.distribution.parameters, plain.distribution.parameters)
    torch.testing.assert_close(quick.value, plain.value)
    torch.testing.assert_close(network.distribution(observation).parameters, plain.distribution.parameters)
    torch.testing.assert_close(network.value(observation), plain.value)
    outputs = torch.randn(plain.distribution.parameters.shape, generator=generator)
    values = torch.randn(33, generator=generator)
    gradients = []
    for evaluation in (plain, quick):
        parameters.gradient.zero_()
        evaluation.backward(outputs, values)
        gradients.append(parameters.gradient.clone())
    torch.testing.assert_close(gradients[1], gradients[0], atol=2e-6, rtol=2e-5)
    assert gradients[0].count_nonzero() > 0.9 * len(gradients[0]) or options.get("activation") == "relu"


def test_backward_without_the_critic_leaves_its_gradient_alone() -> None:
    _, network, _ = pair(ACTIONS["box"])
    now = network.evaluate(torch.randn(7, 5), critic=False)
    assert now.value is None
    now.backward(torch.ones(7, 6))
    assert all((layer.weight_gradient == 0).all() for layer in network.critic.layers)
    assert all((layer.weight_gradient != 0).any() for layer in network.actor.layers)


def test_the_fast_form_follows_the_parameters() -> None:
    policy, network, _ = pair(ACTIONS["discrete"])
    observation = torch.randn(7, 5)
    other = ActorCritic(VECTOR, ACTIONS["discrete"], seed=2)
    policy.load_state_dict(other.state_dict())
    torch.testing.assert_close(network.value(observation), other.value(observation))


def test_convolutions_are_computed_once_for_actor_and_critic() -> None:
    policy = ActorCritic(spaces.Box(0, 255, (1, 12, 12), np.uint8), ACTIONS["discrete"])
    network = fast(policy, ParameterVector(policy))
    assert isinstance(network, SharedTrunk)
    calls: list[int] = []
    policy.trunk.register_forward_hook(lambda *_: calls.append(1))
    images = torch.randint(0, 256, (3, 1, 12, 12), dtype=torch.uint8)
    now = evaluate(network, images)
    assert len(calls) == 1 and now.value is not None
    torch.testing.assert_close(now.value, policy.value(images).detach())
    torch.testing.assert_close(now.distribution.parameters, policy.distribution(images).parameters.detach())


class Subclass(ActorCritic):
    """Somebody's change to the network must not be bypassed."""

    def value(self, observation: Tensor) -> Tensor:
        return super().value(observation) + 1


def test_a_subclass_is_left_as_it_is() -> None:
    policy = Subclass(VECTOR, ACTIONS["discrete"])
    assert fast(policy, ParameterVector(policy)) is policy


@pytest.mark.parametrize("task", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ppo", {"entropy_coefficient": 0.01}),
        ("ppo", {"clip_value": False, "normalise_advantage": False, "minibatches": 3}),
        ("a2c", {"entropy_coefficient": 0.01, "batch_steps": 64}),
        ("ros", {"behaviour_steps": 16}),
        ("props", {"behaviour_steps": 64, "behaviour_epochs": 3}),
    ],
    ids=str,
)
def test_training_with_either_form_is_the_same_up_to_rounding(task: str, method: str, options: dict[str, Any]) -> None:
    """The plain network goes through autograd, so this compares the whole update with its derivatives by hand."""
    config = configure(method, {"num_envs": 4, "batch_steps": 128, "epochs": 2} | options)
    results = []
    for quick in (True, False):
        trained = build(config, method, lambda count, seed: make(task, num_envs=count, seed=seed), Streams(3), 1000)
        models = trained.context.models
        if not quick:
            models["policy"].network = models["policy"].policy
            if "behaviour" in models:
                models["behaviour"].network = models["behaviour"].network.policy
        for _ in range(4):
            metrics = trained.turn()
        results.append((models["policy"].parameters.vector.detach().clone(), metrics))
        trained.close()
    (quick_vector, quick_metrics), (vector, metrics) = results
    torch.testing.assert_close(quick_vector, vector, atol=2e-4, rtol=1e-3)
    assert quick_metrics.keys() == metrics.keys()
    for name, value in metrics.items():
        assert quick_metrics[name] == pytest.approx(value, rel=2e-2, abs=2e-3), name


def test_adam_takes_the_steps_of_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    mine, theirs = (torch.nn.Parameter(torch.ones(50)) for _ in range(2))
    ours, reference = Adam(mine, 0.01), torch.optim.Adam([theirs], lr=0.01, eps=1e-5, fused=True)
    for step in range(5):
        ours.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 0.01 / (step + 1)
        mine.grad = torch.randn(50, generator=generator)
        theirs.grad = mine.grad.clone()
        ours.step()
        reference.step()
    assert torch.equal(mine, theirs)
    assert copy.deepcopy(ours.state[mine]).keys() == reference.state[theirs].keys()
    assert all(torch.equal(value, reference.state[theirs][name]) for name, value in ours.state[mine].items())
