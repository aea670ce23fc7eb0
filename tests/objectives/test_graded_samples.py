"""Losses on graded samples: what they push, where they rest, and that one pushed-down sample widens the margin."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.graded_samples import (
    all_pairs_loss,
    best_of_n_loss,
    bounded_weights,
    clipped_sequence_loss,
    exponential_loss,
    ordered_pairs,
    reinforce_loss,
    top_k_weights,
    weighted_token_loss,
)
from rheostat.objectives.kl import categorical_kl
from rheostat.objectives.preference import preference_loss
from rheostat.policies.control.distributions import Categorical

seeds = st.integers(0, 10_000)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(loss, of)[0]


@given(seeds)
def test_gradients_of_both_directions_of_kl(seed: int) -> None:
    """Forward KL moves by p - q, reverse KL by p (log p / q - KL); both are what autograd says."""
    logits, other = drawn(seed, 6).requires_grad_(), drawn(seed + 1, 6).log_softmax(-1)
    p, q = logits.softmax(-1).detach(), other.exp()
    forward = gradient(categorical_kl(other, logits), logits)
    reverse = gradient(categorical_kl(logits, other), logits)
    kl = categorical_kl(logits.detach(), other)
    torch.testing.assert_close(forward, p - q)
    torch.testing.assert_close(reverse, p * ((p / q).log() - kl))
    policy, target = Categorical(logits.detach()[None]), Categorical(other[None])
    torch.testing.assert_close(policy.reverse_kl_gradient(target)[0], forward)
    torch.testing.assert_close(policy.kl_gradient(target)[0], reverse)


@given(seeds, st.floats(0.01, 2.0))
def test_a_negative_gradient_widens_the_margin(seed: int, weight: float) -> None:
    """A step on the logits raises the margin of best and worst by more where the worst one is pushed down."""
    reward = torch.randperm(4, generator=torch.Generator().manual_seed(seed)).double()[None]
    moved = {}
    for name, push in (("none", 0.0), ("worst", weight)):
        logits = drawn(seed, 6).requires_grad_()
        logp = logits.log_softmax(-1)[None, :4]
        step = -gradient(best_of_n_loss(logp, reward, negative=name, weight=push), logits)  # type: ignore[arg-type]
        moved[name] = float(step[reward.argmax()] - step[reward.argmin()])
    assert moved["worst"] > moved["none"] > 0


def test_the_winner_may_fall_while_the_margin_widens() -> None:
    """Freed mass goes elsewhere: IPO on two rare answers lowers neither's margin, and yet the winner's probability can fall."""
    features = torch.tensor([[1.0, 1.0], [0.9, 1.0], [-3.0, 0.5]], dtype=torch.float64)  # answers 0 and 1 are similar
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    logits = features @ weights
    before = logits.log_softmax(-1)
    loss, _ = all_pairs_loss(before[None, :2], before[None, :2].detach(), torch.tensor([[0.0, 1.0]]), link="ipo", beta=0.05)
    after = (features @ (weights - 0.05 * gradient(loss, weights))).log_softmax(-1)
    assert after[1] - after[0] > (before[1] - before[0])
    assert after[1] < before[1] and after[2] > before[2]


@given(seeds, st.floats(0.1, 20.0))
def test_ipo_rests_at_its_margin_and_dpo_nowhere(seed: int, margin: float) -> None:
    reference = drawn(seed, 1, 2)
    at = (reference + torch.tensor([[margin / 2, -margin / 2]], dtype=torch.float64)).requires_grad_()
    reward = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    resting, margins = all_pairs_loss(at, reference, reward, link="ipo", beta=1 / (2 * margin))
    assert gradient(resting, at).abs().max() < 1e-9 and float(margins) == pytest.approx(margin)
    growing, _ = all_pairs_loss(at, reference, reward, link="sigmoid", beta=0.1)
    pushed = gradient(growing, at)
    assert pushed[0, 0] < 0 < pushed[0, 1]


@given(seeds, st.floats(0.1, 3.0))
def test_dpo_on_exact_bradley_terry_labels_rests_at_the_tilted_reference(seed: int, beta: float) -> None:
    """pi_ref exp(r / beta): the gradient of the expected loss over all ordered pairs is 0 there, and not at the reference."""
    reference, reward = drawn(seed, 5).log_softmax(-1), drawn(seed + 1, 5)

    def expected(logits: Tensor) -> Tensor:
        ratio = logits.log_softmax(-1) - reference
        first, second = (~torch.eye(5, dtype=torch.bool)).nonzero(as_tuple=True)
        loss = preference_loss(ratio[first], ratio[second], link="sigmoid", beta=beta)
        return ((reward[first] - reward[second]).sigmoid() * loss).mean()

    optimum = (reference + reward / beta).requires_grad_()
    assert gradient(expected(optimum), optimum).abs().max() < 1e-12
    start = reference.clone().requires_grad_()
    assert gradient(expected(start), start).abs().max() > 1e-6


@given(seeds)
def test_pairs_are_all_pairs(seed: int) -> None:
    reward = (drawn(seed, 3, 4) * 2).round() / 2
    for threshold in (None, 0.0, 0.6):
        prompt, winner, loser = ordered_pairs(reward, threshold=threshold)
        found = sorted(zip(prompt.tolist(), winner.tolist(), loser.tolist(), strict=True))
        wanted = []
        for s in range(3):
            for i in range(4):
                for j in range(i + 1, 4):
                    if threshold is None or abs(reward[s, i] - reward[s, j]) >= threshold:
                        wanted.append((s, i, j) if reward[s, i] >= reward[s, j] else (s, j, i))
        assert found == sorted(wanted)


def test_a_batch_without_a_pair_teaches_nothing() -> None:
    logp = torch.zeros(2, 3, requires_grad=True)
    loss, margins = all_pairs_loss(logp, torch.zeros(2, 3), torch.ones(2, 3), link="ipo", beta=0.1, threshold=0.2)
    assert float(loss.detach()) == 0 and len(margins) == 0 and gradient(loss, logp).abs().max() == 0


def test_best_of_n_takes_the_first_of_equal_samples_and_stops_at_the_floor() -> None:
    logp = torch.tensor([[-1.0, -2.0, -9.0]], requires_grad=True)
    tied = gradient(best_of_n_loss(logp, torch.ones(1, 3), negative="worst", weight=0.5), logp)
    torch.testing.assert_close(tied, torch.tensor([[-0.5, 0.0, 0.0]]))  # the first is best and worst
    reward = torch.tensor([[1.0, 0.5, 0.0]])
    floor = gradient(best_of_n_loss(logp, reward, negative="sum-of-worse", weight=0.5, least_ratio=0.01), logp)
    torch.testing.assert_close(floor, torch.tensor([[-1.0, 0.5, 0.0]]))  # exp(-8) is below it
    complement = gradient(best_of_n_loss(logp, reward, negative="complement", weight=1.0), logp)
    torch.testing.assert_close(complement[0, 1], torch.tensor(-2.0).exp() / (1 - torch.tensor(-2.0).exp()))


def test_what_is_no_push_is_refused() -> None:
    for options in ({"negative": "none", "weight": 0.5}, {"negative": "least", "weight": 0.5}):
        with pytest.raises(RheostatError):
            best_of_n_loss(torch.zeros(1, 2), torch.zeros(1, 2), **options)  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="reference"):
        weighted_token_loss(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), torch.ones(1), kl_coefficient=0.1)
    with pytest.raises(RheostatError, match="between 1 and 3"):
        top_k_weights(torch.zeros(3), 4)


@given(seeds)
def test_clip_cuts_what_has_moved_far_enough(seed: int) -> None:
    """Without a move the gradient is that of REINFORCE with the sequence's reward on every token; beyond the clip it is only the KL's."""
    old, reward = drawn(seed, 2, 4), torch.tensor([0.8, -0.8], dtype=torch.float64)
    logp = old.clone().requires_grad_()
    torch.testing.assert_close(gradient(clipped_sequence_loss(logp, old, old, reward, clip=0.2).sum(), logp), -reward[:, None].expand(2, 4))
    far = (old + torch.tensor([[0.5], [-0.5]], dtype=torch.float64)).requires_grad_()
    cut = gradient(clipped_sequence_loss(far, old, old, reward, clip=0.2, kl_coefficient=0.05).sum(), far)
    torch.testing.assert_close(cut, torch.full_like(cut, 0.05))


def test_weights_of_likelihoods() -> None:
    score = torch.tensor([1.0, 3.0, 3.0, -2.0])
    torch.testing.assert_close(top_k_weights(score, 2), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(bounded_weights(score, temperature=1.0, high=5.0), score.exp().clamp(max=5.0))
    torch.testing.assert_close(bounded_weights(score, temperature=2.0, form="linear", low=-1.0, high=4.0), (2 * score).clamp(-1, 4))
    logp, mask = drawn(0, 4, 3), torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    kept = weighted_token_loss(logp, mask, top_k_weights(score, 2), divide_by="kept")
    torch.testing.assert_close(kept, -(logp[1, :2].sum() + logp[2, 0]) / 3)
    torch.testing.assert_close(weighted_token_loss(logp, mask, top_k_weights(score, 2)), kept * 3 / 9)
    reward = drawn(1, 4, 3)
    torch.testing.assert_close(exponential_loss(logp, reward, temperature=0.5), -((2 * reward).exp() * logp).mean())
    torch.testing.assert_close(reinforce_loss(logp, reward, entropy=0.1), -(reward * logp).mean() + 0.1 * logp.mean())
