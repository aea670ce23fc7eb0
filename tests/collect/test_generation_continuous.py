"""Transformers' continuous batching behind the engine's interface."""

from __future__ import annotations

import pytest
import torch

from rheostat.collect.language.generation.continuous import ContinuousEngine
from rheostat.collect.language.generation.engine import FinishReason
from rheostat.collect.language.generation.parity import parity
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from tests import tiny_language as tiny

PROMPTS = [[3, 4, 5], [6, 7, 8, 9, 10, 11], [12]]


@pytest.mark.parametrize("filters", [{}, {"temperature": 0.7, "top_k": 5, "top_p": 0.8}])
def test_it_samples_in_order_with_the_log_probabilities_of_the_learner(filters: dict[str, float]) -> None:
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer())
    state = torch.get_rng_state()
    sampling = Sampling(max_new_tokens=8, stop_ids=(tiny.EOS, 5), **filters)  # type: ignore[arg-type]
    engine = ContinuousEngine(policy, version=3, max_prompt_tokens=5, on_long="refuse")
    found = engine.generate(PROMPTS, streams=row_streams(0, 0, range(3), 4), group_size=4, sampling=sampling)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.refused == 4 and found.lengths[4:8].tolist() == [0] * 4
    rows = found.without_refused()[0].trajectories(policy.pad_id)
    assert parity(policy, rows, sampling).worst < 1e-4
    for ids, reason in zip(found.completions(), found.finish.tolist(), strict=True):
        if reason == FinishReason.REFUSED:
            continue
        assert not {tiny.EOS, 5} & set(ids[:-1]) and len(ids) <= 8
        assert reason == (FinishReason.STOP if ids[-1] in (tiny.EOS, 5) else FinishReason.LENGTH)
    assert (found.versions[found.mask] == 3).all()


def test_stop_strings_cut_afterwards_and_greedy_is_certain() -> None:
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer())
    streams = row_streams(0, 0, range(3), 8)
    sampling = Sampling(max_new_tokens=12, stop_ids=(), stop_strings=("1", "a"))
    found = ContinuousEngine(policy).generate(PROMPTS, streams=streams, group_size=8, sampling=sampling)
    ends = 0
    for ids, reason in zip(found.completions(), found.finish.tolist(), strict=True):
        text = policy.tokenizer.decode(ids, skip_special_tokens=True)
        assert not {"1", "a"} & set(text[:-1])
        assert (reason == FinishReason.STOP) == text.endswith(("1", "a"))
        ends += reason == FinishReason.STOP
    assert ends
    greedy = ContinuousEngine(policy).generate(
        [[3, 4]], streams=streams[:1], sampling=Sampling(max_new_tokens=4, temperature=0, stop_ids=())
    )
    ids = [3, 4, *greedy.completions()[0]]
    assert policy.model(torch.tensor([ids])).logits[0].argmax(-1)[1:-1].tolist() == ids[2:]
    assert not greedy.logp.any()


def test_requests_that_fail_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer())
    monkeypatch.setattr(policy.model, "generate_batch", lambda **_: {})
    with pytest.raises(RheostatError, match="returned 0 of 1 completions"):
        ContinuousEngine(policy).generate([[3]], streams=row_streams(0, 0, [0], 1), sampling=Sampling(max_new_tokens=2))
