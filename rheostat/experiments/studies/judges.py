"""The code of a judge as a hash: another verdict from the same numbers needs another hash.

The hash covers the judge's own syntax (without comments, docstrings and layout) together with everything it uses by name: functions and
classes of the package that the study belongs to, followed through each other, and constants, whether they are global or held by a closure.
What belongs to this library counts by its name; the rule itself is part of every declaration.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

from rheostat.errors import RheostatError
from rheostat.experiments.studies.sources import bare

LIBRARY = __name__.split(".")[0]


def code_of(*functions: Callable[..., Any]) -> str:
    """Hash of the syntax of some functions and of all they use.

    Raises:
        RheostatError: a function whose source is in no file.
    """
    found: dict[str, None] = {}
    for function in functions:
        _follow(function, found)
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()[:20]


def _follow(value: Any, found: dict[str, None]) -> None:
    """Add the meaning of a function or class, and of all it uses."""
    if isinstance(value, functools.partial):
        found[f"partial {_constant([*value.args, dict(value.keywords)])}"] = None
        value = value.func
    if isinstance(value, MethodType):
        value = value.__func__
    if not isinstance(value, FunctionType | type):
        value = type(value)  # a callable object: its class holds the code
    name = f"{value.__module__}:{value.__qualname__}"
    held = _closure(value) if isinstance(value, FunctionType) else {}
    if _package(value) == LIBRARY:
        found[f"{name} {_constants(held)}"] = None
        return
    nodes = _nodes(value)
    text = f"{name} {' '.join(ast.dump(node) for node in nodes)} {_constants(held)}"
    if text in found:
        return
    found[text] = None
    for used in _used(nodes, {**_globals(value), **held}):
        _use(used, _package(value), found)


def _use(used: tuple[str, Any], package: str, found: dict[str, None]) -> None:
    """Add what a function uses under a name."""
    name, value = used
    if isinstance(value, FunctionType | type | functools.partial):
        if _package(value) in (package, LIBRARY):
            _follow(value, found)
    elif (text := _constant(value)) is not None:
        found[f"{name} = {text}"] = None
    elif isinstance(value, Mapping | list | tuple):  # functions in a container; cells and other objects are not the judge's
        for each in value.values() if isinstance(value, Mapping) else value:
            if isinstance(each, FunctionType | functools.partial) and _package(each) in (package, LIBRARY):
                _follow(each, found)


def _used(nodes: tuple[ast.AST, ...], known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names, and attributes of modules, that are used and known; unknown names are local or built in."""
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Name) and node.id in known and not isinstance(known[node.id], ModuleType):
            yield node.id, known[node.id]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = known.get(node.value.id)
            if isinstance(module, ModuleType) and hasattr(module, node.attr):
                yield f"{node.value.id}.{node.attr}", getattr(module, node.attr)


def _package(value: Any) -> str:
    module = value.func.__module__ if isinstance(value, functools.partial) else value.__module__
    return str(module).split(".")[0]


def _globals(value: FunctionType | type) -> dict[str, Any]:
    if isinstance(value, FunctionType):
        return value.__globals__
    return next((each.__globals__ for each in vars(value).values() if isinstance(each, FunctionType)), {})


def _closure(function: FunctionType) -> dict[str, Any]:
    """The values of a function's free variables; unbound ones are left out."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def _constants(held: Mapping[str, Any]) -> str:
    return json.dumps({name: text for name, value in held.items() if (text := _constant(value)) is not None}, sort_keys=True)


def _constant(value: Any) -> str | None:
    """A plain value as text; None for anything else."""
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return None


def _nodes(value: FunctionType | type) -> tuple[ast.AST, ...]:
    """The syntax of a function, or of the functions of a class: all lambdas of its line where it is one.

    Raises:
        RheostatError: its source is in no file.
    """
    if isinstance(value, type):
        functions = [each for each in vars(value).values() if isinstance(each, FunctionType) and each.__module__ == value.__module__]
        return tuple(node for each in functions if Path(each.__code__.co_filename).is_file() for node in _nodes(each))
    code = value.__code__
    found = tuple(node for name, line, node in _functions(code.co_filename) if (name, line) == (code.co_name, code.co_firstlineno))
    if not found:
        raise RheostatError(f"The source of {value.__qualname__} is in no file, so its claim cannot be declared: define it in a module.")
    return found


@functools.cache
def _functions(file: str) -> tuple[tuple[str, int, ast.AST], ...]:
    """Name, first line and bare syntax of every function of a file."""
    if not Path(file).is_file():
        return ()
    found: list[tuple[str, int, ast.AST]] = []
    for node in ast.walk(bare(ast.parse(Path(file).read_text()))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append((node.name, min([node.lineno, *(each.lineno for each in node.decorator_list)]), node))
        elif isinstance(node, ast.Lambda):
            found.append(("<lambda>", node.lineno, node))
    return tuple(found)
