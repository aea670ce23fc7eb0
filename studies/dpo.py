"""DPO: do preference pairs teach more than their better halves, and what becomes of the margin?

Chains of three to six terms from a tiny base that works a third of them out. A verifier labels the base's own samples: of each prompt that
has both, the first right completion is preferred to the first wrong one; empty completions and those that were cut off are left out. 512
pairs, three epochs of them. Arms:

chosen only      maximum likelihood of the preferred answers (the paper's Preferred-FT)
DPO              beta .1
IPO              the square link on sums, beta .1: its target is a margin of 5
DPO, flipped     DPO with a fifth of the labels exchanged
cDPO, flipped    the same with label smoothing .2

Equal in all arms: base, pairs of a seed and their order, 16 pairs per gradient step, the number of gradient steps, AdamW with learning rate
2e-4, gradient norm 1. No arm was tuned. Imitation sees one answer of every pair, the others both: that is the point.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

accuracy   at the end, DPO is more accurate than imitation of the chosen answers; less than two points do not matter.
margin     the mean log-ratio of chosen over rejected answers of training pairs: DPO's is in the last epoch above that of the epoch before
           by more than 1 nat; IPO's lies in the last epoch within a fifth of its target.
flips      with a fifth of the labels exchanged, label smoothing makes DPO's margin smaller in the last epoch (half a nat does not matter)
           and leaves accuracy not lower by more than two points.

Accuracy is that of one sampled completion per held-out prompt at temperature 1. What cannot be shown here: which method people prefer, and
anything about annotators or judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rheostat.experiments.studies import (
    Cell,
    Claim,
    Judgement,
    Precondition,
    Results,
    Study,
    better,
    not_worse,
    summary,
    within,
)

CHOSEN, DPO, IPO, FLIPPED, SMOOTHED = "chosen only", "DPO", "IPO", "DPO, flipped", "cDPO, flipped"
SHARED: dict[str, Any] = {"learning_rate": 2e-4, "warmup": 0}
BETA, TARGET, FLIPS, EPOCHS = 0.1, 5.0, 0.2, 3
"""Scale of log-ratios, IPO's margin 1 / (2 beta), share of exchanged labels, and epochs."""
MARGINS = {"accuracy": 0.02, "growth in nats": 1.0, "nats": 0.5}
SOURCES = {"dpo": "rheostat.methods.language.dpo", "sft": "rheostat.methods.language.sft"}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    pairs: int = 512
    batch: int = 16
    group_size: int = 8
    look_every: int = 32
    look_prompts: int = 128
    final_prompts: int = 512
    model: str = "chain-sum"
    first_seed: int = 0


SMOKE = Sizes(1, 4, 2, 0, 2, 4, 8, "untrained")


def arms(sizes: Sizes) -> dict[str, tuple[str, dict[str, Any], float]]:
    """Method, options and share of exchanged labels, by arm."""
    pairwise = {"pairs_per_batch": sizes.batch, "beta": BETA}
    return {
        CHOSEN: ("sft", {"prompts_per_batch": sizes.batch}, 0.0),
        DPO: ("dpo", pairwise, 0.0),
        IPO: ("dpo", pairwise | {"link": "ipo"}, 0.0),
        FLIPPED: ("dpo", pairwise, FLIPS),
        SMOOTHED: ("dpo", pairwise | {"label_smoothing": FLIPS}, FLIPS),
    }


def cells_of(sizes: Sizes) -> dict[str, dict[int, Cell]]:
    """Cells by arm and seed; those of a seed learn from the same pairs."""
    seeds = range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    asked = {"model": sizes.model, "pairs": sizes.pairs, "group_size": sizes.group_size}
    found = ("rheostat.methods.language.grpo",)
    data = {seed: Cell("studies._dpo_cells:make_pairs", asked | {"seed": seed}, f"pairs, seed {seed}", 5.0, (), found) for seed in seeds}
    shared = {
        "task": "chain-sum",
        "model": sizes.model,
        "steps": EPOCHS * sizes.pairs // sizes.batch,
        "look_every": sizes.look_every,
        "look_prompts": sizes.look_prompts,
        "final_prompts": sizes.final_prompts,
    }
    return {
        arm: {
            seed: Cell(
                "studies._dpo_cells:learn",
                shared | {"method": method, "config": SHARED | config, "flipped": flipped, "seed": seed, "data": data[seed].key},
                f"{arm}, seed {seed}",
                8.0,
                (data[seed],),
                (SOURCES[method],),
            )
            for seed in seeds
        }
        for arm, (method, config, flipped) in arms(sizes).items()
    }


def claims(sizes: Sizes) -> list[Claim]:
    """Three claims on the same cells."""
    cells = cells_of(sizes)
    setting = (
        f"chain-sum from {sizes.model}, {sizes.pairs} pairs of its own samples, {EPOCHS} epochs in batches of {sizes.batch} pairs, "
        f"beta {BETA:g}, learning rate 2e-4; one sample for each of {sizes.final_prompts} held-out prompts"
    )

    def judge_accuracy(result: Results) -> Judgement:
        final = {arm: accuracies(found, result) for arm, found in cells.items()}
        condition = better("accuracy of DPO and of imitating the chosen answers", final[DPO], final[CHOSEN], margin=MARGINS["accuracy"])
        metrics = {
            "start": summary(accuracies(cells[DPO], result, "start")),
            "final": {arm: summary(found) for arm, found in final.items()},
            "length": {arm: summary(accuracies(found, result, "final", "completion_length")) for arm, found in cells.items()},
        }
        curves = {arm: {seed: result(cell)["curve"] for seed, cell in found.items()} for arm, found in cells.items()}
        return Judgement([condition], metrics, curves)

    def judge_margin(result: Results) -> Judgement:
        last, before = (margins_of(cells[DPO], result, epoch) for epoch in (EPOCHS - 1, EPOCHS - 2))
        ipo = margins_of(cells[IPO], result, EPOCHS - 1)
        conditions = [
            better("margin of DPO, last epoch and the one before", last, before, by=MARGINS["growth in nats"]),
            within("margin of IPO over its target", {seed: margin / TARGET for seed, margin in ipo.items()}, 0.8, 1.2),
        ]
        by_epoch = {
            arm: [round(float(np.mean(list(margins_of(cells[arm], result, epoch).values()))), 4) for epoch in range(EPOCHS)]
            for arm in (DPO, IPO, FLIPPED, SMOOTHED)
        }
        return Judgement(conditions, {"margin by epoch": by_epoch})

    def judge_flips(result: Results) -> Judgement:
        margin = {arm: margins_of(cells[arm], result, EPOCHS - 1) for arm in (SMOOTHED, FLIPPED)}
        final = {arm: accuracies(cells[arm], result) for arm in (SMOOTHED, FLIPPED)}
        conditions = [
            better("margins of DPO and cDPO", margin[FLIPPED], margin[SMOOTHED], margin=MARGINS["nats"]),
            not_worse("accuracy of cDPO and DPO", final[SMOOTHED], final[FLIPPED], margin=MARGINS["accuracy"]),
        ]
        return Judgement(conditions, {"margin": {arm: summary(found) for arm, found in margin.items()}})

    def started(result: Results) -> dict[int, float]:
        return accuracies(cells[DPO], result, "start")

    room = Precondition("room", "accuracy of the base", started, least=0.2, most=0.8)

    def some(*names: str) -> dict[str, dict[int, Cell]]:
        return {name: cells[name] for name in names}

    return [
        Claim(
            "accuracy",
            "Pairs teach more than the chosen answers alone",
            "TL;DR: DPO wins against the references in about 61 % of cases, supervised fine-tuning on the preferred answers in far fewer",
            setting,
            cells,
            judge_accuracy,
            margins={"accuracy": MARGINS["accuracy"]},
            preconditions=(room,),
        ),
        Claim(
            "margin",
            "DPO's margin grows on, IPO's stops at its target",
            "With deterministic labels the sigmoid link drives log-ratios without bound; the square link has a finite optimum (2310.12036)",
            setting,
            some(DPO, IPO),
            judge_margin,
            margins={"growth in nats": MARGINS["growth in nats"]},
            preconditions=(room,),
        ),
        Claim(
            "flips",
            "With wrong labels, smoothing keeps the margin small and costs nothing",
            "Conservative DPO pulls log-ratios to a finite value and is no less accurate where labels are noisy",
            f"{setting}; {FLIPS:.0%} of the labels exchanged",
            some(FLIPPED, SMOOTHED),
            judge_flips,
            margins={"accuracy": MARGINS["accuracy"], "nats": MARGINS["nats"]},
            preconditions=(room,),
        ),
    ]


def accuracies(cells: dict[int, Cell], result: Results, when: str = "final", name: str = "accuracy") -> dict[int, float]:
    """A number of held-out samples, by seed."""
    return {seed: float(result(cell)[when][name]) for seed, cell in cells.items()}


def margins_of(cells: dict[int, Cell], result: Results, epoch: int) -> dict[int, float]:
    """Mean margin of the batches of an epoch, by seed."""
    found = {seed: np.array_split(np.array(result(cell)["margins"]), EPOCHS)[epoch] for seed, cell in cells.items()}
    return {seed: float(values.mean()) for seed, values in found.items()}


STUDY = Study("dpo", "DPO", "arXiv 2305.18290", claims, full=Sizes(), smoke=SMOKE)
