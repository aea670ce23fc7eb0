"""Train the method of ``weighted_buffer.py`` from a script of your own, without touching the library."""

from __future__ import annotations

from pathlib import Path

import rheostat
from rheostat.methods.table import METHODS, Entry
from rheostat.training.run import Run

METHODS["weighted-buffer"] = Entry(
    path="weighted_buffer:WeightedBuffer",
    domain="control",
    title="PPO-Buffer with importance weights",
    paper="-",
    verified="an example",
)


def main(directory: Path, steps: int = 4096) -> Run:
    settings = {"batch_steps": 512, "minibatches": 8, "weight_cap": 1.5}
    return rheostat.train("weighted-buffer", "CartPole-v1", directory=directory, steps=steps, **settings)


if __name__ == "__main__":
    run = main(Path("runs/weighted-buffer"))
    print({name: round(run.metrics[-1][name], 3) for name in ("episode_return", "meter/ess", "meter/share_stale")})
