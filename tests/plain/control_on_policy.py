"""PPO and its relatives by loops, a step at a time: running statistics, generalised advantages, surrogates, stops, and behaviour policies.

Equations: Schulman et al. 2016 (1506.02438) eq. 16 for the advantages, Schulman et al. 2017 (1707.06347) eq. 7 and 9 for the surrogate,
Mnih et al. 2016 (1602.01783) for A2C, Zhong et al. 2022 (2111.14552) eq. 5 for ROS, Corrado and Hanna 2023 (2311.08290) algorithm 2 and
eq. 5 for PROPS, Ren et al. 2021 (2104.09122) for the mixture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rheostat.policies.control.actor_critic import ActorCritic
from rheostat.training.settings import Settings
from tests.plain import control_plain as cp
from tests.plain.control_cases import Case, Follow
from tests.plain.control_path import Turn
from tests.plain.control_plain import Followed, Parameters, Plain
from tests.plain.control_world import ACTIONS, CHOICES, CONTINUOUS, DISCRETE, SEEN
from tests.teams import Quarry


@dataclass
class Step:
    """One step of an environment, as the networks read it."""

    place: tuple[int, int]
    seen: Tensor
    action: Tensor
    reward: float
    following: Tensor
    terminated: bool
    truncated: bool
    sampler: float
    advantage: float = 0.0
    value: float = 0.0
    start: float = 0.0


# --- what is read -------------------------------------------------------------------------------------------------------------------------


class Statistics:
    """Mean and variance of everything that was collected so far, and the rewards' scale."""

    def __init__(self, blocks: Sequence[Any], gamma: float) -> None:
        observations, returns = [], []
        running = [0.0] * len(blocks[0])
        for rows in blocks:
            for t in range(rows.shape[1]):
                for e in range(len(rows)):
                    if rows.mask[e, t]:
                        observations.append(cp.double(rows.observation[e, t]))
                        running[e] = gamma * running[e] + float(rows.reward[e, t])
                        returns.append(running[e])
                        if rows.terminated[e, t] or rows.truncated[e, t]:
                            running[e] = 0.0
        self.mean = torch.stack(observations).sum(0) / len(observations)
        self.variance = torch.stack([(each - self.mean) ** 2 for each in observations]).sum(0) / len(observations)
        middle = sum(returns) / len(returns)
        self.scale = math.sqrt(sum((each - middle) ** 2 for each in returns) / len(returns) + 1e-8)

    def read(self, observation: Tensor) -> Tensor:
        """As the networks see it."""
        return ((cp.double(observation) - self.mean) / torch.sqrt(self.variance + 1e-8)).clamp(-10, 10)

    def rescale(self, reward: float) -> float:
        """As it is learned from."""
        return min(10.0, max(-10.0, reward / self.scale))


def fresh(turn: Turn) -> Any:
    """What this turn added to the window."""
    o = turn.options
    steps = getattr(o, "behaviour_steps", o.batch_steps) // o.num_envs
    return turn.rows[:, turn.rows.shape[1] - steps :]


def steps_of(rows: Any, statistics: Any, o: Any) -> list[Step]:
    """The steps that are transitions, environment by environment."""
    found = []
    for e in range(len(rows)):
        for t in range(rows.shape[1]):
            if rows.mask[e, t]:
                seen, following = rows.observation[e, t], rows.next_observation[e, t]
                reward = float(rows.reward[e, t])
                found.append(
                    Step(
                        (e, t),
                        statistics.read(seen) if o.normalise_observations else cp.double(seen),
                        rows.action[e, t].double() if rows.action.is_floating_point() else rows.action[e, t],
                        statistics.rescale(reward) if o.normalise_rewards else reward,
                        statistics.read(following) if o.normalise_observations else cp.double(following),
                        bool(rows.terminated[e, t]),
                        bool(rows.truncated[e, t]),
                        float(rows.sampler_logp[e, t]),
                    )
                )
    return found


def advantages(steps: list[Step], value: Any, o: Any, bootstrap: bool) -> None:
    """A_t = sum_l (gamma lambda)^l delta_{t+l} over the rest of the episode, and V(s_t); ``bootstrap`` says whether time limits do."""
    delta = []
    for step in steps:
        step.value = float(value(step.seen))
        ends = step.terminated or (step.truncated and not bootstrap)
        beyond = 0.0 if ends else float(value(step.following))
        delta.append(step.reward + o.gamma * beyond - step.value)
    for i, step in enumerate(steps):
        total, factor = 0.0, 1.0
        for later in range(i, len(steps)):
            if steps[later].place[0] != step.place[0]:
                break
            total += factor * delta[later]
            factor *= o.gamma * o.lam
            if steps[later].terminated or steps[later].truncated:
                break
        step.advantage = total


# --- policies -----------------------------------------------------------------------------------------------------------------------------


class Policy:
    """A Gaussian of constant deviation or independent choices, with its critic; the parts of the network have the names of the run's.

    Args:
        o: options.
        sizes: of the choices; none for a Gaussian.
    """

    def __init__(self, o: Any, sizes: tuple[int, ...] = ()) -> None:
        self.activation = cp.relu if getattr(o, "activation", "tanh") == "relu" else torch.tanh
        self.tanh_mean, self.sizes = getattr(o, "tanh_mean", False), sizes

    def outputs(self, p: Parameters, seen: Tensor) -> Tensor:
        """Of the actor."""
        found = cp.sequential(p, "actor", seen, self.activation)
        return torch.tanh(found) if self.tanh_mean else found

    def choices(self, p: Parameters, seen: Tensor) -> list[Tensor]:
        """Log-probabilities of every choice."""
        return [cp.log_softmax(part) for part in self.outputs(p, seen).split(self.sizes)]

    def log_prob(self, p: Parameters, seen: Tensor, action: Tensor) -> Tensor:
        """log pi(a|s)."""
        if not self.sizes:
            return cp.normal(action, self.outputs(p, seen), p["log_std"])
        taken = action.reshape(-1).tolist()
        return torch.stack([each[a] for each, a in zip(self.choices(p, seen), taken, strict=True)]).sum()

    def entropy(self, p: Parameters, seen: Tensor) -> Tensor:
        """Of the policy."""
        if not self.sizes:
            return cp.normal_entropy(p["log_std"])
        return -torch.stack([(torch.exp(each) * each).sum() for each in self.choices(p, seen)]).sum()

    def value(self, p: Parameters, seen: Tensor) -> Tensor:
        """V(s)."""
        return cp.sequential(p, "critic", seen, self.activation)[0]

    def penalty(self, p: Parameters, target: Parameters, seen: Tensor) -> Tensor:
        """PROPS's: KL(phi || theta) as a mean over action dimensions, or KL(theta || phi) of choices."""
        if not self.sizes:
            return cp.mean(cp.normal_kl(self.outputs(p, seen), p["log_std"], self.outputs(target, seen), target["log_std"]))
        pairs = zip(self.choices(target, seen), self.choices(p, seen), strict=True)
        return torch.stack([(torch.exp(theirs) * (theirs - mine)).sum() for theirs, mine in pairs]).sum()


class Mixture(Policy):
    """K Gaussians of constant deviations, whose weights are a linear layer; a judge of actions."""

    def parts(self, p: Parameters, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights ``[K]``, means and log-deviations ``[K, D]``."""
        logits = p["weights.weight"] @ seen + p["weights.bias"]
        return cp.log_softmax(logits), self.outputs(p, seen).view(p["log_std"].shape), p["log_std"]

    def log_prob(self, p: Parameters, seen: Tensor, action: Tensor) -> Tensor:
        log_weights, middle, log_std = self.parts(p, seen)
        joint = torch.stack([log_weights[k] + cp.normal(action, middle[k], log_std[k]) for k in range(len(middle))])
        highest = joint.max().detach()
        return highest + torch.log(torch.exp(joint - highest).sum())

    def entropy(self, p: Parameters, seen: Tensor) -> Tensor:
        """Kolchinsky and Tracey 2017 (1706.02419) eq. 10, with the Bhattacharyya distance."""
        log_weights, middle, log_std = self.parts(p, seen)
        weights, total = torch.exp(log_weights), torch.zeros(())
        for k in range(len(middle)):
            overlap = torch.zeros(())
            for j in range(len(middle)):
                distance = torch.zeros(())
                for d in range(middle.shape[1]):
                    one, other = torch.exp(2 * log_std[k, d]), torch.exp(2 * log_std[j, d])
                    both = (one + other) / 2
                    distance = distance + (middle[k, d] - middle[j, d]) ** 2 / (8 * both) + 0.5 * torch.log(both / torch.sqrt(one * other))
                overlap = overlap + weights[j] * torch.exp(-distance)
            total = total + weights[k] * (cp.normal_entropy(log_std[k]) - torch.log(overlap))
        return total


# --- losses -------------------------------------------------------------------------------------------------------------------------------


def surrogate(o: Any, log_prob: Tensor, old: float, advantage: float) -> Tensor:
    """Of one step."""
    ratio = torch.exp(log_prob - old)
    if o.clip_kind == "none":
        return -advantage * ratio
    if o.clip_kind == "detached":  # CISPO (2506.13585) eq. 4
        return -min(cp.number(ratio), 1 + o.clip) * advantage * log_prob
    limited = ratio.clamp(1 - o.clip, 1 + o.clip)
    return -cp.least([ratio * advantage, limited * advantage])


def critic_error(o: Any, value: Tensor, step: Step) -> Tensor:
    """Half the squared error, of the value or of the clipped value: the larger."""
    target = step.advantage + step.value
    error = (value - target) ** 2
    if o.clip_value:
        limited = (step.value + (value - step.value).clamp(-o.clip, o.clip) - target) ** 2
        error = -cp.least([-error, -limited])
    return 0.5 * error


def acted(counts: dict[str, int], name: str, happened: Any) -> None:
    """Count what a clip or a cap did."""
    counts[name] = counts.get(name, 0) + bool(happened)


def minibatches(turn: Turn, count: int, pieces: int) -> Iterator[list[int]]:
    """Places of the steps in every minibatch of a pass."""
    order = torch.randperm(count, generator=turn.chance("minibatches")).tolist()
    size = math.ceil(count / pieces)
    for first in range(0, count, size):
        yield order[first : first + size]


def advantages_of(o: Any, steps: list[Step], chosen: list[int], counts: dict[str, int]) -> list[float]:
    """Standardised in the minibatch, then weighed for what sampled (truncated importance sampling)."""
    found = [steps[i].advantage for i in chosen]
    if o.normalise_advantage and len(found) > 1:
        middle, spread = sum(found) / len(found), cp.deviation(found) + 1e-8
        found = [(each - middle) / spread for each in found]
    if o.sampler_correction == "token":
        ratios = [math.exp(steps[i].start - steps[i].sampler) for i in chosen]
        for ratio in ratios:
            acted(counts, "cap", ratio > o.sampler_cap)
        found = [each * min(ratio, o.sampler_cap) for each, ratio in zip(found, ratios, strict=True)]
    return found


def steps_to_learn(plain: Plain, policy: Policy, turns: Sequence[Turn]) -> tuple[list[Step], Statistics]:
    """What the last turn learns from, with advantages and log-probabilities under the policy as it is."""
    turn = turns[-1]
    statistics = Statistics([fresh(each) for each in turns], turn.options.gamma)
    steps = steps_of(turn.rows, statistics, turn.options)
    p = plain.fixed("policy")
    advantages(steps, lambda seen: policy.value(p, seen), turn.options, turn.options.bootstrap_on_truncation)
    for step in steps:
        step.start = float(policy.log_prob(p, step.seen, step.action))
    return steps, statistics


def rate_of(turn: Turn, turns: Sequence[Turn], total: int) -> float:
    """Falling linearly over the budget, by what was left when the batch was begun."""
    o = turn.options
    if not o.anneal or not turn.made:
        return float(o.learning_rate)
    begun = sum(int(fresh(each).mask.sum()) for each in turns) - o.batch_steps
    return float(o.learning_rate * max(0.0, 1 - begun / total))


def ppo(plain: Plain, policy: Policy, steps: list[Step], turn: Turn, rate: float, extra: Any = None) -> None:
    """Every pass of an update."""
    o, counts = turn.options, plain.counts
    dial = getattr(o, "updates_per_batch", None)
    passes, pieces = (o.epochs, o.minibatches) if dial is None else (dial, 1)
    for _ in range(passes):
        apart = 0.0
        for chosen in minibatches(turn, len(steps), pieces):
            weights = advantages_of(o, steps, chosen, counts)
            p, parts, far = plain.p["policy"], [], []
            for i, advantage in zip(chosen, weights, strict=True):
                step = steps[i]
                old = step.sampler if o.ratio_to == "sampler" else step.start
                log_prob = policy.log_prob(p, step.seen, step.action)
                ratio = math.exp(cp.number(log_prob) - old)
                far.append(ratio - 1 - math.log(ratio))
                acted(counts, "clip", (ratio - 1) * advantage > o.clip * abs(advantage))
                value = policy.value(p, step.seen)
                acted(counts, "clip_value", abs(cp.number(value) - step.value) > o.clip)
                loss = surrogate(o, log_prob, old, advantage) + o.value_coefficient * critic_error(o, value, step)
                parts.append(loss - o.entropy_coefficient * policy.entropy(p, step.seen))
            apart = sum(far) / len(far)
            if stops(o, apart, "before-step", counts):
                return
            loss = cp.mean(parts)
            if extra is not None:
                loss = loss + extra(plain, p, [steps[i] for i in chosen], turn)
            plain.descend("policy", loss, rate, o.max_grad_norm)
        if stops(o, apart, "after-epoch", counts):
            return


def stops(o: Any, apart: float, when: str, counts: dict[str, int]) -> bool:
    """Whether mean(rho - 1 - log rho) is too large."""
    found = o.target_kl is not None and o.kl_stop == when and apart > o.target_kl
    acted(counts, "stop", found)
    return bool(found)


def a2c(plain: Plain, policy: Policy, steps: list[Step], turn: Turn, rate: float) -> None:
    """One step on everything."""
    o = turn.options
    for chosen in minibatches(turn, len(steps), 1):
        parts, p = [], plain.p["policy"]
        for i, advantage in zip(chosen, advantages_of(o, steps, chosen, plain.counts), strict=True):
            step = steps[i]
            error = (policy.value(p, step.seen) - step.advantage - step.value) ** 2
            policy_loss = -advantage * policy.log_prob(p, step.seen, step.action)
            parts.append(policy_loss + o.value_coefficient * error - o.entropy_coefficient * policy.entropy(p, step.seen))
        plain.rmsprop("policy", cp.mean(parts), rate, o.max_grad_norm)


# --- behaviour policies -------------------------------------------------------------------------------------------------------------------


def to_repair(steps: list[Step], turn: Turn) -> list[Step]:
    """What will still be kept when the next block has come."""
    o = turn.options
    block = o.behaviour_steps // o.num_envs
    full = turn.rows.shape[1] == o.window * o.batch_steps // o.num_envs
    return [step for step in steps if not full or step.place[1] >= block]


def restart(plain: Plain) -> None:
    """phi <- theta."""
    plain.p["behaviour"] = {name: value.detach().clone().requires_grad_() for name, value in plain.p["policy"].items()}


def ros(plain: Plain, policy: Policy, steps: list[Step], turn: Turn) -> None:
    """phi = theta - alpha mean grad log pi_theta(a|s)."""
    o, theta = turn.options, plain.fixed("policy")
    restart(plain)
    p = plain.p["behaviour"]
    loss = cp.mean([torch.exp(policy.log_prob(p, s.seen, s.action) - policy.log_prob(theta, s.seen, s.action)) for s in steps])
    for name, g in plain.gradient("behaviour", loss, o.max_grad_norm).items():
        plain.change(p, name, p[name].detach() - o.behaviour_learning_rate * g)


def props(plain: Plain, policy: Policy, steps: list[Step], turn: Turn) -> None:
    """Minibatch steps that push down what the window holds."""
    o, theta = turn.options, plain.fixed("policy")
    restart(plain)
    target = [float(policy.log_prob(theta, step.seen, step.action)) for step in steps]
    weights = [1.0] * len(steps)
    if o.advantage_weighted:
        spread = cp.deviation([step.advantage for step in steps]) + 1e-8
        weights = [abs(step.advantage / spread) for step in steps]
    size = max(1, (o.window * o.batch_steps - o.behaviour_steps) // o.behaviour_minibatches)
    for _ in range(o.behaviour_epochs):
        order = torch.randperm(len(steps), generator=turn.chance("behaviour")).tolist()
        for first in range(0, len(order), size):
            pushed, apart, held, p = [], [], [], plain.p["behaviour"]
            for i in order[first : first + size]:
                rho = torch.exp(policy.log_prob(p, steps[i].seen, steps[i].action) - target[i])
                apart.append(cp.number(rho) - 1 - math.log(cp.number(rho)))
                limited = rho.clamp(1 - o.behaviour_clip, 1 + o.behaviour_clip)
                pushed.append(-weights[i] * cp.least([-rho, -limited]))
                held.append(policy.penalty(p, theta, steps[i].seen))
                acted(plain.counts, "behaviour_clip", cp.number(rho) < 1 - o.behaviour_clip)
            if sum(apart) / len(apart) > o.behaviour_target_kl:
                acted(plain.counts, "behaviour_stop", True)
                return
            plain.descend(
                "behaviour", cp.mean(pushed) + o.behaviour_kl_coefficient * cp.mean(held), o.behaviour_learning_rate, o.max_grad_norm
            )


# --- the mixture's extra losses -----------------------------------------------------------------------------------------------------------


def gumbel(generator: torch.Generator, shape: torch.Size) -> Tensor:
    """Standard Gumbel noise."""
    return -torch.empty(shape).exponential_(generator=generator).log()


def judge_and_weights(plain: Plain, p: Parameters, steps: list[Step], turn: Turn) -> Tensor:
    """The judge's regression on what actions led to, and the loss of the mixture's weights."""
    o, mixture, chance = turn.options, Mixture(turn.options), turn.chance("experts")
    experts, dimensions = p["log_std"].shape
    noise = torch.randn((len(steps), experts, dimensions), generator=chance).double()
    random = gumbel(chance, torch.Size((len(steps), experts))).double()
    of_judge, of_weights = [], []
    fixed = {name: value.detach() for name, value in p.items()}
    for row, step in enumerate(steps):
        log_weights, middle, log_std = mixture.parts(p, step.seen)
        drawn = [(middle[k] + torch.exp(log_std[k]) * noise[row, k]).detach() for k in range(experts)]

        def judge(weights: Parameters, action: Tensor, seen: Tensor = step.seen) -> Tensor:
            return cp.stacked(weights, 0, torch.cat([seen, action]), "judge.stack")[0]

        value = [cp.number(judge(fixed, action)) for action in drawn]
        best = max(range(experts), key=lambda k: (value[k], -k))
        of_judge.append((judge(p, step.action) - step.advantage - step.value) ** 2)
        if o.mixture_gradient == "frequency":
            of_weights.append(cp.mean([(torch.exp(log_weights[k]) - float(k == best)) ** 2 for k in range(experts)]))
            continue
        chosen = max(range(experts), key=lambda k: cp.number(log_weights[k] + random[row, k]))
        if o.mixture_gradient == "score":
            expected = sum(math.exp(cp.number(log_weights[k])) * value[k] for k in range(experts))
            of_weights.append(-log_weights[chosen] * (value[chosen] - expected))
        else:
            soft = torch.exp(cp.log_softmax((log_weights + random[row]) / o.gumbel_temperature))
            hard = [float(k == chosen) + soft[k] - soft[k].detach() for k in range(experts)]
            action = sum((hard[k] * drawn[k] for k in range(experts)), torch.zeros(()))
            of_weights.append(-judge(fixed, action))
    return o.judge_coefficient * cp.mean(of_judge) + o.mixture_coefficient * cp.mean(of_weights)


# --- runs ---------------------------------------------------------------------------------------------------------------------------------


def check_acting(plain: Plain, policy: Policy, turns: Sequence[Turn]) -> None:
    """The steps of the last turn were sampled with the density that they say."""
    o, acting = turns[-1].options, "behaviour" if "behaviour" in plain.p else "policy"
    before = Statistics([fresh(each) for each in turns[:-1]], o.gamma) if len(turns) > 1 else None
    rows, p = fresh(turns[-1]), plain.fixed(acting)
    for e, t in rows.mask.nonzero().tolist():
        seen = cp.double(rows.observation[e, t])
        if o.normalise_observations:
            seen = seen.clamp(-10, 10) if before is None else before.read(seen)
        action = rows.action[e, t].double() if rows.action.is_floating_point() else rows.action[e, t]
        assert abs(float(policy.log_prob(p, seen, action)) - float(rows.sampler_logp[e, t])) < 1e-5


def score(policy: Policy, p: Parameters, seen: Tensor, action: Tensor) -> Tensor:
    """grad log pi(a|s) by everything but the critic."""
    own = {name: value for name, value in p.items() if not name.startswith("critic")}
    return torch.cat([g.flatten() for g in torch.autograd.grad(policy.log_prob(p, seen, action), list(own.values()))])


def check_repairing(plain: Plain, policy: Policy, turns: Sequence[Turn]) -> None:
    """Robust on-policy acting: with probability rho the candidate that makes the mean absolute score of all data smallest (2111.14552)."""
    o, p = turns[-1].options, plain.p["policy"]
    before = Statistics([fresh(each) for each in turns[:-1]], o.gamma) if len(turns) > 1 else None
    chance = turns[-2].again().chance("actions") if len(turns) > 1 else Turn(turns[0].context, o).chance("actions")
    running = sum(
        (score(policy, p, step.seen, step.action) for each in turns[:-1][-(o.window - 1) :] for step in steps_of(fresh(each), before, o)),
        torch.zeros(()),
    )
    rows = fresh(turns[-1])
    environments = range(len(rows))
    for t in range(rows.shape[1]):
        seen = [rows.observation[e, t].double() for e in environments]
        seen = [x.clamp(-10, 10) if before is None else before.read(x) for x in seen]
        if policy.sizes:
            candidates = [[torch.tensor(a) for a in range(policy.sizes[0])] for _ in environments]
            log_probs = torch.stack([policy.choices(p, x)[0].detach() for x in seen])
            sampled: Any = (log_probs + gumbel(chance, log_probs.shape)).argmax(1)
        else:
            levels = [
                math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * q / (o.quantiles + 1) - 1, dtype=torch.float64)))
                for q in range(1, o.quantiles + 1)
            ]
            others = torch.randperm(o.quantiles, generator=chance).tolist()
            noise = [torch.tensor([levels[k], levels[others[k]]]).double() for k in range(o.quantiles)]
            deviation = torch.exp(p["log_std"].detach())
            middles = [policy.outputs(p, x).detach() for x in seen]
            candidates = [[middle + deviation * each for each in noise] for middle in middles]
            drawn = torch.randn((len(rows), 2), generator=chance).double()
            sampled = [middles[e] + deviation * drawn[e] for e in environments]
        repairs = (torch.rand(len(rows), generator=chance) < o.repair_probability).tolist()
        added = []
        for e in environments:
            merits = [float((running + score(policy, p, seen[e], each)).abs().mean()) for each in candidates[e]]
            best = candidates[e][merits.index(min(merits))]
            action, real = best if repairs[e] else sampled[e], rows.action[e, t]
            acted(plain.counts, "repair", repairs[e])
            assert (action - real.to(action.dtype)).abs().max() < 1e-5
            if policy.sizes:
                chance_of = (1 - o.repair_probability) * math.exp(cp.number(policy.log_prob(p, seen[e], real)))
                assert abs(math.log(chance_of + o.repair_probability * bool(real == best)) - float(rows.sampler_logp[e, t])) < 1e-5
            if rows.mask[e, t]:
                added.append(score(policy, p, seen[e], action))
        running = running + sum(added)


def following(kind: type[Policy] = Policy, sizes: tuple[int, ...] = ()) -> Follow:
    """The plain side of runs of this family."""

    def follow(turns: list[Turn], settings: Settings, counts: dict[str, int]) -> Iterator[Followed]:
        plain, policy = Plain(turns[0].start, eps=1e-5), kind(turns[0].options, sizes)
        plain.counts = counts
        for number in range(len(turns)):
            yield one_turn(plain, policy, [*turns[:number], turns[number].again()], settings.steps)

    return follow


def follow_agents(turns: list[Turn], settings: Settings, counts: dict[str, int]) -> Iterator[Followed]:
    """The plain side of independent PPO: every agent's own, as if it were alone."""
    plains: dict[str, Plain] = {}
    for number, turn in enumerate(turns):
        for name, mine in turn.members.items():
            plain = plains.setdefault(name, Plain(mine.start, eps=1e-5))
            plain.counts = counts
            sizes = () if mine.rows.action.is_floating_point() else (2,)
            before = [each.members[name] for each in turns[:number]]
            yield one_turn(plain, Policy(mine.options, sizes), [*before, mine.again()], settings.steps)


def one_turn(plain: Plain, policy: Policy, turns: Sequence[Turn], total: int) -> Followed:
    """The last of some turns."""
    turn, o = turns[-1], turns[-1].options
    plain.begin(turn.start)
    (check_repairing if hasattr(o, "repair_probability") else check_acting)(plain, policy, turns)
    steps, _ = steps_to_learn(plain, policy, turns)
    if len(turns) % (o.batch_steps // getattr(o, "behaviour_steps", o.batch_steps)) == 0:
        rate = rate_of(turn, turns, total)
        if hasattr(o, "clip"):
            ppo(plain, policy, steps, turn, rate, judge_and_weights if isinstance(policy, Mixture) else None)
        else:
            a2c(plain, policy, steps, turn, rate)
    if "behaviour" in plain.p:
        (props if hasattr(o, "behaviour_epochs") else ros)(plain, policy, to_repair(steps, turn), turn)
    return plain.followed()


# --- cases --------------------------------------------------------------------------------------------------------------------------------

BASE: dict[str, Any] = {
    "num_envs": 2, "batch_steps": 16, "hidden": (5,), "learning_rate": 1e-2, "gamma": 0.9, "lam": 0.8, "entropy_coefficient": 0.02,
    "value_coefficient": 0.7, "max_grad_norm": 50.0, "steps": 20,
}  # fmt: skip
PASSES: dict[str, Any] = {"epochs": 2, "minibatches": 2, "clip": 0.05, "clip_value": True}
RAW: dict[str, Any] = {"normalise_observations": False, "normalise_rewards": False}
DIAL: dict[str, Any] = {"dial.updates_per_batch": 4}
CHOICE, PAIR = following(sizes=(3,)), following(sizes=(3, 2))


class Own(ActorCritic):
    """The reference network as one of the user's: by autograd, without a fast form."""


def own() -> Own:
    """For the continuous world."""
    return Own(SEEN, ACTIONS["Continuous"], hidden=(5,))


def case(method: str, task: str, note: str, acts: tuple[str, ...] = (), follow: Follow | None = None, **options: Any) -> Case:
    """With the options of all."""
    policy = options.pop("policy", None)
    follow = follow or {CONTINUOUS: following(), DISCRETE: CHOICE, CHOICES: PAIR}[task]
    base = BASE if method == "a2c" else BASE | PASSES
    if policy is not None:
        base = {name: value for name, value in base.items() if name != "hidden"}
    return Case(method, task, base | options, follow, acts, note, policy)


CLIPS = ("clip", "clip_value")
REPAIRING: dict[str, Any] = {"behaviour_steps": 8, "steps": 34}
PROPS: dict[str, Any] = REPAIRING | {
    "behaviour_epochs": 2, "behaviour_minibatches": 3, "behaviour_learning_rate": 1e-2, "behaviour_clip": 0.03, "target_kl": None,
}  # fmt: skip
PUSHES = ("behaviour_clip",)
EXPERTS: dict[str, Any] = {"mixture_size": 3, "judge_hidden": (4,), "batch_steps": 12, "steps": 12, "epochs": 1}

CASES: list[Case] = [
    case("a2c", CONTINUOUS, "continuous"),
    case("a2c", DISCRETE, "discrete", ("norm limit",), max_grad_norm=0.1, normalise_advantage=True, anneal=True),
    case("ppo", CONTINUOUS, "continuous", CLIPS),
    case("ppo", DISCRETE, "discrete", CLIPS),
    case("ppo", CONTINUOUS, "limited gradient", ("norm limit",), max_grad_norm=0.3),
    case("ppo", CHOICES, "several choices", CLIPS),
    case("ppo", CONTINUOUS, "own network", CLIPS, policy=own),
    case("ppo", CONTINUOUS, "detached clip", ("clip",), clip_kind="detached", clip_value=False, activation="relu", tanh_mean=True),
    case("ppo", DISCRETE, "no clip", clip_kind="none", clip_value=False, clip=0.2, **RAW, bootstrap_on_truncation=False, anneal=False),
    case("ppo", CONTINUOUS, "raw advantages", CLIPS, normalise_advantage=False, minibatches=5),
    case("ppo", CONTINUOUS, "stops before a step", ("stop",), target_kl=0.002, kl_stop="before-step", epochs=4),
    case("ppo", DISCRETE, "stops after a pass", ("stop",), target_kl=0.0005, epochs=4),
    case("ppo", CONTINUOUS, "updates per batch", CLIPS, epochs=10, minibatches=32, **DIAL),
    case("ppo-buffer", CONTINUOUS, "window", CLIPS),
    case("ppo-buffer", CONTINUOUS, "ratio to the sampler", CLIPS, ratio_to="sampler"),
    case("ppo-buffer", DISCRETE, "sampler correction", ("cap", *CLIPS), sampler_correction="token", sampler_cap=1.05),
    case("props", CONTINUOUS, "continuous", PUSHES, **PROPS),
    case("props", DISCRETE, "discrete", PUSHES, **PROPS, advantage_weighted=True),
    case("props", CONTINUOUS, "stops", ("behaviour_stop", "norm limit"), max_grad_norm=0.05, **PROPS, behaviour_target_kl=1e-4),
    case("ros", CONTINUOUS, "continuous", CLIPS, **REPAIRING),
    case("ros", DISCRETE, "discrete", ("norm limit",), max_grad_norm=0.1, **REPAIRING),
    case("robust-acting", CONTINUOUS, "continuous", ("repair",), repair_probability=0.5, batch_steps=12, quantiles=5),
    case("robust-acting", DISCRETE, "discrete", ("repair",), repair_probability=0.5, batch_steps=12),
    Case("ippo", Quarry, BASE | PASSES | {"anneal": False}, follow_agents, CLIPS, "three agents"),
    *(
        case("pmoe-ppo", CONTINUOUS, kind, follow=following(Mixture), mixture_gradient=kind, **EXPERTS)
        for kind in ("frequency", "score", "gumbel")
    ),
]
