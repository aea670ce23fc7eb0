"""When can the best member of a class of policies be found? The claims of Li 2025 (arXiv 2506.01884) on small processes.

Policies are compared with the best of the class and never with the optimum. What is drawn has a fixed generator and many runs in one
cell, so the study has no seeds; shares of runs come with score intervals. Lower bounds, separations and polynomial rates cannot be shown
at this scale and are not claimed. POPLER and the emulator are reconstructions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.analysis.shares import wilson
from rheostat.experiments.studies import Cell, Claim, Condition, Effect, Judgement, Results, Study, exact
from studies._theory_report import SOURCES, draw

HORIZON = 10
"""Of the lock that decides."""
CLASSES = (4, 16, 64, 256)
"""Sizes of the classes that trees evaluate."""


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    runs: int = 200
    trees: int = 60
    repeats: int = 100
    policies: int = 500
    processes: int = 5


SMOKE = Sizes(3, 4, 2, 20, 1)


def locks(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell of the locks: the picture over horizons, and many runs at one of them."""
    import torch

    from rheostat import tabular as lab
    from rheostat.diagnostics.theorems import exact_success, exploration, lock_of

    runs, generator = arguments["runs"], torch.Generator().manual_seed(1)
    lock, flower, first, second = lock_of(arguments["horizon"])
    value, episodes = lab.policy_values(lock, flower.policies), int(exact_success(arguments["horizon"])["episodes"])
    won = {"popler": 0, "uniform": 0}
    for _ in range(runs):
        won["popler"] += bool(value[lab.popler(lock, flower, first=first, second=second, generator=generator).member] > 0.5)
        data = lab.sample_episodes(lock, lab.random_actions(lock, episodes, generator), generator=generator)
        estimate = lab.uniform_values(flower.policies, 2, data)
        best = (estimate == estimate.max()).nonzero()[:, 0]
        won["uniform"] += bool(value[best[torch.randint(len(best), (1,), generator=generator)]] > 0.5)
    return {"runs": runs, "won": won, "exact": exact_success(arguments["horizon"]), **exploration(repeats=min(runs, 20)).to_json()}


def trees(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell of the trees: the largest error over a class, by its size and by the horizon."""
    import torch

    from rheostat import tabular as lab

    generator, number = torch.Generator().manual_seed(2), arguments["trees"]
    found = []
    for horizon in arguments["horizons"]:
        for size in arguments["classes"]:
            errors, pairs, bound = [], 0, 0
            for _ in range(arguments["repeats"]):
                mdp, _ = lab.block_mdp(horizon, 4, 2, 2, generator)
                policies = torch.randint(2, (size, horizon, 8), generator=generator)
                estimate = lab.trajectory_trees(mdp, policies, number, noise=0.5 / horizon, generator=generator)
                errors.append(float((estimate.returns.mean(0) - lab.policy_values(mdp, policies)).abs().max()))
                pairs, bound = max(pairs, int(estimate.pairs.max())), lab.spanning_bound(policies, 2)
            error = float(np.mean(errors)) * number**0.5
            found.append({"horizon": horizon, "policies": size, "error": error, "pairs": pairs, "bound": bound})
    return {"rows": found}


def resets(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell of the two roads."""
    from rheostat.diagnostics.theorems import completeness

    return completeness(repeats=arguments["repeats"]).to_json()


def emulated(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell of the emulator: three latent states behind thirty observations each."""
    import torch

    from rheostat import tabular as lab

    rows = []
    for seed in range(arguments["processes"]):
        generator = torch.Generator().manual_seed(seed)
        mdp, latent = lab.block_mdp(4, 3, 30, 2, generator)
        policies = lab.latent_policies(latent, arguments["policies"], 2, generator)
        uniform = torch.full((4, 90), 1 / 90, dtype=torch.float64)
        table = lab.policy_emulator(mdp, policies, uniform, size=300, rollouts=100, tolerance=0.05, generator=generator)
        exact_values, estimate = lab.policy_values(mdp, policies), table.values(policies)
        rows.append(
            {
                "error": float((estimate - exact_values).abs().max()),
                "spread": float(exact_values.max() - exact_values.min()),
                "gap": float(exact_values.max() - exact_values[estimate.argmax()]),
                "tests": max(len(tests) for tests in table.tests),
            }
        )
    return {"rows": rows}


def claims(sizes: Sizes) -> list[Claim]:
    """Exploration, trees, completeness, and hybrid resets."""

    def cell(function: str, label: str, cost: float, **arguments: Any) -> Cell:
        return Cell(f"studies.agnostic_rl:{function}", arguments, label, cost, (), SOURCES)

    lock = cell("locks", "locks", 40.0, runs=sizes.runs, horizon=HORIZON)
    wood = cell("trees", "trees", 20.0, trees=sizes.trees, repeats=sizes.repeats, horizons=[3, 7], classes=list(CLASSES))
    roads = cell("resets", "two roads", 10.0, repeats=sizes.repeats)
    table = cell("emulated", "emulators", 30.0, policies=sizes.policies, processes=sizes.processes)
    return [
        Claim(
            "exploration",
            "POPLER finds the best member of a sunflower with episodes that uniform actions fail with",
            "Sunflowers make online learning possible by POPLER (2310.06113)",
            f"combination locks with two digits 1, all policies with at most two; H = {HORIZON}, {sizes.runs} runs: at least 90 %, and at "
            "most 30 % for uniform actions with as many episodes",
            {lock.label: {0: lock}},
            _judge(lock, explored),
            seeded=False,
        ),
        Claim(
            "trees",
            "The error of trajectory trees is a matter of log |Pi| and not of A^H",
            "The spanning capacity of Pi characterises learning with a generative model (2310.06113)",
            f"random layered processes, eight states, H = 3 and 7, classes of 4 to 256 policies, {sizes.trees} trees, "
            f"{sizes.repeats} repeats",
            {wood.label: {0: wood}},
            _judge(wood, evaluated),
            seeded=False,
        ),
        Claim(
            "completeness",
            "PSDP fails without policy completeness, although resets reach every state",
            "PSDP and CPI provably fail without policy completeness (2504.05405)",
            f"two roads, four fifths of resets at the poor one; two policies, and all maps; {sizes.repeats} runs",
            {roads.label: {0: roads}},
            _judge(roads, completed),
            seeded=False,
        ),
        Claim(
            "hybrid resets",
            "An emulator has the values of every policy of a class on a block MDP",
            "With hybrid resets agnostic learning of Block MDPs is tractable by PLHR, which builds a policy emulator (2504.05405)",
            f"{sizes.processes} random processes, H = 4, three latent states behind 90 observations, {sizes.policies} policies, 300 "
            "states of the emulator per layer",
            {table.label: {0: table}},
            _judge(table, emulating),
            seeded=False,
        ),
    ]


def _judge(cell: Cell, rules: Callable[[dict[str, Any]], tuple[list[Condition], Effect | None]]) -> Callable[[Results], Judgement]:
    def judge(result: Results) -> Judgement:
        conditions, effect = rules(result(cell))
        return Judgement(conditions, {"numbers": result(cell)}, effect=effect)

    return judge


def explored(found: dict[str, Any]) -> tuple[list[Condition], Effect | None]:
    """Exact probabilities, and those of runs with score intervals."""
    popler, uniform = (wilson(found["won"][name], found["runs"]) for name in ("popler", "uniform"))
    sure = found["exact"]
    conditions = [
        exact("exact probability of POPLER at least 0.9", sure["popler"] >= 0.9, probability=sure["popler"], episodes=sure["episodes"]),
        exact("exact probability of uniform actions at most 0.3", sure["uniform"] <= 0.3, probability=sure["uniform"]),
    ]
    for name, share in (("popler", popler), ("uniform", uniform)):
        inside = share.low <= sure[name] <= share.high
        numbers = {"estimate": share.estimate, "low": share.low, "high": share.high, "exact": sure[name], "runs": found["runs"]}
        conditions.append(exact(f"runs of {name}: the exact probability lies in their 95 % interval", inside, **numbers))
    effect = Effect("share of runs in which POPLER finds the best policy", popler.estimate, popler.low, popler.high, found["runs"])
    return conditions, effect


def evaluated(found: dict[str, Any]) -> tuple[list[Condition], Effect | None]:
    """Growth with the class and with the horizon, and the number of samples."""
    error = {(row["horizon"], row["policies"]): row["error"] for row in found["rows"]}
    horizons, sizes = (sorted({key[axis] for key in error}) for axis in (0, 1))
    short, long = horizons[0], horizons[-1]
    ratio = max(error[long, size] / error[short, size] for size in sizes)
    x = np.sqrt(np.log(2 * np.array(sizes)))
    fits = [_r_squared(x, np.array([error[horizon, size] for size in sizes])) for horizon in horizons]
    conditions = [
        exact(f"H = {long} has at most 1.5 times the error of H = {short} (A^H: {2 ** (long - short)} times)", ratio <= 1.5, ratio=ratio),
        exact("a line in sqrt(log 2 |Pi|) explains at least 0.9 of the error", min(fits) >= 0.9, r_squared=min(fits)),
        exact(
            "no layer of a tree needs more pairs than the bound of the spanning capacity",
            all(row["pairs"] <= row["bound"] for row in found["rows"]),
            most=max(row["pairs"] for row in found["rows"]),
        ),
    ]
    return conditions, None


def _r_squared(x: np.ndarray, y: np.ndarray) -> float:
    slope, offset = np.polyfit(x, y, 1)
    return float(1 - np.square(y - slope * x - offset).sum() / np.square(y - y.mean()).sum())


def completed(found: dict[str, Any]) -> tuple[list[Condition], Effect | None]:
    """Exact limits, and the last number of rollouts."""
    limit, last = found["facts"]["limit"], found["rows"][-1]
    return [
        exact("exact gap of all maps is 0", abs(limit["complete"]) < 1e-12, gap=limit["complete"]),
        exact("exact gap of two policies is 1/2", abs(limit["incomplete"] - 0.5) < 1e-12, gap=limit["incomplete"]),
        exact("all maps: mean gap after the most rollouts at most 0.1", last["complete"] <= 0.1, gap=last["complete"]),
        exact("two policies: mean gap after the most rollouts at least 0.45", last["incomplete"] >= 0.45, gap=last["incomplete"]),
    ], None


def emulating(found: dict[str, Any]) -> tuple[list[Condition], Effect | None]:
    """The largest error over policies and processes, beside the spread of values that it has to tell apart."""
    rows = found["rows"]
    error, spread = max(row["error"] for row in rows), min(row["spread"] for row in rows)
    return [
        exact("error of every policy below 0.1", error < 0.1, largest=error),
        exact("values differ by more than twice that error", spread > 2 * error, least_spread=spread),
        exact("few tests suffice: at most 10 per layer", max(row["tests"] for row in rows) <= 10, most=max(row["tests"] for row in rows)),
    ], None


STUDY = Study("agnostic-rl", "Agnostic RL", "arXiv 2506.01884", claims, full=Sizes(), smoke=SMOKE, draw=draw)
