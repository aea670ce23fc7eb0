"""Which settings a run really gets: presets fill in what was not given, files are found from anywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rheostat
from rheostat.api import settings_for
from rheostat.cli import entry as cli
from rheostat.cli import training
from rheostat.errors import RheostatError
from rheostat.training.settings import configure, shown_options


def given(words: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The options that a command line hands to the Python API."""
    seen: dict[str, object] = {}
    monkeypatch.setattr(rheostat.api, "train", lambda method, task=None, **options: seen.update(options))
    monkeypatch.setattr(training, "announce", lambda run: None)
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


def flags(words: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Options that a command's help lists."""
    with pytest.raises(SystemExit):
        cli.parse(words.split())
    return set(re.findall(r"--[a-z][a-z.-]+", capsys.readouterr().out))


def test_help_lists_the_options_that_act_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    found = flags("train sft --help", capsys)
    assert {"--learning-rate", "--update.learning-rate", "--demonstrations.prompts", "--prompts-per-batch", "--experts"} <= found
    own = {flag for flag in found if "." in flag} - {"--rewards.py"}
    assert own == {"--" + each.path.replace("_", "-") for each in shown_options("sft", configure("sft", {})) if "." in each.path}
    for nothing in ("group-size", "clip", "advantage", "kl-coefficient", "entropy-coefficient", "top-k", "dial.lag", "max-invalid-share"):
        assert f"--{nothing}" not in found, nothing


def test_a_chosen_kind_brings_its_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--target" not in flags("train chord --help", capsys)
    assert {"--target", "--clip.target"} <= flags("train chord --clip searched --help", capsys)
    assert "--kl.estimator" not in flags("train rloo --help", capsys) | flags("train rloo --kl reward --help", capsys)
    assert "--kl.estimator" in flags("train rloo --kl=loss --help", capsys)
    seen = given("train chord chain-sum --clip searched --target 0.7 --mu-peak 0.3", monkeypatch)
    assert {name: seen[name] for name in ("clip.kind", "clip.target", "mu.peak")} == {
        "clip.kind": "searched",
        "clip.target": 0.7,
        "mu.peak": 0.3,
    }
    together = given("train grpo chain-sum --kl reward --advantage rloo", monkeypatch)  # each alone would be refused
    assert (
        settings_for("grpo", "chain-sum", **{name: together[name] for name in ("kl.kind", "advantage.form")}).config["kl"]["kind"]
        == "reward"
    )
    with pytest.raises(RheostatError, match=r"grpo: clip\.kind is 'sreached'; it must be one of clip, searched"):
        given("train grpo chain-sum --clip sreached", monkeypatch)
