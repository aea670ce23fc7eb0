"""Rollouts on the page and in the terminal: what is shown, that foreign text stays text, and that the size is bounded."""

from __future__ import annotations

import gzip
import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rheostat.cli import entry as cli
from rheostat.errors import RheostatError
from rheostat.reporting import rollouts
from rheostat.reporting.rollouts import choose, heat, print_rollouts, read_rollouts, rollouts_section, verdict, warmth
from rheostat.terminal import visible
from rheostat.training import rollout_files
from rheostat.training.rollout_files import keep_rollouts

EVIL = "<script>alert(1)</script>"


def row(group: int = 0, text: str = "ab", **changes: Any) -> dict[str, Any]:
    size = len(text)
    return {
        "update": 1, "group": group, "prompt": f"1+{group}=", "answer": "3", "completion": text, "reward": 1.0, "parts": {"format": 0.5},
        "valid": True, "source": 0, "truncated": False, "message": "", "tokens": list(text), "advantage": [0.5] * size,
        "sampler_logp": [-1.0] * size, "learner_logp": [-1.0 + math.log(2)] * size, "entropy": [0.25] * size,
    } | changes  # fmt: skip


def keep(run: Path, update: int, rows: list[dict[str, Any]]) -> Path:
    folder = run / "rollouts"
    folder.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text("{}")
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"update-{update:07d}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return run


class Elements(HTMLParser):
    """Names of the elements of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(str(page))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def printed(run: Path, **options: Any) -> str:
    out = io.StringIO()
    print_rollouts(run, console=Console(file=out, width=100, force_terminal=True, color_system="truecolor"), **options)
    return out.getvalue()


def test_numbers_of_a_token() -> None:
    one = row()
    assert heat(one, "ratio") == pytest.approx([2.0, 2.0]) and heat(one, "gap") == pytest.approx([math.log(2)] * 2)
    assert heat(one, "advantage") == [0.5, 0.5] and heat(one, "entropy") == [0.25, 0.25]
    expert = row(sampler_logp=[None, None])
    assert heat(expert, "ratio") == [None, None] == heat(expert, "gap")
    assert warmth(2.0, "ratio", math.log(2)) == 1.0 and warmth(0.5, "ratio", math.log(2)) == -1.0 and warmth(None, "gap", 1.0) == 0.0
    assert warmth(-3.0, "advantage", 2.0) == -1.0 and warmth(1.0, "advantage", 2.0) == 0.5


def test_the_line_about_a_completion() -> None:
    assert verdict(row()) == "reward 1 (format 0.5)"
    assert verdict(row(valid=False, tokens=[])) == "invalid, masked"
    assert verdict(row(source=3, truncated=True)) == "reward 1 (format 0.5) · by expert · cut at the length limit"
    assert verdict(row(tokens=[])).endswith("not in the loss")


def test_groups_are_shown_from_best_to_worst() -> None:
    rows = [row(group, reward=float(reward)) for group in (7, 8) for reward in (0, 2, 1, 3, 4)]
    assert [(one["group"], one["reward"]) for one in choose(rows, 6)] == [(7, 4), (7, 3), (7, 1), (7, 0), (8, 4), (8, 0)]
    assert choose(rows, 1) == [rows[4]] and choose([], 3) == []


def test_what_the_model_wrote_stays_text_on_the_page(tmp_path: Path) -> None:
    numbers = {"advantage": [1.0, None], "sampler_logp": [0.0, None], "learner_logp": [0.0, None], "entropy": [0.0, None]}
    chat = [{"role": "user", "content": EVIL}]
    evil = row(text=EVIL, prompt=chat, answer=EVIL, message=EVIL, tokens=[EVIL, '" onload="x'], parts={EVIL: 1.0}, **numbers)
    section = rollouts_section(keep(tmp_path / EVIL.replace("/", "-"), 1, [evil, row(1, EVIL, valid=False, tokens=[], advantage=[])]))
    assert section is not None
    page = Elements(section.body)
    assert "script" not in page.names and "onload" not in page.attributes
    assert page.text.count(EVIL) >= 7 and EVIL not in section.body


def test_the_page_shows_first_middle_and_last_and_is_bounded(tmp_path: Path) -> None:
    for update in range(1, 8):
        keep(tmp_path, update, [row(group, "x" * 5000) for group in range(64)])
    section = rollouts_section(tmp_path)
    assert section is not None
    page = Elements(section.body)
    assert [f"Update {number}:" in page.text for number in range(1, 8)] == [True, False, False, True, False, False, True]
    assert page.text.count("more tokens") > 0 and "… 4600 more tokens" in page.text
    assert section.body.count('style="--a') <= rollouts.PAGE_TOKENS and len(section.body) < 1_500_000
    for name in ("advantage", "ratio", "entropy", "gap"):
        assert f'value="{name}"' in section.body
    assert rollouts_section(tmp_path / "none") is None


def test_the_terminal_is_not_steered_by_the_model(tmp_path: Path) -> None:
    wild = "\x1b[2Jgone\x07\u202eback[bold]not bold[/bold]"
    text = printed(keep(tmp_path, 3, [row(text="ab", prompt=wild, completion=wild, tokens=[wild, "\r"], message=wild)]))
    assert "\x1b[2J" not in text and "\x07" not in text and "\u202e" not in text and "\r" not in text
    assert "<0x1b>[2Jgone<0x07><0x202e>back[bold]not bold[/bold]" in text
    assert visible("a\tb\nc") == "a\tb\nc"


def test_the_terminal_view(tmp_path: Path) -> None:
    keep(tmp_path, 2, [row(text="right"), row(text="wrong", reward=0.0, advantage=[-0.5] * 5), row(1, text="lost", valid=False, tokens=[])])
    keep(tmp_path, 1, [row(text="early")])
    text = printed(tmp_path)
    assert (
        "Update 2" in text
        and "advantage +0.500" in text
        and "advantage -0.500" in text
        and "invalid, masked" in text
        and "updates 1" in text
    )
    assert "\x1b[38;2;255;255;255;48;2;0;150;48m" in text and "\x1b[38;2;255;255;255;48;2;150;16;32m" in text
    assert "Update 1" in printed(tmp_path, update=1) and "lost" not in printed(tmp_path, rows=2)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path, 1, [row(), row(1)])
    cli.main(["rollouts", str(tmp_path), "--json", "--rows", "1"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["update"] == 1 and [one["completion"] for one in shown["rollouts"]] == ["ab"]
    cli.main(["rollouts", str(tmp_path)])
    assert "Prompt 1+1=" in capsys.readouterr().out


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="There is no run"):
        read_rollouts(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RheostatError, match="kept no rollouts"):
        read_rollouts(tmp_path)
    keep(tmp_path, 4, [row()])
    with pytest.raises(RheostatError, match="the nearest is 4"):
        read_rollouts(tmp_path, 9)
    path = tmp_path / "rollouts" / "update-0000004.jsonl.gz"
    for damage in (b"not gzip", path.read_bytes()[:-12], gzip.compress(b"{")):
        path.write_bytes(damage)
        with pytest.raises(RheostatError, match="is damaged"):
            read_rollouts(tmp_path)


def test_a_damaged_file_is_named_in_the_section_and_left_out(tmp_path: Path) -> None:
    for update in (1, 2, 3):
        keep(tmp_path, update, [row(text=f"text-{update}")])
    (tmp_path / "rollouts" / "update-0000003.jsonl.gz").write_bytes(b"cut")
    section = rollouts_section(tmp_path)
    assert section is not None and "update-0000003.jsonl.gz is damaged" in section.body and "Update 2:" in section.body
    for path in (tmp_path / "rollouts").iterdir():
        path.write_bytes(b"cut")
    section = rollouts_section(tmp_path)
    assert section is not None and section.body.count("is damaged") == 3


def test_kept_rollouts_are_those_of_their_update_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    for update in (1, 2):
        keep_rollouts(tmp_path, update, [row(text="a\u2028b", message="\ud800")])
    assert [(each["completion"], each["message"]) for each in read_rollouts(tmp_path, 2)[1]] == [("a\u2028b", "?")]
    first, second = (tmp_path / "rollouts" / f"update-000000{update}.jsonl.gz" for update in (1, 2))
    second.write_bytes(first.read_bytes())
    with pytest.raises(RheostatError, match="is not what the run wrote"):
        read_rollouts(tmp_path, 2)
    monkeypatch.setattr(rollout_files, "MOST_BYTES", 100)
    with pytest.raises(RheostatError, match="has more than 100 bytes"):
        read_rollouts(tmp_path, 1)
