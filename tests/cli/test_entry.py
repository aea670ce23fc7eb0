"""The command line as a whole: what it loads, what it lists, what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rheostat.cli import entry as cli

HEAVY = ("torch", "transformers", "envpool", "tensordict")


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys; from rheostat.cli.entry import main; main(['--help']); print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_has_one_line_of_help(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert set(lines) == set(cli.COMMANDS) and all(len(line.split()) > 3 for line in lines.values())


def test_an_unknown_command_comes_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["tarin", "ppo", "CartPole-v1"])
    assert stop.value.code == 2 and "did you mean train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["compare", "ppo", "--task", "CartPole-v1", "--options", "seeds", "3"], "seeds"),
        (["compare", "ppo", "--task", "CartPole-v1", "--options", "task", "x"], "task"),
        (["sweep", "ppo", "CartPole-v1", "--options", "dial", "1"], "dial"),
    ],
)
def test_what_a_command_takes_itself_is_not_among_its_options(words: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(words)
    assert capsys.readouterr().err == f"Error: --options gives {name}, which the command itself takes: say it there.\n"
