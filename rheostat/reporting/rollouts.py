"""The rollouts a run kept: reading them, showing them in a terminal, and a section of the report with a heat map over tokens.

Everything a model wrote is foreign text: HTML is escaped, and control characters are made visible before they reach a terminal.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.errors import RheostatError
from rheostat.reporting.completion_tree import drawing, most_telling
from rheostat.terminal import visible
from rheostat.training.rollout_files import read_kept
from rheostat.trajectories import Source

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from rheostat.reporting.report import Section

Row = dict[str, Any]

HEATS: dict[str, tuple[str, str]] = {
    "advantage": ("Advantage", "What the update did with a token: blue made it more likely, orange less."),
    "ratio": (
        "Ratio",
        "Probability under the learner when the update began over that under the sampler; full colour at 2 and 1/2.",
    ),
    "entropy": ("Entropy", "How undecided the learner was, in nats: the deeper, the more of a choice."),
    "gap": ("Log-prob gap", "Distance between the log-probabilities of learner and sampler; full colour at the largest on this page."),
}
"""Key -> name and meaning of what a heat map shows."""
PAGE_UPDATES = 3
PAGE_ROWS = 12
"""Completions per update on the page."""
PAGE_TOKENS = 2_500
"""Tokens on the whole page: about 600 kB."""
ROW_TOKENS = 400
"""Tokens of one completion on the page."""
PROMPT_CHARACTERS = 4_000
NUMBERED_TOKENS = 120
"""Tokens of one completion whose numbers are also in a table."""


# --- reading ---------------------------------------------------------------------------------------------------------------------------


def kept_updates(run: str | Path) -> dict[int, Path]:
    """Turns of the loop whose rollouts were kept, oldest first, and their files; empty where a run kept none."""
    files = sorted((Path(run) / "rollouts").glob("update-*.jsonl.gz"))
    return {int(path.name.removeprefix("update-").removesuffix(".jsonl.gz")): path for path in files}


def read_rollouts(run: str | Path, update: int | None = None) -> tuple[int, list[Row]]:
    """The completions kept of one update.

    Args:
        run: directory of the run.
        update: which; None takes the newest.

    Returns:
        Its number, and one dict per completion: ``prompt``, ``completion``, ``reward``, ``parts``, ``valid``, ``tokens`` and numbers per
        token (``advantage``, ``sampler_logp``, ``learner_logp``, ``entropy``; None where unknown).

    Raises:
        RheostatError: no run, no rollouts, an update that was not kept, or a damaged file.
    """
    if not (Path(run) / "config.json").is_file():
        raise RheostatError(f"There is no run in {run}: it has no config.json.")
    files = kept_updates(run)
    if not files:
        raise RheostatError(f"{run} kept no rollouts: only language runs keep them, with rollouts_kept above 0.")
    chosen = max(files) if update is None else update
    if chosen not in files:
        nearest = min(files, key=lambda number: abs(number - chosen))
        raise RheostatError(f"{run} kept no rollouts of update {chosen} (old ones are thinned out): the nearest is {nearest}.")
    try:
        return chosen, read_kept(files[chosen], chosen)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise RheostatError(f"{files[chosen]} is damaged ({error}): look at another update.") from error


def heat(row: Row, name: str) -> list[float | None]:
    """Numbers per token of one of :data:`HEATS`; None where unknown."""
    tokens = len(row["tokens"])
    if name in ("advantage", "entropy"):
        return row.get(name) or [None] * tokens
    pairs = zip(row.get("learner_logp") or [None] * tokens, row.get("sampler_logp") or [None] * tokens, strict=True)
    gaps = [None if learner is None or sampler is None else learner - sampler for learner, sampler in pairs]
    if name == "gap":
        return [None if gap is None else abs(gap) for gap in gaps]
    return [None if gap is None else math.exp(min(gap, 80.0)) for gap in gaps]


def prompt_text(prompt: str | list[dict[str, str]]) -> str:
    """A prompt as text; chat messages with their roles."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{message.get('role')}: {message.get('content')}" for message in prompt)


def verdict(row: Row) -> str:
    """Reward, its parts and other facts of a completion, in one line."""
    parts = ", ".join(f"{name} {value:.4g}" for name, value in row.get("parts", {}).items())
    facts = ["invalid, masked" if not row["valid"] else f"reward {row['reward']:.4g}" + (f" ({parts})" if parts else "")]
    if row.get("source"):
        facts.append(f"by {Source(row['source']).name.lower()}")
    if row.get("truncated"):
        facts.append("cut at the length limit")
    if row["valid"] and not row["tokens"]:
        facts.append("not in the loss")
    return " · ".join(facts)


def in_groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Completions of one prompt together, in order of appearance."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    return list(groups.values())


def choose(rows: Sequence[Row], count: int, per_group: int = 4) -> list[Row]:
    """At most ``count`` completions to show: of every group up to ``per_group``, spread from its best to its worst."""
    chosen: list[Row] = []
    for group in in_groups(rows):
        ordered = sorted(group, key=lambda row: -row["reward"])
        room = min(per_group, len(ordered), count - len(chosen))
        chosen += [ordered[round(index * (len(ordered) - 1) / max(1, room - 1))] for index in range(room)]
    return chosen


def largest(rows: Sequence[Row], name: str) -> float:
    """Value at which a heat map has its full colour; noise far below what matters stays pale."""
    if name == "ratio":
        return math.log(2.0)
    sizes = [abs(value) for row in rows for value in heat(row, name) if value is not None]
    return max([*sizes, 0.05 if name == "gap" else 1e-6])


def warmth(value: float | None, name: str, full: float) -> float:
    """Colour of a number in [-1, 1]; 0 where unknown."""
    if value is None:
        return 0.0
    number = math.log(max(value, 1e-30)) if name == "ratio" else value
    return max(-1.0, min(1.0, number / full))


# --- the terminal ----------------------------------------------------------------------------------------------------------------------


def print_rollouts(run: str | Path, update: int | None = None, rows: int = 8, *, console: Console | None = None) -> None:
    """Show completions of one update, each token on a background by its advantage: green more likely, red less.

    Args:
        run: directory of the run.
        update: which; None takes the newest.
        rows: completions shown at most.
        console: where; None makes one for standard output.

    Raises:
        RheostatError: see :func:`read_rollouts`.
    """
    from rich.console import Console
    from rich.text import Text

    number, found = read_rollouts(run, update)
    console = console or Console(highlight=False)
    files = kept_updates(run)
    shown = choose(found, rows)
    console.print(Text(f"Update {number} of {run}: {len(shown)} of {len(found)} completions kept", style="bold"))
    full = largest(shown, "advantage")
    for group in in_groups(shown):
        answer = group[0].get("answer")
        console.print()
        console.print(Text.assemble(("Prompt ", "dim"), visible(prompt_text(group[0]["prompt"]))), soft_wrap=True)
        if answer is not None:
            console.print(Text.assemble(("Answer ", "dim"), visible(str(answer))), soft_wrap=True)
        for row in group:
            style = "yellow" if not row["valid"] else "green" if row["reward"] > 0 else "red"
            advantage = next((value for value in heat(row, "advantage") if value is not None), None)
            worth = "" if advantage is None else f" · advantage {advantage:+.3f}"
            console.print(Text(f"  {verdict(row)}{worth}", style=style))
            console.print(Text.assemble("    ", coloured(row, full)), soft_wrap=True)
            if row.get("message"):
                console.print(Text(f"    {visible(row['message'])}", style="yellow"), soft_wrap=True)
    others = [other for other in files if other != number]
    if others:
        console.print(Text(f"\nAlso kept: updates {shorten(others)} (--update N).", style="dim"))


def coloured(row: Row, full: float) -> Text:
    """A completion with its tokens on backgrounds by advantage; plain where no token was trained on."""
    from rich.text import Text

    if not row["tokens"]:
        return Text(visible(row["completion"]), style="dim")
    text = Text()
    for token, value in zip(row["tokens"], heat(row, "advantage"), strict=True):
        strength = warmth(value, "advantage", full)
        depth = round(40 + 110 * abs(strength))
        colour = f"#ffffff on #00{depth:02x}30" if strength > 0 else f"#ffffff on #{depth:02x}1020"
        text.append(visible(token).replace("\n", "⏎\n"), style=colour if abs(strength) > 0.01 else "")
    return text


def shorten(numbers: Sequence[int], shown: int = 12) -> str:
    """``1, 2, 3, ..., 200``."""
    if len(numbers) <= shown:
        return ", ".join(map(str, numbers))
    return ", ".join(map(str, numbers[: shown - 2])) + f", ..., {numbers[-1]}"


# --- the page --------------------------------------------------------------------------------------------------------------------------


def rollouts_section(run: str | Path) -> Section | None:
    """A section of the report: first, middle and last update kept, with a heat map over tokens; None where a run kept no rollouts.

    The heat map is plain HTML and CSS (radio buttons choose what is shown), so it works by keyboard and without scripts; the numbers behind
    the colours are also in tables. At most :data:`PAGE_TOKENS` tokens are shown, and the page states what was left out.

    A damaged file is named and left out.
    """
    import jinja2
    from markupsafe import Markup

    from rheostat.reporting.report import Section, anchor

    files = list(kept_updates(run))
    if not files:
        return None
    chosen = list(dict.fromkeys([files[-1], files[len(files) // 2], files[0]]))[:PAGE_UPDATES]
    kept: dict[int, list[Row]] = {}
    damaged: list[str] = []
    for number in chosen:
        try:
            kept[number] = read_rollouts(run, number)[1]
        except RheostatError as error:
            damaged.append(str(error))
    shown = {number: choose(rows, PAGE_ROWS) for number, rows in kept.items()}
    full = {name: largest([row for rows in shown.values() for row in rows], name) for name in HEATS}
    budget = PAGE_TOKENS
    updates = []
    for number, rows in shown.items():
        groups = []
        for group in in_groups(rows):
            completions = []
            for row in group:
                room = max(0, min(ROW_TOKENS, budget))
                budget -= min(room, len(row["tokens"]))
                completions.append(_completion(row, full, room))
            first = group[0]
            groups.append(
                {
                    "prompt": prompt_text(first["prompt"])[:PROMPT_CHARACTERS],
                    "answer": first.get("answer"),
                    "completions": completions,
                }
            )
        drawn = most_telling(in_groups(kept[number]))
        tree = (
            None
            if drawn is None
            else {"prompt": prompt_text(drawn[0]["prompt"])[:PROMPT_CHARACTERS], "drawing": drawing(drawn, full["advantage"])}
        )
        updates.append({"number": number, "groups": groups, "rows": len(rows), "of": len(kept[number]), "tree": tree})
    templates = resources.files("rheostat.reporting") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rheostat.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.get_template("rollouts.html")
    style = Markup((templates / "rollouts.css").read_text(encoding="utf-8"))
    body = template.render(
        updates=updates,
        heats=HEATS,
        full=full,
        style=style,
        anchor=anchor(f"rollouts-{run}"),
        run=str(run),
        numbered=NUMBERED_TOKENS,
        damaged=damaged,
    )
    return Section("Rollouts", Markup(body))


def _completion(row: Row, full: dict[str, float], room: int) -> dict[str, Any]:
    """Data of one completion for the template."""
    values = {name: heat(row, name) for name in HEATS}
    tokens = []
    for index, token in enumerate(row["tokens"][:room]):
        colours = "".join(f"--{name[0]}:{warmth(values[name][index], name, full[name]):.2g};" for name in HEATS)
        tokens.append(
            {
                "text": visible(token),
                "colours": colours,
                "numbers": ["–" if values[name][index] is None else f"{values[name][index]:.3g}" for name in HEATS],
            }
        )
    return {
        "verdict": verdict(row),
        "outcome": "invalid" if not row["valid"] else "right" if row["reward"] > 0 else "wrong",
        "message": visible(row.get("message", "")),
        "tokens": tokens,
        "left_out": len(row["tokens"]) - len(tokens),
        "text": visible(row["completion"][: 4 * ROW_TOKENS]),
    }
