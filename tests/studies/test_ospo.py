"""The cells of the OSPO study: gradients of both advantages where nothing is carried over, and what a run is measured by."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies._ospo_cells import gradients, look
from tests.tiny_control import learner


def test_without_a_future_one_step_gradients_point_the_same_way_with_less_variance(tmp_path: Path) -> None:
    found = gradients({"seed": 7, "minutes": 20, "vehicles": 20, "orders": 4, "episodes": 80}, tmp_path)
    assert found["cosine"] > 0.98 and found["variance_ratio"] > 2


def test_in_the_last_minute_there_is_no_future_to_be_noisy(tmp_path: Path) -> None:
    found = gradients({"seed": 7, "minutes": 1, "vehicles": 20, "orders": 4, "episodes": 20}, tmp_path)
    assert found["cosine"] == pytest.approx(1) and found["variance_ratio"] == pytest.approx(1)


def test_a_run_that_has_learned_nothing_is_its_first_policy() -> None:
    one = learner("ospo", "city", environment_options={"size": 5, "minutes": 6, "vehicles": 8, "demand": 3.0}, hidden=(8,))

    class Run:
        method = one
        settings = type("Settings", (), {"evaluation_episodes": 3})

    found = look(Run())
    assert found["final_reward"] == found["first_reward"] != found["nearest_reward"]
    assert found["nearest_pick_up"] < found["first_pick_up"]
    one.turn()
    assert look(Run())["first_reward"] == found["first_reward"]
