"""Every language method on a tiny random model: it trains, micro-batches and stops change nothing, and bad input is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rheostat
from rheostat.api import settings_for
from rheostat.credit.verifiers import Grade, Scores
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.parts import Batch
from rheostat.tasks.language import ChainSum, FilePrompts, character_tokenizer
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from rheostat.trajectories import Source
from tests.annotated import ANNOTATED, GROUPS
from tests.crash import crash, differences
from tests.learners import credited, losses, step_plainly, weights
from tests.tiny_language import model as random_model
from tests.training.test_run import StopAfter

LATENT = ("ctrls",)
"""Methods whose language model stands still: they have tests of their own."""
LANGUAGE = [name for name, row in table.METHODS.items() if row.domain == "language" and name not in (*ANNOTATED, *LATENT)]
PAIRED = ("online-dpo", "pairwise-policy-gradient")
UNGRADED = ("osp",)
"""Methods for which rewards are only watched."""
GROUPED = [name for name in LANGUAGE if name not in ("ded", "sft", "ppo-lm", "reinforce", "reinforce-pp", "oorl", *PAIRED)]
SMALL: dict[str, Any] = {
    "prompts_per_batch": 4, "group_size": 4, "max_new_tokens": 12, "learning_rate": 1e-3, "evaluate_every": 0, "evaluation_episodes": 0,
    "steps": 2, "checkpoint_every": 2, "threads": 1, "environment_options": {},
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "sft": {"max_new_tokens": 48},
    "ded": {"max_new_tokens": 48, "questions": 24, "answers_per_question": 2, "most_solved": 0.75},
    "ctrls": {
        "max_new_tokens": 24, "step_separator": "+", "states": 3, "lesson_prompts": 8, "lesson_samples": 4, "encoder_steps": 10,
        "offline_steps": 2, "offline_chains": 2, "latent_width": 16,
    },
    "light-r1": {"length_margin": 1},
    "luffy": {"max_new_tokens": 48},
    "chord": {"max_new_tokens": 48},
    "rl-plus": {"max_new_tokens": 48},
    "ghpo": {"hint_after": 0, "hint_place": "answer"},
    "dapo": {"overlong_buffer": 4, "max_sampling_rounds": 3},
    "remix": {"switch_after": 1, "window": 1, "convex_start": 1, "convex_interval": 1},
    "ppo-lm": {"group_size": 1, "prompts_per_batch": 8, "minibatches": 2},
    "rise": {"solution_rewards": "task", "minibatches": 2},
    "rlfr": {"max_new_tokens": 48, "offline_steps": 2, "offline_rows": 8, "flow_blocks": 2, "minibatches": 2},
    "treepo": {"segment": 4, "warmup": 0, "overlong_buffer": 4},
    "online-dpo": {"temperature": 1.0, "beta": 0.5},
    "oorl": {"representations": str(GROUPS), "groups_per_batch": 3, "equivalents": 2, "inequivalents": 3},
}  # fmt: skip


class Odd:
    """1 for completions of odd length, so that a random model is sometimes right; ``broken`` rows are invalid."""

    name = "odd"

    def __init__(self, broken: float = 0.0) -> None:
        self.broken = broken

    def score(self, rollouts: Any, progress: Any = None) -> Scores:
        failing = round(self.broken * len(rollouts))
        grades = [Grade(float(sum(map(ord, rollout.completion)) % 2), {"length": float(len(rollout.completion))}) for rollout in rollouts]
        return Scores.from_grades([Grade.failure("the grader sulks") if row < failing else grade for row, grade in enumerate(grades)])


class Lenient(ChainSum):
    """Chains of sums that a random model can get right."""

    def verifier(self) -> Any:
        return Odd()


class Sulking(ChainSum):
    """Half of the completions cannot be graded."""

    share = 0.5

    def verifier(self) -> Any:
        return Odd(self.share)


class Hopeless(Sulking):
    """None can."""

    share = 1.0


class Endless:
    """An annotation that makes advantages infinite."""

    def __call__(self, context: Any, batch: Batch) -> Batch:
        batch.rows.advantage = batch.rows.advantage * float("inf")
        return batch


def save(folder: Path, *, vocabulary: int | None = None, tokenizer: Any = None, positions: int = 128) -> str:
    tokenizer = tokenizer or character_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes["max_position_embeddings"] = positions
    random_model("qwen3", vocabulary=vocabulary or len(tokenizer), **sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def small(method: str, model: str, task: Any = None, **options: Any) -> Any:
    values = SMALL | OWN.get(method, {}) | {"model": model} | options
    if method in ("ded", "sft", "pairwise-policy-gradient"):  # nobody samples groups, or their size is no choice
        del values["group_size"]
    return settings_for(method, task or Lenient(), **values)


def built(method: str, model: str, task: Any = None, **options: Any) -> Any:
    task = task or Lenient()
    return build_method(small(method, model, task, **options), task)


@pytest.mark.parametrize("method", LANGUAGE)
def test_stopping_anywhere_changes_nothing(method: str, model: str, tmp_path: Path) -> None:
    """Train 2N == train N, stop between two checkpoints, load in a new object, train N; and training moves the weights."""
    options = {"steps": 3, "evaluate_every": 2, "evaluation_prompts": 4}
    whole = Run.create(tmp_path / "whole", small(method, model, **options), task=Lenient())
    start = {name: value.clone() for name, value in whole.method.policy.state_dict().items()}
    whole.train()
    assert any(not torch.equal(value, start[name]) for name, value in whole.method.policy.state_dict().items())
    assert len(whole.metrics) == 4 and "accuracy" in whole.metrics[2] and whole.metrics[-1]["generated_tokens"] > 0
    halted = Run.create(tmp_path / "halted", small(method, model, **options), task=Lenient())
    with pytest.raises(Interrupted, match="rheostat resume"):
        halted.train(progress=StopAfter(1))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.parametrize("method", LANGUAGE)
def test_micro_batches_change_nothing(method: str, model: str) -> None:
    """Plain gradient steps of size 1, whatever the number of rows per forward pass."""
    ends = []
    for rows in (0, 1, 3):
        one = built(method, model, micro_batch_rows=rows)
        step_plainly(one, 1.0)
        start = weights(one.policy)
        one.turn()
        ends.append(weights(one.policy))
        assert (ends[-1] - start).abs().max() > 1e-3
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", GROUPED)
def test_groups_are_whole(method: str, model: str) -> None:
    batch = built(method, model).collect().rows
    groups, sizes = batch.group[:, 0].unique(return_counts=True)
    assert sizes.tolist() == [4] * len(groups)


def test_sft_learns_from_the_expert_alone(model: str) -> None:
    one = built("sft", model)
    batch = credited(one)
    rows = batch.rows
    assert bool((rows.source == int(Source.EXPERT)).all()) and bool(rows.sampler_logp.isnan().all())
    scores, loss, _, _ = losses(one, batch)
    torch.testing.assert_close(loss, -scores.logp[rows.mask].mean())


def test_luffy_has_one_expert_in_every_group(model: str) -> None:
    one = built("luffy", model)
    drawn = one.collect()
    batch, graded = drawn.rows, drawn.facts["graded"]
    expert = batch.source[:, 0] == int(Source.EXPERT)
    assert sorted(batch.group[expert, 0].tolist()) == sorted(batch.group[:, 0].unique().tolist())
    assert bool(batch.sampler_logp[expert].isnan().all()) and not bool(batch.sampler_logp[~expert][batch.mask[~expert]].isnan().any())
    assert len(graded.scores) == len(batch) and set(graded.scores.parts) == {"length"}


def test_rft_keeps_only_what_was_right(model: str) -> None:
    one = built("rft", model)
    kept = one.retain(one.collect())
    right = kept.facts["graded"].scores.reward == 1.0
    assert 0 < int(right.sum()) < len(right) and torch.equal(kept.rows.mask.any(1), right)


def test_ppo_bootstraps_completions_that_were_cut(model: str) -> None:
    one = built("ppo-lm", model, max_new_tokens=3, kl_coefficient=0.0, gamma=0.5, lam=1.0)
    for parameter in one.policy.value_head.parameters():  # it starts at zero
        torch.nn.init.constant_(parameter, 0.3)
    batch = credited(one).rows
    row = int(batch.truncated.any(1).nonzero()[0])
    kept = batch.mask[row]
    last = batch.reward[row][kept][-1] + 0.5 * batch.next_value[row][kept][-1]
    assert batch.value_target[row][kept][-1].item() == pytest.approx(last.item(), abs=1e-5)
    assert batch.next_value[row][kept][-1].item() != 0.0


@pytest.mark.parametrize("method", [name for name in LANGUAGE if name not in ("ded", "sft", "chord", "oorl", *UNGRADED)])
def test_a_batch_without_a_grade_trains_nothing(method: str, model: str) -> None:
    one = built(method, model, Hopeless(), max_invalid_share=1.0)
    start = {name: value.clone() for name, value in one.policy.state_dict().items()}
    metrics = one.turn()
    assert metrics["gradient_steps"] == 0 and metrics["invalid_share"] == 1.0
    assert all(torch.equal(value, start[name]) for name, value in one.policy.state_dict().items())
    assert all(not row["valid"] for row in one.rollouts(8))


def test_the_final_measurement_takes_as_many_prompts_as_it_says(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = built("grpo", model)
    counts: list[int] = []
    sample = one.context.collector.sample
    monkeypatch.setattr(
        one.context.collector, "sample", lambda drawn, *rest, **options: counts.append(len(drawn)) or sample(drawn, *rest, **options)
    )
    one.context.measure(4)
    one.context.measure(20)
    one.context.measure(6)
    assert counts == [4, 20, 6]


def test_the_overlong_buffer_of_dapo_is_a_quarter_of_any_limit_unless_it_is_given(model: str) -> None:
    """The paper's 4096 tokens would be above the limit of nearly every run here."""
    one = built("dapo", model, overlong_buffer=None, max_new_tokens=12)
    batch = one.retain(one.collect())
    earned = batch.rows.reward.sum(1) - ((batch.rows.mask.sum(1) - 9).clamp(min=0) / 3)
    torch.testing.assert_close(one.credit(batch).columns["row_reward"], earned)
    with pytest.raises(RheostatError, match="overlong_buffer is 13, more than the 12 tokens a completion may have"):
        built("dapo", model, overlong_buffer=13, max_new_tokens=12)


def test_adapters_are_drawn_from_the_runs_seed(model: str) -> None:
    pytest.importorskip("peft")
    before = torch.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        torch.rand(3)  # whatever else uses the global generator
        one = built("grpo", model, adapter_rank=2, seed=seed)
        drawn.append(torch.cat([p.detach().flatten() for name, p in one.policy.named_parameters() if "lora_A" in name]))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    torch.set_rng_state(before)
    built("grpo", model, adapter_rank=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_failing_graders_stop_the_run(model: str, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("grpo", model, Sulking()), task=Sulking())
    with pytest.raises(RheostatError, match=r"failed on 8 of 16 completions \(50%, more than the allowed 10%\): row 0: the grader sulks"):
        run.train()


def test_a_loss_that_is_not_finite_stops_and_keeps_its_batch(model: str, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small("grpo", model), task=Lenient())
    run.method.composition.credit.append(Endless())  # type: ignore[attr-defined]
    with pytest.raises(RheostatError, match=r"became non-finite in update 1; the batch that caused it is in .*nonfinite.safetensors"):
        run.train()
    batch = load_file(tmp_path / "run" / "nonfinite.safetensors")
    assert not bool(batch["advantage"].isfinite().all()) and batch["action"].shape == batch["mask"].shape


def test_evaluating_never_changes_training(model: str, tmp_path: Path) -> None:
    from rheostat.experiments.language_runs import evaluate_language

    plain = Run.create(tmp_path / "plain", small("grpo", model), task=Lenient())
    watched = Run.create(tmp_path / "watched", small("grpo", model), task=Lenient())
    first = evaluate_language(watched, 6, 4)
    watched.method.evaluate(5)
    assert plain.train().metrics == watched.train().metrics
    assert set(first.pass_at) == {1, 2, 4} and first.majority is None and 0 < first.accuracy.estimate < first.pass_at[4].estimate
    assert evaluate_language(Run.load(tmp_path / "plain", task=Lenient()), 6, 4) == evaluate_language(watched, 6, 4) != first
    with pytest.raises(RheostatError, match="0 completions each cannot be evaluated"):
        evaluate_language(watched, 6, 0)


def test_the_model_is_an_ordinary_folder_and_the_report_shows_rollouts(model: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = SMALL | {"model": model, "directory": tmp_path / "run", "progress": False}
    run = rheostat.train("grpo", Lenient(), **options)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model")("1+2=")["input_ids"]
    ours = run.method.policy.causal.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in loaded.state_dict().items())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Rollouts</h2>" in page and "length" in page


def test_own_prompts_without_a_task(model: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "{a}+{b}=", "answer": "{(a + b) % 10}"}}\n' for a in range(10) for b in range(10)))
    options = SMALL | {"model": model, "directory": tmp_path / "run", "progress": False, "prompts": str(prompts), "rewards": ("exact",)}
    assert rheostat.train("grpo", **options).settings.task == "prompts"
    with pytest.raises(RheostatError, match="Say what to train grpo on"):
        rheostat.train("grpo", steps=1)
    with pytest.raises(RheostatError, match="has no base model of its own"):
        rheostat.train("grpo", prompts=str(prompts), steps=1)


def refused(sentence: str, model: str, task: Any = None, **options: Any) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built("grpo", model, task, **options).turn()
    assert "\n" not in str(error.value)


def test_bad_input_is_one_sentence(model: str, tmp_path: Path) -> None:
    endless = character_tokenizer()
    endless.eos_token = None
    refused("no end token", save(tmp_path / "endless", tokenizer=endless))
    refused("disagree about the vocabulary", save(tmp_path / "short", vocabulary=12))
    refused("Could not load a model", str(tmp_path / "nothing"))
    refused("overlong_buffer is 13, more than the 12 tokens", model, overlong_buffer=13)
    refused("leaves no room for a prompt", model, max_new_tokens=128)
    rows = [{"prompt": "1+" * 60 + "1=", "answer": "1"}, {"prompt": "2=", "answer": "2"}]
    refused("more than the limit of", model, FilePrompts(rows[:1], validation=rows[1:], max_prompt_tokens=20))
    refused("has no validation prompts", model, FilePrompts(rows[:1], validation_share=0.0), evaluate_every=1)
    with pytest.raises(RheostatError, match="There are no prompts"):
        FilePrompts([])
    if not torch.cuda.is_available():
        refused("sees no GPU", model, device="cuda")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "ppo-lm", "online-dpo", "rwr"])
def test_crash_harness(method: str, model: str) -> None:
    sizes = ["--prompts-per-batch", "4", "--max-new-tokens", "12", "--threads", "1", "--evaluate-every", "3", "--checkpoint-every", "2"]
    crash(method, "chain-sum", kills=4, steps=40, options=["--model", model, *sizes])
