"""Examining estimators under the microscope: their choice, the problem, and the result as an object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rheostat.diagnostics.microscope.advantages import ADVANTAGES, AdvantageRow, advantage_rows
from rheostat.diagnostics.microscope.control_problem import ControlProblem
from rheostat.diagnostics.microscope.estimators import WEIGHTED
from rheostat.diagnostics.microscope.exact import Problem
from rheostat.diagnostics.microscope.gradients import NO_REWARD, domain_of, first_gradients, sampler
from rheostat.diagnostics.microscope.kl_estimators import KL_ESTIMATORS, KLRow, kl_rows
from rheostat.diagnostics.microscope.language_problem import LanguageProblem
from rheostat.diagnostics.microscope.problems import DEFAULT_PROBLEM, build_problem
from rheostat.diagnostics.microscope.summary import Row, relative_gain, summarise
from rheostat.errors import RheostatError, unknown
from rheostat.methods import table
from rheostat.streams import derive_seed
from rheostat.training.progress import Bar

Kind = Literal["gradient", "kl", "advantage"]
FAMILIES: dict[str, list[str]] = {"is": list(WEIGHTED), "kl": list(KL_ESTIMATORS), "advantage": list(ADVANTAGES)}
"""A family's name stands for all its members."""
METHODS_SHOWN = ("reinforce", "rloo", "dr-grpo", "grpo", "reinforce-pp", "dapo", "gspo", "gmpo", "cispo", "tis", "luffy", "rft", "ppo-lm")
DEFAULT = (*WEIGHTED, *METHODS_SHOWN)
"""Estimators of ``rheostat microscope`` without arguments."""
LAG = 4
"""Exact steps between behaviour and learner by default: enough for every correction to matter."""
BATCHES = 200
STEPS_TRIED = 50  # batches whose direction is evaluated for the improvement


@dataclass(frozen=True)
class MicroscopeResult:
    """The result of an examination.

    Attributes:
        kind: gradients of methods, estimators of the KL, or of advantages.
        facts: of the problem and of the dial's setting.
        rows: one per estimator, in the requested order.
    """

    kind: Kind
    facts: dict[str, Any]
    rows: Sequence[Row | KLRow | AdvantageRow]

    def __getitem__(self, name: str) -> Any:
        """The row of this name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise unknown("row", name, [row.name for row in self.rows])

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"kind": self.kind, "facts": self.facts, "rows": [row.to_json() for row in self.rows]}


def microscope(
    names: Sequence[str] = (),
    *,
    problem: str | Problem | None = None,
    lag: int = LAG,
    updates: int = 0,
    batches: int = BATCHES,
    seed: int = 0,
    step_size: float | None = None,
    length: int = 0,
    progress: bool = False,
    **options: Any,
) -> MicroscopeResult:
    """Bias, variance and direction of estimators against the exact policy gradient (or KL, or advantages) of a small problem.

    Args:
        names: methods (``grpo``, ``ppo``), plain estimators (``is:sequence``), ``kl:k3``, ``advantage:gae-0.95``, or a family (``is``,
            ``kl``, ``advantage``) for all its members; none takes :data:`DEFAULT`. All must be of one kind and one domain.
        problem: a name of :data:`~rheostat.diagnostics.microscope.problems.PROBLEMS`, or your own; None takes the domain's.
        lag: steps of exact gradient ascent between the policy that samples and the learner; 0 is strictly on-policy.
        updates: such steps the learner has already made on the batch, so that its ratio to the start of the update is not 1.
        batches: gradients drawn per estimator.
        seed: of the sampling.
        step_size: of the exact steps; None takes the problem's.
        length: tokens of a completion or steps of an episode; 0 takes the problem's.
        progress: show the progress.
        options: settings of the methods, for every one of them.

    Raises:
        RheostatError: names that do not exist, cannot be examined or do not go together, numbers out of range, a problem too large.
    """
    asked = [member for name in names or DEFAULT for member in FAMILIES.get(name, [name])]
    kind, domain = kind_of(asked)
    for label, number, least in (("lag", lag, 0), ("updates", updates, 0), ("batches", batches, 3), ("seed", seed, 0)):
        if number < least:
            raise RheostatError(f"--{label} is {number}: it must be at least {least}.")
    if step_size is not None and not step_size > 0:
        raise RheostatError(f"--step-size is {step_size}: it must be above 0.")
    if kind != "gradient" and (updates or options):
        what = "--updates" if updates else f"the setting {next(iter(options))}"
        raise RheostatError(f"Estimators of {kind} have no methods behind them: leave {what} out.")
    place = build_problem(problem or DEFAULT_PROBLEM[domain], length=length) if not isinstance(problem, Problem) else problem
    if place.domain != domain:
        raise RheostatError(f"{asked[0]} needs a {domain} problem and {place.name} is one of {place.domain}: leave --problem out.")
    path = place.path(lag + updates, step_size)
    divergence, sample_size = place.distance(path[0], path[-1])
    value, exact = place.exact(path[-1])
    facts: dict[str, Any] = {
        "problem": place.name,
        "outcomes": len(place.returns),
        "lag": lag,
        "updates": updates,
        "step_size": place.step if step_size is None else step_size,
        "expected_reward": value,
        "gradient_norm": float(exact.norm()),
        "kl_behaviour_learner": divergence,
        "effective_sample_size": sample_size,
    }
    if kind == "kl":
        assert isinstance(place, LanguageProblem)
        rows, exacts = kl_rows(asked, place, path[0], path[lag])
        return MicroscopeResult(kind, facts | exacts, rows)
    if kind == "advantage":
        assert isinstance(place, ControlProblem)
        return MicroscopeResult(kind, facts, advantage_rows(asked, place, path[0], path[lag]))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are tiny
    began = time.monotonic()
    length_of_step = facts["step_size"] * facts["gradient_norm"]
    sources = {name: sampler(name, place, path, lag, seed=derive_seed(seed, name), options=options) for name in asked}
    bar = Bar("microscope") if progress else None
    if bar:
        bar.start(0, len(asked) * batches, "batches")
    found: list[Row] = []
    try:
        for number, (name, source) in enumerate(sources.items()):
            gradients = []
            for gradient in first_gradients(source, batches):
                gradients.append(gradient)
                if bar:
                    bar.view.title = f"microscope {name}"
                    bar.update(number * batches + len(gradients), {})
            stacked = torch.stack(gradients)
            gains = relative_gain(place.value, path[-1], stacked[:STEPS_TRIED], exact, length_of_step)
            found.append(summarise(name, stacked, exact, gains))
    finally:
        torch.set_num_threads(threads)
        for source in sources.values():
            source.close()
        if bar:
            bar.stop()
    return MicroscopeResult("gradient", facts | {"batches": batches, "seed": seed, "seconds": round(time.monotonic() - began, 1)}, found)


def kind_of(names: Sequence[str]) -> tuple[Kind, Literal["control", "language"]]:
    """The kind and domain that these names share.

    Raises:
        RheostatError: unknown or unsuitable names, or names that have too little in common.
    """
    everything = [*(name for name in table.METHODS if name not in NO_REWARD), *(name for family in FAMILIES.values() for name in family)]
    kinds: dict[tuple[Kind, Any], str] = {}
    for name in names:
        if name in KL_ESTIMATORS:
            kinds.setdefault(("kl", "language"), name)
        elif name in ADVANTAGES:
            kinds.setdefault(("advantage", "control"), name)
        elif name in everything or name in table.METHODS:
            kinds.setdefault(("gradient", domain_of(name)), name)
        else:
            raise unknown("method or estimator", name, [*everything, *FAMILIES])
    if len(kinds) > 1:
        (first, one), (second, other), *_ = kinds.items()
        if first[0] == second[0]:
            raise RheostatError(
                f"{one} is a {first[1]} method and {other} a {second[1]} method: no problem has an exact gradient for both, so look at "
                "them in two calls."
            )
        raise RheostatError(f"{one} estimates a {first[0]} and {other} a {second[0]}: look at them in two calls.")
    return next(iter(kinds))
