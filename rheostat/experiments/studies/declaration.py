"""The declaration of a study before its seeds are run, and its enforcement.

A study goes through three steps. The **pilot** runs a few seeds of its own (1000, 1001, ...), which enter no verdict: they show whether the
task can show the effect at all (preconditions) and the spread of results, so that margins can be chosen. The **declaration** (looks, level,
margins, preconditions, the words of every claim and the code that judges it) is stored beside the first cell of the study's own seeds; from
then on another one is refused. The **looks** are taken in their order, and none is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.analysis.verdict import RULE
from rheostat.errors import RheostatError
from rheostat.experiments.studies.jobs import Cell, Record
from rheostat.experiments.studies.judges import code_of
from rheostat.experiments.studies.rules import Condition, Seeds
from rheostat.json_text import NotJSON, signed, unsigned
from rheostat.json_text import read as read_json

if TYPE_CHECKING:
    from rheostat.experiments.studies.study import Claim, Results

PILOT_SEED = 1000
"""The first seed of pilots; those of studies lie below."""
PILOT_SEEDS = 4
FILE = "declaration.json"
HASHED = {
    "words": "its title, the published claim or its setting was worded otherwise",
    "judge": "its judge, or a precondition's measure, was other code",
}
"""Parts of a declaration of which only a hash is stored, and the meaning of a change of each."""


@dataclass(frozen=True)
class Precondition:
    """A condition without which a claim cannot be tested here: its mean over the pilot's seeds must lie within bounds."""

    name: str
    measures: str
    """Description of the measurement."""
    value: Callable[[Results], Seeds]
    """The number of every pilot seed."""
    least: float | None = None
    most: float | None = None

    @property
    def bounds(self) -> str:
        """As text."""
        parts = [f"at least {self.least:g}" if self.least is not None else "", f"at most {self.most:g}" if self.most is not None else ""]
        return " and ".join(filter(None, parts))

    def measured(self, result: Results) -> dict[str, Any]:
        """Whether it holds, as plain JSON."""
        values = self.value(result)
        mean = sum(values.values()) / len(values)
        passed = (self.least is None or mean >= self.least) and (self.most is None or mean <= self.most)
        return {
            "name": self.name,
            "measures": self.measures,
            "bounds": self.bounds,
            "measured": float(f"{mean:.6g}"),
            "seeds": sorted(values),
            "passed": passed,
        }


def measured(claims: Sequence[Claim], records: Mapping[str, Record]) -> dict[str, list[dict[str, Any]]]:
    """The preconditions of every claim on a pilot's cells, by claim."""
    return {claim.name: [one.measured(lambda cell: records[cell.key]["result"]) for one in claim.preconditions] for claim in claims}


def read_next(claims: Sequence[Claim], records: Mapping[str, Record]) -> list[Cell]:
    """The cells that preconditions read and that are not there yet: of each precondition the first, and its arm's other seeds.

    What a precondition reads shows only when it is measured, so this is asked again after these cells until nothing is missing.
    """
    found: dict[str, Cell] = {}
    for claim in claims:
        arms = [list(cells.values()) for cells in claim.arms.values()]
        for one in claim.preconditions:
            try:
                one.measured(lambda cell: _result_of(cell, records))
            except _Missing as missing:
                asked = next((cells for cells in arms if missing.cell in cells), [missing.cell])
                found |= {cell.key: cell for cell in asked if cell.key not in records}
    return list(found.values())


class _Missing(Exception):
    def __init__(self, cell: Cell) -> None:
        self.cell = cell


def _result_of(cell: Cell, records: Mapping[str, Record]) -> Any:
    if cell.key not in records:
        raise _Missing(cell)
    return records[cell.key]["result"]


def not_testable(preconditions: Sequence[Mapping[str, Any]]) -> list[Condition]:
    """Preconditions that failed, as conditions of the verdict "not testable here"."""
    return [
        Condition(
            f"precondition {one['name']}: {one['measures']} {one['bounds']}",
            "not testable here",
            {"measured": one["measured"], "pilot_seeds": len(one["seeds"])},
        )
        for one in preconditions
        if not one["passed"]
    ]


def declared(claims: Sequence[Claim]) -> dict[str, Any]:
    """The declaration before the first seed, as plain JSON."""
    return {
        "looks": list(RULE.looks),
        "alpha": RULE.alpha,
        "claims": {
            claim.name: {
                "margins": dict(claim.margins),
                "preconditions": {one.name: [one.least, one.most] for one in claim.preconditions},
                "words": digest({"title": claim.title, "published": claim.published, "setting": claim.setting}),
                "judge": code_of(claim.judge, *(one.value for one in claim.preconditions)),
            }
            for claim in claims
        },
    }


def digest(declaration: Mapping[str, Any]) -> str:
    """Hash of a declaration."""
    return hashlib.sha256(json.dumps(declaration, sort_keys=True).encode()).hexdigest()[:20]


def require_same(slug: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a changed declaration.

    Raises:
        RheostatError: looks, level, or a claim's margins, preconditions, words or judge have changed since the data were made.
    """
    if digest(before) == digest(now):
        return
    where = f"The study {slug}"
    if [before["looks"], before["alpha"]] != [now["looks"], now["alpha"]]:
        raise RheostatError(f"{where} has data made under the looks {before['looks']}, not {now['looks']}: looks are declared before.")
    for name, mine in now["claims"].items():
        held = before["claims"].get(name)
        if held is None:
            raise RheostatError(f"{where} has data that are older than its claim {name!r}: try a new claim with new seeds, in a new study.")
        for kind in ("margins", "preconditions"):
            if held[kind] != mine[kind]:
                raise RheostatError(
                    f"{where}, claim {name!r}: its {kind} were {_words(held[kind])} when the first seeds were run and are "
                    f"{_words(mine[kind])} now; they are declared before the data exist."
                )
        for kind, meaning in HASHED.items():
            if held.get(kind) != mine[kind]:
                raise RheostatError(
                    f"{where}, claim {name!r}: {meaning} when the first seeds were run; both are declared before the data exist."
                )
    gone = ", ".join(sorted(set(before["claims"]) - set(now["claims"])))
    raise RheostatError(f"{where} has data for claims that it no longer makes: {gone}; leaving claims out would be choosing among results.")


def _words(declared: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in declared.items()) or "none"


# --- the record beside the cells ---------------------------------------------------------------------------------------------------------


def read_record(folder: Path) -> dict[str, Any] | None:
    """``declaration``, ``digest`` and ``looks`` taken so far, or None before the first seed.

    Raises:
        RheostatError: the file is damaged.
    """
    path = folder / FILE
    try:
        found = unsigned(read_json(path))
        _ = found["declaration"]["claims"], found["looks"]
    except FileNotFoundError:
        return None
    except (OSError, NotJSON, KeyError, TypeError) as error:
        raise RheostatError(f"The declaration {path} is damaged ({error}): restore it, or move the cells beside it away.") from error
    return dict(found)


def keep(folder: Path, slug: str, declaration: Mapping[str, Any], look: int | None = None) -> None:
    """Store the declaration beside the first cell, or compare it with the stored one; ``look`` has been taken.

    Raises:
        RheostatError: see :func:`require_same`.
    """
    held = read_record(folder)
    looks = []
    if held is not None:
        require_same(slug, held["declaration"], declaration)
        looks = held["looks"]
    looks = sorted({*looks, *([] if look is None else [look])})
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.writing"
    temporary.write_text(json.dumps(signed({"digest": digest(declaration), "declaration": declaration, "looks": looks}), indent=1))
    os.replace(temporary, folder / FILE)


def looks_to_take(slug: str, seeds: int | None, taken: Sequence[int]) -> tuple[int, ...]:
    """The looks of one call, in order.

    Raises:
        RheostatError: ``seeds`` is no look, a look before it was not taken, or one after it was.
    """
    if seeds is None:
        return RULE.looks
    names = ", ".join(map(str, RULE.looks))
    if seeds < RULE.looks[0]:
        raise RheostatError(f"{seeds} seeds decide nothing: run them as a pilot with --pilot --seeds {seeds}, or look at {names} seeds.")
    if seeds not in RULE.looks:
        raise RheostatError(f"The study {slug} is looked at after {names} seeds, not after {seeds}.")
    skipped = [look for look in RULE.looks if look < seeds and look not in taken]
    if skipped:
        raise RheostatError(f"The study {slug} has not been looked at with {skipped[0]} seeds yet: no look is skipped, take that first.")
    later = [look for look in taken if look > seeds]
    if later:
        raise RheostatError(f"The study {slug} has been looked at with {later[-1]} seeds: going back would be choosing among results.")
    return tuple(look for look in RULE.looks if look <= seeds)
