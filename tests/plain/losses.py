"""The methods' losses, token by token, from the papers' equations. Each returns what one gradient step minimises.

Where a number of an equation is missing, it is that of the method's own page (the head of its file in ``rheostat/methods/language``), which
says what paper and code do differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rheostat.trajectories import Source
from tests.plain import flow
from tests.plain import worth as credit
from tests.plain.following import World
from tests.plain.rows import Row, appraise, speak, vocabulary
from tests.plain.worth import Worth

Values = dict[Row, list[Tensor]]


# --- token losses as one number ---------------------------------------------------------------------------------------------------------


def token_mean(values: Values) -> Tensor:
    """Every token weighs the same."""
    return sum_of(values) / sum(len(each) for each in values.values())


def row_mean(values: Values) -> Tensor:
    """Every row weighs the same."""
    return torch.stack([sum_all(each) / len(each) for each in values.values()]).mean()


def row_sum(values: Values) -> Tensor:
    """The mean over rows of their sums."""
    return sum_of(values) / len(values)


def sum_of(values: Values) -> Tensor:
    """Over all tokens."""
    return sum_all([value for each in values.values() for value in each])


def sum_all(values: list[Tensor]) -> Tensor:
    """0 where there are none."""
    total = torch.zeros((), dtype=torch.float64)
    for value in values:
        total = total + value
    return total


def constant(world: World, rows: list[Row]) -> Callable[[Values], Tensor]:
    """A sum over rows x longest completion, whoever's the tokens are."""
    return lambda values: sum_of(values) / (len(rows) * world.longest)


# --- who sampled ------------------------------------------------------------------------------------------------------------------------


def drift(row: Row) -> list[float]:
    """Of every token, the log-ratio of whoever sampled it to the policy when this update began."""
    return [sampled - old for sampled, old in zip(row.behaviour, row.old, strict=True)]


def near_row(world: World, row: Row, *, most: float) -> bool:
    """Whether the mean over its tokens of k3 is at most so many nats; the others are left out whole."""
    if not row.valid or not len(row):
        return row.valid
    near = sum(math.exp(-x) - 1 + x for x in drift(row)) / len(row) <= most
    world.seen.add("an accepted row" if near else "a rejected row")
    return near


def near_tokens(values: Values, *, low: float, high: float, together: Callable[[Values], Tensor]) -> Tensor:
    """Tokens whose log-ratio is outside of the bounds are in no sum and in no mean."""
    near = {row: [value for x, value in zip(drift(row), each, strict=True) if low <= x <= high] for row, each in values.items()}
    return together({row: each for row, each in near.items() if each})


def has_near_tokens(world: World, row: Row, *, low: float, high: float) -> bool:
    """Whether a token of the row is inside of the bounds."""
    inside = [low <= x <= high for x in drift(row)]
    world.seen |= {"a rejected token"} if row.valid and any(inside) and not all(inside) else set()
    return row.valid and any(inside)


# --- ratios and clips -------------------------------------------------------------------------------------------------------------------


def ratios(now: Tensor, than: list[float]) -> list[Tensor]:
    """Of every token, its probability now to one that was."""
    return [(now[t] - than[t]).exp() for t in range(len(than))]


def clipped(
    world: World,
    ratio: Tensor,
    a: float,
    low: float,
    high: float,
    *,
    dual: float | None = None,
    upper: float | None = None,
    centre: float = 1.0,
) -> Tensor:
    """PPO, equation 7: min(r A, clip(r) A), to be maximised; with the dual clip and the two-sided clip of the field."""
    free = ratio if upper is None or ratio < upper else torch.tensor(upper, dtype=ratio.dtype)
    bounded = ratio.clamp(centre - low, centre + high)
    found = torch.minimum(free * a, bounded * a)
    if a > 0 and ratio > centre + high:
        world.seen.add("clipped above")
    if a < 0 and ratio < centre - low:
        world.seen.add("clipped below")
    if upper is not None and a < 0 and ratio > upper:
        world.seen.add("clipped by the upper bound")
    if dual is not None and a < 0 and ratio > dual:
        world.seen.add("dually clipped")
        found = torch.maximum(found, torch.tensor(dual * a, dtype=ratio.dtype))
    return found


def surrogate(world: World, rows: list[Row], worth: Worth, low: float, high: float, **bounds: Any) -> Values:
    """PPO's loss of every token, its ratio to the policy when the update began."""
    return {
        row: [-clipped(world, r, a, low, high, **bounds) for r, a in zip(ratios(world.now(row), row.old), worth[row], strict=True)]
        for row in rows
    }


def k3(world: World, rows: list[Row]) -> Values:
    """DeepSeekMath, equation 4, of every token."""
    found: Values = {}
    for row in rows:
        other = [base - now for base, now in zip(row.reference, world.now(row), strict=True)]
        found[row] = [each.exp() - each - 1 for each in other]
    return found


def k2(world: World, rows: list[Row]) -> Values:
    """Half the squared log-ratio to the base model."""
    return {row: [0.5 * (now - base) ** 2 for base, now in zip(row.reference, world.now(row), strict=True)] for row in rows}


def entropies(world: World, rows: list[Row]) -> Values:
    """Of the distribution that every token was drawn from."""
    return {row: list(world.speak(row)[1]) for row in rows}


# --- GRPO and its family ----------------------------------------------------------------------------------------------------------------


def grpo(
    world: World,
    rows: list[Row],
    *,
    low: float = 0.2,
    high: float = 0.2,
    beta: float = 0.04,
    kl: Callable[[World, list[Row]], Values] = k3,
    bonus: float = 0.0,
    together: Callable[[Values], Tensor] = row_mean,
    advantage: Callable[[list[Row]], Worth] = credit.in_deviations,
    **bounds: Any,
) -> Tensor:
    """DeepSeekMath, equation 3."""
    loss = together(surrogate(world, rows, advantage(world.batch), low, high, **bounds))
    if beta:
        loss = loss + beta * together(kl(world, rows))
    return loss - bonus * together(entropies(world, rows)) if bonus else loss


def dapo(world: World, rows: list[Row], *, buffer: int) -> Tensor:
    """DAPO, equations 8, 9 and 13."""
    assert all(len({other.reward for other in credit.members(row, world.batch)}) > 1 for row in world.batch)  # equation 11

    def worth(row: Row) -> float:
        penalty = credit.overlong(row, world.longest, buffer)
        world.seen |= {"an overlong row"} if penalty else set()
        return row.reward + penalty

    return token_mean(surrogate(world, rows, credit.in_deviations(world.batch, worth=worth), 0.2, 0.28))


def light_r1(world: World, rows: list[Row], *, margin: int, exceed: float, beta: float = 0.001, **bounds: Any) -> Tensor:
    """Light-R1's last stage: GRPO over tokens, with the cosine length reward."""

    def worth(row: Row) -> float:
        if len(row) + margin >= world.longest:
            world.seen.add("a completion near the limit")
            return exceed
        share = (1 + math.cos(math.pi * len(row) / world.longest)) / 2
        world.seen.add("a right completion" if row.reward >= 1 else "a wrong completion")
        return 0.9 + 0.1 * share if row.reward >= 1 else -0.5 - 0.5 * share

    loss = token_mean(surrogate(world, rows, credit.in_deviations(world.batch, worth=worth), 0.2, 0.2, **bounds))
    return loss + beta * token_mean(k3(world, rows)) if beta else loss


def dr_grpo(world: World, rows: list[Row]) -> Tensor:
    """Dr. GRPO, section 3.2, with TRL's constant."""
    return constant(world, rows)(surrogate(world, rows, credit.from_mean(world.batch), 0.2, 0.2))


def gspo(world: World, rows: list[Row], *, low: float = 3e-4, high: float = 4e-4) -> Tensor:
    """GSPO, equations 5 to 7."""
    worth, total = credit.in_deviations(world.batch), torch.zeros((), dtype=torch.float64)
    for row in rows:
        ratio = (sum_all([world.now(row)[t] - row.old[t] for t in range(len(row))]) / len(row)).exp()
        total = total - clipped(world, ratio, worth[row][0], low, high)
    return total / len(rows)


def gmpo(world: World, rows: list[Row], *, width: float = 0.4) -> Tensor:
    """GMPO: the geometric mean of token ratios that are clipped in log space."""
    worth, total = credit.in_deviations(world.batch), torch.zeros((), dtype=torch.float64)
    for row in rows:
        a, logs = worth[row][0], []
        for t in range(len(row)):
            log_ratio = world.now(row)[t] - row.old[t]
            if a > 0 and log_ratio > width:
                log_ratio = torch.tensor(width, dtype=torch.float64)
                world.seen.add("clipped above")
            if a < 0 and log_ratio < -width:
                log_ratio = torch.tensor(-width, dtype=torch.float64)
                world.seen.add("clipped below")
            logs.append(log_ratio)
        total = total - a * (sum_all(logs) / len(logs)).exp()
    return total / len(rows)


def cispo(world: World, rows: list[Row], *, high: float = 0.28) -> Tensor:
    """MiniMax-M1, equations 4 and 5: the clipped ratio is a constant weight of the log-likelihood."""
    worth, found = credit.in_deviations(world.batch), dict[Row, list[Tensor]]()
    for row in rows:
        now = world.now(row)
        found[row] = []
        for t, a in enumerate(worth[row]):
            ratio = math.exp(float(now[t]) - row.old[t])
            world.seen |= {"clipped above"} if a and ratio > 1 + high else set()
            found[row].append(-min(ratio, 1 + high) * a * now[t])
    return token_mean(found)


def rloo(world: World, rows: list[Row], *, beta: float = 0.05, low: float = 0.2, high: float = 0.2) -> Tensor:
    """RLOO with the whole completion as one action, and the KL as a part of its reward."""

    def worth(row: Row) -> float:
        return row.reward - beta * sum(old - base for old, base in zip(row.old, row.reference, strict=True))

    advantage, total = credit.from_others(world.batch, worth=worth), torch.zeros((), dtype=torch.float64)
    for row in rows:
        ratio = sum_all([world.now(row)[t] - row.old[t] for t in range(len(row))]).exp()
        total = total - clipped(world, ratio, advantage[row][0], low, high)
    return total / len(rows)


def reinforce(world: World, rows: list[Row]) -> Tensor:
    """Williams 1992, with the group's mean as a baseline."""
    worth = credit.from_mean(world.batch)
    return row_sum({row: [-a * logp for a, logp in zip(worth[row], world.now(row), strict=True)] for row in rows})


def reinforce_pp(world: World, rows: list[Row], *, beta: float = 0.01) -> Tensor:
    """REINFORCE++: returns of token rewards with the KL in them, whitened over the batch; PPO's clip."""
    worth = credit.whitened({row: credit.to_go(credit.token_rewards(row, beta, row.reward)) for row in world.kept()})
    return token_mean(surrogate(world, rows, worth, 0.2, 0.2))


def reinforce_pp_baseline(world: World, rows: list[Row]) -> Tensor:
    """REINFORCE++, its variant for several completions per prompt."""
    worth = credit.from_mean(world.batch)
    return token_mean(surrogate(world, rows, credit.whitened({row: worth[row] for row in world.kept()}), 0.2, 0.2))


def tis(world: World, rows: list[Row], *, cap: float = 2.0, whole: bool = False) -> Tensor:
    """DAPO's clipped loss times the capped ratio of the learner when the update began to the sampler, of a token or of the completion."""
    worth = credit.in_deviations(world.batch)
    found = surrogate(world, rows, worth, 0.2, 0.28)
    for row, values in found.items():
        logs = [old - sampled for old, sampled in zip(row.old, row.behaviour, strict=True)]
        for t in range(len(values)):
            weight = math.exp(sum(logs) if whole else logs[t])
            if worth[row][t]:
                world.seen.add("capped" if weight > cap else "a weight below its cap")
            values[t] = values[t] * min(weight, cap)
    return token_mean(found)


def centred(
    world: World,
    rows: list[Row],
    *,
    tokens: int,
    low: float = 0.2,
    high: float = 0.28,
    cap: float | None = None,
    together: Callable[[Values], Tensor] = token_mean,
) -> Tensor:
    """Score centring: from the slope of every token's clipped and weighted loss, its mean over what the sampler might have said instead.

    ``tokens`` of the sampler's likeliest ones are known, all others are one.
    """
    worth = credit.in_deviations(world.batch)
    found = surrogate(world, rows, worth, low, high)
    for row, values in found.items():
        sampled, before, now = world.at_sampling(row), world.at_first(row), world.every(row)
        for t, a in enumerate(worth[row]):
            weight = math.exp(row.old[t] - row.behaviour[t])
            values[t] = values[t] * (1.0 if cap is None else min(weight, cap))
            head = sorted(range(len(sampled[t])), key=lambda v: -sampled[t][v])[:tokens]
            outcomes = [[v] for v in head] + [[v for v in range(len(sampled[t])) if v not in head]]
            for those in outcomes:
                q, old = (sum(each[t][v] for v in those) for each in (sampled, before))
                logp = now[t][those].logsumexp(0)
                ratio = math.exp(logp.item()) / old
                if (a > 0 and ratio > 1 + high) or (a < 0 and ratio < 1 - low):
                    world.seen |= {"a clipped other token"} if q > 1e-3 else set()
                    continue
                slope = -a * ratio * (1.0 if cap is None else min(old / q, cap))
                world.seen |= {"a capped other token"} if cap is not None and a and old / q > cap else set()
                values[t] = values[t] - q * slope * logp
    return together(found)


def bapo(world: World, rows: list[Row], *, form: str = "paper", dual: float | None = None, **search: float) -> Tensor:
    """BAPO, algorithm 1: PPO's clip on the ratio to whoever sampled, with searched bounds."""
    worth = credit.in_deviations(world.batch)
    return token_mean(searched(world, rows, worth, form=form, dual=dual, **search))


def searched(world: World, rows: list[Row], worth: Worth, *, form: str, dual: float | None, **search: float) -> Values:
    """The clipped loss of every token with BAPO's bounds."""
    entries = []
    for row in rows:
        for t, a in enumerate(worth[row]):
            entries.append((math.exp(float(world.now(row)[t]) - row.behaviour[t]), a, math.exp(row.behaviour[t])))
    low, high = search_window(world, entries, form, **search)
    return {
        row: [
            -clipped(world, r, a, 1 - low, high - 1, dual=dual)
            for r, a in zip(ratios(world.now(row), row.behaviour), worth[row], strict=True)
        ]
        for row in rows
    }


def search_window(
    world: World,
    entries: list[tuple[float, float, float]],
    form: str,
    *,
    low: float,
    low_end: float,
    low_step: float,
    high: float,
    high_end: float,
    high_step: float,
    target: float,
) -> tuple[float, float]:
    """The two bounds of the ratio, from (ratio, advantage, probability under the sampler) of every token."""

    def balance() -> float:
        positive = negative = 0.0
        for ratio, a, p in entries:
            weight = p if form == "paper" else 1.0
            if a > 0:
                positive += weight * min(ratio, high) * a
            if a < 0:
                negative += weight * max(ratio, low) * -a
        if not negative:
            return math.inf
        return positive / (positive + negative) if form == "paper" else positive / (negative + 1e-8)

    start, tiny = (low, high), 1e-9
    while balance() < target:
        if form == "paper":
            if high + high_step <= high_end + tiny:
                high = high + high_step
            elif low + low_step <= low_end + tiny:
                low = low + low_step
            else:
                break
        elif low < low_end - tiny:
            low = min(low + low_step, low_end)
        elif high < high_end - tiny:
            high = min(high + high_step, high_end)
        else:
            break
    world.seen |= ({"the lower bound moved"} if low > start[0] else set()) | ({"the upper bound moved"} if high > start[1] else set())
    return low, high


def lp_reg(
    world: World, rows: list[Row], *, share: float, pull: float = 1.0, threshold: float = 0.02, low: float = 1.0, high: float = 9.0
) -> Tensor:
    """Lp-Reg: rare tokens of wrong answers have no clip and are pulled up to a proxy without the noise."""
    worth, found = credit.in_deviations(world.batch), surrogate(world, rows, credit.in_deviations(world.batch), low, high)
    wrong = sorted(float(logp) for row in rows for a, logp in zip(worth[row], world.now(row), strict=True) if a < 0)
    rare = wrong[: math.floor(share * len(wrong))]
    for row in rows:
        for t, p in enumerate(world.at_first(row)):
            logp, a, mine = world.now(row)[t], worth[row][t], p[row.ids[row.places[t]]]
            kept = [each for each in p if each >= threshold * max(p)]
            proxy = math.log(mine / sum(kept)) if mine in kept else -math.inf
            if a < 0 and len(rare) > 1 and float(logp) in rare:
                world.seen.add("a rare token that is kept" if proxy > float(logp) else "a rare token that is deleted")
                if proxy > float(logp):
                    other = proxy - logp
                    found[row][t] = -a * (logp - row.old[t]).exp() + pull * (other.exp() - other - 1).clamp(max=10.0)
    return token_mean(found)


def covariances(world: World, rows: list[Row], worth: Worth) -> list[tuple[float, Row, int]]:
    """Of every token, the product of how far its log-probability and its advantage are from their means; with its place."""
    tokens = [(float(world.now(row)[t].detach()), a, row, t) for row in rows for t, a in enumerate(worth[row])]
    mean, middle = (sum(each[place] for each in tokens) / len(tokens) for place in (0, 1))
    return [((logp - mean) * (a - middle), row, t) for logp, a, row, t in tokens]


def clip_cov(world: World, rows: list[Row], *, least: float, most: float, low: float, high: float) -> Tensor:
    """Clip-Cov where all tokens between the bounds are taken: no draw is left to chance."""
    worth = credit.in_deviations(world.batch)
    found = surrogate(world, rows, worth, low, high)
    for value, row, t in covariances(world, rows, worth):
        a, ratio = worth[row][t], math.exp(float(world.now(row)[t].detach()) - row.old[t])
        if least < value < most and not ((a > 0 and ratio > 1 + high) or (a < 0 and ratio < 1 - low)):
            world.seen.add("a token that is left out")
            found[row][t] = torch.zeros((), dtype=torch.float64)
    return row_mean(found)


def kl_cov(world: World, rows: list[Row], *, share: float, beta: float) -> Tensor:
    """KL-Cov: the tokens of the largest covariance pay for moving, none is clipped."""
    worth = credit.in_deviations(world.batch)
    found = {row: [-a * r for a, r in zip(worth[row], ratios(world.now(row), row.old), strict=True)] for row in rows}
    order = sorted(covariances(world, rows, worth), key=lambda each: -each[0])
    for _, row, t in order[: max(1, math.floor(share * len(order)))]:
        log_ratio = world.now(row)[t] - row.old[t]
        if abs(float(log_ratio.detach())) > 1e-4:  # less is rounding
            world.seen.add("a held token that has moved")
            found[row][t] = found[row][t] + beta * log_ratio.abs()
    return row_mean(found)


def self_curation(world: World, rows: list[Row], *, beta: float = 0.0) -> Tensor:
    """SELF: GRPO with a dual clip of 3, and the forward KL to the starting model on its own samples."""
    own, rehearsed = [row for row in rows if not row.expert], [row for row in rows if row.expert]
    worth = credit.in_deviations([row for row in world.batch if not row.expert])
    loss = token_mean(surrogate(world, own, worth, 0.2, 0.2, dual=3.0))
    if not beta:
        return loss
    return loss + beta * token_mean(
        {row: [base - logp for base, logp in zip(row.reference, world.now(row), strict=True)] for row in rehearsed}
    )


def acereason(world: World, rows: list[Row]) -> Tensor:
    """AceReason: REINFORCE with group-normalised rewards, the mean over all tokens; there is no ratio in it."""
    worth = credit.in_deviations(world.batch)
    return token_mean({row: [-a * logp for a, logp in zip(worth[row], world.now(row), strict=True)] for row in rows})


# --- rows that others wrote -------------------------------------------------------------------------------------------------------------


def likelihood(world: World, rows: list[Row]) -> Tensor:
    """Maximum likelihood: SFT of demonstrations, RFT of what was right."""
    return token_mean({row: [-logp for logp in world.now(row)] for row in rows})


def right(world: World, row: Row) -> bool:
    """RFT: what is kept."""
    return row.valid and row.reward >= 1


def chord(
    world: World,
    rows: list[Row],
    *,
    mu: Callable[[int], float] = lambda update: 0.1,
    phi: bool = True,
    cutoff: float = 1.0,
    search: dict[str, Any] | None = None,
) -> Tensor:
    """CHORD: (1 - mu) GRPO on own rows and mu times weighted imitation of the expert's."""
    own, theirs = [row for row in rows if not row.expert], [row for row in rows if row.expert]
    worth = credit.in_deviations([row for row in world.batch if not row.expert])
    found = searched(world, own, worth, **search) if search else surrogate(world, own, worth, 0.2, 0.2, dual=3.0)
    imitation: Values = {}
    for row in theirs:
        imitation[row] = []
        for logp in world.now(row):
            p = float(logp.detach().exp())
            world.seen |= {"a token beyond the cutoff"} if p > cutoff else set()
            imitation[row].append(-(p * (1 - p) if phi else 1.0) * (logp if p <= cutoff else torch.tensor(math.log(cutoff))))
    weight = mu(world.update)
    loss = (1 - weight) * token_mean(found) if own else torch.zeros((), dtype=torch.float64)
    return loss + weight * token_mean(imitation) if theirs else loss


def cosine(peak: float, valley: float, warmup: int, decay: int) -> Callable[[int], float]:
    """CHORD's schedule of mu."""

    def mu(update: int) -> float:
        if update < warmup:
            return peak * update / warmup
        if update < warmup + decay:
            return valley + (peak - valley) * (1 + math.cos(math.pi * (update - warmup) / decay)) / 2
        return valley

    return mu


def cog_rethinker(world: World, rows: list[Row], *, weight: float = 0.1, low: float = 0.2, high: float = 0.28) -> Tensor:
    """Cog-Rethinker: DAPO on groups of one problem in one stage, and imitation with a denominator of its own."""
    own, imitated = [row for row in rows if not row.expert], [row for row in rows if row.expert]
    worth = credit.in_deviations([row for row in world.batch if not row.expert])
    world.seen |= {f"stage {row.facts['stage']} {'imitated' if row.expert else 'sampled'}" for row in rows}
    loss = token_mean(surrogate(world, own, worth, low, high)) if own else torch.zeros((), dtype=torch.float64)
    return loss + weight * token_mean({row: [-logp for logp in world.now(row)] for row in imitated}) if imitated else loss


def luffy(world: World, rows: list[Row], *, gamma: float = 0.1) -> Tensor:
    """LUFFY: own tokens by their ratio, an expert's by f(p) = p / (p + gamma)."""
    worth, found = credit.from_mean(world.batch), dict[Row, list[Tensor]]()
    for row in rows:
        parts = [logp.exp() / (logp.exp() + gamma) for logp in world.now(row)] if row.expert else ratios(world.now(row), row.old)
        found[row] = [-a * part for a, part in zip(worth[row], parts, strict=True)]
    return constant(world, rows)(found)


def rl_plus(
    world: World,
    rows: list[Row],
    *,
    gamma: float = 0.5,
    omega: float = 0.5,
    cap: float = math.inf,
    bonus: float = 0.001,
    advantage: Callable[[list[Row]], Worth] = credit.from_mean,
) -> Tensor:
    """RL-PLUS: multiple importance sampling and the exploration-based advantage on an expert's tokens, no clip on own ones."""
    worth, found = advantage(world.batch), dict[Row, list[Tensor]]()
    for row in rows:
        now = world.now(row)
        found[row] = [-a * ratio for a, ratio in zip(worth[row], ratios(now, row.old), strict=True)]
        if not row.expert:
            continue
        for t, a in enumerate(worth[row]):
            p, old = now[t].exp(), math.exp(row.old[t])
            expert = (1 - omega) * old + omega
            ratio = 2 * p / (old + expert)
            if ratio > cap:
                world.seen |= {"capped"} if a else set()
                ratio = torch.tensor(cap, dtype=torch.float64)
            found[row][t] = -a * ratio * max(0.0, 1 - float(p)) ** gamma
    together = constant(world, rows)
    return together(found) - bonus * together(entropies(world, rows))


def remix(
    world: World,
    rows: list[Row],
    *,
    beta: float = 0.001,
    share: Callable[[int], float] = lambda step: max(1 - 0.1 * math.ceil(max(step - 50, 0) / 10), 0.5),
    width: float = 0.2,
) -> Tensor:
    """ReMix: Mix-PPG around the current policy, and KL-Convex to the base model and the policy of the last update; steps count from 1."""
    worth, found = credit.in_deviations(world.batch), dict[Row, list[Tensor]]()
    base = share(world.update + 1)
    world.seen |= {"a second anchor"} if base < 1 else set()
    for row in rows:
        found[row] = []
        now = world.now(row)
        for t, a in enumerate(worth[row]):
            centre = math.exp(row.old[t] - row.behaviour[t])
            world.seen |= {"a centre outside PPO's window"} if a and abs(centre - 1) > width else set()
            gain = clipped(world, (now[t] - row.behaviour[t]).exp(), a, width, width, centre=centre)
            penalty = torch.zeros((), dtype=torch.float64)
            for weight, anchor in ((base, row.reference[t]), (1 - base, row.previous[t])):
                other = anchor - now[t]
                penalty = penalty + weight * (other.exp() - other - 1)
            found[row].append(-gain + beta * penalty)
    return token_mean(found)


def nft(
    world: World,
    rows: list[Row],
    *,
    weight: Callable[[float], float] = lambda rate: 1 - rate,
    floor: float = 1.0,
    negative: float = 1.0,
    divisor: float = 1000.0,
    whole: bool = False,
) -> Tensor:
    """NFT: the likelihood ratio of right answers, and of wrong ones under the implied negative policy."""
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        rate = min(max(share_right(world, row), 0.02), 0.98)
        changes = [world.now(row)[t] - row.old[t] for t in range(len(row))]
        for change in [sum_all(changes)] if whole else changes:
            if row.reward >= 1:
                term = -change
            else:
                implied = (1 - rate * change.exp()) / (1 - rate)
                if implied < floor:
                    world.seen.add("the floor of a negative ratio")
                least = max(float(implied), floor)
                term = -negative * (implied - float(implied) + least).log()  # a maximum with derivative 1 everywhere
            total = total + weight(rate) * term
    return total / divisor


def share_right(world: World, row: Row) -> float:
    """Of a row's group."""
    return credit.mean([float(other.reward >= 1) for other in credit.members(row, world.batch)])


def tells(world: World, row: Row) -> bool:
    """NFT: what is kept, groups that are neither all right nor all wrong."""
    return row.valid and 0 < share_right(world, row) < 1


# --- preferences ------------------------------------------------------------------------------------------------------------------------


def sigmoid(x: Tensor) -> Tensor:
    """By its definition."""
    return 1 / (1 + torch.exp(-x))


def dpo(world: World, rows: list[Row], *, link: Callable[[Tensor, Tensor, int, int], Tensor]) -> Tensor:
    """DPO, equation 7, with a link from the two log-ratios of a pair and the answers' lengths to a loss."""
    pairs: dict[int | None, dict[bool, Row]] = {}
    for row in rows:
        pairs.setdefault(row.unit, {})[bool(row.facts["chosen"])] = row
    total = torch.zeros((), dtype=torch.float64)
    for pair in pairs.values():
        ratio = {
            chosen: sum_all([now - base for now, base in zip(world.now(row), row.reference, strict=True)]) for chosen, row in pair.items()
        }
        total = total + link(ratio[True], ratio[False], len(pair[True]), len(pair[False]))
    return total / len(pairs)


def groups(world: World, rows: list[Row], *, beta: float, spread: float = 1.0, sample: bool = False, inside: bool = False) -> Tensor:
    """GEPO of OORL: the link on the difference of two means of log-ratios, and the variance of those that mean the same."""
    ratio = {row: sum_all([now - base for now, base in zip(world.now(row), row.reference, strict=True)]) for row in rows}
    units = sorted({int(row.unit or 0) for row in rows})
    total = torch.zeros((), dtype=torch.float64)
    for unit in units:
        good, bad = ([ratio[row] for row in rows if row.unit == unit and bool(row.facts["chosen"]) == side] for side in (True, False))
        middle = sum_all(good) / len(good)
        squares = sum_all([(each - middle) ** 2 for each in good]) / (len(good) - sample if len(good) > 1 else 1)
        total = total - sigmoid(beta * (middle - sum_all(bad) / len(bad))).log() + spread * squares * (beta**2 if inside else 1)
        world.seen |= {"a variance above 0"} if float(squares.detach()) > 0 else set()
    return total / len(units)


def oorl(world: World, rows: list[Row], *, weight: float, kl: float = 0.0, **options: Any) -> Tensor:
    """OORL: REINFORCE++ on translations, and GEPO on groups, with a weight."""
    own, fixed = ([row for row in rows if (row.source == Source.ANNOTATION) == side] for side in (False, True))
    mine = [row for row in world.kept() if row.source != Source.ANNOTATION]
    worth = credit.whitened({row: credit.to_go(credit.token_rewards(row, kl, row.reward)) for row in mine})
    return token_mean(surrogate(world, own, worth, 0.2, 0.2)) + weight * groups(world, fixed, **options)


def osp(world: World, rows: list[Row], *, beta: float, form: str = "composed", first: bool = False, every: int = 1) -> Tensor:
    """OSP: the cross-entropy to what the policy, or a copy that is taken anew every so many updates, said of all pairs of answers."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for unit in sorted({int(row.unit or 0) for row in rows}):
        answers = [row for row in rows if row.unit == unit]
        strength = strengths(world, answers, form, first, every)
        ratio = {row: sum_all([now - base for now, base in zip(world.now(row), row.reference, strict=True)]) for row in answers}
        for place, one in enumerate(answers):
            for other in answers[place + 1 :]:
                p = strength(one, other)
                if p is None:
                    continue
                margin = beta * (ratio[one] - ratio[other])
                total = total - p * sigmoid(margin).log() - (1 - p) * sigmoid(-margin).log()
                count += 1
    return total / count


def strengths(world: World, answers: list[Row], form: str, first: bool, every: int) -> Callable[[Row, Row], float | None]:
    """How strongly one of some answers is preferred to another; None where they are no pair."""

    def beats(one: Row, other: Row) -> float:
        return (asked(world, one, other, every) + 1 - asked(world, other, one, every)) / 2

    if form == "direct":
        return beats
    by_likelihood = sorted(answers, key=lambda row: sum(row.sampled) / len(row))
    base = answers[0] if first else by_likelihood[(len(answers) - 1) // 2]
    q = {row: 0.5 if row is base else beats(row, base) for row in answers}
    world.seen |= {"a baseline that is not the first"} if base is not answers[0] else set()

    def strength(one: Row, other: Row) -> float | None:
        if form == "difference":
            return 0.5 + (q[one] - q[other]) / 2
        if form == "hard":
            return None if q[one] == q[other] else float(q[one] > q[other])
        odds = [min(max(q[row], 0.02), 0.98) for row in (one, other)]
        return 1 / (1 + math.exp(math.log(odds[1] / (1 - odds[1])) - math.log(odds[0] / (1 - odds[0]))))

    return strength


def asked(world: World, one: Row, other: Row, every: int) -> float:
    """How likely the policy calls the first of two answers the better one: ``3+7=ANSWER:ANSWER?`` is followed by 1, and not by 2."""
    said = [[token for token in row.ids[row.places[0] :] if token > 2] for row in (one, other)]
    ids = [*one.ids[: one.places[0]], *said[0], 20, *said[1], 19]
    world.at(world.starts[world.update - world.update % every], "past")
    question = Row([*ids, 4], [len(ids)], [0.0], 0.0, 0, None, Source.FRESH, 0, True, False)
    with torch.no_grad():
        logps = vocabulary(world.networks["past"].causal, question)[0]
    return 1 / (1 + math.exp(float(logps[5] - logps[4])))


def compared_with_others(world: World, row: Row) -> bool:
    """Whether another answer to its prompt is not the same."""
    return len({tuple(other.ids) for other in world.batch if other.unit == row.unit and len(other)}) > 1


def smoothed(beta: float, flipped: float = 0.0) -> Callable[[Tensor, Tensor, int, int], Tensor]:
    """The sigmoid link; with flipped labels conservative DPO."""
    return lambda a, b, *_: -(1 - flipped) * sigmoid(beta * (a - b)).log() - flipped * sigmoid(-beta * (a - b)).log()


def sides(rows: list[Row]) -> list[dict[bool, Row]]:
    """The rows of every pair, the chosen one by True."""
    pairs: dict[int | None, dict[bool, Row]] = {}
    for row in rows:
        pairs.setdefault(row.unit, {})[bool(row.facts["chosen"])] = row
    return list(pairs.values())


def simpo(world: World, rows: list[Row], *, beta: float, gamma: float, alpha: float = 0.0, mean: bool = True) -> Tensor:
    """SimPO, equation 6, and the objective of CPO."""
    pairs = sides(rows)
    total = torch.zeros((), dtype=torch.float64)
    for pair in pairs:
        said = {chosen: sum_all(list(world.now(row))) / (len(row) if mean else 1) for chosen, row in pair.items()}
        total = total - sigmoid(beta * (said[True] - said[False]) - gamma).log()
    chosen = {pair[True]: [-now for now in world.now(pair[True])] for pair in pairs}
    return total / len(pairs) + alpha * token_mean(chosen)


def orpo(world: World, rows: list[Row], *, weight: float, whole: bool = True) -> Tensor:
    """ORPO, equations 4 to 7, odds by their definition."""
    pairs = sides(rows)
    total = torch.zeros((), dtype=torch.float64)
    for pair in pairs:
        chance = {chosen: (sum_all(list(world.now(row))) / len(row)).exp() for chosen, row in pair.items()}
        odds = {chosen: p / (1 - p) for chosen, p in chance.items()}
        total = total - weight * sigmoid((odds[True] / odds[False]).log()).log()
    read = [replace(pair[True], places=list(range(1, len(pair[True].ids)))) if whole else pair[True] for pair in pairs]
    return total / len(pairs) + token_mean({row: [-now for now in world.now(row)] for row in read})


def bradley_terry(world: World, rows: list[Row], *, centring: float) -> Tensor:
    """A reward model on pairs: the head after the last token."""
    total, pairs = torch.zeros((), dtype=torch.float64), sides(rows)
    for pair in pairs:
        reward = {chosen: appraise(world.network.causal, world.network.value_head.linear, row)[1][-1] for chosen, row in pair.items()}
        total = total - sigmoid(reward[True] - reward[False]).log() + centring * (reward[True] + reward[False]) ** 2
    return total / len(pairs)


def same_policy(world: World, rows: list[Row], *, focal: bool = False, size: float = 0.0) -> Tensor:
    """POLAR: the head after the last token of a candidate beside a reference; rows have the prompt twice around the separator."""
    for row in rows:
        middle, equals = row.ids.index(1), row.ids.index(16)
        assert row.ids[: equals + 1] == row.ids[middle + 1 : middle + equals + 2] and row.places[0] == middle + equals + 2
    total, pairs = torch.zeros((), dtype=torch.float64), sides(rows)
    for pair in pairs:
        score = {chosen: appraise(world.network.causal, world.network.value_head.linear, row)[1][-1] for chosen, row in pair.items()}
        right = sigmoid(score[True] - score[False])
        loss = -right.log()
        if focal and right.item() > 0.5:
            world.seen.add("a pair that is told apart")
            loss = loss * (1 - 2 * (right - 0.5)) ** 2
        walls = [-(5 - each).log() - (each + 5).log() for each in score.values()]
        total = total + loss + size * sum_all(walls) / 2
    return total / len(pairs)


def kto(world: World, rows: list[Row], *, beta: float, up: float, down: float) -> Tensor:
    """KTO, equation 8: the baseline is of every prompt with the answer of the row before it."""
    drift = 0.0
    for row, before in zip(rows, [rows[-1], *rows[:-1]], strict=True):
        asked, said = row.ids[: row.places[0]], [before.ids[place] for place in before.places]
        other = replace(row, ids=asked + said, places=list(range(len(asked), len(asked) + len(said))))
        now = float(world.now(other).detach().sum())
        world.at(world.starts[0], "past")
        drift += now - float(speak(world.networks["past"].causal, other)[0].detach().sum())
    baseline = max(0.0, drift / len(rows))
    world.seen |= {"a baseline above 0"} if baseline > 0 else set()
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        h = sum_all([now - base for now, base in zip(world.now(row), row.reference, strict=True)])
        good = bool(row.facts["desirable"])
        total = total + (up * (1 - sigmoid(beta * (h - baseline))) if good else down * (1 - sigmoid(beta * (baseline - h))))
    return total / len(rows)


def has_both(world: World, row: Row) -> bool:
    """Whether an expert's right answer stands against a wrong one."""
    rewards = {other.expert: other.reward for other in world.batch if other.unit == row.unit}
    return rewards[True] >= 1 > rewards[False]


def differ(world: World, row: Row) -> bool:
    """Whether the two answers of a pair have different rewards."""
    return len({other.reward for other in world.batch if other.unit == row.unit}) == 2


def pairwise(world: World, rows: list[Row], *, width: float, joint: bool = False, beta: float = 0.0) -> Tensor:
    """The pairwise policy gradient, with the ratio of each answer or of both clipped."""
    total, pairs = torch.zeros((), dtype=torch.float64), sides(rows)
    for pair in pairs:
        gain = pair[True].reward - pair[False].reward
        if beta:
            gain -= beta * (sum(pair[True].old) - sum(pair[True].reference) - sum(pair[False].old) + sum(pair[False].reference))
        moved = {chosen: sum_all(list(world.now(row))) - sum(row.old) for chosen, row in pair.items()}
        parts = [(moved[True] - moved[False], gain)] if joint else [(moved[True], gain), (moved[False], -gain)]
        for log_ratio, worth in parts:
            ratio = log_ratio.exp()
            cut = ratio.clamp(1 - width, 1 + width)
            world.seen |= {"clipped"} if float((cut * worth).detach()) < float((ratio * worth).detach()) else set()
            total = total - 0.5 * torch.minimum(ratio * worth, cut * worth)
    return total / len(pairs)


def is_best(world: World, row: Row) -> bool:
    """Whether it is the first of the best of its group."""
    group = credit.members(row, world.batch)
    top = max(other.reward for other in group)
    return row is next(other for other in group if other.reward == top)


def best(world: World, rows: list[Row]) -> Tensor:
    """Best-of-N distillation: the likelihood of the best answers, a mean over prompts."""
    return row_sum({row: [-now for now in world.now(row)] for row in rows})


def rwr(world: World, rows: list[Row], *, temperature: float, largest: float = 20.0, per_prompt: bool = False) -> Tensor:
    """Reward-weighted regression: exponentials up to a cap over all tokens, or a softmax over the answers of a prompt."""
    weight: dict[Row, float] = {}
    for row in rows:
        raised = math.exp(row.reward / temperature)
        world.seen |= {"a capped weight"} if raised > largest else set()
        others = [math.exp(other.reward / temperature) for other in credit.members(row, world.batch)]
        weight[row] = raised / sum(others) if per_prompt else min(raised, largest)
    values = {row: [-weight[row] * now for now in world.now(row)] for row in rows}
    return sum_of(values) / len({row.group for row in rows}) if per_prompt else token_mean(values)


# --- critics and reward models ----------------------------------------------------------------------------------------------------------


def ppo_lm(
    world: World,
    rows: list[Row],
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    beta: float = 0.001,
    value: float = 0.5,
    width: float = 0.5,
    bonus: float = 0.0,
) -> Tensor:
    """PPO, equations 7, 9 and 11, on tokens, with the KL in their rewards and a clipped critic."""
    advantage, target = dict[Row, list[float]](), dict[Row, list[float]]()
    for row in world.kept():
        rewards, (values, after) = credit.token_rewards(row, beta, row.reward), row.facts["valued"]
        if row.cut:
            rewards[-1] += gamma * after[-1]
        chain, found = 0.0, [0.0] * len(row)
        for t in reversed(range(len(row))):
            following = values[t + 1] if t + 1 < len(row) else 0.0
            chain = rewards[t] + gamma * following - values[t] + gamma * lam * chain
            found[t] = chain
        advantage[row] = found
        target[row] = [a + v for a, v in zip(found, values, strict=True)]
    loss = token_mean(surrogate(world, rows, credit.whitened(advantage), 0.2, 0.2))
    errors: Values = {}
    for row in rows:
        errors[row] = []
        for now, old, goal in zip(world.values(row), row.facts["valued"][0], target[row], strict=True):
            near = old + (now - old).clamp(-width, width)
            world.seen |= {"a clipped value"} if abs(float(now) - old) > width else set()
            errors[row].append(0.5 * torch.maximum((now - goal) ** 2, (near - goal) ** 2))
    loss = loss + value * token_mean(errors)
    return loss - bonus * token_mean(entropies(world, rows)) if bonus else loss


def process_reward(world: World, rows: list[Row], *, alpha: float) -> Tensor:
    """The outcome less the group's mean, and the reward model's progress on every token."""
    worth = credit.from_mean(world.batch)
    for row in world.kept():
        before, after = row.facts["judged"]
        worth[row] = [a + alpha * (later - earlier) for a, earlier, later in zip(worth[row], before, after, strict=True)]
    return token_mean(surrogate(world, rows, worth, 0.2, 0.2))


def outcome_regression(world: World, rows: list[Row]) -> Tensor:
    """The reward model's error before and after every token."""
    assert world.judge is not None
    found: Values = {}
    for row in rows:
        values = appraise(world.judge.body.causal, world.judge.head.linear, row)
        found[row] = [0.25 * (before - row.reward) ** 2 + 0.25 * (after - row.reward) ** 2 for before, after in zip(*values, strict=True)]
    return token_mean(found)


def implicit(row: Row, judged: Any, beta: float) -> list[Any]:
    """PRIME: rewards of tokens from a language model's log-ratio to the base model."""
    return [beta * (mine - base) for mine, base in zip(judged, row.reference, strict=True)]


def prime(world: World, rows: list[Row], *, beta: float, gamma: float, alpha: float, whiten: bool) -> Tensor:
    """PRIME, equation 5: leave-one-out of the outcome and of the rewards still to come."""
    kept = world.kept()
    rewards = {row: implicit(row, row.facts["judged"], beta) for row in kept}
    worth = credit.from_others(world.batch)
    for row in kept:
        others = [credit.mean(rewards[other]) for other in credit.members(row, kept) if other is not row]
        left = credit.to_go([each - credit.mean(others) for each in rewards[row]], gamma)
        worth[row] = [a + alpha * each for a, each in zip(worth[row], left, strict=True)]
    worth = credit.whitened({row: worth[row] for row in kept}) if whiten else worth
    return token_mean(surrogate(world, rows, worth, 0.2, 0.2))


def outcome_likelihood(world: World, rows: list[Row], *, beta: float) -> Tensor:
    """PRIME: cross-entropy of the outcomes."""
    assert world.judge is not None
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        chance = sigmoid(sum_all(implicit(row, speak(world.judge.causal, row)[0], beta)))
        total = total - (chance.log() if row.reward > 0.5 else (1 - chance).log())
    return total / len(rows)


def turns(row: Row) -> list[list[int]]:
    """The places of a row's chosen tokens, turn by turn; all of them in one turn where nobody has kept the turns."""
    numbers = [number for number in row.facts.get("turn", []) if number] or [1] * len(row)
    return [[place for place, number in enumerate(numbers) if number == turn] for turn in range(1, max(numbers) + 1)]


def step_rewards(row: Row, beta: float) -> list[float]:
    """OPRL, equation 1: of every turn, the log-ratio of the reward model to the policy of this iteration."""
    judged = row.facts["judged"]
    return [beta * sum(judged[place] - row.old[place] for place in places) for places in turns(row)]


def deviation(values: list[float]) -> float:
    """Dividing by n."""
    centre = credit.mean(values)
    return math.sqrt(credit.mean([(value - centre) ** 2 for value in values]))


def oprl(world: World, rows: list[Row], *, beta: float = 0.05, alpha: float = 1.0, merged: bool = False, bonus: float = 0.001) -> Tensor:
    """OPRL, equations 3 to 6."""
    kept = [row for row in world.kept() if len(row)]
    rewards = {row: step_rewards(row, beta) for row in kept}
    outcome = {row: row.reward + (alpha * sum(rewards[row]) if merged else 0.0) for row in kept}
    terms = []
    for row in rows:
        group = credit.members(row, kept)
        outcomes = [outcome[other] for other in group]
        steps = [reward for other in group for reward in rewards[other]]
        episode = (outcome[row] - credit.mean(outcomes)) / (deviation(outcomes) + 1e-6) if len(group) > 1 else 0.0
        now = world.now(row)
        for places, reward in zip(turns(row), rewards[row], strict=True):
            step = (reward - credit.mean(steps)) / (deviation(steps) + 1e-6) if len(steps) > 1 else 0.0
            world.seen |= {"a turn of several tokens"} if len(places) > 1 else set()
            world.seen |= {"a failure that learns from its steps"} if not episode and step else set()
            ratio = sum_all([now[place] - row.old[place] for place in places]).exp()
            terms.append(-clipped(world, ratio, episode + (0.0 if merged else alpha * step), 0.2, 0.2))
    return sum_all(terms) / len(terms) - (bonus * token_mean(entropies(world, rows)) if bonus else 0.0)


def oprl_released(world: World, rows: list[Row], *, beta: float = 0.05, alpha: float = 1.0, bonus: float = 0.001) -> Tensor:
    """OPRL's code: step rewards in units of the largest, both compared with the first step of every episode, ratios of tokens."""
    kept = [row for row in world.kept() if len(row)]
    raw = {row: step_rewards(row, beta) for row in kept}
    largest = max(abs(reward) for values in raw.values() for reward in values) + 1e-6
    worth = {}
    for row in kept:
        group = credit.members(row, kept)
        n = len(group) / max(1, len(group) - 1)
        episode = n * (row.reward - credit.mean([other.reward for other in group])) if len(group) > 1 else 0.0
        first = credit.mean([raw[other][0] / largest for other in group])
        worth[row] = [0.0] * len(row)
        for places, reward in zip(turns(row), raw[row], strict=True):
            for place in places:
                worth[row][place] = episode + (alpha * n * (reward / largest - first) if len(group) > 1 else 0.0)
    return token_mean(surrogate(world, rows, worth, 0.2, 0.2, dual=3.0)) - bonus * token_mean(entropies(world, rows))


def trajectory_preference(world: World, rows: list[Row], *, beta: float = 0.05, mean: bool = False) -> Tensor:
    """OPRL, equation 2: over the pairs of a success and a failure of one group."""
    assert world.judge is not None
    scores = {}
    for row in rows:
        said = speak(world.judge.causal, row)[0]
        scores[row] = sum_all([said[place] - row.old[place] for place in range(len(row))]) / (len(turns(row)) if mean else 1)
    pairs = [(a, b) for a in rows for b in rows if a.group == b.group and a.reward > 0 >= b.reward]
    world.seen |= {"a pair"} if pairs else set()
    nothing = 0 * sum_all(list(scores.values()))
    return nothing + sum_all([-sigmoid(beta * (scores[a] - scores[b])).log() for a, b in pairs]) / max(1, len(pairs))


def rlfr(
    world: World, rows: list[Row], *, coefficient: float = 0.01, threshold: float = 0.6, top_k: int = 15, times: tuple[float, ...] = (0.8,)
) -> Tensor:
    """RLFR: GRPO whose ratio is at most 3, less the penalties that are still to come."""
    worth = credit.in_deviations(world.batch, eps=1e-9)
    for row in world.kept():
        scores = [credit.mean([t / (1 - t) * e for t, e in zip(times, errors, strict=True)]) for errors in row.facts["deviations"]]
        lost = flow.penalties(scores, coefficient=coefficient, threshold=threshold, top_k=top_k) if scores else []
        lost += [0.0] * (len(row) - len(lost))  # a last token may have no partner
        world.seen |= {"a penalty"} if any(lost) else set()
        worth[row] = [a + left for a, left in zip(worth[row], credit.to_go(lost), strict=True)]
    return row_mean(surrogate(world, rows, worth, 0.2, 0.2, dual=3.0))


def dialtree_rpo(
    world: World, rows: list[Row], *, tags: tuple[int, ...], beta: float, mode: str = "adaptive", once: bool = False
) -> Tensor:
    """DialTree-RPO, equations 2 to 4; with ``once``, what paths share counts once, with the mean of their advantages."""
    kept = [row for row in world.kept() if len(row)]
    whole = credit.in_deviations(kept)

    def below(row: Row, turn: int) -> list[Row]:
        path = row.facts["path"][: turn + 1]
        return [other for other in credit.members(row, kept) if other.facts["path"][: turn + 1] == path]

    worth = {}
    for row in rows:
        mine = [0.0] * len(row)
        for turn, places in enumerate(turns(row)):
            sharing = below(row, turn)
            world.seen |= {"a shared reply"} if len(sharing) > 1 else set()
            for place in places:
                mine[place] = whole[row][0] if not once else credit.mean([whole[other][0] for other in sharing]) / len(sharing)
        for place, at in enumerate(row.places):
            if row.ids[at] in tags and (mode == "static" or mine[place] < 0):
                world.seen.add("a masked tag")
                mine[place] = 0.0
        worth[row] = mine
    return row_mean(surrogate(world, rows, worth, 0.2, 0.2)) + beta * row_mean(k3(world, rows))


def flow_matching(world: World, rows: list[Row]) -> Tensor:
    """RLFR: the field's mean error on right completions, in the first pass."""
    return row_mean({row: list(world.deviations(row, 1).mean(-1)) for row in rows})


def treepo(world: World, rows: list[Row], *, buffer: int) -> Tensor:
    """TreePO: the reward against every group of leaves that the leaf's path runs through, whitened over the batch."""

    def worth(row: Row) -> float:
        return row.reward + credit.overlong(row, world.longest, buffer)

    def path(row: Row) -> list[int]:
        return [node for node in row.facts["path"] if node >= 0]

    def of(row: Row) -> float:
        parts = [worth(row) - credit.mean([worth(other) for other in credit.members(row, world.batch)])]
        for level in range(1, len(path(row))):
            below = [worth(other) for other in credit.members(row, world.batch) if path(other)[:level] == path(row)[:level]]
            if len(below) > 1:
                world.seen.add("a group inside a tree")
                parts.append(worth(row) - credit.mean(below))
        return credit.mean(parts)

    advantage = credit.whitened({row: [of(row)] * len(row) for row in world.kept()})
    return token_mean(surrogate(world, rows, advantage, 0.2, 0.28, dual=10.0))
