"""Options: the fields of parts, nested, with a short name and a domain each.

A method is a frozen dataclass whose fields are parts, and a part is a frozen dataclass whose fields are its options. The option
``size`` of the part ``groups`` is ``groups.size`` (``--groups.size 16``); where its short name is unique in the method (``group_size``,
``--group-size 16``) that is enough. Only fields that :func:`option` declares are options; a part's other fields are set by the method.

A field whose type is a union of parts takes one of several rules: ``clip.kind`` chooses which (each has a class attribute ``kind``), and
only the options of the chosen one exist.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Any, Literal, TypeVar

import numpy as np

from rheostat.errors import RheostatError, shown, unknown

KIND = "kind"
MOST_WHOLE, MOST_REAL = 2**53, 3.4028234663852886e38
"""What numbers without a bound of their own may be: whole ones that every float is exact for, others that single precision knows."""
Value = TypeVar("Value")


@dataclass(frozen=True)
class Domain:
    """Which numbers an option may be; None is no bound but :data:`MOST_WHOLE` and :data:`MOST_REAL`."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        words = (("at least", self.at_least), ("above", self.above), ("at most", self.at_most), ("below", self.below))
        return " and ".join(f"{word} {bound:{',' if isinstance(bound, int) else 'g'}}" for word, bound in words if bound is not None)

    def wanted(self, value: float) -> str:
        """What a number outside of it must be instead."""
        said = str(self) or "a finite number"
        if not _finite(value) and str(self):
            return f"finite and {said}"
        return f"{said} and at most {self._largest(value):g} in size" if _finite(value) and abs(value) > self._largest(value) else said

    def holds(self, value: float) -> bool:
        """Whether a number is finite and lies inside."""
        return (
            _finite(value)
            and abs(value) <= self._largest(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _largest(self, value: float) -> float:
        """The largest size that a number of this kind may have."""
        return max(MOST_WHOLE if isinstance(value, int) else MOST_REAL, self.at_most or 0)


def _finite(value: float) -> bool:
    """Whether a number is one; whole ones too large for a float are, too."""
    return isinstance(value, int) or math.isfinite(value)


def whole(name: str, value: Any, *, at_least: int | None = None, at_most: int | None = None) -> int:
    """A whole number of Python's or numpy's, inside its domain.

    Raises:
        RheostatError: it is none, or lies outside.
    """
    domain = Domain(at_least, at_most=at_most)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise RheostatError(f"{name} is {shown(value)}; it must be a whole number.")
    value = int(value)
    if not domain.holds(value):
        raise RheostatError(f"{name} is {shown(value)}; it must be {domain.wanted(value)}.")
    return value


def option(
    default: Any,
    *,
    short: str | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    share: bool = False,
) -> Any:
    """A field of a part that a user may set; its documentation is the docstring below it.

    Args:
        default: of the part; a method may give its part another.
        short: the name that is enough where it is unique; by default the field's own.
        at_least, above, at_most, below: bounds of a number. Numbers are finite in any case.
        share: a share of something: at least 0 and at most 1.
    """
    domain = Domain(0.0 if share else at_least, above, 1.0 if share else at_most, below)
    return dataclasses.field(default=default, metadata={"short": short, "domain": domain})


@dataclass(frozen=True)
class Option:
    """One option of a method, as the command line, the documentation and the configuration file show it."""

    path: str
    """``part.field``."""
    short: str
    """Short name; it is accepted where no other option of the method has it."""
    value: Any
    """Its value in the configuration that was asked: the default where that is the method's own."""
    hint: Any
    """Its type."""
    documentation: str
    domain: Domain

    @property
    def names(self) -> tuple[str, str, str]:
        """Its path, its joined name (``part_field``) and its short name."""
        return self.path, self.path.replace(".", "_"), self.short


def check_fields(config: Any, name_of: Callable[[str], str] = str) -> None:
    """Refuse values of a dataclass's fields that are outside of the domains that :func:`option` declared.

    Args:
        config: the object.
        name_of: what a field is called in the sentence, from its name.

    Raises:
        RheostatError: naming the field, its value and its domain.
    """
    for item in dataclasses.fields(config):
        if "domain" in item.metadata:
            _inside(name_of(item.name), getattr(config, item.name), item.metadata["domain"])


def _inside(name: str, value: Any, domain: Domain) -> None:
    """Refuse numbers outside of a domain, one or several of them.

    Raises:
        RheostatError: naming what has the value, and the domain.
    """
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int | float) and not isinstance(number, bool) and not domain.holds(number):
            raise RheostatError(f"{name} is {shown(number)}; it must be {domain.wanted(number)}.")


def is_part(value: Any) -> bool:
    """Whether a value is a part (a dataclass object)."""
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def options_of(config: Any, prefix: str = "") -> list[Option]:
    """Every option of a method or part, in the order of its fields.

    Args:
        config: the method's or part's dataclass object.
        prefix: path of the part in its method, with the dot.
    """
    found: list[Option] = []
    cls: Any = type(config)
    hints, documentation = type_hints(cls), field_documentation(cls)
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        kinds = kinds_of(hints[item.name])
        if len(kinds) > 1:
            path = f"{prefix}{item.name}.{KIND}"
            chosen = kind_of(value)
            hint = Literal[tuple(kinds)]  # type: ignore[valid-type]
            found.append(Option(path, prefix + item.name, chosen, hint, documentation[item.name], Domain()))
        if is_part(value):
            found += options_of(value, f"{prefix}{item.name}.")
        elif "domain" in item.metadata:
            short = item.metadata["short"] or item.name
            found.append(Option(prefix + item.name, short, value, hints[item.name], documentation[item.name], item.metadata["domain"]))
    return found


def kinds_of(hint: Any) -> dict[str | None, Any]:
    """The parts that a field of this type may hold, by their ``kind``; a None among them is named ``none``."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return {}
    arguments = typing.get_args(hint)
    parts = [each for each in arguments if dataclasses.is_dataclass(each)]
    if not parts:
        return {}
    found: dict[str | None, Any] = {each.kind: each for each in parts}  # type: ignore[union-attr]
    return found | ({"none": None} if type(None) in arguments else {})


def kinds_at(config: Any, path: str) -> list[str]:
    """The kinds that ``part.kind`` of a method may be."""
    *parts, last, _ = path.split(".")
    for part in parts:
        config = getattr(config, part)
    cls: Any = type(config)
    return [str(kind) for kind in kinds_of(type_hints(cls)[last])]


def kind_of(value: Any) -> str:
    """The ``kind`` of a part that is one of several."""
    return "none" if value is None else str(value.kind)


def short_names(options: list[Option]) -> dict[str, str]:
    """``{short name: path}`` of the short names that are unique."""
    count: dict[str, int] = {}
    for each in options:
        count[each.short] = count.get(each.short, 0) + 1
    return {each.short: each.path for each in options if count[each.short] == 1 and each.short != each.path}


def find(name: str, options: list[Option], who: str) -> str | None:
    """The path of an option, from its path, its joined name (``part_field``) or its unique short name; None where there is none.

    Raises:
        RheostatError: the short name is not unique.
    """
    name = name.replace("-", "_")
    paths = [each.path for each in options]
    if name in paths:
        return name
    joined = {path.replace(".", "_"): path for path in paths}
    if name in joined:
        return joined[name]
    several = [each.path for each in options if each.short == name]
    if len(several) > 1:
        raise RheostatError(f"{who} has more than one option {name!r}: say which, {' or '.join(several)}.")
    return several[0] if several else None


def resolve(name: str, options: list[Option], who: str) -> str:
    """The path of an option by any of its names, see :func:`find`.

    Raises:
        RheostatError: there is none (the nearest are named), or the short name is not unique.
    """
    path = find(name, options, who)
    if path is None:
        raise unknown(f"option of {who}", name, [*(each.path for each in options), *short_names(options)])
    return path


@dataclass(frozen=True)
class Named:
    """Options that were given, by path."""

    config: Any
    """The configuration with the kinds that were chosen among them: they decide which options there are."""
    kinds: dict[str, Any]
    """Chosen kinds by path."""
    values: dict[str, Any]
    """All other values by path, not checked yet."""
    unknown: dict[str, Any]
    """Values by names that no option has."""


def named(config: Any, overrides: Mapping[str, Any], who: str) -> Named:
    """Whose names these are.

    Args:
        config: the method's dataclass object.
        overrides: values by path, by joined or short name, or nested (``{"clip": {"high": 0.28}}``).
        who: the method's name, for the sentences.

    Raises:
        RheostatError: a short name that is not unique, an option that is given twice, or a kind that a part cannot be.
    """
    left = _once(overrides, who)
    first: dict[str, str] = {}
    kinds: dict[str, Any] = {}
    while True:  # an outer kind decides which inner ones there are, so the outermost come first
        options = options_of(config)
        paths = {name: find(name, options, who) for name in left}
        chosen = [(path.count("."), name, path) for name, path in paths.items() if path is not None and _is_kind(path)]
        if not chosen:
            break
        _, name, path = min(chosen)
        _refuse_twice(first, path, name, who)
        kinds[path] = left.pop(name)
        config = _with_kind(config, path, kinds[path], who)
    values: dict[str, Any] = {}
    for name, path_or_none in paths.items():
        if path_or_none is not None:
            _refuse_twice(first, path_or_none, name, who)
            values[path_or_none] = left.pop(name)
    return Named(config, kinds, values, left)


def with_options(config: Any, overrides: Mapping[str, Any], who: str) -> Any:
    """A method's configuration with some options changed.

    Args:
        config: the method's dataclass object.
        overrides: as in :func:`named`.
        who: the method's name, for the sentences.

    Raises:
        RheostatError: an option that does not exist (the nearest are named), a value of the wrong kind or outside its domain, an option
            that is given twice, or what the parts themselves refuse.
    """
    found = named(config, overrides, who)
    options = options_of(found.config)
    for name in found.unknown:
        resolve(name, options, who)  # refuses it
    by_path = {each.path: each for each in options}
    return _replaced(found.config, {path: checked(who, by_path[path], value) for path, value in found.values.items()})


def having(config: Any, overrides: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Those of some options that a method has, with the kinds chosen among them, by the names that were given.

    Args:
        config: the method's dataclass object.
        overrides: as in :func:`named`.
        who: the method's name, for the sentences.

    Raises:
        RheostatError: as :func:`named`.
    """
    unknown_ones = named(config, overrides, who).unknown
    return {name: value for name, value in flatten(overrides) if name not in unknown_ones}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"clip": {"high": 0.28}}`` as ``("clip.high", 0.28)``, part by part."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def nested(config: Any) -> dict[str, Any]:
    """A configuration as plain nested values, with the ``kind`` of every part that is one of several: what :func:`with_options` reads."""
    found: dict[str, Any] = {}
    for each in options_of(config):
        place = found
        *parts, last = each.path.split(".")
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = list(each.value) if isinstance(each.value, tuple) else each.value
    return found


def check_domains(config: Any, who: str) -> None:
    """Refuse numbers outside their domains, wherever they come from.

    Raises:
        RheostatError: naming the option, its value and its domain.
    """
    for each in options_of(config):
        checked(who, each, each.value)


def idle_options(config: Any, context: Any = None) -> dict[str, str]:
    """``{path: why}`` of the options that are set away from the method's default and cannot act under the other ones.

    A part (or the method itself) says which of its options these are: ``idle(method)`` returns ``{path below the part: why}`` from the
    method's configuration alone, and ``idle_in(method, context)`` returns the same for a run, whose spaces and budgets are known.

    Args:
        config: the method's dataclass object.
        context: the learner's, before anything is spent; None asks the configuration alone.
    """
    question, arguments = ("idle", (config,)) if context is None else ("idle_in", (config, context))
    usual, found = _defaults(config), {}
    for prefix, part in _parts_of(config):
        for name, why in getattr(part, question, lambda *_: {})(*arguments).items():
            value = _value_at(part, name)
            if value != usual.get(prefix + name, value):
                found[prefix + name] = why
    return found


def refuse_idle(config: Any, who: str, context: Any = None) -> None:
    """Refuse options that cannot act, see :func:`idle_options`.

    Args:
        config: the method's dataclass object.
        who: its name, for the sentence.
        context: as there.

    Raises:
        RheostatError: naming the first option and why it cannot act.
    """
    for path, why in idle_options(config, context).items():
        raise RheostatError(f"{who}: {path} would do nothing: {why}.")


def _parts_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A method and every part of it, with the prefix of its options' paths."""
    yield prefix, config
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if is_part(value):
            yield from _parts_of(value, f"{prefix}{item.name}.")


def _value_at(part: Any, path: str) -> Any:
    """The value of an option by its path below a part."""
    for name in path.split("."):
        part = getattr(part, name)
    return part


def _defaults(config: Any) -> dict[str, Any]:
    """``{path: default}`` of a method's options; those of a part that is another than the method's own are that part's."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        value, default = getattr(config, item.name), item.default
        if not is_part(value):
            found |= {} if default is dataclasses.MISSING else {item.name: default}
        elif type(default) is type(value):
            found |= {f"{item.name}.{each.path}": each.value for each in options_of(default)}
        else:
            found |= {f"{item.name}.{path}": usual for path, usual in _defaults(value).items()}
    return found


def value_or(value: Value | None, default: Value) -> Value:
    """The value of an option that may be left to another one: ``default`` where it is None, and 0 is a value like any other."""
    return default if value is None else value


def checked(who: str, each: Option, value: Any) -> Any:
    """A value as its declared type and inside its domain.

    Raises:
        RheostatError: it is neither.
    """
    value = by_type(f"{who}: {each.path}", value, each.hint)
    _inside(f"{who}: {each.path}", value, each.domain)
    return value


def _is_kind(path: str) -> bool:
    return path.endswith("." + KIND)


def _once(overrides: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Values by name on one level."""
    found: dict[str, Any] = {}
    for name, value in flatten(overrides):
        if name in found:
            raise RheostatError(f"{who}: {name} is given twice, nested and by its path: leave one out.")
        found[name] = value
    return found


def _refuse_twice(first: dict[str, str], path: str, name: str, who: str) -> None:
    """Note by which name an option was given, and refuse a second one."""
    if path in first:
        raise RheostatError(f"{who}: {path} is given twice, as {first[path]} and as {name}: leave one out.")
    first[path] = name


def _with_kind(config: Any, path: str, value: Any, who: str) -> Any:
    """The configuration with another part in the place of one that is one of several; the same kind changes nothing."""
    part, _, rest = path.partition(".")
    if rest != KIND:
        return dataclasses.replace(config, **{part: _with_kind(getattr(config, part), rest, value, who)})
    cls: Any = type(config)
    kinds = kinds_of(type_hints(cls)[part])
    if value not in kinds:
        raise RheostatError(f"{who}: {path} is {shown(value)}; it must be one of {', '.join(map(str, kinds))}.")
    if value == kind_of(getattr(config, part)):
        return config
    chosen = kinds[value]
    return dataclasses.replace(config, **{part: None if chosen is None else chosen()})


def _replaced(config: Any, found: Mapping[str, Any]) -> Any:
    """The configuration with values by path; every part is made once, so that it sees all of its options when it checks them."""
    here = {path: value for path, value in found.items() if "." not in path}
    for part in dict.fromkeys(path.partition(".")[0] for path in found if "." in path):
        below = {path.partition(".")[2]: value for path, value in found.items() if path.startswith(part + ".")}
        here[part] = _replaced(getattr(config, part), below)
    return dataclasses.replace(config, **here) if here else config


def by_type(where: str, value: Any, hint: Any) -> Any:
    """A value as a declared type.

    Args:
        where: what has the value, for the sentence.
        value: plain numbers, texts and lists.
        hint: a type, ``Literal``, tuple or union; of a union without None the first member counts.

    Raises:
        RheostatError: it is of another type.
    """
    value = value.item() if isinstance(value, np.generic) else value  # numpy's numbers become Python's, paths text
    if hint is str and isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str) and not is_text(value):
        raise RheostatError(f"{where} is {value!r}; it must be text that UTF-8 can write, without a null character.")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        choices = [argument for argument in arguments if argument is not type(None)]
        return by_type(where, value, choices[0])
    if origin is Literal:
        if value not in arguments:
            raise RheostatError(f"{where} is {shown(value)}; it must be one of {', '.join(map(str, arguments))}.")
        return value
    if origin is tuple:
        return _typed_list(where, value, arguments)
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MOST_REAL:
        return float(value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise RheostatError(f"{where} is {shown(value)}; it must be a table of names and values.")
        return dict(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise RheostatError(f"{where} is {shown(value)}; it must be of type {hint.__name__}.")
    return value


def is_text(value: str) -> bool:
    """Whether files and programs can take a text: no half of a surrogate pair and no null character."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _typed_list(where: str, value: Any, types_: tuple[Any, ...]) -> tuple[Any, ...]:
    """The members of a list as their types: one type and an ellipsis for any number of them, or one type for each."""
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise RheostatError(f"{where} is {shown(value)}; it must be a list.")
    members = list(value)
    if types_[-1] is Ellipsis:
        return tuple(by_type(where, each, types_[0]) for each in members)
    if len(members) != len(types_):
        raise RheostatError(f"{where} is {members!r}; it must be a list of {len(types_)} values.")
    return tuple(by_type(where, each, hint) for each, hint in zip(members, types_, strict=True))


@cache
def type_hints(cls: Any) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(cls)


@cache
def field_documentation(cls: Any) -> dict[str, str]:
    """``{field: docstring under it}`` of a dataclass and its bases."""
    found: dict[str, str] = {item.name: "" for item in dataclasses.fields(cls)}
    bases: list[Any] = [base for base in cls.__mro__ if dataclasses.is_dataclass(base)]
    for base in reversed(bases):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for node, following in zip(body.body, [*body.body[1:], ast.Pass()], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                constant = following.value if isinstance(following, ast.Expr) else None
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    found[node.target.id] = inspect.cleandoc(constant.value)
    return found
