"""TreePO in the real training path: what trees share, what they are without branches, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.credit.verifiers import Grade, Scores
from rheostat.errors import RheostatError
from rheostat.parts import Batch
from rheostat.policies.flops import TRAIN, tokens_seen
from rheostat.tasks.language.task_interface import Limits
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure
from rheostat.trajectories import Trajectories
from tests.crash import differences
from tests.learners import credited, losses, update_of
from tests.methods.test_language_methods import Lenient, built, save, small
from tests.training.test_run import StopAfter

ALL_TREES: dict[str, Any] = {"dynamic": "none"}
CHAIN = ALL_TREES | {"segment": 5, "branches": 1, "root_branches": 4, "refill": "none"}
ENDS = range(4, 9)
"""Tokens that also end a completion: a random model hardly ever draws its own end token."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


class Equal(Lenient):
    """Everything is right."""

    def verifier(self) -> Any:
        return self

    def score(self, rollouts: Any, progress: Any = None) -> Scores:
        return Scores.from_grades([Grade(1.0) for _ in rollouts])


class Stops(Lenient):
    """Completions end at many pairs of characters."""

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        return Limits(12, 35, tuple(a + b for a in "0123456789" for b in "+-=;#*"))


def learner(model: str, task: Any = None, **options: Any) -> Any:
    one = built("treepo", model, task, **({"segment": 3} | options))
    one.policy.stop_ids = (*one.policy.stop_ids, *ENDS)
    return one


@pytest.mark.parametrize("task", [Lenient, Stops])
def test_a_tree_without_branches_is_a_group(task: Any, model: str) -> None:
    """Token by token and grade by grade, although it was sampled in segments; stop strings that lie across two of them are seen."""
    ours = built("treepo", model, task(), **CHAIN, max_new_tokens=22)
    theirs = built("grpo", model, task(), max_new_tokens=22)
    for _ in range(2):
        mine, other = ours.collect().rows, theirs.collect().rows
        assert torch.equal(mine.action, other.action) and torch.equal(mine.mask, other.mask) and torch.equal(mine.group, other.group)
        assert torch.equal(mine.reward, other.reward) and torch.equal(mine.truncated, other.truncated)
        torch.testing.assert_close(mine.sampler_logp[mine.mask], other.sampler_logp[other.mask], atol=1e-5, rtol=0)
        if task is Stops:
            ends = [int(row.sum()) for row, stop in zip(mine.mask, mine.terminated.any(1), strict=True) if stop]
            assert any(length % 5 == 1 for length in ends)  # the second character is the first of a segment


def test_every_segment_stands_once_in_its_rows(model: str) -> None:
    """Rows are their nodes one after the other; rows that share a node share its tokens and log-probabilities; each was generated once."""
    one = learner(model, **ALL_TREES, group_size=6)
    batch = one.collect()
    rows, path = batch.rows, batch.columns["path"]
    assert path.shape == (24, 4) and rows.group[:, 0].unique(return_counts=True)[1].tolist() == [6] * 4
    known: dict[tuple[int, int], tuple[list[int], list[float]]] = {}
    for row in range(len(batch)):
        ids, logp = rows.action[row][rows.mask[row]].tolist(), rows.sampler_logp[row][rows.mask[row]].tolist()
        nodes = path[row][path[row] >= 0].tolist()
        assert len(nodes) == -(-len(ids) // 3)
        for level, node in enumerate(nodes):
            piece = slice(3 * level, 3 * level + 3)
            assert known.setdefault((int(rows.group[row, 0]), node), (ids[piece], logp[piece])) == (ids[piece], logp[piece])
    generated = sum(len(ids) for ids, _ in known.values())
    assert batch.metrics["tree/generated_tokens"] == generated == one.context.collector.generated_tokens < rows.count()
    assert batch.metrics["tree/shared_share"] == pytest.approx(1 - generated / rows.count())
    computed = generated + batch.metrics["tree/prefilled_tokens"]
    assert one.context.flops == 2 * one.context.weights * computed


def test_what_paths_share_is_computed_once_and_changes_nothing(model: str) -> None:
    """The same trees from fewer computed tokens, and the same gradient from fewer operations."""
    spent = []
    for share in (True, False):
        one = learner(model, **ALL_TREES, group_size=6, share=share)
        batch = credited(one)
        before = one.context.flops
        update_of(one).accumulate(one.context, batch)
        one.context.count_flops(TRAIN, batch.rows)
        gradient = torch.cat([parameter.grad.flatten() for parameter in one.policy.parameters()])
        spent.append((batch, gradient, before, one.context.flops - before))
    (mine, ours, acted, trained), (other, plain, acted_plain, trained_plain) = spent
    assert torch.equal(mine.rows.action, other.rows.action) and torch.equal(mine.columns["path"], other.columns["path"])
    assert float(plain.abs().max()) > 1e-3
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
    assert mine.metrics["tree/prefilled_tokens"] < other.metrics["tree/prefilled_tokens"]
    assert acted < acted_plain and trained < trained_plain
    rows = mine.rows
    ids = [tuple(row.action[row.attention].tolist()) for row in rows]
    assert tokens_seen(rows, beginnings=True) == len({row[:end] for row in ids for end in range(1, len(row) + 1)}) < tokens_seen(rows)


def test_a_tree_does_not_depend_on_its_neighbours(model: str) -> None:
    together = learner(model, **ALL_TREES, prompts_per_batch=3).collect()
    alone = learner(model, **ALL_TREES, prompts_per_batch=1)
    for number in range(3):
        mine, other = together[together.rows.group[:, 0] == number], alone.collect()
        assert torch.equal(mine.columns["path"], other.columns["path"])
        assert [row.action[row.attention].tolist() for row in mine.rows] == [row.action[row.attention].tolist() for row in other.rows]


def test_equal_rewards_move_nothing(model: str) -> None:
    one = learner(model, Equal(), **ALL_TREES, overlong_buffer=0)
    batch = credited(one)
    assert not bool(batch.rows.advantage.any())
    update_of(one).accumulate(one.context, batch)
    assert all(not bool(parameter.grad.any()) for parameter in one.policy.parameters())
    replaced = learner(model, Equal(), overlong_buffer=0)  # dynamic sampling finds no tree that differs
    assert replaced.turn()["gradient_steps"] == 0


@pytest.mark.parametrize("kind", ["subgroups", "root", "progress", "siblings"])
def test_order_of_rows_and_padding_change_nothing(kind: str, model: str) -> None:
    one = learner(model, **ALL_TREES, advantage=kind, group_size=6)
    batch = one.retain(one.collect())
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))
    shuffled = batch[order]
    padded = Batch(with_padding(batch.rows), dict(batch.columns))
    found = one.credit(batch)
    values, expected = found.rows.advantage, losses(one, found)[1]
    assert bool(values[found.rows.mask].any())
    for other, advantage in ((shuffled, values[order]), (padded, torch.nn.functional.pad(values, (2, 3)))):
        again = one.credit(other)
        torch.testing.assert_close(again.rows.advantage, advantage, atol=1e-5, rtol=0)
        torch.testing.assert_close(losses(one, again)[1], expected, atol=1e-5, rtol=0)


def with_padding(rows: Trajectories) -> Trajectories:
    """Two empty columns before and three behind, the fields that no annotation has filled in yet."""
    fields = {}
    for name, value in rows.items():
        if value is not None and name not in ("advantage", "learner_logp", "entropy"):
            fill = float("nan") if name == "sampler_logp" else 0
            wide = torch.cat([value.new_full((len(value), 2), fill), value, value.new_full((len(value), 3), fill)], 1)
            fields[name] = value[:, :1].expand(wide.shape).clone() if name in ("group", "valid", "source", "version") else wide
    return Trajectories(**fields, batch_size=list(fields["mask"].shape))


def test_dynamic_sampling_keeps_paths_with_their_rows(model: str) -> None:
    """Only trees whose rewards differ, from several rounds, at most as many as a batch has; every path still belongs to its row."""
    one = learner(model, prompts_per_batch=6, group_size=2)
    batch = one.collect()
    rows, path = batch.rows, batch.columns["path"]
    assert batch.metrics["sampling_rounds"] > 1 and len(path) == len(batch) and len(rows.group[:, 0].unique()) <= 6
    for number in rows.group[:, 0].unique():
        assert len(rows.reward.sum(1)[rows.group[:, 0] == number].unique()) > 1
    assert torch.equal((path >= 0).sum(1), -(-rows.mask.sum(1) // 3))


def test_options_act(model: str) -> None:
    """Random first branches, branching by probability, no refilling, repetition, depth: each changes what is grown."""
    shared = ALL_TREES | {"group_size": 8, "prompts_per_batch": 6}
    usual = learner(model, **shared).collect()
    firsts = {len(usual.columns["path"][usual.rows.group[:, 0] == number, 0].unique()) for number in range(6)}
    assert usual.metrics["tree/refilled_share"] > 0 == usual.metrics["tree/repetition_share"]
    other = learner(model, **shared, root_branches=5, root_random=True, refill="none").collect()
    drawn = {len(other.columns["path"][other.rows.group[:, 0] == number, 0].unique()) for number in range(6)}
    assert len(drawn) > 1 and drawn <= {2, 3, 4, 5} and firsts >= {2}
    assert other.metrics["tree/refilled_share"] == 0 and len(other) < 48
    choices = [{"tree.branching.kind": "probability", "tree.branching.prefer": prefer} for prefer in ("likely", "unlikely")]
    seen = [learner(model, **shared, **choice, **{"tree.branching.temperature": 0.1}).collect().rows for choice in choices]
    assert seen[0].action.shape != seen[1].action.shape or not torch.equal(seen[0].action, seen[1].action)
    pruned = learner(model, **shared, repetition_count=2, repetition_window=1, tree_depth=2).collect()
    assert 0 < pruned.metrics["tree/repetition_share"] < 1 and int((pruned.columns["path"] >= 0).sum(1).max()) == 2


def test_resume_with_stale_data(model: str, tmp_path: Path) -> None:
    options = {"steps": 4, "segment": 3, "dial.lag": 1, "minibatches": 2, "root_branches": 3, "root_random": True}
    Run.create(tmp_path / "whole", small("treepo", model, **options), task=Lenient()).train()
    halted = Run.create(tmp_path / "halted", small("treepo", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(3))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group_size": 0}, "tree.width is 0; it must be at least 1"),
        ({"group_size": 1}, "A tree that begins with 2 branches cannot have a group_size"),
        ({"group_size": 4, "root_branches": 5}, "A tree that begins with 5 branches"),
        ({"root_random": True}, "root_random draws between 2 branches and root_branches"),
        ({"repetition_count": 1}, "all branches would be pruned"),
        ({"repetition_count": 0, "repetition_window": 8}, "repetition_window belongs to a repetition_count"),
        ({"dial.replay_share": 0.5}, "does not carry the path"),
        ({"dial.expert_share": 0.5}, "an expert's completion has no path"),
        ({"advantage": "root", "skip_equal_groups": True}, "skip_equal_groups"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        configure("treepo", options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"segment": 12}, "A segment of 12 tokens never ends inside a completion of at most 12"),
        ({"segment": 4, "tree_depth": 4}, "tree.depth 4 with segments of 4 tokens goes beyond the 12 tokens a completion may have"),
    ],
)
def test_refusals_of_lengths(options: dict[str, Any], sentence: str, model: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built("treepo", model, **options)
    assert "\n" not in str(error.value)


def test_a_batch_of_repetitions_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheostat.collect.language.trees.repeats", lambda text, window, count: (window, count) == (32, 8))
    one = built("treepo", model, **ALL_TREES, segment=3, max_new_tokens=30)
    one.policy.stop_ids = ()
    with pytest.raises(RheostatError, match="All branches were pruned: every segment of this batch repeats 32 characters 8 times") as error:
        one.collect()
    assert "\n" not in str(error.value)
