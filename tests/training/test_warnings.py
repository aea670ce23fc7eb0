"""A correction that cannot work is said to be so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat.reporting.report import write_report
from rheostat.training.progress import Bar
from rheostat.training.run import Run
from rheostat.training.version_0_1 import current_summary
from rheostat.training.warnings import idle_run, no_signal, warnings_of
from tests.training.test_run import small

ROW = {"meter/kl_behaviour_k3": 0.05, "meter/age_max": 3.0, "approx_kl": 0.01, "meter/clip_fraction": 0.1, "gradient_steps": 4}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"approx_kl": 0.0, "meter/clip_fraction": 0.0}, "The ratio was exactly 1 in every gradient step although the data are up to 3"),
        ({"approx_kl": 0.0, "meter/clip_fraction": 0.0, "meter/capped_share": 0.2}, None),
        ({"approx_kl": 0.0, "meter/age_max": 0.0}, None),
        ({"approx_kl": 0.0, "meter/kl_behaviour_k3": 1e-7}, None),
        ({"meter/clip_fraction": 0.0}, "The clip on the ratio never acted in 12 updates"),
        ({"meter/capped_share": 1.0}, "Every importance weight was at its cap"),
    ],
)
def test_warnings(changes: dict[str, float], said: str | None) -> None:
    rows: list[dict[str, Any]] = [{"steps": 1}, *[ROW | changes] * 12]
    found = warnings_of(rows)
    assert (found == []) if said is None else (len(found) == 1 and found[0].startswith(said))
    assert warnings_of(rows[:9]) == []


def test_a_stale_run_without_a_correction_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = {"epochs": 10, "minibatches": 32}  # the dial says how many gradient steps there are
    options = {"dial.lag": 4, "dial.updates_per_batch": 1, "learning_rate": 0.01, "steps": 64 * 12} | usual
    plain = Run.create(tmp_path / "plain", small("ppo", **options)).train(progress=Bar("x"))
    assert "nothing corrects for who sampled" in capsys.readouterr().err
    (sentence,) = plain.summary["warnings"]
    assert sentence.startswith("The ratio was exactly 1")
    assert "nothing corrects for who sampled" in write_report([tmp_path / "plain"], tmp_path / "report.html").read_text()
    corrected = Run.create(tmp_path / "corrected", small("ppo", **options, sampler_correction="token")).train()
    assert "warnings" not in corrected.summary and json.loads((tmp_path / "corrected" / "summary.json").read_text())


def test_the_old_name_in_a_summary_is_read() -> None:
    """A run that is older than the name keeps its sentences."""
    assert current_summary({"evaluation_return": 1.0, "remarks": ["a"]}) == {"evaluation_return": 1.0, "warnings": ["a"]}


MOVED: dict[str, Any] = {"meter/gradient_norm": 0.3, "learning_rate": 1e-3}


def test_updates_that_move_nothing_are_said() -> None:
    still, halted = MOVED | {"meter/gradient_norm": 0.0}, MOVED | {"learning_rate": 0.0}
    assert no_signal([MOVED] * 9) == no_signal([still] * 2) == no_signal([*[still] * 9, MOVED]) == []
    assert no_signal([MOVED, *[still] * 3]) == [
        "The gradient was exactly 0 in the last 3 updates, so nothing moved: every advantage is 0 or the clip cuts all of it."
    ]
    graded = still | {"reward_spread": 1.0, "abstained_share": 0.0}
    assert "no group of completions carries a signal" in no_signal([graded] * 3)[0]
    assert no_signal([halted] * 3) == ["The learning rate was 0 in the last 3 updates, so nothing moved."]


def test_a_run_that_never_learned_says_so(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("sac", start_steps=10_000)).train()
    first, second = run.summary["warnings"]
    assert first.startswith("No update has happened in 240 environment steps") and "start_steps" in first
    assert second.startswith("No episode has ended in 240 environment steps")
    assert not idle_run([{"episodes": 3}], 240, 5, "environment steps") and not idle_run([{}], 5, 5, "updates")
