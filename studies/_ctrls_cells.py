"""What the CTRLS study looks at in a finished run: how much it solves, in how many ways, and what its states stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from rheostat.collect.language.latent_chains import CONCENTRATION, STATE_ENTROPY, LatentChains
from rheostat.collect.language.prompt_groups import Graded
from rheostat.tasks.language.operation_chains import SEPARATOR, OperationChains
from rheostat.training.run import Run

SAMPLES = 20
"""Chains of a held-out prompt."""


def look(run: Run) -> dict[str, float]:
    """``success`` of one chain, ``coverage`` of :data:`SAMPLES` (share of prompts with a right one), ``ways``: different right chains of a
    prompt, ``plain_success`` without states, ``alignment`` of states and operations, the read-outs, and the gap of the lessons."""
    method: Any = run.method
    context, task = method.context, method.context.setup.task
    collector: LatentChains = context.collector
    drawn = [(prompt, context.setup.encoder.encode(prompt)) for prompt in task.validation(run.settings.evaluation_episodes)]
    options: dict[str, Any] = {"numbers": list(range(len(drawn))), "purpose": "look", "version": context.updates}
    with context.evaluating():
        graded = collector.sample(drawn, SAMPLES, context.sampling, **options)
        plain = collector.sample_plainly(drawn, SAMPLES, context.sampling, **options)
    right = (graded.scores.reward >= 1).view(len(drawn), SAMPLES)
    texts = [graded.completions[first : first + SAMPLES] for first in range(0, len(graded.completions), SAMPLES)]
    ways = [len({text for text, good in zip(row, goods, strict=True) if good}) for row, goods in zip(texts, right.tolist(), strict=True)]
    found = {
        "success": float(right.float().mean()),
        "coverage": float(right.any(1).float().mean()),
        "ways": sum(ways) / len(ways),
        "plain_success": float((plain.scores.reward >= 1).float().mean()),
        "state_gap": float(run.metrics[0]["latent/state_gap"]),
        "alignment": alignment(task, graded),
        "concentration": float(graded.columns[CONCENTRATION].nanmean()),
        "state_entropy": float(graded.columns[STATE_ENTROPY].nanmean()),
    }
    return {name: round(value, 6) for name, value in found.items()}


def alignment(task: OperationChains, graded: Graded) -> float:
    """Normalised mutual information of the chosen states and the operations of the steps that were written."""
    pairs: list[tuple[int, str]] = []
    for text, states in zip(graded.completions, graded.columns["latent_state"].tolist(), strict=True):
        for step, state in zip(text.split(SEPARATOR), states, strict=False):
            operation = next((each for each in task.operations if step.startswith(f"{each}=")), "none")
            pairs.append((state, operation))
    return mutual_information(pairs)


def mutual_information(pairs: Sequence[tuple[Any, Any]]) -> float:
    """Of two labels, divided by the mean of their entropies; 0 where one of them is constant."""

    def entropy(labels: Sequence[Any]) -> float:
        shares = np.array(list(Counter(labels).values())) / len(labels)
        return float(-(shares * np.log(shares)).sum())

    one, other = entropy([first for first, _ in pairs]), entropy([second for _, second in pairs])
    shared = one + other - entropy(list(pairs))
    return 2 * shared / (one + other) if one > 0 and other > 0 else 0.0
