"""Models as people have them: hybrid and state-space layers, several ends, no padding token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.collect.language.generation.cached_decoding import ModuleDecoding
from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.generation.parity import parity
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.collect.language.generation.trial import try_generation
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from tests import tiny_language as tiny
from tests.border.models import SMALL, build, tokenizer

PROMPTS = [[3, 4, 5, 9, 10, 11, 12], [7, 8], [5] * 11]


@pytest.mark.parametrize(
    ("kind", "cached"),
    [("qwen3_5", True), ("qwen3_next", True), ("lfm2", True), ("mamba2", True), ("falcon_h1", True), ("mamba", False), ("minimax", False)],
)
def test_hybrid_and_state_space_models_give_what_they_score(kind: str, cached: bool, tmp_path: Path) -> None:
    policy = LanguagePolicy.load(build(tmp_path / kind, kind))
    try_generation(policy)
    assert policy.decoder is None and policy.cached == cached
    sampling, streams = Sampling(max_new_tokens=24, temperature=1.3), row_streams(0, 0, range(3), 4)
    found = EmbeddedEngine(policy).generate(PROMPTS, streams=streams, group_size=4, sampling=sampling)
    assert parity(policy, found.trajectories(policy.pad_id), sampling).worst < 1e-4
    alone = EmbeddedEngine(policy).generate(PROMPTS[1:2], streams=streams[4:8], group_size=4, sampling=sampling)
    assert alone.completions() == found.completions()[4:8]  # whatever the neighbours


@pytest.mark.parametrize("kind", ["qwen3_5", "mamba2", "two_ends", "nopad", "bos", "adds_eos"])
def test_they_train(kind: str, prompts: str, digits: str, tmp_path: Path) -> None:
    folder = build(tmp_path / kind, kind)
    run = rheostat.train("grpo", model=folder, prompts=prompts, rewards=digits, directory=tmp_path / "run", **(SMALL | {"steps": 1}))
    assert run.metrics[0]["meter/gradient_norm"] > 0 and run.metrics[0]["meter/parity_worst"] < 1e-3
    if kind == "two_ends":
        assert run.method.policy.stop_ids == (0, 2)


def test_rows_are_dropped_and_moved_without_a_cache() -> None:
    policy = LanguagePolicy(tiny.model("gpt2"), tiny.tokenizer())
    found = []
    for policy.cached in (True, False):
        streams, sampling = row_streams(0, 0, range(4), 8), Sampling(max_new_tokens=20, temperature=2.0)
        found.append(EmbeddedEngine(policy).generate([[3], [4, 5], [6], [7, 8, 9]], streams=streams, group_size=8, sampling=sampling))
    assert found[0].completions() == found[1].completions() and len({len(row) for row in found[0].completions()}) > 3


def test_what_cannot_be_generated_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LanguagePolicy(tiny.model("gpt2"), tiny.tokenizer())

    def broken(*_: Any, **__: Any) -> Any:
        raise AttributeError("no such layer")

    monkeypatch.setattr(ModuleDecoding, "prefill", broken)
    try_generation(policy)
    assert not policy.cached  # the other way works
    monkeypatch.setattr(LanguagePolicy, "hidden_states", broken)
    with pytest.raises(RheostatError, match=r"kind 'gpt2' cannot be generated from here \(no such layer\)"):
        try_generation(policy)


def test_a_cache_that_gives_other_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, right = LanguagePolicy(tiny.model("gpt2"), tiny.tokenizer()), ModuleDecoding.step
    monkeypatch.setattr(ModuleDecoding, "step", lambda self, tokens: right(self, tokens) + torch.linspace(-1, 1, 32))
    try_generation(policy)
    assert not policy.cached


def test_a_model_whose_angles_change_with_the_length_is_used_up_to_there(
    prompts: str, digits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LongRoPE: beyond the original length, tokens that were sampled with a cache have another probability when they are scored."""
    from transformers import AutoModelForCausalLM, Phi3Config

    words = tokenizer()
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
    config = Phi3Config(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, original_max_position_embeddings=48, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        rope_parameters=rope | {"original_max_position_embeddings": 48},
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    policy = LanguagePolicy(model, words)
    assert policy.longest == 48

    def gap(tokens: int) -> float:
        sampling = Sampling(max_new_tokens=tokens)
        found = EmbeddedEngine(policy).generate(PROMPTS, streams=row_streams(0, 0, range(3), 4), group_size=4, sampling=sampling)
        return parity(policy, found.trajectories(policy.pad_id), sampling).worst

    assert gap(36) < 1e-4
    with monkeypatch.context() as patched:
        patched.setattr(LanguagePolicy, "longest", property(lambda self: 128))
        assert gap(60) > 1e-3
    policy.save_pretrained(tmp_path / "phi3")
    with pytest.raises(RheostatError, match="48 positions, which leaves no room"):
        rheostat.train("grpo", model=str(tmp_path / "phi3"), prompts=prompts, rewards=digits, **(SMALL | {"max_new_tokens": 48}))
