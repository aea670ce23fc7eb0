"""Methods of preferences through the training path: pairs of the policy's own, how fresh they are, labels, reward models by name, what is
measured on held-out data, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rheostat
from rheostat.api import settings_for
from rheostat.cli.entry import parse
from rheostat.collect.language.learned_reward import LearnedReward
from rheostat.collect.language.sampled_pairs import SampledPairs, ends
from rheostat.credit.verifiers.verifier_interface import Rollout
from rheostat.errors import RheostatError
from rheostat.objectives.unpaired_terms import rotated
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language import character_tokenizer
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from tests.annotated import ANNOTATED, annotated, sizes, sums
from tests.crash import differences
from tests.learners import credited, losses, step_plainly, weights
from tests.methods.test_language_methods import Hopeless, Lenient, Sulking, save
from tests.methods.test_language_methods import built as sampling
from tests.methods.test_language_methods import small as sampling_settings
from tests.training.test_run import StopAfter

OPTIONS: dict[str, Any] = {
    "max_new_tokens": 8, "learning_rate": 1e-3, "evaluate_every": 0, "evaluation_episodes": 0, "evaluation_prompts": 4, "steps": 2,
    "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of pairs whose shorter answer is the better one."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "chosen": str((a + b) % 10), "rejected": f"{a}{b}{a}"} for a in range(10) for b in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def judge(model: str, pairs: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a reward model."""
    options = OPTIONS | {"model": model, "steps": 8, "learning_rate": 1e-2, "pairs_per_batch": 16, "evaluation_episodes": 8}
    return rheostat.train(
        "reward-model", preferences=pairs, directory=tmp_path_factory.mktemp("judge") / "rm", progress=False, **options
    ).directory


def settings(method: str, model: str, **options: Any) -> Any:
    return settings_for(method, annotated(method), **(OPTIONS | sizes(method, 8) | {"model": model} | options))


def built(method: str, model: str, task: Any = None, **options: Any) -> Any:
    return build_method(settings(method, model, **options), task or annotated(method))


# --- annotated answers -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ANNOTATED)
def test_micro_batches_change_nothing(method: str, model: str) -> None:
    ends = []
    for rows in (0, 2, 3):
        one = built(method, model, micro_batch_rows=rows)
        step_plainly(one, 1.0)
        start = weights(one.policy)
        one.turn()
        ends.append(weights(one.policy))
        assert (ends[-1] - start).abs().max() > 1e-4
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ANNOTATED)
def test_a_run_that_was_stopped_goes_on_exactly(method: str, model: str, tmp_path: Path) -> None:
    options = {"steps": 3, "evaluate_every": 2, "checkpoint_every": 2, "minibatches": 2, "evaluation_episodes": 4}
    Run.create(tmp_path / "whole", settings(method, model, **options), task=annotated(method)).train()
    halted = Run.create(tmp_path / "halted", settings(method, model, **options), task=annotated(method))
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    Run.load(tmp_path / "halted", task=annotated(method)).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_an_answer_that_was_cut_has_no_end_token(model: str) -> None:
    rows = [{"prompt": "1=", "completion": "12", "label": True, "truncated": cut} for cut in (True, False)]
    task = annotated("kto", rows, validation_share=0.0)
    batch = build_method(settings("kto", model, answers_per_batch=2), task).collect()  # type: ignore[attr-defined]
    assert sorted(batch.rows.mask.sum(1).tolist()) == [2, 3] and sorted(batch.rows.truncated.any(1).tolist()) == [False, True]


def test_kto_needs_the_answers_of_others(model: str) -> None:
    with pytest.raises(RheostatError, match="a gradient step needs at least two answers"):
        built("kto", model, answers_per_batch=2, minibatches=2).turn()


def test_rotating_gives_every_prompt_the_answer_before(model: str) -> None:
    one = built("kto", model, answers_per_batch=5)
    rows = one.collect().rows
    found = rotated(rows)
    for row in range(5):
        answer, other = rows.action[row][rows.mask[row]], found.action[(row + 1) % 5][found.mask[(row + 1) % 5]]
        asked = [each.action[row][each.attention[row] & ~each.mask[row]].tolist() for each in (rows, found)]
        assert answer.tolist() == other.tolist() and asked[0] == asked[1]


# --- pairs of the policy's own -----------------------------------------------------------------------------------------------------------


@given(st.integers(2, 5).flatmap(lambda n: st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1, max_size=4)))
def test_the_best_and_the_worst_are_two_answers(rewards: list[list[int]]) -> None:
    best, worst = ends(torch.tensor(rewards, dtype=torch.float32))
    for row, b, w in zip(rewards, best.tolist(), worst.tolist(), strict=True):
        assert b == row.index(max(row)) and b != w
        assert row[w] == min(value for place, value in enumerate(row) if place != b)


def test_completions_that_were_cut_are_worth_less(model: str) -> None:
    data = SampledPairs(1, 2, "first", missing_end_penalty=0.5)
    assert [each.tolist() for each in data.compared(torch.tensor([0.9, 0.6]), torch.tensor([True, False]))] == [[1], [0]]


def test_ties_and_failures_teach_nothing(model: str) -> None:
    one = sampling("online-dpo", model, group_size=2, prompts_per_batch=16)
    batch = one.collect()
    rewards = batch.facts["graded"].scores.reward.view(-1, 2)
    told = batch.rows.mask.any(1).view(-1, 2)
    assert torch.equal(told[:, 0], told[:, 1]) and torch.equal(told[:, 0], rewards[:, 0] > rewards[:, 1])
    assert 0 < int(told[:, 0].sum()) < 16 and batch.metrics["paired_share"] == told[:, 0].float().mean().item()
    kept = sampling("online-dpo", model, group_size=2, prompts_per_batch=16, ties="first").collect()
    assert bool(kept.rows.mask.any(1).all())
    sulking = sampling("online-dpo", model, Sulking(), group_size=2, prompts_per_batch=4, max_invalid_share=1.0, ties="first").collect()
    assert sulking.rows.mask.any(1).tolist() == [False] * 4 + [True] * 4
    assert sampling("online-dpo", model, Hopeless(), max_invalid_share=1.0).turn()["gradient_steps"] == 0


def test_a_pairwise_gradient_is_that_of_rloo_for_two(model: str) -> None:
    """Where the policy is that of the start of the update."""
    found = []
    for method, own in (("pairwise-policy-gradient", {}), ("rloo", {"group_size": 2})):
        one = sampling(method, model, prompts_per_batch=8, kl_coefficient=0.0, **own)
        _, loss, _, _ = losses(one, credited(one))
        loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in one.policy.parameters()]))
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("every", "ages"), [(1, [0, 0, 0, 0, 0]), (2, [0, 1, 0, 1, 0]), (3, [0, 1, 2, 0, 1]), (0, [0, 1, 2, 3, 4])])
def test_how_fresh_pairs_are(every: int, ages: list[int], model: str) -> None:
    """Rows are of the copy that was taken last: by their version, and by the log-probabilities of its weights."""
    one = sampling("online-dpo", model, steps=5, group_size=2, ties="first", **{"dial.refresh_every": every})
    kept, found = [weights(one.policy)], []
    for update in range(5):
        batch = one.collect()
        found.append(update - int(batch.rows.version[batch.rows.mask].max()))
        acting = one.context.models[one.context.acting].network
        assert torch.equal(weights(acting), kept[update - found[-1]])
        one.improve(one.credit(one.retain(batch)))
        kept.append(weights(one.policy))
    assert found == ages


@pytest.mark.parametrize(
    ("method", "options"),
    [("online-dpo", {"dial.refresh_every": 2}), ("rwr", {"dial.refresh_every": 0}), ("grpo", {"dial.refresh_every": 3})],
)
def test_a_refreshed_run_goes_on_exactly(method: str, options: dict[str, Any], model: str, tmp_path: Path) -> None:
    values = options | {"steps": 5, "checkpoint_every": 2}
    Run.create(tmp_path / "whole", sampling_settings(method, model, **values), task=Lenient()).train()
    halted = Run.create(tmp_path / "halted", sampling_settings(method, model, **values), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(3))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_what_the_dial_refuses() -> None:
    for sentence, method, options in (
        ("dial.lag and dial.refresh_every both say whose parameters sample", "grpo", {"dial.lag": 1, "dial.refresh_every": 2}),
        ("ppo cannot honour dial.refresh_every: it is for language methods", "ppo", {"dial.refresh_every": 2}),
        ("dpo cannot honour dial.refresh_every: nothing is sampled", "dpo", {"dial.refresh_every": 2}),
        ("online-dpo cannot honour dial.replay_share: its pairs are thrown away", "online-dpo", {"dial.replay_share": 0.5}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            settings_for(method, "chain-sum" if method != "ppo" else "CartPole-v1", **options)


def test_a_copy_that_would_never_be_taken_anew_is_refused(model: str) -> None:
    with pytest.raises(RheostatError, match=r"dial\.refresh_every is 9, but the whole run makes about 2 updates"):
        sampling("grpo", model, **{"dial.refresh_every": 9})


# --- reward models by name ---------------------------------------------------------------------------------------------------------------


def test_a_reward_model_learns_and_says_how_it_goes_with_length(judge: Path) -> None:
    summary = Run.load(judge).summary
    assert summary["validation_preference_accuracy"] > 0.8 and "accuracy" not in summary
    assert summary["validation_length_correlation"] < -0.5 and 0 <= summary["validation_calibration_error"] <= 1


def test_its_reward_is_its_head_after_the_last_token(judge: Path) -> None:
    reward, policy = LearnedReward(f"run:{judge}"), LanguagePolicy.load(judge / "model")
    rollouts = [Rollout("1+2=", "3"), Rollout("1+22=", "33"), Rollout("1+2=", "3", truncated=True), Rollout("1=", "")]
    end = policy.tokenizer.eos_token_id
    for rollout, found in zip(rollouts, reward.score(rollouts).reward.tolist(), strict=True):
        ids = policy.tokenizer(str(rollout.prompt) + rollout.completion)["input_ids"] + [end] * (not rollout.truncated)
        hidden = policy.causal.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        assert policy.value_head is not None
        assert found == pytest.approx(policy.value_head(hidden[None]).item(), abs=1e-5)


def test_it_grades_any_method_and_a_second_reward_watches(judge: Path, model: str, pairs: str, tmp_path: Path) -> None:
    options = OPTIONS | {
        "model": model,
        "prompts": pairs,
        "prompts_per_batch": 4,
        "group_size": 3,
        "evaluate_every": 1,
        "evaluation_episodes": 4,
    }
    rewards = {"rewards": (f"run:{judge}", "exact"), "reward_weights": (1.0, 0.0)}
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row | {"answer": row["chosen"]}) + "\n" for row in sums()))
    run = rheostat.train("best-of-n", directory=tmp_path / "run", progress=False, **options | rewards | {"prompts": str(path)})
    assert {"validation_win_rate", "validation_win_rate/rm", "validation_win_rate/exact", "validation_kl"} <= set(run.summary)
    assert run.summary["validation_win_rate"] == run.summary["validation_win_rate/rm"]
    again = rheostat.train("grpo", directory=tmp_path / "grpo", progress=False, **options | {"rewards": (f"run:{judge}",)})
    assert again.metrics[-1]["reward"] != 0.0 and "validation_kl" not in again.summary


def test_rewards_that_are_not_finite_stop_the_run(judge: Path, model: str, pairs: str, tmp_path: Path) -> None:
    broken = LanguagePolicy.load(judge / "model")
    assert broken.value_head is not None
    torch.nn.init.constant_(broken.value_head.linear.bias, float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    scores = LearnedReward(f"run:{tmp_path / 'broken'}").score([Rollout("1=", "1")])
    assert scores.failed.tolist() == [True] and "which is not a reward: rewards are finite numbers" in scores.messages[0]
    options = OPTIONS | {"model": model, "prompts": pairs, "prompts_per_batch": 4, "group_size": 3}
    with pytest.raises(RheostatError, match="failed on 12 of 12 completions"):
        rheostat.train("grpo", rewards=(f"run:{tmp_path / 'broken'}",), directory=tmp_path / "run", progress=False, **options)


def test_answers_that_it_cannot_read_are_failures_of_their_own(judge: Path) -> None:
    scores = LearnedReward(f"run:{judge}").score(
        [Rollout("1=", "1"), Rollout("1=", "1" * 200), Rollout([{"role": "user", "content": "1"}], "1")]
    )
    assert scores.failed.tolist() == [False, True, True]
    assert "and the reward model has 128 positions" in scores.messages[1] and "no chat template" in scores.messages[2]


def test_names_of_no_reward_model_are_refused(model: str, tmp_path: Path) -> None:
    for sentence, name in (
        ("is no directory: give that of a run of reward-model", "run:nowhere"),
        ("it has no value head", f"run:{model}"),
    ):
        with pytest.raises(RheostatError, match=sentence):
            rheostat.train("grpo", "chain-sum", model=model, rewards=(name,), directory=tmp_path / "run", progress=False)


# --- judges of pairs -------------------------------------------------------------------------------------------------------------------

JUDGES = """
def shorter(completions, other, **columns):
    return [0.5 + 0.5 * (len(a) < len(b)) - 0.5 * (len(a) > len(b)) for a, b in zip(completions, other)]

def first(completions, other, **columns):
    return [1.0 for _ in completions]

def sure(completions, other, **columns):
    return [3.0 for _ in completions]

def silent(completions, other, **columns):
    return [None if len(a) % 2 else 0.75 for a in completions]
"""


def judged_options(model: str, pairs: str, folder: Path, name: str, **options: Any) -> dict[str, Any]:
    (folder / "judges.py").write_text(JUDGES)
    reward = {"rewards": ("length.py:score",), "judge": f"{folder / 'judges.py'}:{name}"}
    (folder / "length.py").write_text("def score(completions, **columns):\n    return [float(len(each)) for each in completions]\n")
    reward["rewards"] = (f"{folder / 'length.py'}:score",)
    return (
        OPTIONS | reward | {"model": model, "prompts": pairs, "prompts_per_batch": 8, "progress": False, "evaluation_episodes": 4} | options
    )


def test_a_judge_says_what_is_learned_and_who_wins(model: str, pairs: str, tmp_path: Path) -> None:
    options = judged_options(model, pairs, tmp_path, "shorter", compare_by="judge", steps=1)
    run = rheostat.train("online-dpo", directory=tmp_path / "run", **options)
    batch = run.method.collect()  # type: ignore[attr-defined]
    lengths = [len(text) for text in batch.facts["graded"].completions]
    told = batch.rows.mask.any(1)[::2].tolist()
    assert [a < b for a, b in zip(lengths[::2], lengths[1::2], strict=True)] == told and any(told), "the reward would prefer the longer"
    assert run.summary["validation_position_bias"] == run.summary["validation_inconsistent_share"] == 0.0
    assert run.summary["validation_judged_win_rate"] == pytest.approx(1 - run.summary["validation_win_rate"])


def test_a_judge_of_places_teaches_nothing_and_is_found_out(model: str, pairs: str, tmp_path: Path) -> None:
    run = rheostat.train("online-dpo", directory=tmp_path / "run", **judged_options(model, pairs, tmp_path, "first", compare_by="judge"))
    assert run.metrics[-1]["gradient_steps"] == 0 and run.metrics[-1]["paired_share"] == 0.0
    found = {name: run.summary[f"validation_{name}"] for name in ("judged_win_rate", "position_bias", "inconsistent_share")}
    assert found == {"judged_win_rate": 0.5, "position_bias": 0.5, "inconsistent_share": 1.0}


def test_what_a_judge_cannot_say_is_left_out(model: str, pairs: str, tmp_path: Path) -> None:
    run = rheostat.train("online-dpo", directory=tmp_path / "run", **judged_options(model, pairs, tmp_path, "silent", compare_by="judge"))
    batch = run.method.collect()  # type: ignore[attr-defined]
    assert not bool(batch.rows.mask.any()), "both orders say 0.75, which is a tie, or nothing"


def test_judges_that_cannot_be_asked_are_refused(model: str, pairs: str, tmp_path: Path) -> None:
    for sentence, method, name, options in (
        ("returned 3: it must say, between 0 and 1", "online-dpo", "sure", {"compare_by": "judge"}),
        ("grpo compares no two answers: leave --judge out", "grpo", "shorter", {"group_size": 2}),
        ("A judge compares two answers: leave group_size at 2", "online-dpo", "shorter", {"compare_by": "judge", "group_size": 4}),
        ("compare_by judge asks a judge of pairs, and there is none", "online-dpo", "shorter", {"compare_by": "judge", "judge": None}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            rheostat.train(method, directory=tmp_path / f"{method}-{name}", **judged_options(model, pairs, tmp_path, name) | options)


# --- what is measured --------------------------------------------------------------------------------------------------------------------


def test_nothing_has_moved_at_the_start(model: str, pairs: str, judge: Path) -> None:
    one = sampling("online-dpo", model, evaluation_prompts=4)
    found = one.evaluate(8)
    assert found["validation_kl"] == 0.0
    both = built("dpo", model).evaluate(8)
    assert both["validation_margin"] == both["validation_chosen_log_ratio"] == both["validation_rejected_log_ratio"] == 0.0
    assert both["validation_preference_accuracy"] == 0.0, "a tie is not ranked"


def test_displacement_and_kl_are_those_of_the_models(model: str) -> None:
    one = built("dpo", model, learning_rate=1e-2, minibatches=4)
    one.turn()
    found = one.evaluate(4)
    rows = one.context.setup.task.held_out(4)
    policy, start = one.context.models["policy"].network, one.context.models["reference"].network
    for column in ("chosen", "rejected"):
        total = 0.0
        for prompt in rows:
            tokenizer = policy.tokenizer
            asked, said = tokenizer(prompt.content)["input_ids"], [*tokenizer(prompt.columns[column])["input_ids"], tokenizer.eos_token_id]
            action = torch.tensor([asked + said])
            mask = torch.arange(action.shape[1])[None] >= len(asked)
            with torch.no_grad():
                now, base = (each.score(action, torch.ones_like(mask), mask).logp.sum() for each in (policy, start))
            total += float(now - base)
        assert found[f"validation_{column}_log_ratio"] == pytest.approx(total / len(rows), abs=1e-4)


def test_measuring_changes_no_training(model: str) -> None:
    plain, watched = (sampling("online-dpo", model, evaluation_prompts=4) for _ in range(2))
    watched.evaluate(4)
    assert plain.turn() == watched.turn()


# --- bad input ---------------------------------------------------------------------------------------------------------------------------


def test_a_reference_of_its_own_and_one_with_other_tokens(model: str, pairs: str, tmp_path: Path) -> None:
    other = LanguagePolicy.load(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    task = annotated("dpo")
    one = build_method(settings("dpo", model, reference=str(tmp_path / "other")), task)
    assert torch.equal(weights(one.context.models["reference"].network._copy), weights(other))
    batch = credited(one)
    with torch.no_grad():
        expected = other.score(batch.rows.action, batch.rows.attention, batch.rows.mask).logp
    torch.testing.assert_close(batch.rows.reference_logp, expected, atol=1e-5, rtol=0)
    tokenizer = character_tokenizer()
    tokenizer.add_tokens(["<more>"])
    foreign = save(tmp_path / "foreign", tokenizer=tokenizer)
    for sentence, method, options in (
        ("has other tokens than the model that is trained", "dpo", {"reference": foreign}),
        ("reward-model measures nothing to a reference model with these options", "reward-model", {"reference": model}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            build_method(settings(method, model, **options), annotated(method))


def test_what_a_run_on_preferences_refuses(model: str, pairs: str, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    long.write_text("".join(json.dumps(row | {"chosen": row["chosen"] * (1 + 9 * (n == 3))}) + "\n" for n, row in enumerate(sums())))
    scored = str(tmp_path / "scored.jsonl")
    Path(scored).write_text("".join(json.dumps({"prompt": f"{n}=", "completion": "1", "score": n}) + "\n" for n in range(40)))
    base: dict[str, Any] = OPTIONS | {"model": model, "progress": False, "directory": tmp_path / "run"}
    for sentence, method, options in (
        ("A file of preferences holds the prompts too: leave --prompts out", "dpo", {"preferences": pairs, "prompts": str(long)}),
        ("grpo does not learn from preferences: leave --preferences out", "grpo", {"preferences": pairs}),
        ("unusable is about rows of preferences, and there are none", "dpo", {"prompts": pairs, "unusable": "drop"}),
        ("1 of 100 rows of .* have an answer of more than 8 tokens, the first of them Line 4", "dpo", {"preferences": str(long)}),
        ("margins asks every pair for its margin, and none has one", "reward-model", {"preferences": pairs, "margins": True}),
        ("Softmax weights need all answers of a prompt in one batch", "rwr", {"preferences": pairs, "data": "file", "weights": "softmax"}),
        ("A reward model samples nothing: leave the temperature alone", "reward-model", {"preferences": pairs, "temperature": 0.5}),
        ("leave group_size and ties alone", "pairwise-policy-gradient", {"prompts": pairs, "group_size": 4}),
        ("Several gradient steps on a batch need a clip", "pairwise-policy-gradient", {"prompts": pairs, "clip": "none", "epochs": 2}),
        ("rwr learns from answers of its own here, which the file cannot grade: name a reward", "rwr", {"preferences": scored}),
        ("online-dpo learns from answers of its own here", "online-dpo", {"preferences": pairs}),
        ("has no judged answer: give a file of preferences with the columns prompt, completion and label", "kto", {"prompts": pairs}),
        ("preferences is not for control methods", "ppo", {"preferences": pairs, "task": "CartPole-v1"}),
    ):
        values = {name: value for name, value in base.items() if method != "ppo" or name in ("progress", "directory", "steps", "threads")}
        with pytest.raises(RheostatError, match=sentence) as error:
            rheostat.train(method, **values | options)
        assert "\n" not in str(error.value)


def test_the_dial_turns_where_a_method_of_files_samples(model: str, tmp_path: Path) -> None:
    words = f"train dpo chain-sum --data sampled --dial.refresh-every 0 --model {model} --directory {tmp_path / 'run'}".split()
    command = parse(words)
    assert command.dial__refresh_every == 0 and command.data__kind == "sampled"
    with pytest.raises(RheostatError, match=r"dpo cannot honour dial\.refresh_every: nothing is sampled"):
        parse([word for word in words if word not in ("--data", "sampled")])


def test_from_the_command_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [*sums(), sums()[0] | {"rejected": sums()[0]["chosen"]}, {"prompt": "7+7=", "chosen": sums()[0]["rejected"], "rejected": "4"}]
    rows.append(rows[-1] | {"chosen": "4", "rejected": rows[-1]["chosen"]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = f"train dpo --preferences {path} --unusable drop --model {model} --pairs-per-batch 8 --max-new-tokens 8 --steps 2 --threads 1"
    parse([*words.split(), "--evaluate-every", "0", "--evaluation-episodes", "4", "--directory", str(tmp_path / "run")]).run()
    said = capsys.readouterr()
    assert "1 pairs of equal answers left out of" in said.err and "2 pairs of" in said.err and "contradict another one" in said.err
    assert "held-out pairs" in said.out
    assert Run.load(tmp_path / "run").settings.preferences == str(path)
    with pytest.raises(RheostatError, match="dpo learned from annotated answers here and has no reward that grades samples"):
        parse(["evaluate", str(tmp_path / "run")]).run()
