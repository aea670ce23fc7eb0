"""Sweeps of the dial: settings side by side, continued and refused like comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.cli import entry as cli
from rheostat.errors import RheostatError

SMALL: dict[str, Any] = {"num_envs": 4, "batch_steps": 64, "evaluation_episodes": 2, "hidden": [8]}


@pytest.mark.usefixtures("workers_here")
def test_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {key: json.dumps(value) for key, value in SMALL.items()}
    words = [word for pair in options.items() for word in pair]
    where = tmp_path / "sweep"
    command = ["sweep", "ppo", "CartPole-v1", "--dial.lag", "0", "2", "--dial.updates-per-batch", "1", "--seeds", "2", "--steps", "320"]
    cli.main([*command, "--directory", str(where), "--options", *words, "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["dial.lag"] for row in rows] == [0, 2] and all(row["seeds"] == 2 for row in rows)
    assert rows[0]["kl"]["estimate"] < rows[1]["kl"]["estimate"] and rows[1]["verdict"] == "undecided"
    assert (where / "sweep.png").read_bytes().startswith(b"\x89PNG") and (where / "sweep.svg").read_text().startswith("<?xml")
    assert "dial.lag=2" in (where / "report.html").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in where.glob("*/summary.json")}
    cli.main(["resume", str(where)])  # continues it: everything is there already
    assert "dial.lag" in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in where.glob("*/summary.json")}
    with pytest.raises(RheostatError, match="choose another directory"):
        rheostat.sweep("ppo", "CartPole-v1", dial={"lag": [0, 2]}, seeds=2, steps=64, directory=where, progress=False, **SMALL)


def refused(sentence: str, method: str = "ppo", **dial: Any) -> None:
    with pytest.raises(RheostatError, match=sentence):
        rheostat.sweep(method, "CartPole-v1", dial=dial, seeds=1, steps=320, progress=False, directory="never-made", **SMALL)
    assert not Path("never-made").exists()


def test_what_cannot_be_swept() -> None:
    refused("turns one number of the dial, and 0 have several", lag=[4])
    refused("and 2 have several", lag=[0, 1], replay_share=[0.0, 0.5])
    refused("Unknown setting of dial 'lagg'", lagg=[0, 1])
    refused("robust-acting cannot honour dial.lag", "robust-acting", lag=[0, 1])
    refused(r"dial\.lag is 16, but the whole run makes about 5 updates", lag=[0, 16])
