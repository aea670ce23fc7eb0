"""Grammars admit right answers and nothing that could do more than that; the inspection finds graders that run text."""

from __future__ import annotations

import ast
import builtins
import math
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.credit.verifiers import Rollout, Scores
from rheostat.credit.verifiers.sandbox.grammar import Formula, Literals
from rheostat.credit.verifiers.sandbox.guard import Guarded
from rheostat.credit.verifiers.sandbox.inspection import evaluations
from rheostat.credit.verifiers.verifier_interface import Grade

BOARD = Literals(r"[Q_\s]*", strings=r"[Q_]?")
MATRIX = Literals(r"[0-9\s-]*", numbers=True)
SUMS = Formula()
CALCULUS = Formula(letters="abcxyzCE", functions=frozenset({"sin", "exp", "sqrt", "log"}), powers=40)

HOSTILE = [
    "__import__('os').system('true')",
    "().__class__.__base__.__subclasses__()",
    "open('/etc/passwd').read()",
    "[x for x in range(9)]",
    "(lambda: 1)()",
    "exec('1')",
    "x.__class__",
    "sin.__globals__",
    "[1][0]",
    "{1: 2}",
    "f'{1}'",
    "1 if 1 else 2",
    "x = 1",
    "x := 1",
    "1; 2",
    "1\n2",
    "sin(x, x)",
    "sin(x)(x)",
    "Integral(x, x)",
    "Symbol(x)",
    "sin(*x)",
    "sin(x=1)",
    "9**9**9",
    "9**99999",
    "(9**40)**40",
    "((x+1)**40)**40",
    "1e999",
    "9" * 500,
    "(" * 300 + "1" + ")" * 300,
    "-" * 300 + "1",
    "1+" * 5000 + "1",
    "x" * 3000,
    "1_0",
    "0x10",
    "3j",
    "…",
    "\N{MATHEMATICAL ITALIC SMALL E}xec(1)",
    "\x00",
    "x # y",
    "yield",
    "await x",
    "*x",
    "x@y",
    "x%y",
    "x//y",
    "1<<9",
    "~1",
    "not x",
    "x and y",
    "x<y",
    "...",
    "None",
    "True",
    "'a'",
    "b'a'",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("grammar", [CALCULUS, SUMS], ids=["calculus", "sums"])
def test_formulas_admit_nothing_else(grammar, text):
    assert grammar.objection(text)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text not in ("1_0", "0x10") and not re.fullmatch(r"[0-9\s-]*", text)])
def test_literals_admit_nothing_else(text):
    assert MATRIX.objection(text) and BOARD.objection(text)


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        (MATRIX, "1 2 3"),
        (MATRIX, "1 2\n3 4"),
        (MATRIX, "[[1, 2], (3, -4)]"),
        (MATRIX, ""),
        (BOARD, "_ Q\nQ _"),
        (BOARD, "[['_', 'Q'], ['Q', '_']]"),
        (SUMS, "(8 - 5) * 10 - 6"),
        (SUMS, " -1.5 / (2 + 2) "),
        (CALCULUS, "-4*(-2*x - 8)**(3/2)/3 + C"),
        (CALCULUS, "E**(2*x) + exp(x)*sin(3*x) + x**-2 + sqrt(x**2 + 1)"),
    ],
)
def test_right_answers_pass(grammar, text):
    assert grammar.objection(text) is None


def test_each_declaration_matters():
    assert SUMS.objection("x") and SUMS.objection("2**2") and SUMS.objection("sin(1)")
    assert "the function tan" in (CALCULUS.objection("tan(x)") or "")
    assert MATRIX.objection("['Q']") and BOARD.objection("[1]")
    assert "up to 40" in (CALCULUS.objection("x**41") or "")
    assert "too large" in (CALCULUS.objection("*".join(["x**40"] * 11)) or "")
    assert "30 digits" in (SUMS.objection("1" * 32) or "")


letters = st.sampled_from(["x", "y", "1", "27", "3.5"])
formulas = st.recursive(
    letters,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("sin({})".format, inner),
        st.builds("({})**{}".format, inner, st.integers(1, 3)),
    ),
    max_leaves=8,
)


@given(formulas)
def test_what_the_generator_of_formulas_writes_is_admitted(text):
    assert CALCULUS.objection(text) in (None, "too large")


@settings(max_examples=300)
@given(st.text(alphabet="x19 +-*/().eE_[],'sinQ\n", max_size=30))
def test_what_is_admitted_is_finite_and_calls_only_declared_functions(text):
    if CALCULUS.objection(text) is None:
        tree = ast.parse(text.strip(), mode="eval")
        assert {type(node) for node in ast.walk(tree)}.isdisjoint({ast.Attribute, ast.Subscript, ast.Lambda, ast.Compare, ast.ListComp})
        called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert called <= CALCULUS.functions
    if MATRIX.objection(text) is None and "[" in text:
        assert isinstance(ast.literal_eval(text.strip()), (list, tuple))


def test_looking_is_cheap():
    answer = "-4*(-2*x - 8)**(3/2)/3 + exp(x)*sin(x) + C"
    began = time.perf_counter()
    for _ in range(200):
        CALCULUS.objection(answer)
    assert (time.perf_counter() - began) / 200 < 0.003


class Recording:
    """A verifier that remembers what reached it."""

    name = "recording"

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.closed = False

    def score(self, rollouts: Any, progress: Any = None) -> Scores:
        self.seen += [rollout.completion for rollout in rollouts]
        return Scores.from_grades([Grade(1.0, {"mark": 1.0}) for _ in rollouts], {"graded": len(rollouts)})

    def close(self) -> None:
        self.closed = True


def test_refused_answers_do_not_reach_the_verifier():
    inner = Recording()
    guarded = Guarded(inner, SUMS, lambda text: None if text == "nothing" else text)
    scores = guarded.score([Rollout("p", text) for text in ("1+1", "open('x')", "2", "nothing")])
    assert inner.seen == ["1+1", "2", "nothing"]
    assert scores.reward.tolist() == [1.0, 0.0, 1.0, 1.0] and scores.valid.all()
    assert "characters" in scores.notes["refused"][1] and scores.notes["answer"][1] == "open('x')"
    assert guarded.score([Rollout("p", "open('x')")]).reward.tolist() == [0.0] and len(inner.seen) == 3
    guarded.close()
    assert inner.closed


# --- the inspection: functions that run text, and functions that do not ----------------------------------------------------------------


def direct(text, entry):
    return eval(text)


def by_variable(text, entry):
    _, rest = text.split("=")
    value = rest.strip()
    return [compile(piece, "x", "eval") for piece in value.split()]


def by_loop(texts, entry):
    for text in texts:
        exec(text)


def by_helper(text, entry):
    return _helper(1, expression=text)


def _helper(number, expression):
    return _deeper(expression, number)


def _deeper(first, second):
    return builtins.eval(first)


def by_map(text, entry):
    return list(map(eval, text))


def by_local_import(text, entry):
    from subprocess import run as start

    return start(text)


def own_text(text, entry):
    return float(text) == eval(entry["answer"])


def number(text, entry):
    return math.isclose(float(text), entry["answer"]) and re.compile(text) is not None


def helper_with_own_text(text, entry):
    return _helper(text, entry["answer"])


@pytest.mark.parametrize("function", [direct, by_variable, by_loop, by_helper, by_map, by_local_import])
def test_graders_that_run_text_are_found(function: Callable[..., Any]):
    assert evaluations(function, trusted=("entry",))


@pytest.mark.parametrize("function", [own_text, number, helper_with_own_text])
def test_graders_that_do_not_are_not(function: Callable[..., Any]):
    assert evaluations(function, trusted=("entry",)) == []


def test_methods_and_functions_without_source():
    class Scorer:
        def score(self, text, entry):
            return self._read(text)

        def _read(self, text):
            return eval(text)

    assert evaluations(Scorer.score, trusted=("entry",), owner=Scorer) == ["eval"]
    made: dict[str, Any] = {}
    exec("def unseen(text): return 1", made)
    assert "without source" in evaluations(made["unseen"])[0]
