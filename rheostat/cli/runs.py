"""What is done with runs: ``rheostat resume``, ``evaluate``, ``report`` and ``rollouts``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from rheostat.cli.train import announce, announce_recipe, in_words
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.options import option
from rheostat.terminal import json_or_text, print_json, print_table


@dataclass
class Resume:
    """Continue an interrupted run, exactly as if it had never stopped."""

    run_directory: Positional[Path]
    """Directory of the run, or of a comparison, sweep, search or recipe."""
    steps: int | None = option(None, at_least=1)
    """A larger budget in all, with which a run goes on, finished or not; by default the budget it has."""
    online_steps: int | None = option(None, at_least=1)
    """The same for environment steps after a data set: a run that is finished with its data goes online."""
    sinks: tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...] = ()
    """Also log to these dashboards."""
    accept_changes: bool = False
    """Go on although settings, rewards, data, the base model or versions are not what they were; the run and its report say so."""

    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from rheostat import api
        from rheostat.cli.entry import parse
        from rheostat.experiments.comparison import command_of, read_manifest
        from rheostat.experiments.recipe import read_kept
        from rheostat.experiments.several_tasks import read_tasks
        from rheostat.experiments.tune import read_plan

        manifest = read_manifest(self.run_directory) or read_plan(self.run_directory) or read_tasks(self.run_directory)
        larger: dict[str, Any] = {"steps": self.steps, "online_steps": self.online_steps}
        asked = [name for name, value in larger.items() if value is not None]
        if manifest is not None and asked:
            raise RheostatError(
                f"--{asked[0].replace('_', '-')} is for a single run: the runs of a comparison, sweep or search have equal budgets."
            )
        if (recipe := read_kept(self.run_directory)) is not None:
            if asked or self.accept_changes:
                option_ = asked[0] if asked else "accept_changes"
                raise RheostatError(f"--{option_.replace('_', '-')} is for a single run: name the folder of the stage.")
            announce_recipe(api.train_recipe(recipe, self.run_directory, sinks=self.sinks), json=self.json)
            return
        if manifest is not None:  # a comparison or a sweep: the command that began it continues it
            if self.accept_changes:
                raise RheostatError("--accept-changes is for a single run: name the directory of the run that changed.")
            words = [*command_of(self.run_directory, manifest), "--directory", str(self.run_directory)]
            parse([*words, *(["--json"] if self.json else [])]).run()
            return
        announce(api.resume(self.run_directory, **larger, sinks=self.sinks, accept_changes=self.accept_changes), json=self.json)


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
    """With --model: reward functions, as for training. Of a run without rewards (td-jepa): rewards that it was never trained for, each a
    FILE.py:NAME of a function from the observations after the action, [N, k], to N numbers."""
    goal: tuple[float, ...] = ()
    """Of a run without rewards: an observation that the policy is to reach."""
    goal_distance: float = option(0.1, above=0)
    """With --goal: how near counts as reached, in the units of the observation."""
    environment: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """With --model: options of the task, as names and JSON values."""
    max_new_tokens: int = option(0, at_least=0)
    """With --model: longest completion in tokens; 0 takes the task's own limit."""
    temperature: float = option(1.0, above=0)
    """With --model: sampling temperature."""
    device: str = "cpu"
    """With --model: cpu or cuda."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """With --model: precision of the model's weights."""
    episodes: int | None = option(None, at_least=1)
    """Number of episodes (20) or, for language, of validation prompts (200); at least 1."""
    samples: int = option(4, at_least=1)
    """Language: completions per prompt; pass@k is known up to this k."""
    threshold: float = option(1.0)
    """Language: smallest reward that counts as right."""
    right_by: str | None = None
    """Language: the reward that is compared with --threshold, of several; by default the first."""
    answers: str | None = None
    """Language: how to find the answer for the majority vote (whole, hash, tag, boxed, ...); by default as the grader does."""
    sandbox: Literal["best", "require", "off", "process", "kernel", "namespaces"] | None = None
    """Language: the walls around graders; by default the run's own setting."""
    self_verify: int = option(0, at_least=0)
    """Language: judgements of each completion by the model itself; above 0 they also weigh a vote."""
    video: bool = False
    """Control: also keep a film of one episode in the folder videos of the run; `rheostat report` shows the newest one."""
    best: bool = False
    """The best policy that the run has kept (--save-best), instead of its last one."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        from rheostat import api

        if not self.goal and self.goal_distance != 0.1:
            raise RheostatError("--goal-distance says how near to a --goal is near enough: name the goal too.")
        if self.model is not None:
            if self.goal:
                raise RheostatError("--goal is for control policies, and --model is a language model: leave it out.")
            if self.run_directory is not None:
                raise RheostatError("A run and a --model are two things to evaluate: name one of them.")
            if self.best:
                raise RheostatError("--best is about the policies of a run, and --model names none: leave one out.")
            if self.video:
                raise RheostatError("--video is for control policies, and --model is a language model: leave it out.")
            self.language(self.baseline(self.model))
            return
        if self.run_directory is None:
            raise RheostatError("Say what to evaluate: the directory of a run, or a model with --model.")
        ignored = [name for name in ("task", "prompts", "environment", "max_new_tokens") if getattr(self, name)]
        if ignored:
            raise RheostatError(f"--{ignored[0].replace('_', '-')} goes with --model: a run is evaluated on its own task.")
        run = api.load(self.run_directory, sandbox=self.sandbox, at="best" if self.best else None)
        for note in run.warnings:
            print(note, file=sys.stderr)
        if self.sandbox is not None and table.entry(run.settings.method).domain != "language":
            raise RheostatError(f"--sandbox is for graders of language runs: {run.settings.method} has none.")
        if self.reward or self.goal:
            self.zero_shot(run)
            return
        if table.entry(run.settings.method).domain == "language":
            if self.video:
                raise RheostatError(f"--video is for control policies, and {run.settings.method} trains a language model: leave it out.")
            self.language(run)
            return
        if self.self_verify:
            raise RheostatError(f"--self-verify is about answers in text: {run.settings.method} writes none.")
        if self.video and table.entry(run.settings.method).domain != "control":
            raise RheostatError(f"--video is for control policies, and {run.settings.method} compresses a network: leave it out.")
        result = {"run": str(self.run_directory), "steps": run.method.steps} | run.method.evaluate(self.episodes or 20)
        if self.video:
            result |= self.filmed(run)
        if self.json:
            print_json(result)
        else:
            print_table("Evaluation", ["result", "value"], in_words(result), numbers=["value"])

    def zero_shot(self, run: Any) -> None:
        """Evaluate a control run for rewards, or a goal, that it was not trained for."""
        from rheostat.analysis.later_rewards import evaluate_goal, evaluate_rewards

        if table.entry(run.settings.method).domain != "control" and self.reward:
            raise RheostatError("--reward goes with --model: a run is evaluated on its own task.")
        if self.reward and self.goal:
            raise RheostatError("A policy is evaluated for rewards or for a goal: leave --reward or --goal out.")
        if self.video:
            raise RheostatError("--video films a run's own task: leave it out, or leave --reward and --goal out.")
        facts = {"run": str(self.run_directory), "steps": run.method.steps}
        episodes = self.episodes or 20
        if self.goal:
            result = facts | evaluate_goal(run, self.goal, self.goal_distance, episodes)
            if self.json:
                print_json(result)
            else:
                print_table("Evaluation", ["result", "value"], in_words(result), numbers=["value"])
            return
        rows = evaluate_rewards(run, self.reward, episodes)
        if self.json:
            print_json(facts | {"rewards": rows})
            return
        cells = [[row["reward"], f"{row['return']:.4g}", f"[{row['low']:.4g}, {row['high']:.4g}]"] for row in rows]
        title = f"{run.settings.method} on {run.settings.task}: rewards given after training, {episodes} episodes each"
        print_table(title, ["reward", "return", "95 % interval"], cells, numbers=["return"])

    def filmed(self, run: Any) -> dict[str, str]:
        """Where the film is; where there can be none, a sentence says why, and the evaluation stands."""
        from rheostat.training.video import record_episode

        try:
            return {"video": str(record_episode(run)[0])}
        except RheostatError as error:
            print(f"Note: {error}", file=sys.stderr)
            return {}

    def baseline(self, model: str) -> Any:
        """The model as a run that has not trained."""
        from rheostat.training.untrained import baseline

        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature}
        options |= {"device": self.device, "dtype": self.dtype, "sandbox": self.sandbox or "best"}
        environment = {key: json_or_text(value) for key, value in self.environment.items()}
        return baseline(model, self.task, self.prompts, self.reward, environment, **options)

    def language(self, run: Any) -> None:
        """Evaluate a language run."""
        from rheostat.experiments.language_runs import deciding_reward, evaluate_language, result_rows
        from rheostat.training.sandboxing import weaker_here

        if self.run_directory is not None and (less := weaker_here(self.run_directory, run.method)):
            print(f"Note: {less}.", file=sys.stderr)

        summary = evaluate_language(
            run,
            self.episodes or 200,
            self.samples,
            threshold=self.threshold,
            right_by=self.right_by,
            answers=self.answers,
            self_verify=self.self_verify,
        )
        name = deciding_reward(run, self.right_by)
        decides = "reward" if name is None else f"reward {name}"
        rows = result_rows(summary)
        prompts = summary.pass_at[1].n
        run.close()
        if self.json:
            facts = {"run": str(self.run_directory or self.model), "steps": run.method.steps, "prompts": prompts, "samples": self.samples}
            facts |= {"right": f"{decides} at least {self.threshold:g}"}
            print_json(facts | {"results": rows})
            return

        def interval(row: dict[str, Any]) -> str:
            return "" if row["low"] is None else f"[{row['low']:.4g}, {row['high']:.4g}]"

        title = f"{self.model or run.settings.method} on {run.settings.task}: {prompts} validation prompts, {self.samples} completions each"
        cells = [(row["result"], f"{row['estimate']:.4g}", interval(row)) for row in rows]
        print_table(title, ["result", "estimate", "95 % interval"], cells, numbers=["estimate"])
        print(f"A completion counts as right where its {decides} is at least {self.threshold:g}.")


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
        from rheostat.reporting.architectures import architecture_section
        from rheostat.reporting.figures import draw_figures
        from rheostat.reporting.fleet_map import map_section
        from rheostat.reporting.report import study_result, video_section, write_report
        from rheostat.reporting.rollouts import rollouts_section

        paths = [path for path in self.paths if study_result(path) is None]
        runs = find_runs(paths) if paths else []
        found = (architecture_section, rollouts_section, map_section, video_section) if len(runs) == 1 else ()
        sections = [section(runs[0]) for section in found]
        print(f"Report: {write_report(list(self.paths), self.output, sections=[section for section in sections if section])}")
        if self.figures:
            print("Figures: " + ", ".join(str(path) for path in draw_figures(self.paths, self.output)))


@dataclass
class Rollouts:
    """Show what a language model wrote in training: prompts, completions, rewards, and every token coloured by its advantage."""

    run_directory: Positional[Path]
    """Directory of the run."""
    update: int | None = option(None, at_least=0)
    """Which update; by default the newest that was kept."""
    rows: int = option(8, at_least=1)
    """Completions shown at most."""
    json: bool = False
    """Print JSON, with the numbers of every token."""

    def run(self) -> None:
        from rheostat.reporting.rollouts import choose, print_rollouts, read_rollouts

        if self.json:
            update, rows = read_rollouts(self.run_directory, self.update)
            print_json({"update": update, "rollouts": choose(rows, self.rows)})
        else:
            print_rollouts(self.run_directory, self.update, self.rows)
