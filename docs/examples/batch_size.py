"""Batch size: does PPO on CartPole learn more from larger batches at the same number of steps?"""

from dataclasses import dataclass

from rheostat.experiments.studies import Arm, Claim, Judgement, Results, Study, areas, better, curves, reaches, trained


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    steps: int = 30_000
    first_seed: int = 0


MARGIN = 10.0
"""Mean return over training below which a difference does not matter."""


def claims(sizes: Sizes) -> list[Claim]:
    """One claim."""
    cells = trained(
        {"small": Arm("ppo", {"batch_steps": 256, "minibatches": 4}), "large": Arm("ppo", {"batch_steps": 2048, "minibatches": 32})},
        task="CartPole-v1",
        steps=sizes.steps,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared={"learning_rate": 1e-3},
        settings={"checkpoint_every": sizes.steps},
        cost=5.0,
    )

    def judge(result: Results) -> Judgement:
        small, large = (areas(cells[arm], result, "episode_return", sizes.steps) for arm in ("small", "large"))
        condition = better("mean return over training, small and large batches", small, large, margin=MARGIN)
        return Judgement([condition], curves=curves(cells, result))

    return [
        Claim(
            name="batch size",
            title="Small batches learn faster on CartPole",
            published="Folklore: fresher data make up for noisier gradients",
            setting=f"{sizes.steps:,} steps, minibatches of 64",
            arms=cells,
            judge=judge,
            margins={"return": MARGIN},
            preconditions=(reaches("large", cells, least=50.0),),  # else neither has learned anything
        )
    ]


STUDY = Study("batch-size", "Batch size", "-", claims, full=Sizes(), smoke=Sizes(seeds=1, steps=4096))
