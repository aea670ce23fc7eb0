"""A grader as they are found: it executes the answer, looks at what came of it, and compares."""

from __future__ import annotations

from typing import Any

from rheostat.credit.verifiers import Rollout


class Grader:
    """1 where the text, executed as Python, leaves the expected answer in ``got``."""

    name = "stand-in"

    def __call__(self, rollout: Rollout) -> dict[str, Any]:
        world = dict(rollout.columns.get("world", {}))
        exec(rollout.completion, world)
        got = str(world.get("got", ""))
        return {"score": float(got == rollout.answer), "got": got[:300]}
