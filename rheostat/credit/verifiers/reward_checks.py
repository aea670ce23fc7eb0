"""Checks before training: can some completion of these prompts earn a reward?

A reward that can never match its own reference gives every completion the same 0 and training does nothing, in silence; a function that
asks for a column that is not there fails at its first call. Both are found by checking every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rheostat.credit.verifiers.answer_extraction import ExactMatch, accepted_answers, unusable
from rheostat.credit.verifiers.built_in import OneByOne, WeightedSum
from rheostat.credit.verifiers.conventions import _TRL_GIVEN
from rheostat.credit.verifiers.isolation import Isolated
from rheostat.credit.verifiers.reward_loading import arguments_of
from rheostat.credit.verifiers.verifier_interface import Rollout, Verifier
from rheostat.errors import RheostatError

MOST_MATH = 256
"""Different references that are tried as mathematics, which takes milliseconds each."""

Rows = Sequence[tuple[str, Rollout]]
"""Every row with its place; its completion is not read."""


def check_references(verifier: Verifier, rows: Rows) -> None:
    """Refuse rows whose own reference the built-in rewards would not grade as right.

    The user's own rewards are not checked: only they define what is compared. A reward of weight 0 is only logged. A grader that cannot
    do without something says so itself (``require``).

    Raises:
        RheostatError: naming the first such row, how many there are, and what its reference is.
    """
    for each, weight in _parts(verifier):
        if hasattr(each, "require"):
            each.require(rows)
        elif isinstance(each, ExactMatch) and weight:
            _refuse([(where, rollout.answer) for where, rollout in rows if not _matches(each, rollout.answer)], len(rows), "exact match")
        elif isinstance(each, Isolated) and each.name == "math" and weight:
            _refuse(_no_mathematics(each, rows), len(rows), "reward 'math'")


def check_columns(rewards: Sequence[str | Callable[..., Any] | Verifier], rows: Rows) -> None:
    """Refuse rows that lack a column a reward function cannot do without.

    Raises:
        RheostatError: naming the function, the column and the first such row.
    """
    for reward in rewards:
        found = arguments_of(reward)
        if found is None or "completions" not in found[0]:
            continue  # functions of the other conventions get the same arguments whatever the columns
        for column in (name for name in found[1] if name not in _TRL_GIVEN):
            lacking = [
                where
                for where, rollout in rows
                if column not in rollout.columns and not (column == "answer" and rollout.answer is not None)
            ]
            if lacking:
                name = reward.rpartition(":")[2] if isinstance(reward, str) else getattr(reward, "__name__", "the reward function")
                held = ", ".join(sorted({name for _, rollout in rows for name in rollout.columns})) or "none"
                more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
                raise RheostatError(
                    f"The reward function {name!r} asks for {column!r}, which {lacking[0]}{more} does not have (columns of the prompts: "
                    f"{held}): add the column, with null where a row has no value, or drop the argument."
                )


def _parts(verifier: Verifier, weight: float = 1.0) -> Iterator[tuple[Any, float]]:
    if isinstance(verifier, WeightedSum):
        for each, part in zip(verifier.verifiers, verifier.weights, strict=True):
            yield from _parts(each, weight * part)
    elif isinstance(verifier, OneByOne):
        yield from _parts(verifier.verifier, weight)
    else:
        yield verifier, weight


def _matches(verifier: ExactMatch, answer: Any) -> bool:
    if unusable(answer):
        return False
    rollouts = [Rollout("", verifier.completion(each), (), answer) for each in accepted_answers(answer)]
    return bool((verifier.score(rollouts).reward == 1).any())


def _no_mathematics(verifier: Isolated, rows: Rows) -> list[tuple[str, Any]]:
    lost = [(where, rollout.answer) for where, rollout in rows if unusable(rollout.answer)]
    if lost:
        return lost
    firsts: dict[str, tuple[str, Any]] = {}
    for where, rollout in rows:
        firsts.setdefault(repr(rollout.answer), (where, rollout.answer))
    tried = list(firsts.values())[:: max(1, len(firsts) // MOST_MATH)]
    texts = [str(accepted_answers(answer)[0]).rpartition("####")[2].strip() for _, answer in tried]
    shown = [text if "$" in text or r"\boxed" in text else rf"\boxed{{{text}}}" for text in texts]
    scores = verifier.score([Rollout("", text, (), answer) for text, (_, answer) in zip(shown, tried, strict=True)])
    return [pair for pair, reward in zip(tried, scores.reward.tolist(), strict=True) if reward != 1]


def _refuse(lost: list[tuple[str, Any]], count: int, grader: str) -> None:
    if not lost:
        return
    where, answer = lost[0]
    why = unusable(answer) or "itself would not be graded as right"
    raise RheostatError(
        f"No completion can ever be right for {len(lost)} of {count} prompts: the reference answer of {where} ({answer!r:.60}) {why} "
        f"({grader}). Name the answer column, mend these rows, or choose another reward."
    )
