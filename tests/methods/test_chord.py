"""CHORD through the training path, and expert rows from a file in every method that uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.collect.language.experts import ExpertsBeside
from rheostat.errors import RheostatError
from rheostat.experiments.comparison import plan
from rheostat.tasks.language import ChainSum, FilePrompts
from rheostat.training.language_setup import uses_experts
from rheostat.training.run import Interrupted, Run
from rheostat.trajectories import Source, join_rows
from tests.crash import differences
from tests.learners import credited, losses, step_plainly, update_of, weights
from tests.methods.test_language_methods import LANGUAGE, Lenient, built, save, small
from tests.training.test_run import StopAfter

EXPERTS = [name for name in LANGUAGE if uses_experts(name)]
SHORT: dict[str, Any] = {"min_terms": 3, "max_terms": 3, "modulus": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def experts(path: Path, task: ChainSum, count: int, *more: dict[str, Any]) -> str:
    prompts = task.prompts("train", 5).take(count)
    rows = [{"prompt": prompt.content, "completion": prompt.columns["solution"]} for prompt in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
    return str(path)


def learned(one: Any) -> torch.Tensor:
    """The change that one turn makes to the weights under plain gradient descent."""
    step_plainly(one, 1.0)
    start = weights(one.policy)
    one.turn()
    return weights(one.policy) - start


# --- chord -------------------------------------------------------------------------------------------------------------------------------


def test_the_batch_is_rollouts_and_expert_rows(model: str) -> None:
    one = built("chord", model)
    found = credited(one)
    batch = found.rows
    expert = batch.source[:, 0] == int(Source.EXPERT)
    assert len(batch) == 20 and expert.tolist() == [False] * 16 + [True] * 4  # a fifth of the whole
    assert not batch.advantage[expert].any() and not batch.reward[expert].any() and bool(batch.sampler_logp[expert].isnan().all())
    assert len(set(batch.group[expert, 0].tolist()) | set(batch.group[~expert, 0].tolist())) == 8
    metrics = one.improve(found)
    assert metrics["mu"] == 0.1 and metrics["expert_loss"] > 0 and {"meter/share_expert", "meter/expert/logp"} <= set(metrics)
    assert len(one.rollouts(100)) == 16


def test_expert_rows_never_touch_the_statistics(model: str) -> None:
    """Whitening over the batch (reinforce-pp) would see them first."""
    with_experts, without = (built("chord", model, expert_ratio=ratio, advantage="reinforce-pp") for ratio in (0.2, 0.0))
    mixed, plain = (credited(one).rows for one in (with_experts, without))
    torch.testing.assert_close(mixed.advantage[:16, : plain.shape[1]], plain.advantage)
    assert not mixed.advantage[16:].any()


def test_mu_joins_two_gradients_with_denominators_of_their_own(model: str) -> None:
    """At mu = 0 the step is GRPO's, at mu = 1 that of the expert rows alone, and in between the convex combination."""

    def step(mu: float, **options: Any) -> torch.Tensor:
        return learned(built("chord", model, mu_peak=mu, mu_valley=mu, max_grad_norm=1e9, **options))

    own, expert, mixed = step(0.0), step(1.0), step(0.25)
    torch.testing.assert_close(mixed, 0.75 * own + 0.25 * expert, atol=1e-6, rtol=0)
    grpo = built("grpo", model, aggregation="token-mean", kl_coefficient=0.0, max_grad_norm=1e9, max_new_tokens=48, dual_clip=3.0)
    torch.testing.assert_close(own, learned(grpo), atol=1e-6, rtol=0)
    plain = step(1.0, expert_weight="none")
    assert expert.norm() < 0.25 * plain.norm() < 10 * expert.norm()


def test_a_penalty_and_a_bonus_are_of_own_tokens_alone(model: str) -> None:
    """At mu = 1 the only thing left for own tokens is the entropy bonus, whatever the expert rows are."""
    found = []
    for coefficient in (0.0, 1.0):
        one = built("chord", model, mu_peak=1.0, mu_valley=1.0, entropy_coefficient=coefficient, max_grad_norm=1e9)
        batch = credited(one)
        scores, loss, sums, _ = losses(one, batch)
        found.append((loss, sums["expert_loss"]))
        own = batch.rows.mask & (batch.rows.source != int(Source.EXPERT))
        if coefficient:
            expected = found[0][0] - scores.entropy[own].mean()
            torch.testing.assert_close(loss, expected)
            torch.testing.assert_close(update_of(one).accumulate(one.context, batch)["entropy"], scores.entropy[own].mean().detach())


def test_diagnostics_do_not_depend_on_micro_batches(model: str) -> None:
    rows = [built("chord", model, micro_batch_rows=size, minibatches=2).turn() for size in (0, 3)]
    for name in ("entropy", "policy_loss", "expert_loss", "approx_kl", "meter/clip_fraction", "meter/gradient_norm"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-3, abs=1e-6), name


def test_a_gradient_step_may_have_no_expert_row(model: str) -> None:
    """Then it says nothing of that source, and the log has the mean of the steps that do."""
    metrics = built("chord", model, expert_ratio=0.06, minibatches=9, micro_batch_rows=1).turn()  # 16 own rows, 2 of the expert's
    assert metrics["gradient_steps"] == 9 and 0 < metrics["meter/share_expert"] < 1
    assert {"meter/fresh/clip_fraction", "meter/expert/clip_fraction"} <= set(metrics)


def test_mu_follows_its_schedule(model: str) -> None:
    one = built("chord", model, steps=4, mu_peak=0.9, mu_valley=0.1, mu_decay=3, mu_decay_form="linear", expert_weight="none")
    assert [round(one.turn()["mu"], 6) for _ in range(4)] == [
        0.9,
        pytest.approx(0.633333, abs=1e-5),
        pytest.approx(0.366667, abs=1e-5),
        0.1,
    ]


def test_chord_refuses_what_makes_no_sense(model: str) -> None:
    for sentence, options in (
        ("schedule of mu ends at update 200 .* but the run makes 2: shorten", {"preset": "mu"}),
        (r"mu\.peak is 1.5: the loss is", {"mu_peak": 1.5}),
        ("expert_ratio is 1.0; it must be at least 0 and below 1", {"expert_ratio": 1.0}),
        ("cutoff is 0.0; it must be above 0 and at most 1", {"cutoff": 0.0}),
        ("temperature is 0.7: CHORD weighs", {"temperature": 0.7}),
        ("choose an aggregation that counts", {"aggregation": "constant"}),
        ("Tokens that the policy did not write may lie outside top_k", {"top_k": 5}),
        (r"mu\.decay is -1; it must be at least 0", {"mu_decay": -1}),
        ("chord cannot honour dial.expert_share: it has expert rows beside", {"dial.expert_share": 0.5}),
    ):
        with pytest.raises(RheostatError, match=sentence) as error:
            built("chord", model, **options)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["chord", "rl-plus", "ghpo", "cog-rethinker"])
def test_padding_changes_nothing(method: str, model: str) -> None:
    one = built(method, model)
    batch = credited(one)
    rows = batch.rows
    twice = torch.cat([rows[:1], rows[:1]], 1)  # a row of twice the width pads all others
    wide = batch.with_rows(join_rows([rows, twice])[: len(rows)])
    assert wide.rows.shape[1] == 2 * rows.shape[1]
    for size in (0, 5):
        found = []
        for whole in (batch, wide):
            parts = whole.split(size) if size else [whole]
            found.append(sum(losses(one, part, whole)[1] for part in parts))
        torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


# --- expert rows from a file --------------------------------------------------------------------------------------------------------------


def test_the_stream_goes_through_the_file_and_resumes_exactly(model: str, tmp_path: Path) -> None:
    file = experts(tmp_path / "e.jsonl", ChainSum(), 7)
    options = {"experts": file, "max_new_tokens": 48, "steps": 4, "checkpoint_every": 2}
    one = built("chord", model, **options)
    (stream,) = [part.stream for part in one.composition.retain if isinstance(part, ExpertsBeside)]
    seen = [text for _ in range(7) for text in one.policy.tokenizer.batch_decode(stream.take(4).action, skip_special_tokens=True)]
    assert len(set(seen[:7])) == 7 and sorted(seen[:7]) == sorted(seen[7:14]) == sorted(seen[21:]) and seen[:7] != seen[7:14]
    whole = Run.create(tmp_path / "whole", small("chord", model, **options), task=Lenient())
    whole.train()
    halted = Run.create(tmp_path / "halted", small("chord", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(3))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
    assert whole.metrics[-1]["expert_rows"] == 7 and whole.metrics[-1]["expert_rows_dropped"] == 0
    Path(file).write_text(Path(file).read_text().replace("#", "##", 1))
    with pytest.raises(RheostatError, match=r"begun with other expert rows than .*e.jsonl holds now"):
        Run.load(tmp_path / "whole", task=Lenient())


@pytest.mark.parametrize("method", [name for name in EXPERTS if name != "ded"])  # which chooses among them first: test_ded
def test_every_method_of_experts_takes_a_file(method: str, model: str, tmp_path: Path) -> None:
    task = ChainSum(**SHORT)  # a thousand prompts: the file has a hundred of them
    file = experts(tmp_path / "e.jsonl", task, 100)
    one = built(method, model, task, experts=file, expert_missing="skip", max_new_tokens=48)
    metrics = one.turn()
    assert metrics["expert_rows"] == 100 and metrics["gradient_steps"] >= (method != "cog-rethinker")  # which imitates only what was right
    covered = {row.key for row in one.context.setup.experts.rows}
    assert {prompt.key for prompt in one.context.graded.prompts} <= covered


def test_a_drawn_prompt_without_a_row(model: str, tmp_path: Path) -> None:
    file = experts(tmp_path / "e.jsonl", ChainSum(), 3)
    with pytest.raises(RheostatError, match=r"e.jsonl has no row for the prompt '.*' \(key .*\), which the task draws: add one, draw only"):
        built("luffy", model, ChainSum(), experts=file).collect()
    stepped_in = built("luffy", model, ChainSum(), experts=file, expert_missing="task").collect().rows
    assert int((stepped_in.source[:, 0] == int(Source.EXPERT)).sum()) == 4


def test_the_file_speaks_for_the_prompt_in_the_group(model: str, tmp_path: Path) -> None:
    """Every group's expert row is one of the file's completions of that prompt; the choice is the seed's."""
    rows = [{"prompt": prompt, "completion": f"{prompt}{way}", "answer": "1"} for prompt in ("1+1=", "2+2=", "3+3=") for way in "123"]
    file = tmp_path / "e.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = FilePrompts([{"prompt": row["prompt"], "answer": "1"} for row in rows[::3]], validation_share=0.0)

    def said(seed: int, **options: Any) -> list[str]:
        one = built("grpo", model, task, experts=str(file), seed=seed, **options, **{"dial.expert_share": 0.5})
        graded = one.collect().facts["graded"]
        count = len(graded.prompts) // 2
        found = list(zip(graded.prompts[count:], graded.completions[count:], strict=True))
        assert all(text in [f"{prompt.content}{way}" for way in "123"] for prompt, text in found)
        assert all(a != b for (_, a), (_, b) in zip(found[::2], found[1::2], strict=True))  # two experts of a group differ
        return [text for _, text in found]

    assert said(0) == said(0) != said(1)


def test_expert_files_are_refused_and_filtered(model: str, tmp_path: Path) -> None:
    task = ChainSum()
    wrong = {"prompt": "1+1+1=", "completion": "#9"}
    long = {"prompt": "1+1+1=", "completion": "1" * 60}
    file = experts(tmp_path / "e.jsonl", task, 5, wrong, long)
    with pytest.raises(RheostatError, match=r"grpo uses no experts, but .* was given: set --dial.expert-share, or choose one of chord"):
        built("grpo", model, task, experts=file)
    clean = experts(tmp_path / "o.jsonl", task, 5)
    only = built("grpo", model, task, experts=clean, expert_missing="skip", max_new_tokens=48)
    assert len({prompt.key for prompt, _ in only.context.collector.draw(12)[0]}) == 5  # the same prompts as the methods of experts
    cells, *_ = plan(["chord", "grpo"], "chain-sum", seeds=1, steps=1, directory=tmp_path / "compared", experts=clean, model=model)
    assert [cell.settings.experts for cell in cells] == [clean, None]
    with pytest.raises(RheostatError, match=r"Line 7 of .* has a completion of 61 tokens with its end, more than the 48"):
        built("chord", model, task, experts=file)
    filtered = built("chord", model, task, experts=file, expert_long="drop", expert_least_reward=1.0).context.setup.experts
    assert len(filtered) == 5 and filtered.dropped == {"too long": 1, "with a reward below 1": 1}
    with pytest.raises(RheostatError, match=r"Line 2 of .* is for the prompt '1-1=' .* which chain-sum never draws"):
        built("chord", model, task, experts=experts(tmp_path / "u.jsonl", task, 1, {"prompt": "1-1=", "completion": "#0"}))


def test_an_expert_stays_an_expert_when_it_is_replayed(model: str) -> None:
    one = built("luffy", model, steps=4, **{"dial.replay_share": 0.5})
    for _ in range(3):
        batch = one.retain(one.collect())
        expert = batch.rows.source[:, 0] == int(Source.EXPERT)
        assert torch.equal(expert, batch.rows.sampler_logp.isnan().all(1))
        one.improve(one.credit(batch))
    assert int(expert.sum()) == 8  # four groups are fresh, four replayed
