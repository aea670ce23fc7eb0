"""Returns that count as 0 and 100 percent in normalised scores, where they have been published.

    score = 100 (return - random) / (expert - random)

The values are those of D4RL (Fu et al. 2020, arXiv 2004.07219; file ``d4rl/infos.py``), which uses the same ones for its v0, v1 and v2 data
sets. They were measured on the environments of the old Gym with MuJoCo 2. They are applied to the ids ``HalfCheetah``, ``Hopper``,
``Walker2d`` and ``Ant`` of versions 2 to 5, as is usual. The versions are not the same environment: rewards and bodies changed in
details (most between v4 and v5), so a score on v5 compares methods on v5, and only roughly with a table measured on v2.

For every other task no published returns are used: data sets that this library makes measure a random policy and their teacher instead, and
keep these two numbers in their metadata.
"""

from __future__ import annotations

import re

D4RL: dict[str, tuple[float, float]] = {
    "HalfCheetah": (-280.178953, 12135.0),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
    "Ant": (-325.6, 3879.7),
}
"""Environment to the mean returns of (random, expert)."""
D4RL_SOURCE = "D4RL, published for v0 to v2 of its data sets"
MEASURED_SOURCE = "measured: uniform actions, and the most likely actions of the fully trained teacher"


def published(task: str) -> tuple[float, float] | None:
    """D4RL's (random, expert) returns for a task id; None where there are none.

    >>> published("Hopper-v5")
    (-20.272305, 3234.3)
    """
    match = re.fullmatch(r"(?:gymnasium:|envpool:)?(\w+)-v[2-5]", task)
    return D4RL.get(match[1]) if match else None
