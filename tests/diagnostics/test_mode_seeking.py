"""Mode-seeking against mode-covering: the exact descent, and the picture that is drawn of it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

from rheostat.diagnostics.mode_seeking import EVERY, descent, mode_seeking, peaked, steps_to_empty
from rheostat.errors import RheostatError
from rheostat.objectives.kl import categorical_kl
from rheostat.reporting.theorem_figures import save_theorem


def test_each_direction_descends_its_own_divergence() -> None:
    start, target = peaked(10, 0, 0.9), peaked(10, 7, 0.9)
    for direction in ("forward", "reverse"):
        path = torch.stack(list(islice(descent(direction, start, target, 0.1), 60))).log()  # type: ignore[arg-type]
        goal = target.expand_as(path)
        found = categorical_kl(goal, path) if direction == "forward" else categorical_kl(path, goal)
        assert bool((found.diff() < 0).all())


def test_a_step_is_the_closed_form() -> None:
    start, target = peaked(8, 0, 0.6), peaked(8, 7, 0.6)
    p, q = start.exp(), target.exp()
    steps = {"forward": p - q, "reverse": p * ((p / q).log() - (p * (p / q).log()).sum())}
    for direction, gradient in steps.items():
        _, moved = islice(descent(direction, start, target, 0.3), 2)  # type: ignore[arg-type]
        torch.testing.assert_close(moved, (start - 0.3 * gradient).softmax(-1))


def test_reverse_kl_empties_the_heavy_bin_first() -> None:
    assert steps_to_empty("reverse") < steps_to_empty("forward")


def test_drawn_and_written(tmp_path: Path) -> None:
    found = mode_seeking(steps=2 * EVERY)
    for rows in found.facts["bandit"].values():
        assert len(rows) == 3 and all(sum(row) == pytest.approx(1, abs=1e-2) for row in rows)
    written = save_theorem(found, tmp_path / "lab")
    assert [path.name for path in written] == [f"mode-seeking.{kind}" for kind in ("json", "png", "svg")]
    assert json.loads(written[0].read_text())["facts"]["every"] == EVERY and written[1].read_bytes().startswith(b"\x89PNG")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RheostatError, match="Could not write"):
        save_theorem(found, blocked / "below")
