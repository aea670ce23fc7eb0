"""AceReason: does one step per batch keep the entropy, does code cost mathematics, and do growing answers cost anything?

Chains of sums ("math") and stack programs ("code") from one base that works out a third of the first and slips in every other one of the
second (math-and-code). Three experiments, each with arms of its own:

steps    mathematics and code mixed: one gradient step per batch; four, one on each quarter; four at a quarter of the rate
order    mathematics then code; code then mathematics; both mixed all along. Two stages each, of as many updates
length   mathematics with a limit of 16, then 32, then 48 tokens; 48 tokens all along. Equal in generated tokens

Equal in all arms of an experiment: base, batches of 32 prompts x 8 completions, AdamW with learning rate 2e-4 (but for the quarter), no
KL, no entropy bonus. No arm was tuned.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

steps    entropy in the last fifth of training: four steps end at less than three quarters of one step's. Which ends higher in accuracy may
         be either, and is reported.
order    mathematics after the stage of code is not worse than before it by 5 points. Whether mathematics helps code is reported.
length   mathematics at the end of the growing limit is not worse than at 48 tokens by 2 points, and its answers are shorter; ratios within
         2 % do not matter.

Accuracy is that of one sampled completion per held-out prompt at temperature 1. What cannot be shown here: gains over distillation,
transfer to code by what pre-training knows, and problems that were unsolvable before. That the one step is REINFORCE's is exact, and tested
with the method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rheostat.experiments.studies import (
    Arm,
    Cell,
    Claim,
    Judgement,
    Precondition,
    Results,
    Study,
    curves,
    finals,
    not_worse,
    reaches,
    smaller,
    summary,
    trained,
)

TASK = "math-and-code"
SHARED: dict[str, Any] = {"kl_coefficient": 0.0, "warmup": 0, "weight_decay": 0.0, "evaluate_every": 0}
METRICS = ("reward", "entropy", "completion_length", "meter/clip_fraction", "meter/gradient_norm", "math", "code")
MATH, CODE, LENGTH = "validation_math", "validation_code", "validation_length"
MARGINS = {"math": 0.05, "accuracy": 0.02, "length": 1.02}
FACTOR = 0.75
"""Of the entropy: a quarter less."""
RATE = 2e-4
ARMS = {
    "one step": Arm("acereason", {"learning_rate": RATE}),
    "four steps": Arm("acereason", {"learning_rate": RATE, "minibatches": 4}),
    "four small steps": Arm("acereason", {"learning_rate": RATE / 4, "minibatches": 4}),
}
ORDERS = {"math, code": ("math", "code"), "code, math": ("code", "math"), "mixed": ("both", "both")}
LIMITS = {"growing": (16, 32, 48), "fixed": (48,)}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    updates: int = 40
    stage: int = 20
    tokens: int = 120_000
    prompts: int = 32
    group_size: int = 8
    held_out: int = 512
    model: str = "math-and-code"
    first_seed: int = 0


SMOKE = Sizes(1, 2, 1, 90, 2, 4, 4, "untrained")
COST = 24.0
"""Seconds of 40 updates."""


def staged(label: str, sizes: Sizes, stages: list[dict[str, Any]], budget: int, cost: float) -> dict[int, Cell]:
    """Cells of a recipe, by seed.

    Args:
        label: of the arm.
        sizes: of the study.
        stages: what differs between the stages.
        budget: of the whole recipe, in the unit of its stages.
        cost: expected seconds.
    """
    batch = {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size, "learning_rate": RATE}
    every = SHARED | batch | {"method": "acereason", "checkpoint_every": budget, "rollouts_kept": 0}
    recipe = {
        "name": "stages",
        "task": TASK,
        "threads": 1,
        "model": sizes.model,
        "evaluation_episodes": sizes.held_out,
        "stage": [every | {"name": f"stage-{number}"} | stage for number, stage in enumerate(stages, 1)],
    }
    arguments = {"recipe": recipe, "metrics": list(METRICS), "steps": budget}
    return {
        seed: Cell(
            "studies._stages_cells:staged",
            arguments | {"seed": seed},
            f"{label}, seed {seed}",
            cost,
            (),
            ("rheostat.methods.language.acereason",),
        )
        for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    }


def claims(sizes: Sizes) -> list[Claim]:
    """Three experiments."""
    batch = f"batches of {sizes.prompts} prompts x {sizes.group_size}; one sample for each of {sizes.held_out} held-out prompts"
    steps = trained(
        ARMS,
        task=TASK,
        steps=sizes.updates,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared=SHARED | {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size},
        settings={"model": sizes.model, "evaluation_episodes": sizes.held_out, "checkpoint_every": sizes.updates},
        metrics=METRICS,
        cost=COST,
    )
    orders = {
        name: staged(
            name,
            sizes,
            [{"steps": sizes.stage, "environment_options": {"learn": side}} for side in sides],
            2 * sizes.stage,
            COST * 2 * sizes.stage / 40,
        )
        for name, sides in ORDERS.items()
    }
    lengths = {
        name: staged(
            name,
            sizes,
            [
                {
                    "steps": sizes.tokens // len(limits),
                    "budget": "generated tokens",
                    "max_new_tokens": limit,
                    "environment_options": {"learn": "math"},
                }
                for limit in limits
            ],
            sizes.tokens,
            COST,
        )
        for name, limits in LIMITS.items()
    }

    def judge_steps(result: Results) -> Judgement:
        spread = {arm: late_entropies(found, result) for arm, found in steps.items()}
        final = {arm: finals(found, result) for arm, found in steps.items()}
        clipped = {
            arm: {seed: float(np.mean(result(cell)["curve"].get("meter/clip_fraction", [0.0]))) for seed, cell in found.items()}
            for arm, found in steps.items()
        }
        condition = smaller("entropy of four steps and one", spread["four steps"], spread["one step"], factor=FACTOR)
        told = {"entropy": spread, "final": final, "clipped": clipped}
        metrics = {what: {arm: summary(found) for arm, found in several.items()} for what, several in told.items()}
        return Judgement([condition], metrics, curves(steps, result))

    def judge_order(result: Results) -> Judgement:
        before, after = (at_end(orders["math, code"], result, MATH, stage) for stage in (0, 1))
        told = {
            f"{side} of {name}": summary(at_end(found, result, key))
            for name, found in orders.items()
            for side, key in (("math", MATH), ("code", CODE))
        }
        told["code before its stage"] = summary(at_end(orders["math, code"], result, CODE, 0))
        return Judgement([not_worse("mathematics after the stage of code and before", after, before, margin=MARGINS["math"])], told)

    def judge_length(result: Results) -> Judgement:
        accuracy, length = ({name: at_end(found, result, key) for name, found in lengths.items()} for key in (MATH, LENGTH))
        conditions = [
            not_worse("mathematics of the growing and the fixed limit", accuracy["growing"], accuracy["fixed"], margin=MARGINS["accuracy"]),
            smaller("length of the growing and the fixed limit", length["growing"], length["fixed"], margin=MARGINS["length"]),
        ]
        told = {"accuracy": accuracy, "length": length}
        return Judgement(conditions, {what: {name: summary(found) for name, found in several.items()} for what, several in told.items()})

    room = reaches("one step", steps, least=0.35, most=0.95)  # it learns, and the ceiling is not reached
    learned = Precondition("code is learned", "code after its stage", lambda result: at_end(orders["math, code"], result, CODE), least=0.3)
    fair = Precondition(
        "math is learned", "mathematics at 48 tokens", lambda result: at_end(lengths["fixed"], result, MATH), least=0.35, most=0.97
    )
    return [
        Claim(
            "steps",
            "Several steps per batch make the entropy fall, one does not",
            "2 or 4 gradient updates per batch collapse the entropy early; exactly one keeps it stable",
            f"{TASK}, both sides, from {sizes.model}, {sizes.updates} updates; {batch}",
            steps,
            judge_steps,
            margins={"share of the entropy": FACTOR},
            preconditions=(room,),
        ),
        Claim(
            "order",
            "Code after mathematics costs mathematics little",
            "Code-only RL afterwards improves code further with little or no loss in math (7B: +6.8 points of code by math alone)",
            f"{TASK} from {sizes.model}, two stages of {sizes.stage} updates; {batch}",
            orders,
            judge_order,
            margins={"mathematics": MARGINS["math"]},
            preconditions=(learned,),
        ),
        Claim(
            "length",
            "A limit that grows costs no accuracy and saves tokens",
            "A curriculum with progressively longer responses helps",
            f"{TASK}, mathematics, from {sizes.model}, {sizes.tokens:,} generated tokens; {batch}",
            lengths,
            judge_length,
            margins={"accuracy": MARGINS["accuracy"], "ratio of lengths": MARGINS["length"]},
            preconditions=(fair,),
        ),
    ]


def late_entropies(cells: Mapping[int, Cell], result: Results) -> dict[int, float]:
    """Mean over the last fifth of training, by seed."""
    found = {seed: np.array(result(cell)["curve"]["entropy"]) for seed, cell in cells.items()}
    return {seed: float(column[-max(1, len(column) // 5) :].mean()) for seed, column in found.items()}


def at_end(cells: Mapping[int, Cell], result: Results, metric: str, stage: int = -1) -> dict[int, float]:
    """A number of the final evaluation of a stage, by seed."""
    return {seed: float(result(cell)["stages"][stage]["summary"][metric]) for seed, cell in cells.items()}


STUDY = Study("acereason", "AceReason", "arXiv 2505.16400", claims, full=Sizes(), smoke=SMOKE)
