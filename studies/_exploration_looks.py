"""What finished runs on ``chain-sum-interfere`` are asked: easy and hard prompts, a working's first token, and solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rheostat.analysis.pass_at_k import pass_at_k
from rheostat.collect.language.experts import expert_rows
from rheostat.tasks.language.task_interface import Prompt

SEED = 987_654
"""Of the prompts, which are drawn as in training; every run is asked the same ones."""
BLOCKS = 50


def kinds(task: Any, each: int) -> dict[str, list[Prompt]]:
    """Different prompts by kind: short chains, which may be answered bare, and long ones, which need the working."""
    found: dict[str, dict[str, Prompt]] = {"easy": {}, "hard": {}}
    for number in range(BLOCKS):
        for prompt in task.block(number, "train", SEED):
            of = found["easy" if len(task.parse(str(prompt.content))[0]) <= 2 else "hard"]
            if len(of) < each:
                of.setdefault(prompt.key, prompt)
    return {kind: list(those.values()) for kind, those in found.items()}


def ability(run: Any, each: int = 48, samples: int = 64) -> dict[str, Any]:
    """By kind of prompt: ``pass@1``; ``coverage``, pass@k at all samples; ``rare``, the mean probability of the first token of the working;
    ``solutions``, the log-probability of every prompt's working in nats."""
    context = run.method.context
    setup, found = context.setup, dict[str, Any]()
    with context.evaluating(), torch.no_grad():
        for kind, prompts in kinds(setup.task, each).items():
            drawn = [(prompt, setup.encoder.encode(prompt)) for prompt in prompts]
            numbers = list(range(len(drawn)))
            graded = context.collector.sample(
                drawn, samples, context.sampling, numbers=numbers, purpose=f"study look {kind}", version=context.updates
            )
            right = (graded.scores.valid & (graded.scores.reward >= 1.0)).view(len(drawn), samples).numpy()
            known = expert_rows(setup, drawn, [setup.task.expert(prompt, np.random.default_rng(0)) for prompt in prompts], numbers)
            logp = context.score(known, entropy=False).logp
            first = logp[torch.arange(len(known)), known.mask.int().argmax(1)]
            found |= {
                f"{kind} pass@1": float(pass_at_k(right, 1).mean()),
                f"{kind} coverage": float(pass_at_k(right, samples).mean()),
                f"{kind} rare": float(first.exp().mean()),
                f"{kind} solutions": [round(value, 4) for value in logp.sum(1).tolist()],
            }
    return found


def glance(run: Any) -> dict[str, Any]:
    """The same on a few prompts, for smoke forms."""
    return ability(run, 3, 2)
