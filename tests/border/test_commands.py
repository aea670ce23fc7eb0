"""Commands about models outside of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rheostat
from rheostat.cli.entry import main
from rheostat.policies.language.model import LanguagePolicy
from tests.border.models import SMALL


def test_any_checkpoint_can_be_exported(model: str, prompts: str, digits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = SMALL | {"steps": 3, "checkpoint_every": 2, "learning_rate": 1e-2}
    run = rheostat.train("grpo", model=model, prompts=prompts, rewards=digits, directory=tmp_path / "run", **options)
    first, last = sorted(path.name for path in (run.directory / "checkpoints").iterdir())
    for name, folder in ((first, tmp_path / "first"), (last, tmp_path / "last")):
        main(["export", str(run.directory), "--checkpoint", name, "--output", str(folder)])
    earlier, later, own = (
        LanguagePolicy.load(path).state_dict() for path in (tmp_path / "first", tmp_path / "last", run.directory / "model")
    )
    assert all(torch.equal(later[name], own[name]) for name in own) and any(not torch.equal(earlier[name], own[name]) for name in own)
    for arguments, message in (
        (["--checkpoint", "nothing"], "Unknown checkpoint of"),
        (["--adapters"], "has no adapters"),
        (["--output", str(tmp_path / "first")], "not an empty folder"),
    ):
        with pytest.raises(SystemExit):
            main(["export", str(run.directory), *arguments])
        assert message in capsys.readouterr().err


def test_a_model_is_measured_without_a_run(
    model: str, prompts: str, digits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--model", model, "--prompts", prompts, "--reward", digits, "--environment", "validation_share", "0.5"]
    main([*words, "--max-new-tokens", "12", "--samples", "2", "--threshold", "0.01", "--json"])
    found = json.loads(capsys.readouterr().out)
    estimates = {row["result"]: row["estimate"] for row in found["results"]}
    assert found["run"] == model and found["prompts"] > 3 and 0 < estimates["pass@1"] <= estimates["pass@2"] <= 1
    assert list(tmp_path.iterdir()) == []  # nothing is kept
    for arguments, message in (
        (["evaluate"], "Say what to evaluate"),
        (["evaluate", "x", "--model", model], "two things to evaluate"),
        (["evaluate", "x", "--prompts", prompts], "--prompts goes with --model"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err
