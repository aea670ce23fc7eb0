"""What a command costs before it does anything: ``python -m benchmarks.startup``.

Processor seconds of fresh processes, user and system together, medians over turns; Python alone takes its turns too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from benchmarks.rows import machine, median, table

AIMS: dict[str, float] = {"import rheostat": 0.3, "rheostat --help": 0.5, "rheostat list": 0.5, "rheostat show ppo": 0.5}
"""Processor seconds."""
ALONE = "Python alone"
MET = {True: "yes", False: "no", None: ""}


def words(name: str) -> list[str]:
    """The command of a row."""
    if name == ALONE:
        return [sys.executable, "-c", "pass"]
    if name.startswith("import"):
        return [sys.executable, "-c", name]
    return [sys.executable, "-m", "rheostat", *name.split()[1:]]


def cost(name: str) -> float:
    """Processor seconds of one process.

    Raises:
        RuntimeError: the command failed.
    """
    process = subprocess.Popen(words(name), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{name} failed: {said.strip()[-300:]}")
    return used.ru_utime + used.ru_stime


def measure(turns: int) -> list[dict[str, Any]]:
    """A row per command."""
    found: dict[str, list[float]] = {name: [] for name in (ALONE, *AIMS)}
    for _ in range(turns):
        for name, costs in found.items():
            costs.append(cost(name))
    rows = [{"command": name, "processor_seconds": round(median(costs), 3), "aim": AIMS.get(name)} for name, costs in found.items()]
    return [row | ({} if row["aim"] is None else {"met": row["processor_seconds"] <= row["aim"]}) for row in rows]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--turns", type=int, default=5, help="processes of every command")
    options = parser.parse_args()
    rows = measure(options.turns)
    if options.json:
        print(json.dumps({"machine": machine(), "rows": rows}, indent=1))
        return
    lines = [[row["command"], f"{row['processor_seconds']:.2f}", str(row["aim"] or ""), MET[row.get("met")]] for row in rows]
    print(table(["command", "processor seconds", "aim", "met"], lines))
    print(machine())


if __name__ == "__main__":
    main()
