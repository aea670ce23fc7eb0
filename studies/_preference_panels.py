"""The pictures of both studies of preferences: reward or wins against KL."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def curves_of(result: dict[str, Any], claim: str) -> dict[str, Any]:
    """The curves of a claim by its name; none where it was not judged."""
    return next((each["curves"] for each in result["claims"] if each["name"] == claim), {})


def draw_bandit(result: dict[str, Any], path: Path) -> None:
    """Reward and wins against KL, on the bandit whose peak is away."""
    draw(
        path,
        "The bandit whose peak is away",
        [(curves_of(result, "on-policy"), "evaluation_return", "expected reward"), (curves_of(result, "on-policy"), "win_rate", "wins")],
    )


def draw_game(result: dict[str, Any], path: Path) -> None:
    """Gold wins and the proxy's opinion against KL."""
    curves = curves_of(result, "gap")
    panels = [
        (curves, "win_rate", "gold wins against the gold-trained policy"),
        (curves, "proxy_win_rate", "proxy's wins against the start"),
    ]
    draw(path, "The preference game", panels)


def draw(path: Path, title: str, panels: list[tuple[dict[str, Any], str, str]]) -> None:
    """Panels side by side."""
    import matplotlib
    from matplotlib.figure import Figure

    from rheostat.reporting.kl_panel import kl_panel
    from rheostat.reporting.plots import STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 4.6), layout="constrained", dpi=130)
        figure.suptitle(title, x=0.008, ha="left", fontsize=11, fontweight="bold", color="#222222")
        for axis, (curves, column, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            if curves:
                kl_panel(axis, curves, y=column, label=label)
        figure.savefig(path)
