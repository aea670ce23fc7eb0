"""What the CTRLS study looks at."""

from __future__ import annotations

import math

import pytest

from studies._ctrls_cells import mutual_information


def test_mutual_information_of_two_labels() -> None:
    same = [(0, "a"), (1, "b")] * 4
    assert mutual_information(same) == pytest.approx(1)
    assert mutual_information([(0, "a"), (1, "a"), (0, "b"), (1, "b")]) == pytest.approx(0, abs=1e-12)
    finer = [(number, "ab"[number // 2]) for number in range(4)]  # twice as many states as operations
    assert mutual_information(finer) == pytest.approx(2 * math.log(2) / (math.log(4) + math.log(2)))
    assert mutual_information([(0, "a"), (0, "b")]) == 0
