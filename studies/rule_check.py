"""How often does the rule err, and what can it find? A simulation, beside the rule that it replaced.

    python -m studies.rule_check            the tables (a few minutes of one core)
    python -m studies.rule_check --json     the numbers
    python -m studies.rule_check --factors  only how often the rule errs, over how often it promises to (a minute)
    python -m studies.rule_check --write    studies/results/rule_check.json, and the tables in docs/rule.md

Differences of matched seeds are drawn from known distributions of mean 0 and deviation 1, an effect in deviations is added, and the
functions that judge studies (:mod:`rheostat.analysis.verdict`) judge them. Nothing is trained.

normal                  what the level was chosen for
t3                      heavy tails, symmetric
skewed                  exponential
failures, both          a run of either method fails in 15 of 100 cases and loses 5 deviations of a sound run
failures, one           only one method fails, and is better by as much when it does not, so that the means are equal

The old rule judged six seeds with a percentile bootstrap interval and a sign-flip test at .05, and where it was undecided asked for a
number of further seeds and judged all of them again at .05.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.analysis.statistics import Array, iqm_bounds, t_bounds
from rheostat.analysis.verdict import OUTCOMES, RULE, SKEWED, Rule, decisions, far_from_others, sign_flip_p, skewness
from rheostat.json_text import signed

TRIALS = 20_000
OLD_TRIALS = 4_000
RESAMPLES = 400
SEED = 20
EFFECTS = (0.5, 0.75, 1.0, 1.5, 2.0)
MARGINS = (0.5, 0.75, 1.0)
SIZES = (5, 6, 8, 10, 12, 16, 20, 24)
FAILING, LOSS = 0.15, 5.0
RESULT = Path(__file__).parent / "results" / "rule_check.json"
PAGE = Path(__file__).parent.parent / "docs" / "rule.md"
START, END = "<!-- tables: written by `python -m studies.rule_check --write` -->", "<!-- tables: end -->"
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


def with_failures(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A run's result: normal, or far below when it fails."""
    return generator.normal(size=shape) - LOSS * (generator.random(shape) < FAILING)


FAILURE_VARIANCE = 1 + LOSS**2 * FAILING * (1 - FAILING)
SCENARIOS: dict[str, Draw] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "t3": lambda generator, shape: generator.standard_t(3, size=shape) / math.sqrt(3),
    "skewed": lambda generator, shape: generator.exponential(size=shape) - 1,
    "failures, both": lambda generator, shape: (
        (with_failures(generator, shape) - with_failures(generator, shape)) / math.sqrt(2 * FAILURE_VARIANCE)
    ),
    "failures, one": lambda generator, shape: (
        (with_failures(generator, shape) + LOSS * FAILING - generator.normal(size=shape)) / math.sqrt(1 + FAILURE_VARIANCE)
    ),
}
"""Differences ``[trials, seeds]`` of mean 0 and deviation 1."""


def simulate(trials: int = TRIALS) -> dict[str, Any]:
    """All numbers, by scenario."""
    began = time.monotonic()
    found = {name: of_scenario(draw, np.random.default_rng([SEED, index]), trials) for index, (name, draw) in enumerate(SCENARIOS.items())}
    from rheostat.experiments.studies.sources import commit, library_versions, machine

    versions = {name: version for name, version in library_versions().items() if name in ("python", "numpy")}
    source = {"command": "python -m studies.rule_check --write", "date": datetime.now(UTC).date().isoformat(), "commit": commit()}
    source |= {"machine": machine(), "versions": versions, "seconds": round(time.monotonic() - began)}
    return {
        "rule": {"looks": list(RULE.looks), "alpha": RULE.alpha},
        "trials": trials,
        "scenarios": found,
        "provenance": source,
    }


def of_scenario(draw: Draw, generator: np.random.Generator, trials: int) -> dict[str, Any]:
    """The rule, the rule without its check of skewness, the old rule, and intervals."""
    d = draw(generator, (trials, RULE.looks[-1]))
    first = d[:, : RULE.looks[0]]
    old = draw(generator, (min(trials, OLD_TRIALS), RULE.looks[-1]))
    return {
        "flagged at 8 seeds": share((np.abs(skewness(first)) > SKEWED) | far_from_others(first)),
        "the rule": judged(d),
        "without the check of skewness": judged(d, skew=False),
        "margins": {f"{margin:g}": with_margin(d, margin) for margin in MARGINS},
        "the old rule": old_rule(old, generator),
        "coverage": coverage(draw, generator, trials),
    }


def judged(d: Array, *, skew: bool = True) -> dict[str, Any]:
    """False positives in either direction, and power and mean seeds by effect."""
    rule = replace(RULE, skew=skew)
    supported = OUTCOMES.index("supported")
    found: dict[str, Any] = dict(false_verdicts(d, rule))
    for effect in EFFECTS:
        shifted = decisions(d + effect, rule=rule)
        found[f"effect {effect:g}"] = {"power": share(shifted.outcome == supported), "seeds": round(float(shifted.look.mean()), 1)}
    return found


def false_verdicts(d: Array, rule: Rule = RULE) -> dict[str, float]:
    """Shares of verdicts in either direction, and of any, where both methods are equal."""
    supported, refuted, undecided = (OUTCOMES.index(word) for word in ("supported", "refuted", "undecided"))
    null = decisions(d, rule=rule).outcome
    return {
        "false supported": share(null == supported),
        "false refuted": share(null == refuted),
        "false positives": share(null != undecided),
    }


def with_margin(d: Array, margin: float) -> dict[str, float]:
    """ "No relevant difference" and "no worse" where they are false (at the margin) and where they are true (at 0)."""
    supported, same = OUTCOMES.index("supported"), OUTCOMES.index("no relevant difference")
    return {
        "false equivalence": share(decisions(d + margin, margin=margin).outcome == same),
        "equivalence found": share(decisions(d, margin=margin).outcome == same),
        "false no worse": share(decisions(d - margin, question="no worse", margin=margin).outcome == supported),
        "no worse found": share(decisions(d, question="no worse", margin=margin).outcome == supported),
    }


def errors(trials: int = TRIALS) -> dict[str, Any]:
    """What :func:`simulate` finds about errors of the rule, from the same draws, and nothing else."""
    found = {}
    for index, (name, draw) in enumerate(SCENARIOS.items()):
        d = draw(np.random.default_rng([SEED, index]), (trials, RULE.looks[-1]))
        found[name] = {"the rule": false_verdicts(d), "margins": {f"{margin:g}": with_margin(d, margin) for margin in MARGINS}}
    return found


def factors(scenarios: dict[str, Any]) -> dict[str, dict[str, float]]:
    """How many times as often as promised the rule errs, by scenario and kind of error.

    All looks together promise :attr:`~rheostat.analysis.verdict.Rule.overall` for verdicts in both directions, and half of it for each
    verdict that can be false in one direction only. Of a verdict with a margin the worst margin counts.

    Args:
        scenarios: of :func:`simulate` or :func:`errors`.
    """
    one_sided = RULE.overall / 2
    found = {}
    for name, one in scenarios.items():
        rule, margins = one["the rule"], one["margins"].values()
        found[name] = {
            "any verdict": rule["false positives"] / RULE.overall,
            "better": rule["false supported"] / one_sided,
            "worse": rule["false refuted"] / one_sided,
            "no relevant difference": max(row["false equivalence"] for row in margins) / one_sided,
            "no worse": max(row["false no worse"] for row in margins) / one_sided,
        }
    return found


def share(flags: Any) -> float:
    """How often, to four digits."""
    return round(float(np.mean(flags)), 4)


# --- what was used before ----------------------------------------------------------------------------------------------------------------


def old_rule(d: Array, generator: np.random.Generator) -> dict[str, Any]:
    """Six seeds; then "try N more seeds" and the same again with all of them, at most 24."""
    at_six, again = old_verdicts(d, generator)
    found = {"false positives at 6": share(at_six != 0), "false positives after more seeds": share(again != 0)}
    for effect in EFFECTS:
        found[f"power at 6, effect {effect:g}"] = share(old_judge(d[:, :6] + effect, generator) > 0)
    error = d[:, :6].std(1, ddof=1) / math.sqrt(6)
    found["false no worse, half a deviation"] = share(d[:, :6].mean(1) - 0.5 >= -error)
    return found


def old_verdicts(d: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Signs of the verdicts (0: undecided) at six seeds, and after the further seeds that were asked for."""
    from scipy.stats import norm

    first = old_judge(d[:, :6], generator)
    z = float(norm.ppf(0.975) + norm.ppf(0.8))
    needed = np.ceil(z**2 * d[:, :6].var(1, ddof=1) / np.square(d[:, :6].mean(1)))
    seeds = np.clip(needed, 7, d.shape[1]).astype(int)
    last = first.copy()
    for n in np.unique(seeds):
        mine = (first == 0) & (seeds == n)
        if mine.any():
            last[mine] = old_judge(d[mine, :n], generator)
    return first, last


def old_judge(d: Array, generator: np.random.Generator) -> Array:
    """1, -1 or 0 for ``[trials, n]``: the percentile interval leaves out 0, and the sign-flip test rejects, at .05."""
    n = d.shape[1]
    low, high = percentile(d, generator)
    if n <= 12:
        p = sign_flip_p(d)
    else:
        signs = generator.choice((-1.0, 1.0), size=(n, 2_000))
        p = (1 + (np.abs(d @ signs) >= np.abs(d.sum(1))[:, None]).sum(1)) / 2_001
    centre = d.mean(1)
    return np.where((p <= 0.05) & ((low > 0) | (high < 0)), np.sign(centre), 0.0)


def percentile(d: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Ends of the 95 % percentile bootstrap interval of the mean of every row ``[trials, n]``."""
    low, high = np.empty(len(d)), np.empty(len(d))
    n = d.shape[1]
    for start in range(0, len(d), 500):
        part = d[start : start + 500]
        drawn = generator.integers(n, size=(len(part), RESAMPLES, n))
        samples = np.take_along_axis(part[:, None, :], drawn, axis=2)
        low[start : start + 500], high[start : start + 500] = np.quantile(samples.mean(2), (0.025, 0.975), axis=1)
    return low, high


# --- intervals ---------------------------------------------------------------------------------------------------------------------------


def coverage(draw: Draw, generator: np.random.Generator, trials: int) -> dict[str, dict[str, float]]:
    """How often 95 % intervals hold the true mean and the true interquartile mean, by seeds."""
    large = np.sort(draw(generator, (2_000_000,)))
    middle = float(large[len(large) // 4 : -len(large) // 4].mean())
    found = {}
    for n in SIZES:
        d = draw(generator, (trials, n))
        few = d[: min(trials, OLD_TRIALS)]
        _, low, high = t_bounds(d)
        _, low_iqm, high_iqm = iqm_bounds(d)
        old_low, old_high = percentile(few, generator)
        found[str(n)] = {
            "t": share((low <= 0) & (high >= 0)),
            "t of the IQM": share((low_iqm <= middle) & (high_iqm >= middle)),
            "percentile bootstrap": share((old_low <= 0) & (old_high >= 0)),
        }
    return found


# --- tables ------------------------------------------------------------------------------------------------------------------------------


def tables(found: dict[str, Any]) -> str:
    """The numbers as Markdown."""
    scenarios = found["scenarios"]
    shown = [f"{effect:g}" for effect in EFFECTS]
    parts = [
        "**False verdicts where both methods are equal.** In the old rule: at six seeds, and after the further seeds it asked for.",
        *_table(
            [
                "differences",
                "the rule",
                "better / worse",
                "without the check of skewness",
                "flagged at 8",
                "old: six seeds",
                "old: and more",
            ],
            [
                [
                    name,
                    _p(one["the rule"]["false positives"]),
                    f"{_p(one['the rule']['false supported'])} / {_p(one['the rule']['false refuted'])}",
                    _p(one["without the check of skewness"]["false positives"]),
                    _p(one["flagged at 8 seeds"]),
                    _p(one["the old rule"]["false positives at 6"]),
                    _p(one["the old rule"]["false positives after more seeds"]),
                ]
                for name, one in scenarios.items()
            ],
        ),
        f"**How many times as often as promised.** Promised are {_p(RULE.overall)} for any verdict between equal methods and "
        f"{_p(RULE.overall / 2)} for each verdict that is false in one direction; with a margin the worst of {_margins()} counts.",
        *factor_table(scenarios),
        "**Power, with the mean number of seeds in brackets,** by the true difference in standard deviations of a difference.",
        *_table(
            ["differences", *shown],
            [[name, *(_power(one["the rule"][f"effect {effect}"]) for effect in shown)] for name, one in scenarios.items()]
            + [
                [f"{name}, old rule at six seeds", *(_p(one["the old rule"][f"power at 6, effect {effect}"]) for effect in shown)]
                for name, one in scenarios.items()
                if name == "normal"
            ],
        ),
        "**Margins**, in standard deviations: how often the verdict is given where the difference is as large as the margin (false), and "
        f'where it is 0 (found). The old "no worse" was given to a method half a deviation worse in '
        f"{_p(scenarios['normal']['the old rule']['false no worse, half a deviation'])} of cases (six seeds, normal).",
        *_table(
            ["differences", "margin", "no relevant difference: false", "found", "no worse: false", "found"],
            [
                [
                    name,
                    margin,
                    *(_p(x) for x in (row["false equivalence"], row["equivalence found"], row["false no worse"], row["no worse found"])),
                ]
                for name, one in scenarios.items()
                for margin, row in one["margins"].items()
            ],
        ),
        "**Coverage of 95 % intervals** of the mean: Student's / the interquartile mean's / the percentile bootstrap that was used before.",
        *_table(
            ["differences", *(f"{n} seeds" for n in SIZES)],
            [[name, *(" / ".join(_p(x) for x in one["coverage"][str(n)].values()) for n in SIZES)] for name, one in scenarios.items()],
        ),
    ]
    source = found["provenance"]
    parts.append(
        f"{found['trials']:,} series of differences ({min(found['trials'], OLD_TRIALS):,} for what resamples), {source['seconds']} s, "
        f"{source['date']}, commit `{source['commit'][:10]}`."
    )
    return "\n".join(part if part.startswith("|") else f"\n{part}\n" for part in parts).strip() + "\n"


def factor_table(scenarios: dict[str, Any]) -> list[str]:
    """:func:`factors` as a table."""
    rows = factors(scenarios)
    kinds = list(next(iter(rows.values())))
    return _table(["differences", *kinds], [[name, *(f"{row[kind]:.1f}" for kind in kinds)] for name, row in rows.items()])


def _margins() -> str:
    return ", ".join(f"{margin:g}" for margin in MARGINS[:-1]) + f" and {MARGINS[-1]:g} deviations"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["\n".join("| " + " | ".join(line) + " |" for line in lines)]


def _p(x: float) -> str:
    """A share with three digits, without the zero before the point."""
    return f"{x:.3f}".removeprefix("0")


def _power(row: dict[str, float]) -> str:
    return f"{row['power']:.2f} ({row['seeds']:.0f})".removeprefix("0")


def page(found: dict[str, Any]) -> str:
    """``docs/rule.md`` with these tables."""
    text = PAGE.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{tables(found)}\n{END}{after}"


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m studies.rule_check", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--write", action="store_true", help="write the result and the tables of docs/rule.md")
    parser.add_argument("--trials", type=int, default=TRIALS, help="series of differences (default: %(default)s)")
    parser.add_argument("--factors", action="store_true", help="only how many times as often as promised the rule errs")
    given = parser.parse_args()
    if given.factors:
        found = errors(given.trials)
        print(json.dumps(factors(found), indent=1) if given.json else "\n".join(factor_table(found)))
        return
    found = simulate(given.trials)
    if given.write:
        RESULT.write_text(json.dumps(signed(found), indent=1) + "\n")
        PAGE.write_text(page(found))
    print(json.dumps(found, indent=1) if given.json else tables(found))


if __name__ == "__main__":
    main()
