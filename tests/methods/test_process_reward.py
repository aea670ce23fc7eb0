"""Process reward: both updates against an implementation of their own, two models that resume exactly, what is counted and refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import rheostat
from rheostat.credit.process_rewards import pair_accuracy, progress_rewards
from rheostat.credit.verifiers import Grade, Scores
from rheostat.errors import RheostatError
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD, TRAIN, matrix_weights, tokens_seen
from rheostat.policies.language.model import LanguagePolicy
from rheostat.policies.language.scalar_head import TokenRewardModel
from rheostat.training.run import Interrupted, Run
from tests import tiny_language as tiny
from tests.crash import differences
from tests.learners import credited, weights
from tests.methods.test_language_methods import Lenient, Sulking, built, save, small
from tests.methods.test_turns import built as built_turns
from tests.training.test_run import StopAfter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def awake(one: Any, seed: int = 0) -> None:
    """A reward model that already has an opinion."""
    draw = torch.Generator().manual_seed(seed)
    head = one.context.models["reward"].network.head.linear
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=draw))
        head.bias.fill_(0.3)


def plainly(one: Any, rate: float) -> None:
    """Gradient descent in the place of both optimisers."""
    for name in ("policy", "reward"):
        trained = one.context.models[name]
        trained.optimizer = torch.optim.SGD(trained.parameters, lr=rate)


def flat(one: Any, name: str) -> Tensor:
    """What a model trains, as one vector."""
    return torch.cat([each.detach().flatten().clone() for each in one.context.models[name].parameters])


def plain_values(network: Any, rows: Any, row: int) -> tuple[Tensor, Tensor]:
    """Values before and after the masked tokens of one row, from all hidden states of the raw model."""
    real = rows.attention[row]
    hidden = network.body.causal.base_model(input_ids=rows.action[row][real][None], use_cache=False).last_hidden_state[0]
    values = hidden @ network.head.linear.weight[0] + network.head.linear.bias
    places = rows.mask[row][real].nonzero().flatten()
    return values[places - 1], values[places]


def plain_reward_gradient(one: Any, rows: Any) -> Tensor:
    network = one.context.models["reward"].network
    total, count = torch.zeros(()), int(rows.mask.sum())
    for row in range(len(rows)):
        outcome = rows.reward[row].sum()
        for before, after in zip(*plain_values(network, rows, row), strict=True):
            total = total + 0.5 * (0.5 * (before - outcome) ** 2 + 0.5 * (after - outcome) ** 2)
    found = torch.autograd.grad(total / count, one.context.models["reward"].parameters)
    return torch.cat([each.flatten() for each in found])


def plain_policy_gradient(one: Any, rows: Any, alpha: float) -> Tensor:
    """On fresh data the ratio is 1: the gradient of - mean A log pi."""
    network, policy = one.context.models["reward"].network, one.policy
    group = rows.group[:, 0].tolist()
    outcome = rows.reward.sum(1).tolist()
    total, count = torch.zeros(()), int(rows.mask.sum())
    for row in range(len(rows)):
        members = [outcome[other] for other in range(len(rows)) if group[other] == group[row]]
        with torch.no_grad():
            before, after = plain_values(network, rows, row)
        logp, _ = tiny.naive_scores(policy.causal, rows.action[row : row + 1], rows.attention[row : row + 1], rows.mask[row : row + 1])
        for token in range(len(logp)):
            advantage = outcome[row] - sum(members) / len(members) + alpha * (after[token] - before[token])
            total = total - advantage * logp[token]
    found = torch.autograd.grad(total / count, list(policy.parameters()))
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_a_step_of_both_models_is_the_plain_one(model: str, alpha: float, turns: bool) -> None:
    options = {"learning_rate": 0.5, "reward_learning_rate": 0.25, "max_grad_norm": 1e9, "reward_max_grad_norm": 1e9}
    one = (built_turns if turns else built)("process-reward", model, process_coefficient=alpha, **options)
    awake(one)
    plainly(one, 1.0)
    before = {
        name: torch.cat([each.detach().flatten().clone() for each in one.context.models[name].parameters]) for name in ("policy", "reward")
    }
    rows = one.retain(one.collect()).rows
    expected = {"reward": plain_reward_gradient(one, rows), "policy": plain_policy_gradient(one, rows, alpha)}
    one = one

    one.improve(one.credit(Batch(rows)))
    for name, rate in (("reward", 0.25), ("policy", 0.5)):
        moved = before[name] - flat(one, name)
        torch.testing.assert_close(moved, rate * expected[name], atol=1e-5, rtol=1e-4)
        assert expected[name].abs().max() > 1e-3


def test_the_first_update_is_that_of_the_outcome_alone(model: str) -> None:
    """The head starts at 0: the policy moves as with GRPO of these settings, whatever the coefficient."""
    found = []
    for method, options in (
        ("process-reward", {"process_coefficient": 5.0}),
        ("grpo", {"advantage": "mean-baseline", "aggregation": "token-mean", "kl_coefficient": 0.0}),
    ):
        one = built(method, model, **options)
        one.turn()
        found.append(weights(one.policy))
        if method == "process-reward":
            one.turn()
            assert one.context.models["reward"].network.head.linear.weight.abs().max() > 0
    other = built("process-reward", model)
    other.turn()
    assert torch.equal(weights(other.policy), found[1]) and torch.equal(found[0], found[1])


@pytest.mark.parametrize("at", [1, 2])
def test_both_models_resume_exactly(model: str, tmp_path: Path, at: int) -> None:
    options = {"steps": 4, "evaluate_every": 2, "evaluation_prompts": 4, "reward_passes": 2, "reward_learning_rate": 1e-2}
    whole = Run.create(tmp_path / "whole", small("process-reward", model, **options), task=Lenient())
    start = copy.deepcopy(whole.method.state_dict()["models.reward"]["network"])
    whole.train()
    state = whole.method.state_dict()
    assert set(state) >= {"models.policy", "models.reward"}
    assert any(not torch.equal(value, start[name]) for name, value in state["models.reward"]["network"].items())
    assert state["context"]["counts"] == {"reward": 4, "policy": 4}
    halted = Run.create(tmp_path / "halted", small("process-reward", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(at))
    again = Run.load(tmp_path / "halted", task=Lenient())
    again.train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
    for name, value in again.method.state_dict()["models.reward"]["network"].items():
        assert torch.equal(value, state["models.reward"]["network"][name]), name


def test_micro_batches_change_neither_model(model: str) -> None:
    ends: list[list[Tensor]] = []
    for rows in (0, 1, 3):
        one = built("process-reward", model, micro_batch_rows=rows, learning_rate=1.0, reward_learning_rate=1.0)
        awake(one)
        plainly(one, 1.0)
        one.turn()
        ends.append([weights(one.policy), weights(one.context.models["reward"].network)])
    for other in ends[1:]:
        for mine, first in zip(other, ends[0], strict=True):
            torch.testing.assert_close(mine, first, atol=1e-6, rtol=1e-4)


def test_what_is_counted_and_what_the_diagnostics_read(model: str) -> None:
    one = built("process-reward", model, reward_passes=3, reward_learning_rate=0.0, learning_rate=0.0)
    policy, reward = one.context.models["policy"], one.context.models["reward"]
    assert (
        reward.weights
        == matrix_weights(policy.network) - policy.network.causal.lm_head.weight.numel() + reward.network.head.linear.weight.numel()
    )
    batch = one.retain(one.collect())
    seen, before = tokens_seen(batch.rows), one.context.flops
    metrics = one.improve(one.credit(batch))
    expected = reward.weights * (FORWARD + 3 * TRAIN) + one.context.weights * TRAIN
    assert one.context.flops - before == expected * seen
    assert one.context.counts == {"reward": 1, "policy": 1} and one.context.updates == 1
    assert metrics["gradient_steps"] == 1 and metrics["learner_tokens"] == batch.rows.count() and metrics["entropy"] > 0
    assert "reward_model/loss" in metrics and metrics["reward_model/gradient_norm"] != metrics["meter/gradient_norm"]
    assert one.composition.update_of().model == "policy" and one.composition.gradient_steps == 1
    assert not {parameter.data_ptr() for parameter in policy.parameters} & {parameter.data_ptr() for parameter in reward.parameters}


class Early(Lenient):
    """Right is what begins with a digit below 5."""

    def verifier(self) -> Any:
        return self

    def score(self, rollouts: Any, progress: Any = None) -> Scores:
        return Scores.from_grades([Grade(float(rollout.completion[:1] in tuple("01234"))) for rollout in rollouts])


def test_it_learns_what_decides_the_outcome(model: str) -> None:
    """A random policy that does not move: the reward model comes to order completions it has not seen."""
    options = {"max_new_tokens": 3, "prompts_per_batch": 8, "group_size": 8}
    one = built("process-reward", model, Early(), learning_rate=0.0, reward_learning_rate=1e-2, **options)
    found = [one.turn()["reward_model/pair_accuracy"] for _ in range(55)]
    assert found[0] == 0.5 and sum(found[-5:]) / 5 > 0.85


def test_rows_without_a_grade_teach_neither(model: str) -> None:
    one = built("process-reward", model, Sulking(), max_invalid_share=1.0)
    awake(one)
    batch = credited(one)
    invalid = ~batch.rows.valid[:, 0]
    assert (
        bool(invalid.any()) and not bool(batch.columns["process_reward"][invalid].any()) and not bool(batch.rows.advantage[invalid].any())
    )
    reward = one.context.models["reward"]
    part = one.composition.improve[0]
    part.update.accumulate(one.context, batch)
    first = torch.cat([each.grad.flatten() for each in reward.parameters])
    batch.rows.reward[invalid] = 100.0
    part.update.accumulate(one.context, batch)
    assert torch.equal(first, torch.cat([each.grad.flatten() for each in reward.parameters]))


# --- credit -------------------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 9))
def test_progress_adds_up(seed: int, rows: int, length: int) -> None:
    """Within one turn the state after a token is the one before the next: the sum is the last value minus the prompt's."""
    draw = torch.Generator().manual_seed(seed)
    value = torch.randn(rows, length + 1, generator=draw, dtype=torch.float64)
    mask = torch.arange(length) < torch.randint(1, length + 1, (rows, 1), generator=draw)
    found = progress_rewards(value[:, :-1].masked_fill(~mask, torch.nan), value[:, 1:], mask)
    last = mask.sum(1, keepdim=True)
    torch.testing.assert_close(found.sum(1), value.gather(1, last)[:, 0] - value[:, 0])
    assert not bool(found[~mask].any())


def test_pairs_in_order() -> None:
    value, reward = torch.tensor([1.0, 2.0, 0.0, 5.0, 5.0, 1.0]), torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    group, valid = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([True, True, True, True, True, False])
    assert pair_accuracy(value, reward, group, valid).item() == pytest.approx((1 + 0 + 0.5) / 3)
    assert bool(pair_accuracy(value[:1], reward[:1], group[:1], valid[:1]).isnan())


# --- the network --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2"])
def test_values_are_the_heads_on_the_plain_models_states(kind: str) -> None:
    network = TokenRewardModel(LanguagePolicy(tiny.model(kind), tiny.tokenizer()))
    with torch.no_grad():
        network.head.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
    action, attention, mask = tiny.rows()
    scores = network.score(action, attention, mask, temperature=0.3, top_k=2, entropy=True)
    rows = rheostat.trajectories.Trajectories(
        action=action, mask=mask, reward=mask.float(), terminated=mask, truncated=mask, sampler_logp=mask.float(), attention=attention,
        batch_size=list(mask.shape),
    )  # fmt: skip
    assert scores.value is not None and scores.next_value is not None
    for row in range(len(action)):
        before, after = plain_values(network, rows, row)
        torch.testing.assert_close(scores.value[row][mask[row]], before, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(scores.next_value[row][mask[row]], after, atol=1e-5, rtol=1e-4)
    assert not bool(scores.logp.any()) and not bool(scores.value[~mask].any())
    with torch.no_grad():
        torch.testing.assert_close(network.score(action, attention, mask).value, scores.value)
        nothing = network.score(action, attention, torch.zeros_like(mask)).value
        assert nothing is not None and not bool(nothing.any())


# --- what is refused ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"process_coefficient": -1.0}, "process_coefficient|process.coefficient"),
        ({"process_coefficient": float("inf")}, "process_coefficient|process.coefficient"),
        ({"reward_passes": 0}, "reward_passes|reward_model.passes"),
        ({"reward_learning_rate": -0.1}, "reward_learning_rate|reward_model.learning_rate"),
        ({"group_size": 1}, "group_size must be at least 2"),
        ({"adapter_rank": 2}, "adapters cannot be trained beside it"),
        ({"kl_coefficient": 0.1}, "kl_coefficient"),
    ],
)
def test_bad_input_is_one_sentence(model: str, options: dict[str, Any], sentence: str) -> None:
    if "adapter_rank" in options:
        pytest.importorskip("peft", reason="the extra 'peft' is not installed")
    with pytest.raises(RheostatError, match=sentence) as error:
        built("process-reward", model, **options)
    assert "\n" not in str(error.value)
