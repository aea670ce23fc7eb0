"""CHAMP's problems as prompts: what is shown, what is left out, and the package's own count."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rheostat.cli.entry import main
from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.language import FilePrompts, champ
from rheostat.tasks.language.champ import champ_rows, rows_of
from rheostat.tasks.language.reading import read_rows


def problem(answer: str, *helps: str) -> dict[str, Any]:
    return {
        "_text": "How many?",
        "_answer": answer,
        "ch_list": list(helps),
        "category": "Sums",
        "solution": {"steps": [{"_text": "Count."}]},
    }


DATA: dict[str, Any] = {
    "problems": {"P1": problem("12", "H1", "C1"), "P2": problem("n!", "H1"), "P3": problem("-3")},
    "hints": {"H1": {"_text": "Begin with one."}},
    "concepts": {"C1": {"_text": "Sums commute."}},
}


def test_what_is_shown_and_what_is_left_out() -> None:
    names = {show: [row["source"] for row in rows_of(DATA, show)] for show in ("none", "hints", "concepts", "both")}  # type: ignore[arg-type]
    assert names == {"none": ["P1", "P2", "P3"], "hints": ["P1", "P2"], "concepts": ["P1"], "both": ["P1"]}
    assert [row["source"] for row in rows_of(DATA, numbers=True)] == ["P1", "P3"]
    (both,) = rows_of(DATA, "both")
    assert both["prompt"][0]["content"].endswith("How many?\n\nHints:\n- Begin with one.\n\nConcepts that may help:\n- Sums commute.")
    assert both["completion"] == "Count.\n\\boxed{12}" and both["hints"] == ["Begin with one."] and both["concepts"] == ["Sums commute."]
    assert "Hints" not in rows_of(DATA)[0]["prompt"][0]["content"]


def test_no_problem_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(champ, "_packaged", lambda: {"problems": {"P3": DATA["problems"]["P3"]}, "hints": {}, "concepts": {}})
    with pytest.raises(RheostatError, match="No problem of CHAMP is left: show less"):
        champ_rows("hints")


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(champ, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="CHAMP needs the package 'champ-dataset'"):
        champ_rows()


def test_options_of_other_problems_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["problems", "human-eval", "--numbers"])
    assert "show and numbers are about champ, not about human-eval" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("champ_dataset") is None, reason="the extra 'champ' is not installed")
def test_the_packages_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["problems", "champ", "--output", str(tmp_path / "c.jsonl"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == 270 and found["hints"] > 400
    rows = list(read_rows(tmp_path / "c.jsonl"))
    assert len(FilePrompts(rows, "exact-boxed").validation(10)) == 10
    assert len(champ_rows("hints")) == 245 and len(champ_rows(numbers=True)) == 79
