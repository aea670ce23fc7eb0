"""What there is: ``rheostat list``, ``show`` and ``base-model``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from rheostat import plugins
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.terminal import print_json, print_table


@dataclass
class List:
    """List the methods and the tasks, with what has been verified."""

    tasks: bool = False
    """List every task id too (over a thousand)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        refused = table.load_added()
        rows = [
            {"method": name, "domain": row.domain, "title": row.title, "paper": row.paper, "verified": row.verified}
            for name, row in table.METHODS.items()
        ]
        from rheostat.tasks.control.registration import known_tasks

        families = known_tasks() | {"language": language_ids()}
        if others := [name for name in plugins.added("tasks") if not any(name in ids for ids in families.values())]:
            families["installed packages"] = others
        if self.json:
            tasks = {family: ids if self.tasks else len(ids) for family, ids in families.items()}
            print_json({"methods": rows, "tasks": tasks})
            return
        print_table("Methods", ["method", "domain", "title", "paper", "verified"], [list(row.values()) for row in rows])
        print_table(
            "Tasks (any id of these works; --tasks lists them all)",
            ["family", "ids", "examples"],
            [(family, len(ids), ", ".join(ids if self.tasks else ids[:6])) for family, ids in families.items()],
            numbers=["ids"],
        )
        for sentence in refused:
            print(f"Note: {sentence}")


def language_ids() -> list[str]:
    """Every language task by name; those of reasoning-gym where it is installed."""
    from rheostat.tasks.language import LANGUAGE_TASKS
    from rheostat.tasks.language.reasoning import PREFIX, data_sets

    return [name for name in LANGUAGE_TASKS if not name.startswith(PREFIX)] + [PREFIX + name for name in data_sets()]


@dataclass
class Show:
    """Show a method: paper, equations, defaults, and what differs from its parent."""

    method: Positional[str]
    """Name of the method."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.training.describe import other_kinds, presets_of, settings_of

        row = table.entry(self.method)
        settings = settings_of(self.method)
        presets = presets_of(self.method)
        if self.json:
            fields = {item.name: {"default": item.default, "documentation": item.documentation} for item in settings}
            print_json(
                {
                    "method": self.method,
                    **dataclasses.asdict(row),
                    "documentation": row.module.__doc__,
                    "settings": fields,
                    "presets": presets,
                }
            )
            return
        print(row.module.__doc__)
        print(f"Verified: {row.verified}.\n")

        def note(item: Any) -> str:
            return "new" if item.new else f"parent: {item.parent_default}" if item.parent_default != item.default else ""

        print_table(
            "Settings",
            ["setting", "default", "differs", "meaning"],
            [(item.name, item.default, note(item), item.documentation) for item in settings],
        )
        for kind, options in other_kinds(self.method).items():
            rows = [(each.path, each.value, each.documentation) for each in options]
            print_table(f"Settings with {kind}", ["setting", "default", "meaning"], rows)
        for name, values in presets.items():
            print(f"--preset {name}: " + ", ".join(f"{key}={value}" for key, value in values.items()))


@dataclass
class Config:
    """Print a configuration file to begin from: every option, its default and its help (`rheostat config grpo chain-sum > grpo.toml`)."""

    method: Positional[str]
    """Name of the method."""
    task: Positional[str] = ""
    """What to train on; the options that a run on it begins with are filled in."""

    def run(self) -> None:
        from rheostat.training.config_file import written_config

        print(written_config(self.method, self.task or None), end="")


@dataclass
class BaseModel:
    """Build or list the base models of the language tasks: `base-model build NAME`, `base-model list`."""

    action: Positional[Literal["build", "list"]]
    """Build a model (unless the cache has it), or list what can be built."""
    name: Positional[str] = ""
    """Model to build: a tiny one, trained from a recipe, or a real one that a Python package carries."""
    cache: Path | None = None
    """Folder to cache in; by default $RHEOSTAT_CACHE, else the user's cache folder."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.tasks.language.base_models import base_model, base_models, build_base_model, facts_of

        if self.action == "build":
            if not self.name:
                raise RheostatError(f"Say which base model to build: {', '.join(base_models())}.")
            model = base_model(self.name)
            build_base_model(model, self.cache, progress=not self.json)
            if self.json:
                print_json(facts_of(model, self.cache))
            return
        rows = [facts_of(model, self.cache) for model in base_models().values()]
        if self.json:
            print_json(rows)
            return
        cells = [
            (
                row["name"],
                row["digest"],
                "yes" if row["built"] else "damaged" if row["fault"] else "no",
                "" if row["accuracy"] is None else f"{row['accuracy']:.2f}",
                row["path"],
            )
            for row in rows
        ]
        print_table("Base models", ["model", "content hash", "built", "accuracy", "where"], cells, numbers=["accuracy"])
