"""OSP: does a policy that is its own judge learn more from how strongly it prefers an answer than from which one it prefers?

The spec's small world: three wanted letters of twenty, answers of eight. The gold utility counts the wanted letters that are there, later
ones of the alphabet more, and takes off what is repeated; pairs are labelled by it with Bradley-Terry's noise at temperature 1. A new
transformer of 0.2 million weights learns, by likelihood, the chosen answers of the pairs and to judge every pair in both orders. Then, four
answers to each of 16 prompts per update, beta 0.1:

OSP             strengths of the policy itself, composed against a common baseline
hard labels     the same pairs and the same judge; only which is the better one (online DPO)
offline DPO     the labelled pairs, as many per update as the others have
oracle OSP      the true probabilities in the place of the policy's own

Rules, fixed before any arm was run (matched seeds, looked at as docs/rule.md says); utility is of one sample per held-out prompt.

strength   OSP ends not below hard labels by more than a twentieth of a letter, and its mean absolute margin on the scale beta is smaller.
online     OSP and hard labels both end above offline DPO.
oracle     with the true probabilities OSP ends above OSP with its own.

The policy must be a judge (it agrees with the gold order of at least six in ten new pairs), and OSP must learn (a tenth of a letter).
Not as written: 2,000 pairs instead of 500, which teach so small a model little; 150 updates of 16 prompts instead of 300 of 32; 0.2 million
weights instead of one. No arm was tuned: all have the step size 2e-4 of the tiny presets. Nothing here speaks of real judges, their taste
for length, or other domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import Cell, Claim, Judgement, Precondition, Results, Study, better, not_worse, summary

OSP, HARD, OFFLINE, ORACLE = "OSP", "hard labels", "offline DPO", "oracle OSP"
SHARED: dict[str, Any] = {"learning_rate": 2e-4, "warmup": 0, "beta": 0.1}
MARGINS = {"utility": 0.05, "absolute margin": 0.02}
SOURCES = {"osp": "rheostat.methods.language.osp", "dpo": "rheostat.methods.language.dpo"}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    pairs: int = 2000
    taught: int = 900
    batch: int = 64
    hidden: int = 64
    layers: int = 3
    updates: int = 150
    prompts: int = 16
    look_every: int = 25
    look_prompts: int = 128
    held_out: int = 512
    first_seed: int = 0


SMOKE = Sizes(1, 20, 2, 4, 16, 1, 2, 2, 1, 4, 8)


def arms(sizes: Sizes) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """Method, options, and whether the true probabilities judge, by arm."""
    sampled = {"prompts_per_batch": sizes.prompts, "group_size": 4}
    return {
        OSP: ("osp", sampled, False),
        HARD: ("osp", sampled | {"labels": "hard"}, False),
        OFFLINE: ("dpo", {"pairs_per_batch": 6 * sizes.prompts}, False),
        ORACLE: ("osp", sampled | {"compare_by": "judge"}, True),
    }


def cells_of(sizes: Sizes) -> tuple[dict[int, Cell], dict[str, dict[int, Cell]]]:
    """Models and pairs by seed, and the cells that learn by arm and seed."""
    seeds = range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    asked = {"pairs": sizes.pairs, "steps": sizes.taught, "batch": sizes.batch, "hidden": sizes.hidden, "layers": sizes.layers}
    asked |= {"held_out": sizes.held_out}
    known = (*SOURCES.values(), "rheostat.methods.language.sft", "studies._osp_judge")
    data = {seed: Cell("studies._osp_cells:prepare", asked | {"seed": seed}, f"model, seed {seed}", 70.0, (), known) for seed in seeds}
    shared = {"steps": sizes.updates, "look_every": sizes.look_every, "look_prompts": sizes.look_prompts, "held_out": sizes.held_out}
    found = {
        arm: {
            seed: Cell(
                "studies._osp_cells:learn",
                shared | {"method": method, "config": SHARED | config, "true_judge": judge, "seed": seed, "data": data[seed].key},
                f"{arm}, seed {seed}",
                40.0,
                (data[seed],),
                known,
            )
            for seed in seeds
        }
        for arm, (method, config, judge) in arms(sizes).items()
    }
    return data, found


def claims(sizes: Sizes) -> list[Claim]:
    """Three claims on the same cells."""
    data, cells = cells_of(sizes)
    setting = (
        f"eight letters of twenty, {sizes.pairs} labelled pairs, {sizes.updates} updates of {sizes.prompts} prompts x 4 answers (offline: "
        f"as many pairs), beta 0.1, learning rate 2e-4; utility of one sample for each of {sizes.held_out} held-out prompts"
    )

    def of(arm: str, result: Results, when: str = "final", name: str = "utility") -> dict[int, float]:
        return {seed: float(result(cell)[when][name]) for seed, cell in cells[arm].items()}

    def margin(arm: str, result: Results) -> dict[int, float]:
        return {seed: float(result(cell)["margin"]) for seed, cell in cells[arm].items()}

    def told(result: Results, *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
        metrics = {
            what: {arm: summary(of(arm, result, "final", what)) for arm in names} for what in ("utility", "kl", "length", "win rate")
        } | {
            "absolute margin": {arm: summary(margin(arm, result)) for arm in names},
            "judge at the end": {arm: summary({s: float(result(c)["accuracy"]) for s, c in cells[arm].items()}) for arm in names},
        }
        return metrics, {arm: {seed: result(cell)["curve"] for seed, cell in cells[arm].items()} for arm in names}

    def judge_strength(result: Results) -> Judgement:
        conditions = [
            not_worse("utility, OSP and hard labels", of(OSP, result), of(HARD, result), margin=MARGINS["utility"]),
            better("absolute margin, hard labels and OSP", margin(HARD, result), margin(OSP, result), margin=MARGINS["absolute margin"]),
        ]
        return Judgement(conditions, *told(result, OSP, HARD))

    def judge_online(result: Results) -> Judgement:
        conditions = [
            better(f"utility, {arm} and offline DPO", of(arm, result), of(OFFLINE, result), margin=MARGINS["utility"])
            for arm in (OSP, HARD)
        ]
        return Judgement(conditions, *told(result, OSP, HARD, OFFLINE))

    def judge_oracle(result: Results) -> Judgement:
        condition = better("utility, true strengths and its own", of(ORACLE, result), of(OSP, result), margin=MARGINS["utility"])
        return Judgement([condition], *told(result, OSP, ORACLE))

    def judges(result: Results) -> dict[int, float]:
        return {seed: float(result(cell)["accuracy"]) for seed, cell in data.items()}

    def learned(result: Results) -> dict[int, float]:
        start, final = of(OSP, result, "start"), of(OSP, result)
        return {seed: final[seed] - start[seed] for seed in final}

    preconditions = (
        Precondition("judge", "new pairs on which the taught policy agrees with the gold order", judges, least=0.6),
        Precondition("learns", "utility that OSP gains", learned, least=0.1),
    )

    def some(*names: str) -> dict[str, dict[int, Cell]]:
        return {name: cells[name] for name in names}

    return [
        Claim(
            "strength",
            "Strengths end no lower than labels of the same judge, with smaller margins",
            "Preference strength instead of binary labels prevents the over-fitting of DPO and improves alignment",
            setting,
            some(OSP, HARD),
            judge_strength,
            margins=MARGINS,
            preconditions=preconditions,
        ),
        Claim(
            "online",
            "Both ways of judging oneself end above DPO on the pairs that taught the judge",
            "A model that judges well improves itself without further supervision",
            setting,
            some(OSP, HARD, OFFLINE),
            judge_online,
            margins={"utility": MARGINS["utility"]},
            preconditions=preconditions,
        ),
        Claim(
            "oracle",
            "The true strengths end above the policy's own",
            "The better the judge, the more is learned from its strengths",
            setting,
            some(OSP, ORACLE),
            judge_oracle,
            margins={"utility": MARGINS["utility"]},
            preconditions=preconditions,
        ),
    ]


STUDY = Study("osp", "OSP", "arXiv 2405.14103", claims, full=Sizes(), smoke=SMOKE)
