"""What a world of preferences is for the learner, and its names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rheostat.errors import unknown
from rheostat.policies.answers import AnswerPolicy

Measured = dict[str, float]


@dataclass(frozen=True)
class Answers:
    """Answers to prompts, with what they are paid."""

    prompt: Tensor
    """``[S, ...]``."""
    answer: Tensor
    """int64 ``[S, N, L]``."""
    reward: Tensor
    """``[S, N]``; where only preferences are known, a number whose order within a prompt is theirs."""


class PreferenceProblem(Protocol):
    """A world.

    Attributes:
        name: of the task.
        length: tokens L of an answer.
    """

    name: str
    length: int

    @property
    def reference(self) -> AnswerPolicy:
        """The frozen policy that losses compare with."""
        ...

    def start(self) -> Any:
        """A new copy of the policy that training begins with, a module."""
        ...

    def prompts(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` training prompts; a world with a fixed list of them gives its first ones.

        Raises:
            RheostatError: there are not so many.
        """
        ...

    def reward(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """What training is told of answers, ``[S, N]``."""
        ...

    def offline(self, turn: int, count: int, samples: int) -> Answers:
        """A batch that the policy has no part in: the ``turn``-th of the data, which is the same whenever it is asked for.

        Raises:
            RheostatError: the data have no answers in such numbers.
        """
        ...

    def measure(self, policy: Any, generator: torch.Generator) -> Measured:
        """The policy on held-out prompts, by the gold reward."""
        ...


def make_problem(name: str, seed: int) -> PreferenceProblem:
    """A world by its name.

    Args:
        name: of :data:`PROBLEMS`.
        seed: of everything that the world draws.

    Raises:
        RheostatError: an unknown name.
    """
    if name not in PROBLEMS:
        raise unknown("task of preferences", name, PROBLEMS)
    return PROBLEMS[name](seed)


def _bandit(name: str) -> Callable[[int], PreferenceProblem]:
    def make(seed: int) -> PreferenceProblem:
        from rheostat.tasks.preferences.didactic import DidacticBandit

        return DidacticBandit(name, seed)

    return make


def _sequence(name: str) -> Callable[[int], PreferenceProblem]:
    def make(seed: int) -> PreferenceProblem:
        from rheostat.tasks.preferences.didactic import SequenceBandit

        return SequenceBandit(name, seed)

    return make


def _game(seed: int) -> PreferenceProblem:
    from rheostat.tasks.preferences.game import PreferenceGame

    return PreferenceGame.of(seed)


def _tiny_game(seed: int) -> PreferenceProblem:
    from rheostat.tasks.preferences.game import TINY, PreferenceGame

    return PreferenceGame.of(seed, TINY)


PROBLEMS: dict[str, Callable[[int], PreferenceProblem]] = {
    **{name: _bandit(name) for name in ("bandit-away", "bandit-aligned", "bandit-away-wide", "bandit-aligned-wide")},
    **{name: _sequence(name) for name in ("sequence-away", "sequence-aligned")},
    "preference-game": _game,
    "preference-game-tiny": _tiny_game,
}
"""From the name of a world and a seed to the world."""
