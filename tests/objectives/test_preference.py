"""Laws of losses on preference data: gradients in closed form, optima, symmetries, limits, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives import preference
from rheostat.objectives.preference import BY_LENGTH, SMOOTHED, Link, preference_loss

NATS = st.floats(-30, 30)
BETA = st.floats(0.05, 3)
SHARE = st.floats(0.01, 0.45)


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def number(x: float, *, gradient: bool = False) -> Tensor:
    return torch.tensor([x], dtype=torch.float64, requires_grad=gradient)


def slopes(loss: Callable[[Tensor, Tensor], Tensor], w: float, v: float) -> tuple[float, float]:
    sides = number(w, gradient=True), number(v, gradient=True)
    return tuple(0.0 if g is None else g.item() for g in torch.autograd.grad(loss(*sides).sum(), sides, allow_unused=True))  # type: ignore[return-value]


GRADIENTS: dict[Link, Callable[[float, float, float, float], tuple[float, float]]] = {
    "sigmoid": lambda w, v, b, e: (b * (s(b * (w - v)) - 1 + e), -b * (s(b * (w - v)) - 1 + e)),
    "robust": lambda w, v, b, e: tuple(
        k * b * (-(1 - e) * s(-b * (w - v)) - e * s(b * (w - v))) / (1 - 2 * e) for k in (1, -1)
    ),  # type: ignore[dict-item, return-value]
    "ipo": lambda w, v, b, e: (2 * (w - v - 1 / (2 * b)), -2 * (w - v - 1 / (2 * b))),
    "ipo-scaled": lambda w, v, b, e: (2 * b * (b * (w - v) - 0.5), -2 * b * (b * (w - v) - 0.5)),
    "hinge": lambda w, v, b, e: (-b * (b * (w - v) < 1), b * (b * (w - v) < 1)),
    "nca": lambda w, v, b, e: (-b * s(-b * w) + 0.5 * b * s(b * w), 0.5 * b * s(b * v)),
    "bco": lambda w, v, b, e: (-b * s(-b * w), b * s(b * v)),
    "sppo": lambda w, v, b, e: (2 * (w - 1 / (2 * b)), 2 * (v + 1 / (2 * b))),
    "apo-zero": lambda w, v, b, e: (-b * s(b * w) * s(-b * w), b * s(b * v) * s(-b * v)),
    "apo-down": lambda w, v, b, e: (
        b * s(b * w) * s(-b * w) - b * s(b * (w - v)) * s(-b * (w - v)), b * s(b * (w - v)) * s(-b * (w - v))
    ),
}  # fmt: skip


@pytest.mark.parametrize("link", GRADIENTS)
@given(NATS, NATS, BETA, SHARE)
def test_gradients_in_closed_form(link: Link, w: float, rejected: float, beta: float, share: float) -> None:
    smoothing = share if link in SMOOTHED else 0.0
    found = slopes(lambda x, y: preference_loss(x, y, link=link, beta=beta, smoothing=smoothing), w, rejected)
    assert found == pytest.approx(GRADIENTS[link](w, rejected, beta, smoothing), rel=1e-9, abs=1e-9)


@given(NATS, NATS, BETA, st.integers(1, 9), st.integers(0, 9))
def test_links_by_length_divide_each_side_by_its_own(w: float, rejected: float, beta: float, n: int, m: int) -> None:
    for link, of_means in (("ipo-mean", "ipo"), ("sigmoid-mean", "sigmoid")):
        lengths = {"chosen_length": number(n), "rejected_length": number(m)}
        found = preference_loss(number(w), number(rejected), link=link, beta=beta, **lengths)  # type: ignore[arg-type]
        means = number(w) / n, number(rejected) / max(m, 1)
        torch.testing.assert_close(found, preference_loss(*means, link=of_means, beta=beta))  # type: ignore[arg-type]


@given(NATS, NATS, BETA)
def test_the_two_scales_of_ipo_on_sums_differ_by_beta_squared(w: float, rejected: float, beta: float) -> None:
    one, other = (preference_loss(number(w), number(rejected), link=link, beta=beta) for link in ("ipo", "ipo-scaled"))  # type: ignore[arg-type]
    torch.testing.assert_close(other, beta**2 * one)


@given(BETA, SHARE, NATS)
def test_optima(beta: float, share: float, at: float) -> None:
    """Where each bounded link is flat: IPO at its target, conservative DPO and EXO at the smoothed label, NCA's chosen side at log 2."""
    target = 1 / (2 * beta)
    for link in ("ipo", "ipo-scaled"):
        assert slopes(lambda x, y: preference_loss(x, y, link=link, beta=beta), at + target, at) == pytest.approx((0, 0), abs=1e-9)  # type: ignore[arg-type] # noqa: B023
    logit = math.log((1 - share) / share) / beta
    for link in ("sigmoid", "exo"):
        found = slopes(lambda x, y: preference_loss(x, y, link=link, beta=beta, smoothing=share), at + logit, at)  # type: ignore[arg-type] # noqa: B023
        assert found == pytest.approx((0, 0), abs=1e-9)
    assert slopes(lambda x, y: preference.nca_loss(x, y, beta), math.log(2) / beta, at)[0] == pytest.approx(0, abs=1e-9)
    assert slopes(lambda x, y: preference.sppo_loss(x, y, beta), target, -target) == pytest.approx((0, 0), abs=1e-9)


@given(st.lists(st.tuples(NATS, st.floats(0, 1)), min_size=1, max_size=5), BETA)
def test_a_label_may_have_a_probability_of_its_own(pairs: list[tuple[float, float]], beta: float) -> None:
    """Soft labels: the other order has the complementary probability, and a half pulls the margin to 0."""
    margin, wrong = (torch.tensor(each, dtype=torch.float64) for each in zip(*pairs, strict=True))
    found = preference.sigmoid_loss(margin, beta, wrong)
    torch.testing.assert_close(found, preference.sigmoid_loss(-margin, beta, 1 - wrong))
    for loss, (at, share) in zip(found.tolist(), pairs, strict=True):
        assert loss == pytest.approx(preference.sigmoid_loss(number(at), beta, share).item())


@given(NATS, NATS, BETA, st.floats(0, 0.45))
def test_the_robust_loss_is_unbiased_under_flips(w: float, rejected: float, beta: float, share: float) -> None:
    right, flipped = (preference.robust_loss(number(x), beta, share) for x in (w - rejected, rejected - w))
    torch.testing.assert_close((1 - share) * right + share * flipped, preference.sigmoid_loss(number(w - rejected), beta))


@pytest.mark.parametrize("link", get_args(Link))
def test_every_link_is_finite_at_extreme_margins(link: Link) -> None:
    options = {"chosen_length": number(3), "rejected_length": number(0)} if link in BY_LENGTH else {}
    smoothing = 0.01 if link == "exo" else 0.0
    for w, rejected in ((500.0, -500.0), (-500.0, 500.0), (0.0, 0.0)):
        sides = number(w, gradient=True), number(rejected, gradient=True)
        loss = preference_loss(*sides, link=link, beta=2.0, smoothing=smoothing, **options)
        found = torch.autograd.grad(loss.sum(), sides)
        assert bool(loss.isfinite()) and all(bool(g.isfinite()) for g in found)


@given(NATS, NATS, BETA, st.floats(-3, 3), SHARE)
def test_simpo_asks_for_a_margin_of_gamma(w: float, rejected: float, beta: float, gamma: float, share: float) -> None:
    plain = preference.simpo_loss(number(w), number(rejected), beta=beta, gamma=gamma, smoothing=share)
    shifted = preference.sigmoid_loss(number(w - rejected - gamma / beta), beta, share)  # the form of the released trainer
    torch.testing.assert_close(plain, shifted)


@given(st.floats(-40, -1e-5), st.floats(-40, -1e-5))
def test_the_log_odds_ratio_is_that_of_probabilities(chosen: float, rejected: float) -> None:
    found = preference.log_odds_ratio(number(chosen), number(rejected))
    odds = [x - math.log(-math.expm1(x)) for x in (chosen, rejected)]
    assert found.item() == pytest.approx(odds[0] - odds[1], rel=1e-9, abs=1e-9)
    torch.testing.assert_close(preference.log_odds_ratio(number(rejected), number(chosen)), -found)


def test_the_odds_of_a_certain_answer_stay_finite() -> None:
    sides = number(0.0, gradient=True), number(-1.0, gradient=True)
    loss = preference.odds_ratio_loss(*sides)
    found = torch.autograd.grad(loss.sum(), sides)
    assert bool(loss.isfinite()) and found[0].item() == 0 and bool(found[1].isfinite())  # nothing is left to gain on the chosen side


ROWS = st.lists(st.tuples(NATS, st.booleans()), min_size=1, max_size=8)


@given(ROWS, BETA, st.floats(0.1, 3), st.floats(0.1, 3), st.lists(NATS, min_size=1, max_size=8))
def test_kto_gradient_and_baseline(rows: list[tuple[float, bool]], beta: float, up: float, down: float, mismatched: list[float]) -> None:
    h = torch.tensor([x for x, _ in rows], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([label for _, label in rows])
    others = torch.tensor(mismatched, dtype=torch.float64, requires_grad=True)
    z = preference.kto_baseline(others)
    assert z.item() == pytest.approx(max(0.0, sum(mismatched) / len(mismatched))) and not z.requires_grad
    loss = preference.kto_loss(h, label, z, beta=beta, desirable_weight=up, undesirable_weight=down)
    gradient = torch.autograd.grad(loss.sum(), h)[0].tolist()
    for (x, good), found in zip(rows, gradient, strict=True):
        u = beta * (x - z.item())
        assert found == pytest.approx((-up if good else down) * beta * s(u) * s(-u), rel=1e-9, abs=1e-9)


@given(BETA, NATS)
def test_kto_at_its_baseline_moves_by_a_quarter_of_beta(beta: float, at: float) -> None:
    h = number(at, gradient=True)
    loss = preference.kto_loss(h, torch.tensor([True]), number(at), beta=beta)
    assert torch.autograd.grad(loss.sum(), h)[0].item() == pytest.approx(-beta / 4)


@given(st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=4), st.floats(0.2, 3), st.floats(-4, 4))
def test_weights_of_rewards(rewards: list[list[float]], temperature: float, shift: float) -> None:
    r = torch.tensor(rewards, dtype=torch.float64)
    softmax = preference.softmax_weights(r, temperature)
    torch.testing.assert_close(softmax.sum(-1), torch.ones(len(r), dtype=torch.float64))
    torch.testing.assert_close(softmax, preference.softmax_weights(r + shift, temperature))
    clipped = preference.exponential_weights(r, temperature, 20.0)
    torch.testing.assert_close(clipped, (r / temperature).exp().clamp(max=20.0))
    best = preference.best_of_n(r)
    assert best.tolist() == [row.index(max(row)) for row in rewards]


def test_extreme_rewards_have_finite_weights() -> None:
    assert preference.exponential_weights(number(1e4), 0.5, 20.0).item() == pytest.approx(20.0)
    assert preference.exponential_weights(number(-1e4), 0.5, 20.0).item() == 0.0


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.integers(1, 64))
def test_the_kl_of_exact_best_of_n_is_within_its_bound(masses: list[float], n: int) -> None:
    """With distinct rewards in order: the best of n is answer k with probability F(k)^n - F(k - 1)^n."""
    p = torch.tensor(masses, dtype=torch.float64)
    p = p / p.sum()
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), p.cumsum(0).clamp(max=1)])
    best = cumulative[1:] ** n - cumulative[:-1] ** n
    kl = torch.where(best > 0, best * (best.clamp(min=1e-300).log() - p.log()), 0.0).sum()
    assert kl.item() <= preference.best_of_n_kl_bound(torch.tensor(float(n), dtype=torch.float64)).item() + 1e-9


@given(NATS, NATS, st.floats(0, 5), st.floats(0, 1))
def test_bradley_terry_gradient(w: float, rejected: float, margin: float, centring: float) -> None:
    found = slopes(lambda x, y: preference.bradley_terry_loss(x, y, margin=number(margin), centring=centring), w, rejected)
    pull, centre = -s(-(w - rejected - margin)), 2 * centring * (w + rejected)
    assert found == pytest.approx((pull + centre, -pull + centre), rel=1e-9, abs=1e-9)


def test_tabular_dpo_recovers_the_optimum_of_its_reward() -> None:
    """On exact Bradley-Terry labels the minimiser is pi_ref exp(r / beta), normalised: the claim that DPO rests on."""
    reward = torch.tensor([0.0, 0.5, 1.0, -0.7], dtype=torch.float64)
    reference = torch.tensor([0.4, 0.3, 0.1, 0.2], dtype=torch.float64)
    beta, logits = 0.5, reference.log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        ratio = logits.log_softmax(0) - reference.log()
        won = (reward[:, None] - reward[None, :]).sigmoid()
        total = (won * preference.sigmoid_loss(ratio[:, None] - ratio[None, :], beta)).sum()
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[arg-type]
    best = (reference * (reward / beta).exp()) / (reference * (reward / beta).exp()).sum()
    assert (logits.softmax(0) - best).abs().sum().item() / 2 < 1e-6


def test_bad_input_is_one_sentence() -> None:
    one, two = torch.zeros(1), torch.zeros(2)
    for sentence, call in (
        ("Unknown link 'dpo': one of sigmoid", lambda: preference_loss(one, one, link="dpo")),  # type: ignore[arg-type]
        ("beta is 0", lambda: preference_loss(one, one, beta=0)),
        ("'hinge' does not know label smoothing", lambda: preference_loss(one, one, link="hinge", smoothing=0.1)),
        ("below one half", lambda: preference_loss(one, one, link="robust", smoothing=0.5)),
        ("'exo' compares with smoothed labels", lambda: preference_loss(one, one, link="exo")),
        ("divides by the answers' lengths", lambda: preference_loss(one, one, link="ipo-mean")),
        ("must have one shape", lambda: preference_loss(one, two)),
        ("must have one shape", lambda: preference.simpo_loss(one, two, beta=1.0, gamma=0.0)),
        ("must have one shape", lambda: preference.odds_ratio_loss(one, two)),
        ("must have one shape", lambda: preference.kto_loss(two, torch.tensor([True]), torch.tensor(0.0), beta=1.0)),
        ("must have one shape", lambda: preference.bradley_terry_loss(one, one, margin=two)),
    ):
        with pytest.raises(RheostatError, match=sentence):
            call()
