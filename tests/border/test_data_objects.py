"""Data to learn from, as objects: they train as the files that hold the same do, and the run opens and resumes without them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rheostat
from rheostat.buffers.offline import OfflineData
from rheostat.collect.control.offline_objects import of_trajectories
from rheostat.collect.control.stepping import Collector
from rheostat.errors import RheostatError
from rheostat.tasks.control import make
from rheostat.training.checkpoint import split_state
from rheostat.training.run import Interrupted, Run
from tests.border.test_flat_files import SMALL, columns, write
from tests.border.worlds import Line

pytest.importorskip("minari", reason="the extra 'offline' (minari[hdf5]) is not installed")
REPAIR = {"unknown_end": "truncate"}


def weights(run: Any) -> dict[str, torch.Tensor]:
    return split_state(run.method.state_dict())[1]


def same(one: Any, other: Any) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def collected(blocks: int = 3) -> list[Any]:
    """Blocks of two environments, whose episodes have ten steps."""
    collector, generator = Collector(make(Line, num_envs=2, seed=0)), torch.Generator().manual_seed(0)

    def draw(observation: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(observation.shape, generator=generator)
        return observation + noise, -0.5 * noise.square().sum(-1) - 0.5 * np.log(2 * np.pi)

    return [collector.collect(draw, 15, generator=generator, version=k) for k in range(blocks)]


def test_arrays_data_sets_and_files_train_alike(tmp_path: Path) -> None:
    path = write(tmp_path / "line.npz", columns())
    named = rheostat.train("iql", Line, offline=path, repair=REPAIR, directory=tmp_path / "named", **SMALL)
    arrays = rheostat.train("iql", Line, offline=columns(), repair=REPAIR, directory=tmp_path / "arrays", **SMALL)
    ours = OfflineData.load(path, unknown_end="truncate")
    whole = rheostat.train("iql", Line, offline=ours, directory=tmp_path / "object", **SMALL)
    minari_set = tmp_path / "kept"
    ours.save(minari_set)

    class Opened:
        """As ``minari.load_dataset`` gives it."""

        spec = type("Spec", (), {"data_path": minari_set / "data"})

    opened = rheostat.train("iql", Line, offline=Opened(), directory=tmp_path / "minari", **SMALL)
    assert arrays.metrics == named.metrics == whole.metrics
    assert same(named, arrays) and same(named, whole) and opened.settings.offline == str(minari_set)
    assert arrays.settings.offline == "custom:dict" and whole.settings.offline == "custom:OfflineData"
    kept = OfflineData.load(tmp_path / "object" / "offline")
    assert torch.equal(kept.transitions.reward, ours.transitions.reward) and kept.action_space == Line().action_space


def test_a_run_on_an_object_opens_and_resumes_without_it(tmp_path: Path) -> None:
    options = {key: value for key, value in SMALL.items() if key != "progress"} | {"steps": 200, "checkpoint_every": 100}
    whole = rheostat.train("iql", Line, offline=collected(), directory=tmp_path / "whole", progress=False, **options)
    original, turns = Run.save, 0

    def interrupted(run: Run) -> Path:
        nonlocal turns
        turns += 1
        place = original(run)
        if turns == 2:
            raise Interrupted(run.directory)
        return place

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Run, "save", interrupted)
        rheostat.train("iql", Line, offline=collected(), directory=tmp_path / "cut", progress=False, **options)
    shutil.move(tmp_path / "cut", tmp_path / "moved")  # the copy goes with the run
    with pytest.raises(RheostatError, match="keeps its own copy of the data"):
        rheostat.resume(tmp_path / "moved", task=Line, offline=collected())
    again = rheostat.resume(tmp_path / "moved", task=Line, progress=False)
    assert again.metrics == whole.metrics and same(again, whole)
    observation = np.array([0.3], np.float32)
    assert np.array_equal(rheostat.load(tmp_path / "moved").policy(observation), whole.policy(observation))
    assert np.isfinite(rheostat.load(tmp_path / "moved", task=Line).evaluate(2)["evaluation_return"])


def test_trajectories_are_cut_into_their_episodes() -> None:
    blocks = collected()
    data = of_trajectories(blocks)
    assert len(data) == sum(int(block.mask.sum()) for block in blocks)
    assert data.lengths.tolist() == 2 * [10, 10, 10, 10, int(data.lengths[4])][: len(data.lengths) // 2]
    assert data.cut.sum() == (data.lengths < 10).sum() and data.transitions.version.unique().tolist() == [0, 1, 2]
    far = data.transitions.action.abs() > 1
    assert far.any()
    line = Line()
    data.require_spaces(make(Line, num_envs=1, seed=0).observation_space, line.action_space, "line")
    assert data.action_space == line.action_space and data.transitions.action.abs().max() == 1
    assert torch.equal((data.as_drawn.action.abs() > 1), far)  # densities are those of the draws


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (3, {}, "offline is a int: name a data set, or hand over"),
        ([], {}, "offline is a list: name a data set"),
        ({"observations": np.zeros((3, 1))}, {}, "has no column 'rewards'|has no column 'actions'"),
        ("trajectories", {"repair": {"outside": "clip"}}, "repair.outside is about files and arrays"),
        ("tokens", {}, "these are tokens"),
    ],
)
def test_what_is_no_data_set(given: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    if isinstance(given, str):
        (block,) = collected(1)
        if given == "tokens":
            block.observation = block.next_observation = None
        given = block
    with pytest.raises(RheostatError, match=message):
        rheostat.train("iql", Line, offline=given, directory=tmp_path / "run", **(SMALL | options))
    assert not (tmp_path / "run").exists()


def test_methods_without_data_refuse_objects_too(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="sac learns from its own data only"):
        rheostat.train("sac", Line, offline=columns(), repair=REPAIR, directory=tmp_path / "run", steps=10)
    with pytest.raises(RheostatError, match="offline"):
        rheostat.compare(["iql"], "Pendulum-v1", offline=columns(), seeds=2, steps=10, directory=tmp_path / "grid")
