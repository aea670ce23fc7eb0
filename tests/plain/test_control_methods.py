"""Every control method: runs of it go, step by step of every optimiser, as plain implementations with loops say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plain import control_memory, control_on_policy, control_replay, control_trials, control_uni_o4
from tests.plain.control_cases import Case, differences

CASES = [*control_on_policy.CASES, *control_memory.CASES, *control_trials.CASES, *control_replay.CASES, *control_uni_o4.CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_is_the_plain_one(case: Case, tmp_path: Path) -> None:
    turns = case.trained(tmp_path / "run")
    plain = case.followed(turns)
    differences(turns, plain)
    assert all(case.counts.get(name) for name in case.acts), case.counts
    assert any(own.moves for own in plain) and case.counts.get("acted", 1)
