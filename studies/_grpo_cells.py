"""The cell of the GRPO study: one method, one seed, trained on chain-sum until its generated tokens are spent.

All measurements are made here and not by the methods, so that every arm is looked at in the same way: a sample of held-out prompts, with
a random stream of its own, and nothing of it counts against the budget.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from rheostat.collect.language.prompt_groups import Graded
from rheostat.credit.group_advantages import informative_groups
from rheostat.learner.learner import Learner
from rheostat.masking import masked_mean
from rheostat.streams import derive_seed
from rheostat.training.building import build_method
from rheostat.training.settings import Settings, configure, plain


def build(arguments: dict[str, Any]) -> Learner:
    """The method of a cell in its world."""
    name, overrides = arguments["method"], arguments["config"]
    config = configure(name, overrides | {"budget": "generated tokens", "evaluate_every": 0})
    settings = Settings(
        name,
        arguments["task"],
        arguments["seed"],
        arguments["tokens"],
        evaluation_episodes=0,
        model=arguments["model"],
        config=plain(config),
    )
    method = build_method(settings, settings.task)
    assert isinstance(method, Learner)
    return method


def learn(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell.

    Arguments: ``method``, ``config`` (what differs from its defaults), ``task``, ``model``, ``seed``, ``tokens``, ``look_every``
    updates, ``look_prompts``, ``final_prompts``, ``kept_prompts`` and ``kept_samples`` (0 prompts: kept groups are not measured).

    Returns:
        ``curve``: held-out accuracy, completion length (tokens), entropy (nats per token) and truncated share against ``steps`` (generated
        tokens) and the other budgets; ``start`` and ``final``: the same on more prompts; ``updates``: reward and length of every training
        batch, with sampling rounds and kept share where groups are discarded; ``kept``: see :func:`kept_groups`, before and after training.
    """
    method = build(arguments)
    few, many = arguments["look_prompts"], arguments["final_prompts"]
    kept = {}
    if arguments["kept_prompts"]:
        kept["start"] = kept_groups(method, arguments["kept_prompts"], arguments["kept_samples"])
    start = look(method, many)
    looks = [look(method, few)]
    updates: list[dict[str, float]] = []
    while method.steps < arguments["tokens"]:
        metrics = method.turn()
        names = ("reward", "completion_length", "informative_share", "sampling_rounds", "gradient_steps", "meter/clip_fraction")
        updates.append({"tokens": method.steps} | {name: round(metrics[name], 5) for name in names if name in metrics})
        if method.updates % arguments["look_every"] == 0 or method.steps >= arguments["tokens"]:
            looks.append(look(method, few))
    final = look(method, many)
    if kept:
        kept["end"] = kept_groups(method, arguments["kept_prompts"], arguments["kept_samples"])
    method.close()
    curve = {name: [point[name] for point in looks] for name in looks[0]}
    return {"start": start, "final": final, "curve": curve, "updates": updates, "kept": kept}


def look(method: Learner, prompts: int) -> dict[str, float]:
    """One completion for each of the first ``prompts`` held-out prompts, at the method's own temperature; changes nothing."""
    context = method.context
    held_out = [(prompt, context.setup.encoder.encode(prompt)) for prompt in context.setup.task.validation(prompts)]
    graded = sample(method, [(prompt, ids) for prompt, ids in held_out if ids is not None], 1, "held-out")
    rows = graded.trajectories
    with context.evaluating(), torch.no_grad():
        entropy = context.score(rows).entropy
    assert entropy is not None
    result = {
        "steps": method.steps,
        "updates": method.updates,
        "generated_tokens": context.collector.generated_tokens,
        "learner_tokens": context.learner_tokens,
        "reward_calls": context.collector.graded_rows,
        "flops": float(f"{context.flops:.5g}"),
        "accuracy": graded.metrics["reward"],
        "completion_length": graded.metrics["completion_length"],
        "entropy": masked_mean(entropy, rows.mask).item(),
        "truncated_share": graded.metrics["truncated_share"],
    }
    assert all(map(math.isfinite, result.values()))
    return {name: round(value, 6) for name, value in result.items()}


def kept_groups(method: Learner, prompts: int, samples: int) -> dict[str, Any]:
    """Which groups dynamic sampling keeps, and which it should.

    For each of ``prompts`` fresh prompts, ``samples`` completions beyond one group of G are drawn from the present policy. The group goes
    through the method's own filter. The others say what to expect: with c of n right, ``C(c, G) / C(n, G)`` and ``C(n - c, G) / C(n, G)``
    are unbiased for ``p^G`` and ``(1 - p)^G`` of *this* prompt, so no model of p is needed, and the two are independent of each other.

    Returns:
        Lists over prompts: ``kept`` (0 or 1), ``expected``, and ``right`` (share of all completions).
    """
    context = method.context
    size = context.group_size
    stream = context.setup.task.prompts("train", derive_seed(context.streams.seed, "kept groups"))
    graded = sample(method, context.setup.encoder.take(stream, prompts), size + samples, "kept groups")
    rows = graded.trajectories
    reward = rows.reward.sum(1).view(prompts, size + samples)
    group = rows.group[:, 0].view(prompts, size + samples)[:, :size]
    kept = informative_groups(reward[:, :size].flatten(), group.flatten()).view(prompts, size)[:, 0]
    others = reward[:, size:].sum(1).round().long().tolist()
    total = math.comb(samples, size)
    expected = [1 - (math.comb(right, size) + math.comb(samples - right, size)) / total for right in others]
    return {
        "kept": kept.int().tolist(),
        "expected": [round(value, 6) for value in expected],
        "right": [round(value, 6) for value in reward.mean(1).tolist()],
    }


def sample(method: Learner, drawn: list[Any], group_size: int, purpose: str) -> Graded:
    """Completions with a random stream of their own; the method's books stay as they are."""
    numbers = list(range(len(drawn)))
    context = method.context
    return context.collector.sample(drawn, group_size, context.sampling, numbers=numbers, purpose=purpose, version=context.updates)
