"""Rewards by name, from files, and several of them with weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from rheostat.credit.verifiers.answers import ExactMatch
from rheostat.credit.verifiers.conventions import FunctionVerifier
from rheostat.credit.verifiers.interface import Grade, Progress, Rollout, Scores, Verifier, grades_of
from rheostat.credit.verifiers.isolation import Isolated
from rheostat.credit.verifiers.loading import load_object
from rheostat.credit.verifiers.programs import ProgramTests
from rheostat.credit.verifiers.sandbox.levels import Standing, candidates, standings_of
from rheostat.errors import RheostatError, unknown

BUILT_IN: dict[str, str] = {
    "exact": "the whole completion equals the answer",
    "exact-hash": "what follows the last # equals the answer",
    "exact-tag": "the last <answer>...</answer> equals the answer",
    "exact-boxed": "the last \\boxed{...} equals the answer",
    "exact-last-line": "the last line equals the answer",
    "math": "the final expression equals the answer as mathematics (extra 'math')",
    "programs": "the program in the completion passes all tests of the prompt (columns entry_point and tests)",
    "programs-share": "the share of the prompt's tests that it passes",
}
"""Rewards that need no file."""


def load_reward(
    reward: str | Callable[..., Any] | Verifier,
    *,
    isolate: bool = True,
    timeout: float = 30.0,
    workers: int = 1,
    alone: bool = True,
    sandbox: str = "best",
    needs: Sequence[str] = (),
) -> Verifier:
    """A verifier from a name (``math``), a file and function (``my_rewards.py:score``), a function, or a verifier.

    Functions may follow TRL's, verl's or our convention (see :mod:`rheostat.credit.verifiers.conventions`), plain or async.

    Args:
        reward: what grades. Named ones run in processes of their own; an object given directly runs in this one, without a time limit.
        isolate: False runs named ones in this process too (to debug them, or because they share its memory).
        timeout: seconds a sample, or a call for a whole batch, may take.
        workers: processes for functions of one sample.
        alone: after the call for a whole batch failed, grade every rollout by itself; False for functions that compare completions.
        sandbox: how strong the walls around those processes are, see :mod:`rheostat.credit.verifiers.sandbox.levels`.
        needs: what a function of the user's opts out of: ``environment``, ``network``, ``files``, ``programs``, ``state``.

    Raises:
        RheostatError: it cannot be found, loaded or called, or no such sandbox holds here; MissingExtra for ``math`` without math-verify.
    """
    candidates(sandbox, needs)  # refuse an impossible pair now
    in_this_process = isinstance(reward, str) and not isolate and not reward.startswith("exact")
    if sandbox not in ("best", "off") and (in_this_process or not (isinstance(reward, (str, Verifier)))):
        raise RheostatError(
            f"A reward that runs in the trainer's process has no sandbox, and --sandbox {sandbox} asks for one: name it as FILE.py:NAME."
        )
    if not isinstance(reward, str):
        ready = isinstance(reward, Verifier) and not isinstance(reward, type)
        return cast(Verifier, reward) if ready else FunctionVerifier(reward, alone=alone)
    if reward == "exact" or reward.startswith("exact-"):
        return ExactMatch(reward.removeprefix("exact").removeprefix("-") or "whole")
    if reward in ("programs", "programs-share"):
        return ProgramTests("share" if reward.endswith("share") else "all", timeout=min(timeout, 10.0), workers=workers, sandbox=sandbox)
    if reward == "math":
        from rheostat.credit.verifiers.mathematics import MathGrader

        grader = f"{MathGrader.__module__}:{MathGrader.__name__}"
        MathGrader()  # says here, not in another process, that the extra is missing
        if not isolate:
            return FunctionVerifier(MathGrader())
        return Isolated(grader, timeout=timeout, workers=workers, name="math", sandbox=sandbox)
    if ":" not in reward and not reward.endswith(".py"):
        raise unknown("reward", reward, BUILT_IN)
    if isolate:
        return Isolated(reward, timeout=timeout, workers=workers, alone=alone, sandbox=sandbox, needs=needs)
    return FunctionVerifier(load_object(reward), alone=alone)


def load_rewards(
    rewards: Sequence[str | Callable[..., Any] | Verifier], weights: Sequence[float] | None = None, **options: Any
) -> Verifier:
    """One verifier for one or several rewards; ``options`` as in :func:`load_reward`.

    Raises:
        RheostatError: none given, or not one weight for each.
    """
    if not rewards:
        raise RheostatError("There is no reward: give at least one.")
    verifiers = [load_reward(reward, **options) for reward in rewards]
    return verifiers[0] if len(verifiers) == 1 and weights is None else WeightedSum(verifiers, weights)


class WeightedSum:
    """Several verifiers as one: ``reward = sum_i w_i r_i``, the rewards shown as parts.

    As in TRL, a verifier that abstains on a row is left out of the row's sum, and a row on which all abstain is not scored. A verifier
    that *fails* makes the row invalid, unless its weight is 0: then it is only watched.

    Args:
        verifiers: at least one.
        weights: one for each; None: all 1.

    Raises:
        RheostatError: not one weight for each.
    """

    def __init__(self, verifiers: Sequence[Verifier], weights: Sequence[float] | None = None) -> None:
        weights = [1.0] * len(verifiers) if weights is None else [float(weight) for weight in weights]
        if not verifiers or len(weights) != len(verifiers):
            raise RheostatError(f"{len(verifiers)} rewards have {len(weights)} weights: give one weight for each reward.")
        self.verifiers, self.weights = list(verifiers), weights
        self.name = "+".join(verifier.name for verifier in verifiers)
        self._names = _distinct([verifier.name for verifier in verifiers])

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade with each, in order, and add up."""
        total = [Grade() for _ in rollouts]
        metrics: dict[str, float] = {}
        for verifier, weight, name in zip(self.verifiers, self.weights, self._names, strict=True):
            scores = verifier.score(rollouts, progress)
            metrics |= {f"{name}/{key}": value for key, value in scores.metrics.items()}
            for sum_, grade in zip(total, grades_of(scores), strict=True):
                _add(sum_, grade, weight, name)
        return Scores.from_grades(total, metrics)

    def standings(self) -> list[Standing]:
        """Where the graders stand that run something in a process of their own, or in this one without a sandbox."""
        return [standing for verifier in self.verifiers for standing in standings_of(verifier)]

    def close(self) -> None:
        """Close the verifiers that have something to close."""
        for verifier in self.verifiers:
            if hasattr(verifier, "close"):
                verifier.close()


def _add(total: Grade, grade: Grade, weight: float, name: str) -> None:
    if grade.reward is not None:
        total.parts[name] = grade.reward
        if weight:
            total.reward = (total.reward or 0.0) + weight * grade.reward
    total.parts |= {f"{name}/{key}": value for key, value in grade.parts.items()}
    total.notes |= {f"{name}/{key}": value for key, value in grade.notes.items()}
    total.failed |= grade.failed and weight != 0
    if grade.message:
        total.message = "; ".join(filter(None, (total.message, f"{name}: {grade.message}")))


def _distinct(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return result
