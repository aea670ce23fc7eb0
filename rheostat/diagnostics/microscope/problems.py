"""Problems small enough to list every outcome.

| problem | domain | outcomes | policy |
|---|---|---|---|
| tiny-words | language | every completion of four prompts over the letters a, b, c and the end | a transformer with 1,600 parameters |
| gridworld | control | every action sequence in a 3 x 3 grid, the step's number being part of the state | one logit per state and action |
| two-step | control | the four ways through PROPS' toy | one logit per state and action |
"""

from __future__ import annotations

from collections.abc import Callable

from rheostat.diagnostics.microscope.control_problem import ControlProblem, unrolled
from rheostat.diagnostics.microscope.exact import Problem
from rheostat.diagnostics.microscope.language_problem import LanguageProblem, TinyWords
from rheostat.errors import RheostatError, unknown
from rheostat.tasks.control.gridworld import grid_world
from rheostat.tasks.control.two_step import two_step


def _tiny_words(length: int) -> Problem:
    if length < 0 or length == 1:
        raise RheostatError(f"tiny-words needs completions of at least 2 tokens, not {length}.")
    length = length or 4
    return LanguageProblem(TinyWords(length), length, seed=3, step=0.05)


def _gridworld(length: int) -> Problem:
    if length < 0:
        raise RheostatError(f"gridworld needs episodes of at least 1 step, not {length}.")
    return ControlProblem("gridworld", unrolled(grid_world(3, limit=length or 5)), step=1.0)


def _two_step(length: int) -> Problem:
    if length not in (0, 2):
        raise RheostatError(f"Episodes of two-step have 2 steps, not {length}: leave --length out, or take gridworld.")
    return ControlProblem("two-step", two_step(), step=1.0)


PROBLEMS: dict[str, Callable[[int], Problem]] = {"tiny-words": _tiny_words, "gridworld": _gridworld, "two-step": _two_step}
DEFAULT_PROBLEM = {"language": "tiny-words", "control": "gridworld"}


def build_problem(name: str, *, length: int = 0) -> Problem:
    """A problem by name; its policy's parameters are always the same.

    Args:
        name: of :data:`PROBLEMS`.
        length: tokens of a completion or steps of an episode; 0 takes the problem's own (4 and 5).

    Raises:
        RheostatError: unknown, too large, or of a length it cannot have.
    """
    if name not in PROBLEMS:
        raise unknown("problem", name, PROBLEMS)
    return PROBLEMS[name](length)
