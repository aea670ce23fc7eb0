"""What goes with the package: one version everywhere, and a citation that can be read."""

from __future__ import annotations

import tomllib

import yaml

import rheostat
from tests.docs.pages import ROOT


def test_there_is_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == rheostat.__version__ == citation["version"]
    assert project["license"] == citation["license"] and citation["cff-version"] == "1.2.0"
    assert project["description"] in " ".join(citation["abstract"].split())
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_dashboard_and_tool_is_an_extra_that_the_tests_install() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = (ROOT / "Makefile").read_text().partition(".[test,")[2].partition("]")[0].split(",")
    assert {"tensorboard", "trackio", "wandb", "mlflow", "tune"} <= set(extras) & set(installed)
