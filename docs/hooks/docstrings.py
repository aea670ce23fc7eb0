"""A method's docstring as Markdown.

Docstrings are plain text: paragraphs; a line "Equation(s)" with an aligned, indented block under it; answers to the four questions, each
on a line of its own that may go on indented; and paragraphs that begin "What differs from NAME:" or "Checked against:".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

QUESTIONS = {
    "WHO ACTS": "WHO ACTS?",
    "KEPT": "WHAT IS KEPT?",
    "WORTH": "WHAT IS IT WORTH?",
    "MOVES": "HOW DOES THE POLICY MOVE?",
}
_ANSWER = re.compile(rf"((?:{'|'.join(QUESTIONS)})(?:, (?:{'|'.join(QUESTIONS)}))*)\s{{2,}}(.*)")
_PAPER = re.compile(r"(Papers?|Source): (.*)", re.DOTALL)
_CHECKED = re.compile(r"Checked against: (.*)", re.DOTALL)
_DIFFERS = re.compile(r"What differs from ([\w-]+)(?:'s reference)?: (.*)", re.DOTALL)
_ARXIV = re.compile(r"(?<![\w/.])(?:arXiv )?(\d{4}\.\d{5})(?!\d)")
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?([\w.]+)`")


@dataclass
class MethodText:
    """What a docstring says, by part; every part is Markdown, empty where it says nothing."""

    title: str = ""
    paper: str = ""
    equations: list[str] = field(default_factory=list)
    """Blocks of code, the first line of each its heading."""
    answers: list[tuple[str, str]] = field(default_factory=list)
    """(question, answer); one answer may be to several questions."""
    differs_from: str = ""
    differs: str = ""
    checked: str = ""
    notes: list[str] = field(default_factory=list)
    """Every other paragraph."""


def read(docstring: str) -> MethodText:
    """Take a docstring apart; nothing of it is lost."""
    found = MethodText()
    blocks = [block for block in re.split(r"\n\s*\n", docstring.strip()) if block.strip()]
    found.title = prose(blocks[0])
    for block in blocks[1:]:
        for part in _split(block.splitlines()):
            _place(found, part)
    return found


def _split(lines: list[str]) -> list[list[str]]:
    """A block's lines as parts: an equation block, each answer, and runs of ordinary lines that begin with a known phrase."""
    parts: list[list[str]] = []
    for line in lines:
        heading = line.startswith("Equation") or _ANSWER.match(line) or _CHECKED.match(line) or _DIFFERS.match(line)
        after_indented = parts and parts[-1][-1].startswith(" ") and not line.startswith(" ")
        if not parts or heading or after_indented:
            parts.append([])
        parts[-1].append(line)
    return parts


def _place(found: MethodText, part: list[str]) -> None:
    text = "\n".join(part)
    if part[0].startswith("Equation") and len(part) > 1:
        width = min(len(line) - len(line.lstrip()) for line in part[1:] if line.strip())
        found.equations.append("\n".join([part[0], *(line[width:] for line in part[1:])]))
    elif answer := _ANSWER.match(part[0]):
        questions = " ".join(QUESTIONS[name] for name in answer[1].split(", "))
        found.answers.append((questions, prose("\n".join([answer[2], *part[1:]]))))
    elif paper := _PAPER.fullmatch(text):
        found.paper = prose(paper[2])
    elif checked := _CHECKED.fullmatch(text):
        found.checked = prose(checked[1])
    elif differs := _DIFFERS.fullmatch(text):
        found.differs_from, found.differs = differs[1], sentence(prose(differs[2]))
    else:
        found.notes.append(prose(text))


def prose(text: str) -> str:
    """A paragraph as Markdown on one line: roles as code, arXiv numbers as links, characters that Markdown or HTML would take escaped."""
    text = " ".join(text.split())
    pieces = re.split(r"(``.+?``)", _ROLE.sub(lambda role: f"``{role[1].rpartition('.')[2]}``", text))
    return "".join(f"`{piece[2:-2]}`" if piece.startswith("``") else _escape(piece) for piece in pieces)


def _escape(text: str) -> str:
    text = text.replace("<", "&lt;").replace("[", r"\[").replace("||", r"\|\|")
    text = re.sub(r"(?<=\W)_|_(?=\W)", r"\_", text)
    return _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def sentence(text: str) -> str:
    """With a capital at the beginning."""
    return text[:1].upper() + text[1:]


def cell(text: str) -> str:
    """Markdown for a cell of a table."""
    return text.replace(r"\|", "|").replace("|", r"\|")
