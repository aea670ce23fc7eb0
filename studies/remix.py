"""ReMix: how many rollouts do recent data, a window around the current policy and a reborn base model save?

Six arms on chain-sum from the same tiny base, 32 prompts x 8 completions per batch, learning rate 5e-5, KL coefficient 0.001, token mean:

GRPO                on-policy: every batch fresh, one gradient step on it
GRPO m=2            every batch fresh, two gradient steps: the update-to-data ratio alone
ReMix               two gradient steps; 40 % of a batch from the last two steps; after step 9 the data are dropped and the base is reset;
                    lambda falls from step 3 on by 0.1 per step (a plan for 200 steps: 60, 20 and every 4, scaled to 30)
ReMix to the end    the mixture without a switch
ReMix around 1      its clip window around 1 instead of around the current policy
ReMix first base    the switch without the new base model

All arms take the same number of updates; they differ in rollouts, and the accuracy is read against them. The learning rate is a quarter of
the library's for this model, so that the way up takes several batches: with the usual one, three batches make most of it.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says; six are a pilot):

rollouts   ReMix reaches 80 % of GRPO's final accuracy with less than 0.6 of GRPO's rollouts (geometric mean over seeds). A run that never
           reaches it counts with all its rollouts. The published factor against the same base is about 10; mixing alone can save 1.67.
           Besides, without a rule: the same for GRPO m=2, which says how much of it is the second gradient step.
final      ReMix's final accuracy is not below GRPO's, nor below that of mixing to the end, by more than two points.
window     up to the switch, the mean accuracy over rollouts is higher with the window around the current policy than around 1.
base       the new base does not lower the final accuracy by more than two points (published, for leaving out the whole switch: 47.26
           instead of 52.10).

What cannot be shown at this scale: factors of 30 and more (they compare with other groups' published runs), shorter responses (the working
of chain-sum has a fixed length; it is logged), the loss of self-reflection.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rheostat.experiments.studies import (
    Arm,
    Cell,
    Claim,
    Judgement,
    Results,
    Study,
    better,
    curves,
    finals,
    not_worse,
    reaches,
    smaller,
    summary,
    trained,
)

FACTOR, MARGIN = 0.6, 0.02
"""Share of GRPO's rollouts that ReMix must stay below, and points of accuracy that do not matter."""
GOAL = 0.8
"""Share of GRPO's final accuracy."""


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    updates: int = 30
    switch: int = 9
    start: int = 3
    look_every: int = 2
    look_prompts: int = 256
    held_out: int = 512
    prompts: int = 32
    group_size: int = 8
    model: str = "chain-sum"
    first_seed: int = 0


SMOKE = Sizes(1, 4, 2, 1, 1, 4, 4, 5, 4, "untrained")


def arms(sizes: Sizes) -> dict[str, Arm]:
    """The six."""
    own = {"switch_after": sizes.switch, "convex_start": sizes.start, "convex_interval": 1, "epochs": 2}
    return {
        "GRPO": Arm("grpo"),
        "GRPO m=2": Arm("grpo", {"epochs": 2}),
        "ReMix": Arm("remix", own),
        "ReMix to the end": Arm("remix", own | {"switch_after": 0}),
        "ReMix around 1": Arm("remix", own | {"correction": "behaviour"}),
        "ReMix first base": Arm("remix", own | {"reset_base": False}),
    }


def claims(sizes: Sizes) -> list[Claim]:
    """Rollouts, final accuracy, window and base."""
    shared: dict[str, Any] = {
        "prompts_per_batch": sizes.prompts,
        "group_size": sizes.group_size,
        "learning_rate": 5e-5,
        "kl_coefficient": 0.001,
        "aggregation": "token-mean",
        "evaluate_every": sizes.look_every,
        "evaluation_prompts": sizes.look_prompts,
    }
    cells = trained(
        arms(sizes),
        task="chain-sum",
        steps=sizes.updates,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared=shared,
        settings={"model": sizes.model, "evaluation_episodes": sizes.held_out, "checkpoint_every": sizes.updates},
        metrics=(
            "accuracy",
            "reward",
            "entropy",
            "completion_length",
            "kl_reference",
            "meter/ess",
            "meter/limited_share",
            "meter/age_mean",
        ),
        cost=28.0,
    )
    setting = (
        f"chain-sum, {sizes.updates} updates of {sizes.prompts} prompts x {sizes.group_size} (mixed: 60 % of them sampled), learning rate "
        f"5e-5, KL 0.001; accuracy every {sizes.look_every} updates on {sizes.look_prompts} held-out prompts, finally on {sizes.held_out}"
    )

    def judge_rollouts(result: Results) -> Judgement:
        final = {name: finals(found, result) for name, found in cells.items()}
        goals = {seed: GOAL * value for seed, value in final["GRPO"].items()}
        needed = {name: rollouts(found, result, goals) for name, found in cells.items()}
        condition = smaller("rollouts of ReMix and GRPO to 80 % of GRPO's final accuracy", needed["ReMix"], needed["GRPO"], factor=FACTOR)
        lengths = {name: summary(last(found, result, "completion_length")) for name, found in cells.items()}
        metrics = {
            "final": {name: summary(found) for name, found in final.items()},
            "rollouts_to_goal": {name: summary(found) for name, found in needed.items()},
            "rollouts": {name: summary(last(found, result, "reward_calls")) for name, found in cells.items()},
            "learner_tokens": {name: summary(last(found, result, "learner_tokens")) for name, found in cells.items()},
            "completion_length_at_the_end": lengths,
        }
        return Judgement([condition], metrics, curves(cells, result))

    def judge_final(result: Results) -> Judgement:
        final = {name: finals(cells[name], result) for name in ("ReMix", "GRPO", "ReMix to the end")}
        return Judgement(
            [
                not_worse("final accuracy of ReMix and GRPO", final["ReMix"], final["GRPO"], margin=MARGIN),
                not_worse("final accuracy of ReMix and mixing to the end", final["ReMix"], final["ReMix to the end"], margin=MARGIN),
            ]
        )

    def judge_window(result: Results) -> Judgement:
        early = {name: until_switch(cells[name], result, sizes.switch) for name in ("ReMix", "ReMix around 1")}
        return Judgement([better("accuracy up to the switch, ReMix and around 1", early["ReMix"], early["ReMix around 1"], margin=MARGIN)])

    def judge_base(result: Results) -> Judgement:
        final = {name: finals(cells[name], result) for name in ("ReMix", "ReMix first base")}
        return Judgement(
            [not_worse("final accuracy of ReMix and of its first base", final["ReMix"], final["ReMix first base"], margin=MARGIN)]
        )

    def some(*names: str) -> dict[str, dict[int, Cell]]:
        return {name: cells[name] for name in names}

    return [
        Claim(
            "rollouts",
            "ReMix needs fewer rollouts",
            "1.5B: PPO needs 900 steps (0.230M rollouts) for 50.61, ReMix 100 steps (0.020M)",
            setting,
            cells,
            judge_rollouts,
            margins={"ratio of rollouts": FACTOR},
            preconditions=(reaches("GRPO", cells, least=0.7),),  # it climbs far enough to be timed
        ),
        Claim(
            "final",
            "ReMix ends no lower",
            "52.10 against 50.61 for PPO and 48.70 for the mixture alone",
            setting,
            some("ReMix", "GRPO", "ReMix to the end"),
            judge_final,
            margins={"accuracy": MARGIN},
        ),
        Claim(
            "window",
            "The window belongs around the current policy",
            "Around 1, stale tokens are clipped before they move",
            setting,
            some("ReMix", "ReMix around 1"),
            judge_window,
            margins={"accuracy": MARGIN},
        ),
        Claim(
            "base",
            "A new base model does not hurt",
            "Without reincarnation 47.26 instead of 52.10 (the whole switch left out)",
            setting,
            some("ReMix", "ReMix first base"),
            judge_base,
            margins={"accuracy": MARGIN},
        ),
    ]


def rollouts(cells: dict[int, Cell], result: Results, goals: dict[int, float]) -> dict[int, float]:
    """Rollouts until the accuracy first reaches the goal of the seed, linear between two looks; all of them where it never does."""
    found = {}
    for seed, cell in cells.items():
        curve = result(cell)["curve"]
        accuracy, used = np.array(curve["accuracy"]), np.array(curve["reward_calls"])
        above = np.flatnonzero(accuracy >= goals[seed])
        if not len(above):
            found[seed] = float(used[-1])
        elif above[0] == 0:
            found[seed] = float(used[0])
        else:
            after = int(above[0])
            span = accuracy[after] - accuracy[after - 1]
            found[seed] = float(used[after - 1] + (used[after] - used[after - 1]) * (goals[seed] - accuracy[after - 1]) / span)
    return found


def until_switch(cells: dict[int, Cell], result: Results, switch: int) -> dict[int, float]:
    """Mean accuracy over the updates up to the switch, by seed; equal rollouts in all mixed arms."""
    return {seed: float(np.mean(result(cell)["curve"]["accuracy"][:switch])) for seed, cell in cells.items()}


def last(cells: dict[int, Cell], result: Results, column: str) -> dict[int, float]:
    """The last entry of a column, by seed."""
    return {seed: float(result(cell)["curve"][column][-1]) for seed, cell in cells.items()}


def draw(result: dict[str, Any], path: Path) -> None:
    """Accuracy against rollouts, and the verdicts."""
    import matplotlib
    from matplotlib.figure import Figure

    from rheostat.analysis.records import group_arms
    from rheostat.reporting.plots import STYLE, draw_arms
    from rheostat.reporting.study_figures import draw_effects, records_of

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 5.6), layout="constrained", dpi=130)
        above, below = figure.subfigures(2, 1, height_ratios=[3.2, 2.0])
        (found,) = group_arms(records_of(result)).values()
        axes = above.subplots()
        draw_arms(axes, found, "accuracy", "reward_calls")
        axes.set(xlabel="rollouts", ylabel="held-out accuracy")
        axes.legend(fontsize=7.5, ncols=2)
        draw_effects(below.subplots(), result)
        figure.savefig(path)


STUDY = Study("remix", "ReMix", "arXiv 2507.06892", claims, full=Sizes(), smoke=SMOKE, draw=draw)
