"""Recipes: what a file says, what is refused before anything is spent, and stages that go on exactly after a stop anywhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.analysis.records import read_record
from rheostat.cli.entry import main
from rheostat.errors import Interrupted, RheostatError
from rheostat.experiments.recipe import Recipe, Stage, best_trial, read_kept, read_recipe, recipe_of
from rheostat.experiments.recipe_stages import choose_prompts, rates_of, stage_rows, totals
from rheostat.training.run import Run
from tests.border.conftest import model as model
from tests.border.models import SMALL, sums, write_rows
from tests.crash import differences
from tests.training.test_run import StopAfter

TINY: dict[str, Any] = {"num_envs": 2, "batch_steps": 32, "epochs": 1, "minibatches": 1, "hidden": [8], "evaluation_episodes": 1}
CONTROL: dict[str, Any] = {
    "name": "two-steps",
    "task": "CartPole-v1",
    "seed": 3,
    "stage": [
        {"name": "first", "method": "ppo", "steps": 128, "checkpoint_every": 32, "evaluate_every": 64, "evaluate_episodes": 1, **TINY},
        {"name": "second", "method": "ppo", "steps": 96, "checkpoint_every": 32, **TINY},
        {"name": "third", "method": "ppo", "from": "first", "steps": 64, "checkpoint_every": 32, **TINY},
    ],
}
EVEN = "def even(completions, **kwargs):\n    return [float(len(turns[0]['content']) % 2 == 0) for turns in completions]\n"


def folders(recipe: Recipe, place: Path) -> list[Path]:
    return [place / recipe.folder(stage) for stage in recipe.stages]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipe of control is trained: runs remember the folder of the run that they began with."""
    return tmp_path_factory.mktemp("recipe") / "out"


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The recipe of control, trained there without a stop, and moved away."""
    rheostat.train_recipe(CONTROL, place, progress=False)
    return place.rename(place.with_name("whole"))


@pytest.fixture
def free(place: Path, whole: Path) -> Path:
    """The same place, free again."""
    shutil.rmtree(place, ignore_errors=True)
    return place


def test_a_file_says_what_python_says(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        """
        name = "two"
        task = "chain-sum"
        [[stage]]
        name = "imitate"
        method = "sft"
        steps = 3
        [[stage]]
        name = "reinforce"
        method = "grpo"
        from = "start"
        stop_at = ["validation_reward", 0.9]
        [stage.clip]
        high = 0.3
        """
    )
    made = Recipe(
        "two",
        (
            rheostat.Stage("imitate", "sft", {"steps": 3}),
            rheostat.Stage("reinforce", "grpo", {"stop_at": ("validation_reward", 0.9), "clip": {"high": 0.3}}, begins="start"),
        ),
        {"task": "chain-sum"},
    )
    found = read_recipe(file)
    assert found.to_json() == made.to_json() == recipe_of(json.loads(json.dumps(made.to_json()))).to_json()
    assert [found.before(stage) for stage in found.stages] == [None, None]
    settings = found.settings_of(found.stages[1])
    assert settings.stop_at == ("validation_reward", 0.9) and settings.config["clip"]["high"] == 0.3 and settings.task == "chain-sum"


def test_stages_begin_with_each_others_weights(whole: Path, place: Path) -> None:
    recipe = read_kept(whole)
    assert recipe is not None and [path.name for path in folders(recipe, whole)] == ["1-first", "2-second", "3-third"]
    for folder, before in zip(folders(recipe, whole)[1:], ("1-first", "1-first"), strict=True):
        began = json.loads((folder / "config.json").read_text())["began"]
        assert began["run"] == str(place / before) and began["steps"] >= 128
    rows = stage_rows(recipe, whole)
    assert all(row["steps"] >= least for row, least in zip(rows, (128, 96, 64), strict=True))
    assert [row["from"] for row in rows] == ["start", "first", "first"]
    assert rows[0]["measure"] == "evaluation_return" and rows[0]["first"] is not None and totals(rows)["seconds"] > 0
    page = (whole / "report.html").read_text()
    assert "Recipe: two-steps" in page and all(name in page for name in ("first", "second", "third", "data:image/png;base64"))


def stop(place: Path, turns: int) -> None:
    """Train until the recipe is stopped by a signal, or is finished."""
    try:
        rheostat.train_recipe(CONTROL, place, progress=StopAfter(turns))
    except Interrupted as stopped:
        assert stopped.directory == place and f"rheostat resume {place}" in str(stopped)


def test_stopped_inside_and_between_stages_it_ends_bit_for_bit_the_same(
    whole: Path, free: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = free
    for turns in (1, 1, 3, 1):
        stop(place, turns)
    (place / "2-second").mkdir(exist_ok=True)
    main(["resume", str(place), "--json"])
    assert len(json.loads(capsys.readouterr().out)["stages"]) == 3
    recipe = read_kept(place)
    assert recipe is not None
    for one, other in zip(folders(recipe, whole), folders(recipe, place), strict=True):
        assert differences(one, other) == [] and (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    done = {path: path.stat().st_mtime_ns for path in place.rglob("state.safetensors")}
    rheostat.train_recipe(CONTROL, place, progress=False)
    assert done == {path: path.stat().st_mtime_ns for path in place.rglob("state.safetensors")}, "finished stages are left as they are"


@pytest.mark.parametrize("leave", ["folder", "no checkpoint"])
def test_a_stage_that_was_killed_while_it_began_begins_anew(leave: str, whole: Path, free: Path) -> None:
    place = free
    stop(place, 1)
    for path in (place / "1-first").iterdir():
        if leave == "folder" or path.name == "checkpoints":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = rheostat.train_recipe(CONTROL, place, progress=False)
    assert differences(whole / "3-third", found.directory / "3-third") == []
    assert found.run("first").finished and found.run().directory.name == "3-third"
    with pytest.raises(RheostatError, match="Unknown stage 'frist'"):
        found.run("frist")


def changed(**stage: Any) -> dict[str, Any]:
    """The recipe with other settings of its second stage; None leaves one out."""
    first, second, third = CONTROL["stage"]
    second = {name: value for name, value in (second | stage).items() if value is not None}
    return CONTROL | {"stage": [first, second, third]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"name": "none"}, "a recipe has stages"),
        ({"stage": []}, "1 to 100 stages"),
        ({"stage": [{"name": "a"}]}, "stage 1 has no method"),
        ({"stage": [{"method": "ppo"}]}, "stage 1 has no name"),
        ({"stage": [{"name": "a", "method": "pppo"}]}, "Unknown method 'pppo'"),
        ({"stage": [{"name": "../a", "method": "ppo"}]}, "cannot be the name of a stage"),
        ({"stage": [{"name": "start", "method": "ppo"}]}, "cannot be the name of a stage"),
        ({"stage": [{"name": 3, "method": "ppo"}]}, "name is 3; it must be text"),
        ({"learning_rate": 1.0, "stage": [{"name": "a", "method": "ppo"}]}, "learning_rate is no setting of every run"),
        ({"from_run": "x", "stage": [{"name": "a", "method": "ppo"}]}, "from_run is no setting of every run"),
        ({"stage": [{"name": "a", "method": "ppo"}, {"name": "b", "method": "grpo"}]}, "A recipe trains one model"),
        ({"stage": [{"name": "a", "method": "ppo", "rewards": [len]}]}, None),
        (changed(name="first"), "Two stages are called first"),
        (changed(**{"from": "third"}), "comes later or is itself"),
        (changed(**{"from": "second"}), "comes later or is itself"),
        (changed(**{"from": "frist"}), "Unknown stage before second 'frist': did you mean first"),
        (changed(learning_rat=1), "Stage second: .*learning_rat"),
        (changed(hidden=[16]), r"Stage second: .*stage first.* does not fit: hidden is \[8\] there and \[16\] here"),
        (changed(steps=-1), "Stage second: .*steps"),
        (changed(pass_rate=[0.1, 0.9]), "Stage second: pass_rate chooses among the prompts of a file"),
        (changed(pass_rate=[0.9, 0.1]), "pass_rate is .0.9, 0.1."),
        (changed(pass_rate=0.5), "write two numbers"),
        (changed(pass_rate_samples=4), "goes with pass_rate"),
        (changed(pass_rate=[0, 1], pass_rate_samples=0), "take at least 1 completion"),
        (changed(pass_rate=[0, 1], pass_rate_samples="4"), "it is a number of completions"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_spent(data: dict[str, Any], said: str | None, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=said):
        rheostat.train_recipe({"name": "r", "task": "CartPole-v1"} | data, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_an_object_cannot_be_kept() -> None:
    with pytest.raises(RheostatError, match="environment_options is an object"):
        Stage("a", "ppo", {"environment_options": object()})


def test_another_recipe_does_not_go_on_in_its_folder(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RheostatError, match="holds another recipe"):
        rheostat.train_recipe(changed(seed=4), whole, progress=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RheostatError, match="not an empty folder"):
        rheostat.train_recipe(CONTROL, tmp_path / "full", progress=False)
    for words, said in ((["--steps", "9"], "--steps is for a single run"), (["--accept-changes"], "--accept-changes is for a single run")):
        with pytest.raises(SystemExit):
            main(["resume", str(whole), *words])
        assert said in capsys.readouterr().err
    kept = (whole / "recipe.json").read_text()
    try:
        (whole / "recipe.json").write_text(kept.replace("128", "129"))
        with pytest.raises(RheostatError, match=r"recipe\.json is damaged"):
            read_kept(whole)
    finally:
        (whole / "recipe.json").write_text(kept)


@pytest.fixture
def language(model: str, tmp_path: Path) -> dict[str, Any]:
    """Two stages of language on a file of prompts; the reward is 1 for completions of even length."""
    (tmp_path / "even.py").write_text(EVEN)
    shared: dict[str, Any] = {
        "model": model,
        "prompts": write_rows(tmp_path / "prompts.jsonl", sums()),
        "rewards": [f"{tmp_path / 'even.py'}:even"],
    }
    own = {name: list(value) if isinstance(value, tuple) else value for name, value in SMALL.items()}
    stage = {"method": "grpo", "steps": 2} | {name: value for name, value in own.items() if name not in ("progress", "steps")}
    shared["environment_options"] = {"validation_share": 0.3}
    return {"name": "even", **shared, "stage": [{"name": "all", **stage}, {"name": "some", "pass_rate": [0.3, 0.7], **stage}]}


def test_a_stage_trains_on_the_prompts_that_its_first_policy_solves_so_often(language: dict[str, Any], tmp_path: Path) -> None:
    found = rheostat.train_recipe(language, tmp_path / "out", progress=False)
    kept = [json.loads(line) for line in (tmp_path / "out" / "2-some-prompts.jsonl").read_text().splitlines()]
    recipe = read_recipe_of(tmp_path / "out")
    run = Run.create(tmp_path / "same", recipe.settings_of(recipe.stages[1]).__class__(
        **vars(recipe.settings_of(recipe.stages[1])) | {"from_run": str(tmp_path / "out" / "1-all")}))  # fmt: skip
    rates = rates_of(run, 8)
    inside = {key for key, rate in rates.items() if 0.3 <= rate <= 0.7}
    assert 0 < len(inside) < len(rates) and found.stages[1]["prompts"] == f"{len(inside)} of {len(rates)}"
    task: Any = run.method.context.setup.task
    train = {prompt.key for prompt in task.block(0, "train", 0)}
    assert len(kept) == len(task.named) - len(train) + len(inside), "validation prompts stay"
    own: Any = Run.load(tmp_path / "out" / "2-some").method.context.setup.task
    assert {prompt.key for prompt in own.block(0, "train", 0)} == inside
    assert [prompt.key for prompt in own.validation()] == [prompt.key for prompt in task.validation()]
    before = (tmp_path / "out" / "2-some-prompts.jsonl").read_bytes()
    (tmp_path / "out" / "2-some-prompts.facts.json").unlink()
    choose_prompts(recipe, tmp_path / "out", recipe.stages[1])
    assert (tmp_path / "out" / "2-some-prompts.jsonl").read_bytes() == before, "the choice does not depend on when it is made"


def read_recipe_of(place: Path) -> Recipe:
    found = read_kept(place)
    assert found is not None
    return found


def test_a_filter_that_leaves_nothing_loses_nothing(language: dict[str, Any], tmp_path: Path) -> None:
    language["stage"][1] |= {"pass_rate": [0.999, 0.9991]}
    for _ in range(2):
        with pytest.raises(RheostatError, match=r"Stage some: the filter leaves no prompt: pass rates of \d+ prompts lie from 0"):
            rheostat.train_recipe(language, tmp_path / "out", progress=False)
        assert (tmp_path / "out" / "1-all" / "summary.json").is_file() and not (tmp_path / "out" / "2-some").exists()


def test_prompts_that_changed_after_the_filter_are_refused(language: dict[str, Any], tmp_path: Path) -> None:
    rheostat.train_recipe(language, tmp_path / "out", progress=False)
    path = tmp_path / "out" / "2-some-prompts.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(RheostatError, match="is not what the filter wrote"):
        stage_rows(read_recipe_of(tmp_path / "out"), tmp_path / "out")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("two-steps.json").write_text(json.dumps(CONTROL))
    main(["train", "two-steps.json"])
    out = capsys.readouterr()
    assert "stage 2 of 3: second (ppo)" in out.err and "Report: runs/two-steps/report.html" in out.out
    assert all(len(line) <= 80 for line in out.out.splitlines() if not line.startswith(("Report", "Not shown")))
    main(["runs", "runs/two-steps", "--json"])
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == {"1-first", "2-second", "3-third"}
    main(["runs", "--json"])
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == {
        f"two-steps/{name}" for name in ("1-first", "2-second", "3-third")
    }
    for words, said in ((["train", "nothing.toml"], "nothing.toml cannot be read"), (["train", "bad.toml"], "bad.toml is no TOML")):
        Path("bad.toml").write_text("= 3")
        with pytest.raises(SystemExit):
            main(words)
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_bit_for_bit_the_same(whole: Path, free: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text(json.dumps(CONTROL))
    place, kills = free, 0
    for seconds in (3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 60.0):
        words = ["resume", str(place)] if (place / "recipe.json").exists() else ["train", str(file), "--directory", str(place)]
        process = subprocess.Popen([sys.executable, "-m", "rheostat", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said.decode()
        if process.returncode == 0:
            break
    assert kills > 0 and process.returncode == 0
    recipe = read_recipe_of(place)
    for one, other in zip(folders(recipe, whole), folders(recipe, place), strict=True):
        assert differences(one, other) == []


@pytest.fixture
def teachers(model: str, tmp_path: Path) -> dict[str, Any]:
    """Two trials of the same student and a stage that goes on with the better one's rows; a completion of even length is right."""
    (tmp_path / "even.py").write_text(EVEN)
    rows = sums()
    files = {
        name: write_rows(tmp_path / f"{name}.jsonl", [row | {"completion": text} for row in rows for text in texts])
        for name, texts in (("short", ("it is 3", "3")), ("long", ("33", "4444", "12")))
    }
    own = {name: list(value) if isinstance(value, tuple) else value for name, value in SMALL.items()}
    stage = {"method": "ded", "steps": 2, "max_new_tokens": 24, "least_reward": 0.0, "most_solved": 1.0, "per_question": 1}
    stage |= {name: value for name, value in own.items() if name not in ("progress", "steps", "group_size", "max_new_tokens")}
    return {
        "name": "teachers",
        "model": model,
        "prompts": write_rows(tmp_path / "prompts.jsonl", rows),
        "rewards": [f"{tmp_path / 'even.py'}:even"],
        "environment_options": {"validation_share": 0.3},
        "stage": [
            {"name": "short", "experts": files["short"], "evaluation_episodes": 8} | stage | {"evaluation_episodes": 8},
            {"name": "long", "from": "start", "experts": files["long"]} | stage | {"evaluation_episodes": 8},
            {"name": "distil", "from": "start", "experts_of_best": ["short", "long"]} | stage | {"per_question": 2},
        ],
    }


def test_a_stage_learns_from_the_rows_with_which_a_student_came_out_best(teachers: dict[str, Any], tmp_path: Path) -> None:
    found = rheostat.train_recipe(teachers, tmp_path / "out", progress=False)
    recipe = read_recipe_of(tmp_path / "out")
    assert recipe.to_json() == recipe_of(json.loads(json.dumps(recipe.to_json()))).to_json()
    finals = {name: read_record(tmp_path / "out" / recipe.folder(recipe.named(name))).final for name in ("short", "long")}
    best = max(finals, key=lambda name: float(finals[name] or 0))
    assert [row["experts_of"] for row in found.stages] == [None, None, best]
    own = json.loads((tmp_path / "out" / "3-distil" / "config.json").read_text())
    assert own["settings"]["experts"] == recipe.named(best).settings["experts"]
    assert "experts of" in (tmp_path / "out" / "report.html").read_text()
    for summary, name in zip(("short", "long"), ("long", "short"), strict=True):  # the other way round, the other teacher
        path = tmp_path / "out" / recipe.folder(recipe.named(summary)) / "summary.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(facts | {"accuracy": 0.1}))
        other = tmp_path / "out" / recipe.folder(recipe.named(name)) / "summary.json"
        other.write_text(json.dumps(json.loads(other.read_text()) | {"accuracy": 0.9}))
        assert best_trial(tmp_path / "out", recipe, recipe.stages[2]) == name


def test_trials_stopped_inside_and_between_go_on_exactly(teachers: dict[str, Any], tmp_path: Path) -> None:
    place, whole = tmp_path / "out", tmp_path / "whole"
    rheostat.train_recipe(teachers, place, progress=False)
    place.rename(whole)
    for turns in (1, 2, 1):
        with contextlib.suppress(Interrupted):
            rheostat.train_recipe(teachers, place, progress=StopAfter(turns))
    rheostat.train_recipe(teachers, place, progress=False)
    recipe = read_recipe_of(place)
    for one, other in zip(folders(recipe, whole), folders(recipe, place), strict=True):
        assert differences(one, other) == []


def test_trials_that_try_nothing_are_refused(teachers: dict[str, Any], tmp_path: Path) -> None:
    for sentence, change in (
        ("Unknown stage before distil 'lang': did you mean long", {"experts_of_best": ["short", "lang"]}),
        ("Unknown stage before distil 'distil'", {"experts_of_best": ["short", "distil"]}),
        ("both say whose rows are learned from", {"experts": "rows.jsonl"}),
        ("write the names of earlier stages, each once", {"experts_of_best": "short"}),
        ("write the names of earlier stages, each once", {"experts_of_best": ["short", "short"]}),
    ):
        stages = [*teachers["stage"][:2], teachers["stage"][2] | change]
        with pytest.raises(RheostatError, match=sentence):
            rheostat.train_recipe(teachers | {"stage": stages}, tmp_path / "no", progress=False)
    bare = {name: value for name, value in teachers["stage"][0].items() if name != "experts"}
    with pytest.raises(RheostatError, match="Stage distil: short has no expert rows of its own to compare"):
        rheostat.train_recipe(teachers | {"stage": [bare, *teachers["stage"][1:]]}, tmp_path / "no", progress=False)
    assert not (tmp_path / "no").exists()
    unmeasured = [teachers["stage"][0] | {"evaluation_episodes": 0}, *teachers["stage"][1:]]
    with pytest.raises(RheostatError, match=r"Stage distil: .*1-short has measured no performance yet"):
        rheostat.train_recipe(teachers | {"stage": unmeasured}, tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "2-long" / "summary.json").is_file(), "nothing computed is lost"


def test_a_teacher_without_a_right_answer_ends_its_trial_and_nothing_else(teachers: dict[str, Any], tmp_path: Path) -> None:
    teachers["stage"][1]["least_reward"] = 2.0
    for _ in range(2):
        with pytest.raises(RheostatError, match="Stage long: The teacher has no correct answer to learn from"):
            rheostat.train_recipe(teachers, tmp_path / "out", progress=False)
        assert (tmp_path / "out" / "1-short" / "summary.json").is_file()
