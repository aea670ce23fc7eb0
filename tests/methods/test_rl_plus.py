"""RL-PLUS: the weight of an expert's token, the mixed group, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.credit.group_advantages import split_advantage
from rheostat.errors import RheostatError
from rheostat.objectives.clipping import NoClip
from rheostat.objectives.foreign_terms import external_clip, external_denominator
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.weights import expert_weight
from rheostat.trajectories import Source
from tests.learners import credited, losses
from tests.methods.test_language_methods import built, save

P = torch.linspace(0.0005, 0.9995, 1999, dtype=torch.float64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def pull(p: torch.Tensor, start: torch.Tensor, gamma: float = 0.5, cap: float | None = None, advantage: float = 1.0) -> torch.Tensor:
    """Minus the gradient with respect to an expert token's log-prob."""
    logp = p.log().requires_grad_()
    policy_gradient(
        logp,
        torch.full_like(p, advantage),
        denominator_logp=external_denominator(start.log()),
        clip=external_clip(cap),
        weight=expert_weight(logp, "exploration", gamma=gamma),
        aggregate="constant",
        denominator=1.0,
    ).loss.backward()
    assert logp.grad is not None
    return -logp.grad


def test_the_weight_of_an_experts_token() -> None:
    """A 4 p sqrt(1 - p) / (3 p + 1) at the first update: 0 at both ends, largest where p^2 + p = 2/3."""
    found = pull(P, P)
    torch.testing.assert_close(found, 4 * P * (1 - P).sqrt() / (3 * P + 1))
    top = P[found.argmax()].item()
    assert top == pytest.approx(0.457, abs=1e-3) and top**2 + top == pytest.approx(2 / 3, abs=2e-3)
    assert bool((found > P * (1 - P)).all())  # above CHORD's everywhere
    assert bool(((found > P) == (P < 5 / 9)).all())  # and above plain p below 5/9
    assert pull(torch.tensor([1e-4]).double(), torch.tensor([1e-4]).double()).item() < 5e-4  # yet the unlikeliest are almost ignored


def test_the_ratio_is_bounded_where_the_bare_one_explodes() -> None:
    """The tabular check: an expert's favourite token that the policy never wrote. Bounded by 4 and by 2 p / p_old."""
    ratios = []
    for p_old in (0.5, 1e-2, 1e-4, 1e-8):
        start = torch.full_like(P, p_old)
        ratio = policy_gradient(P.log(), P, denominator_logp=external_denominator(start.log()), clip=NoClip()).ratio
        bare = policy_gradient(P.log(), P, denominator_logp=external_denominator(start.log(), "learner"), clip=NoClip()).ratio
        torch.testing.assert_close(ratio, 2 * P / (1.5 * p_old + 0.5))
        assert bool((ratio <= 4).all()) and bool((ratio <= 2 * bare + 1e-9).all())
        ratios.append(((P * ratio.square()).mean().item(), (P * bare.square()).mean().item()))
    (bounded, exploding) = zip(*ratios, strict=True)
    assert max(bounded) < 16 and exploding[-1] > 1e12 * exploding[0]
    certain = policy_gradient(P.log(), P, denominator_logp=external_denominator(P.log(), "certain"), clip=NoClip()).ratio
    torch.testing.assert_close(certain, P)


def test_a_cap_cuts_the_gradient_for_both_signs() -> None:
    start = torch.full_like(P, 0.1)
    ratio = 2 * P / 0.65
    for sign in (1.0, -1.0):
        free, capped = (pull(P, start, cap=cap, advantage=sign) for cap in (None, 1.5))
        torch.testing.assert_close(capped, torch.where(ratio <= 1.5, free, 0.0))


def test_own_statistics_leave_the_expert_out() -> None:
    reward, group = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 0, 1, 1, 1])
    own = torch.tensor([True, True, False] * 2)
    found = split_advantage(reward, group, own, scale="none")
    assert found.tolist() == [0.0, 0.0, 1.0, 0.5, -0.5, -0.5]  # all own rows wrong: the expert's is 1
    valid = torch.tensor([True, True, True, False, False, True])
    assert split_advantage(reward, group, own, valid=valid)[3:].tolist() == [0, 0, 0]  # no own row left
    with pytest.raises(RheostatError, match="must have one shape"):
        split_advantage(reward, group, own[:3])


def batch_of(model: str, **options: Any) -> Any:
    one = built("rl-plus", model, max_new_tokens=48, **options)
    return one, credited(one)


def test_experts_are_members_of_every_group(model: str) -> None:
    for count in (1, 2):
        _, found = batch_of(model, expert_rows=count)
        batch = found.rows
        expert = batch.source[:, 0] == int(Source.EXPERT)
        groups, sizes = batch.group[:, 0].unique(return_counts=True)
        assert sizes.tolist() == [4] * len(groups) and int(expert.sum()) == count * len(groups)
        reward = batch.reward.sum(1)
        for group in groups:
            members = batch.group[:, 0] == group
            expected = reward[members] - reward[members].mean()
            torch.testing.assert_close(
                batch.advantage[members].gather(1, batch.mask[members].float().argmax(1, keepdim=True))[:, 0], expected
            )
        assert found.facts["graded"].metrics["expert_reward"] >= 0
    weighted = batch_of(model, expert_rows=2, external_weight=3.0)[1].rows
    torch.testing.assert_close(weighted.advantage[expert], 3 * batch.advantage[expert])
    torch.testing.assert_close(weighted.advantage[~expert], batch.advantage[~expert])


def test_one_gradient_step_is_the_formula(model: str) -> None:
    """The loss through the training path against the equations of the docstring, own and expert tokens apart."""
    one, found = batch_of(model, minibatches=2, entropy_coefficient=0.0)
    batch = found.rows
    for parameter in one.policy.parameters():  # away from the start, so that the ratios are not 1
        parameter.data.mul_(1.05)
    scores, loss, sums, _ = losses(one, found)
    p, old = scores.logp.exp(), batch.learner_logp.exp()
    expert = batch.source == int(Source.EXPERT)
    tokens = torch.where(expert, 2 * p / (old + (old + 1) / 2) * (1 - p.detach()).clamp(min=0).sqrt(), p / old) * batch.advantage
    torch.testing.assert_close(loss, -tokens[batch.mask].sum() / (len(batch) * 48))
    for name, mine in (("policy_loss", ~expert), ("expert_loss", expert)):  # each source in the log apart
        torch.testing.assert_close(sums[name], -tokens[batch.mask & mine].sum().detach() / (len(batch) * 48))


def test_diagnostics_do_not_depend_on_micro_batches(model: str) -> None:
    rows = [built("rl-plus", model, max_new_tokens=48, micro_batch_rows=size).turn() for size in (0, 3)]
    for name in ("entropy", "policy_loss", "expert_loss", "approx_kl", "meter/clip_fraction", "meter/gradient_norm"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3, abs=1e-6), name


def test_rl_plus_refuses_what_makes_no_sense(model: str, tmp_path: Path) -> None:
    for sentence, options in (
        ("expert_rows is 4 of a group of 4", {"expert_rows": 4}),
        ("expert_rows is 0; it must be at least 1", {"expert_rows": 0}),
        ("exploration is -1.0; it must be at least 0", {"exploration": -1.0}),
        ("omega is 0.0; it must be above 0 and at most 1", {"omega": 0.0}),
        ("external_cap is 0.0; it must be above 0", {"external_cap": 0.0}),
        ("rl-plus has no option ratio", {"ratio": "sequence"}),
        ("statistics 'own' is for the advantages", {"statistics": "own", "advantage": "rloo"}),
        ("rl-plus cannot honour dial.expert_share: it has experts, or prompts, of its own", {"dial.expert_share": 0.5}),
    ):
        with pytest.raises(RheostatError, match=sentence) as error:
            built("rl-plus", model, **options)
        assert "\n" not in str(error.value)
