"""A tiny chat model, prompts and a reward that every test here may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.border.models import build, sums, write_rows

REWARDS = Path(__file__).with_name("rewards.py")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of a tiny Qwen3."""
    return build(tmp_path_factory.mktemp("models") / "qwen3")


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of twenty chat prompts with answers."""
    return write_rows(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", sums())


@pytest.fixture(scope="session")
def digits() -> str:
    """A reward that a random model gets unequal amounts of."""
    return f"{REWARDS}:digits"
