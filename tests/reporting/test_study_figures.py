"""A study's result as records: nothing of what its arms were is lost."""

from __future__ import annotations

from typing import Any

from rheostat.reporting.study_figures import records_of

RESULT: dict[str, Any] = {
    "study": "toy",
    "provenance": {"versions": {}, "command": "c"},
    "claims": [
        {
            "name": "a",
            "title": "A",
            "arms": {"A": {"config": {"update": {"learning_rate": 0.1, "minibatches": 4}, "clip": {"low": {"at": 0.2}}}, "steps": 9}},
            "curves": {"A": {"3": {"steps": [1.0, 2.0], "reward": [0.0, None]}}},
        }
    ],
}


def test_nested_options_are_shown_by_their_paths() -> None:
    (record,) = records_of(RESULT)
    assert record.settings["config"] == {"update.learning_rate": 0.1, "update.minibatches": 4, "clip.low.at": 0.2}
    assert (record.settings["seed"], record.settings["steps"], record.settings["method"]) == (3, 9, "A")
