"""Several runs on the user's own files: comparisons on preferences, sweeps on prompts, from the command line, and what is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.cli.entry import parse
from rheostat.errors import RheostatError
from rheostat.experiments.manifests import read_fields
from rheostat.training.run import Run
from tests.annotated import sums
from tests.methods.test_language_methods import save

SMALL = '{"max_new_tokens": 8, "evaluation_episodes": 4, "evaluate_every": 0, "learning_rate": 1e-3}'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row | {"answer": row["chosen"]}) + "\n" for row in sums()))
    return path


def words(**options: Any) -> list[str]:
    """``--options`` of small runs."""
    shown = json.loads(SMALL) | options
    return [
        "--options",
        *(word for name, value in shown.items() for word in (name, value if isinstance(value, str) else json.dumps(value))),
    ]


def command_of(directory: Path) -> list[str]:
    """The command that continues several runs."""
    found = read_fields(directory / "compare.json", {"command": str})
    assert found is not None
    return shlex.split(found["command"])


def test_methods_are_compared_on_a_file_of_preferences(
    model: str, file: Path, tmp_path: Path, workers_here: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = f"compare dpo ipo --preferences {file.name} --seeds 1 --steps 1 --jobs 1 --json --directory {tmp_path / 'both'}"
    parse([*line.split(), *words(model=model, pairs_per_batch=4)]).run()
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == ["dpo", "ipo"]
    for name in ("dpo-s0", "ipo-s0"):
        settings = Run.load(tmp_path / "both" / name).settings
        assert settings.preferences == settings.prompts == str(file) and settings.task == "prompts"
    again = command_of(tmp_path / "both")
    assert again[:4] == ["rheostat", "compare", "dpo", "ipo"] and again[again.index("--preferences") + 1] == str(file)
    parse([*again[1:], "--json"]).run()  # what is finished is left as it is
    assert json.loads(capsys.readouterr().out) == rows


def test_how_fresh_pairs_are_is_swept_on_a_file_of_prompts(
    model: str, file: Path, tmp_path: Path, workers_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    line = (
        f"sweep online-dpo --prompts {file} --dial.refresh-every 1 0 --seeds 1 --steps 2 --jobs 1 --json --directory {tmp_path / 'sweep'}"
    )
    parse([*line.split(), *words(model=model, prompts_per_batch=4, rewards=["exact"])]).run()
    assert [row["dial.refresh_every"] for row in json.loads(capsys.readouterr().out)] == [1, 0]
    assert Run.load(tmp_path / "sweep" / "refresh_every-0-s0").settings.prompts == str(file)
    again = command_of(tmp_path / "sweep")
    assert again[:3] == ["rheostat", "sweep", "online-dpo"] and again[again.index("--prompts") + 1] == str(file)
    assert parse(again[1:]).task == ""


def test_what_is_refused_before_anything_is_spent(model: str, file: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": model, "seeds": 1, "steps": 1, "directory": tmp_path / "none"} | json.loads(SMALL)
    for sentence, methods, task, options in (
        (
            "preferences names a file to train on, and the task chain-sum another world",
            ["dpo", "ipo"],
            "chain-sum",
            {"preferences": str(file)},
        ),
        ("preferences names a file to train on, and the task", ["dpo"], ["chain-sum", "word-sums"], {"preferences": str(file)}),
        ("Say what to train on: a task, for example CartPole-v1 or chain-sum, or a file", ["dpo"], None, {}),
        ("A file of preferences holds the prompts too: leave --prompts out", ["dpo"], None, {"preferences": str(file), "prompts": model}),
        ("grpo does not learn from preferences: leave --preferences out", ["dpo", "grpo"], None, {"preferences": str(file)}),
        ("is not for control methods, of which ppo is one", ["ppo"], None, {"preferences": str(file)}),
    ):
        with pytest.raises(RheostatError, match=sentence) as error:
            rheostat.compare(methods, task, **given | options)
        assert "\n" not in str(error.value) and not (tmp_path / "none").exists()
    with pytest.raises(RheostatError, match="prompts names a file to train on, and the task chain-sum another world"):
        rheostat.sweep("grpo", "chain-sum", prompts=str(file), dial={"lag": [0, 1]}, **given)
    with pytest.raises(RheostatError, match="--options gives prompts, which the command itself takes: say it there"):
        parse(["compare", "grpo", "--options", "prompts", str(file)]).run()
