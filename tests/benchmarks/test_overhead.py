"""The overhead benchmark: its arithmetic on made-up turns, and two of its sides for real."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import overhead
from rheostat.methods.table import entry
from rheostat.options import having
from rheostat.training.settings import configure


def turn(seconds: float, generating: float, generated: float, trained: float, flops: float, peak: float = 100.0) -> dict[str, float]:
    counts = {"generated": generated, "learned": trained / 2, "trained": trained}
    return {"seconds": seconds, "generating": generating, "flops": flops, "peak": peak, **counts}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Only GRPO and BAPO."""
    names = [overhead.PLAIN, "BAPO"]
    monkeypatch.setattr(overhead, "SIDES", {name: overhead.SIDES[name] for name in names})
    return names


def test_extra_data_are_not_extra_work(two: list[str]) -> None:
    """GRPO: 1 s of generating and 2 s for 200 trained tokens. Twice as many in 5.5 s is 10 % of work, not 83 %."""
    plain = turn(3.0, 1.0, 100, 200, 2 * 100 + 6 * 200)
    other = turn(5.5, 1.0, 100, 400, 2 * 100 + 6 * 400 + 260, peak=150.0)
    first, second = overhead.compared({overhead.PLAIN: [plain] * 3, "BAPO": [other] * 3})
    assert first["raw_overhead"] == first["net_overhead"] == first["flop_overhead"] == 0 and first["memory_ratio"] == 1
    assert second["raw_overhead"] == pytest.approx(5.5 / 3 - 1) and second["net_overhead"] == pytest.approx(0.1)
    assert second["flop_overhead"] == pytest.approx(0.1) and second["memory_ratio"] == 1.5
    assert second["beside"] == overhead.PLAIN


def test_a_busy_turn_cancels(two: list[str]) -> None:
    """Ratios are taken within a turn: one that was ten times slower on both sides changes nothing."""
    rows: dict[str, Any] = {overhead.PLAIN: [], "BAPO": []}
    for slow in (1.0, 10.0, 3.0):
        rows[overhead.PLAIN].append(turn(2.0 * slow, slow, 100, 100, 800))
        rows["BAPO"].append(turn(2.2 * slow, slow, 100, 100, 800))
    second = overhead.compared(rows)[1]
    assert second["raw_overhead"] == pytest.approx(0.1) and second["net_overhead"] == pytest.approx(0.1)


@pytest.mark.parametrize("name", overhead.SIDES)
def test_every_side_is_a_configuration(name: str) -> None:
    side = overhead.SIDES[name]
    shared = having(entry(side.method).load()(), overhead.SHARED, side.method)
    config = configure(side.method, shared | side.options, preset="tiny")
    assert side.beside in overhead.SIDES and (config.update.epochs, config.update.minibatches) == (2, 2)


@pytest.mark.slow
def test_two_sides_for_real(two: list[str]) -> None:
    found = overhead.measure(threads=1, turns=1, per_turn=1, prompts=2, group=2, model="untrained")
    assert [row["side"] for row in found["rows"]] == two
    for row in found["rows"]:
        assert row["learner_tokens"] == 2 * row["generated_tokens"] > 0 and row["trained_tokens"] > row["learner_tokens"]
        assert row["peak_memory_mb"] > 50
    assert found["rows"][0]["net_overhead"] == pytest.approx(0.0) and "BAPO" in overhead.shown(found)
