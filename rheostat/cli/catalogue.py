"""What there is: ``rheostat list``, ``show`` and ``base-model``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from rheostat.errors import RheostatError, unknown
from rheostat.methods import table
from rheostat.remembered import remembered
from rheostat.tasks.families import known_families
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
        families = known_families()
        if self.json:
            tasks = {family: ids if self.tasks else len(ids) for family, ids in families.items()}
            print_json({"methods": rows, "tasks": tasks})
            return
        columns = ["method", "domain", "title", "paper", "verified"]
        print_table("Methods", columns, [list(row.values()) for row in rows], optional=["domain", "paper", "verified"], lines=False)
        print_table(
            "Tasks (any id of these works; --tasks lists them all)",
            ["family", "ids", "examples"],
            [(family, len(ids), ", ".join(ids if self.tasks else ids[:3])) for family, ids in families.items()],
            numbers=["ids"],
            lines=False,
        )
        for sentence in refused:
            print(f"Note: {sentence}")


@dataclass
class Show:
    """Show a method: paper, equations, defaults, and what differs from its parent; or a recipe of the library, as a file to copy."""

    method: Positional[str]
    """Name of the method, or of the recipe (light-r1.toml)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        if Path(self.method).suffix == ".toml":
            self.show_recipe()
            return
        row = table.entry(self.method)
        own = not table.of_the_library(self.method)  # looked at anew every time
        facts = method_facts(self.method) if own else remembered(f"show-{self.method}", lambda: method_facts(self.method))
        if self.json:
            fields = {each["name"]: {key: each[key] for key in ("default", "documentation")} for each in facts["settings"]}
            print_json({"method": self.method, **dataclasses.asdict(row), **facts, "settings": fields})
            return
        print(facts["documentation"])
        print(f"Verified: {row.verified}.\n")
        print_table(
            "Settings",
            ["setting", "default", "differs", "meaning"],
            [(each["name"], typed(each["default"]), each["differs"], each["documentation"]) for each in facts["settings"]],
            lines=False,
        )
        for kind, options in facts["kinds"].items():
            rows = [(each["name"], typed(each["default"]), each["documentation"]) for each in options]
            print_table(f"Settings with {kind}", ["setting", "default", "meaning"], rows, lines=False)
        for name, values in facts["presets"].items():
            print(f"--preset {name}: " + ", ".join(f"{key}={typed(value)}" for key, value in values.items()))

    def show_recipe(self) -> None:
        """Print a recipe: its text, or as JSON what it says."""
        from rheostat.experiments.recipe import library_recipes, read_recipe, recipe_file

        path = recipe_file(self.method)
        if not path.is_file():
            raise unknown("recipe", self.method, library_recipes())
        if self.json:
            print_json(read_recipe(path).to_json())
        else:
            print(path.read_text(), end="")


def method_facts(name: str) -> dict[str, Any]:
    """What ``rheostat show`` says of a method, as JSON."""
    from rheostat.training.describe import other_kinds, presets_of, settings_of

    parent = table.entry(name).parent
    settings = [
        {
            "name": each.name,
            "default": each.default,
            "differs": "new" if each.new else f"{parent}: {typed(each.parent_default)}" if each.parent_default != each.default else "",
            "documentation": each.documentation,
        }
        for each in settings_of(name)
    ]
    kinds = {
        kind: [{"name": each.path, "default": each.value, "documentation": each.documentation} for each in options]
        for kind, options in other_kinds(name).items()
    }
    return {"documentation": table.entry(name).module.__doc__, "settings": settings, "kinds": kinds, "presets": presets_of(name)}


def typed(value: Any) -> str:
    """A value as one types it on the command line: lists as words."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@dataclass
class Config:
    """Print a configuration file to begin from: every option, its default and its help (`rheostat config grpo chain-sum > grpo.toml`)."""

    method: Positional[str]
    """Name of the method."""
    task: Positional[str] = ""
    """What to train on; the options that a run on it begins with are filled in."""

    def run(self) -> None:
        def written() -> str:
            from rheostat.training.config_file import written_config

            return written_config(self.method, self.task or None)

        if self.task or not table.of_the_library(self.method):  # what a user's own code decides
            print(written(), end="")
        else:
            print(remembered(f"config-{self.method}", written), end="")


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
