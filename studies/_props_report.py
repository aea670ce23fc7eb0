"""The picture of the PROPS study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rheostat.reporting.study_figures import verdict_word
from studies._props_learning import known

COLOURS = {"on-policy": "#666666", "PPO": "#666666", "PPO-Buffer": "#0072b2", "ROS": "#009e73", "PROPS": "#d55e00"}
"""Okabe and Ito's palette; other arms share PROPS's colour."""


def draw(study: dict[str, Any], path: Path) -> None:
    """One row of panels per part that was run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = {claim["name"]: claim for claim in study["claims"]}
    learning = [claim for name, claim in found.items() if name.startswith("learning ")]
    fixed = [claim for name, claim in found.items() if name.startswith("fixed ")]
    rows: list[list[Any]] = []
    if "grid" in found:
        rows.append([lambda axes: _grid(axes, found["grid"]), lambda axes: _cartpole(axes, found["cartpole"])])
    if "two-step" in found:
        target = rows[0] if rows else []
        target.append(lambda axes: _two_step(axes, found["two-step"]))
        if not rows:
            rows.append(target)
    if learning:
        rows.append([lambda axes, c=claim: _curves(axes, c, "meter/sampling_error") for claim in learning])
        rows.append([lambda axes, c=claim: _curves(axes, c, "evaluation_return") for claim in learning])
    if fixed:
        rows.append([lambda axes: _bars(axes, fixed)])
    figure = plt.figure(figsize=(13, 3.6 * len(rows)), layout="constrained")
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        for part, panels in zip(figure.subfigures(len(rows), 1, squeeze=False).flat, rows, strict=True):
            for axes, panel in zip(np.atleast_1d(part.subplots(1, len(panels))), panels, strict=True):
                panel(axes)
        figure.savefig(path, dpi=130)
    plt.close(figure)


def _titled(axes: Any, claim: dict[str, Any], title: str) -> None:
    axes.set_title(f"{claim['title'][0]}  {title}: {verdict_word(claim)}", loc="left", fontsize=10)


def _grid(axes: Any, claim: dict[str, Any]) -> None:
    for arm, rows in claim["metrics"]["sampling_error"].items():
        steps = [int(step) for step in rows]
        main = arm in COLOURS
        centre = [row["mean"] for row in rows.values()]
        axes.plot(
            steps,
            centre,
            color=COLOURS.get(arm, COLOURS["PROPS"]),
            lw=2 if main else 1,
            ls="-" if main else ":",
            marker="o",
            ms=3,
            label=arm,
        )
        if main:
            for seed in range(len(next(iter(rows.values()))["per_seed"])):
                axes.plot(steps, [row["per_seed"][seed] for row in rows.values()], color=COLOURS[arm], lw=0.5, alpha=0.35)
    axes.set(xscale="log", yscale="log", xlabel="environment steps", ylabel="exact sampling error (nats per step)")
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)
    _titled(axes, claim, "5x5 grid, fixed tabular policy")


def _dots(axes: Any, groups: dict[str, dict[str, Any]]) -> None:
    for position, (arm, row) in enumerate(groups.items()):
        spread = np.linspace(-0.12, 0.12, len(row["per_seed"])) if len(row["per_seed"]) > 1 else [0.0]
        axes.plot(position + np.asarray(spread), row["per_seed"], ".", color=COLOURS.get(arm, COLOURS["PROPS"]), alpha=0.6)
        axes.plot([position - 0.25, position + 0.25], [row["mean"]] * 2, color=COLOURS.get(arm, COLOURS["PROPS"]), lw=2)
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_yscale("log")


def _cartpole(axes: Any, claim: dict[str, Any]) -> None:
    _dots(axes, claim["metrics"]["sampling_error"])
    axes.set_ylabel("neural sampling error (nats per step)")
    _titled(axes, claim, "CartPole, fixed network")


def _two_step(axes: Any, claim: dict[str, Any]) -> None:
    for arm, curve in claim["metrics"]["curve"].items():
        share = claim["metrics"]["optimal_share"][arm]
        axes.plot(range(1, len(curve) + 1), curve, color=COLOURS[arm], lw=2, label=f"{arm}: {share:.1%} end optimal")
    axes.set(yscale="log", xlabel="update", ylabel="exact sampling error (nats per step)")
    axes.legend(frameon=False, fontsize=8)
    _titled(axes, claim, "TwoStep")


def _curves(axes: Any, claim: dict[str, Any], metric: str) -> None:
    for arm, seeds in claim["curves"].items():
        curves = [known(curve, metric) for curve in seeds.values()]
        grid = np.linspace(max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves), 60)
        values = np.stack([np.interp(grid, *curve) for curve in curves])
        centre = values.mean(0)
        axes.plot(grid / 1000, centre, color=COLOURS[arm], lw=2, label=arm)
        if len(curves) > 1:
            error = values.std(0, ddof=1) / np.sqrt(len(curves))
            axes.fill_between(grid / 1000, centre - error, centre + error, color=COLOURS[arm], alpha=0.2, lw=0)
    task = claim["name"].removeprefix("learning ")
    axes.set_xlabel("thousand environment steps")
    if metric == "evaluation_return":
        axes.set_ylabel("deterministic return")
        axes.set_title(f"C  {task}: return (mean, one standard error)", loc="left", fontsize=10)
    else:
        axes.set(yscale="log", ylabel="neural sampling error")
        _titled(axes, claim, task)

    axes.legend(frameon=False, fontsize=8)


def _bars(axes: Any, claims: list[dict[str, Any]]) -> None:
    labels = []
    for group, claim in enumerate(claims):
        metrics = claim["metrics"]
        _, task, kind = claim["name"].split()
        labels.append(f"{task}\n{kind}: {verdict_word(claim)}")
        for offset, arm in ((-0.2, "on-policy"), (0.0, "PROPS")):
            row = metrics["sampling_error"][arm]
            axes.bar(group + offset, row["mean"], 0.18, color=COLOURS[arm], alpha=0.85, label=arm if group == 0 else None)
            axes.plot([group + offset] * len(row["per_seed"]), row["per_seed"], ".", color="black", ms=3, alpha=0.6)
        for offset, arm in ((-0.2, "on-policy"), (0.0, "PROPS")):
            label = "authors' logs (v4)" if group == 0 and arm == "PROPS" else None
            axes.plot(
                [group + offset - 0.09, group + offset + 0.09], [metrics["authors"][arm]] * 2, color="black", lw=1.5, ls="--", label=label
            )
    axes.set_xticks(range(len(claims)), labels)
    axes.set_ylabel("neural sampling error (nats per step)")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("D  fixed policies, at the end of collection", loc="left", fontsize=10)
