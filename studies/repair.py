"""Repair or replay? PROPS against replay with and without a correction, at the same dial.

Half of every training batch was sampled one update ago, in every arm but PPO. What differs is what is done about it:

PPO               nothing to do: strictly fresh data, half as many rows per update
replay            nothing (PPO-Buffer)
replay, TIS       the loss of every row times min(learner / sampler, 2)
replay, ratio     PPO's clip on the ratio to what really sampled
PROPS             the fresh half is sampled so that both halves together look on-policy

All settings are those of the PROPS study (part C), the same in every arm; PROPS's own are its authors'. The tuned form gives every arm the
best of four learning rates. Rules are for matched seeds.

What is judged is the mean return of the policy itself over training, measured at ten even distances from its start to its end in
deterministic episodes that train nobody. (An earlier form judged the return of the training episodes, which PROPS plays with another
policy than the one it trains.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import (
    Arm,
    Claim,
    Judgement,
    Precondition,
    Results,
    Search,
    Study,
    Tuned,
    areas,
    average,
    better,
    curves,
    finals,
    summary,
    trained,
)
from studies._props_claims import SHARED, behaviour


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    steps: tuple[int, ...] = (50_000, 60_000)
    batch: tuple[int, ...] = (1024, 2048)
    episodes: int = 20
    first_seed: int = 0
    measurements: int = 10
    tuned: Tuned = Tuned()


SMOKE = Sizes(1, (512,), (128,), 1, measurements=2)
TASKS = ("CartPole-v1", "Hopper-v5")
MARGINS = {"CartPole-v1": 10.0, "Hopper-v5": 20.0}
"""Mean return over training that does not matter: about a twentieth of what the arms reach."""
LEARNED = {"CartPole-v1": (100.0, 400.0), "Hopper-v5": (100.0, 2400.0)}
"""Mean return over training of PPO, within which there is something to gain and to lose: of 500 that are possible, and of about 3,000 (a
random policy gets 20)."""
STALE = 0.001
"""Nats from sampler to policy, below which replayed rows are nearly the policy's own."""
SEARCH = Search((1e-4, 3e-4, 1e-3, 3e-3))
"""Learning rates that every arm of the tuned form tries."""
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
        shared=SHARED | {"batch_steps": n, "sampling_error_every": 4, "evaluate_every": steps // sizes.measurements},
        settings={"evaluation_episodes": sizes.episodes, "checkpoint_every": steps},
        metrics=("evaluation_return", "episode_return", "meter/kl_behaviour_k3", "meter/ess", "meter/sampling_error"),
        cost={arm: steps / (600 if arm == "PROPS" else 4000) for arm in arms},
        tuned=sizes.tuned,
    )
    setting = (
        f"{steps:,} steps, {n} per update, window 2 (PPO 1), "
        f"{sizes.tuned.words('the settings of the PROPS study', task)}; mean return over "
        f"training of the policy itself, by {sizes.measurements} measurements in deterministic episodes"
    )
    least, most = LEARNED[task]
    preconditions = (
        Precondition("PPO in range", "mean return of PPO over training", lambda result: measured(cells["PPO"], result, steps), least, most),
        Precondition(
            "the data are stale",
            "nats from the sampler to the policy in plain replay",
            lambda result: average(cells["replay"], result, "meter/kl_behaviour_k3"),
            least=STALE,
        ),
    )
    repaired = Precondition(
        "PROPS repairs",
        "sampling error of PROPS less that of plain replay",
        lambda result: less(*(average(cells[arm], result, "meter/sampling_error") for arm in ("PROPS", "replay"))),
        most=0.0,
    )

    def judge(a: str, b: str, *, everything: bool = False) -> Any:
        def judged(result: Results) -> Judgement:
            area = {arm: measured(found, result, steps) for arm, found in cells.items() if everything or arm in (a, b)}
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
            preconditions=(*preconditions, repaired),
        ),
        Claim(
            f"{task}: weights",
            f"{task}: truncated importance weights help replay",
            "Yao et al. 2025: truncated importance sampling mends the mismatch of sampler and learner",
            setting,
            pair("replay, TIS", "replay"),
            judge("replay, TIS", "replay"),
            margins={"return": margin},
            preconditions=preconditions,
        ),
        Claim(
            f"{task}: repair or weights",
            f"{task}: PROPS beats corrected replay",
            "Corrado & Hanna 2023 argue that sampling error, not staleness, is what costs",
            setting,
            pair("PROPS", "replay, TIS"),
            judge("PROPS", "replay, TIS"),
            margins={"return": margin},
            preconditions=(*preconditions, repaired),
        ),
    ]


def measured(cells: Any, result: Results, steps: int) -> dict[int, float]:
    """Mean return of the policy over training, by seed: the height of the measured curve."""
    return areas(cells, result, "evaluation_return", steps)


def less(a: dict[int, float], b: dict[int, float]) -> dict[int, float]:
    """The difference of two numbers, by seed."""
    return {seed: a[seed] - b[seed] for seed in a}


STUDY = Study("repair", "Repair or replay", "arXiv 2311.08290 and others", claims, full=Sizes(), smoke=SMOKE, search=SEARCH)
