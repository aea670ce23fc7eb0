"""Adventures that TextWorld generates: what reaches the interpreter, and whole games where the package is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.language import Said, language_task
from rheostat.tasks.language.task_list import knobs_of
from rheostat.tasks.language.text_episodes import PROGRESS
from rheostat.tasks.language.text_world import Quest, command_of, without_status

REAL = pytest.mark.skipif(importlib.util.find_spec("textworld") is None, reason="the extra 'textworld' is not installed")
VERBS = ["go", "look", "take", "open", "put", "examine"]


@pytest.mark.parametrize(
    ("said", "command"),
    [
        ("go north", "go north"),
        ("Let me see.\n Take the Old-Fashioned key \n", "take the old-fashioned key"),
        ("save", None),
        ("script", None),
        ("undo", None),
        ("look. save", None),
        ("look then save", None),
        ("take key and save", None),
        ("look, save", None),
        ("go " + 200 * "n", None),
        ("open /etc/passwd", None),
        ("go \x1b[2J", None),
        ("", None),
    ],
)
def test_only_plain_commands_of_the_game_reach_the_interpreter(said: str, command: Any) -> None:
    assert command_of(said, VERBS) == command


def test_the_interpreters_status_line_is_no_text_of_the_game() -> None:
    assert without_status("\nYou take the key.\n\n\n>        -= Attic =-0/3") == "\nYou take the key.\n\n"


def test_sizes_that_make_no_game_are_refused() -> None:
    for sizes, sentence in (((0, 3, 3), "rooms .* 1 to 20; got 0"), ((2, 41, 3), "objects"), ((2, 4, 0), "quest_length")):
        with pytest.raises(RheostatError, match=sentence):
            Quest(*sizes)
    assert {"rooms", "quest_length", "list_commands", "patience"} <= set(knobs_of("textworld"))
    with pytest.raises(RheostatError, match="Unknown knob of textworld"):
        language_task("textworld", castles=3)


@pytest.mark.skipif(importlib.util.find_spec("textworld") is not None, reason="the extra 'textworld' is installed")
def test_without_the_package_it_says_so() -> None:
    with pytest.raises(MissingExtra, match="TextWorld needs the package 'textworld'"):
        language_task("textworld")


@REAL
@pytest.mark.slow
def test_the_commands_that_are_needed_win_and_add_up_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHEOSTAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    task: Any = language_task("textworld", rooms=2, objects=3, quest_length=3)
    prompt = task.prompt(7)
    assert prompt.content == language_task("textworld", rooms=2, objects=3, quest_length=3).prompt(7).content  # type: ignore[attr-defined]
    assert prompt.content.startswith(task.rules) and "Possible: " in prompt.content
    episodes = task.episodes()
    episodes.reset([prompt, prompt], [0, 1])
    first = episodes.step([0, 1], [Said("save"), Said("look")])
    assert first.observations[0].startswith("That is no command") and "-=" in first.observations[1] and ">" not in first.observations[1]
    environment, _ = task.open(7)
    progress = []
    while not (step := episodes.step([0], [Said(environment.state.policy_commands[0])])).over[0]:
        progress.append(float(step.scores.parts[PROGRESS][0]))
        environment.step(environment.state.policy_commands[0])
    progress.append(float(step.scores.parts[PROGRESS][0]))
    assert step.scores.reward[0] == 1 and step.scores.parts["won"][0] == 1 and sum(progress) == pytest.approx(1) and len(progress) == 3
    assert {each.name for each in tmp_path.iterdir()} == {"cache"}  # nothing was saved
    assert len(list((tmp_path / "cache" / "textworld").iterdir())) == 1
