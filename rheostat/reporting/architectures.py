"""A compressed network beside its teacher, layer by layer: a section of the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rheostat.errors import RheostatError, shown_error
from rheostat.json_text import NotJSON
from rheostat.json_text import read as read_json
from rheostat.learner.compression import TEACHER
from rheostat.tasks.compression.architecture import Architecture, Impossible, Place
from rheostat.tasks.compression.image_teachers import ARCHITECTURE

if TYPE_CHECKING:
    from rheostat.reporting.report import Section

WIDTH, HEIGHT, GAP, TEXT = 190, 20, 4, 190
"""Of the widest bar, of a bar, between two bars, and of the words beside them, in pixels."""


def architecture_section(run: str | Path) -> Section | None:
    """What a run has made of its teacher; None where it has made nothing.

    Bars are as wide as layers are, and words beside them say what they are; a table would say the same.

    Args:
        run: its directory.
    """
    from markupsafe import Markup

    from rheostat.reporting.report import Section

    folder = Path(run) / "model"
    if not (folder / TEACHER).is_file():
        return None
    try:
        before, after = (Architecture.from_json(read_json(folder / name)) for name in (TEACHER, ARCHITECTURE))
        sizes = [each.parameters for each in (before, after)]
    except (OSError, NotJSON, KeyError, TypeError, ValueError, Impossible, RheostatError) as error:
        return Section("The network before and after", f"{folder} is damaged: {shown_error(error)}.")
    widest = max(place.layer.size for each in (before, after) for place in each.places)
    pictures = [
        Markup("<figure><figcaption>{}: {:,} weights in {} layers</figcaption>{}</figure>").format(
            name, size, len(each.places), drawn(each, widest)
        )
        for name, size, each in zip(("Teacher", "Student"), sizes, (before, after), strict=True)
    ]
    said = Markup("<p>The student has one weight for every {:.3g} of its teacher.</p>").format(sizes[0] / sizes[1])
    return Section(
        "The network before and after",
        said + Markup('<div style="display:flex;flex-wrap:wrap;gap:2em">{}</div>').format(Markup().join(pictures)),
    )


def drawn(architecture: Architecture, widest: int) -> str:
    """A picture of its layers as SVG."""
    from markupsafe import Markup

    rows = []
    for index, place in enumerate(architecture.places):
        y = index * (HEIGHT + GAP)
        width = max(2, round(WIDTH * place.layer.size / widest)) if place.layer.size else 2
        opacity = 0.45 if place.in_shortcut else 1
        bar = Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="2" fill="#0072B2" fill-opacity="{}"/>')
        text = Markup('<text x="{}" y="{}" font-size="12" fill="currentColor">{}</text>')
        rows.append(bar.format(TEXT, y, width, HEIGHT, opacity) + text.format(0, y + HEIGHT - 6, words(place)))
    height = len(architecture.places) * (HEIGHT + GAP)
    picture = Markup('<svg role="img" aria-label="{}" width="{}" height="{}" viewBox="0 0 {} {}">{}</svg>')
    label = "; ".join(words(place) for place in architecture.places)
    return picture.format(label, WIDTH + TEXT, height, WIDTH + TEXT, height, Markup().join(rows))


def words(place: Place) -> str:
    """A layer in a few words."""
    layer = place.layer
    window = f" {layer.kernel} x {layer.kernel}" if layer.kernel else ""
    step = f", step {layer.stride}" if layer.stride > 1 else ""
    size = f", {layer.size}" if layer.size else ""
    where = "" if place.block < 0 else f"{'shortcut' if place.in_shortcut else 'block'} {place.block}: "
    return f"{where}{layer.kind.removesuffix('2d')}{window}{size}{step}"
