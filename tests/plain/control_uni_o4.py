"""Uni-O4's five stages by loops: critics of the behaviour, a model of the world, cloning, clipped steps behind a gate, and PPO.

Equations: Lei et al. 2023 (2311.03351) eq. 3 to 5 (cloning apart from each other), eq. 7 and 8 (clipped steps around an old policy), eq. 9
(AM-Q); Kostrikov et al. 2022 (2110.06169) eq. 5 and 6 for critics iql; Chua et al. 2018 (1805.12114) eq. 1 for the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rheostat.streams import derive_seed
from rheostat.training.settings import Settings
from tests.plain import control_plain as cp
from tests.plain.control_cases import Case
from tests.plain.control_on_policy import Step, acted, advantages
from tests.plain.control_path import Turn
from tests.plain.control_plain import Followed, Parameters, Plain
from tests.plain.control_replay import Reader
from tests.plain.control_world import CONTINUOUS
from tests.tiny_control import random_data

CRITICS, MODEL, CLONING, POLICIES, ONLINE = range(5)
"""Stages."""
Q, SLOW, V = "behaviour critics/critics", "behaviour critics/targets", "behaviour critics/values"


class Data:
    """The data set as the networks read it."""

    def __init__(self, turn: Turn) -> None:
        data, reader = turn.context.offline, Reader(turn)
        rows, count = data.transitions, range(len(data))
        self.raw = rows
        self.seen = [reader.seen(rows.observation[i]) for i in count]
        self.following = [reader.seen(rows.next_observation[i]) for i in count]
        self.action = [reader.drawn(rows.action[i]).clamp(-1, 1) for i in count]
        self.reward = [turn.options.reward_scale * float(rows.reward[i]) + turn.options.reward_shift for i in count]
        self.terminated = [bool(rows.terminated[i]) for i in count]
        self.breaks = [bool(data.breaks[i]) for i in count]

    def __len__(self) -> int:
        return len(self.seen)


class UniO4:
    """The plain side of a run.

    Args:
        turn: the first one.
        counts: of what clips did.
    """

    def __init__(self, turn: Turn, settings: Settings, counts: dict[str, int]) -> None:
        self.plain, self.settings, self.data, self.reader = Plain(turn.start), settings, Data(turn), Reader(turn)
        self.plain.eps |= {"online policy": 1e-5, "value": 1e-5}
        self.plain.counts = counts
        self.scores: list[float] = []
        self.best: list[float] = []
        self.elites: list[int] = []
        self.chosen, self.updates = -1, 0
        self.activation = cp.relu if turn.options.activation == "relu" else torch.tanh
        draw = torch.Generator().manual_seed(derive_seed(turn.context.streams.seed, "model data"))
        order = torch.randperm(len(self.data), generator=draw).tolist()
        self.held_out, self.train = order[: round(0.2 * len(order))], order[round(0.2 * len(order)) :]

    def follow(self, turn: Turn) -> None:
        """A turn: all gradient steps of a stage, or one batch of PPO."""
        self.plain.begin(turn.start)
        [self.critics, self.model, self.cloning, self.policies, self.online][turn.stage](turn)

    # --- critics ----------------------------------------------------------------------------------------------------------------------

    def critics(self, turn: Turn) -> None:
        """V, then Q, then the slow critics."""
        o, plain, size = turn.options, self.plain, turn.options.batch_size
        for number, first in enumerate(range(0, len(turn.rows), size)):
            index = [int(i) for i in turn.rows.index[first : first + size]]
            slow, p, parts = plain.fixed(SLOW), plain.p[V], []
            later = [self.reader.drawn(turn.rows.next_action[first + i]).clamp(-1, 1) for i in range(size)] if o.critics == "sarsa" else []
            goals = [self.return_of(i, o) if o.critics == "sarsa" else self.q(slow, self.data.seen[i], self.data.action[i]) for i in index]
            for i, goal in zip(index, goals, strict=True):
                u = goal - cp.stacked(p, 0, self.data.seen[i])[0]
                parts.append(u**2 if o.critics == "sarsa" else abs(o.expectile - float(cp.number(u) < 0)) * u**2)
            plain.descend(V, cp.mean(parts), o.critic_learning_rate)
            value, p, parts = plain.fixed(V), plain.p[Q], []
            for place, i in enumerate(index):
                beyond = (
                    self.q(slow, self.data.following[i], later[place]) if later else float(cp.stacked(value, 0, self.data.following[i])[0])
                )
                y = self.data.reward[i] + (0.0 if self.data.terminated[i] else o.gamma * beyond)
                parts.append(torch.stack([(q - y) ** 2 for q in cp.judged(p, self.data.seen[i], self.data.action[i])]).sum())
            plain.descend(Q, cp.mean(parts), o.critic_learning_rate)
            if (number + 1) % o.target_every == 0:
                plain.follow(SLOW, Q, o.tau)

    def return_of(self, i: int, o: Any) -> float:
        """Discounted rewards to the end of the episode, and V beyond where it was cut."""
        total, factor = 0.0, 1.0
        while True:
            total += factor * self.data.reward[i]
            factor *= o.gamma
            if self.data.breaks[i]:
                break
            i += 1
        if self.data.terminated[i] or not o.bootstrap_on_truncation:
            return total
        return total + factor * float(cp.stacked(self.plain.fixed(V), 0, self.data.following[i])[0])

    @staticmethod
    def q(p: Parameters, seen: Tensor, action: Tensor) -> float:
        """The smallest critic."""
        return float(cp.least(cp.judged(p, seen, action)))

    # --- the model --------------------------------------------------------------------------------------------------------------------

    def model(self, turn: Turn) -> None:
        """Every network on rows of its own; each goes back to its best moment, and the best ones are used."""
        o, plain = turn.options, self.plain
        inputs = [torch.cat([self.data.seen[i], self.data.action[i]]) for i in self.train]
        self.shift = torch.stack(inputs).sum(0) / len(inputs)
        self.scale = torch.sqrt(torch.stack([(x - self.shift) ** 2 for x in inputs]).sum(0) / len(inputs))
        networks, size = o.model_networks, o.model_batch_size
        each_pass = math.ceil(len(self.train) / size)
        errors, best = [math.inf] * networks, {name: value.clone() for name, value in plain.fixed("world model").items()}
        for number, first in enumerate(range(0, len(turn.rows), networks * size)):
            p, loss = plain.p["world model"], torch.zeros(())
            for k in range(networks):
                for row in range(first + k * size, first + (k + 1) * size):
                    i = self.place(turn.rows, row)
                    assert i in self.train
                    target = torch.cat([self.data.following[i] - self.data.seen[i], torch.tensor([self.data.reward[i]])])
                    middle, log_variance = self.predicted(p, k, self.data.seen[i], self.data.action[i])
                    loss = loss + ((middle - target) ** 2 * torch.exp(-log_variance) + log_variance).sum() / len(target) / size
            loss = loss + 0.01 * (p["high"].sum() - p["low"].sum())
            layers = sum(name.startswith("stack.weights") for name in p)
            for layer in range(layers):
                rate = o.model_decay[0] + (o.model_decay[1] - o.model_decay[0]) * layer / (layers - 1)
                loss = loss + rate / 2 * (p[f"stack.weights.{layer}"] ** 2).sum()
            plain.descend("world model", loss, o.model_learning_rate)
            if (number + 1) % each_pass == 0:
                self.look(errors, best)
        if (number + 1) % each_pass:
            self.look(errors, best)
        for name in best:
            if name.startswith("stack"):
                plain.change(plain.p["world model"], name, best[name])
        self.elites = sorted(range(networks), key=lambda k: errors[k])[: o.model_elites]

    def place(self, rows: Any, row: int) -> int:
        """In the data, of a row that was drawn for the model."""
        same = [i for i in range(len(self.data)) if torch.equal(self.data.raw.observation[i], rows.observation[row])]
        assert len(same) == 1
        return same[0]

    def predicted(self, p: Parameters, k: int, seen: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the change of the observation and of the reward."""
        outputs = cp.stacked(p, k, (torch.cat([seen, action]) - self.shift) / self.scale, activation=cp.silu)
        middle, log_variance = outputs.chunk(2)
        log_variance = p["high"] - torch.log(1 + torch.exp(p["high"] - log_variance))
        return middle, p["low"] + torch.log(1 + torch.exp(log_variance - p["low"]))

    def look(self, errors: list[float], best: Parameters) -> None:
        """Keep the networks that have become better on what was held out, by a hundredth at least."""
        p = self.plain.fixed("world model")
        for k in range(len(errors)):
            squares = []
            for i in self.held_out:
                target = torch.cat([self.data.following[i] - self.data.seen[i], torch.tensor([self.data.reward[i]])])
                squares.append(float(((self.predicted(p, k, self.data.seen[i], self.data.action[i])[0] - target) ** 2).mean()))
            error = sum(squares) / len(squares)
            better = error < 0.99 * errors[k]
            acted(self.plain.counts, "worse model", not better)
            if better:
                errors[k] = error
                for name in best:
                    if name.startswith("stack"):
                        best[name][k] = p[name][k]

    # --- policies ---------------------------------------------------------------------------------------------------------------------

    def policy(self, p: Parameters, k: int, seen: Tensor, again: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of member k; the whole output passes through tanh."""
        middle, spread = torch.tanh(cp.stacked(p, k, seen, activation=self.activation)).chunk(2)
        return middle, -5 + 2.5 * ((torch.tanh(spread) if again else spread) + 1)

    def cloning(self, turn: Turn) -> None:
        """All members imitate the same rows, apart from each other."""
        o, plain, size = turn.options, self.plain, turn.options.batch_size
        for first in range(0, len(turn.rows), size):
            index = [int(i) for i in turn.rows.index[first : first + size]]
            p, fixed, parts = plain.p["members"], plain.fixed("members"), []
            for i in index:
                seen, action = self.data.seen[i], self.data.action[i]
                for k in range(o.members):
                    middle, log_std = self.policy(p, k, seen)
                    log_prob = cp.normal(action, middle, log_std)
                    loss = -log_prob
                    if o.members > 1 and o.diversity:
                        others = {j: self.policy(fixed, j, seen) for j in range(o.members) if j != k}
                        likely = {j: float(cp.normal(action, *other)) for j, other in others.items()}
                        j = max(likely, key=lambda j: likely[j])
                        apart = torch.stack(cp.normal_kl(middle, log_std, *others[j]))
                        distance = apart.sum() / (len(action) if o.diversity_dimensions == "mean" else 1)
                        loss = loss - o.diversity * (distance if o.diversity_kind == "distribution" else log_prob - likely[j])
                    parts.append(loss)
            plain.descend("members", torch.stack(parts).sum() / size, o.learning_rate)
        plain.p["members/old"] = {name: value.clone().requires_grad_() for name, value in plain.fixed("members").items()}
        plain.moments.pop("members")
        self.scores = self.am_q(turn)
        self.best = list(self.scores)

    def policies(self, turn: Turn) -> None:
        """Clipped steps around the old policies, which follow through the gate; then the best member is chosen."""
        o, plain, size = turn.options, self.plain, turn.options.batch_size
        steps = len(turn.rows) // size
        for number in range(steps):
            index = [int(i) for i in turn.rows.index[number * size : (number + 1) * size]]
            self.clipped_step(turn, index, number, steps)
            if (number + 1) % o.gate_every == 0 and o.gate != "never":
                self.pass_gate(turn)
        if steps % o.gate_every or o.gate != "am-q":
            self.scores = self.am_q(turn)
        scores = self.best if o.deploy == "best" else self.scores
        self.chosen = scores.index(max(scores))
        source = plain.fixed("members/old" if o.deploy == "best" else "members")
        for name, value in source.items():
            plain.change(plain.p["online policy"], name, value[self.chosen : self.chosen + 1])
        for name, value in plain.fixed(V).items():
            plain.change(plain.p["value"], name, value)

    def clipped_step(self, turn: Turn, index: list[int], number: int, steps: int) -> None:
        """One of all members."""
        o, plain = turn.options, self.plain
        dimensions, left = len(self.data.action[0]), 1 - number / steps
        noise = torch.randn((o.members, len(index), dimensions), generator=turn.chance("updates")).double()
        released = round(0.02 * steps)
        clip = o.offline_clip * {"linear": left, "none": 1.0, "released": 1 - min(number, released) / steps}[o.clip_decay]
        old, p, q, value = plain.fixed("members/old"), plain.p["members"], plain.fixed(Q), plain.fixed(V)
        gradient: Parameters = {name: torch.zeros_like(each) for name, each in p.items()}
        for k in range(o.members):
            actions, starts, worth = [], [], []
            for place, i in enumerate(index):
                middle, log_std = self.policy(old, k, self.data.seen[i])
                actions.append(middle + torch.exp(log_std) * noise[k, place])
                starts.append(float(cp.normal(actions[-1], middle, log_std)))
                worth.append(self.q(q, self.data.seen[i], actions[-1]) - float(cp.stacked(value, 0, self.data.seen[i])[0]))
            centre, spread = sum(worth) / len(worth), cp.deviation(worth) + 1e-10
            worth = [(each - centre) / spread for each in worth]
            if o.critics == "sarsa":
                worth = [each * (o.omega if each > 0 else 1 - o.omega) for each in worth]
            parts = []
            for i, action, start, advantage in zip(index, actions, starts, worth, strict=True):
                middle, log_std = self.policy(p, k, self.data.seen[i])
                ratio = torch.exp(cp.normal(action, middle, log_std) - start)
                acted(plain.counts, "offline clip", (cp.number(ratio) - 1) * advantage > clip * abs(advantage))
                clipped = cp.least([ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage])
                parts.append(-clipped - o.offline_entropy * cp.normal_entropy(log_std))
            mine = plain.gradient("members", cp.mean(parts))
            norm = math.sqrt(sum(float((g[k] ** 2).sum()) for g in mine.values()))
            acted(plain.counts, "norm", norm > o.max_grad_norm)
            for name, g in mine.items():
                gradient[name][k] = g[k] * min(1.0, o.max_grad_norm / (norm + 1e-6))
        plain.adam("members", gradient, o.policy_learning_rate * left)

    def pass_gate(self, turn: Turn) -> None:
        """Old policies follow where AM-Q is better than ever, or all of them."""
        o, plain = turn.options, self.plain
        better = [True] * o.members
        if o.gate == "am-q":
            self.scores = self.am_q(turn)
            better = [mine > best for mine, best in zip(self.scores, self.best, strict=True)]
            self.best = [max(mine, best) for mine, best in zip(self.scores, self.best, strict=True)]
        for k in range(o.members):
            acted(plain.counts, "follows" if better[k] else "stays", True)
            for name, value in plain.fixed("members").items():
                if better[k]:
                    mixed = plain.p["members/old"][name].detach().clone()
                    mixed[k] = value[k]
                    plain.change(plain.p["members/old"], name, mixed)

    def am_q(self, turn: Turn) -> list[float]:
        """Mean Q over the pairs that the mean actions visit in the model, by member; no rule ends this world, which ends by chance."""
        o, chance = turn.options, turn.chance("imagined")
        if o.fixed_starts:
            chance = torch.Generator().manual_seed(derive_seed(turn.context.streams.seed, "imagined"))
        p, q, world = self.plain.fixed("members"), self.plain.fixed(Q), self.plain.fixed("world model")
        begins = [self.data.seen[i] for i in torch.randint(len(self.data), (o.starts,), generator=chance).tolist()]
        seen, totals = [begins[i % o.starts] for i in range(o.members * o.starts)], [0.0] * o.members
        for step in range(o.horizon):
            actions = [self.policy(p, row // o.starts, x)[0] for row, x in enumerate(seen)]
            for row, (x, action) in enumerate(zip(seen, actions, strict=True)):
                totals[row // o.starts] += self.q(q, x, action)
            if step == o.horizon - 1:
                break
            order = torch.randperm(len(seen), generator=chance).tolist()
            noise = torch.randn((len(seen), len(seen[0]) + 1), generator=chance).double()
            share = math.ceil(len(seen) / len(self.elites))
            for place, row in enumerate(order):
                middle, log_variance = self.predicted(world, self.elites[place // share], seen[row], actions[row])
                seen[row] = seen[row] + (middle + torch.exp(0.5 * log_variance) * noise[place])[:-1]
        return [total / (o.starts * o.horizon) for total in totals]

    # --- online -----------------------------------------------------------------------------------------------------------------------

    def online(self, turn: Turn) -> None:
        """PPO with policy and critic apart; advantages are standardised over the batch."""
        o, plain, rows = turn.options, self.plain, turn.rows
        again, width = o.log_std_online == "double-tanh", self.reader.bounds
        assert width is not None
        p, value, steps = plain.fixed("online policy"), plain.fixed("value"), []
        for e in range(len(rows)):
            for t in range(rows.shape[1]):
                if not rows.mask[e, t]:
                    continue
                seen, action = self.reader.seen(rows.observation[e, t]), self.reader.drawn(rows.action[e, t])
                ends = (bool(rows.terminated[e, t]), bool(rows.truncated[e, t]))
                reward = o.reward_scale * float(turn.collected.reward[e, t]) + o.reward_shift
                step = Step(
                    (e, t), seen, action, reward, self.reader.seen(rows.next_observation[e, t]), *ends, float(rows.sampler_logp[e, t])
                )
                step.start = float(cp.normal(action, *self.policy(p, 0, seen, again)))
                assert abs(step.start - float(torch.log((width[1] - width[0]) / 2).sum()) - step.sampler) < 1e-4
                steps.append(step)
        advantages(steps, lambda seen: cp.stacked(value, 0, seen)[0], o, True)
        raw = [step.advantage for step in steps]
        centre, spread = sum(raw) / len(raw), cp.deviation(raw) + 1e-5
        left = max(0.0, 1 - (turn.steps - len(steps)) / float(self.settings.online_steps or 0)) if o.online_anneal else 1.0
        for _ in range(o.online_epochs):
            order = torch.randperm(len(steps), generator=turn.chance("minibatches")).tolist()
            for first in range(0, len(order), o.online_minibatch):
                chosen = order[first : first + o.online_minibatch]
                parts, errors = [], []
                for i in chosen:
                    step, advantage = steps[i], (raw[i] - centre) / spread
                    middle, log_std = self.policy(plain.p["online policy"], 0, step.seen, again)
                    ratio = torch.exp(cp.normal(step.action, middle, log_std) - step.start)
                    acted(plain.counts, "online clip", (cp.number(ratio) - 1) * advantage > o.online_clip * abs(advantage))
                    clipped = cp.least([ratio * advantage, ratio.clamp(1 - o.online_clip, 1 + o.online_clip) * advantage])
                    parts.append(-clipped - o.entropy_coefficient * cp.normal_entropy(log_std))
                    now, target = cp.stacked(plain.p["value"], 0, step.seen)[0], step.advantage + step.value
                    moved = step.value + (now - step.value).clamp(-o.online_clip, o.online_clip)
                    errors.append(-cp.least([-((now - target) ** 2), -((moved - target) ** 2)]))
                plain.descend("online policy", cp.mean(parts), o.online_learning_rate * left, o.max_grad_norm)
                plain.descend("value", cp.mean(errors), o.online_critic_learning_rate * left, o.max_grad_norm)


def follow(turns: list[Turn], settings: Settings, counts: dict[str, int]) -> Iterator[Followed]:
    """The plain side of a run."""
    plain = UniO4(turns[0].again(), settings, counts)
    for each in turns:
        turn = each.again()
        plain.follow(turn)
        if turn.stage == MODEL:
            assert each.said["elites"] == plain.elites
        if turn.stage in (CLONING, POLICIES):
            for name in ("scores", "best"):
                pairs = zip(each.said[name], getattr(plain, name), strict=True)
                assert all(abs(one - other) < 1e-5 * max(1.0, abs(other)) for one, other in pairs), name
        if turn.stage == POLICIES:
            assert each.said["chosen"] == plain.chosen
        yield plain.plain.followed()


# --- cases --------------------------------------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "critic_part": 3.0, "model_part": 6.0, "cloning_part": 2.0, "policy_part": 4.0, "steps": 15, "online_steps": 20, "batch_size": 6,
    "hidden": (5,), "critic_hidden": (5,), "value_hidden": (4,), "model_hidden": (4,), "model_networks": 3, "model_elites": 2,
    "model_batch_size": 12, "model_learning_rate": 0.3, "max_grad_norm": 50.0,
    "members": 2, "horizon": 3, "starts": 3, "gate_every": 2, "learning_rate": 2e-2,
    "policy_learning_rate": 2e-2, "offline_clip": 0.05, "critic_learning_rate": 1e-2, "tau": 0.1, "gamma": 0.9, "lam": 0.8,
    "num_envs": 2, "online_batch_steps": 12, "online_minibatch": 8, "online_epochs": 2, "online_learning_rate": 5e-3,
    "online_critic_learning_rate": 5e-3, "online_clip": 0.02, "log_every": 1000, "checkpoint_every": 1000,
}  # fmt: skip
CLIPS = ("offline clip", "online clip")


def case(note: str, acts: tuple[str, ...] = CLIPS, **options: Any) -> Case:
    """With small networks."""
    left_out = ("gate_every",) if options.get("gate") == "never" else ()
    chosen = {name: value for name, value in (SMALL | options).items() if name not in left_out}
    return Case("uni-o4", CONTINUOUS, chosen, follow, acts, note, data=lambda: random_data(CONTINUOUS, 40))


CASES: list[Case] = [
    case("", (*CLIPS, "worse model"), members=3),
    case(
        "iql",
        (*CLIPS, "norm", "norm limit"),
        critics="iql",
        expectile=0.8,
        clip_decay="released",
        gate="always",
        diversity_dimensions="sum",
        offline_entropy=0.1,
        max_grad_norm=0.5,
    ),
    case(
        "released", diversity_kind="heuristic", log_std_online="double-tanh", bootstrap_on_truncation=False, activation="tanh", gate="never"
    ),
    case("best", (*CLIPS, "norm"), deploy="best", fixed_starts=True, clip_decay="none", omega=0.6, max_grad_norm=0.05, online_anneal=False),
]
