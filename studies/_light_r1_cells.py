"""The cells of the Light-R1 study: a model that has imitated an expert, and what goes on from there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.collect.language.pass_rates import pass_rates
from rheostat.experiments.recipe_stages import within
from rheostat.streams import derive_seed
from rheostat.tasks.language.chain_sum import ChainSum
from rheostat.tasks.language.task_interface import Prompt, Split
from rheostat.training.building import build_method
from rheostat.training.settings import Settings, configure, plain

MODEL = "model"
EASY, HARD, MIXED = (4, 5), (6, 8), (4, 8)
"""Terms of chains."""


@dataclass(frozen=True)
class Chosen(ChainSum):
    """Chain-sum whose training prompts are a list, in another order in every epoch; held-out prompts are chain-sum's."""

    prompts_kept: tuple[Prompt, ...] = ()

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """An epoch of the list."""
        if split == "validation" or not self.prompts_kept:
            return super().block(number, split, seed)
        order = np.random.default_rng([derive_seed(seed, "chosen prompts"), number]).permutation(len(self.prompts_kept))
        return [self.prompts_kept[place] for place in order]


def chains(terms: tuple[int, int], kept: tuple[Prompt, ...] = ()) -> ChainSum:
    """Chains of so many terms."""
    return Chosen(min_terms=terms[0], max_terms=terms[1], prompts_kept=kept)


def build(arguments: dict[str, Any], stage: dict[str, Any], model: str, task: ChainSum) -> Any:
    """The method of a stage, from a model."""
    config = plain(configure(stage["method"], stage["config"] | {"evaluate_every": 0}))
    settings = Settings(
        stage["method"], "chain-sum", arguments["seed"], stage["steps"], evaluation_episodes=0, config=config, threads=1, model=model
    )
    return build_method(settings, task)


def learn(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: stages in a row, each from the weights of the one before; leaves the last model in its folder.

    Arguments: ``seed``; ``model`` to begin with, or ``data`` (key of the cell whose model it is); ``stages`` with ``method``, ``config``,
    ``steps``, ``terms``, and ``pool`` (without it, prompts without end) of which ``pass_rate`` keeps some; ``held_out`` prompts, and
    ``samples`` of each.

    Returns:
        ``final``: accuracy on held-out hard chains and mean length; ``stages``: for each the curve of its metrics, and prompts kept.
    """
    model = str(place.parent / arguments["data"] / MODEL) if "data" in arguments else arguments["model"]
    told = []
    for number, stage in enumerate(arguments["stages"]):
        task, kept = chains(tuple(stage["terms"])), None
        if stage.get("pool"):
            kept = filtered(arguments, stage, model, task)
            task = chains(tuple(stage["terms"]), tuple(kept))
        method = build(arguments, stage, model, task)
        rows = [method.turn() | varied(method, stage) for _ in range(stage["steps"])]
        names = ("margin", "chosen_log_ratio", "rejected_log_ratio", "reward", "completion_length", "paired_share", "varied")
        curve = {name: [round(float(row[name]), 5) for row in rows if name in row] for name in names if any(name in row for row in rows)}
        told.append({"curve": curve, "kept": None if kept is None else len(kept)})
        folder = place / (MODEL if number == len(arguments["stages"]) - 1 else f"stage-{number}")
        method.policy.causal.save_pretrained(folder)
        method.policy.tokenizer.save_pretrained(folder)
        method.close()
        model = str(folder)
    return {"final": look(arguments, model), "stages": told}


def varied(method: Any, stage: dict[str, Any]) -> dict[str, float]:
    """Share of the groups of the last batch whose members do not all earn the same; empty for methods that compare no groups."""
    if stage["method"] != "light-r1":
        return {}
    reward = method.context.graded.scores.reward.view(-1, method.context.group_size)
    return {"varied": float((reward.amax(1) > reward.amin(1)).float().mean())}


def filtered(arguments: dict[str, Any], stage: dict[str, Any], model: str, task: ChainSum) -> list[Prompt]:
    """A pool of prompts, or those of them that the stage's first policy solves so often; all of them where that leaves none."""
    pool = task.prompts("train", derive_seed(arguments["seed"], "pool")).take(stage["pool"])
    if stage["pass_rate"] is None:
        return pool
    method = build(arguments, stage, model, task)
    drawn = [(prompt, method.context.setup.encoder.encode(prompt)) for prompt in pool]
    low, high = stage["pass_rate"]
    with method.context.evaluating():
        parts = list(pass_rates(method.context.collector, drawn, 8, method.context.sampling, version=0))
    method.close()
    kept = within({key: rate for _, rates in parts for key, rate in rates.items()}, low, high)
    return [prompt for prompt in pool if prompt.key in kept] or pool


def look(arguments: dict[str, Any], model: str) -> dict[str, float]:
    """Accuracy and length on held-out hard chains: several samples of each, at temperature 1."""
    method = build(arguments, {"method": "grpo", "config": {}, "steps": 1}, model, chains(HARD))
    context = method.context
    drawn = [(prompt, context.setup.encoder.encode(prompt)) for prompt in context.setup.task.validation(arguments["held_out"])]
    options: dict[str, Any] = {"numbers": list(range(len(drawn))), "purpose": "held-out", "version": 0}
    with context.evaluating():
        found = context.collector.sample(drawn, arguments["samples"], context.sampling, **options)
    method.close()
    lengths = found.trajectories.mask.sum(1).float()
    return {"accuracy": round(float(found.scores.reward.mean()), 5), "completion_length": round(float(lengths.mean()), 3)}
