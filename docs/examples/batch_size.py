"""Batch size: does PPO on CartPole learn more from larger batches at the same number of steps?"""

from dataclasses import dataclass

from rheostat.experiments.studies import Arm, Claim, Judgement, Results, Study, areas, better, curves, trained


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 6
    steps: int = 30_000


def claims(sizes: Sizes) -> list[Claim]:
    """One claim."""
    cells = trained(
        {"small": Arm("ppo", {"batch_steps": 256, "minibatches": 4}), "large": Arm("ppo", {"batch_steps": 2048, "minibatches": 32})},
        task="CartPole-v1",
        steps=sizes.steps,
        seeds=sizes.seeds,
        shared={"learning_rate": 1e-3},
        settings={"checkpoint_every": sizes.steps},
        cost=5.0,
    )

    def judge(result: Results) -> Judgement:
        small, large = (areas(cells[arm], result, "episode_return", sizes.steps) for arm in ("small", "large"))
        return Judgement([better("mean return over training, small and large batches", small, large)], curves=curves(cells, result))

    return [
        Claim(
            name="batch size",
            title="Small batches learn faster on CartPole",
            published="Folklore: fresher data make up for noisier gradients",
            setting=f"{sizes.steps:,} steps, minibatches of 64",
            arms=cells,
            judge=judge,
        )
    ]


STUDY = Study("batch-size", "Batch size", "-", claims, full=Sizes(), smoke=Sizes(seeds=1, steps=4096))
