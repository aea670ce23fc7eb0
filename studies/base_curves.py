"""What base models can do before any training: pass@k of every task with headroom, beside what guessing earns.

    python -m studies.base_curves            the tables (minutes of one core, and some more for every base that is not in the cache)
    python -m studies.base_curves --seeds 4 5   the tiny bases from these further seeds of their recipes, too
    python -m studies.base_curves --json     the numbers
    python -m studies.base_curves --write    studies/results/base_curves.json, and the tables in docs/base-curves.md

A claim about reinforcement or imitation can only be seen where a base leaves room for it. Studies use the base of
one seed of its recipe; further seeds show whether an effect could rest on a lucky base. Each number is a mean over held-out prompts,
with 64 completions each at temperature 1 (16 of SmolLM2), and its 95 % interval is over prompts. Nothing is trained but the bases.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rheostat.analysis.pass_at_k import LanguageSummary
from rheostat.experiments.language_runs import evaluate_language
from rheostat.experiments.studies.sources import commit, library_versions, machine
from rheostat.json_text import signed
from rheostat.tasks.language.base_models import base_model, build_base_model
from rheostat.tasks.language.recipes import BaseRecipe
from rheostat.training.untrained import baseline

RESULT = Path(__file__).parent / "results" / "base_curves.json"
PAGE = Path(__file__).parent.parent / "docs" / "base-curves.md"
START, END = "<!-- tables: written by `python -m studies.base_curves --write` -->", "<!-- tables: end -->"
SHOWN = (1, 4, 16, 64)


@dataclass(frozen=True)
class World:
    """A task with its base."""

    task: str
    base: str
    prompts: int
    samples: int = 64


WORLDS = (
    World("chain-sum-elicit", "chain-sum-elicit", 128),
    World("chain-sum-teach", "chain-sum-teach", 128),
    World("chain-sum-interfere", "chain-sum-interfere", 128),
    World("word-sums", "smollm2-135m", 32, samples=16),
)
SMOKE = (World("chain-sum-elicit", "untrained", 4, samples=4),)


def measure(worlds: Iterable[World], seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Build what is missing and measure every base; of tiny ones also those of further seeds."""
    began = time.monotonic()
    rows = []
    for world in worlds:
        recipe = base_model(world.base)
        own = recipe.seed if isinstance(recipe, BaseRecipe) else None
        for seed in (own, *(seeds if isinstance(recipe, BaseRecipe) else ())):
            mine = replace(recipe, seed=seed) if isinstance(recipe, BaseRecipe) and seed is not None else recipe
            folder = build_base_model(mine, progress=False)
            run = baseline(str(folder), world.task, None, (), {})
            found = numbers(evaluate_language(run, world.prompts, world.samples))
            size = {"prompts": world.prompts, "samples": world.samples}
            rows.append({"task": world.task, "base": world.base, "seed": seed, **size, **found})
            run.close()
    return {
        "rows": rows,
        "provenance": {
            "command": "python -m studies.base_curves --write",
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit(),
            "seconds": round(time.monotonic() - began),
            "machine": machine(),
            "versions": library_versions(),
        },
    }


def numbers(found: LanguageSummary) -> dict[str, Any]:
    """Of one base: chance, and pass@k in all and by kind, each with its interval."""

    def curve(points: Any) -> dict[str, list[float]]:
        return {str(k): [round(x, 4) for x in (one.estimate, one.low, one.high)] for k, one in points.items() if k in SHOWN}

    return {
        "chance": found.chance,
        "pass_at": curve(found.pass_at),
        "kinds": {kind: curve(points) for kind, points in found.families.items()},
    }


def tables(found: dict[str, Any]) -> str:
    """The numbers as Markdown: one table of all prompts, one by kind of prompt."""
    head = "| task | base, seed | prompts | chance | " + " | ".join(f"pass@{k}" for k in SHOWN) + " |"
    line = "|---|---|---:|---:|" + "---:|" * len(SHOWN)
    whole = [_row(row, row["task"], row["pass_at"]) for row in found["rows"]]
    several = [row for row in found["rows"] if len(row["kinds"]) > 1]
    kinds = [_row(row, f"{row['task']}, {kind}", points) for row in several for kind, points in row["kinds"].items()]
    source = found["provenance"]
    by_kind = ["", "**By kind of prompt.**", "", head, line, *kinds] if kinds else []
    return "\n".join(
        [
            head,
            line,
            *whole,
            *by_kind,
            "",
            f"{source['seconds']} s on {source['machine']['processor']} ({source['machine']['cores']} cores), {source['date']}, commit "
            f"`{source['commit'][:10]}`.",
        ]
    )


def _row(row: dict[str, Any], label: str, points: dict[str, list[float]]) -> str:
    base = row["base"] if row["seed"] is None else f"{row['base']}, {row['seed']}"
    chance = "–" if row["chance"] is None else f"{row['chance']:.2g}"
    cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*points[str(k)]) if str(k) in points else "–" for k in SHOWN]
    return "| " + " | ".join([label.replace("|", "\\|"), base, str(row["prompts"]), chance, *cells]) + " |"


def page(found: dict[str, Any]) -> str:
    """``docs/base-curves.md`` with these tables."""
    before, _, rest = PAGE.read_text().partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{tables(found)}\n\n{END}{after}"


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(prog="python -m studies.base_curves", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    parser.add_argument("--write", action="store_true", help="write the result and the tables of docs/base-curves.md")
    parser.add_argument("--smoke", action="store_true", help="a tiny form, in seconds; proves nothing")
    parser.add_argument("--seeds", type=int, nargs="*", default=[], help="further seeds of every recipe; each builds a base")
    given = parser.parse_args()
    if given.write and given.smoke:
        parser.error("--smoke proves nothing, so it writes nothing: leave one of them out")
    found = measure(SMOKE if given.smoke else WORLDS, given.seeds)
    if given.write:
        RESULT.write_text(json.dumps(signed(found), indent=1) + "\n")
        PAGE.write_text(page(found))
    print(json.dumps(found, indent=1) if given.json else tables(found))


if __name__ == "__main__":
    main()
