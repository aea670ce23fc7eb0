"""The command ``rheostat ope``."""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tyro.conf import OmitArgPrefixes, Positional

from rheostat.analysis.fitted_q_config import FQEConfig
from rheostat.buffers.repairs import Repairs
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.terminal import print_json, print_table

Estimator = Literal["data", "fqe", "is", "wis", "pdis", "wpdis", "dr", "wdr"]


@dataclass
class OffPolicyEvaluation:
    """Judge a run's policy from a data set alone: fitted Q evaluation, importance sampling, doubly robust."""

    run_directory: Positional[Path]
    """Directory of the run whose policy is judged."""
    offline: str
    """Data set to judge it by: its folder, the id of a local Minari data set, or a .hdf5 or .npz file."""
    repair: Repairs = field(default_factory=Repairs)
    estimators: tuple[Estimator, ...] = ("data", "fqe")
    """data: the data's own return. fqe: fitted Q evaluation. is, wis, pdis, wpdis: importance sampling, ordinary, weighted, per-decision,
    both. dr, wdr: doubly robust, and weighted. All but data and fqe need to know how likely the data's actions were."""
    sampled: bool = False
    """Fitted Q evaluation judges the sampling policy instead of its deterministic action."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of the critic."""
    fqe: OmitArgPrefixes[FQEConfig] = field(default_factory=FQEConfig)
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Do it."""
        from rheostat import api
        from rheostat.analysis.offline_evaluation import evaluate_offline
        from rheostat.collect.control.offline_data import load_for

        run = api.load(self.run_directory)
        context: Any = run.method.context
        act = getattr(context, "act_on_target", None)
        if act is None:
            raise RheostatError(f"{run.settings.method} does not train a control policy: there is nothing to judge by a control data set.")
        data = load_for(context.environments, self.offline, **dataclasses.asdict(self.repair))
        began, last = time.monotonic(), [0.0]

        def watch(step: int, loss: float) -> None:
            now = time.monotonic()
            if not self.json and now - last[0] > 2:
                last[0] = now
                left = (now - began) / step * (self.fqe.steps - step)
                print(f"fitted Q evaluation: {step:,}/{self.fqe.steps:,}, loss {loss:.4g}, about {left:.0f} s left", file=sys.stderr)

        rows = evaluate_offline(act, data, self.estimators, config=self.fqe, seed=self.seed, sampled=self.sampled, watch=watch)
        run.close()
        if self.json:
            print_json({"run": str(self.run_directory), "data": self.offline, "estimates": [dataclasses.asdict(row) for row in rows]})
            return
        cells = [
            (
                row.estimator,
                f"{row.value:,.4g}",
                f"{row.standard_error:,.3g}",
                "" if row.effective_episodes is None else f"{row.effective_episodes:,.1f}",
                row.horizon,
            )
            for row in rows
        ]
        title = (
            f"Discounted return of {self.run_directory} at gamma {self.fqe.gamma:g}, by {len(data.episodes):,} episodes of {self.offline}"
        )
        print_table(
            title,
            ["estimator", "value", "standard error", "effective episodes", "over"],
            cells,
            numbers=["value", "standard error", "effective episodes"],
        )
        for row in rows:
            if row.converged is False:
                print(
                    f"Note: the fit of {row.estimator} had not settled after {self.fqe.steps:,} steps, which its standard error includes: "
                    "raise --steps."
                )
