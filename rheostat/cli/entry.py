"""The command line: ``rheostat COMMAND ...``. Every command is a small dataclass whose fields are its options."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from rheostat.cli.datasets import Dataset
from rheostat.cli.disagreement import Disagree
from rheostat.cli.language_models import Export
from rheostat.cli.microscope import Microscope
from rheostat.cli.offline_evaluation import OffPolicyEvaluation
from rheostat.cli.studies import Claims, StudyCommand
from rheostat.errors import RheostatError, unknown
from rheostat.methods import table
from rheostat.options import KIND, options_of, short_names, with_options
from rheostat.terminal import json_or_text, print_json, print_table


@dataclass
class List:
    """List the methods and the tasks, with what has been verified."""

    tasks: bool = False
    """List every task id too (over a thousand)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        rows = [
            {"method": name, "domain": row.domain, "title": row.title, "paper": row.paper, "verified": row.verified}
            for name, row in table.METHODS.items()
        ]
        from rheostat.tasks.control.environment_list import known_tasks

        families = known_tasks() | {"language": language_ids()}
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
        from rheostat.training.describe import settings_of

        row = table.entry(self.method)
        settings = settings_of(self.method)
        presets = getattr(row.load(), "presets", {})
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
        for name, values in presets.items():
            print(f"--preset {name}: " + ", ".join(f"{key}={value}" for key, value in values.items()))


@dataclass
class TrainOptions:
    """What every training run has."""

    task: Positional[str]
    """What to train on; `rheostat list` shows what there is."""
    steps: int = 100_000
    """Budget, in environment steps."""
    seed: int = 0
    """Seed of every random stream of the run."""
    directory: Path | None = None
    """Where the run is kept; by default a free name under runs/."""
    preset: str | None = None
    """Named configuration of the method (see `rheostat show METHOD`); options given here override it."""
    checkpoint_every: int = 0
    """Budget units between checkpoints; 0 chooses a tenth of the budget."""
    evaluation_episodes: int = 10
    """Episodes of the final evaluation."""
    environment: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Options of the task, as names and JSON values."""
    sinks: tuple[Literal["tensorboard", "trackio"], ...] = ()
    """Also log to these dashboards."""
    threads: int = 1
    """Torch threads."""


@dataclass
class ControlOptions(TrainOptions):
    """Options of control runs."""

    backend: Literal["auto", "envpool", "gymnasium"] = "auto"
    """Who simulates: EnvPool where it has the id, else Gymnasium."""
    experts: str | None = None
    """Directory of a run whose policy is the expert of --dial.expert-share."""
    offline: str | None = None
    """A data set to learn from: its folder (see `rheostat dataset make`), or the id of a local Minari data set."""
    online_steps: int = 0
    """Environment steps after the data set, for methods that begin with one; their --steps are gradient steps on it."""


@dataclass
class LanguageOptions(TrainOptions):
    """Options of language runs."""

    task: Positional[str] = ""
    """What to train on; leave it out where --prompts gives a file."""
    steps: int = 100
    """Budget, in updates (or in generated tokens, see --budget)."""
    evaluation_episodes: int = 500
    """Validation prompts of the final evaluation."""
    threads: int = 2
    """Torch threads."""
    model: str | None = None
    """A Hugging Face folder or hub name, or a base-model recipe; by default the task's own tiny base, built once and cached."""
    prompts: str | None = None
    """A file of prompts (JSON lines or parquet) in place of the task's own."""
    reward: tuple[str, ...] = ()
    """Reward functions as FILE.py:NAME, in the form of TRL or verl, unchanged; by default the task's own verifier."""
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
    export: Literal["merged", "adapters"] = "merged"
    """Export the model with its adapters merged into it, or the adapters alone."""
    recompute: bool = False
    """Gradient checkpointing: less memory, a third more computing (Llama family)."""
    engine: Literal["embedded", "continuous"] = "embedded"
    """Who samples: our engine, or transformers' continuous batching (whose runs do not repeat exactly)."""
    rollouts_kept: int = 64
    """Completions stored per update for looking at."""
    experts: str | None = None
    """A file of expert rows (JSON lines or parquet): prompt and completion, as text or chat messages; by default the completions of the
    prompts' own rows, or the task's expert."""
    expert_missing: Literal["error", "skip", "task"] = "error"
    """A prompt without an expert row is an error, is never drawn (skip), or is answered by the task's own expert (task)."""
    expert_long: Literal["error", "drop"] = "error"
    """An expert row that is longer than a completion may be is an error, or is left out and counted (drop)."""
    expert_least_reward: float | None = None
    """Leave out expert rows to which the verifier gives less than this reward."""


def train_command(name: str, preset: str | None = None, kinds: Mapping[str, str] | None = None) -> type:
    """The options of ``rheostat train NAME``: those of every run and those of the method, a preset filled in.

    Args:
        name: of the method.
        preset: of the method.
        kinds: chosen rules of parts that are one of several; they decide which options there are.
    """
    from rheostat.training.settings import configure

    row = table.entry(name)
    base = ControlOptions if row.domain == "control" else LanguageOptions
    config = configure(name, {}, preset=preset)
    return composed_command(name, row, base, config, kinds or {})


def composed_command(name: str, row: Any, base: type, config: Any, kinds: Mapping[str, str]) -> type:
    """The options of ``rheostat train NAME`` for a method of parts: ``--part.option``, or the short name where it is unique.

    Args:
        name: of the method.
        row: of the table of methods.
        base: options of every run of its domain.
        config: the method's dataclass object, a preset filled in.
        kinds: see :func:`train_command`.
    """
    from rheostat.training.settings import shown_options

    hidden = {each.path for each in options_of(config)} - {each.path for each in shown_options(name, config)}
    options = [each for each in options_of(with_options(config, kinds, name)) if each.path not in hidden]
    taken = {item.name for item in dataclasses.fields(base)}
    shorts = {path: short for short, path in short_names(options).items() if short not in taken}
    fields: list[Any] = []
    for each in options:
        aliases = tuple("--" + shorts[each.path].replace("_", "-") for _ in (0,) if each.path in shorts)
        argument = tyro.conf.arg(name=each.path, help=each.documentation or None, aliases=aliases or None)
        fields.append((each.path.replace(".", "__"), Annotated[plain_type(each.hint), argument], field(default=each.value)))

    def run(self: Any) -> None:
        from rheostat import api

        general = {item.name: getattr(self, item.name) for item in dataclasses.fields(base)}
        general["environment_options"] = {key: json_or_text(value) for key, value in general.pop("environment").items()}
        if "reward" in general:
            general["rewards"] = general.pop("reward")
        given: frozenset[str] = getattr(self, "given", frozenset())
        method = {}
        for each in options:
            value = getattr(self, each.path.replace(".", "__"))
            if value != each.value or given & {each.path, each.path.replace(".", "_"), each.short}:  # a preset fills in the rest
                method[each.path] = value
        _announce(api.train(name, general.pop("task") or None, **general, **method))

    namespace = {"run": run, "__doc__": f"{row.title}. `rheostat show {name}` explains the method."}
    return dataclasses.make_dataclass(f"Train{name.title().replace('-', '')}", fields, bases=(base,), namespace=namespace)


def plain_type(hint: Any) -> Any:
    """The type of an option as the command line reads it: numbers where code also takes tensors."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint
    kinds = [each for each in typing.get_args(hint) if each in (int, float, str, bool) or each is type(None)]
    return Union[tuple(kinds)] if len(kinds) > 1 else kinds[0]  # noqa: UP007 (built at run time)


def _announce(run: Any) -> None:
    said = run.summary.get("remarks", [])
    numbers = {name: value for name, value in run.summary.items() if name != "remarks"}
    rows = [(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}") for name, value in numbers.items()]
    print_table(f"{run.settings.method} on {run.settings.task}, seed {run.settings.seed}", ["result", "value"], rows, numbers=["value"])
    for sentence in said:
        print(f"Note: {sentence}")
    print(f"Report: {run.directory / 'report.html'}   Curves: {run.directory / 'curves.png'}")


@dataclass
class Resume:
    """Continue an interrupted run, exactly as if it had never stopped."""

    run_directory: Positional[Path]
    """Directory of the run, or of a comparison or sweep."""
    sinks: tuple[Literal["tensorboard", "trackio"], ...] = ()
    """Also log to these dashboards."""

    def run(self) -> None:
        from rheostat import api
        from rheostat.experiments.comparison import read_manifest

        manifest = read_manifest(self.run_directory)
        if manifest is not None:  # a comparison or a sweep: the command that began it continues it
            parse([*shlex.split(manifest["command"])[1:], "--directory", str(self.run_directory)]).run()
            return
        _announce(api.resume(self.run_directory, sinks=self.sinks))


@dataclass
class Evaluate:
    """Evaluate a run's policy: control by deterministic actions in fresh environments, language by samples on the validation split."""

    run_directory: Positional[Path | None] = None
    """Directory of the run; leave it out where --model names a model that no run has trained."""
    model: str | None = None
    """Language: a Hugging Face folder, hub name or base-model recipe to measure as it is: a baseline."""
    task: str | None = None
    """With --model: the task; or leave it out and give --prompts."""
    prompts: Path | None = None
    """With --model: a file of prompts; a twentieth of them is validated on, or what --environment validation_share says."""
    reward: tuple[str, ...] = ()
    """With --model: reward functions, as for training."""
    environment: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """With --model: options of the task, as names and JSON values."""
    max_new_tokens: int = 0
    """With --model: longest completion in tokens; 0 takes the task's own limit."""
    temperature: float = 1.0
    """With --model: sampling temperature."""
    device: str = "cpu"
    """With --model: cpu or cuda."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """With --model: precision of the model's weights."""
    episodes: int | None = None
    """Number of episodes (20) or, for language, of validation prompts (200); at least 1."""
    samples: int = 4
    """Language: completions per prompt; pass@k is known up to this k."""
    threshold: float = 1.0
    """Language: smallest reward that counts as right."""
    answers: str | None = None
    """Language: how to find the answer for the majority vote (whole, hash, tag, boxed, ...); by default as the grader does."""
    sandbox: Literal["best", "require", "off", "process", "kernel", "namespaces"] | None = None
    """Language: the walls around graders; by default the run's own setting."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat import api

        if self.episodes is not None and self.episodes < 1:
            raise RheostatError(f"--episodes is {self.episodes}: evaluate at least 1.")
        if self.model is not None:
            if self.run_directory is not None:
                raise RheostatError("A run and a --model are two things to evaluate: name one of them.")
            self.language(self.baseline(self.model))
            return
        if self.run_directory is None:
            raise RheostatError("Say what to evaluate: the directory of a run, or a model with --model.")
        ignored = [name for name in ("task", "prompts", "reward", "environment", "max_new_tokens") if getattr(self, name)]
        if ignored:
            raise RheostatError(f"--{ignored[0].replace('_', '-')} goes with --model: a run is evaluated on its own task.")
        run = api.load(self.run_directory, sandbox=self.sandbox)
        for note in run.notes:
            print(note, file=sys.stderr)
        if self.sandbox is not None and table.entry(run.settings.method).domain != "language":
            raise RheostatError(f"--sandbox is for graders of language runs: {run.settings.method} has none.")
        if table.entry(run.settings.method).domain == "language":
            self.language(run)
            return
        result = {"run": str(self.run_directory), "steps": run.method.steps} | run.method.evaluate(self.episodes or 20)
        if self.json:
            print_json(result)
        else:
            print_table("Evaluation", ["result", "value"], list(result.items()), numbers=["value"])

    def baseline(self, model: str) -> Any:
        """The model as a run that has not trained."""
        from rheostat.cli.language_models import baseline

        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature}
        options |= {"device": self.device, "dtype": self.dtype, "sandbox": self.sandbox or "best"}
        environment = {key: json_or_text(value) for key, value in self.environment.items()}
        return baseline(model, self.task, self.prompts, self.reward, environment, **options)

    def language(self, run: Any) -> None:
        """Evaluate a language run."""
        from rheostat.experiments.language_runs import evaluate_language, result_rows
        from rheostat.training.sandboxing import weaker_here

        if self.run_directory is not None and (less := weaker_here(self.run_directory, run.method)):
            print(f"Note: {less}.", file=sys.stderr)

        summary = evaluate_language(run, self.episodes or 200, self.samples, threshold=self.threshold, answers=self.answers)
        rows = result_rows(summary)
        prompts = summary.pass_at[1].n
        run.close()
        if self.json:
            facts = {"run": str(self.run_directory or self.model), "steps": run.method.steps, "prompts": prompts, "samples": self.samples}
            print_json(facts | {"results": rows})
            return

        def interval(row: dict[str, Any]) -> str:
            return "" if row["low"] is None else f"[{row['low']:.4g}, {row['high']:.4g}]"

        title = f"{self.model or run.settings.method} on {run.settings.task}: {prompts} validation prompts, {self.samples} completions each"
        cells = [(row["result"], f"{row['estimate']:.4g}", interval(row)) for row in rows]
        print_table(title, ["result", "estimate", "95 % interval"], cells, numbers=["estimate"])


@dataclass
class Compare:
    """Train several methods over several seeds at equal budget, in parallel, and compare them."""

    methods: Positional[tuple[str, ...]]
    """Names of methods; the first is the one the others are compared with."""
    task: str
    """Any EnvPool or Gymnasium id."""
    seeds: int = 8
    """Runs per method: fewer than 8 are a pilot, and verdicts are given after 8, 12, 16 and 24."""
    steps: int = 100_000
    """Budget of every run."""
    margin: float | None = None
    """Difference of final values below which nothing matters; can be given only before the first run."""
    jobs: int = 0
    """Runs at a time; 0 takes one per core."""
    directory: Path | None = None
    """Where the runs are kept; naming an unfinished comparison continues it."""
    options: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Settings shared by every arm, as names and JSON values, e.g. --options sampling_error_every 2."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat import api

        options = {key: json_or_text(value) for key, value in self.options.items()}
        result = api.compare(
            list(self.methods),
            self.task,
            seeds=self.seeds,
            steps=self.steps,
            margin=self.margin,
            jobs=self.jobs or None,
            directory=self.directory,
            **options,
        )
        if self.json:
            print_json(result.rows())
        else:
            api.show(result)


@dataclass
class SweepDial:
    """Settings to try; exactly one of these gets several."""

    lag: tuple[int, ...] = ()
    """Updates between the policy that samples and the one that learns."""
    replay_share: tuple[float, ...] = ()
    """Share of every training batch drawn from earlier ones."""
    replay_age: tuple[int, ...] = ()
    """Oldest data that may be replayed, in updates."""
    expert_share: tuple[float, ...] = ()
    """Share of every training batch that an expert made."""
    updates_per_batch: tuple[int, ...] = ()
    """Gradient steps on every batch."""


@dataclass
class Sweep:
    """Train a method at several settings of the dial and draw its result against them: --dial.lag 0 1 4 16."""

    method: Positional[str]
    """Name of the method."""
    task: Positional[str]
    """What to train on."""
    dial: SweepDial = field(default_factory=SweepDial)
    """What to turn."""
    seeds: int = 3
    """Runs per setting: fewer than 8 are a pilot, and verdicts are given after 8, 12, 16 and 24."""
    steps: int | None = None
    """Budget of every run: environment steps (100,000) or, for language, updates (60)."""
    margin: float | None = None
    """Difference of final values below which nothing matters; can be given only before the first run."""
    jobs: int = 0
    """Runs at a time; 0 takes one per core."""
    directory: Path | None = None
    """Where the runs are kept; naming an unfinished sweep continues it."""
    options: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Settings of the method and of the runs, as names and JSON values, the same everywhere."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat import api

        options = {key: json_or_text(value) for key, value in self.options.items()}
        steps = self.steps or (100_000 if table.entry(self.method).domain == "control" else 60)
        dial = {name: values for name, values in dataclasses.asdict(self.dial).items() if values}
        result = api.sweep(
            self.method,
            self.task,
            dial=dial,
            seeds=self.seeds,
            steps=steps,
            margin=self.margin,
            jobs=self.jobs or None,
            directory=self.directory,
            **options,
        )
        if self.json:
            print_json(result.rows())
        else:
            api.show(result)


@dataclass
class Demo:
    """PPO, PPO-Buffer and PROPS side by side on CartPole-v1: a table, a picture and a report in under three minutes."""

    seeds: int = 3
    """Runs per method."""
    steps: int = 25_000
    """Environment steps of every run."""
    directory: Path | None = None
    """Where the runs are kept; naming an unfinished demo continues it."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        shared = {"batch_steps": 1024, "minibatches": 16, "learning_rate": 1e-3, "sampling_error_every": 2}
        options = {name: json.dumps(value) for name, value in shared.items()}
        Compare(
            ("ppo", "ppo-buffer", "props"),
            "CartPole-v1",
            seeds=self.seeds,
            steps=self.steps,
            directory=self.directory,
            options=options,
            json=self.json,
        ).run()


@dataclass
class Report:
    """Write one self-contained HTML page about runs, comparisons or studies."""

    paths: Positional[tuple[Path, ...]]
    """Directories of runs or comparisons, or names of studies."""
    output: Path = Path("report.html")
    """The page to write."""
    figures: bool = False
    """Also draw the figures of every path beside the page, as PNG and SVG."""

    def run(self) -> None:
        from rheostat.analysis.records import find_runs
        from rheostat.reporting.figures import draw_figures
        from rheostat.reporting.report import study_result, write_report
        from rheostat.reporting.rollouts import rollouts_section

        paths = [path for path in self.paths if study_result(path) is None]
        runs = find_runs(paths) if paths else []
        section = rollouts_section(runs[0]) if len(runs) == 1 else None
        print(f"Report: {write_report(list(self.paths), self.output, sections=[section] if section else [])}")
        if self.figures:
            print("Figures: " + ", ".join(str(path) for path in draw_figures(self.paths, self.output)))


@dataclass
class Rollouts:
    """Show what a language model wrote in training: prompts, completions, rewards, and every token coloured by its advantage."""

    run_directory: Positional[Path]
    """Directory of the run."""
    update: int | None = None
    """Which update; by default the newest that was kept."""
    rows: int = 8
    """Completions shown at most."""
    json: bool = False
    """Print JSON, with the numbers of every token."""

    def run(self) -> None:
        from rheostat.reporting.rollouts import choose, print_rollouts, read_rollouts

        if self.rows < 1:
            raise RheostatError(f"--rows is {self.rows}: show at least 1.")
        if self.json:
            update, rows = read_rollouts(self.run_directory, self.update)
            print_json({"update": update, "rollouts": choose(rows, self.rows)})
        else:
            print_rollouts(self.run_directory, self.update, self.rows)


@dataclass
class BaseModel:
    """Build or list the tiny base models of the language tasks: `base-model build NAME`, `base-model list`."""

    action: Positional[Literal["build", "list"]]
    """Build a model (unless the cache has it), or list the recipes."""
    name: Positional[str] = ""
    """Recipe to build."""
    cache: Path | None = None
    """Folder to cache in; by default $RHEOSTAT_CACHE, else the user's cache folder."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.tasks.language.base_models import build_base_model, facts_of
        from rheostat.tasks.language.recipes import BASE_RECIPES, base_recipe

        if self.action == "build":
            if not self.name:
                raise RheostatError(f"Say which base model to build: {', '.join(BASE_RECIPES)}.")
            recipe = base_recipe(self.name)
            build_base_model(recipe, self.cache, progress=not self.json)
            if self.json:
                print_json(facts_of(recipe, self.cache))
            return
        rows = [facts_of(recipe, self.cache) for recipe in BASE_RECIPES.values()]
        if self.json:
            print_json(rows)
            return
        cells = [
            (
                row["name"],
                row["digest"],
                "yes" if row["built"] else "no",
                "" if row["accuracy"] is None else f"{row['accuracy']:.2f}",
                row["path"],
            )
            for row in rows
        ]
        print_table("Base models", ["recipe", "content hash", "built", "accuracy", "where"], cells, numbers=["accuracy"])


@dataclass
class Doctor:
    """Check the installation: versions, devices, and which extras are missing."""

    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat.training.doctor import examine

        rows = examine()
        if self.json:
            print_json(rows)
        else:
            print_table("Doctor", ["part", "found", "remark"], [list(row.values()) for row in rows])


@dataclass
class Completion:
    """Print a shell completion script: `eval "$(rheostat completion bash)"`."""

    shell: Positional[Literal["bash", "zsh", "tcsh"]]
    """Your shell."""

    def run(self) -> None:
        tyro.cli(_everything(), prog="rheostat", args=["--tyro-print-completion", self.shell])


COMMANDS: dict[str, Any] = {
    "list": List,
    "show": Show,
    "train": None,
    "resume": Resume,
    "evaluate": Evaluate,
    "export": Export,
    "compare": Compare,
    "sweep": Sweep,
    "study": StudyCommand,
    "claims": Claims,
    "demo": Demo,
    "report": Report,
    "rollouts": Rollouts,
    "microscope": Microscope,
    "disagree": Disagree,
    "base-model": BaseModel,
    "dataset": Dataset,
    "ope": OffPolicyEvaluation,
    "doctor": Doctor,
    "completion": Completion,
}


def _train_union() -> Any:
    """``train`` with one subcommand per method."""
    return Union[tuple(Annotated[train_command(name), tyro.conf.subcommand(name)] for name in table.METHODS)]  # noqa: UP007 (built at run time)


def _everything() -> Any:
    """All commands in one parser: for the top-level help and for completion."""

    @dataclass
    class Train:
        """Train a method on a task: rheostat train METHOD TASK."""

        method: OmitArgPrefixes[_train_union()]  # type: ignore[valid-type]

    commands = COMMANDS | {"train": Train}
    return Union[tuple(Annotated[cls, tyro.conf.subcommand(name)] for name, cls in commands.items())]  # noqa: UP007


def _top_help() -> str:
    lines = ["usage: rheostat COMMAND ...", "", (__import__("rheostat").__doc__ or "").split("\n")[0], ""]
    descriptions = {name: (cls.__doc__ or "").split("\n")[0] for name, cls in COMMANDS.items() if cls}
    descriptions["train"] = "Train a method on a task: rheostat train METHOD TASK [options]."
    lines += [f"  {name:<12}{descriptions[name]}" for name in COMMANDS]
    lines += ["", "`rheostat COMMAND --help` lists every option; `rheostat train METHOD --help` those of a method."]
    return "\n".join(lines)


def in_paths(name: str, preset: str | None, words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words with joined names (``--mu-peak``) as paths (``--mu.peak``), and the kinds of parts that they choose, by path.

    Args:
        name: of the method.
        preset: of the method.
        words: of the command line.
    """
    from rheostat.training.settings import configure

    config = configure(name, {}, preset=preset)
    options = options_of(config)
    known = set(short_names(options)) | {item.name for item in dataclasses.fields(LanguageOptions)}
    joined = {each.path.replace(".", "_"): each.path for each in options if "." in each.path}
    joined = {name: path for name, path in joined.items() if name not in known}
    choices = {
        flag: each.path
        for each in options
        if each.path.endswith("." + KIND)
        for flag in (each.path, each.path.replace(".", "_"), each.short)
    }
    found, kinds = [], {}
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        plain = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        if plain in joined:
            word = f"--{joined[plain].replace('_', '-')}{equals}{value}"
        if plain in choices:
            value = value if equals else next(iter(words[index + 1 :]), "")
            kinds[choices[plain]] = value
        found.append(word)
    return found, kinds


def parse(arguments: list[str]) -> Any:
    """The command object for these arguments.

    Raises:
        RheostatError: unknown command, method or preset, with the nearest known one.
    """
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    if command != "train":
        return tyro.cli(COMMANDS[command], args=rest, prog=f"rheostat {command}")
    if not rest or rest[0].startswith("-"):
        return tyro.cli(_train_union(), args=rest or ["--help"], prog="rheostat train", description="Train a method on a task.")
    name = rest[0]
    table.entry(name)
    preset = None
    for index, word in enumerate(rest):
        if word == "--preset" and index + 1 < len(rest):
            preset = rest[index + 1]
        elif word.startswith("--preset="):
            preset = word.partition("=")[2]
    rest, kinds = in_paths(name, preset, rest)
    training: Any = tyro.cli(train_command(name, preset, kinds), args=rest[1:], prog=f"rheostat train {name}")
    flags = (word.partition("=")[0][2:].replace("-", "_") for word in rest if word.startswith("--"))
    training.given = frozenset(name for flag in flags for name in (flag, flag.removeprefix("no_"), flag.replace(".no_", ".")))
    return training


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``rheostat``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_top_help())
        return
    if words[0] == "--version":
        print(f"rheostat {__import__('rheostat').__version__}")
        return
    from rheostat.training.run import Interrupted

    try:
        cast(Any, parse(words)).run()
    except RheostatError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "rheostat_environment"):
            raise
        print(_their_traceback(error), file=sys.stderr)
        sys.exit(1)


def _their_traceback(error: BaseException) -> str:
    """The traceback of an error that an environment raised, from its own code on."""
    trace = error.__traceback__
    ours = str(Path(__file__).resolve().parents[1])
    while trace is not None and trace.tb_next is not None:
        path = trace.tb_frame.f_code.co_filename
        if not path.startswith(ours) and "/gymnasium/" not in path.replace("\\", "/") and not path.startswith("<"):
            break
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


if __name__ == "__main__":
    main()
