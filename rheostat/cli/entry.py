"""The command line: ``rheostat COMMAND ...``. Every command is a small dataclass whose fields are its options.

One module per group of commands; here they are put together. What computes is imported when a command runs, so that help is quick.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tyro

from rheostat.cli.boundaries import BoundaryCommand
from rheostat.cli.catalogue import BaseModel, Config, List, Show
from rheostat.cli.comparisons import Compare, Demo, Sweep, Tune
from rheostat.cli.corpus_command import Corpus
from rheostat.cli.dataset import Dataset
from rheostat.cli.disagreement import Disagree
from rheostat.cli.installation import Completion, Doctor
from rheostat.cli.laboratory import Laboratory
from rheostat.cli.language_models import Export
from rheostat.cli.microscope import Microscope
from rheostat.cli.ope import OffPolicyEvaluation
from rheostat.cli.problem_files import Problems
from rheostat.cli.runs import Evaluate, Report, Resume, Rollouts
from rheostat.cli.studies import Claims, StudyCommand
from rheostat.cli.train import parse_training
from rheostat.cli.watching import Runs, Watch
from rheostat.errors import Interrupted, RheostatError, shown, unknown
from rheostat.options import check_fields, is_part, is_text

COMMANDS: dict[str, Any] = {
    "list": List,
    "show": Show,
    "config": Config,
    "train": None,
    "resume": Resume,
    "runs": Runs,
    "watch": Watch,
    "evaluate": Evaluate,
    "export": Export,
    "compare": Compare,
    "sweep": Sweep,
    "tune": Tune,
    "study": StudyCommand,
    "claims": Claims,
    "demo": Demo,
    "report": Report,
    "rollouts": Rollouts,
    "boundary": BoundaryCommand,
    "microscope": Microscope,
    "disagree": Disagree,
    "lab": Laboratory,
    "base-model": BaseModel,
    "corpus": Corpus,
    "dataset": Dataset,
    "problems": Problems,
    "ope": OffPolicyEvaluation,
    "doctor": Doctor,
    "completion": Completion,
}


TRUST = "--trust"
METHODS = "--methods"
OPENERS = ("train", "resume", "evaluate", "export", "boundary", "corpus", "disagree", "ope")
"""Commands that open runs and may execute code that these name."""


def _top_help() -> str:
    lines = ["usage: rheostat COMMAND ...", "", (__import__("rheostat").__doc__ or "").split("\n")[0], ""]
    descriptions = {name: (cls.__doc__ or "").split("\n")[0] for name, cls in COMMANDS.items() if cls}
    descriptions["train"] = "Train a method on a task: rheostat train METHOD TASK [options]."
    lines += [f"  {name:<12}{descriptions[name]}" for name in COMMANDS]
    lines += ["", "`rheostat COMMAND --help` lists every option; `rheostat train METHOD --help` those of a method."]
    lines += [f"`{TRUST}` with {', '.join(OPENERS)} lets a run that you did not begin execute the code that it names."]
    lines += [f"`{METHODS} FILE.py` with any command adds the methods of a file of your own."]
    return "\n".join(lines)


def parse(arguments: list[str]) -> Any:
    """The command object for these arguments.

    Raises:
        RheostatError: unknown command, method or preset, with the nearest known one.
    """
    arguments = with_methods(arguments)
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    if command == "train":
        return parse_training(rest)
    return tyro.cli(COMMANDS[command], args=rest, prog=f"rheostat {command}")


def check_words(words: Sequence[str]) -> None:
    """Refuse words that are no text, and empty ones, which no option has a use for.

    Raises:
        RheostatError: there is one.
    """
    for place, word in enumerate(words):
        after = f" after {words[place - 1]}" if place else ""
        if not is_text(word):
            raise RheostatError(f"The word {shown(word)}{after} is not text in UTF-8: write it anew.")
        if not word.strip() or (word.startswith("--") and word.endswith("=")):
            said = f"The word{after} is empty" if not word.strip() else f"Nothing stands behind {word}"
            raise RheostatError(f"{said}: give a value or leave the option out (where a text may be empty, '\"\"' says so in JSON).")


def check_options(command: Any, prefix: str = "--") -> None:
    """Refuse values that are outside of the domains that the fields of a command declare.

    Raises:
        RheostatError: naming the option, its value and its domain.
    """
    check_fields(command, lambda name: (prefix + name).replace("_", "-"))
    for item in dataclasses.fields(command):
        if is_part(inner := getattr(command, item.name)):
            check_options(inner, "--" if item.name in ("fqe", "action") else f"{prefix}{item.name}.")


def with_methods(words: list[str]) -> list[str]:
    """Take ``--methods FILE`` out of the words, and add the methods of the file to this process and those it starts.

    Raises:
        RheostatError: no file is named, or it cannot be imported or adds no method.
    """
    from rheostat import plugins
    from rheostat.methods import table

    left, files, rest = [], [], iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag != METHODS:
            left.append(word)
            continue
        file = value if equals else next(rest, "")
        if not file or file.startswith("-"):
            raise RheostatError(f"{METHODS} names a Python file: {METHODS} my_methods.py.")
        files.append(str(Path(file).resolve()))
    if not files:
        return words
    os.environ[plugins.FILES] = os.pathsep.join(files)
    plugins.import_files()
    for file in files:
        if not any(row.path.split(":")[0] == Path(file).stem for row in table.METHODS.values()):
            raise RheostatError(f"{file} adds no method: put its row into rheostat.methods.table.METHODS, see docs/extend/method.md.")
    return left


@contextmanager
def consent(words: list[str]) -> Iterator[None]:
    """Take ``--trust`` out of the words; inside, code that the runs of others name may be executed if it was among them.

    Raises:
        RheostatError: the command opens no run, or it is given twice.
    """
    if TRUST not in words:
        yield
        return
    from rheostat.training.trust import trusting

    words.remove(TRUST)
    if words[0] not in OPENERS or TRUST in words:
        raise RheostatError(f"{TRUST} goes once with a command that opens runs: {', '.join(OPENERS)}.")
    with trusting():
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``rheostat``."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_top_help())
        return
    if words[0] == "--version":
        print(f"rheostat {__import__('rheostat').__version__}")
        return
    try:
        check_words(words)
        with consent(words):
            command: Any = parse(words)
            check_options(command)
            command.run()
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
