"""PRIME against loops: rewards from the raw models one token at a time, returns and baselines from lists, two gradients; and its laws."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import rheostat
from rheostat.cli.entry import main
from rheostat.credit.process_rewards import implicit_rewards, process_returns
from rheostat.errors import RheostatError
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD, TRAIN, tokens_seen
from rheostat.training.run import Interrupted, Run
from tests import tiny_language as tiny
from tests.crash import differences
from tests.learners import weights
from tests.methods.test_language_methods import Lenient, Sulking, built, save, small
from tests.methods.test_process_reward import Early, flat, plainly
from tests.training.test_run import StopAfter

BETA, GAMMA = 0.7, 0.9


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def awake(one: Any, seed: int = 0) -> None:
    """A reward model that has left the starting model."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in one.context.models["reward"].parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))


def logps(network: Any, rows: Any, row: int) -> Tensor:
    """Of the masked tokens of one row, under the raw model."""
    found, _ = tiny.naive_scores(network.causal, rows.action[row : row + 1], rows.attention[row : row + 1], rows.mask[row : row + 1])
    return found


def token_rewards(one: Any, start: Any, rows: Any) -> list[list[float]]:
    """The implicit rewards of every row, token by token."""
    with torch.no_grad():
        pairs = [(logps(one.context.models["reward"].network, rows, row), logps(start, rows, row)) for row in range(len(rows))]
    return [[BETA * (float(mine) - float(theirs)) for mine, theirs in zip(a, b, strict=True)] for a, b in pairs]


def returns(rewards: list[list[float]], group: list[int], gamma: float) -> list[list[float]]:
    """Equation 5 of the paper, its first sum."""
    means = [sum(each) / len(each) for each in rewards]
    found = []
    for row, mine in enumerate(rewards):
        others = [means[other] for other in range(len(rewards)) if group[other] == group[row] and other != row]
        baseline = sum(others) / len(others)
        found.append([sum(gamma ** (s - t) * (mine[s] - baseline) for s in range(t, len(mine))) for t in range(len(mine))])
    return found


def plain_reward_gradient(one: Any, start: Any, rows: Any) -> Tensor:
    """Of the cross-entropy of the outcomes."""
    total = torch.zeros(())
    for row in range(len(rows)):
        with torch.no_grad():
            reference = logps(start, rows, row).sum()
        right = 1 / (1 + torch.exp(-BETA * (logps(one.context.models["reward"].network, rows, row).sum() - reference)))
        total = total - (torch.log(right) if rows.reward[row].sum() > 0.5 else torch.log(1 - right))
    found = torch.autograd.grad(total / len(rows), one.context.models["reward"].parameters)
    return torch.cat([each.flatten() for each in found])


def plain_policy_gradient(one: Any, start: Any, rows: Any, alpha: float, whiten: bool) -> Tensor:
    """On fresh data the ratio is 1: the gradient of - mean A log pi."""
    group, outcome = rows.group[:, 0].tolist(), rows.reward.sum(1).tolist()
    process = returns(token_rewards(one, start, rows), group, GAMMA)
    advantages: list[list[float]] = []
    for row in range(len(rows)):
        others = [outcome[other] for other in range(len(rows)) if group[other] == group[row] and other != row]
        advantages.append([outcome[row] - sum(others) / len(others) + alpha * each for each in process[row]])
    if whiten:
        every = [value for each in advantages for value in each]
        mean = sum(every) / len(every)
        deviation = math.sqrt(sum((value - mean) ** 2 for value in every) / (len(every) - 1))
        advantages = [[(value - mean) / deviation for value in each] for each in advantages]
    total, count = torch.zeros(()), int(rows.mask.sum())
    for row, advantage in enumerate(advantages):
        total = total - (torch.tensor(advantage) * logps(one.policy, rows, row)).sum()
    found = torch.autograd.grad(total / count, list(one.policy.parameters()))
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize(("alpha", "whiten"), [(1.0, False), (0.4, True)])
def test_a_step_of_both_models_is_the_plain_one(model: str, alpha: float, whiten: bool) -> None:
    options = {"learning_rate": 0.5, "reward_learning_rate": 0.25, "max_grad_norm": 1e9, "reward_max_grad_norm": 1e9}
    one = built("prime", model, process_coefficient=alpha, whiten=whiten, gamma=GAMMA, process_beta=BETA, **options)
    start = copy.deepcopy(one.policy)
    awake(one)
    plainly(one, 1.0)
    before = {name: flat(one, name) for name in ("policy", "reward")}
    rows = one.retain(one.collect()).rows
    expected = {"reward": plain_reward_gradient(one, start, rows), "policy": plain_policy_gradient(one, start, rows, alpha, whiten)}
    one.improve(one.credit(Batch(rows)))
    for name, rate in (("reward", 0.25), ("policy", 0.5)):
        torch.testing.assert_close(before[name] - flat(one, name), rate * expected[name], atol=1e-5, rtol=1e-3)
        assert expected[name].abs().max() > 1e-3


def test_the_first_update_is_that_of_rloo(model: str) -> None:
    """The reward model is the starting model: the policy moves by the outcome alone; later it does not."""
    found = []
    for method, options in (
        ("prime", {"process_coefficient": 5.0, "reward_learning_rate": 1e-2}),
        ("grpo", {"advantage": "rloo", "aggregation": "token-mean", "kl_coefficient": 0.0}),
    ):
        one = built(method, model, **options)
        one.turn()
        found.append(weights(one.policy))
        one.turn()
        found.append(weights(one.policy))
    torch.testing.assert_close(found[0], found[2], atol=1e-6, rtol=0)
    assert not torch.allclose(found[1], found[3], atol=1e-5)


@pytest.mark.parametrize("at", [1, 2])
def test_three_copies_of_one_network_resume_exactly(model: str, tmp_path: Path, at: int) -> None:
    options = {"steps": 4, "evaluate_every": 2, "evaluation_prompts": 4, "reward_passes": 2, "reward_learning_rate": 1e-2}
    whole = Run.create(tmp_path / "whole", small("prime", model, **options), task=Lenient()).train()
    state = whole.method.state_dict()
    assert set(state) >= {"models.policy", "models.reward", "models.reference"} and state["context"]["counts"] == {"reward": 4, "policy": 4}
    halted = Run.create(tmp_path / "halted", small("prime", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(at))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
    pointers = [
        {each.data_ptr() for each in one.parameters()} for one in (whole.method.policy, whole.method.context.models["reward"].network)
    ]
    assert not pointers[0] & pointers[1]


def test_both_models_are_counted(model: str) -> None:
    one = built("prime", model, reward_passes=3, reward_learning_rate=0.0, learning_rate=0.0)
    batch = one.retain(one.collect())
    seen, before = tokens_seen(batch.rows), one.context.flops
    metrics = one.improve(one.credit(batch))
    assert one.context.flops - before == one.context.weights * (2 * FORWARD + 3 * TRAIN + TRAIN) * seen  # reference and reward model; both
    assert one.context.counts == {"reward": 1, "policy": 1} and metrics["learner_tokens"] == batch.rows.count()
    assert metrics["reward_model/loss"] == pytest.approx(math.log(2), abs=1e-5) and metrics["reward_model/pair_accuracy"] == 0.5


def test_micro_batches_change_neither_model(model: str) -> None:
    ends: list[list[Tensor]] = []
    for rows in (0, 1, 3):
        one = built("prime", model, micro_batch_rows=rows, learning_rate=1.0, reward_learning_rate=1.0)
        awake(one)
        plainly(one, 1.0)
        one.turn()
        ends.append([flat(one, "policy"), flat(one, "reward")])
    for other in ends[1:]:
        for mine, first in zip(other, ends[0], strict=True):
            torch.testing.assert_close(mine, first, atol=1e-6, rtol=1e-4)


def test_it_learns_what_decides_the_outcome(model: str) -> None:
    """A random policy that does not move: the reward model comes to order completions it has not seen, without a label on a token."""
    options = {"max_new_tokens": 3, "prompts_per_batch": 8, "group_size": 8, "process_beta": 1.0}
    one = built("prime", model, Early(), learning_rate=0.0, reward_learning_rate=1e-2, **options)
    found = [one.turn()["reward_model/pair_accuracy"] for _ in range(40)]
    assert found[0] == 0.5 and sum(found[-5:]) / 5 > 0.85


def test_rows_without_a_grade_teach_neither(model: str) -> None:
    one = built("prime", model, Sulking(), max_invalid_share=1.0)
    awake(one)
    batch = one.credit(one.retain(one.collect()))
    invalid = ~batch.rows.valid[:, 0]
    assert bool(invalid.any()) and not bool(batch.columns["process_reward"][invalid].any())
    assert not bool(batch.rows.advantage[invalid].any())
    part, reward = one.composition.improve[0], one.context.models["reward"]
    found = []
    for value in (0.0, 100.0):
        batch.rows.reward[invalid] = value
        part.update.accumulate(one.context, batch)
        found.append(torch.cat([each.grad.flatten() for each in reward.parameters]))
    assert torch.equal(*found)


@given(st.integers(0, 2**16), st.integers(2, 4), st.integers(1, 3), st.integers(1, 7), st.sampled_from([1.0, 0.8]))
def test_returns_are_those_of_the_loops(seed: int, size: int, groups: int, length: int, gamma: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    count = size * groups
    lengths = torch.randint(1, length + 1, (count,), generator=draw)
    mask = torch.arange(length) < lengths[:, None]
    reward = torch.randn(count, length, generator=draw, dtype=torch.float64)
    group = torch.arange(count) % groups
    found = process_returns(reward.masked_fill(~mask, torch.nan), group, mask, gamma=gamma)
    expected = returns([reward[row, : int(lengths[row])].tolist() for row in range(count)], group.tolist(), gamma)
    for row in range(count):
        torch.testing.assert_close(found[row][mask[row]], torch.tensor(expected[row], dtype=torch.float64))
    assert not bool(found[~mask].any())
    assert not bool(implicit_rewards(reward, reward, mask, beta=2.0).any())


def test_from_the_command_line(model: str, tmp_path: Path) -> None:
    words = "--steps 2 --prompts-per-batch 3 --group-size 3 --max-new-tokens 8 --evaluate-every 0 --evaluation-episodes 2 --threads 1"
    main(["train", "prime", "chain-sum", "--model", model, "--directory", str(tmp_path / "run"), *words.split()])
    run = rheostat.load(tmp_path / "run")
    assert run.finished and run.metrics[-1]["reward_model/loss"] > 0 and (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"process_beta": 0.0}, r"process_beta|reward_model\.beta"),
        ({"process_coefficient": 0.0, "gamma": 0.9}, "gamma discounts process rewards"),
        ({"group_size": 1}, "group_size must be at least 2"),
        ({"adapter_rank": 2}, "adapters cannot be trained beside it"),
        ({"kl_coefficient": 0.1}, "kl_coefficient"),
    ],
)
def test_bad_input_is_one_sentence(model: str, options: dict[str, Any], sentence: str) -> None:
    if "adapter_rank" in options:
        pytest.importorskip("peft", reason="the extra 'peft' is not installed")
    with pytest.raises(RheostatError, match=sentence) as error:
        built("prime", model, **options)
    assert "\n" not in str(error.value)
