"""``rheostat config`` and ``--config``: files of settings and options, there and back, and what is refused in them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import rheostat
from rheostat import api
from rheostat.cli import entry as cli
from rheostat.cli import train
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.options import options_of
from rheostat.training.config_file import read_config, written_config
from rheostat.training.settings import DEFAULTS, Settings, configure, default_of, plain
from rheostat.training.settings_from_options import settings_for


def settings(words: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What a command line would train."""
    seen: list[Settings] = []

    def created(directory: Any, given: Settings, **objects: Any) -> None:
        seen.append(given)

    monkeypatch.setattr(api.Run, "create", created)
    monkeypatch.setattr(api, "finish", lambda run, progress, sinks, callbacks: run)
    monkeypatch.setattr(train, "announce", lambda run, **_: None)
    cli.parse(words.split()).run()
    return seen[0]


@pytest.mark.parametrize("method", table.METHODS)
def test_the_file_of_a_method_read_back_gives_its_defaults(method: str, tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text(written_config(method))
    read = read_config(path, method)
    config = configure(method, {}, below=read.options)
    assert config == configure(method, {}) == table.METHODS[method].load()()
    assert set(read.options) == {each.path for each in options_of(config)}  # every option is listed
    first = DEFAULTS[table.METHODS[method].domain]
    defaults = {name: default_of(item) for name, item in Settings.__dataclass_fields__.items()} | first
    assert read.general and all(value == defaults[name] for name, value in read.general.items()) and read.task is read.preset is None
    for each in options_of(config):
        assert each.documentation.split()[0] in path.read_text()


def test_the_file_of_a_method_on_a_task_is_what_a_run_on_it_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.toml"
    for method, task in (("grpo", "chain-sum"), ("chord", "chain-sum"), ("ppo", "CartPole-v1"), ("bapo", "chain-sum")):
        path.write_text(written_config(method, task))
        assert settings(f"train {method} {task}", monkeypatch) == settings(f"train {method} --config {path}", monkeypatch)
    assert read_config(path, "bapo").options["update.learning_rate"] != configure("bapo", {}).update.learning_rate


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    said = {"seed": 3, "config": {"clip": {"kind": "searched", "target": 0.6}, "update": {"epochs": 2}}, "group_size": 4}
    (tmp_path / "a.json").write_text(json.dumps(said))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(said))
    (tmp_path / "a.toml").write_text(
        'seed = 3\ngroup_size = 4\n[config.clip]\nkind = "searched"\ntarget = 0.6\n[config.update]\nepochs = 2\n'
    )
    found = [read_config(tmp_path / f"a.{kind}", "grpo") for kind in ("json", "yaml", "toml")]
    assert [one.options for one in found] == 3 * [{"clip.kind": "searched", "clip.target": 0.6, "update.epochs": 2, "groups.size": 4}]
    assert [one.general for one in found] == 3 * [{"seed": 3}]


def test_the_command_line_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        'task = "chain-sum"\nseed = 3\nsteps = 7\npreset = "tiny"\nkl_coefficient = 0.25\n[config.clip]\nkind = "searched"\ntarget = 0.6\n'
    )
    found = settings(f"train grpo --config {path}", monkeypatch)
    assert (found.task, found.seed, found.steps, found.threads) == ("chain-sum", 3, 7, 2)
    assert (found.config["clip"]["kind"], found.config["clip"]["target"], found.config["kl"]["coefficient"]) == ("searched", 0.6, 0.25)
    assert found.config["update"]["learning_rate"] == configure("grpo", {}, preset="tiny").update.learning_rate
    given = settings(f"train grpo --config {path} --seed 0 --clip-target 0.7 --kl-coefficient 0 --learning-rate 1e-6", monkeypatch)
    assert (given.seed, given.steps, given.config["clip"]["target"], given.config["kl"]["coefficient"]) == (0, 7, 0.7, 0.0)
    assert given.config["update"]["learning_rate"] == 1e-6
    other = settings(f"train grpo --config {path} --clip none", monkeypatch)  # what belongs to the file's kind goes with it
    assert other.config["clip"] == {"kind": "none"} and other.config["kl"]["coefficient"] == 0.25
    assert settings(f"train grpo countdown --config {path}", monkeypatch).task == "countdown"


def test_a_finished_run_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few: dict[str, Any] = {"num_envs": 2, "batch_steps": 32, "epochs": 1, "minibatches": 2, "hidden": (4,), "evaluation_episodes": 0}
    run = rheostat.train("ppo", "CartPole-v1", directory=tmp_path / "one", steps=64, seed=5, backend="gymnasium", progress=False, **few)
    for source in (run.directory, run.directory / "config.json"):
        again = rheostat.train("ppo", config=source, directory=tmp_path / f"again-{source.suffix}", progress=False)
        assert (
            again.settings == run.settings
            and (again.directory / "metrics.jsonl").read_bytes() == (run.directory / "metrics.jsonl").read_bytes()
        )
    assert settings(f"train ppo --config {run.directory} --seed 6", monkeypatch).seed == 6


def test_a_run_of_version_0_1_is_a_file(tmp_path: Path) -> None:
    from rheostat.training.version_0_1 import defaults

    old = defaults()["grpo"] | {"limit": "none", "group_size": 4}
    (tmp_path / "config.json").write_text(json.dumps({"settings": {"method": "grpo", "task": "chain-sum", "config": old}, "versions": {}}))
    read = read_config(tmp_path, "grpo")
    assert read.options["clip.kind"] == "none" and read.options["groups.size"] == 4 and read.task == "chain-sum"


def test_none_is_a_word_where_a_value_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[config.clip]\nkind = "detached"\nlow = "none"\n[config.dynamic]\nkind = "none"\n')
    assert read_config(tmp_path / "a.toml", "grpo").options == {"clip.kind": "detached", "clip.low": None, "dynamic.kind": "none"}


REFUSED = [
    ("grpo", "sede = 3", "Unknown option of grpo 'sede': did you mean seed"),
    ("grpo", "[config.groups]\nsise = 3", r"Unknown option of grpo 'groups.sise': did you mean groups.size"),
    ("grpo", "[config.groups]\nsize = 'four'", "grpo: groups.size is 'four'; it must be of type int."),
    ("grpo", "[config.groups]\nsize = 0", "grpo: groups.size is 0; it must be at least 1."),
    ("grpo", "seed = 'three'", "seed is 'three'; it must be of type int."),
    ("grpo", "device = 3", "device is 3; it must be of type str."),
    ("grpo", "dtype = 'float64'", "dtype is 'float64'; it must be one of float32, bfloat16, float16."),
    ("grpo", "[config.clip]\nkind = 'sreached'", "grpo: clip.kind is 'sreached'; it must be one of clip, searched"),
    ("grpo", "[config.clip]\ntarget = 0.5", "grpo: the option clip.target goes with clip.kind searched, and that is clip: choose searched"),
    ("grpo", "limit = 'none'", "grpo: the option limit of version 0.1 is now clip.kind: say clip.kind none."),
    ("grpo", "method = 'dapo'", "it is a configuration of dapo, not of grpo: train dapo, or leave the key method out."),
    ("grpo", "task = 3", "task is 3; it must be of type str."),
    ("grpo", "preset = 'tyni'", "Unknown preset of grpo 'tyni': did you mean tiny"),
    ("grpo", "config = 3", "config is 3; it must be a table of options of grpo."),
    ("grpo", "group_size = 3\n[config.groups]\nsize = 3", "grpo: groups.size is given twice, as groups.size and as group_size"),
    ("grpo", "backend = 'envpool'", "backend is not for language methods, of which grpo is one: leave it out."),
    ("ppo", "prompts = 'x'", "prompts is not for control methods, of which ppo is one: leave it out."),
    ("ppo", "environment_options = 3", "environment_options is 3; it must be a table of names and values."),
    ("sft", "group_size = 4", "sft has no option group_size (acereason, bapo, best-of-n and "),
    ("dpo", "group_size = 4", "dpo: the option group_size goes with data.kind sampled, and that is file: choose sampled, or "),
    ("iql", "[config]\nlog_std = [1.0]", "iql: log_std is [1.0]; it must be a list of 2 values."),
    ("grpo", "[config]\nupdate = 4", "grpo: update is a part with options: say which, update.epochs or "),
    ("grpo", "seed 3", "is no TOML: "),
]


@pytest.mark.parametrize(("method", "text", "sentence"), REFUSED)
def test_what_a_file_cannot_say(method: str, text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text + "\n")
    with pytest.raises(RheostatError) as error:
        rheostat.train(method, "CartPole-v1", config=path, progress=False)
    said = str(error.value)
    assert said.startswith(str(path)) and sentence in said and "\n" not in said
    with pytest.raises(SystemExit):
        cli.main(["train", method, "CartPole-v1", "--config", str(path)])
    assert said in capsys.readouterr().err


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "a.yaml").write_text("- 1\n")
    (tmp_path / "b.yaml").write_text("a: [1\n")
    for name, sentence in (
        ("a.txt", "ends with neither"),
        ("a.yaml", "holds a list"),
        ("b.yaml", "is no YAML"),
        ("c.toml", "cannot be read"),
    ):
        with pytest.raises(RheostatError, match=sentence) as error:
            read_config(tmp_path / name, "grpo")
        assert "\n" not in str(error.value)


def test_the_command_writes_toml_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["config", "treepo", "chain-sum"])
    text = capsys.readouterr().out
    data = tomllib.loads(text)
    assert data["method"] == "treepo" and data["task"] == "chain-sum" and data["config"]["tree"]["branching"]["kind"] == "even"
    assert data["config"]["update"] == {
        key: "none" if value is None else value for key, value in plain(configure("treepo", {}, preset="tiny"))["update"].items()
    }
    assert re.search(r"^# .+\nlearning_rate = ", text, re.M) and all(len(line) <= 120 for line in text.splitlines())


def test_settings_of_the_other_domain_are_refused_in_python() -> None:
    with pytest.raises(RheostatError, match="dtype is not for control methods, of which ppo is one"):
        settings_for("ppo", "CartPole-v1", dtype="bfloat16")
    with pytest.raises(RheostatError, match="online_steps is not for language methods"):
        settings_for("grpo", "chain-sum", online_steps=3)
