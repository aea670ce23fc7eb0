"""RLFR: the field learns what it is taught, offline and online, and nothing else; penalties obey their laws; bad input is a sentence."""

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
from rheostat.cli.entry import main
from rheostat.credit.flow_rewards import FlowRewards, flow_seeds, keep_largest, normalise
from rheostat.errors import RheostatError
from rheostat.learner.flow_training import FlowModel, layers_of
from rheostat.objectives.flow_matching import debiased, deviation, partners
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD, TRAIN, tokens_seen
from rheostat.policies.language.flow_field import FlowField
from rheostat.policies.language.model import LanguagePolicy
from rheostat.training.run import Interrupted, Run
from tests import tiny_language as tiny
from tests.crash import differences
from tests.learners import credited, step_plainly, weights
from tests.methods.test_chord import experts
from tests.methods.test_language_methods import Lenient, Sulking, built, save, small
from tests.plain import flow as plain
from tests.plain.rows import read_rows
from tests.training.test_run import StopAfter
from tests.vectors.methods import batch_of

ALONE: dict[str, Any] = {"offline_steps": 0, "offline_rows": 64, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def field_of(one: Any) -> FlowModel:
    found: FlowModel = one.context.models["flow"]
    return found


def awake(one: Any) -> None:
    """A field that is not 0."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in field_of(one).parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))


def gradient_of(parameters: list[Tensor]) -> Tensor:
    return torch.cat([torch.zeros_like(each).flatten() if each.grad is None else each.grad.flatten().clone() for each in parameters])


# --- the field --------------------------------------------------------------------------------------------------------------------------


def test_a_lesson_descends_the_plain_loss(model: str) -> None:
    """Two layers, two draws of noise and time for every token of an expert, against loops."""
    one = built("rlfr", model, offline_repeats=2, offline_steps=1, offline_rows=3)
    awake(one)
    lessons, field = one.composition.retain[-1], field_of(one)
    (update,) = lessons.options.updates(lessons.update)
    rows = lessons.stream.take(3)
    seeds = flow_seeds(one.context, 3)
    update.accumulate(one.context, Batch(rows, {"flow_seed": seeds}))
    network, causal = copy.deepcopy(field.network).double(), copy.deepcopy(one.policy.causal).double()
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row, seed in zip(read_rows(Batch(rows)), seeds.tolist(), strict=True):
        row.facts["latents"] = plain.latents(causal, row, field.layers)
        errors = plain.deviations(network, row, 2, field.layers, seed=seed, times=(), repeats=2)
        total, count = total + errors.sum(), count + len(errors)
    expected = torch.cat([each.flatten() for each in torch.autograd.grad(total / count, list(network.parameters()))])
    assert field.layers == (0, 1) and expected.abs().max() > 1e-3
    torch.testing.assert_close(gradient_of(field.parameters).double(), expected, atol=1e-5, rtol=1e-4)
    assert not bool(gradient_of(list(one.policy.parameters())).any())


@pytest.mark.parametrize("recompute", [False, True])
def test_the_online_update_moves_the_field_whatever_is_recomputed(model: str, recompute: bool) -> None:
    """The released one reaches no weight where layers are recomputed."""
    one = built("rlfr", model, recompute=recompute, **ALONE)
    start = weights(field_of(one).network)
    metrics = one.turn()
    assert metrics["flow/right_rows"] >= 1 and metrics["flow/gradient_norm"] > 0
    assert (weights(field_of(one).network) - start).abs().max() > 1e-5


def test_recomputing_changes_nothing(model: str) -> None:
    ends = []
    for recompute in (False, True):
        one = built("rlfr", model, recompute=recompute, flow_learning_rate=1e-2, **ALONE)
        for _ in range(2):
            one.turn()
        ends.append(weights(field_of(one).network))
    torch.testing.assert_close(*ends, atol=1e-6, rtol=1e-4)


def test_the_field_comes_to_know_the_expert(model: str) -> None:
    """Its error on an expert's rows falls; what the optimiser remembers of them is forgotten."""
    options = {"offline_steps": 60, "offline_rows": 16, "offline_repeats": 1, "offline_learning_rate": 3e-3}
    one = built("rlfr", model, **options)
    lessons, field = one.composition.retain[-1], field_of(one)
    rows = lessons.stream.take(16)
    seeds = flow_seeds(one.context, 16)

    def error(of: Any) -> float:
        with torch.no_grad():
            return float(field.deviations(one.context, of, seeds, times=(0.8,))[of.mask].mean())

    before = error(rows)
    lessons.teach(one.context)
    assert error(rows) < 0.85 * before
    assert not field.optimizer.state and field.optimizer.param_groups[0]["weight_decay"] == 0


def test_lessons_are_given_once_and_no_policy_moves_in_them(model: str) -> None:
    one = built("rlfr", model, offline_steps=3, offline_rows=2)
    start = weights(one.policy)
    credited(one)
    assert torch.equal(weights(one.policy), start) and one.context.updates_of("flow") == 3 and one.context.updates == 0
    metrics = one.improve(credited(one))
    assert one.context.updates_of("flow") == 4 and "flow/offline_loss" not in metrics


def test_only_right_completions_teach_the_field(model: str) -> None:
    one = built("rlfr", model, **ALONE)
    batch = credited(one)
    lessons = one.composition.improve[0].lessons(batch)
    right = batch.rows.reward.sum(1) >= 1
    assert 0 < len(lessons) == int(right.sum()) < len(batch)
    assert torch.equal(lessons.rows.action, batch.rows.action[right])
    start = weights(field_of(one).network)
    batch.rows.reward = torch.zeros_like(batch.rows.reward)
    metrics = one.improve(batch)
    assert metrics["flow/right_rows"] == 0 and "flow/loss" not in metrics and torch.equal(weights(field_of(one).network), start)


def test_a_share_of_the_tokens_are_those_of_the_largest_entropy(model: str) -> None:
    one = built("rlfr", model, flow_entropy_share=0.25, **ALONE)
    batch = credited(one)
    everything = batch[(batch.rows.reward.sum(1) >= 1).nonzero().flatten()].rows
    taught = one.composition.improve[0].lessons(batch).rows
    assert taught.count() == round(0.25 * everything.count())
    least = taught.entropy[taught.mask].min()
    assert int((everything.entropy[everything.mask] > least).sum()) < taught.count()


def test_noise_is_fresh_in_every_pass(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = built("rlfr", model, flow_passes=2, flow_learning_rate=0.0, minibatches=1, **ALONE)
    seen: list[int] = []
    chance = FlowModel.chance

    def heard(self: FlowModel, rows: Tensor, seeds: Tensor, *rest: Any) -> Any:
        seen.extend(seeds.tolist())
        return chance(self, rows, seeds, *rest)

    monkeypatch.setattr(FlowModel, "chance", heard)
    one.turn()
    assert len(seen) == len(set(seen)) > 16


def test_micro_batches_change_neither_model(model: str) -> None:
    ends: list[tuple[Tensor, Tensor]] = []
    for rows in (0, 1, 3):
        one = built("rlfr", model, micro_batch_rows=rows, flow_coefficient=1.0, flow_entropy_share=0.5, **ALONE)
        awake(one)
        step_plainly(one, 1.0)
        field_of(one).optimizer = torch.optim.SGD(field_of(one).network.parameters(), lr=1e-4)
        one.turn()
        ends.append((weights(one.policy), weights(field_of(one).network)))
    for other in ends[1:]:
        for mine, first in zip(other, ends[0], strict=True):
            torch.testing.assert_close(mine, first, atol=2e-6, rtol=1e-4)


def test_deviations_depend_on_the_row_alone(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on padding, on the rows beside it, or on how many are looked at together."""
    one = built("rlfr", model, **ALONE)
    awake(one)
    rows = one.retain(one.collect()).rows
    seeds = torch.arange(len(rows))
    with torch.no_grad():
        whole = field_of(one).deviations(one.context, rows, seeds, times=(0.5, 0.8))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        alone = field_of(one).deviations(one.context, rows[order[:3]], seeds[order[:3]], times=(0.5, 0.8))
        monkeypatch.setattr("rheostat.learner.flow_training.AT_ONCE", 2 * rows.shape[1])
        sliced = field_of(one).deviations(one.context, rows, seeds, times=(0.5, 0.8))
    torch.testing.assert_close(alone, whole[order[:3]], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sliced, whole, atol=1e-5, rtol=1e-5)
    assert bool((whole[rows.mask] > 0).all()) and not bool(whole[~rows.mask].any())


def test_both_models_are_counted(model: str) -> None:
    one = built("rlfr", model, minibatches=1, learning_rate=0.0, **ALONE)
    batch = one.retain(one.collect())
    before, field = one.context.flops, field_of(one)
    one.improve(one.credit(batch))
    right = batch.rows[batch.rows.reward.sum(1) >= 1]
    policy = one.context.weights * ((FORWARD + TRAIN) * tokens_seen(batch.rows) + FORWARD * tokens_seen(right))
    mine = field.weights * (FORWARD * tokens_seen(batch.rows) + TRAIN * tokens_seen(right))
    assert one.context.flops - before == policy + mine and field.weights > 0


def test_a_new_field_is_nowhere_moving() -> None:
    field = FlowField(8, 2)
    draw = torch.randn(3, 8)
    assert not bool(field(draw, torch.rand(3), draw, torch.rand(3)).any())


# --- penalties --------------------------------------------------------------------------------------------------------------------------


def test_without_penalties_it_is_grpo(model: str) -> None:
    ends = []
    grpo = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0, "clamp_log_ratio": False, "kl_coefficient": 0.0, "advantage_epsilon": 1e-9}
    own = {"flow_coefficient": 0.0, "offline_steps": 100, "offline_rows": 64, "flow_blocks": 4}
    for method, options in (("rlfr", own), ("grpo", grpo)):
        one = built(method, model, **{"max_new_tokens": 12, "minibatches": 2, "epochs": 2} | options)
        step_plainly(one, 1.0)
        one.turn()
        ends.append(weights(one.policy))
    assert torch.equal(*ends)


def test_a_penalty_is_felt_by_the_tokens_before_it() -> None:
    part = FlowRewards(coefficient=0.5, threshold=0.6, top_k=1)
    mask = torch.tensor([[False, True, True, True, True]])
    reward = part.rewards(torch.tensor([[9.0, 1.0, 2.0, 5.0, 1.0]]), mask)
    assert reward.tolist() == [[0.0, 0.0, 0.0, -0.5, 0.0]]
    rows = batch_of(mask).rows
    rows.advantage = torch.full((1, 5), 2.0) * mask
    batch = part.add(Batch(rows), reward)
    assert batch.rows.advantage.tolist() == [[0.0, 1.5, 1.5, 1.5, 2.0]] and batch.metrics["flow/reward"] == -0.5


SCORES = st.lists(st.lists(st.floats(0, 50, width=32), min_size=1, max_size=9), min_size=1, max_size=5)


def padded(rows: list[list[float]], fill: float) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows)) + 1  # so that every row has padding
    score = torch.tensor([row + [fill] * (width - len(row)) for row in rows], dtype=torch.float64)
    return score, torch.tensor([[place < len(row) for place in range(width)] for row in rows])


@given(SCORES, st.sampled_from(["min-max", "bilateral"]))
def test_normalised_scores_lie_between_their_ends(rows: list[list[float]], form: Any) -> None:
    score, mask = padded(rows, float("nan"))
    found, low = normalise(score, mask, form=form), 0.0 if form == "min-max" else -1.0
    assert not bool(found[~mask].any()) and bool(((found >= low) & (found <= 1)).all())
    for row, mine in zip(rows, found, strict=True):
        kept = mine[: len(row)]
        if max(row) > min(row):
            assert kept.max() == 1 and kept.min() == low
            assert kept[row.index(max(row))] == 1 and kept[row.index(min(row))] == low
        else:
            assert not bool(kept.any())


@given(SCORES, st.floats(0.1, 10), st.integers(0, 3))
def test_neither_scale_nor_order_nor_padding_matters(rows: list[list[float]], factor: float, extra: int) -> None:
    score, mask = padded(rows, 0.0)
    found = normalise(score, mask)
    torch.testing.assert_close(normalise(factor * score, mask), found, atol=1e-9, rtol=1e-6)
    assert torch.equal(normalise(score.flip(0), mask.flip(0)), found.flip(0))
    wide = torch.nn.functional.pad(score, (extra, extra), value=float("inf"))
    assert torch.equal(normalise(wide, torch.nn.functional.pad(mask, (extra, extra)))[:, extra : extra + score.shape[1]], found)


@given(SCORES)
def test_the_released_smallest_is_the_smallest_where_rows_have_padding(rows: list[list[float]]) -> None:
    """It takes padding for the smallest entry; a row without any loses its own."""
    rows = [[value + 0.5 for value in row] for row in rows if len(set(row)) > 1]
    if not rows:
        return
    score, mask = padded(rows, 0.0)
    torch.testing.assert_close(normalise(score, mask, released=True), normalise(score, mask))
    alone = torch.tensor([rows[0]], dtype=torch.float64)
    found = normalise(alone, torch.ones_like(alone, dtype=torch.bool), released=True)
    if len(set(rows[0])) > 2:
        assert bool((found[alone == alone.min()] < 0).all()) and found.max() == 1


@given(SCORES, st.one_of(st.none(), st.floats(0, 0.99)), st.one_of(st.none(), st.integers(1, 6)))
def test_the_largest_are_kept(rows: list[list[float]], threshold: float | None, top_k: int | None) -> None:
    score, mask = padded(rows, 0.0)
    score = normalise(score, mask, form="bilateral")
    found = keep_largest(score, threshold=threshold, top_k=top_k)
    for mine, kept in zip(score.tolist(), found.tolist(), strict=True):
        sizes = sorted((abs(value) for value in mine if threshold is None or abs(value) > threshold), reverse=True)[:top_k]
        assert sorted((abs(value) for value in kept if value), reverse=True) == [size for size in sizes if size]
        assert all(value in (0.0, given) for value, given in zip(kept, mine, strict=True))


@given(st.integers(0, 2**16), st.floats(0.05, 0.95))
def test_a_field_that_knows_the_way_has_no_deviation(seed: int, time: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    target, noise = (torch.randn(4, 6, generator=draw, dtype=torch.float64) for _ in range(2))
    t = torch.full((4,), time, dtype=torch.float64)
    assert bool((deviation(lambda x, _: (x - noise) / time, target, noise, t) < 1e-20).all())
    found = deviation(lambda x, _: torch.zeros_like(x), target, noise, t)
    torch.testing.assert_close(found, (target - noise).square().mean(1))
    torch.testing.assert_close(debiased(found[:, None], (time,)), time / (1 - time) * found)


def test_several_times_have_weights_of_their_own_and_in_the_released_code_that_of_the_last() -> None:
    errors = torch.tensor([[1.0, 3.0]])
    assert debiased(errors, (0.5, 0.8)).item() == pytest.approx((1 * 1 + 4 * 3) / 2)
    assert debiased(errors, (0.5, 0.8), released=True).item() == pytest.approx(4 * 2)


def test_partners_stand_in_the_row() -> None:
    attention = torch.tensor([[False, True, True, True, False]])
    assert partners(attention, "token-post").tolist() == [[False, False, True, True, False]]
    assert partners(attention, "token-pre").tolist() == [[False, True, True, False, False]]
    with pytest.raises(RheostatError, match="one of token-post, token-pre"):
        partners(attention, "both")  # type: ignore[arg-type]


def test_a_last_token_without_a_partner_costs_nothing(model: str) -> None:
    one = built("rlfr", model, flow_pairing="token-pre", flow_threshold=None, flow_coefficient=1.0, **ALONE)
    batch = credited(one)
    last = batch.rows.mask & (batch.rows.mask.flip(1).cumsum(1).flip(1) == 1)
    assert not bool(batch.columns["flow_reward"][last].any()) and bool((batch.columns["flow_reward"] < 0).any())


def test_rows_without_a_grade_teach_neither(model: str) -> None:
    one = built("rlfr", model, Sulking(), max_invalid_share=1.0, **ALONE)
    batch = credited(one)
    invalid = ~batch.rows.valid[:, 0]
    batch.rows.reward[invalid] = 9.0
    assert bool(invalid.any()) and not bool(batch.columns["flow_reward"][invalid].any()) and not bool(batch.rows.advantage[invalid].any())
    assert bool(one.composition.improve[0].lessons(batch).rows.valid.all())


# --- runs -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2])
def test_three_networks_and_a_cursor_resume_exactly(model: str, tmp_path: Path, at: int) -> None:
    options = {"steps": 3, "flow_passes": 2, "flow_learning_rate": 1e-2, "kl_coefficient": 0.1}
    whole = Run.create(tmp_path / "whole", small("rlfr", model, **options), task=Lenient()).train()
    state = whole.method.state_dict()
    assert set(state) >= {"models.policy", "models.flow", "models.reference", "retain.FlowLessons"}
    halted = Run.create(tmp_path / "halted", small("rlfr", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(at))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_from_the_command_line(model: str, tmp_path: Path) -> None:
    words = "--steps 2 --prompts-per-batch 2 --group-size 2 --max-new-tokens 48 --evaluate-every 0 --evaluation-episodes 2 --threads 1"
    own = "--minibatches 2 --offline-steps 2 --offline-rows 4 --flow-layers 0 1 --flow-times 0.5 0.8 --flow-blocks 1"
    where = ["--model", model, "--directory", str(tmp_path / "run")]
    main(["train", "rlfr", "chain-sum", *where, *words.split(), *own.split()])
    run = rheostat.load(tmp_path / "run")
    assert run.finished and run.metrics[0]["flow/offline_loss"] > 0 and run.metrics[-1]["flow/deviation"] > 0
    assert (tmp_path / "run" / "report.html").exists()


def test_layers_are_those_at_three_depths_each_once() -> None:
    for count, expected in ((1, (0,)), (2, (0, 1)), (4, (1, 2, 3)), (28, (7, 14, 21))):
        assert layers_of(LanguagePolicy(tiny.model(num_hidden_layers=count))) == expected
    assert layers_of(LanguagePolicy(tiny.model()), (1,)) == (1,)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"flow_layers": (0, 2)}, "flow_layers names the layer 2, and this qwen3 has 2, numbered from 0 to 1"),
        ({"flow_layers": (1, 0)}, "name each once, in rising order"),
        ({"flow_times": (0.8, 0.8)}, "name each once, in rising order"),
        ({"flow_times": ()}, "flow_times are none"),
        ({"flow_times": (1.0,)}, r"flow_times|flow\.times"),
        ({"flow_pairing": "token_post"}, "must be one of token-post, token-pre"),
        ({"flow_threshold": 1.0}, r"flow_threshold|penalty\.threshold"),
        ({"flow_coefficient": 0.0, "offline_steps": 0}, "flow_coefficient is 0"),
        ({"minibatches": 17}, "17 minibatches cannot be cut from 16 completions"),
        ({"group_size": 1}, "group_size must be at least 2"),
    ],
)
def test_bad_input_is_one_sentence(model: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built("rlfr", model, **options)
    assert "\n" not in str(error.value)


def test_too_few_expert_rows_are_refused_before_anything_is_spent(model: str, tmp_path: Path) -> None:
    file = experts(tmp_path / "e.jsonl", Lenient(), 5)
    sentence = r"learns from 8 expert rows per gradient step, and .*e\.jsonl has 5: add rows, lower offline_rows"
    with pytest.raises(RheostatError, match=sentence):
        built("rlfr", model, experts=file, expert_missing="skip")
    one = built("rlfr", model, experts=file, expert_missing="skip", offline_rows=5)
    assert one.turn()["flow/offline_loss"] > 0


def test_a_task_without_an_expert_is_refused_before_anything_is_spent(model: str) -> None:
    from rheostat.tasks.language import FilePrompts

    task = FilePrompts([{"prompt": f"{a}+1=", "answer": str(a + 1)} for a in range(8)], validation=[{"prompt": "9+1=", "answer": "10"}])
    with pytest.raises(RheostatError, match=r"The flow field cannot learn from an expert: .* set offline_steps 0"):
        built("rlfr", model, task)
