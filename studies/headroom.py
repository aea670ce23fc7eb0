"""Three tasks with headroom: what reinforcement lifts, what only an expert can teach, and what is forgotten.

All three are chains of digits of which the whole working is graded, so guessing earns nothing, and each has a tiny base of its own.

elicit     chain-sum-elicit: the base knows ``+`` and ``-`` and imitates an expert who slips. Arms: GRPO, and SFT on that expert.
teach      chain-sum-teach: the sign ``*`` means ``+``, which only the expert knows (it slips in 15 of 100 steps). Arms: GRPO, SFT,
           CHORD-phi, LUFFY and RL-PLUS.
interfere  chain-sum-interfere: 85 of 100 prompts are short and may be answered bare, the rest need the working. Arms: GRPO, and
           CHORD-phi with the expert's rows of both kinds.

Equal in all arms of a task: base, prompts of a seed, updates, 16 prompts x 16 completions per update (SFT: 128 demonstrations; the mixtures
as many expert rows as their papers' shares make), AdamW without weight decay, gradient norm 1, no KL. Learning rate 2e-4, for SFT 1e-3:
both are the best of the few that were tried on other seeds and other bases before this study was declared, and so are the budgets (25, 30
and 60 updates). No other tuning.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

elicit     at the end GRPO is more accurate than SFT by more than 5 points. Testable if SFT ends between .1 and .6.
mixtures   at the end CHORD-phi, LUFFY and RL-PLUS are each more accurate than GRPO by more than 5 points (a claim each), and
over SFT   more accurate than SFT by more than 5 points (a claim each). Testable if GRPO ends below .05 and SFT between .2 and .8.
interfere  at the end CHORD-phi is more accurate than GRPO by more than 5 points on held-out prompts, among which every chain stands
           once, so that nearly all are long ones. Testable if GRPO ends below .3 there.

Accuracy is that of one sampled completion per held-out prompt at temperature 1. What cannot be shown here: anything about large models;
these tasks are made so that a difference can be seen, and say only that a method can make it.
"""

from __future__ import annotations

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
    better,
    curves,
    finals,
    reaches,
    summary,
    trained,
)

OWN: dict[str, Any] = {"learning_rate": 2e-4, "kl_coefficient": 0.0}
GRPO = Arm("grpo", OWN)
SFT = Arm("sft", {"learning_rate": 1e-3, "prompts_per_batch": 128})
CHORD = Arm("chord", OWN)
MIXTURES = {
    "CHORD-phi": CHORD,
    "LUFFY": Arm("luffy", {"learning_rate": 2e-4}),
    "RL-PLUS": Arm("rl-plus", {"learning_rate": 2e-4}),
}
SHARED: dict[str, Any] = {"evaluate_every": 0, "weight_decay": 0.0}
METRICS = ("reward", "entropy", "completion_length", "expert_loss")
MARGIN = 0.05


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    elicit_updates: int = 25
    teach_updates: int = 30
    interfere_updates: int = 60
    prompts: int = 16
    group_size: int = 16
    held_out: int = 512
    model: str | None = None
    """None: the base of each task."""
    first_seed: int = 0


SMOKE = Sizes(1, 1, 1, 1, 2, 4, 4, "untrained")


def claims(sizes: Sizes) -> list[Claim]:
    """One claim for elicit, two for each mixture in teach, one for interfere."""

    def cells_of(name: str, arms: dict[str, Arm], updates: int) -> dict[str, dict[int, Cell]]:
        task = f"chain-sum-{name}"
        return trained(
            arms,
            task=task,
            steps=updates,
            seeds=sizes.seeds,
            first_seed=sizes.first_seed,
            shared=SHARED | {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size},
            settings={"model": sizes.model or task, "evaluation_episodes": sizes.held_out, "checkpoint_every": updates},
            metrics=METRICS,
            cost=15.0,
        )

    elicit = cells_of("elicit", {"GRPO": GRPO, "SFT": SFT}, sizes.elicit_updates)
    teach = cells_of("teach", {"GRPO": GRPO, "SFT": SFT, **MIXTURES}, sizes.teach_updates)
    interfere = cells_of("interfere", {"GRPO": GRPO, "CHORD-phi": CHORD}, sizes.interfere_updates)

    def claim(
        name: str,
        sentence: str,
        why: str,
        cells: dict[str, dict[int, Cell]],
        pair: tuple[str, str],
        task: str,
        updates: int,
        preconditions: tuple[Precondition, ...],
    ) -> Claim:
        ours, other = pair

        def judge(result: Results) -> Judgement:
            final = {arm: finals(cells[arm], result) for arm in pair}
            condition = better(f"accuracy of {ours} and {other}", final[ours], final[other], by=MARGIN)
            return Judgement([condition], {"final": {arm: summary(found) for arm, found in final.items()}}, curves(cells, result))

        setting = (
            f"{task} from its own base, {updates} updates of {sizes.prompts} prompts x {sizes.group_size}; one sample for each of "
            f"{sizes.held_out} held-out prompts"
        )
        return Claim(name, sentence, why, setting, cells, judge, margins={"accuracy": MARGIN}, preconditions=preconditions)

    taught = (reaches("GRPO", teach, most=0.05), reaches("SFT", teach, least=0.2, most=0.8))
    found = [
        claim(
            "elicit",
            "Reinforcement surpasses the expert whom the base imitates",
            "Our own claim: slips never take the right step out of reach, so reward finds it, and imitation keeps the slips",
            elicit,
            ("GRPO", "SFT"),
            "chain-sum-elicit",
            sizes.elicit_updates,
            (reaches("SFT", elicit, least=0.1, most=0.6),),
        )
    ]
    for arm in MIXTURES:
        some = {name: teach[name] for name in ("GRPO", "SFT", arm)}
        for other in ("GRPO", "SFT"):
            found.append(
                claim(
                    f"{arm} over {other}",
                    f"{arm} learns what {other} alone does not",
                    "CHORD, LUFFY and RL-PLUS report gains of mixtures over reinforcement alone and over imitation alone",
                    some,
                    (arm, other),
                    "chain-sum-teach",
                    sizes.teach_updates,
                    taught,
                )
            )
    found.append(
        claim(
            "interfere",
            "Expert rows keep what reinforcement on a mixture of prompts forgets",
            "SELF reports that reinforcement narrows what a model can solve to what it solves already; expert rows are one remedy",
            interfere,
            ("CHORD-phi", "GRPO"),
            "chain-sum-interfere",
            sizes.interfere_updates,
            (reaches("GRPO", interfere, most=0.3),),
        )
    )
    return found


STUDY = Study("headroom", "Three tasks with headroom", "none", claims, full=Sizes(), smoke=SMOKE)
