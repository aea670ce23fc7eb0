"""Statistics over seeds: two arms, few seeds and more."""

from __future__ import annotations

from rheostat.analysis.shares import clustered_share, probability_of_improvement, wilson
from rheostat.analysis.statistics import difference, interval_of, iqm
from rheostat.analysis.verdict import Verdict, judge

A = [412.0, 455.0, 388.0, 471.0, 430.0, 444.0, 467.0, 402.0]  # one final score per seed
B = [371.0, 402.0, 350.0, 437.0, 365.0, 398.0, 420.0, 341.0]  # the same seeds


def main() -> dict[str, Verdict]:
    print("IQM of A     ", interval_of(A, iqm))
    print("P(A better)  ", probability_of_improvement(A, B))
    print("as if apart  ", difference(A, B), "A minus B without the seeds in common")
    found = {f"{n} seeds": judge(dict(enumerate(A[:n])), dict(enumerate(B[:n]))) for n in (2, 4, 8)}
    found["margin 100"] = judge(dict(enumerate(A)), dict(enumerate(B)), margin=100.0)
    for name, verdict in found.items():
        print(f"{name:13} {verdict.difference}  {verdict}")
    right = [[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]  # four prompts, four completions each
    print("accuracy     ", clustered_share(right), "prompts are the unit")
    print("as if trials ", wilson(8, 16), "wrong here: completions of one prompt are not independent")
    return found


if __name__ == "__main__":
    main()
