"""Grammars of right answers in the data sets of reasoning-gym whose grader evaluates them.

Five of the nine score it with ``eval``, four with sympy's ``parse_expr``; the others read it with ``float``, ``json.loads`` or a parser of
their own. :func:`evaluations` finds those of later versions; without a grammar they are refused.

Formulas list the functions of the answers. ``Integral`` is not among them: reasoning-gym accepts ``Integral(question, x)``, whose
derivative is the question, as the solution of an integral, and writes it as the reference answer where sympy finds no other.
"""

from __future__ import annotations

from typing import Any

from rheostat.credit.verifiers.sandbox.grammar import Formula, Grammar, Literals
from rheostat.credit.verifiers.sandbox.inspection import evaluations
from rheostat.errors import RheostatError

_ELEMENTARY = frozenset(
    {"exp", "log", "ln", "sqrt", "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "acot", "asec", "acsc"}
    | {"sinh", "cosh", "tanh", "asinh", "acosh", "atanh"}
)
_ABC = "abcdefghijklmnopqrstuvwxyz"

GRAMMARS: dict[str, Grammar] = {
    "spiral_matrix": Literals(r"[0-9\s-]*", numbers=True),
    "binary_matrix": Literals(r"[0-9\s]*", numbers=True),
    "n_queens": Literals(r"[Q_\s]*", strings=r"[Q_]?"),
    "string_insertion": Literals(r"[A-Z]*", strings=r"[A-Z]{0,40}"),
    "puzzle24": Formula(),
    "countdown": Formula(),
    "polynomial_multiplication": Formula(letters=_ABC, powers=400, digits=200, weight=2000, longest=20_000),
    "simple_integration": Formula(letters=_ABC + "XYCE", functions=_ELEMENTARY, powers=40),
    "intermediate_integration": Formula(letters=_ABC + "XYCE", functions=_ELEMENTARY, powers=40),
}


def grammar_of(name: str, cls: Any) -> Grammar | None:
    """The grammar of a data set; None where its grader evaluates nothing.

    Args:
        name: of the data set.
        cls: its class.

    Raises:
        RheostatError: the grader evaluates the answer and there is no grammar.
    """
    if name in GRAMMARS:
        return GRAMMARS[name]
    found = evaluations(cls.score_answer, trusted=("entry",), owner=cls)
    if found:
        raise RheostatError(
            f"The grader of the reasoning-gym data set {name} runs what the model writes ({', '.join(found)}), and no grammar says what a "
            "right answer looks like: choose another data set, or grade its prompts with a reward function of your own."
        )
    return None
