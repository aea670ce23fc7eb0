"""One side of :mod:`benchmarks.commits`: trains a method of whatever Rheostat is on the path, as much as it is told, and says what it cost.

It imports nothing of this folder and only what every version has, because the version may be old. One JSON object per line: first what to
train (``method``, ``task``, ``options``, ``unit``), then numbers of units; 0 ends it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any


def build(job: dict[str, Any]) -> Any:
    """The method, as the command line would build it."""
    from rheostat import api
    from rheostat.training.run import build_method

    settings = api.settings_for(job["method"], job["task"], **job["options"])
    return build_method(settings, settings.task)


def turn_of(method: Any) -> Any:
    """One turn of the training loop; before the compositions it was a function."""
    if hasattr(method, "turn"):
        return method.turn
    from rheostat.learner.method import iterate  # type: ignore[import-not-found]

    return lambda: iterate(method)


def main() -> None:
    """Answers until it is told 0."""
    import torch

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    torch.set_num_threads(1)
    job = json.loads(sys.stdin.readline())
    method = build(job)
    turn = turn_of(method)
    for line in sys.stdin:
        amount = json.loads(line)
        if not amount:
            break
        first, began = getattr(method, job["unit"]), time.process_time()
        while getattr(method, job["unit"]) < first + amount:
            turn()
        seconds, done = time.process_time() - began, getattr(method, job["unit"]) - first
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
        answers.write(json.dumps({"seconds": seconds, "done": done, "peak": peak}) + "\n")
        answers.flush()
    os._exit(0)  # nothing after this line is of interest, worker threads included


if __name__ == "__main__":
    main()
