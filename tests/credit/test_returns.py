"""Returns and advantages: loops in plain Python, hand-computed time limits, and exact fixed points under off-policy data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.credit.returns import TraceKind, discounted_return, gae, n_step_return, retrace, trace_coefficient, vtrace
from rheostat.errors import RheostatError

seeds = st.integers(0, 2**32 - 1)


@dataclass
class Steps:
    reward: Tensor
    value: Tensor
    next_value: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor

    def poisoned(self) -> Steps:
        """NaN at masked steps, and arbitrary flags there."""
        bad = [x.masked_fill(~self.mask, math.nan) for x in (self.reward, self.value, self.next_value)]
        return Steps(*bad, self.terminated ^ ~self.mask, self.truncated, self.mask)


def draw(seed: int, rows: int = 4, length: int = 13, keep: float = 0.8) -> Steps:
    generator = torch.Generator().manual_seed(seed)

    def coin(p: float) -> Tensor:
        return torch.rand(rows, length, generator=generator) < p

    reward, value, next_value = torch.randn(3, rows, length, generator=generator, dtype=torch.float64)
    return Steps(reward, value, next_value, coin(0.15), coin(0.15), coin(keep))


def kept_steps(data: Steps, row: int) -> list[int]:
    return [t for t in range(data.reward.shape[1]) if data.mask[row, t]]


@given(seed=seeds, gamma=st.sampled_from([0.0, 0.9, 1.0]), lam=st.sampled_from([0.0, 0.95, 1.0]), on_truncation=st.booleans())
def test_gae_against_a_loop(seed: int, gamma: float, lam: float, on_truncation: bool) -> None:
    data = draw(seed)
    bad = data.poisoned()
    advantage, target = gae(
        bad.reward,
        bad.value,
        bad.next_value,
        bad.terminated,
        bad.truncated,
        gamma=gamma,
        lam=lam,
        mask=bad.mask,
        bootstrap_on_truncation=on_truncation,
    )
    for row in range(4):
        running = 0.0
        for t in reversed(kept_steps(data, row)):
            terminated, truncated = bool(data.terminated[row, t]), bool(data.truncated[row, t])
            worth = 0.0 if terminated or (truncated and not on_truncation) else data.next_value[row, t].item()
            delta = data.reward[row, t].item() + gamma * worth - data.value[row, t].item()
            running = delta + (0.0 if terminated or truncated else gamma * lam * running)
            assert advantage[row, t].item() == pytest.approx(running, abs=1e-9)
            assert target[row, t].item() == pytest.approx(running + data.value[row, t].item(), abs=1e-9)


def test_a_time_limit_is_not_a_death() -> None:
    """Constant reward 1, gamma 0.9: the true value is 10, and only the library form keeps it at a time limit."""
    reward, ten, never = torch.ones(1, 3), torch.full((1, 3), 10.0), torch.zeros(1, 3, dtype=torch.bool)
    limit = torch.tensor([[False, False, True]])
    kept, _ = gae(reward, ten, ten, never, limit, gamma=0.9, lam=0.95)
    assert kept.tolist() == [pytest.approx([0.0, 0.0, 0.0], abs=1e-5)]
    dead, _ = gae(reward, ten, ten, never, limit, gamma=0.9, lam=1.0, bootstrap_on_truncation=False)
    assert dead.tolist() == [pytest.approx([-7.29, -8.1, -9.0], abs=1e-5)]
    terminated, _ = gae(reward, ten, ten, limit, never, gamma=0.9, lam=1.0)
    torch.testing.assert_close(terminated, dead)


def test_what_follows_an_end_does_not_leak_back() -> None:
    data = draw(3, keep=1.0)
    data.terminated[:, 5] = True
    before = gae(data.reward, data.value, data.next_value, data.terminated, data.truncated, gamma=0.9, lam=0.9)[0]
    data.reward[:, 6:] += 100.0
    after = gae(data.reward, data.value, data.next_value, data.terminated, data.truncated, gamma=0.9, lam=0.9)[0]
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.isclose(before[:, 6:], after[:, 6:]).any()


def test_results_are_constants() -> None:
    data = draw(0)
    value = data.value.requires_grad_()
    assert not any(x.requires_grad for x in gae(data.reward, value, value, data.terminated, data.truncated, gamma=0.9, lam=0.9))


@given(seed=seeds, bootstrapped=st.booleans(), on_truncation=st.booleans())
def test_discounted_return_against_a_loop(seed: int, bootstrapped: bool, on_truncation: bool) -> None:
    data = draw(seed)
    bad = data.poisoned()
    result = discounted_return(
        bad.reward,
        bad.terminated,
        bad.truncated,
        gamma=0.9,
        next_value=bad.next_value if bootstrapped else None,
        mask=bad.mask,
        bootstrap_on_truncation=on_truncation,
    )
    for row in range(4):
        steps = kept_steps(data, row)
        running = 0.0
        for t in reversed(steps):
            terminated, truncated = bool(data.terminated[row, t]), bool(data.truncated[row, t])
            if terminated or truncated or t == steps[-1]:
                worthless = terminated or (truncated and not on_truncation) or not bootstrapped
                running = 0.0 if worthless else data.next_value[row, t].item()
            running = data.reward[row, t].item() + 0.9 * running
            assert result[row, t].item() == pytest.approx(running, abs=1e-9)


@given(seed=seeds, n=st.integers(1, 16), masked=st.booleans())
def test_n_step_return_against_a_loop(seed: int, n: int, masked: bool) -> None:
    data = draw(seed, keep=0.8 if masked else 1.0)
    bad = data.poisoned()
    result = n_step_return(bad.reward, bad.next_value, bad.terminated, bad.truncated, gamma=0.9, n=n, mask=bad.mask if masked else None)
    for row in range(4):
        steps = kept_steps(data, row)
        for start, t in enumerate(steps):
            total, discount = 0.0, 1.0
            for here in steps[start : start + n]:
                total += discount * data.reward[row, here].item()
                discount *= 0.9
                if data.terminated[row, here]:
                    discount = 0.0
                if data.terminated[row, here] or data.truncated[row, here]:
                    break
            total += discount * data.next_value[row, here].item()
            assert result[row, t].item() == pytest.approx(total, abs=1e-9)


@given(seed=seeds)
def test_special_cases_of_gae(seed: int) -> None:
    """With values that agree between steps, lam=1 is the bootstrapped return, lam=0 one step, and V-trace on-policy is lam=1."""
    data = draw(seed, keep=1.0)
    data.next_value[:, :-1] = data.value[:, 1:]
    common = (data.reward, data.value, data.next_value)
    flags = (data.terminated, data.truncated)
    monte_carlo = gae(*common, *flags, gamma=0.9, lam=1.0)[1]
    torch.testing.assert_close(discounted_return(data.reward, *flags, gamma=0.9, next_value=data.next_value), monte_carlo)
    torch.testing.assert_close(n_step_return(data.reward, data.next_value, *flags, gamma=0.9, n=99), monte_carlo)
    one_step = gae(*common, *flags, gamma=0.9, lam=0.0)[1]
    torch.testing.assert_close(n_step_return(data.reward, data.next_value, *flags, gamma=0.9, n=1), one_step)
    on_policy = vtrace(*common, torch.zeros_like(data.reward), *flags, gamma=0.9)
    torch.testing.assert_close(on_policy.target, monte_carlo)
    torch.testing.assert_close(on_policy.advantage, monte_carlo - data.value)
    lambda_return = gae(*common, *flags, gamma=0.9, lam=0.7)[1]
    torch.testing.assert_close(retrace(*common, torch.full_like(data.reward, 0.7), *flags, gamma=0.9), lambda_return)


@given(seed=seeds, lam=st.sampled_from([0.0, 0.9, 1.0]), on_truncation=st.booleans())
def test_vtrace_and_retrace_against_loops(seed: int, lam: float, on_truncation: bool) -> None:
    data = draw(seed)
    bad = data.poisoned()
    log_rho = torch.randn(4, 13, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    poisoned = log_rho.masked_fill(~data.mask, math.nan)
    common = (bad.reward, bad.value, bad.next_value)
    flags = (bad.terminated, bad.truncated)
    v = vtrace(
        *common, poisoned, *flags, gamma=0.9, lam=lam, rho_clip=1.5, pg_rho_clip=0.8, mask=bad.mask, bootstrap_on_truncation=on_truncation
    )
    g = retrace(*common, lam * poisoned.exp().clamp(max=1.0), *flags, gamma=0.9, mask=bad.mask, bootstrap_on_truncation=on_truncation)
    for row in range(4):
        error = weighted = 0.0
        for t in reversed(kept_steps(data, row)):
            terminated, truncated = bool(data.terminated[row, t]), bool(data.truncated[row, t])
            goes_on = not (terminated or truncated)
            worth = 0.0 if terminated or (truncated and not on_truncation) else data.next_value[row, t].item()
            value, rho, one_step = data.value[row, t].item(), math.exp(log_rho[row, t].item()), data.reward[row, t].item() + 0.9 * worth
            q = one_step + 0.9 * goes_on * lam * error
            target = one_step + 0.9 * goes_on * weighted
            error = min(1.5, rho) * (one_step - value) + 0.9 * goes_on * lam * min(1.0, rho) * error
            weighted = lam * min(1.0, rho) * (target - value)
            assert v.q[row, t].item() == pytest.approx(q, abs=1e-9)
            assert v.error[row, t].item() == pytest.approx(error, abs=1e-9)
            assert v.target[row, t].item() == pytest.approx(value + error, abs=1e-9)
            assert v.advantage[row, t].item() == pytest.approx(min(0.8, rho) * (q - value), abs=1e-9)
            assert g[row, t].item() == pytest.approx(target, abs=1e-9)


class Chain:
    """Every trajectory of a small random decision process up to a length, with its probability: expectations are exact sums."""

    states, actions, length, gamma = 3, 2, 3, 0.8

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def rows(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).softmax(-1)

        self.dynamics = rows(self.states, self.actions, self.states)
        self.reward = torch.randn(self.states, self.actions, generator=generator, dtype=torch.float64)
        self.end = torch.rand(self.states, self.actions, generator=generator) < 0.3
        self.pi, self.mu = rows(self.states, self.actions), rows(self.states, self.actions)
        axes = [torch.arange(self.states)] + [torch.arange(self.actions), torch.arange(self.states)] * self.length
        grid = torch.cartesian_prod(*axes)
        self.s, self.a, self.s_next = grid[:, 0:-1:2], grid[:, 1::2], grid[:, 2::2]
        chosen = self.mu[self.s, self.a]
        chosen[:, 0] = 1.0  # the first pair is given: expectations are conditioned on it
        self.probability = (chosen * self.dynamics[self.s, self.a, self.s_next]).prod(-1)
        self.terminated = self.end[self.s, self.a]
        self.never = torch.zeros_like(self.terminated)

    def expected(self, target: Tensor) -> Tensor:
        """E[target of the first step | its state and action], [states, actions]."""
        index = self.s[:, 0] * self.actions + self.a[:, 0]
        total = torch.zeros(self.states * self.actions, dtype=torch.float64)
        return total.index_add(0, index, self.probability * target[:, 0]).view(self.states, self.actions)

    def bellman(self, policy: Tensor) -> tuple[Tensor, Tensor]:
        """(V, Q) of a policy, by solving the linear equations."""
        move = torch.einsum("sa,sat->st", policy * ~self.end, self.dynamics)
        value = torch.linalg.solve(torch.eye(self.states, dtype=torch.float64) - self.gamma * move, (policy * self.reward).sum(-1))
        return value, self.reward + self.gamma * (self.dynamics @ value).masked_fill(self.end, 0.0)


@pytest.mark.parametrize("rho_clip", [None, 1.0, 0.5])
@pytest.mark.parametrize("lam", [1.0, 0.6])
def test_vtrace_fixed_point_is_the_bellman_solution_of_its_policy(rho_clip: float | None, lam: float) -> None:
    """Without a cap the fixed point is V of pi, with one V of the policy proportional to min(cap mu, pi); whatever mu is."""
    world = Chain(7)
    capped = world.pi if rho_clip is None else torch.minimum(rho_clip * world.mu, world.pi)
    expected, _ = world.bellman(capped / capped.sum(-1, keepdim=True))
    log_rho = (world.pi.log() - world.mu.log())[world.s, world.a]
    value = torch.zeros(world.states, dtype=torch.float64)
    for _ in range(300):
        result = vtrace(
            world.reward[world.s, world.a],
            value[world.s],
            value[world.s_next],
            log_rho,
            world.terminated,
            world.never,
            gamma=world.gamma,
            lam=lam,
            rho_clip=rho_clip,
        )
        value = (world.mu * world.expected(result.target)).sum(-1)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["retrace", "importance", "tree-backup"])
def test_retrace_fixed_point_is_q_of_the_target_policy(kind: TraceKind) -> None:
    world = Chain(11)
    _, expected = world.bellman(world.pi)
    trace = trace_coefficient(world.pi, world.mu, kind=kind, lam=0.9)[world.s, world.a]
    q = torch.zeros(world.states, world.actions, dtype=torch.float64)
    for _ in range(300):
        next_value = (world.pi * q).sum(-1)[world.s_next]
        target = retrace(
            world.reward[world.s, world.a], q[world.s, world.a], next_value, trace, world.terminated, world.never, gamma=world.gamma
        )
        q = world.expected(target)
    torch.testing.assert_close(q, expected, rtol=1e-9, atol=1e-9)


def test_trace_coefficients() -> None:
    pi, mu = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 1.0])
    assert trace_coefficient(pi, mu, lam=0.9).tolist() == pytest.approx([0.9, 0.45])
    assert trace_coefficient(pi, mu, kind="importance", lam=0.9).tolist() == pytest.approx([1.8, 0.45])
    assert trace_coefficient(pi, mu, kind="q-lambda", lam=0.9).tolist() == pytest.approx([0.9, 0.9])
    assert trace_coefficient(pi, mu, kind="tree-backup", lam=0.9).tolist() == pytest.approx([0.45, 0.45])


def test_mistakes_are_refused() -> None:
    x, never = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(RheostatError, match=r"next_value \[2, 4\]"):
        gae(x, x, torch.zeros(2, 4), never, never, gamma=0.9, lam=0.9)
    with pytest.raises(RheostatError, match="n >= 1"):
        n_step_return(x, x, never, never, gamma=0.9, n=0)
    with pytest.raises(RheostatError, match="Unknown trace"):
        trace_coefficient(x, x, kind="vtrace")  # type: ignore[arg-type]
