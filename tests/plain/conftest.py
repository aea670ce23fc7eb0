"""One tiny random model for all plain tests of language methods."""

from __future__ import annotations

from pathlib import Path

import pytest

from rheostat.tasks.language import character_tokenizer
from tests.tiny_language import model as random_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a random model of one layer."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    tokenizer = character_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    random_model("qwen3", vocabulary=len(tokenizer), **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
