"""The cells of the DPO study: preference pairs from a base's own samples, and a policy that learns from them.

Pairs are what a verifier says about samples of the base: the first right and the first wrong completion of a prompt that has both, among
those that say something and ended by themselves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.learner.learner import Learner
from rheostat.streams import derive_seed
from rheostat.tasks.language.chain_sum import ChainSum
from rheostat.tasks.language.task_interface import Prompt, Split
from rheostat.training.building import build_method
from rheostat.training.settings import Settings, configure, plain
from studies._grpo_cells import look, sample

FILE = "pairs.json"
ASKED = 64
"""Prompts that are sampled at once."""


@dataclass(frozen=True)
class Paired(ChainSum):
    """Chain-sum whose training prompts are a list of pairs, in another order in every epoch; held-out prompts are chain-sum's."""

    pairs: tuple[Prompt, ...] = ()

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """An epoch of pairs."""
        if split == "validation":
            return super().block(number, split, seed)
        order = np.random.default_rng([derive_seed(seed, "pairs"), number]).permutation(len(self.pairs))
        return [self.pairs[place] for place in order]


def build(arguments: dict[str, Any], method: str, config: dict[str, Any], steps: int, task: Any) -> Learner:
    """A method on a task."""
    settings = Settings(
        method,
        "chain-sum",
        arguments["seed"],
        steps,
        evaluation_episodes=0,
        model=arguments["model"],
        config=plain(configure(method, config | {"evaluate_every": 0})),
    )
    built = build_method(settings, task)
    assert isinstance(built, Learner)
    return built


def make_pairs(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell that samples: leaves :data:`FILE` in its folder, a list of ``prompt``, ``answer``, ``chosen`` and ``rejected``.

    Arguments: ``model``, ``seed``, ``pairs``, ``group_size`` completions of a prompt; 0 takes what the task writes, for a smoke form.

    Returns:
        ``pairs``; ``mixed_share``: of the prompts asked that had a right and a wrong completion; ``accuracy`` of all completions.
    """
    size = arguments["group_size"]
    if not size:
        (place / FILE).write_text(json.dumps(written(arguments["pairs"], arguments["seed"])))
        return {"pairs": arguments["pairs"], "mixed_share": 1.0, "accuracy": 0.5}
    method = build(arguments, "grpo", {"group_size": size}, 1, "chain-sum")
    context = method.context
    stream = context.setup.task.prompts("train", derive_seed(arguments["seed"], "prompts of pairs"))
    found: list[dict[str, Any]] = []
    mixed: list[bool] = []
    right: list[float] = []
    while len(found) < arguments["pairs"]:
        drawn = context.setup.encoder.take(stream, ASKED)
        graded = sample(method, drawn, size, f"pairs {len(mixed)}")
        reward = graded.trajectories.reward.sum(1).view(ASKED, size) >= 1
        for number, ((prompt, _), good) in enumerate(zip(drawn, reward.tolist(), strict=True)):
            texts = graded.completions[number * size : (number + 1) * size]
            whole = [
                (text, fine) for text, fine in zip(texts, good, strict=True) if 0 < len(text) < context.longest
            ]  # a token is a character
            chosen, rejected = (next((text for text, fine in whole if fine == wanted), None) for wanted in (True, False))
            mixed.append(chosen is not None and rejected is not None)
            right.append(sum(good) / size)
            if mixed[-1]:
                found.append({"prompt": prompt.content, "answer": prompt.answer, "chosen": chosen, "rejected": rejected})
    method.close()
    (place / FILE).write_text(json.dumps(found[: arguments["pairs"]]))
    return {"pairs": arguments["pairs"], "mixed_share": round(float(np.mean(mixed)), 4), "accuracy": round(float(np.mean(right)), 4)}


def written(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs without a model: the working, and a bare wrong answer."""
    prompts = ChainSum().prompts("train", seed).take(count)
    return [
        {
            "prompt": prompt.content,
            "answer": prompt.answer,
            "chosen": prompt.columns["solution"],
            "rejected": f"#{(int(prompt.answer) + 1) % 10}",
        }
        for prompt in prompts
    ]


def labelled(pairs: list[dict[str, Any]], flipped: float, seed: int) -> tuple[Prompt, ...]:
    """Pairs as prompts, a share of them with the labels exchanged; ``completion`` is what an imitator is shown."""
    wrong = np.random.default_rng(derive_seed(seed, "flips")).random(len(pairs)) < flipped
    prompts = []
    for pair, other in zip(pairs, wrong.tolist(), strict=True):
        chosen, rejected = (pair["rejected"], pair["chosen"]) if other else (pair["chosen"], pair["rejected"])
        prompts.append(Prompt(pair["prompt"], pair["answer"], {"chosen": chosen, "rejected": rejected, "completion": chosen}))
    return tuple(prompts)


def learn(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell that learns.

    Arguments: ``method``, ``config``, ``model``, ``seed``, ``steps`` (updates), ``data`` (key of the cell with the pairs), ``flipped``
    (share of labels), ``look_every`` updates, ``look_prompts``, ``final_prompts``.

    Returns:
        ``start`` and ``final``: accuracy, length and entropy of held-out samples; ``curve``: the same on fewer prompts against updates;
        ``margins``: mean log-ratio of chosen over rejected answers of every batch before its gradient step, empty without pairs.
    """
    pairs = json.loads((place.parent / arguments["data"] / FILE).read_text())
    task = Paired(pairs=labelled(pairs, arguments["flipped"], arguments["seed"]))
    method = build(arguments, arguments["method"], arguments["config"], arguments["steps"], task)
    start, looks, margins = look(method, arguments["final_prompts"]), [], []
    for update in range(arguments["steps"]):
        if update % arguments["look_every"] == 0:
            looks.append(look(method, arguments["look_prompts"]) | {"steps": update})
        metrics = method.turn()
        margins += [round(metrics["margin"], 5)] if "margin" in metrics else []
    final = look(method, arguments["final_prompts"])
    looks.append(look(method, arguments["look_prompts"]) | {"steps": arguments["steps"]})
    method.close()
    return {"start": start, "final": final, "curve": {name: [one[name] for one in looks] for name in looks[0]}, "margins": margins}
