"""OORL: laws of the loss of groups, its reductions, groups from files and tasks, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.errors import RheostatError
from rheostat.methods.language.oorl import OORL
from rheostat.objectives.group_preference import GroupLosses, group_preference_loss
from rheostat.objectives.preference import preference_loss
from rheostat.options import refuse_idle
from rheostat.parts import Aggregate
from rheostat.training.run import Interrupted, Run
from tests.annotated import GROUPS
from tests.crash import differences
from tests.learners import credited, losses, update_of, weights
from tests.methods.test_language_methods import Lenient, built, save, small
from tests.training.test_run import StopAfter

RATIOS = st.lists(st.floats(-20, 20), min_size=1, max_size=5)
BETA = st.floats(0.01, 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def one_group(winners: list[float], losers: list[float], **options: Any) -> tuple[GroupLosses, Tensor]:
    """The loss of one group, and the log-ratios."""
    ratio = torch.tensor([*winners, *losers], dtype=torch.float64, requires_grad=True)
    equivalent = torch.tensor([True] * len(winners) + [False] * len(losers))
    return group_preference_loss(ratio, equivalent, torch.full((len(ratio),), 7), **{"beta": 0.1, "spread": 1.0} | options), ratio


@given(st.floats(-50, 50), st.floats(-50, 50), BETA, st.floats(0, 3), st.sampled_from(["population", "sample"]))
def test_one_pair_is_dpo(winner: float, loser: float, beta: float, spread: float, variance: Any) -> None:
    found, ratio = one_group([winner], [loser], beta=beta, spread=spread, variance=variance)
    chosen, rejected = (torch.tensor([each], dtype=torch.float64, requires_grad=True) for each in (winner, loser))
    dpo = preference_loss(chosen, rejected, beta=beta)
    torch.testing.assert_close(found.loss, dpo, rtol=0, atol=1e-12)
    mine, theirs = torch.autograd.grad(found.loss.sum(), ratio)[0], torch.autograd.grad(dpo.sum(), (chosen, rejected))
    torch.testing.assert_close(mine, torch.cat(theirs), rtol=0, atol=1e-12)


@given(RATIOS, RATIOS, st.floats(-30, 30), st.booleans())
def test_a_constant_added_to_all_changes_nothing(winners: list[float], losers: list[float], constant: float, inside: bool) -> None:
    plain, before = one_group(winners, losers, beta_inside=inside)
    moved, after = one_group([each + constant for each in winners], [each + constant for each in losers], beta_inside=inside)
    torch.testing.assert_close(moved.loss, plain.loss, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(found.loss.sum(), ratio)[0] for found, ratio in ((plain, before), (moved, after))]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients[0].sum(), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-9)


@given(st.floats(-20, 20), st.integers(1, 5), RATIOS)
def test_equal_equivalents_feel_the_margin_alone(winner: float, count: int, losers: list[float]) -> None:
    with_spread, ratio = one_group([winner] * count, losers, spread=5.0)
    without, other = one_group([winner] * count, losers, spread=0.0)
    mine, theirs = (torch.autograd.grad(found.loss.sum(), each)[0] for found, each in ((with_spread, ratio), (without, other)))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_groups_do_not_mix_whatever_their_order() -> None:
    generator = torch.Generator().manual_seed(0)
    ratio, group = torch.randn(12, generator=generator, dtype=torch.float64), torch.tensor([4, 9, 4, 2, 9, 2, 4, 2, 9, 4, 2, 9])
    equivalent = torch.tensor([1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0]).bool()
    found = group_preference_loss(ratio, equivalent, group, beta=0.5, spread=0.7)
    for place, number in enumerate((2, 4, 9)):
        mine = group == number
        alone = group_preference_loss(ratio[mine], equivalent[mine], group[mine], beta=0.5, spread=0.7)
        torch.testing.assert_close(torch.stack([each[place] for each in found]), torch.stack([each[0] for each in alone]))


# --- in a run -----------------------------------------------------------------------------------------------------------------------------


def test_without_weight_it_is_reinforce_pp(model: str) -> None:
    shared: dict[str, Any] = {"kl_coefficient": 0.1, "learning_rate": 1e-2, "warmup": 0, "learning_rate_decay": "none"}
    unset = {"representations": None, "groups_per_batch": 32, "equivalents": 4, "inequivalents": 4}
    mine = built("oorl", model, preference_weight=0.0, **shared, **unset)
    theirs = built("reinforce-pp", model, **shared)
    for each in (mine, theirs):
        each.turn()
        each.turn()
    assert torch.equal(weights(mine.policy), weights(theirs.policy))


def test_a_shared_prefix_gets_no_gradient(model: str, tmp_path: Path) -> None:
    """Tokens that all members share cancel, in the margin and in the variance, whatever the log-ratios are."""
    path = tmp_path / "shared.jsonl"
    path.write_text(json.dumps({"prompt": "?+1;", "equivalent": ["777?+1", "7771+?"], "inequivalent": ["777?+2", "7772+?"]}) + "\n")
    one = built("oorl", model, representations=str(path), groups_per_batch=1)
    found = credited(one)
    term = update_of(one).terms[-1].term
    logp = one.context.score(found.rows).logp.detach()
    logp = (logp + torch.randn(logp.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    gradient = torch.autograd.grad(term.groups(logp, found).loss.sum(), logp)[0]
    members = term.mask(found).any(1)
    places = term.mask(found)[members].int().argmax(1)[:, None] + torch.arange(3)
    shared = gradient[members].gather(1, places)
    assert len(shared) == 4 and bool((shared.abs() > 1e-3).all())
    torch.testing.assert_close(shared.sum(0), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_micro_batches_keep_groups_whole(model: str, size: int) -> None:
    whole, parts = (built("oorl", model, micro_batch_rows=rows, learning_rate=1e-2, warmup=0) for rows in (0, size))
    found = [whole.turn(), parts.turn()]
    torch.testing.assert_close(weights(whole.policy), weights(parts.policy), atol=2e-6, rtol=1e-4)
    for name in ("preference_loss", "margin", "equivalent_variance", "policy_loss"):
        assert found[0][name] == pytest.approx(found[1][name], abs=1e-5), name


def test_the_margin_rises_on_groups_that_are_learned(model: str, tmp_path: Path) -> None:
    one = built("oorl", model, preference_weight=1.0, learning_rate=1e-2, warmup=0, groups_per_batch=8, steps=12, spread_weight=0.1)
    rows = [one.turn() for _ in range(12)]
    assert rows[0]["margin"] == pytest.approx(0, abs=1e-5) and rows[-1]["margin"] > 1 and rows[-1]["preference_accuracy"] > 0.7


def test_held_out_groups_are_measured(model: str) -> None:
    one = built("oorl", model, evaluate_every=1, evaluation_prompts=4, learning_rate=1e-2, warmup=0)
    found = one.context.measure(4)
    assert {"accuracy", "validation_preference_accuracy", "validation_equivalent_variance"} <= set(found)
    cursors = [part.state_dict() for part in one.composition.retain if hasattr(part, "state_dict")]
    one.context.measure(4)
    assert cursors and cursors == [part.state_dict() for part in one.composition.retain if hasattr(part, "state_dict")]


def test_a_batch_of_equal_rewards_is_skipped(model: str) -> None:
    for rule, silent in (("skip", True), ("whiten", False)):
        one = built("oorl", model, kl_coefficient=0.5, flat_batches=rule, learning_rate=1e-2, warmup=0, micro_batch_rows=0)
        one.turn()  # so that the policy is not the reference any more
        batch = one.retain(one.collect())
        batch.rows.reward = torch.zeros_like(batch.rows.reward)
        found = one.credit(batch)
        assert found.metrics["flat_batch"] == 1 and bool((found.rows.advantage == 0).all()) == silent


def test_both_losses_are_told_apart(model: str) -> None:
    one = built("oorl", model, preference_weight=0.5)
    found = credited(one)
    _, loss, sums, _ = losses(one, found)
    torch.testing.assert_close(loss.detach(), sums["policy_loss"] + 0.5 * sums["preference_loss"])


def test_members_and_cursor_are_those_of_an_unbroken_run(model: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 6, "checkpoint_every": 1, "groups_per_batch": 5, "equivalents": 1}
    Run.create(tmp_path / "whole", small("oorl", model, **options), task=Lenient()).train()
    with pytest.raises(Interrupted):
        Run.create(tmp_path / "halted", small("oorl", model, **options), task=Lenient()).train(progress=StopAfter(4))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


# --- what is refused ----------------------------------------------------------------------------------------------------------------------

GOOD = {"prompt": "?+1;", "equivalent": ["?+1"], "inequivalent": ["?+2"]}
BAD: list[tuple[Any, str]] = [
    ({"inequivalent": []}, "Line 2 of .*groups.jsonl has no inequivalent member, so there is nothing to compare"),
    ({"equivalent": []}, "has no equivalent member, so there is nothing to compare"),
    ({"equivalent": "?+1"}, "has no list of texts in its column 'equivalent'"),
    ({"inequivalent": [3]}, "has no list of texts in its column 'inequivalent'"),
    ({"inequivalent": ["?+1"]}, r"has the text '\?\+1' as equivalent and as inequivalent"),
]


@pytest.mark.parametrize(("changes", "said"), BAD)
def test_rows_that_are_no_group_are_one_sentence(changes: dict[str, Any], said: str, model: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (GOOD, GOOD | changes)))
    with pytest.raises(RheostatError, match=said) as error:
        built("oorl", model, representations=str(path))
    assert "\n" not in str(error.value)


def test_a_task_without_groups_is_one_sentence(model: str) -> None:
    with pytest.raises(RheostatError, match="has no groups of equivalent and inequivalent representations: give a file"):
        built("oorl", model, representations=None)


def test_another_file_does_not_continue_a_run(model: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.jsonl"
    path.write_text(GROUPS.read_text())
    options: dict[str, Any] = {"steps": 4, "checkpoint_every": 1, "representations": str(path)}
    with pytest.raises(Interrupted):
        Run.create(tmp_path / "run", small("oorl", model, **options), task=Lenient()).train(progress=StopAfter(2))
    path.write_text(json.dumps(GOOD) + "\n" + GROUPS.read_text())
    with pytest.raises(RheostatError, match="The run was begun with other prompts than"):
        Run.load(tmp_path / "run", task=Lenient()).train()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preference_weight": 0.0, "beta": 0.5}, "beta would do nothing: preference_weight is 0"),
        ({"preference_weight": 0.0, "representations": {"file": "x"}}, "representations.file would do nothing"),
        ({"representations": {"equivalents": 1}, "spread_weight": 2.0}, "spread_weight would do nothing: equivalents is 1"),
        ({"spread_weight": 0.0, "variance": "sample"}, "variance would do nothing: spread_weight is 0"),
        ({"kl": {"coefficient": 0.0}, "flat": {"rule": "whiten"}}, "flat.rule would do nothing: kl_coefficient is 0"),
    ],
)
def test_options_that_cannot_act(options: dict[str, Any], said: str) -> None:
    parts = {name: replace(getattr(OORL(), name), **value) if isinstance(value, dict) else value for name, value in options.items()}
    with pytest.raises(RheostatError, match=said):
        refuse_idle(OORL(**parts), "oorl")


def test_whole_distributions_and_counted_tokens_only() -> None:
    with pytest.raises(RheostatError, match="Representations may lie outside top_k and top_p"):
        OORL(sampling=SamplingOptions(top_k=5))
    with pytest.raises(RheostatError, match="choose an aggregation that counts tokens"):
        OORL(aggregate=Aggregate("constant"))
