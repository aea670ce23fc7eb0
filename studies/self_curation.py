"""SELF: does reinforcement on everything lose what the base could solve, and does training on what greedy decoding fails keep it?

``chain-sum-interfere``: short chains, which the base mostly answers bare and right, and long ones, which it solves in a few of 100 samples.
Both kinds share their weights. Arms:

base        GRPO with learning rate 0: the base model, sampled as the others are
GRPO        all prompts
SELF        only prompts whose greedy answer is wrong
rehearsed   SELF, and the forward KL to the base with weight .1 (a reconstruction)

Equal in all arms: base, prompts of a seed, 16 prompts x 16 completions where all prompts pass, AdamW with learning rate 2e-4 (but for the
base), no weight decay, gradient norm 1, one gradient step per batch, rewards 0 and 1, no KL in the loss, and the number of generated
tokens, in which SELF's greedy answers and rehearsed samples count. No arm was tuned.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

lost        at the end GRPO solves fewer hard prompts in 64 samples than the base did, and is more accurate on easy ones; two points do not
            matter.
coverage    at the end SELF solves more hard prompts in 64 samples than GRPO, and all prompts (48 easy, 48 hard) no worse in one sample by
            more than 5 points; three points of coverage do not matter.
rehearsal   the same of SELF with rehearsal.
harmed      GRPO makes the working of more hard prompts less likely than of easy ones, compared with the base; two points do not matter.

Testable if the base solves between .3 and .98 of the hard prompts in 64 samples, and is right in one sample on less than .3 of them. What
cannot be shown here: AIME, and that the effect grows with the model.
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
    better,
    curves,
    not_worse,
    sized,
    summary,
    trained,
)

TASK = "chain-sum-interfere"
ONE_STEP: dict[str, Any] = {"minibatches": 1, "kl_coefficient": 0.0, "weight_decay": 0.0, "evaluate_every": 0, "budget": "generated tokens"}
ARMS = {
    "base": Arm("grpo", {"learning_rate": 0.0, "aggregation": "token-mean"}),
    "GRPO": Arm("grpo", {"learning_rate": 2e-4, "dual_clip": 3.0, "aggregation": "token-mean"}),
    "SELF": Arm("self-curation", {"learning_rate": 2e-4}),
    "rehearsed": Arm("self-curation", {"learning_rate": 2e-4, "rehearsal_coefficient": 0.1}),
}
METRICS = ("reward", "entropy", "completion_length", "unsolved_share", "gate_rounds", "rehearsal_loss")
MARGINS = {"coverage": 0.03, "lost": 0.02, "accuracy": 0.05, "harmed": 0.02}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    tokens: int = 200_000
    prompts: int = 16
    group_size: int = 16
    held_out: int = 256
    look: str = "ability"
    model: str = TASK
    first_seed: int = 0


SMOKE = Sizes(1, 200, 2, 4, 2, "glance", "untrained")


def claims(sizes: Sizes) -> list[Claim]:
    """What GRPO loses, what SELF keeps, with and without rehearsal, and who is harmed."""
    cells = trained(
        ARMS,
        task=TASK,
        **sized(sizes, sizes.tokens, ONE_STEP),
        metrics=METRICS,
        cost=60.0,
        look=f"studies._exploration_looks:{sizes.look}",
    )
    setting = (
        f"{TASK} from {sizes.model}, {sizes.tokens:,} generated tokens in batches of at most {sizes.prompts} prompts x {sizes.group_size}, "
        "learning rate 2e-4; 48 prompts of each kind, 64 samples of each"
    )
    possible = (
        Precondition(
            "coverage", "hard prompts that the base solves", lambda result: seen(cells["base"], result, "hard coverage"), 0.3, 0.98
        ),
        Precondition("hard", "accuracy of the base on hard prompts", lambda result: seen(cells["base"], result, "hard pass@1"), most=0.3),
    )

    def of(*names: str) -> dict[str, Mapping[int, Cell]]:
        return {name: cells[name] for name in names}

    def judge_lost(result: Results) -> Judgement:
        hard = {arm: seen(cells[arm], result, "hard coverage") for arm in ("base", "GRPO")}
        easy = {arm: seen(cells[arm], result, "easy pass@1") for arm in ("base", "GRPO")}
        conditions = [
            better("hard prompts solved, base and GRPO", hard["base"], hard["GRPO"], margin=MARGINS["lost"]),
            better("accuracy on easy prompts, GRPO and base", easy["GRPO"], easy["base"], margin=MARGINS["lost"]),
        ]
        keys = ("easy pass@1", "hard pass@1", "easy coverage", "hard coverage")
        return Judgement(conditions, {key: {arm: summary(seen(found, result, key)) for arm, found in cells.items()} for key in keys})

    def judge_kept(name: str) -> Any:
        def judge(result: Results) -> Judgement:
            coverage = {arm: seen(cells[arm], result, "hard coverage") for arm in (name, "GRPO")}
            once = {arm: both(cells[arm], result) for arm in (name, "GRPO")}
            conditions = [
                better(f"hard prompts solved, {name} and GRPO", coverage[name], coverage["GRPO"], margin=MARGINS["coverage"]),
                not_worse(f"accuracy on all prompts, {name} and GRPO", once[name], once["GRPO"], margin=MARGINS["accuracy"]),
            ]
            return Judgement(conditions, {}, curves(of(name, "GRPO"), result))

        return judge

    def judge_harmed(result: Results) -> Judgement:
        hard, easy = (harmed(cells["GRPO"], cells["base"], result, kind) for kind in ("hard", "easy"))
        condition = better("workings made less likely, of hard and of easy prompts", hard, easy, margin=MARGINS["harmed"])
        return Judgement([condition], {"harmed": {"hard": summary(hard), "easy": summary(easy)}})

    loss = "Under GRPO pass@k at large k falls below the base's; negative interference and winner-take-all explain it"
    keeps = "Under SELF pass@k keeps rising at large k; pass@1 is comparable or slightly lower"
    return [
        Claim(
            "lost", "GRPO sharpens what is likely and loses what is not", loss, setting, of("base", "GRPO"), judge_lost,
            margins={"lost": MARGINS["lost"]}, preconditions=possible,
        ),
        Claim(
            "coverage", "SELF solves more in many samples than GRPO", keeps, setting, of("base", "GRPO", "SELF"), judge_kept("SELF"),
            margins={name: MARGINS[name] for name in ("coverage", "accuracy")}, preconditions=possible,
        ),
        Claim(
            "rehearsal", "SELF with rehearsal solves more in many samples than GRPO", keeps, setting, of("base", "GRPO", "rehearsed"),
            judge_kept("rehearsed"), margins={name: MARGINS[name] for name in ("coverage", "accuracy")}, preconditions=possible,
        ),
        Claim(
            "harmed", "Steps on likely problems harm unlikely ones", loss, setting, of("base", "GRPO"), judge_harmed,
            margins={"harmed": MARGINS["harmed"]}, preconditions=possible,
        ),
    ]  # fmt: skip


def seen(cells: Mapping[int, Cell], result: Results, key: str) -> dict[int, float]:
    """A number of the finished runs' look, by seed."""
    return {seed: float(result(cell)["look"][key]) for seed, cell in cells.items()}


def both(cells: Mapping[int, Cell], result: Results) -> dict[int, float]:
    """Accuracy over the easy and the hard prompts together, by seed."""
    easy, hard = (seen(cells, result, f"{kind} pass@1") for kind in ("easy", "hard"))
    return {seed: (easy[seed] + hard[seed]) / 2 for seed in easy}


def harmed(after: Mapping[int, Cell], before: Mapping[int, Cell], result: Results, kind: str) -> dict[int, float]:
    """Share of prompts of a kind whose working is less likely than under the base, by seed."""
    found = {}
    for seed, cell in after.items():
        new, old = (np.array(result(each)["look"][f"{kind} solutions"]) for each in (cell, before[seed]))
        found[seed] = float((new < old).mean())
    return found


STUDY = Study("self-curation", "SELF", "arXiv 2510.02230", claims, full=Sizes(), smoke=SMOKE)
