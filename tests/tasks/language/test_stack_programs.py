"""Stack programs: the machine, the formulas, and mathematics and code side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.language.stack_programs import MathAndCode, StackError, StackPrograms, compiled, evaluate, execute
from rheostat.tasks.language.task_interface import Prompt
from rheostat.tasks.language.task_list import knobs_of, language_task

FORMULAS = st.lists(st.tuples(st.sampled_from("+-*"), st.sampled_from("0123456789?")), max_size=8).flatmap(
    lambda rest: st.sampled_from("0123456789?").map(lambda first: first + "".join(sign + value for sign, value in rest))
)


@given(FORMULAS, st.integers(0, 9))
def test_a_formula_means_what_python_says(formula: str, value: int) -> None:
    said = eval(formula.replace("?", str(value))) % 10  # of digits and signs that this test has made
    assert evaluate(formula, value) == execute(compiled(formula), value) == said
    assert len(compiled(formula)) == len(formula)


@given(st.text("0123456789?+-*x ", max_size=20), st.integers(0, 9))
def test_any_text_runs_or_is_refused(program: str, value: int) -> None:
    fits = all(symbol in "0123456789?+-*" for symbol in program)
    depth = 0
    for symbol in program:
        depth += -1 if symbol in "+-*" else 1
        fits &= depth >= 1
    if fits and depth == 1:
        assert 0 <= execute(program, value) < 10
    else:
        with pytest.raises(StackError):
            execute(program, value)


def test_what_is_no_program_says_why() -> None:
    for program, why in (
        ("", "0 values are left"), ("12", "2 values are left"), ("1+", "fewer than two"), ("1a", "no instruction"), ("²", "no instruction"),
        ("1" * 65, "longer than 64"), ("__import__('os')", "no instruction"),
    ):  # fmt: skip
        with pytest.raises(StackError, match=why):
            execute(program, 3)


def test_every_test_must_pass_and_other_programs_are_right_too() -> None:
    task = StackPrograms()
    prompt = task.prompt("?*3+4*?")
    assert prompt.answer == "?3*4?*+" and len({test["inputs"][0] for test in prompt.columns["tests"]}) == 5
    texts = ["?3*4?*+", "?4*?3*+", "?7*", "?3*4?*-", "0", "?", "x", ""]
    scores = task.verifier().score([prompt.rollout(text) for text in texts])
    assert scores.reward.tolist() == [1, 1, 1, 0, 0, 0, 0, 0] and scores.valid.all()
    assert 0 < scores.parts["passed"][4] < 1 and scores.notes["error"][6] == "a character that is no instruction"
    untested = Prompt(prompt.content, prompt.answer)
    assert not task.verifier().score([untested.rollout("?7*")]).valid.any()


def test_prompts_are_of_one_side_and_the_expert_is_right() -> None:
    task = StackPrograms(2, 3)
    rng = np.random.default_rng(0)
    train, held = task.prompts("train", 1).take(300), task.validation(100)
    assert not {prompt.key for prompt in train} & {prompt.key for prompt in held}
    assert {prompt.columns["operations"] for prompt in train} == {2, 3} and all("?" in prompt.content for prompt in train)
    right = task.verifier().score([prompt.rollout(task.expert(prompt, rng)) for prompt in train]).reward
    assert bool((right == 1).all())
    slips = task.verifier().score([prompt.rollout(task.expert(prompt, rng, "steps", 1.0)) for prompt in train]).reward.mean()
    assert slips < 0.3
    for prompt in train[:5]:
        assert task.locate(Prompt(prompt.content)) == ("train", prompt)
    for text in ("?+1", "?+:", "1+2+3:", "?+1:", "?+1+2+3+4:", "?/2:", "3+4="):
        assert task.locate(Prompt(text)) is None
    assert [prompt.content for prompt in task.prompts("train", 1).take(5)] == [prompt.content for prompt in train[:5]]


def test_both_sides_are_measured_whatever_is_learned() -> None:
    for learn, kinds in (("math", {"math"}), ("code", {"code"}), ("both", {"math", "code"})):
        task = MathAndCode(learn=learn)  # type: ignore[arg-type]
        assert {task.family(prompt) for prompt in task.prompts("train", 0).take(40)} == kinds
        assert [task.family(prompt) for prompt in task.validation(40)] == ["math", "code"] * 20
    prompts = task.validation(4)
    texts = [f"#{prompt.answer}" if task.family(prompt) == "math" else str(prompt.answer) for prompt in prompts]
    assert task.verifier().score([prompt.rollout(text) for prompt, text in zip(prompts, texts, strict=True)]).reward.tolist() == [1] * 4
    found = task.metrics(prompts, [texts[0], "0", "", texts[3]])
    torch.testing.assert_close(found["math"], torch.tensor([1.0, torch.nan, 0.0, torch.nan]), equal_nan=True)
    torch.testing.assert_close(found["code"], torch.tensor([torch.nan, 0.0, torch.nan, 1.0]), equal_nan=True)
    assert set(task.metrics(prompts[:1], texts[:1])) == {"math"}


def test_knobs_that_make_no_task() -> None:
    assert knobs_of("math-and-code") == ["learn", "max_terms", "max_operations", "validation_share"]
    for name, knobs, why in (
        ("stack-programs", {"min_operations": 0}, "1 <= min_operations"), ("stack-programs", {"max_operations": 13}, "<= 12"),
        ("stack-programs", {"validation_share": 1.0}, "validation_share"), ("math-and-code", {"learn": "maths"}, "math, code or both"),
        ("math-and-code", {"max_terms": 99}, "max_terms"), ("math-and-code", {"max_operations": 0}, "min_operations"),
    ):  # fmt: skip
        with pytest.raises(RheostatError, match=why):
            language_task(name, **knobs)
