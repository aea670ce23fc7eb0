"""Every language method of the table in worlds of a few tokens: the right answers, and the expected gradients, are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.annotated import ANNOTATED
from tests.token_probes import LANGUAGE, PREFERRED, TOKENS, WORLDS, built, can_fail, distribution, mistakes, sampled_gradients

QUICK = ("Dependent", "Shown", PREFERRED)
"""Worlds of every run; the others are for the night, where a method has been in one of these."""


def cases() -> list[Any]:
    """Every method in every world that holds anything for it."""
    found = []
    for method in LANGUAGE:
        for world in (*WORLDS, PREFERRED):
            if can_fail(method, world):
                quick = world in QUICK or (method == "grpo" and world != "Shown")
                found.append(pytest.param(method, world, id=f"{method}-{world}", marks=() if quick else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("method", "world"), cases())
def test_world(method: str, world: str) -> None:
    assert mistakes(method, world) == []


# --- gradients ---------------------------------------------------------------------------------------------------------------------------

GROUPS, SIZE = 8, 8
Worth = Callable[[float, float], tuple[float, float]]
"""From the share of right answers and their standard deviation to the advantages of a right and of a wrong one."""


def centred(share: float, deviation: float) -> tuple[float, float]:
    return 1 - share, -share


def leave_one_out(share: float, deviation: float) -> tuple[float, float]:
    return (1 - share) * SIZE / (SIZE - 1), -share * SIZE / (SIZE - 1)


def standardised(share: float, deviation: float) -> tuple[float, float]:
    return ((1 - share) / deviation, -share / deviation) if deviation else (0.0, 0.0)


def pull(worth: Worth, p: float, size: int, shown: int = 0) -> float:
    """K of the expected gradient ``-K (q - pi)``, q the policy among right answers: from all numbers k of right ones in a group.

    Args:
        worth: advantages.
        p: probability of a right answer.
        size: of the group.
        shown: right answers that an expert adds to it.
    """
    right = torch.distributions.Binomial(size, torch.tensor(p, dtype=torch.float64))
    total = 0.0
    for k in range(size + 1):
        rewards = torch.tensor([1.0] * (k + shown) + [0.0] * (size - k), dtype=torch.float64)
        good, bad = worth(float(rewards.mean()), float(rewards.std()))
        chance = float(right.log_prob(torch.tensor(float(k), dtype=torch.float64)).exp())
        total += chance * (k * good - (size - k) * bad * p / (1 - p)) / size
    return total


def toward(policy: Tensor, shares: Tensor) -> Tensor:
    """``q - pi``: where the log-probability of what q draws pulls the logits."""
    return shares - policy


def own(worth: Worth, factor: float = 1.0, size: int = SIZE) -> Callable[[Tensor, Tensor], Tensor]:
    """Of methods that learn from what they sampled."""
    return lambda policy, right: -factor * pull(worth, float(policy[right].sum()), size) * toward(policy, among(policy, right))


def among(policy: Tensor, right: Tensor) -> Tensor:
    """The policy among right answers."""
    return torch.zeros_like(policy).index_put((right,), policy[right] / policy[right].sum())


def expert(policy: Tensor) -> Tensor:
    """All on the expert's answer, a."""
    return torch.nn.functional.one_hot(torch.tensor(TOKENS.index("a")), len(TOKENS)).double()


def mixed_group(weight: Callable[[float], float]) -> Callable[[Tensor, Tensor], Tensor]:
    """Of groups with an expert, whose token's log-probability has the weight ``A w(p)``; rows share a denominator."""

    def expected(policy: Tensor, right: Tensor) -> Tensor:
        p, first = float(policy[right].sum()), float(policy[TOKENS.index("a")])
        mine = (SIZE - 1) / SIZE * pull(centred, p, SIZE - 1, shown=1) * toward(policy, among(policy, right))
        worth = 1 - ((SIZE - 1) * p + 1) / SIZE
        return -mine - worth * weight(first) / SIZE * toward(policy, expert(policy))

    return expected


def chord(policy: Tensor, right: Tensor) -> Tensor:
    first = float(policy[TOKENS.index("a")])
    return 0.8 * own(standardised)(policy, right) - 0.2 * first * (1 - first) * toward(policy, expert(policy))


def imitation(policy: Tensor, right: Tensor) -> Tensor:
    return -toward(policy, expert(policy))


def filtered(policy: Tensor, right: Tensor) -> Tensor:
    nothing = (1 - float(policy[right].sum())) ** (GROUPS * SIZE)
    return -(1 - nothing) * toward(policy, among(policy, right))


def wrong(policy: Tensor, right: Tensor) -> Tensor:
    """The policy among wrong answers."""
    others = policy.clone()
    others[right] = 0.0
    return others / others.sum()


def compared(policy: Tensor, right: Tensor) -> Tensor:
    """Of DPO on the best and the worst of a group, where both log-ratios are 0: pairs of equal rewards are left out."""
    p = float(policy[right].sum())
    nothing = (p**SIZE + (1 - p) ** SIZE) ** GROUPS
    return -0.05 * (1 - nothing) * (among(policy, right) - wrong(policy, right))


def best(policy: Tensor, right: Tensor) -> Tensor:
    """Of the likelihood of the best of a group."""
    p = float(policy[right].sum())
    fails = (1 - p) ** SIZE
    return -((1 - fails) * toward(policy, among(policy, right)) + fails * toward(policy, wrong(policy, right)))


def weighted(policy: Tensor, right: Tensor) -> Tensor:
    """Of a likelihood weighted by the exponential of the reward."""
    p = float(policy[right].sum())
    return -(p * math.e * toward(policy, among(policy, right)) + (1 - p) * toward(policy, wrong(policy, right)))


def filtered_groups(policy: Tensor, right: Tensor) -> Tensor:
    """Of the groups that are partly right alone: with one of them, a batch has the gradient of such a group."""
    p = float(policy[right].sum())
    equal = p**SIZE + (1 - p) ** SIZE
    return own(standardised)(policy, right) * (1 - equal**GROUPS) / (1 - equal)


EXPECTED: dict[str, tuple[dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "acereason": ({}, own(standardised)),
    "bapo": ({}, own(standardised)),
    "best-of-n": ({}, best),
    "chord": ({}, chord),
    "cispo": ({}, own(standardised)),
    "cog-rethinker": ({"last_stage": 0}, filtered_groups),
    "dapo": ({"dynamic": "none"}, own(standardised)),
    "dialtree-rpo": ({"branches": SIZE}, own(standardised)),
    "dr-grpo": ({}, own(centred)),
    "ghpo": ({"hint_after": 20}, own(standardised)),
    "gmpo": ({}, own(standardised)),
    "grpo": ({}, own(standardised)),
    "gspo": ({}, own(standardised)),
    "light-r1": ({}, own(standardised)),
    "lp-reg": ({}, own(standardised)),
    "luffy": ({}, mixed_group(lambda p: 0.1 * p / (p + 0.1) ** 2)),
    "nft": ({"dynamic": "none"}, own(centred, GROUPS * SIZE / 1000)),
    "online-dpo": ({}, compared),
    "oorl": ({}, own(standardised, size=GROUPS * SIZE)),
    "oprl": ({"entropy_coefficient": 0.0}, own(standardised)),
    "pairwise-policy-gradient": ({}, own(lambda share, deviation: (2 * (1 - share), -2 * share), size=2)),
    "ppo-lm": ({"prompts_per_batch": GROUPS * SIZE}, own(standardised, size=GROUPS * SIZE)),
    "prime": ({}, own(leave_one_out)),
    "process-reward": ({}, own(centred)),
    "reinforce": ({}, own(centred)),
    "reinforce-pp": ({}, own(standardised, size=GROUPS * SIZE)),
    "remix": ({"stale_share": 0.0, "switch_after": 0}, own(standardised)),
    "rft": ({}, filtered),
    "rise": ({"prompts_per_batch": GROUPS * SIZE}, own(standardised, size=GROUPS * SIZE)),
    "rl-plus": ({"entropy_coefficient": 0.0}, mixed_group(lambda p: 4 * p * (1 - p) ** 0.5 / (3 * p + 1))),
    "rlfr": ({}, own(standardised)),
    "rloo": ({}, own(leave_one_out)),
    "rwr": ({}, weighted),
    "self-curation": ({}, own(standardised)),
    "ded": ({"most_solved": 1.0, "questions": 12, "answers_per_question": 1}, imitation),
    "sft": ({}, imitation),
    "tis": ({}, own(standardised)),
}
"""The gradient of a first update by the logits of a single token, as a function of the policy and of the tokens that are right."""


@pytest.mark.parametrize("method", EXPECTED)
def test_sampled_gradients_average_to_the_exact_one(method: str) -> None:
    options, expected = EXPECTED[method]
    missing = ("max_sampling_rounds",) if options.get("dynamic") == "none" else ()
    one = built(method, "Wrong", **options, **dict.fromkeys(missing))
    exact = expected(distribution(one), torch.tensor([TOKENS.index("a"), TOKENS.index("b")]))
    found = sampled_gradients(one, 24)
    error = found.std(0) / len(found) ** 0.5
    assert bool(((found.mean(0) - exact).abs() <= 5 * error + 1e-6).all()), (found.mean(0), exact, error)
    assert error.norm() < 0.25 * exact.norm(), "too noisy to tell anything"


def test_every_method_is_in_some_world_and_its_gradient_is_known_or_not_one_number() -> None:
    """A tree's leaves are no independent samples, nor are answers of which none repeats another; a pair's optimum is in the worlds."""
    assert {method for method in LANGUAGE if any(can_fail(method, world) for world in (*WORLDS, PREFERRED))} == set(LANGUAGE)
    assert set(LANGUAGE) - set(EXPECTED) == {"osp", "treepo", *ANNOTATED}
