"""Trials of many episodes by loops, a step and a head at a time: LLaMA's layer (Touvron et al. 2023), rotary angles (Su et al. 2021), a
sink beside the keys, and PPO on the newest steps with the older ones as context (arXiv 2410.02751)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rheostat.training.settings import Settings
from tests.plain import control_on_policy as on
from tests.plain import control_plain as cp
from tests.plain.control_cases import Case
from tests.plain.control_memory import Head
from tests.plain.control_path import Turn
from tests.plain.control_plain import Followed, Parameters, Plain
from tests.plain.control_world import CONTINUOUS, DISCRETE


def normed(x: Tensor, weight: Tensor) -> Tensor:
    """Divided by the root of its mean square."""
    return x / torch.sqrt((x**2).sum() / len(x) + 1e-6) * weight


def turned_by(x: Tensor, angle: int) -> Tensor:
    """Each pair of a number of the first half and one of the second, turned by multiples of the angle."""
    half, found = len(x) // 2, [torch.zeros(())] * len(x)
    for i in range(half):
        by = angle / 10_000 ** (i / half)
        found[i] = x[i] * math.cos(by) - x[half + i] * math.sin(by)
        found[half + i] = x[half + i] * math.cos(by) + x[i] * math.sin(by)
    return torch.stack(found)


class Layers:
    """A transformer's layers along one trial.

    Args:
        p: its parameters.
        o: options.
        factors: of the layers; 1 where not given.
    """

    def __init__(self, p: Parameters, o: Any, factors: list[float]) -> None:
        self.p, self.o, self.factors = p, o, factors
        self.past: list[list[tuple[list[Tensor], list[Tensor], bool, int]]] = [[] for _ in range(o.layers)]
        self.shift = int(o.sink != "none")
        self.sinks: list[Any] = [None] * o.layers
        if o.sink == "token":
            self.pass_token()

    def heads(self, layer: int, x: Tensor) -> list[list[Tensor]]:
        """Queries, keys and values by head."""
        found = self.p[f"blocks.{layer}.project.weight"] @ normed(x, self.p[f"blocks.{layer}.attention_norm.weight"])
        size = self.o.width // self.o.heads
        return [[part[h * size : (h + 1) * size] for h in range(self.o.heads)] for part in found.chunk(3)]

    def onward(self, layer: int, x: Tensor, attended: list[Tensor]) -> Tensor:
        """Both branches added."""
        name, factor = f"blocks.{layer}", self.factors[layer]
        x = x + factor * (self.p[f"{name}.merge.weight"] @ torch.cat(attended))
        gate, up = (self.p[f"{name}.up.weight"] @ normed(x, self.p[f"{name}.perceptron_norm.weight"])).chunk(2)
        gelu = 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
        return x + factor * (self.p[f"{name}.down.weight"] @ (gelu * up))

    def pass_token(self) -> None:
        """The sink token sees itself alone, in every layer."""
        x = self.p["sink_token"]
        for layer in range(self.o.layers):
            _, keys, values = self.heads(layer, x)
            self.sinks[layer] = (keys, values)
            x = self.onward(layer, x, values)

    def sink(self, layer: int, h: int) -> list[tuple[Tensor, Tensor]]:
        """The key and value besides those of steps."""
        if self.o.sink == "none":
            return []
        if self.o.sink == "token":
            return [(self.sinks[layer][0][h], self.sinks[layer][1][h])]
        return [(self.p[f"blocks.{layer}.sink_key"][h, 0], self.p[f"blocks.{layer}.sink_value"][h, 0])]

    def step(self, x: Tensor, episode: int, seen: bool) -> Tensor:
        """The features of one more step."""
        for layer in range(self.o.layers):
            queries, keys, values = self.heads(layer, x)
            angle = episode + self.shift
            queries, keys = [turned_by(q, angle) for q in queries], [turned_by(k, angle) for k in keys]
            known = [each for each in self.past[layer] if each[2] and (self.o.across_episodes or each[3] == episode)]
            known.append((keys, values, seen, episode))
            attended = []
            for h, query in enumerate(queries):
                pairs = [*self.sink(layer, h), *((each[0][h], each[1][h]) for each in known)]
                score = torch.stack([(query * key).sum() / math.sqrt(len(query)) for key, _ in pairs])
                weight = torch.exp(score - score.max().detach())
                attended.append(sum((w / weight.sum() * value for w, (_, value) in zip(weight, pairs, strict=True)), torch.zeros(())))
            self.past[layer].append((keys, values, seen, episode))
            x = self.onward(layer, x, attended)
        return normed(x, self.p["norm.weight"])


class Trials:
    """The rows of a turn, as the retainers left them."""

    def __init__(self, turn: Turn, head: Head, sizes: tuple[int, ...]) -> None:
        self.turn, self.head, self.o, self.sizes = turn, head, turn.options, sizes
        self.rows, self.begins, self.seen = turn.rows, turn.columns["begins"], turn.columns["seen"]
        self.start: dict[tuple[int, int], float] = {}
        self.value: dict[tuple[int, int], float] = {}
        self.advantage: dict[tuple[int, int], float] = {}

    def told(self, action: Tensor | None) -> Tensor:
        """The action before, as a token holds it."""
        if self.sizes:
            found = torch.zeros(self.sizes[0], dtype=torch.float64)
            if action is not None:
                found[int(action)] = 1.0
            return found
        return torch.zeros(2, dtype=torch.float64) if action is None else action.double()

    def along(self, p: Parameters, e: int, factors: list[float] | None = None, beyond: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Place and features of every row of a trial; ``beyond``: and of the successor of the last one."""
        layers = Layers(p, self.o, factors or [1.0] * self.o.layers)
        steps, position, episode = self.rows.shape[1], -1, 0
        action, reward = None, 0.0
        for t in range(steps + beyond):
            begins = t < steps and bool(self.begins[e, t])
            position, episode = (0 if begins else position + 1), episode + (begins and t > 0)
            observation = self.rows.observation[e, t] if t < steps else self.rows.next_observation[e, steps - 1]
            told = self.told(None if begins else action)
            parts = [observation.double(), told, torch.tensor([float(begins)]).double()]
            parts += [torch.tensor([reward]).double()] if self.o.reads_reward else []
            x = p["token.weight"] @ torch.cat(parts) + p["token.bias"] + p["position.weight"][position + layers.shift]
            seen = t < steps and bool(self.seen[e, t])
            yield t, layers.step(x, episode, seen)
            if seen:
                action, reward = self.rows.action[e, t], float(self.rows.reward[e, t])

    def worth(self, p: Parameters) -> None:
        """Values, log-probabilities and advantages where the update begins, of all steps of all trials."""
        for e in range(len(self.rows)):
            steps, values = self.rows.shape[1], {}
            for t, features in self.along(p, e, beyond=True):
                values[t] = float(self.head.value(p, features))
                if t < steps:
                    self.start[e, t] = float(self.head.log_prob(p, features, self.action(e, t)))
            self.value |= {(e, t): values[t] for t in range(steps)}
            total = 0.0
            for t in reversed([t for t in range(steps) if self.seen[e, t]]):
                goes_on = 0.0 if self.rows.terminated[e, t] or self.rows.truncated[e, t] else 1.0
                delta = float(self.rows.reward[e, t]) + self.o.gamma * goes_on * values[t + 1] - values[t]
                total = delta + self.o.gamma * self.o.lam * goes_on * total
                self.advantage[e, t] = total

    def action(self, e: int, t: int) -> Tensor:
        """What was done."""
        found: Tensor = self.rows.action[e, t]
        return found.double() if found.is_floating_point() else found

    def check_acting(self, fresh: int) -> None:
        """What was done in the newest steps had the density that it says, by the context as it stands."""
        for e in range(len(self.rows)):
            for t in range(self.rows.shape[1] - fresh, self.rows.shape[1]):
                if self.seen[e, t]:
                    assert abs(self.start[e, t] - float(self.rows.sampler_logp[e, t])) < 1e-5


def loss_of(now: Trials, p: Parameters, chosen: list[int], factors: list[float], counts: dict[str, int]) -> Tensor | None:
    """Of the trials of one minibatch, over the steps that the loss is about."""
    o, parts = now.o, []
    for e in chosen:
        for t, features in now.along(p, e, factors):
            if not now.rows.mask[e, t]:
                continue
            log_prob, value = now.head.log_prob(p, features, now.action(e, t)), now.head.value(p, features)
            old = float(now.rows.sampler_logp[e, t]) if o.ratio_to == "sampler" else now.start[e, t]
            advantage, before = now.advantage[e, t], now.value[e, t]
            on.acted(counts, "clip", (torch.exp(log_prob.detach() - old) - 1) * advantage > o.clip * abs(advantage))
            on.acted(counts, "clip_value", abs(cp.number(value) - before) > o.clip)
            judged = before + (value - before).clamp(-o.clip, o.clip) if o.clip_value else value
            error = 0.5 * (judged - (advantage + before)) ** 2
            part = on.surrogate(o, log_prob, old, advantage) + o.value_coefficient * error
            parts.append(part - o.entropy_coefficient * now.head.entropy(p, features))
    return cp.mean(parts) if parts else None


def rate_of(o: Any, steps: int) -> float:
    """By environment steps: up from a thousandth, then down along a cosine."""
    if steps < o.warmup_steps:
        return float(o.learning_rate * (1e-3 + (1 - 1e-3) * steps / o.warmup_steps))
    along = min(1.0, (steps - o.warmup_steps) / o.decay_steps)
    return float(1e-5 + (o.learning_rate - 1e-5) * (1 + math.cos(math.pi * along)) / 2)


def update(plain: Plain, now: Trials, rate: float) -> None:
    """Passes over minibatches of whole trials, whose gradients are summed."""
    o, counts = now.o, plain.counts
    for _ in range(o.epochs):
        order = torch.randperm(len(now.rows), generator=now.turn.chance("minibatches"))
        pieces = [chosen.tolist() for chosen in order.tensor_split(o.minibatches)]
        for first in range(0, len(pieces), o.accumulated_minibatches):
            total = torch.zeros((), dtype=torch.float64)
            for chosen in pieces[first : first + o.accumulated_minibatches]:
                factors = [1.0] * o.layers
                if o.depth_dropout:
                    drawn = torch.rand(o.layers, generator=now.turn.chance("depth dropout")).tolist()
                    factors = [float(each >= o.depth_dropout) for each in drawn]
                    on.acted(counts, "dropout", 0.0 in factors)
                found = loss_of(now, plain.p["policy"], chosen, factors, counts)
                assert found is not None
                total = total + found
            plain.descend("policy", total, rate, o.max_grad_norm)


def permuted(now: Turn, before: Turn) -> bool:
    """Whether the older rows are those of the turn before, in another order.

    Raises:
        AssertionError: they are others.
    """
    steps = before.rows.shape[1]
    if now.rows.shape[1] <= steps:
        return False
    moved = False
    for e in range(len(now.rows)):
        mine, theirs = (each.rows.observation[e, :steps].tolist() for each in (now, before))
        assert sorted(mine) == sorted(theirs)
        moved |= mine != theirs
    return moved


def following(sizes: tuple[int, ...]) -> Any:
    """The plain side of a run."""

    def follow(turns: list[Turn], settings: Settings, counts: dict[str, int]) -> Iterator[Followed]:
        plain = Plain(turns[0].start, eps=1e-5)
        plain.counts = counts
        for number in range(len(turns)):
            turn = turns[number].again()
            o = turn.options
            fresh = o.batch_steps // o.num_envs
            plain.begin(turn.start)
            now = Trials(turn, Head(o, sizes), sizes)
            now.worth(plain.fixed("policy"))
            now.check_acting(fresh)
            place = number % o.updates_per_trial
            assert turn.rows.shape[1] == fresh * (place + 1)
            every = o.updates_per_trial // o.full_updates if o.full_updates else 0
            loss_from = 0 if every and (place + 1) % every == 0 else fresh * place
            assert torch.equal(turn.rows.mask, now.seen & (torch.arange(turn.rows.shape[1]) >= loss_from))
            on.acted(counts, "context", loss_from)
            on.acted(counts, "full", place and not loss_from)
            on.acted(counts, "permuted", number and permuted(turn, turns[number - 1]))
            update(plain, now, rate_of(o, turn.steps))
            yield plain.followed()

    return follow


OPTIONS: dict[str, Any] = {
    "num_envs": 3, "batch_steps": 24, "steps": 50, "updates_per_trial": 2, "layers": 1, "width": 4, "heads": 2, "inner": 3, "epochs": 2,
    "minibatches": 3, "accumulated_minibatches": 2, "learning_rate": 2e-2, "warmup_steps": 40, "decay_steps": 300, "gamma": 0.9, "lam": 0.8,
    "clip": 0.05, "entropy_coefficient": 0.02, "value_coefficient": 0.7, "max_grad_norm": 0.3,
}  # fmt: skip
ACTS = ("clip", "norm limit", "full", "permuted")

TOKEN = {"layers": 2, "sink": "token", "full_updates": 0, "clip_value": True, "depth_dropout": 0.3, "ratio_to": "start"}
SINGLE = {"sink": "none", "across_episodes": False, "reads_reward": False}
MORE = ("context", "clip_value", "dropout")

CASES: list[Case] = [
    Case("relic", DISCRETE, OPTIONS, following((3,)), ACTS, "discrete"),
    Case("relic", CONTINUOUS, OPTIONS | TOKEN, following(()), (*(set(ACTS) - {"full"}), *MORE), "continuous"),
    Case("relic", DISCRETE, OPTIONS | SINGLE, following((3,)), ACTS, "single episode"),
]
