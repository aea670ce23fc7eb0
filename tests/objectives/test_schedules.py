"""Schedules: their corners, that they never leave their range, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.objectives.schedules import PeakSchedule


def test_corners() -> None:
    mu = PeakSchedule(0.5, 0.02, warmup=200, decay=400)
    assert [mu.at(update) for update in (0, 100, 200, 400, 600, 10_000)] == pytest.approx([0, 0.25, 0.5, 0.26, 0.02, 0.02])
    assert PeakSchedule(0.1, 0.1).at(0) == 0.1
    assert [PeakSchedule(1, 0, 0, 3, "switch").at(update) for update in range(5)] == [1, 1, 1, 0, 0]
    assert [PeakSchedule(1, 0, 0, 4, "linear").at(update) for update in range(5)] == [1, 0.75, 0.5, 0.25, 0]


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 200),
    st.sampled_from(["cosine", "linear", "switch"]),
)
def test_it_never_leaves_its_range(peak: float, valley: float, warmup: int, length: int, update: int, decay: str) -> None:
    value = PeakSchedule(peak, valley, warmup, length, decay).at(update)  # type: ignore[arg-type]
    low = 0.0 if update < warmup else min(peak, valley)
    assert low - 1e-12 <= value <= max(peak, valley) + 1e-12
    assert update < warmup + length or value == valley


def test_what_is_refused() -> None:
    with pytest.raises(RheostatError, match="warms up over -1 updates and decays over 3: both count from 0"):
        PeakSchedule(1, 0, -1, 3)
    with pytest.raises(RheostatError, match="Unknown decay 'steps': one of cosine"):
        PeakSchedule(1, 0, decay_form="steps")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="there is no update -1"):
        PeakSchedule(1, 0).at(-1)
    PeakSchedule(1, 0, 20, 40).check(60, "mu")
    with pytest.raises(RheostatError, match=r"schedule of mu ends at update 60 \(20 of warm-up, 40 of decay\), but the run makes 59"):
        PeakSchedule(1, 0, 20, 40).check(59, "mu")
