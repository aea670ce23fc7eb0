"""The picture of the estimators study: bias against deviation, stale data."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(result: dict[str, Any], path: Path) -> None:
    """Three panels: policy gradients, KL, advantages. The lower left corner is where one wants to be."""
    import matplotlib
    from matplotlib.figure import Figure

    from rheostat.reporting.plots import PALETTE, STYLE

    looks = {claim["name"]: claim["metrics"]["looks"] for claim in result["claims"]}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.5, 4.6), layout="constrained", dpi=130)
        gradients, kl, advantages = figure.subplots(1, 3)
        for row in looks["sequence weights"]["stale"]["rows"]:
            bias = row["bias"]
            y = row["variance_rescaled"] ** 0.5
            gradients.plot([bias["low"], bias["high"]], [y, y], color=PALETTE[0], lw=1.4, alpha=0.5)
            gradients.plot(bias["estimate"], y, "o", ms=4, color=PALETTE[0])
            gradients.annotate(row["name"], (bias["estimate"], y), textcoords="offset points", xytext=(4, 3), fontsize=7)
        gradients.set(xlabel="relative bias of the gradient (99 % interval)", ylabel="deviation at equal scale", yscale="log")
        gradients.set_title("Policy gradients, data four steps stale")
        for row in looks["kl values"]["lag 4"]["rows"]:
            kl.plot(abs(row["bias"]), row["deviation"], "o", ms=4, color=PALETTE[1])
            kl.annotate(
                row["name"].removeprefix("kl:"), (abs(row["bias"]), row["deviation"]), textcoords="offset points", xytext=(4, 3), fontsize=7
            )
        kl.set(xlabel="relative bias of the value", ylabel="deviation of one completion", xscale="symlog", yscale="log")
        kl.set_title("KL(learner, reference), fresh samples")
        for index, (field, label) in enumerate((("bias", "fresh"), ("stale_bias", "stale"))):
            rows = looks["advantages"]["stale"]["rows"]
            spread = {"bias": "deviation", "stale_bias": "stale_deviation"}[field]
            advantages.plot([row[field] for row in rows], [row[spread] for row in rows], "o", ms=4, color=PALETTE[index + 2], label=label)
            for row in rows if index else []:
                advantages.annotate(
                    row["name"].removeprefix("advantage:"),
                    (row[field], row[spread]),
                    textcoords="offset points",
                    xytext=(4, 3),
                    fontsize=6.5,
                )
        advantages.set(xlabel="relative bias (wrong critic)", ylabel="deviation")
        advantages.set_title("Advantages")
        advantages.legend(fontsize=7.5)
        figure.savefig(path)
