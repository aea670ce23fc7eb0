"""Is realizability enough off-policy? The claims of Zanette 2022 as numbers of small processes.

Nothing trains: the method is an estimator, and the processes are small enough for every population quantity to be exact. What is drawn
(data sets, random processes) has a fixed generator and many repeats in one cell, so the study has no seeds. Lower bounds, minimax
optimality and classes beyond linear ones cannot be shown at this scale and are not claimed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.experiments.studies import Cell, Claim, Condition, Judgement, Results, Study, exact
from studies._theory_report import SOURCES, draw

BOUND = "The statistical error is multiplied by a factor of the misalignment of F and T F; no inherent Bellman error is added (2211.05311)"


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    repeats: int = 200
    processes: int = 40
    samples: tuple[int, ...] = (100, 1000, 10_000, 100_000)


SMOKE = Sizes(2, 2, (50, 500))


def two_states(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell of the two states."""
    from rheostat.diagnostics.theorems import amplification

    return amplification(repeats=arguments["repeats"]).to_json()


def random_processes(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell of random processes: six states, two actions, three features, with the true value among them or without."""
    import torch

    from rheostat import tabular as lab

    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(arguments["processes"]):
        problem = lab.random_prediction(6, 2, 0.9, generator)
        features = lab.realizable_features(problem, 3, generator)
        if not arguments["realizable"]:
            features = torch.cat([torch.randn(6, 2, 1, generator=generator, dtype=torch.float64), features[..., 1:]], -1)
        d = lab.occupancy(problem.mdp, problem.policy)
        of_class, largest = lab.linear_class_concentrability(problem, features), lab.concentrability(d, problem.data)
        errors, within = [], []
        for number in arguments["samples"]:
            data = lab.sample_transitions(problem, number, generator=generator)
            weights = lab.linear_minimax(lab.Moments.of_data(data, problem.policy, 0.9, features))
            f = lab.linear_values(features, weights)
            errors.append(float(lab.bellman_error(problem, f)))
            bound = lab.prediction_bound(errors[-1], of_class if arguments["realizable"] else largest, 0.9)
            within.append(abs(lab.prediction_error(problem, f)) <= bound * (1 + 1e-9))
        q = lab.action_values(problem.mdp, problem.policy)
        found.append(
            {
                "beta": lab.linear_incompleteness(problem, features),
                "inherent_bellman_error": lab.linear_inherent_bellman_error(problem, features, float(lab.data_norm(q, problem.data))),
                "class_concentrability": of_class,
                "concentrability": largest,
                "bellman_error": errors,
                "within_bound": all(within),
            }
        )
    return {"samples": list(arguments["samples"]), "processes": found}


def claims(sizes: Sizes) -> list[Claim]:
    """Amplification, fitted Q evaluation, no floor, and the control that has one."""
    small = Cell("studies.realizability:two_states", {"repeats": sizes.repeats}, "two states", 5.0, (), SOURCES)
    sampled = {
        name: Cell(
            "studies.realizability:random_processes",
            {"processes": sizes.processes, "samples": list(sizes.samples), "realizable": name == "realizable"},
            name,
            10.0,
            (),
            SOURCES,
        )
        for name in ("realizable", "unrealizable")
    }
    two = (
        f"two states 1 -> 2 -> 2, features 1 and 2, rewards 0 with deviation 0.5, gamma 0.99, n = 1,000, {sizes.repeats} data sets, "
        "share of state 1 from 0.9 to 0.02"
    )
    many = f"{sizes.processes} random processes (six states, two actions, gamma 0.9), three features, n up to {max(sizes.samples):,}"
    return [
        Claim("amplification", "The error grows with 1 / sqrt(1 - beta²)", BOUND, two, _one(small), _judge(small, amplified), seeded=False),
        Claim(
            "fitted q",
            "Fitted Q evaluation diverges where its radius is above 1, and minimax does not",
            "Minimax minimisers and TD fixed points are covered wherever they exist (2211.05311); divergence is another condition",
            two,
            _one(small),
            _judge(small, diverging),
            seeded=False,
        ),
        Claim(
            "no floor",
            "With the true value in the class the error vanishes like n^-1/2, whatever the inherent Bellman error",
            BOUND,
            many,
            _one(sampled["realizable"]),
            _judge(sampled["realizable"], vanishing),
            seeded=False,
        ),
        Claim(
            "floor without realizability",
            "Without the true value in the class the error has a floor",
            "The guarantee is for realizable classes (2211.05311): our control",
            many,
            _one(sampled["unrealizable"]),
            _judge(sampled["unrealizable"], floored),
            seeded=False,
        ),
    ]


def _one(cell: Cell) -> dict[str, dict[int, Cell]]:
    return {cell.label: {0: cell}}


def _judge(cell: Cell, rules: Callable[[dict[str, Any]], list[Condition]]) -> Callable[[Results], Judgement]:
    def judge(result: Results) -> Judgement:
        return Judgement(rules(result(cell)), {"numbers": result(cell)})

    return judge


def fit(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and R² of a straight line."""
    slope, offset = np.polyfit(x, y, 1)
    return float(slope), float(1 - np.square(y - slope * x - offset).sum() / np.square(y - y.mean()).sum())


def amplified(found: dict[str, Any]) -> list[Condition]:
    """A straight line in both medians, the exact one and that of the data sets."""
    x = np.array([row["amplification"] for row in found["rows"]])
    conditions = []
    for name, text in (("exact_median", "exact median"), ("measured_median", "median of the data sets")):
        slope, share = fit(x, np.array([row[name] for row in found["rows"]]))
        conditions.append(exact(f"{text}: R² of the line above 0.98", share > 0.98, r_squared=share, slope=slope))
    slope = fit(x, np.array([row["exact_median"] for row in found["rows"]]))[0]
    expected = found["facts"]["slope"]
    conditions.append(exact("its slope is that of the law within 5 %", abs(slope / expected - 1) < 0.05, slope=slope, law=expected))
    return conditions


def diverging(found: dict[str, Any]) -> list[Condition]:
    """From the weight 1, exactly; with the same shares minimax stays finite."""
    rows = found["rows"]
    right = [(row["fitted_q_after_100"] > 1) == (row["radius"] > 1) for row in rows]
    worst = max(row["measured_median"] for row in rows)
    return [
        exact("fitted Q grows exactly where its radius is above 1", all(right), shares=len(right), right=sum(right)),
        exact("both cases occur", 0 < sum(row["radius"] > 1 for row in rows) < len(rows), diverging=sum(row["radius"] > 1 for row in rows)),
        exact("the minimax error times sqrt(n) stays below 10", worst < 10, largest=worst),
    ]


def medians(found: dict[str, Any]) -> np.ndarray:
    """Median Bellman error over processes at every n."""
    return np.median([one["bellman_error"] for one in found["processes"]], axis=0)


def vanishing(found: dict[str, Any]) -> list[Condition]:
    """Slope, bound and inherent Bellman error."""
    error, processes = medians(found), found["processes"]
    last = float(error[-1])
    slope = fit(np.log(found["samples"]), np.log(error))[0]
    inherent = float(np.median([one["inherent_bellman_error"] for one in processes]))
    smaller = all(one["class_concentrability"] <= one["concentrability"] * (1 + 1e-9) for one in processes)
    return [
        exact("slope of the log error against log n between -0.55 and -0.45", -0.55 < slope < -0.45, slope=slope),
        exact(
            "the last error is below a twentieth of the inherent Bellman error",
            last < inherent / 20,
            error=last,
            inherent=inherent,
        ),
        exact(
            "the bound with the class's concentrability holds in every process",
            all(one["within_bound"] for one in processes),
            processes=len(processes),
        ),
        exact("the class's concentrability is at most the largest density ratio", smaller, processes=len(processes)),
    ]


def floored(found: dict[str, Any]) -> list[Condition]:
    """The last tenfold of data changes little."""
    error = medians(found)
    ratio = float(error[-1] / error[-2])
    return [exact("ten times the data leave more than 0.9 of the error", ratio > 0.9, ratio=ratio, error=float(error[-1]))]


STUDY = Study("realizability", "Realizability", "arXiv 2211.05311", claims, full=Sizes(), smoke=SMOKE, draw=draw)
