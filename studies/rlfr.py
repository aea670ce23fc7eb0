"""RLFR: does a flow field see sloppy steps, and do penalties from it keep workings valid?

Chains of three to six terms whose answers alone are graded, from a tiny base that mostly guesses them; an answer can be guessed, one time
in ten, and a working can be wrong and end well. Five arms:

GRPO            group advantages, no field
RLFR            penalties of lambda .01 from a field that 6,400 rows of an expert and then right completions teach
RLFR .1         the same with lambda .1
untrained       penalties of lambda .01 from a field that nothing teaches: a control
entropy         GRPO with an entropy bonus of .005

Equal in all arms: base, prompts of a seed, 16 prompts x 16 completions, four gradient steps per batch, AdamW with learning rate 2e-4 and no
weight decay, gradient norm 1, clip .2 (ratios at most 3), no KL, and the number of generated tokens. Both learning rates of the field are
1e-3. No arm was tuned.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

field     at the end, the deviation tells the wrong digit of a working from the right one: the area under its ROC curve is above .7 in RLFR,
          and within .05 of one half with the untrained field.
workings  of the right answers at the end, the share whose whole working is valid is larger in RLFR than in GRPO, and than with the
          untrained field; less than two points do not matter. Testable if GRPO's share is at most .97.
accuracy  at the end, RLFR is more accurate than GRPO, and than GRPO with the bonus; less than two points do not matter.

Numbers are those of one sampled completion for each of 512 held-out prompts at temperature 1. What cannot be shown here: gains on
benchmarks of mathematics and vision, and that a field prefers tokens that carry out a computation over words that connect. The specified
world has answers modulo 5; the base of this one is modulo 10, so that less can be guessed.
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
    above,
    better,
    curves,
    reaches,
    sized,
    summary,
    trained,
    within,
)

GRPO: dict[str, Any] = {"dual_clip": 3.0, "clamp_log_ratio": False, "advantage_epsilon": 1e-9}
FIELD: dict[str, Any] = {"flow_learning_rate": 1e-3, "offline_learning_rate": 1e-3}
SHARED: dict[str, Any] = {
    "learning_rate": 2e-4,
    "minibatches": 4,
    "warmup": 0,
    "weight_decay": 0.0,
    "kl_coefficient": 0.0,
    "clip_low": 0.2,
    "clip_high": 0.2,
    "evaluate_every": 0,
    "budget": "generated tokens",
}
METRICS = ("reward", "entropy", "completion_length", "flow/deviation", "flow/right_rows", "flow/loss")
MARGINS = {"share of valid workings": 0.02, "accuracy": 0.02}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    tokens: int = 64_000
    prompts: int = 16
    group_size: int = 16
    held_out: int = 512
    lessons: int = 100
    model: str = "chain-sum"
    first_seed: int = 0


SMOKE = Sizes(1, 150, 2, 4, 4, 2, "untrained")


def arms(sizes: Sizes) -> dict[str, Arm]:
    """By label."""
    taught = FIELD | {"offline_steps": sizes.lessons}
    return {
        "GRPO": Arm("grpo", GRPO),
        "RLFR": Arm("rlfr", taught),
        "RLFR .1": Arm("rlfr", taught | {"flow_coefficient": 0.1}),
        "untrained": Arm("rlfr", {"offline_steps": 0, "flow_passes": 0}),
        "entropy": Arm("grpo", GRPO | {"entropy_coefficient": 0.005}),
    }


def claims(sizes: Sizes) -> list[Claim]:
    """Three claims on the same cells."""
    cells = trained(
        arms(sizes),
        task="chain-sum",
        **sized(sizes, sizes.tokens, SHARED),
        metrics=METRICS,
        cost={"GRPO": 50.0, "RLFR": 130.0, "RLFR .1": 130.0, "untrained": 70.0, "entropy": 50.0},
        look="studies._rlfr_cells:look",
    )
    setting = (
        f"chain-sum from {sizes.model}, {sizes.tokens:,} generated tokens in batches of {sizes.prompts} prompts x {sizes.group_size}, four "
        f"gradient steps per batch, learning rate 2e-4; one sample for each of {sizes.held_out} held-out prompts"
    )

    def judge_field(result: Results) -> Judgement:
        auc = {arm: looked(cells[arm], result, "auc") for arm in ("RLFR", "RLFR .1", "untrained")}
        conditions = [
            above("area under the ROC curve of RLFR's field", auc["RLFR"], 0.7),
            within("area under the ROC curve of the untrained field", auc["untrained"], 0.45, 0.55),
        ]
        return Judgement(conditions, {"area under the ROC curve": {arm: summary(found) for arm, found in auc.items()}})

    def judge(name: str, label: str, others: tuple[str, ...]) -> Any:
        def judged(result: Results) -> Judgement:
            final = {arm: looked(found, result, name) for arm, found in cells.items()}
            conditions = [better(f"{label} of RLFR and {other}", final["RLFR"], final[other], margin=MARGINS[label]) for other in others]
            return Judgement(conditions, {label: {arm: summary(found) for arm, found in final.items()}}, curves(cells, result))

        return judged

    learned = reaches("GRPO", cells, least=0.45, most=0.97)  # something is learned, and the ceiling is not reached
    sloppy = Precondition(
        "workings of GRPO",
        "share of GRPO's right answers whose whole working is valid",
        lambda result: looked(cells["GRPO"], result, "valid_share"),
        most=0.97,
    )
    return [
        Claim(
            "field",
            "The deviation from the flow sees a wrong step",
            "A well-established flow field is a sound reward environment; no number for single tokens is given",
            setting,
            {arm: cells[arm] for arm in ("RLFR", "RLFR .1", "untrained")},
            judge_field,
            margins={"area under the ROC curve": 0.05},
        ),
        Claim(
            "workings",
            "Penalties from the flow keep workings valid",
            "Outcome rewards ignore useful steps inside a trajectory, and flow rewards see them",
            setting,
            cells,
            judge("valid_share", "share of valid workings", ("GRPO", "untrained")),
            margins={"share of valid workings": MARGINS["share of valid workings"]},
            preconditions=(learned, sloppy),
        ),
        Claim(
            "accuracy",
            "Penalties from the flow raise accuracy",
            "Consistent gains over plain RLVR and over shaping by entropy on benchmarks of mathematics (Qwen2.5-Math, Llama-3.1)",
            setting,
            cells,
            judge("accuracy", "accuracy", ("GRPO", "entropy")),
            margins={"accuracy": MARGINS["accuracy"]},
            preconditions=(learned,),
        ),
    ]


def looked(cells: Mapping[int, Cell], result: Results, name: str) -> dict[int, float]:
    """What the look at a finished run found, by seed."""
    return {seed: float(result(cell)["look"][name]) for seed, cell in cells.items()}


STUDY = Study("rlfr", "RLFR", "arXiv 2510.10201", claims, full=Sizes(), smoke=SMOKE)
