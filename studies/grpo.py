"""GRPO and its relatives on one small task: do they all work, and can they be told apart?

Six methods of one family (GRPO, arXiv 2402.03300; RLOO, 2402.14740; DAPO, 2503.14476; GSPO, 2507.18071; REINFORCE++, 2501.03262;
rejection-sampling fine-tuning, 2308.01825) start from the same tiny base model and are given the same number of GENERATED TOKENS, so the
groups that DAPO samples and discards are paid for. Run it with ``rheostat study grpo``; finished cells are kept, so a second call
continues.

Equal in all arms: the base, the prompts' stream of a seed, 16 prompts x 16 completions, temperature 1, AdamW with learning rate 2e-4 (the
library's preset for models of this size), gradient norm 1, no KL to the base, no tuning of any arm. The methods' own: advantage, ratio,
clip, aggregation, what is discarded; and GSPO takes four gradient steps per batch (its paper's number; a ratio does nothing in a single
step), all others one. DAPO's overlong buffer is 8 tokens.

Rules, fixed before the arms were run to the end:

gain        every arm ends at least 10 points of held-out accuracy above its start: held when the 95 % interval over seeds (bootstrap) and
            every single seed say so; refuted when the whole interval lies below.
alike       GRPO, RLOO, REINFORCE++ and DAPO differ in final accuracy by less than the seed spread: held when the largest gap between two
            arms' means is below the pooled standard deviation over seeds; refuted when it is not and some pair is told apart: the 95 %
            bootstrap interval of the difference, widened for the number of pairs (Bonferroni), leaves out zero, *and* Welch's t test
            agrees at that level (intervals of resampled seeds are too narrow with so few); undecided in between.
alike, six  the same for all six arms.
kept        DAPO keeps the share 1 - p^G - (1 - p)^G of its groups: the mean over prompts of (kept - expected) has zero in its 95 %
            interval (normal, over prompts). The formula holds per prompt. With *one* p for all prompts (the batch's accuracy) it is only
            an upper bound, because it is concave in p: the observed share must not be expected to reach it, and is shown besides.

Accuracy is that of one sampled completion per prompt at temperature 1, never of the greedy one. What cannot be shown at this scale: the
published gaps between these methods (a few points, on models ten thousand times larger), and anything about long completions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rheostat.analysis import statistics
from rheostat.analysis.verdict import Outcome
from rheostat.experiments.studies import Cell, Claim, Condition, Effect, Judgement, Results, Study, summary
from rheostat.tasks.language.recipes import BASE_RECIPES
from studies._grpo_report import draw

ARMS = {"grpo": "GRPO", "rloo": "RLOO", "dapo": "DAPO", "gspo": "GSPO", "reinforce-pp": "REINFORCE++", "rft": "RFT"}
NAMED = ("grpo", "rloo", "reinforce-pp", "dapo")
"""The four whose likeness is claimed."""
OWN: dict[str, dict[str, Any]] = {"dapo": {"overlong_buffer": 8}}
SHARED: dict[str, Any] = {"learning_rate": 2e-4, "kl_coefficient": 0.0}
MODULES = {name: f"rheostat.methods.language.{name.replace('-', '_')}" for name in ARMS}
LEAST_GAIN = 0.10


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form, and can be set from the command line."""

    seeds: int = 5
    tokens: int = 260_000
    look_every: int = 5
    look_prompts: int = 256
    final_prompts: int = 1024
    kept_prompts: int = 96
    kept_samples: int = 64
    prompts: int = 16
    group_size: int = 16
    model: str = "chain-sum"


SMOKE = Sizes(2, 300, 1, 4, 8, 4, 6, 2, 4, "untrained")


def arms(sizes: Sizes) -> dict[str, dict[int, Cell]]:
    """Cells by arm and seed, seeds first, so that an interrupted study has all arms of some seeds."""
    found: dict[str, dict[int, Cell]] = {name: {} for name in ARMS}
    recipe = BASE_RECIPES[sizes.model].digest
    for seed in range(sizes.seeds):
        for name in ARMS:
            config = SHARED | OWN.get(name, {}) | {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size}
            arguments = {
                "method": name,
                "config": config,
                "task": "chain-sum",
                "model": sizes.model,
                "base": recipe,
                "seed": seed,
                "tokens": sizes.tokens,
                "look_every": sizes.look_every,
                "look_prompts": sizes.look_prompts,
                "final_prompts": sizes.final_prompts,
                "kept_prompts": sizes.kept_prompts if name == "dapo" else 0,
                "kept_samples": sizes.kept_samples,
            }
            sources = (MODULES[name],)
            found[name][seed] = Cell("studies._grpo_cells:learn", arguments, f"{ARMS[name]}, seed {seed}", sizes.tokens / 8000, (), sources)
    return found


# --- rules -----------------------------------------------------------------------------------------------------------------------------


def gains(start: dict[str, list[float]], final: dict[str, list[float]]) -> list[Condition]:
    """Every arm beats its start."""
    found = []
    for name in final:
        gain = [b - a for a, b in zip(start[name], final[name], strict=True)]
        interval = statistics.bootstrap(gain, statistics.mean, generator=np.random.default_rng(0))
        outcome: Outcome = "undecided"
        if interval.low >= LEAST_GAIN and min(gain) >= LEAST_GAIN:
            outcome = "held"
        elif interval.high < LEAST_GAIN:
            outcome = "not held"
        numbers = bounded(interval) | {"smallest": round(min(gain), 4), "seeds": len(gain)}
        found.append(Condition(f"{ARMS[name]}: accuracy gained over the start at least {LEAST_GAIN:g}", outcome, numbers))
    return found


def alike(final: dict[str, list[float]]) -> Condition:
    """The arms differ by less than the seed spread."""
    from scipy.stats import ttest_ind

    names = list(final)
    pairs = list(combinations(names, 2))
    level = 1 - 0.05 / len(pairs)
    means = {name: float(np.mean(final[name])) for name in names}
    some = min(map(len, final.values())) > 1
    spread = float(np.sqrt(np.mean([np.var(final[name], ddof=1) for name in names]))) if some else float("nan")
    gaps = {}
    for a, b in pairs:
        interval = statistics.difference(final[a], final[b], statistics.mean, generator=np.random.default_rng(0), level=level)
        p_value = float(ttest_ind(final[a], final[b], equal_var=False).pvalue) if some and spread > 0 else 1.0
        gaps[f"{ARMS[a]} - {ARMS[b]}"] = bounded(interval) | {"p_value": round(p_value, 6)}
    largest = max(means.values()) - min(means.values())
    apart = [pair for pair, gap in gaps.items() if gap["p_value"] < 1 - level and (gap["low"] > 0 or gap["high"] < 0)]
    outcome: Outcome = "held" if some and largest < spread else "not held" if some and apart else "undecided"
    best, worst = max(names, key=means.__getitem__), min(names, key=means.__getitem__)
    gap = statistics.difference(final[best], final[worst], statistics.mean, generator=np.random.default_rng(0), level=level)
    numbers = {
        "largest_gap": round(largest, 5),
        "between": f"{ARMS[best]} and {ARMS[worst]}",
        "seed_spread": round(spread, 5) if some else None,
        "level": round(level, 5),
        "told_apart": apart,
        "gap": bounded(gap),
        "pairs": gaps,
    }
    return Condition(f"{', '.join(ARMS[name] for name in names)}: largest gap of two means below the seed spread", outcome, numbers)


def kept_as_expected(when: str, measured: list[dict[str, Any]]) -> Condition:
    """DAPO's kept groups against the analytic share of the same prompts."""
    kept = np.concatenate([m["kept"] for m in measured]).astype(float)
    expected = np.concatenate([m["expected"] for m in measured])
    right = np.concatenate([m["right"] for m in measured])
    gap = kept - expected
    error = float(gap.std(ddof=1) / np.sqrt(len(gap)))
    centre = float(gap.mean())
    outcome: Outcome = "held" if abs(centre) <= 1.96 * error else "not held"
    if error == 0 and centre == 0:
        outcome = "undecided"  # no group could have gone either way: nothing was tested
    numbers = {
        "kept": round(float(kept.mean()), 5),
        "expected": round(float(expected.mean()), 5),
        "difference": round(centre, 5),
        "low": round(centre - 1.96 * error, 5),
        "high": round(centre + 1.96 * error, 5),
        "prompts": len(kept),
        "accuracy": round(float(right.mean()), 5),
    }
    return Condition(f"DAPO at the {when}: share of groups kept is the mean of 1 - p^G - (1-p)^G over prompts", outcome, numbers)


def one_p(cells: list[dict[str, Any]], size: int) -> dict[str, float | None]:
    """Kept share of whole training runs against the formula with one p per batch (an upper bound); batches of one sampling round."""
    single = [row for cell in cells for row in cell["updates"] if row.get("sampling_rounds") == 1]
    rows = [row for cell in cells for row in cell["updates"]]
    formula = [1 - row["reward"] ** size - (1 - row["reward"]) ** size for row in single]
    return {
        "kept_in_training": round(float(np.mean([row["informative_share"] for row in rows])), 4),
        "rounds_per_update": round(float(np.mean([row["sampling_rounds"] for row in rows])), 3),
        "kept_in_single_rounds": round(float(np.mean([row["informative_share"] for row in single])), 4) if single else None,
        "formula_with_one_p": round(float(np.mean(formula)), 4) if single else None,
    }


def bounded(interval: statistics.Interval) -> dict[str, Any]:
    """An interval as plain JSON; unbounded ends become None."""
    low, high = (round(x, 5) if np.isfinite(x) else None for x in (interval.low, interval.high))
    return {"estimate": round(interval.estimate, 5), "low": low, "high": high}


# --- the study ---------------------------------------------------------------------------------------------------------------------------


def claims(sizes: Sizes) -> list[Claim]:
    """Four claims on the same cells; the first also has the curves and the numbers of the arms."""
    cells = arms(sizes)
    by_label = {ARMS[name]: seeds for name, seeds in cells.items()}
    shared = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in SHARED.items())
    setting = (
        f"chain-sum, {sizes.tokens:,} generated tokens per run, {sizes.prompts} prompts x {sizes.group_size} completions, {shared}; "
        "GSPO takes four gradient steps per batch, DAPO's overlong buffer is 8"
    )

    def learned(result: Results, when: str, name: str = "accuracy") -> dict[str, list[float]]:
        return {arm: [result(cell)[when][name] for cell in seeds.values()] for arm, seeds in cells.items()}

    def judge_gain(result: Results) -> Judgement:
        results = {name: [result(cell) for cell in seeds.values()] for name, seeds in cells.items()}
        metrics = {
            "arms": {ARMS[name]: arm_numbers(found, sizes.tokens) for name, found in results.items()},
            "gradient_steps": steps_per_batch(results),
        }
        curves = {ARMS[name]: {seed: result(cell)["curve"] for seed, cell in seeds.items()} for name, seeds in cells.items()}
        return Judgement(gains(learned(result, "start"), learned(result, "final")), metrics, curves)

    def judge_alike(names: tuple[str, ...]) -> Any:
        def judge(result: Results) -> Judgement:
            final = learned(result, "final")
            condition = alike({name: final[name] for name in names})
            gap = condition.numbers["gap"]
            effect = Effect(f"largest gap: {condition.numbers['between']}", gap["estimate"], gap["low"], gap["high"], sizes.seeds)
            return Judgement([condition], effect=effect)

        return judge

    def judge_kept(result: Results) -> Judgement:
        found = [result(cell) for cell in cells["dapo"].values()]
        conditions = [kept_as_expected(when, [one["kept"][when] for one in found]) for when in ("start", "end")]
        return Judgement(conditions, {"besides": one_p(found, sizes.group_size)})

    four = {ARMS[name]: by_label[ARMS[name]] for name in NAMED}
    likeness = "Practitioners' reports and the papers' own ablations: at equal data the group methods differ by less than seeds do"
    return [
        Claim(
            "gain",
            "Six methods learn chain-sum from the same base",
            "Each paper: accuracy rises far above the base model's",
            setting,
            by_label,
            judge_gain,
        ),
        Claim(
            "alike",
            "GRPO, RLOO, REINFORCE++ and DAPO cannot be told apart",
            likeness,
            setting,
            four,
            judge_alike(NAMED),
        ),
        Claim("alike, six", "All six cannot be told apart", likeness, setting, by_label, judge_alike(tuple(ARMS))),
        Claim(
            "kept",
            "DAPO keeps the share of groups that probability says",
            "DAPO discards groups whose rewards are all equal; a prompt solved with probability p survives with 1 - p^G - (1-p)^G",
            f"{sizes.kept_prompts} prompts per seed before and after training; the share expected is estimated without bias from "
            f"{sizes.kept_samples} further completions of each prompt",
            {ARMS["dapo"]: by_label[ARMS["dapo"]]},
            judge_kept,
        ),
    ]


def steps_per_batch(results: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Gradient steps that each arm took per batch, as observed."""
    return {ARMS[name]: int(max(row["gradient_steps"] for cell in cells for row in cell["updates"])) for name, cells in results.items()}


def arm_numbers(cells: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """What an arm's seeds say."""
    found: dict[str, Any] = {}
    for name in ("accuracy", "entropy", "completion_length"):
        for when in ("start", "final"):
            found[f"{when}_{name}"] = spread_of([cell[when][name] for cell in cells])
    area = [statistics.area_under_curve(cell["curve"]["steps"], cell["curve"]["accuracy"], until=float(tokens)) for cell in cells]
    found["mean_accuracy_over_budget"] = spread_of(area)
    found["updates"] = spread_of([float(len(cell["updates"])) for cell in cells])
    found["tokens"] = spread_of([float(cell["updates"][-1]["tokens"]) for cell in cells])
    return found


def spread_of(values: list[float]) -> dict[str, Any]:
    """Mean, standard error, numbers per seed, and the bootstrap interval of the mean."""
    interval = statistics.bootstrap(values, statistics.mean, generator=np.random.default_rng(0))
    return summary(dict(enumerate(values))) | {name: value for name, value in bounded(interval).items() if name != "estimate"}


STUDY = Study("grpo", "GRPO and relatives", "arXiv 2402.03300 and others", claims, full=Sizes(), smoke=SMOKE, draw=draw)
