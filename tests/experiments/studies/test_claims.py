"""The table of claims: made from results only, and known when it is stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat.cli import entry as cli
from rheostat.errors import RheostatError
from rheostat.experiments.studies import claims, results
from rheostat.experiments.studies.study import compact
from rheostat.json_text import signed

CLAIM = {
    "name": "a", "title": "Less is more", "published": "20 % less", "setting": "tiny", "rule": "r", "verdict": "supported", "seeds": [0, 1],
    "pilot": False, "margins": {"accuracy": 0.02}, "p_value": 0.01, "holm_p": 0.02,
    "preconditions": [{"name": "room", "measures": "accuracy of A", "bounds": "at most 0.9", "measured": 0.5, "seeds": [1000],
                       "passed": True}],
    "effect": {"what": "ratio: less", "estimate": 0.5, "low": 0.4, "high": 0.6, "seeds": 2},
    "conditions": [{"rule": "ratio below 1", "outcome": "supported", "numbers": {"ratio": 0.5, "low": 0.4, "high": 0.6, "p_value": 0.01}}],
    "arms": {"A": {}, "B": {}}, "metrics": {}, "curves": {},
}  # fmt: skip
RESULT = {
    "study": "toy", "system": "Toy", "paper": "arXiv 1", "form": "declared", "content": "x",
    "verdicts": {"a": "supported", "b": "undecided"}, "pilot": False, "declaration": {},
    "claims": [CLAIM, CLAIM | {"name": "b", "title": "More | less", "verdict": "undecided", "effect": None}],
    "provenance": {"date": "2026-01-01", "commit": "0123456789abcdef", "cells": 4, "cpu_hours": 0.1, "command": "c", "versions": {},
                   "machine": {"processor": "p", "cores": 2}},
}  # fmt: skip


def stored(result: dict[str, Any]) -> str:
    """A result as its file has it."""
    return compact(signed(result | {"format": results.FORMAT}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "studies" / "results").mkdir(parents=True)
    (tmp_path / "studies" / "toy.py").write_text("STUDY = None\n")
    (tmp_path / "studies" / "results" / "toy.json").write_text(stored(RESULT))
    (tmp_path / "README.md").write_text(f"# T\n\n{claims.START}\nold\n{claims.END}\n\nrest\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no column is left out
    cli.main(["claims", "--json"])
    first, second = json.loads(capsys.readouterr().out)
    assert (first["slug"], first["claim"], first["setting"], first["verdict"]) == ("toy", "20 % less", "tiny", "supported")
    assert (first["effect"], first["interval"], first["commit"], first["seeds"]) == (0.5, [0.4, 0.6], "0123456789", 2)
    assert first["measure"] == "ratio: less" and second["interval"] is None and second["verdict"] == "undecided"
    cli.main(["claims"])
    assert "Less is more" in capsys.readouterr().out


def test_written_and_stale(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["claims", "--check"])
    assert stop.value.code == 1 and "README.md" in capsys.readouterr().err
    cli.main(["claims", "--write"])
    readme, page = (home / "README.md").read_text(), (home / "docs" / "claims.md").read_text()
    assert "old" not in readme and readme.startswith("# T") and readme.endswith("rest\n")
    conditions = "margin: accuracy 0.02<br>precondition met: accuracy of A at most 0.9 (0.5)<br>supported: ratio below 1"
    first = "| [Toy](docs/claims/toy.md) (arXiv 1) | 20 % less | Less is more | 2 | ratio 0.5 [0.4, 0.6] |"
    assert f"{first} {conditions} | supported | 1 supported, 1 undecided |" in readme
    one = (home / "docs" / "claims" / "toy.md").read_text()
    assert (
        "[Toy](claims/toy.md)" in page and "More \\| less" in page and "- **supported**: ratio below 1. Ratio 0.5 [0.4, 0.6], p 0.01" in one
    )
    assert "| accuracy 0.02 | supported | 0.02 |" in one and "- **Precondition.** Met: accuracy of A at most 0.9 (0.5)" in one
    cli.main(["claims", "--check"])
    gone = home / "docs" / "claims" / "gone.md"
    gone.write_text("# of a study that is gone")
    with pytest.raises(SystemExit):
        cli.main(["claims", "--check"])
    assert "gone.md" in capsys.readouterr().err
    cli.main(["claims", "--write"])
    assert not gone.exists()
    capsys.readouterr()
    cli.main(["claims", "--write"])
    assert "up to date" in capsys.readouterr().out
    results.result_path("toy").write_text(stored(RESULT | {"system": "Toys"}))
    with pytest.raises(SystemExit):
        cli.main(["claims", "--check"])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('"estimate": 0.5', '"estimate": 0.55', "it does not match its own digest"),
        ('"supported"', '"undecided"', "it does not match its own digest"),
        ('"sha256"', '"sha"', "it has no digest of its own"),
        ('"format": 1', '"format": 2', "it does not match its own digest"),
    ],
)
@pytest.mark.parametrize("words", [[], ["--json"], ["--check"], ["--write"]])
def test_an_edited_result_is_refused(
    home: Path, words: list[str], before: str, after: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results.result_path("toy")
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(SystemExit) as stop:
        cli.main(["claims", *words])
    told = capsys.readouterr().err
    assert stop.value.code == 2 and f"toy.json is damaged ({said}): restore it, or run `rheostat study toy` again" in " ".join(told.split())
    assert "Toy" not in (home / "README.md").read_text()


def test_a_result_of_another_format_is_refused(home: Path) -> None:
    results.result_path("toy").write_text(compact(signed(RESULT | {"format": 2})))
    with pytest.raises(RheostatError, match="its format is 2, and this version reads 1"):
        claims.rows()


def test_results_from_before_the_rule_are_pilots_in_todays_words(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    new = ("pilot", "margins", "preconditions", "p_value", "holm_p")
    first = {key: value for key, value in CLAIM.items() if key not in new}
    first |= {"verdict": "held", "conditions": [CLAIM["conditions"][0] | {"outcome": "held"}]}  # type: ignore[index]
    second = first | {"name": "b", "verdict": "not held", "conditions": [CLAIM["conditions"][0] | {"outcome": "not held"}]}  # type: ignore[index]
    exact = second | {"name": "c", "seeds": [0]}
    old = {key: value for key, value in RESULT.items() if key not in ("pilot", "declaration")} | {"claims": [first, second, exact]}
    path = results.result_path("toy")
    path.write_text(stored(old))
    written = path.read_text()
    cli.main(["claims", "--write"])
    readme, page = (home / "README.md").read_text(), (home / "docs" / "claims.md").read_text()
    assert "| margin: none declared<br>supported: ratio below 1 | pilot (supported) | 1 refuted; pilots: 1 supported, 1 refuted |" in readme
    one = (home / "docs" / "claims" / "toy.md").read_text()
    assert "**Pilot, refuted.**" in one and "percentile bootstrap" in one and "held" not in one + page + readme
    assert path.read_text() == written  # results are never rewritten
    capsys.readouterr()
    cli.main(["claims"])
    assert "pilot (refuted)" in capsys.readouterr().out.replace("\n", " ")


def test_a_readme_without_a_place(home: Path) -> None:
    (home / "README.md").write_text("# T\n")
    with pytest.raises(RheostatError, match="has no place for the claims"):
        claims.targets()


def test_a_folder_without_studies_falls_back_to_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "props" in results.study_names()
