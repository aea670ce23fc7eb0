"""Data sets in files: what we write Minari reads, what Minari writes we read, and damage is described."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rheostat.buffers.offline import OfflineData
from rheostat.collect.control.offline_data import load_for
from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.control.spaces import ObservationEncoder
from tests.buffers.offline_worlds import build, fields

minari = pytest.importorskip("minari", reason="the extra 'offline' (minari[hdf5]) is not installed")
h5py = pytest.importorskip("h5py", reason="the extra 'offline' (minari[hdf5]) is not installed")
buffers: Any = pytest.importorskip("minari.data_collector.episode_buffer")

FACTS = {"kind": "medium", "seed": 3, "behaviour": "a policy"}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local Minari folder of its own for every test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def sha(folder: Path) -> list[str]:
    return [hashlib.sha256((folder / "data" / name).read_bytes()).hexdigest() for name in ("main_data.hdf5", "metadata.json")]


def foreign(name: str, episodes: list[dict[str, Any]], observation_space: Any, action_space: Any, **options: Any) -> str:
    """A data set that Minari itself writes; returns its id."""
    made = [buffers.EpisodeBuffer(**episode) for episode in episodes]
    with pytest.warns(UserWarning):  # Minari wants an author
        minari.create_dataset_from_buffers(name, made, observation_space=observation_space, action_space=action_space, **options)
    return name


def episode(length: int = 3, **changes: Any) -> dict[str, Any]:
    generator = np.random.default_rng(length)
    found: dict[str, Any] = {
        "observations": generator.normal(size=(length + 1, 2)),
        "actions": generator.uniform(-1, 1, size=(length, 1)).astype(np.float32),
        "rewards": generator.normal(size=length),
        "terminations": np.zeros(length, bool),
        "truncations": np.arange(length) == length - 1,
    }
    return found | changes


BOX, ACTION = spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Box(-1.0, 1.0, (1,), np.float32)


def test_what_is_saved_is_loaded_again_bit_for_bit(tmp_path: Path) -> None:
    drawn = fields()["action"] * 3
    data = build(facts=FACTS, reference=(-1200.0, -150.0), reference_source="made up", drawn_action=drawn, cut=torch.tensor([False, True]))
    data.save(tmp_path / "set")
    again = OfflineData.load(tmp_path / "set")
    assert again.digest == data.digest and again.facts == FACTS and again.behaviour == "a policy" and again.task == "Pendulum-v1"
    assert again.reference == (-1200.0, -150.0) and again.reference_source == "made up" and again.cut.tolist() == [False, True]
    assert again.drawn_action is not None and torch.equal(again.drawn_action, drawn)
    for name, value in data.transitions.items():
        if value is not None:
            assert torch.equal(getattr(again.transitions, name), value), name


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(facts=FACTS).save(tmp_path / name)
    assert sha(tmp_path / "one") == sha(tmp_path / "two")


def test_minari_reads_what_we_write(root: Path) -> None:
    data = build(facts=FACTS, reference=(-1200.0, -150.0))
    data.save(root / "rheostat/Pendulum-v1/medium-s3-v0")
    theirs = minari.load_dataset("rheostat/Pendulum-v1/medium-s3-v0")  # our own default id
    assert theirs.total_episodes == 2 and theirs.total_steps == 5 and theirs.id == "rheostat/Pendulum-v1/medium-s3-v0"
    assert theirs.observation_space == data.observation_space and theirs.action_space == data.action_space
    assert theirs.env_spec.id == "Pendulum-v1" and theirs.storage.metadata["algorithm_name"] == "a policy"
    assert minari.get_normalized_score(theirs, np.array(-150.0)) == 1
    rows = data.transitions
    for part, found in zip(data.episodes, theirs.iterate_episodes(), strict=True):
        assert np.array_equal(found.observations[:-1], rows.observation[part].numpy())
        assert np.array_equal(found.observations[1:], rows.next_observation[part].numpy())
        for name in ("action", "reward"):
            assert np.array_equal(getattr(found, name + "s"), getattr(rows, name)[part].numpy())
        assert np.array_equal(found.terminations, rows.terminated[part].numpy())
        assert np.array_equal(found.truncations, rows.truncated[part].numpy())
        assert np.array_equal(found.infos["sampler_logp"], rows.sampler_logp[part].numpy())


def test_minari_reads_our_images_without_loss(root: Path) -> None:
    pixels = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    changes = {"observation": pixels[:3], "next_observation": pixels[1:]}
    data = build(changes, lengths=(3,), observation_space=spaces.Box(0, 255, (3, 40, 40), np.uint8), task="")
    data.save(root / "pixels-v0", dataset_id="pixels-v0")
    assert np.array_equal(minari.load_dataset("pixels-v0")[0].observations, pixels.numpy())
    assert OfflineData.load("pixels-v0").digest == data.digest


def test_we_read_what_minari_writes_by_its_id() -> None:
    parts = [episode(3), episode(2, truncations=np.zeros(2, bool), terminations=np.array([False, True]))]
    data = OfflineData.load(foreign("foreign/box-v0", parts, BOX, ACTION, algorithm_name="theirs", ref_min_score=1.0, ref_max_score=3.0))
    assert len(data) == 5 and data.lengths.tolist() == [3, 2] and data.behaviour == "theirs"
    assert data.transitions.observation.dtype == torch.float32 and data.transitions.sampler_logp.isnan().all()
    assert torch.equal(data.transitions.next_observation[2], torch.from_numpy(parts[0]["observations"][3]).float())
    assert data.transitions.terminated.tolist() == [False] * 4 + [True]
    assert data.returns.tolist() == pytest.approx([part["rewards"].sum() for part in parts], rel=1e-6)


def test_published_reference_returns_are_minaris() -> None:
    name = foreign("foreign/pendulum-v0", [episode(3)], BOX, ACTION, env="CartPole-v1", ref_min_score=1.0, ref_max_score=3.0)
    data = OfflineData.load(name)
    assert data.reference == (1.0, 3.0) and data.normalised_score(2.0) == 50 and data.task == "CartPole-v1"


def test_the_published_values_are_filled_in_for_a_task_that_has_them() -> None:
    name = foreign("foreign/hopper-v0", [episode(3)], BOX, ACTION, env="Hopper-v5")
    assert OfflineData.load(name).reference is None
    data = load_for(None, name)
    assert data.reference == (-20.272305, 3234.3) and "D4RL" in data.reference_source


def test_dict_observations_are_flattened_as_the_adapter_does() -> None:
    space = spaces.Dict(
        [("z", spaces.Box(-1, 1, (2,), np.float32)), ("a", spaces.Discrete(3)), ("t", spaces.Tuple([spaces.MultiBinary(2)]))]
    )
    rng = np.random.default_rng(0)
    raw = {
        "z": rng.uniform(-1, 1, (4, 2)).astype(np.float32),
        "a": np.array([0, 2, 1, 1]),
        "t": (rng.integers(0, 2, (4, 2)).astype(np.int8),),
    }
    name = foreign("foreign/dict-v0", [episode(3, observations=raw)], space, ACTION)
    data = load_for(None, name)
    expected = ObservationEncoder(space, "test")(raw, 4)
    assert torch.equal(data.transitions.observation, expected[:3]) and torch.equal(data.transitions.next_observation, expected[1:])
    assert data.observation_space.shape == (7,)
    with pytest.raises(RheostatError, match="must be encoded: load it for its task"):
        OfflineData.load(name)


def test_images_of_another_library_are_decoded() -> None:
    pixels = np.tile(np.arange(40, dtype=np.uint8)[None, :, None, None] * 6, (4, 1, 48, 3))
    space = spaces.Box(0, 255, (40, 48, 3), np.uint8)
    smooth = load_for(None, foreign("foreign/jpeg-v0", [episode(3, observations=pixels)], space, ACTION))  # JPEG: close, not equal
    exact = load_for(None, foreign("foreign/raw-v0", [episode(3, observations=pixels)], space, ACTION, jpeg_encoding=False))
    assert exact.transitions.observation.shape == (3, 3, 40, 48)
    assert torch.equal(exact.transitions.observation, torch.from_numpy(pixels[:3].transpose(0, 3, 1, 2).copy()))
    assert (smooth.transitions.observation.int() - exact.transitions.observation.int()).abs().max() <= 3


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
@pytest.mark.parametrize("jpeg", [True, False])
def test_the_other_formats_of_minari_are_read_as_its_hdf5_is(kind: str, jpeg: bool) -> None:
    pytest.importorskip("pyarrow")
    pixels = np.tile(np.arange(40, dtype=np.uint8)[None, :, None, None] * 6, (4, 1, 48, 3))
    short = {"b": np.zeros((3, 2), np.float32), "a": np.array([2, 4, 3])}
    kinds: dict[str, tuple[Any, Any, list[dict[str, Any]]]] = {
        "box": (BOX, ACTION, [episode(3, infos={"note": np.arange(4)}), episode(5)]),
        "image": (spaces.Box(0, 255, (40, 48, 3), np.uint8), spaces.Discrete(3), [episode(3, observations=pixels, actions=np.arange(3))]),
        "tuple": (
            spaces.Tuple((spaces.Discrete(3), spaces.Dict({"x": spaces.MultiBinary((2, 2))}))),
            spaces.MultiDiscrete([2, 3]),
            [episode(3, observations=(np.arange(4) % 3, {"x": np.ones((4, 2, 2), np.int8)}), actions=np.ones((3, 2), np.int64))],
        ),
        "short": (
            spaces.Dict({"b": spaces.Box(-1, 1, (2,), np.float32), "a": spaces.Discrete(5)}),
            ACTION,
            [episode(3, observations=short, truncations=np.zeros(3, bool), terminations=np.arange(3) == 2)],
        ),
    }
    for name, (seen, acted, episodes) in kinds.items():
        one = load_for(None, foreign(f"{name}/hdf-v0", episodes, seen, acted, jpeg_encoding=jpeg))
        other = load_for(None, foreign(f"{name}/col-v0", episodes, seen, acted, jpeg_encoding=jpeg, data_format=kind))
        assert one.digest == other.digest and len(one) == len(other) == sum(len(each["rewards"]) for each in episodes)


def test_damaged_columns_are_described(root: Path) -> None:
    pytest.importorskip("pyarrow")
    name = foreign("cut/columns-v0", [episode(3), episode(2)], BOX, ACTION, data_format="arrow")
    folder = root / name / "data"
    table = next((folder / "1").glob("*.arrow"))
    content = table.read_bytes()
    table.write_bytes(content[: len(content) // 2])
    with pytest.raises(RheostatError, match=r"Episode 1 of .* cannot be read as arrow"):
        OfflineData.load(name)
    table.write_bytes(content)
    (folder / "1/metadata.json").write_text("{}")
    with pytest.raises(RheostatError, match=r"Episode 1 of .* cannot be read as arrow .*total_steps"):
        OfflineData.load(name)
    (folder / "1").rename(folder / "7")
    with pytest.raises(RheostatError, match=r"Episode 1 of .* is missing"):
        OfflineData.load(name)


def test_discrete_actions_count_from_0() -> None:
    data = OfflineData.load(foreign("foreign/discrete-v0", [episode(3, actions=np.array([5, 6, 7]))], BOX, spaces.Discrete(3, start=5)))
    assert data.transitions.action.tolist() == [0, 1, 2] and data.action_space == spaces.Discrete(3)
    with pytest.raises(RheostatError, match="supported are a Box of floats"):
        choice = {"x": np.zeros((3, 1), np.float32)}
        OfflineData.load(foreign("foreign/odd-v0", [episode(3, actions=choice)], BOX, spaces.Dict({"x": ACTION})))


def test_an_unknown_end_is_refused_or_counts_as_cut() -> None:
    name = foreign("foreign/open-v0", [episode(3), episode(2, truncations=np.zeros(2, bool))], BOX, ACTION)
    with pytest.raises(RheostatError, match="step 1 of episode 1 is the last one and neither terminated nor truncated"):
        OfflineData.load(name)
    data = OfflineData.load(name, unknown_end="truncate")
    assert data.transitions.truncated.tolist() == [False, False, True, False, True] and data.cut.tolist() == [False, True]


def test_a_missing_final_observation_is_refused_or_costs_its_step() -> None:
    short = episode(3)
    short["observations"] = short["observations"][:3]
    dead = episode(2, terminations=np.array([False, True]), truncations=np.zeros(2, bool))
    dead["observations"] = dead["observations"][:2]
    name = foreign("foreign/short-v0", [short, dead], BOX, ACTION)
    with pytest.raises(RheostatError, match="Episode 0 of the data set foreign/short-v0 has as many observations as steps"):
        OfflineData.load(name)
    data = OfflineData.load(name, final_observation="drop")
    assert data.lengths.tolist() == [2, 2] and data.cut.tolist() == [True, False]  # the world's end needs no observation after it
    assert data.transitions.truncated.tolist() == [False, True, False, False]
    assert torch.equal(data.transitions.next_observation[1], torch.from_numpy(short["observations"][2]).float())


def test_an_episode_that_goes_on_after_success_is_refused_or_split(tmp_path: Path) -> None:
    reached = episode(5, terminations=np.array([False, True, False, True, False]))
    name = foreign("foreign/on-v0", [reached, episode(2)], BOX, ACTION)
    with pytest.raises(RheostatError, match=r"ended at step 1 of episode 0, but more steps follow: .*--repair.split-after-success"):
        OfflineData.load(name)
    data = OfflineData.load(name, split_after_success=True)
    assert data.lengths.tolist() == [2, 2, 1, 2] and data.continued.tolist() == [False, True, True, False]
    assert data.transitions.terminated.tolist() == [False, True, False, True, False, False, False]
    assert torch.equal(data.transitions.next_observation[:5], torch.from_numpy(reached["observations"][1:]).float())
    assert data.whole_returns.tolist() == pytest.approx([reached["rewards"][:2].sum(), episode(2)["rewards"].sum()])
    assert len(data.from_the_start()) == 4 and "2 of the 4 episodes" in data.warnings[0]
    data.save(tmp_path / "copy")
    again = OfflineData.load(tmp_path / "copy")
    assert again.digest == data.digest and again.continued.tolist() == data.continued.tolist()
    joined = OfflineData.join([data, again])
    assert joined.continued.tolist() == 2 * data.continued.tolist()
    open_end = episode(5, terminations=np.arange(5) == 1, truncations=np.zeros(5, bool))
    rest = OfflineData.load(foreign("foreign/rest-v0", [open_end], BOX, ACTION), split_after_success=True, unknown_end="truncate")
    assert rest.lengths.tolist() == [2, 3] and rest.cut.tolist() == [False, True]


def test_actions_beyond_their_bounds_are_refused_or_clipped() -> None:
    name = foreign("foreign/far-v0", [episode(3, actions=np.array([[0.0], [3.0], [0.5]], np.float32))], BOX, ACTION)
    with pytest.raises(RheostatError, match=r"action 3 of step 1 of episode 0 lies outside -1 to 1"):
        OfflineData.load(name)
    assert OfflineData.load(name, outside="clip").transitions.action.flatten().tolist() == [0.0, 1.0, 0.5]


def test_nan_in_a_file_is_refused_with_its_place() -> None:
    name = foreign("foreign/nan-v0", [episode(3), episode(2, rewards=np.array([0.0, np.nan]))], BOX, ACTION)
    with pytest.raises(RheostatError, match="The data set foreign/nan-v0: the reward of step 1 of episode 1 is not a number"):
        OfflineData.load(name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda file: file.pop("episode_1/truncations"), "Episode 1 of .* has no truncations"),
        (lambda file: file.pop("episode_0/terminations"), "Episode 0 of .* has no terminations"),
        (lambda file: file.pop("episode_0/observations"), "Episode 0 of .* has no observations"),
        (lambda file: file.pop("episode_1"), "holds 1 episodes, but metadata.json says 2"),
        (lambda file: file.move("episode_0", "episode_7"), "Episode 0 of .* is missing"),
        (lambda file: [file.pop("episode_0"), file.pop("episode_1")], "is empty: it has no episode"),
        (lambda file: replace(file, "episode_0/rewards", np.zeros(2)), "has 2 rewards but 3 actions"),
        (lambda file: replace(file, "episode_0/truncations", np.zeros(4, bool)), "has 3 rewards but 4 truncations"),
        (lambda file: replace(file, "episode_0/observations", np.zeros((7, 2))), "has 3 steps and 7 observations"),
        (lambda file: replace(file, "episode_0/rewards", np.zeros((3, 1))), r"rewards have shape \[3, 1\]"),
        (lambda file: replace(file, "episode_0/observations", np.zeros((4, 5))), "arrays of different shapes"),
        (lambda file: [replace(file, f"episode_0/{name}", np.zeros(0)) for name in ("rewards", "actions")], "Episode 0 of .* has no step"),
        (lambda file: replace(file, "episode_1/rewards", np.array([8.0, 8.0])), "was changed after it was written"),
    ],
)
def test_damage_is_described(change: Any, sentence: str, tmp_path: Path) -> None:
    build(facts=FACTS).save(tmp_path / "set")
    with h5py.File(tmp_path / "set/data/main_data.hdf5", "a") as file:
        change(file)
    with pytest.raises(RheostatError, match=sentence):
        OfflineData.load(tmp_path / "set")


def replace(file: Any, name: str, value: np.ndarray) -> None:
    del file[name]
    file[name] = value


@pytest.mark.parametrize(
    ("entry", "value", "sentence"),
    [
        ("data_format", "feather", "is stored as feather; hdf5, arrow and parquet can be read"),
        ("observation_space", None, "has no observation_space"),
        ("action_space", '{"type": "Odd"}', "action_space in .* cannot be understood"),
    ],
)
def test_metadata_that_cannot_be_used_is_described(entry: str, value: Any, sentence: str, tmp_path: Path) -> None:
    path = build().save(tmp_path / "set") / "data/metadata.json"
    metadata = json.loads(path.read_text())
    metadata.pop(entry)
    path.write_text(json.dumps(metadata))
    with pytest.raises(RheostatError, match="does not match its own digest; if you changed it on purpose, remove its entry sha256"):
        OfflineData.load(tmp_path / "set")
    metadata.pop("sha256")
    path.write_text(json.dumps(metadata if value is None else metadata | {entry: value}))
    with pytest.raises(RheostatError, match=sentence):
        OfflineData.load(tmp_path / "set")


def test_places_that_hold_no_data_set_are_described(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=r"There is no data set nowhere/at-all-v0: .*minari download nowhere/at-all-v0"):
        OfflineData.load("nowhere/at-all-v0")
    (tmp_path / "flat.csv").write_bytes(b"x")
    with pytest.raises(RheostatError, match="is a file; a data set in Minari's format is a folder"):
        OfflineData.load(tmp_path / "flat.csv")
    data = build()
    data.save(tmp_path / "set")
    with pytest.raises(RheostatError, match="already exists"):
        data.save(tmp_path / "set")
    with pytest.raises(RheostatError, match="'no version' is no Minari id"):
        data.save(tmp_path / "other", dataset_id="no version")
    (tmp_path / "set/data/main_data.hdf5").write_bytes(b"not HDF5")
    with pytest.raises(RheostatError, match="cannot be read as HDF5"):
        OfflineData.load(tmp_path / "set")
    (tmp_path / "set/data/metadata.json").write_text("{")
    with pytest.raises(RheostatError, match=r"metadata\.json cannot be read"):
        OfflineData.load(tmp_path / "set")


def test_without_the_extra_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build()
    data.save(tmp_path / "set")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[offline\]'"):
        OfflineData.load(tmp_path / "set")
    with pytest.raises(MissingExtra, match=r"pip install .*\[offline\]'"):
        data.save(tmp_path / "other")
