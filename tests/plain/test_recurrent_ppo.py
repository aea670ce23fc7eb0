"""Recurrent PPO against loops: the LSTM by its equations, one step and one row at a time; advantages and losses step by step; autograd."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.learners import weights
from tests.tiny_control import learner

GAMMA, LAM, EPSILON, RATE, ENTROPY, VALUE, NORM = 0.9, 0.8, 0.05, 1e-3, 0.02, 0.7, 0.3
OPTIONS: dict[str, Any] = {
    "num_envs": 4, "batch_steps": 128, "epochs": 2, "minibatches": 2, "hidden": (6,), "lstm_units": 5, "gamma": GAMMA, "lam": LAM,
    "clip": EPSILON, "learning_rate": RATE, "entropy_coefficient": ENTROPY, "value_coefficient": VALUE, "max_grad_norm": NORM,
    "normalise_observations": False, "normalise_rewards": False, "anneal": False,
}  # fmt: skip


def outputs(p: dict[str, Tensor], observation: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities ``[A]``, value and next memory at one observation ``[n]``: gates in the order input, forget, cell, output."""
    x = torch.tanh(p["encoder.1.0.weight"] @ observation + p["encoder.1.0.bias"])
    hidden, cell = memory.chunk(2)
    gates = p["lstm.weight_ih_l0"] @ x + p["lstm.bias_ih_l0"] + p["lstm.weight_hh_l0"] @ hidden + p["lstm.bias_hh_l0"]
    come, forget, new, go = gates.chunk(4)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(come) * torch.tanh(new)
    hidden = torch.sigmoid(go) * torch.tanh(cell)
    logits = p["heads.actor_head.weight"] @ hidden + p["heads.actor_head.bias"]
    value = p["heads.critic_head.weight"] @ hidden + p["heads.critic_head.bias"]
    return logits.log_softmax(0), value[0], torch.cat([hidden, cell])


def walk(p: dict[str, Tensor], rows: Any, row: int, begins: Tensor, memory: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The outputs along one row, and the value of the true successor of every step."""
    found, now = [], memory[row]
    for t in range(rows.shape[1]):
        if begins[row, t]:
            now = torch.zeros_like(now)
        log_probs, value, now = outputs(p, rows.observation[row, t], now)
        _, following, _ = outputs(p, rows.next_observation[row, t], now)
        found.append((log_probs, value, following))
    return found


def advantages(rows: Any, row: int, along: list[tuple[Tensor, Tensor, Tensor]]) -> dict[int, float]:
    """GAE of the real steps of one row, by its definition: a sum over all later steps of the episode."""
    real = [t for t in range(rows.shape[1]) if rows.mask[row, t]]
    delta = {}
    for t in real:
        beyond = 0.0 if rows.terminated[row, t] else along[t][2].item()
        delta[t] = float(rows.reward[row, t]) + GAMMA * beyond - along[t][1].item()
    found = {}
    for place, t in enumerate(real):
        total, factor = 0.0, 1.0
        for later in real[place:]:
            total += factor * delta[later]
            factor *= GAMMA * LAM
            if rows.terminated[row, later] or rows.truncated[row, later]:
                break
        found[t] = total
    return found


def plain_update(p: dict[str, Tensor], rows: Any, begins: Tensor, memory: Tensor, chance: torch.Generator) -> None:
    """One update in place: every epoch draws an order of the rows and cuts it in two."""
    everywhere = {row: walk(p, rows, row, begins, memory) for row in range(len(rows))}
    start = {
        (row, t): (log_probs[rows.action[row, t]].detach(), value.detach())
        for row, along in everywhere.items()
        for t, (log_probs, value, _) in enumerate(along)
    }
    advantage = {(row, t): a for row, along in everywhere.items() for t, a in advantages(rows, row, along).items()}
    optimizer = torch.optim.Adam(list(p.values()), lr=RATE, eps=1e-5)
    for _ in range(2):
        for chosen in torch.randperm(len(rows), generator=chance).tensor_split(2):
            places = [place for row in chosen.tolist() for place in advantage if place[0] == row]
            raw = torch.tensor([advantage[place] for place in places])
            mean, deviation = raw.mean(), math.sqrt(float((raw - raw.mean()).square().sum()) / (len(raw) - 1))
            along = {row: walk(p, rows, row, begins, memory) for row in chosen.tolist()}
            loss = torch.zeros(())
            for (row, t), a in zip(places, (raw - mean) / (deviation + 1e-8), strict=True):
                log_probs, value, _ = along[row][t]
                old_logp, old_value = start[row, t]
                ratio = (log_probs[rows.action[row, t]] - old_logp).exp()
                policy = torch.maximum(-a * ratio, -a * ratio.clamp(1 - EPSILON, 1 + EPSILON))
                target = advantage[row, t] + old_value
                moved = old_value + (value - old_value).clamp(-EPSILON, EPSILON)
                critic = 0.5 * torch.maximum((value - target) ** 2, (moved - target) ** 2)
                entropy = -(log_probs.exp() * log_probs).sum()
                loss = loss + policy + VALUE * critic - ENTROPY * entropy
            optimizer.zero_grad()
            (loss / len(places)).backward()
            torch.nn.utils.clip_grad_norm_(list(p.values()), NORM)
            optimizer.step()


def test_an_update_is_the_plain_one() -> None:
    """The second batch: rows begin in the middle of episodes, with memories; episodes end and begin inside them."""
    one = learner("recurrent-ppo", "CartPole-v1", **OPTIONS)
    one.turn()
    batch = one.collect()
    assert batch.columns["memory"].abs().sum(1).gt(0).any() and batch.columns["begins"][:, 1:].any() and not batch.rows.mask.all()
    p = {name: value.detach().clone().requires_grad_() for name, value in one.policy.named_parameters()}
    chance = torch.Generator()
    chance.set_state(one.context.streams["minibatches"].get_state())
    rows, begins, memory = batch.rows.clone(), batch.columns["begins"].clone(), batch.columns["memory"].clone()
    model = one.context.models["policy"]
    model.optimizer.state.clear()  # the plain one begins without moments
    before = weights(one.policy)
    one.improve(one.credit(one.retain(batch)))
    plain_update(p, rows, begins, memory, chance)
    moved = weights(one.policy) - before
    assert moved.abs().max() > 1e-3
    torch.testing.assert_close(moved, torch.cat([value.detach().flatten() for value in p.values()]) - before, atol=2e-6, rtol=1e-3)
