"""The pages that people read, taken apart: fenced blocks, code inside sentences, commands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *DOCS.rglob("*.md")])
GENERATED = {"claims.md", *(path.name for path in (DOCS / "claims").glob("*.md"))}
"""Written by a command that has tests of its own."""
_FENCE = re.compile(r"^( *)(```+)(.*)$")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Fragment:
    """Code inside a sentence."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text}"


@cache
def taken_apart(page: Path) -> tuple[list[Block], list[Fragment]]:
    """Fenced blocks, and code inside sentences and tables."""
    blocks: list[Block] = []
    paragraphs: list[list[tuple[int, str]]] = []
    paragraph: list[tuple[int, str]] = []
    fence, language, start = "", "", 0
    lines: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        found = _FENCE.match(line)
        if fence:
            if found and found[2].startswith(fence) and not found[3].strip():
                blocks.append(Block(page, start, language, "\n".join(lines)))
                fence = ""
            else:
                lines.append(line)
        elif found:
            fence, start, lines, paragraph = found[2], number, [], []
            language = (re.findall(r"[\w-]+", found[3]) or [""])[0]
        else:
            if not paragraph or not line.strip() or line.lstrip().startswith(("|", "- ", "#")):
                paragraph = [(number, line)]
                paragraphs.append(paragraph)
            else:
                paragraph.append((number, line))
    assert not fence, f"{page}:{start}: a block without an end"
    return blocks, [each for lines in paragraphs for each in code_in(page, lines)]


def code_in(page: Path, lines: list[tuple[int, str]]) -> list[Fragment]:
    """The code of one paragraph, wherever its lines are broken."""
    text = "\n".join(line for _, line in lines)
    found = []
    for match in _CODE.finditer(text):
        number = lines[0][0] + text.count("\n", 0, match.start())
        found.append(Fragment(page, number, " ".join(match[1].split())))
    return found


def blocks(*languages: str) -> list[Block]:
    """Fenced blocks in some languages, of every page."""
    return [block for page in PAGES for block in taken_apart(page)[0] if block.language in languages]


def fragments() -> list[Fragment]:
    """Code inside sentences, of every page."""
    return [each for page in PAGES for each in taken_apart(page)[1]]


def commands(block: Block) -> list[str]:
    """The command lines of a shell block, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", block.text)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
