"""Suboptimal on-policy preferences and the online-offline gap on a language task: the second world of both studies.

Chains of three to six terms from a tiny base that works a third of them out; a verifier is the gold reward. Every arm draws eight answers
to each of 16 prompts per update, so that graded answers, generated tokens and gradient steps are equal. Two switches:

who answers         online: the present policy; offline: the base, for every update (``dial.refresh_every 0``)
what is pushed down best of N: nothing, likelihood of the best of eight; IPO: the worst of eight, in a pair with the best, beta 0.1

Rules, fixed before any arm was run (matched seeds, looked at as docs/rule.md says); accuracy is of one sampled completion per held-out
prompt at temperature 1, and less than two points do not matter.

online     each loss is more accurate online than offline.
negative   offline, IPO is more accurate than best of N.
both       online IPO is more accurate than online best of N and than offline IPO.

No arm was tuned: all have the step size 2e-4 of other studies of this task. What cannot be shown here: rewards that are learned, lengths
as rewards, and people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import (
    Arm,
    Claim,
    Judgement,
    Results,
    Study,
    better,
    curves,
    finals,
    reaches,
    sized,
    summary,
    trained,
)

OFFLINE: dict[str, Any] = {"dial.refresh_every": 0}
IPO: dict[str, Any] = {"link": "ipo", "beta": 0.1}
ARMS = {
    "offline best of N": Arm("best-of-n", OFFLINE),
    "online best of N": Arm("best-of-n"),
    "offline IPO": Arm("online-dpo", IPO | OFFLINE),
    "online IPO": Arm("online-dpo", IPO),
}
SHARED: dict[str, Any] = {"learning_rate": 2e-4, "warmup": 0, "weight_decay": 0.0, "temperature": 1.0, "evaluate_every": 0}
METRICS = ("reward", "entropy", "completion_length", "margin", "chosen_log_ratio", "rejected_log_ratio")
MARGINS = {"accuracy": 0.02}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    updates: int = 60
    prompts: int = 16
    group_size: int = 8
    held_out: int = 512
    model: str = "chain-sum"
    first_seed: int = 0


SMOKE = Sizes(1, 1, 2, 4, 4, "untrained")


def claims(sizes: Sizes) -> list[Claim]:
    """Three claims on the same cells."""
    cells = trained(ARMS, task="chain-sum", metrics=METRICS, cost=30.0, **sized(sizes, sizes.updates, SHARED))
    setting = (
        f"chain-sum from {sizes.model}, {sizes.updates} updates of {sizes.prompts} prompts x {sizes.group_size} answers, one gradient step "
        f"each, learning rate 2e-4; one sample for each of {sizes.held_out} held-out prompts"
    )
    room = reaches("online IPO", cells, least=0.4, most=0.97)  # something is learned, and the ceiling is not reached

    def compare(*pairs: tuple[str, str]) -> Callable[[Results], Judgement]:
        def judge(result: Results) -> Judgement:
            final = {arm: finals(found, result) for arm, found in cells.items()}
            conditions = [better(f"accuracy, {a} and {b}", final[a], final[b], margin=MARGINS["accuracy"]) for a, b in pairs]
            return Judgement(conditions, {"final": {arm: summary(found) for arm, found in final.items()}}, curves(cells, result))

        return judge

    return [
        Claim(
            "online",
            "Each loss ends more accurate online than offline",
            "On-policy sampling helps where the reward's peak is away from the start (2404.14367); online ends above offline (2405.08448)",
            setting,
            cells,
            compare(("online best of N", "offline best of N"), ("online IPO", "offline IPO")),
            margins=MARGINS,
            preconditions=(room,),
        ),
        Claim(
            "negative",
            "Offline, IPO ends more accurate than best of N",
            "A negative gradient beats offline likelihood (2404.14367)",
            setting,
            cells,
            compare(("offline IPO", "offline best of N")),
            margins=MARGINS,
            preconditions=(room,),
        ),
        Claim(
            "both",
            "Both switches together end above either alone",
            "On-policy sampling and negative gradients are complementary (2404.14367)",
            setting,
            cells,
            compare(("online IPO", "online best of N"), ("online IPO", "offline IPO")),
            margins=MARGINS,
            preconditions=(room,),
        ),
    ]


STUDY = Study("preferences-language", "Preferences on a language task", "arXiv 2404.14367, 2405.08448", claims, full=Sizes(), smoke=SMOKE)
