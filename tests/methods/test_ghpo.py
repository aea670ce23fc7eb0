"""GHPO: who gets hints, what is learned from, and the log-probabilities of what was sampled last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from rheostat.collect.language.hints import Hint, Unit, prefix, resample_with_hints
from rheostat.credit.verifiers import Grade, Scores
from rheostat.errors import RheostatError
from rheostat.tasks.language import ChainSum, FilePrompts, character_tokenizer
from rheostat.tasks.language.encoding import PromptEncoder
from rheostat.tasks.language.task_interface import Prompt
from rheostat.training.run import Interrupted, Run
from rheostat.trajectories import Source
from tests.crash import differences
from tests.learners import credited
from tests.methods.test_language_methods import built, save, small
from tests.training.test_run import StopAfter

OPTIONS: dict[str, Any] = {"hint_after": 0, "hint_place": "answer", "max_new_tokens": 12}


class NeedsHalf:
    """Right is what begins with half of the solution; the format counts a half for an odd number of characters."""

    name = "half"

    def score(self, rollouts: Sequence[Any], progress: Any = None) -> Scores:
        grades = []
        for rollout in rollouts:
            solution = str(rollout.columns["solution"])
            right = float(rollout.completion.startswith(solution[: round(len(solution) / 2)]))
            neat = float(sum(map(ord, rollout.completion)) % 2)
            grades.append(Grade(right + 0.5 * neat, {"accuracy": right, "format": neat}))
        return Scores.from_grades(grades)


class Hard(ChainSum):
    """Nobody is right without half of the solution."""

    def verifier(self) -> Any:
        return NeedsHalf()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def hard(model: str, **options: Any) -> Any:
    return built("ghpo", model, Hard(), **(OPTIONS | {"accuracy_part": "accuracy"} | options))


# --- hints -------------------------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=40), st.lists(st.floats(0.01, 1), min_size=2, max_size=4))
def test_hints_grow_and_never_outgrow_the_solution(solution: str, fractions: list[float]) -> None:
    hints = [prefix(solution, fraction) for fraction in sorted(fractions)]
    assert all(solution.startswith(hint) for hint in hints) and all(len(a) <= len(b) for a, b in pairwise(hints))
    assert prefix(solution, 1.0) == solution and prefix(list(range(5)), 0.5) == [0, 1]  # 2.5: half to even


def test_a_hint_is_a_part_of_a_solution() -> None:
    with pytest.raises(RheostatError, match=r"A hint of 1.2 of the solution is longer than the solution: give fractions above 0"):
        prefix("abc", 1.2)
    with pytest.raises(RheostatError, match="A hint of 0 of the solution is nothing"):
        prefix("abc", 0.0)


def test_where_a_hint_stands() -> None:
    tokenizer = character_tokenizer()
    encoder = PromptEncoder(tokenizer, 5)  # a limit for prompts, not for prompts with hints
    prompt = Prompt("3+4=", "7", {"level": 1})
    opened = Hint(place="answer").apply(encoder, prompt, "3+4=7;#7", 0.5)
    assert (opened.prompt.content, opened.answer_prefix) == ("3+4=3+4=", "3+4=") and opened.ids == tokenizer("3+4=3+4=")["input_ids"]
    asked = Hint(place="question", separator=";").apply(encoder, prompt, "3+4=7;#7", 0.25)
    assert (asked.prompt.content, asked.answer_prefix) == ("3+4=;3+", "") and asked.ids == tokenizer("3+4=;3+")["input_ids"]
    assert {found.prompt.key for found in (opened, asked)} == {prompt.key} and asked.prompt.answer == "7"
    by_characters = Hint("characters", "answer").apply(encoder, prompt, "3+4=7;#7", 0.75)
    assert by_characters.answer_prefix == "3+4=7;"
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0, "12": 1, "+": 2, "345": 3}, "?")), unk_token="?")
    words.backend_tokenizer.pre_tokenizer = Whitespace()
    by_unit = [
        Hint(unit, "answer").apply(PromptEncoder(words, 5), Prompt("12+"), "12 + 345", 0.34).answer_prefix for unit in get_args(Unit)
    ]
    assert by_unit == ["12", "12 "]  # one of three words, three of eight characters
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }};{% endfor %}"
    chat = Prompt([{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "#2"}, {"role": "user", "content": "2+2="}])
    shown = Hint(separator="?").apply(encoder, chat, "#4", 0.5).prompt.content
    assert [message["content"] for message in shown] == ["1+1=", "#2", "2+2=?#"]  # type: ignore[index]
    assert Hint(place="answer").apply(encoder, chat, "#4", 0.5).prompt.content[-1] == {"role": "assistant", "content": "#"}


# --- who gets them -----------------------------------------------------------------------------------------------------------------------


def test_only_groups_without_a_success_are_sampled_again() -> None:
    first = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, float("nan")], [-1.0, 0.0]])
    asked: list[tuple[int, list[int]]] = []

    def attempt(stage: int, failing: list[int]) -> tuple[list[int], torch.Tensor]:
        asked.append((stage, failing))
        tried = failing[:1] if stage == 1 else failing  # a hint that does not fit is not given
        return tried, torch.tensor([[float(stage == 2 and index == 3), 0.0] for index in tried])

    found = resample_with_hints(first, attempt, 3)
    assert asked == [(1, [0, 3]), (2, [0, 3]), (3, [0])]
    assert found.stage.tolist() == [3, 0, 0, 2] and found.generations.tolist() == [4, 1, 1, 2]
    assert found.accuracy[3].tolist() == [1.0, 0.0] and found.accuracy[2].isnan().any() and first[3].tolist() == [-1.0, 0.0]


def test_failing_groups_get_hints_until_somebody_is_right(model: str) -> None:
    one = hard(model)
    metrics = one.turn()
    batch = one.context.graded.trajectories
    assert bool((batch.source == int(Source.HINTED)).all())
    assert metrics["all_wrong_share"] == metrics["hinted_share"] == metrics["rescued_share"] == 1.0
    assert metrics["hint_stage"] == 2 and metrics["groups_per_prompt"] == 3 and metrics["hint_too_long"] == 0
    assert metrics["reward"] > 0.9 > metrics["reward_plain"] and metrics["reward_calls"] == 3 * 16
    assert metrics["generated_tokens"] > batch.count()  # what was discarded is paid for
    assert batch.group[:, 0].tolist() == [number for number in range(4) for _ in range(4)]


def test_difficulty_is_accuracy_and_never_format(model: str) -> None:
    """Judged by the whole reward, a neat and wrong member keeps its group plain."""
    neat, right = (hard(model, accuracy_part=part) for part in ("", "accuracy"))
    assert neat.turn()["hinted_share"] < right.turn()["hinted_share"] == 1.0
    with pytest.raises(RheostatError, match="Unknown part of the reward 'acuracy': did you mean accuracy"):
        hard(model, accuracy_part="acuracy").collect()


def test_the_cold_start_has_no_hints(model: str) -> None:
    one = hard(model, hint_after=1, steps=3)
    assert "hinted_share" not in one.turn() and one.turn()["hinted_share"] == 1.0


def test_plain_groups_stay_as_they_were(model: str) -> None:
    """What is right at once is the batch of plain GRPO, to the bit."""
    ghpo, grpo = (built(method, model, max_new_tokens=12, **more) for method, more in (("ghpo", {"hint_place": "answer"}), ("grpo", {})))
    hinted, plain = ghpo.collect().rows, grpo.collect().rows
    kept = hinted.source[:, 0] == int(Source.FRESH)
    assert bool(kept.any())
    for name in ("action", "sampler_logp", "reward", "mask"):
        a, b = (getattr(batch, name)[kept][batch.mask[kept]] for batch in (hinted, plain))
        assert torch.equal(a, b), name


# --- what is learned ----------------------------------------------------------------------------------------------------------------------


def test_hint_tokens_are_never_learned_from(model: str) -> None:
    one = hard(model)
    found = credited(one)
    batch, graded = found.rows, found.facts["graded"]
    for row, prompt, text in zip(range(len(batch)), graded.prompts, graded.completions, strict=True):
        solution = str(prompt.columns["solution"])
        hint = prefix(solution, 0.5)
        seen = one.policy.tokenizer.decode(batch.action[row][batch.attention[row] & ~batch.mask[row]].tolist())
        assert seen == prompt.content and prompt.content.endswith("=" + hint)
        assert one.policy.tokenizer.decode(batch.action[row][batch.mask[row]].tolist(), skip_special_tokens=True) == text
    assert not batch.advantage[~batch.mask].any()


@pytest.mark.parametrize("options", [{"epochs": 2}, {"minibatches": 2}, {"kl_coefficient": 0.1}])
def test_log_probabilities_are_of_the_prompt_that_was_used(model: str, options: dict[str, Any]) -> None:
    """With several steps or a KL the released code scores the tokens sampled first. Nothing has moved yet, so all must agree here."""
    one = hard(model, **options)
    found = credited(one)
    batch = found.rows
    kept = batch.mask
    known = batch.reference_logp if "kl_coefficient" in options else batch.learner_logp
    torch.testing.assert_close(known[kept], batch.sampler_logp[kept], atol=1e-5, rtol=0)
    metrics = one.improve(found)
    assert metrics["gradient_steps"] == (1 if "kl_coefficient" in options else 2)
    if "kl_coefficient" in options:
        assert abs(metrics["kl_reference"]) < 1e-6


def test_advantages_are_of_the_group_that_was_kept(model: str) -> None:
    batch = credited(hard(model)).rows
    reward = batch.reward.sum(1).view(4, 4)
    expected = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-4)
    torch.testing.assert_close(batch.advantage.amax(1) + batch.advantage.amin(1), expected.flatten())


def test_a_hint_that_does_not_fit_is_not_given(model: str) -> None:
    task = FilePrompts([{"prompt": "1+1=", "answer": "2", "solution": "1" * 120}], "exact", validation_share=0.0)
    one = built("ghpo", model, task, **(OPTIONS | {"hint_column": "solution", "hints": (0.5, 1.0)}))
    metrics = one.turn()  # 128 positions, 12 new tokens: 4 + 60 fit, 4 + 120 do not
    assert metrics["hint_too_long"] == 4 and metrics["hint_stage"] == 1 and metrics["groups_per_prompt"] == 2


def test_stopping_between_hinted_batches_changes_nothing(model: str, tmp_path: Path) -> None:
    options = OPTIONS | {"accuracy_part": "accuracy", "steps": 3, "kl_coefficient": 0.1, "minibatches": 2}
    whole = Run.create(tmp_path / "whole", small("ghpo", model, Hard(), **options), task=Hard()).train()
    assert all(row["hinted_share"] == 1.0 for row in whole.metrics)
    halted = Run.create(tmp_path / "halted", small("ghpo", model, Hard(), **options), task=Hard())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    Run.load(tmp_path / "halted", task=Hard()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_ghpo_refuses_what_makes_no_sense(model: str) -> None:
    for sentence, options in (
        (r"hints\.fractions is 1.5; it must be above 0 and at most 1", {"hints": (0.5, 1.5)}),
        (r"hints are \(0.5, 0.25\): at least one fraction, the shortest first", {"hints": (0.5, 0.25)}),
        ("at least one fraction", {"hints": ()}),
        (r"hints\.after is -1; it must be at least 0", {"hint_after": -1}),
        ("Hints begin after 20 updates, but the run makes 2: lower hint_after", {"hint_after": 20}),
        ("ghpo cannot honour dial.expert_share: a whole solution", {"dial.expert_share": 0.5}),
        ("The prompt with key .* has no solution as text in its column 'proof'", {"hint_column": "proof"}),
    ):
        with pytest.raises(RheostatError, match=sentence) as error:
            hard(model, **options).collect()
        assert "\n" not in str(error.value)
