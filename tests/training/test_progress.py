"""The live view: it fits any width, says what is known and nothing else, and shows foreign text as text."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import rheostat
from rheostat.training import progress
from rheostat.training.progress import LEVELS, Bar, View, number, sparkline
from rheostat.training.run import Run
from tests.tiny_control import small

ROW: dict[str, Any] = {
    "evaluation_return": 312.4, "evaluation_episodes": 5, "episode_return": 287.0, "episodes": 412, "meter/ess": 0.97, "entropy": 0.31,
    "meter/kl_behaviour_k3": 0.0021, "meter/clip_fraction": 0.08, "meter/age_mean": 0.5, "learning_rate": 0.0003,
}  # fmt: skip


def filled(**changes: Any) -> View:
    view = View("ppo-CartPole-v1-s0", total=100_000, unit="environment steps", done=43_008, speed=1204.0, elapsed=36.0)
    view.take({"evaluation_return": 9.1, "episode_return": 22.0})
    view.take(ROW)
    for name, value in changes.items():
        setattr(view, name, value)
    return view


def screen(view: View, width: int) -> list[str]:
    """What a terminal of this width shows."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(view)
    return out.getvalue().splitlines()


def test_what_is_known_is_there_at_80_columns() -> None:
    lines = screen(filled(), 80)
    assert lines[0].startswith("ppo-CartPole-v1-s0 ━") and lines[0].endswith(" 43%")
    assert lines[1] == "43,008 of 100,000 environment steps · 1,204 per second · 0:00:47 left"
    assert lines[2] == "evaluation return  312.4 (+303.3)  ▁█  mean of 5 episodes"
    assert lines[3] == "training return    287 (+265)      ▁█  mean of 100 episodes"
    assert lines[4] == "effective sample size 97% · KL to the sampler 0.0021 · clip fraction 8%"
    assert len(lines) == 5


def test_a_wide_terminal_is_used() -> None:
    lines = screen(filled(), 160)
    assert "43,008 of 100,000 environment steps · 1,204 per second" in lines[0] and lines[0].startswith("ppo-CartPole-v1-s0 ━")
    assert lines[-1].endswith("age of the data 0.5 updates · entropy 0.31 · learning rate 0.0003")


@given(
    width=st.integers(20, 300),
    title=st.text(max_size=60),
    sample=st.tuples(st.text(max_size=300), st.text(max_size=300), st.floats(-1e9, 1e9)),
    values=st.lists(st.floats(-1e12, 1e12), max_size=200),
)
def test_every_line_fits_and_no_text_steers_the_terminal(
    width: int, title: str, sample: tuple[str, str, float], values: list[float]
) -> None:
    view = filled(title=title, sample=sample)
    for value in values:
        view.take({"evaluation_return": value})
    for line in view.lines(width):
        assert line.cell_len <= width and "\n" not in line.plain
        assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line.plain)


def test_foreign_text_is_no_markup() -> None:
    view = filled(sample=("2+2=", "[bold red]4[/]\x1b[2J\nend</script>", 1.0))
    assert screen(view, 100)[-1] == "sample, reward 1: 2+2= | [bold red]4[/]<0x1b>[2J⏎end</script>"


def test_nothing_is_said_of_what_is_not_known() -> None:
    fresh = View("run", total=4096, unit="environment steps")
    assert fresh.plain() == "run: 0% of 4,096 environment steps"
    assert screen(fresh, 80)[1:] == ["0 of 4,096 environment steps · 0:00:00 so far"]
    fresh.take({"episodes": 0, "evaluation_return": float("nan")})
    assert screen(fresh, 80)[2:] == ["training return: no episode has ended yet"]


def test_the_plain_line_says_the_same() -> None:
    assert filled().plain() == (
        "ppo-CartPole-v1-s0: 43% of 100,000 environment steps, 1,204 per second, 0:00:47 left, evaluation return 312.4 (+303.3), "
        "training return 287 (+265), effective sample size 97%, KL to the sampler 0.0021, clip fraction 8%"
    )


def test_a_terminal_without_blocks_gets_plain_characters() -> None:
    view = filled(plain_text=True)
    assert all(line.plain.isascii() or "·" in line.plain for line in view.lines(80)) and "####" in view.lines(80)[0].plain


@given(values=st.lists(st.floats(-1e300, 1e300), max_size=300), width=st.integers(-1, 90))
def test_sparklines_are_as_long_as_they_may_be(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == max(0, min(width, len(values))) and set(line) <= set(LEVELS)


def test_sparklines_rise_with_their_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == LEVELS and sparkline([7, 0], 8) == "█▁" and sparkline([3, 3], 8) == "▁▁"
    assert sparkline([0, 2, 6, 8], 2) == "▁█"  # means of 1 and 7


def test_numbers_have_four_digits() -> None:
    values = (0, 1, 12.345, 123.456, 1234.56, 123_456.7, 0.123456, -0.5, 1e-9, 3e9, float("nan"))
    assert [number(value) for value in values] == [
        "0", "1", "12.35", "123.5", "1,235", "123,457", "0.1235", "-0.5", "1e-09", "3e+09", "–",
    ]  # fmt: skip


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_run_on_a_terminal_and_in_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_PERIOD", 0.0)
    for name, stream in (("live", Terminal()), ("piped", io.StringIO())):
        monkeypatch.setattr(sys, "stderr", stream)
        bar = Bar("x")
        run = Run.create(tmp_path / name, small("ppo", evaluate_every=256, evaluate_episodes=2)).train(progress=bar)
        bar.note("a [red]sentence\x1b[2J")
        shown = stream.getvalue()
        assert "evaluation return" in shown and "a [red]sentence<0x1b>[2J" in shown and ("━" in shown) == (name == "live")
        assert bar.view.curves["evaluation_return"] == [row["evaluation_return"] for row in run.metrics if "evaluation_return" in row]


def test_a_resumed_run_shows_its_curve_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.training.test_run import StopAfter

    with pytest.raises(Exception, match="Stopped"):
        Run.create(tmp_path / "run", small("ppo", evaluate_every=256, evaluate_episodes=2)).train(progress=StopAfter(3))
    seen: list[View] = []
    monkeypatch.setattr(Bar, "stop", lambda self: seen.append(self.view))
    run = rheostat.resume(tmp_path / "run")
    assert seen[0].curves["evaluation_return"] == [row["evaluation_return"] for row in run.metrics if "evaluation_return" in row]


class Writing:
    """A run whose model writes."""

    class method:
        @staticmethod
        def rollouts(count: int) -> list[dict[str, Any]]:
            return [{"prompt": [{"role": "user", "content": "1+1="}], "completion": f"{n}", "reward": float(n)} for n in range(3)][
                : 3 * count
            ]


def test_a_sample_is_taken_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("x")
    for iteration in (4, 5, 6):
        bar.on_update(Writing(), {"iteration": iteration})  # type: ignore[arg-type]
    assert bar.view.sample == ("1+1=", "1", 1.0)
    assert capsys.readouterr().err == "  sample, reward 1: 1+1= | 1\n"
    monkeypatch.setattr(progress, "SAMPLE_PERIOD", (0.0, 0.0))
    bar.on_update(Writing(), {"iteration": 5})  # type: ignore[arg-type]
    assert bar.view.sample == ("1+1=", "2", 2.0)
