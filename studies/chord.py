"""CHORD: does imitation inside every reinforcement step help, and what do the weights of expert tokens do?

A base that almost never works its sums out (chain-sum-rare: 3 answers in 100, accuracy at chance) and an expert that always does. Arms:

GRPO          no expert rows
SFT then RL   mu = 1 for the first half of the updates, 0 afterwards
constant      mu = 0.1, every expert token counts 1
IS            mu = 0.1, expert tokens weighted by p
CHORD-mu      mu from 0.9 to 0.05 by a cosine over two fifths of the updates, every expert token counts 1
CHORD-phi     mu = 0.1, expert tokens weighted by p (1 - p)

Equal in all arms: base, prompts of a seed, updates of 32 prompts x 8 completions, token mean, dual clip 3, no KL, AdamW with learning rate
2e-4. Arms with an expert see 64 expert rows per update besides (demonstrations of the task's training side, ever new ones); that is their
extra data, and the point. SFT then RL samples during its first half too, so that generated tokens are spent alike. The tuned form gives
every arm the best of four learning rates.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says; six are a pilot):

accuracy  at the end, CHORD-mu and CHORD-phi are each better than GRPO by more than 5 points, and not worse than the constant by 2.
entropy   of own tokens, in the middle fifth of training: IS below CHORD-phi, CHORD-phi below the constant.
length    at the end: CHORD-phi strictly between the base and the expert, CHORD-mu within 15 % of the expert, on average over seeds.

Accuracy is that of one sampled completion per held-out prompt at temperature 1. What cannot be shown here: that SFT alone dips before it
recovers (the base knows the expert's style, only rarely uses it), retention outside the domain, and the published gaps on mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rheostat.experiments.studies import (
    Arm,
    Claim,
    Judgement,
    Results,
    Scale,
    Search,
    Study,
    Tuned,
    above,
    better,
    curves,
    finals,
    not_worse,
    reaches,
    sized,
    smaller,
    summary,
    trained,
    within,
)
from rheostat.tasks.language.task_list import language_task

SHARED: dict[str, Any] = {
    "kl_coefficient": 0.0,
    "aggregation": "token-mean",
    "dual_clip": 3.0,
    "evaluate_every": 0,
}
METRICS = ("reward", "entropy", "completion_length", "expert_loss", "mu", "meter/expert/logp", "meter/gradient_norm")
PLAIN: dict[str, Any] = {"expert_weight": "none"}
GAIN, MARGIN, FACTOR = 0.05, 0.02, 1.05
"""Points of accuracy that CHORD must gain on GRPO, points that do not matter, and ratios of entropies that do not."""
SEARCH = Search((1e-4, 2e-4, 4e-4, 1e-3))
"""Learning rates that every arm of the tuned form tries."""


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    updates: int = 40
    prompts: int = 32
    group_size: int = 8
    held_out: int = 512
    model: str = "chain-sum-rare"
    first_seed: int = 0
    tuned: Tuned = Tuned()
    task: str = "chain-sum"
    learning_rate: float = 2e-4
    device: str = "cpu"
    dtype: str = "float32"


SMOKE = Sizes(1, 2, 2, 4, 4, "untrained")


def arms(sizes: Sizes) -> dict[str, Arm]:
    """See the module docstring."""
    half, fall = max(1, sizes.updates // 2), max(1, 2 * sizes.updates // 5)
    return {
        "GRPO": Arm("grpo"),
        "SFT then RL": Arm("chord", PLAIN | {"mu_peak": 1.0, "mu_valley": 0.0, "mu_decay": half, "mu_decay_form": "switch"}),
        "constant": Arm("chord", PLAIN),
        "IS": Arm("chord", {"expert_weight": "importance"}),
        "CHORD-mu": Arm("chord", PLAIN | {"mu_peak": 0.9, "mu_valley": 0.05, "mu_decay": fall}),
        "CHORD-phi": Arm("chord"),
    }


def claims(sizes: Sizes) -> list[Claim]:
    """Accuracy, entropy and length on the same cells."""
    cells = trained(
        arms(sizes),
        task=sizes.task,
        **sized(sizes, sizes.updates, SHARED),
        metrics=METRICS,
        cost=25.0,
    )
    rates = sizes.tuned.words(f"learning rate {sizes.learning_rate:g}")
    setting = (
        f"{sizes.task} from {sizes.model}, {sizes.updates} updates of {sizes.prompts} prompts x {sizes.group_size} and a fifth of expert "
        f"rows, {rates}; one sample for each of {sizes.held_out} held-out prompts"
    )

    def judge_accuracy(result: Results) -> Judgement:
        final = {arm: finals(found, result) for arm, found in cells.items()}
        conditions = [better(f"accuracy of {arm} and GRPO", final[arm], final["GRPO"], by=GAIN) for arm in ("CHORD-mu", "CHORD-phi")]
        conditions += [
            not_worse(f"accuracy of {arm} and the constant", final[arm], final["constant"], margin=MARGIN)
            for arm in ("CHORD-mu", "CHORD-phi")
        ]
        return Judgement(conditions, {"final": {arm: summary(found) for arm, found in final.items()}}, curves(cells, result))

    def judge_entropy(result: Results) -> Judgement:
        middle = {arm: middle_of(found, result, "entropy") for arm, found in cells.items()}
        pairs = (("IS", "CHORD-phi"), ("CHORD-phi", "constant"))
        metrics = {"entropy": {arm: summary(found) for arm, found in middle.items()}}
        return Judgement([smaller(f"entropy of {a} and {b}", middle[a], middle[b], margin=FACTOR) for a, b in pairs], metrics)

    def judge_length(result: Results) -> Judgement:
        final = {arm: {seed: result(cell)["summary"]["validation_length"] for seed, cell in found.items()} for arm, found in cells.items()}
        base = float(np.mean([result(cell)["curve"]["completion_length"][0] for cell in cells["GRPO"].values()]))
        expert = expert_length(sizes.task, sizes.held_out)
        conditions = [
            above("CHORD-phi's length and the base's", final["CHORD-phi"], base),
            above("the expert's length less CHORD-phi's", {seed: expert - length for seed, length in final["CHORD-phi"].items()}, 0.0),
            within("CHORD-mu's length over the expert's", {seed: x / expert for seed, x in final["CHORD-mu"].items()}, 0.85, 1.15),
        ]
        metrics = {"base": base, "expert": expert, "length": {arm: summary(found) for arm, found in final.items()}}
        return Judgement(conditions, metrics)

    def some(*names: str) -> dict[str, Any]:
        return {name: cells[name] for name in names}

    return [
        Claim(
            "accuracy",
            "CHORD beats GRPO and a constant mixture",
            "AMC / AIME24: SFT then RL 58.4 / 17.1, CHORD-mu 60.8 / 18.1, CHORD-phi 62.5 / 18.2; a constant mu without phi is worse",
            setting,
            cells,
            judge_accuracy,
            margins={"accuracy gained": GAIN, "accuracy": MARGIN},
            preconditions=(reaches("GRPO", cells, least=0.2, most=0.8),),  # it learns, and leaves an expert something to add
        ),
        Claim(
            "entropy",
            "phi keeps an entropy between that of p and that of no weight",
            "Weighting expert tokens by p makes the entropy collapse, no weighting makes it blow up, p (1 - p) lies between",
            setting,
            some("IS", "CHORD-phi", "constant"),
            judge_entropy,
            margins={"ratio of entropies": FACTOR},
        ),
        Claim(
            "length",
            "CHORD-mu copies the expert's length, CHORD-phi does not",
            "Response length: base 659, expert 6132, CHORD-mu 6081, CHORD-phi 2444",
            setting,
            some("GRPO", "CHORD-mu", "CHORD-phi"),
            judge_length,
        ),
    ]


def middle_of(cells: dict[int, Any], result: Results, metric: str) -> dict[int, float]:
    """Mean over the middle fifth of training, by seed."""
    columns = {seed: np.array(result(cell)["curve"][metric]) for seed, cell in cells.items()}
    return {seed: float(part[2 * len(part) // 5 : max(1, 3 * len(part) // 5)].mean()) for seed, part in columns.items()}


def expert_length(name: str, count: int) -> float:
    """Mean length of the expert's demonstrations of the held-out prompts, in characters and the end, which are the tokens of tiny bases."""
    task = language_task(name)
    return float(np.mean([len(task.expert(prompt, np.random.default_rng(0))) + 1 for prompt in task.validation(count)]))


PAPER: dict[str, Any] = {"task": "word-sums", "learning_rate": 1e-6, "dtype": "bfloat16"}
GPU = Scale(
    Sizes(updates=400, prompts=32, group_size=8, held_out=1024, model="Qwen/Qwen2.5-7B-Instruct", device="cuda", **PAPER),
    Sizes(1, 2, 2, 4, 4, "untrained", **PAPER | {"dtype": "float32", "task": "chain-sum"}),
    "32 prompts x 8 and 64 expert rows per update as published, the smallest learning rate tried there; word-sums instead of OpenR1",
)

STUDY = Study("chord", "CHORD", "arXiv 2508.11408", claims, full=Sizes(), smoke=SMOKE, search=SEARCH, scales={"gpu": GPU})
