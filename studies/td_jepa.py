"""TD-JEPA: does a representation that predicts its own long-term future give policies for rewards that it never saw?

The maze of four rooms, 20,000 uniform steps without rewards. Twelve rewards afterwards, each between 0 and 1 per step: eight goals (1
within 0.2 of a place, two in every room) and four dense ones (the way along an axis, in either direction). An episode has 50 steps and
begins anywhere; a score is the mean reward per step over 20 episodes, then over the twelve rewards. Arms, all on the same data:

TD-JEPA           asymmetric
symmetric         one encoder, with as many features
no orthonormality both weights 0
one step          gamma 0: features predict the next state alone, and values are those of one step
random encoder    encoders never move; predictors and policies learn as in TD-JEPA
forward-backward  the same sizes
laplacian         the same sizes

Equal in all arms: 10,000 gradient steps of 128 rows, 16 features, hidden layers of 64 units, Adam 3e-4, gamma 0.95 (but one step), slow
copies by 0.005, orthonormality 1 where there is one. Sizes were set by the time of one cell, gamma by the 50 steps of an episode. Seen
before, on a seed that is none of the study's (2000): TD-JEPA after 4,000 steps of 256 rows with 128 units scored 0.26, 0.74 for the dense
rewards and 0.02 for the goals, where uniform actions score 0.19, 0.5 and 0.03; more and smaller steps were chosen then, and the
least score at which the claims are testable was lowered from 0.3 to 0.25. Nothing else was tried.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

trained      the score is above that of the random encoder.
multi-step   the score is above that of one step.
collapse     without orthonormality the effective rank of task features is less than half of TD-JEPA's.
baselines    the score is not lower than those of forward-backward and of laplacian.
symmetric    the score is not lower than that of the symmetric form.
cheetah      CheetahRun-v1 through EnvPool, 30,000 steps of a policy that looks for what is new; rewards of speed forward and backward, 1 at
             2 metres per second: TD-JEPA's score is above that of the random encoder.

A score of 0.02 does not matter (0.02 of the cheetah). Testable if TD-JEPA's score in the maze is at least 0.25. What cannot be shown here:
pixels, and the ranking over thirteen data sets.
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
    average,
    better,
    curves,
    majority,
    not_worse,
    summary,
    trained,
)
from studies._td_jepa_cells import CHEETAH, MAZE

MARGIN, LEAST, SHARE = 0.02, 0.25, 0.5
"""Scores that do not matter, the score below which nothing was learned, and the share of the rank that counts as a collapse."""
METRICS = ("effective_rank", "q", "representation_loss")
Arms = Mapping[str, dict[int, Cell]]


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    rows: int = 20_000
    steps: int = 10_000
    cheetah_rows: int = 30_000
    cheetah_steps: int = 4_000
    width: int = 64
    features: int = 16
    batch: int = 128
    episodes: int = 20
    cheetah_episodes: int = 4
    first_seed: int = 0


SMOKE = Sizes(1, 2_000, 20, 200, 20, 8, 4, 8, 1, 1)


def scores(cells: Mapping[int, Cell], result: Results) -> dict[int, float]:
    """Mean over rewards, by seed."""
    return {seed: float(result(cell)["look"]["mean"]) for seed, cell in cells.items()}


def by_reward(cells: Arms, result: Results) -> dict[str, Any]:
    """Every reward of every arm, for the report."""
    found: dict[str, Any] = {}
    for arm, each in cells.items():
        looked = {seed: result(cell)["look"]["rewards"] for seed, cell in each.items()}
        names = next(iter(looked.values()))
        found[arm] = {name: summary({seed: float(rewards[name]) for seed, rewards in looked.items()}) for name in names}
    return found


def cells_of(sizes: Sizes, task: str, arms: dict[str, Arm], *, rows: int, steps: int, episodes: int, cost: float) -> Arms:
    """Arms of one world, on the same data."""
    gathered = {
        seed: Cell("studies._td_jepa_cells:gather", {"task": task, "seed": seed, "steps": rows}, f"data of {task}, seed {seed}", 30.0)
        for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    }
    return trained(
        arms,
        task=task,
        steps=steps,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared={
            "batch_size": sizes.batch,
            "hidden": (sizes.width,),
            "state_features": sizes.features,
            "state_hidden": (sizes.width, sizes.width),
            "tau": 0.005,
            "learning_rate": 3e-4,
            "actor_learning_rate": 3e-4,
            "log_every": max(1, steps // 20),
        },
        settings={"evaluation_episodes": episodes, "checkpoint_every": steps, "threads": 1},
        metrics=METRICS,
        cost=cost,
        data=gathered,
        look="studies._td_jepa_cells:look",
    )


def arms_of(sizes: Sizes, gamma: float) -> dict[str, Arm]:
    """All of them."""
    apart = {"state_orthonormality": 1.0, "task_orthonormality": 1.0}
    still = {"state_learning_rate": 0.0, "task_learning_rate": 0.0}
    tasks = {"gamma": gamma, "task_features": sizes.features, "task_hidden": (sizes.width, sizes.width)}
    own = tasks | apart
    symmetric = {"form": "symmetric", "gamma": gamma, "state_orthonormality": 1.0}
    return {
        "TD-JEPA": Arm("td-jepa", own),
        "symmetric": Arm("td-jepa", symmetric),
        "no orthonormality": Arm("td-jepa", own | dict.fromkeys(apart, 0.0)),
        "one step": Arm("td-jepa", own | {"gamma": 0.0}),
        "random encoder": Arm("td-jepa", own | still),
        "forward-backward": Arm("forward-backward", tasks),
        "laplacian": Arm("laplacian", tasks),
    }


def claims(sizes: Sizes) -> list[Claim]:
    """Five in the maze, one of the cheetah."""
    cells = cells_of(sizes, MAZE, arms_of(sizes, 0.95), rows=sizes.rows, steps=sizes.steps, episodes=sizes.episodes, cost=60.0)
    two = {name: arm for name, arm in arms_of(sizes, 0.98).items() if name in ("TD-JEPA", "random encoder")}
    how = {"rows": sizes.cheetah_rows, "steps": sizes.cheetah_steps, "episodes": sizes.cheetah_episodes, "cost": 80.0}
    running = cells_of(sizes, CHEETAH, two, **how)  # type: ignore[arg-type]
    setting = f"{MAZE}, {sizes.rows:,} uniform steps, {sizes.steps:,} gradient steps; mean reward per step over twelve rewards"
    learned = Precondition("learned", "score of TD-JEPA", lambda result: scores(cells["TD-JEPA"], result), least=LEAST)

    def some(*names: str) -> dict[str, dict[int, Cell]]:
        return {name: cells[name] for name in names}

    def judge_above(of: Arms, other: str) -> Any:
        def judge(result: Results) -> Judgement:
            found = {arm: scores(each, result) for arm, each in of.items()}
            condition = better(f"score of TD-JEPA and of {other}", found["TD-JEPA"], found[other], margin=MARGIN)
            return Judgement([condition], {"by reward": by_reward(of, result)}, curves(of, result))

        return judge

    def judge_not_lower(*others: str) -> Any:
        of = some("TD-JEPA", *others)

        def judge(result: Results) -> Judgement:
            found = {arm: scores(each, result) for arm, each in of.items()}
            conditions = [not_worse(f"score of TD-JEPA and of {arm}", found["TD-JEPA"], found[arm], margin=MARGIN) for arm in others]
            return Judgement(conditions, {"by reward": by_reward(of, result)})

        return judge

    def judge_collapse(result: Results) -> Judgement:
        of = some("TD-JEPA", "no orthonormality")
        rank = {arm: average(each, result, "effective_rank") for arm, each in of.items()}
        mine, theirs = rank["TD-JEPA"], rank["no orthonormality"]
        condition = majority(
            f"effective rank without orthonormality below {SHARE:g} of that with it",
            {seed: theirs[seed] < SHARE * mine[seed] for seed in mine},
        )
        return Judgement([condition], {arm: summary(each) for arm, each in rank.items()})

    margins, preconditions = {"score": MARGIN}, (learned,)
    published = "arXiv 2510.00739: matches or beats its baselines on thirteen data sets of states"
    return [
        Claim(
            "trained",
            "Learned representations give better policies than random ones",
            published,
            setting,
            cells,
            judge_above(some("TD-JEPA", "random encoder"), "random encoder"),
            margins=margins,
            preconditions=preconditions,
        ),
        Claim(
            "multi-step",
            "Predicting the long term is better than predicting one step",
            "arXiv 2510.00739: prediction over several steps, of the policy, against one step of the behaviour",
            setting,
            some("TD-JEPA", "one step"),
            judge_above(some("TD-JEPA", "one step"), "one step"),
            margins=margins,
            preconditions=preconditions,
        ),
        Claim(
            "collapse",
            "Without orthonormality features collapse",
            "arXiv 2510.00739: an idealised variant avoids collapse; the practical one has orthonormality",
            setting,
            some("TD-JEPA", "no orthonormality"),
            judge_collapse,
        ),
        Claim(
            "baselines",
            "TD-JEPA is no worse than forward-backward and Laplacian features",
            published,
            setting,
            some("TD-JEPA", "forward-backward", "laplacian"),
            judge_not_lower("forward-backward", "laplacian"),
            margins=margins,
            preconditions=preconditions,
        ),
        Claim(
            "symmetric",
            "Two encoders are no worse than one",
            "arXiv 2510.00739: the asymmetric form is the authors' choice",
            setting,
            some("TD-JEPA", "symmetric"),
            judge_not_lower("symmetric"),
            margins=margins,
            preconditions=preconditions,
        ),
        Claim(
            "cheetah",
            "The cheetah runs for rewards that its data did not have",
            published,
            f"{CHEETAH}, {sizes.cheetah_rows:,} steps that look for what is new; rewards of speed forward and backward",
            dict(running),
            judge_above(running, "random encoder"),
            margins=margins,
        ),
    ]


STUDY = Study("td-jepa", "TD-JEPA", "arXiv 2510.00739", claims, full=Sizes(), smoke=SMOKE)
