"""GRPO and its relatives on one small task: do they all work, and can they be told apart?

Six methods of one family (GRPO, arXiv 2402.03300; RLOO, 2402.14740; DAPO, 2503.14476; GSPO, 2507.18071; REINFORCE++, 2501.03262;
rejection-sampling fine-tuning, 2308.01825) start from the same tiny base model and are given the same number of GENERATED TOKENS, so the
groups that DAPO samples and discards are paid for. Run it with ``rheostat study grpo``; finished cells are kept, so a second call
continues.

Equal in all arms: the base, the prompts' stream of a seed, 16 prompts x 16 completions, temperature 1, AdamW with learning rate 2e-4 (the
library's preset for models of this size), gradient norm 1, no KL to the base, no tuning of any arm. The methods' own: advantage, ratio,
clip, aggregation, what is discarded; and GSPO takes four gradient steps per batch (its paper's number; a ratio does nothing in a single
step), all others one. DAPO's overlong buffer is 8 tokens.

Rules (matched seeds, looked at as docs/rule.md says). The results of five seeds are pilots, and had other rules:

gain        every arm ends more than 10 points of held-out accuracy above its start.
alike       GRPO, RLOO, REINFORCE++ and DAPO are alike: every two of them differ by less than three points of final accuracy.
alike, six  the same for all six arms.
kept        DAPO keeps the share 1 - p^G - (1 - p)^G of its groups, up to two points: the mean over prompts of both, by seed, before and
            after training. The formula holds per prompt. With *one* p for all prompts (the batch's accuracy) it is only an upper bound,
            because it is concave in p: the observed share must not be expected to reach it, and is shown besides.

Accuracy is that of one sampled completion per prompt at temperature 1, never of the greedy one. What cannot be shown at this scale: the
published gaps between these methods (a few points, on models ten thousand times larger), and anything about long completions.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rheostat.analysis import statistics
from rheostat.experiments.studies import Cell, Claim, Condition, Effect, Judgement, Precondition, Results, Study, alike, better, summary
from rheostat.tasks.language.recipes import BASE_RECIPES
from studies._grpo_report import draw

ARMS = {"grpo": "GRPO", "rloo": "RLOO", "dapo": "DAPO", "gspo": "GSPO", "reinforce-pp": "REINFORCE++", "rft": "RFT"}
NAMED = ("grpo", "rloo", "reinforce-pp", "dapo")
"""The four whose likeness is claimed."""
OWN: dict[str, dict[str, Any]] = {"dapo": {"overlong_buffer": 8}}
SHARED: dict[str, Any] = {"learning_rate": 2e-4, "kl_coefficient": 0.0}
MODULES = {name: f"rheostat.methods.language.{name.replace('-', '_')}" for name in ARMS}
LEAST_GAIN, MARGIN, SHARE = 0.10, 0.03, 0.02
"""Accuracy that every method must gain; accuracy, and share of groups, that do not matter."""


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form, and can be set from the command line."""

    seeds: int = 8
    tokens: int = 260_000
    look_every: int = 5
    look_prompts: int = 256
    final_prompts: int = 1024
    kept_prompts: int = 96
    kept_samples: int = 64
    prompts: int = 16
    group_size: int = 16
    model: str = "chain-sum"
    first_seed: int = 0


SMOKE = Sizes(2, 300, 1, 4, 8, 4, 6, 2, 4, "untrained")


def arms(sizes: Sizes) -> dict[str, dict[int, Cell]]:
    """Cells by arm and seed, seeds first, so that an interrupted study has all arms of some seeds."""
    found: dict[str, dict[int, Cell]] = {name: {} for name in ARMS}
    recipe = BASE_RECIPES[sizes.model].digest
    for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds):
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


def gains(start: dict[str, dict[int, float]], final: dict[str, dict[int, float]]) -> list[Condition]:
    """Every arm beats its start by the least gain."""
    return [better(f"{ARMS[name]}: accuracy at the end and at the start", final[name], start[name], by=LEAST_GAIN) for name in final]


def same(final: dict[str, dict[int, float]]) -> list[Condition]:
    """Every two arms differ by less than the margin."""
    return [alike(f"accuracy of {ARMS[a]} and {ARMS[b]}", final[a], final[b], margin=MARGIN) for a, b in combinations(final, 2)]


def kept_as_expected(when: str, measured: dict[int, dict[str, Any]]) -> Condition:
    """DAPO's kept groups against the analytic share of the same prompts, by seed."""
    kept, expected = ({seed: float(np.mean(one[name])) for seed, one in measured.items()} for name in ("kept", "expected"))
    return alike(f"DAPO at the {when}: share of groups kept and the mean of 1 - p^G - (1-p)^G over prompts", kept, expected, margin=SHARE)


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

    def learned(result: Results, when: str, name: str = "accuracy") -> dict[str, dict[int, float]]:
        return {arm: {seed: result(cell)[when][name] for seed, cell in seeds.items()} for arm, seeds in cells.items()}

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
            conditions = same({name: final[name] for name in names})
            widest = max(conditions, key=lambda condition: abs(condition.numbers["difference"]))
            numbers = widest.numbers
            effect = Effect(f"largest gap: {widest.rule}", numbers["difference"], numbers["low"], numbers["high"], sizes.seeds)
            return Judgement(conditions, effect=effect)

        return judge

    def judge_kept(result: Results) -> Judgement:
        found = {seed: result(cell) for seed, cell in cells["dapo"].items()}
        conditions = [kept_as_expected(when, {seed: one["kept"][when] for seed, one in found.items()}) for when in ("start", "end")]
        return Judgement(conditions, {"besides": one_p(list(found.values()), sizes.group_size)})

    def informative(result: Results) -> dict[int, float]:
        return {seed: float(np.mean(result(cell)["kept"]["start"]["expected"])) for seed, cell in cells["dapo"].items()}

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
            margins={"accuracy gained": LEAST_GAIN},
        ),
        Claim(
            "alike",
            "GRPO, RLOO, REINFORCE++ and DAPO cannot be told apart",
            likeness,
            setting,
            four,
            judge_alike(NAMED),
            margins={"accuracy": MARGIN},
        ),
        Claim(
            "alike, six",
            "All six cannot be told apart",
            likeness,
            setting,
            by_label,
            judge_alike(tuple(ARMS)),
            margins={"accuracy": MARGIN},
        ),
        Claim(
            "kept",
            "DAPO keeps the share of groups that probability says",
            "DAPO discards groups whose rewards are all equal; a prompt solved with probability p survives with 1 - p^G - (1-p)^G",
            f"{sizes.kept_prompts} prompts per seed before and after training; the share expected is estimated without bias from "
            f"{sizes.kept_samples} further completions of each prompt",
            {ARMS["dapo"]: by_label[ARMS["dapo"]]},
            judge_kept,
            margins={"share": SHARE},
            preconditions=(Precondition("groups differ", "share of groups that probability keeps", informative, least=0.1, most=0.99),),
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
    """Mean, standard error, numbers per seed, and the t interval of the mean."""
    interval = statistics.interval_of(values, statistics.mean)
    low, high = (round(x, 5) if np.isfinite(x) else None for x in (interval.low, interval.high))
    return summary(dict(enumerate(values))) | {"low": low, "high": high}


STUDY = Study("grpo", "GRPO and relatives", "arXiv 2402.03300 and others", claims, full=Sizes(), smoke=SMOKE, draw=draw)
