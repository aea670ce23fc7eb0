"""Configuration files: every setting of a run and every option of its method, in TOML, YAML or JSON.

    seed = 3                    settings of the run, see :class:`rheostat.training.settings.Settings`
    [config.clip]               options of the method, nested as its parts
    high = 0.28

A finished run's own ``config.json`` is one, too. TOML has no empty value: where an option may be None, write ``"none"``. Options may also
stand outside of ``config``, by any of their names.
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError, shown_error
from rheostat.json_text import MOST_BYTES, loads
from rheostat.methods import table
from rheostat.options import KIND, Option, by_type, field_documentation, flatten, options_of, type_hints, with_options
from rheostat.training import version_0_1
from rheostat.training.settings import CUSTOM, DEFAULTS, Settings, applies_to, by_path, configure, default_of
from rheostat.training.unknown_options import no_such_option

NONE = "none"
WIDTH = 110


@dataclass(frozen=True)
class ConfigFile:
    """The content of a configuration file."""

    path: Path
    task: str | None = None
    """Name of the task, where the file has one."""
    preset: str | None = None
    """Named configuration of the method below the file's own options."""
    general: dict[str, Any] = field(default_factory=dict)
    """Settings of the run."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the method, by path."""


def read_config(path: str | Path, method: str) -> ConfigFile:
    """Read a file for a method.

    Args:
        path: a file in TOML, YAML or JSON by the end of its name, or the directory of a run.
        method: the method that is to be trained.

    Raises:
        RheostatError: naming the file: it cannot be read, is of another method, names a setting or option that does not exist (with the
            nearest one), or gives one a value of the wrong type.
    """
    path = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    data = parsed(path)
    of_a_run = isinstance(data.get("settings"), dict) and "versions" in data
    try:
        return understood(path, method, dict(data["settings"] if of_a_run else data), of_a_run)
    except RheostatError as error:
        raise RheostatError(f"{path}: {error}") from error


def parsed(path: Path) -> dict[str, Any]:
    """The file as plain values."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise RheostatError(f"{path} has more than {MOST_BYTES:,} bytes: a configuration is shorter.")
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise RheostatError(f"{path} cannot be read ({why}): name a configuration file, or the directory of a run.") from error
    kind = path.suffix.lower()
    data: Any
    try:
        if kind == ".toml":
            data = tomllib.loads(text)
        elif kind in (".yaml", ".yml"):
            import yaml

            try:
                data = yaml.safe_load(text) or {}
            except yaml.YAMLError as error:
                raise ValueError(" ".join(str(error).split())) from error
        elif kind == ".json":
            data = loads(text)
        else:
            raise RheostatError(f"{path} ends with neither .toml, .yaml nor .json: name a configuration file, or the directory of a run.")
    except RheostatError:
        raise
    except (ValueError, RecursionError) as error:
        raise RheostatError(f"{path} is no {kind[1:].upper()}: {shown_error(error)}.") from error
    if not isinstance(data, dict):
        raise RheostatError(f"{path} holds a {type(data).__name__}: a configuration has names and values.")
    return data


def understood(path: Path, method: str, data: dict[str, Any], of_a_run: bool) -> ConfigFile:
    """A file's names and values, checked; a run's own also names settings that it does not read."""
    domain = table.entry(method).domain
    if (whose := data.pop("method", method)) != method:
        raise RheostatError(f"it is a configuration of {whose}, not of {method}: train {whose}, or leave the key method out.")
    task, preset, config = data.pop("task", None), data.pop("preset", None), data.pop("config", {})
    for name, value in (("task", task), ("preset", preset)):
        if value is not None and not isinstance(value, str):
            raise RheostatError(f"{name} is {value!r}; it must be of type str.")
    if task is not None and task.startswith(CUSTOM):
        task = None  # an object: it is passed again
    if not isinstance(config, dict):
        raise RheostatError(f"config is {config!r}; it must be a table of options of {method}.")
    hints, general = type_hints(Settings), {}
    defaults = {item.name: default_of(item) for item in dataclasses.fields(Settings)}
    for name in [name for name in data if name in defaults]:
        value = by_type(name, _none(data.pop(name), hints[name]), hints[name])
        if not applies_to(name, domain):
            if value != defaults[name] and not of_a_run:
                raise RheostatError(f"{name} is not for {domain} methods, of which {method} is one: leave it out.")
            continue
        general[name] = value
    return ConfigFile(path, task, preset, general, _options(method, preset, config, data, list(defaults)))


def _options(method: str, preset: str | None, config: dict[str, Any], beside: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """The method's options by path, from the table ``config`` and from outside of it."""
    start = table.entry(method).load()()
    if version_0_1.is_old(method, config):
        config = version_0_1.translated(method, config, start)
    start = configure(method, {}, preset=preset)
    given = dict(flatten(config))
    for name, value in flatten(beside):
        if name in given:
            raise RheostatError(f"{name} is given twice, inside of config and outside: leave one out.")
        given[name] = value
    try:
        found = by_path(method, start, given)
    except RheostatError:
        for name in beside:  # a setting of the run may have been meant
            if not any(name == other or other.startswith(f"{name}.") for other in _known(method)):
                raise no_such_option(method, start, name, beside[name], beside=tuple(settings)) from None
        raise
    kinds = {name: value for name, value in found.items() if name.endswith("." + KIND)}
    hints = {each.path: each.hint for each in options_of(with_options(start, kinds, method))}
    found = {name: _none(value, hints[name]) for name, value in found.items()}
    with_options(start, found, method)  # refuses wrong types
    return found


def _known(method: str) -> list[str]:
    return [name for each in options_of(table.entry(method).load()()) for name in each.names]


def _none(value: Any, hint: Any) -> Any:
    """None where the text is "none" and the type allows it."""
    arguments = typing.get_args(hint)
    return None if value == NONE and type(None) in arguments else value


# --- writing ------------------------------------------------------------------------------------------------------------------------------


def written_config(method: str, task: str | None = None) -> str:
    """A file to begin from, in TOML: every setting and every option with its default, its type and its help.

    Args:
        method: its name.
        task: the task; the preset that a run on it would take is filled in.

    Raises:
        RheostatError: unknown method.
    """
    from rheostat.training.language_setup import automatic_preset

    domain = table.entry(method).domain
    preset = automatic_preset(method, task, None) if domain == "language" else None
    config = configure(method, {}, preset=preset)
    lines = [f"# {table.entry(method).title}: rheostat train {method} {task or 'TASK'} --config THIS-FILE"]
    lines += [f'# "{NONE}" stands for no value.']
    lines += ["", f"method = {_value(method)}", *([f"task = {_value(task)}"] if task else []), ""]
    documentation, hints = field_documentation(Settings), type_hints(Settings)
    tables = []
    for item in dataclasses.fields(Settings):
        if item.name in ("method", "task", "config") or not applies_to(item.name, domain):
            continue
        default = DEFAULTS[domain].get(item.name, default_of(item))
        if isinstance(default, dict):
            tables += ["", *_comment(documentation[item.name]), f"[{item.name}]"]
            continue
        lines += [*_comment(documentation[item.name], hints[item.name]), f"{item.name} = {_value(default)}"]
    lines += tables
    for part, options in _by_part(options_of(config)).items():
        lines += ["", f"[{'.'.join(['config', *part])}]"]
        for each in options:
            said = _comment(each.documentation, each.hint, str(each.domain))
            lines += [*said, f"{each.path.rpartition('.')[2]} = {_value(each.value)}"]
    return "\n".join(lines) + "\n"


def _by_part(options: list[Option]) -> dict[tuple[str, ...], list[Option]]:
    """Options by the path of their part, the method's own first."""
    found: dict[tuple[str, ...], list[Option]] = {(): []}
    for each in options:
        *part, _ = each.path.split(".")
        found.setdefault(tuple(part), []).append(each)
    return {part: each for part, each in found.items() if each}


def _comment(text: str, hint: Any = None, domain: str = "") -> list[str]:
    """Help as lines of comment, with what a value may be."""
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    said = [re.sub(r"^(Control|Language): ", "", " ".join(text.split())).replace("``", "")]
    said += [f"One of: {', '.join(map(str, choices))}."] if choices else []
    said += [f"A number {domain}."] if domain else []
    return [f"# {line}" for line in textwrap.wrap(" ".join(said), WIDTH)]


def _value(value: Any) -> str:
    """A value in TOML; the texts of JSON are texts of TOML, too."""
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
