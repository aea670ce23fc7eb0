"""Data as other people keep it, in flat HDF5 and npz files; remedies that messages name are options of every command that reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

import rheostat
from rheostat.buffers.offline import OfflineData
from rheostat.cli.entry import main
from rheostat.collect.control.offline_data import load_for
from rheostat.errors import RheostatError
from rheostat.tasks.control import make
from tests.border.worlds import Line
from tests.buffers.test_minari_format import episode, foreign

h5py = pytest.importorskip("h5py", reason="the extra 'offline' (minari[hdf5]) is not installed")
TASK = "tests.border.flat_world:Line-v0"
SMALL: dict[str, Any] = {"steps": 30, "hidden": (8,), "batch_size": 16, "log_every": 10, "evaluation_episodes": 1, "progress": False}


def columns(last: int = 4, wide: float = 1.0) -> dict[str, np.ndarray]:
    """Thirty episodes of ten steps; the last one simply stops."""
    world, rng = Line(), np.random.default_rng(0)
    rows: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")}
    for number in range(30):
        seen, _ = world.reset(seed=number)
        for _ in range(10 if number < 29 else last):
            action = np.clip(seen + rng.normal(0, 0.3, 1), -1, 1).astype(np.float32) * wide
            following, reward, over, cut, _ = world.step(action)
            for name, value in zip(rows, (seen, action, reward, over, cut, following), strict=True):
                rows[name].append(value)
            seen = following
    return {name: np.array(value) for name, value in rows.items()}


def write(path: Path, arrays: dict[str, np.ndarray]) -> str:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file.create_dataset(name, data=value)
            file.create_dataset("metadata/algorithm", data="x")
    return str(path)


@pytest.mark.parametrize("name", ["line.hdf5", "line.npz"])
def test_flat_files_are_read_and_trained_on(name: str, tmp_path: Path) -> None:
    path, whole = write(tmp_path / name, columns()), columns()
    with pytest.raises(RheostatError, match=r"step 3 of episode 29 .*--repair.unknown-end truncate"):
        rheostat.train("iql", Line, offline=path, directory=tmp_path / "no", **SMALL)
    assert not (tmp_path / "no").exists()
    data = load_for(None, path, unknown_end="truncate")
    assert len(data) == 294 and len(data.episodes) == 30 and data.cut.tolist() == [False] * 29 + [True]
    np.testing.assert_array_equal(data.transitions.next_observation, whole["next_observations"])
    np.testing.assert_allclose(data.transitions.action, whole["actions"])
    if name.endswith("npz"):
        return
    run = rheostat.train("iql", Line, offline=path, repair={"unknown_end": "truncate"}, directory=tmp_path / "run", **SMALL)
    assert run.finished and run.settings.repair == {"unknown_end": "truncate"}
    assert rheostat.load(tmp_path / "run", task=Line).evaluate(1)["evaluation_episodes"] == 1


def test_without_successors_the_last_step_is_left_out(tmp_path: Path) -> None:
    arrays = columns(10)
    following = arrays.pop("next_observations")
    path = write(tmp_path / "line.npz", arrays)
    with pytest.raises(RheostatError, match=r"--repair\.final-observation drop"):
        load_for(None, path)
    data = load_for(None, path, final_observation="drop")
    kept = ~arrays["timeouts"]
    assert len(data) == kept.sum() == 270
    np.testing.assert_array_equal(data.transitions.next_observation, following[kept])


def test_without_time_limits_successors_say_where_episodes_stop(tmp_path: Path) -> None:
    arrays = columns(10)
    ends = arrays.pop("timeouts")
    data = load_for(None, write(tmp_path / "line.npz", arrays), unknown_end="truncate")
    np.testing.assert_array_equal(data.breaks, ends)


def test_the_task_says_how_far_actions_go(tmp_path: Path) -> None:
    world = make(Line, num_envs=1, seed=0)
    inner, beyond = (write(tmp_path / f"{wide}.npz", columns(10, wide)) for wide in (0.5, 2.0))
    assert load_for(world, inner).action_space == world.action_space
    with pytest.raises(RheostatError, match=r"--repair\.outside clip"):
        load_for(world, beyond)
    assert load_for(world, beyond, outside="clip").transitions.action.abs().max() == 1
    with pytest.raises(RheostatError, match="belong to another task"):
        load_for(make("CartPole-v1", num_envs=1, seed=0), inner)


def test_choices_are_integers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(40, 4)).astype(np.float32), "actions": rng.integers(0, 2, 40), "rewards": np.ones(40)}
    arrays |= {"terminals": np.arange(40) % 8 == 7, "infos/action_log_probs": np.full(40, -0.69)}
    path = write(tmp_path / "cart.hdf5", arrays)
    data = load_for(make("CartPole-v1", num_envs=1, seed=0), path)
    assert (
        data.action_space == spaces.Discrete(2)
        and len(data.episodes) == 5
        and data.transitions.sampler_logp[0].item() == pytest.approx(-0.69)
    )
    assert rheostat.train("bc", "CartPole-v1", offline=path, directory=tmp_path / "run", **SMALL).finished


def test_commands_import_show_and_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("minari")
    monkeypatch.chdir(tmp_path)
    path, repair = write(tmp_path / "line.hdf5", columns()), ["--repair.unknown-end", "truncate"]
    with pytest.raises(SystemExit):
        main(["dataset", "import", path, TASK])
    assert "--repair.unknown-end truncate" in capsys.readouterr().err and not (tmp_path / "datasets").exists()
    main(["dataset", "import", path, TASK, *repair, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (
        found["path"] == "datasets/line"
        and found["steps"] == 294
        and found["cut_episodes"] == 1
        and "Box(-1.0, 1.0" in found["action_space"]
    )
    main(["dataset", "show", "datasets/line", "--json"])
    assert json.loads(capsys.readouterr().out)["digest"] == found["digest"]
    main(["dataset", "show", path, *repair, "--json"])
    assert json.loads(capsys.readouterr().out)["steps"] == 294
    flags = ["--steps", "20", "--hidden", "8", "--batch-size", "8", "--evaluation-episodes", "1", "--directory", str(tmp_path / "run")]
    main(["train", "iql", TASK, "--offline", path, *repair, *flags])
    capsys.readouterr()
    main(["ope", str(tmp_path / "run"), "--offline", path, *repair, "--estimators", "data", "--json"])
    assert json.loads(capsys.readouterr().out)["estimates"][0]["estimator"] == "data"


def test_commands_split_what_goes_on_after_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng, number = np.random.default_rng(0), spaces.Box(-1, 1, (1,), np.float32)

    def whole(*ends: int) -> dict[str, Any]:
        seen = rng.uniform(-1, 1, (11, 1)).astype(np.float32)
        return episode(10, observations=seen, terminations=np.isin(np.arange(10), ends), rewards=np.isin(np.arange(10), ends) * 1.0)

    name = foreign("line/goals-v0", [whole(3), whole(9), whole(3, 4, 5)], number, number, data_format="arrow")
    split = ["--repair.split-after-success"]
    flags = ["--steps", "20", "--hidden", "8", "--batch-size", "8", "--evaluation-episodes", "1", "--directory", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        main(["train", "iql", TASK, "--offline", name, *flags])
    assert split[0] in capsys.readouterr().err
    main(["train", "iql", TASK, "--offline", name, *split, *flags])
    assert rheostat.load(tmp_path / "run").settings.repair == {"split_after_success": True}
    capsys.readouterr()
    main(["dataset", "import", name, TASK, *split, "--output", str(tmp_path / "kept"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["episodes"] == 7 and found["return"]["mean"] == 1 and found["terminated_share"] == 5 / 7
    ope = ["--gamma", "0.5", "--estimators", "data", "--json"]
    for where in ([str(tmp_path / "kept")], [name, *split]):
        main(["ope", str(tmp_path / "run"), "--offline", *where, *ope])
        value = json.loads(capsys.readouterr().out)["estimates"][0]["value"]
        assert value == pytest.approx((0.5**3 + 0.5**9 + 0.5**3) / 3)  # what goes on afterwards is no first state


def test_repairs_that_do_nothing_are_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"repair": {"unknown_end": "truncate"}}, "repair.unknown_end is about a data set, and there is none"),
        ({"repair": {"unknown_ends": "truncate"}, "offline": "x"}, "Unknown repair of a data set 'unknown_ends': did you mean unknown_end"),
        ({"repair": {"outside": "drop"}, "offline": "x"}, "repair.outside is 'drop'; it must be one of error, clip"),
        ({"repair": 3}, "repair is 3; it must be a table of names and values"),
    ):
        with pytest.raises(RheostatError, match=message):
            rheostat.train("iql", Line, directory=tmp_path / "run", **(SMALL | options))


MALFORMED: dict[str, tuple[Any, str]] = {
    "no rewards": (lambda c: {k: v for k, v in c.items() if k != "rewards"}, r"has no column 'rewards' \(it has actions"),
    "no terminals": (lambda c: {k: v for k, v in c.items() if k != "terminals"}, "has no column 'terminals'"),
    "fewer actions": (lambda c: c | {"actions": c["actions"][:-1]}, "'actions' of .* has 293 rows and rewards have 294"),
    "wide rewards": (lambda c: c | {"rewards": np.ones((294, 2))}, r"'rewards' of .* has shape \[294, 2\]"),
    "other successors": (lambda c: c | {"next_observations": np.ones((294, 2))}, "unlike its observations"),
    "texts": (lambda c: c | {"rewards": np.array(["a"] * 294, dtype="S1")}, "dtype .S1: numbers are needed"),
    "flat floats as actions": (lambda c: c | {"actions": c["actions"][:, 0]}, "floats .n, k., or one integer per step"),
    "negative choices": (lambda c: c | {"actions": np.full(294, -1)}, "number them from 0"),
    "nothing": (lambda c: {k: v[:0] for k, v in c.items()}, "is empty"),
    "one number": (lambda c: c | {"rewards": np.array(1.0)}, "is empty|has no column"),
    "not a number": (lambda c: c | {"rewards": np.full(294, np.nan)}, "reward of step 0 of episode 0 is not a number"),
}


@pytest.mark.parametrize("suffix", ["hdf5", "npz"])
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_flat_files(name: str, suffix: str, tmp_path: Path) -> None:
    change, message = MALFORMED[name]
    with pytest.raises(RheostatError, match=message):
        load_for(None, write(tmp_path / f"line.{suffix}", change(columns())), unknown_end="truncate")


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content in (("a.npz", b"PK no"), ("b.npz", b""), ("a.hdf5", b"no"), ("b.h5", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RheostatError, match="cannot be read as"):
            OfflineData.load(tmp_path / name)
    np.savez(tmp_path / "c.npz", observations=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RheostatError, match="without pickled objects"):
        OfflineData.load(tmp_path / "c.npz")


class Named(Line):
    """A Dict of two entries."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.observation_space = spaces.Dict({name: spaces.Box(-1, 1, (1,), np.float32) for name in names})

    def reset(self, **options: Any) -> Any:
        return {name: super(Named, self).reset(**options)[0] for name in self.observation_space}, {}


def test_entries_are_compared_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    one, number = {name: np.zeros((4, 1), np.float32) for name in ("b", "a")}, spaces.Box(-1, 1, (1,), np.float32)
    name = foreign("named-v0", [episode(observations=one)], spaces.Dict([("b", number), ("a", number)]), number)
    load_for(make(lambda: Named("a", "b"), num_envs=1, seed=0), name)
    with pytest.raises(
        RheostatError, match=r"have the entries observation\['a'\], observation\['b'\], those of .*'a'\], observation\['c'\]"
    ):
        load_for(make(lambda: Named("a", "c"), num_envs=1, seed=0), name)
