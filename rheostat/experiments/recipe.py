"""Recipes: several runs in a row, each of which begins with the weights of an earlier one.

    name = "imitate-then-reinforce"        settings of all stages stand first
    task = "chain-sum"

    [[stage]]
    name = "imitate"
    method = "sft"
    steps = 20

    [[stage]]
    name = "reinforce"
    method = "grpo"
    steps = 40
    stop_at = ["validation_reward", 0.95]

A stage is an ordinary run in a folder of its own, so it is looked at and evaluated like any other. It begins with the weights of the
stage before it, of the stage that ``from`` names, or with ``from = "start"`` with the model that no stage has trained. The optimiser is
new in every stage. ``pass_rate = [LOW, HIGH]`` keeps those prompts of a file that the stage's first policy solves so often, and
``experts_of_best = [STAGE, STAGE]`` takes the expert rows of the one of these earlier stages whose policy ended best.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rheostat.analysis.records import read_record
from rheostat.errors import RheostatError, unknown
from rheostat.experiments.manifests import read_fields, write_fields
from rheostat.json_text import plain
from rheostat.methods import table
from rheostat.training.config_file import parsed, understood
from rheostat.training.run import Run
from rheostat.training.settings import Settings
from rheostat.training.settings_from_options import absolute, settings_for, task_of_prompts
from rheostat.training.starting_point import refuse_other_networks

RECIPE = "recipe.json"
START = "start"
LIBRARY = Path(__file__).parent / "recipes"
"""The library's own recipes."""
KEYS = ("name", "method", "from", "pass_rate", "pass_rate_samples", "experts_of_best")
SUFFIXES = (".toml", ".yaml", ".yml", ".json")
MOST_STAGES = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Stage:
    """One run of a recipe.

    Attributes:
        name: of lower-case letters, digits and dashes; it names the folder.
        method: from ``rheostat list``.
        settings: of the run and of its method, by any of their names, as :func:`rheostat.train` takes them.
        begins: name of the earlier stage whose weights it begins with; ``start`` for none; None for the stage before.
        pass_rate: lowest and highest share of right completions, in [0, 1], of the prompts that are trained on; None trains on all. It is
            measured with the policy that the stage begins with. Prompts must come from a file.
        pass_rate_samples: completions of each prompt for that.
        experts_of_best: names of earlier stages, each with expert rows of its own; the run learns from those rows with which a policy
            came out best, by its final measurement. Empty: from its own.
    """

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    begins: str | None = None
    pass_rate: tuple[float, float] | None = None
    pass_rate_samples: int = 8
    experts_of_best: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", _kept(self.settings))


@dataclass(frozen=True)
class Recipe:
    """Stages in order.

    Attributes:
        name: of the recipe.
        stages: at least one.
        shared: settings of every run (``seed``, ``task``, ``model``, ...).
    """

    name: str
    stages: tuple[Stage, ...]
    shared: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", _kept(self.shared))
        _require_names(self)
        for number, stage in enumerate(self.stages):
            self._check(stage, number)

    def before(self, stage: Stage) -> Stage | None:
        """The stage whose weights it begins with; None where no stage has trained them."""
        number = self.stages.index(stage)
        if stage.begins == START or (stage.begins is None and not number):
            return None
        return self.stages[number - 1] if stage.begins is None else self.named(stage.begins)

    def named(self, name: str) -> Stage:
        """The stage of a name that there is."""
        return next(each for each in self.stages if each.name == name)

    def _check(self, stage: Stage, number: int) -> None:
        """Refuse a stage that begins with one that is not before it, or that filters by what is no share."""
        earlier = [each.name for each in self.stages[:number]]
        if stage.begins is not None and stage.begins != START and stage.begins not in earlier:
            later = stage.begins in [each.name for each in self.stages]
            if later:
                raise RheostatError(
                    f"Stage {stage.name} begins with {stage.begins}, which comes later or is itself: name an earlier stage."
                )
            raise unknown(f"stage before {stage.name}", stage.begins, [*earlier, START])
        self._check_trials(stage, earlier)
        if stage.pass_rate is not None:
            low, high = stage.pass_rate
            if not 0 <= low <= high <= 1:
                raise RheostatError(
                    f"Stage {stage.name}: pass_rate is [{low:g}, {high:g}]; give the lowest and the highest share, in [0, 1]."
                )
            if stage.pass_rate_samples < 1:
                raise RheostatError(f"Stage {stage.name}: pass_rate_samples is {stage.pass_rate_samples}; take at least 1 completion.")

    def _check_trials(self, stage: Stage, earlier: list[str]) -> None:
        """Refuse trials that are not before the stage, or that try nothing."""
        for name in stage.experts_of_best:
            if name not in earlier:
                raise unknown(f"stage before {stage.name}", name, earlier)
            if self.experts_tried(name) is None:
                raise RheostatError(f"Stage {stage.name}: {name} has no expert rows of its own to compare: give it experts.")
        if stage.experts_of_best and "experts" in stage.settings:
            raise RheostatError(f"Stage {stage.name}: experts and experts_of_best both say whose rows are learned from: use one of them.")

    def experts_tried(self, name: str) -> str | None:
        """The file of expert rows that a stage names for itself; None where it names none."""
        found = self.named(name).settings.get("experts")
        return None if found is None else str(found)

    def folder(self, stage: Stage) -> str:
        """Name of its folder."""
        return f"{self.stages.index(stage) + 1}-{stage.name}"

    def settings_of(self, stage: Stage, directory: Path | None = None) -> Settings:
        """The settings of its run.

        Args:
            stage: one of the recipe.
            directory: of the recipe; without it the run begins with no stage's weights and filters no prompts, as before anything is run.

        Raises:
            RheostatError: unknown or impossible settings, naming the stage.
        """
        try:
            own = understood(Path(), stage.method, dict(self.shared) | dict(stage.settings), False)
            general = dict(own.general)
            if directory is not None and (before := self.before(stage)) is not None:
                general["from_run"] = str(directory / self.folder(before))
            if stage.pass_rate is not None and not general.get("prompts"):
                raise RheostatError("pass_rate chooses among the prompts of a file: give prompts, or leave it out.")
            if stage.experts_of_best:  # before the trials are over, any of them shows what the run refuses
                general["experts"] = self.experts_tried(
                    stage.experts_of_best[0] if directory is None else best_trial(directory, self, stage)
                )
            if directory is not None and stage.pass_rate is not None:
                general["prompts"] = str(filtered_prompts(directory, self, stage))
            task = own.task or task_of_prompts(stage.method, general)
            return settings_for(stage.method, task, preset=own.preset, **general, **own.options)
        except RheostatError as error:
            raise RheostatError(f"Stage {stage.name}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """As a file says it."""
        return {"name": self.name, **plain(dict(self.shared)), "stage": [_as_table(stage) for stage in self.stages]}


def _kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a file can keep them, with whole paths, so that a recipe goes on from anywhere.

    Raises:
        RheostatError: a value that is neither text nor a number nor made of them.
    """
    found = plain(absolute(dict(settings)))
    for name, value in found.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise RheostatError(f"{name} is an object: a recipe keeps text, numbers, lists and tables, so name a file instead.") from error
    return found


def _require_names(recipe: Recipe) -> None:
    if not 1 <= len(recipe.stages) <= MOST_STAGES:
        raise RheostatError(f"A recipe has 1 to {MOST_STAGES} stages; {recipe.name} has {len(recipe.stages)}: write them as [[stage]].")
    names = [stage.name for stage in recipe.stages]
    for what, name in (("recipe", recipe.name), *(("stage", each) for each in names)):
        if not _NAME.fullmatch(name) or name == START:
            raise RheostatError(f"{name!r} cannot be the name of a {what}: take lower-case letters, digits and dashes, and not {START!r}.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RheostatError(f"Two stages are called {twice}: give each a name of its own.")
    allowed = {item.name for item in dataclasses.fields(Settings)} - {"method", "config", "from_run"} | {"task"}
    for name in recipe.shared:
        if name not in allowed:
            raise RheostatError(f"{name} is no setting of every run: put it into the stages whose methods have it.")
    domains = {table.entry(stage.method).domain for stage in recipe.stages}
    if len(domains) > 1:
        raise RheostatError("A recipe trains one model: its methods are all for control or all for language.")


def _as_table(stage: Stage) -> dict[str, Any]:
    said = {"name": stage.name, "method": stage.method}
    said |= {} if stage.begins is None else {"from": stage.begins}
    if stage.pass_rate is not None:
        said |= {"pass_rate": list(stage.pass_rate), "pass_rate_samples": stage.pass_rate_samples}  # type: ignore[dict-item]
    said |= {"experts_of_best": list(stage.experts_of_best)} if stage.experts_of_best else {}  # type: ignore[dict-item]
    return said | plain(dict(stage.settings))


def recipe_file(path: str | Path) -> Path:
    """The file of a recipe: of the user's, or else the library's of this name."""
    own, shipped = Path(path), LIBRARY / Path(path)
    return shipped if not own.exists() and len(own.parts) == 1 and shipped.is_file() else own


def library_recipes() -> list[str]:
    """Names of the library's recipes."""
    return sorted(path.name for path in LIBRARY.glob("*.toml"))


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a file.

    Args:
        path: TOML, YAML or JSON by its ending; where there is no such file, the name of a recipe of the library.

    Raises:
        RheostatError: naming the file and what is wrong with it.
    """
    try:
        return recipe_of(parsed(recipe_file(path)), Path(path).stem)
    except RheostatError as error:
        raise error if str(path) in str(error) else RheostatError(f"{path}: {error}") from error


def recipe_of(data: Mapping[str, Any], name: str = "recipe") -> Recipe:
    """The recipe that names and values say.

    Args:
        data: as a file holds them.
        name: of the recipe, where they give none.

    Raises:
        RheostatError: what is wrong.
    """
    data = dict(data)
    stages = data.pop("stage", None)
    name = data.pop("name", re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "recipe")
    if not isinstance(stages, list) or not all(isinstance(each, dict) for each in stages):
        raise RheostatError("a recipe has stages: write each as [[stage]] with a name and a method.")
    return Recipe(_text(name, "name"), tuple(_stage(dict(each), number) for number, each in enumerate(stages, 1)), data)


def _stage(said: dict[str, Any], number: int) -> Stage:
    for key in ("name", "method"):
        if key not in said:
            raise RheostatError(f"stage {number} has no {key}.")
    name, method = (_text(said.pop(key), key) for key in ("name", "method"))
    begins = said.pop("from", None)
    if begins is not None:
        begins = _text(begins, "from")
    rate, samples = said.pop("pass_rate", None), said.pop("pass_rate_samples", None)
    if rate is None and samples is not None:
        raise RheostatError(f"Stage {name}: pass_rate_samples goes with pass_rate = [LOW, HIGH].")
    if rate is not None:
        if not isinstance(rate, list | tuple) or len(rate) != 2 or not all(_is_number(each) for each in rate):
            raise RheostatError(f"Stage {name}: pass_rate is {rate!r}; write two numbers, pass_rate = [0.0, 0.5].")
        rate = (float(rate[0]), float(rate[1]))
    samples = 8 if samples is None else samples
    if not isinstance(samples, int) or isinstance(samples, bool):
        raise RheostatError(f"Stage {name}: pass_rate_samples is {samples!r}; it is a number of completions.")
    trials = said.pop("experts_of_best", [])
    if not isinstance(trials, list | tuple) or not all(isinstance(each, str) for each in trials) or len(set(trials)) != len(trials):
        raise RheostatError(f"Stage {name}: experts_of_best is {trials!r}; write the names of earlier stages, each once.")
    return Stage(name, method, said, begins, rate, samples, tuple(trials))


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise RheostatError(f"{key} is {value!r}; it must be text.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_recipe(recipe: Recipe) -> None:
    """Build the run of every stage and throw it away, so that what cannot be trained is refused before anything is spent.

    Raises:
        RheostatError: naming the stage.
    """
    found = {stage.name: recipe.settings_of(stage) for stage in recipe.stages}
    for stage in recipe.stages:
        before = recipe.before(stage)
        try:
            if before is not None and table.entry(stage.method).domain == "control":
                refuse_other_networks(Path(f"stage {before.name}"), found[before.name], found[stage.name])
            run = Run(Path(recipe.folder(stage)), found[stage.name])
            try:
                _ = run.method
            finally:
                run.close()
        except RheostatError as error:
            raise RheostatError(f"Stage {stage.name}: {error}") from error


def begin(recipe: Recipe, directory: Path) -> None:
    """Keep the recipe in its directory, or see that the directory is this recipe's.

    Raises:
        RheostatError: the directory holds something else, or cannot be written.
    """
    held = read_kept(directory)
    if held is not None:
        if held.to_json() != recipe.to_json():
            raise RheostatError(f"{directory} holds another recipe, or this one with other settings: name another directory.")
        return
    if directory.exists() and any(directory.iterdir()):
        raise RheostatError(f"{directory} is not an empty folder: name another directory.")
    check_recipe(recipe)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_fields(directory / RECIPE, {"recipe": recipe.to_json()})
    except OSError as error:
        raise RheostatError(f"Cannot write to {directory}: {error}.") from error


def read_kept(directory: str | Path) -> Recipe | None:
    """The recipe that a directory was begun with; None where it holds none.

    Raises:
        RheostatError: it is damaged.
    """
    found = read_fields(Path(directory) / RECIPE, {"recipe": dict})
    return None if found is None else recipe_of(found["recipe"])


def filtered_prompts(directory: Path, recipe: Recipe, stage: Stage) -> Path:
    """Where the prompts of a stage with a filter are kept."""
    return directory / f"{recipe.folder(stage)}-prompts.jsonl"


def best_trial(directory: Path, recipe: Recipe, stage: Stage) -> str:
    """The earlier stage whose expert rows a stage learns from: the one that ended best, the first of equals.

    Raises:
        RheostatError: one of them has measured nothing.
    """
    return best_of({name: read_record(directory / recipe.folder(recipe.named(name))).final for name in stage.experts_of_best})


def best_of(finals: Mapping[str, float]) -> str:
    """The name with the largest number, the first of equals."""
    return max(finals, key=finals.__getitem__)
