"""Chunked log-probabilities and entropies against the plain computation, and the memory they take."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rheostat.errors import RheostatError
from rheostat.policies.language.chunked_logprobs import LOWEST, LogitRule, filter_logits, token_logprobs


def naive(hidden: Tensor, chosen: Tensor, head: nn.Module, temperature: float) -> tuple[Tensor, Tensor]:
    logp = torch.log_softmax(head(hidden) / temperature, -1)
    return logp.gather(-1, chosen[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def case(n: int = 37, width: int = 12, vocabulary: int = 19, bias: bool = True) -> tuple[Tensor, Tensor, nn.Linear]:
    draw = torch.Generator().manual_seed(n)
    head = nn.Linear(width, vocabulary, bias=bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return torch.randn(n, width, generator=draw), torch.randint(vocabulary, (n,), generator=draw), head


@given(st.integers(1, 40), st.sampled_from([0.5, 1.0, 2.0]), st.booleans(), st.booleans())
def test_values_and_gradients_equal_the_plain_computation_for_every_chunk_size(
    chunk: int, temperature: float, bias: bool, entropy: bool
) -> None:
    hidden, chosen, head = case(bias=bias)
    weights = torch.linspace(-1, 1, len(chosen))
    results = []
    for chunked in (True, False):
        x = hidden.clone().requires_grad_()
        head.zero_grad()
        if chunked:
            logp, spread = token_logprobs(x, chosen, head, LogitRule(temperature=temperature), entropy=entropy, chunk=chunk)
            assert (spread is None) == (not entropy)
        else:
            logp, spread = naive(x, chosen, head, temperature)
        loss = (weights * logp).sum()
        if entropy:
            loss = loss + (weights.flip(0) * spread).sum()
        loss.backward()
        results.append([logp, spread if entropy else logp, x.grad, *(parameter.grad for parameter in head.parameters())])
    for ours, plain in zip(*results, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_softcap_and_scale_have_their_gradients() -> None:
    hidden, chosen, head = case()
    rule = LogitRule(scale=0.5, softcap=2.0, temperature=0.7)
    x, y = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    ours, spread = token_logprobs(x, chosen, head, rule, entropy=True, chunk=5)
    logp = torch.log_softmax(torch.tanh(head(y) * 0.5 / 2.0) * 2.0 / 0.7, -1)
    plain = logp.gather(-1, chosen[:, None])[:, 0]
    assert spread is not None
    (ours.sum() + spread.sum()).backward()
    (plain.sum() - (logp.exp() * logp).sum()).backward()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)


def test_filters_renormalise_over_what_they_keep_and_its_gradient_is_that_of_the_kept_set() -> None:
    hidden, chosen, head = case()
    x, y = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    ours, spread = token_logprobs(x, chosen, head, LogitRule(top_k=4), entropy=True, chunk=7)
    z = head(y)
    keep = z >= z.topk(4, -1).values[:, -1:]
    keep = keep.scatter(-1, chosen[:, None], True)
    logp = torch.log_softmax(z.masked_fill(~keep, LOWEST), -1)
    plain = logp.gather(-1, chosen[:, None])[:, 0]
    assert spread is not None
    (ours.sum() + spread.sum()).backward()
    (plain.sum() - (logp.exp() * logp).sum()).backward()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)


def test_a_head_that_is_no_plain_linear_layer_gives_the_same_numbers() -> None:
    hidden, chosen, head = case()
    x, y = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    for inputs, layer in ((x, nn.Sequential(head)), (y, head)):
        head.zero_grad()
        logp, spread = token_logprobs(inputs, chosen, layer, LogitRule(temperature=0.6), entropy=True, chunk=10)
        assert spread is not None
        (logp.sum() + 2 * spread.sum()).backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 10), st.floats(0.05, 1.0), st.integers(0, 5))
def test_filtered_distributions_sum_to_one_over_the_most_likely_tokens(top_k: int, top_p: float, seed: int) -> None:
    z = torch.randn(8, 12, generator=torch.Generator().manual_seed(seed))
    p = torch.softmax(filter_logits(z.clone(), top_k, top_p), -1)
    torch.testing.assert_close(p.sum(-1), torch.ones(8))
    full = torch.softmax(z, -1)
    for row, before in zip(p, full, strict=True):
        kept = row > 0
        assert kept[before.argmax()]
        if top_k:
            assert int(kept.sum()) <= top_k
        else:
            assert before[kept].sum() >= min(top_p, 1.0) - 1e-5  # reaches p ...
            assert int(kept.sum()) == 1 or before[kept].sum() - before[kept].min() < top_p + 1e-5  # ... and no smaller set does
        if (~kept).any():
            assert before[kept].min() >= before[~kept].max()


def test_a_chosen_token_outside_the_filters_keeps_a_finite_log_probability() -> None:
    z = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    kept = filter_logits(z, 2, 0.5, torch.tensor([3]))
    assert kept.tolist() == [[3.0, LOWEST, LOWEST, 0.0]]


class Largest(TorchDispatchMode):
    """Remembers the largest tensor any operator returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))])
        return result


def test_no_tensor_of_all_tokens_by_the_vocabulary_is_built_forward_or_backward() -> None:
    n, width, vocabulary, chunk = 600, 4, 500, 32
    hidden, chosen, head = case(n, width, vocabulary)
    x = hidden.requires_grad_()
    with Largest() as seen:
        logp, spread = token_logprobs(x, chosen, head, LogitRule(temperature=0.8), entropy=True, chunk=chunk)
        assert spread is not None
        (logp.sum() + spread.sum()).backward()
    assert seen.elements <= chunk * vocabulary
    with Largest() as seen:
        naive(x, chosen, head, 0.8)[0].sum().backward()
    assert seen.elements == n * vocabulary  # the measure sees what it should


def test_low_precision_models_get_float32_log_probabilities() -> None:
    hidden, chosen, head = case()
    exact, _ = token_logprobs(hidden.bfloat16().float(), chosen, head.bfloat16().float())
    x = hidden.bfloat16().requires_grad_()
    ours, spread = token_logprobs(x, chosen, head.bfloat16(), entropy=True, chunk=11)
    assert ours.dtype == torch.float32 and spread is not None and spread.dtype == torch.float32
    torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)
    ours.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RheostatError, match=r"temperature|top_k"):
        LogitRule(**wrong)  # type: ignore[arg-type]
