"""The Python face of the house: the same as the command line, with objects."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.errors import RheostatError, unknown
from rheostat.experiments.recipe import Recipe as Recipe
from rheostat.experiments.recipe import Stage as Stage
from rheostat.methods import table
from rheostat.training.callbacks import Callback as Callback
from rheostat.training.callbacks import listening_ones
from rheostat.training.config_file import read_config
from rheostat.training.objects import NAMES, handed_over
from rheostat.training.progress import Bar, Progress, Silent
from rheostat.training.run import Run
from rheostat.training.settings import CUSTOM, Settings
from rheostat.training.settings import derived as derived_numbers
from rheostat.training.settings_from_options import free_directory, settings_for, task_of_prompts
from rheostat.training.sinks import check_sinks
from rheostat.training.trust import require_trust, trusting

if TYPE_CHECKING:
    from rheostat.analysis.corpus import CorpusFacts
    from rheostat.buffers.offline import OfflineData
    from rheostat.diagnostics.disagreement.disagreement_result import Disagreement
    from rheostat.diagnostics.microscope.microscope_result import MicroscopeResult
    from rheostat.experiments.boundary import Boundary


class DrawnRun(Run):
    """A run that draws its own curves."""

    def plot(self, path: str | Path | None = None) -> Path:
        """Draw the run's curves.

        Args:
            path: of the picture (.png, .svg or .pdf); None takes ``curves.png`` in the run's directory.

        Returns:
            Where it is.

        Raises:
            RheostatError: another suffix, or a place that cannot be written.
        """
        from rheostat.reporting.plots import plot_run

        return plot_run(self, self.directory / "curves.png" if path is None else path)

    @property
    def student(self) -> Any:
        """The compressed network of a run that compresses, trained to the end: a ``torch.nn.Module`` that makes logits of images.

        Its ``architecture`` says what it is made of. A finished run keeps it in the folder ``model``, too
        (:func:`rheostat.load_network`).

        Raises:
            RheostatError: the run does not compress a network.
        """
        if table.entry(self.settings.method).domain != "compression":
            raise RheostatError(f"{self.settings.method} does not compress a network: run.student does not apply to it.")
        return self.method.policy.network


def train(
    method: str,
    task: Any = None,
    *,
    directory: str | Path | None = None,
    policy: Any = None,
    preset: str | None = None,
    config: str | Path | None = None,
    trust: bool = False,
    progress: bool | Progress = True,
    sinks: tuple[str, ...] = (),
    callbacks: Iterable[Any] = (),
    **options: Any,
) -> DrawnRun:
    """Train a method on a task.

    Args:
        method: a name from ``rheostat list``.
        task: an EnvPool or Gymnasium id; your own Gymnasium environment, a function that makes one, or a vector environment; or a language
            task. None where there are ``prompts``, which are then the task: a file, a list of rows, or a ``datasets.Dataset``.
        directory: where the run is kept; None picks a free name under ``runs``.
        policy: your own network: a module with ``distribution(observation)`` and ``value(observation)``; for language, a pair of a Hugging
            Face model and its tokenizer (or ``model=`` and ``tokenizer=``).
        preset: a named configuration of the method.
        config: a file of settings and options in TOML, YAML or JSON (``rheostat config METHOD`` writes one to begin from), or the
            directory of a run; what is given here goes before what the file says.
        trust: execute the code that the run in ``config`` and the runs of experts name, although you did not begin them here.
        progress: show a live display.
        sinks: also log to ``tensorboard``, ``trackio``, ``wandb`` or ``mlflow``.
        callbacks: objects with some of the methods ``on_update(run, metrics)``, ``on_evaluation(run, metrics)`` and
            ``on_checkpoint(run, path)`` (:class:`rheostat.Callback`); ``run.stop(why)`` in one of them ends the run.
        **options: settings of the run (``seed``, ``steps``, ``threads``, ...) and of the method (``learning_rate``, ...). ``rewards`` may
            hold functions; those run in this process, without a time limit. ``offline`` may be data: an ``OfflineData``, ``Trajectories``,
            a mapping of flat arrays by D4RL's names, or an open Minari data set; the run keeps a copy, so it opens and resumes without.

    Returns:
        The finished run, with ``metrics``, ``summary``, ``plot()`` and ``policy(observation)``.

    Raises:
        RheostatError: anything you can put right, in one sentence.
    """
    below = None
    if config is not None:
        file = read_config(config, method)
        options, below, preset = file.general | options, file.options, preset or file.preset
        task = task or (None if options.get("data") or options.get("prompts") or options.get("preferences") else file.task)
        if Path(config).is_dir():
            with trusting(trust):
                require_trust(Path(config), Run.settings_in(config))
    given = handed_over(method, task, policy, options)
    task, policy, options = given.task, given.policy, given.options
    task = task_of_prompts(method, options) if task is None or task == "" else task
    settings = settings_for(method, task, preset=preset, below=below, **options)
    name = Path(settings.task).stem if settings.task.endswith(".npz") else settings.task.removeprefix(CUSTOM)
    where = Path(directory) if directory else free_directory(f"{method}-{name}-s{settings.seed}")
    listeners = listening_ones(callbacks)
    check_sinks(sinks)
    with trusting(trust):
        run = DrawnRun.create(where, settings, task=None if isinstance(task, str) else task, policy=policy, data=given.data)
        return finish(run, progress, sinks, listeners)


def resume(
    directory: str | Path,
    *,
    steps: int | None = None,
    online_steps: int | None = None,
    task: Any = None,
    policy: Any = None,
    progress: bool | Progress = True,
    sinks: tuple[str, ...] = (),
    callbacks: Iterable[Any] = (),
    accept_changes: bool = False,
    trust: bool = False,
    **objects: Any,
) -> DrawnRun:
    """Continue an interrupted run to its end, exactly as if it had never stopped.

    Args:
        directory: of the run.
        steps: a larger budget in all, with which a run goes on that is finished or not; None keeps the budget.
        online_steps: the same for environment steps after a data set: a run that is finished with its data goes online.
        task, policy: as in :func:`train`, where they were objects.
        progress, sinks, callbacks: as in :func:`train`.
        accept_changes: go on although settings, rewards, data, the base model or versions are not what they were when the run began;
            the run and its report then say so.
        trust: execute the code that the run names (reward functions, environments of modules), although you did not begin it here.
        **objects: ``prompts``, ``rewards``, ``model`` and ``tokenizer``, where they were objects.

    Raises:
        RheostatError: nothing to resume there, the run is finished, no checkpoint is whole, or something is not what it
            was when the run began.
    """
    opening: dict[str, Any] = {
        "to_continue": True,
        "steps": steps,
        "online_steps": online_steps,
        "accept_changes": accept_changes,
        "trust": trust,
    }
    run = load(directory, task=task, policy=policy, **opening, **objects)
    return finish(run, progress, sinks, callbacks)


@dataclass(frozen=True)
class TrainedRecipe:
    """A recipe whose stages have been trained.

    Attributes:
        directory: of the recipe; each stage has a folder in it.
        recipe: its stages and settings.
        stages: one row per stage, as JSON: its method, what it began with, its first and last measurement, its steps and costs.
        totals: seconds, tokens, calls of rewards and FLOPs of all stages, where they are counted.
    """

    directory: Path
    recipe: Recipe
    stages: list[dict[str, Any]]
    totals: dict[str, float]

    def run(self, name: str | None = None) -> DrawnRun:
        """The run of a stage, opened; None opens the last.

        Raises:
            RheostatError: there is no such stage.
        """
        known = {stage.name: stage for stage in self.recipe.stages}
        if name is not None and name not in known:
            raise unknown("stage", name, known)
        return load(self.directory / self.recipe.folder(self.recipe.stages[-1] if name is None else known[name]))


def train_recipe(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    directory: str | Path | None = None,
    *,
    progress: bool | Progress = True,
    sinks: tuple[str, ...] = (),
    trust: bool = False,
) -> TrainedRecipe:
    """Train the stages of a recipe, one after the other; those that are finished are left as they are.

    Args:
        recipe: a file (TOML, YAML or JSON) or the name of one of the library's (``light-r1.toml``), what such a file says, or a
            :class:`rheostat.Recipe`.
        directory: where everything is kept; naming it again goes on. None picks a free name under ``runs``.
        progress, sinks, trust: as in :func:`train`.

    Returns:
        The rows of its stages, and their runs.

    Raises:
        RheostatError: anything you can put right; every stage is checked before the first is trained.
    """
    from rheostat.experiments import recipe as recipes
    from rheostat.experiments import recipe_stages
    from rheostat.reporting.recipe_report import write_recipe

    if isinstance(recipe, str | Path):
        recipe = recipes.read_recipe(recipe)
    elif not isinstance(recipe, recipes.Recipe):
        recipe = recipes.recipe_of(recipe)
    place = Path(directory) if directory else free_directory(recipe.name)
    check_sinks(sinks)

    def create(folder: Path, settings: Settings) -> None:
        finish(DrawnRun.create(folder, settings), progress, sinks)

    def go_on(folder: Path) -> None:
        finish(load(folder, to_continue=True), progress, sinks)

    with trusting(trust):
        recipes.begin(recipe, place)
        for stage in recipe_stages.stages_left(recipe, place):
            if progress:
                where = f"stage {recipe.stages.index(stage) + 1} of {len(recipe.stages)}"
                print(f"{place.name}, {where}: {stage.name} ({stage.method})", file=sys.stderr)
            recipe_stages.run_stage(recipe, place, stage, create, go_on)
    rows = recipe_stages.stage_rows(recipe, place)
    write_recipe(recipe, place, rows)
    return TrainedRecipe(place, recipe, rows, recipe_stages.totals(rows))


def finish(run: DrawnRun, progress: bool | Progress, sinks: tuple[str, ...], callbacks: Iterable[Any] = ()) -> DrawnRun:
    """Train to the end of the budget, then draw the curves and write the report."""
    from rheostat.reporting.architectures import architecture_section
    from rheostat.reporting.fleet_map import draw_map, map_section
    from rheostat.reporting.report import write_report
    from rheostat.reporting.rollouts import rollouts_section

    before = [row for row in run.metrics if row["steps"] <= run.method.steps]
    display = (Bar(run.directory.name, before) if progress else Silent()) if isinstance(progress, bool) else progress
    for note in run.warnings:
        print(note, file=sys.stderr)
    if progress:
        derived = derived_numbers(run.settings.method, run.method.config) | run.method.arithmetic
        arithmetic = ", ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in derived.items())
        print(f"{run.directory}: {arithmetic}", file=sys.stderr)
    run.train(progress=display, sinks=sinks, callbacks=[*callbacks, *([display] if isinstance(display, Bar) else [])])
    run.plot()
    draw_map(run)
    sections = [architecture_section(run.directory), rollouts_section(run.directory), map_section(run.directory)]
    write_report([run.directory], run.directory / "report.html", sections=[each for each in sections if each])
    return run


def load(
    directory: str | Path,
    *,
    task: Any = None,
    policy: Any = None,
    sandbox: str | None = None,
    at: str | None = None,
    to_continue: bool = False,
    steps: int | None = None,
    online_steps: int | None = None,
    accept_changes: bool = False,
    trust: bool = False,
    **objects: Any,
) -> DrawnRun:
    """Open a run, finished or not, at its newest whole checkpoint; objects as in :func:`resume`.

    ``at`` is the name of another checkpoint, or ``best``: the best policy that the run has kept (``save_best``), for looking at.
    ``sandbox`` takes the place of the run's own setting. ``to_continue`` goes back to the newest checkpoint whose log is whole,
    and ``accept_changes`` takes what is not as it was when the run began, as in :func:`resume`.
    ``steps`` and ``online_steps`` are a larger budget, and ``trust`` executes code of a run that you did not begin, as in :func:`resume`.
    """
    if objects:
        settings = Run.settings_in(directory)
        if "offline" in objects:
            raise RheostatError(f"{directory} keeps its own copy of the data that were handed over: leave offline out.")
        unknown_ones = [name for name in objects if name not in NAMES]
        if unknown_ones:
            raise unknown("object of a run", unknown_ones[0], NAMES)
        kept = {"prompts": settings.prompts, "environment_options": settings.environment_options}
        named = None if settings.task.startswith(CUSTOM) or settings.prompts else settings.task
        given = handed_over(settings.method, named if task is None else task, policy, kept | objects)
        task, policy = (None if isinstance(given.task, str) else given.task), given.policy
    if steps is not None or online_steps is not None:
        larger: dict[str, Any] = {"steps": steps, "online_steps": online_steps}
        with trusting(trust):
            return DrawnRun.extended(directory, **larger, task=task, policy=policy, accept_changes=accept_changes)
    opening: dict[str, Any] = {"sandbox": sandbox, "at": at, "to_continue": to_continue, "accept_changes": accept_changes}
    with trusting(trust):
        return DrawnRun.load(directory, task=task, policy=policy, **opening)


def load_network(folder: str | Path) -> Any:
    """A compressed network, which a run keeps in its folder ``model``: :func:`rheostat.tasks.compression.image_teachers.load_network`."""
    from rheostat.tasks.compression.image_teachers import load_network as load_from

    return load_from(folder)


def compare(methods: list[str], task: str | Sequence[str] | None = None, *, seeds: int = 8, **options: Any) -> Any:
    """Train several methods over several seeds, in parallel, on one task or on several.

    See :func:`rheostat.experiments.comparison.compare` and :func:`rheostat.experiments.several_tasks.compare_on`.
    """
    from rheostat.experiments.comparison import compare as run_comparison
    from rheostat.experiments.several_tasks import compare_on
    from rheostat.reporting.plots import plot_comparison
    from rheostat.reporting.report import write_report
    from rheostat.reporting.task_profiles import write_tasks

    tasks = [task] if isinstance(task, str) else list(task or ())
    if len(tasks) > 1:
        over = compare_on(methods, tasks, seeds=seeds, **options)
        write_tasks(over)
        return over
    found = run_comparison(methods, *tasks, seeds=seeds, **options)
    plot_comparison(found, found.directory / "curves.png")
    write_report([found.directory], found.directory / "report.html")
    return found


def microscope(names: Sequence[str] = (), **options: Any) -> MicroscopeResult:
    """Estimators of gradients, KL or advantages against exact values.

    See :func:`rheostat.diagnostics.microscope.microscope_result.microscope`.
    """
    from rheostat.diagnostics.microscope.microscope_result import microscope as run_microscope

    return run_microscope(names, **options)


def disagree(run: str | Path, methods: Sequence[str], **options: Any) -> Disagreement:
    """A run's frozen batch through several methods; see :func:`rheostat.diagnostics.disagreement.disagreement_result.disagree`."""
    from rheostat.diagnostics.disagreement.disagreement_result import disagree as compare_on

    return compare_on(run, methods, **options)


def boundary(before: str | Path, after: str | Path, *, task: str | None = None, **options: Any) -> Boundary:
    """What training gained and lost between two language models: coverage and interference.

    Args:
        before: a run's directory, a Hugging Face folder or hub name, or a base-model recipe.
        after: another. One that is no run is measured on the task of the other.
        task: where neither is a run.
        options: ``prompts``, ``samples``, ``threshold`` and ``right_by``; see :func:`rheostat.experiments.boundary.boundary`.

    Raises:
        RheostatError: neither a run nor a task, a run of control, or two models that see other prompts or tokens.
    """
    from rheostat.experiments.boundary import boundary as measure
    from rheostat.training.untrained import opened

    first, second = opened(before, after, task)
    try:
        return measure(first, second, **options)
    finally:
        first.close()
        second.close()


def corpus(*files: str | Path, model: str | Path | None = None, after: str | Path | None = None) -> list[CorpusFacts]:
    """What can be told of files of expert rows: length, duplicates, distances, entropy per token and latent shift.

    Args:
        files: prompts and completions, in any format that ``experts`` takes; at least one.
        model: the model under which the entropy is measured; see :func:`rheostat.experiments.corpora.corpus_facts`.
        after: what became of it by training, for the latent shift.

    Raises:
        RheostatError: no file, one that cannot be read, or a model that cannot read its rows.
    """
    from rheostat.experiments.corpora import corpus_facts

    return corpus_facts(files, model, after)


def sweep(method: str, task: str | None = None, **options: Any) -> Any:
    """Train a method at several settings of the dial, over several seeds; see :func:`rheostat.experiments.sweep.sweep`."""
    from rheostat.experiments.sweep import sweep as run_sweep
    from rheostat.reporting.report import write_report
    from rheostat.reporting.sweep_figure import draw_sweep

    found = run_sweep(method, task, **options)
    draw_sweep(found)
    write_report([found.directory], found.directory / "report.html")
    return found


def tune(method: str, task: str, **options: Any) -> Any:
    """Search for options of a method on a task; see :func:`rheostat.experiments.tune.tune`."""
    from rheostat.experiments.tune import tune as run_search
    from rheostat.reporting.tables import write_tuning

    found = run_search(method, task, **options)
    write_tuning(found)
    return found


def study(name: str, **options: Any) -> Any:
    """Run a study; see :func:`rheostat.experiments.studies.results.run_study`.

    With ``search=True`` every arm gets the same small search instead (:func:`rheostat.experiments.studies.results.run_search`).
    """
    from rheostat.experiments.studies.results import load_study, run_search, run_study
    from rheostat.reporting.study_figures import draw_into

    if options.pop("search", False):
        return run_search(load_study(name), **options)
    return run_study(load_study(name), **({"draw": draw_into} | options))


def show(result: Any) -> None:
    """Print a comparison, a sweep, a boundary, a look through the microscope or a disagreement as a table."""
    from rheostat.reporting.tables import show as print_result

    print_result(result)


def save(result: Any, directory: str | Path) -> list[Path]:
    """Keep a look through the microscope or a disagreement in a folder; see :func:`rheostat.reporting.saving.save`."""
    from rheostat.reporting.saving import save as save_result

    return save_result(result, directory)


def make_dataset(task: str, kind: str, steps: int = 100_000, seed: int = 0, **options: Any) -> OfflineData:
    """Make an offline data set; see :func:`rheostat.training.datasets.make_dataset`. ``save(folder)`` keeps it."""
    from rheostat.training.datasets import make_dataset as make

    return make(task, kind, steps, seed, **options)


def methods() -> dict[str, table.Entry]:
    """The table of methods."""
    return dict(table.METHODS)
