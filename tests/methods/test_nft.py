"""NFT through the training path: its loss the plain way, its identity with GRPO on fresh data, and what it leaves out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.credit.group_advantages import group_statistics
from rheostat.errors import RheostatError
from rheostat.objectives.negative_aware import negative_aware_terms, straight_through_max
from tests.learners import credited, step_plainly, weights
from tests.methods.test_language_methods import Hopeless, built, save
from tests.tiny_language import naive_scores


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def plain_gradient(one: Any, batch: Any, floor: float, k: float) -> torch.Tensor:
    """Row by row with the raw model, token by token with scalars."""
    rows, total = batch.rows, torch.zeros(())
    group = rows.group[:, 0].tolist()
    right = [float(reward >= 1.0) for reward in rows.reward.sum(1).tolist()]
    rate = {number: sum(r for r, g in zip(right, group, strict=True) if g == number) / group.count(number) for number in set(group)}
    for row in range(len(rows)):
        r = min(max(rate[group[row]], 0.02), 0.98)
        if not bool(rows.mask[row].any()):
            assert rate[group[row]] in (0.0, 1.0)
            continue
        logp, _ = naive_scores(one.policy.causal, rows.action[row : row + 1], rows.attention[row : row + 1], rows.mask[row : row + 1])
        old = rows.sampler_logp[row][rows.mask[row]]
        for token, before in zip(logp, old, strict=True):
            ratio = (token - before).exp()
            if right[row]:
                total = total - (1 - r) * ratio.log()
            else:
                implied = (1 - r * ratio) / (1 - r)
                total = total - k * (1 - r) * (implied + (max(implied.item(), floor) - implied).detach()).log()
    total = total / 1000
    for parameter in one.policy.parameters():
        parameter.grad = None
    total.backward()
    return torch.cat([p.grad.flatten() for p in one.policy.parameters()])


@pytest.mark.parametrize(("floor", "k"), [(1.0, 1.0), (0.5, 0.3)])
def test_a_step_is_the_plain_one(model: str, floor: float, k: float) -> None:
    one = built("nft", model, minibatches=1, max_grad_norm=1e9, floor=floor, negative_weight=k, dynamic="none")
    step_plainly(one, 1.0)
    start = weights(one.policy)
    batch = credited(one)
    expected = plain_gradient(one, batch, floor, k)
    one.improve(batch)
    torch.testing.assert_close(start - weights(one.policy), expected, atol=1e-6, rtol=1e-4)
    assert expected.abs().max() > 1e-5


@given(st.lists(st.booleans(), min_size=2, max_size=8), st.integers(0, 2**16))
def test_fresh_data_give_grpos_gradient(right: list[bool], seed: int) -> None:
    """``odds`` is GRPO with the population's deviation, ``wrong-share`` Dr. GRPO."""
    labels = torch.tensor(right, dtype=torch.float64)
    if not 0 < labels.mean() < 1:
        return
    draw = torch.Generator().manual_seed(seed)
    logp = -torch.rand(len(right), 5, generator=draw, dtype=torch.float64)
    mask = torch.rand(len(right), 5, generator=draw) < 0.8
    found = group_statistics(labels, torch.zeros(len(right), dtype=torch.int64), unbiased=False)
    for weight, advantage in (("odds", found.centred / found.std), ("wrong-share", found.centred)):
        leaf = logp.clone().requires_grad_()
        negative_aware_terms(leaf, logp, labels, found.mean, mask, weight=weight).sum().backward()  # type: ignore[arg-type]
        torch.testing.assert_close(leaf.grad, torch.where(mask, -advantage[:, None], 0.0), atol=1e-10, rtol=0)


def test_the_maximum_has_slope_one_everywhere() -> None:
    x = torch.tensor([0.2, 1.0, 3.0], requires_grad=True)
    found = straight_through_max(x, 1.0)
    assert found.tolist() == pytest.approx([1.0, 1.0, 3.0])
    found.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("change", [-1e4, -200.0, -104.0, -50.0, -1e-3, 0.0, 5.0, 9.9, 50.0, 200.0, 1e4])
def test_every_ratio_has_a_finite_loss_and_slope(change: float, ratio: Any) -> None:
    """A right token's slope is -w however unlikely it has become, and ends at the clamp; in single precision exp(-104) is 0."""
    logp = torch.full((2, 1), change, requires_grad=True)
    right, rate, mask = torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.25]), torch.ones(2, 1, dtype=torch.bool)
    terms = negative_aware_terms(logp, torch.zeros(2, 1), right, rate, mask, ratio=ratio)
    terms.sum().backward()
    assert logp.grad is not None and bool(terms.isfinite().all()) and bool(logp.grad.isfinite().all())
    assert terms.flatten()[0].item() == pytest.approx(-0.75 * min(change, 10.0))
    assert logp.grad[0].item() == (-0.75 if change < 10 else 0.0)
    assert logp.grad[1].item() >= 0 and terms.flatten()[1].item() <= 0


def test_groups_of_one_kind_teach_nothing(model: str) -> None:
    one = built("nft", model, Hopeless(), max_invalid_share=1.0, max_sampling_rounds=2)
    start = weights(one.policy)
    metrics = one.turn()
    assert metrics["gradient_steps"] == 0 and metrics["sampling_rounds"] == 2 and torch.equal(weights(one.policy), start)


def test_bad_input_is_one_sentence(model: str) -> None:
    for sentence, options in (
        ("prompt_weight is 'half'; it must be one of uniform, wrong-share, odds", {"prompt_weight": "half"}),
        (r"nft: floor is 0\.0; it must be above 0", {"floor": 0}),
        ("nft has no option advantage", {"advantage": "rloo"}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            built("nft", model, **options)
