"""DialTree-RPO: do trees of dialogues teach more than whole dialogues, and does the mask keep the format of replies alive?

Twenty questions with plans: name the animal that the partner thinks of in 5 turns; every turn is a plan and a message between four tags,
and a reply without them is malformed. The tiny base has imitated 200 dialogues of a careless expert and spoils the tags now and then. Arms:

tree          trees with pruning and the adaptive mask
dialogues     GRPO on whole dialogues, in which a malformed reply is a lost turn
unpruned      trees in which malformed replies and those off topic stay
unmasked      trees without a mask
static mask   trees whose tags no surrogate moves

Equal in all arms: base, prompts of a seed, 8 prompts per batch, AdamW with learning rate 2e-4 and no weight decay, clip .2, no KL, one
gradient step per batch, 80 updates; and at most about as many replies: 3 branches and 3 living dialogues are at most 39 replies of a tree,
8 dialogues of 5 turns at most 40. Pruned trees take fewer, which is left to them. No arm was tuned.

Rules, fixed before any arm was run (matched seeds, looked at as docs/rule.md says; held-out success is that of one dialogue for each of
100 held-out prompts, played without a tree):

tree      after half of the updates, held-out success of tree is above that of dialogues by more than .05. Testable if dialogues end
          between .1 and .95.
format    over the last fifth of the updates, the share of malformed replies, measured before pruning, is higher in unmasked and in
          static mask than in tree. Testable if it is at least .02 in unmasked.
pruning   held-out success of tree at the end is not below that of unpruned by more than .02.
bargains  the same as tree, on planned-negotiation, where a success is more than half of what there is to gain. It is the second world: it
          is reported, and decides nothing about the paper.

What differs from the specified world: 16 animals of which 6 are shown, in place of 32 objects, and questions by characters. What cannot be
shown here: the published rates, other partners, learned judges, diversity by self-BLEU.
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
    finals,
    not_worse,
    reaches,
    sized,
    summary,
    trained,
)

TREE, DIALOGUES, UNPRUNED, UNMASKED, STATIC = "tree", "dialogues", "unpruned", "unmasked", "static mask"
MALFORMED = "tree/malformed_share"
MARGINS = {"success": 0.02, "malformed share": 0.01}
GAIN = 0.05
SHARED: dict[str, Any] = {"learning_rate": 2e-4, "weight_decay": 0.0, "kl_coefficient": 0.0}
METRICS = ("accuracy", "reward", "entropy", "turns", "tree/replies", "tree/paths", "tree/first_turns", "tree/off_topic_share", MALFORMED)


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    updates: int = 80
    prompts: int = 8
    held_out: int = 100
    branches: int = 3
    dialogues: int = 8
    model: str | None = None
    prune: str = "all"
    first_seed: int = 100


SMOKE = Sizes(1, 4, 2, 3, 2, 2, "untrained-games", "none")
"""An untrained model writes no tag, so that nothing may be pruned."""


def arms(sizes: Sizes) -> dict[str, Arm]:
    """The five arms."""
    tree = {"branches": sizes.branches, "width": sizes.branches, "group_size": 2 * sizes.branches, "prune": sizes.prune}
    return {
        TREE: Arm("dialtree-rpo", tree),
        DIALOGUES: Arm("grpo", {"group_size": sizes.dialogues}),
        UNPRUNED: Arm("dialtree-rpo", tree | {"prune": "none"}),
        UNMASKED: Arm("dialtree-rpo", tree | {"mask": "none"}),
        STATIC: Arm("dialtree-rpo", tree | {"mask": "static"}),
    }


def cells_of(sizes: Sizes, task: str, names: tuple[str, ...]) -> dict[str, dict[int, Cell]]:
    """Some arms on a task."""
    shared = SHARED | {"evaluate_every": max(1, sizes.updates // 2), "evaluation_prompts": sizes.held_out}
    arguments = sized(sizes, sizes.updates, shared)
    arguments["settings"] |= {"model": sizes.model or task}
    chosen = {name: arm for name, arm in arms(sizes).items() if name in names}
    return trained(chosen, task=task, **arguments, metrics=METRICS, cost=60.0)


def claims(sizes: Sizes) -> list[Claim]:
    """Four claims on two worlds."""
    cells = cells_of(sizes, "planned-questions", tuple(arms(sizes)))
    second = cells_of(sizes, "planned-negotiation", (TREE, DIALOGUES))
    half = sizes.updates // 2
    setting = (
        f"planned-questions from its base, {sizes.updates} updates of {sizes.prompts} prompts; trees of {sizes.branches} branches and as "
        f"many living dialogues, or {sizes.dialogues} dialogues; learning rate 2e-4; one dialogue per held-out prompt ({sizes.held_out})"
    )

    def judge_tree(found: Mapping[str, Mapping[int, Cell]], result: Results) -> Judgement:
        a, b = (at(found[arm], result, half) for arm in (TREE, DIALOGUES))
        condition = better(f"held-out success of {TREE} and {DIALOGUES} after {half} updates", a, b, by=GAIN, margin=GAIN)
        told = {
            "success at half": {arm: summary(at(each, result, half)) for arm, each in found.items()},
            "success at the end": {arm: summary(finals(each, result)) for arm, each in found.items()},
        }
        return Judgement([condition], told, curves(found, result))

    def judge_format(result: Results) -> Judgement:
        kept = late(cells[TREE], result, sizes.updates)
        conditions = [
            better(f"malformed share of {arm} and {TREE}", late(cells[arm], result, sizes.updates), kept, margin=MARGINS["malformed share"])
            for arm in (UNMASKED, STATIC)
        ]
        told = {"malformed share at the end": {arm: summary(late(cells[arm], result, sizes.updates)) for arm in (TREE, UNMASKED, STATIC)}}
        return Judgement(conditions, told)

    def judge_pruning(result: Results) -> Judgement:
        a, b = (finals(cells[arm], result) for arm in (TREE, UNPRUNED))
        condition = not_worse(f"held-out success of {TREE} and {UNPRUNED}", a, b, margin=MARGINS["success"])
        return Judgement([condition], {"success at the end": {TREE: summary(a), UNPRUNED: summary(b)}})

    spoiled = Precondition(
        "a format to lose",
        f"malformed share of {UNMASKED} at the end",
        lambda result: late(cells[UNMASKED], result, sizes.updates),
        least=0.02,
    )
    return [
        Claim(
            "tree",
            "Trees of dialogues teach more than whole dialogues",
            "about 10 points of success above linear rollouts",
            setting,
            cells,
            lambda result: judge_tree(cells, result),
            margins={"success": GAIN},
            preconditions=(reaches(DIALOGUES, cells, least=0.1, most=0.95),),
        ),
        Claim(
            "format",
            "The adaptive mask keeps the format of replies alive",
            "nearly 100 % malformed replies within 60 steps without a mask or with a static one; below 50 % with the adaptive one",
            setting,
            {arm: cells[arm] for arm in (TREE, UNMASKED, STATIC)},
            judge_format,
            margins={"malformed share": MARGINS["malformed share"]},
            preconditions=(spoiled,),
        ),
        Claim(
            "pruning",
            "Pruning costs no success",
            "25 points of success are lost without pruning",
            setting,
            {arm: cells[arm] for arm in (TREE, UNPRUNED)},
            judge_pruning,
            margins={"success": MARGINS["success"]},
        ),
        Claim(
            "bargains",
            "Trees of talks teach more than whole talks",
            "The second world: no number of the paper",
            setting.replace("planned-questions", "planned-negotiation"),
            second,
            lambda result: judge_tree(second, result),
            margins={"success": GAIN},
            preconditions=(reaches(DIALOGUES, second, least=0.1, most=0.95),),
        ),
    ]


def at(cells: Mapping[int, Cell], result: Results, update: int) -> dict[int, float]:
    """Held-out success after an update, by seed."""
    found = {}
    for seed, cell in cells.items():
        curve = result(cell)["curve"]
        found[seed] = float(np.interp(update, curve["steps"], curve["accuracy"]))
    return found


def late(cells: Mapping[int, Cell], result: Results, updates: int) -> dict[int, float]:
    """Mean share of malformed replies over the last fifth of the updates, by seed."""
    found = {}
    for seed, cell in cells.items():
        curve = result(cell)["curve"]
        last = np.asarray(curve["steps"]) > 0.8 * updates
        found[seed] = float(np.mean(np.asarray(curve[MALFORMED])[last]))
    return found


STUDY = Study("dialtree-rpo", "DialTree-RPO", "arXiv 2510.02286", claims, full=Sizes(), smoke=SMOKE)
