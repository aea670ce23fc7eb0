"""What there is and how it goes: ``rheostat runs`` and ``watch``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from rheostat.errors import RheostatError
from rheostat.files import runs_folder
from rheostat.options import option
from rheostat.terminal import print_json, print_table

if TYPE_CHECKING:
    from rheostat.analysis.run_list import Listed


@dataclass
class Runs:
    """List the runs of a folder: state, progress, result with its change since the first evaluation, and age."""

    folder: Positional[Path | None] = None
    """The folder, or a comparison or sweep; by default where runs go (`runs`, or what $RHEOSTAT_RUNS says)."""
    json: bool = False
    """Print JSON, with what is wrong with damaged runs."""

    def run(self) -> None:
        from rheostat.analysis.run_list import list_runs

        folder = runs_folder() if self.folder is None else self.folder
        found = list_runs(folder)
        if self.json:
            print_json([each.to_json() for each in found])
            return
        if not found:
            print(f"There is no run in {folder}.")
            return
        now = time.time()
        columns = ["run", "state", "done", "result", "change", "age", "result is", "method", "task"]
        cells = [_cells(each, now) for each in found]
        numbers = ["done", "result", "change", "age"]
        print_table(f"Runs in {folder}", columns, cells, numbers=numbers, optional=["result is", "method", "task"], lines=False)
        for each in found:
            if each.state in ("damaged", "unknown"):
                print(f"{each.name}: {each.remark}")


def _cells(each: Listed, now: float) -> list[str]:
    from rheostat.analysis.format import format_number
    from rheostat.analysis.metrics import describe

    done = f"{each.done}/{each.total}" if each.kind == "comparison" else f"{min(1, each.done / max(1, each.total)):.0%}"
    change = "" if each.change is None else f"{'+' if each.change > 0 else ''}{format_number(each.change)}"
    result = "" if each.result is None else format_number(each.result)
    measured = "" if each.metric is None else describe(each.metric).label.lower()
    return [each.name, each.state, done, result, change, age(now - each.written), measured, each.method or "", each.task or ""]


def age(seconds: float) -> str:
    """How long ago, in its largest unit: ``40 s``, ``12 min``, ``3 h``, ``5 d``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


@dataclass
class Watch:
    """Show the curves of a run, or of a comparison, on a page that refreshes itself; only this machine can open it."""

    paths: Positional[tuple[Path, ...]]
    """Directories of runs, comparisons or sweeps."""
    port: int = option(0, at_least=0, at_most=65_535)
    """Port of the page on 127.0.0.1; 0 takes a free one."""
    every: float = option(5.0, above=0, at_most=86_400)
    """Seconds between two looks at the files."""

    def run(self) -> None:
        from rheostat.reporting.live_page import LivePage

        if not self.paths:
            raise RheostatError("Say what to watch: the directory of a run, for example `rheostat watch runs/ppo-CartPole-v1-s0`.")
        with LivePage(self.paths, port=self.port, every=self.every) as page:
            print(f"Watching at {page.address} (Ctrl-C ends it).", flush=True)
            page.serve()
