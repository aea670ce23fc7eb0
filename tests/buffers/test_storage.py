"""Rows in bytes, and where they may lie."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import pytest
import torch

from rheostat.buffers import storage
from rheostat.buffers.storage import Layout, allocate, free_memory
from rheostat.errors import RheostatError

FIELDS: storage.Fields = {
    "flag": (torch.bool, ()),
    "image": (torch.uint8, (3, 2, 5)),
    "number": (torch.int64, ()),
    "vector": (torch.float32, (3,)),
    "matrix": (torch.float64, (2, 2)),
    "half": (torch.float16, (1,)),
}


def test_every_field_can_be_written_and_read_without_touching_another() -> None:
    layout, chance = Layout(FIELDS), torch.Generator().manual_seed(0)
    assert layout.width == 8 + 32 + 12 + 2 + 1 + 30 + 3
    rows = torch.zeros(7, layout.width, dtype=torch.uint8)
    written = {name: torch.randint(0, 2, (7, *shape), generator=chance).to(dtype) for name, (dtype, shape) in FIELDS.items()}
    for name, value in layout.views(rows).items():
        value.copy_(written[name])
    for index in (torch.arange(7), torch.tensor([6, 0, 6])):
        for name, value in layout.views(rows.index_select(0, index)).items():
            assert value.dtype == FIELDS[name][0] and torch.equal(value, written[name][index]), name


def test_a_layout_survives_being_saved_as_text() -> None:
    layout = Layout(FIELDS)
    again = Layout.from_state(layout.state_dict())
    assert again.fields == layout.fields and again.offsets == layout.offsets and again.width == layout.width


def mapped_here() -> bool:
    return "/replay-" in Path("/proc/self/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_mapped_file_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert not mapped_here()
    rows = allocate(1000, 64, folder=folder, memory_share=0.0)
    assert mapped_here() and list(folder.iterdir()) == [] and not rows.any()
    rows[5] = 3
    assert rows[5].sum() == 3 * 64 and rows.sum() == 3 * 64
    del rows
    gc.collect()
    assert not mapped_here()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_the_file_is_only_taken_when_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "free_memory", lambda: 1_000_000)
    small = allocate(5_000, 100, folder=tmp_path)
    assert not mapped_here()
    large = allocate(5_001, 100, folder=tmp_path)
    assert mapped_here() and small.shape == (5_000, 100) and large.shape == (5_001, 100)


def test_what_fits_nowhere_is_refused_with_what_would_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "free_memory", lambda: 8 * 10**9)
    usage = storage.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda folder: usage._replace(free=20 * 10**9))
    with pytest.raises(RheostatError) as refusal:
        allocate(10**9, 92, beside=8.0)
    assert str(refusal.value) == (
        "A replay of 1,000,000,000 steps needs 100.0 GB (100 bytes a step), but 8.0 GB of memory are free, of which 50% may be used: "
        "choose a capacity of at most 40,000,000, or give it a folder on a disk."
    )
    with pytest.raises(
        RheostatError, match=r"and 20\.0 GB of the disk of .*, of which 90% may be used: choose a capacity of at most 180,000,000\."
    ):
        allocate(10**9, 100, folder=tmp_path)
    with pytest.raises(RheostatError, match="of at most 720,000,000"):  # the priorities do not fit memory
        allocate(10**9, 1, beside=10.0, folder=tmp_path)


def test_a_disk_that_fills_up_or_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def unable(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(RheostatError, match=r"cannot be kept in .*: No space left on device; name another folder or lower its capacity"):
        allocate(10, 8, folder=tmp_path, memory_share=0.0)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
    assert allocate(10, 8, folder=tmp_path, memory_share=0.0).shape == (10, 8)
    (tmp_path / "file").touch()
    with pytest.raises(RheostatError, match="cannot be kept in"):
        allocate(10, 8, folder=tmp_path / "file", memory_share=0.0)


def test_free_memory_is_known_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = free_memory()
    assert here is None or 10**6 < here < 10**15
    (tmp_path / "memory.max").write_text("5000")
    (tmp_path / "memory.current").write_text("4000")
    (tmp_path / "memory.stat").write_text("active_file 7\ninactive_file 500\n")
    monkeypatch.setattr(storage, "CONTAINERS", ((tmp_path, "memory.max", "memory.current"),))
    assert free_memory() == 1500
    (tmp_path / "memory.max").write_text("max")
    assert free_memory() != 1500

    def missing(path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    elsewhere = free_memory()
    assert elsewhere is None or elsewhere > 10**6
    monkeypatch.setattr(os, "sysconf_names", {})
    assert free_memory() is None
    assert allocate(10, 8).shape == (10, 8)
