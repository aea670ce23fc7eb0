"""A run keeps which sandbox its graders had, shows it, and is not resumed with less."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rheostat
from rheostat.credit.verifiers import WeightedSum
from rheostat.credit.verifiers.sandbox.levels import Standing
from rheostat.errors import RheostatError
from rheostat.training import sandboxing
from rheostat.training.run import Run
from rheostat.training.sandboxing import keep_sandbox, sandbox_line
from rheostat.training.settings_from_options import settings_for
from tests import tiny_language

REWARD = "import os\ndef score(completions, **kw):\n    return [float(len(c) % 2) + float('HOME' in os.environ) for c in completions]\n"


class Stands:
    """A verifier at some level."""

    name = "stands"

    def __init__(self, *levels: str) -> None:
        self._levels = levels

    def standings(self) -> list[Standing]:
        return [Standing("grader", level, (), ("read",), ("fork",), {"kernel": "no Landlock"}) for level in self._levels]


def method(verifier: Any) -> Any:
    return SimpleNamespace(context=SimpleNamespace(setup=SimpleNamespace(verifier=verifier)))


def test_the_record_and_its_line(tmp_path):
    keep_sandbox(tmp_path, method(WeightedSum([Stands("kernel"), Stands("process")])))  # type: ignore[list-item]
    found = json.loads((tmp_path / "sandbox.json").read_text())
    assert found["level"] == "process" and [grader["level"] for grader in found["graders"]] == ["kernel", "process"]
    assert "process, stopped when tried: read, not stopped when tried: fork" in (sandbox_line(tmp_path) or "")


def test_nothing_is_kept_where_nothing_runs(tmp_path):
    keep_sandbox(tmp_path, SimpleNamespace())
    keep_sandbox(tmp_path, method(SimpleNamespace(name="exact")))
    assert not list(tmp_path.iterdir()) and sandbox_line(tmp_path) is None


def test_a_weaker_sandbox_is_refused_and_a_stronger_one_is_not(tmp_path):
    keep_sandbox(tmp_path, method(Stands("kernel")))
    keep_sandbox(tmp_path, method(Stands("namespaces")))
    with pytest.raises(RheostatError, match=r"level kernel, and here they have process \(kernel: no Landlock\)"):
        keep_sandbox(tmp_path, method(Stands("namespaces", "process")))


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "sandbox.json").write_text("{")
    with pytest.raises(RheostatError, match=r"sandbox.json is damaged"):
        keep_sandbox(tmp_path, method(Stands("kernel")))
    for damaged in ("{", "[]", '{"graders": 3}', '{"graders": [1]}', '{"graders": [{"stopped": 1}]}', '{"graders": [{"refused": [1]}]}'):
        (tmp_path / "sandbox.json").write_text(damaged)
        assert "sandbox.json is damaged" in (sandbox_line(tmp_path) or "")  # and a report is made all the same


@pytest.fixture
def language(tmp_path: Path) -> dict[str, Any]:
    tiny_language.model().save_pretrained(tmp_path / "model")
    tiny_language.tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{n}+1="}) + "\n" for n in range(60)))
    (tmp_path / "rewards.py").write_text(REWARD)
    return {
        "model": str(tmp_path / "model"),
        "prompts": str(tmp_path / "prompts.jsonl"),
        "rewards": (f"{tmp_path}/rewards.py:score",),
        "directory": tmp_path / "run",
        "steps": 2,
        "evaluation_episodes": 0,
        "progress": False,
        "max_new_tokens": 4,
        "prompts_per_batch": 2,
        "group_size": 2,
    }


def test_a_run_says_which_sandbox_its_own_rewards_had(language, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    run = rheostat.train("grpo", **language, sandbox="process", reward_needs=("state",))
    found = json.loads((run.directory / "sandbox.json").read_text())
    assert found["level"] == "process" and found["graders"][0]["needs"] == ["state"]
    assert "opted out of state" in (run.directory / "report.html").read_text()
    assert max(row["reward"] for row in run.metrics if "reward" in row) <= 1  # the trainer's HOME was not there


def test_resuming_with_less_is_refused(language, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sandboxing, "_standings", lambda method: [Standing("grader", "namespaces")])
        begin(language)
    with pytest.raises(RheostatError, match=r"level namespaces, and here they have process .*resume it where that works"):
        rheostat.resume(language["directory"], progress=False)


def test_a_record_that_was_removed_or_edited_opens_no_door(language):
    begin(language)
    record = language["directory"] / "sandbox.json"
    whole = record.read_text()
    for text, said in ((None, "is gone"), (whole.replace('"level": "process"', '"level": "off"'), "is not what the run wrote")):
        record.unlink() if text is None else record.write_text(text)
        with pytest.raises(RheostatError, match=rf"sandbox\.json {said}.*, so whether the sandbox here is weaker .* cannot be told"):
            rheostat.resume(language["directory"], progress=False)
    record.write_text(whole)
    assert rheostat.resume(language["directory"], progress=False).finished


def begin(language: dict[str, Any]) -> None:
    """A run whose graders have the level ``process``, before its first update."""
    options = {key: value for key, value in language.items() if key not in ("directory", "progress")}
    Run.create(language["directory"], settings_for("grpo", "prompts", **options, sandbox="process")).close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sandbox": "strongest"}, "sandbox"),
        ({"reward_needs": ("money",)}, "need of a reward function"),
        ({"reward_needs": ("network",), "sandbox": "require"}, "cannot run in a sandbox of level require"),
        ({"reward_needs": ("network",), "rewards": ()}, "name them with --reward"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(language, changes, message):
    with pytest.raises(RheostatError, match=message):
        rheostat.train("grpo", **(language | changes))
    assert not language["directory"].exists()


def test_a_run_is_looked_at_where_its_sandbox_does_not_hold(language, capsys):
    from rheostat.cli.entry import Evaluate

    run = rheostat.train("grpo", **language, sandbox="process")
    record = json.loads((run.directory / "sandbox.json").read_text())
    (run.directory / "sandbox.json").write_text(json.dumps(record | {"level": "kernel"}))
    Evaluate(run.directory, episodes=2, samples=1, sandbox="off").run()
    assert "level kernel, and here they have off (the setting gives off)" in capsys.readouterr().err
    assert rheostat.load(run.directory).settings.sandbox == "process"
