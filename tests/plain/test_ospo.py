"""OSPO against loops: advantages vehicle by vehicle, the network pair by pair, the loss row by row, Adam by PyTorch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_control import learner

OPTIONS: dict[str, Any] = {
    "environment_options": {"size": 5, "minutes": 8, "vehicles": 6, "demand": 3.0}, "steps": 64, "cities": 2, "hidden": (5, 4),
    "updates_per_turn": 1, "batch_size": 48, "learning_rate": 1e-2, "max_grad_norm": 0.3, "exploration": 0.3, "gamma": 0.9,
    "entropy_coefficient": 0.03,
}  # fmt: skip
GAMMA, LAM, NORM, ENTROPY, BETA = 0.9, 0.95, 0.3, 0.03, 0.5


def perceptron(p: dict[str, Tensor], names: list[str], x: Tensor) -> Tensor:
    """Linear layers with a leaky rectifier between them."""
    for index, name in enumerate(names):
        x = p[f"{name}.weight"] @ (x if index == 0 else torch.where(x > 0, x, 0.01 * x)) + p[f"{name}.bias"]
    return x[0]


def share(p: dict[str, Tensor], vehicle: Tensor, orders: Tensor) -> Tensor:
    """The policy's shares of the open orders of one vehicle."""
    scores = torch.stack([perceptron(p, ["pair", "rest.0", "rest.1"], torch.cat([vehicle, order])) for order in orders])
    return scores.exp() / scores.exp().sum() + 1e-8


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((each - mean) ** 2 for each in values) / len(values))


def standardised(values: list[float], groups: list[Any]) -> list[float]:
    """Each value among those of its group."""
    found = []
    for value, group in zip(values, groups, strict=True):
        mean, deviation = mean_and_deviation([other for other, its in zip(values, groups, strict=True) if its == group])
        found.append((value - mean) / (deviation + 1e-8))
    return found


def plain_advantages(batch: Any, form: str, values: list[float], sign: float) -> tuple[list[float], list[float]]:
    """Advantages and the critic's targets, row by row from the last."""
    reward = batch.rows.reward.tolist()
    city, minute, vehicle, gap, fair = (batch.columns[name].tolist() for name in ("city", "minute", "vehicle", "gap", "fairness"))
    rows = range(len(reward))
    following = [next((b for b in rows if b > a and vehicle[b] == vehicle[a]), None) for a in rows]
    assert [gap[a] for a in rows] == [-1 if b is None else minute[b] - minute[a] for a, b in enumerate(following)]
    worth, target = [0.0] * len(reward), [0.0] * len(reward)
    if form == "one-step":
        worth = standardised(reward, list(zip(city, minute, strict=True)))
    elif form == "to-go":
        for a, z in reversed(list(enumerate(standardised(reward, city)))):
            later = following[a]
            worth[a] = z + (0.0 if later is None else GAMMA ** gap[a] * worth[later])
    else:
        for a in reversed(rows):
            later = following[a]
            beyond = 0.0 if later is None else GAMMA ** gap[a] * values[later]
            chain = 0.0 if later is None else (GAMMA * LAM) ** gap[a] * worth[later]
            worth[a] = reward[a] + beyond - values[a] + chain
        target = [a + v for a, v in zip(worth, values, strict=True)]
        worth = standardised(worth, city)
    return [a + sign * u for a, u in zip(worth, fair, strict=True)], target


def plain_update(p: dict[str, Tensor], q: dict[str, Tensor], batch: Any, advantage: list[float], beta: float, chance: Any) -> None:
    """A step on 48 rows drawn with replacement, in place."""
    optimizer = torch.optim.Adam(list(p.values()), lr=1e-2, eps=1e-8)
    loss = torch.zeros(())
    for row in torch.randint(len(batch), (48,), generator=chance).tolist():
        table = int(batch.columns["table"][row])
        orders = batch.facts["orders"][table][batch.facts["open"][table]]
        vehicle = batch.rows.observation[row]
        mine, best = share(p, vehicle, orders), share(q, vehicle, orders).detach()
        ratio = mine[batch.rows.action[row]] / batch.rows.sampler_logp[row].exp()
        policy = -torch.minimum(ratio * advantage[row], ratio.clamp(0.8, 1.28) * advantage[row])
        distance = (mine * (mine.log() - best.log())).mean()
        loss = loss + policy + beta * distance + ENTROPY * (mine * mine.log()).sum()
    (loss / 48).backward()
    torch.nn.utils.clip_grad_norm_(list(p.values()), NORM)
    optimizer.step()


def copy(network: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}


def worst_difference(form: str, beta: float, sign: float) -> float:
    """Between an update of the real training path and the plain one."""
    one = learner("ospo", "city", **OPTIONS | {"advantage": form})
    context = one.context
    if beta:
        context.stores["standing"].held = True
        with torch.no_grad():
            context.models["reference"].parameters.vector.add_(0.02)
    batch = one.retain(one.collect())
    p, q = copy(context.models["policy"].network), copy(context.models["reference"].network)
    values: list[float] = []
    if form == "critic":
        v = copy(context.models["value"].network)
        values = [perceptron(v, ["layers.0", "layers.1", "layers.2"], each).item() for each in batch.rows.observation]
    wanted, target = plain_advantages(batch, form, values, sign)
    chance = torch.Generator()
    chance.set_state(context.streams["minibatches"].get_state())
    batch = one.credit(batch)
    if form == "critic":
        assert torch.allclose(batch.rows.value_target, torch.tensor(target), atol=1e-4)
    one.improve(batch)
    plain_update(p, q, batch, wanted, beta, chance)
    model = context.models["policy"]
    worst = 0.0
    for name, value in model.network.named_parameters():
        gradient, plain = model.parameters.part(model.parameters.gradient, value), p[name].grad
        assert plain is not None
        clear = plain.abs() > 1e-3  # elsewhere the first step of Adam has the sign of rounding
        moved = torch.where(clear, (value - p[name]).detach(), 0.0)
        worst = max(worst, float((gradient - plain).abs().max()), float(moved.abs().max()))
    return worst


@pytest.mark.parametrize("form", ["one-step", "to-go", "critic"])
def test_an_update_is_the_plain_one(form: str) -> None:
    assert worst_difference(form, 0.0, 1.0) < 1e-5
    assert worst_difference(form, 0.0, -1.0) > 1e-4  # the other sign of the fairness term is seen


def test_an_update_with_a_reference_is_the_plain_one() -> None:
    assert worst_difference("one-step", BETA, 1.0) < 1e-5
    assert worst_difference("one-step", 2 * BETA, 1.0) > 1e-5
