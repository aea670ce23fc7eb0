"""Which estimators are unbiased? The microscope on the KL, on advantages and on policy gradients, on-policy and stale.

KL and advantages are sums over every outcome of a small problem, so their verdicts are exact; those of policy gradients are intervals over
independent batches (64 prompts x 4 completions each) of a tiny language model with 484 possible outputs. Stale means that the policy that
sampled is four exact gradient steps behind the learner. The claims are textbook results and remarks of practitioners, some of them wrong
when estimators are used the way language methods use them: summed over tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rheostat.experiments.studies import Cell, Claim, Condition, Effect, Judgement, Results, Study, exact
from studies._estimators_report import draw

GRADIENTS = ["is:sequence", "is:token", "is:truncated", "is:none", "reinforce", "rloo", "grpo", "dr-grpo", "tis", "cispo", "gspo", "rft"]
LAGS = {"fresh": 0, "stale": 4}
EXACT = 1e-3
"""Relative error that rounding may leave."""


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    batches: int = 300
    names: int = len(GRADIENTS)


SMOKE = Sizes(4, 2)


def look(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: one family under the microscope."""
    import rheostat

    return rheostat.microscope(arguments["names"], lag=arguments["lag"], **arguments["options"]).to_json()


def claims(sizes: Sizes) -> list[Claim]:
    """KL values, KL gradients, advantages, and gradients."""
    sources = ("rheostat.methods.language.grpo", "rheostat.diagnostics.microscope.microscope_result")

    def cells(names: list[str], lags: dict[str, int], options: dict[str, Any], cost: float) -> dict[str, dict[int, Cell]]:
        def cell(label: str, lag: int) -> Cell:
            arguments = {"names": names, "lag": lag, "options": options}
            return Cell("studies.estimators:look", arguments, f"{names[0]} {label}", cost, (), sources)

        return {label: {0: cell(label, lag)} for label, lag in lags.items()}

    kl = cells(["kl"], {"lag 1": 1, "lag 4": 4}, {}, 3.0)
    advantages = cells(["advantage"], LAGS, {}, 3.0)
    gradients = cells(GRADIENTS[: sizes.names], LAGS, {"batches": sizes.batches}, 0.12 * sizes.batches)
    setting = "tiny-words: four prompts, 484 outputs in all; lag 1 and 4 exact gradient steps"
    world = "a grid world with 1,006 possible episodes; a critic that is wrong on purpose"
    return [
        Claim(
            "kl values",
            "k1 and k3 are unbiased estimates of the KL, k2 is not",
            SCHULMAN,
            setting,
            kl,
            judge_all(kl, kl_values),
            seeded=False,
        ),
        Claim("kl deviation", "k3 varies less than k1", SCHULMAN, setting, kl, judge_all(kl, kl_deviation), seeded=False),
        Claim(
            "kl gradients",
            "Summed over tokens, k2 as a loss has the gradient of the KL",
            "Practitioners: 'k2 in the loss is the gradient-correct choice'",
            setting,
            kl,
            judge_all(kl, kl_gradients),
            seeded=False,
        ),
        Claim(
            "advantages",
            "GAE trades bias for variance, and off-policy even lambda = 1 is biased",
            "Schulman et al. 2016 (GAE); Munos et al. 2016 and Espeholt et al. 2018 (corrections)",
            world,
            {"fresh": advantages["fresh"], "stale": advantages["stale"]},
            judge_all(advantages, advantage_rules),
            seeded=False,
        ),
        Claim(
            "sequence weights",
            "Stale: only whole-completion importance weights are unbiased, and token weights vary less",
            "Textbook; the token weight is what TIS and most trainers use",
            f"{setting}; {sizes.batches} batches of each estimator",
            gradients,
            judge_gradients(gradients),
            seeded=False,
        ),
    ]


SCHULMAN = "Schulman 2020, 'Approximating KL divergence': k1 unbiased with high variance, k2 biased with low, k3 unbiased with low"
Rows = dict[str, dict[str, Any]]


def rows_of(found: dict[str, Any]) -> Rows:
    """Rows of a look by name."""
    return {row["name"]: row for row in found["rows"]}


def judge_all(arms: dict[str, dict[int, Cell]], rules: Callable[[str, Rows], list[Condition]]) -> Callable[[Results], Judgement]:
    """Apply exact rules to every look."""

    def judge(result: Results) -> Judgement:
        looks = {label: result(cells[0]) for label, cells in arms.items()}
        conditions = [condition for label, found in looks.items() for condition in rules(label, rows_of(found))]
        return Judgement(conditions, {"looks": looks})

    return judge


def kl_values(label: str, rows: Rows) -> list[Condition]:
    """Values at the learner's own samples."""
    bias = {name: rows[f"kl:{name}"]["bias"] for name in ("k1", "k2", "k3")}
    return [
        exact(f"{label}: k1 unbiased", abs(bias["k1"]) < EXACT, bias=bias["k1"]),
        exact(f"{label}: k3 unbiased", abs(bias["k3"]) < EXACT, bias=bias["k3"]),
        exact(f"{label}: k2 biased", abs(bias["k2"]) >= EXACT, bias=bias["k2"]),
    ]


def kl_deviation(label: str, rows: Rows) -> list[Condition]:
    """Standard deviation of one completion's estimate, relative to the KL."""
    k1, k3 = rows["kl:k1"]["deviation"], rows["kl:k3"]["deviation"]
    return [exact(f"{label}: deviation of k3 below that of k1", k3 < k1, k1=k1, k3=k3)]


def kl_gradients(label: str, rows: Rows) -> list[Condition]:
    """Gradients of the estimators as losses."""
    found = rows["kl:k2"]["gradient_error"]
    return [exact(f"{label}: gradient of summed k2 is that of KL(learner, reference)", found < EXACT, relative_error=found)]


def advantage_rules(label: str, rows: Rows) -> list[Condition]:
    """Bias falls and variance rises with lambda; corrections."""
    gae = [rows[f"advantage:gae-{lam}"] for lam in ("0", "0.5", "0.9", "0.95", "1")]
    bias, deviation = [row["bias"] for row in gae], [row["deviation"] for row in gae]
    found = [
        exact(f"{label}: on-policy bias falls with lambda", bias == sorted(bias, reverse=True), lowest=bias[-1], highest=bias[0]),
        exact(f"{label}: deviation rises with lambda", deviation == sorted(deviation), lowest=deviation[0], highest=deviation[-1]),
    ]
    if label == "stale":
        stale, unclipped = gae[-1]["exact_critic_bias"], rows["advantage:vtrace-unclipped"]["stale_bias"]
        found.append(exact("stale: lambda = 1 is biased even with the exact critic", stale >= EXACT, bias=stale))
        found.append(exact("stale: per-decision importance sampling is unbiased", unclipped < EXACT, bias=unclipped))
    return found


def judge_gradients(arms: dict[str, dict[int, Cell]]) -> Callable[[Results], Judgement]:
    """Verdicts of the microscope, and the variance of token weights against that of whole completions."""

    def judge(result: Results) -> Judgement:
        looks = {label: result(cells[0]) for label, cells in arms.items()}
        stale = rows_of(looks["stale"])
        whole, token = stale["is:sequence"], stale["is:token"]
        interval = whole["bias"]
        conditions = [
            Condition(
                "stale: the whole-completion weight is unbiased (0 in the interval of its relative bias)",
                "supported" if interval["low"] <= 0 else "refuted",
                {"estimate": interval["estimate"], "low": interval["low"], "high": interval["high"], "batches": whole["batches"]},
            ),
            Condition(
                "stale: the token weight is biased",
                "supported" if token["bias"]["low"] > 0 else "undecided",
                {"estimate": token["bias"]["estimate"], "low": token["bias"]["low"], "high": token["bias"]["high"]},
            ),
            exact(
                "stale: the token weight varies less, at equal scale",
                token["variance_rescaled"] < whole["variance_rescaled"],
                token=token["variance_rescaled"],
                whole=whole["variance_rescaled"],
            ),
        ]
        bias = token["bias"]
        effect = Effect("relative bias of token weights", bias["estimate"], bias["low"], bias["high"], token["batches"])
        return Judgement(conditions, {"looks": looks}, effect=effect)

    return judge


STUDY = Study("estimators", "Estimators", "several", claims, full=Sizes(), smoke=SMOKE, draw=draw)
