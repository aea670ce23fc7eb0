"""PMOE on SAC: one expert is SAC, gradients reach what they should, alternatives, options and refusals."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.credit.td_annotations import SoftTarget
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import smallest_q
from rheostat.learner.control import build as build_learner
from rheostat.learner.mixture import MixtureActorStep, draw_all, judged
from rheostat.objectives.mixture_of_experts import relaxed_choice
from rheostat.options import options_of
from rheostat.parts import Batch
from rheostat.policies.control.mixtures import SquashedMixture
from rheostat.streams import Streams
from rheostat.tasks.control.environments import make
from rheostat.training.settings import configure
from rheostat.trajectories import Transitions
from tests.by_hand import ByHand

TINY: dict[str, Any] = {"num_envs": 2, "batch_size": 8, "hidden": (8,), "start_steps": 20, "replay_capacity": 200, "log_every": 10}
WORLD = "rheostat/TwoGoals-v0"


def build(method: str = "pmoe", task: str = WORLD, *, seed: int = 0, **options: Any) -> ByHand:
    config = configure(method, TINY | options)
    return ByHand(build_learner(config, method, lambda n, s: make(task, num_envs=n, seed=s), Streams(seed), 1000))


def components(method: ByHand, observation: Tensor) -> tuple[Tensor, Tensor]:
    """An action of every expert and its log-probability."""
    return draw_all(method.context, method.distribution(observation), method.config.entropy_of)


def rows_of(method: ByHand, count: int = 8, seed: int = 0) -> Transitions:
    generator = torch.Generator().manual_seed(seed)
    seen, acted = method.context.sizes
    observation, following = torch.randn(2, count, seen, generator=generator)
    return Transitions(
        observation=observation,
        next_observation=following,
        action=2 * torch.rand(count, acted, generator=generator) - 1,
        reward=torch.randn(count, generator=generator),
        discount=torch.full((count,), 0.99),
        terminated=torch.zeros(count, dtype=torch.bool),
        truncated=torch.zeros(count, dtype=torch.bool),
        sampler_logp=torch.zeros(count),
        batch_size=[count],
    )  # type: ignore[call-arg]


def gradient_of(method: ByHand, rows: Transitions, alpha: float = 0.2) -> tuple[Tensor, dict[str, Any]]:
    """The gradient of the actor in a step that moves nothing, ``[P]``, and what is logged."""
    before = method.actor.parameters.vector.detach().clone()
    logged = method.step(MixtureActorStep, rows, alpha=alpha)
    with torch.no_grad():
        method.actor.parameters.vector.copy_(before)
    return method.actor.parameters.gradient.clone(), logged


def by_expert(method: ByHand, gradient: Tensor) -> Tensor:
    """Gradient of the last layer's biases, expert by expert: ``[K, 2 D]``."""
    bias = method.actor.parameters.part(gradient, method.policy.stack.biases[-1]).flatten()
    mean, log_std = bias.view(2, *method.policy.shape)
    return torch.cat([mean, log_std], -1)


def of_weights(method: ByHand, gradient: Tensor) -> Tensor:
    return torch.cat([method.actor.parameters.part(gradient, parameter).flatten() for parameter in method.policy.weights.parameters()])


# --- one expert -----------------------------------------------------------------------------------------------------------------------


def test_one_expert_is_sac() -> None:
    shared = {"tau": 0.01, "temperature_form": "log", "learning_rate": 3e-3}
    one, plain = build(mixture_size=1, **shared), build("sac", **shared)
    one.policy.stack.load_state_dict(plain.policy.stack.state_dict())
    for part in ("critics", "targets"):
        getattr(one, part).load_state_dict(getattr(plain, part).state_dict())
    mine, theirs = {}, {}
    for _ in range(60):
        mine, theirs = one.turn() or mine, plain.turn() or theirs
    assert one.updates == plain.updates > 90
    for a, b in ((one.policy.stack, plain.policy.stack), (one.critics.network, plain.critics.network)):
        for x, y in zip(a.parameters(), b.parameters(), strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-4)
    assert one.temperature.value == pytest.approx(plain.temperature.value, rel=1e-5)
    assert mine["entropy"] == pytest.approx(theirs["entropy"], rel=1e-4)
    assert mine["mixture/share_0"] == mine["mixture/best_0"] == 1.0 and mine["mixture/weight_entropy"] == 0.0


# --- gradients ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_only_the_best_expert_moves(seed: int) -> None:
    method = build(mixture_size=3, initial_output=None, seed=seed)
    gradient, logged = gradient_of(method, rows_of(method, 1, seed))
    best = [logged[f"mixture/best_{k}"] for k in range(3)].index(1.0)
    moved = (by_expert(method, gradient) != 0).all(-1)
    assert moved.tolist() == [k == best for k in range(3)]
    assert bool((of_weights(method, gradient) != 0).any())


def test_all_experts_move_by_the_mean_of_their_losses() -> None:
    """One row, so that the gradient of "all" is the mean of what each expert would get by being the best."""
    method = build(mixture_size=3, initial_output=None, update="all", mixture_coefficient=0.0)
    rows = rows_of(method, 1)
    state = method.streams.state_dict()
    everything, _ = gradient_of(method, rows)
    assert bool((by_expert(method, everything) != 0).all())
    method.streams.load_state_dict(state)
    action, log_prob = components(method, rows.observation)
    q = judged(method.context, Batch(rows), action)
    parts = []
    for k in range(3):
        method.actor.parameters.gradient.zero_()
        (0.2 * log_prob[0, k] - q[0, k]).backward(retain_graph=True)
        parts.append(method.actor.parameters.gradient.clone())
    torch.testing.assert_close(everything, torch.stack(parts).mean(0))


def test_the_drawn_expert_moves_and_draws_follow_the_weights() -> None:
    method = build(mixture_size=2, initial_output=None, update="sampled")
    rows = rows_of(method, 1)
    with torch.no_grad():
        method.policy.weights.biases[-1].copy_(torch.tensor([[[0.0, 2.0]]]))
        weights = method.distribution(rows.observation).logits.softmax(-1)[0]
    moved = torch.stack([(by_expert(method, gradient_of(method, rows)[0]) != 0).all(-1) for _ in range(400)])
    assert bool((moved.sum(-1) == 1).all())
    torch.testing.assert_close(moved.float().mean(0), weights, atol=0.07, rtol=0)


def test_the_weights_learn_from_their_own_loss_alone_unless_the_mixture_is_the_entropy() -> None:
    for entropy_of, moves in (("component", False), ("mixture", True)):
        method = build(mixture_size=2, initial_output=None, mixture_coefficient=0.0, entropy_of=entropy_of)
        gradient, _ = gradient_of(method, rows_of(method))
        assert bool((of_weights(method, gradient) != 0).any()) == moves


def test_a_relaxed_choice_with_the_drawn_expert_is_the_ordinary_gradient() -> None:
    """Gumbel and "sampled" are together one straight-through draw of expert and action."""
    method = build(mixture_size=3, initial_output=None, update="sampled", mixture_gradient="gumbel", gumbel_temperature=0.7)
    rows = rows_of(method)
    state = method.streams.state_dict()
    gradient, _ = gradient_of(method, rows)
    method.streams.load_state_dict(state)
    mixture = method.distribution(rows.observation)
    action, log_prob = draw_all(method.context, mixture, "component")
    gumbel = -torch.empty_like(mixture.logits).exponential_(generator=method.streams["experts"]).log()
    choice = relaxed_choice(mixture.logits, gumbel, 0.7)
    q = smallest_q(method.context, Batch(rows), (choice.unsqueeze(-1) * action).sum(1))
    method.actor.parameters.gradient.zero_()
    (0.2 * (choice * log_prob).sum(-1) - q).mean().backward()
    torch.testing.assert_close(gradient, method.actor.parameters.gradient)


@pytest.mark.parametrize("gradient", ["frequency", "gumbel", "score"])
def test_weights_learn_to_ask_the_better_expert(gradient: str) -> None:
    """Two frozen experts and a critic that rises towards one of them (where it bends, a relaxed choice is biased)."""
    method = build(task="rheostat/TwoBumps-v0", mixture_size=2, mixture_gradient=gradient, learning_rate=0.05, temperature=0.01)
    with torch.no_grad():
        for parameter in (*method.policy.stack.parameters(), *method.policy.weights.parameters()):
            parameter.zero_()
        bias = method.policy.stack.biases[-1].view(2, 2, 2)
        bias[0] = torch.tensor([[0.0, 0.0], [0.7, 0.7]])  # means before tanh
        bias[1] = -1.5
    rows = rows_of(method, 32)
    rows.observation.zero_()

    class Rises(torch.nn.Module):
        def forward(self, observation: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
            return action.sum(-1).expand(2, -1)

        def of_many(self, observation: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
            return action.sum(-1).expand(2, -1, -1)

    method.critics.network = Rises()
    experts = method.policy.stack.biases[-1].detach().clone()
    for _ in range(120):
        method.step(MixtureActorStep, rows, alpha=0.01)
        with torch.no_grad():
            method.policy.stack.biases[-1].copy_(experts)
    assert method.distribution(rows.observation[:1]).logits.softmax(-1)[0, 1] > 0.8


def test_equal_values_are_the_first_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build(mixture_size=3)
    with torch.no_grad():
        method.critics.parameters.vector.zero_()
    _, logged = gradient_of(method, rows_of(method))
    assert [logged[f"mixture/best_{k}"] for k in range(3)] == [1.0, 0.0, 0.0]


def test_the_order_of_the_experts_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    order = [2, 0, 1]
    noise = torch.randn(8, 3, 2, generator=torch.Generator().manual_seed(0))
    results = []
    for permuted in (False, True):
        method = build(mixture_size=3, initial_output=None, temperature=0.3)
        if permuted:
            with torch.no_grad():
                for parameter in (method.policy.stack.weights[-1], method.policy.stack.biases[-1]):
                    apart = parameter.view(2, 3, 2, -1) if parameter.dim() == 3 and parameter.shape[1] == 12 else parameter.view(2, 3, 2)
                    apart.copy_(apart[:, order].clone())
                for parameter in (method.policy.weights.weights[-1], method.policy.weights.biases[-1]):
                    rows = parameter[0] if parameter.shape[1] == 3 else parameter[0, 0]
                    rows.copy_(rows[order].clone())
        monkeypatch.setattr(SquashedMixture, "noise", lambda self, generator, p=permuted: noise[:, order] if p else noise)
        gradient, logged = gradient_of(method, rows_of(method))
        results.append((logged, by_expert(method, gradient)))
    (plain, gradient), (other, permuted_gradient) = results
    torch.testing.assert_close(other["policy_loss"], plain["policy_loss"])
    torch.testing.assert_close(other["mixture_loss"], plain["mixture_loss"])
    torch.testing.assert_close(permuted_gradient, gradient[order])
    for name in ("share", "best"):
        assert [other[f"mixture/{name}_{k}"] for k in range(3)] == pytest.approx([plain[f"mixture/{name}_{k}"] for k in order])


# --- options --------------------------------------------------------------------------------------------------------------------------


def test_rewards_are_standardised_in_the_batch_if_asked_for() -> None:
    method = build(batch_reward_scale=10.0)
    rows = rows_of(method)
    rewards = rows.reward.clone()
    seen = method.credited(rows).rows.reward
    torch.testing.assert_close(seen.mean(), torch.zeros(()), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std(), torch.tensor(10.0))
    assert torch.equal(rows.reward, rewards)  # the replay's rows are left alone


def test_the_target_is_that_of_a_drawn_expert() -> None:
    method = build(mixture_size=2, initial_output=None)
    with torch.no_grad():
        method.policy.weights.biases[-1].copy_(torch.tensor([[[50.0, -50.0]]]))
    observation = rows_of(method).next_observation
    state = method.streams.state_dict()
    action, log_prob = method.part(SoftTarget).sampler(method.context, observation)
    method.streams.load_state_dict(state)
    every, densities = components(method, observation)
    assert torch.equal(action, every[:, 0]) and torch.equal(log_prob, densities[:, 0])


def test_evaluation_by_the_likeliest_or_by_a_drawn_expert() -> None:
    results = {}
    for deterministic in ("likeliest", "sampled"):
        method = build(mixture_size=2, initial_output=None, deterministic=deterministic)
        before = method.streams.state_dict()
        first, second = method.evaluate(3), method.evaluate(3)
        assert first == second
        after = method.streams.state_dict()
        assert all(torch.equal(after["streams"][name], before["streams"][name]) for name in before["streams"])
        results[deterministic] = first
        observation = torch.zeros(2, 4)
        assert torch.equal(method.act_on_target(observation).mode(), method.act_on_target(observation).mode())
    assert results["likeliest"] != results["sampled"]


def test_what_is_logged() -> None:
    method = build(mixture_size=3)
    logged: dict[str, float] = {}
    for _ in range(40):
        logged = method.turn() or logged
    for name in ("share", "best"):
        assert sum(logged[f"mixture/{name}_{k}"] for k in range(3)) == pytest.approx(1.0, abs=1e-5)
    assert 0 < logged["mixture/weight_entropy"] <= torch.tensor(3.0).log().item() + 1e-6
    assert {"policy_loss", "mixture_loss", "critic_loss", "entropy", "temperature"} <= set(logged)


def test_the_authors_preset_is_theirs() -> None:
    config = SimpleNamespace(**{each.short: each.value for each in options_of(configure("pmoe", {}, preset="authors"))})
    assert (config.mixture_size, config.actor_hidden, config.hidden) == (2, (512,) * 4, (512,) * 3)
    assert (config.batch_size, config.tau, config.learning_rate) == (300, 0.01, 3e-4)
    assert (config.batch_reward_scale, config.deterministic, config.temperature_form) == (10.0, "sampled", "log")


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: build(mixture_size=0), r"mixture\.size is 0; it must be at least 1"),
        (lambda: build(gumbel_temperature=0.0), "gumbel_temperature is 0"),
        (lambda: build(mixture_coefficient=-1.0), r"mixture\.coefficient is -1"),
        (lambda: build(mixture_gradient="reinforce"), "one of frequency, gumbel, score"),
        (lambda: build(task="CartPole-v1"), "needs continuous actions"),
    ],
)
def test_refusals(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        call()
