"""The commands ``rheostat dataset make``, ``import``, ``relabel`` and ``show``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from rheostat.buffers.repairs import Repairs
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.terminal import json_or_text, print_json, print_table


@dataclass
class MakeDataset:
    """Make an offline data set of known quality: a PPO teacher is trained (once; it is cached), then policies collect."""

    task: Positional[str]
    """A control task; `rheostat list` shows what there is."""
    kind: Positional[Literal["random", "rnd", "medium", "expert", "medium-replay", "medium-expert", "medium-random", "random-expert"]]
    """Who acts: uniform actions, a policy that looks for what is new and knows no reward (rnd), the half-trained teacher, the trained one,
    the teacher in training, or two of them one after the other."""
    steps: int = option(100_000, at_least=1)
    """Steps of the data set; medium-replay has fewer where the teacher's training until the medium policy was shorter."""
    seed: int = option(0, at_least=0, at_most=2**63 - 1)
    """Seed of the teacher's training and of the collecting."""
    output: Path | None = None
    """Folder to write; by default datasets/TASK-KIND-sSEED."""
    dataset_id: str | None = None
    """Minari id in the metadata; by default rheostat/TASK/KIND-sSEED-v0."""
    medium_share: float = option(0.5, above=0, below=1)
    """The medium policy is the teacher's first that earns this share of the way from random to expert (D4RL took about a third)."""
    mixture: float = option(0.5, above=0, below=1)
    """Share of the first policy's steps in kinds of two policies."""
    reference: bool = True
    """Measure the returns that count as 0 and 100 percent where none are published; this needs a teacher even for random and rnd data."""
    num_envs: int = option(8, at_least=1)
    """Environments side by side; part of the definition of the data."""
    backend: Literal["auto", "envpool", "gymnasium"] = "auto"
    """Who simulates: EnvPool where it has the id, else Gymnasium."""
    environment: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Options of the task, as names and JSON values."""
    teacher_steps: int | None = option(None, at_least=1)
    """Budget of the teacher, in environment steps; by default that of the task's recipe."""
    teacher_options: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Settings of PPO for the teacher, as names and JSON values, over those of the task's recipe."""
    teacher_evaluations: int | None = option(None, at_least=1)
    """How often the teacher is measured in training: the choice for the medium policy."""
    teacher_evaluation_episodes: int | None = option(None, at_least=1)
    """Episodes of each of these measurements."""
    teacher_reference_episodes: int | None = option(None, at_least=1)
    """Episodes that measure the returns that count as 0 and 100 percent."""
    cache: Path | None = None
    """Folder where teachers are cached; by default $RHEOSTAT_CACHE, else the user's cache folder."""
    json: bool = False
    """Print JSON, and no progress."""

    def run(self) -> None:
        """Do it."""
        from rheostat.buffers.offline_summary import summarise
        from rheostat.training.datasets import make_dataset

        output = self.output or Path("datasets") / f"{self.task}-{self.kind}-s{self.seed}".replace("/", "-").replace(":", "-")
        if (output / "data").exists():
            raise RheostatError(f"{output} already holds a data set: choose another --output, or look at it with `rheostat dataset show`.")
        data = make_dataset(
            self.task,
            self.kind,
            self.steps,
            self.seed,
            teacher=self._recipe(),
            medium_share=self.medium_share,
            mixture=self.mixture,
            reference=self.reference,
            num_envs=self.num_envs,
            backend=self.backend,
            environment_options={key: json_or_text(value) for key, value in self.environment.items()},
            progress=not self.json,
            cache=self.cache,
        )
        data.save(output, dataset_id=self.dataset_id)
        if self.json:
            print_json({"path": str(output)} | summarise(data))
        else:
            print_summary(output, summarise(data))

    def _recipe(self) -> Any:
        """The task's recipe with what was given here; None where nothing was."""
        from rheostat.training.teachers import recipe_for

        given: dict[str, Any] = {
            "steps": self.teacher_steps,
            "evaluations": self.teacher_evaluations,
            "evaluation_episodes": self.teacher_evaluation_episodes,
            "reference_episodes": self.teacher_reference_episodes,
        }
        recipe = dataclasses.replace(recipe_for(self.task), **{key: value for key, value in given.items() if value is not None})
        options = {key: json_or_text(value) for key, value in self.teacher_options.items()}
        return dataclasses.replace(recipe, options=recipe.options | options)


@dataclass
class ShowDataset:
    """Show what is in an offline data set: sizes, returns and scores, how episodes end, action ranges, who made it."""

    path: Positional[str]
    """Folder of the data set, or the id of a local Minari data set."""
    repair: Repairs = field(default_factory=Repairs)
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Do it."""
        from rheostat.buffers.offline_summary import summarise
        from rheostat.collect.control.offline_data import load_for

        data = load_for(None, self.path, **dataclasses.asdict(self.repair))
        if self.json:
            print_json({"path": self.path} | summarise(data))
        else:
            print_summary(self.path, summarise(data))


@dataclass
class ImportDataset:
    """Check somebody else's data set against a task and keep it in Minari's format: a .hdf5 or .npz file of D4RL's kind, or a folder."""

    path: Positional[str]
    """The file, the folder of the data set, or the id of a local Minari data set."""
    task: Positional[str]
    """The control task it is of, whose spaces it must have; `rheostat list` shows what there is."""
    repair: Repairs = field(default_factory=Repairs)
    output: Path | None = None
    """Folder to write; by default datasets/NAME of the file."""
    dataset_id: str | None = None
    """Minari id in the metadata; by default made of the task."""
    environment: Annotated[dict[str, str], tyro.conf.arg(metavar="NAME VALUE ...")] = field(default_factory=dict)
    """Options of the task, as names and JSON values."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Do it."""
        from rheostat.buffers.offline_summary import summarise
        from rheostat.collect.control.offline_data import import_for
        from rheostat.tasks.control import make
        from rheostat.training.building import of_environment

        output = self.output or Path("datasets") / Path(self.path).stem
        if (output / "data").exists():
            raise RheostatError(f"{output} already holds a data set: choose another --output, or look at it with `rheostat dataset show`.")
        options = of_environment({key: json_or_text(value) for key, value in self.environment.items()})
        environments = make(self.task, num_envs=1, seed=0, **options)
        data = import_for(environments, self.path, self.repair)
        environments.close()
        data.save(output, dataset_id=self.dataset_id)
        if self.json:
            print_json({"path": str(output)} | summarise(data))
        else:
            print_summary(output, summarise(data))


@dataclass
class RelabelDataset:
    """Give an offline data set another reward: the same steps, with a reward that is a function of the observation after the action."""

    path: Positional[str]
    """Folder of the data set, or the id of a local Minari data set."""
    reward: str
    """FILE.py:NAME of a function from observations [N, k] to N rewards."""
    output: Path
    """Folder to write."""
    repair: Repairs = field(default_factory=Repairs)
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Do it."""
        from rheostat.analysis.later_rewards import reward_of
        from rheostat.buffers.offline_summary import summarise
        from rheostat.collect.control.offline_data import load_for, relabelled

        if (self.output / "data").exists():
            raise RheostatError(f"{self.output} already holds a data set: choose another --output.")
        data = relabelled(load_for(None, self.path, **dataclasses.asdict(self.repair)), reward_of(self.reward))
        data.save(self.output)
        if self.json:
            print_json({"path": str(self.output)} | summarise(data))
        else:
            print_summary(self.output, summarise(data))


@dataclass
class Dataset:
    """Make, import, relabel or show offline data sets: `make TASK KIND`, `import FILE TASK`, `relabel PATH`, `show PATH`."""

    # Without a prefix of its own; those of the options below stay (--repair.outside).

    action: Annotated[
        Annotated[MakeDataset, tyro.conf.subcommand("make")]
        | Annotated[ImportDataset, tyro.conf.subcommand("import")]
        | Annotated[RelabelDataset, tyro.conf.subcommand("relabel")]
        | Annotated[ShowDataset, tyro.conf.subcommand("show")],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        """Do it."""
        self.action.run()


def print_summary(path: str | Path, found: dict[str, Any]) -> None:
    """What :func:`rheostat.buffers.offline_summary.summarise` found, as tables."""
    score, reference, facts = found["score"], found["reference"], found["facts"]
    length = found["episode_length"]
    rows: list[tuple[str, Any]] = [
        ("task", found["task"] or "unknown"),
        ("steps", f"{found['steps']:,}"),
        ("episodes", f"{found['episodes']:,}" + (f", {found['cut_episodes']} of them cut" if found["cut_episodes"] else "")),
        ("episode length", f"{length['mean']:.1f} ({length['least']} to {length['most']})"),
        ("last steps", f"{found['terminated_share']:.1%} terminated, {found['truncated_share']:.1%} truncated"),
        ("observations", found["observation_space"]),
        ("actions", found["action_space"]),
        ("action range", f"{_numbers(found['action_range']['least'])} to {_numbers(found['action_range']['most'])}"),
        ("log-probabilities", "known" if found["log_probabilities"] else "unknown"),
        ("behaviour", found["behaviour"] or "unknown"),
    ]
    if "medium" in facts:
        medium = facts["medium"]
        rows.append(
            ("medium policy", f"after {medium['steps']:,} steps, measured at {medium['evaluated']:.1f} (share {medium['share']:g})")
        )
    if reference:
        rows.append(("score 0", f"return {reference['random']:,.6g}"))
        rows.append(("score 100", f"return {reference['expert']:,.6g}"))
        rows.append(("these are", reference["source"]))
    if "command" in facts:
        rows.append(("made by", facts["command"]))
    rows.append(("digest", found["digest"]))
    print_table(f"Data set {path}", ["what", "found"], rows)
    names = ["mean", *(f"{level} %" for level in found["return"]["quantiles"])]
    cells = [["return", *(f"{x:,.1f}" for x in (found["return"]["mean"], *found["return"]["quantiles"].values()))]]
    if score:
        cells.append(["score", *(f"{x:.1f}" for x in (score["mean"], *score["quantiles"].values()))])
    print_table("Returns of whole episodes: mean and quantiles", ["", *names], cells, numbers=names)
    for sentence in found["warnings"]:
        print(f"Note: {sentence}")


def _numbers(values: list[float]) -> str:
    """A few numbers, readable."""
    shown = ", ".join(f"{value:.4g}" for value in values[:6])
    return f"[{shown}{', ...' if len(values) > 6 else ''}]" if len(values) > 1 else shown
