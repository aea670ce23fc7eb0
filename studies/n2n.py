"""N2N: does a policy over layers find small networks, does it learn to, and is it better at that than chance?

Two worlds: shapes (1,800 noisy pictures of 10 x 10 pixels of eight shapes, which decides), and scikit-learn's 1,797 digits (beside it). The
teacher has six convolutions and about 102,000 weights. Every arm judges 100 networks: 10 epochs of five that remove layers, and 10 that
shrink them. A network is judged after 2 passes over the training images, and the best one is trained until it gets no better, for at most
100.

N2N        every decision is credited with the reward of its own network
shared     with the mean reward of its epoch, and the baseline divided by e + 1, as in the authors' code
chance     nobody learns: actions are drawn with equal chances (random search)
removal    all 20 epochs remove layers
transfer   the controllers of N2N have learned on a teacher of 5,000 weights before, for as many epochs

Equal in all arms: five networks per epoch, Adam at 5e-3 on batches of 50 for every network, the published step sizes of the controllers,
one step per epoch. No arm was tuned. The size of the world, the lessons of a network and the number of epochs were chosen after looking at
rewards of N2N, shared and chance with two seeds that are not among the study's (7000 and 7001).

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says; six are a pilot). Rewards are those of the paper,
R_a R_c, where sizes are compared with the network that a stage cuts; the final reward compares the student with the teacher, on test images
that nothing else has seen.

compression   N2N's student has a fifth of the teacher's weights or fewer in most seeds, and keeps more than 95 % of its accuracy.
learning      the mean reward of the last five epochs is above that of the first five, in removal and in shrinkage: two conditions.
signal        the mean reward over all epochs of N2N is not worse than that of shared by more than 0.05.
search        the final reward of N2N is not worse than that of chance by more than 0.05.
stages        N2N's student is smaller than that of removal alone, and its accuracy is not worse by more than 0.05 of the teacher's.
transfer      the mean reward of the first five epochs of removal is higher with controllers that have learned before.
digits        N2N's final reward on the digits is not worse than that of chance by more than 0.05, and its student keeps more than 95 %.

Why "search" asks for no more: with 100 networks, of which most are worth something, the best of many random ones is hard to beat.
What cannot be shown here: compression of ResNets on CIFAR, and rewards after long lessons.
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
    Precondition,
    Results,
    Study,
    above,
    better,
    curves,
    majority,
    not_worse,
    smaller,
    summary,
    trained,
)

MARGIN = 0.05
"""Reward, or share of the teacher's accuracy, that does not matter."""
LEAST_COMPRESSION, LEAST_KEPT, FIRST = 5.0, 0.95, 5
METRICS = ("reward", "network_accuracy", "compression", "best_network_reward")
Cells = Mapping[str, dict[int, Cell]]
ARMS = {
    "N2N": Arm("n2n"),
    "shared": Arm("n2n", {"signal": "epoch", "baseline_divisor": "epochs+1"}),
    "chance": Arm("n2n", {"drawn_by": "chance"}),
    "removal": Arm("n2n", {"removal_share": 1.0}),
}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    epochs: int = 20
    rollouts: int = 5
    lessons: int = 2
    student: int = 100
    images: int = 1_800
    side: int = 10
    digits: bool = True
    teacher: str = "plain"
    first_seed: int = 0

    @property
    def stage(self) -> int:
        """Epochs of a stage."""
        return self.epochs // 2


SMOKE = Sizes(1, 4, 2, 1, 1, 120, 6, digits=False, teacher="small")


def cells_of(sizes: Sizes, task: str, *names: str) -> dict[str, dict[int, Cell]]:
    """The runs of a world."""
    world = {"side": sizes.side, "images": sizes.images} if task == "shapes" else {}
    return trained(
        {name: ARMS[name] for name in names},
        task=task,
        steps=sizes.epochs,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared={
            "rollouts": sizes.rollouts,
            "child_epochs": sizes.lessons,
            "child_learning_rate": 5e-3,
            "child_batch_size": 50,
            "student_epochs": sizes.student,
        },
        settings={"environment_options": world, "teacher": sizes.teacher, "checkpoint_every": 5, "threads": 1},
        metrics=METRICS,
        cost=35.0,
    )


def transferred(cells: dict[int, Cell]) -> dict[int, Cell]:
    """The runs of N2N after others on the small teacher."""
    return {
        seed: Cell(
            "studies._n2n_cells:transferred",
            cell.arguments | {"before": "small"},
            cell.label.replace("N2N", "transfer"),
            45.0,
            (),
            (*cell.sources, "studies._n2n_cells"),
        )
        for seed, cell in cells.items()
    }


def claims(sizes: Sizes) -> list[Claim]:
    """Shapes, and the digits beside them."""
    shapes = cells_of(sizes, "shapes", *ARMS)
    shapes["transfer"] = transferred(shapes["N2N"])
    digits = [of_digits(cells_of(sizes, "digits", "N2N", "chance"), sizes)] if sizes.digits else []
    return [*of_shapes(shapes, sizes), *digits]


# --- numbers of runs ----------------------------------------------------------------------------------------------------------------------


def final(cells: dict[int, Cell], result: Results, name: str) -> dict[int, float]:
    """A number of the final measurement of every seed."""
    return {seed: float(result(cell)["summary"][name]) for seed, cell in cells.items()}


def rewards(cells: dict[int, Cell], result: Results, begin: int, end: int) -> dict[int, float]:
    """Mean reward of some epochs of every seed."""
    return {seed: float(np.mean(result(cell)["curve"]["reward"][begin:end])) for seed, cell in cells.items()}


def known(cells: Cells, result: Results) -> dict[str, Any]:
    """What the report shows of every arm."""
    names = ("student_test_reward", "kept_test_accuracy", "student_compression")
    return {name: {arm: summary(final(each, result, name)) for arm, each in cells.items()} for name in names}


def judged(cells: Cells, result: Results, *conditions: Condition) -> Judgement:
    """Conditions with the numbers and curves of their arms."""
    return Judgement(list(conditions), known(cells, result), curves(cells, result))


def preconditions(cells: Cells, sizes: Sizes) -> tuple[Precondition, ...]:
    """The teacher knows the images, and networks of random search are neither all good nor all worthless."""
    return (
        Precondition(
            "teacher", "test accuracy of the teacher", lambda result: final(cells["N2N"], result, "teacher_test_accuracy"), least=0.95
        ),
        Precondition(
            "room",
            "mean reward of the networks that N2N draws in its first five epochs",
            lambda result: rewards(cells["N2N"], result, 0, min(FIRST, sizes.stage)),
            least=0.0,
            most=0.8,
        ),
    )


# --- claims -------------------------------------------------------------------------------------------------------------------------------


def compressed(cells: Cells, result: Results) -> list[Condition]:
    """N2N's student is small, and knows the images."""
    sizes, kept = (final(cells["N2N"], result, name) for name in ("student_compression", "kept_test_accuracy"))
    return [
        majority(
            f"the teacher has at least {LEAST_COMPRESSION:g} times the weights", {s: x >= LEAST_COMPRESSION for s, x in sizes.items()}
        ),
        above("share of the teacher's test accuracy that the student keeps", kept, LEAST_KEPT),
    ]


def of_shapes(cells: dict[str, dict[int, Cell]], sizes: Sizes) -> list[Claim]:
    """The claims that decide."""
    setting = (
        f"shapes of {sizes.side} x {sizes.side} pixels, {sizes.epochs} epochs of {sizes.rollouts} networks, each judged after "
        f"{sizes.lessons} passes; the student after at most {sizes.student}"
    )
    both = {name: cells[name] for name in ("N2N", "chance")}
    stage, first, asked = sizes.stage, min(FIRST, sizes.stage), preconditions(both, sizes)

    def claim(name: str, title: str, published: str, arms: tuple[str, ...], conditions: Any, **margins: float) -> Claim:
        mine = {arm: cells[arm] for arm in arms}
        return Claim(
            name,
            title,
            published,
            setting,
            mine,
            lambda result: judged(mine, result, *conditions(result)),
            margins=margins,
            preconditions=asked,
        )

    def learning(result: Results) -> list[Condition]:
        ends = {"removal": (0, stage), "shrinkage": (stage, 2 * stage)}
        return [
            better(
                f"mean reward of the last and of the first {first} epochs of {name}",
                rewards(cells["N2N"], result, end - first, end),
                rewards(cells["N2N"], result, begin, begin + first),
            )
            for name, (begin, end) in ends.items()
        ]

    def signal(result: Results) -> list[Condition]:
        mine, shared = (rewards(cells[arm], result, 0, sizes.epochs) for arm in ("N2N", "shared"))
        return [not_worse("mean reward over all epochs of N2N and of shared", mine, shared, margin=MARGIN)]

    def search(result: Results) -> list[Condition]:
        mine, chance = (final(cells[arm], result, "student_test_reward") for arm in ("N2N", "chance"))
        return [not_worse("final reward of N2N and of chance", mine, chance, margin=MARGIN)]

    def stages(result: Results) -> list[Condition]:
        found = {arm: final(cells[arm], result, "student_parameters") for arm in ("N2N", "removal")}
        kept = {arm: final(cells[arm], result, "kept_test_accuracy") for arm in ("N2N", "removal")}
        return [
            smaller("weights of the students of N2N and of removal alone", found["N2N"], found["removal"]),
            not_worse("share of the teacher's accuracy that N2N and removal alone keep", kept["N2N"], kept["removal"], margin=MARGIN),
        ]

    def transfer(result: Results) -> list[Condition]:
        mine, scratch = (rewards(cells[arm], result, 0, first) for arm in ("transfer", "N2N"))
        return [better(f"mean reward of the first {first} epochs with and without controllers from a small teacher", mine, scratch)]

    return [
        claim(
            "compression",
            "The student is much smaller and almost as accurate",
            "More than 10x compression for models such as ResNet-34 with similar accuracy",
            ("N2N",),
            lambda result: compressed(cells, result),
        ),
        claim(
            "learning",
            "Both controllers learn",
            "The policies are trained by the policy gradient and find better networks",
            ("N2N",),
            learning,
        ),
        claim(
            "signal",
            "A reward of one's own is no worse a signal than the mean of the epoch",
            "Not published: the authors' code credits every network of an epoch with the mean reward",
            ("N2N", "shared"),
            signal,
            reward=MARGIN,
        ),
        claim(
            "search",
            "What is found is no worse than the best of as many random networks",
            "The policies find better networks than random ones",
            ("N2N", "chance"),
            search,
            reward=MARGIN,
        ),
        claim(
            "stages",
            "Shrinking after removing makes a smaller network",
            "Two stages: layers are removed, then those that are left are shrunk",
            ("N2N", "removal"),
            stages,
            kept=MARGIN,
        ),
        claim(
            "transfer",
            "Controllers that have learned on a small teacher begin better",
            "Policies that were trained on small teachers speed up training on larger ones",
            ("transfer", "N2N"),
            transfer,
        ),
    ]


def of_digits(cells: dict[str, dict[int, Cell]], sizes: Sizes) -> Claim:
    """The most real world."""

    def judge(result: Results) -> Judgement:
        mine, chance = (final(cells[arm], result, "student_test_reward") for arm in ("N2N", "chance"))
        return judged(
            cells, result, not_worse("final reward of N2N and of chance", mine, chance, margin=MARGIN), *compressed(cells, result)
        )

    return Claim(
        "digits",
        "On handwritten digits, too",
        "Experiments on MNIST",
        f"scikit-learn's digits of 8 x 8 pixels, {sizes.epochs} epochs of {sizes.rollouts} networks",
        cells,
        judge,
        margins={"reward": MARGIN},
        preconditions=preconditions(cells, sizes),
    )


STUDY = Study("n2n", "N2N", "arXiv 1709.06030", claims, full=Sizes(), smoke=SMOKE)
