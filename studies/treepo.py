"""TreePO: are generated tokens saved by growing trees, at equal accuracy, and do sub-groups credit segments better?

Chains of three to eight terms from a tiny base that knows chains of up to four; a step of the working is six characters, and a segment is
six tokens. Three arms:

independent      16 completions of a prompt for themselves: a tree whose root has 16 branches and whose segments have one
tree, root       two branches of a segment until 16 paths are alive; a path is compared with its whole tree
tree, sub-groups the same trees; a path is compared with every group it belongs to, averaged (TreePO)

Equal in all arms: base, prompts of a seed, 8 prompts x 16 completions, dynamic sampling, clip, overlong penalty, advantages whitened over
the batch, AdamW with learning rate 2e-4 and no weight decay, one gradient step per batch, and the number of generated tokens, of which a
shared beginning costs one. The noise of a completion is the same in all arms up to where it branches. No arm was tuned.

The sizes were cut before the study was run, after one pilot seed (1000) had shown what a cell costs: from 120,000 generated tokens,
16 prompts and 64 completions per node to 40,000, 8 and 32. The margins did not change.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

tokens     a finished completion costs at least 25 % fewer generated tokens in both tree arms than in the independent one, averaged over
           training.
accuracy   at the same number of generated tokens, both tree arms end not below the independent one by more than two points.
credit     on trees of the base model, advantages of segments from sub-groups correlate better with what the segments change (the value of
           a node minus that of its parent, each from 32 completions) than advantages from the whole tree alone.

Accuracy is that of one sampled completion per held-out prompt at temperature 1. What cannot be shown here: GPU hours, and what a cache of
shared beginnings saves; the engine here computes them again for every segment, which generated tokens do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import (
    Arm,
    Cell,
    Claim,
    Judgement,
    Results,
    Study,
    average,
    better,
    curves,
    finals,
    not_worse,
    reaches,
    smaller,
    summary,
    trained,
)

INDEPENDENT, ROOT, SUBGROUPS = "independent", "tree, root", "tree, sub-groups"
TREES = (ROOT, SUBGROUPS)
MARGINS = {"accuracy": 0.02, "correlation": 0.02}
LEAST_SAVED = 0.25
SHARED: dict[str, Any] = {
    "learning_rate": 2e-4,
    "warmup": 0,
    "weight_decay": 0.0,
    "segment": 6,
    "repetition_count": 0,
    "overlong_buffer": 8,
    "evaluate_every": 0,
}
METRICS = (
    "reward",
    "entropy",
    "completion_length",
    "informative_share",
    "tree/generated_per_path",
    "tree/shared_share",
    "tree/prefilled_tokens",
    "tree/refilled_share",
    "meter/gradient_norm",
)


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    tokens: int = 40_000
    prompts: int = 8
    group_size: int = 16
    held_out: int = 512
    rollouts: int = 32
    terms: int = 8
    model: str = "chain-sum-short"
    first_seed: int = 0


SMOKE = Sizes(1, 300, 2, 4, 4, 2, 4, "untrained")


def claims(sizes: Sizes) -> list[Claim]:
    """Tokens and accuracy of the same runs, and credit without any training."""
    batch = {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size}
    world = {"min_terms": 3, "max_terms": sizes.terms}
    alone = {"branches": 1, "root_branches": sizes.group_size, "refill": "none", "advantage": "root"}
    cells = trained(
        {INDEPENDENT: Arm("treepo", alone), ROOT: Arm("treepo", {"advantage": "root"}), SUBGROUPS: Arm("treepo")},
        task="chain-sum",
        steps=sizes.tokens,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared=SHARED | batch | {"budget": "generated tokens"},
        settings={
            "model": sizes.model,
            "evaluation_episodes": sizes.held_out,
            "checkpoint_every": sizes.tokens,
            "environment_options": world,
        },
        metrics=METRICS,
        cost=47.0,
    )
    setting = (
        f"chain-sum with 3 to {sizes.terms} terms from {sizes.model}, {sizes.tokens:,} generated tokens in batches of {sizes.prompts} "
        f"prompts x {sizes.group_size}, segments of 6 tokens, learning rate 2e-4; one sample for each of {sizes.held_out} held-out prompts"
    )

    def judge_tokens(result: Results) -> Judgement:
        cost = {arm: average(found, result, "tree/generated_per_path") for arm, found in cells.items()}
        conditions = [
            smaller(f"generated tokens per completion of {arm} and {INDEPENDENT}", cost[arm], cost[INDEPENDENT], factor=1 - LEAST_SAVED)
            for arm in TREES
        ]
        names = ("tree/shared_share", "tree/refilled_share", "completion_length", "informative_share")
        metrics: dict[str, Any] = {"generated_per_completion": {arm: summary(found) for arm, found in cost.items()}}
        metrics |= {name: {arm: summary(average(found, result, name)) for arm, found in cells.items()} for name in names}
        return Judgement(conditions, metrics, curves(cells, result))

    def judge_accuracy(result: Results) -> Judgement:
        final = {arm: finals(found, result) for arm, found in cells.items()}
        conditions = [
            not_worse(f"accuracy of {arm} and {INDEPENDENT}", final[arm], final[INDEPENDENT], margin=MARGINS["accuracy"]) for arm in TREES
        ]
        return Judgement(conditions, {"final": {arm: summary(found) for arm, found in final.items()}})

    return [
        Claim(
            "tokens",
            "Trees save a quarter of the generated tokens",
            "Up to 40 % less sampling at the level of trajectories and 35 % at that of tokens; 22 to 43 % of GPU hours",
            setting,
            cells,
            judge_tokens,
            margins={"tokens": 1 - LEAST_SAVED},
        ),
        Claim(
            "accuracy",
            "At equal generated tokens, trees are no less accurate",
            "Equal or better accuracy than sampling as in GRPO (Qwen2.5-7B)",
            setting,
            cells,
            judge_accuracy,
            margins={"accuracy": MARGINS["accuracy"]},
            preconditions=(reaches(INDEPENDENT, cells, least=0.15, most=0.95),),
        ),
        credit(sizes, SHARED | batch, world),
    ]


def credit(sizes: Sizes, config: dict[str, Any], world: dict[str, Any]) -> Claim:
    """Whether sub-groups say better which segments mattered."""
    cells = {
        seed: Cell(
            "studies._treepo_cells:agree",
            {
                "config": config,
                "task": "chain-sum",
                "environment_options": world,
                "model": sizes.model,
                "seed": seed,
                "rollouts": sizes.rollouts,
            },
            f"values of nodes, seed {seed}",
            60.0,
            (),
            ("rheostat.methods.language.treepo",),
        )
        for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    }

    def judge(result: Results) -> Judgement:
        found = {name: correlations(cells, result, name) for name in ("sub-groups", "root", "progress", "siblings")}
        condition = better(
            "correlation of sub-groups and of the whole tree", found["sub-groups"], found["root"], margin=MARGINS["correlation"]
        )
        metrics: dict[str, Any] = {name: summary(values) for name, values in found.items()}
        metrics["segments"] = summary({seed: float(result(cell)["segments"]) for seed, cell in cells.items()})
        metrics["spread of what they change"] = summary({seed: float(result(cell)["spread"]) for seed, cell in cells.items()})
        return Judgement([condition], metrics)

    return Claim(
        "credit",
        "Sub-groups credit segments better than the whole tree",
        "Averaged sub-group advantages are the final method; one advantage per response is coarse",
        f"trees of {sizes.model}, {sizes.prompts} prompts x {sizes.group_size}; values of nodes from {sizes.rollouts} completions each",
        {"trees": cells},
        judge,
        margins={"correlation": MARGINS["correlation"]},
    )


def correlations(cells: Mapping[int, Cell], result: Results, name: str) -> dict[int, float]:
    """By seed; 0 where nothing varies."""
    return {seed: float(result(cell)["correlation"][name] or 0.0) for seed, cell in cells.items()}


STUDY = Study("treepo", "TreePO", "arXiv 2508.17445", claims, full=Sizes(), smoke=SMOKE)
