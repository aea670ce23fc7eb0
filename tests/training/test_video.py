"""Films of control policies: what they show, and one sentence where there can be none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3
import numpy as np
import pytest

import rheostat
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.training.run import Run
from rheostat.training.video import MOST_FRAMES, WIDEST, newest_video, record_episode
from tests.tiny_control import small


class Drawn(gymnasium.Env[Any, Any]):
    """Counts steps; draws a bar ten times as long as the count."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    breaks = False

    def __init__(self, render_mode: str | None = None, length: int = 30) -> None:
        self.render_mode, self.length, self.count = render_mode, length, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return np.full(2, self.count / 1e4, np.float32), 1.0, self.count >= self.length, False, {}

    def render(self) -> Any:
        if self.breaks:
            raise RuntimeError("no display")
        frame = np.zeros((40, 700, 3), np.uint8)
        frame[:, : 10 * self.count] = 255
        return frame


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Drawn-v0", Drawn)
    yield
    del gymnasium.registry["Drawn-v0"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", small("ppo", "Drawn-v0", steps=128)).train()


def test_a_film_shows_the_whole_episode(run: Run) -> None:
    path, facts = record_episode(run)
    frames = imageio.v3.imread(path)
    assert facts == {"return": 30.0, "length": 30, "frames": 31} and len(frames) == 31
    assert frames.shape[2] <= WIDEST and frames[0].max() < 50 and frames[-1][:, :8].min() > 200
    assert newest_video(run.directory) == path


def test_a_long_film_is_thinned(tmp_path: Path) -> None:
    settings = small("ppo", "Drawn-v0", steps=128, environment_options={"length": 900})
    _, facts = record_episode(Run.create(tmp_path / "run", settings).train())
    assert facts["length"] == 900 and facts["frames"] <= MOST_FRAMES


def test_evaluate_keeps_it_and_the_report_shows_it(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", str(run.directory), "--episodes", "1", "--video", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert Path(found["video"]).exists() and found["evaluation_return"] == 30
    main(["report", str(run.directory), "--output", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    assert "data:image/gif;base64,R0lG" in page and "deterministic actions." in page


def test_without_a_renderer_the_evaluation_stands(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Drawn, "breaks", True)
    main(["evaluate", str(run.directory), "--episodes", "1", "--video", "--json"])
    said = capsys.readouterr()
    assert said.err == "Note: There is no film of Drawn-v0: it cannot be drawn here (RuntimeError: no display).\n"
    assert json.loads(said.out)["evaluation_return"] == 30 and newest_video(run.directory) is None


def test_objects_have_no_film(tmp_path: Path) -> None:
    run = rheostat.train("ppo", Drawn, directory=tmp_path / "run", steps=64, progress=False, num_envs=2, batch_steps=32, minibatches=2)
    with pytest.raises(RheostatError, match="only tasks with a name can be drawn"):
        record_episode(run)
