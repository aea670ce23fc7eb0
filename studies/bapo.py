"""BAPO: do searched clip bounds keep entropy, and with it accuracy, when the data are stale?

Four windows for the same clipped surrogate with the same ratio (learner over sampler), on chain-sum from the same tiny base:

clip          fixed, [0.8, 1.2]
clip higher   fixed, [0.8, 1.28]
BAPO          searched in every gradient step, the paper's form and numbers (positive share at least 0.4)
BAPO released the authors' code and configuration (quotient at least 1, bounds to 0.8 and 2.0, dual clip 3)

at two degrees of staleness: eight gradient steps on a batch (four minibatches, two passes), which is the published setting, and the same
with rollouts sampled by the policy of four updates ago. On-policy GRPO, one gradient step per batch, is the reference. Equal in all arms:
base, prompts of a seed, 32 prompts x 8 completions, AdamW with learning rate 2e-4 and no weight decay, gradient norm 1, token mean,
no KL. The tuned form gives every arm the best of four learning rates.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says; six are a pilot):

rule       on random contexts, the Entropy-Clip Rule predicts the change of the entropy to first order (it equals the derivative along
           the step), and admitting unlikely good actions raises the entropy: in every context under a natural gradient, which is
           provable, and in every one under a plain gradient, which is not. (A first form of this rule read the order of the error off two
           step sizes. That says nothing where the second-order term happens to vanish, and it was replaced after it had failed there.)
entropy    averaged over the second half of training: both forms of BAPO above clip higher, and clip higher above clip.
accuracy   at the end: both forms of BAPO not below clip by more than two points.
moves      the search moves the upper bound: its mean over an update is above its minimum in more than 5 % of updates, in both forms.
mechanism  what the fixed clip cuts off would have raised the entropy: the drift of the cut gradients, estimated on every batch, is above
           zero on average. This is the published reason for all of the above, and can fail even where they hold.

Accuracy is that of one sampled completion per held-out prompt at temperature 1. What cannot be shown at this scale: gains on
competition mathematics, explosions, partial rollouts.
"""

from __future__ import annotations

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
    Scale,
    Search,
    Study,
    Tuned,
    above,
    average,
    better,
    curves,
    exact,
    finals,
    not_worse,
    reaches,
    sized,
    summary,
    trained,
)

ROUNDING = 1e-9
MARGINS = {"entropy": 0.01, "accuracy": 0.02}
"""Nats per token, and two points of accuracy."""
BINDS = 0.005
"""Share of tokens whose gradient a fixed clip must cut, or there is nothing that other bounds could do better."""
SEARCH = Search((1e-4, 2e-4, 4e-4, 1e-3))
"""Learning rates that every arm of the tuned form tries."""

ARMS = {
    "clip": Arm("bapo", {"clip_low": 0.2, "clip_low_end": 0.2, "clip_high": 0.2, "clip_high_end": 0.2}),
    "clip higher": Arm("bapo", {"clip_low": 0.2, "clip_low_end": 0.2, "clip_high": 0.28, "clip_high_end": 0.28}),
    "BAPO": Arm("bapo"),
    "BAPO released": Arm(
        "bapo", {"search": "released", "target": 1.0, "clip_low_end": 0.2, "clip_low_step": 0.05, "clip_high_end": 1.0, "dual_clip": 3.0}
    ),
}
SEARCHED = ("BAPO", "BAPO released")
LEAST_MOVED = 0.05
"""Share of updates; a bound that never moves has 0."""
REFERENCE = "GRPO on-policy"
ON_POLICY = Arm("grpo", {"epochs": 1, "minibatches": 1})
SHARED: dict[str, Any] = {
    "epochs": 2,
    "minibatches": 4,
    "weight_decay": 0.0,
    "aggregation": "token-mean",
    "kl_coefficient": 0.0,
    "evaluate_every": 0,
}
METRICS = (
    "reward",
    "entropy",
    "completion_length",
    "meter/clip_low",
    "meter/clip_high",
    "meter/positive_share",
    "meter/positive_share_at_start",
    "meter/entropy_drift_kept",
    "meter/entropy_drift_cut",
    "meter/limited_share",
    "meter/ess",
    "meter/gradient_norm",
)


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    updates: int = 20
    lag: int = 4
    prompts: int = 32
    group_size: int = 8
    held_out: int = 512
    contexts: int = 500
    model: str = "chain-sum"
    first_seed: int = 0
    tuned: Tuned = Tuned()
    task: str = "chain-sum"
    learning_rate: float = 2e-4
    device: str = "cpu"
    dtype: str = "float32"


SMOKE = Sizes(1, 2, 1, 2, 4, 4, 20, "untrained")


def claims(sizes: Sizes) -> list[Claim]:
    """The rule, then entropy, accuracy, movement and mechanism at both degrees of staleness."""
    stale = {", 8 steps": 0, f", lag {sizes.lag}": sizes.lag}
    arms = {f"{name}{when}": Arm(arm.method, arm.config | {"dial.lag": lag}) for when, lag in stale.items() for name, arm in ARMS.items()}
    cells = trained(
        arms | {REFERENCE: ON_POLICY},
        task=sizes.task,
        **sized(sizes, sizes.updates, SHARED),
        metrics=METRICS,
        cost=18.0,
    )
    rates = sizes.tuned.words(f"learning rate {sizes.learning_rate:g}")
    setting = (
        f"{sizes.task}, {sizes.updates} updates of {sizes.prompts} prompts x {sizes.group_size}, {rates}, "
        f"ratio to the sampler; accuracy of one sample for each of {sizes.held_out} held-out prompts"
    )
    return [rule(sizes), *(claim for when in stale for claim in at(when, cells, setting)), moves(list(stale), cells, setting)]


def rule(sizes: Sizes) -> Claim:
    """The Entropy-Clip Rule, without any training."""
    cells = {
        seed: Cell("studies._entropy_clip:predict", {"seed": seed, "contexts": sizes.contexts}, f"contexts, seed {seed}", 3.0)
        for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    }

    def judge(result: Results) -> Judgement:
        found = [result(cell) for cell in cells.values()]
        admitted = sum(one["admitted"] for one in found)
        conditions = []
        for kind in ("natural", "plain"):
            error = max(one["error"][kind] for one in found)
            rule = f"{kind} gradient: the predicted change is the derivative of the entropy along the step, everywhere"
            conditions.append(exact(rule, error <= ROUNDING, largest_error=error))
            rises = sum(one["rises"][kind] for one in found)
            conditions.append(
                exact(
                    f"{kind} gradient: admitting unlikely good actions raises the entropy in every context",
                    0 < admitted == rises,
                    rises=rises,
                    contexts=admitted,
                )
            )
        return Judgement(conditions)

    return Claim(
        "rule",
        "The Entropy-Clip Rule holds",
        "The entropy changes by -eta Cov(log pi, A X + C); admitting unlikely positive tokens raises it",
        f"{sizes.contexts} softmax contexts per seed with 5 to 50 actions",
        {"contexts": cells},
        judge,
    )


def at(when: str, cells: dict[str, dict[int, Cell]], setting: str) -> list[Claim]:
    """Entropy, accuracy and mechanism at one degree of staleness."""
    mine = {name: cells[f"{name}{when}"] for name in ARMS}
    label = when.removeprefix(", ")
    shown = {f"{name}{when}": found for name, found in mine.items()} | {REFERENCE: cells[REFERENCE]}

    def judge_entropy(result: Results) -> Judgement:
        entropy = {name: second_half(found, result, "entropy") for name, found in mine.items()}
        pairs = [*((name, "clip higher") for name in SEARCHED), ("clip higher", "clip")]
        conditions = [better(f"entropy of {a} and {b}", entropy[a], entropy[b], margin=MARGINS["entropy"]) for a, b in pairs]
        ratio = {
            name: round(float(np.mean(list(found.values())) / np.mean(list(entropy["clip"].values()))), 4)
            for name, found in entropy.items()
        }
        metrics = {"entropy": {name: summary(found) for name, found in entropy.items()}, "entropy_over_that_of_clip": ratio}
        metrics["entropy"][REFERENCE] = summary(second_half(cells[REFERENCE], result, "entropy"))
        return Judgement(conditions, metrics, curves(shown, result))

    def judge_accuracy(result: Results) -> Judgement:
        final = {name: finals(found, result) for name, found in shown.items()}
        conditions = [
            not_worse(f"accuracy of {name} and clip", final[f"{name}{when}"], final[f"clip{when}"], margin=MARGINS["accuracy"])
            for name in SEARCHED
        ]
        return Judgement(conditions, {"final": {name: summary(found) for name, found in final.items()}})

    def judge_mechanism(result: Results) -> Judgement:
        cut = {name: average(mine[name], result, "meter/entropy_drift_cut") for name in ("clip", "clip higher")}
        nothing = dict.fromkeys(cut["clip"], 0.0)
        metrics = {"cut": {name: summary(found) for name, found in cut.items()}}
        metrics["kept"] = {name: summary(average(mine[name], result, "meter/entropy_drift_kept")) for name in cut}
        return Judgement([better(f"entropy drift that {name} cuts off", found, nothing) for name, found in cut.items()], metrics)

    learns = reaches(REFERENCE, shown, least=0.6)  # of a base below 0.4: else nothing was learned that stale data could cost
    binds = Precondition(
        "the clip binds",
        "share of tokens that the fixed clip limits",
        lambda result: average(mine["clip"], result, "meter/limited_share"),
        least=BINDS,
    )

    def some(*names: str) -> dict[str, dict[int, Cell]]:
        return {f"{name}{when}": mine[name] for name in names}

    return [
        Claim(
            f"entropy, {label}",
            f"Searched bounds keep entropy ({label})",
            "Fixed symmetric clipping collapses the entropy under stale data; BAPO preserves it",
            setting,
            shown,
            judge_entropy,
            margins={"entropy": MARGINS["entropy"]},
            preconditions=(learns, binds),
        ),
        Claim(
            f"accuracy, {label}",
            f"Searched bounds are no less accurate ({label})",
            "AIME24 at staleness 2 / 4: clip 58.3 / 54.2, clip-higher 58.3 / 59.2, BAPO 60.9 / 62.0",
            setting,
            shown,
            judge_accuracy,
            margins={"accuracy": MARGINS["accuracy"]},
            preconditions=(learns, binds),
        ),
        Claim(
            f"mechanism, {label}",
            f"What a fixed clip cuts would have raised the entropy ({label})",
            "A fixed clip removes exactly the updates that would raise entropy: positive tokens of low probability",
            setting + "; drift estimated from the sampled tokens of every gradient step",
            some("clip", "clip higher"),
            judge_mechanism,
            preconditions=(binds,),
        ),
    ]


def moves(stale: list[str], cells: dict[str, dict[int, Cell]], setting: str) -> Claim:
    """Whether the search does anything."""
    shown = {f"{name}{when}": cells[f"{name}{when}"] for when in stale for name in SEARCHED}

    def judge(result: Results) -> Judgement:
        conditions, metrics = [], {}
        for name, seeds in shown.items():
            highs = {seed: np.array(result(cell)["curve"]["meter/clip_high"]) for seed, cell in seeds.items()}
            moved = {seed: float(np.mean(high > high.min() + 1e-6)) for seed, high in highs.items()}
            conditions.append(above(f"{name}: share of updates with the upper bound above its minimum", moved, LEAST_MOVED))
            metrics[name] = {
                part: summary(average(seeds, result, f"meter/{part}"))
                for part in ("clip_low", "clip_high", "positive_share_at_start", "positive_share", "limited_share")
            }
        return Judgement(conditions, metrics)

    return Claim(
        "moves",
        "The search moves the upper bound",
        "The bounds adapt throughout training",
        setting,
        shown,
        judge,
    )


def second_half(cells: dict[int, Cell], result: Results, metric: str) -> dict[int, float]:
    """Mean over the second half of training, by seed."""
    columns = {seed: result(cell)["curve"][metric] for seed, cell in cells.items()}
    return {seed: float(np.mean(values[len(values) // 2 :])) for seed, values in columns.items()}


GPU = Scale(
    Sizes(
        updates=200,
        prompts=256,
        group_size=16,
        held_out=1024,
        model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        task="word-sums",
        learning_rate=1e-6,
        device="cuda",
        dtype="bfloat16",
    ),
    Sizes(1, 2, 1, 2, 4, 4, 20, "untrained", learning_rate=1e-6),
    "256 prompts x 16 and learning rate 1e-6, as in the release; word-sums instead of SkyWork-OR1",
)

STUDY = Study("bapo", "BAPO", "arXiv 2510.18927", claims, full=Sizes(), smoke=SMOKE, search=SEARCH, scales={"gpu": GPU})
