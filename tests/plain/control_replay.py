"""Methods with a replay or a data set by loops, a transition at a time.

Equations, by paper: DQN 1312.5602 eq. 2 and 1509.06461 eq. 4; TD3 1802.09477 algorithm 1; TD3+BC 2106.06860 eq. 3 and 5; SAC 1812.05905
eq. 5, 9 and 18; RLPD 2302.02948 algorithm 1; AWAC 2006.09359 eq. 13; IQL 2110.06169 eq. 5 to 7; CQL 2006.04779 eq. 4 and appendix F;
FamO2O 2310.17966 eq. 5 to 8; PMOE 2104.09122 algorithm 1; priorities and n-step returns 1511.05952 eq. 1, 1710.02298 section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.offline import OfflineData
from rheostat.training.settings import Settings
from tests.plain import control_plain as cp
from tests.plain.control_cases import Case, Follow
from tests.plain.control_path import Turn
from tests.plain.control_plain import Followed, Parameters, Plain
from tests.plain.control_world import CONTINUOUS, DISCRETE
from tests.tiny_control import random_data

OFFLINE = 6
"""The number of a data set among sources."""


@dataclass
class Row:
    """A transition as the networks read it."""

    seen: Tensor
    action: Tensor
    reward: float
    following: Tensor
    discount: float
    weight: float
    index: int


# --- what is kept -------------------------------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """A step in a store.

    Attributes:
        after: place of the step that follows in the same episode, -1 where none does (yet).
        priority: of drawing it.
    """

    observation: Tensor
    action: Tensor
    reward: float
    following: Tensor
    terminated: bool
    after: int
    priority: float


class Store:
    """Steps in the order in which they came."""

    def __init__(self) -> None:
        self.steps: list[Kept] = []
        self.open: dict[int, int] = {}
        self.largest = 1.0

    def add(self, rows: Any, places: Any, environment: int, ends: bool, o: Any, factor: float) -> None:
        """A step of an environment."""
        reward = factor * float(rows.reward[places]) + getattr(o, "reward_shift", 0.0)
        if environment in self.open:
            self.steps[self.open[environment]].after = len(self.steps)
        self.open.pop(environment, None)
        if not ends:
            self.open[environment] = len(self.steps)
        values = (rows.observation[places], rows.action[places], reward, rows.next_observation[places])
        self.steps.append(Kept(*values, bool(rows.terminated[places]), -1, self.largest))

    def return_of(self, place: int, o: Any) -> tuple[float, Kept, int]:
        """The sum of up to n rewards, the last step that was summed, and how many there were."""
        step, total, count = self.steps[place], self.steps[place].reward, 1
        while count < getattr(o, "n_step", 1) and step.after >= 0:
            step = self.steps[step.after]
            total += o.gamma**count * step.reward
            count += 1
        return total, step, count


def factor_of(turn: Turn) -> float:
    """Of the rewards; a range of the returns of whole episodes where one is asked for."""
    o, data = turn.options, turn.context.offline
    factor = float(getattr(o, "reward_scale", 1.0))
    if getattr(o, "scale_returns_to", None) is None:
        return factor
    returns, total, last = [], 0.0, len(data) - 1
    for i in range(len(data)):
        total += float(data.transitions.reward[i])
        if data.breaks[i]:
            if i < last or not data.transitions.truncated[i]:
                returns.append(total)
            total = 0.0
    return factor * o.scale_returns_to / (max(returns) - min(returns))


class Stores:
    """The replay and, where it is kept apart, the data set."""

    def __init__(self, turn: Turn) -> None:
        self.o, data = turn.options, turn.context.offline
        self.factor = factor_of(turn) if data is not None else float(getattr(self.o, "reward_scale", 1.0))
        self.replay, self.data = Store(), Store()
        self.apart = getattr(self.o, "offline_share", None) is not None and data is not None
        if data is not None:
            for i in range(len(data)):
                (self.data if self.apart else self.replay).add(data.transitions, i, -1, bool(data.breaks[i]), self.o, self.factor)

    def take(self, turn: Turn) -> None:
        """The steps that were just acted."""
        rows = turn.collected
        for t in range(rows.shape[1]):
            for e in range(len(rows)):
                if rows.mask[e, t]:
                    ends = bool(rows.terminated[e, t] | rows.truncated[e, t])
                    self.replay.add(rows, (e, t), e, ends, self.o, self.factor)
        self.check(turn)

    def check(self, turn: Turn) -> None:
        """Rows are steps of the stores, mixed as they should be, with their returns and weights."""
        if turn.rows is None:
            return
        size, both = self.o.batch_size, self.apart and len(self.replay.steps) > 0
        least = min(self.store_of(turn, i).steps[int(turn.rows.index[i])].priority for i in range(len(turn.rows)))
        for i in range(len(turn.rows)):
            store, index = self.store_of(turn, i), int(turn.rows.index[i])
            step = store.steps[index]
            total, last, count = store.return_of(index, self.o)
            discount = 0.0 if last.terminated else getattr(self.o, "gamma", 0.99) ** count
            assert torch.equal(turn.rows.observation[i], step.observation) and torch.equal(turn.rows.action[i], step.action)
            assert torch.equal(turn.rows.next_observation[i], last.following)
            assert abs(float(turn.rows.reward[i]) - total) < 1e-5 * max(1.0, abs(total))
            assert abs(float(turn.rows.discount[i]) - discount) < 1e-6
            if getattr(self.o, "priority", 0.0):
                assert abs(float(turn.rows.weight[i]) - least / step.priority) < 1e-6
        if both and self.o.offline_share == 0.5:  # even rows are of the data set
            assert [int(source) == OFFLINE for source in turn.rows.source[:size]] == [i % 2 == 0 for i in range(size)]

    def store_of(self, turn: Turn, i: int) -> Store:
        """Where a row comes from."""
        return self.data if self.apart and int(turn.rows.source[i]) == OFFLINE else self.replay

    def rank(self, rows: Sequence[Row], errors: Sequence[float]) -> None:
        """Priorities by the size of errors; of a step drawn twice the largest."""
        if not getattr(self.o, "priority", 0.0):
            return
        found: dict[int, float] = {}
        for row, error in zip(rows, errors, strict=True):
            found[row.index] = max(found.get(row.index, 0.0), (error + 1e-6) ** self.o.priority)
        for index, priority in found.items():
            self.replay.steps[index].priority = priority
            self.replay.largest = max(self.replay.largest, priority)


class Reader:
    """Observations and actions as networks read them: standardised by the data set, and in [-1, 1]."""

    def __init__(self, turn: Turn) -> None:
        context, o = turn.context, turn.options
        self.shift, self.scale = torch.zeros(()).double(), torch.ones(()).double()
        if getattr(o, "normalise_states", False):
            seen = [cp.double(each) for each in context.offline.transitions.observation]
            self.shift = torch.stack(seen).sum(0) / len(seen)
            self.scale = torch.sqrt(torch.stack([(each - self.shift) ** 2 for each in seen]).sum(0) / len(seen)) + 1e-3
        space = context.action_space
        self.bounds = None if not hasattr(space, "low") else (cp.double(space.low), cp.double(space.high))

    def seen(self, observation: Tensor) -> Tensor:
        """As read."""
        return (cp.double(observation) - self.shift) / self.scale

    def drawn(self, action: Tensor) -> Tensor:
        """In units of the bounds, before they clip."""
        if self.bounds is None:
            return action
        low, high = self.bounds
        return 2 * (cp.double(action) - low) / (high - low) - 1

    def rows(self, turn: Turn, first: int) -> list[Row]:
        """Those of a gradient step."""
        rows, found = turn.rows, []
        for i in range(first, first + turn.options.batch_size):
            action = self.drawn(rows.action[i])
            weight = 1.0 if rows.weight is None else float(rows.weight[i])
            found.append(
                Row(
                    self.seen(rows.observation[i]),
                    action if self.bounds is None else action.clamp(-1, 1),
                    float(rows.reward[i]),
                    self.seen(rows.next_observation[i]),
                    float(rows.discount[i]),
                    weight,
                    int(rows.index[i]),
                )
            )
        return found


# --- what gradient steps share ------------------------------------------------------------------------------------------------------------


@dataclass
class Now:
    """A gradient step.

    Attributes:
        number: gradient steps before.
    """

    plain: Plain
    turn: Turn
    rows: list[Row]
    stores: Stores
    settings: Settings
    number: int

    @property
    def o(self) -> Any:
        """Options."""
        return self.turn.options

    def noise(self, *shape: int, stream: str = "updates") -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.turn.chance(stream)).double()

    def uniform(self, *shape: int, stream: str = "updates") -> Tensor:
        """Between 0 and 1."""
        return torch.rand(shape, generator=self.turn.chance(stream)).double()

    def fixed(self, model: str) -> Parameters:
        """Parameters as they are now, constants."""
        return self.plain.fixed(model)

    def learns(self, model: str) -> Parameters:
        """Parameters as they are now, whose gradient is wanted."""
        return self.plain.p[model]

    def count(self, name: str, happened: Any) -> None:
        """What a clip or a limit did."""
        self.plain.counts[name] = self.plain.counts.get(name, 0) + bool(happened)

    @property
    def size(self) -> int:
        """Rows."""
        return len(self.rows)

    @property
    def dimensions(self) -> int:
        """Of an action."""
        return len(self.rows[0].action)

    @property
    def critics_rate(self) -> float:
        """Step size of the critics."""
        rate = getattr(self.o, "critic_learning_rate", None)
        return float(self.o.learning_rate if rate is None else rate)


def target_of(now: Now, row: Row, value: Tensor) -> Tensor:
    """r + discount V(s')."""
    return (row.reward + row.discount * value).detach()


def move_critics(now: Now, targets: Sequence[Tensor], penalty: Tensor | None = None, every: int = 1) -> None:
    """All critics towards their targets; then the slow ones follow, in every so many steps."""
    o, p, parts, errors = now.o, now.learns("critics"), [], []
    for row, y in zip(now.rows, targets, strict=True):
        squares = [(q - y) ** 2 for q in cp.judged(p, own(row.seen), row.action)]
        errors.append(sum(math.sqrt(cp.number(each)) for each in squares) / len(squares))
        total = torch.stack(squares).sum() / (len(squares) if getattr(o, "over_critics", "sum") == "mean" else 1)
        parts.append(row.weight * getattr(o, "critic_scale", 1.0) * total)
    loss = cp.mean(parts)
    now.plain.descend("critics", loss if penalty is None else loss + penalty, now.critics_rate)
    now.stores.rank(now.rows, errors)
    if (now.number + 1) % every == 0:
        now.plain.follow("target critics", "critics", o.tau)


OBSERVED = 3
"""Numbers in an observation of the world; what stands behind them is a coefficient."""


def own(seen: Tensor) -> Tensor:
    """Without a coefficient behind it."""
    return seen[:OBSERVED]


def soft_parameters(p: Parameters, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation of u."""
    outputs = cp.stacked(p, 0, seen)
    return outputs[: len(outputs) // 2], outputs[len(outputs) // 2 :].clamp(-20, 2)


def soft_action(p: Parameters, seen: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A reparameterised action tanh(u) and its log-density."""
    middle, log_std = soft_parameters(p, seen)
    u = middle + torch.exp(log_std) * noise
    return torch.tanh(u), cp.squashed(u, middle, log_std)


def bounded(p: Parameters, seen: Tensor, limits: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Mean in (-1, 1) and log standard deviation of a Gaussian."""
    return torch.tanh(cp.stacked(p, 0, seen)), p["log_std"].clamp(*limits)


def alpha_of(now: Now) -> float:
    """The temperature of the entropy."""
    return math.exp(float(now.fixed("temperature")["log"][0]))


def move_temperature(now: Now, log_probs: Sequence[Tensor], share: float = 1.0) -> None:
    """Towards the wanted entropy."""
    o = now.o
    if o.temperature is not None:
        return
    target = -now.dimensions * share if o.target_entropy is None else o.target_entropy
    excess = sum(cp.number(each) + target for each in log_probs) / len(log_probs)
    log = now.learns("temperature")["log"][0]
    now.plain.descend("temperature", -(torch.exp(log) if o.temperature_form == "exp" else log) * excess, o.learning_rate)


def lowest(p: Parameters, row: Row, action: Tensor) -> Tensor:
    """The smallest critic."""
    return cp.least(cp.judged(p, own(row.seen), action))


# --- methods ------------------------------------------------------------------------------------------------------------------------------


def soft_targets(now: Now, subset: int | None = None) -> list[Tensor]:
    """r + discount (min Qbar(s', a') - alpha log pi(a'|s'))."""
    noise, policy, slow, alpha, found = (
        now.noise(now.size, now.dimensions),
        now.fixed("policy"),
        now.fixed("target critics"),
        alpha_of(now),
        [],
    )
    asked = list(range(cp.members(slow)))
    if subset is not None:
        asked = torch.randperm(len(asked), generator=now.turn.chance("updates")).tolist()[:subset]
    for i, row in enumerate(now.rows):
        action, log_prob = soft_action(policy, row.following, noise[i])
        q = cp.judged(slow, own(row.following), action)
        value = cp.least([q[k] for k in asked])
        found.append(target_of(now, row, value - alpha * log_prob if now.o.entropy_in_backup else value))
    return found


def move_soft_policy(now: Now, alpha: float, worth: Callable[[Parameters, int, Row, Tensor], Tensor]) -> list[Tensor]:
    """mean [alpha log pi(a|s) - Q(s, a)]; returns the log-densities."""
    noise, critics, p = now.noise(now.size, now.dimensions), now.fixed("critics"), now.learns("policy")
    parts, log_probs = [], []
    for i, row in enumerate(now.rows):
        action, log_prob = soft_action(p, row.seen, noise[i])
        parts.append(alpha * log_prob - worth(critics, i, row, action))
        log_probs.append(log_prob)
    now.plain.descend("policy", cp.mean(parts), now.o.learning_rate)
    return log_probs


def sac(now: Now) -> None:
    alpha = alpha_of(now)
    move_critics(now, soft_targets(now))
    move_temperature(now, move_soft_policy(now, alpha, lambda p, i, row, action: lowest(p, row, action)))


def rlpd(now: Now) -> None:
    alpha = alpha_of(now)
    move_critics(now, soft_targets(now, now.o.target_critics))
    delay = max(1, round(now.o.update_to_data)) if now.o.policy_delay is None else now.o.policy_delay
    if (now.number + 1) % delay == 0:
        log_probs = move_soft_policy(now, alpha, lambda p, i, row, action: cp.mean(cp.judged(p, row.seen, action)))
        move_temperature(now, log_probs, 0.5)


def td3(now: Now) -> None:
    o, noise, targets = now.o, now.noise(now.size, now.dimensions), []
    slow_policy, slow = now.fixed("target policy"), now.fixed("target critics")
    for i, row in enumerate(now.rows):
        jitter = (o.target_noise * noise[i]).clamp(-o.noise_clip, o.noise_clip)
        now.count("noise", bool((abs(o.target_noise * noise[i]) > o.noise_clip).any()))
        action = (torch.tanh(cp.stacked(slow_policy, 0, row.following)) + jitter).clamp(-1, 1)
        targets.append(target_of(now, row, cp.least(cp.judged(slow, row.following, action))))
    move_critics(now, targets, every=o.policy_delay)
    if (now.number + 1) % o.policy_delay:
        return
    critics, p, values, distances = now.fixed("critics"), now.learns("policy"), [], []
    for row in now.rows:
        action = torch.tanh(cp.stacked(p, 0, row.seen))
        values.append(cp.judged(critics, row.seen, action)[0])
        distances.append(((action - row.action) ** 2).sum() / now.dimensions)
    loss = -cp.mean(values)
    if hasattr(o, "alpha"):
        size = sum(abs(cp.number(value)) for value in values) / len(values)
        loss = o.alpha / size * loss + cp.mean(distances)
    now.plain.descend("policy", loss, o.learning_rate)
    now.plain.follow("target policy", "policy", o.tau)


def dqn(now: Now) -> None:
    o, slow, fast, p = now.o, now.fixed("target policy"), now.fixed("policy"), now.learns("policy")
    parts, errors = [], []
    for row in now.rows:
        values = cp.stacked(slow, 0, row.following).tolist()
        choosing = cp.stacked(fast, 0, row.following).tolist() if o.double else values
        y = row.reward + row.discount * values[choosing.index(max(choosing))]
        error = cp.stacked(p, 0, row.seen)[int(row.action)] - y
        size = abs(cp.number(error))
        errors.append(size)
        now.count("huber", o.huber is not None and size > o.huber)
        if o.huber is None:
            parts.append(row.weight * error**2)
        else:
            parts.append(row.weight * (0.5 * error**2 if size < o.huber else o.huber * (error.abs() - 0.5 * o.huber)))
    now.plain.descend("policy", cp.mean(parts), o.learning_rate)
    if (now.number + 1) % o.target_every == 0:
        now.plain.follow("target policy", "policy", o.tau)
    now.stores.rank(now.rows, errors)


def likelihood(p: Parameters, row: Row, limits: tuple[float, float]) -> Tensor:
    """log pi(a|s) of the data's action: a Gaussian's around a squashed mean, or a choice's."""
    if not row.action.ndim:
        return cp.log_softmax(cp.stacked(p, 0, row.seen))[int(row.action)]
    return cp.normal(row.action, *bounded(p, row.seen, limits))


def imitate(now: Now, weights: Sequence[float], rate: float, limits: tuple[float, float]) -> None:
    """-mean w log pi(a|s)."""
    p = now.learns("policy")
    parts = [-w * likelihood(p, row, limits) for w, row in zip(weights, now.rows, strict=True)]
    now.plain.descend("policy", cp.mean(parts), rate)


def expected(p: Parameters, policy: Parameters, seen: Tensor) -> Tensor:
    """The mean of the smallest critic over the probabilities of all choices."""
    probabilities = torch.exp(cp.log_softmax(cp.stacked(policy, 0, seen)))
    values = [cp.least(cp.judged(p, seen, torch.tensor(a))) for a in range(len(probabilities))]
    return torch.stack([p_a * q for p_a, q in zip(probabilities, values, strict=True)]).sum()


def awac_of_choices(now: Now) -> None:
    o, policy, slow = now.o, now.fixed("policy"), now.fixed("target critics")
    move_critics(now, [target_of(now, row, expected(slow, policy, row.following)) for row in now.rows])
    critics = now.fixed("critics")
    gains = [float(lowest(critics, row, row.action) - expected(critics, policy, row.seen)) for row in now.rows]
    imitate(now, [capped(now, gain / o.advantage_temperature) for gain in gains], o.learning_rate, (0.0, 0.0))


def awac(now: Now) -> None:
    o, policy, slow = now.o, now.fixed("policy"), now.fixed("target critics")
    noise, targets = now.noise(now.size, now.dimensions), []
    for i, row in enumerate(now.rows):
        middle, log_std = bounded(policy, row.following, o.log_std)
        action = (middle + torch.exp(log_std) * noise[i]).clamp(-1, 1)
        targets.append(target_of(now, row, cp.least(cp.judged(slow, row.following, action))))
    move_critics(now, targets)
    critics, again, weights = now.fixed("critics"), now.noise(now.size, now.dimensions), []
    for i, row in enumerate(now.rows):
        middle, log_std = bounded(policy, row.seen, o.log_std)
        drawn = (middle + torch.exp(log_std) * again[i]).clamp(-1, 1)
        weights.append(math.exp(float(lowest(critics, row, row.action) - lowest(critics, row, drawn)) / o.advantage_temperature))
    if o.weights == "normalised":
        weights = [each * len(weights) / sum(weights) for each in weights]
    else:
        for each in weights:
            now.count("cap", each > o.weight_cap)
        weights = [min(each, o.weight_cap) for each in weights]
    imitate(now, weights, o.learning_rate, o.log_std)


def cosine(now: Now) -> float:
    """The policy's step size."""
    o, settings = now.o, now.settings
    online = settings.online_steps or 0
    if not (online == 0 if o.anneal is None else o.anneal):
        return float(o.learning_rate)
    planned = settings.steps + online * o.update_to_data
    return float(o.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, now.number / planned))))


def implicit_values(now: Now, best: Sequence[float]) -> tuple[list[Tensor], list[float]]:
    """Targets and advantages by V as it is now."""
    p = now.fixed("value")
    targets = [target_of(now, row, cp.stacked(p, 0, own(row.following))[0]) for row in now.rows]
    return targets, [each - float(cp.stacked(p, 0, own(row.seen))[0]) for each, row in zip(best, now.rows, strict=True)]


def implicit(now: Now, between: Callable[[], None], weight: Callable[[int, Sequence[float]], float]) -> None:
    """V, what is between, critics, and the imitation of what was better than V."""
    o, slow = now.o, now.fixed("target critics")
    best = [float(cp.least(cp.judged(slow, own(row.seen), row.action))) for row in now.rows]
    found = implicit_values(now, best) if o.values_in_use == "before" else None
    p, parts = now.learns("value"), []
    for row, goal in zip(now.rows, best, strict=True):
        u = goal - cp.stacked(p, 0, own(row.seen))[0]
        now.count("expectile", cp.number(u) < 0)
        parts.append(row.weight * abs(o.expectile - float(cp.number(u) < 0)) * u**2)
    now.plain.descend("value", cp.mean(parts), now.critics_rate)
    between()
    targets, advantages = found or implicit_values(now, best)
    move_critics(now, targets)
    imitate(now, [weight(i, advantages) for i in range(now.size)], cosine(now), o.log_std)


def capped(now: Now, exponent: float) -> float:
    """min(exp(x), cap)."""
    now.count("cap", exponent > math.log(now.o.weight_cap))
    return math.exp(min(exponent, math.log(now.o.weight_cap)))


def iql(now: Now) -> None:
    implicit(now, lambda: None, lambda i, advantages: capped(now, now.o.inverse_temperature * advantages[i]))


# --- conservative critics -----------------------------------------------------------------------------------------------------------------


def best_next_targets(now: Now) -> list[Tensor]:
    """r + discount max_i min_k Qbar_k(s', a_i)."""
    o, policy, slow, alpha = now.o, now.fixed("policy"), now.fixed("target critics"), alpha_of(now)
    noise, found = now.noise(o.penalty_actions, now.size, now.dimensions), []
    for i, row in enumerate(now.rows):
        drawn = [soft_action(policy, row.following, noise[j, i]) for j in range(o.penalty_actions)]
        values = [float(cp.least(cp.judged(slow, own(row.following), action))) for action, _ in drawn]
        j = values.index(max(values))
        found.append(target_of(now, row, values[j] - (alpha * drawn[j][1] if o.entropy_in_backup else torch.zeros(()))))
    return found


def other_actions(now: Now) -> tuple[list[list[Tensor]], list[list[float]]]:
    """Uniform actions and the policy's at s and at s', with the log-densities that drew them, by row."""
    o, policy = now.o, now.fixed("policy")
    here, there = (now.noise(o.penalty_actions, now.size, now.dimensions) for _ in range(2))
    anywhere = 2 * now.uniform(now.size, o.penalty_actions, now.dimensions) - 1
    actions, densities = [], []
    for i, row in enumerate(now.rows):
        mine = [(anywhere[i, j], torch.tensor(-now.dimensions * math.log(2.0))) for j in range(o.penalty_actions)]
        mine += [soft_action(policy, row.seen, here[j, i]) for j in range(o.penalty_actions)]
        mine += [soft_action(policy, row.following, there[j, i]) for j in range(o.penalty_actions)]
        actions.append([action for action, _ in mine])
        densities.append([float(density) for _, density in mine])
    return actions, densities


def move_conservative_critics(now: Now, targets: Sequence[Tensor], weight: float, actions: Any, densities: Any) -> None:
    """Temporal differences and what pushes the critics down."""
    o, p = now.o, now.learns("critics")
    networks, t = cp.members(p), o.gap_temperature
    gaps: list[list[Tensor]] = []
    for i, row in enumerate(now.rows):
        data = cp.judged(p, own(row.seen), row.action)
        drawn = [cp.judged(p, own(row.seen), action) for action in actions[i]]
        mine = []
        for k in range(networks):
            if o.gap_form == "importance":
                inside = [torch.exp(drawn[j][k] / t - densities[i][j]) for j in range(len(drawn))]
                total = torch.stack(inside).sum() / (1 if o.sum_over_actions else len(drawn))
            else:
                total = torch.stack([torch.exp(q[k] / t) for q in [*drawn, data]]).sum()
            gap = t * torch.log(total) - data[k]
            now.count("gap", o.smallest_gap is not None and cp.number(gap) < o.smallest_gap)
            now.count("gap", o.largest_gap is not None and cp.number(gap) > o.largest_gap)
            mine.append(gap.clamp(o.smallest_gap, o.largest_gap) if (o.smallest_gap, o.largest_gap) != (None, None) else gap)
        gaps.append(mine)
    copies = networks if o.over_critics == "sum" else 1
    mean_gap = cp.mean([row.weight * cp.mean(mine) for row, mine in zip(now.rows, gaps, strict=True)])
    if o.gap_threshold is None:
        move_critics(now, targets, weight * copies * mean_gap)
        return
    log = now.learns("multiplier")["log"][0]
    factor = math.exp(cp.number(log))
    now.plain.descend("multiplier", -torch.exp(log) * weight * (cp.number(mean_gap) - o.gap_threshold), now.critics_rate)
    move_critics(now, targets, factor * weight * copies * (mean_gap - o.gap_threshold))


def conservative(now: Now, coefficient: Callable[[int], float] = lambda i: 1.0) -> None:
    """The critics below the data's values, then the soft policy; or (simultaneous) the other way round."""
    o, alpha = now.o, alpha_of(now)
    targets = best_next_targets(now) if o.best_next_action else soft_targets(now)
    actions, densities = other_actions(now)
    online = now.turn.stage > 0 and o.conservative_weight_online is not None
    weight = o.conservative_weight_online if online else o.conservative_weight

    def worth(critics: Parameters, i: int, row: Row, action: Tensor) -> Tensor:
        if now.number >= o.imitation_steps:
            return coefficient(i) * lowest(critics, row, action)
        now.count("imitation", True)
        inside = row.action.clamp(-1 + 1e-6, 1 - 1e-6)
        return cp.squashed(torch.atanh(inside), *soft_parameters(now.learns("policy"), row.seen))

    def policy() -> None:
        move_temperature(now, move_soft_policy(now, alpha, worth))

    def critics() -> None:
        move_conservative_critics(now, targets, weight, actions, densities)

    for part in (policy, critics) if o.simultaneous else (critics, policy):
        part()


def cql(now: Now) -> None:
    conservative(now)


# --- families -----------------------------------------------------------------------------------------------------------------------------


def beside(now: Now, seen: Tensor, coefficient: Tensor) -> Tensor:
    """An observation with the encoded coefficient behind it."""
    size, found = now.o.encoding_size, []
    for i in range(size // 2):
        angle = coefficient / 10_000 ** (2 * i / size)
        found += [torch.sin(angle), torch.cos(angle)]
    return torch.cat([own(seen), torch.stack(found).reshape(-1)])


def picked(now: Now, p: Parameters, seen: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A coefficient of the balance model, and the log-density of the number in (-1, 1) that it is made of."""
    o, middle, log_std = now.o, cp.stacked(p, 0, own(seen), "stack"), p["log_std"].clamp(-10, 2)
    u = middle + torch.exp(log_std) * noise
    share = torch.tanh(u)[0] if getattr(o, "released_map", False) else (torch.tanh(u)[0] + 1) / 2
    return o.coefficient_low + (o.coefficient_high - o.coefficient_low) * share, cp.squashed(u, middle, log_std)


def coefficients(now: Now, of: str) -> list[Tensor]:
    """Of every row: uniform, or once the policy acts from the balance model."""
    o = now.o
    if now.turn.stage == 0 or o.balance == "random":
        drawn = now.uniform(now.size, stream="coefficients")
        return [o.coefficient_low + (o.coefficient_high - o.coefficient_low) * each for each in drawn]
    noise, p = now.noise(now.size, 1, stream="coefficients"), now.fixed("balance")
    return [picked(now, p, getattr(row, of), noise[i])[0] for i, row in enumerate(now.rows)]


def famo2o(now: Now) -> None:
    o, beta = now.o, coefficients(now, "seen")
    for row, each in zip(now.rows, beta, strict=True):
        row.seen = beside(now, row.seen, each)

    def balance() -> None:
        noise, p = now.noise(now.size, 1, stream="coefficients"), now.learns("balance")
        again, universal, slow = now.noise(now.size, now.dimensions), now.fixed("policy"), now.fixed("target critics")
        heat, parts, log_probs = math.exp(float(now.fixed("balance temperature")["log"][0])), [], []
        for i, row in enumerate(now.rows):
            coefficient, log_prob = picked(now, p, row.seen, noise[i])
            middle, log_std = bounded(universal, beside(now, row.seen, coefficient), o.log_std)
            action = middle + torch.exp(log_std) * again[i]
            parts.append(heat * log_prob - cp.least(cp.judged(slow, own(row.seen), action)))
            log_probs.append(cp.number(log_prob))
        now.plain.descend("balance", cp.mean(parts), o.balance_learning_rate)
        log = now.learns("balance temperature")["log"][0]
        excess = sum(each + o.target_entropy for each in log_probs) / len(log_probs)
        now.plain.descend("balance temperature", -torch.exp(log) * excess, o.temperature_learning_rate)

    def weight(i: int, advantages: Sequence[float]) -> float:
        if o.released_broadcast:
            return sum(capped(now, float(each) * advantages[i]) for each in beta) / len(beta)
        return capped(now, float(beta[i]) * advantages[i])

    implicit(now, balance, weight)


def famo2o_cql(now: Now) -> None:
    o, beta = now.o, coefficients(now, "seen")
    later = beta if o.next_coefficient == "current" else coefficients(now, "following")
    for i, row in enumerate(now.rows):
        row.seen, row.following = beside(now, row.seen, beta[i]), beside(now, row.following, later[i])
    conservative(now, lambda i: float(beta[i]))
    noise, again = now.noise(now.size, 1, stream="coefficients"), now.noise(now.size, now.dimensions)
    p, universal, critics, parts = now.learns("balance"), now.fixed("policy"), now.fixed("critics"), []
    for i, row in enumerate(now.rows):
        action, _ = soft_action(universal, beside(now, row.seen, picked(now, p, row.seen, noise[i])[0]), again[i])
        parts.append(-lowest(critics, row, action))
    now.plain.descend("balance", cp.mean(parts), o.balance_learning_rate)


# --- mixtures -----------------------------------------------------------------------------------------------------------------------------


def experts(now: Now, p: Parameters, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights ``[K]``, means and log standard deviations ``[K, D]``."""
    shape = (now.o.mixture_size, -1)
    middle, log_std = cp.stacked(p, 0, seen).chunk(2)
    return cp.log_softmax(cp.stacked(p, 0, seen, "weights")), middle.view(shape), log_std.view(shape).clamp(-20, 2)


def expert_actions(now: Now, p: Parameters, seen: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Log-weights, an action of every expert, and its log-density: of the expert, or of the whole mixture."""
    log_weights, middle, log_std = experts(now, p, seen)
    actions, densities = [], []
    for k in range(now.o.mixture_size):
        u = middle[k] + torch.exp(log_std[k]) * noise[k]
        actions.append(torch.tanh(u))
        if now.o.entropy_of == "component":
            densities.append(cp.squashed(u, middle[k], log_std[k]))
        else:
            whole = [torch.exp(log_weights[j]) * torch.exp(cp.squashed(u, middle[j], log_std[j])) for j in range(now.o.mixture_size)]
            densities.append(torch.log(torch.stack(whole).sum()))
    return log_weights, actions, densities


def gumbel(now: Now) -> Tensor:
    """Standard Gumbel numbers, by row and expert."""
    return -torch.empty((now.size, now.o.mixture_size)).exponential_(generator=now.turn.chance("experts")).log().double()


def pmoe(now: Now) -> None:
    o, alpha, policy, slow = now.o, alpha_of(now), now.fixed("policy"), now.fixed("target critics")
    if o.batch_reward_scale is not None:
        rewards = [row.reward for row in now.rows]
        middle, spread = sum(rewards) / len(rewards), cp.deviation(rewards) + 1e-6
        for row in now.rows:
            row.reward = o.batch_reward_scale * (row.reward - middle) / spread
    random, noise, targets = gumbel(now), now.noise(now.size, o.mixture_size, now.dimensions), []
    for i, row in enumerate(now.rows):
        log_weights, actions, densities = expert_actions(now, policy, row.following, noise[i])
        k = int((log_weights + random[i]).argmax())
        value = cp.least(cp.judged(slow, row.following, actions[k]))
        targets.append(target_of(now, row, value - alpha * densities[k] if o.entropy_in_backup else value))
    move_critics(now, targets)
    noise, random = now.noise(now.size, o.mixture_size, now.dimensions), gumbel(now)
    critics, p, parts, log_probs = now.fixed("critics"), now.learns("policy"), [], []
    for i, row in enumerate(now.rows):
        log_weights, actions, densities = expert_actions(now, p, row.seen, noise[i])
        q = [lowest(critics, row, action) for action in actions]
        worth = [cp.number(value) for value in q]
        best = worth.index(max(worth))
        drawn = int((log_weights.detach() + random[i]).argmax())
        moved = range(o.mixture_size) if o.update == "all" else [best if o.update == "max" else drawn]
        of_experts = cp.mean([alpha * densities[k] - q[k] for k in moved])
        log_probs += [densities[k] for k in moved]
        soft = [worth[k] - alpha * cp.number(densities[k]) for k in range(o.mixture_size)]
        if o.mixture_gradient == "frequency":
            of_weights = cp.mean([(torch.exp(log_weights[k]) - float(k == best)) ** 2 for k in range(o.mixture_size)])
        elif o.mixture_gradient == "score":
            expected = sum(math.exp(cp.number(log_weights[k])) * soft[k] for k in range(o.mixture_size))
            of_weights = -log_weights[drawn] * (soft[drawn] - expected)
        else:
            relaxed = torch.exp(cp.log_softmax((log_weights + random[i]) / o.gumbel_temperature))
            choice = [float(k == drawn) + relaxed[k] - relaxed[k].detach() for k in range(o.mixture_size)]
            between = torch.stack([choice[k] * actions[k].detach() for k in range(o.mixture_size)]).sum(0)
            density = torch.stack([choice[k] * densities[k].detach() for k in range(o.mixture_size)]).sum()
            of_weights = alpha * density - lowest(critics, row, between)
        parts.append(of_experts + o.mixture_coefficient * of_weights)
    now.plain.descend("policy", cp.mean(parts), o.learning_rate)
    move_temperature(now, log_probs)


def bc(now: Now) -> None:
    o, p, parts = now.o, now.learns("policy"), []
    for row in now.rows:
        outputs = cp.stacked(p, 0, row.seen)
        if row.action.ndim == 0:
            parts.append(-cp.log_softmax(outputs)[int(row.action)])
        elif o.imitation == "stochastic":
            parts.append(-cp.normal(row.action, *bounded(p, row.seen, (-20, 2))))
        else:
            parts.append(((torch.tanh(outputs) - row.action) ** 2).sum() / now.dimensions)
    now.plain.descend("policy", cp.mean(parts), o.learning_rate)


# --- who acts -----------------------------------------------------------------------------------------------------------------------------

Density = Callable[[Now, Tensor, Tensor], Tensor]
"""Of a gradient step's world (the weights as they are), an observation as read and an action in units of the bounds to log pi(a|s)."""


def squashed_density(now: Now, seen: Tensor, action: Tensor) -> Tensor:
    return cp.squashed(torch.atanh(action), *soft_parameters(now.fixed("policy"), seen))


def bounded_density(now: Now, seen: Tensor, action: Tensor) -> Tensor:
    return cp.normal(action, *bounded(now.fixed("policy"), seen, now.o.log_std))


def noisy_density(now: Now, seen: Tensor, action: Tensor) -> Tensor:
    middle = torch.tanh(cp.stacked(now.fixed("policy"), 0, seen))
    return cp.normal(action, middle, torch.full_like(middle, math.log(now.o.exploration_noise)))


def mixture_density(now: Now, seen: Tensor, action: Tensor) -> Tensor:
    log_weights, middle, log_std = experts(now, now.fixed("policy"), seen)
    return torch.log(
        sum(
            (torch.exp(w + cp.squashed(torch.atanh(action), m, s)) for w, m, s in zip(log_weights, middle, log_std, strict=True)),
            torch.zeros(()),
        )
    )


def of_family(density: Density) -> Density:
    """With the coefficient of the balance model's mean behind the observation."""

    def found(now: Now, seen: Tensor, action: Tensor) -> Tensor:
        return density(now, beside(now, seen, picked(now, now.fixed("balance"), seen, torch.zeros(1).double())[0]), action)

    return found


def greedy_density(now: Now, seen: Tensor, action: Tensor) -> Tensor:
    """Greedy, or with probability epsilon uniform; epsilon falls linearly with the steps of the world."""
    o, values = now.o, cp.stacked(now.fixed("policy"), 0, seen).tolist()
    left = max(0.0, 1 - now.number / math.ceil(o.exploration_share * now.settings.steps))
    epsilon = o.exploration_end + (o.exploration_start - o.exploration_end) * left
    greedy = values.index(max(values)) == int(action)
    return torch.tensor(math.log(epsilon / len(values) + (1 - epsilon) * greedy))


def check_acting(now: Now, reader: Reader, density: Density) -> None:
    """The steps of a turn were sampled with the density that they say; ``number`` is that of the steps of the world before."""
    rows, o = now.turn.collected, now.o
    uniform = now.number < getattr(o, "start_steps", 0)
    volume, nats = 0.0, -math.log(3)
    if reader.bounds is not None:
        width = reader.bounds[1] - reader.bounds[0]
        volume, nats = float(torch.log(width / 2).sum()), -float(torch.log(width).sum())
    for t in range(rows.shape[1]):
        for e in range(len(rows)):
            expected = (
                nats if uniform else float(density(now, reader.seen(rows.observation[e, t]), reader.drawn(rows.action[e, t]))) - volume
            )
            assert abs(expected - float(rows.sampler_logp[e, t])) < 1e-4
            now.count("acted", not uniform)


def check_best_episodes(turn: Turn, settings: Settings) -> None:
    """What is read are the episodes with the highest returns."""
    whole, share = OfflineData.load(str(settings.offline)), turn.options.best_share
    episodes, first = [], 0
    for i in range(len(whole)):
        if whole.breaks[i]:
            steps = range(first, i + 1)
            episodes.append((sum(float(whole.transitions.reward[j]) for j in steps), steps))
            first = i + 1
    best = sorted(range(len(episodes)), key=lambda k: -episodes[k][0])[: max(1, round(share * len(episodes)))]
    kept = [j for k in sorted(best) for j in episodes[k][1]]
    assert torch.equal(turn.context.offline.transitions.action, whole.transitions.action[kept])


# --- runs ---------------------------------------------------------------------------------------------------------------------------------


def following(step: Callable[[Now], None], density: Density | None = None) -> Follow:
    """The plain side of runs with this gradient step and this way of acting."""

    def follow(turns: list[Turn], settings: Settings, counts: dict[str, int]) -> Iterator[Followed]:
        first = turns[0].again()
        plain, stores, reader = Plain(first.start or first.end), Stores(first), Reader(first)
        plain.counts = counts
        if hasattr(first.options, "best_share"):
            check_best_episodes(first, settings)
        for before, each in zip([None, *turns], turns, strict=False):
            turn = each.again()
            if density is not None:
                check_acting(Now(plain, turn, [], stores, settings, before.steps if before else 0), reader, density)
            stores.take(turn)
            plain.begin(turn.start)
            for start in range(0, 0 if turn.rows is None else len(turn.rows), turn.options.batch_size):
                number = turn.made + start // turn.options.batch_size
                step(Now(plain, turn, reader.rows(turn, start), stores, settings, number))
            yield plain.followed()

    return follow


# --- cases --------------------------------------------------------------------------------------------------------------------------------

BASE: dict[str, Any] = {"batch_size": 8, "hidden": (5,), "learning_rate": 1e-2, "gamma": 0.9, "log_every": 1000, "checkpoint_every": 1000}
ONLINE: dict[str, Any] = BASE | {"num_envs": 2, "start_steps": 16, "steps": 18, "update_to_data": 1.0, "replay_capacity": 300, "tau": 0.1}
DATA: dict[str, Any] = BASE | {"steps": 2, "tau": 0.1, "replay_capacity": 300}
AFTER: dict[str, Any] = {"online_steps": 2, "update_to_data": 1.0}
"""Steps of the world after the data set, each with a gradient step."""
DENSITY: dict[Any, Density | None] = {
    sac: squashed_density, rlpd: squashed_density, cql: squashed_density, famo2o_cql: of_family(squashed_density), td3: noisy_density,
    awac: bounded_density, iql: bounded_density, famo2o: of_family(bounded_density), pmoe: mixture_density, dqn: greedy_density, bc: None,
}  # fmt: skip


def online(method: str, step: Callable[[Now], None], note: str = "", acts: tuple[str, ...] = (), **options: Any) -> Case:
    """With a replay of its own."""
    task = DISCRETE if method == "dqn" else CONTINUOUS
    data = (lambda: random_data(task, 28)) if options.pop("data", False) else None
    return Case(method, task, ONLINE | options, following(step, DENSITY.get(step)), acts, note, data=data)


def offline(method: str, step: Callable[[Now], None], note: str = "", acts: tuple[str, ...] = (), **options: Any) -> Case:
    """On a data set first."""
    task = options.pop("task", CONTINUOUS)
    base = {name: value for name, value in DATA.items() if method != "bc" or name not in ("gamma", "tau", "replay_capacity")}
    return Case(method, task, base | options, following(step, DENSITY.get(step)), acts, note, data=lambda: random_data(task, 28))


PRIORITIES: dict[str, Any] = {"n_step": 3, "priority": 0.7}
TD3: dict[str, Any] = {"policy_delay": 2, "target_noise": 0.3, "noise_clip": 0.2}
PENALTY: dict[str, Any] = {"penalty_actions": 2, "critic_learning_rate": 2e-2}
TEN: dict[str, Any] = {"critics": 3, "target_critics": 2, "update_to_data": 2.0, "offline_share": 0.5, "data": True}
FAMILY: dict[str, Any] = AFTER | {"balance_learning_rate": 2e-2}
MIXTURE: dict[str, Any] = {"mixture_size": 3, "initial_output": None}
RANGE: dict[str, Any] = {"smallest_gap": 0.7, "largest_gap": 1.6}

CASES: list[Case] = [
    online("dqn", dqn, "as published", huber=0.3, target_every=2, tau=1.0),
    online("dqn", dqn, "double", double=True, huber=None, target_every=3, learning_rate=0.1, steps=22),
    online("dqn", dqn, "priorities", ("huber",), huber=0.2, **PRIORITIES, target_every=2, steps=20),
    online("sac", sac),
    online("sac", sac, "as Stable-Baselines3", critic_scale=0.5, temperature_form="log", critic_learning_rate=2e-2),
    online("sac", sac, "fixed temperature", temperature=0.3, over_critics="mean", critics=3, entropy_in_backup=False),
    online(
        "sac", sac, "priorities", **PRIORITIES, reward_scale=2.0, reward_shift=0.5, target_entropy=-0.7, initial_temperature=0.4, steps=20
    ),
    online("td3", td3, "", ("noise",), **TD3, steps=20),
    online("td3", td3, "every step", ("noise",), **(TD3 | {"policy_delay": 1}), critic_learning_rate=2e-2),
    offline("td3-bc", td3, "", ("noise",), **TD3, **AFTER, alpha=1.3),
    online("rlpd", rlpd, "", **TEN),
    online("rlpd", rlpd, "antmaze", **(TEN | {"target_critics": 1}), entropy_in_backup=False, reward_shift=-1.0, policy_delay=1),
    online("rlpd", rlpd, "without data", critics=3, update_to_data=2.0),
    offline("awac", awac, "", ("cap",), weight_cap=1.2, **AFTER),
    offline("awac", awac, "authors", weights="normalised", log_std=(-6.0, -0.1), advantage_temperature=0.1, reward_shift=-1.0),
    offline("iql", iql, "", ("cap", "expectile"), weight_cap=1.1),
    offline("iql", iql, "authors", ("cap", "expectile"), weight_cap=1.1, values_in_use="after", over_critics="sum", **AFTER),
    offline(
        "iql",
        iql,
        "antmaze",
        ("cap",),
        expectile=0.9,
        inverse_temperature=10.0,
        scale_returns_to=30.0,
        anneal=True,
        **AFTER,
        weight_cap=3.0,
    ),
    offline("iql", iql, "discrete", ("cap", "expectile"), task=DISCRETE, weight_cap=1.1, n_step=2),
    offline("awac", awac_of_choices, "discrete", ("cap",), task=DISCRETE, weight_cap=1.2),
    offline("cql", cql, "", **PENALTY, **AFTER, conservative_weight_online=1.5),
    offline("cql", cql, "corl", conservative_weight=10.0, sum_over_actions=True, normalise_states=True, simultaneous=True, **PENALTY),
    offline("cql", cql, "corl antmaze", ("gap",), gap_threshold=0.8, initial_multiplier=2.7, best_next_action=True, **PENALTY, **RANGE),
    offline("cql", cql, "plain gap", ("imitation",), gap_form="plain", gap_temperature=0.7, imitation_steps=1, **PENALTY, critics=3),
    offline("cql", cql, "entropy in backup", over_critics="mean", entropy_in_backup=True, best_next_action=True, n_step=2, **PENALTY),
    offline("famo2o", famo2o, "", ("cap",), **FAMILY, weight_cap=1.3),
    offline("famo2o", famo2o, "released", ("cap",), **FAMILY, weight_cap=1.3, released_broadcast=True, values_in_use="before"),
    offline("famo2o-cql", famo2o_cql, "", **FAMILY, **PENALTY),
    offline("famo2o-cql", famo2o_cql, "released", **FAMILY, **PENALTY, released_map=True, next_coefficient="current"),
    *(
        online("pmoe", pmoe, f"{update} {kind}", **MIXTURE, update=update, mixture_gradient=kind, entropy_of=whose)
        for update, kind, whose in (
            ("max", "frequency", "component"),
            ("all", "score", "component"),
            ("sampled", "gumbel", "component"),
            ("max", "score", "mixture"),
            ("sampled", "frequency", "mixture"),
        )
    ),
    online("pmoe", pmoe, "authors", batch_reward_scale=10.0, mixture_hidden=(4,), mixture_size=2, mixture_coefficient=0.5),
    offline("bc", bc, "deterministic", best_share=0.4),
    offline("bc", bc, "stochastic", imitation="stochastic", normalise_states=True),
    offline("bc", bc, "discrete", task=DISCRETE),
]
