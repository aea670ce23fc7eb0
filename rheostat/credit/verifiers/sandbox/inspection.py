"""Whether a grader evaluates the text it is given, decided from its source.

The walk follows the grader's text parameters. A parameter is *tainted* when it holds what the model wrote; a variable is, when it is
assigned from something that mentions a tainted name; and a call of a function or method whose source belongs to the same package is
followed with the parameters that received tainted arguments. A finding is a call with a tainted argument of something that runs text:
``eval``, ``exec``, ``compile``, ``__import__``, anything of the packages below. sympy is among them as a whole, because its functions turn
text arguments into formulas by evaluating them. ``eval(entry["answer"])`` is no finding: that text is the task's own.
What cannot be read (no source) counts as evaluating.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

RUNNING_BUILTINS = frozenset({"eval", "exec", "compile", "__import__"})
RUNNING_PACKAGES = frozenset(
    {"sympy", "os", "posix", "subprocess", "importlib", "runpy", "code", "codeop", "ctypes", "pickle", "_pickle", "marshal", "shelve"}
    | {"dill", "cloudpickle", "joblib", "numexpr", "asteval", "pandas", "yaml", "jinja2"}
)


def evaluations(function: Callable[..., Any], trusted: Iterable[str] = (), owner: type | None = None) -> list[str]:
    """The calls by which a grader runs text that it is given, such as ``eval`` or ``sympy.parse_expr``; empty where it runs none.

    Args:
        function: the grader, a function or method.
        trusted: names of its parameters that hold no text of the model.
        owner: the class whose methods ``self`` has, for a method.
    """
    found: dict[str, None] = {}
    seen: set[tuple[Any, frozenset[str]]] = set()
    function = inspect.unwrap(function)
    waiting = [(function, frozenset(_parameters(function)) - {"self", "cls", *trusted})]
    package = (getattr(function, "__module__", "") or "").partition(".")[0]
    while waiting:
        current, tainted = waiting.pop()
        if (current, tainted) in seen or not tainted:
            continue
        seen.add((current, tainted))
        tree = _source(current)
        if tree is None:
            found[f"{_name(current)} (without source)"] = None
            continue
        names = _spread(tree, set(tainted))
        known = getattr(current, "__globals__", {}) | _imported(tree)
        called = set()
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called.add(call.func)
            arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
            if not any(_mentions(argument, names) for argument in arguments):
                continue
            target = _resolve(call.func, known, owner)
            if runner := _runner(target):
                found[runner] = None
            elif target is not None and _package(target) == package:
                target = target.__init__ if inspect.isclass(target) else inspect.unwrap(target)
                if inspect.isfunction(target) or inspect.ismethod(target):
                    waiting.append((target, _passed(call, target, names)))
        for node in ast.walk(tree):  # passed on without a call: map(eval, answers), run = eval
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node not in called and node.id in RUNNING_BUILTINS:
                found[node.id] = None
    return list(found)


def _runner(target: Any) -> str | None:
    """The name under which a call of this is reported; None where it runs no text."""
    if _package(target) == "builtins":
        return _name(target) if _name(target) in RUNNING_BUILTINS else None
    return f"{_package(target)}.{_name(target)}" if _package(target) in RUNNING_PACKAGES else None


def _package(target: Any) -> str:
    return str(getattr(target, "__module__", None) or "").partition(".")[0]


def _imported(tree: ast.AST) -> dict[str, Any]:
    """What the function imports itself."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        with contextlib.suppress(ImportError, AttributeError):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    module = importlib.import_module(alias.name)
                    found[alias.asname or alias.name.partition(".")[0]] = (
                        module if alias.asname else sys.modules[alias.name.partition(".")[0]]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    found[alias.asname or alias.name] = getattr(importlib.import_module(node.module), alias.name)
    return found


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return ["text"]


def _source(function: Callable[..., Any]) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return None


def _spread(tree: ast.AST, names: set[str]) -> set[str]:
    """The tainted names, with every variable that is assigned from them."""
    while True:
        grown = {
            name
            for targets, value in _assignments(tree)
            if _mentions(value, names)
            for target in targets
            for name in _names(target)
        }  # fmt: skip
        if grown <= names:
            return names
        names = names | grown


def _assignments(tree: ast.AST) -> Iterator[tuple[list[ast.expr], ast.expr]]:
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets, value=value):
                yield targets, value
            case ast.AnnAssign(target=target, value=value) | ast.AugAssign(target=target, value=value) if value is not None:
                yield [target], value
            case ast.NamedExpr(target=target, value=value):
                yield [target], value
            case (
                ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value) | ast.comprehension(target=target, iter=value)
            ):
                yield [target], value
            case ast.withitem(context_expr=value, optional_vars=target) if target is not None:
                yield [target], value


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return bool(_names(node) & names)


def _resolve(node: ast.expr, known: Mapping[str, Any], owner: type | None) -> Any:
    """The object that is called; None where only running the code would tell (a method of a value)."""
    match node:
        case ast.Name(id=name):
            return known.get(name, getattr(builtins, name, None))
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if owner is not None:
            return getattr(owner, name, None)
        case ast.Attribute(value=value, attr=name):
            holder = _resolve(value, known, owner)
            return None if holder is None else getattr(holder, name, None)
    return None


def _passed(call: ast.Call, target: Callable[..., Any], names: set[str]) -> frozenset[str]:
    """The parameters of the callee that receive something tainted."""
    parameters = [name for name in _parameters(target) if name not in ("self", "cls")]
    tainted = {name for name, argument in zip(parameters, call.args, strict=False) if _mentions(argument, names)}
    tainted |= {keyword.arg for keyword in call.keywords if keyword.arg and _mentions(keyword.value, names)}
    spread = any(isinstance(argument, ast.Starred) for argument in call.args) or any(keyword.arg is None for keyword in call.keywords)
    return frozenset(parameters if spread else tainted)


def _name(target: Any) -> str:
    return getattr(target, "__name__", type(target).__name__)
