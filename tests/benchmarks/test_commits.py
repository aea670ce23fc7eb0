"""One version beside another: the arithmetic, every job in a tiny form, and two processes for real."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import commit_side, commits, off_policy
from rheostat.buffers import control_retainers

TINY: dict[str, dict[str, Any]] = {
    "PPO": {"num_envs": 4, "batch_steps": 64, "minibatches": 2, "epochs": 1, "hidden": (8,)},
    "SAC": {"start_steps": 10, "hidden": (8,), "batch_size": 4},
    "TD3": {"start_steps": 10, "hidden": (8,), "batch_size": 4},
    "IQL": {"hidden": (8,), "batch_size": 4},
    "CQL": {"hidden": (8,), "batch_size": 4},
    "GRPO": {"model": "untrained", "prompts_per_batch": 2, "group_size": 2},
    "SFT": {"model": "untrained", "prompts_per_batch": 2},
}


def tiny(name: str) -> dict[str, Any]:
    """The options of a job with smaller sizes."""
    job = commits.JOBS[name]
    return {key: list(value) if isinstance(value, tuple) else value for key, value in (job.options | TINY[name.split()[0]]).items()}


@pytest.mark.parametrize("name", commits.JOBS)
def test_every_job_trains(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_policy, "ROWS", 2000)
    monkeypatch.setattr(control_retainers, "OFFLINE_TURN", 2)
    off_policy.random_data.cache_clear()
    job = commits.JOBS[name]
    method = commit_side.build({"method": job.method, "task": job.task, "options": commits.completed(tiny(name))})
    commit_side.turn_of(method)()
    assert getattr(method, job.unit) > 0
    method.close()
    off_policy.random_data.cache_clear()


def test_ratios_are_taken_within_pairs() -> None:
    """A pair that was ten times slower on both sides changes nothing."""
    row = commits.summarised(([1.0, 10.0, 2.0], [1.1, 11.0, 2.2]), (100.0, 110.0))
    assert row["ratio"] == pytest.approx(1.1) and row["quartiles"] == pytest.approx([1.1, 1.1])
    assert row["memory_ratio"] == pytest.approx(1.1) and (row["before"], row["after"]) == (2.0, 2.2)
    assert commits.summarised(([1.0], [2.0]), (1.0, 1.0))["quartiles"] == [2.0, 2.0]


def test_what_is_worse_is_marked() -> None:
    rows = [{"work": "a", "unit": "steps"} | commits.summarised(([1.0] * 2, [ratio] * 2), (100.0, memory)) for ratio, memory in
            ((1.02, 100.0), (1.04, 100.0), (1.0, 104.0))]  # fmt: skip
    assert [line.endswith("above 3%") for line in commits.shown(rows).splitlines()[1:]] == [False, True, True]


def test_an_unknown_commit_is_refused() -> None:
    with pytest.raises(SystemExit, match="no-such-commit cannot be checked out"), commits.checked_out("no-such-commit"):
        pass


@pytest.mark.slow
def test_two_versions_for_real(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    job = dataclasses.replace(commits.JOBS["SFT tiny"], options=tiny("SFT tiny"), turn=2, warm_up=1)
    monkeypatch.setattr(commits, "JOBS", {"SFT tiny": job})
    words = argparse.Namespace(before="HEAD", after=None, only=None, pairs=2, quick=False, json=False)
    with commits.checked_out("HEAD") as root:
        commits.report((root, commits.HERE.parent), words)
        kept: Path = root
    assert not kept.exists() and str(kept) not in subprocess.run(["git", "worktree", "list"], capture_output=True, text=True).stdout
    said = capsys.readouterr().out
    assert "SFT tiny" in said and "MB before" in said
