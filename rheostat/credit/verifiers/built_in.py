"""Rewards by name, from files, and several of them with weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from rheostat import plugins
from rheostat.credit.verifiers.answer_extraction import ExactMatch
from rheostat.credit.verifiers.conventions import FunctionVerifier, name_of
from rheostat.credit.verifiers.isolation import Isolated
from rheostat.credit.verifiers.programs import ProgramTests
from rheostat.credit.verifiers.reward_loading import load_object
from rheostat.credit.verifiers.sandbox.levels import Standing, candidates, standings_of
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier, grades_of, number_of
from rheostat.errors import RheostatError, shown, unknown

BUILT_IN: dict[str, str] = {
    "exact": "the whole completion equals the answer",
    "exact-hash": "what follows the last # equals the answer",
    "exact-tag": "the last <answer>...</answer> equals the answer",
    "exact-boxed": "the last \\boxed{...} equals the answer",
    "exact-last-line": "the last line equals the answer",
    "math": "the final expression equals the answer as mathematics (extra 'math')",
    "similarity": "cosine of completion and reference answer by a packaged sentence encoder (column reference, else the answer)",
    "programs": "the program in the completion passes all tests of the prompt (columns entry_point and tests)",
    "programs-share": "the share of the prompt's tests that it passes",
}
"""Rewards that need no file."""


SAMPLE_SECONDS, BATCH_SECONDS = 30.0, 300.0
"""Time limits where none is given: of a function of one sample, and of a call for a whole batch (a judge may take its time)."""


def load_reward(
    reward: str | Callable[..., Any] | Verifier,
    *,
    isolate: bool = True,
    timeout: float | None = None,
    workers: int = 1,
    alone: bool = False,
    single: bool = False,
    sandbox: str = "best",
    needs: Sequence[str] = (),
) -> Verifier:
    """A verifier from a name (``math``), a file and function (``my_rewards.py:score``), a function, or a verifier.

    Functions may follow TRL's, verl's or Rheostat's convention (see :mod:`rheostat.credit.verifiers.conventions`), plain or async.

    Args:
        reward: the grader. Named ones run in processes of their own; an object given directly runs in this one, without a time limit.
        isolate: False runs named ones in this process too (to debug them, or because they share its memory).
        timeout: seconds a sample, or a call for a whole batch, may take; None: ``SAMPLE_SECONDS`` or ``BATCH_SECONDS``.
        workers: processes for functions of one sample.
        alone: after the call for a whole batch failed, grade every rollout by itself. False by default: a function that compares the
            completions of a batch cannot be recognised, and would then give every completion the same.
        single: never ask for a whole batch, but for one rollout at a time, each with its own time limit.
        sandbox: level of the sandbox of those processes, see :mod:`rheostat.credit.verifiers.sandbox.levels`.
        needs: what a function of the user's opts out of: ``environment``, ``network``, ``files``, ``programs``, ``state``.

    Raises:
        RheostatError: it cannot be found, loaded or called, or no such sandbox holds here; MissingExtra for ``math`` without math-verify.
    """
    if timeout is not None and not 0 < timeout < math.inf:
        raise RheostatError(f"The time limit of a reward is {timeout:g} s: give seconds above 0.")
    candidates(sandbox, needs)  # refuse an impossible pair now
    in_this_process = isinstance(reward, str) and not isolate and not reward.startswith("exact")
    if sandbox not in ("best", "off") and (in_this_process or not (isinstance(reward, (str, Verifier)))):
        raise RheostatError(
            f"A reward that runs in the trainer's process has no sandbox, and --sandbox {sandbox} asks for one: name it as FILE.py:NAME."
        )
    found = _load(reward, isolate, timeout, workers, alone, sandbox, needs)
    return OneByOne(found) if single else found


def _load(reward: Any, isolate: bool, timeout: float | None, workers: int, alone: bool, sandbox: str, needs: Sequence[str]) -> Verifier:
    if not isinstance(reward, str):
        if timeout is not None:
            raise RheostatError(
                f"The reward {name_of(reward)} runs in the trainer's process, without a time limit: name it as FILE.py:NAME."
            )
        ready = isinstance(reward, Verifier) and not isinstance(reward, type)
        return cast(Verifier, reward) if ready else FunctionVerifier(reward, alone=alone)
    if reward == "exact" or reward.startswith("exact-"):
        return ExactMatch(reward.removeprefix("exact").removeprefix("-") or "whole")
    if reward in ("programs", "programs-share"):
        return ProgramTests("share" if reward.endswith("share") else "all", timeout=timeout or 10.0, workers=workers, sandbox=sandbox)
    if reward == "similarity":
        from rheostat.credit.verifiers.encoder_similarity import Similarity

        if timeout is not None:
            raise RheostatError("The reward similarity runs in the trainer's process, without a time limit: leave --reward-timeout out.")
        return Similarity()
    if reward == "math":
        from rheostat.credit.verifiers.mathematics import MathGrader

        grader = f"{MathGrader.__module__}:{MathGrader.__name__}"
        MathGrader()  # raises here, not in another process, that the extra is missing
        if not isolate:
            return FunctionVerifier(MathGrader())
        return Isolated(grader, timeout=timeout or SAMPLE_SECONDS, workers=workers, name="math", sandbox=sandbox)
    if ":" not in reward and reward in plugins.added("rewards"):
        reward = plugins.added("rewards")[reward].value
    if ":" not in reward and not reward.endswith(".py"):
        raise unknown("reward", reward, {*BUILT_IN, *plugins.added("rewards")})
    if not isolate:
        return FunctionVerifier(load_object(reward), alone=alone)
    process = Isolated(reward, timeout=timeout or SAMPLE_SECONDS, workers=workers, alone=alone, sandbox=sandbox, needs=needs)
    if timeout is None and process._workers[0].batched:
        process.timeout = BATCH_SECONDS
    return process


def load_rewards(
    rewards: Sequence[str | Callable[..., Any] | Verifier], weights: Sequence[float] | None = None, **options: Any
) -> Verifier:
    """One verifier for one or several rewards; ``options`` as in :func:`load_reward`.

    Raises:
        RheostatError: none given, or weights that :class:`WeightedSum` refuses.
    """
    if not rewards:
        raise RheostatError("There is no reward: give at least one.")
    if weights is not None:
        weights = _weights(weights, len(rewards))
    verifiers = [load_reward(reward, **options) for reward in rewards]
    return verifiers[0] if len(verifiers) == 1 and weights is None else WeightedSum(verifiers, weights)


class OneByOne:
    """Calls a verifier for one rollout at a time, so that a rollout on which it hangs or raises costs its own row alone.

    Args:
        verifier: what grades.
    """

    def __init__(self, verifier: Verifier) -> None:
        self.verifier, self.name = verifier, verifier.name

    @property
    def notes_answer(self) -> bool:
        """Whether the note ``answer`` of a grade may hold the answer that was found."""
        return getattr(self.verifier, "notes_answer", True)

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order."""
        return Scores.joined([self.verifier.score([rollout], progress) for rollout in rollouts])

    def standings(self) -> list[Standing]:
        """The sandbox level of the verifier."""
        return standings_of(self.verifier)

    def close(self) -> None:
        """Close the verifier, if it has something to close."""
        if hasattr(self.verifier, "close"):
            self.verifier.close()


class WeightedSum:
    """Several verifiers as one: ``reward = sum_i w_i r_i``, the rewards shown as parts.

    As in TRL, a verifier that abstains on a row is left out of the row's sum, and a row on which all abstain is not scored. A verifier
    that *fails* makes the row invalid, unless its weight is 0: then it is only logged.

    Args:
        verifiers: at least one.
        weights: one for each; None: all 1.

    Raises:
        RheostatError: not one weight for each, a weight that is no finite number, or weights that are all 0.
    """

    notes_answer = False
    """Notes carry the names of the single rewards."""

    def __init__(self, verifiers: Sequence[Verifier], weights: Sequence[float] | None = None) -> None:
        self.verifiers = list(verifiers)
        self.weights = _weights([1.0] * len(verifiers) if weights is None else weights, len(verifiers))
        self.name = "+".join(verifier.name for verifier in verifiers)
        self.names = _distinct([verifier.name for verifier in verifiers])

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade with each, in order, and add up."""
        total = [Grade() for _ in rollouts]
        metrics: dict[str, float] = {}
        for verifier, weight, name in zip(self.verifiers, self.weights, self.names, strict=True):
            scores = verifier.score(rollouts, progress)
            metrics |= {f"{name}/{key}": value for key, value in scores.metrics.items()}
            for sum_, grade in zip(total, grades_of(scores), strict=True):
                _add(sum_, grade, weight, name)
        return Scores.from_grades(total, metrics)

    def standings(self) -> list[Standing]:
        """Sandbox levels of the graders that run code in a process of their own, or in this one without a sandbox."""
        return [standing for verifier in self.verifiers for standing in standings_of(verifier)]

    def close(self) -> None:
        """Close the verifiers that have something to close."""
        for verifier in self.verifiers:
            if hasattr(verifier, "close"):
                verifier.close()


def _weights(weights: Sequence[float], count: int) -> list[float]:
    """One finite weight for each reward, not all of them 0."""
    if not count or len(weights) != count:
        raise RheostatError(f"{count} rewards have {len(weights)} weights: give one weight for each reward.")
    found = [number_of(weight) for weight in weights]
    for given, weight in zip(weights, found, strict=True):
        if weight is None or not math.isfinite(weight):
            raise RheostatError(f"The weight {shown(given)} of a reward is not a finite number.")
    if not any(found):
        raise RheostatError("The weights of the rewards are all 0, so that no completion has a reward: weigh at least one of them.")
    return cast("list[float]", found)


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
