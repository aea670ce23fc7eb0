"""Statistics over seeds: two arms, few seeds and more."""

from __future__ import annotations

import numpy as np

from rheostat.analysis.statistics import bootstrap, clustered_share, iqm, probability_of_improvement, wilson
from rheostat.analysis.verdict import Verdict, decide, decide_paired

A = [412.0, 455.0, 388.0, 471.0, 430.0, 444.0, 467.0, 402.0]  # one final score per seed
B = [371.0, 402.0, 350.0, 437.0, 365.0, 398.0, 420.0, 341.0]


def main() -> dict[str, Verdict]:
    rng = np.random.default_rng(0)
    print("IQM of A     ", bootstrap(A, iqm, generator=rng))
    print("P(A better)  ", probability_of_improvement(A, B, generator=rng))
    found = {f"{n} seeds": decide(A[:n], B[:n], generator=rng) for n in (2, 4, 8)}
    found["8 matched"] = decide_paired(dict(enumerate(A)), dict(enumerate(B)), generator=rng)
    for name, verdict in found.items():
        print(f"{name:13} {verdict.difference}  p = {verdict.p_value:.3f}  {verdict}")
    right = [[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]  # four prompts, four completions each
    print("accuracy     ", clustered_share(right, generator=rng), "prompts are the unit")
    print("as if trials ", wilson(8, 16), "wrong here: completions of one prompt are not independent")
    return found


if __name__ == "__main__":
    main()
