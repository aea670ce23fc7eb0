"""What the first page claims is so, where a program can look."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from rheostat.cli import entry
from rheostat.cli.train import ControlOptions, LanguageOptions
from rheostat.experiments.studies import results
from rheostat.methods.table import METHODS
from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text()
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text()
PRINTS = re.compile(r"\b(print_table|show|announce)\(|show_[a-z]+\(")


@pytest.mark.parametrize("name", entry.COMMANDS)
def test_every_command_that_prints_a_table_takes_json(name: str) -> None:
    """A command that prints none is named here with what it prints."""
    assert "Every command that prints a table takes `--json`" in README
    classes = [ControlOptions, LanguageOptions] if name == "train" else [entry.COMMANDS[name]]
    without = {"config": "a file", "watch": "an address", "export": "a folder", "report": "a page", "completion": "a script"}
    for cls in classes:
        if "action" in (fields := set(inspect.get_annotations(cls))) and "json" not in fields:  # `dataset make`, `dataset show`, ...
            parts = [each for each in vars(inspect.getmodule(cls)).values() if inspect.isclass(each) and each.__name__.endswith("Dataset")]
            assert parts and all("json" in each.__dataclass_fields__ for each in parts if PRINTS.search(inspect.getsource(each)))
        else:
            assert ("json" in cls.__dataclass_fields__) != (name in without)


def test_the_first_screen_has_a_picture_that_exists() -> None:
    first = README.partition("```sh")[0]
    (path,) = re.findall(r"!\[[^]]{40,}\]\(([^)]+)\)", first, re.DOTALL)
    assert (ROOT / path).stat().st_size > 10_000


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for text in (README, QUICKSTART) for name in re.findall(r"[`\n]make ([a-z]+)\b", text)}
    assert named <= targets, named - targets


def test_studies_that_the_page_names_can_be_run_again() -> None:
    """`rheostat study NAME` runs a study again: every result has its study, which builds its jobs."""
    slugs = results.study_names()
    for path in sorted((ROOT / "studies" / "results").glob("*.json")):
        if path.stem not in results.NO_STUDIES:
            assert path.stem in slugs, path.name
    assert all(f"study `{name}`" not in README or name in slugs for name in re.findall(r"study `([\w-]+)`", README))


def test_methods_whose_code_is_said_to_be_checked_number_by_number_have_vectors() -> None:
    recorded = {path.stem.replace("_", "-") for path in (Path(__file__).parents[1] / "vectors").rglob("*.json")}
    text = "".join(path.read_text() for path in (Path(__file__).parents[1] / "vectors").rglob("*.py"))
    for name, row in METHODS.items():
        if "number by number" in (row.module.__doc__ or ""):
            assert "vectors" in row.verified and (name in recorded or name.replace("-", "_") in text or name in text), name


@pytest.mark.parametrize("module", ["control", "off_policy", "language", "overhead", "commits"])
def test_benchmarks_that_the_page_quotes_exist(module: str) -> None:
    assert (ROOT / "benchmarks" / f"{module}.py").exists()


def test_speeds_name_their_date_and_their_commit() -> None:
    speed = README.partition("<!-- speed -->")[2].partition("<!-- /speed -->")[0]
    assert re.search(r"20\d\d-\d\d-\d\d", speed) and re.search(r"`[0-9a-f]{7}`", speed) and "benchmarks.control" in speed
    for ours, theirs, ratio in re.findall(r"\| ([\d,.]+) \| ([\d,.]+) \| ([\d.]+) \|", speed):
        ours, theirs = (float(each.replace(",", "")) for each in (ours, theirs))
        if theirs and ours > theirs:
            assert ours / theirs == pytest.approx(float(ratio), rel=0.06), (ours, theirs, ratio)
