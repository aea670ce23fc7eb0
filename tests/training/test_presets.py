"""Which settings a run really gets: presets fill in what was not given, files are found from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

import rheostat
from rheostat.api import settings_for
from rheostat.cli import entry as cli


def given(words: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The options that a command line hands to the Python API."""
    seen: dict[str, object] = {}
    monkeypatch.setattr(rheostat.api, "train", lambda method, task=None, **options: seen.update(options))
    monkeypatch.setattr(cli, "_announce", lambda run: None)
    cli.parse(words.split()).run()
    return seen


def test_a_setting_that_is_given_beats_the_preset_even_when_it_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "update.learning_rate" not in given("train grpo chain-sum", monkeypatch)
    for name in ("--learning-rate", "--update.learning-rate"):
        assert given(f"train grpo chain-sum {name} 1e-6", monkeypatch)["update.learning_rate"] == 1e-6
    for name in ("--no-mask-truncated", "--keep.no-mask-truncated"):
        assert given(f"train dapo chain-sum {name}", monkeypatch)["keep.mask_truncated"] is False
    assert settings_for("grpo", "chain-sum").config["update"]["learning_rate"] == 2e-4
    assert settings_for("grpo", "chain-sum", learning_rate=1e-6).config["update"]["learning_rate"] == 1e-6


def test_files_are_kept_by_their_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "1=", "answer": "1"}\n')
    (tmp_path / "r.py").write_text("def f(completions, **rest):\n    return [0.0 for _ in completions]\n")
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    kept = settings_for("grpo", "prompts", prompts="p.jsonl", rewards=("r.py:f", "exact"), model="m")
    assert (kept.prompts, kept.rewards, kept.model) == (str(tmp_path / "p.jsonl"), (f"{tmp_path / 'r.py'}:f", "exact"), str(tmp_path / "m"))
    assert settings_for("grpo", "prompts", prompts="p.jsonl", model="owner/name").model == "owner/name"
