"""What the RLFR study looks at in a finished run: whether workings are valid, and whether the flow field sees a wrong digit."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rheostat.collect.language.experts import expert_rows
from rheostat.credit.flow_rewards import flow_seeds
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.language.chain_sum import ChainSum
from rheostat.tasks.language.task_interface import Prompt
from rheostat.training.run import Run
from studies._grpo_cells import sample

PROMPTS = 512
"""Held-out prompts of a look."""


def look(run: Run) -> dict[str, float]:
    """``accuracy`` of one sample for each held-out prompt; ``valid_share`` of the right ones whose whole working is right (0 where none is
    right); ``auc`` of the field's deviation, where there is a field: see :func:`separation`."""
    method: Any = run.method
    context = method.context
    task: ChainSum = context.setup.task
    prompts = min(PROMPTS, max(4, run.settings.evaluation_episodes))
    drawn = [(prompt, context.setup.encoder.encode(prompt)) for prompt in task.validation(prompts)]
    with context.evaluating():
        graded = sample(method, drawn, 1, "look")
    right = (graded.trajectories.reward.sum(1) >= 1).tolist()
    valid = [done and text in workings(task, prompt) for done, text, prompt in zip(right, graded.completions, graded.prompts, strict=True)]
    found = {"accuracy": sum(right) / len(right), "valid_share": sum(valid) / max(1, sum(right))}
    if "flow" in context.models:
        found["auc"] = separation(method, drawn)
    return {name: round(value, 6) for name, value in found.items()}


def workings(task: ChainSum, prompt: Prompt) -> set[str]:
    """The right ways to write the working of a chain."""
    numbers, operations, _ = task.parse(str(prompt.content))
    return {task.demonstrate(numbers, operations, style) for style in ("steps", "rewrite")}


def separation(method: Any, drawn: list[Any]) -> float:
    """Area under the ROC curve with which the deviation, as the reward takes it, tells a wrong digit from the right one in its place.

    Of every chain two workings are read: the right one, and one in which the result of one step is another digit. The numbers that are
    compared are those of this digit alone.
    """
    context = method.context
    field, chance = context.models["flow"], np.random.default_rng(derive_seed(context.streams.seed, "wrong digits"))
    texts, places = [], []
    for prompt, _ in drawn:
        solution = str(prompt.columns["solution"])
        results = [index + 1 for index, letter in enumerate(solution) if letter == "="]
        place = results[int(chance.integers(len(results)))]
        other = (int(solution[place]) + int(chance.integers(1, 10))) % 10
        texts += [solution, f"{solution[:place]}{other}{solution[place + 1 :]}"]
        places.append(place)
    twice = [each for each in drawn for _ in range(2)]
    rows = expert_rows(context.setup, twice, texts, list(range(len(twice))))
    flops = context.flops
    with torch.no_grad():
        deviations = field.deviations(context, rows, flow_seeds(_OwnChance(context), len(rows)), times=field.options.times).mean(-1)
    context.flops = flops
    first = rows.mask.int().argmax(1)  # a character is a token
    found = deviations[torch.arange(len(rows)), first + torch.tensor(places).repeat_interleave(2)].view(-1, 2)
    good, bad = found[:, 0], found[:, 1]
    return float(((bad[:, None] > good).double() + 0.5 * (bad[:, None] == good).double()).mean())


class _OwnChance:
    """Random streams apart from those of the run."""

    def __init__(self, context: Any) -> None:
        self.streams = Streams(derive_seed(context.streams.seed, "look"))
