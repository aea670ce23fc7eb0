"""Loading a causal LM and its tokenizer: folder, device, dtype, and whether the two belong together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rheostat.errors import MissingExtra, RheostatError, shown_error

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
SPARE_ROWS = 1024  # models round their vocabulary up for speed; more unused rows than this (or 5 %) are another tokenizer's


def resolve_device(device: str | torch.device) -> torch.device:
    """The device asked for.

    Raises:
        RheostatError: it is not there, or the name means nothing.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise RheostatError(f"Unknown device {device!r}: use 'cpu', 'cuda' or 'cuda:N'.") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise RheostatError(
            f"The device {str(device)!r} was asked for, but PyTorch sees no GPU: use device='cpu', or install a PyTorch build for your GPU."
        )
    if found.type == "cuda" and found.index is not None and found.index >= torch.cuda.device_count():
        raise RheostatError(f"The device {str(device)!r} was asked for, but this machine has only {torch.cuda.device_count()} GPU(s).")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise RheostatError("The device 'mps' was asked for, but this PyTorch cannot use one here: use device='cpu'.")
    return found


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The floating-point type of this name.

    Raises:
        RheostatError: not one of ``DTYPES``.
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise RheostatError(f"Unknown dtype {dtype!r}: one of {', '.join(DTYPES)}.")
    return found


def load_model(path: str | Path, device: torch.device, dtype: torch.dtype, **options: Any) -> Any:
    """A causal LM from a Hugging Face folder (or hub name), on ``device`` in ``dtype``; from a folder of adapters, their base with the
    adapters on it, ready to be trained on. Code that a model's folder brings along is never run.

    Raises:
        RheostatError: there is no such model, it is not a causal LM, or it needs code of its own.
    """
    from transformers import AutoModelForCausalLM

    base = base_of_adapters(path)
    try:
        with without_bars():
            model: Any = AutoModelForCausalLM.from_pretrained(str(base or path), dtype=dtype, trust_remote_code=False, **options)
            if base is not None:
                model = _with_saved_adapters(model, path)
    except (OSError, ValueError, ImportError, KeyError) as error:
        if "trust_remote_code" in str(error) or "remote code" in str(error):
            raise RheostatError(
                f"The model {str(path)!r} brings code of its own, which is never run here (trust_remote_code stays off): use a model that "
                "transformers knows by itself."
            ) from error
        raise RheostatError(_not_loaded("model", base or path, error)) from error
    for tensor in (*model.parameters(), *model.buffers()):
        # Loaded weights are views of the file, at any byte offset. Memory of their own is aligned, so that products take the
        # same path in every process (sums of floats depend on it), and the file may be replaced while the model is in use.
        tensor.data = tensor.data.clone()
    return model.to(device)


def base_of_adapters(path: str | Path) -> str | None:
    """The base model that a folder of ``peft`` adapters names; None for a folder of another kind.

    Raises:
        RheostatError: adapters that name no base model.
    """
    config = adapter_config(path)
    if config is None:
        return None
    base = config.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise RheostatError(f"The adapters in {path} do not say what they sit on: set base_model_name_or_path in {ADAPTER_CONFIG}.")
    beside = Path(path) / base
    return str(beside) if beside.is_dir() else base


def adapter_config(path: str | Path) -> dict[str, Any] | None:
    """The configuration in a folder of ``peft`` adapters; None for a folder of another kind.

    Raises:
        RheostatError: its file is damaged.
    """
    file = Path(path) / ADAPTER_CONFIG
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RheostatError(f"{file} is damaged ({shown_error(error)}): save the adapters again.") from error
    if not isinstance(config, dict):
        raise RheostatError(f"{file} is damaged (a {type(config).__name__} instead of an object): save the adapters again.")
    return config


def _with_saved_adapters(model: Any, path: str | Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtra("peft", "peft", "Training adapters") from error
    try:
        return PeftModel.from_pretrained(model, str(path), is_trainable=True)
    except Exception as error:  # peft, torch and safetensors each raise their own where files are damaged or of another model
        raise RheostatError(f"The adapters in {path} cannot be put on their base model ({shown_error(error)}): save them again.") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Silence the progress bars that transformers prints while it reads and writes weights; Rheostat's own show what takes long."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer of a Hugging Face folder (or hub name).

    Raises:
        RheostatError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        has_own = not Path(path).is_dir() or any((Path(path) / name).is_file() for name in TOKENIZER_FILES)
        return AutoTokenizer.from_pretrained(str(path if has_own else base_of_adapters(path) or path), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise RheostatError(_not_loaded("tokenizer", path, error)) from error


def _not_loaded(kind: str, path: str | Path, error: Exception) -> str:
    folder = Path(path)
    if not folder.is_dir():
        reason = "it is not a folder, and no model of that name could be fetched"
    elif kind == "model" and not (folder / "config.json").is_file():
        reason = "the folder has no config.json"
    else:
        reason = str(error).strip().splitlines()[0]
    return f"Could not load a {kind} from {str(path)!r}: {reason}; give a Hugging Face folder of a causal language model."


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer that another model was trained with.

    Raises:
        RheostatError: the tokenizer has ids the model has no embedding for, the model has many more embeddings than the tokenizer has
            ids, or there is no end token. A padding token is not needed, because masks go by position and never by token.
    """
    rows, ids = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if ids > rows or rows - ids > max(SPARE_ROWS, rows // 20):
        raise RheostatError(
            f"The model and the tokenizer disagree about the vocabulary: the model has {rows} token embeddings, the tokenizer {ids} "
            "tokens; load the tokenizer the model was trained with, or resize the model's embeddings."
        )
    if tokenizer.eos_token_id is None:
        raise RheostatError(
            "The tokenizer has no end token, so no completion could ever end by itself: set tokenizer.eos_token to the token that closes "
            "an answer in the model's training data (often '<|endoftext|>', or '<|im_end|>' for chat models)."
        )


def stop_ids(model: Any, tokenizer: Any | None) -> tuple[int, ...]:
    """Ids that end a completion: the tokenizer's end token and those of the model's generation settings, sorted."""
    found: set[int] = set()
    for source in (tokenizer, model.config, getattr(model, "generation_config", None)):
        value = getattr(source, "eos_token_id", None)
        found.update([value] if isinstance(value, int) else value or ())
    return tuple(sorted(found))
