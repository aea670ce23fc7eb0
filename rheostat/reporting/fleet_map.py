"""The map of a fleet's run: where vehicles, open orders and hot spots are at some minutes of an episode that nobody has learned from."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rheostat.errors import RheostatError
from rheostat.reporting.plots import STYLE
from rheostat.reporting.report import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rheostat.collect.fleet.fleet_episodes import Minute
    from rheostat.tasks.fleet.city import City

FILE = "map.svg"
PANELS = 4
ROAD, FREE, BUSY, ORDER, MATCH, HOT = "#CFCFCF", "#0072B2", "#8A8A8A", "#D55E00", "#009E73", "#F0E442"
"""Okabe and Ito's, distinguishable with any colour vision; shapes differ too."""


def draw_map(run: Any) -> Path | None:
    """Play one episode with the run's policy and draw it beside the run; None for methods without a fleet.

    Raises:
        RheostatError: a place that cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    from rheostat.learner.fleet import FleetContext

    context = run.method.context
    if not isinstance(context, FleetContext):
        return None
    cities, minutes = context.measure("evaluation", 1)
    shown = chosen(minutes)
    city, tally = context.city, cities.tally
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.3), layout="constrained", dpi=150)
        panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
        for axes, minute in zip(panels, shown, strict=False):
            draw_minute(axes, city, minute)
        if shown:
            figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        found = f"reward {tally.reward[0]:.0f}, {tally.served[0]} of {tally.orders[0]} orders served"
        title = f"{city.name} after {context.steps:,} steps: {found}"
        figure.suptitle(title, x=0.008, ha="left", fontsize=11.5, fontweight="bold", color="#222222")
        path = Path(run.directory) / FILE
        try:
            figure.savefig(path, metadata={"Date": None, "Description": description(shown)})
        except OSError as error:
            raise RheostatError(f"Could not write the picture {path}: {error}.") from error
    return path


def chosen(minutes: Sequence[Minute]) -> list[Minute]:
    """A few minutes, spread evenly over the episode."""
    places = np.unique(np.linspace(0, len(minutes) - 1, PANELS).round().astype(int))
    return [minutes[place] for place in places] if minutes else []


def draw_minute(axes: Axes, city: City, minute: Minute) -> None:
    """Roads, hot spots, open orders, vehicles, and which vehicle goes to which order."""
    roads, scene = city.roads, minute.scene
    x, y = roads.scaled
    width, height = (float(np.ptp(each)) or 1.0 for each in (roads.x, roads.y))
    scale = np.array([width, height]) / max(width, height)
    for a, b in roads.segments:
        axes.plot(x[[a, b]] * scale[0], y[[a, b]] * scale[1], color=ROAD, linewidth=0.5, zorder=1)
    hot = city.demand.hot_spots(minute.minute) * scale
    if len(hot):
        axes.scatter(hot[:, 0], hot[:, 1], s=900, color=HOT, alpha=0.35, linewidth=0, zorder=2)
        axes.scatter([], [], s=40, color=HOT, linewidth=0, label="hot spot")
    vehicles, picks = scene.vehicles[0, :, :2] * scale, scene.orders[0, :, :2] * scale
    for vehicle, order in enumerate(minute.choice[0]):
        if order >= 0:
            ends = np.stack([vehicles[vehicle], picks[order]])
            axes.plot(ends[:, 0], ends[:, 1], color=MATCH, linewidth=1.0, zorder=3)
    axes.plot([], [], color=MATCH, linewidth=1.0, label="takes the order")
    free, waiting = scene.free[0], picks[scene.open[0]]
    axes.scatter(
        vehicles[~free, 0],
        vehicles[~free, 1],
        s=16,
        marker="s",
        facecolor="white",
        edgecolor=BUSY,
        linewidth=0.9,
        label="busy vehicle",
        zorder=4,
    )
    axes.scatter(vehicles[free, 0], vehicles[free, 1], s=16, marker="s", color=FREE, linewidth=0, label="free vehicle", zorder=5)
    axes.scatter(waiting[:, 0], waiting[:, 1], s=14, marker="o", color=ORDER, linewidth=0, label="open order", zorder=6)
    axes.set_title(f"minute {minute.minute}")
    axes.set_aspect("equal")
    axes.set_xlim(-0.06, scale[0] + 0.06)
    axes.set_ylim(-0.06, scale[1] + 0.06)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def description(shown: Sequence[Minute]) -> str:
    """The picture in words."""
    parts = [
        f"minute {each.minute}: {int(each.scene.free[0].sum())} of {each.scene.free.shape[1]} vehicles free, "
        f"{int(each.scene.open[0].sum())} open orders, {int((each.choice[0] >= 0).sum())} taken"
        for each in shown
    ]
    return "; ".join(parts) if parts else "no minute with a free vehicle and an open order"


def map_section(directory: Path) -> Section | None:
    """The map of a run, in the page itself; None where there is none."""
    from markupsafe import Markup

    path = directory / FILE
    if not path.is_file():
        return None
    text = path.read_bytes()
    said = f"Vehicles and orders in an episode that was not learned from ({described(text)})."
    image = Markup('<p>{}</p><p><img style="max-width:100%" alt="{}" src="data:image/svg+xml;base64,{}"></p>')
    return Section("Map", image.format(said, said, Markup(base64.b64encode(text).decode("ascii"))))


def described(picture: bytes) -> str:
    """What the picture says about itself; empty where it says nothing."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(picture)
    except ElementTree.ParseError:
        return "the picture is damaged"
    found = next((each.text for each in root.iter() if each.tag.endswith("}description")), None)
    return found or "without a description"
