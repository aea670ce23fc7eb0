"""The tree of a prompt's completions: its parts, what they are worth, and what is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rheostat.reporting.completion_tree import drawing, most_telling, shared_share, tree_of
from rheostat.reporting.rollouts import rollouts_section
from rheostat.training.rollout_files import keep_rollouts


def row(tokens: str, reward: float, advantage: float, group: int = 0) -> dict[str, Any]:
    facts = {"update": 1, "group": group, "prompt": "p", "completion": tokens, "valid": True, "parts": {}, "message": ""}
    return facts | {"reward": reward, "tokens": list(tokens), "advantage": [advantage] * len(tokens)}


@given(st.lists(st.text("ab", max_size=6), min_size=1, max_size=8))
def test_parts_are_the_common_beginnings(texts: list[str]) -> None:
    """Every completion is a line of parts; each distinct beginning stands once; siblings begin differently."""
    tree = tree_of(texts)
    parts = tree.all()
    for index, text in enumerate(texts):
        assert "".join("".join(part.tokens) for part in parts if index in part.rows) == text
    assert sum(len(part.tokens) for part in parts) == len({text[:end] for text in texts for end in range(1, len(text) + 1)})
    assert 0 <= shared_share(tree) <= 1 - 1 / len(texts)
    for part in parts:
        heads = [below.tokens[0] for below in part.parts if below.tokens]
        assert len(set(heads)) == len(heads) and sorted(row for below in part.parts for row in below.rows) in ([], sorted(part.rows))


def test_a_part_is_worth_what_follows_it() -> None:
    drawn = drawing([row("aab", 1.0, 2.0), row("aac", 0.0, -1.0), row("b", 0.0, -1.0)], full=2.0)
    found = {line["text"]: (line["count"], line["value"], line["advantage"], line["warmth"], line["worth"]) for line in drawn["lines"]}
    assert found["aa"] == (2, 0.5, 0.5, 0.25, 0.5) and found["aab"] == (1, 1.0, 2.0, 1.0, 1.0) and found["b"] == (1, 0.0, -1.0, -0.5, 0.0)
    assert found[""] == (3, 1 / 3, None, 0.0, 1 / 3)
    assert drawn["shared"] == 2 / 7 and drawn["longest"] == 3


def test_the_group_that_says_most_is_drawn() -> None:
    equal = [row("aaa", 1.0, 0.0), row("aab", 1.0, 0.0)]
    differ = [row("aaa", 1.0, 1.0, 1), row("aab", 0.0, -1.0, 1)]
    apart = [row("abc", 1.0, 1.0, 2), row("bbc", 0.0, -1.0, 2)]
    assert most_telling([equal, differ, apart]) is differ and most_telling([apart, equal]) is equal and most_telling([apart]) is None
    assert most_telling([[row("", 1.0, 0.0), row("", 0.0, 0.0)], [row("ab", 1.0, 0.0)]]) is None


def test_the_page_has_the_tree_and_its_text_stays_text(tmp_path: Path) -> None:
    rows = [row("<b>x", 1.0, 1.0), row("<b>y", 0.0, -1.0)]
    keep_rollouts(tmp_path, 1, rows)
    (tmp_path / "config.json").write_text("{}")
    section = rollouts_section(tmp_path)
    assert section is not None
    page = str(section.body)
    assert "Where completions part" in page and page.count('<a href="#') == page.count('class="leads-to"') == 3
    assert "1 completion, mean reward 1, advantage +1" in page and "&lt;b&gt;x" in page and "<b>x" not in page
