"""The grammars of the data sets whose graders evaluate: every true answer passes, and what earns marks by other means does not."""

from __future__ import annotations

import contextlib
import time

import pytest

from rheostat.errors import RheostatError
from rheostat.tasks.language import ReasoningGym
from rheostat.tasks.language.reasoning import ReasoningGrader, make_dataset
from rheostat.tasks.language.reasoning_grammars import GRAMMARS, grammar_of

SLOW = ("n_queens", "intermediate_integration", "countdown", "puzzle24", "polynomial_multiplication")
reasoning_gym = pytest.importorskip("reasoning_gym")


def answers(name: str, level: int | None, seeds: int, size: int) -> list[str]:
    options = {} if level is None else ReasoningGym(name, level=level)._options
    found = []
    for seed in range(seeds):
        dataset = make_dataset(name, options, 1000 * seed, size)
        for index in range(size):
            with contextlib.suppress(ValueError):  # countdown gives up on some seeds
                found.append(str(dataset[index]["answer"]))
    return found


@pytest.mark.parametrize("name", GRAMMARS)
def test_true_answers_are_admitted(name):
    """Integrals that sympy leaves unsolved are no answers; everything else passes, at the easiest and the hardest level too."""
    grammar = GRAMMARS[name]
    slow = name in SLOW
    highest = ReasoningGym(name).highest_level()
    seen, elapsed = 0, 0.0
    for level in dict.fromkeys((None, 0, highest)):
        for answer in answers(name, level, 2 if slow else 6, 3 if slow else 10):
            began = time.perf_counter()
            objection = grammar.objection(answer)
            elapsed += time.perf_counter() - began
            seen += 1
            assert objection is None or "Integral" in answer, (answer, objection)
    assert elapsed / seen < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAMMARS)
def test_true_answers_of_many_seeds_are_admitted(name):
    for level in range((ReasoningGym(name).highest_level() or 0) + 1):
        for answer in answers(name, level, 4, 10 if name in SLOW else 50):
            assert GRAMMARS[name].objection(answer) is None or "Integral" in answer


def test_exactly_the_data_sets_with_a_grammar_evaluate_what_is_written():
    found = set()
    for name, (cls, *_) in reasoning_gym.factory.DATASETS.items():
        try:
            grammar_of(f"unknown:{name}", cls)
        except RheostatError:
            found.add(name)
    assert found == set(GRAMMARS)


def test_an_evaluating_data_set_without_a_grammar_is_refused(monkeypatch):
    monkeypatch.delitem(GRAMMARS, "spiral_matrix")
    with pytest.raises(RheostatError, match=r"spiral_matrix runs what the model writes \(eval\)"):
        ReasoningGym("spiral_matrix")


def test_copying_the_question_into_an_integral_earns_nothing():
    task = ReasoningGym("simple_integration")
    prompt = task.prompts().take(1)[0]
    entry = prompt.columns["entry"]
    copied = f"Integral({entry['metadata']['integrand']}, {entry['metadata']['variable']})"
    dataset = make_dataset("simple_integration", {}, 0, 1)
    assert dataset.score_answer(copied, entry) == 1.0  # what the grammar is for
    grade = ReasoningGrader("simple_integration", {}, "whole", False)(prompt.rollout(copied))
    assert grade.reward == 0.0 and grade.notes["refused"]


def test_prompts_whose_reference_is_unsolved_are_left_out():
    task = ReasoningGym("intermediate_integration")
    raw = make_dataset("intermediate_integration", {}, 0, 64)
    assert any("Integral" in entry["answer"] for entry in raw)
    assert not any("Integral" in str(prompt.answer) for prompt in task.prompts().take(40))


def test_code_in_an_answer_is_wrong_and_does_not_run(tmp_path):
    drop = tmp_path / "written"
    task = ReasoningGym("spiral_matrix")
    prompt = task.prompts().take(1)[0]
    verifier = task.verifier()
    hostile = f"[__import__('pathlib').Path({str(drop)!r}).write_text('x')]"
    right = str(prompt.answer)
    scores = verifier.score([prompt.rollout(text) for text in (hostile, right, f"[{right.replace(' ', ', ')}]", "no list")])
    verifier.close()  # type: ignore[attr-defined]
    assert scores.reward.tolist() == [0.0, 1.0, 0.0, 0.0] and scores.valid.all()
    assert scores.parts["mark"][2] == pytest.approx(0.1)  # a list earns partial marks, as in the library
    assert not drop.exists() and scores.notes["refused"][0]
