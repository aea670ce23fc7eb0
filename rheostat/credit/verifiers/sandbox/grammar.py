"""What a right answer can look like: other text never reaches a grader that evaluates it.

Some graders hand the answer to ``eval`` or to sympy's ``parse_expr``, which is ``eval`` with every builtin in reach. Their right answers
are lists, boards or formulas, and a grammar defines which. Text outside it is a wrong answer, and no code runs to find that out: a regular
expression checks the characters, Python's parser the structure.

A grammar also bounds what the evaluation costs. ``9**9**9`` is arithmetic, so a formula has a *weight*, which grows with the degree and
the digits of its value: 1 for a letter or a short number, the sum of both sides for a product, times the exponent for a power.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

NESTING = 60
"""Brackets within brackets; a limit because Python's parser works on the C stack."""
_SIGNS = re.compile(r"(?:[-+~]\s*){6,}")


@runtime_checkable
class Grammar(Protocol):
    """Decides whether a text is inside, without running any of it."""

    def objection(self, text: str) -> str | None:
        """Why the text is outside the grammar, in a few words; None where it is inside."""
        ...


@dataclass(frozen=True)
class Literals:
    """Nested lists of whole numbers and short strings, or plain text of the same characters: boards, matrices, words."""

    plain: str
    """Regular expression that the whole text matches where it is no list; such text is no Python, or a lone name or number."""
    numbers: bool = False
    """Lists may hold whole numbers."""
    strings: str | None = None
    """Regular expression that every string in a list matches; None allows no strings."""
    longest: int = 40_000
    """Characters."""

    def objection(self, text: str) -> str | None:
        """Why a completion is refused, as the end of a sentence; None where it is not."""
        text = text.strip()
        if len(text) > self.longest:
            return f"longer than {self.longest} characters"
        if _too_deep(text):
            return "nested too deeply"
        if re.fullmatch(self.plain, text, re.ASCII):
            return None
        tree = _parsed(text)
        return None if tree is not None and self._literal(tree) else "neither plain nor a list of what belongs there"

    def _literal(self, node: ast.expr) -> bool:
        match node:
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return all(self._literal(item) for item in items)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)) | ast.Constant(value=value) if type(value) is int:
                return self.numbers
            case ast.Constant(value=str(value)):
                return self.strings is not None and re.fullmatch(self.strings, value, re.ASCII) is not None
        return False


@dataclass(frozen=True)
class Formula:
    """Numbers, brackets, ``+ - * /`` and, where declared, letters, powers and functions of one argument."""

    letters: str = ""
    """The letters that may stand alone (variables and constants)."""
    functions: frozenset[str] = field(default_factory=frozenset)
    """Functions of one argument."""
    powers: int = 0
    """Largest numerator and denominator of an exponent; 0 allows no powers. A base ``E`` takes any exponent, as ``exp`` does."""
    digits: int = 30
    """Longest number."""
    weight: int = 400
    """Largest weight (see the module's text)."""
    longest: int = 2000
    """Characters."""

    def objection(self, text: str) -> str | None:
        """Why a completion is refused, as the end of a sentence; None where it is not."""
        text = text.strip()
        if len(text) > self.longest:
            return f"longer than {self.longest} characters"
        if not re.fullmatch(r"[0-9A-Za-z +\-*/().]+", text):
            return "characters that no formula here has"
        if re.search(rf"[0-9.]{{{self.digits + 2}}}", text):
            return f"a number of more than {self.digits} digits"
        if re.search(r"[0-9.][A-Za-z]", text):  # 1e9999 is short and huge; 3j and 0x1f are no decimal numbers
            return "a letter right after a digit"
        if _too_deep(text):
            return "nested too deeply"
        tree = _parsed(text)
        if tree is None:
            return "no formula"
        try:
            return None if self._weigh(tree) <= self.weight else "too large"
        except _Outside as outside:
            return str(outside)
        except RecursionError:
            return "nested too deeply"

    def _weigh(self, node: ast.expr) -> int:
        weight = 0
        while isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div)):  # sums are deep on their left
            right = self._weigh(node.right)
            weight = max(weight, right) if isinstance(node.op, (ast.Add, ast.Sub)) else weight + right
            node = node.left
        return weight + self._weigh_operand(node)

    def _weigh_operand(self, node: ast.expr) -> int:
        match node:
            case ast.Constant(value=value) if type(value) in (int, float):
                return max(1, len(str(value)) // 8)
            case ast.Name(id=name) if name in self.letters and len(name) == 1:
                return 1
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return self._weigh(operand)
            case ast.BinOp(left=ast.Name(id="E"), op=ast.Pow(), right=right) if self.powers and "E" in self.letters:
                return self._weigh(right)
            case ast.BinOp(left=left, op=ast.Pow(), right=right) if self.powers:
                return self._weigh(left) * self._exponent(right)
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
                return self._weigh(node)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in self.functions:
                return self._weigh(argument)
        raise _Outside(f"{_kind(node)} is not part of a right answer")

    def _exponent(self, node: ast.expr) -> int:
        """The exponent's size, at least 1: a number or a fraction of two, signed."""
        match node:
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
                return self._exponent(operand)
            case ast.BinOp(left=above, op=ast.Div(), right=below):
                self._exponent(below)
                return self._exponent(above)
            case ast.Constant(value=int(value) | float(value)) if value is not True and value is not False and abs(value) <= self.powers:
                return max(1, round(abs(value)))
        raise _Outside(f"an exponent is a number up to {self.powers}")


class _Outside(Exception):
    """Something that no right answer has; the text names it."""


def _kind(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return f"the name {name:.20}"
        case ast.Call(func=ast.Name(id=name)):
            return f"the function {name:.20}"
    return f"a Python {type(node).__name__}"


def _too_deep(text: str) -> bool:
    if _SIGNS.search(text):
        return True
    depth = 0
    for character in text:
        if character in "([{":
            depth += 1
            if depth > NESTING:
                return True
        elif character in ")]}":
            depth -= 1
    return False


def _parsed(text: str) -> ast.expr | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # the parser warns of 1or 2
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
