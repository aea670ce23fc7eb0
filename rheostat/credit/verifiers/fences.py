"""Fenced code blocks in text that a model wrote.

They are those of CommonMark (section 4.5), with the liberties that models take: a fence may begin within a line, text may follow the fence
that closes, and a fence marked as Python begins a new block even where the one before was left open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

PYTHON, MARKDOWN = frozenset({"python", "py"}), frozenset({"markdown", "md"})
_OPENING = re.compile(r"([ \t]*)(`{3,}|~{3,})([^`]*)$")
_WITHIN_A_LINE = re.compile(r"(?<!`)(`{3,})[ \t]*(\w*)[ \t]*$")
_CODE_SPAN = re.compile(r"(?<!`)(`{3,})(?!`).+?(?<!`)\1(?!`)")


@dataclass
class Block:
    """A fenced block."""

    language: str
    """The first word of the info string in lower case, without its version (``python3.11``, ``{.python}``); empty where there is none."""
    fence: str = "```"
    indent: int = 0
    """Indentation of the fence that opens it; as much is removed from every line."""
    lines: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def content(self) -> str:
        """The text of the block."""
        text = "\n".join(line[min(self.indent, len(line) - len(line.lstrip(" \t"))) :] for line in self.lines)
        return text + "\n" if self.closed and self.lines else text

    def after_end(self, line: str) -> str | None:
        """What follows the fence that closes the block in this line; None where none does. A deeper one belongs to the content."""
        bare = line.lstrip(" \t")
        width = len(bare) - len(bare.lstrip(self.fence[0]))
        return bare[width:] if width >= len(self.fence) and len(line) - len(bare) <= self.indent + 3 else None


def fenced_blocks(text: str) -> list[Block]:
    """The blocks of a text in order; the last one may have no end."""
    blocks: list[Block] = []
    opened: Block | None = None
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if opened is not None:
            rest = opened.after_end(line)
            if rest is None:
                opened.lines.append(line)
                continue
            opened.closed = True
            if _language(rest) not in PYTHON:
                line = rest
        opened = _opened_in(line)
        if opened is not None:
            blocks.append(opened)
    return blocks


def _opened_in(line: str) -> Block | None:
    """The block whose fence this line ends with."""
    line = _CODE_SPAN.sub("", line)
    if found := _OPENING.match(line):
        return Block(_language(found[3]), found[2], len(found[1]))
    if found := _WITHIN_A_LINE.search(line):
        return Block(_language(found[2]), found[1])
    return None


def _language(info: str) -> str:
    found = re.match(r"[{.\s]*([A-Za-z+#]*)", info)
    return found[1].lower() if found else ""


def program_in(completion: str) -> str:
    """The program in a completion: its last block of Python; its last block without a language where none is marked as Python; its last
    block where all are of other languages; all of it where there is none. Blocks inside a block of Markdown count."""
    text = completion
    while blocks := fenced_blocks(text):
        marked = [block for block in blocks if block.language in PYTHON | MARKDOWN]
        chosen = (marked or [block for block in blocks if not block.language] or blocks)[-1]
        text = chosen.content
        if chosen.language not in MARKDOWN and not _OPENING.match(text.lstrip().split("\n")[0]):  # no program begins with a fence
            break
    return text
