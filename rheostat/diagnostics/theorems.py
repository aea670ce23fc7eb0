"""Pictures of theorems as numbers: what the exact laboratory says where one quantity moves and the others stay.

amplification  the error of a realizable but incomplete class grows with 1 / sqrt(1 - beta^2), and has no floor
exploration    a sunflower is learned with polynomially many episodes, uniform actions need exponentially many
completeness   policy search from resets has a gap that no number of rollouts closes, unless the class is closed under improvement
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rheostat import tabular as lab
from rheostat.errors import unknown

SHARES = (0.9, 0.7, 0.5, 0.35, 0.25, 0.1, 0.02)
"""Shares of the first of two states in the data; beta is 1 between the last two, at 0.039."""
HORIZONS = (4, 6, 8, 10, 12, 14, 16)
HALF = 0.6744897501960817
"""The median of the size of a standard normal number."""
ROLLOUTS = (10, 20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Picture:
    """A theorem's numbers."""

    name: str
    title: str
    says: str
    """The theorem in a sentence."""
    source: str
    facts: dict[str, Any]
    """Sizes that do not move."""
    rows: list[dict[str, float]]
    """One for every point on the horizontal axis."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return vars(self)


# --- amplification -----------------------------------------------------------------------------------------------------------------------


def amplification(*, seed: int = 0, samples: int = 1000, repeats: int = 200, noise: float = 0.5, gamma: float = 0.99) -> Picture:
    """The minimax estimate (LSTD) and fitted Q evaluation on two states, 1 -> 2 -> 2, with the features 1 and 2.

    Args:
        seed: of the drawn data sets.
        samples: transitions n of a data set.
        repeats: data sets per share.
        noise: standard deviation of rewards, whose mean is 0.
        gamma: discount.
    """
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for share in SHARES:
        problem, features = lab.two_states(share, gamma)
        moments = lab.Moments.population(problem, features)
        beta = lab.linear_incompleteness(problem, features)
        errors = []
        for _ in range(repeats):
            data = lab.sample_transitions(problem, samples, noise=noise, generator=draw)
            weights = lab.linear_minimax(lab.Moments.of_data(data, problem.policy, gamma, features))
            errors.append(float(lab.bellman_error(problem, lab.linear_values(features, weights))))
        rows.append(
            {
                "share": share,
                "beta": beta,
                "amplification": 1 / math.sqrt(1 - beta**2),
                "radius": lab.fitted_q_radius(moments),
                "exact_median": median_error(share, samples, noise, gamma) * math.sqrt(samples),
                "measured_median": float(np.median(errors)) * math.sqrt(samples),
                "fitted_q_after_100": float(lab.linear_fitted_q(moments, 100, torch.ones(1, dtype=torch.float64))[-1].abs()),
            }
        )
    return Picture(
        "amplification",
        "Realizable and incomplete: the statistical error is multiplied, nothing is added",
        "The Bellman error of the minimax estimate is proportional to 1 / sqrt(1 - beta^2) times that of a complete class; fitted Q "
        "evaluation has another condition.",
        "Zanette 2022 (arXiv 2211.05311), as reconstructed",
        {
            "samples": samples,
            "repeats": repeats,
            "noise": noise,
            "gamma": gamma,
            "slope": HALF * noise,
            "curve": _two_conditions(gamma),
        },
        rows,
    )


def _two_conditions(gamma: float) -> dict[str, list[float]]:
    """beta and the spectral radius of fitted Q evaluation over the share of state 1."""
    shares = np.geomspace(0.005, 0.95, 60).tolist()
    found: dict[str, list[float]] = {"share": shares, "beta": [], "radius": []}
    for share in shares:
        problem, features = lab.two_states(share, gamma)
        found["beta"].append(lab.linear_incompleteness(problem, features))
        found["radius"].append(lab.fitted_q_radius(lab.Moments.population(problem, features)))
    return found


def median_error(share: float, samples: int, noise: float, gamma: float) -> float:
    """The exact median of the minimax estimate's Bellman error on the two states.

    Given how often each state is in the data, the one weight is Gaussian around 0; its distribution is a mixture of these over a binomial.

    Args:
        share: of state 1, in (0, 1).
        samples: n.
        noise: standard deviation of rewards.
        gamma: discount.
    """
    from scipy.optimize import brentq
    from scipy.stats import binom, norm

    first = np.arange(samples + 1)
    second = samples - first
    matrix = first * (1 - 2 * gamma) + 4 * second * (1 - gamma)
    residual = math.sqrt(share * (1 - 2 * gamma) ** 2 + (1 - share) * (2 - 2 * gamma) ** 2)
    spread = noise * np.sqrt(first + 4 * second) / np.maximum(np.abs(matrix), 1e-300) * residual
    weight = binom.pmf(first, samples, share)

    def below(log_error: float) -> float:
        return float((weight * (2 * norm.cdf(math.exp(log_error) / spread) - 1)).sum()) - 0.5

    return math.exp(brentq(below, -30.0, 30.0))


# --- exploration -------------------------------------------------------------------------------------------------------------------------


def exploration(*, seed: int = 0, repeats: int = 20) -> Picture:
    """Combination locks with two digits 1, and the class of all policies with at most two: POPLER beside uniform actions and the core.

    Args:
        seed: of the episodes.
        repeats: runs per horizon.
    """
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for horizon in HORIZONS:
        lock, flower, first, second = lock_of(horizon)
        value = lab.policy_values(lock, flower.policies)
        found = [lab.popler(lock, flower, first=first, second=second, generator=draw) for _ in range(repeats)]
        exact = exact_success(horizon)
        rows.append(
            {
                "horizon": horizon,
                "policies": len(flower.policies),
                "episodes": exact["episodes"],
                "popler": exact["popler"],
                "uniform": exact["uniform"],
                "core": exact["core"],
                "popler_measured": sum(float(value[one.member]) > 0.5 for one in found) / repeats,
            }
        )
    return Picture(
        "exploration",
        "A sunflower is learned online with polynomially many episodes",
        "With as many episodes as POPLER takes, uniform actions find the best policy with a probability that falls like 2^-H, and the core "
        "alone only by guessing.",
        "Jia et al. 2023 (arXiv 2310.06113), as reconstructed",
        {"repeats": repeats, "digits": "1 at a third and at two thirds of the horizon"},
        rows,
    )


def lock_of(horizon: int) -> tuple[lab.LayeredMDP, lab.Sunflower, int, int]:
    """A lock of this many digits, its class, and POPLER's sample sizes n1 = 20 and n2 = 4.5 H."""
    lock = lab.combination_lock(horizon, horizon // 3, 2 * horizon // 3)
    return lock, lab.lock_class(horizon), 20, math.ceil(4.5 * horizon)


def exact_success(horizon: int) -> dict[str, float]:
    """Probabilities of finding the best policy of a lock, and the episodes that POPLER needs at most.

    Rewards are certain and only the best policy earns any, so it is found as soon as one episode of the data is its own, segment by segment
    for POPLER; until then all estimates are 0, and one of the N policies is drawn.
    """
    _, flower, first, second = lock_of(horizon)
    number, core = len(flower.policies), horizon + 1
    one, two = horizon // 3, 2 * horizon // 3
    episodes = first + (two + 1) * second
    begun = 1 - (one / core) ** first  # some episode of the core comes to the first digit
    segment = 1 - (1 - 1 / core) ** second  # the core policy that plays it is drawn
    uniform = 1 - (1 - 0.5**horizon) ** episodes

    def with_guess(probability: float) -> float:
        return probability + (1 - probability) / number

    return {
        "episodes": episodes,
        "popler": with_guess(begun * segment**2),
        "uniform": with_guess(uniform),
        "core": 1 / number,
    }


# --- completeness ------------------------------------------------------------------------------------------------------------------------


def completeness(*, seed: int = 0, repeats: int = 100, bias: float = 0.8, noise: float = 0.5) -> Picture:
    """PSDP on two roads, with a class of two policies and with all maps; values of what it returns are exact.

    Args:
        seed: of the rollouts.
        repeats: runs per number of rollouts.
        bias: share of resets at the poor road.
        noise: standard deviation of a rollout's return.
    """
    draw = torch.Generator().manual_seed(seed)
    mdp, resets = lab.two_roads(bias)
    classes = {"incomplete": lab.two_roads_class(), "complete": lab.all_policies(2, 2, 2)}
    best = {name: float(lab.policy_values(mdp, policies).max()) for name, policies in classes.items()}
    rows = []
    for rollouts in ROLLOUTS:
        row: dict[str, float] = {"rollouts": rollouts}
        for name, policies in classes.items():
            found = [
                best[name] - lab.psdp(mdp, policies, resets, rollouts=rollouts, noise=noise, generator=draw).value for _ in range(repeats)
            ]
            row[name] = float(np.mean(found))
            row[f"{name}_error"] = float(np.std(found) / math.sqrt(repeats))
        rows.append(row)
    limits = {name: lab.psdp_gap(mdp, policies, lab.psdp(mdp, policies, resets)) for name, policies in classes.items()}
    biases = [round(0.05 * step, 2) for step in range(1, 20)]
    curve = {
        name: [lab.psdp_gap(mdp, policies, lab.psdp(mdp, policies, lab.two_roads(share)[1])) for share in biases]
        for name, policies in classes.items()
    }
    return Picture(
        "completeness",
        "Policy search by dynamic programming needs a class that is closed under improvement",
        "With all maps the suboptimality vanishes with the number of rollouts; with two policies it stays, although resets reach every "
        "state.",
        "Krishnamurthy, Li and Sekhari 2025 (arXiv 2504.05405); the two roads are ours",
        {
            "repeats": repeats,
            "bias": bias,
            "noise": noise,
            "limit": limits,
            "concentrability": lab.concentrability(lab.layer_occupancies(mdp, classes["complete"]), resets),
            "by_bias": {"bias": biases, **curve},
        },
        rows,
    )


THEOREMS: dict[str, Callable[..., Picture]] = {"amplification": amplification, "exploration": exploration, "completeness": completeness}
"""By name."""


def theorem(name: str, *, seed: int = 0) -> Picture:
    """The numbers of a theorem's picture.

    Args:
        name: of :data:`THEOREMS`.
        seed: of what is drawn.

    Raises:
        RheostatError: an unknown name.
    """
    if name not in THEOREMS:
        raise unknown("theorem", name, THEOREMS)
    return THEOREMS[name](seed=seed)
