"""Studies: published claims, tried at small scale by rules that are fixed before anything is run."""

from rheostat.experiments.studies.jobs import Cell
from rheostat.experiments.studies.rules import Condition, all_smaller, as_json, better, not_worse, share_at_least, smaller, summary, verdict
from rheostat.experiments.studies.study import Claim, Columns, Effect, Judgement, Results, Sequential, Study
from rheostat.experiments.studies.training import Arm, areas, curves, finals, trained

__all__ = [
    "Arm",
    "Cell",
    "Claim",
    "Columns",
    "Condition",
    "Effect",
    "Judgement",
    "Results",
    "Sequential",
    "Study",
    "all_smaller",
    "areas",
    "as_json",
    "better",
    "curves",
    "finals",
    "not_worse",
    "share_at_least",
    "smaller",
    "summary",
    "trained",
    "verdict",
]
