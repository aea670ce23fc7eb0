"""The table of claims: what papers say, what was found here. Made from the stored results and from nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.experiments.studies.results import read_result, result_path, studies_folder, study_names
from rheostat.reporting.study_figures import effect_text, found_text

START, END = "<!-- claims: written by `rheostat claims --write` -->", "<!-- claims: end -->"
SIGN = {"held": "held", "not held": "**not held**", "undecided": "*undecided*"}


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
    date: str
    commit: str

    def to_json(self) -> dict[str, Any]:
        """As a plain object: ``effect`` is the number, ``measure`` says of what."""
        found = asdict(self) | {"arms": list(self.arms), "interval": None if self.interval is None else list(self.interval)}
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
                    date=source["date"],
                    commit=source["commit"][:10],
                )
            )
    return found


def effect_of(row: Row) -> str:
    """The effect with its interval, as text."""
    if row.estimate is None or row.interval is None:
        return "–"
    return effect_text({"what": row.effect, "estimate": row.estimate, "low": row.interval[0], "high": row.interval[1]})


def markdown_table(found: list[Row]) -> str:
    """The claims as a Markdown table: one row per claim, short."""
    lines = ["| System | What was tried | Arms | Seeds | Effect | Verdict | Date, commit |", "|---|---|---|---:|---|---|---|"]
    last = ""
    for row in found:
        system = f"{row.system} ({row.paper})" if row.slug != last else ""
        last = row.slug
        cells = [system, row.title, ", ".join(row.arms), str(row.seeds), effect_of(row), SIGN[row.verdict], f"{row.date}, `{row.commit}`"]
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    return "\n".join(lines) + "\n"


def summary_table(found: list[Row]) -> str:
    """One row per system: its first claim, and how all of them fared."""
    lines = [
        "| System | Claim | Here | Seeds | Effect | Verdict | All claims | Date, commit |",
        "|---|---|---|---:|---|---|---|---|",
    ]
    for slug in dict.fromkeys(row.slug for row in found):
        mine = [row for row in found if row.slug == slug]
        first = mine[0]
        counts = [
            f"{sum(row.verdict == verdict for row in mine)} {verdict}" for verdict in SIGN if any(row.verdict == verdict for row in mine)
        ]
        cells = [
            f"{first.system} ({first.paper})",
            _shortened(first.claim),
            first.title,
            str(first.seeds),
            effect_of(first),
            SIGN[first.verdict],
            ", ".join(counts),
            f"{first.date}, `{first.commit}`",
        ]
        lines.append("| " + " | ".join(_cell(text) for text in cells) + " |")
    return "\n".join(lines) + "\n"


def page(found: list[Row]) -> str:
    """``docs/claims.md``: the table, and every claim with its setting, rule and numbers."""
    parts = [
        "# Claims",
        "",
        "What papers say, and what was found here at small scale. Arms, seeds, budgets and rules are declared in `studies/` before",
        'anything is run; "not held" and "undecided" are results like any other.',
        "Written by `rheostat claims --write` from `studies/results`.",
        "",
        markdown_table(found),
    ]
    for slug in dict.fromkeys(row.slug for row in found):
        result = read_result(result_path(slug))
        parts += [f"## {result['system']}", "", f"Paper: {result['paper']}. Run it again with `rheostat study {slug}`.", ""]
        for claim in result["claims"]:
            parts += [
                f"### {claim['title']}: {claim['verdict']}",
                "",
                f"- **Published.** {claim['published']}",
                f"- **Here.** {claim['setting']}",
                *map(_condition, claim["conditions"]),
                "",
            ]
        source = result["provenance"]
        parts += [
            f"{source['cells']} cells, {source['cpu_hours']} CPU hours on {source['machine']['processor']} "
            f"({source['machine']['cores']} cores), "
            f"{source['date']}, commit `{source['commit'][:10]}`.",
            "",
        ]
    return "\n".join(parts).rstrip("\n") + "\n"


def targets() -> dict[Path, str]:
    """The files that hold the claims, with what they should say.

    Raises:
        RheostatError: the README has no place for the table.
    """
    root = studies_folder().parent
    found = rows()
    readme = root / "README.md"
    texts = {root / "docs" / "claims.md": page(found)}
    if readme.exists():
        text = readme.read_text()
        if START not in text or END not in text:
            raise RheostatError(f"{readme} has no place for the claims: put the lines {START!r} and {END!r} where the table belongs.")
        before, _, rest = text.partition(START)
        _, _, after = rest.partition(END)
        texts[readme] = f"{before}{START}\n\n{summary_table(found)}\n{END}{after}"
    return texts


def stale() -> list[Path]:
    """Files whose claims are not what the results say."""
    return [path for path, text in targets().items() if not path.exists() or path.read_text() != text]


def write() -> list[Path]:
    """Bring the files up to date; returns those that changed."""
    changed = stale()
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(targets()[path])
    return changed


def _condition(condition: dict[str, Any]) -> str:
    return f"- **{condition['outcome']}**: {condition['rule']}. {_capital(found_text(condition['numbers']))}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text else ""


def _shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: text.rfind(" ", 0, most - 2)] + " …"
