"""``rheostat train``: the options of every run, and those of the method."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import sys
import types
import typing
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro
from tyro.conf import Positional

from rheostat.buffers.repairs import Repairs
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.options import KIND, Option, find, named, options_of, short_names, with_options
from rheostat.remembered import remembered
from rheostat.terminal import json_or_text, print_json, print_table


@dataclass
class TrainOptions:
    """What every training run has."""

    task: Positional[str] = ""
    """What to train on; `rheostat list` shows what there is. Leave it out where --config names it."""
    steps: int = 100_000
    """Budget, in environment steps."""
    seed: int = 0
    """Seed of every random stream of the run."""
    directory: Path | None = None
    """Where the run is kept; by default a free name under runs/."""
    preset: str | None = None
    """Named configuration of the method (see `rheostat show METHOD`); options given here override it."""
    config: Path | None = None
    """A file of settings and options (TOML, YAML or JSON; `rheostat config METHOD` writes one), or the directory of a run; options given
    here override it."""
    checkpoint_every: int = 0
    """Budget units between checkpoints; 0 chooses a tenth of the budget."""
    evaluation_episodes: int = 10
    """Episodes of the final evaluation."""
    save_best: bool = False
    """Keep the policy of the best measurement while training (see --evaluate-every) in the folder best of the run."""
    stop_at: Annotated[tuple[str, float] | None, tyro.conf.arg(metavar="METRIC VALUE")] = None
    """End the run when a metric of such a measurement reaches a value, for example evaluation_return 450."""
    from_run: str | None = None
    """Begin with the weights of another run: its directory takes its newest policy, the folder best in it its best one."""
    environment: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Options of the task, as names and JSON values."""
    sinks: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = ()
    """Also log to these dashboards."""
    threads: int = 1
    """Torch threads."""
    json: bool = False
    """Print the result as JSON."""


@dataclass
class ControlOptions(TrainOptions):
    """Options of control runs."""

    backend: Literal["auto", "envpool", "gymnasium"] = "auto"
    """Who simulates: EnvPool where it has the id, else Gymnasium."""
    compute: Literal["plain", "auto", "fast"] = "plain"
    """Who makes the gradient steps: PyTorch, a compiled kernel where there is one (auto; needs the extra fast), or a kernel or nothing."""
    experts: str | None = None
    """Directory of a run whose policy is the expert of --dial.expert-share."""
    offline: str | None = None
    """A data set to learn from: its folder (see `rheostat dataset make`), the id of a local Minari data set, or a .hdf5 or .npz file."""
    repair: Repairs = field(default_factory=Repairs)
    online_steps: int = 0
    """Environment steps after the data set, for methods that begin with one; their --steps are gradient steps on it."""


@dataclass
class LanguageOptions(TrainOptions):
    """Options of language runs."""

    task: Positional[str] = ""
    """What to train on; leave it out where --prompts or --preferences gives a file, or --config names it."""
    steps: int = 100
    """Budget, in updates (or in generated tokens or epochs, see --budget)."""
    evaluation_episodes: int = 500
    """Validation prompts of the final evaluation."""
    threads: int = 2
    """Torch threads."""
    model: str | None = None
    """A Hugging Face folder or hub name, or a base-model recipe; by default the task's own tiny base, built once and cached."""
    prompts: str | None = None
    """A file of prompts (JSON lines or parquet) in place of the task's own."""
    preferences: str | None = None
    """A file of preference data (JSON lines or parquet) in place of prompts: prompt, chosen and rejected; prompt, completion and label;
    prompt, completions and ranks (or scores)."""
    unusable: Literal["error", "drop"] = "error"
    """A row of preferences with two equal answers, or one that is too long, is an error, or is left out and counted (drop)."""
    reference: str | None = None
    """A Hugging Face folder with the model that log-ratios and KLs are measured to; by default the starting model."""
    reward: tuple[str, ...] = ()
    """Reward functions as FILE.py:NAME, in the form of TRL or verl, unchanged; by default the task's own verifier."""
    judge: str | None = None
    """A judge of pairs as FILE.py:NAME: a reward function that is given the other answer in the column `other` and returns how likely the
    completion is the better one. Both orders are asked. It says who wins against the start, and with --compare-by judge what is learned."""
    reward_needs: tuple[Literal["environment", "network", "files", "programs", "state"], ...] = ()
    """What those functions opt out of, because they need it; each but the environment takes the sandbox down to the level process."""
    sandbox: Literal["best", "require", "off", "process", "kernel", "namespaces"] = "best"
    """The walls around graders: the strongest that hold here, at least the kernel's or a refusal, none, or a level by name."""
    reward_weights: tuple[float, ...] = ()
    """One weight for each reward; by default 1 each, and 0 only watches."""
    reward_timeout: float | None = None
    """Seconds a reward may take; by default 30 for a sample and 300 for a call with a whole batch."""
    reward_calls: Literal["batch", "single"] = "batch"
    """Ask a function of lists for the whole batch, and never for a part of it, or for one completion at a time (single)."""
    reward_text: Literal["plain", "special"] = "plain"
    """What rewards read: text without special tokens, or with them (tags that are tokens)."""
    long: Literal["error", "drop"] = "error"
    """A prompt that is too long is an error before training, or is left out and counted (drop)."""
    device: str = "cpu"
    """Where the model lives: cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model's weights."""
    adapter_rank: int = 0
    """Train LoRA adapters of this rank instead of the whole model; 0 trains everything, or the adapters that the model's folder holds."""
    adapter_alpha: float | None = None
    """Scale of new adapters; by default twice the rank."""
    adapter_targets: tuple[str, ...] = ()
    """Modules that get new adapters, by the end of their names; by default every linear one but the head."""
    adapter_dropout: float = 0.0
    """Share of what adapters read that is dropped while gradients are computed, and never while the policy samples or is scored."""
    export: Literal["merged", "adapters"] = "merged"
    """Export the model with its adapters merged into it, or the adapters alone."""
    recompute: bool = False
    """Gradient checkpointing: less memory, a third more computing (Llama family)."""
    engine: Literal["embedded", "continuous"] = "embedded"
    """Who samples: our engine, or transformers' continuous batching (whose runs do not repeat exactly)."""
    rollouts_kept: int = 64
    """Completions stored per update, for inspection."""
    experts: str | None = None
    """A file of expert rows (JSON lines or parquet): prompt and completion, as text or chat messages; by default the completions of the
    prompts' own rows, or the task's expert."""
    expert_missing: Literal["error", "skip", "task"] = "error"
    """A prompt without an expert row is an error, is never drawn (skip), or is answered by the task's own expert (task)."""
    expert_long: Literal["error", "drop"] = "error"
    """An expert row that is longer than a completion may be is an error, or is left out and counted (drop)."""
    expert_least_reward: float | None = None
    """Leave out expert rows to which the verifier gives less than this reward."""


@dataclass
class CompressionOptions(TrainOptions):
    """Options of runs that compress a network."""

    task: Positional[str] = ""
    """The images, as --data says; leave it out where --data does, or --config names it."""
    steps: int = 200
    """Budget, in epochs of the search."""
    evaluation_episodes: int = 1
    """0 leaves out the final measurement, on all test images."""
    data: str | None = None
    """What the network tells apart: digits, shapes, or a .npz file with images x and classes y (or x_train, y_train, x_test, y_test)."""
    teacher: str = "plain"
    """The network to compress: plain, residual or small (trained once and cached), a module of yours as FILE.py:NAME, or the folder of a
    saved network."""
    controller: str | None = None
    """A run whose controllers this one begins with, trained on another (smaller) teacher; the same as --from-run."""


BASES: dict[str, type[TrainOptions]] = {"control": ControlOptions, "language": LanguageOptions, "compression": CompressionOptions}
"""Options of every run of a domain."""


@dataclass(frozen=True)
class Start:
    """Where the options of a command line begin."""

    name: str
    """Of the method."""
    preset: str | None = None
    """Of the method; None where the command line names none."""
    file: Path | None = None
    """A configuration file."""

    @property
    def base(self) -> type[TrainOptions]:
        """Options of every run of its domain."""
        return BASES[table.entry(self.name).domain]

    @cached_property
    def config(self) -> Any:
        """The method's configuration with the preset and the file filled in.

        Raises:
            RheostatError: unknown method or preset, or what is wrong with the file.
        """
        from rheostat.training.config_file import read_config
        from rheostat.training.settings import by_path, configure

        if self.file is None:
            return configure(self.name, {}, preset=self.preset)
        read = read_config(self.file, self.name)
        start = configure(self.name, {}, preset=self.preset or read.preset)
        return with_options(start, by_path(self.name, start, read.options), self.name)

    def hidden(self, kinds: Mapping[str, str]) -> set[str]:
        """Paths of options that every value but the default is refused for, with these kinds of parts.

        Empty where these kinds alone do not go together: what else is said may make them, and is checked when the run is made.
        """
        from rheostat.training.settings import configure, shown_options

        config = with_options(configure(self.name, {}, preset=self.preset), dict(kinds), self.name)
        try:
            shown = shown_options(self.name, config)
        except RheostatError:
            return set()
        return {each.path for each in options_of(config)} - {each.path for each in shown}


def train_command(start: Start, kinds: Mapping[str, str] | None = None) -> type:
    """The options of ``rheostat train NAME``: those of every run, and ``--part.option`` or the short name where it is unique.

    Args:
        start: where they begin.
        kinds: chosen rules of parts that are one of several; they decide which options there are.
    """
    name, base, row = start.name, start.base, table.entry(start.name)
    hidden = start.hidden(kinds or {})
    options = [each for each in options_of(with_options(start.config, kinds or {}, name)) if each.path not in hidden]
    taken = {item.name for item in dataclasses.fields(base)}
    shorts = {path: short for short, path in short_names(options).items() if short not in taken}
    fields: list[Any] = []
    for each in options:
        aliases = tuple("--" + shorts[each.path].replace("_", "-") for _ in (0,) if each.path in shorts)
        argument = tyro.conf.arg(name=each.path, help=each.documentation or None, aliases=aliases or None)
        fields.append((each.path.replace(".", "__"), Annotated[plain_type(each.hint), argument], field(default=each.value)))

    def run(self: Any) -> None:
        from rheostat import api

        given: frozenset[str] = getattr(self, "given", frozenset())
        general = {item.name: getattr(self, item.name) for item in dataclasses.fields(base) if item.name != "json"}
        if self.config is not None:  # the file says what is not given here
            said = given | {name.partition(".")[0] for name in given}
            general = {key: value for key, value in general.items() if key in said or key in ("config", "task")}
        if "repair" in general:
            general["repair"] = general["repair"].asked
        if "environment" in general:
            general["environment_options"] = {key: json_or_text(value) for key, value in general.pop("environment").items()}
        if "reward" in general:
            general["rewards"] = general.pop("reward")
        method = {}
        for each in options:
            value = getattr(self, each.path.replace(".", "__"))
            if value != each.value or given & set(each.names):  # a preset fills in the rest
                method[each.path] = value
        announce(api.train(name, general.pop("task") or None, **general, **method), json=self.json)

    namespace = {"run": run, "__doc__": f"{row.title}. `rheostat show {name}` explains the method."}
    return dataclasses.make_dataclass(f"Train{name.title().replace('-', '')}", fields, bases=(base,), namespace=namespace)


def plain_type(hint: Any) -> Any:
    """The type of an option as the command line reads it: numbers where code also takes tensors."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint
    kinds = [each for each in typing.get_args(hint) if not getattr(each, "__module__", "").startswith("torch")]
    return Union[tuple(kinds)] if len(kinds) > 1 else kinds[0]  # noqa: UP007 (built at run time)


def in_paths(start: Start, words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words with every name of an option as its path (``--mu-peak`` as ``--mu.peak``), and the kinds that they choose, by path.

    Args:
        start: where the options begin.
        words: of the command line.

    Raises:
        RheostatError: an option that the method does not have, with what to say instead, or a kind that is chosen twice.
    """
    from rheostat.training.settings import configure

    name, general = start.name, {item.name for item in dataclasses.fields(start.base)}
    kinds = chosen_kinds(name, start.config, words, general)
    config = with_options(start.config, kinds, name)
    options, hidden = options_of(config), start.hidden(kinds)
    found = []
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        plain = option_name(flag)
        if plain is None or plain in general or plain.removeprefix("no_") in general or plain.startswith("repair."):
            found.append(word)
            continue
        path, negated = path_of(plain, options, name)
        value_said = value if equals else next(iter(words[index + 1 :]), "")
        if path is None:
            raise no_such_flag(name, config, plain, value_said, general)
        if path in hidden:
            configure(name, kinds | {path: json_or_text(value_said)}, preset=start.preset)  # says why it is not for this method
            raise RheostatError(f"--{path} can only be what it is in {name}: leave it out.")
        part, dot, last = path.rpartition(".")
        found.append(f"--{part}{dot}{'no-' if negated else ''}{last}".replace("_", "-") + equals + value)
    return found, kinds


def option_name(word: str) -> str | None:
    """The name of an option that a word of the command line gives; None for other words and for those that every command has."""
    flag = word.partition("=")[0]
    plain = flag[2:].replace("-", "_") if flag.startswith("--") else ""
    return plain if plain and plain != "help" and not plain.startswith("tyro_") else None


def path_of(plain: str, options: list[Option], who: str) -> tuple[str | None, bool]:
    """The path of an option on the command line, and whether its name says that it is off (``no_name``, ``part.no_name``)."""
    part, dot, last = plain.rpartition(".")
    for name, negated in ((plain, False), (part + dot + last.removeprefix("no_"), True)):
        path = find(name, options, who)
        if path is not None:
            return path, negated
    return None, False


def chosen_kinds(name: str, config: Any, words: list[str], general: set[str]) -> dict[str, str]:
    """The kinds of parts that words of the command line choose, by path.

    Raises:
        RheostatError: one that is chosen twice.
    """
    given = []
    for index, word in enumerate(words):
        plain = option_name(word)
        if plain is not None and plain not in general:
            given.append((plain, word.partition("=")[2] if "=" in word else next(iter(words[index + 1 :]), "")))
    found = named(config, dict(given), name).kinds
    for path in found:
        flags = [plain for plain, _ in given if plain in (path, path.replace(".", "_"), path.removesuffix("." + KIND))]
        if len(flags) > 1:
            raise RheostatError(f"{name}: {path} is given twice, as {' and as '.join(flags)}: leave one out.")
    return found


def no_such_flag(name: str, config: Any, plain: str, value: str, general: set[str]) -> RheostatError:
    """The sentence for a flag that ``rheostat train NAME`` does not have."""
    from rheostat.training.unknown_options import no_such_option

    domain = table.entry(name).domain
    others = {item.name for other, base in BASES.items() if other != domain for item in dataclasses.fields(base)}
    if plain in others - general:
        return RheostatError(f"--{plain.replace('_', '-')} is not for {domain} methods, of which {name} is one: leave it out.")
    return no_such_option(name, config, plain, value, beside=tuple(general))


def announce(run: Any, *, json: bool = False) -> None:
    """Print what a finished run found, as a table or as JSON."""
    if json:
        print_json({"directory": run.directory, "method": run.settings.method, "task": run.settings.task, **run.summary})
        return
    said = run.summary.get("warnings", [])
    numbers = {name: value for name, value in run.summary.items() if name != "warnings"}
    rows = in_words(numbers)
    print_table(f"{run.settings.method} on {run.settings.task}, seed {run.settings.seed}", ["result", "value"], rows, numbers=["value"])
    for sentence in said:
        print(f"Note: {sentence}")
    print(f"Report: {run.directory / 'report.html'}   Curves: {run.directory / 'curves.png'}")


def in_words(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table: what was measured, in words, and its value."""
    from rheostat.analysis.metrics import describe

    def text(value: Any) -> str:
        return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)

    return [(describe(name).label.lower(), text(value)) for name, value in result.items()]


RECIPES = (".toml", ".yaml", ".yml", ".json")
"""Endings of files of recipes."""


@dataclass
class TrainRecipe:
    """Train the stages of a recipe, one after the other; the same command, or `rheostat resume`, goes on where it stopped."""

    recipe: Positional[Path]
    """The file, in TOML, YAML or JSON; or the name of a recipe of the library, such as light-r1.toml."""
    directory: Path | None = None
    """Where everything is kept; by default a free name under runs/."""
    sinks: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = ()
    """Also log to these dashboards."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from rheostat import api

        announce_recipe(api.train_recipe(self.recipe, self.directory, sinks=self.sinks), json=self.json)


def announce_recipe(found: Any, *, json: bool = False) -> None:
    """Print what the stages of a recipe found, as a table or as JSON."""
    from rheostat.reporting.recipe_report import print_recipe

    if json:
        print_json({"directory": found.directory, "stages": found.stages, "totals": found.totals})
        return
    print_recipe(found.stages, found.directory)
    last = found.directory / found.recipe.folder(found.recipe.stages[-1])
    print(f"Report: {found.directory / 'report.html'}   Run of the last stage: {last}")


def parse_training(words: list[str]) -> Any:
    """The command object for the words after ``rheostat train``.

    Raises:
        RheostatError: unknown method or preset, with the nearest known one.
    """
    if not words or words[0] in ("-h", "--help"):
        print(train_help())
        sys.exit(0)
    if Path(words[0]).suffix in RECIPES:
        return tyro.cli(TrainRecipe, args=words, prog="rheostat train")
    if words[0].startswith("-"):
        raise RheostatError("Say which method to train before any option: rheostat train METHOD TASK [options].")
    name = words[0]
    table.entry(name)
    if words[1:] in (["-h"], ["--help"]) and table.of_the_library(name):
        print(method_help(name), end="")
        sys.exit(0)
    return typed_training(name, words)


def typed_training(name: str, words: list[str]) -> Any:
    """The command object for the words of ``rheostat train``, of which the first is the name of the method.

    Raises:
        RheostatError: unknown preset, an option that the method does not have, a file of options that does not fit.
    """
    file = value_of("--config", words)
    start = Start(name, value_of("--preset", words), None if file is None else Path(file))
    words, kinds = in_paths(start, words)
    training: Any = tyro.cli(train_command(start, kinds), args=words[1:], prog=f"rheostat train {name}")
    flags = (word.partition("=")[0][2:].replace("-", "_") for word in words if word.startswith("--"))
    training.given = frozenset(name for flag in flags for name in (flag, flag.removeprefix("no_"), flag.replace(".no_", ".")))
    return training


def method_help(name: str) -> str:
    """What ``rheostat train NAME --help`` says on this terminal; remembered, because composing a method loads all that computes."""

    def printed() -> str:
        said = _SameTerminal()
        with redirect_stdout(said), suppress(SystemExit):
            typed_training(name, [name, "--help"])
        return said.getvalue()

    variables = [os.environ.get(each) for each in ("TERM", "NO_COLOR", "FORCE_COLOR")]
    shown = [shutil.get_terminal_size().columns, sys.stdout.isatty(), sys.stdout.encoding, *variables]
    return str(remembered(f"help-{name}-{hashlib.sha256(repr(shown).encode()).hexdigest()[:8]}", printed))


class _SameTerminal(io.StringIO):
    """Text that is kept, written as for the standard output: with its colours or without, in its letters."""

    def __init__(self) -> None:
        super().__init__()
        self._is_terminal, self._encoding = sys.stdout.isatty(), sys.stdout.encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._is_terminal


def train_help() -> str:
    """What ``rheostat train`` says without a method."""
    from rheostat.experiments.recipe import library_recipes

    lines = ["usage: rheostat train METHOD TASK [options]", "       rheostat train RECIPE.toml [--directory DIRECTORY]", ""]
    lines += ["Train a method on a task, or the stages of a recipe.", ""]
    width = max(map(len, table.METHODS)) + 2
    for domain, what in (("control", "Control"), ("language", "Language models"), ("compression", "Compression")):
        lines += [f"{what}:", *(f"  {name:<{width}}{row.title}" for name, row in table.METHODS.items() if row.domain == domain), ""]
    lines += [f"Recipes: {', '.join(library_recipes())} (`rheostat show RECIPE.toml` prints one)", ""]
    lines += [
        "`rheostat train METHOD --help` lists the options of a method, `rheostat show METHOD` explains it, `rheostat list` lists tasks."
    ]
    return "\n".join(lines)


def value_of(flag: str, words: list[str]) -> str | None:
    """What follows a flag on the command line, or None; the last counts."""
    found = None
    for index, word in enumerate(words):
        if word == flag and index + 1 < len(words):
            found = words[index + 1]
        elif word.startswith(flag + "="):
            found = word.partition("=")[2]
    return found
