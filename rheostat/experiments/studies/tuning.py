"""Equal tuning: the same small search for every arm of a study, on seeds of its own.

A study whose arms have one setting for all of them may only show whom that setting suits. A study with a :class:`Search` therefore has a
second form, ``SLUG-tuned``: every arm gets the value with which it ended best, of the same few values, on the same search seeds (2000,
2001, ...), which neither a pilot nor a verdict uses. The form with the published settings stays beside it. What the search cost is stored
with it, and belongs to what a method costs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.errors import RheostatError
from rheostat.experiments.studies.jobs import Cell, Record
from rheostat.json_text import NotJSON, unsigned
from rheostat.json_text import read as read_json

if TYPE_CHECKING:
    from rheostat.experiments.studies.study import Study

SEARCH_SEED = 2000
"""The first seed of searches; those of studies and pilots lie below."""
SUFFIX = "-tuned"
"""Of the name of a study's tuned form."""
LEAST, MOST = 3, 5
"""Values of a search: small enough that every arm of every study can have one."""


@dataclass(frozen=True)
class Search:
    """The search that every arm of a study gets.

    Raises:
        RheostatError: less than three or more than five different values, or no seed.
    """

    values: tuple[float, ...]
    option: str = "learning_rate"
    seeds: int = 2
    arms: tuple[str, ...] = ()
    """The arms that verdicts rest on, where others are only shown; empty means all of them."""

    def __post_init__(self) -> None:
        if not LEAST <= len(set(self.values)) == len(self.values) <= MOST:
            raise RheostatError(f"A search has {LEAST} to {MOST} different values, the same for every arm; this one has {self.values}.")
        if self.seeds < 1:
            raise RheostatError(f"A search needs at least 1 seed, not {self.seeds}.")


@dataclass(frozen=True)
class Tuned:
    """Values of one option, by task and arm; those of a search, or one value everywhere while it searches."""

    option: str = ""
    chosen: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    everywhere: float | None = None
    arms: tuple[str, ...] = ()
    """That ``everywhere`` is for; empty means all."""

    def of(self, task: str, arm: str) -> dict[str, float]:
        """The options of an arm that differ from the published ones."""
        if self.everywhere is not None:
            return {} if self.arms and arm not in self.arms else {self.option: self.everywhere}
        value = self.chosen.get(task, {}).get(arm)
        return {} if value is None else {self.option: value}

    def words(self, published: str, task: str | None = None) -> str:
        """The setting of a claim as text: ``published`` as long as nothing was searched, else every arm's value."""
        some = {task: self.chosen.get(task, {})} if task is not None else self.chosen
        values = [f"{arm} {value:g}" for arms in some.values() for arm, value in arms.items()]
        if not values:
            return published
        return f"{self.option.replace('_', ' ')} by the same search in every arm ({', '.join(values)})"


PUBLISHED = Tuned()
"""Nothing was searched: all arms as the study declares them."""


def search_cells(study: Study) -> dict[float, dict[tuple[str, str], dict[int, Cell]]]:
    """The cells of a study's search: by value, by task and arm, by seed.

    Raises:
        RheostatError: the study has no search, its sizes cannot hold one, or an arm that is to be searched is none of its trained arms.
    """
    search = of_study(study)
    found: dict[float, dict[tuple[str, str], dict[int, Cell]]] = {}
    for value in search.values:
        tuned = Tuned(search.option, everywhere=value, arms=search.arms)
        sizes = dataclasses.replace(study.sizes(seeds=search.seeds), first_seed=SEARCH_SEED, tuned=tuned)
        cells = {
            (by_seed[SEARCH_SEED].arguments["task"], arm): by_seed
            for claim in study.claims(sizes)
            for arm, by_seed in claim.arms.items()
            if claim.seeded and _is_searched(by_seed, search)
        }
        found[value] = {where: by_seed for where, by_seed in cells.items() if not search.arms or where[1] in search.arms}
    missing = [arm for arm in search.arms if arm not in {name for _, name in found[search.values[0]]}]
    if missing or not found[search.values[0]]:
        what = f" for {missing[0]}" if missing else ""
        raise RheostatError(
            f"The search of the study {study.slug} has no cells{what}: it is for arms that train a method of the table, in a study that "
            "hands `sizes.tuned` to `trained`."
        )
    return found


def _is_searched(cells: Mapping[int, Cell], search: Search) -> bool:
    return SEARCH_SEED in cells and {"method", "task", "config"} <= set(cells[SEARCH_SEED].arguments)


def of_study(study: Study) -> Search:
    """The search that a study declares.

    Raises:
        RheostatError: it has none, or its sizes have no field for what it finds.
    """
    if study.search is None:
        raise RheostatError(f"The study {study.slug} declares no search.")
    if not {"tuned", "first_seed"} <= {item.name for item in dataclasses.fields(study.full)}:
        raise RheostatError(f"The sizes of the study {study.slug} have no field tuned or first_seed, so it cannot be searched.")
    return study.search


def choices(
    search: Search, cells: Mapping[float, Mapping[tuple[str, str], Mapping[int, Cell]]], records: Mapping[str, Record]
) -> list[dict[str, Any]]:
    """What the search found for every arm, as plain JSON: the value with the best mean final performance, of equal ones the smallest."""
    rows = []
    for task, arm in cells[search.values[0]]:
        finals = {
            value: {seed: float(records[cell.key]["result"]["final"]) for seed, cell in cells[value][task, arm].items()}
            for value in sorted(search.values)
        }
        means = {value: sum(found.values()) / len(found) for value, found in finals.items()}
        best = max(means, key=lambda value: means[value])
        rows.append(
            {
                "task": task,
                "arm": arm,
                "chosen": best,
                "at_the_edge": best in (min(means), max(means)),
                "means": [[value, float(f"{mean:.6g}")] for value, mean in means.items()],
                "finals": [[value, {str(seed): final for seed, final in found.items()}] for value, found in finals.items()],
            }
        )
    return rows


def tuned_form(study: Study, found: Mapping[str, Any]) -> Study:
    """The study with what its search found (:func:`read_search`), under a name of its own."""
    chosen: dict[str, dict[str, float]] = {}
    for row in found["arms"]:
        chosen.setdefault(row["task"], {})[row["arm"]] = row["chosen"]
    tuned = Tuned(found["option"], chosen)
    return dataclasses.replace(
        study,
        slug=study.slug + SUFFIX,
        system=f"{study.system}, tuned",
        full=dataclasses.replace(study.full, tuned=tuned),
        smoke=dataclasses.replace(study.smoke, tuned=tuned),
        search=None,
        searched=summary_of(found),
    )


def summary_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a tuned study's result says of its search."""
    arms = [{key: row[key] for key in ("task", "arm", "chosen", "at_the_edge")} for row in found["arms"]]
    rest = {key: found[key] for key in ("option", "values", "seeds")}
    return rest | {"arms": arms, "cpu_hours": found["provenance"]["cpu_hours"], "commit": found["provenance"]["commit"]}


def search_text(summary: Mapping[str, Any]) -> str:
    """A search as one sentence."""
    several = len({row["task"] for row in summary["arms"]}) > 1
    names = [f"{row['arm']} on {row['task']}" if several else row["arm"] for row in summary["arms"]]
    chosen = ", ".join(
        f"{name} {row['chosen']:g}{' (at the edge)' if row['at_the_edge'] else ''}"
        for name, row in zip(names, summary["arms"], strict=True)
    )
    values = ", ".join(f"{value:g}" for value in summary["values"])
    return (
        f"Every arm had the same search: {summary['option'].replace('_', ' ')} of {values} with {len(summary['seeds'])} seeds that no "
        f"verdict uses, {summary['cpu_hours']} CPU hours in all. Chosen: {chosen}."
    )


def read_search(path: Path, slug: str) -> dict[str, Any]:
    """A stored search.

    Raises:
        RheostatError: there is none, or the file is damaged.
    """
    try:
        found = dict(unsigned(read_json(path)))
        _ = found["option"], found["values"], found["seeds"], found["provenance"]["cpu_hours"]
        for row in found["arms"]:
            _ = row["task"], row["arm"], row["chosen"], row["means"]
    except FileNotFoundError:
        raise RheostatError(f"The study {slug} has no search yet: run `rheostat study {slug} --search` first.") from None
    except (OSError, NotJSON, KeyError, TypeError) as error:
        raise RheostatError(f"The search {path} is damaged ({error}): restore it, or repeat `rheostat study {slug} --search`.") from error
    return found


def rows_of(found: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
    """A search as rows of a table: task, arm, its mean final performance with every value, what was chosen."""
    return [
        (
            row["task"],
            row["arm"],
            *(f"{mean:.3g}" for _, mean in row["means"]),
            f"{row['chosen']:g}" + (" (edge)" if row["at_the_edge"] else ""),
        )
        for row in found["arms"]
    ]
