"""Whatever the pages name exists: commands and their options, modules, settings, files."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat import api, plugins
from rheostat.buffers.repairs import Repairs
from rheostat.cli import entry as cli
from rheostat.cli import train
from rheostat.diagnostics.disagreement.method_specs import read_specs
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.methods.table import METHODS
from rheostat.options import options_of
from rheostat.training.config_file import written_config
from rheostat.training.settings import Settings, configure
from tests.docs.pages import EXAMPLES, GENERATED, ROOT, Block, blocks, commands, fragments

PLACEHOLDERS = {"METHOD": "grpo", "COMMAND": "list", "...": ""}
"""What stands in a page for something of the reader's own, where not any word will do."""
SHELL = [(block, line) for block in blocks("sh", "bash") for line in commands(block)]
RHEOSTAT = [(block, line) for block, line in SHELL if line.startswith("rheostat ")]
PYTHON_TOOLS = re.compile(r"python -m ((?:tests|benchmarks|studies|rheostat)[\w.]*)")


def words_of(line: str) -> list[str]:
    """A command line as words, without its comment and where its output goes, with placeholders filled in."""
    line = line.partition(" > ")[0]
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line, comments=True)[1:]]
    return [word for word in words if word]


def parse(words: list[str]) -> Any:
    """The command object; None where the words ask for help.

    Raises:
        AssertionError: the command line does not take these words.
    """
    try:
        return cli.parse(words)
    except RheostatError as error:
        raise AssertionError(f"rheostat {shlex.join(words)} is refused: {error}") from error
    except SystemExit as end:
        assert end.code == 0, f"rheostat {shlex.join(words)} is refused"
        return None


@pytest.mark.parametrize(("block", "line"), RHEOSTAT, ids=[f"{block}-{line.split('#')[0][:50].strip()}" for block, line in RHEOSTAT])
def test_commands_are_taken(block: Block, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every `rheostat ...` line of a block parses, and its method takes the settings."""
    words = words_of(line)
    if cli.METHODS in words:  # files of the examples
        monkeypatch.setattr(table, "METHODS", dict(table.METHODS))
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv(plugins.FILES, "")
        monkeypatch.delitem(sys.modules, "weighted_buffer", raising=False)
        monkeypatch.chdir(EXAMPLES)
    if "--config" in words:  # the page has written it a line before
        monkeypatch.chdir(tmp_path)
        Path(words[words.index("--config") + 1]).write_text(written_config(words[1], "CartPole-v1"))
    command = parse(words)
    if isinstance(command, train.TrainOptions):
        taken: dict[str, Any] = {}
        monkeypatch.setattr(api, "train", lambda name, task, **given: taken.update(given, name=name))
        monkeypatch.setattr(train, "announce", lambda run, **_: None)
        command.run()  # type: ignore[attr-defined]
        general = {item.name for base in train.BASES.values() for item in dataclasses.fields(base)}
        general |= {"name", "rewards", "environment_options"}
        configure(taken["name"], {name: value for name, value in taken.items() if name not in general}, preset=taken.get("preset"))
    if isinstance(command, cli.Disagree):
        for spec in read_specs(command.methods, command.options):
            configure(spec.method, spec.settings)


@cache
def flags() -> frozenset[str]:
    """Every option of every command, of every method and part, as it is typed."""
    names = {"help", "version", "list"}
    for cls in [*(each for each in cli.COMMANDS.values() if each), train.LanguageOptions, train.ControlOptions]:
        members = [cls, *(getattr(cls, "__args__", ()))]
        names |= {item.name for each in members if dataclasses.is_dataclass(each) for item in dataclasses.fields(each)}
    names |= {f"repair.{item.name}" for item in dataclasses.fields(Repairs)}
    for name, row in METHODS.items():
        configs = [row.load()()]
        for kind in [each for each in options_of(configs[0]) if each.path.endswith(".kind")]:
            for choice in kind.hint.__args__:
                with contextlib.suppress(RheostatError):
                    configs.append(configure(name, {kind.path: choice}))
        for config in configs:
            names |= {text for each in options_of(config) for text in (each.path, each.path.replace(".", "_"), each.short)}
    dataset = importlib.import_module("rheostat.cli.dataset")
    for _, each in inspect.getmembers(dataset, dataclasses.is_dataclass):
        names |= {item.name for item in dataclasses.fields(each)}
    return frozenset("--" + name.replace("_", "-") for name in names)


def tools() -> str:
    """The sources of the command lines that are not rheostat's: the flags of `python -m tests.crash` and others are in there."""
    return "\n".join(path.read_text() for folder in ("tests", "benchmarks", "studies") for path in (ROOT / folder).rglob("*.py"))


def test_options_in_sentences_exist() -> None:
    """`--flag` in a sentence is an option of some command."""
    sources = tools()
    wrong = []
    for each in fragments():
        if each.page.name in GENERATED or each.text.startswith(("pip", "apt")):
            continue
        for flag in re.findall(r"(?<!\S)(--[a-z][\w.-]*)", each.text):
            if not {flag, flag.replace("--no-", "--")} & flags() and f'"{flag}"' not in sources:
                wrong.append(f"{each} ({flag})")
    assert not wrong, "\n".join(wrong)


def test_commands_in_sentences_exist() -> None:
    """`rheostat COMMAND` in a sentence is a command; `rheostat study NAME` a study; whole ones parse."""
    wrong = []
    for each in fragments():
        if not each.text.startswith("rheostat "):
            continue
        words = words_of(each.text)
        if words[0] not in cli.COMMANDS:
            wrong.append(str(each))
        study = words[1].replace("-", "_") if words[0] == "study" and len(words) > 1 and re.fullmatch("[a-z][a-z-]*", words[1]) else ""
        if study and not (ROOT / "studies" / f"{study}.py").exists():
            wrong.append(str(each))
        if words[0] in ("train", "microscope", "show") and len(words) > 1:
            parse(words)
    assert not wrong, "\n".join(wrong)


def test_tools_exist() -> None:
    """`python -m tests.crash` and others are modules; `python FILE.py` is an example."""
    scripts = [words[1] for _, line in SHELL for words in [line.split()] if words[0] == "python" and words[1].endswith(".py")]
    assert scripts and all((EXAMPLES / name).exists() or (ROOT / name).exists() for name in scripts), scripts
    texts = [(str(block), line) for block, line in SHELL] + [(str(each), each.text) for each in fragments()]
    found = {(where, name) for where, text in texts for name in PYTHON_TOOLS.findall(text)}
    assert found
    wrong = [f"{where}: {name}" for where, name in sorted(found) if not is_module(name)]
    assert not wrong, "\n".join(wrong)


def is_module(name: str) -> bool:
    """Whether a dotted name is a module of the checkout; nothing is imported but packages above it."""
    base = ROOT.joinpath(*name.split("."))
    return base.with_suffix(".py").exists() or (base / "__main__.py").exists()


def look_up(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if importlib.util.find_spec(module) is None if end == 1 else not exists(module):
            continue
        value: Any = importlib.import_module(module)
        for part in parts[end:]:
            if hasattr(value, part):
                value = getattr(value, part)
            else:
                return part in getattr(value, "__annotations__", {})
        return True
    return False


def exists(module: str) -> bool:
    """Whether a dotted name is a module file."""
    base = ROOT.joinpath(*module.split("."))
    return base.is_dir() or base.with_suffix(".py").exists()


def test_dotted_names_exist() -> None:
    """`rheostat.x.y` is a module or something in one, in sentences and in the lists of the reference."""
    found: set[tuple[str, str]] = set()
    for each in fragments():
        found |= {(str(each), name) for name in re.findall(r"\brheostat(?:\.\w+)+", each.text)}
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        found |= {(page.name, name) for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.M)}
    wrong = [f"{where}: {name}" for where, name in sorted(found) if not look_up(name)]
    assert not wrong, "\n".join(wrong)


def test_roles_of_docstrings_exist() -> None:
    """``:func:`~rheostat.x.y` `` in a docstring of the library points at something."""
    role = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?(rheostat[\w.]+)`")
    found = {name for path in (ROOT / "rheostat").rglob("*.py") for name in role.findall(path.read_text())}
    assert len(found) > 50
    wrong = sorted(name for name in found if not look_up(name))
    assert not wrong, "\n".join(wrong)


PYTHON = blocks("python", "py")


@pytest.mark.parametrize("block", PYTHON, ids=map(str, PYTHON))
def test_python_blocks_fit(block: Block) -> None:
    """Every Python block of a page compiles, imports what exists and calls the package as it can be called."""
    if block.text.lstrip().startswith("--8<--"):
        return  # an example file, which tests/docs/test_examples.py runs
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rheostat"):
            assert all(look_up(f"{node.module}.{alias.name}") for alias in node.names), ast.unparse(node)
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("rheostat.")):
            continue
        function = getattr(rheostat, ast.unparse(node.func).removeprefix("rheostat."))
        keywords = {each.arg: None for each in node.keywords if each.arg}
        inspect.signature(function).bind(*[None for _ in node.args], **keywords)
        if function is not rheostat.train:
            continue
        method = ast.literal_eval(node.args[0])
        given = {item.name for item in dataclasses.fields(Settings)} | set(inspect.signature(function).parameters)
        options = {}
        for each in node.keywords:
            with contextlib.suppress(ValueError):
                options[each.arg or ""] = ast.literal_eval(each.value)
        configure(method, {name: value for name, value in options.items() if name not in given})


MADE = {"studies/results/pilots"}
"""Folders that a command makes."""
ROOMS = {path.name for path in (ROOT / "rheostat").iterdir() if path.is_dir()}
TOP = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"runs"}  # what the reader's own commands fill


def is_there(path: str, page: Any) -> bool:
    """Whether a path of a page exists: from the checkout, the library, the examples or the page."""
    return any((base / path).exists() for base in (ROOT, ROOT / "rheostat", EXAMPLES, page.parent))


def test_files_exist() -> None:
    """A path in a sentence exists if it begins with a folder of the checkout or a room of the library, or is a module or a page."""
    wrong = []
    for each in fragments():
        if each.page.name in GENERATED or each.text in MADE:
            continue
        for path in re.findall(r"(?<![\w/.:*-])[A-Za-z_][\w.-]*/[\w./*-]*", each.text):
            first = path.split("/")[0]
            if "NAME" in path or "*" in path or "METHOD" in path:
                continue
            if (first in TOP | ROOMS - {"docs"} or path.endswith((".py", ".md"))) and not is_there(path, each.page):
                wrong.append(f"{each} ({path})")
    assert not wrong, "\n".join(wrong)


def test_links_of_the_front_pages_exist() -> None:
    """mkdocs checks the links of the site; these are those of README, CONTRIBUTING and SECURITY."""
    wrong = []
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / name).read_text()):
            if not target.startswith(("http:", "https:", "mailto:")) and not (ROOT / target).exists():
                wrong.append(f"{name}: {target}")
    assert not wrong, "\n".join(wrong)


def test_a_wrong_name_would_be_found() -> None:
    """The lookups above can fail."""
    assert not look_up("rheostat.learner.method") and not is_module("tests.no_such")
    assert look_up("rheostat.parts.Batch.units") and not look_up("rheostat.parts.Batch.unit")
    assert "--no-such-option" not in flags() and {"--clip", "--mu.peak"} <= flags()
    with pytest.raises(AssertionError, match="is refused"):
        parse(["train", "grpo", "chain-sum", "--no-such-option", "3"])
    assert not is_there("methods/grpo.py", ROOT / "README.md")
