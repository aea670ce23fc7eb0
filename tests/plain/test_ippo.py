"""Independent PPO against loops: every agent alone, a step and a row at a time, by its own network; advantages and losses; autograd."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.learners import weights
from tests.methods.test_ippo import built
from tests.teams import Quarry

GAMMA, LAM, EPSILON, RATE, ENTROPY, VALUE, NORM = 0.9, 0.8, 0.05, 1e-3, 0.02, 0.7, 0.3
OPTIONS: dict[str, Any] = {
    "num_envs": 2, "batch_steps": 32, "epochs": 2, "minibatches": 2, "hidden": (6,), "gamma": GAMMA, "lam": LAM, "clip": EPSILON,
    "learning_rate": RATE, "entropy_coefficient": ENTROPY, "value_coefficient": VALUE, "max_grad_norm": NORM,
    "normalise_observations": False, "normalise_rewards": False, "anneal": False,
}  # fmt: skip


def perceptron(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """One hidden layer."""
    hidden = torch.tanh(p[f"{name}_body.0.weight"] @ x + p[f"{name}_body.0.bias"])
    return p[f"{name}_head.weight"] @ hidden + p[f"{name}_head.bias"]


def policy(p: dict[str, Tensor], x: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of an action and entropy: a softmax, or independent normals."""
    outputs = perceptron(p, "actor", x)
    if "log_std" not in p:
        log_probs = outputs.log_softmax(0)
        return log_probs[action], -(log_probs.exp() * log_probs).sum()
    normal = torch.distributions.Normal(outputs, p["log_std"].exp())
    return normal.log_prob(action).sum(), normal.entropy().sum()


def plain_update(p: dict[str, Tensor], rows: Any, chance: torch.Generator) -> None:
    """PPO's update on one agent's rows, in place."""
    places = [(row, t) for row in range(len(rows)) for t in range(rows.shape[1]) if rows.mask[row, t]]
    value = {place: perceptron(p, "critic", rows.observation[place]).item() for place in places}
    advantage: dict[tuple[int, int], float] = {}
    for row in range(len(rows)):
        chain = 0.0
        for t in reversed([t for own, t in places if own == row]):
            beyond = 0.0 if rows.terminated[row, t] else perceptron(p, "critic", rows.next_observation[row, t]).item()
            delta = rows.reward[row, t].item() + GAMMA * beyond - value[row, t]
            chain = delta + (0.0 if rows.terminated[row, t] or rows.truncated[row, t] else GAMMA * LAM * chain)
            advantage[row, t] = chain
    start = {place: policy(p, rows.observation[place], rows.action[place])[0].detach() for place in places}
    optimizer = torch.optim.Adam(list(p.values()), lr=RATE, eps=1e-5)
    for _ in range(2):
        order = torch.randperm(len(places), generator=chance).tolist()
        size = -(-len(places) // 2)
        for chosen in (order[:size], order[size:]):
            raw = torch.tensor([advantage[places[i]] for i in chosen])
            deviation = math.sqrt(float((raw - raw.mean()).square().sum()) / (len(raw) - 1))
            loss = torch.zeros(())
            for i, a in zip(chosen, (raw - raw.mean()) / (deviation + 1e-8), strict=True):
                place = places[i]
                log_prob, entropy = policy(p, rows.observation[place], rows.action[place])
                ratio = (log_prob - start[place]).exp()
                now = perceptron(p, "critic", rows.observation[place])[0]
                target = advantage[place] + value[place]
                moved = value[place] + (now - value[place]).clamp(-EPSILON, EPSILON)
                critic = 0.5 * torch.maximum((now - target) ** 2, (moved - target) ** 2)
                loss = loss + torch.maximum(-a * ratio, -a * ratio.clamp(1 - EPSILON, 1 + EPSILON)) + VALUE * critic - ENTROPY * entropy
            optimizer.zero_grad()
            (loss / len(chosen)).backward()
            torch.nn.utils.clip_grad_norm_(list(p.values()), NORM)
            optimizer.step()


def test_an_update_of_every_agent_is_the_plain_one() -> None:
    one = built(Quarry, **OPTIONS)
    batch = one.collect()
    plain = {}
    for name, each in batch.rows.items():
        context = one.members[name].context
        p = {key: value.detach().clone().requires_grad_() for key, value in context.policy.named_parameters()}
        chance = torch.Generator()
        chance.set_state(context.streams["minibatches"].get_state())
        plain[name] = (p, each.rows.clone(), chance, weights(context.policy))
    assert not batch.rows["scout"].rows.mask.all() and batch.rows["digger"].rows.mask.all()
    one.improve(one.credit(one.retain(batch)))
    for name, (p, rows, chance, before) in plain.items():
        plain_update(p, rows, chance)
        moved = weights(one.members[name].context.policy) - before
        assert moved.abs().max() > 1e-3
        expected = torch.cat([value.detach().flatten() for value in p.values()]) - before
        torch.testing.assert_close(moved, expected, atol=2e-6, rtol=1e-3, msg=name)
