"""The reasoning-gym adapter and what it guards against."""

from __future__ import annotations

import sys

import pytest

from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.language import LanguageTask, ReasoningGym, language_task
from rheostat.tasks.language.reasoning import COMPACT, ReasoningGrader, make_dataset

pytest.importorskip("reasoning_gym")


def grader(task: ReasoningGym, **options: object) -> ReasoningGrader:
    settings = {"extract": "tag-or-whole", "partial_credit": False} | options
    return ReasoningGrader(task.dataset, task._options, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["chain_sum", "gsm_symbolic", "list_functions", "spell_backward", "simple_equations", "syllogism"])
def test_true_answers_earn_full_marks(name):
    task = language_task(f"reasoning-gym:{name}")
    assert isinstance(task, ReasoningGym)
    grade = grader(task)
    for prompt in task.prompts().take(3):
        assert grade(prompt.rollout(str(prompt.answer))).reward == 1.0
        assert grade(prompt.rollout(f"<think>hm</think> <answer>{prompt.answer}</answer>")).reward == 1.0
        assert grade(prompt.rollout("certainly not this")).reward == 0.0


def test_neighbouring_seeds_share_little():
    task = language_task("reasoning-gym:chain_sum")
    first, second = ({prompt.key for prompt in task.prompts("train", seed).take(200)} for seed in (1, 2))
    assert len(first & second) < 10


def test_containing_the_answer_is_not_the_answer():
    task = ReasoningGym("chain_sum")
    prompt = task.prompts().take(1)[0]
    rollout = prompt.rollout(f"x {prompt.answer}")
    strict, lenient = grader(task)(rollout), grader(task, partial_credit=True)(rollout)
    assert strict.reward == 0.0 and 0 < strict.parts["mark"] < 1
    assert lenient.reward == strict.parts["mark"]


def test_an_unreadable_answer_is_wrong_and_a_broken_entry_invalid():
    task = ReasoningGym("prime_factorization")
    prompt = task.prompts().take(1)[0]
    grade = grader(task)(prompt.rollout("no idea"))
    assert grade.reward == 0.0 and "ValueError" in grade.notes["unreadable"]
    broken = type(prompt)(prompt.content, None, {"entry": {**prompt.columns["entry"], "answer": "nonsense"}})
    verifier = task.verifier()
    scores = verifier.score([broken.rollout("no idea"), prompt.rollout(str(prompt.answer))])
    assert scores.failed.tolist() == [True, False] and scores.reward[1] == 1.0
    verifier.close()  # type: ignore[attr-defined]


def test_an_answer_that_would_hang_the_grader_is_wrong():
    task = ReasoningGym("countdown", min_numbers=3, max_numbers=3, timeout=5.0)
    prompt = task.prompts().take(1)[0]
    verifier = task.verifier()
    scores = verifier.score([prompt.rollout(text) for text in (str(prompt.answer), "9**9**9**9**9", "1")])
    verifier.close()  # type: ignore[attr-defined]
    assert scores.valid.all() and scores.reward.tolist() == [1.0, 0.0, 0.0]


def test_curricula():
    easy, hard = ReasoningGym("chain_sum", level=0), ReasoningGym("chain_sum", level=6)
    mean = lambda task: sum(len(prompt.content) for prompt in task.prompts().take(50)) / 50  # noqa: E731
    assert mean(easy) < mean(hard)
    assert easy.highest_level() == 9
    one = ReasoningGym("chain_sum", level=0, levels={"num_terms": 5}, max_digits=1)
    assert one._options["max_terms"] == 7 and one._options["max_digits"] == 1


@pytest.mark.parametrize("name", COMPACT)
def test_compact_questions_keep_what_varies(name):
    options = {"format_style": "simple"} if name == "basic_arithmetic" else {}
    full, compact = ReasoningGym(name, **options), ReasoningGym(name, compact=True, **options)
    for prompt in compact.prompts("train", 3).take(20):
        question = prompt.columns["entry"]["question"]
        assert prompt.content in question and 0 < len(prompt.content) < len(question)
    varied = {prompt.content for prompt in compact.prompts().take(20)}
    assert len(varied) >= len({prompt.content for prompt in full.prompts().take(20)}) - 2


def test_patterns_and_system_prompts_of_ones_own():
    task = ReasoningGym("spell_backward", pattern=r": (\w+)$", system_prompt="Answer.")
    prompt = task.prompts().take(1)[0]
    assert prompt.content[0] == {"role": "system", "content": "Answer."} and prompt.content[1]["content"].isalpha()
    named = ReasoningGym("spell_backward", system_prompt="default").prompts().take(1)[0]
    assert "<answer>" in named.content[0]["content"]
    with pytest.raises(RheostatError, match="does not match the question"):
        ReasoningGym("spell_backward", pattern=r"(\d+)$").prompts().take(1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chain_smu", {}, "did you mean chain_sum"),
        ("composite", {}, "mixture"),
        ("chain_sum", {"terms": 3}, "refuses its options"),
        ("chain_sum", {"min_terms": 9, "max_terms": 3}, "refuses its options"),
        ("chain_sum", {"level": 99}, "levels 0 to"),
        ("chain_sum", {"levels": {"terms": 1}}, "did you mean num_terms"),
        ("chain_sum", {"level": 1, "terms": 3}, "do not fit together"),
        ("boxnet", {"compact": True}, "no compact form"),
        ("chain_sum", {"extract": "magic"}, "Unknown answer extractor"),
        ("chain_sum", {"validation_share": 1}, "validation_share"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(RheostatError, match=message):
        ReasoningGym(name, **options)


def test_a_data_set_without_a_curriculum():
    import reasoning_gym

    name = next(name for name in reasoning_gym.factory.DATASETS if not reasoning_gym.factory.has_curriculum(name) and name != "composite")
    with pytest.raises(RheostatError, match="has no curriculum"):
        ReasoningGym(name, level=1)
    assert ReasoningGym(name).highest_level() is None


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[reasoning\]'"):
        language_task("reasoning-gym:chain_sum")


def test_it_is_a_language_task():
    task = language_task("reasoning-gym:chain_sum", max_new_tokens=7)
    assert isinstance(task, LanguageTask) and task.limits.max_new_tokens == 7 and task.base is None
    assert make_dataset("chain_sum", {}, 0, 4)[0]["answer"]
