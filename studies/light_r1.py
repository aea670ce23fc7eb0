"""Light-R1: what do the stages of its recipe add, one after the other?

Chains of sums from a tiny base that knows two to four terms; the task's expert, who writes every step, plays the stronger teacher. Accuracy
is that of four samples for each of 128 held-out chains of six to eight terms. Arms:

A   imitation of chains of four to eight terms, mixed
B   imitation of chains of four and five terms, then of six to eight (as many steps, and as many more as C has)
C   B's curriculum, then NCA: the expert's answer against a wrong one of the curriculum's model
C'  the same with the sigmoid link, plain DPO
E   C's curriculum, then GRPO with the length reward on prompts that are solved neither always nor never
E'  the same on all prompts of the pool

Every arm makes the same number of gradient steps: 300 of the curriculum (200 and 100) and 40 more. No arm was tuned: imitation has the step
size 1e-3, in the second stage 2e-4, preferences 5e-5 and reinforcement 2e-4. One seed outside of the study (5000) was timed before: with
fewer steps it stayed at chance on the longer chains, so the curriculum was lengthened to 300 steps and all other stages shortened to 40,
after which it had .49 and arm E .55; the least room above B was raised from .1 to .2.

Rules, fixed before any arm was run (matched seeds, looked at as docs/rule.md says); less than two points of accuracy do not matter.

curriculum  easy chains first end above all chains mixed. The spec expects little; whatever comes out is reported.
preference  C ends above B; its chosen log-ratio in the last third of the stage, on the scale beta, is at least -0.1, and above DPO's.
reinforce   E ends above B, and more is left to compare in E than in E': the share of groups whose rewards differ is larger.

B must have learned something and have room above it. Left out: averaging checkpoints (its gains are below a point) and 16 samples of each
prompt (4 here). What cannot be shown: the emergence of long reasoning, growing lengths, contamination.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rheostat.experiments.studies import Cell, Claim, Judgement, Precondition, Results, Study, better, not_worse, summary
from studies._light_r1_cells import EASY, HARD, MIXED

A, B, C, DPO, E, ALL = "A, mixed", "B, curriculum", "C, NCA", "C', DPO", "E, GRPO", "E', unfiltered"
MARGINS = {"accuracy": 0.02, "scaled log-ratio": 0.1}
BETA = 0.3
SOURCES = tuple(f"rheostat.methods.language.{name}" for name in ("sft", "dpo", "light_r1", "grpo"))


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    easy: int = 200
    hard: int = 100
    more: int = 40
    batch: int = 32
    prompts: int = 16
    group_size: int = 8
    pool: int = 256
    held_out: int = 128
    samples: int = 4
    model: str = "chain-sum-short"
    first_seed: int = 0


SMOKE = Sizes(1, 1, 1, 1, 2, 2, 2, 4, 4, 1, "untrained")


def stages(sizes: Sizes) -> dict[str, list[dict[str, Any]]]:
    """The stages of each arm; those of the curriculum are in a cell of their own."""

    def imitate(steps: int, terms: tuple[int, int], rate: float) -> dict[str, Any]:
        config = {"prompts_per_batch": sizes.batch, "learning_rate": rate}
        return {"method": "sft", "config": config, "steps": steps, "terms": list(terms)}

    def prefer(link: str) -> dict[str, Any]:
        config = {"data": "taught", "link": link, "beta": BETA, "learning_rate": 5e-5, "prompts_per_batch": sizes.batch // 2}
        config |= {"group_size": 4 if sizes.more > 1 else 2, "dial.refresh_every": 0}
        return {"method": "dpo", "config": config, "steps": sizes.more, "terms": list(HARD)}

    def reinforce(pass_rate: list[float] | None) -> dict[str, Any]:
        config = {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size, "learning_rate": 2e-4, "exceed_reward": -1.0}
        stage = {"method": "light-r1", "config": config | {"length_margin": 1}, "steps": sizes.more, "terms": list(HARD)}
        return stage | {"pool": sizes.pool, "pass_rate": pass_rate}

    return {
        A: [imitate(sizes.easy, MIXED, 1e-3), imitate(sizes.hard + sizes.more, MIXED, 2e-4)],
        "curriculum": [imitate(sizes.easy, EASY, 1e-3), imitate(sizes.hard, HARD, 2e-4)],
        B: [imitate(sizes.more, HARD, 2e-4)],
        C: [prefer("nca")],
        DPO: [prefer("sigmoid")],
        E: [reinforce([0.125, 0.875])],
        ALL: [reinforce(None)],
    }


def cells_of(sizes: Sizes) -> tuple[dict[int, Cell], dict[str, dict[int, Cell]]]:
    """The curriculum by seed, and all arms by seed."""
    seeds = range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    found = stages(sizes)
    asked = {"held_out": sizes.held_out, "samples": sizes.samples}

    def cell(arm: str, seed: int, start: Cell | None) -> Cell:
        begun = {"model": sizes.model} if start is None else {"data": start.key}
        arguments = asked | begun | {"seed": seed, "stages": found[arm]}
        needs = () if start is None else (start,)
        return Cell("studies._light_r1_cells:learn", arguments, f"{arm}, seed {seed}", 40.0, needs, SOURCES)

    first = {seed: cell("curriculum", seed, None) for seed in seeds}
    arms = {arm: {seed: cell(arm, seed, None if arm == A else first[seed]) for seed in seeds} for arm in (A, B, C, DPO, E, ALL)}
    return first, arms


def claims(sizes: Sizes) -> list[Claim]:
    """Three claims on the same cells."""
    first, cells = cells_of(sizes)
    setting = (
        f"chains of {HARD[0]} to {HARD[1]} terms from {sizes.model}, {sizes.easy} + {sizes.hard} steps of a curriculum and {sizes.more} "
        f"more; {sizes.samples} samples for each of {sizes.held_out} held-out chains"
    )

    def of(found: dict[int, Cell], result: Results, name: str = "accuracy") -> dict[int, float]:
        return {seed: float(result(cell)["final"][name]) for seed, cell in found.items()}

    def ratio(arm: str, result: Results) -> dict[int, float]:
        curves = {seed: result(cell)["stages"][-1]["curve"]["chosen_log_ratio"] for seed, cell in cells[arm].items()}
        return {seed: BETA * float(np.mean(curve[-max(1, len(curve) // 3) :])) for seed, curve in curves.items()}

    def spread(arm: str, result: Results) -> dict[int, float]:
        return {seed: float(np.mean(result(cell)["stages"][-1]["curve"]["varied"])) for seed, cell in cells[arm].items()}

    def told(result: Results, *names: str) -> dict[str, Any]:
        return {
            "accuracy": {"after the curriculum": summary(of(first, result))} | {arm: summary(of(cells[arm], result)) for arm in names},
            "length": {arm: summary(of(cells[arm], result, "completion_length")) for arm in names},
        }

    def judge_curriculum(result: Results) -> Judgement:
        condition = better("accuracy, easy chains first and mixed", of(cells[B], result), of(cells[A], result), margin=MARGINS["accuracy"])
        return Judgement([condition], told(result, A, B))

    def judge_preference(result: Results) -> Judgement:
        zero = dict.fromkeys(cells[C], 0.0)
        conditions = [
            better("accuracy, NCA and imitation", of(cells[C], result), of(cells[B], result), margin=MARGINS["accuracy"]),
            not_worse("chosen log-ratio of NCA and 0", ratio(C, result), zero, margin=MARGINS["scaled log-ratio"]),
            better("chosen log-ratio, NCA and DPO", ratio(C, result), ratio(DPO, result)),
        ]
        more = {"chosen log-ratio": {arm: summary(ratio(arm, result)) for arm in (C, DPO)}}
        return Judgement(conditions, told(result, B, C, DPO) | more)

    def judge_reinforce(result: Results) -> Judgement:
        conditions = [
            better("accuracy, GRPO and imitation", of(cells[E], result), of(cells[B], result), margin=MARGINS["accuracy"]),
            better("groups whose rewards differ, filtered and not", spread(E, result), spread(ALL, result)),
        ]
        more = {"groups whose rewards differ": {arm: summary(spread(arm, result)) for arm in (E, ALL)}}
        return Judgement(conditions, told(result, B, E, ALL) | more)

    room = Precondition("room", "accuracy of B", lambda result: of(cells[B], result), least=0.2, most=0.9)

    def some(*names: str) -> dict[str, dict[int, Cell]]:
        return {name: cells[name] for name in names}

    return [
        Claim(
            "curriculum",
            "Easy chains first end above all chains mixed",
            "Two stages of rising difficulty: AIME24 69.0 after the first, 73.0 after the second",
            setting,
            some(A, B),
            judge_curriculum,
            margins={"accuracy": MARGINS["accuracy"]},
            preconditions=(room,),
        ),
        Claim(
            "preference",
            "NCA on the teacher's against own wrong answers adds accuracy and holds the chosen likelihood",
            "Semi-on-policy preferences: AIME24 73.0 before, 75.8 after",
            setting,
            some(B, C, DPO),
            judge_preference,
            margins=MARGINS,
            preconditions=(room,),
        ),
        Claim(
            "reinforce",
            "GRPO adds accuracy, and filtered prompts leave more to compare",
            "GRPO on filtered prompts: AIME24 72.3 before, 74.0 after, of a model of 14 billion weights",
            setting,
            some(B, E, ALL),
            judge_reinforce,
            margins={"accuracy": MARGINS["accuracy"]},
            preconditions=(room,),
        ),
    ]


STUDY = Study("light-r1", "Light-R1", "arXiv 2503.10460", claims, full=Sizes(), smoke=SMOKE)
