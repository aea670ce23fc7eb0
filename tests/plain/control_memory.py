"""Recurrent PPO by loops, a step at a time: the LSTM by its equations (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.
2000); details 32 to 36 of Huang et al. 2022."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rheostat.training.settings import Settings
from tests.plain import control_on_policy as on
from tests.plain import control_plain as cp
from tests.plain.control_cases import Case
from tests.plain.control_path import Turn
from tests.plain.control_plain import Followed, Parameters, Plain
from tests.plain.control_world import CONTINUOUS, DISCRETE


def remembered(p: Parameters, seen: Tensor, memory: Tensor) -> Tensor:
    """The next memory: hidden state, then cell; gates in the order input, forget, cell, output."""
    x = torch.tanh(p["encoder.1.0.weight"] @ seen + p["encoder.1.0.bias"])
    hidden, cell = memory.chunk(2)
    gates = p["lstm.weight_ih_l0"] @ x + p["lstm.bias_ih_l0"] + p["lstm.weight_hh_l0"] @ hidden + p["lstm.bias_hh_l0"]
    come, forget, new, go = gates.chunk(4)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(come) * torch.tanh(new)
    return torch.cat([torch.sigmoid(go) * torch.tanh(cell), cell])


class Head(on.Policy):
    """Actor and critic upon the hidden state."""

    def outputs(self, p: Parameters, seen: Tensor) -> Tensor:
        return p["heads.actor_head.weight"] @ seen + p["heads.actor_head.bias"]

    def log_prob(self, p: Parameters, seen: Tensor, action: Tensor) -> Tensor:
        return super().log_prob(self.with_deviation(p), seen, action)

    def entropy(self, p: Parameters, seen: Tensor) -> Tensor:
        return super().entropy(self.with_deviation(p), seen)

    def value(self, p: Parameters, seen: Tensor) -> Tensor:
        return (p["heads.critic_head.weight"] @ seen + p["heads.critic_head.bias"])[0]

    @staticmethod
    def with_deviation(p: Parameters) -> Parameters:
        """The deviation by its usual name."""
        return p | {"log_std": p["heads.log_std"]} if "heads.log_std" in p else p


class Sequences:
    """The rows of a turn.

    Args:
        turns: so far.
        head: the policy.
    """

    def __init__(self, turns: list[Turn], head: Head) -> None:
        self.turn, self.head, self.o = turns[-1], head, turns[-1].options
        self.rows, self.begins = self.turn.rows, self.turn.columns["begins"]
        self.statistics = on.Statistics([on.fresh(each) for each in turns], self.o.gamma)
        self.before = on.Statistics([on.fresh(each) for each in turns[:-1]], self.o.gamma) if len(turns) > 1 else None
        self.steps = on.steps_of(self.rows, self.statistics, self.o)

    def along(self, p: Parameters, e: int, acting: bool = False) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Place, hidden state and memory of every step of a row; ``acting``: by the statistics of that time."""
        memory = cp.double(self.turn.columns["memory"][e])
        for t in range(self.rows.shape[1]):
            if self.begins[e, t]:
                memory = torch.zeros_like(memory)
            seen, statistics = self.rows.observation[e, t].double(), self.before if acting else self.statistics
            seen = seen.clamp(-10, 10) if statistics is None else statistics.read(seen)
            memory = remembered(p, seen, memory)
            yield t, memory.chunk(2)[0], memory

    def worth(self, p: Parameters) -> None:
        """Values, advantages and log-probabilities where the update begins; a successor is one more step of the memory."""
        by_place, values = {step.place: step for step in self.steps}, {}
        for e in range(len(self.rows)):
            for t, hidden, memory in self.along(p, e):
                if (e, t) in by_place:
                    step = by_place[e, t]
                    step.start = float(self.head.log_prob(p, hidden, step.action))
                    beyond = remembered(p, step.following, memory).chunk(2)[0]
                    values[id(step.seen)], values[id(step.following)] = self.head.value(p, hidden), self.head.value(p, beyond)
        on.advantages(self.steps, lambda seen: values[id(seen)], self.o, self.o.bootstrap_on_truncation)

    def check_acting(self, p: Parameters) -> None:
        """What was done had the density that it says."""
        for e in range(len(self.rows)):
            for t, hidden, _ in self.along(p, e, acting=True):
                if self.rows.mask[e, t]:
                    action = self.rows.action[e, t]
                    found = self.head.log_prob(p, hidden, action.double() if action.is_floating_point() else action)
                    assert abs(float(found) - float(self.rows.sampler_logp[e, t])) < 1e-5


def update(plain: Plain, head: Head, now: Sequences, rate: float) -> None:
    """PPO on minibatches of whole rows."""
    o, counts = now.o, plain.counts
    for _ in range(o.epochs):
        order = torch.randperm(len(now.rows), generator=now.turn.chance("minibatches"))
        for chosen in order.tensor_split(o.minibatches):
            places = [i for e in chosen.tolist() for i, step in enumerate(now.steps) if step.place[0] == e]
            weights = dict(zip(places, on.advantages_of(o, now.steps, places, counts), strict=True))
            p, parts, at = plain.p["policy"], [], {now.steps[i].place: i for i in places}
            for e in chosen.tolist():
                for t, hidden, _ in now.along(p, e):
                    if (e, t) not in at:
                        continue
                    i = at[e, t]
                    step, advantage = now.steps[i], weights[i]
                    log_prob, value = head.log_prob(p, hidden, step.action), head.value(p, hidden)
                    on.acted(counts, "clip", (torch.exp(log_prob.detach() - step.start) - 1) * advantage > o.clip * abs(advantage))
                    on.acted(counts, "clip_value", abs(cp.number(value) - step.value) > o.clip)
                    loss = on.surrogate(o, log_prob, step.start, advantage) + o.value_coefficient * on.critic_error(o, value, step)
                    parts.append(loss - o.entropy_coefficient * head.entropy(p, hidden))
            plain.descend("policy", cp.mean(parts), rate, o.max_grad_norm)


def following(sizes: tuple[int, ...]) -> Any:
    """The plain side of a run."""

    def follow(turns: list[Turn], settings: Settings, counts: dict[str, int]) -> Iterator[Followed]:
        plain = Plain(turns[0].start, eps=1e-5)
        plain.counts = counts
        for number in range(len(turns)):
            so_far = [*turns[:number], turns[number].again()]
            plain.begin(so_far[-1].start)
            head, p = Head(so_far[-1].options, sizes), plain.fixed("policy")
            now = Sequences(so_far, head)
            now.check_acting(p)
            now.worth(p)
            on.acted(counts, "memory", so_far[-1].columns["memory"].abs().max() > 0)
            on.acted(counts, "begins", so_far[-1].columns["begins"][:, 1:].any())
            update(plain, head, now, on.rate_of(so_far[-1], so_far, settings.steps))
            yield plain.followed()

    return follow


OPTIONS: dict[str, Any] = on.BASE | on.PASSES | {"num_envs": 4, "batch_steps": 32, "steps": 50, "lstm_units": 4}
ACTS = (*on.CLIPS, "memory", "begins")

CASES: list[Case] = [
    Case("recurrent-ppo", CONTINUOUS, OPTIONS, following(()), ACTS, "continuous"),
    Case("recurrent-ppo", DISCRETE, OPTIONS | {"clip": 0.02}, following((3,)), ACTS, "discrete"),
]
