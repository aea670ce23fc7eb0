"""DQN: its targets, its slow copy, who explores how much, images, and prioritised n-step replay through the chassis."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.errors import RheostatError
from tests.by_hand import ByHand
from tests.methods.test_off_policy import Images
from tests.tiny_control import OFF_POLICY, OWN, built, one_batch


def filled(task: str = "CartPole-v1", **options: Any) -> ByHand:
    """A method with a replay to draw from."""
    method = built("dqn", task, **({"start_steps": 60} | options))
    while method.steps < 60:
        method.turn()
    return method


def disturb(method: Any) -> None:
    """Make the network and its slow copy differ."""
    with torch.no_grad():
        method.actor.parameters.vector.add_(torch.randn(method.actor.parameters.vector.shape, generator=torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("double", [False, True])
def test_the_target_is_the_slow_copys_value_of_the_chosen_action(double: bool) -> None:
    method = filled(double=double)
    disturb(method)
    rows = one_batch(method)
    rows.discount[::3] = 0.0
    slow, fast = method.actor_target.network(rows.next_observation), method.policy(rows.next_observation)
    expected = []
    for i in range(len(rows)):
        best = max(range(2), key=lambda action, i=i: (fast if double else slow)[i, action].item())  # type: ignore[misc]
        expected.append((rows.reward[i] + rows.discount[i] * slow[i, best]).item())
    torch.testing.assert_close(method.target(rows), torch.tensor(expected))
    assert (slow.argmax(-1) != fast.argmax(-1)).any()  # otherwise both forms agree and nothing was tested
    method.close()


def test_only_the_taken_actions_value_moves_towards_the_target() -> None:
    method = filled()
    rows = one_batch(method)
    q = method.policy(rows.observation)
    q.retain_grad()
    method.policy.forward = lambda observation: q  # type: ignore[method-assign]
    method.gradient_step(rows)
    others = torch.ones(len(rows), 2).scatter_(1, rows.action.unsqueeze(1), 0.0).bool()
    assert (q.grad[others] == 0).all() and (q.grad[~others] != 0).all()
    method.close()


def test_errors_beyond_the_limit_pull_with_constant_force() -> None:
    pulls = {}
    for huber in (1.0, None):
        method = filled(huber=huber)
        rows = one_batch(method)
        rows.reward, rows.discount = torch.full_like(rows.reward, 1000.0), torch.zeros_like(rows.discount)
        q = method.policy(rows.observation)
        q.retain_grad()
        method.policy.forward = lambda observation, q=q: q  # type: ignore[method-assign]
        method.gradient_step(rows)
        pulls[huber] = q.grad.abs().max().item() * len(rows)
        method.close()
    assert pulls[1.0] == pytest.approx(1.0) and pulls[None] == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize(("tau", "every"), [(1.0, 4), (0.1, 1)])
def test_the_slow_copy_takes_over_at_intervals_or_follows_slowly(tau: float, every: int) -> None:
    method = filled(tau=tau, target_every=every)
    for step in range(1, 9):
        before = method.actor_target.parameters.vector.clone()
        method.gradient_step(one_batch(method))
        expected = before.lerp(method.actor.parameters.vector.detach(), tau) if step % every == 0 else before
        torch.testing.assert_close(method.actor_target.parameters.vector, expected)
    method.close()


def test_epsilon_falls_linearly_over_its_share_of_the_budget() -> None:
    method = built("dqn", steps=1000, exploration_share=0.5, exploration_start=1.0, exploration_end=0.1)
    for steps, epsilon in ((0, 1.0), (250, 0.55), (500, 0.1), (900, 0.1)):
        method.collector.steps = steps
        assert method.actor.epsilon == pytest.approx(epsilon)
    method.close()


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_the_explorer_is_greedy_except_for_epsilon_and_knows_its_probabilities(epsilon: float) -> None:
    method = built("dqn", "Acrobot-v1", exploration_start=epsilon, exploration_end=epsilon, exploration_share=0.5)
    seen = torch.randn(1, 6, generator=torch.Generator().manual_seed(1)).expand(4_000, 6)
    best = int(method.policy(seen[:1]).argmax())
    action, logp = method.draw(seen, torch.Generator().manual_seed(0))
    expected = torch.full((3,), epsilon / 3)
    expected[best] += 1 - epsilon
    torch.testing.assert_close(torch.bincount(action, minlength=3) / 4_000, expected, atol=0.03, rtol=0)
    torch.testing.assert_close(logp, expected.log()[action])
    assert (method.act_on_target(seen).mode() == best).all()
    assert method.actor.exploring(seen).log_prob(torch.full((4_000,), (best + 1) % 3)).isfinite().all()
    method.close()


def test_prioritised_n_step_replay_works_through_the_chassis() -> None:
    method = filled(n_step=3, priority=0.7, gamma=0.9, num_envs=1)
    while method.updates < 20:
        method.turn()
    tree = method.replay.tree.leaves[: len(method.replay)]
    assert len(tree.unique()) > 10  # errors became priorities
    rows = one_batch(method)
    assert rows.weight.max() == 1 and rows.weight.min() < 1
    held, following = method.replay.columns, method.replay.columns["following"]
    for i in range(len(rows)):
        place, total, steps = int(rows.index[i]), 0.0, 0
        while True:
            total += 0.9**steps * held["reward"][place].item()
            steps += 1
            if steps == 3 or following[place] < 0:
                break
            place = int(following[place])
        assert rows.reward[i].item() == pytest.approx(total)
        assert rows.discount[i].item() == pytest.approx(0.0 if held["terminated"][place] else 0.9**steps)
        assert torch.equal(rows.next_observation[i], held["next_observation"][place])
    method.close()


def test_the_weights_of_a_prioritised_replay_scale_the_loss() -> None:
    method = filled(priority=0.5)
    rows = one_batch(method)
    rows.weight = torch.zeros_like(rows.reward)
    before = method.actor.parameters.vector.detach().clone()
    method.actor.optimizer.param_groups[0]["lr"] = 1.0
    assert method.gradient_step(rows)["critic_loss"] == 0
    assert torch.equal(method.actor.parameters.vector, before)
    method.close()


def test_images_are_read_and_learned_from(tmp_path: Path) -> None:
    options = OFF_POLICY | OWN["dqn"] | {"update_to_data": 0.1, "batch_size": 4}
    del options["hidden"]  # images have layers of their own
    run = rheostat.train("dqn", Images, directory=tmp_path / "run", progress=False, steps=60, **options)
    method = ByHand(run.method)
    assert method.replay.columns["observation"].dtype == torch.uint8 and method.updates == 2
    assert run.policy(Images().reset(seed=0)[0]) in (0, 1, 2)
    assert math.isfinite(run.metrics[-1]["critic_loss"])
    run.close()


@pytest.mark.slow
def test_an_atari_game_of_envpool_runs_with_its_preset(tmp_path: Path) -> None:
    options = {"replay_capacity": 500, "start_steps": 40, "batch_size": 8, "evaluation_episodes": 0}
    run = rheostat.train("dqn", "Pong-v5", directory=tmp_path / "run", progress=False, preset="atari", steps=60, **options)
    method = ByHand(run.method)
    assert method.updates == 5 and method.replay.columns["observation"].shape[1:] == (4, 84, 84)
    run.close()


def test_two_networks_of_one_seed_are_equal_whatever_the_global_generator_does() -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        from tests.methods.test_off_policy import method_on

        method = method_on("dqn", Images, hidden=(120, 84))
        assert torch.equal(torch.get_rng_state(), state)
        found.append(method.actor.parameters.vector.detach())
        method.close()
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"exploration_end": 1.5}, r"exploration.end is 1\.5; it must be at least 0 and at most 1"),
        ({"exploration_share": -0.1}, "exploration.share is"),
        ({"target_every": 0}, "target_every is 0"),
        ({"huber": 0.0}, r"huber is 0\.0; it must be above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        built("dqn", **options)
