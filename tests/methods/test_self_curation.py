"""SELF through the training path: its gradient the plain way, what passes the gate, and what is rehearsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.trajectories import Source
from tests.learners import credited, step_plainly, weights
from tests.methods.test_language_methods import Lenient, built, save
from tests.tiny_language import naive_scores


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


class Even(Lenient):
    """Answers whose first letter is even are right, so that some greedy answers are and some are not."""

    name = "even"

    def verifier(self) -> Any:
        return EvenVerifier()


class EvenVerifier:
    name = "even"

    def score(self, rollouts: Sequence[Any], progress: Any = None) -> Scores:
        reward = torch.tensor([float(sum(map(ord, each.completion)) % 2 == 0) for each in rollouts])
        return Scores(reward, torch.ones(len(rollouts), dtype=torch.bool), torch.zeros(len(rollouts), dtype=torch.bool))


class Solved(Even):
    """Every answer is right."""

    name = "solved"

    def verifier(self) -> Any:
        class Always(EvenVerifier):
            def score(self, rollouts: Sequence[Any], progress: Any = None) -> Scores:
                found = super().score(rollouts, progress)
                return Scores(torch.ones_like(found.reward), found.valid, found.abstained)

        return Always()


def greedy(one: Any, ids: list[int], longest: int) -> str:
    """Token by token from the raw model."""
    found: list[int] = []
    while len(found) < longest:
        token = int(one.policy.causal(input_ids=torch.tensor([ids + found])).logits[0, -1].argmax())
        found.append(token)
        if token in one.policy.stop_ids:
            break
    return str(one.policy.tokenizer.decode([each for each in found if each not in one.policy.stop_ids], skip_special_tokens=True))


def test_prompts_pass_whose_greedy_answer_is_wrong(model: str) -> None:
    one = built("self-curation", model, Even(), prompts_per_batch=8)
    batch = one.collect()
    gated = batch.facts["gated"]
    assert gated.passed and gated.held_back and len(gated.passed) + len(gated.held_back) == 8
    grader = EvenVerifier()
    with torch.no_grad():
        for kept, wrong in ((gated.passed, True), (gated.held_back, False)):
            for (prompt, ids), _ in kept:
                answer = prompt.rollout(greedy(one, ids, one.context.longest))
                assert (grader.score([answer]).reward.item() != 1.0) is wrong
    numbers = [number for _, number in gated.passed]
    size = one.config.groups.size
    assert batch.rows.group[:, 0].tolist() == [number for number in numbers for _ in range(size)]
    assert batch.metrics["unsolved_share"] == len(numbers) / 8 and one.context.collector.offered == []
    rows = batch.rows.count()
    assert one.context.collector.generated_tokens > rows and one.context.collector.graded_rows == 8 + len(batch)


def plain_loss(one: Any, batch: Any, old: list[Tensor], beta: float) -> Tensor:
    """Row by row, token by token: the dual-clipped surrogate of own rows, the likelihood of rehearsed ones."""
    rows, own, own_tokens, rehearsed, rehearsed_tokens = batch.rows, torch.zeros(()), 0, torch.zeros(()), 0
    for row in range(len(rows)):
        logp, _ = naive_scores(one.policy.causal, rows.action[row : row + 1], rows.attention[row : row + 1], rows.mask[row : row + 1])
        if int(rows.source[row, 0]) == Source.EXPERT:
            known = rows.sampler_logp[row][rows.mask[row]]
            rehearsed, rehearsed_tokens = rehearsed + (known - logp).sum(), rehearsed_tokens + len(logp)
            continue
        for token, before, a in zip(logp, old[row], rows.advantage[row][rows.mask[row]].tolist(), strict=True):
            ratio = (token - before).exp()
            loss = torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.2))
            own = own + (torch.minimum(loss, torch.tensor(-a * 3.0)) if a < 0 else loss)
            own_tokens += 1
    return own / own_tokens + (beta * rehearsed / rehearsed_tokens if rehearsed_tokens else 0.0)


@pytest.mark.parametrize("options", [{}, {"rehearsal_coefficient": 0.5, "rehearse": "all"}])
def test_two_steps_are_the_plain_ones(model: str, options: dict[str, Any]) -> None:
    one = built("self-curation", model, Even(), epochs=2, minibatches=1, max_grad_norm=1e9, prompts_per_batch=6, **options)
    step_plainly(one, 2.0)
    batch = credited(one)
    rows = batch.rows
    mine = rows.source[:, 0] != int(Source.EXPERT)
    reward, group = rows.reward.sum(1), rows.group[:, 0]
    for number in group[mine].unique().tolist():  # the group's own mean and deviation
        members = reward[mine & (group == number)]
        for row in (mine & (group == number)).nonzero()[:, 0].tolist():
            expected = (reward[row] - members.mean()) / (members.std() + 1e-6)
            torch.testing.assert_close(rows.advantage[row][rows.mask[row]], expected.expand(int(rows.mask[row].sum())))
    start = weights(one.policy)
    with torch.no_grad():
        old = [
            naive_scores(one.policy.causal, rows.action[r : r + 1], rows.attention[r : r + 1], rows.mask[r : r + 1])[0]
            for r in range(len(rows))
        ]
    plain = start
    for _ in range(2):
        loss = plain_loss(one, batch, old, one.config.rehearsal_coefficient)
        gradient = torch.autograd.grad(loss, list(one.policy.parameters()))
        plain = plain - 2.0 * torch.cat([each.flatten() for each in gradient])
        torch.nn.utils.vector_to_parameters(plain.clone(), one.policy.parameters())
    torch.nn.utils.vector_to_parameters(start.clone(), one.policy.parameters())
    one.improve(batch)
    torch.testing.assert_close(weights(one.policy), plain, atol=2e-6, rtol=1e-4)
    assert (plain - start).abs().max() > 1e-4


@pytest.mark.parametrize("rehearse", ["unsolved", "solved", "all"])
def test_the_starting_model_rehearses(model: str, rehearse: str) -> None:
    """Also after the policy has moved: who sampled is who the first policy was."""
    one = built("self-curation", model, Even(), rehearsal_coefficient=0.1, rehearse=rehearse, prompts_per_batch=8, learning_rate=0.05)
    first = [each.clone() for each in one.policy.parameters()]
    one.turn()
    batch = one.retain(one.collect())
    gated, rows = batch.facts["gated"], batch.rows
    expected = {"unsolved": gated.passed, "solved": gated.held_back, "all": [*gated.passed, *gated.held_back]}[rehearse]
    expert = rows.source[:, 0] == int(Source.EXPERT)
    assert rows.group[expert, 0].tolist() == [-1 - number for _, number in expected]
    with torch.no_grad():
        for parameter, before in zip(one.policy.parameters(), first, strict=True):
            assert not torch.equal(parameter, before)
            parameter.copy_(before)
        for row in expert.nonzero()[:, 0].tolist():
            part = slice(row, row + 1)
            logp, _ = naive_scores(one.policy.causal, rows.action[part], rows.attention[part], rows.mask[part])
            torch.testing.assert_close(rows.sampler_logp[row][rows.mask[row]], logp, atol=1e-5, rtol=1e-4)


def test_a_gate_that_lets_nothing_through_says_so(model: str) -> None:
    one = built("self-curation", model, Solved(), max_gate_rounds=2)
    with pytest.raises(RheostatError, match=r"The gate of unsolved prompts lets nothing through: .* every prompt of 2 batches right"):
        one.turn()


def test_bad_input_is_one_sentence(model: str) -> None:
    for sentence, options in (
        ("rehearse is 'some'; it must be one of unsolved, solved, all", {"rehearsal_coefficient": 1.0, "rehearse": "some"}),
        ("rehearsal_coefficient is 0", {"rehearse": "all"}),
        (r"gate\.max_rounds is 0; it must be at least 1", {"max_gate_rounds": 0}),
        ("rehearsed rows are the only ones", {"rehearsal_coefficient": 1.0, "dial.expert_share": 0.25}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            built("self-curation", model, **options)
