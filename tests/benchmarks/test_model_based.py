"""The sides of the benchmark of learned models, in a toy form."""

from __future__ import annotations

import pytest

from benchmarks import model_based, off_policy


@pytest.mark.parametrize("name", model_based.SIDES)
def test_a_side_takes_the_steps_it_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_policy, "HIDDEN", (8,))
    monkeypatch.setattr(off_policy, "BATCH", 8)
    monkeypatch.setattr(model_based, "START", 30)
    monkeypatch.setattr(model_based, "EVERY", 10)
    monkeypatch.setattr(model_based, "SMALL", {"model_hidden": (8,), "model_networks": 2, "model_elites": 2})
    made = model_based.side(name).make()
    assert made.advance(20) == 20
    rounds = made.method.context.counts.get("model_rounds", 0)  # type: ignore[attr-defined]
    assert (rounds >= 2) == (name != "sac")
