"""Published reference returns."""

from __future__ import annotations

import pytest

from rheostat.tasks.control.reference_returns import published


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_d4rls_values_apply_to_its_environments_in_every_version_in_use(version: int) -> None:
    assert published(f"HalfCheetah-v{version}") == (-280.178953, 12135.0)
    assert published(f"gymnasium:Walker2d-v{version}") == (1.629008, 4592.3)


@pytest.mark.parametrize("task", ["Pendulum-v1", "Hopper-v0", "Hopper-v1", "HopperBulletEnv-v5", "my/Hopper-v5", "AntMaze-v5", ""])
def test_nothing_else_has_published_values(task: str) -> None:
    assert published(task) is None
