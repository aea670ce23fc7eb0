"""RISE: does judging one's own solutions teach to judge, and does it cost solving?

Chains of three to six terms from ``chain-sum-verify``, a base that works a third of them out and has seen the form of questions about
solutions, with answers that are hardly better than chance. A question shows problem and solution, and is answered by 1 or 0. Arms, each of
144 rows per update:

solve    18 problems x 8 solutions, no questions: PPO with RISE's settings
RISE     16 problems x 8 solutions and 2 questions x 8 judgements: a ninth, as published
third    12 problems x 8 solutions and 6 questions x 8 judgements

Equal in all arms: base, updates, AdamW with learning rate 3e-4, no weight decay, gradient norm 1, GAE(1, 1), three gradient steps per
batch, no KL, the task's rewards 1 and 0. No arm was tuned. Offline verification (judging the first model's solutions) is no arm: no method
here has it.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says), with the balanced accuracy of one judgement of one
solution for each held-out prompt, the mean over right and wrong solutions:

verifies  at the end RISE verifies better than solving alone by more than 15 points.
share     at the end a third of questions verifies better than a ninth; two points do not matter.
solving   at the end RISE and solving alone differ by less than three points of accuracy.

Testable if solving alone ends between .3 and .97 of accuracy, states a score in more than half of its judgements, and verifies below .75.
What cannot be shown here: self-checking that appears unasked, and gains on benchmarks.
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
    Precondition,
    Results,
    Study,
    alike,
    better,
    curves,
    finals,
    reaches,
    sized,
    summary,
    trained,
)

BALANCED = "validation_verification_balanced_accuracy"
STATED = "validation_verification_stated_share"
SHARED: dict[str, Any] = {
    "learning_rate": 3e-4,
    "minibatches": 3,
    "weight_decay": 0.0,
    "kl_coefficient": 0.0,
    "solution_rewards": "task",
    "evaluate_every": 0,
}
METRICS = ("reward", "entropy", "completion_length", "solution_reward", "verification_balanced_accuracy", "value_loss")
MARGINS = {"verification": 0.15, "share": 0.02, "accuracy": 0.03}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    updates: int = 150
    group_size: int = 8
    ninth: int = 2
    """Questions per update of the published share; there are nine times as many problems and questions together."""
    held_out: int = 512
    model: str = "chain-sum-verify"
    first_seed: int = 0


SMOKE = Sizes(1, 1, 2, 1, 4, "untrained")


def claims(sizes: Sizes) -> list[Claim]:
    """Three claims on the same cells."""
    whole = 9 * sizes.ninth
    arms = {
        label: Arm("rise", {"prompts_per_batch": whole - asked, "verification_prompts": asked})
        for label, asked in (("solve", 0), ("RISE", sizes.ninth), ("third", 3 * sizes.ninth))
    }
    cells = trained(
        arms,
        task="chain-sum",
        **sized(sizes, sizes.updates, SHARED),
        metrics=METRICS,
        cost=90.0,
    )
    setting = (
        f"chain-sum from {sizes.model}, {sizes.updates} updates of {whole * sizes.group_size} rows, learning rate 3e-4; one solution for "
        f"each of {sizes.held_out} held-out prompts and one judgement of each"
    )
    possible = (
        reaches("solve", cells, least=0.3, most=0.97),
        Precondition(
            "form", "judgements of solving alone that state a score", lambda result: ends(cells["solve"], result, STATED), least=0.5
        ),
        Precondition("room", "balanced accuracy of solving alone", lambda result: ends(cells["solve"], result, BALANCED), most=0.75),
    )

    def judge_verifies(result: Results) -> Judgement:
        found = {arm: ends(each, result, BALANCED) for arm, each in cells.items()}
        condition = better("balanced accuracy of judgements, RISE and solve", found["RISE"], found["solve"], by=MARGINS["verification"])
        return Judgement([condition], {"verification": {arm: summary(each) for arm, each in found.items()}}, curves(cells, result))

    def judge_share(result: Results) -> Judgement:
        a, b = (ends(cells[arm], result, BALANCED) for arm in ("third", "RISE"))
        return Judgement([better("balanced accuracy of judgements, third and RISE", a, b, margin=MARGINS["share"])])

    def judge_solving(result: Results) -> Judgement:
        final = {arm: finals(each, result) for arm, each in cells.items()}
        condition = alike("accuracy of RISE and solve", final["RISE"], final["solve"], margin=MARGINS["accuracy"])
        return Judgement([condition], {"final": {arm: summary(each) for arm, each in final.items()}})

    return [
        Claim(
            "verifies", "Judging one's own solutions teaches to judge", "Verification accuracy rises strongly over PPO on outcomes alone",
            setting, cells, judge_verifies, margins={"verification": MARGINS["verification"]}, preconditions=possible,
        ),
        Claim(
            "share", "More judgements teach more", "More verification compute helps", setting,
            {arm: cells[arm] for arm in ("RISE", "third")}, judge_share, margins={"share": MARGINS["share"]}, preconditions=possible,
        ),
        Claim(
            "solving", "Solving is no worse for it", "Generation gains are modest", setting, {arm: cells[arm] for arm in ("solve", "RISE")},
            judge_solving, margins={"accuracy": MARGINS["accuracy"]}, preconditions=possible,
        ),
    ]  # fmt: skip


def ends(cells: Mapping[int, Cell], result: Results, key: str) -> dict[int, float]:
    """A number of the final evaluation, by seed."""
    return {seed: float(result(cell)["summary"][key]) for seed, cell in cells.items()}


STUDY = Study("rise", "RISE", "arXiv 2505.13445", claims, full=Sizes(), smoke=SMOKE)
