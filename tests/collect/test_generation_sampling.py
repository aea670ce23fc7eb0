"""Random streams and the drawing of tokens."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.collect.language.generation.sampling import Sampling, draw, row_streams, uniforms
from rheostat.errors import RheostatError
from rheostat.policies.language.chunked_logprobs import LogitRule


def test_streams_are_functions_of_their_counters_alone() -> None:
    many = row_streams(3, 5, [10, 20, 30], 4)
    assert torch.equal(row_streams(3, 5, [20], 4), many[4:8])
    assert torch.equal(row_streams(3, 5, torch.tensor([20]), 2), many[4:6])
    every = torch.cat([row_streams(seed, update, range(50), 8) for seed in range(4) for update in range(4)])
    assert len(every.unique()) == len(every)


@given(st.integers(-(2**62), 2**62), st.integers(0, 100), st.integers(1, 70))
def test_noise_of_a_step_does_not_depend_on_the_block_it_is_made_in(seed: int, first: int, count: int) -> None:
    streams = row_streams(seed, 0, [0, 1], 2)
    whole = uniforms(streams, 0, first + count)
    assert torch.equal(uniforms(streams, first, count), whole[:, first:])
    assert (whole > 0).all() and (whole < 1).all()


def test_noise_is_uniform_and_independent_over_rows_and_steps() -> None:
    noise = uniforms(row_streams(0, 0, range(200), 10), 0, 100)  # 200 000 numbers
    counts = torch.histc(noise.flatten(), 100, 0, 1)
    chi2 = float(((counts - 2000) ** 2 / 2000).sum())
    assert abs(chi2 - 99) < 5 * math.sqrt(2 * 99)
    centred = (noise - 0.5) * math.sqrt(12)
    bound = 5 / math.sqrt(noise.numel())
    assert abs(float((centred[:, 1:] * centred[:, :-1]).mean())) < bound  # neighbouring steps
    assert abs(float((centred[1:] * centred[:-1]).mean())) < bound  # neighbouring samples
    assert abs(float((centred[10:] * centred[:-10]).mean())) < bound  # neighbouring prompts


@pytest.mark.parametrize("rule", [LogitRule(), LogitRule(temperature=0.5), LogitRule(top_k=3), LogitRule(top_p=0.7)])
def test_tokens_come_with_their_probability(rule: LogitRule) -> None:
    logits = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.5])
    count = 40_000
    noise = uniforms(row_streams(1, 0, range(count), 1), 0, 1)[:, 0]
    tokens, logp = draw(logits.expand(count, -1).clone(), rule, noise)
    p = torch.softmax(rule.apply(logits[None].clone())[0], -1)
    torch.testing.assert_close(logp, p.log()[tokens])
    torch.testing.assert_close(p.sum(), torch.tensor(1.0))
    observed = tokens.bincount(minlength=5) / count
    assert not observed[p == 0].any()
    assert ((observed - p).abs() < 5 * (p * (1 - p) / count).sqrt() + 1e-9).all()


@given(st.floats(1e-10, 1 - 1e-10), st.integers(0, 5))
def test_a_token_of_probability_zero_is_never_drawn(noise: float, seed: int) -> None:
    raw = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
    raw[:, ::2] = -torch.inf
    raw[:, -1] = -torch.inf
    tokens, logp = draw(raw, LogitRule(), torch.full((4,), noise, dtype=torch.float64))
    assert set(tokens.tolist()) <= {1, 3} and logp.isfinite().all()


def test_large_vocabularies_are_drawn_from_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    from rheostat.collect.language.generation import sampling

    raw, noise = torch.randn(9, 50), uniforms(row_streams(0, 0, range(9), 1), 0, 1)[:, 0]
    whole = draw(raw, LogitRule(top_k=7), noise)
    monkeypatch.setattr(sampling, "CHUNK_ELEMENTS", 100)
    for ours, plain in zip(draw(raw, LogitRule(top_k=7), noise), whole, strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"stop_strings": ("",)}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RheostatError, match=r"must be|empty"):
        Sampling(**wrong)  # type: ignore[arg-type]
