"""Which settings a run really gets: presets fill in what was not given, files are found from anywhere."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import rheostat
from rheostat.api import settings_for
from rheostat.cli import entry as cli
from rheostat.cli import train
from rheostat.diagnostics.disagreement.method_specs import read_specs
from rheostat.errors import RheostatError
from rheostat.experiments.comparison import plan
from rheostat.learner.dial import Dial
from rheostat.methods import table
from rheostat.training.config_file import written_config
from rheostat.training.describe import other_kinds, presets_of, settings_of
from rheostat.training.run import Run
from rheostat.training.settings import DEFAULTS, Settings, configure, shown_options, usual_steps


def given(words: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The options that a command line hands to the Python API."""
    seen: dict[str, object] = {}
    monkeypatch.setattr(rheostat.api, "train", lambda method, task=None, **options: seen.update(options))
    monkeypatch.setattr(train, "announce", lambda run, **_: None)
    cli.parse(words.split()).run()
    return seen


def test_a_setting_that_is_given_beats_the_preset_even_when_it_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "update.learning_rate" not in given("train grpo chain-sum", monkeypatch)
    for name in ("--learning-rate", "--update.learning-rate"):
        assert given(f"train grpo chain-sum {name} 1e-6", monkeypatch)["update.learning_rate"] == 1e-6
    for name in ("--no-mask-truncated", "--keep.no-mask-truncated"):
        assert given(f"train dapo chain-sum {name}", monkeypatch)["keep.mask_truncated"] is False
    assert settings_for("grpo", "chain-sum").config["update"]["learning_rate"] == 2e-4
    assert settings_for("grpo", "chain-sum", learning_rate=1e-6).config["update"]["learning_rate"] == 1e-6


def test_files_are_kept_by_their_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "1=", "answer": "1"}\n')
    (tmp_path / "r.py").write_text("def f(completions, **rest):\n    return [0.0 for _ in completions]\n")
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    kept = settings_for("grpo", "prompts", prompts="p.jsonl", rewards=("r.py:f", "exact"), model="m")
    assert (kept.prompts, kept.rewards, kept.model) == (str(tmp_path / "p.jsonl"), (f"{tmp_path / 'r.py'}:f", "exact"), str(tmp_path / "m"))
    assert settings_for("grpo", "prompts", prompts="p.jsonl", model="owner/name").model == "owner/name"


def flags(words: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Options that a command's help lists."""
    with pytest.raises(SystemExit):
        cli.parse(words.split())
    return set(re.findall(r"--[a-z][a-z.-]+", capsys.readouterr().out))


def test_help_lists_the_options_that_act_and_no_others(capsys: pytest.CaptureFixture[str]) -> None:
    found = flags("train sft --help", capsys)
    assert {"--learning-rate", "--update.learning-rate", "--demonstrations.prompts", "--prompts-per-batch", "--experts"} <= found
    own = {flag for flag in found if "." in flag} - {"--rewards.py"}
    assert own == {"--" + each.path.replace("_", "-") for each in shown_options("sft", configure("sft", {})) if "." in each.path}
    for nothing in ("group-size", "clip", "advantage", "kl-coefficient", "entropy-coefficient", "top-k", "dial.lag", "max-invalid-share"):
        assert f"--{nothing}" not in found, nothing


def test_a_chosen_kind_brings_its_options(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--target" not in flags("train chord --help", capsys)
    assert {"--target", "--clip.target"} <= flags("train chord --clip searched --help", capsys)
    assert "--kl.estimator" not in flags("train rloo --help", capsys) | flags("train rloo --kl reward --help", capsys)
    assert "--kl.estimator" in flags("train rloo --kl=loss --help", capsys)
    seen = given("train chord chain-sum --clip searched --target 0.7 --mu-peak 0.3", monkeypatch)
    assert {name: seen[name] for name in ("clip.kind", "clip.target", "mu.peak")} == {
        "clip.kind": "searched",
        "clip.target": 0.7,
        "mu.peak": 0.3,
    }
    together = given("train grpo chain-sum --kl reward --advantage rloo", monkeypatch)  # each alone would be refused
    assert (
        settings_for("grpo", "chain-sum", **{name: together[name] for name in ("kl.kind", "advantage.form")}).config["kl"]["kind"]
        == "reward"
    )
    with pytest.raises(RheostatError, match=r"grpo: clip\.kind is 'sreached'; it must be one of clip, searched"):
        given("train grpo chain-sum --clip sreached", monkeypatch)


# --- names that a method does not have ---------------------------------------------------------------------------------------------------

NO_SUCH = [
    ("grpo", "limit", "none", "grpo: the option limit of version 0.1 is now clip.kind: say clip.kind none."),
    ("grpo", "kl_in_reward", True, "grpo: the option kl_in_reward of version 0.1 is now kl.kind: say kl.kind reward."),
    ("dapo", "dynamic_sampling", False, "dapo: the option dynamic_sampling of version 0.1 is now dynamic.kind: say dynamic.kind none."),
    ("sft", "group_size", 4, "sft has no option group_size (acereason, bapo, best-of-n and "),
    (
        "grpo",
        "target",
        0.4,
        "grpo: the option target goes with clip.kind searched, and that is clip: choose searched, or ",
    ),
    ("dpo", "group_size", 4, "dpo: the option group_size goes with data.kind sampled, and that is file: choose sampled, or "),
    ("grpo", "group_sise", 4, "Unknown option of grpo 'group_sise': did you mean group_size"),
    ("ppo", "expectile", 0.7, "ppo has no option expectile (famo2o, iql, uni-o4 have one)"),
    ("gspo", "limit", "none", "gspo has no option limit: nothing in this method depends on it, so leave it out."),
    ("grpo", "dial", 2, "grpo: dial is a part with options: say which, dial.lag or dial.refresh_every or "),
]


@pytest.mark.parametrize(("method", "name", "value", "sentence"), NO_SUCH)
def test_every_door_says_the_same_about_an_option_that_is_not_there(method: str, name: str, value: object, sentence: str) -> None:
    doors = (
        lambda: configure(method, {name: value}),
        lambda: settings_for(method, "chain-sum" if method != "ppo" else "CartPole-v1", **{name: value}),
        lambda: cli.parse(["train", method, "x", "--" + name.replace("_", "-"), json.dumps(value).strip('"')]),
        lambda: cli.parse(["train", method, "x", f"--{name}={json.dumps(value)}".replace('"', "")]),
        lambda: plan([method, "reinforce" if method != "ppo" else "a2c"], "x", seeds=1, steps=1, directory="never", **{name: value}),
        lambda: plan([f"{method}:{name}={json.dumps(value)}"], "x", seeds=1, steps=1, directory="never"),
        lambda: read_specs([f"{method}:{name}={json.dumps(value)}", "reinforce"], {}),
    )
    several = ("sft", "dpo")  # refused before their options are read, or shared with a method that has the option
    for number, door in enumerate(doors):
        if (number == 6 and method in several) or (number == 4 and name in ("group_size",)):
            continue
        with pytest.raises(RheostatError) as error:
            door()
        assert str(error.value).replace(f"{method}:{name}={json.dumps(value)}", method).startswith(sentence), number


def test_an_option_that_some_methods_have_is_given_to_those() -> None:
    with pytest.raises(
        RheostatError, match=r"^sft has no option group_size, and grpo has: give it to the methods that have it, as grpo:group_size=8\.$"
    ):
        plan(["grpo", "sft"], "chain-sum", seeds=1, steps=1, directory="never", group_size=8)


def test_presets_are_shown_by_names_that_the_tables_show() -> None:
    for method in table.METHODS:
        known = {each.name for each in settings_of(method)} | {each.path for options in other_kinds(method).values() for each in options}
        for preset, values in presets_of(method).items():
            assert set(values) <= known, (method, preset)
            assert configure(method, values) == configure(method, {}, preset=preset)


def test_a_kind_by_its_joined_name_and_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given("train grpo chain-sum --clip-kind detached", monkeypatch)["clip.kind"] == "detached"
    for words in ("--clip none --clip-kind detached", "--clip=none --clip.kind=detached", "--clip none --clip detached"):
        with pytest.raises(RheostatError, match=r"grpo: clip\.kind is given twice"):
            given(f"train grpo chain-sum {words}", monkeypatch)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train sac Pendulum-v1 --dial.lag 1", "sac cannot honour dial.lag: it learns from a replay"),
        ("train sft chain-sum --dial-lag 1", "sft cannot honour dial.lag: nothing is sampled"),
        ("train ppo CartPole-v1 --prompts x", "--prompts is not for control methods, of which ppo is one: leave it out."),
        ("train grpo chain-sum --backend envpool", "--backend is not for language methods, of which grpo is one: leave it out."),
        ("train grpo chain-sum --seedd 3", "Unknown option of grpo 'seedd': did you mean seed"),
    ],
)
def test_flags_that_a_method_cannot_take(words: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=re.escape(sentence)):
        cli.parse([*words.split(), "--directory", str(tmp_path / "run")]).run()


def test_the_dial_is_shown_where_it_can_be_turned() -> None:
    shown = {
        name: {each.path for each in shown_options(name, configure(name, {})) if each.path.startswith("dial.")} for name in table.METHODS
    }
    everything = {f"dial.{name}" for name in Dial.__dataclass_fields__}
    assert shown["ppo"] | {"dial.refresh_every"} == shown["grpo"] == everything and "dial.refresh_every" not in shown["ppo"]
    assert shown["sac"] == shown["bc"] == shown["uni-o4"] == set()
    assert shown["sft"] == {"dial.updates_per_batch"} and shown["ros"] == {"dial.updates_per_batch"}
    values: dict[str, object] = {
        "lag": 1,
        "replay_share": 0.5,
        "expert_share": 0.5,
        "updates_per_batch": 2,
        "replay_age": 9,
        "refresh_every": 3,
    }
    for name, paths in shown.items():
        for path in everything - paths:
            with pytest.raises(RheostatError):
                configure(name, {path: values[path[5:]]})
        if table.entry(name).domain == "language":
            for path in paths & {"dial.lag", "dial.replay_share", "dial.expert_share"}:
                configure(name, {path: values[path[5:]]} | ({"group_size": 8} if name == "ppo-lm" else {}))


@pytest.mark.parametrize(("method", "path", "value"), [
    ("chord", "sampling.temperature", 0.5), ("chord", "aggregate.constant", 100.0), ("chord", "dial.expert_share", 0.5),
    ("luffy", "dial.expert_share", 0.5), ("rl-plus", "dial.expert_share", 0.5), ("remix", "dial.replay_share", 0.5),
])  # fmt: skip
def test_what_a_method_refuses_whatever_the_value_is_not_shown(method: str, path: str, value: float) -> None:
    assert path not in {each.path for each in shown_options(method, configure(method, {}))}
    with pytest.raises(RheostatError):
        configure(method, {path: value})


def test_a_preset_gives_way_where_its_value_could_not_act() -> None:
    """ReMix's tiny preset moves the start of a decay of the KL; without a KL nobody asked for that start."""
    assert configure("remix", {"kl_coefficient": 0.0}, preset="tiny").convex.start == configure("remix", {}).convex.start
    with pytest.raises(RheostatError, match=r"convex\.start would do nothing"):
        configure("remix", {"kl_coefficient": 0.0, "convex.start": 7}, preset="tiny")


@pytest.mark.parametrize(("method", "task"), [("grpo", "chain-sum"), ("ppo", "CartPole-v1")])
def test_one_default_from_python_from_files_and_on_the_command_line(
    method: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    def note(where: Path, settings: Settings, **_: Any) -> NoReturn:
        seen.append(settings)
        raise RheostatError("noted")

    monkeypatch.setattr(Run, "create", note)
    written, short = tmp_path / "written.toml", tmp_path / "short.toml"
    written.write_text(written_config(method, task))
    short.write_text(f'method = "{method}"\ntask = "{task}"\n')
    doors: list[Callable[[], object]] = [
        lambda: rheostat.train(method, task),
        lambda: rheostat.train(method, config=written),
        lambda: rheostat.train(method, config=short),
        lambda: cli.parse(["train", method, task]).run(),
        lambda: cli.parse(["train", method, "--config", str(short)]).run(),
    ]
    for door in doors:
        with pytest.raises(RheostatError, match="noted"):
            door()
    usual = DEFAULTS[table.entry(method).domain]
    assert {name: getattr(seen[0], name) for name in usual} == usual
    assert len(seen) == len(doors) and all(dataclasses.replace(each, config=seen[0].config) == seen[0] for each in seen)


def test_several_runs_have_the_budget_of_one() -> None:
    assert usual_steps(["ppo", "sac"]) == Settings.steps and usual_steps(["grpo"]) == DEFAULTS["language"]["steps"] == 100
