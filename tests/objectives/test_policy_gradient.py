"""Laws every policy loss obeys, for every combination of limit, ratio and aggregation that a published method uses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import Aggregation, natural_denominator
from rheostat.objectives.clipping import Clip, ClipRule, DetachedClip, LogClip, NoClip, PolicyShaping
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient, policy_terms
from rheostat.objectives.ratio import RatioKind

seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Method:
    clip: ClipRule
    ratio: RatioKind = "token"
    aggregate: Aggregation = "token-mean"
    log_clamp: tuple[float, float] | None = None


METHODS = {
    "importance sampling": Method(NoClip()),
    "REINFORCE": Method(DetachedClip()),
    "PPO": Method(Clip(), log_clamp=(-20.0, 20.0)),
    "dual clip": Method(Clip(0.2, 0.28, dual=3.0)),
    "two-sided": Method(Clip(0.2, 0.2, upper=1.5), aggregate="sequence-mean"),
    "cap inside the window": Method(Clip(0.2, 0.8, upper=1.3)),
    "centred": Method(Clip(0.1, 0.1, centre=1.05)),
    "GRPO": Method(Clip(), aggregate="sequence-mean"),
    "Dr. GRPO": Method(Clip(), aggregate="constant"),
    "GSPO": Method(Clip(3e-2, 4e-2), ratio="sequence", aggregate="sequence-mean"),
    "GSPO-token": Method(Clip(3e-2, 4e-2), ratio="sequence-token", aggregate="sequence-mean", log_clamp=(-math.inf, 10.0)),
    "GMPO": Method(LogClip(), ratio="sequence", aggregate="sequence-mean"),
    "RLOO": Method(Clip(), ratio="sequence-product", aggregate="sequence-mean"),
    "CISPO": Method(DetachedClip(1.0, 0.28)),
    "LUFFY": Method(PolicyShaping()),
}
methods = st.sampled_from(sorted(METHODS))


@dataclass
class Batch:
    logp: Tensor
    old: Tensor
    advantage: Tensor
    mask: Tensor
    weight: Tensor

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        return Batch(self.logp[rows], self.old[rows], self.advantage[rows], self.mask[rows], self.weight[rows])


def batch(seed: int, rows: int = 5, length: int = 4, drift: float = 0.4) -> Batch:
    """Rows with some masked steps; one row of all-masked steps appears often."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(rows, length, generator=generator, dtype=torch.float64)

    logp = -draw().abs()
    mask = torch.rand(rows, length, generator=generator) < 0.7
    mask[0] = torch.rand((), generator=generator) < 0.5
    return Batch(logp, logp + drift * draw(), draw()[:, :1].expand(rows, length), mask, draw().exp())


def evaluate(method: Method, data: Batch, denominator: Tensor | float | None) -> tuple[Tensor, Tensor]:
    """Loss and its gradient with respect to the log-probs."""
    logp = data.logp.clone().requires_grad_()
    loss = call(method, data, logp, denominator).loss
    return loss.detach(), torch.autograd.grad(loss, logp)[0]


def call(method: Method, data: Batch, logp: Tensor, denominator: Tensor | float | None = None) -> PolicyLoss:
    if method.aggregate == "constant" and denominator is None:
        denominator = 13.0
    return policy_gradient(
        logp,
        data.advantage,
        denominator_logp=data.old,
        mask=data.mask,
        clip=method.clip,
        ratio=method.ratio,
        log_clamp=method.log_clamp,
        weight=data.weight,
        aggregate=method.aggregate,
        denominator=denominator,
    )


def full_denominator(method: Method, data: Batch) -> Tensor | float:
    return 13.0 if method.aggregate == "constant" else natural_denominator(data.mask, method.aggregate)


@given(seed=seeds, name=methods, cut=st.integers(1, 4))
def test_micro_batches_add_up_to_the_batch(seed: int, name: str, cut: int) -> None:
    method, data = METHODS[name], batch(seed)
    denominator = full_denominator(method, data)
    loss, grad = evaluate(method, data, denominator)
    parts = [evaluate(method, data[part], denominator) for part in (slice(0, cut), slice(cut, None))]
    torch.testing.assert_close(parts[0][0] + parts[1][0], loss)
    torch.testing.assert_close(torch.cat([parts[0][1], parts[1][1]]), grad)


@given(seed=seeds, name=methods, extra=st.integers(1, 3))
def test_padding_changes_nothing(seed: int, name: str, extra: int) -> None:
    method, data = METHODS[name], batch(seed)
    pad = torch.full((len(data.logp), extra), math.nan, dtype=torch.float64)
    longer = Batch(*(torch.cat([x, pad], 1) for x in (data.logp, data.old, data.advantage)), data.mask, data.weight)
    longer.mask, longer.weight = torch.cat([data.mask, pad == 0], 1), torch.cat([data.weight, pad], 1)
    loss, grad = evaluate(method, data, None)
    padded_loss, padded_grad = evaluate(method, longer, None)
    torch.testing.assert_close(padded_loss, loss)
    torch.testing.assert_close(padded_grad[:, :-extra], grad)
    assert (padded_grad[:, -extra:] == 0).all()


@given(seed=seeds, name=methods)
def test_row_order_changes_nothing(seed: int, name: str) -> None:
    method, data = METHODS[name], batch(seed)
    order = torch.randperm(len(data.logp), generator=torch.Generator().manual_seed(seed))
    loss, grad = evaluate(method, data, None)
    shuffled_loss, shuffled_grad = evaluate(method, data[order], None)
    torch.testing.assert_close(shuffled_loss, loss)
    torch.testing.assert_close(shuffled_grad, grad[order])


@given(seed=seeds, name=methods, poison=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_masked_poison_is_harmless(seed: int, name: str, poison: float) -> None:
    method, data = METHODS[name], batch(seed)
    fill = [x.masked_fill(~data.mask, poison) for x in (data.logp, data.old, data.advantage, data.weight)]
    poisoned = Batch(fill[0], fill[1], fill[2], data.mask, fill[3])
    loss, grad = evaluate(method, data, None)
    poisoned_loss, poisoned_grad = evaluate(method, poisoned, None)
    torch.testing.assert_close(poisoned_loss, loss)
    torch.testing.assert_close(poisoned_grad, grad)
    assert (grad[~data.mask] == 0).all()
    clean, dirty = call(method, data, data.logp), call(method, poisoned, poisoned.logp)
    for metric in ("approx_kl", "clip_fraction", "outside_fraction"):
        torch.testing.assert_close(getattr(dirty, metric), getattr(clean, metric))


@pytest.mark.parametrize("name", METHODS)
def test_nothing_kept_is_zero_and_not_nan(name: str) -> None:
    data = batch(0)
    data.mask = torch.zeros_like(data.mask)
    loss, grad = evaluate(METHODS[name], data, None)
    assert loss.item() == 0.0 and (grad == 0).all()
    assert call(METHODS[name], data, data.logp).approx_kl.item() == 0.0


@given(seed=seeds, name=st.sampled_from(sorted(set(METHODS) - {"LUFFY"})))
def test_first_on_policy_step_is_reinforce(seed: int, name: str) -> None:
    """Ratio 1: the gradient is that of -A log pi with the same aggregation, for every limit and every kind of ratio."""
    method, data = METHODS[name], batch(seed, drift=0.0)
    logp = data.logp.clone().requires_grad_()
    loss = call(method, data, logp)
    assert (loss.ratio[data.mask] == 1).all() and not loss.clipped.any()
    torch.testing.assert_close(loss.approx_kl.item(), 0.0)
    # one ratio for the whole row is one action: its REINFORCE gradient is the sum over tokens
    mode: Aggregation = "sequence-sum" if method.ratio == "sequence-product" else method.aggregate
    plain = Method(DetachedClip(), aggregate=mode)
    mean_weight = data.weight
    if method.ratio in ("sequence", "sequence-product"):  # the row's ratio spreads every token's weight over the row
        count = data.mask.sum(-1, keepdim=True).clamp(min=1)
        mean_weight = ((data.weight * data.mask).sum(-1, keepdim=True) / count).expand_as(data.weight)
    reinforce = Batch(data.logp, data.old, data.advantage, data.mask, mean_weight)
    torch.testing.assert_close(torch.autograd.grad(loss.loss, logp)[0], evaluate(plain, reinforce, None)[1])


@given(seed=seeds, name=st.sampled_from(["PPO", "dual clip", "two-sided", "cap inside the window", "centred", "GRPO", "Dr. GRPO"]))
def test_limited_entries_are_those_without_a_gradient(seed: int, name: str) -> None:
    method, data = METHODS[name], batch(seed, drift=0.8)
    logp = data.logp.clone().requires_grad_()
    loss = call(method, data, logp)
    without = (torch.autograd.grad(loss.loss, logp)[0] == 0) & data.mask
    assert torch.equal(loss.clipped, without)
    kept = data.mask.sum().clamp(min=1)
    torch.testing.assert_close(loss.clip_fraction, (without.sum() / kept).float())


@given(seed=seeds)
def test_limited_tokens_of_a_clip_in_log_space(seed: int) -> None:
    data = batch(seed, drift=0.8)
    logp = data.logp.clone().requires_grad_()
    loss = call(METHODS["GMPO"], data, logp)
    without = (torch.autograd.grad(loss.loss, logp)[0] == 0) & data.mask
    assert torch.equal(loss.clipped, without)


@given(seed=seeds)
def test_log_clip_of_tokens_is_ppo_with_an_exponential_window(seed: int) -> None:
    data = batch(seed, drift=0.8)
    log_space = evaluate(Method(LogClip(0.3, 0.4)), data, None)
    ratio_space = evaluate(Method(Clip(1 - math.exp(-0.3), math.exp(0.4) - 1)), data, None)
    torch.testing.assert_close(log_space, ratio_space)


@given(seed=seeds)
def test_sequence_and_sequence_token_agree_for_a_constant_advantage(seed: int) -> None:
    data = batch(seed)
    data.weight = torch.ones_like(data.weight)
    row = evaluate(Method(Clip(0.1, 0.1), ratio="sequence", aggregate="sequence-mean"), data, None)
    token = evaluate(Method(Clip(0.1, 0.1), ratio="sequence-token", aggregate="sequence-mean"), data, None)
    torch.testing.assert_close(row, token)


@given(seed=seeds)
def test_product_ratio_is_one_action_per_row(seed: int) -> None:
    data = batch(seed)
    data.mask[0] = True
    data.weight = torch.ones_like(data.weight)
    keep = data.mask.any(-1)
    rows = [(x * data.mask).sum(-1)[keep] for x in (data.logp, data.old)]
    as_actions = policy_gradient(rows[0], data.advantage[keep, 0], denominator_logp=rows[1])
    loss, _ = evaluate(METHODS["RLOO"], data, None)
    torch.testing.assert_close(loss, as_actions.loss)


@settings(max_examples=30)
@given(seed=seeds, name=st.sampled_from(sorted(set(METHODS) - {"REINFORCE", "CISPO", "GSPO-token"})))
def test_gradient_is_the_derivative_of_the_loss(seed: int, name: str) -> None:
    """Except for the methods that stop a gradient on purpose."""
    method, data = METHODS[name], batch(seed, rows=3, length=3)
    logp = data.logp.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: call(method, data, x).loss, (logp,), eps=1e-7, atol=1e-5)


def test_closed_forms() -> None:
    logp, old = torch.tensor([math.log(1.5), math.log(0.5), math.log(5.0)]), torch.zeros(3)
    advantage = torch.tensor([1.0, -1.0, -1.0])

    def loss(clip: ClipRule, denominator: Tensor | None = old) -> list[float]:
        return policy_terms(logp, advantage, denominator_logp=denominator, clip=clip).loss.tolist()

    assert loss(NoClip()) == pytest.approx([-1.5, 0.5, 5.0])
    assert loss(Clip(0.2, 0.28)) == pytest.approx([-1.28, 0.8, 5.0])
    assert loss(Clip(0.2, 0.2, dual=3.0)) == pytest.approx([-1.2, 0.8, 3.0])
    assert loss(Clip(0.2, 0.2, upper=2.0)) == pytest.approx([-1.2, 0.8, 2.0])
    assert loss(Clip(0.2, 0.2, centre=2.0)) == pytest.approx([-1.5, 1.8, 5.0])
    assert loss(DetachedClip(None, 0.28)) == pytest.approx([-1.28 * math.log(1.5), 0.5 * math.log(0.5), 1.28 * math.log(5.0)])
    assert loss(DetachedClip(), None) == pytest.approx([-math.log(1.5), math.log(0.5), math.log(5.0)])
    assert loss(PolicyShaping(0.5)) == pytest.approx([-0.75, 0.5, 5.0 / 5.5])


def test_bounds_may_be_tensors() -> None:
    logp, old, advantage = torch.tensor([0.5, 0.5]), torch.zeros(2), torch.ones(2)
    for clip in (Clip(0.2, torch.tensor([0.1, 10.0])), Clip(torch.tensor(0.2), torch.tensor([0.1, 10.0]), upper=5.0)):
        terms = policy_terms(logp, advantage, denominator_logp=old, clip=clip)
        assert terms.loss.tolist() == pytest.approx([-1.1, -math.exp(0.5)])
        assert terms.clipped.tolist() == [True, False]


def test_log_clamp_cuts_the_gradient_outside() -> None:
    logp = torch.tensor([25.0, 1.0], requires_grad=True)
    loss = policy_gradient(logp, torch.tensor([-1.0, -1.0]), denominator_logp=torch.zeros(2), clip=NoClip(), log_clamp=(-20.0, 20.0))
    assert loss.ratio[0].item() == pytest.approx(math.exp(20.0))
    assert torch.autograd.grad(loss.loss, logp)[0][0].item() == 0.0


def test_only_the_numerator_carries_a_gradient() -> None:
    logp, others = torch.zeros(3, requires_grad=True), [torch.ones(3, requires_grad=True) for _ in range(3)]
    loss = policy_gradient(logp, others[0], denominator_logp=others[1], weight=others[2], clip=NoClip()).loss
    grads = torch.autograd.grad(loss, [logp, *others], allow_unused=True)
    assert grads[0] is not None and grads[1:] == (None, None, None)


def test_half_precision_is_computed_in_float32() -> None:
    loss = policy_gradient(torch.zeros(3, dtype=torch.bfloat16), torch.ones(3), denominator_logp=torch.full((3,), 1e-3))
    assert loss.loss.dtype == torch.float32 and loss.ratio[0].item() == pytest.approx(math.exp(-1e-3))


def test_metrics() -> None:
    logp, old = torch.tensor([[0.5, -0.5, 9.0]]), torch.zeros(1, 3)
    mask, advantage = torch.tensor([[True, True, False]]), torch.tensor([[1.0, 1.0, 1.0]])
    loss = policy_gradient(logp, advantage, denominator_logp=old, mask=mask)
    assert loss.clipped.tolist() == [[True, False, False]]
    assert loss.clip_fraction.item() == 0.5 and loss.outside_fraction.item() == 1.0
    assert loss.approx_kl.item() == pytest.approx((math.exp(0.5) - 1.5 + math.exp(-0.5) - 0.5) / 2)


def test_mistakes_are_refused() -> None:
    with pytest.raises(RheostatError, match=r"advantage \[3, 1\]"):
        policy_gradient(torch.zeros(3), torch.zeros(3, 1), denominator_logp=torch.zeros(3))
    with pytest.raises(RheostatError, match=r"weight \[2\]"):
        policy_gradient(torch.zeros(3), torch.zeros(3), denominator_logp=None, weight=torch.ones(2))
    with pytest.raises(RheostatError, match="rows of tokens"):
        policy_gradient(torch.zeros(3), torch.zeros(3), denominator_logp=None, ratio="sequence")
    with pytest.raises(RheostatError, match="Unknown ratio"):
        policy_gradient(torch.zeros(3, 1), torch.zeros(3, 1), denominator_logp=None, ratio="trajectory")  # type: ignore[arg-type]
