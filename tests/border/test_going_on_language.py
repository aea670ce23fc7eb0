"""Going on with language models: other runs' weights to begin with, a larger budget, the best policy, and the curve of measurements."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings_from_options import settings_for
from tests.border.models import SMALL, sums, write_rows
from tests.border.test_adapters import logits
from tests.crash import differences
from tests.training.test_run import StopAfter

KEPT = {name: value for name, value in SMALL.items() if name != "progress"}
MEASURED: dict[str, Any] = {"environment_options": {"validation_share": 0.3}, "evaluate_every": 1, "evaluation_prompts": 4}


def settings(method: str, **options: Any) -> Any:
    chosen = {name: value for name, value in KEPT.items() if method != "sft" or name != "group_size"}
    return settings_for(method, "prompts", **(chosen | {"learning_rate": 1e-2} | options))


@pytest.fixture(scope="module")
def taught(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of SFT on the tiny model."""
    folder = tmp_path_factory.mktemp("taught")
    rows = write_rows(folder / "rows.jsonl", [{"prompt": f"{n}", "completion": str(n + 1)} for n in range(12)])
    return Run.create(folder / "run", settings("sft", model=model, prompts=rows, experts=rows)).train().directory


@pytest.mark.parametrize("given", [True, False])
def test_reinforcement_begins_where_teaching_ended(
    given: bool, taught: Path, model: str, prompts: str, digits: str, tmp_path: Path
) -> None:
    """The reference of its KL is the policy that it began with, also after a resume without the first run."""
    first = tmp_path / "first"
    shutil.copytree(taught, first)
    named = {"model": model} if given else {}
    options = settings("grpo", prompts=prompts, rewards=(digits,), from_run=str(first), steps=3, checkpoint_every=1, **named)
    assert options.model == model
    whole = Run.create(tmp_path / "whole", options)
    theirs = logits(LanguagePolicy.load(taught / "model").model)
    torch.testing.assert_close(logits(whole.method.policy.model), theirs)
    assert (logits(LanguagePolicy.load(model).model) - theirs).abs().max() > 1e-3
    whole.train()
    assert abs(whole.metrics[0]["kl_reference"]) < 1e-6 and whole.metrics[-1]["kl_reference"] > 1e-5
    assert any(str(first) in said and said.endswith("at step 2): policy.") for said in whole.summary["warnings"])
    halted = Run.create(tmp_path / "halted", options)
    shutil.rmtree(first)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    Run.load(tmp_path / "halted").train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_adapters_are_begun_with_and_resume_exactly(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    """Adapters that came from another run are a part of the reference, which a resume rebuilds from the checkpoint alone."""
    shared = {"prompts": prompts, "rewards": (digits,)}
    first = Run.create(tmp_path / "first", settings("grpo", model=model, adapter_rank=2, adapter_targets=("q_proj",), **shared)).train()
    options = settings("grpo", from_run=str(tmp_path / "first"), steps=3, checkpoint_every=1, **shared)
    assert (options.adapter_rank, options.adapter_targets, options.model) == (2, ("q_proj",), model)
    whole = Run.create(tmp_path / "whole", options)
    torch.testing.assert_close(logits(whole.method.policy.model), logits(first.method.policy.model))
    whole.train()
    assert abs(whole.metrics[0]["kl_reference"]) < 1e-6
    halted = Run.create(tmp_path / "halted", options)
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    again = Run.load(tmp_path / "halted").train()
    assert again.metrics == whole.metrics and differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter_rank": 2}, "does not fit: its model has no adapters, and here it has some: give this run the same adapter_rank"),
        ({"model": "OTHER"}, r"does not fit: of its policy, .* is \[\d+, 32\] there and \[\d+, 48\] here"),
    ],
)
def test_other_models_do_not_fit(options: dict[str, Any], message: str, taught: Path, prompts: str, digits: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    if "model" in options:
        larger = AutoConfig.from_pretrained(taught / "model", hidden_size=48)
        AutoModelForCausalLM.from_config(larger).save_pretrained(tmp_path / "larger")
        LanguagePolicy.load(taught / "model").tokenizer.save_pretrained(tmp_path / "larger")
        options = {"model": str(tmp_path / "larger")}
    with pytest.raises(RheostatError, match=message):
        Run.create(tmp_path / "run", settings("grpo", prompts=prompts, rewards=(digits,), from_run=str(taught), **options))
    assert not (tmp_path / "run").exists()


def test_a_language_run_goes_on_with_a_larger_budget(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": model, "prompts": prompts, "rewards": (digits,)}
    whole = Run.create(tmp_path / "whole", settings("grpo", steps=4, **options)).train()
    Run.create(tmp_path / "run", settings("grpo", steps=2, **options)).train()
    longer = rheostat.resume(tmp_path / "run", steps=4, progress=False)
    assert longer.metrics == whole.metrics and longer.finished


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_the_best_model_is_kept_opened_and_begun_with(
    method: str, model: str, digits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sums(20) if method == "grpo" else [row | {"completion": row["answer"]} for row in sums(20)]
    options = MEASURED | {"model": model, "prompts": write_rows(tmp_path / "rows.jsonl", rows), "rewards": (digits,), "save_best": True}
    run = Run.create(tmp_path / "run", settings(method, steps=4, **options)).train()
    curve = [row for row in run.metrics if "accuracy" in row]
    assert [row["updates"] for row in curve] == [0, 1, 2, 3, 4]
    best = max(curve, key=lambda row: row["accuracy"])
    kept = json.loads((tmp_path / "run" / "best" / "best.json").read_text())
    assert kept == {name: best[name] for name in ("steps", "updates", "accuracy")}
    opened = Run.load(tmp_path / "run", at="best")
    torch.testing.assert_close(logits(opened.method.policy.model), logits(LanguagePolicy.load(tmp_path / "run" / "best" / "model").model))
    main(["evaluate", str(tmp_path / "run"), "--best", "--samples", "1", "--json"])
    assert "results" in json.loads(capsys.readouterr().out)
    begun = Run.create(tmp_path / "begun", settings(method, from_run=str(tmp_path / "run" / "best"), **options))
    torch.testing.assert_close(logits(begun.method.policy.model), logits(opened.method.policy.model))


def test_measuring_a_language_model_changes_nothing_and_may_end_the_run(model: str, digits: str, tmp_path: Path) -> None:
    """Training is the same with and without measurements, at whatever interval; a rule stops the run at the first that is enough."""
    options = MEASURED | {"model": model, "prompts": write_rows(tmp_path / "rows.jsonl", sums(20)), "rewards": (digits,)}
    seen = Run.create(tmp_path / "seen", settings("grpo", steps=3, **options)).train()
    rare = Run.create(tmp_path / "rare", settings("grpo", steps=3, **options | {"evaluate_every": 2})).train()
    blind = Run.create(tmp_path / "blind", settings("grpo", steps=3, **options | {"evaluate_every": 0})).train()
    curve = [row["accuracy"] for row in seen.metrics]
    assert [row.get("accuracy") for row in rare.metrics] == [curve[0], None, curve[2], None]
    rewards = [[row["reward"] for row in run.metrics if "reward" in row] for run in (seen, blind)]
    assert rewards[0] == rewards[1] and len(rewards[0]) == 3
    assert torch.equal(logits(seen.method.policy.model), logits(blind.method.policy.model))
    stopped = settings("grpo", steps=9, stop_at=("accuracy", max(curve)), **options)
    run = Run.create(tmp_path / "stopped", stopped).train()
    assert run.finished and run.method.updates == curve.index(max(curve))
    assert any("stop_at asks for" in said for said in run.summary["warnings"])
