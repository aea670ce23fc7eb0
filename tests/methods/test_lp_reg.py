"""Lp-Reg through the training path: its gradient the plain way, who is protected, and what it is without its parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.credit.proxy_scores import proxy_logp
from rheostat.errors import RheostatError
from rheostat.objectives.low_probability import rarest_below
from tests.learners import credited, step_plainly, weights
from tests.methods.test_language_methods import built, save

KAPPA, RHO, BETA = 0.3, 0.5, 2.0
OPTIONS: dict[str, Any] = {"threshold": KAPPA, "rare_share": RHO, "pull": BETA, "max_grad_norm": 1e9}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def steps_of(one: Any, rows: Any, row: int) -> list[Tensor]:
    """Logits ``[V]`` before every token of a completion, from the raw model on the row alone."""
    real = rows.attention[row].nonzero()[:, 0].tolist()
    logits = one.policy.causal(input_ids=rows.action[row, real][None]).logits[0]
    return [logits[real.index(t) - 1] for t in rows.mask[row].nonzero()[:, 0].tolist()]


def plain_loss(one: Any, batch: Any, old: list[list[float]], proxy: list[list[float]]) -> tuple[Tensor, int]:
    """The equations token by token; the loss, and how many tokens are protected."""
    rows = batch.rows
    count, terms, rare = 0, list[tuple[float, Tensor, float, float]](), list[float]()
    for row in range(len(rows)):
        positions = rows.mask[row].nonzero()[:, 0].tolist()
        for number, (position, logits) in enumerate(zip(positions, steps_of(one, rows, row), strict=True)):
            logp = logits.log_softmax(-1)[rows.action[row, position]]
            advantage = float(rows.advantage[row, position])
            terms.append((advantage, logp, old[row][number], proxy[row][number]))
            if advantage < 0:
                rare.append(logp.item())
    least = sorted(rare)[: math.floor(RHO * len(rare))]
    total = torch.zeros(())
    for advantage, logp, before, target in terms:
        ratio = (logp - before).exp()
        if advantage < 0 and len(least) > 1 and logp.item() in least and logp.item() < target:
            gap = target - logp
            total = total - advantage * ratio + BETA * (gap.exp() - gap - 1).clamp(-10, 10)
            count += 1
        else:
            total = total + torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.0, 10.0))
    return total / len(terms), count


def looked_at(one: Any, batch: Any) -> tuple[list[list[float]], list[list[float]]]:
    """Log-probabilities of every token now, under the policy and under the proxy."""
    rows, old, proxy = batch.rows, list[list[float]](), list[list[float]]()
    with torch.no_grad():
        for row in range(len(rows)):
            old.append([])
            proxy.append([])
            for position, logits in zip(rows.mask[row].nonzero()[:, 0].tolist(), steps_of(one, rows, row), strict=True):
                token, p = int(rows.action[row, position]), logits.softmax(-1).tolist()
                kept = sum(each for each in p if each >= KAPPA * max(p))
                old[-1].append(math.log(p[token]))
                proxy[-1].append(math.log(p[token] / kept) if p[token] >= KAPPA * max(p) else -1e4)
    return old, proxy


def test_two_steps_are_the_plain_ones(model: str) -> None:
    """The second step has ratios off 1; the proxy is that of the start."""
    one = built("lp-reg", model, epochs=2, **OPTIONS)
    step_plainly(one, 0.5)
    batch = credited(one)
    old, proxy = looked_at(one, batch)
    start = weights(one.policy)
    plain = start
    for _ in range(2):
        loss, count = plain_loss(one, batch, old, proxy)
        gradient = torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(one.policy.parameters()))])
        assert count > 1
        plain = plain - 0.5 * gradient
        torch.nn.utils.vector_to_parameters(plain.clone(), one.policy.parameters())
    torch.nn.utils.vector_to_parameters(start.clone(), one.policy.parameters())
    one.improve(batch)
    torch.testing.assert_close(weights(one.policy), plain, atol=1e-6, rtol=1e-4)
    assert (plain - start).abs().max() > 1e-4


def test_selection_of_a_step_does_not_depend_on_micro_batches_and_the_released_one_does(model: str) -> None:
    def end(**options: Any) -> Tensor:
        one = built("lp-reg", model, **OPTIONS | options)
        step_plainly(one, 1.0)
        one.turn()
        return weights(one.policy)

    whole = end()
    torch.testing.assert_close(end(micro_batch_rows=3), whole, atol=1e-6, rtol=1e-4)
    assert (end(micro_batch_rows=3, selection="micro-batch") - whole).abs().max() > 1e-5


def test_without_a_pull_it_is_grpo(model: str) -> None:
    ends = []
    grpo = {"clip_low": 1.0, "clip_high": 9.0, "clamp_log_ratio": False, "aggregation": "token-mean", "kl_coefficient": 0.0}
    for method, options in (("lp-reg", {"pull": 0.0}), ("grpo", grpo)):
        one = built(method, model, epochs=2, **options)
        step_plainly(one, 1.0)
        one.turn()
        ends.append(weights(one.policy))
    assert torch.equal(*ends)


def test_without_a_threshold_the_first_step_is_grpos(model: str) -> None:
    ends = []
    for options in ({"threshold": 0.0, "rare_share": 0.5}, {"pull": 0.0}):
        one = built("lp-reg", model, **options)
        step_plainly(one, 1.0)
        one.turn()
        ends.append(weights(one.policy))
    torch.testing.assert_close(*ends, atol=1e-7, rtol=1e-5)


def test_batches_without_wrong_answers_are_grpos(model: str) -> None:
    """All rewards are equal, so no advantage is negative, and nothing is protected or moved."""
    one = built("lp-reg", model, **OPTIONS)
    batch = credited(one)
    batch.rows.advantage = torch.zeros_like(batch.rows.advantage)
    start = weights(one.policy)
    metrics = one.improve(batch)
    assert metrics["meter/protected_share"] == 0 and metrics["proxy_pull"] == 0 and torch.equal(weights(one.policy), start)


@given(st.lists(st.floats(-20, 0, width=32), min_size=1, max_size=12, unique=True), st.floats(0, 1))
def test_the_rarest_are_counted_as_released(values: list[float], share: float) -> None:
    logp = torch.tensor(values)
    among = torch.ones_like(logp, dtype=torch.bool)
    taken = int((logp < rarest_below(logp, among, share)).sum())
    count = max(1, math.floor(share * len(values)))
    assert taken == (0 if count == 1 else count)
    assert rarest_below(logp, ~among, share) == -math.inf


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=8), st.floats(0, 1), st.sampled_from(["min-p", "fixed"]), st.floats(0.3, 3))
def test_the_proxy_is_a_distribution_over_survivors(logits: list[float], threshold: float, form: Any, temperature: float) -> None:
    z = torch.tensor([logits], dtype=torch.float64).expand(len(logits), -1)
    found = proxy_logp(z, torch.arange(len(logits)), threshold=threshold, form=form, temperature=temperature).exp()
    p = z[0].softmax(-1)
    survives = p >= threshold * (p.max() if form == "min-p" else 1.0)
    assert found.sum().item() == pytest.approx(1.0)
    if bool(survives.any()):  # a fixed threshold may delete all, which leaves all alike
        assert bool((found[~survives] == 0).all())
        if temperature == 1.0:
            assert bool((found[survives] >= p[survives] - 1e-12).all())


def test_the_soft_proxy_leaves_the_least_probability() -> None:
    logits = torch.tensor([[0.0, -1.0, -5.0, -6.0]], dtype=torch.float64).expand(4, -1)
    found = proxy_logp(logits, torch.arange(4), threshold=0.1, delete=False).exp()
    expected = torch.tensor([0.0, -1.0, -6.0, -6.0], dtype=torch.float64).softmax(-1)
    torch.testing.assert_close(found, expected)


def test_bad_input_is_one_sentence(model: str) -> None:
    for sentence, options in (
        (r"lp-reg: rare_share is 2\.0; it must be", {"rare_share": 2.0}),
        (r"proxy.form is 'top-k'; it must be one of min-p, fixed", {"threshold_form": "top-k"}),
        ("micro_batch_rows is 0", {"selection": "micro-batch"}),
        ("pull is 0", {"pull": 0.0, "rare_share": 0.5}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            built("lp-reg", model, **options)
    with pytest.raises(RheostatError, match="one of min-p, fixed"):
        proxy_logp(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), form="other")  # type: ignore[arg-type]
