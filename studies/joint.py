"""All ways of mixing reinforcement with an expert or with old rollouts, on one task, at equal generated and at equal learner tokens.

A capacity mismatch with an expert at hand: the base knows chains of up to four terms, the task has three to eight, and an expert always
works its sums out. Arms:

GRPO                own completions alone
SFT                 demonstrations alone
SFT then GRPO       demonstrations alone for the first half of the updates, own completions alone afterwards
LUFFY               one expert in every group of eight, shaped by p / (p + 0.1)
RL-PLUS             one expert in every group of eight, by multiple importance sampling, weighted by (1 - p)^0.5
CHORD-mu            a fifth of expert rows beside the groups, their loss weighted from 0.9 to 0.05 over two fifths of the updates
CHORD-phi           the same rows, weighted by 0.1 p (1 - p)
CHORD-phi + window  the same with BAPO's searched bounds for own tokens, two passes over every batch
GHPO                failing groups are sampled again with 25, 50, then 75 % of the solution in front of the answer
ReMix               no expert: 40 % of a batch from the last two steps for the first 30 % of the updates, two passes over every batch
BAPO                no expert: searched bounds, two passes over every batch

Equal in all arms: base, prompts of a seed, 16 prompts x 8 rows per batch (SFT: 128 demonstrations), two gradient steps per pass over it,
AdamW with learning rate 2e-4 and no weight decay, gradient norm 1, no entropy bonus, and no KL but for ReMix, whose reborn base needs its
0.001. A method's own: advantage, limit, aggregation, passes, schedules (in updates, of which about 50 fit into the budget; scaled from the
papers). No arm was tuned; the world and the budget were chosen after looking at GRPO, SFT and CHORD-phi with a seed that is not among the
study's (100, chains of three to six terms).

Budgets. Every run generates 120,000 tokens; what GHPO discards counts, what SFT learns from counts as if it had been generated, and in SFT
then GRPO the completions of the first half count although nothing is learned from them. That is the comparison at equal generated tokens:
the accuracy at the end, on 512 held-out prompts. Learner tokens are all tokens that a loss was computed on, once per pass: an expert's rows
and second passes cost here what they do not cost there. Runs end with different numbers of them, so the comparison at equal learner tokens
is read off the curves (256 held-out prompts every five updates, linear in between): the mean accuracy over the last fifth of the learner
tokens that every arm of a seed has reached.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says; six are a pilot; every claim by itself,
with its p-value adjusted by Holm for all of them beside it):

stages   at equal generated tokens, RL-PLUS, CHORD-mu and CHORD-phi are each better than SFT then GRPO.
an arm   is better than GRPO at equal generated and at equal learner tokens: two conditions, a verdict on both, for every arm.
window   CHORD-phi with BAPO's window is better than CHORD-phi, at equal generated and at equal learner tokens.
best     the arm with the highest mean accuracy at equal generated tokens is better than each other arm; which arms it cannot be told from
         is listed, and the same for equal learner tokens without a rule.

Accuracy is that of one sampled completion per held-out prompt at temperature 1. What cannot be shown here: experts with another style or
with errors, long training, models that the expert cannot lift to the top, and the cost of an expert's tokens, which here are free.
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
    Condition,
    Judgement,
    Results,
    Search,
    Study,
    Tuned,
    better,
    curves,
    finals,
    reaches,
    summary,
    trained,
)
from studies._joint_report import draw

SHARED: dict[str, Any] = {
    "learning_rate": 2e-4,
    "weight_decay": 0.0,
    "kl_coefficient": 0.0,
    "entropy_coefficient": 0.0,
    "minibatches": 2,
    "budget": "generated tokens",
}
METRICS = ("accuracy", "reward", "entropy", "completion_length", "expert_loss", "rescued_share", "meter/ess", "meter/limited_share")
PLAIN: dict[str, Any] = {"expert_weight": "none"}
MARGIN = 0.03
"""Points of accuracy below which nothing matters."""
IMITATED = 0.4
"""Accuracy that imitation alone must reach in the same budget: an expert who cannot be imitated has nothing to give to a mixture."""
SEARCH = Search((1e-4, 2e-4, 4e-4, 1e-3))
"""Learning rates that every arm of the tuned form tries."""
LAST = 0.2
"""Share of the common learner tokens over which a curve is read."""


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    tokens: int = 120_000
    updates: int = 50
    prompts: int = 16
    group_size: int = 8
    look_every: int = 5
    look_prompts: int = 256
    held_out: int = 512
    terms: int = 8
    model: str = "chain-sum-short"
    first_seed: int = 0
    tuned: Tuned = Tuned()


SMOKE = Sizes(1, 300, 7, 2, 4, 1, 4, 5, 4, "untrained")


def arms(sizes: Sizes) -> dict[str, Arm]:
    """See the module docstring."""
    half, fall, start = (max(1, round(share * sizes.updates)) for share in (0.5, 0.4, 0.1))
    reborn = max(1, round(0.3 * sizes.updates))
    return {
        "GRPO": Arm("grpo"),
        "SFT": Arm("sft", {"prompts_per_batch": sizes.prompts * sizes.group_size}),
        "SFT then GRPO": Arm("chord", PLAIN | {"mu_peak": 1.0, "mu_valley": 0.0, "mu_decay": half, "mu_decay_form": "switch"}),
        "LUFFY": Arm("luffy"),
        "RL-PLUS": Arm("rl-plus"),
        "CHORD-mu": Arm("chord", PLAIN | {"mu_peak": 0.9, "mu_valley": 0.05, "mu_decay": fall}),
        "CHORD-phi": Arm("chord"),
        "GHPO": Arm("ghpo", {"hint_after": 0, "hint_place": "answer"}),
        "ReMix": Arm("remix", {"kl_coefficient": 0.001, "switch_after": reborn, "convex_start": start, "convex_interval": 2}),
        "BAPO": Arm("bapo"),
        "CHORD-phi + window": Arm("chord", {"clip": "searched", "clip_low": 0.4, "epochs": 2}),
    }


EXPERT = {"SFT then GRPO", "LUFFY", "RL-PLUS", "CHORD-mu", "CHORD-phi", "GHPO", "CHORD-phi + window"}
"""Arms that mix an expert with their own samples: they need one that can be imitated."""
PUBLISHED = {
    "SFT": "Demonstrations are the quickest way to a skill that the policy does not have",
    "SFT then GRPO": "CHORD's tables: SFT then RL is the strongest baseline in two stages",
    "LUFFY": "arXiv 2504.14945: an expert in the group gives over 7 points on average over on-policy training",
    "RL-PLUS": "arXiv 2508.00222: six mathematics sets, GRPO 45.5, RL-PLUS 53.4",
    "CHORD-mu": "arXiv 2508.11408: AMC, SFT then RL 58.4, CHORD-mu 60.8",
    "CHORD-phi": "arXiv 2508.11408: AMC, SFT then RL 58.4, CHORD-phi 62.5",
    "GHPO": "arXiv 2507.10628: about 5 points over GRPO on six benchmarks",
    "ReMix": "arXiv 2507.06892: the same accuracy with a fraction of the rollouts",
    "BAPO": "arXiv 2510.18927: AIME25, GRPO 59.2, BAPO 62.5",
    "CHORD-phi + window": "In no paper",
}


def claims(sizes: Sizes) -> list[Claim]:
    """Stages, every arm against GRPO, and the best; all on the same cells."""
    cells = trained(
        arms(sizes),
        task="chain-sum",
        steps=sizes.tokens,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared=SHARED
        | {
            "prompts_per_batch": sizes.prompts,
            "group_size": sizes.group_size,
            "evaluate_every": sizes.look_every,
            "evaluation_prompts": sizes.look_prompts,
        },
        settings={
            "model": sizes.model,
            "evaluation_episodes": sizes.held_out,
            "checkpoint_every": sizes.tokens,
            "environment_options": {"min_terms": 3, "max_terms": sizes.terms},
        },
        metrics=METRICS,
        cost=30.0,
        tuned=sizes.tuned,
    )
    setting = (
        f"chain-sum with 3 to {sizes.terms} terms from {sizes.model}, {sizes.tokens:,} generated tokens in batches of {sizes.prompts} "
        f"prompts x {sizes.group_size}, {sizes.tuned.words('learning rate 2e-4')}; one sample for each of {sizes.held_out} "
        "held-out prompts"
    )

    def judge_stages(result: Results) -> Judgement:
        final, learned = {arm: finals(found, result) for arm, found in cells.items()}, at_equal_learner_tokens(cells, result)
        mixed = ("RL-PLUS", "CHORD-mu", "CHORD-phi")
        conditions = [better(f"accuracy of {arm} and SFT then GRPO", final[arm], final["SFT then GRPO"], margin=MARGIN) for arm in mixed]
        metrics = {
            "final": {arm: summary(found) for arm, found in final.items()},
            "at equal learner tokens": {arm: summary(found) for arm, found in learned.items()},
            "generated tokens": spent(cells, result, "generated_tokens"),
            "learner tokens": spent(cells, result, "learner_tokens"),
            "common learner tokens": summary(common_learner_tokens(cells, result)),
            "cannot be told from the best": {"generated tokens": level_with_best(final), "learner tokens": level_with_best(learned)},
        }
        return Judgement(conditions, metrics, curves(cells, result))

    def judge_pair(arm: str, other: str) -> Any:
        def judge(result: Results) -> Judgement:
            final, learned = {one: finals(cells[one], result) for one in (arm, other)}, at_equal_learner_tokens(cells, result)
            budgets = (("generated", final), ("learner", learned))
            return Judgement(
                [
                    better(f"accuracy of {arm} and {other} at equal {name} tokens", found[arm], found[other], margin=MARGIN)
                    for name, found in budgets
                ]
            )

        return judge

    def judge_best(result: Results) -> Judgement:
        final = {arm: finals(found, result) for arm, found in cells.items()}
        return Judgement(against_best(final))

    room = reaches("GRPO", cells, least=0.15, most=0.8)  # above chance, and room for an expert to help
    learnable = reaches("SFT", cells, least=IMITATED)

    def pair(name: str, title: str, published: str, arm: str, other: str) -> Claim:
        shown = {one: cells[one] for one in (arm, other)}
        rest = tuple(cell for one, found in cells.items() if one not in shown for cell in found.values())  # for the common learner tokens
        needs = (room, learnable) if set(shown) & EXPERT else (room,)
        return Claim(
            name, title, published, setting, shown, judge_pair(arm, other), extra=rest, margins={"accuracy": MARGIN}, preconditions=needs
        )

    return [
        Claim(
            "stages",
            "Mixing inside every step beats SFT and then GRPO",
            "CHORD, AMC: SFT then RL 58.4, CHORD-mu 60.8, CHORD-phi 62.5; RL-PLUS, six mathematics sets: SFT then GRPO 48.2, RL-PLUS 53.4",
            setting,
            cells,
            judge_stages,
            margins={"accuracy": MARGIN},
            preconditions=(room, learnable),
        ),
        *(pair(arm, f"{arm} beats GRPO, whichever tokens are counted", text, arm, "GRPO") for arm, text in PUBLISHED.items()),
        pair(
            "window",
            "BAPO's window improves CHORD-phi, whichever tokens are counted",
            "In no paper: searched bounds for own tokens and imitation beside them",
            "CHORD-phi + window",
            "CHORD-phi",
        ),
        Claim(
            "best",
            "One arm is better than all others",
            "Every paper reports its own method as the best",
            setting,
            cells,
            judge_best,
            margins={"accuracy": MARGIN},
            preconditions=(room, learnable),
        ),
    ]


Values = Mapping[str, Mapping[int, float]]
"""A number by arm and seed."""


def against_best(values: Values) -> list[Condition]:
    """Whether the arm with the highest mean is better than each other one."""
    best = max(values, key=lambda arm: float(np.mean(list(values[arm].values()))))
    return [
        better(f"accuracy of {best} (highest mean) and {arm}", values[best], values[arm], margin=MARGIN) for arm in values if arm != best
    ]


def level_with_best(values: Values) -> list[str]:
    """The arm with the highest mean, and those that it is not better than by the rule for matched seeds, highest first."""
    ranked = sorted(values, key=lambda arm: -float(np.mean(list(values[arm].values()))))
    return [arm for arm in ranked if arm == ranked[0] or better("", values[ranked[0]], values[arm]).outcome != "supported"]


def common_learner_tokens(cells: Mapping[str, Mapping[int, Cell]], result: Results) -> dict[int, float]:
    """The learner tokens that every arm of a seed has reached."""
    seeds = next(iter(cells.values()))
    return {seed: min(result(found[seed])["curve"]["learner_tokens"][-1] for found in cells.values()) for seed in seeds}


def at_equal_learner_tokens(cells: Mapping[str, Mapping[int, Cell]], result: Results) -> dict[str, dict[int, float]]:
    """Mean accuracy of every arm over the last fifth of the common learner tokens, by seed."""
    ends = common_learner_tokens(cells, result)
    return {arm: {seed: read_off(result(cell)["curve"], ends[seed]) for seed, cell in found.items()} for arm, found in cells.items()}


def read_off(curve: Mapping[str, list[float]], end: float) -> float:
    """Mean height of the accuracy over the last fifth up to ``end`` learner tokens."""
    grid = np.linspace((1 - LAST) * end, end, 101)
    return float(np.interp(grid, curve["learner_tokens"], curve["accuracy"]).mean())


def spent(cells: Mapping[str, Mapping[int, Cell]], result: Results, name: str) -> dict[str, Any]:
    """How much of a budget every arm has used at its end."""
    return {arm: summary({seed: result(cell)["curve"][name][-1] for seed, cell in found.items()}) for arm, found in cells.items()}


STUDY = Study("joint", "Mixed data together", "several", claims, full=Sizes(), smoke=SMOKE, draw=draw, search=SEARCH)
