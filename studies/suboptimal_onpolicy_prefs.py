"""Suboptimal on-policy preferences: what on-policy sampling, sample reuse and a negative gradient are worth on the didactic bandits.

Ten training contexts, ten answers each, Adam. Step sizes, the margin 10 and the pair threshold 0.2 of offline IPO are the authors'; what
they do not say (REINFORCE, PPO, RWR) takes best-of-N's step size. No arm was tuned here. Arms of the bandit:

offline    one batch of the data policy for all gradient steps
reference  a new batch of the data policy for every fifteen gradient steps: as many graded answers as on-policy arms have
on-policy  a new batch of the present policy for every fifteen gradient steps

Rules, fixed before any arm was run with a seed of the study (matched seeds, looked at as docs/rule.md says): rewards are expected rewards
on held-out contexts, exact in the bandits. Differences of less than a tenth of the reward (0.02 to 0.05 where a claim says so) do not
matter. Equal in all arms of a claim: gradient steps, or in the claims about reuse the number of graded answers.

The budget is smaller than the authors' (100 batches of 15 steps), so that a look takes minutes. Sequences are a study of their own.

What cannot be shown here: errors of a reward model, the length problems of language models, and skewed coverage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rheostat.experiments.studies import (
    Cell,
    Claim,
    Columns,
    Judgement,
    Precondition,
    Results,
    Study,
    above,
    better,
    exact,
    smaller,
    summary,
)
from studies._preference_panels import draw_bandit

METHOD = "suboptimal-onpolicy-prefs"
CELL = "studies.suboptimal_onpolicy_prefs:train"
SOURCES = ("rheostat.methods.control.suboptimal_onpolicy_prefs", "rheostat.tasks.preferences.didactic")
Options = dict[str, Any]

OFFLINE: Options = {"on_policy_sampling": False, "reuse": 0}
REFERENCE: Options = {"on_policy_sampling": False}
BON: Options = {"loss": "best-of-n"}
IPO: Options = {"loss": "ipo"}
PUSHED: Options = BON | {"negative_gradient": "worst", "negative_weight": 0.3}
RATES = {"BoN offline": 1e-2, "BoN": 1e-3, "IPO offline": 3e-3, "IPO": 1e-2}

AWAY: dict[str, Options] = {
    "offline BoN": BON | OFFLINE | {"learning_rate": RATES["BoN offline"]},
    "reference BoN": BON | REFERENCE | {"learning_rate": RATES["BoN"]},
    "on-policy BoN": BON | {"learning_rate": RATES["BoN"]},
    "offline IPO": IPO | OFFLINE | {"learning_rate": RATES["IPO offline"], "pair_threshold": 0.2},
    "reference IPO": IPO | REFERENCE | {"learning_rate": RATES["IPO"]},
    "on-policy IPO": IPO | {"learning_rate": RATES["IPO"]},
    "offline RWR": {"loss": "rwr"} | OFFLINE | {"learning_rate": RATES["BoN offline"]},
    "offline BoN, pushed": PUSHED | OFFLINE | {"learning_rate": RATES["BoN offline"]},
    "on-policy BoN, pushed": PUSHED | {"learning_rate": RATES["BoN"]},
    "REINFORCE": {"loss": "reinforce", "learning_rate": RATES["BoN"]},
    "REINFORCE, nothing pushed": {"loss": "reinforce", "learning_rate": RATES["BoN"], "loss.negative_gradient": False},
}
"""Of the bandit whose peak is away."""
ALIGNED = ("offline BoN", "on-policy BoN", "offline IPO", "on-policy IPO", "REINFORCE")
"""Of the bandit whose peak is in the data."""
FEW, TWO, SOME, MANY = 1, 2, 8, 30
REUSE: dict[str, Options] = {
    f"{name}, T={count}": options | {"reuse": count}
    for name, options, counts in (
        ("BoN", BON | {"learning_rate": RATES["BoN"]}, (FEW, TWO, SOME, MANY)),
        ("IPO", IPO | {"learning_rate": RATES["IPO"]}, (FEW, TWO)),
        ("PPO", {"loss": "ppo", "learning_rate": RATES["BoN"]}, (SOME, MANY)),
    )
    for count in counts
}
SWITCHED = [(f"{loss}, on-policy and offline", f"on-policy {loss}", f"offline {loss}") for loss in ("BoN", "IPO")]
"""The comparison of who answers, loss by loss."""
MARGINS = {"reward": 0.1, "smaller reward": 0.05, "reuse": 0.02, "log-ratio": 0.1, "share of the gap": 0.5}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    steps: int = 600
    """Gradient steps in the bandit."""
    rounds: int = 100
    """Batches in the claims about reuse."""
    first_seed: int = 0


SMOKE = Sizes(1, 4, 2)


def train(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: one learner, measured ten times."""
    from rheostat.learner.preferences import build
    from rheostat.streams import Streams
    from rheostat.training.settings import configure

    torch.set_num_threads(1)
    steps = arguments["gradient_steps"]
    config = configure(METHOD, arguments["config"] | {"evaluate_every": max(1, steps // 10), "log_every": max(1, steps // 10)})
    learner = build(config, METHOD, arguments["task"], Streams(arguments["seed"]), steps)
    rows = [dict(learner.begin()) | {"steps": 0}]
    while learner.steps < steps:
        if found := learner.turn():
            rows.append(found | {"steps": learner.steps})
    kept = ("steps", "evaluation_return", "kl_to_reference", "kl_from_reference", "win_rate")
    batch = ("margin", "winner_log_ratio", "loser_log_ratio", "preference_accuracy", "reward_calls")
    curve = {name: [float(f"{row[name]:.6g}") for row in rows] for name in kept}
    during = {name: [float(f"{row[name]:.6g}") for row in rows[1:]] for name in batch}
    return {"start": rows[0], "final": rows[-1], "curve": curve, "batch": during}


def divergences(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell of both directions of KL on one softmax."""
    from rheostat.diagnostics.mode_seeking import steps_to_empty

    return {name: steps_to_empty(name, bins=arguments["bins"]) for name in ("forward", "reverse")}


def cells_of(task: str, arms: Mapping[str, Options], sizes: Any, steps: int | Callable[[Options], int], **extra: Any) -> Any:
    """Cells by arm and seed."""
    found: dict[str, dict[int, Cell]] = {}
    for arm, config in arms.items():
        count = steps if isinstance(steps, int) else steps(config)
        arguments = {"task": task, "config": config, "gradient_steps": count, "method": METHOD, **extra}
        cost = (0.03 if task.startswith("sequence") else 0.0015) * count + 2
        found[arm] = {
            seed: Cell(CELL, arguments | {"seed": seed}, f"{task}, {arm}, seed {seed}", cost, (), SOURCES)
            for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds)
        }
    return found


Cells = Mapping[int, Cell]


def final(cells: Cells, result: Results, name: str = "evaluation_return") -> dict[int, float]:
    """A number of the last measurement, by seed."""
    return {seed: float(result(cell)["final"][name]) for seed, cell in cells.items()}


def drawn(arms: Mapping[str, Cells], result: Results) -> dict[str, dict[int, Columns]]:
    """Curves for the report."""
    return {arm: {seed: result(cell)["curve"] for seed, cell in cells.items()} for arm, cells in arms.items()}


def finals(arms: Mapping[str, Cells], result: Results) -> dict[str, Any]:
    """Rewards, distances and graded answers of all arms, for the result file."""
    names = ("evaluation_return", "kl_to_reference", "win_rate", "reward_calls")
    return {name: {arm: summary(final(cells, result, name)) for arm, cells in arms.items()} for name in names}


def reaches(name: str, cells: Cells, least: float | None = None, most: float | None = None) -> Precondition:
    """An arm's final reward lies within bounds."""
    return Precondition(f"{name} in range", f"final reward of {name}", lambda result: final(cells, result), least, most)


def gains(name: str, cells: Cells, least: float) -> Precondition:
    """An arm learns something."""

    def value(result: Results) -> dict[int, float]:
        first = {seed: float(result(cell)["start"]["evaluation_return"]) for seed, cell in cells.items()}
        return {seed: last - first[seed] for seed, last in final(cells, result).items()}

    return Precondition(f"{name} learns", f"final reward of {name} minus that of the start", value, least)


def away_from(cells: Cells) -> Precondition:
    """The reward's peak is away from the data."""
    return Precondition(
        "peak away",
        "reward of the start",
        lambda result: {seed: float(result(cell)["start"]["evaluation_return"]) for seed, cell in cells.items()},
        None,
        0.2,
    )


def compared(pairs: list[tuple[str, str, str]], arms: Mapping[str, Cells], margin: float, *beside: str) -> dict[str, Any]:
    """Arms, judge and margin of a claim: in each pair the first arm ends above the second.

    Args:
        pairs: what is compared, and two arms.
        arms: cells by arm and seed, of more arms than these.
        margin: the smallest difference that matters.
        beside: further arms, for the result file.
    """
    mine = {name: arms[name] for name in dict.fromkeys([*(arm for _, *two in pairs for arm in two), *beside])}

    def judge(result: Results) -> Judgement:
        conditions = [better(what, final(mine[a], result), final(mine[b], result), margin=margin) for what, a, b in pairs]
        return Judgement(conditions, finals(mine, result), drawn(mine, result))

    return {"arms": mine, "judge": judge, "margins": {"reward": margin}}


def spreads(arms: Mapping[str, Cells], result: Results) -> dict[int, float]:
    """The largest difference between final rewards of arms, by seed."""
    rewards = [final(cells, result) for cells in arms.values()]
    return {seed: max(each[seed] for each in rewards) - min(each[seed] for each in rewards) for seed in rewards[0]}


def claims(sizes: Sizes) -> list[Claim]:
    """The paper's findings on the bandits."""
    budget = f"{sizes.steps} gradient steps"
    away = cells_of("bandit-away", AWAY, sizes, sizes.steps, budget=budget)
    aligned = cells_of("bandit-aligned", {arm: AWAY[arm] for arm in ALIGNED}, sizes, sizes.steps, budget=budget)
    reuse = cells_of(
        "bandit-away", REUSE, sizes, lambda config: sizes.rounds * config["reuse"], budget=f"{100 * sizes.rounds} graded answers"
    )
    setting = f"bandit-away, 10 contexts x 10 answers, {budget}, the authors' step sizes; expected reward on 100 held-out contexts"
    peak, learns = away_from(away["offline BoN"]), reaches("on-policy IPO", away["on-policy IPO"], least=0.3)

    def some(*names: str, of: Mapping[str, Cells] = away) -> dict[str, Any]:
        return {name: of[name] for name in names}

    def judge_aligned(result: Results) -> Judgement:
        far, near = spreads({arm: away[arm] for arm in ALIGNED}, result), spreads(aligned, result)
        condition = smaller("largest gap between arms, aligned over away", near, far, factor=MARGINS["share of the gap"])
        return Judgement([condition], {"aligned": finals(aligned, result), "gaps": {"aligned": summary(near), "away": summary(far)}})

    def judge_margin(result: Results) -> Judgement:
        def at(arm: str, name: str, place: int = -1) -> dict[int, float]:
            return {seed: float(result(cell)["batch"][name][place]) for seed, cell in away[arm].items()}

        conditions = [
            above("margin of offline IPO at the end", at("offline IPO", "margin"), 1.0),
            better(
                "winners' log-ratio, BoN and IPO offline",
                at("offline BoN", "winner_log_ratio"),
                at("offline IPO", "winner_log_ratio"),
                margin=MARGINS["log-ratio"],
            ),
        ]
        names = ("margin", "winner_log_ratio", "loser_log_ratio")
        arms = ("offline BoN", "offline BoN, pushed", "offline IPO", "on-policy IPO")
        return Judgement(conditions, {name: {arm: summary(at(arm, name)) for arm in arms} for name in names})

    def judge_reuse(result: Results) -> Judgement:
        last = {arm: final(cells, result) for arm, cells in reuse.items()}
        margin = MARGINS["reuse"]
        conditions = [
            better("BoN, T = 2 and T = 1", last[f"BoN, T={TWO}"], last[f"BoN, T={FEW}"], margin=margin),
            better("IPO, T = 2 and T = 1", last[f"IPO, T={TWO}"], last[f"IPO, T={FEW}"], margin=margin),
        ]
        return Judgement(conditions, finals(reuse, result))

    def judge_many(result: Results) -> Judgement:
        last = {arm: final(cells, result) for arm, cells in reuse.items()}
        return Judgement(
            [better("BoN, T = 8 and T = 30", last[f"BoN, T={SOME}"], last[f"BoN, T={MANY}"], margin=MARGINS["reuse"])],
            finals(reuse, result),
        )

    def judge_tolerance(result: Results) -> Judgement:
        last = {arm: final(cells, result) for arm, cells in reuse.items() if not arm.startswith("IPO")}
        change = {
            name: {seed: last[f"{name}, T={MANY}"][seed] - last[f"{name}, T={SOME}"][seed] for seed in last[f"{name}, T={MANY}"]}
            for name in ("BoN", "PPO")
        }
        condition = better("change from T = 8 to T = 30, PPO and BoN", change["PPO"], change["BoN"], margin=MARGINS["reuse"])
        return Judgement([condition], {"change": {name: summary(found) for name, found in change.items()}})

    modes = Cell(
        "studies.suboptimal_onpolicy_prefs:divergences",
        {"bins": 10},
        "both directions of KL",
        5.0,
        (),
        ("rheostat.diagnostics.mode_seeking",),
    )

    def judge_modes(result: Results) -> Judgement:
        found = result(modes)
        holds = found["reverse"] < found["forward"]
        return Judgement([exact("reverse KL empties the heavy bin in fewer steps than forward KL", holds, **found)], {"steps": found})

    return [
        Claim(
            "on-policy",
            "Peak away: on-policy sampling ends above one offline batch",
            "On-policy sampling raises reward and efficiency, most when the peak lies far from the reference's mass",
            setting,
            **compared(SWITCHED, away, MARGINS["reward"]),
            preconditions=(peak, learns),
        ),
        Claim(
            "on-policy at equal queries",
            "Peak away: on-policy sampling ends above as many fresh answers of the reference",
            "The same, with the number of graded answers equal too: who answers is all that differs",
            setting,
            **compared(
                [
                    ("BoN, on-policy and reference", "on-policy BoN", "reference BoN"),
                    ("IPO, on-policy and reference", "on-policy IPO", "reference IPO"),
                ],
                away,
                MARGINS["smaller reward"],
            ),
            preconditions=(peak, learns),
        ),
        Claim(
            "negative gradient",
            "Peak away, offline: IPO ends above likelihood of the best",
            "A contrastive loss beats offline maximum likelihood (best-of-N, RWR) where the peak is in a region of low probability",
            setting,
            **compared(
                [("IPO and BoN, offline", "offline IPO", "offline BoN"), ("IPO and RWR, offline", "offline IPO", "offline RWR")],
                away,
                MARGINS["smaller reward"],
                "offline BoN, pushed",
            ),
            preconditions=(peak,),
        ),
        Claim(
            "complementary",
            "Peak away: both switches together end above either alone",
            "On-policy sampling and a negative gradient are complementary",
            setting,
            **compared(
                [
                    ("both and on-policy alone", "on-policy IPO", "on-policy BoN"),
                    ("both and negative alone", "on-policy IPO", "offline IPO"),
                ],
                away,
                MARGINS["smaller reward"],
                "offline BoN, pushed",
                "on-policy BoN, pushed",
            ),
            preconditions=(peak, learns),
        ),
        Claim(
            "negative gradient of REINFORCE",
            "Peak away: REINFORCE ends lower when no weight is negative",
            "Subtracting the smallest weight isolates the negative gradient within one loss",
            setting,
            **compared([("REINFORCE with and without", "REINFORCE", "REINFORCE, nothing pushed")], away, MARGINS["smaller reward"]),
            preconditions=(peak, gains("REINFORCE", away["REINFORCE"], 0.05)),
        ),
        Claim(
            "aligned",
            "Peak in the data: the arms end close together",
            "If the peak is inside the region of high probability, all families end up close",
            setting.replace("bandit-away", "bandit-aligned and bandit-away"),
            aligned,
            judge_aligned,
            extra=tuple(cell for arm in ALIGNED for cell in away[arm].values()),
            margins={"share of the gap": MARGINS["share of the gap"]},
            preconditions=(peak,),
        ),
        Claim(
            "margin",
            "Offline IPO widens the margin while its winners gain less than best-of-N's",
            "A negative gradient always widens the margin and need not raise the winners' log-probability",
            setting + "; log-ratios of the best and the worst answer of every training prompt",
            some("offline BoN", "offline IPO", "offline BoN, pushed", "on-policy IPO"),
            judge_margin,
            margins={"log-ratio": MARGINS["log-ratio"]},
        ),
        Claim(
            "reuse",
            "Two gradient steps per batch end above one",
            "Sample reuse substitutes partly for fresh samples: T = 2 beat T = 1 in the bandit",
            f"bandit-away, {sizes.rounds} batches of 10 x 10 on-policy answers, T gradient steps on each",
            reuse,
            judge_reuse,
            margins={"reward": MARGINS["reuse"]},
            preconditions=(peak,),
        ),
        Claim(
            "much reuse",
            "Thirty gradient steps per batch end below eight",
            "Large T hurts",
            f"bandit-away, {sizes.rounds} batches of 10 x 10 on-policy answers, best-of-N",
            some(*reuse, of=reuse),
            judge_many,
            margins={"reward": MARGINS["reuse"]},
            preconditions=(peak, gains(f"BoN, T={SOME}", reuse[f"BoN, T={SOME}"], 0.05)),
        ),
        Claim(
            "PPO tolerates reuse",
            "From eight to thirty gradient steps per batch, PPO loses less than best-of-N",
            "PPO tolerates sample reuse better than on-policy best-of-N",
            f"bandit-away, {sizes.rounds} batches of 10 x 10 on-policy answers",
            some(*(arm for arm in reuse if not arm.startswith("IPO")), of=reuse),
            judge_tolerance,
            margins={"reward": MARGINS["reuse"]},
            preconditions=(peak, gains(f"PPO, T={SOME}", reuse[f"PPO, T={SOME}"], 0.05)),
        ),
        Claim(
            "mode-seeking",
            "Reverse KL leaves a heavy bin faster than maximum likelihood",
            "Mode-seeking objectives move mass off bins at a rate that likelihood cannot reach",
            "one softmax over ten bins, mass on bin 0, target on bin 7, gradient descent with one step size: steps until p_0 < 0.1",
            {"both directions": {0: modes}},
            judge_modes,
            seeded=False,
        ),
    ]


STUDY = Study(
    "suboptimal-onpolicy-prefs", "Suboptimal on-policy preferences", "arXiv 2404.14367", claims, full=Sizes(), smoke=SMOKE, draw=draw_bandit
)
