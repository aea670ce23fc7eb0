"""The cell of the TreePO study that trains nothing: how well advantages of segments agree with what the segments change.

The value of a node is the mean reward of completions that continue its path; what a segment changes is the value of its node minus that of
its parent. A leaf's value is its reward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.credit.tree_advantages import nodes_of, progress_advantage, sibling_advantage, subgroup_advantage
from rheostat.learner.learner import Learner
from rheostat.parts import Batch
from rheostat.training.building import build_method
from rheostat.training.settings import Settings, configure, plain


def estimates(reward: Tensor, group: Tensor, path: Tensor) -> dict[str, Tensor]:
    """Advantages of segments ``[B, D]`` by name."""
    along: Callable[[Tensor], Tensor] = lambda rows: rows[:, None].expand(path.shape)  # noqa: E731
    return {
        "sub-groups": along(subgroup_advantage(reward, group, path)),
        "root": along(subgroup_advantage(reward, group, path[:, :0])),
        "progress": progress_advantage(reward, group, path),
        "siblings": sibling_advantage(reward, group, path),
    }


def agree(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell.

    Arguments: ``config`` of the method, ``task``, ``environment_options``, ``model``, ``seed``, ``rollouts`` per node.

    Returns:
        ``correlation``: by estimate, of the advantages of all segments of all rows with what the segments change; None where nothing
        varies. ``segments``: how many; ``spread``: standard deviation of what they change.
    """
    config = configure("treepo", arguments["config"] | {"dynamic": "none", "evaluate_every": 0})
    settings = Settings(
        "treepo", arguments["task"], arguments["seed"], 1, evaluation_episodes=0, model=arguments["model"], config=plain(config),
        environment_options=arguments["environment_options"],
    )  # fmt: skip
    method = build_method(settings, settings.task)
    assert isinstance(method, Learner)
    batch = method.collect()
    path, real = batch.columns["path"], batch.columns["path"] >= 0
    value = values(method, batch, arguments["rollouts"])
    change = (value[:, 1:] - value[:, :-1])[real]
    reward = batch.rows.reward.sum(1)
    found = {name: correlation(each[real], change) for name, each in estimates(reward, batch.rows.group[:, 0], path).items()}
    method.close()
    return {"correlation": found, "segments": int(real.sum()), "spread": round(float(change.std()), 5)}


def values(method: Learner, batch: Batch, rollouts: int) -> Tensor:
    """``[B, D + 1]``: the value of every row's node on every level, the root first; 0 behind the last."""
    context, rows, path = method.context, batch.rows, batch.columns["path"]
    nodes, depth, segment = nodes_of(rows.group[:, 0], path), (path >= 0).sum(1), method.config.tree.segment
    prompts = batch.facts["graded"].prompts
    found = torch.zeros(nodes.shape)
    for level in range(nodes.shape[1]):
        found[:, level] = torch.where(depth == level, rows.reward.sum(1), 0.0)
        first = {int(node): row for row, node in reversed(list(enumerate(nodes[:, level].tolist()))) if depth[row] > level}
        if not first:
            continue
        asked, openings = [], []
        for row in first.values():
            kept = rows.action[row][rows.mask[row]][: level * segment].tolist()
            asked.append((prompts[row], rows.action[row][rows.attention[row] & ~rows.mask[row]].tolist() + kept))
            openings.append(context.setup.policy.tokenizer.decode(kept, skip_special_tokens=True))
        sampling = replace(context.sampling, max_new_tokens=context.longest - level * segment)
        graded = context.collector.sample(
            asked, rollouts, sampling, numbers=list(first), purpose=f"value {level}", version=0, openings=openings
        )
        mean = dict(zip(first, graded.scores.reward.view(-1, rollouts).mean(1).tolist(), strict=True))
        inner = torch.tensor([mean.get(int(node), 0.0) for node in nodes[:, level]])
        found[:, level] = torch.where(depth > level, inner, found[:, level])
    return found


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's; None where one of them does not vary."""
    if len(a) < 2 or not float(a.std()) or not float(b.std()):
        return None
    return round(float(np.corrcoef(a.numpy(), b.numpy())[0, 1]), 6)
