"""No command line ends in a traceback, a hang, a crash, or begins with a value that makes no sense."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rheostat.cli import entry
from rheostat.options import Domain
from tests.fuzz import ODD, Line, makes_sense

ONE = ["train", "ppo", "CartPole-v1"]


@pytest.mark.parametrize("lines", [20, pytest.param(3000, marks=pytest.mark.slow)])
def test_odd_lines_are_refused_in_a_sentence(lines: int) -> None:
    """In a process of its own: lines are tried in forks, which must not inherit the threads of other tests. All 28,000 lines take half an
    hour of processor time: ``python -m tests.fuzz``."""
    found = subprocess.run([sys.executable, "-m", "tests.fuzz", "--lines", str(lines)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    counts = {name: int(number) for name, number in re.findall(r"(refused|accepted|done): (\d+)", found.stdout)}
    assert min(counts["refused"], counts["accepted"]) > 0 and sum(counts.values()) == lines


def test_the_rule_of_the_fuzzer_knows_nonsense() -> None:
    share = Domain(0, at_most=1)
    accepted = {value for value in ODD if makes_sense(Line((*ONE, "--x", value), value, float, share))}
    assert accepted == {"0"}
    assert not makes_sense(Line((*ONE, "--x", "1"), "1", int, None))  # a number without a domain
    assert not makes_sense(Line((*ONE, "--x", ""), "", str, None))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*ONE, "--directory", ""], "The word after --directory is empty"),
        ([*ONE, "--directory="], "Nothing stands behind --directory="),
        ([*ONE, "--directory", "\udcff"], "is not text in UTF-8"),
        ([*ONE, "--threads", "100000"], "threads is 100000; it must be at least 1 and at most 1,024"),
        ([*ONE, "--learning-rate", "-1"], "it must be at least 0"),
        ([*ONE, "--learning-rate", "1e300"], "at most 3.40282e+38 in size"),
        ([*ONE, "--steps", "9" * 30], "at most 9.0072e+15 in size"),
        (["train", "sac", "Pendulum-v1", "--rewards.shift", "nan"], "must be a finite number"),
        (["compare", "ppo", "a2c", "--task", "CartPole-v1", "--jobs", "-1"], "--jobs is -1; it must be at least 0"),
        (["compare", "ppo", "a2c", "--task", "CartPole-v1", "--seeds", "0"], "--seeds is 0; it must be at least 1"),
        (["sweep", "ppo", "CartPole-v1", "--dial.lag", "0", "1", "--steps", "0"], "--steps is 0; it must be at least 1"),
        (["sweep", "ppo", "CartPole-v1", "--dial.lag", "0", "-1"], "--dial.lag is -1; it must be at least 0"),
        (["microscope", "--step-size", "inf"], "--step-size is inf; it must be finite and above 0"),
        (["ope", "run", "--offline", "data", "--gamma", "2"], "gamma is 2.0; it must be at least 0 and at most 1"),
    ],
)
def test_refused_before_anything_is_made(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        entry.main(words)
    assert stop.value.code == 2 and said in capsys.readouterr().err and list(tmp_path.iterdir()) == []
