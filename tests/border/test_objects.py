"""Python hands over objects: functions, rows, models; and hands them over again to go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import rheostat
from rheostat.errors import RheostatError
from rheostat.tasks.language import ChainSum
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings_from_options import settings_for
from tests.border.models import SMALL, sums
from tests.border.rewards import digits as digits_function
from tests.crash import differences
from tests.training.test_run import StopAfter


def length(completions: list[Any], **kwargs: Any) -> list[float]:
    return [float(len(each if isinstance(each, str) else each[0]["content"])) for each in completions]


def model_and_tokenizer(folder: str) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_functions_rows_and_models_train_as_their_names_do(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    import datasets

    causal, words = model_and_tokenizer(model)
    plain: dict[str, Any] = {"model": model, "prompts": prompts, "rewards": (digits,)}
    ways: dict[str, dict[str, Any]] = {
        "names": {},
        "path": {"prompts": Path(prompts), "model": Path(model)},
        "one name": {"rewards": digits},
        "function": {"rewards": digits_function},
        "functions": {"rewards": [digits_function]},
        "rows": {"prompts": sums()},
        "dataset": {"prompts": datasets.Dataset.from_list(sums()), "rewards": (digits_function,)},
        "model": {"model": causal, "tokenizer": words},
        "model alone": {"model": model_and_tokenizer(model)[0], "prompts": sums(), "rewards": (digits_function,)},
    }
    found = {name: rheostat.train("grpo", **(plain | way), directory=tmp_path / name, **SMALL).metrics for name, way in ways.items()}
    for name, rows in found.items():
        assert [row["reward"] for row in rows] == [row["reward"] for row in found["names"]], name


def test_weights_and_mixed_rewards(model: str, digits: str, tmp_path: Path) -> None:
    options = SMALL | {"reward_weights": (0.0, 2.0), "steps": 1}
    run = rheostat.train("grpo", model=model, prompts=sums(), rewards=(digits, length), directory=tmp_path / "run", **options)
    row = run.metrics[0]
    assert row["reward"] == pytest.approx(2 * row["reward/length"]) and row["reward/digits"] > 0


def test_a_named_task_takes_functions_too(tmp_path: Path) -> None:
    from tests.methods.test_language_methods import save

    folder = save(tmp_path / "model")
    options = SMALL | {"max_new_tokens": 12, "steps": 1}
    for task in ("chain-sum", ChainSum()):
        run = rheostat.train("grpo", task, model=folder, rewards=length, directory=tmp_path / str(type(task)), **options)
        assert 0 < run.metrics[0]["reward"] <= 12 and "seconds in reward length" in run.summary


def test_a_run_on_objects_goes_on_with_the_same_objects(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {key: value for key, value in SMALL.items() if key != "progress"} | {"steps": 3, "checkpoint_every": 2}
    objects = {"prompts": sums(), "rewards": (length,)}
    rheostat.train("grpo", model=model, **objects, directory=tmp_path / "whole", progress=False, **options)
    with pytest.raises(Interrupted):
        rheostat.train("grpo", model=model, **objects, directory=tmp_path / "halted", progress=StopAfter(1), **options)
    with pytest.raises(RheostatError, match=r"trained on a Python environment or other object .*prompts=.*rewards="):
        rheostat.resume(tmp_path / "halted", progress=False)
    with pytest.raises(RheostatError, match="begun with other prompts"):
        rheostat.resume(tmp_path / "halted", prompts=sums(12), rewards=(length,), progress=False)
    rheostat.resume(tmp_path / "halted", **objects, progress=False)
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_a_run_on_a_model_object_needs_it_again(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    causal, words = model_and_tokenizer(model)
    options = SMALL | {"steps": 1}
    rheostat.train("grpo", model=causal, tokenizer=words, prompts=prompts, rewards=digits, directory=tmp_path / "run", **options)
    with pytest.raises(RheostatError, match=r"model is an object .*hand it over"):
        rheostat.load(tmp_path / "run")
    causal, words = model_and_tokenizer(model)
    assert rheostat.load(tmp_path / "run", model=causal, tokenizer=words).finished


def test_a_path_of_prompts_is_remembered_beside_functions(model: str, prompts: str, tmp_path: Path) -> None:
    rheostat.train("grpo", model=model, prompts=prompts, rewards=length, directory=tmp_path / "run", **(SMALL | {"steps": 1}))
    assert rheostat.load(tmp_path / "run", rewards=length).finished
    with pytest.raises(RheostatError, match="Unknown object of a run 'reward'"):
        rheostat.load(tmp_path / "run", reward=length)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": 3}, "model is a int"),
        ({"tokenizer": "x"}, "tokenizer goes with a model that is an object"),
        ({"rewards": (length,), "reward_timeout": 3.0}, "length runs in the trainer's process, without a time limit"),
        ({"experts": sums()}, "experts is a list: name a file"),
        ({"task": "chain-sum", "prompts": sums()}, "leave the task out"),
        ({"task": "guess-number", "prompts": None}, "guess-number has several turns, which its environment grades: leave the rewards out"),
        ({"prompts": {"train": sums()}}, "pass one of its entries"),
        ({"rewards": (length,), "reward_weights": (1.0, 2.0)}, "1 rewards have 2 weights"),
        ({"rewards": (length,), "reward_weights": (0.0,)}, "all 0"),
        ({"rewards": (length,), "reward_weights": (float("nan"),)}, "reward_weights is nan; it must be a finite number"),
    ],
)
def test_objects_that_do_not_fit(options: dict[str, Any], message: str, model: str, prompts: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": model, "prompts": prompts, "rewards": (length,)} | options
    with pytest.raises(RheostatError, match=message):
        rheostat.train("grpo", given.pop("task", None), **given, directory=tmp_path / "run", **SMALL)
    with pytest.raises(RheostatError, match="trains control policies"):
        rheostat.train("ppo", "CartPole-v1", rewards=(length,), directory=tmp_path / "run")


def test_settings_hold_names_only(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    run = rheostat.train("grpo", model=model, prompts=sums(), rewards=(length,), directory=tmp_path / "run", **(SMALL | {"steps": 1}))
    kept = Run.settings_in(run.directory)
    assert json.dumps(kept.to_json()) == json.dumps(run.settings.to_json()) and run.settings.rewards == ()
    assert settings_for("grpo", "prompts", model=model, prompts=prompts, rewards=(digits,)).rewards == (digits,)
