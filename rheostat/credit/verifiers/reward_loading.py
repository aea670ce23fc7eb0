"""Finding an object of the user's code by name: a reward function as ``my_rewards.py:score`` or ``package.module:score``, or a network."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from rheostat.errors import RheostatError, unknown


def load_object(target: str, kind: str = "reward") -> Any:
    """The object a target names.

    A file's folder joins ``sys.path``, as it would if Python ran the file, so that it can import its neighbours.

    Args:
        target: ``path/to/file.py:name`` or ``package.module:name``; the name may have dots.
        kind: what it is, for sentences.

    Raises:
        RheostatError: no such file, module or name, or the file itself fails to run.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name or "/" in name or "\\" in name:
        raise RheostatError(_which_function(target, kind))
    module = _load_file(place, kind) if place.endswith(".py") else _load_module(place, kind)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise unknown(f"{_called(kind)} in {place}", name, public_functions(module) or [n for n in vars(module) if n[0] != "_"])
        found = getattr(found, part)
    return found


def arguments_of(reward: Any) -> tuple[list[str], list[str]] | None:
    """The arguments that a reward function names, and those among them that it cannot do without.

    The code of a file is read, not run.

    Args:
        reward: a function, or ``file.py:function``.

    Returns:
        None where they cannot be known: a name of another kind, a class, something without a signature.
    """
    if not isinstance(reward, str):
        try:
            parameters = inspect.signature(reward).parameters.values()
        except (TypeError, ValueError):
            return None
        given = [p for p in parameters if p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)]
        return [p.name for p in given], [p.name for p in given if p.default is inspect.Parameter.empty]
    place, _, name = reward.rpartition(":")
    path = Path(place).expanduser()
    if not place.endswith(".py") or not path.is_file():
        return None
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):  # loading it raises the error
        return None
    found = [node for node in body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name]
    if not found or found[-1].decorator_list:
        return None
    arguments = found[-1].args
    plain = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    needed = plain[: len(plain) - len(arguments.defaults)]
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        plain.append(argument.arg)
        needed += [argument.arg] if default is None else []
    return plain, needed


def public_functions(module: ModuleType) -> list[str]:
    """Names of the functions a module defines itself."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__
    ]


def _called(kind: str) -> str:
    return "reward function" if kind == "reward" else kind


def _which_function(target: str, kind: str) -> str:
    if kind == "reward" and target.endswith(".py") and Path(target).is_file():
        names = public_functions(_load_file(target, kind))
        example = names[0] if names else "score"
        held = f"it defines {', '.join(names)}" if names else "it defines no function"
        return f"Say which function of {target} grades ({held}): for example {target}:{example}."
    name = "function" if kind == "reward" else "name"
    return f"A {_called(kind)} is named 'file.py:{name}' or 'package.module:{name}', not {target!r}."


def _load_file(place: str, kind: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise RheostatError(f"There is no {kind} file {place} (looked at {path}): check the path.")
    name = f"rheostat_{kind}_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RheostatError(f"{place} is not a Python file: give a file that ends in .py.")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickling look themselves up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RheostatError(f"The {kind} file {place} fails when it is loaded: {describe(error, str(path))}.") from error
    return module


def _load_module(place: str, kind: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise RheostatError(f"The module {place} of the {_called(kind)} cannot be imported: {describe(error)}.") from error


def describe(error: BaseException, file: str | None = None) -> str:
    """``KeyError: 'x' (my_rewards.py, line 12)``: what was raised and the innermost line of the user's code that raised it."""
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})"
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path(__file__).parent)
    theirs = [frame for frame in frames if (frame.filename == file if file else not frame.filename.startswith((here, "<")))]
    where = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    return (text if len(text) <= 300 else text[:297] + "...").rstrip(".") + where
