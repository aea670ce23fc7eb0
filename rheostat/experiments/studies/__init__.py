"""Studies: published claims, tried at small scale by rules that are fixed before anything is run."""

from rheostat.experiments.studies.jobs import Cell
from rheostat.experiments.studies.rules import (
    Condition,
    above,
    alike,
    as_json,
    better,
    exact,
    majority,
    not_worse,
    smaller,
    summary,
    verdict,
    within,
)
from rheostat.experiments.studies.study import Claim, Columns, Effect, Judgement, Precondition, Results, Scale, Study
from rheostat.experiments.studies.training import Arm, areas, average, curves, finals, reaches, sized, trained
from rheostat.experiments.studies.tuning import Search, Tuned

__all__ = [
    "Arm",
    "Cell",
    "Claim",
    "Columns",
    "Condition",
    "Effect",
    "Judgement",
    "Precondition",
    "Results",
    "Scale",
    "Search",
    "Study",
    "Tuned",
    "above",
    "alike",
    "areas",
    "as_json",
    "average",
    "better",
    "curves",
    "exact",
    "finals",
    "majority",
    "not_worse",
    "reaches",
    "sized",
    "smaller",
    "summary",
    "trained",
    "verdict",
    "within",
]
