"""PROPS: does repairing the data lower its sampling error, and does learning profit?

Paper: Corrado & Hanna, "On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling", arXiv 2311.08290; its parent ROS
is Zhong et al. 2022, arXiv 2111.14552. Run it with ``python -m studies.props``; finished cells are kept, so a second call continues.
Its parts:

A   A target that does not move, where sampling error is exact: a 5x5 grid with a tabular softmax policy; and a trained CartPole network.
B   Learning TwoStep from twelve trajectories per update.
C   Learning CartPole-v1 and Hopper-v5 with equal settings in every arm.
D   A randomly initialised target that does not move on Hopper-v5, HalfCheetah-v5 and Walker2d-v5, beside the numbers in the authors' logs.

All settings and rules were fixed before any adaptive arm was run. The behaviour policies' own settings are the authors' (none was tuned
here); everything they share with the baselines is equal in all arms. Part B's reference run does not say how returns enter its
gradient: of six ways tried with on-policy data only, standardised returns summed over the trajectory come closest to its on-policy
numbers. Comparisons listed as "besides" were added after a first look and enter no verdict. What cannot be
shown at this scale: the MuJoCo returns of the paper (50 seeds, millions of steps), Humanoid, and sampling error late in training.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from studies._cells import run_cells
from studies._evidence import Condition, provenance, verdict
from studies._props_claims import SMOKE, Claim, Sizes
from studies._props_fixed import TASKS_D, cartpole, fixed_mujoco, grid
from studies._props_learning import learning, two_step

SLUG = "props"
RESULTS = Path(__file__).parent / "results"


def claims(sizes: Sizes) -> list[Claim]:
    """All claims, in the order of the parts."""
    return [
        grid(sizes),
        cartpole(sizes),
        two_step(sizes),
        *(learning(sizes, i) for i in range(sizes.tasks_c)),
        *(fixed_mujoco(sizes, task) for task in TASKS_D[: sizes.tasks_d]),
    ]


def run(sizes: Sizes, folder: Path, *, parts: str = "ABCD", jobs: int = 2, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Compute what is missing and judge: the study as plain JSON."""
    chosen = [claim for claim in claims(sizes) if claim.part in parts]
    cells = [cell for claim in chosen for arm in claim.arms.values() for cell in arm.values()]
    records = run_cells(cells, folder, jobs=jobs, say=say)
    reports = [claim.report(lambda cell: records[cell.key]["result"]) for claim in chosen]
    by_part = {part: verdict([Condition("", r["verdict"]) for r in reports if r["part"] == part]) for part in parts}
    return {
        "study": SLUG,
        "paper": "arXiv 2311.08290",
        "verdicts": by_part,
        "claims": reports,
        "provenance": provenance(shlex.join(["python", "-m", "studies.props", *sys.argv[1:]]), list(records.values())),
    }


def compact(study: dict[str, Any]) -> str:
    """Readable JSON with lists of plain values on one line."""
    text = json.dumps(study, indent=1)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda match: "[" + re.sub(r",\s+", ", ", match[1]) + "]", text) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m studies.props", description="The PROPS study; finished cells are kept.")
    parser.add_argument("--part", default="ABCD", help="parts to run, such as AB (default: all)")
    parser.add_argument("--smoke", action="store_true", help="a tiny form of everything, in seconds; proves nothing")
    parser.add_argument("--seeds", type=int, help="seeds of every part (default: 10, 300, 6 and 6)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--cells", type=Path, help="where cells are kept (default: runs/studies/props, or below $RHEOSTAT_RUNS)")
    parser.add_argument(
        "--out", type=Path, help="folder of the result and its picture (default: studies/results; smoke: that of the cells)"
    )
    options = parser.parse_args()
    sizes = SMOKE if options.smoke else Sizes()
    if options.seeds is not None:
        sizes = replace(sizes, seeds_a=options.seeds, seeds_b=options.seeds, seeds_c=options.seeds, seeds_d=options.seeds)
    if set(options.part) - set("ABCD") or not options.part:
        parser.error(f"--part {options.part}: choose letters from ABCD")
    folder = options.cells or Path(os.environ.get("RHEOSTAT_RUNS", "runs")) / "studies" / SLUG
    out = options.out or (folder if options.smoke else RESULTS)
    try:
        study = run(sizes, folder, parts=options.part, jobs=options.jobs)
    except RheostatError as error:
        sys.exit(str(error))
    from studies._props_report import draw, table

    out.mkdir(parents=True, exist_ok=True)
    (out / f"{SLUG}.json").write_text(compact(study))
    draw(study, out / f"{SLUG}.png")
    table(study)
    print(f"Written: {out / SLUG}.json and .png")


if __name__ == "__main__":
    main()
