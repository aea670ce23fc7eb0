"""A small study whose cells take seconds: two arms of PPO on CartPole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import Arm, Claim, Judgement, Results, Study, better, curves, finals, reaches, trained

SETTINGS: dict[str, Any] = {"evaluation_episodes": 2}
SHARED: dict[str, Any] = {"num_envs": 4, "batch_steps": 64, "minibatches": 2, "epochs": 1, "hidden": [8]}
MARGIN = 25.0
ARMS = {"ppo": Arm("ppo"), "a2c": Arm("a2c")}


@dataclass(frozen=True)
class Sizes:
    seeds: int = 8
    steps: int = 256
    first_seed: int = 0


def claims(sizes: Sizes) -> list[Claim]:
    arms = trained(
        ARMS,
        task="CartPole-v1",
        steps=sizes.steps,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared=SHARED,
        settings=SETTINGS,
        cost=1.0,
    )

    def judge(result: Results) -> Judgement:
        condition = better("return, PPO and A2C", finals(arms["ppo"], result), finals(arms["a2c"], result), margin=MARGIN)
        return Judgement([condition], curves=curves(arms, result))

    room = reaches("ppo", arms, least=1.0)
    return [
        Claim(
            "return",
            "PPO learns CartPole faster than A2C",
            "It does",
            "256 steps",
            arms,
            judge,
            margins={"return": MARGIN},
            preconditions=(room,),
        )
    ]


def study(**changes: Any) -> Study:
    options: dict[str, Any] = {"full": Sizes(), "smoke": Sizes(1, 64)}
    return Study("toy", "Toy", "-", claims, **options | changes)
