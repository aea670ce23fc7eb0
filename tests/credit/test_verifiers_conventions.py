"""TRL's and verl's reward functions as their users write them, unchanged."""

from __future__ import annotations

import asyncio
import functools
import threading

import numpy as np
import pytest
import torch

from rheostat.credit.verifiers import FunctionVerifier, Grade, Progress, Rollout, Scores
from rheostat.credit.verifiers.conventions import detect_convention, verl_arguments
from rheostat.errors import RheostatError

CHAT = [{"role": "user", "content": "1+1?"}]


def rollouts(*completions: str, answer: str | None = "2", prompt: str | list[dict[str, str]] = "1+1=", **columns: object) -> list[Rollout]:
    return [Rollout(prompt, text, [7, 8], answer, columns) for text in completions]


def score(function: object, rows: list[Rollout], **options: object) -> Scores:
    return FunctionVerifier(function, **options).score(rows)  # type: ignore[arg-type]


# --- TRL ---------------------------------------------------------------------------------------------------------------------------------


def test_trl_function_gets_lists_and_every_column():
    seen = {}

    def reward(prompts, completions, completion_ids, level, **kwargs):
        seen.update(prompts=prompts, ids=completion_ids, level=level, others=sorted(kwargs))
        return [float(len(text)) for text in completions]

    scores = score(reward, rollouts("a", "bb", level=3))
    assert scores.reward.tolist() == [1.0, 2.0] and scores.valid.all()
    assert seen == {
        "prompts": ["1+1=", "1+1="],
        "ids": [[7, 8], [7, 8]],
        "level": [3, 3],
        "others": ["answer", "log_extra", "log_metric", "raw_completions", "trainer_state"],
    }


def test_trl_function_without_kwargs_gets_only_what_it_takes():
    assert score(
        lambda completions, answer: [float(c == a) for c, a in zip(completions, answer, strict=True)], rollouts("2", "3")
    ).reward.tolist() == [
        1.0,
        0.0,
    ]


def test_trl_function_of_kwargs_alone():
    assert score(lambda **kwargs: [1.0] * len(kwargs["completions"]), rollouts("a", "b")).reward.tolist() == [1.0, 1.0]


def test_trl_chat_completions_are_message_lists():
    def reward(completions, **kwargs):
        return [1.0 if completion[0]["content"] == "2" and completion[0]["role"] == "assistant" else 0.0 for completion in completions]

    assert score(reward, rollouts("2", "3", prompt=CHAT)).reward.tolist() == [1.0, 0.0]


def test_trl_none_abstains_and_nan_fails():
    scores = score(lambda completions, **kw: [None, float("nan"), 1], rollouts("a", "b", "c"))
    assert scores.abstained.tolist() == [True, False, False]
    assert scores.failed.tolist() == [False, True, False]
    assert scores.reward[2] == 1.0


def test_trl_logging_and_trainer_state():
    def reward(completions, trainer_state, log_extra, log_metric, **kwargs):
        log_extra("length", [len(text) for text in completions])
        log_metric("share", 0.25)
        return [float(trainer_state.global_step)] * len(completions)

    scores = FunctionVerifier(reward).score(rollouts("a", "bb"), Progress(step=12, total_steps=100))
    assert scores.reward.tolist() == [12.0, 12.0]
    assert scores.notes == {"length": ["1", "2"]} and scores.metrics == {"share": 0.25}


@pytest.mark.parametrize("value", [np.array([0.5, 1.0]), torch.tensor([0.5, 1.0]), (np.float32(0.5), torch.tensor(1.0)), [0.5, True]])
def test_trl_rewards_may_be_arrays_tensors_or_any_numbers(value):
    assert score(lambda completions: value, rollouts("a", "b")).reward.tolist() == [0.5, 1.0]


def test_trl_async():
    async def reward(completions, **kwargs):
        await asyncio.sleep(0)
        return [1.0 for _ in completions]

    assert score(reward, rollouts("a", "b")).reward.tolist() == [1.0, 1.0]


def test_async_functions_work_where_a_loop_is_already_running():
    async def reward(completions, **kwargs):
        await asyncio.sleep(0)
        return [1.0 for _ in completions]

    async def notebook():
        return score(reward, rollouts("a"))

    assert asyncio.run(notebook()).valid.all()


def test_one_odd_completion_does_not_spoil_the_batch():
    def reward(completions, **kwargs):
        return [float(text) for text in completions]

    scores = score(reward, rollouts("1", "x", "3"))
    assert scores.valid.tolist() == [True, False, True]
    assert "ValueError" in scores.messages[1] and "test_verifiers_conventions.py" in scores.messages[1]
    assert "graded by itself" in scores.messages[0]


def test_functions_that_compare_completions_fail_as_a_whole_when_told_so():
    def reward(completions, **kwargs):
        return [float(text) for text in completions]

    scores = score(reward, rollouts("1", "x"), alone=False)
    assert not scores.valid.any() and scores.failed.all()


# --- verl --------------------------------------------------------------------------------------------------------------------------------


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == ground_truth)


def test_verl_function():
    assert score(compute_score, rollouts("2", "3")).reward.tolist() == [1.0, 0.0]


def test_verl_dict_with_metrics():
    def compute(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
        return {"score": 0.5, "acc": True, "pred": solution_str, "none": None}

    scores = score(compute, rollouts("a", "b"))
    assert scores.reward.tolist() == [0.5, 0.5]
    assert scores.parts["acc"].tolist() == [1.0, 1.0] and set(scores.parts) == {"acc"}
    assert scores.notes == {"pred": ["a", "b"]}


def test_verl_batch():
    def compute(data_sources, solution_strs, ground_truths, extra_infos, **kwargs):
        assert data_sources == ["unknown", "unknown"]
        return [float(s == g) for s, g in zip(solution_strs, ground_truths, strict=True)]

    assert score(compute, rollouts("2", "3")).reward.tolist() == [1.0, 0.0]


def test_verl_async_runs_together_and_exceptions_stay_with_their_row():
    started = []
    both = threading.Event()

    async def compute(solution_str, ground_truth):
        started.append(solution_str)
        while len(started) < 3:
            await asyncio.sleep(0.001)
        both.set()
        if solution_str == "bad":
            raise RuntimeError("judge is down")
        return 1.0

    scores = score(compute, rollouts("a", "bad", "c"))
    assert both.is_set() and scores.valid.tolist() == [True, False, True]
    assert "judge is down" in scores.messages[1]


def test_verl_exceptions_are_invalid_never_zero():
    def compute(solution_str, ground_truth):
        raise {"a": KeyError("k"), "b": SystemExit(3), "c": RecursionError()}[solution_str]

    scores = score(compute, rollouts("a", "b", "c"))
    assert scores.failed.all() and scores.reward.isnan().all()
    assert "KeyError: 'k'" in scores.messages[0] and "SystemExit" in scores.messages[1]


def test_verl_columns_of_its_own_data_files():
    columns = {
        "data_source": "gsm8k",
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "72"},
        "extra_info": {"index": 4},
    }
    assert verl_arguments(Rollout("p", "c", (), None, columns)) == {
        "data_source": "gsm8k",
        "solution_str": "c",
        "ground_truth": "72",
        "extra_info": {"index": 4},
    }


def test_verl_columns_of_other_data():
    got = verl_arguments(Rollout("p", "c", (), "5", {"level": 3, "answer": "5"}))
    assert got["ground_truth"] == "5" and got["extra_info"] == {"level": 3, "answer": "5"}


# --- native ------------------------------------------------------------------------------------------------------------------------------


def test_native_functions_and_objects():
    class Judge:
        name = "judge"

        def score(self, rollouts, progress=None):
            return Scores.from_grades([Grade(float(len(rollout.completion)), {"x": 1.0}) for rollout in rollouts])

    assert score(lambda rollouts: [1, None, {"score": 2.0, "p": 3}], rollouts("a", "b", "c")).abstained.tolist() == [False, True, False]
    assert score(lambda rollout: Grade(np.float64(2.0), {"n": np.int64(3)}), rollouts("a")).parts["n"].tolist() == [3.0]
    judge = FunctionVerifier(Judge())
    assert judge.name == "judge"
    scores = judge.score(rollouts("aa"))
    assert scores.reward.tolist() == [2.0] and scores.parts["x"].tolist() == [1.0]
    assert FunctionVerifier(Judge).score(rollouts("a")).valid.all()


def test_partial_functions_and_callable_objects():
    class Callable:
        def __call__(self, completions, **kwargs):
            return [1.0] * len(completions)

    def scaled(completions, factor, **kwargs):
        return [factor] * len(completions)

    assert score(Callable(), rollouts("a")).reward.tolist() == [1.0]
    half = functools.partial(scaled, factor=0.5)
    assert FunctionVerifier(half).name == "scaled"
    assert score(half, rollouts("a")).reward.tolist() == [0.5]


def test_grading_is_repeatable():
    rows = rollouts("2", "x", "3")
    first, second = (
        score(lambda completions, answer: [float(a) - float(c) for c, a in zip(completions, answer, strict=True)], rows) for _ in "ab"
    )
    assert torch.equal(first.reward.nan_to_num(9), second.reward.nan_to_num(9)) and first.messages == second.messages


# --- bad input ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [lambda x: x, lambda a, b: 1, lambda: 1, lambda prompt, completion: 1])
def test_no_known_signature(function):
    with pytest.raises(RheostatError, match=r"TRL's functions take completions.*verl's take solution_str"):
        detect_convention(function, "score")


def test_not_a_function():
    with pytest.raises(RheostatError, match="is a int, not a function"):
        FunctionVerifier(5, "five")  # type: ignore[arg-type]


def test_a_class_that_needs_arguments():
    class Judge:
        def __init__(self, model):
            self.model = model

    with pytest.raises(RheostatError, match="class that needs arguments"):
        FunctionVerifier(Judge)


def test_a_column_that_is_not_there():
    with pytest.raises(RheostatError, match=r"asks for 'solution', which the prompts do not have \(their columns: level\)"):
        score(lambda completions, solution, **kw: [0.0], rollouts("a", level=1))


@pytest.mark.parametrize(("value", "message"), [([1.0], "returned 1 rewards for 2 completions"), (0.5, "a list of 2; it returned a float")])
def test_wrong_return_length(value, message):
    with pytest.raises(RheostatError, match=message):
        score(lambda completions: value, rollouts("a", "b"))


def test_scores_of_the_wrong_length():
    with pytest.raises(RheostatError, match="returned 1 rewards for 2"):
        score(lambda rollouts: Scores.from_grades([Grade(1.0)]), rollouts("a", "b"))


def test_dict_without_score():
    with pytest.raises(RheostatError, match="keys reward, acc for row 0: it must have the key 'score'"):
        score(lambda solution_str: {"reward": 1, "acc": 2}, rollouts("a"))


@pytest.mark.parametrize("value", ["good", "1.0", [1.0, 2.0], {"score": "high"}])
def test_what_is_no_number_is_invalid(value):
    scores = score(lambda solution_str: value, rollouts("a"))
    assert scores.failed.all() and "not a number" in scores.messages[0]


def test_logging_the_wrong_number_of_values_fails_the_rows_not_the_run():
    def reward(completions, log_extra, **kwargs):
        log_extra("x", [1, 2, 3, 4, 5])
        return [1.0] * len(completions)

    assert score(reward, rollouts("a", "b")).failed.all()
