"""The cell of the ReLIC study: a recurrent policy, looked at episode by episode."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from studies._relic_cells import look
from tests.tiny_control import learner


def test_a_recurrent_policy_is_told_by_episode() -> None:
    options: dict[str, Any] = {"size": 2, "horizon": 3, "trial_episodes": 4}
    one = learner("recurrent-ppo", "darkroom", environment_options=options)
    settings = SimpleNamespace(seed=0, task="darkroom", environment_options=options, evaluation_episodes=5)
    found = look(SimpleNamespace(method=one, settings=settings))
    assert [name for name in found if name.startswith("in_context/")] == [f"in_context/episode_{k}" for k in (1, 2, 3, 4)]
    assert found["evaluation_trials"] == 5 and 0 <= found["evaluation_return"] <= 3
    assert found["evaluation_return"] == pytest.approx(sum(found[f"in_context/episode_{k}"] for k in (1, 2, 3, 4)) / 4)
    assert found == look(SimpleNamespace(method=one, settings=settings))
