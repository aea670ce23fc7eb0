"""The microscope's tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rheostat.analysis.statistics import Interval
from rheostat.diagnostics.microscope.advantages import AdvantageRow
from rheostat.diagnostics.microscope.kl_estimators import KLRow
from rheostat.diagnostics.microscope.summary import Row
from rheostat.reporting.plots import STYLE, save_both
from rheostat.terminal import console, print_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rheostat.diagnostics.microscope.microscope_result import MicroscopeResult

COLOURS = {
    "unbiased": "#009E73",
    "biased in scale only": "#0072B2",
    "unbiased on-policy only": "#0072B2",
    "biased": "#D55E00",
    "undecided": "#8C8C8C",
}
"""Colours by verdict; Okabe and Ito's, distinguishable with any colour vision."""

NOTES = {
    "gradient": (
        "scale: projection on the exact gradient (1 is right). bias: |E g - g*| / |g*|. direction: what the best learning rate leaves of "
        "it (sine of the angle). variance: of one batch, over |g*|^2, and after rescaling to scale 1. cosine: of one batch, of the mean. "
        "gain: of a step along one batch's gradient over that along the exact one. In brackets: 99 % intervals."
    ),
    "kl": (
        "Sums over all outcomes: exact. bias: relative error of the expected value. stale: the same at samples of the reference. "
        "gradient error: |E grad - grad KL(learner, reference)| / |grad KL|; reverse: against grad KL(reference, learner)."
    ),
    "advantage": (
        "Sums over all episodes: exact. Errors are root mean squares up to a baseline, relative to the exact advantages'; the critic "
        "is the random policy's. off-policy: sampled by the behaviour policy, for the learner's advantages."
    ),
}

Columns = dict[str, Callable[[Any], str]]


def _interval(x: Interval) -> str:
    return f"{x.estimate:.3f} [{x.low:.3f}, {x.high:.3f}]"


def _percent(x: float) -> str:
    return f"{100 * x:+.2f} %" if abs(x) >= 5e-5 else "0"


def _error(x: float) -> str:
    return f"{x:.4f}" if abs(x) >= 5e-5 else "0"


GRADIENT: Columns = {
    "estimator": lambda r: r.name,
    "verdict": lambda r: r.verdict,
    "scale": lambda r: _interval(r.scale),
    "bias": lambda r: _interval(r.bias),
    "direction": lambda r: _interval(r.direction),
    "variance": lambda r: f"{r.variance:.3f}",
    "rescaled": lambda r: f"{r.variance_rescaled:.3f}" if r.scale.estimate > 0 else "-",
    "cosine": lambda r: f"{r.cosine:.2f}",
    "of mean": lambda r: f"{r.cosine_of_mean:.3f}",
    "gain": lambda r: f"{r.improvement.estimate:.2f}" if r.improvement else "-",
}
KL: Columns = {
    "estimator": lambda r: r.name,
    "what": lambda r: r.title,
    "value": lambda r: r.verdict,
    "bias": lambda r: _percent(r.bias),
    "deviation": lambda r: f"{r.deviation:.2f}",
    "stale": lambda r: _percent(r.stale_bias),
    "its gradient is that of": lambda r: r.gradient_of,
    "gradient error": lambda r: _error(r.gradient_error),
    "cosine": lambda r: f"{r.gradient_cosine:.3f}",
    "reverse": lambda r: _error(r.reverse_error),
}
ADVANTAGE: Columns = {
    "estimator": lambda r: r.name,
    "what": lambda r: r.title,
    "verdict": lambda r: r.verdict,
    "bias": lambda r: _error(r.bias),
    "deviation": lambda r: f"{r.deviation:.3f}",
    "off-policy bias": lambda r: _error(r.stale_bias),
    "off-policy deviation": lambda r: f"{r.stale_deviation:.3f}",
    "with the exact critic": lambda r: _error(r.exact_critic_bias),
}
COLUMNS: dict[str, Columns] = {"gradient": GRADIENT, "kl": KL, "advantage": ADVANTAGE}
OPTIONAL = {
    "gradient": ("bias", "gain", "rescaled", "cosine", "variance", "of mean"),
    "kl": ("bias", "deviation", "cosine", "stale", "reverse", "what"),
    "advantage": ("off-policy bias", "with the exact critic", "off-policy deviation", "what"),
}
"""Columns that may be left out on a narrow terminal, the most important first."""


def title_of(result: MicroscopeResult) -> str:
    """The setting in a line."""
    facts = result.facts
    updates = f", {facts['updates']} updates on the batch" if facts["updates"] else ""
    setting = (
        f"{facts['problem']}, {facts['outcomes']:,} outcomes; lag {facts['lag']}{updates}: KL {facts['kl_behaviour_learner']:.3f} nats, "
        f"effective sample size {facts['effective_sample_size']:.0%}"
    )
    what = {"gradient": "Policy gradients", "kl": "Estimators of the KL", "advantage": "Estimators of the advantage"}[result.kind]
    return f"{what}: {setting}"


def print_microscope(result: MicroscopeResult) -> None:
    """The table on the terminal; columns that do not fit are left out, the least important first."""
    columns, on = COLUMNS[result.kind], console()
    words = {"estimator", "verdict", "what", "value", "its gradient is that of"}
    cells = [[cell(row) for cell in columns.values()] for row in result.rows]
    print_table(title_of(result), list(columns), cells, numbers=set(columns) - words, optional=OPTIONAL[result.kind], lines=False, on=on)
    on.print(NOTES[result.kind], markup=False, highlight=False, style="dim")


def draw(result: MicroscopeResult, stem: Path) -> list[Path]:
    """The picture as PNG and SVG beside each other.

    Raises:
        RheostatError: a place that cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    every: dict[str, Callable[..., None]] = {"gradient": _gradient_panels, "kl": _kl_panels, "advantage": _advantage_panels}
    panels = every[result.kind]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 1.9 + 0.27 * len(result.rows)), layout="constrained", dpi=150)
        figure.suptitle(title_of(result), x=0.008, ha="left", fontsize=10.5, fontweight="bold", color="#222222")
        axes = cast(Any, figure.subplots(1, 3, sharey=True))
        panels(list(axes), result.rows)
        for one in axes:
            one.tick_params(axis="y", length=0)
            one.set_ylim(len(result.rows) - 0.4, -0.6)
            one.grid(axis="y", visible=False)
            for line in range(0, len(result.rows), 2):
                one.axhspan(line - 0.5, line + 0.5, color="#F6F6F6", zorder=0)
        axes[0].set_yticks(range(len(result.rows)), [row.name for row in result.rows])
        axes[0].tick_params(axis="y", labelcolor="#222222")
        present = {row.verdict for row in result.rows}
        for verdict, colour in COLOURS.items():
            if verdict in present:
                axes[0].plot([], [], "o", color=colour, markersize=4, label=verdict)
        figure.legend(loc="outside lower left", ncols=4, fontsize=8.5)
        return save_both(figure, stem)


def _points(
    axes: Axes,
    rows: Sequence[Any],
    get: Callable[[Any], Interval | float],
    title: str,
    exact: float | None = None,
    verdict: Callable[[Any], str] = lambda row: row.verdict,
) -> None:
    if exact is not None:
        axes.axvline(exact, color="#222222", linewidth=1.0, zorder=1)
    for place, row in enumerate(rows):
        found, colour = get(row), COLOURS[verdict(row)]
        if isinstance(found, Interval):
            axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2.2, alpha=0.45, solid_capstyle="butt", zorder=2)
            found = found.estimate
        axes.plot([found], [place], "o", color=colour, markersize=4.5, zorder=3)
    axes.set_title(title)


def _bars(axes: Axes, rows: Sequence[Any], get: Callable[[Any], float], title: str) -> None:
    values = [get(row) for row in rows]
    axes.barh(range(len(rows)), values, color=[COLOURS[row.verdict] for row in rows], height=0.62, alpha=0.85, zorder=2)
    axes.set_title(title)


def _gradient_panels(axes: list[Axes], rows: Sequence[Row]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    _points(axes[0], rows, lambda r: r.scale, "Scale (1 is exact)", 1.0)
    axes[0].set_xlabel("projection on the exact gradient")
    _points(axes[1], rows, lambda r: r.direction, "Bias of the direction (0 is exact)", 0.0)
    axes[1].set_xlabel("sine of the angle to the exact gradient")
    axes[1].set_xlim(-0.03, 1.03)
    _points(axes[2], rows, lambda r: r.variance_rescaled if r.scale.estimate > 0 else math.nan, "Variance of one batch at scale 1")
    axes[2].set_xscale("log")
    axes[2].xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes[2].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes[2].xaxis.set_minor_formatter(NullFormatter())
    axes[2].set_xlabel("trace of the covariance / |exact|²")


def _kl_panels(axes: list[Axes], rows: Sequence[KLRow]) -> None:
    _points(axes[0], rows, lambda r: r.bias, "Bias of the value (0 is exact)", 0.0)
    axes[0].set_xlabel("relative error of the expected value")
    right = "KL(learner, reference)"
    _points(
        axes[1],
        rows,
        lambda r: r.gradient_error,
        "Error of the gradient as a loss (0 is exact)",
        0.0,
        lambda r: "unbiased" if r.gradient_of == right else "biased",
    )
    axes[1].set_xlabel("relative to grad KL(learner, reference)")
    _bars(axes[2], rows, lambda r: r.deviation, "Deviation of one sample")
    axes[2].set_xlabel("standard deviation / KL")


def _advantage_panels(axes: list[Axes], rows: Sequence[AdvantageRow]) -> None:
    _points(axes[0], rows, lambda r: r.bias, "Bias on-policy (0 is exact)", 0.0)
    _points(axes[1], rows, lambda r: r.stale_bias, "Bias off-policy (0 is exact)", 0.0)
    _bars(axes[2], rows, lambda r: r.stale_deviation, "Deviation off-policy")
    for one in axes:
        one.set_xlabel("root mean square / exact advantages'")
