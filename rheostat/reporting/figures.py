"""The figures of a report as files for papers: PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rheostat.analysis.records import find_runs, group_arms, read_records
from rheostat.experiments.studies.results import load_study
from rheostat.reporting.plots import plot_comparison, plot_run
from rheostat.reporting.report import study_result
from rheostat.reporting.study_figures import draw_into

SUFFIXES = (".png", ".svg")


def draw_figures(paths: Sequence[str | Path], page: Path) -> list[Path]:
    """Draw every run, comparison (one figure per task) and study of a report.

    Args:
        paths: as given to the report.
        page: the report; figures lie beside it and carry its name.

    Returns:
        The files.

    Raises:
        RheostatError: nothing to draw there, or a place that cannot be written.
    """
    found: list[Path] = []

    def place(name: str) -> Path:
        return page.with_name(f"{page.stem}-{name}".replace("/", "-").replace(" ", "-").replace(":", ""))

    for path in paths:
        result = study_result(path)
        if result is not None:
            for suffix in SUFFIXES:
                found.append(draw_into(load_study(result["study"]), result, Path(f"{place(result['study'])}{suffix}")))
            continue
        records, _ = read_records(find_runs([path]))  # the page says what was left out
        for task, arms in group_arms(records).items():
            members = [record for arm in arms for record in arm.records]
            for suffix in SUFFIXES:
                target = Path(f"{place(f'{Path(path).name}-{task}')}{suffix}")
                found.append(plot_run(members[0], target) if len(members) == 1 else plot_comparison(members, target))
    return found
