"""Checkpoints: whole or not at all."""

from __future__ import annotations

import builtins
import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.training import checkpoint

LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.text(max_size=5))
STATES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(STATES)
def test_split_and_join_are_inverse(state: Any) -> None:
    skeleton, tensors = checkpoint.split_state({"state": state, "tensor": torch.arange(3)})
    joined = checkpoint.join_state(json.loads(json.dumps(skeleton)), tensors)
    assert joined["state"] == state and torch.equal(joined["tensor"], torch.arange(3))


def state(value: int = 0) -> dict[str, Any]:
    return {
        "weights": torch.full((3,), float(value)),
        "nested": [{"rng": torch.arange(5, dtype=torch.uint8)}],
        "count": value,
        "none": None,
    }


def test_round_trip_keeps_dtypes_and_views(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    saved = {"view": base[2:4], "same": base, "bool": torch.tensor([True]), "scalar": torch.tensor(1.5, dtype=torch.float64)}
    loaded = checkpoint.read(checkpoint.write(tmp_path, "a", saved))
    assert all(torch.equal(loaded[key], value) and loaded[key].dtype == value.dtype for key, value in saved.items())


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for value in range(4):
        checkpoint.write(tmp_path, f"iteration-{value}", state(value))
    assert checkpoint.names(tmp_path) == ["iteration-2", "iteration-3"]


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_previous_one_loads(tmp_path: Path, file: str, how: str) -> None:
    checkpoint.write(tmp_path, "iteration-1", state(1))
    path = checkpoint.write(tmp_path, "iteration-2", state(2)) / file
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()
    name, loaded, refused = checkpoint.read_newest(tmp_path)
    assert name == "iteration-1" and loaded["count"] == 1
    assert len(refused) == 1 and "iteration-2" in refused[0] and "damaged" in refused[0]


def test_nothing_whole_is_left(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="no checkpoint"):
        checkpoint.read_newest(tmp_path)
    (checkpoint.write(tmp_path, "iteration-1", state()) / "state.json").write_text("{")
    with pytest.raises(RheostatError, match="No usable checkpoint"):
        checkpoint.read_newest(tmp_path)


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.write(tmp_path, "iteration-1", state(1))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RheostatError, match="the disk is full; earlier checkpoints are intact"):
        checkpoint.write(tmp_path, "iteration-2", state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["iteration-1"]
    assert checkpoint.read_newest(tmp_path)[1]["count"] == 1


def test_a_leftover_of_a_kill_while_writing_is_ignored(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, "iteration-1", state(1))
    (tmp_path / ".iteration-2.writing").mkdir()
    assert checkpoint.read_newest(tmp_path)[0] == "iteration-1"
    checkpoint.write(tmp_path, "iteration-2", state(2))
    assert checkpoint.names(tmp_path) == ["iteration-1", "iteration-2"]


def test_what_cannot_be_saved_is_named() -> None:
    with pytest.raises(RheostatError, match="/method/thing"):
        checkpoint.split_state({"method": {"thing": builtins.object()}})
    with pytest.raises(RheostatError, match="text keys"):
        checkpoint.split_state({1: 2})
