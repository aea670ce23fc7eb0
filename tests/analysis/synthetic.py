"""Run directories with invented numbers, for tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

CONFIG: dict[str, dict[str, Any]] = {
    "ppo": {"num_envs": 8, "learning_rate": 3e-4, "window": 1, "hidden": [64, 64]},
    "ppo-buffer": {"num_envs": 8, "learning_rate": 3e-4, "window": 2, "hidden": [64, 64]},
    "props": {"num_envs": 8, "learning_rate": 1e-3, "window": 2, "hidden": [64, 64], "behaviour_steps": 256, "behaviour_target_kl": 0.05},
}


def write_run(
    directory: Path,
    *,
    method: str = "ppo",
    task: str = "Hopper-v5",
    seed: int = 0,
    rows: int = 40,
    steps: int = 100_000,
    level: float = 1000.0,
    finished: bool = True,
    command: str = "rheostat compare ppo props --task Hopper-v5 --seeds 5",
    **config: Any,
) -> Path:
    """A run whose return rises to about ``level`` with noise of its own."""
    generator = np.random.default_rng([seed, len(method), rows])
    directory.mkdir(parents=True)
    settings = {
        "method": method,
        "task": task,
        "seed": seed,
        "steps": steps,
        "checkpoint_every": 0,
        "evaluation_episodes": 10,
        "backend": "auto",
        "environment_options": {},
        "config": CONFIG.get(method, {}) | config,
    }
    versions = {"python": "3.11.7", "rheostat": "0.1.0", "torch": "2.13.0"}
    (directory / "config.json").write_text(json.dumps({"settings": settings, "versions": versions, "command": command}))
    peak = level * (1 + 0.12 * generator.normal())
    metrics, timings = [], []
    stale = 0.0 if method == "ppo" else 0.5
    for row in range(1, rows + 1):
        now = row * steps // rows + int(generator.integers(max(1, steps // rows // 3))) if row < rows else steps
        share = now / steps
        metric: dict[str, Any] = {
            "iteration": row,
            "steps": now,
            "updates": row,
            "gradient_steps": 320,
            "learning_rate": 3e-4 * (1 - share),
        }
        if row > 1:
            value = peak * (1 - np.exp(-3.2 * share)) + 0.03 * level * generator.normal()
            metric |= {"episodes": 10 * row, "episode_return": float(value), "episode_length": float(value) / 3}
        metric |= {
            "meter/ess": float(1 - stale * 0.05 - 0.002 * generator.random()),
            "meter/kl_behaviour_k3": float(0.0005 + stale * 0.02 * (1 + generator.random())),
            "meter/clip_fraction": float(0.05 + 0.1 * generator.random() + 0.1 * stale),
            "meter/age_mean": stale if row > 1 else 0.0,
            "meter/ratio_max": float(1.5 + stale + 0.2 * generator.random()),
            "policy_loss": float(-0.02 + 0.01 * generator.normal()),
            "value_loss": float(0.5 * np.exp(-4 * share) + 0.02 * generator.random()),
            "entropy": float(4 - 2 * share + 0.05 * generator.normal()),
            "explained_variance": float(0.9 * share),
        }
        if row % 4 == 0:
            metric["meter/sampling_error"] = float((0.06 if method == "props" else 0.1) * (1 + 0.1 * generator.normal()))
        if method == "props":
            metric["behaviour_kl"] = float(0.02 + 0.01 * generator.random())
        metrics.append(metric)
        timings.append({"iteration": row, "steps": now, "seconds": round(row * (1.4 if method == "props" else 0.8), 3)})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(metric) + "\n" for metric in metrics))
    (directory / "timings.jsonl").write_text("".join(json.dumps(timing) + "\n" for timing in timings))
    if finished:
        summary = {
            "steps": steps,
            "updates": rows,
            "seconds": timings[-1]["seconds"],
            "evaluation_return": float(peak * 1.02),
            "evaluation_deviation": 20.0,
            "evaluation_episodes": 10,
        }
        (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def write_comparison(directory: Path, *, seeds: int = 5, levels: dict[str, float] | None = None, **options: Any) -> Path:
    """Several methods and seeds in one directory."""
    for method, level in (levels or {"ppo": 900.0, "ppo-buffer": 1000.0, "props": 1500.0}).items():
        for seed in range(seeds):
            write_run(directory / f"{method}-s{seed}", method=method, seed=seed, level=level, **options)
    return directory
