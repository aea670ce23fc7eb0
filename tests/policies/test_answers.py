"""Policies that answer with tokens: kept keys change nothing, samples have the probabilities that are said, and positions do not leak."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.policies.answers import ContextMLP, TablePolicy, TokenTransformer, TransformerPolicy


def transformer(seed: int = 0) -> TransformerPolicy:
    draw = torch.Generator().manual_seed(seed)
    policy = TransformerPolicy(5, 2, 3, draw, width=8, layers=2, heads=2).double()
    for parameter in policy.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return policy


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_tokens_one_at_a_time_have_the_logits_of_the_whole_row(seed: int) -> None:
    network = transformer(seed).network
    row = torch.randint(5, (4, 5), generator=torch.Generator().manual_seed(seed))
    past: list[list[torch.Tensor]] = [[] for _ in network.blocks]
    pieces = [network(row[:, :2], past), *(network(row[:, t : t + 1], past) for t in range(2, 5))]
    torch.testing.assert_close(torch.cat(pieces, 1), network(row))


def test_no_token_sees_those_after_it() -> None:
    policy, prompt = transformer(), torch.tensor([[1, 2]])
    answer, other = torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0, 1, 4]]])
    torch.testing.assert_close(policy.logits(prompt, answer), policy.logits(prompt, other))
    both = TokenTransformer(5, 3, 1, torch.Generator().manual_seed(0), width=8, layers=1, heads=2, causal=False)
    assert not torch.equal(both(torch.tensor([[0, 1, 2]]))[0, 0], both(torch.tensor([[0, 1, 4]]))[0, 0])


def test_probabilities_of_all_answers_add_up_and_are_those_of_samples() -> None:
    policy, prompt = transformer(1), torch.tensor([[3, 0]])
    every = torch.cartesian_prod(*[torch.arange(5)] * 3)[None]
    probability = policy.logp(prompt, every).sum(-1).exp()[0]
    torch.testing.assert_close(probability.sum(), torch.ones((), dtype=torch.float64))
    drawn = policy.sample(prompt, 20_000, torch.Generator().manual_seed(0))[0]
    counts = torch.bincount((drawn * torch.tensor([25, 5, 1])).sum(-1), minlength=125) / 20_000
    assert float((counts - probability).abs().max()) < 0.015


def test_tables_and_perceptrons() -> None:
    table = TablePolicy(torch.tensor([0.5, 0.25, 0.25]))
    answer = torch.tensor([[[0], [2]], [[1], [0]]])
    torch.testing.assert_close(table.logp(torch.zeros(2, 1), answer).exp().squeeze(-1), torch.tensor([[0.5, 0.25], [0.25, 0.5]]))
    network = ContextMLP(4, 3, torch.Generator().manual_seed(0), bottleneck=5, hidden=6)
    assert network.logits(torch.rand(2, 4), answer).shape == (2, 2, 1, 3)
    assert network.sample(torch.rand(2, 4), 7, torch.Generator().manual_seed(0)).shape == (2, 7, 1)
    assert all(float(layer.bias.abs().max()) == 0 for layer in network.layers if isinstance(layer, torch.nn.Linear))
