"""Mode-seeking and mode-covering objectives, measured exactly: how fast each moves mass off a heavy bin (arXiv 2404.14367, section 6).

For a categorical policy ``p = softmax(z)`` and a target q, forward KL(q, p) has the gradient ``p - q`` (that of maximum likelihood on
draws of q), and reverse KL(p, q) has ``p (log p / q - KL(p, q))``: it moves bins at a rate proportional to their own mass times how far
above average their ``log p / q`` is. So it is slow while nearly all mass lies in one bin (whose own log-ratio is the average then), empties
it quickly after that, and leaves empty bins alone. Likelihood moves every bin at a rate of at most ``|q - p|``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from rheostat.diagnostics.theorems import Picture
from rheostat.learner.preferences import build
from rheostat.policies.control.distributions import Categorical
from rheostat.streams import Streams

Direction = Literal["forward", "reverse"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "reverse")
HEAVY, WANTED, EMPTY = 0, 7, 0.1
LARGEST = 10_000


def peaked(bins: int, where: int, share: float) -> Tensor:
    """Log-probabilities float64 ``[bins]`` with a share of the mass in one bin and the rest spread evenly."""
    table = torch.full((bins,), (1 - share) / (bins - 1), dtype=torch.float64)
    table[where] = share
    return table.log()


def descent(direction: Direction, start: Tensor, target: Tensor, rate: float) -> Iterator[Tensor]:
    """Gradient descent on the logits of a softmax: its probabilities ``[V]``, the start's first, without an end.

    Args:
        direction: forward is KL(target, policy), reverse is KL(policy, target).
        start, target: log-probabilities ``[V]``.
        rate: step size.
    """
    logits, goal = start.clone(), Categorical(target[None])
    while True:
        policy = Categorical(logits[None])
        yield logits.softmax(-1)
        gradient = policy.reverse_kl_gradient(goal) if direction == "forward" else policy.kl_gradient(goal)
        logits = logits - rate * gradient[0]


def steps_to_empty(direction: Direction, *, bins: int = 10, rate: float = 0.1, share: float = 0.9) -> int:
    """Steps until the heavy bin holds less than a tenth; :data:`LARGEST` where that takes longer.

    Args:
        direction: see :func:`descent`.
        bins: V, at least 8.
        rate: step size.
        share: of the mass in the heavy bin at first, and in the wanted one of the target.
    """
    path = descent(direction, peaked(bins, HEAVY, share), peaked(bins, WANTED, share), rate)
    return next((step for step, p in enumerate(islice(path, LARGEST)) if p[HEAVY] < EMPTY), LARGEST)


ARMS: dict[str, dict[str, Any]] = {
    "offline best-of-n": {"loss": "best-of-n", "on_policy_sampling": False, "reuse": 0, "learning_rate": 1e-2},
    "offline ipo": {"loss": "ipo", "on_policy_sampling": False, "reuse": 0, "learning_rate": 3e-3, "pair_threshold": 0.2},
    "on-policy best-of-n": {"loss": "best-of-n", "learning_rate": 1e-3},
    "on-policy ipo": {"loss": "ipo", "learning_rate": 1e-2},
}
"""The bandit's learners in the picture, with the authors' step sizes."""
GRADIENT_STEPS, EVERY = 600, 20
SOFTMAX_STEPS = 200


def mode_seeking(*, seed: int = 0, steps: int = GRADIENT_STEPS) -> Picture:
    """Where the mass goes: both directions of KL on a softmax of ten bins, and four learners on the bandit whose peak is away.

    Args:
        seed: of the bandit.
        steps: gradient steps of the learners.
    """
    start, target = peaked(10, HEAVY, 0.9), peaked(10, WANTED, 0.9)
    paths = {name: torch.stack(list(islice(descent(name, start, target, 0.1), SOFTMAX_STEPS + 1))) for name in DIRECTIONS}
    rows = []
    for step in range(0, SOFTMAX_STEPS + 1, 10):
        row: dict[str, float] = {"step": step}
        for name in DIRECTIONS:
            row |= {f"{name}_heavy": float(paths[name][step, HEAVY]), f"{name}_wanted": float(paths[name][step, WANTED])}
        rows.append(row)
    learners = {name: probabilities_over_steps(options, seed, steps) for name, options in ARMS.items()}
    return Picture(
        "mode-seeking",
        "Likelihood starts sooner, reverse KL empties the heavy bin first",
        "Reverse KL moves a bin at a rate proportional to its own mass and to how far its log-ratio lies above average: slowly while all "
        "mass is there, then faster than forward KL, which is likelihood and moves every bin by at most its distance from the target.",
        "Tajwar et al. 2024 (arXiv 2404.14367); gradients derived",
        {
            "steps_to_empty": {name: steps_to_empty(name) for name in DIRECTIONS},
            "every": EVERY,
            "kernel": learners["on-policy ipo"]["kernel"],
            "data": learners["on-policy ipo"]["data"],
            "bandit": {name: found["probability"] for name, found in learners.items()},
        },
        rows,
    )


def probabilities_over_steps(options: dict[str, Any], seed: int, steps: int) -> dict[str, list[Any]]:
    """The mean probability of every action of the bandit whose peak is away, every :data:`EVERY` gradient steps.

    Args:
        options: of the method ``suboptimal-onpolicy-prefs``.
        seed: of run and world.
        steps: gradient steps.
    """
    from rheostat.training.settings import configure

    name = "suboptimal-onpolicy-prefs"
    learner = build(configure(name, options), name, "bandit-away", Streams(seed), steps)
    problem: Any = learner.context.problem
    found = [problem.probabilities(learner.policy)]
    while learner.steps < steps:
        learner.turn()
        if learner.steps % EVERY == 0:
            found.append(problem.probabilities(learner.policy))
    shown = [[float(f"{p:.4g}") for p in row] for row in torch.stack(found).tolist()]
    return {"probability": shown, "kernel": problem.kernel.tolist(), "data": problem.data.tolist()}
