"""DED: is the best teacher the one with the best score, and do a few chosen answers do the work of many?

Chains of 3 to 6 terms, a student that knows 2 to 4 (chain-sum-short), and four teachers (chain-sum-teachers): one that writes in many
styles, a steady one that slips a little, a terse one that is always right and shows no working, and a poor one. Arms of a seed:

trial TEACHER    25 questions x 4 answers, as they come; a third of the updates
TEACHER          100 questions x 4 answers, as they come
large            400 questions x 4 answers of the steady teacher, as they come
random four      answers of the steady teacher that are right, to questions the student solves in at most half of 8 attempts, 4 at random
DED              the same, 4 that lie far apart (max-min, in tokens)

DED and random four choose among 8 answers to each of 100 questions. Equal in all arms but the trials: student, questions of a seed, batches
of 48 rows, AdamW with learning rate 1e-3, and the number of updates. No arm was tuned. The teachers are built so that "best score" and
"best to learn from" differ: this tests the selection, not whether real models behave so.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

teacher    for more than half of the seeds the best trial is of the teacher with the best full run, and that is not the terse one; a student
           of the chosen teacher is more accurate on chains of 5 and 6 terms than one of the terse teacher by more than 5 points.
corpus     DED is not worse than large by 2 points on chains of 5 and 6 terms, and better on those of 2 to 4 (by any amount over 1 point
           that matters).
diversity  DED is not worse than random four by 2 points on chains of 5 and 6 terms. A gain is reported with its interval.

What cannot be shown here: the published numbers, a student that passes its teacher on real tasks, and edit distances of natural language.
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
    better,
    curves,
    majority,
    not_worse,
    summary,
    trained,
)
from rheostat.tasks.language.chain_sum_teachers import TEACHERS

CHOSEN, BARE = "steady", "terse"
AS_THEY_COME: dict[str, Any] = {"most_solved": 1.0, "choice": "all", "least_reward": 0.0, "answers_per_question": 4}
SHARED: dict[str, Any] = {"evaluate_every": 0, "weight_decay": 0.0, "warmup": 0}
METRICS = ("entropy", "completion_length", "corpus/rows", "corpus/questions", "corpus/good_share", "corpus/student_pass_rate")
HARD, EASY = "validation_hard", "validation_easy"
MARGINS = {"teacher": 0.05, "corpus": 0.02, "easy": 0.01, "diversity": 0.02}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    updates: int = 90
    trial: int = 30
    questions: int = 100
    rows: int = 48
    held_out: int = 512
    model: str = "chain-sum-short"
    first_seed: int = 0


SMOKE = Sizes(1, 2, 1, 8, 4, 8, "untrained")
COST = 17.0
"""Seconds of a whole run."""


def all_cells(sizes: Sizes) -> dict[str, dict[int, Cell]]:
    """See the module docstring."""

    def cells(teacher: str, arms: Mapping[str, dict[str, Any]], updates: int) -> dict[str, dict[int, Cell]]:
        return trained(
            {name: Arm("ded", options) for name, options in arms.items()},
            task="chain-sum-teachers",
            steps=updates,
            seeds=sizes.seeds,
            first_seed=sizes.first_seed,
            shared=SHARED | {"prompts_per_batch": sizes.rows, "learning_rate": 1e-3},
            settings={
                "model": sizes.model,
                "evaluation_episodes": sizes.held_out,
                "checkpoint_every": updates,
                "environment_options": {"teacher": teacher},
            },
            metrics=METRICS,
            cost=COST * updates / 90,
        )

    found: dict[str, dict[int, Cell]] = {}
    for teacher in TEACHERS:
        found |= cells(teacher, {f"trial {teacher}": AS_THEY_COME | {"questions": max(1, sizes.questions // 4)}}, sizes.trial)
        found |= cells(teacher, {teacher: AS_THEY_COME | {"questions": sizes.questions}}, sizes.updates)
    few = {"questions": sizes.questions}
    return found | cells(
        CHOSEN,
        {
            "large": AS_THEY_COME | {"questions": 4 * sizes.questions},
            "random four": few | {"choice": "random"},
            "DED": few,
        },
        sizes.updates,
    )


def accuracies(cells: Mapping[int, Cell], result: Results, part: str = HARD) -> dict[int, float]:
    """Of one kind of validation prompts, by seed."""
    return {seed: float(result(cell)["summary"][part]) for seed, cell in cells.items()}


def best(cells: Mapping[str, Mapping[int, Cell]], result: Results, before: str = "") -> dict[int, str]:
    """The teacher whose student is most accurate on long chains, by seed."""
    found = {teacher: accuracies(cells[before + teacher], result) for teacher in TEACHERS}
    return {seed: max(TEACHERS, key=lambda teacher: found[teacher][seed]) for seed in found[CHOSEN]}


def claims(sizes: Sizes) -> list[Claim]:
    """Three claims on the same cells."""
    cells = all_cells(sizes)
    setting = (
        f"chain-sum-teachers from {sizes.model}, {sizes.updates} updates of {sizes.rows} rows, learning rate 1e-3; one sample for each of "
        f"{sizes.held_out} held-out prompts"
    )

    def judge_teacher(result: Results) -> Judgement:
        tried, whole = best(cells, result, "trial "), best(cells, result)
        right = {seed: tried[seed] == whole[seed] != BARE for seed in tried}
        chosen = {seed: accuracies(cells[teacher], result)[seed] for seed, teacher in tried.items()}
        terse = accuracies(cells[BARE], result)
        conditions = [
            majority("the trial finds the teacher of the best student", right),
            better("long chains by the chosen and the terse teacher", chosen, terse, by=MARGINS["teacher"]),
        ]
        told = {arm: summary(accuracies(found, result)) for arm, found in cells.items()}
        return Judgement(conditions, {"long chains": told, "chosen": dict(sorted(tried.items()))}, curves(cells, result))

    def judge_corpus(result: Results) -> Judgement:
        hard, easy = ({arm: accuracies(cells[arm], result, part) for arm in ("DED", "large")} for part in (HARD, EASY))
        conditions = [
            not_worse("long chains of DED and large", hard["DED"], hard["large"], margin=MARGINS["corpus"]),
            better("short chains of DED and large", easy["DED"], easy["large"], margin=MARGINS["easy"]),
        ]
        return Judgement(conditions, {"short chains": {arm: summary(found) for arm, found in easy.items()}})

    def judge_diversity(result: Results) -> Judgement:
        hard = {arm: accuracies(cells[arm], result) for arm in ("DED", "random four")}
        return Judgement([not_worse("long chains of DED and random four", hard["DED"], hard["random four"], margin=MARGINS["diversity"])])

    room = Precondition(
        "room", f"long chains of a student of the {CHOSEN} teacher", lambda result: accuracies(cells[CHOSEN], result), least=0.3, most=0.97
    )
    return [
        Claim(
            "teacher",
            "A trial on the student finds the teacher to learn from",
            "QwQ-32B is the best teacher of those tried although not the one with the highest score",
            setting,
            {teacher: cells[teacher] for teacher in TEACHERS},
            judge_teacher,
            extra=tuple(cell for teacher in TEACHERS for cell in cells[f"trial {teacher}"].values()),
            margins={"teacher": MARGINS["teacher"]},
            preconditions=(room,),
        ),
        Claim(
            "corpus",
            "A few chosen answers are as good as four times as many, and spoil less",
            "0.8k examples reach the state of the art of their size and keep what the student knew outside the domain",
            setting,
            {arm: cells[arm] for arm in ("DED", "large")},
            judge_corpus,
            margins={"corpus": MARGINS["corpus"], "easy": MARGINS["easy"]},
            preconditions=(room,),
        ),
        Claim(
            "diversity",
            "Answers that lie far apart are not worse than as many at random",
            "Diverse trajectories per question add to the corpus",
            setting,
            {arm: cells[arm] for arm in ("DED", "random four")},
            judge_diversity,
            margins={"diversity": MARGINS["diversity"]},
            preconditions=(room,),
        ),
    ]


STUDY = Study("ded", "DED", "arXiv 2508.09883", claims, full=Sizes(), smoke=SMOKE)
