"""What of the reference is silent about tensors: public functions whose docstrings name no shape.

``python docs/hooks/shapes.py [ROOM ...]`` lists them. A function is asked for if its signature has a tensor or an array in it. It must
name a shape such as ``[B, T]``, a scalar or "any shape"; where it is a method, its class may do so. One that raises a RheostatError must
have a section Raises. Methods that a protocol describes need not say it again. What takes whole states has no one shape.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
TENSOR = re.compile(r"\b(?:Tensor|Array|ndarray|Trajectories|Transitions)\b")
SHAPE = re.compile(r"\[[A-Za-z0-9_.+*/^ -]+(?:, [A-Za-z0-9_.+*/^ -]+)*\]|\b[Ss]calar|\bshape\b|one element")
WHOLE_STATES = {"split_state", "join_state", "tensors_of", "training_data"}
IN_PROTOCOL = {"collect", "retain", "improve", "state_dict", "load_state_dict", "bind", "check", "begin"}


@dataclass(frozen=True)
class Silence:
    """Something that a docstring does not say."""

    path: Path
    line: int
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.name} {self.what}"


def modules() -> list[Path]:
    """The modules that the reference has a page for."""
    names = [name for page in sorted(REFERENCE.glob("*.md")) for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)]
    paths = [ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names]
    return [path for path in dict.fromkeys(paths) if path.exists()]


def silences(path: Path) -> Iterator[Silence]:
    """Of a module's public functions and classes."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield from of_function(path, node, node.name)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            told = IN_PROTOCOL | (set() if is_protocol(node) else told_by_protocols())
            whole = "\n".join(string for inner in ast.walk(node) for string in [text_of(inner)] if string)
            for inner in node.body:
                public = isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and inner.name not in told
                if public:
                    assert isinstance(inner, ast.FunctionDef)
                    yield from of_function(path, inner, f"{node.name}.{inner.name}", whole)


def is_protocol(node: ast.ClassDef) -> bool:
    """Whether a class says what others must have."""
    return any(ast.unparse(base).startswith(("Protocol", "ABC")) for base in node.bases)


@cache
def told_by_protocols() -> frozenset[str]:
    """Methods that a protocol of the library describes; those who have them need not say it again."""
    found = set()
    for path in (ROOT / "rheostat").rglob("*.py"):
        protocols = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef) and is_protocol(node)]
        methods = [inner for node in protocols for inner in node.body if isinstance(inner, ast.FunctionDef)]
        found |= {inner.name for inner in methods if ast.get_docstring(inner)}
    return frozenset(found)


def of_function(path: Path, node: ast.FunctionDef, name: str, around: str = "") -> Iterator[Silence]:
    """What a function's docstring does not say; ``around`` are the docstrings of its class."""
    docstring = ast.get_docstring(node) or ""
    if any(ast.unparse(each).endswith(".setter") for each in node.decorator_list):
        return
    if not docstring:
        yield Silence(path, node.lineno, name, "has no docstring")
        return
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    signature = " ".join(ast.unparse(each) for each in [*(a.annotation for a in arguments), node.returns] if each is not None)
    whole = name.rpartition(".")[2] in WHOLE_STATES
    if TENSOR.search(signature) and not whole and not SHAPE.search(docstring) and not (around and SHAPE.search(around)):
        yield Silence(path, node.lineno, name, "names no shape")
    raises = [
        each for each in ast.walk(node) if isinstance(each, ast.Raise) and each.exc is not None and "RheostatError" in ast.unparse(each.exc)
    ]
    if raises and "Raises:" not in docstring and "Refuse" not in docstring:
        yield Silence(path, node.lineno, name, "does not say what it raises")


def text_of(node: ast.AST) -> str:
    """A string that stands as a statement."""
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def main() -> None:
    """Print the list."""
    rooms = sys.argv[1:]
    found = [each for path in modules() for each in silences(path) if not rooms or path.relative_to(ROOT / "rheostat").parts[0] in rooms]
    print("\n".join(map(str, found)) or "Nothing is missing.")


if __name__ == "__main__":
    main()
