"""The table of claims: those of the papers, and their verdicts here. It is made from the stored results alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rheostat.analysis.format import effect_text, found_text
from rheostat.errors import RheostatError
from rheostat.experiments.studies.results import carried_over, read_result, result_path, study_names
from rheostat.experiments.studies.tuning import search_text
from rheostat.experiments.study_files import studies_folder

NO_PAPER = "none"
"""What a study of our own claims has in the place of a paper."""
START, END = "<!-- claims: written by `rheostat claims --write` -->", "<!-- claims: end -->"
SIGN = {
    "supported": "supported",
    "refuted": "**refuted**",
    "no relevant difference": "no relevant difference",
    "undecided": "*undecided*",
    "not testable here": "*not testable here*",
}


@dataclass(frozen=True)
class Row:
    """One claim of one system."""

    slug: str
    system: str
    paper: str
    claim: str
    title: str
    setting: str
    arms: tuple[str, ...]
    seeds: int
    effect: str
    estimate: float | None
    interval: tuple[float | None, float | None] | None
    verdict: str
    pilot: bool
    """Whether it is a pilot: fewer than 8 seeds, seeds of a pilot, or a result that is older than the rule."""
    margins: dict[str, float]
    conditions: tuple[str, ...]
    """Every condition and precondition, with its outcome."""
    holm_p: float | None
    """The p-value over all looks, adjusted for all claims of the study."""
    date: str
    commit: str
    carried_to: str
    """The commit that the result was carried over to by equal golden runs; empty if it was not."""
    golden: str
    """Number of equal golden runs of each method."""

    def to_json(self) -> dict[str, Any]:
        """As a plain object: ``effect`` is the number, ``measure`` its name."""
        found = asdict(self) | {
            "arms": list(self.arms),
            "conditions": list(self.conditions),
            "interval": None if self.interval is None else list(self.interval),
        }
        return found | {"effect": found.pop("estimate"), "measure": self.effect}


def rows(folder: Path | None = None) -> list[Row]:
    """All claims of all studies that have a result, by study.

    Raises:
        RheostatError: a damaged result.
    """
    found = []
    names = study_names() if folder is None else sorted(path.stem for path in folder.glob("*.json"))
    for slug in names:
        path = result_path(slug) if folder is None else folder / f"{slug}.json"
        if not path.exists():
            continue
        result = read_result(path)
        source = result["provenance"]
        carried, golden = carried_over(source)
        for claim in result["claims"]:
            effect = claim["effect"]
            found.append(
                Row(
                    slug=slug,
                    system=result["system"],
                    paper=result["paper"],
                    claim=claim["published"],
                    title=claim["title"],
                    setting=claim["setting"],
                    arms=tuple(claim["arms"]),
                    seeds=len(claim["seeds"]) if effect is None or not effect["seeds"] else effect["seeds"],
                    effect="" if effect is None else effect["what"],
                    estimate=None if effect is None else effect["estimate"],
                    interval=None if effect is None else (effect["low"], effect["high"]),
                    verdict=claim["verdict"],
                    pilot=claim["pilot"],
                    margins=claim["margins"],
                    conditions=conditions_of(claim),
                    holm_p=claim["holm_p"],
                    date=source["date"],
                    commit=source["commit"][:10],
                    carried_to=carried,
                    golden=golden,
                )
            )
    return found


def effect_of(row: Row) -> str:
    """The effect with its interval, as text."""
    if row.estimate is None or row.interval is None:
        return "–"
    return effect_text({"what": row.effect, "estimate": row.estimate, "low": row.interval[0], "high": row.interval[1]})


def conditions_of(claim: dict[str, Any]) -> tuple[str, ...]:
    """Conditions and preconditions of a stored claim as text, outcomes first."""
    before = (f"precondition {text}" for text in preconditions_of(claim))
    return (*before, *(f"{one['outcome']}: {one['rule']}" for one in claim["conditions"]))


def preconditions_of(claim: dict[str, Any]) -> list[str]:
    """Preconditions of a stored claim as text, with the pilot's measurements."""
    return [
        f"{'met' if one['passed'] else 'not met'}: {one['measures']} {one['bounds']} ({one['measured']:.3g})"
        for one in claim["preconditions"]
    ]


def verdict_of(row: Row) -> str:
    """The verdict; of a pilot only its tendency."""
    return f"pilot ({SIGN[row.verdict]})" if row.pilot else SIGN[row.verdict]


def margins_of(row: Row) -> str:
    """The declared margins as text."""
    return _margins(row.margins) or "none declared"


def _margins(margins: dict[str, float]) -> str:
    return ", ".join(f"{what} {margin:g}" for what, margin in margins.items())


def markdown_table(found: list[Row]) -> str:
    """One row per claim: what was tried and what came out; the system of a study leads to its page."""
    lines = ["| System | What was tried | Seeds | Effect | Verdict |", "|---|---|---:|---|---|"]
    last = ""
    for row in found:
        system = f"[{_cell(row.system)}](claims/{row.slug}.md)" if row.slug != last else ""
        last = row.slug
        lines.append("| " + " | ".join([system, *map(_cell, (row.title, str(row.seeds), effect_of(row), verdict_of(row)))]) + " |")
    return "\n".join(lines) + "\n"


def study_table(found: list[Row]) -> str:
    """One row per claim of a study, with all columns."""
    lines = [
        "| What was tried | Arms | Seeds | Effect | Margin | Verdict | p (Holm) | Date, commit |",
        "|---|---|---:|---|---|---|---:|---|",
    ]
    for row in found:
        holm = "–" if row.holm_p is None else f"{row.holm_p:.3g}"
        cells = [row.title, ", ".join(row.arms), str(row.seeds), effect_of(row), margins_of(row), verdict_of(row), holm, _source(row)]
        lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines) + "\n"


def summary_table(found: list[Row]) -> str:
    """One row per system: its first claim with every condition, and the verdicts of all of them."""
    lines = [
        "| System | Claim | Here | Seeds | Effect | Margin and conditions | Verdict | All claims | Date, commit |",
        "|---|---|---|---:|---|---|---|---|---|",
    ]
    for slug in dict.fromkeys(row.slug for row in found):
        mine = [row for row in found if row.slug == slug]
        first = mine[0]
        counts = [
            f"{'pilots: ' if pilot else ''}{sum((row.verdict, row.pilot) == (verdict, pilot) for row in mine)} {verdict}"
            for pilot in (False, True)
            for verdict in SIGN
            if any((row.verdict, row.pilot) == (verdict, pilot) for row in mine)
        ]
        cells = [
            f"[{first.system}](docs/claims/{slug}.md) ({'our own claims' if first.paper == NO_PAPER else first.paper})",
            _shortened(first.claim),
            first.title,
            str(first.seeds),
            effect_of(first),
            "<br>".join((f"margin: {margins_of(first)}", *first.conditions)),
            verdict_of(first),
            _joined(counts),
            _source(first),
        ]
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    return "\n".join(lines) + "\n"


def _joined(counts: list[str]) -> str:
    """Counts with the word "pilots" once, before the first of them."""
    pilots = [text.removeprefix("pilots: ") for text in counts if text.startswith("pilots: ")]
    rest = [text for text in counts if not text.startswith("pilots: ")]
    return "; ".join(filter(None, [", ".join(rest), f"pilots: {', '.join(pilots)}" if pilots else ""]))


def page(found: list[Row]) -> str:
    """``docs/claims.md``: every claim in a line."""
    head = """# Claims

What papers say, and what was found here at small scale. Arms, budgets, margins and conditions are declared in `studies/` before
anything is run, and [one rule](rule.md) says how many seeds are looked at and what follows. "Refuted" and "undecided" are
results like any other. A pilot decides nothing: it has fewer than 8 seeds, or is older than the rule; what it points to stands
in brackets. The effect is that of the condition that decides the claim, unless the study names another number. The page of a
system has all conditions with their numbers, margins, preconditions and sources.
Written by `rheostat claims --write` from `studies/results`.

"""
    return head + markdown_table(found)


def study_page(slug: str, found: list[Row]) -> str:
    """``docs/claims/SLUG.md``: every claim of a study with its setting, conditions and numbers.

    Args:
        slug: of the study.
        found: its rows.
    """
    result = read_result(result_path(slug))
    notes = ["The p-value is over all looks, adjusted by Holm for all tested claims of the study."]
    if not result["declaration"]:
        notes.append("Intervals of results that are older than the rule are percentile bootstrap intervals (too narrow).")
    if any(row.carried_to for row in found):
        notes.append(
            "A result that is carried over was computed by older code; in brackets stands how many equal golden runs of each method"
        )
        notes.append("say that newer code computes the same.")
    rules = "[All claims](../claims.md) stand in one table, and [the rule](../rule.md) explains verdicts, margins and preconditions."
    parts = [f"# Claims: {result['system']}", "", f"{_paper(result['paper'])} {_again(slug, result)} {rules}", ""]
    parts += [study_table(found), " ".join(notes), ""]
    if "search" in result:
        parts += [search_text(result["search"]), ""]
    for claim in result["claims"]:
        parts += [
            f"## {claim['title']}",
            "",
            f"**{_capital(('pilot, ' if claim['pilot'] else '') + claim['verdict'])}.**",
            "",
            f"- **Published.** {claim['published']}",
            f"- **Here.** {claim['setting']}",
            *([f"- **Margin.** {_margins(claim['margins'])}"] if claim["margins"] else []),
            *(f"- **Precondition.** {_capital(text)}" for text in preconditions_of(claim)),
            *map(_condition, claim["conditions"]),
            "",
        ]
    source = result["provenance"]
    parts += [
        f"{source['cells']} cells, {source['cpu_hours']} CPU hours on {source['machine']['processor']} "
        f"({source['machine']['cores']} cores), "
        f"{source['date']}, commit {_commit(source['commit'][:10], *carried_over(source))}.",
    ]
    return "\n".join(parts) + "\n"


def targets() -> dict[Path, str]:
    """The files that hold the claims, with their right content; those that should not be there have none.

    Raises:
        RheostatError: the README has no place for the table.
    """
    root = studies_folder().parent
    found = rows()
    readme = root / "README.md"
    texts = dict.fromkeys((root / "docs" / "claims").glob("*.md"), "") | {root / "docs" / "claims.md": page(found)}
    for slug in dict.fromkeys(row.slug for row in found):
        texts[root / "docs" / "claims" / f"{slug}.md"] = study_page(slug, [row for row in found if row.slug == slug])
    if readme.exists():
        text = readme.read_text()
        if START not in text or END not in text:
            raise RheostatError(f"{readme} has no place for the claims: put the lines {START!r} and {END!r} where the table belongs.")
        before, _, rest = text.partition(START)
        _, _, after = rest.partition(END)
        texts[readme] = f"{before}{START}\n\n{summary_table(found)}\n{END}{after}"
    return texts


def stale() -> list[Path]:
    """Files whose claims differ from the results."""
    return [path for path, text in targets().items() if not path.exists() or path.read_text() != text]


def write() -> list[Path]:
    """Bring the files up to date; returns those that changed."""
    changed = stale()
    texts = targets()
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        if texts[path]:
            path.write_text(texts[path])
        else:
            path.unlink()
    return changed


def _again(slug: str, result: dict[str, Any]) -> str:
    """How to run a study again: the command of the result, unless it is older than the rule, whose command would do something else now."""
    if result["declaration"] is None:
        return f"Run it again with `rheostat study {slug}`."
    return f"Made by `{result['provenance']['command']}`."


def _paper(paper: str) -> str:
    """Where the claims come from, a sentence."""
    return "Our own claims, of no paper." if paper == NO_PAPER else f"Paper: {paper}."


def _source(row: Row) -> str:
    return f"{row.date}, {_commit(row.commit, row.carried_to, row.golden)}"


def _commit(commit: str, carried: str, golden: str) -> str:
    return f"`{commit}`" + (f", carried over to `{carried}` by equal golden runs ({golden})" if carried else "")


def _condition(condition: dict[str, Any]) -> str:
    return f"- **{condition['outcome']}**: {condition['rule']}. {_capital(found_text(condition['numbers']))}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text else ""


def _shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: text.rfind(" ", 0, most - 2)] + " …"
