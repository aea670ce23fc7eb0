"""Repair or replay? PROPS against replay with and without a correction, at the same dial.

Half of every training batch was sampled one update ago, in every arm but PPO. What differs is what is done about it:

PPO               nothing to do: strictly fresh data, half as many rows per update
replay            nothing (PPO-Buffer)
replay, TIS       the loss of every row times min(learner / sampler, 2)
replay, ratio     PPO's clip on the ratio to what really sampled
PROPS             the fresh half is sampled so that both halves together look on-policy

All settings are those of the PROPS study (part C), the same in every arm; PROPS's own are its authors'. Rules are for matched seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import Arm, Claim, Judgement, Results, Study, areas, better, curves, finals, summary, trained
from studies._props_claims import SHARED, behaviour


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    steps: tuple[int, ...] = (50_000, 60_000)
    batch: tuple[int, ...] = (1024, 2048)
    episodes: int = 20
    first_seed: int = 0


SMOKE = Sizes(1, (512,), (128,), 1)
TASKS = ("CartPole-v1", "Hopper-v5")
MARGINS = {"CartPole-v1": 10.0, "Hopper-v5": 20.0}
"""Mean return over training that does not matter: about a twentieth of what the arms reach."""
OWN = {"CartPole-v1": (1e-3, 0.03, 0.1, 8), "Hopper-v5": (1e-3, 0.05, 0.3, 16)}


def claims(sizes: Sizes) -> list[Claim]:
    """Three comparisons on every task; they share their cells."""
    return [claim for index in range(len(sizes.steps)) for claim in of_task(sizes, index)]


def of_task(sizes: Sizes, index: int) -> list[Claim]:
    """One task."""
    task, steps, n = TASKS[index], sizes.steps[index], sizes.batch[index]
    window: dict[str, Any] = {"window": 2}
    margin = MARGINS[task]
    arms = {
        "PPO": Arm("ppo"),
        "replay": Arm("ppo-buffer", window),
        "replay, TIS": Arm("ppo-buffer", window | {"sampler_correction": "token"}),
        "replay, ratio": Arm("ppo-buffer", window | {"ratio_to": "sampler"}),
        "PROPS": Arm("props", window | behaviour(n // 8, *OWN[task])),
    }
    cells = trained(
        arms,
        task=task,
        steps=steps,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared=SHARED | {"batch_steps": n, "sampling_error_every": 4},
        settings={"evaluation_episodes": sizes.episodes, "checkpoint_every": steps},
        metrics=("episode_return", "meter/kl_behaviour_k3", "meter/ess", "meter/sampling_error"),
        cost={arm: steps / (600 if arm == "PROPS" else 4000) for arm in arms},
    )
    setting = (
        f"{steps:,} steps, {n} per update, window 2 (PPO 1), the settings of the PROPS study; mean return over training, "
        f"and of {sizes.episodes} deterministic episodes at the end"
    )

    def judge(a: str, b: str, *, everything: bool = False) -> Any:
        def judged(result: Results) -> Judgement:
            area = {arm: areas(found, result, "episode_return", steps) for arm, found in cells.items() if everything or arm in (a, b)}
            condition = better(f"mean return over training, {a} and {b}", area[a], area[b], margin=margin)
            if not everything:
                return Judgement([condition])
            metrics = {
                "area": {arm: summary(values) for arm, values in area.items()},
                "final": {arm: summary(finals(found, result)) for arm, found in cells.items()},
            }
            return Judgement([condition], metrics, curves(cells, result))

        return judged

    def pair(a: str, b: str) -> Any:
        return {a: cells[a], b: cells[b]}

    props = "Corrado & Hanna 2023: repairing the data beats reusing it as if it were on-policy"
    return [
        Claim(
            f"{task}: repair",
            f"{task}: PROPS beats uncorrected replay",
            props,
            setting,
            cells,
            judge("PROPS", "replay", everything=True),
            margins={"return": margin},
        ),
        Claim(
            f"{task}: weights",
            f"{task}: truncated importance weights help replay",
            "Yao et al. 2025: truncated importance sampling mends the mismatch of sampler and learner",
            setting,
            pair("replay, TIS", "replay"),
            judge("replay, TIS", "replay"),
            margins={"return": margin},
        ),
        Claim(
            f"{task}: repair or weights",
            f"{task}: PROPS beats corrected replay",
            "Corrado & Hanna 2023 argue that sampling error, not staleness, is what costs",
            setting,
            pair("PROPS", "replay, TIS"),
            judge("PROPS", "replay, TIS"),
            margins={"return": margin},
        ),
    ]


STUDY = Study("repair", "Repair or replay", "arXiv 2311.08290 and others", claims, full=Sizes(), smoke=SMOKE)
