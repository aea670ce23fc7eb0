"""The command-line fuzzer: ``python -m tests.fuzz`` tries every option of every command and method with odd values.

A line runs in a process that was forked for it and its neighbours, up to the moment when it would make its first file, start another
process or begin to compute. What comes of it is one of

    refused     a sentence and the exit status 2, with nothing made
    accepted    it would begin, and the value lies in the domain that the option declares
    done        it printed what was asked for
    nonsense    it would begin with a value outside of every declared domain, or with an option that declares none
    late        it was refused after something was made
    traceback   an exception that is no sentence, or a refusal of several lines
    hang        it took longer than it may
    crash       the interpreter is gone

The last five must not happen.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import typing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from rheostat.cli import entry
from rheostat.cli.train import BASES, TrainOptions, plain_type
from rheostat.methods import table
from rheostat.options import Domain
from rheostat.training.settings import Settings, configure, shown_options

HALF = "\udcff"
"""What Python makes of a byte of the command line that is no text: half a surrogate pair."""
ODD = ("nan", "inf", "-1", "0", "1e300", "", "9" * 30, "word", "[1, 2]", "{}", HALF, "/no/such/place")
"""Tried with every option."""
GOOD = ("refused", "accepted", "done")
BAD = ("nonsense", "late", "traceback", "hang", "crash")
SECONDS = 60
"""That a line may take."""
MEMORY = 24 * 2**30
"""Bytes of addresses that it may take."""
TOGETHER = 64
"""Lines that share a process."""


@dataclass(frozen=True)
class Line:
    """Words after ``rheostat``, and which option of which value is tried in them."""

    words: tuple[str, ...]
    value: str | None = None
    hint: Any = None
    domain: Domain | None = None
    """Of the option, as it declares it; None where it has numbers and declares nothing."""


class Reached(BaseException):
    """A line came to where it would begin."""


# --- the place ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """What lines are about: made once, as small as it can be."""

    folder: Path

    @property
    def words(self) -> dict[str, list[str]]:
        """A line of every command that would begin as it is, by what it is about."""
        run, talk, data = (str(self.folder / name) for name in ("run", "talk", "data"))
        model, prompts = str(self.folder / "model"), str(self.folder / "prompts.jsonl")
        return {
            "list": ["list"],
            "show": ["show", "ppo"],
            "config": ["config", "ppo"],
            "resume": ["resume", str(self.folder / "stopped")],
            "runs": ["runs", str(self.folder)],
            "watch": ["watch", run],
            "evaluate": ["evaluate", run],
            "evaluate a model": ["evaluate", "--model", model, "--prompts", prompts, "--reward", "exact"],
            "export": ["export", talk],
            "compare": ["compare", "ppo", "a2c", "--task", "CartPole-v1"],
            "sweep": ["sweep", "ppo", "CartPole-v1", "--dial.lag", "0", "1"],
            "tune": ["tune", "ppo", "CartPole-v1"],
            "study": ["study", "--smoke", "joint"],
            "claims": ["claims"],
            "demo": ["demo"],
            "report": ["report", run],
            "rollouts": ["rollouts", talk],
            "boundary": ["boundary", model, talk],
            "microscope": ["microscope", "is:sequence"],
            "lab": ["lab", "amplification"],
            "disagree": ["disagree", talk, "grpo", "rloo"],
            "base-model": ["base-model", "list"],
            "corpus": ["corpus", prompts],
            "problems": ["problems", "human-eval"],
            "dataset make": ["dataset", "make", "CartPole-v1", "random"],
            "dataset import": ["dataset", "import", data, "CartPole-v1"],
            "dataset show": ["dataset", "show", data],
            "ope": ["ope", run, "--offline", data],
            "doctor": ["doctor"],
            "completion": ["completion", "bash"],
        }

    def training(self, method: str) -> list[str]:
        """A line that would train a method."""
        from tests.tiny_control import acts_in, reads_data

        if table.entry(method).domain == "control":
            data = str(self.folder / ("data" if acts_in(method) == "CartPole-v1" else "swings"))
            return ["train", method, acts_in(method), *(["--offline", data] if reads_data(method) != "no" else [])]
        if table.entry(method).domain == "compression":
            return ["train", method, "shapes", "--teacher", "small", "--environment", "images", "60", "side", "6"]
        from rheostat.training.language_setup import uses_experts
        from tests.annotated import ANNOTATED, lesson_of

        if method in ANNOTATED:
            pairs = str(self.folder / ("zoo.jsonl" if lesson_of(method) == "zoo" else "pairs.jsonl"))
            return ["train", method, "--model", str(self.folder / "model"), "--preferences", pairs, "--environment", "max_new_tokens", "12"]
        model, prompts = str(self.folder / "model"), str(self.folder / "prompts.jsonl")
        own = {"treepo": ["--tree.segment", "4"], "rlfr": ["--offline.rows", "2", "--offline.steps", "2"]}
        own["ctrls"] = ["--lessons.steps", "1", "--lessons.encoder-steps", "1"]
        words = [
            "--model",
            model,
            "--prompts",
            prompts,
            "--reward",
            "exact",
            "--environment",
            "validation_share",
            "0.3",
            "max_new_tokens",
            "12",
        ]
        return ["train", method, *words, *(["--experts", prompts] if uses_experts(method) else []), *own.get(method, [])]


def make_stage(folder: Path) -> Stage:
    """Runs of both domains, one that was stopped, data sets, a model, prompts."""
    import rheostat
    from rheostat.errors import Interrupted
    from rheostat.training.run import Run
    from tests.annotated import zoo
    from tests.border.models import SMALL, build, sums, write_rows
    from tests.tiny_control import gather, small
    from tests.training.test_run import StopAfter

    folder.mkdir(parents=True, exist_ok=True)
    rows = [row | {"completion": row["answer"]} for row in sums()]
    model, prompts = build(folder / "model"), write_rows(folder / "prompts.jsonl", rows)
    pairs = [{"prompt": row["prompt"], "chosen": row["answer"], "rejected": "no"} for row in rows]
    write_rows(folder / "pairs.jsonl", pairs)
    write_rows(folder / "zoo.jsonl", [zoo(row, "yes") for row in pairs])
    settings = small("ppo", steps=384, checkpoint_every=128, evaluation_episodes=1)
    Run.create(folder / "run", settings).train()
    halted = Run.create(folder / "stopped", settings)
    with contextlib.suppress(Interrupted):
        halted.train(progress=StopAfter(5))
    with contextlib.redirect_stderr(io.StringIO()):
        rheostat.train("grpo", model=model, prompts=prompts, rewards=("exact",), directory=folder / "talk", **SMALL)
    gather("CartPole-v1", 200).save(folder / "data")
    gather("Pendulum-v1", 200).save(folder / "swings")
    return Stage(folder)


# --- the lines ----------------------------------------------------------------------------------------------------------------------------


def domain_in(item: dataclasses.Field[Any]) -> Domain | None:
    """What a field of a command declares."""
    return item.metadata.get("domain")


def flags_of(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any, Domain | None]]:
    """``--flag``, type and domain of every option of a command; a setting of runs is declared there."""
    hints = typing.get_type_hints(cls, include_extras=True)
    declared = {item.name: domain_in(item) for item in dataclasses.fields(Settings)}
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        parts = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if "Positional" in str(parts[1:]) or "_Positional" in repr(parts[1:]):
            continue
        bare = parts[0]
        if dataclasses.is_dataclass(bare):
            plain = "OmitArgPrefixes" in repr(parts[1:]) or item.name == "fqe"
            yield from flags_of(bare, "" if plain else f"{prefix}{item.name}.")
            continue
        name = {"reward": "rewards", "environment": "environment_options"}.get(item.name, item.name)
        of_runs = issubclass(cls, TrainOptions)
        yield "--" + (prefix + item.name).replace("_", "-"), bare, domain_in(item) or (declared.get(name) if of_runs else None)


def values_for(hint: Any, domain: Domain | None) -> list[tuple[str, ...]]:
    """Odd values of an option, as the words that follow its flag: those for all, and those just beside its domain."""
    found = [(value,) for value in ODD]
    for bound in (domain.at_least, domain.above, domain.at_most, domain.below) if domain is not None else ():
        if bound is not None and math.isfinite(bound):
            found += [(f"{bound:g}",), (f"{bound - 1:g}",), (f"{bound + 1:g}",)]
    if typing.get_origin(hint) is dict:
        found = [("name", value) for (value,) in found] + [("", "1"), ("num_envs", "2"), (HALF, "1")]
    return [*found, ()]


def option_lines(stage: Stage) -> Iterator[Line]:
    """Every option of every command and of every method."""
    classes = command_classes()
    for name, words in stage.words.items():
        for flag, hint, domain in flags_of(classes[name]):
            yield from lines_of(words, flag, hint, domain)
    for method in table.METHODS:
        words = stage.training(method)
        if method in ("ppo", "iql", "grpo", "luffy"):  # what runs share is asked of few
            for flag, hint, domain in flags_of(BASES[table.entry(method).domain]):
                yield from lines_of(words, flag, hint, domain)
        for each in shown_options(method, configure(method, {})):
            yield from lines_of(words, f"--{each.path}".replace("_", "-"), plain_type(each.hint), each.domain)


def command_classes() -> dict[str, Any]:
    """The class of every line of :attr:`Stage.words`."""
    from rheostat.cli import dataset

    kinds = {"dataset make": dataset.MakeDataset, "dataset import": dataset.ImportDataset, "dataset show": dataset.ShowDataset}
    return entry.COMMANDS | kinds | {"evaluate a model": entry.COMMANDS["evaluate"]}


def lines_of(words: Sequence[str], flag: str, hint: Any, domain: Domain | None) -> Iterator[Line]:
    """One option with each of its odd values, in the place of what the line says of it."""
    if flag in words:
        place = list(words).index(flag)
        end = next((i for i in range(place + 1, len(words)) if words[i].startswith("--")), len(words))
        words = [*words[:place], *words[end:]]
    for value in values_for(hint, domain):
        yield Line((*words, flag, *value), value[-1] if value else None, hint, domain)


def word_lines(stage: Stage, count: int, seed: int) -> Iterator[Line]:
    """Lines with words deleted, doubled, swapped, misspelt and put in from others."""
    draw = random.Random(seed)
    bases = [*stage.words.values(), *(stage.training(name) for name in ("ppo", "sac", "iql", "dqn", "grpo", "dpo", "sft"))]
    options = ["--steps", "--seed", "--json", "--directory", "--options", "--preset", "--config", "--jobs", "--output", "--help", "--", "-"]
    for _ in range(count):
        words = list(draw.choice(bases))
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(words))
            kind = draw.choice(["drop", "double", "swap", "misspell", "odd", "option", "foreign"])
            if kind == "drop" and len(words) > 1:
                del words[place]
            elif kind == "double":
                words.insert(place, words[place])
            elif kind == "swap":
                other = draw.randrange(len(words))
                words[place], words[other] = words[other], words[place]
            elif kind == "misspell" and words[place]:
                cut = draw.randrange(len(words[place]))
                words[place] = words[place][:cut] + draw.choice("x=-. \n[é") + words[place][cut + 1 :]
            elif kind == "odd":
                words.insert(place + 1, draw.choice(ODD))
            elif kind == "option":
                words += [draw.choice(options), draw.choice([*ODD, "1", "2"])]
            else:
                words.insert(place, draw.choice(draw.choice(bases)))
        yield Line(tuple(words))


# --- one line -----------------------------------------------------------------------------------------------------------------------------

_inside: list[Path] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: whatever would make a file inside of the folder, or start a program, begins there."""
    if not _inside:
        return
    if event == "os.mkdir" or (event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        place = arguments[0]
        if isinstance(place, str | bytes | os.PathLike):
            text = os.path.abspath(os.fsdecode(place))
            if any(text.startswith(str(folder)) for folder in _inside):
                raise Reached(f"{event} {text}")
    elif event == "subprocess.Popen":
        raise Reached(event)


@contextlib.contextmanager
def stops() -> Iterator[None]:
    """Inside, what would compute for long raises :class:`Reached` instead."""

    def reached(*given: Any, **more: Any) -> Any:
        raise Reached

    places = (
        "rheostat.training.run.Run.train",
        "rheostat.learner.control.ControlContext.evaluate",
        "rheostat.experiments.boundary.boundary",
        "rheostat.experiments.corpora.corpus_facts",
        "rheostat.reporting.live_page.LivePage.serve",
        "rheostat.experiments.language_runs.evaluate_language",
        "rheostat.analysis.offline_evaluation.evaluate_offline",
        "rheostat.training.datasets.teacher_for",
        "rheostat.training.datasets.uniform",
        "rheostat.tasks.language.base_models._fill",
        "rheostat.diagnostics.microscope.exact.Problem.path",
        "rheostat.diagnostics.disagreement.disagreement_result.replay",
        "rheostat.experiments.studies.results.run_cells",
    )
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.enter_context(mock.patch(place, reached))
        yield


def outcome_of(line: Line, folder: Path) -> tuple[str, str]:
    """What comes of a line, and what it said."""
    said, told = io.StringIO(), io.StringIO()
    before = sorted(os.listdir(folder))
    code: Any = None
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            entry.main(line.words)
        outcome = "done"
    except Reached:
        outcome = "accepted"
    except SystemExit as stop:
        code = stop.code
        outcome = "done" if code in (0, None) else "refused"
    except BaseException as error:
        return "traceback", "".join(traceback.format_exception(error)[-4:])
    if outcome == "refused":
        words = told.getvalue()
        if sorted(os.listdir(folder)) != before:
            return "late", words
        sentence = words.strip().splitlines()
        ours = any(row.startswith("Error: ") for row in sentence)
        if code not in (1, 2) or not sentence or (ours and not sentence[-1].startswith("Error: ")):
            return "traceback", words
        return "refused", words
    if line.value is not None and not makes_sense(line):
        return "nonsense", told.getvalue()
    return outcome, told.getvalue()


def makes_sense(line: Line) -> bool:
    """Whether a value that was accepted lies in the domain of its option, which must declare one where it is a number."""
    assert line.value is not None
    if line.value in ("", HALF) or any(HALF in word for word in line.words):
        return False
    numeric = {int, float} & set(leaves(line.hint))
    if not numeric or line.value == "None":
        return True
    try:
        return line.domain is not None and line.domain.holds(float(line.value))
    except ValueError:
        return str in leaves(line.hint)


def leaves(hint: Any) -> list[Any]:
    """The plain types that a type is made of."""
    arguments = [each for each in typing.get_args(hint) if each is not Ellipsis]
    return [leaf for each in arguments for leaf in leaves(each)] if arguments and typing.get_origin(hint) is not typing.Literal else [hint]


# --- many lines ---------------------------------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What came of many lines."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    slowest: tuple[float, tuple[str, ...]] = (0.0, ())

    def note(self, line: Line, outcome: str, text: str, seconds: float = 0.0) -> None:
        """One more."""
        self.counts[outcome] += 1
        self.slowest = max(self.slowest, (seconds, line.words))
        if outcome in BAD:
            self.bad.append(f"{outcome}: rheostat {' '.join(map(repr, line.words))}\n{text.rstrip()}\n")


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError


def _work(lines: Sequence[Line], folder: Path, pipe: int) -> None:
    """In a process of its own: try the lines one after the other and write what comes of each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.chdir(folder)
    sys.addaudithook(_watch)
    signal.signal(signal.SIGALRM, _too_long)
    with os.fdopen(pipe, "w") as report, stops():
        for line in lines:
            began = time.monotonic()
            signal.alarm(SECONDS)
            _inside.append(folder)
            try:
                outcome, text = outcome_of(line, folder)
            except TimeoutError:
                outcome, text = "hang", ""
            finally:
                _inside.clear()
                signal.alarm(0)
            if "TimeoutError" in text:
                outcome = "hang"
            print(json.dumps([outcome, text, time.monotonic() - began]), file=report, flush=True)


def try_lines(lines: Sequence[Line], folder: Path, found: Found, say: Callable[[str], None] = lambda text: None) -> Found:
    """Try lines in processes of their own, one after the other; a process that dies costs the line it was at."""
    left = list(lines)
    while left:
        some = left[:TOGETHER]
        read, write = os.pipe()
        child = os.fork()
        if not child:
            status = 1
            try:
                os.close(read)
                null = os.open(os.devnull, os.O_RDWR)
                for number in (0, 1, 2):
                    os.dup2(null, number)
                _work(some, folder, write)
                status = 0
            finally:
                os._exit(status)
        os.close(write)
        tried = 0
        with os.fdopen(read) as reports:
            for report in reports:
                outcome, text, seconds = json.loads(report)
                found.note(some[tried], outcome, text, seconds)
                tried += 1
        _, status = os.waitpid(child, 0)
        if tried < len(some):
            found.note(some[tried], "crash", f"the process ended with status {status}")
            tried += 1
        left = left[tried:]
        say(f"{len(lines) - len(left)}/{len(lines)} " + ", ".join(f"{name} {count}" for name, count in found.counts.items()))
    return found


def fuzz(lines: int | None, seed: int, about: str = "", say: Callable[[str], None] = lambda text: None) -> Found:
    """Try so many lines, drawn from all; None tries every option with every value, and 1,000 lines of mixed words."""
    torch.set_num_threads(1)
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        stage, desk = make_stage(Path(name) / "stage"), Path(name) / "desk"
        desk.mkdir()
        with mock.patch.dict(os.environ, {"RHEOSTAT_RUNS": str(desk / "runs"), "RHEOSTAT_CACHE": str(desk / "cache"), "COLUMNS": "200"}):
            every = [line for line in (*option_lines(stage), *word_lines(stage, 1000, seed)) if not about or about in line.words]
            chosen = every if lines is None else random.Random(seed).sample(every, min(lines, len(every)))
            return try_lines(chosen, desk, found, say)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--lines", type=int, default=None, help="so many, drawn from all; by default all of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--about", default="", help="only lines with this word")
    given = parser.parse_args()
    began = time.monotonic()
    found = fuzz(given.lines, given.seed, given.about, lambda text: print(text, file=sys.stderr, flush=True))
    print("\n".join(found.bad))
    print(", ".join(f"{name}: {found.counts[name]}" for name in (*GOOD, *BAD)))
    print(f"{sum(found.counts.values())} lines in {time.monotonic() - began:.0f} s; the slowest took {found.slowest[0]:.1f} s.")
    sys.exit(bool(found.bad))


if __name__ == "__main__":
    main()
