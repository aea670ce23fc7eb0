"""Builds the pages that are generated: one per method of the table, and their index. Nothing generated is stored.

mkdocs loads this file (``hooks`` in mkdocs.yml); the other files of this folder are its parts.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import equations
import evidence
import house
from docstrings import MethodText, cell, prose, read
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from PIL import Image

from rheostat.errors import RheostatError
from rheostat.learner.dial import Dial
from rheostat.learner.language import composition_of
from rheostat.methods.table import METHODS, Entry
from rheostat.options import field_documentation, options_of
from rheostat.training import peer_words
from rheostat.training.describe import Setting, settings_of
from rheostat.training.settings import Settings

DOMAINS = {
    "control": ("Control", "Environments of EnvPool and Gymnasium; a budget in environment steps.", "Hopper-v5"),
    "language": ("Language models", "Prompts and verifiers; a budget in updates or generated tokens.", "chain-sum"),
    "compression": ("Compression", "A trained network and its images; a budget in epochs of the search.", "digits"),
}
EXAMPLES = {"ppo": "HalfCheetah-v5", "a2c": "CartPole-v1", "ippo": "rheostat.tasks.control.games:Coordination"} | {
    "online-offline-gap": "preference-game",
    "forward-backward": "point-maze",
    "laplacian": "point-maze",
    "ospo": "city",
    "relic": "darkroom",
    "suboptimal-onpolicy-prefs": "bandit-away",
    "td-jepa": "point-maze",
}
CHECKS = {
    "vectors": "golden vectors",
    "plain": "an independent plain implementation of a whole update",
    "games": "games whose best play is known",
    "probes": "probes: environments, or language tasks of a few tokens, whose right answers are known in closed form",
    "laws": "the laws of its loss: padding, order of rows and micro-batches change nothing",
    "resume": "exact resume: killed and resumed, it ends bit for bit where it would have",
    "study": "a study of its paper's claim",
}
"""What the words of the table mean."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the methods and the claims of studies into the navigation, under the entries that hold their indices."""
    for entry in config.nav or []:
        if isinstance(entry, dict) and "Evidence" in entry:
            pages = sorted(path.name for path in (evidence.ROOT / "docs" / "claims").glob("*.md"))
            claims = {"Claims": ["claims.md", *(f"claims/{name}" for name in pages)]}
            entry["Evidence"] = [claims if each == {"Claims": "claims.md"} else each for each in entry["Evidence"]]
        if isinstance(entry, dict) and "Methods" in entry:
            domains = {
                title: [f"methods/{name}.md" for name in METHODS if METHODS[name].domain == domain]
                for domain, (title, *_) in DOMAINS.items()
            }
            entry["Methods"] = ["methods/index.md", *({title: pages} for title, pages in domains.items())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    texts = {name: read(METHODS[name].module.__doc__ or "") for name in METHODS}
    pages = {"index": index_page(texts)} | {name: method_page(name, METHODS[name], texts[name]) for name in METHODS}
    for name, text in pages.items():
        files.append(File.generated(config, f"methods/{name}.md", content=text))
    for picture in sorted(evidence.RESULTS.glob("*.png")):
        require_whole(picture)
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
    return files


def require_whole(picture: Path) -> None:
    """Refuse a picture with a chunk that does not match its checksum.

    Raises:
        RheostatError: it is damaged.
    """
    try:
        with Image.open(picture) as image:
            image.verify()
    except (OSError, SyntaxError) as error:
        raise RheostatError(f"The picture {picture} is damaged ({error}): restore it, or run the study again.") from error


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in tables and the picture of the house, and typeset formulas."""
    for mark, table in (
        ("<!-- settings -->", run_settings),
        ("<!-- dial -->", dial),
        ("<!-- extras -->", extras),
        ("<!-- mixtures -->", evidence.mixtures),
        ("<!-- words of language -->", lambda: words(peer_words.LANGUAGE, ("TRL", "verl"))),
        ("<!-- words of control -->", lambda: words(peer_words.CONTROL, ("Stable-Baselines3", "CleanRL"))),
        ("<!-- words of runs -->", lambda: words(peer_words.RUNS, peer_words.PEERS)),
        ("<!-- house -->", house.picture),
        ("<!-- rooms -->", house.table),
    ):
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return equations.in_prose(markdown)


def run_settings() -> str:
    """Every field of a run's settings that a user gives."""
    defaults = {
        item.name: item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        for item in dataclasses.fields(Settings)
    }
    rows = [
        f"| `{name}` | {value(defaults[name]) if defaults[name] not in (dataclasses.MISSING, (), {}) else ''} | {cell(prose(text))} |"
        for name, text in field_documentation(Settings).items()
        if name != "config"
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def dial() -> str:
    """The numbers of the dial."""
    rows = [f"| `dial.{each.path}` | {value(each.value)} | {cell(prose(each.documentation))} |" for each in options_of(Dial())]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def words(table: tuple[peer_words.Word, ...], peers: tuple[str, ...]) -> str:
    """What other libraries call the settings of this one."""
    rows = []
    for each in table:
        here = ", ".join(f"`{name}`" for name in each.here)
        theirs = " | ".join(", ".join(f"`{name}`" for name in each.peers.get(peer, ())) for peer in peers)
        rows.append(f"| {here} | {theirs} | {each.what}{f': {each.note}' if each.note else ''} |")
    return "\n".join([f"| here | {' | '.join(peers)} | meaning |", "|---|" + "---|" * len(peers) + "---|", *rows])


def extras() -> str:
    """The optional dependencies, from the project's file."""
    project = tomllib.loads((evidence.ROOT / "pyproject.toml").read_text())["project"]
    rows = [
        f"| `{name}` | {', '.join(f'`{cell(package)}`' for package in packages)} |"
        for name, packages in project["optional-dependencies"].items()
    ]
    return "\n".join(["| extra | packages |", "|---|---|", *rows])


# --- the index ------------------------------------------------------------------------------------------------------------------------


def index_page(texts: dict[str, MethodText]) -> str:
    """All methods, by domain."""
    parts = [
        "# Methods",
        "Every entry of the table of methods has a page here: its paper and equations, its answers to the "
        "[four questions](../four-questions.md), its settings, and what backs it. The pages are made from the code when the site is built.",
    ]
    for domain, (title, what, _) in DOMAINS.items():
        rows = [
            f"| [`{name}`]({name}.md) | {cell(entry.title)} | {paper_link(entry.paper)} | {count_text(name, entry)} |"
            for name, entry in METHODS.items()
            if entry.domain == domain
        ]
        parts += [f"## {title}", what, "\n".join(["| method | what it is | paper | golden vectors |", "|---|---|---|---:|", *rows])]
    parts.append(
        "A *golden vector* is a recorded input and output of the authors' own code, or of an independent computation from the paper's "
        "equations. The test suite compares the library with every one of them in float64, to a relative 1e-6 unless the case says "
        "otherwise; the site counts those that compute the parts a method is made of."
    )
    return "\n\n".join(parts) + "\n"


def count_text(name: str, entry: Entry) -> str:
    """How many golden vectors a method has."""
    return str(sum(len(group.names) for group in evidence.vectors(name, entry.verified)) or "–")


def paper_link(paper: str) -> str:
    """An arXiv number as a link; anything else as it is."""
    return prose(paper) if paper != "-" else "–"


# --- a method ---------------------------------------------------------------------------------------------------------------------------


def method_page(name: str, entry: Entry, text: MethodText) -> str:
    """Everything about one method."""
    parent = parent_of(name)
    settings = settings_of(name)
    sections = [
        f"# {name}",
        f"**{text.title}**",
        facts(name, entry, text, parent),
        f"```sh\n{command(name, entry)}\n```",
        *(f"## {heading_of(block)}\n\n{equations_of(block)}" for block in text.equations),
        questions(text, parent),
        f"## What differs from {text.differs_from}\n\n{linked(text.differs)}" if text.differs else "",
        "## Good to know\n\n" + "\n\n".join(map(linked, text.notes)) if text.notes else "",
        settings_section(name, settings, parent),
        presets_section(name, entry),
        "## What backs it",
        verification(name, entry, text, parent),
        claims_section(name, entry),
        source(entry),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def parent_of(name: str) -> str | None:
    """The method of its domain that this one is described against; None for that one itself."""
    parent = METHODS[name].parent
    return None if parent == name else parent


def facts(name: str, entry: Entry, text: MethodText, parent: str | None) -> str:
    """The table at the top."""
    rows = [
        ("Paper", text.paper or paper_link(entry.paper)),
        (
            "Described against",
            f"[{parent}]({parent}.md)" if parent else "nothing: the other methods of its domain are described against it",
        ),
        ("Domain", DOMAINS[entry.domain][0].lower()),
        ("Golden vectors", count_text(name, entry).replace("–", "none")),
        ("Module", f"`{entry.path.partition(':')[0]}`"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {cell(value)} |" for key, value in rows)])


def command(name: str, entry: Entry) -> str:
    """How to run it."""
    annotated = entry.domain == "language" and composition_of(entry.load()(), name).any("annotated")
    what = "--model MODEL --preferences FILE" if annotated else EXAMPLES.get(name, DOMAINS[entry.domain][2])
    return f"rheostat train {name} {what}"


def heading_of(block: str) -> str:
    """The first line of an equation block: "Equations", and what it says in brackets is left to the block."""
    return "Equations" if block.startswith("Equations") else "Equation"


def equations_of(block: str) -> str:
    """An equation block, typeset; a remark of its heading stands above it."""
    first, _, rest = block.partition("\n")
    remark = re.search(r"\((.*)\)", first)
    return (f"<p>With {equations.typeset(remark[1])}.</p>\n\n" if remark else "") + equations.block(rest)


def questions(text: MethodText, parent: str | None) -> str:
    """The answers to the four questions."""
    rest = f"Answers that are not listed here are those of [{parent}]({parent}.md)." if parent else ""
    if not text.answers:
        rest = f"It gives the answers of [{parent}]({parent}.md), except for the differences below." if parent else rest
        return f"## The four questions\n\n{rest}" if rest else ""
    rows = [f"| **{question}** | {cell(linked(answer))} |" for question, answer in text.answers]
    whole = sum(question.count("?") for question, _ in text.answers) == 4
    return "\n\n".join(
        filter(None, ["## The four questions", "\n".join(["| question | answer |", "|---|---|", *rows]), "" if whole else rest])
    )


def linked(text: str) -> str:
    """Names of other methods after "as in" and "see" become links."""
    names = "|".join(sorted(METHODS, key=len, reverse=True))
    return re.sub(rf"\b(as in|see|to) ({names})\b(?!`)", r"\1 [\2](\2.md)", text)


def settings_section(name: str, settings: list[Setting], parent: str | None) -> str:
    """What can be set; what is inherited unchanged is folded away."""
    own = [item for item in settings if parent is None or item.new or item.default != item.parent_default]
    inherited = [item for item in settings if item not in own]
    parts = [
        "## Settings",
        f"Given as options (`--{own[0].short.replace('_', '-') if own else 'seed'} ...`) or as keyword arguments of `rheostat.train`. "
        "The [settings of the run](../configuration.md) come on top.",
    ]
    if own:
        heading = (
            "| setting | default | instead of | meaning |\n|---|---|---|---|"
            if parent
            else "| setting | default | meaning |\n|---|---|---|"
        )
        parts.append("\n".join([heading, *(setting_row(item, parent) for item in own)]))
    if parent and not own:
        parts.append(f"No setting differs from those of [{parent}]({parent}.md).")
    if inherited:
        table = ["| setting | default | meaning |", "|---|---|---|", *(setting_row(item, None) for item in inherited)]
        parts.append(f'??? note "{len(inherited)} settings as in {parent}"\n\n' + "\n".join(f"    {line}" for line in table))
    if refused := refused_of(name):
        reasons = "\n".join(f"- `dial.{field}`: {prose(reason)}" for field, reason in refused.items())
        parts.append(f"Of [the dial](../configuration.md#the-dial) it refuses\n\n{reasons}")
    return "\n\n".join(parts)


def refused_of(name: str) -> dict[str, str]:
    """What of the dial a method refuses, and why."""
    cls = METHODS[name].load()
    found: dict[str, str] = {}
    for part in cls().compose().parts().values():
        found |= getattr(part, "refuses", {})
    return found


def setting_row(item: Setting, parent: str | None) -> str:
    """One setting."""
    before = f" {'new' if item.new else value(item.parent_default)} |" if parent else ""
    names = f"`{item.name}`" if item.short == item.name else f"`{item.short}`, `{item.name}`"
    return f"| {names} | {value(item.default)} |{before} {cell(prose(item.documentation))} |"


def value(default: Any) -> str:
    """A default, as one would write it."""
    if isinstance(default, Dial):
        return "[the dial](../configuration.md#the-dial)"
    if isinstance(default, tuple):
        return f"`{' '.join(map(str, default))}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def presets_section(name: str, entry: Entry) -> str:
    """Named configurations, one column each."""
    presets: dict[str, dict[str, Any]] = getattr(entry.load(), "presets", {})
    if not presets:
        return ""
    rows = dict.fromkeys(key for values in presets.values() for key in values)
    lines = [
        "| setting | " + " | ".join(f"`{preset}`" for preset in presets) + " |",
        "|---|" + "---|" * len(presets),
        *(f"| `{row}` | " + " | ".join(value(values[row]) if row in values else "" for values in presets.values()) + " |" for row in rows),
    ]
    tiny = " `tiny` is taken by itself where the model is one of the tiny base models." if "tiny" in presets else ""
    return f"## Presets\n\nChosen with `--preset NAME`; options given besides override it.{tiny}\n\n" + "\n".join(lines)


def verification(name: str, entry: Entry, text: MethodText, parent: str | None) -> str:
    """What has been checked."""
    parts = ["\n".join(f"- {checked}" for checked in map(check_text, re.split(r", (?![^(]*\))", entry.verified)))]
    if text.checked:
        parts.append(f"Checked against {linked(text.checked)}")
    groups = evidence.vectors(name, entry.verified)
    if groups:
        total = sum(len(group.names) for group in groups)
        parts.append(f"**{total} golden vector{'s' if total > 1 else ''}** compute the parts that this method is made of:")
        rows = [
            f"| `{group.file}` | {len(group.names)} | {', '.join(f'{source} ({count})' for source, count in group.sources.items())} |"
            for group in groups
        ]
        parts.append("\n".join(["| file | cases | recorded from |", "|---|---:|---|", *rows]))
        names = "\n".join(f"    - `{case}`" for group in groups for case in group.names)
        parts.append(f'??? note "Their names"\n\n{names}')
        files = " ".join(f"{group.file}.json" for group in groups)
        parts.append(f"Run them in a checkout: `python -m tests.vectors {files}`.")
    else:
        shared = f" The parts it shares with [{parent}]({parent}.md) have: see there." if parent else ""
        parts.append(f"It has no golden vectors of its own.{shared}")
    return "\n\n".join(parts)


def check_text(check: str) -> str:
    """One check of the table in words; what is in brackets stays."""
    word, _, rest = check.partition(" ")
    return CHECKS.get(word, word) + (f" {rest}" if rest else "")


def claims_section(name: str, entry: Entry) -> str:
    """Studies that have tried the method."""
    found = evidence.claims(name, entry.paper)
    if not found:
        return "### Claims\n\nNo study has tried this method yet; [the claims](../claims.md) lists those that have been run."
    rows = [f"| `{slug}` | {cell(prose(str(claim.get('title') or claim['name'])))} | {verdict(claim)} |" for slug, claim in found]
    table = "\n".join(["| study | claim | verdict |", "|---|---|---|", *rows])
    intro = "Studies in which this method is one of the arms; effects with their intervals are in [the claims](../claims.md)."
    return f"### Claims\n\n{intro}\n\n{table}"


def verdict(claim: dict[str, Any]) -> str:
    """The verdict; of a pilot what it points to."""
    return f"pilot ({claim['verdict']})" if claim["pilot"] else str(claim["verdict"])


def source(entry: Entry) -> str:
    """The module itself, folded away."""
    path = entry.path.partition(":")[0].replace(".", "/") + ".py"
    lines = (evidence.ROOT / path).read_text().rstrip().splitlines()
    body = "\n".join(f"    {line}".rstrip() for line in ["```python", *lines, "```"])
    return f'## Source\n\n??? abstract "{path}, {len(lines)} lines"\n\n{body}'
