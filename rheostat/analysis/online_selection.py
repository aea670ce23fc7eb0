"""The return that choosing among k trained policies gives, when each must be tried online first.

Offline methods are tuned with a hidden cost: whoever reports the best of many settings has run all of them in the environment to find it.
With the online budget as an axis a method can be compared at the number of policies that somebody can afford to try.

Source: Kurenkov and Kolesnikov (2022), "Showing Your Offline Reinforcement Learning Work: Online Evaluation Budget Matters" (expected
online performance, EOP). They draw the k policies with replacement; here they are drawn without, which is what trying k of the n
settings means, and makes the value at k = n the best one's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rheostat.errors import RheostatError


def expected_best(returns: Sequence[float], k: int) -> float:
    r"""Mean of the largest of ``k`` returns, over all ways to choose ``k`` of the ``n`` policies.

    $\sum_{i=k}^{n} \binom{i-1}{k-1} / \binom{n}{k} \; R_{(i)}$ with the returns $R_{(1)} \le \dots \le R_{(n)}$ in order.

    Args:
        returns: of each of the n policies, in the environment.
        k: how many of them are tried online; 1 is the mean.

    Raises:
        RheostatError: no policy, fewer than 1 or more than n to try, or a return that is not finite.
    """
    ordered = sorted(returns)
    count = len(ordered)
    if not 1 <= k <= count:
        raise RheostatError(f"{k} of {count} policies cannot be tried: take at least 1 and at most all of them.")
    if not all(map(math.isfinite, ordered)):
        raise RheostatError("A return is not finite: leave out policies that failed, and say how many.")
    ways = math.comb(count, k)
    return sum(math.comb(place, k - 1) / ways * value for place, value in enumerate(ordered) if place >= k - 1)


def by_budget(returns: Sequence[float]) -> dict[int, float]:
    """:func:`expected_best` for 1, 2, 4, ... and all policies."""
    count = len(returns)
    budgets = sorted({2**power for power in range(count.bit_length()) if 2**power <= count} | {count} - {0})
    return {k: expected_best(returns, k) for k in budgets}
