"""Suboptimal on-policy preferences on sequences: nine tokens, each paid by the kernel whose peak is away from the data.

Ten prompts, ten answers each; a small transformer begins as a fit of the data policy, and its frozen copy is the reference. Arms as in the
study of the bandit: one batch of the reference for all gradient steps, or a new batch of the present policy for every ten. Step sizes are
the authors' for best-of-N; theirs for IPO, 1e-2, belongs to a likelihood that is not shifted, and best-of-N's are taken for both. The
budget is half of theirs. Rules as there: fixed before any arm was run, rewards of samples, and less than 0.05 does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.experiments.studies import Claim, Study
from studies.suboptimal_onpolicy_prefs import BON, IPO, MARGINS, OFFLINE, SWITCHED, Options, away_from, cells_of, compared, gains

SEQUENCE: dict[str, Options] = {
    "offline BoN": BON | OFFLINE | {"learning_rate": 1e-4},
    "on-policy BoN": BON | {"learning_rate": 3e-5, "reuse": 10},
    "offline IPO": IPO | OFFLINE | {"learning_rate": 1e-4, "pair_threshold": 0.2},
    "on-policy IPO": IPO | {"learning_rate": 3e-5, "reuse": 10},
}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    steps: int = 500
    first_seed: int = 0


SMOKE = Sizes(1, 2)


def claims(sizes: Sizes) -> list[Claim]:
    """One claim."""
    cells = cells_of("sequence-away", SEQUENCE, sizes, sizes.steps, budget=f"{sizes.steps} gradient steps")
    return [
        Claim(
            "sequence",
            "Nine tokens, peak away: on-policy sampling ends above one offline batch",
            "On-policy sampling raises reward, most when the peak lies far from the reference's mass",
            f"sequence-away, 10 prompts x 10 answers, {sizes.steps} gradient steps, best-of-N's step sizes; reward of samples",
            **compared(SWITCHED, cells, MARGINS["smaller reward"]),
            preconditions=(away_from(cells["offline BoN"]), gains("on-policy BoN", cells["on-policy BoN"], 0.05)),
        ),
    ]


STUDY = Study(
    "suboptimal-onpolicy-sequence", "Suboptimal on-policy preferences, sequences", "arXiv 2404.14367", claims, full=Sizes(), smoke=SMOKE
)
