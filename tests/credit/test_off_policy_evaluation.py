"""Importance sampling over episodes: exact values of a small table, plain loops, and what may not change an estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.credit.off_policy_evaluation import Estimate, doubly_robust, importance_sampling
from rheostat.errors import RheostatError
from rheostat.tasks.control.tabular import TabularMDP

GAMMA = 0.9
FORMS = [(per_decision, weighted) for per_decision in (False, True) for weighted in (False, True)]
seeds = st.integers(0, 2**32 - 1)

WORLD = TabularMDP(
    next_state=torch.tensor([[1, 2], [0, 2], [2, 0]]),
    reward=torch.tensor([[1.0, -0.5], [0.25, 2.0], [-1.0, 0.5]]),
    ends=torch.tensor([[False, False], [False, True], [True, False]]),
    start=torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64),
    limit=4,
)
MU = torch.tensor(
    [[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]], dtype=torch.float64
)  # quarters: 4^4 copies hold every episode exactly as often as it is likely
PI = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)
Q = torch.tensor([[0.3, -1.0], [2.0, 0.7], [0.1, 0.4]], dtype=torch.float64)  # of nobody


@dataclass
class Data:
    """Every episode of the table, in numbers that are its probability under the behaviour policy."""

    state: Tensor  # [n, T]
    action: Tensor
    next_state: Tensor
    reward: Tensor
    mask: Tensor
    terminated: Tensor
    truncated: Tensor

    @property
    def log_ratio(self) -> Tensor:
        return (PI.log() - MU.log())[self.state, self.action]

    def facts(self, q: Tensor | None = None) -> dict[str, Any]:
        """What a cut episode needs, with the values of a critic."""
        value = exact_infinite() if q is None else (PI * q).sum(-1)
        return {"terminated": self.terminated, "truncated": self.truncated, "next_value": value[self.next_state]}


def every_episode() -> Data:
    rows: dict[tuple[Any, ...], float] = {}
    for actions in product(range(2), repeat=WORLD.limit):
        state, row, probability = 0, [], 1.0
        for t, a in enumerate(actions):
            probability *= MU[state, a].item()
            successor, over = WORLD.next_state[state, a].item(), WORLD.ends[state, a].item()
            row.append((state, a, successor, WORLD.reward[state, a].item(), over, t == WORLD.limit - 1 and not over))
            state = successor
            if over:
                break
        rows[tuple(row)] = probability
    copies = [row for row, p in rows.items() for _ in range(round(p * 4**WORLD.limit))]
    assert len(copies) == 4**WORLD.limit
    table = torch.zeros(len(copies), WORLD.limit, 6, dtype=torch.float64)
    mask = torch.zeros(len(copies), WORLD.limit, dtype=torch.bool)
    for i, row in enumerate(copies):
        table[i, : len(row)], mask[i, : len(row)] = torch.tensor(row, dtype=torch.float64), True
    state, action, successor = (table[..., k].long() for k in range(3))
    return Data(state, action, successor, table[..., 3], mask, table[..., 4] != 0, table[..., 5] != 0)


def exact_finite() -> float:
    """Value of the first state where the limit ends an episode for good, by backward induction."""
    value = torch.zeros(3, dtype=torch.float64)
    for _ in range(WORLD.limit):
        value = (PI * (WORLD.reward + GAMMA * (WORLD.transition() @ value))).sum(-1)
    return value[0].item()


def exact_infinite() -> Tensor:
    """Values ``[S]`` without a limit, by solving the linear equations."""
    move = torch.einsum("sa,sat->st", PI, WORLD.transition())
    return torch.linalg.solve(torch.eye(3, dtype=torch.float64) - GAMMA * move, (PI * WORLD.reward).sum(-1))


@pytest.mark.parametrize(("per_decision", "weighted"), FORMS)
def test_importance_sampling_is_exact_on_all_episodes(per_decision: bool, weighted: bool) -> None:
    """Also the weighted forms: where data are as likely as they should be, the weights of every step have mean 1."""
    data = every_episode()
    estimate = importance_sampling(data.log_ratio, data.reward, data.mask, gamma=GAMMA, per_decision=per_decision, weighted=weighted)
    assert estimate.value.item() == pytest.approx(exact_finite(), abs=1e-12)
    cut = importance_sampling(
        data.log_ratio, data.reward, data.mask, gamma=GAMMA, per_decision=per_decision, weighted=weighted, **data.facts()
    )
    assert cut.value.item() == pytest.approx(exact_infinite()[0].item(), abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_doubly_robust_is_exact_for_a_wrong_critic(weighted: bool) -> None:
    data = every_episode()
    q, value = Q[data.state, data.action], (PI * Q).sum(-1)[data.state]
    estimate = doubly_robust(data.log_ratio, data.reward, q, value, data.mask, gamma=GAMMA, weighted=weighted)
    assert estimate.value.item() == pytest.approx(exact_finite(), abs=1e-12)
    cut = doubly_robust(data.log_ratio, data.reward, q, value, data.mask, gamma=GAMMA, weighted=weighted, **data.facts())
    assert cut.value.item() == pytest.approx(exact_infinite()[0].item(), abs=1e-12)


def test_doubly_robust_is_exact_for_a_right_critic_whatever_the_ratios() -> None:
    """In a deterministic world every episode then says the same."""
    data, value = every_episode(), exact_infinite()
    q = WORLD.reward + GAMMA * (WORLD.transition() @ value)
    wrong = data.log_ratio + torch.randn(data.log_ratio.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for weighted in (False, True):
        estimate = doubly_robust(
            wrong, data.reward, q[data.state, data.action], value[data.state], data.mask, gamma=GAMMA, weighted=weighted, **data.facts()
        )
        torch.testing.assert_close(estimate.contribution, value[0].expand(len(wrong)))
        assert estimate.standard_error.item() < 1e-12


def test_per_decision_varies_less_and_the_critic_less_still() -> None:
    data = every_episode()
    better = Q + 0.8 * (WORLD.reward + GAMMA * (WORLD.transition() @ exact_infinite()) - Q)
    ordinary, per_decision = (
        importance_sampling(data.log_ratio, data.reward, data.mask, gamma=GAMMA, per_decision=x, **data.facts()) for x in (False, True)
    )
    robust = doubly_robust(
        data.log_ratio,
        data.reward,
        better[data.state, data.action],
        (PI * better).sum(-1)[data.state],
        data.mask,
        gamma=GAMMA,
        **data.facts(),
    )
    assert robust.standard_error < per_decision.standard_error < ordinary.standard_error


@pytest.mark.parametrize(("per_decision", "weighted"), FORMS)
def test_standard_error_is_the_spread_over_data_sets(per_decision: bool, weighted: bool) -> None:
    data, generator = every_episode(), torch.Generator().manual_seed(5)
    estimates = []
    for _ in range(400):
        rows = torch.randint(len(data.mask), (200,), generator=generator)
        estimates.append(
            importance_sampling(
                data.log_ratio[rows], data.reward[rows], data.mask[rows], gamma=GAMMA, per_decision=per_decision, weighted=weighted
            )
        )
    spread = torch.stack([estimate.value for estimate in estimates]).std().item()
    reported = torch.stack([estimate.standard_error for estimate in estimates]).mean().item()
    assert reported == pytest.approx(spread, rel=0.15)  # 400 data sets know their spread to 3.5 %


@dataclass
class Steps:
    log_ratio: Tensor
    reward: Tensor
    q: Tensor
    value: Tensor
    next_value: Tensor
    terminated: Tensor
    truncated: Tensor
    mask: Tensor

    def run(self, form: str, rows: Tensor | slice = slice(None), poison: float | None = None) -> Estimate:
        def get(name: str) -> Tensor:
            x = getattr(self, name)
            return (x if poison is None or x.dtype == torch.bool else x.masked_fill(~self.mask, poison))[rows]

        facts = {name: get(name) for name in ("terminated", "truncated", "next_value")}
        if form.startswith("robust"):
            return doubly_robust(
                get("log_ratio"), get("reward"), get("q"), get("value"), get("mask"), gamma=GAMMA, weighted="weighted" in form, **facts
            )
        return importance_sampling(
            get("log_ratio"),
            get("reward"),
            get("mask"),
            gamma=GAMMA,
            per_decision="per-decision" in form,
            weighted="weighted" in form,
            **facts,
        )


def draw(seed: int, rows: int = 5, length: int = 7) -> Steps:
    generator = torch.Generator().manual_seed(seed)
    log_ratio, reward, q, value, next_value = torch.randn(5, rows, length, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, length, generator=generator) < 0.7
    mask[0] = torch.rand((), generator=generator) < 0.5  # now and then a row of nothing
    mask[1, 2] = True
    last = mask & (mask.flip(-1).cumsum(-1).flip(-1) == 1)
    terminated = last & (torch.rand(rows, 1, generator=generator) < 0.5)
    return Steps(log_ratio, reward, q, value, next_value, terminated | ~mask, last & ~terminated, mask)


@given(seed=seeds)
def test_against_loops(seed: int) -> None:
    data = draw(seed)
    episodes = [[t for t in range(7) if data.mask[i, t]] for i in range(5)]
    rows = [i for i in range(5) if episodes[i]]
    n, horizon = len(rows), max(len(episodes[i]) for i in rows)
    weights: dict[int, list[float]] = {}  # of every row and every number of steps, the last one going on
    rewards: dict[int, list[float]] = {}
    errors: dict[int, list[float]] = {}
    for i in rows:
        total, weights[i], rewards[i], errors[i] = 0.0, [], [], []
        for place, t in enumerate(episodes[i]):
            total += data.log_ratio[i, t].item()
            end = t == episodes[i][-1]
            after = 0.0
            if end and not data.terminated[i, t]:
                after = data.next_value[i, t].item()
            weights[i].append(math.exp(total))
            rewards[i].append(data.reward[i, t].item() + GAMMA * after)
            follow = after if end else data.value[i, episodes[i][place + 1]].item()
            errors[i].append(data.reward[i, t].item() + GAMMA * follow - data.q[i, t].item())
        extra = horizon - len(weights[i])
        weights[i] += weights[i][-1:] * extra
        rewards[i] += [0.0] * extra
        errors[i] += [0.0] * extra
    expected = dict.fromkeys(("ordinary", "weighted", "per-decision", "weighted per-decision", "robust", "robust weighted"), 0.0)
    total_weight = sum(weights[i][-1] for i in rows)
    for i in rows:
        ret = sum(GAMMA**k * r for k, r in enumerate(rewards[i]))
        expected["ordinary"] += weights[i][-1] * ret / n
        expected["weighted"] += weights[i][-1] * ret / total_weight
        first = data.value[i, episodes[i][0]].item()
        expected["robust"] += first / n
        expected["robust weighted"] += first / n
        for k in range(horizon):
            column = sum(weights[j][k] for j in rows)
            expected["per-decision"] += GAMMA**k * weights[i][k] * rewards[i][k] / n
            expected["weighted per-decision"] += GAMMA**k * weights[i][k] * rewards[i][k] / column
            expected["robust"] += GAMMA**k * weights[i][k] * errors[i][k] / n
            expected["robust weighted"] += GAMMA**k * weights[i][k] * errors[i][k] / column
    squares = sum(weights[i][-1] ** 2 for i in rows)
    for form, value in expected.items():
        estimate = data.run(form, poison=math.nan)
        assert estimate.value.item() == pytest.approx(value, abs=1e-9)
        assert len(estimate.contribution) == n and estimate.contribution.mean().item() == pytest.approx(value, abs=1e-9)
        assert estimate.effective_sample_size.item() == pytest.approx(total_weight**2 / squares)


@given(seed=seeds, form=st.sampled_from(["ordinary", "weighted", "per-decision", "weighted per-decision", "robust", "robust weighted"]))
def test_order_and_padding_change_nothing(seed: int, form: str) -> None:
    data = draw(seed)
    whole = data.run(form)
    shuffled = data.run(form, torch.randperm(5, generator=torch.Generator().manual_seed(seed)))
    wide = Steps(*(torch.cat([x, x.new_zeros(5, 3)], -1) for x in vars(data).values())).run(form)
    for other in (shuffled, wide):
        torch.testing.assert_close(other[:3], whole[:3], equal_nan=True)  # one episode has no standard error


def test_on_policy_every_form_is_the_mean_return() -> None:
    reward = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 1.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    for per_decision, weighted in FORMS:
        estimate = importance_sampling(torch.zeros(2, 3), reward, mask, gamma=0.5, per_decision=per_decision, weighted=weighted)
        assert estimate.value.item() == pytest.approx((1 + 1 + 1 + 3) / 2)
        assert estimate.effective_sample_size.item() == pytest.approx(2.0)
        assert estimate.standard_error.item() == pytest.approx(0.0)


def test_actions_the_target_never_takes_weigh_nothing() -> None:
    log_ratio = torch.tensor([[0.0, -math.inf], [-math.inf, 3.0], [0.5, 0.5]])
    reward = torch.tensor([[1.0, 8.0], [8.0, 8.0], [2.0, 4.0]])
    first, second = math.exp(0.5), math.e
    per_decision = importance_sampling(log_ratio, reward, gamma=1.0)
    assert per_decision.value.item() == pytest.approx((1 + first * 2 + second * 4) / 3)
    assert per_decision.effective_sample_size.item() == pytest.approx(1.0)
    assert importance_sampling(log_ratio, reward, gamma=1.0, per_decision=False, weighted=True).value.item() == pytest.approx(6.0)
    never = importance_sampling(torch.full((2, 1), -math.inf), torch.ones(2, 1), gamma=1.0)
    assert never.value.item() == 0.0 and never.effective_sample_size.item() == 0.0


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_weighted_forms_neither_overflow_nor_vanish(size: float) -> None:
    log_ratio = torch.tensor([[size, size], [size, size - 1.0]])
    reward = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    share = 1 / (1 + math.exp(-1))
    estimate = importance_sampling(log_ratio, reward, gamma=1.0, weighted=True)
    assert estimate.value.item() == pytest.approx(2 + share * 2 + (1 - share) * 5) and estimate.standard_error.isfinite()
    whole = importance_sampling(log_ratio, reward, gamma=1.0, per_decision=False, weighted=True)
    assert whole.value.item() == pytest.approx(share * 3 + (1 - share) * 8)


def test_mistakes_are_refused() -> None:
    ones = torch.ones(2, 3)
    flag = torch.tensor([[False, True, False], [False, False, True]])
    with pytest.raises(RheostatError, match=r"reward \[2, 1\]"):
        importance_sampling(ones, ones[:, :1], gamma=0.9)
    with pytest.raises(RheostatError, match="one episode a row"):
        importance_sampling(ones[0], ones[0], gamma=0.9)
    with pytest.raises(RheostatError, match="NaN at 2 kept steps"):
        importance_sampling(ones.masked_fill(flag, math.nan), ones, gamma=0.9)
    with pytest.raises(RheostatError, match="goes on after it was terminated"):
        importance_sampling(ones, ones, gamma=0.9, terminated=flag)
    with pytest.raises(RheostatError, match="goes on after it was truncated"):
        doubly_robust(ones, ones, ones, ones, gamma=0.9, truncated=flag)
    with pytest.raises(RheostatError, match="terminated must be given"):
        importance_sampling(ones, ones, gamma=0.9, next_value=ones)
    with pytest.raises(RheostatError, match="no episode"):
        importance_sampling(ones, ones, ones < 0, gamma=0.9)
