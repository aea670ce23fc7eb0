"""Adapters: those of a folder are gone on with, the reference is the policy the run began with, and exports are what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import rheostat
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings_from_options import settings_for
from tests.border.models import SMALL, tokenizer
from tests.crash import differences
from tests.training.test_run import StopAfter

peft = pytest.importorskip("peft")
IDS = torch.arange(3, 15)[None]


@pytest.fixture(scope="module")
def adapter(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of LoRA adapters that were trained on the tiny model."""
    folder = tmp_path_factory.mktemp("adapter")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    adapted.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def settings(model: str, prompts: str, digits: str, **options: Any) -> Any:
    kept = {key: value for key, value in SMALL.items() if key != "progress"}
    return settings_for("grpo", "prompts", model=model, prompts=prompts, rewards=(digits,), **(kept | options))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def sft_logits(model: str, adapter: str) -> torch.Tensor:
    return logits(peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter).eval())


def test_a_folder_of_adapters_is_loaded_with_its_base(model: str, adapter: str) -> None:
    policy = LanguagePolicy.load(adapter)
    torch.testing.assert_close(logits(policy.model), sft_logits(model, adapter))
    assert (logits(policy.model) - logits(AutoModelForCausalLM.from_pretrained(model))).abs().max() > 0.1
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained)


@pytest.mark.parametrize("rank", [0, 4])
def test_training_goes_on_with_them_and_the_reference_is_the_start(rank: int, adapter: str, model: str, prompts: str, digits: str) -> None:
    one = build_method(settings(adapter, prompts, digits, adapter_rank=rank, learning_rate=1e-2), "prompts")
    torch.testing.assert_close(logits(one.policy.model), sft_logits(model, adapter))  # type: ignore[attr-defined]
    first, second = one.turn(), one.turn()
    assert first is not None and abs(first["kl_reference"]) < 1e-6 and second is not None and second["kl_reference"] > 1e-5
    reference = one.context.models["reference"].network  # type: ignore[attr-defined]
    with reference._in_place():
        torch.testing.assert_close(logits(one.policy.model), sft_logits(model, adapter))  # type: ignore[attr-defined]
    assert (logits(one.policy.model) - sft_logits(model, adapter)).abs().max() > 1e-4  # type: ignore[attr-defined]


def test_a_model_with_adapters_that_is_handed_over_is_its_own_reference(adapter: str, model: str, prompts: str, digits: str) -> None:
    adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter, is_trainable=True)
    one = build_method(settings(model, prompts, digits), "prompts", (adapted, tokenizer()))
    first = one.turn()
    assert first is not None and abs(first["kl_reference"]) < 1e-6


def test_new_adapters_have_the_base_as_their_reference(model: str, prompts: str, digits: str) -> None:
    one = build_method(
        settings(model, prompts, digits, adapter_rank=2, adapter_alpha=6.0, adapter_targets=("q_proj", "up_proj")), "prompts"
    )
    config = one.policy.model.active_peft_config  # type: ignore[attr-defined]
    assert (config.r, config.lora_alpha, config.target_modules) == (2, 6.0, {"q_proj", "up_proj"})
    assert one.context.models["reference"].network.state_dict() == {}  # type: ignore[attr-defined]
    first = one.turn()
    assert first is not None and abs(first["kl_reference"]) < 1e-6


def test_a_run_on_adapters_resumes_exactly(adapter: str, prompts: str, digits: str, tmp_path: Path) -> None:
    options = settings(adapter, prompts, digits, steps=3, checkpoint_every=2, learning_rate=1e-3)
    Run.create(tmp_path / "whole", options).train()
    halted = Run.create(tmp_path / "halted", options)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    Run.load(tmp_path / "halted").train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.parametrize("export", ["merged", "adapters"])
def test_exports_hold_what_was_trained(export: str, adapter: str, model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    options = SMALL | {"learning_rate": 1e-2}
    run = rheostat.train("grpo", model=adapter, prompts=prompts, rewards=digits, directory=tmp_path / "run", export=export, **options)
    folder = tmp_path / "run" / "model"
    assert (folder / "adapter_config.json").is_file() == (export == "adapters")
    torch.testing.assert_close(logits(LanguagePolicy.load(folder).model), logits(run.method.policy.model), atol=1e-4, rtol=1e-4)
    if export == "adapters":
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"adapter_rank": 8}, "adapter_rank is 8, but the adapters in .* have 4"),
        ({"adapter_rank": 4, "adapter_alpha": 3.0}, r"adapter_alpha is 3.0, but .* have 8"),
    ],
)
def test_settings_that_contradict_the_folder_are_refused(
    options: dict[str, Any], message: str, adapter: str, prompts: str, digits: str
) -> None:
    with pytest.raises(RheostatError, match=message):
        build_method(settings(adapter, prompts, digits, **options), "prompts")


def test_options_of_adapters_without_adapters_are_refused(model: str, prompts: str, digits: str) -> None:
    for name, value in (("adapter_alpha", 3.0), ("adapter_targets", ("q_proj",)), ("export", "adapters")):
        with pytest.raises(RheostatError, match="adapter_rank"):
            build_method(settings(model, prompts, digits, **{name: value}), "prompts")


def test_recompute_and_the_other_engine(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    plain, spared = (
        rheostat.train("grpo", model=model, prompts=prompts, rewards=digits, directory=tmp_path / str(on), recompute=on, **SMALL)
        for on in (False, True)
    )
    assert spared.method.policy.recompute and not plain.method.policy.recompute
    assert [row["reward"] for row in plain.metrics] == [row["reward"] for row in spared.metrics]
    run = rheostat.train(
        "grpo", model=model, prompts=prompts, rewards=digits, directory=tmp_path / "other", engine="continuous", **(SMALL | {"steps": 1})
    )
    assert type(run.method.context.setup.checked.engine).__name__ == "ContinuousEngine" and run.metrics[0]["meter/parity_worst"] < 1e-3


def test_code_of_a_models_own_is_never_run(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((Path(model) / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(RheostatError, match=r"never run here .trust_remote_code stays off."):
        LanguagePolicy.load(folder)
