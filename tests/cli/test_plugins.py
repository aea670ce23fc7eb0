"""An installed package adds methods, tasks and rewards; one that is broken is one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import rheostat
from rheostat import plugins
from rheostat.cli.entry import main
from rheostat.credit.verifiers.built_in import load_reward
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.tasks.language import language_task, task_list

CODE = '''
from dataclasses import dataclass
import gymnasium
from rheostat.methods.control.a2c import A2C
from rheostat.methods.table import Entry
from rheostat.tasks.language.chain_sum import ChainSum

@dataclass(frozen=True)
class Slow(A2C):
    """A2C by another name."""

SLOW = Entry("acme_rl:Slow", "control", "A2C, slowly", "-", "an example")

def long_pole(steps=50):
    return gymnasium.make("CartPole-v1", max_episode_steps=steps)

@dataclass(frozen=True)
class Sums(ChainSum):
    pass

def brevity(completions, **_):
    return [1.0 / (1 + len(text)) for text in completions]
'''
POINTS = """
[rheostat.methods]
slow-a2c = acme_rl:SLOW
broken = acme_rl:nothing
no-row = acme_rl:brevity
ppo = acme_rl:SLOW
[rheostat.tasks]
acme/LongPole-v0 = acme_rl:long_pole
acme-sums = acme_rl:Sums
[rheostat.rewards]
brevity = acme_rl:brevity
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A site directory with one small installed package."""
    site = tmp_path / "site"
    (site / "acme_rl-1.0.dist-info").mkdir(parents=True)
    (site / "acme_rl.py").write_text(CODE)
    (site / "acme_rl-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-rl\nVersion: 1.0\n")
    (site / "acme_rl-1.0.dist-info" / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    monkeypatch.setattr(table, "METHODS", dict(table.METHODS))
    monkeypatch.setattr(task_list, "TASKS", dict(task_list.TASKS))
    plugins.added.cache_clear()
    yield site
    plugins.added.cache_clear()


def test_a_method_and_an_environment_of_a_package_train_and_come_back(tmp_path: Path) -> None:
    options = {"steps": 160, "evaluation_episodes": 1, "progress": False, "environment_options": {"steps": 20}}
    run = rheostat.train("slow-a2c", "acme/LongPole-v0", directory=tmp_path / "run", **options)
    assert run.finished and run.settings.task == "acme/LongPole-v0" and run.summary["evaluation_length"] <= 20
    assert rheostat.load(tmp_path / "run").evaluate(1)["evaluation_length"] <= 20


def test_a_language_task_and_a_reward_of_a_package() -> None:
    assert type(language_task("acme-sums")).__name__ == "Sums"
    with pytest.raises(RheostatError, match="Unknown knob of acme-sums"):
        language_task("acme-sums", wrong=1)
    verifier = load_reward("brevity")
    assert verifier is not None and getattr(verifier, "close", lambda: None)() is None


def test_what_the_library_has_itself_is_not_taken_over() -> None:
    assert table.entry("ppo").path == "rheostat.methods.control.ppo:PPO"


def test_what_cannot_be_loaded_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RheostatError, match=r"The package acme-rl adds broken to rheostat.methods, but acme_rl:nothing cannot be loaded"):
        table.entry("broken")
    with pytest.raises(RheostatError, match=r"no-row of rheostat\.methods is a function"):
        table.entry("no-row")
    main(["list", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert (
        "slow-a2c" in {row["method"] for row in listed["methods"]} and listed["tasks"]["installed packages"] == 2
    )  # those that neither Gymnasium nor the library lists


def test_unknown_names_are_compared_with_those_of_packages() -> None:
    with pytest.raises(RheostatError, match="slow-a2c"):
        table.entry("slow-a2")
    with pytest.raises(RheostatError, match="brevity"):
        load_reward("brevit")


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that adds a method, in a folder that is not on the import path."""
    path = tmp_path / "mine" / "my_methods_file.py"
    path.parent.mkdir()
    row = 'METHODS["mine"] = Entry("my_methods_file:Mine", "control", "A2C of mine", "-", "nothing")'
    path.write_text(
        "\n".join(
            ['"""Mine."""', "from rheostat.methods.control.a2c import A2C", "from rheostat.methods.table import METHODS, Entry", "",
             "class Mine(A2C):", '    """Mine."""', row, ""]
        )
    )  # fmt: skip
    monkeypatch.setattr(table, "METHODS", dict(table.METHODS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv(plugins.FILES, "")
    monkeypatch.chdir(tmp_path)
    yield path
    sys.modules.pop("my_methods_file", None)


def test_a_file_adds_methods_to_every_command(own_file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--steps", "64", "--num-envs", "2", "--batch-steps", "32", "--evaluation-episodes", "0"]
    main(["train", "mine", "CartPole-v1", "--methods", "mine/my_methods_file.py", *options, "--directory", "run", "--json"])
    assert json.loads(capsys.readouterr().out)["method"] == "mine"
    for words in (["list"], ["show", "mine"], ["config", "mine"], ["resume", "run", "--steps", "96"]):
        main([*words, f"--methods={own_file}"])
        assert "mine" in capsys.readouterr().out.lower()
    assert os.environ[plugins.FILES] == str(own_file), "processes of a comparison are told"


def test_a_method_of_a_file_is_looked_at_anew(own_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RHEOSTAT_CACHE", str(tmp_path / "cache"))
    for words in (["show", "mine"], ["config", "mine"], ["train", "mine", "--help"]):
        with contextlib.suppress(SystemExit):
            main([*words, "--methods", str(own_file)])
    assert not [path for path in tmp_path.glob("cache/remembered/*/*") if "mine" in path.name]


def test_a_file_that_adds_nothing_is_one_sentence(
    own_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["train", "mine", "CartPole-v1", "--methods", str(own_file), "--steps", "32", "--num-envs", "2", "--batch-steps", "32",
          "--evaluation-episodes", "0", "--directory", "run"])  # fmt: skip
    (own_file.parent / "broken_methods.py").write_text("1 / 0")
    (own_file.parent / "empty_methods.py").write_text("")
    (own_file.parent / "json.py").write_text("")
    own_file.write_text(own_file.read_text() + "# changed\n")
    with pytest.raises(SystemExit):
        main(["resume", "run", "--steps", "64", "--methods", str(own_file)])
    assert "The method of my_methods_file.py has changed since the run began" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(table, "METHODS", {name: row for name, row in table.METHODS.items() if name != "mine"})
    monkeypatch.setenv(plugins.FILES, "")
    for words, said in (
        (["resume", "run"], "run was trained with the method mine, which is not in the library: add the file"),
        (["list", "--methods"], "--methods names a Python file"),
        (["list", "--methods", "--json"], "--methods names a Python file"),
        (["list", "--methods", "nothing.py"], "There is no Python file"),
        (["list", "--methods", "mine/broken_methods.py"], "cannot be imported (ZeroDivisionError: division by zero)"),
        (["list", "--methods", "mine/empty_methods.py"], "empty_methods.py adds no method"),
        (["list", "--methods", "mine/json.py"], "is that of another module: rename the file"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert said in " ".join(capsys.readouterr().err.split())
