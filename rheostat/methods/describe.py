"""What a method says about itself: its docstring, its settings with their documentation, and what differs from its parent."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

from rheostat.methods.table import Entry


@dataclass(frozen=True)
class Setting:
    """One field of a method's configuration."""

    name: str
    kind: str
    default: Any
    documentation: str
    parent_default: Any
    """The parent method's default; equal to ``default`` where nothing changed or the field is new."""
    new: bool
    """Whether the parent does not have it."""


def field_documentation(cls: type) -> dict[str, tuple[str, str]]:
    """``{field: (annotation, docstring under it)}`` of a dataclass and its bases."""
    found: dict[str, tuple[str, str]] = {}
    for base in reversed([base for base in cls.__mro__ if dataclasses.is_dataclass(base)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, following in zip(body.body, [*body.body[1:], ast.Pass()], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = ""
                if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                    text = inspect.cleandoc(str(following.value.value))
                found[node.target.id] = (ast.unparse(node.annotation), text)
    return found


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default value."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def settings_of(method: Entry) -> list[Setting]:
    """Every setting of a method, in order."""
    config = method.load().Config
    parent = next((base for base in config.__mro__[1:] if dataclasses.is_dataclass(base)), None)
    inherited = {field.name: default_of(field) for field in dataclasses.fields(parent)} if parent else {}
    documentation = field_documentation(config)
    settings = []
    for field in dataclasses.fields(config):
        kind, text = documentation[field.name]
        default = default_of(field)
        before = inherited.get(field.name, default)
        settings.append(Setting(field.name, kind, default, text, before, bool(parent) and field.name not in inherited))
    return settings
