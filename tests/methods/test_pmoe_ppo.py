"""PMOE on PPO: one expert is PPO, the gradient is that of the sum of the losses, options and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.learner.control import build as build_learner
from rheostat.learner.fast_ppo import Minibatch, ppo_update
from rheostat.learner.mixture import mean_action
from rheostat.masking import standardise
from rheostat.objectives.clipping import Clip
from rheostat.objectives.control_terms import MinibatchTargets
from rheostat.objectives.mixture_of_experts import best_expert
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.value import value_loss
from rheostat.policies.control.actor_critic import ActorCritic
from rheostat.policies.control.mixtures import MixtureOfGaussians
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.settings import configure

TINY: dict[str, Any] = {"num_envs": 2, "batch_steps": 32, "epochs": 2, "minibatches": 2, "hidden": (8,)}
WORLD = "rheostat/TwoGoals-v0"


def build(method: str = "pmoe-ppo", task: str = WORLD, *, seed: int = 0, policy: Any = None, **options: Any) -> Any:
    config = configure(method, TINY | ({"judge_hidden": (8,)} if method == "pmoe-ppo" else {}) | options)
    return build_learner(config, method, lambda n, s: make(task, num_envs=n, seed=s), Streams(seed), 1000, policy=policy)


def test_one_expert_is_ppo() -> None:
    """With the judge left out, or without a limit on the gradient's norm."""
    for options in ({"judge_coefficient": 0.0}, {"max_grad_norm": 1e9}):
        clip = {name: value for name, value in options.items() if name == "max_grad_norm"}
        one, plain = (
            build(mixture_size=1, entropy_coefficient=0.01, **options),
            build("ppo", anneal=False, entropy_coefficient=0.01, **clip),
        )
        theirs = plain.policy.state_dict()
        own = one.policy.state_dict()
        one.policy.load_state_dict({name: theirs[name].view_as(own[name]) if name in theirs else own[name] for name in own})
        for _ in range(4):
            mine, other = one.turn(), plain.turn()
        for name, value in plain.policy.state_dict().items():
            torch.testing.assert_close(one.policy.state_dict()[name].view_as(value), value, atol=1e-4, rtol=1e-3)
        for name in ("policy_loss", "value_loss", "entropy", "approx_kl"):
            assert mine[name] == pytest.approx(other[name], abs=1e-3), name
        assert mine["mixture_loss"] == 0.0


@pytest.mark.parametrize("kind", ["frequency", "gumbel", "score"])
def test_the_gradient_is_that_of_the_sum_of_the_losses(kind: str) -> None:
    method = build(mixture_size=3, mixture_gradient=kind, mixture_coefficient=0.7, judge_coefficient=0.3, entropy_coefficient=0.05)
    generator = torch.Generator().manual_seed(0)
    observation, action = torch.randn(9, 4, generator=generator), torch.randn(9, 2, generator=generator)
    start, advantage, target, old = torch.randn(4, 9, generator=generator)
    targets = MinibatchTargets(0.1 * start - 2.5, standardise(advantage), target, old)
    model, mixture_options, streams = method.context.models["policy"], method.config.mixture, method.context.streams
    before, state = model.parameters.vector.detach().clone(), streams.state_dict()
    ppo_update(method.composition).gradient_step(method.context, Minibatch(observation, action, targets, torch.arange(9)))
    mine = model.parameters.gradient.clone()
    norm = mine.norm()

    with torch.no_grad():
        model.parameters.vector.copy_(before)
    streams.load_state_dict(state)
    mixture, value = method.policy.distribution(observation), method.policy.value(observation)
    samples = mixture.detach().sample_experts(streams["experts"])
    judge = method.policy.judge
    q = judge.of_many(observation, samples)[0].detach()
    choice = mixture_options.choice(mixture.logits, streams["experts"])
    of_weights = mixture_options.loss(
        mixture.logits,
        best_expert(q),
        q,
        choice,
        lambda relaxed: judge(observation, mean_action(relaxed, samples), frozen=True)[0],
    )
    loss = (
        policy_gradient(mixture.log_prob(action), targets.advantage, denominator_logp=targets.old_logp, clip=Clip(0.2, 0.2)).loss
        - 0.05 * mixture.entropy().mean()
        + 0.5 * value_loss(value, target, old_value=old, clip=0.2)
        + 0.3 * (judge(observation, action)[0] - target).square().mean()
        + 0.7 * of_weights
    )
    model.parameters.gradient.zero_()
    loss.backward()
    theirs = model.parameters.gradient
    assert theirs.norm() > 0.5 and norm == pytest.approx(0.5, rel=1e-4)  # the limit holds for all parts together
    torch.testing.assert_close(mine * (theirs.norm() / 0.5), theirs, atol=1e-5, rtol=1e-3)
    for part in ("actor_head.weight", "critic_head.weight", "weights.weight", "judge.stack.weights.0", "log_std"):
        assert bool((model.parameters.part(mine, dict(method.policy.named_parameters())[part]) != 0).any()), part


def test_the_judge_says_which_expert_is_best() -> None:
    """A judge that values the first action dimension, and experts that stand apart: the weights go to the one that is ahead."""
    method = build(mixture_size=3, learning_rate=0.02, clip=1e-6, judge_coefficient=0.0, max_grad_norm=1e9)
    with torch.no_grad():
        method.policy.actor_head.bias.copy_(torch.tensor([-2.0, 0.0, 0.0, 0.0, 2.0, 0.0]))
        method.policy.log_std.fill_(-2.0)

    def ahead(observation: Tensor, action: Tensor, **_: Any) -> Tensor:
        return action[..., 0].unsqueeze(0)

    method.policy.judge.of_many = ahead
    for _ in range(60):
        metrics = method.turn()
    assert metrics["mixture/best_2"] == 1.0 and metrics["mixture/share_2"] > 0.8


def test_what_is_logged() -> None:
    method = build(mixture_size=3)
    logged = method.turn()
    for name in ("share", "best"):
        assert sum(logged[f"mixture/{name}_{k}"] for k in range(3)) == pytest.approx(1.0, abs=1e-5)
    assert {"mixture_loss", "judge_loss", "mixture/weight_entropy", "policy_loss", "value_loss", "entropy"} <= set(logged)


def test_evaluation_by_the_likeliest_or_by_a_drawn_expert() -> None:
    results = {}
    for deterministic in ("likeliest", "sampled"):
        method = build(mixture_size=2, deterministic=deterministic)
        with torch.no_grad():
            method.policy.actor_head.bias.copy_(torch.tensor([1.0, 1.0, -1.0, 0.0]))
        first, second = method.evaluate(3), method.evaluate(3)
        assert first == second
        results[deterministic] = first
    assert results["likeliest"] != results["sampled"]


def test_it_acts_by_the_mixture() -> None:
    method = build(mixture_size=2)
    found = method.context.models["policy"].exploring(torch.zeros(3, 4))
    assert isinstance(found, MixtureOfGaussians) and found.logits.shape == (3, 2) and found.mean.shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: build(mixture_size=0), r"mixture\.size is 0; it must be at least 1"),
        (lambda: build(gumbel_temperature=-1.0), "gumbel_temperature is -1"),
        (lambda: build(tanh_mean=True), "pmoe-ppo has no option tanh_mean"),
        (lambda: build(task="CartPole-v1"), "needs continuous actions"),
        (lambda: build(policy=ActorCritic(*spaces())), "ActorCritic is none"),
    ],
)
def test_refusals(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        call()


def spaces() -> tuple[Any, Any]:
    worlds = make(WORLD, num_envs=1, seed=0)
    return worlds.observation_space, worlds.action_space
