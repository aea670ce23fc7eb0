"""Settings of every test: property tests without a deadline on a shared machine and with the same examples each time; one thread.

Tests that ``nightly.txt`` names are slow: they run in ``make nightly``. Others are marked where they stand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from rheostat.files import cache_root

settings.register_profile("rheostat", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("rheostat")
torch.set_num_threads(1)

NIGHTLY = frozenset(line for line in (Path(__file__).parent / "nightly.txt").read_text().splitlines() if line and not line.startswith("#"))
"""Tests by their ids, from the folder of the tests on."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what the list names."""
    for item in items:
        if item.nodeid.removeprefix("tests/") in NIGHTLY:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is noted of runs goes into a folder of the tests; base models and teachers, which take minutes, are the user's."""
    users, ours = cache_root(), tmp_path_factory.mktemp("cache")
    for kept in ("base-models", "teachers"):
        (users / kept).mkdir(parents=True, exist_ok=True)
        (ours / kept).symlink_to(users / kept, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RHEOSTAT_CACHE", str(ours))
        yield
