"""TD3 and TD3+BC: who moves when, in which direction, and on what targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import DeterministicActorStep, first_q
from rheostat.parts import Batch
from tests.by_hand import ByHand
from tests.tiny_control import built, one_batch


def vectors(method: Any) -> dict[str, torch.Tensor]:
    """The parameters of every part, as they are now."""
    return {name: part.parameters.vector.detach().clone() for name, part in method.parts().items()}


def filled(name: str = "td3", **options: Any) -> ByHand:
    """A method with a replay to draw from."""
    method = built(name, start_steps=60, **options)
    while method.steps < 60:
        method.turn()
    return method


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_the_policy_and_the_slow_copies_move_every_so_many_steps_of_the_critics(delay: int) -> None:
    method = filled(policy_delay=delay, tau=0.25)
    for step in range(1, 2 * delay + 1):
        before = vectors(method)
        found = method.gradient_step(one_batch(method))
        after = vectors(method)
        due = step % delay == 0
        assert not torch.equal(before["critics"], after["critics"])
        assert torch.equal(before["actor"], after["actor"]) != due and ("policy_loss" in found) == due
        for slow, fast in (("actor_target", "actor"), ("targets", "critics")):  # after the step, by tau
            expected = before[slow].lerp(after[fast], 0.25) if due else before[slow]
            torch.testing.assert_close(after[slow], expected)
    method.close()


@pytest.mark.parametrize("name", ["td3", "td3-bc"])
def test_the_policys_step_moves_the_policy_alone_and_up_the_first_critic(name: str) -> None:
    method = filled() if name == "td3" else built(name)
    rows, before = one_batch(method), vectors(method)
    value = method.critics.network(rows.observation, method.policy(rows.observation))[0].mean()
    method.step(DeterministicActorStep, rows)
    after = vectors(method)
    moved = [part for part in before if not torch.equal(before[part], after[part])]
    assert moved == ["actor", "actor_target"]  # which follows it
    if name == "td3":
        assert method.critics.network(rows.observation, method.policy(rows.observation))[0].mean() > value
    method.close()


def test_the_second_critic_does_not_steer_the_policy() -> None:
    method = filled()
    rows = one_batch(method)
    action = method.policy(rows.observation)
    before = first_q(method.context, Batch(rows), action)
    with torch.no_grad():
        for parameter in method.critics.network.parameters():
            parameter[1] += 1.0
    torch.testing.assert_close(first_q(method.context, Batch(rows), action), before)
    method.close()


def test_targets_bootstrap_at_time_limits_and_never_after_the_end_of_the_world() -> None:
    method = filled(target_noise=0.0)
    rows = one_batch(method)
    rows.discount = torch.where(torch.arange(len(rows)) % 2 == 0, 0.0, 0.99)  # the even ones ended
    target = method.target(rows)
    q = method.targets.network(rows.next_observation, method.actor_target.network(rows.next_observation))
    torch.testing.assert_close(target[::2], rows.reward[::2])
    torch.testing.assert_close(target[1::2], (rows.reward + 0.99 * q.amin(0))[1::2])
    method.close()


def test_the_targets_noise_is_clipped_and_stays_inside_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = filled(target_noise=10.0, noise_clip=0.3), []
    judge = method.targets.network.forward
    monkeypatch.setattr(method.targets.network, "forward", lambda observation, action: seen.append(action) or judge(observation, action))
    rows = one_batch(method)
    method.target(rows)
    plain = method.actor_target.network(rows.next_observation)
    moved = seen[0] - plain
    assert seen[0].abs().max() <= 1 and moved.abs().max() <= 0.3 + 1e-6
    assert (moved.abs() > 0.299).double().mean() > 0.8  # the noise is huge, so nearly all of it is clipped
    method.close()


def test_who_acts_is_the_policy_with_noise_and_what_is_learned_is_without() -> None:
    method = filled(exploration_noise=0.1)
    seen = torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    plain = method.act_on_target(seen)
    assert torch.equal(plain.sample(torch.Generator()), plain.mode())
    action, logp = method.draw(seen, torch.Generator().manual_seed(0))
    noise = (action - plain.mode()) / 2  # torques up to 2
    assert noise.std().item() == pytest.approx(0.1, rel=0.1) and bool(logp.isfinite().all())
    method.close()


def test_imitation_pulls_towards_the_data_where_the_critic_says_nothing() -> None:
    method = built("td3-bc", alpha=0.0, learning_rate=1e-2)
    rows = one_batch(method)
    distances = [method.step(DeterministicActorStep, rows)["distance_to_data"].item() for _ in range(60)]
    assert distances[-1] < 0.7 * distances[0]
    method.close()


def test_the_scale_of_the_critic_cancels() -> None:
    """lambda divides by the mean size of the values: ten times as large values move the policy the same way."""
    steps = []
    for scale in (1.0, 10.0):
        method = built("td3-bc")
        rows, before = one_batch(method), method.actor.parameters.vector.detach().clone()
        scaled = replace(method.part(DeterministicActorStep), q_value=lambda *asked, scale=scale: scale * first_q(*asked))
        scaled.step(method.context, Batch(rows))
        steps.append(method.actor.parameters.vector.detach() - before)
        method.close()
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"policy_delay": 0}, "policy_delay is 0"),
        ({"target_noise": -0.1}, r"target_noise is -0\.1; it must be at least 0"),
        ({"exploration_noise": -0.1}, "exploration_noise is"),
        ({"noise_clip": -0.1}, "noise_clip is"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        built("td3", **options)


def test_no_imitation_is_td3_on_a_data_set() -> None:
    """The policy moves up the first critic alone, whatever the data did."""
    moves = []
    for turned in (1.0, -1.0):
        method = built("td3-bc", alpha=None)
        rows, before = one_batch(method), method.actor.parameters.vector.detach().clone()
        rows.action = turned * rows.action
        assert "distance_to_data" not in method.step(DeterministicActorStep, rows)
        moves.append(method.actor.parameters.vector.detach() - before)
        method.close()
    assert torch.equal(moves[0], moves[1]) and bool(moves[0].any())
