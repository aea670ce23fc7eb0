"""The world of chained sums: its arithmetic, its styles, its knobs and its verifier."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.credit.verifiers import Rollout
from rheostat.errors import RheostatError
from rheostat.tasks.language import ChainSum, final_answer, language_task, strategy
from rheostat.tasks.language.chain_sum import STYLES

worlds = st.builds(
    ChainSum,
    min_terms=st.integers(2, 4),
    max_terms=st.integers(4, 8),
    digits=st.sampled_from([1, 2]),
    modulus=st.sampled_from([10, 97, 2]),
    operations=st.sampled_from(["+", "+-", "*", "+-*"]),
    mixed=st.booleans(),
)


def test_the_example_of_the_proving_ground():
    world = ChainSum()
    prompt = world.problem([3, 7, 5], "++")
    assert (prompt.content, prompt.answer) == ("3+7+5=", "5")
    assert prompt.columns == {"terms": 3, "operations": "++", "solution": "3+7=0;0+5=5;#5"}
    rng = np.random.default_rng(0)
    assert [world.expert(prompt, rng, style) for style in STYLES] == ["#5", "3+7=0;0+5=5;#5", "0+5;5;#5"]


def test_two_digits_without_a_modulus():
    world = ChainSum(digits=2, modulus=None)
    assert world.demonstrate([37, 48, 15], "++") == "37+48=85;85+15=100;#100"
    assert ChainSum(modulus=None, operations="-").demonstrate([3, 7, 5], "--") == "3-7=-4;-4-5=-9;#-9"


def test_operations_have_no_precedence():
    assert ChainSum(operations="+*", mixed=True).demonstrate([3, 7, 5], "+*", "direct") == "#0"


@given(worlds, st.integers(0, 2**31), st.sampled_from(STYLES))
def test_every_demonstration_is_right_fits_and_is_recognised(world, seed, style):
    prompt = world.prompts("train", seed).take(1)[0]
    text = world.expert(prompt, np.random.default_rng(seed), style)
    numbers, operations, rest = world.parse(prompt.content)
    value = numbers[0]
    for sign, number in zip(operations, numbers[1:], strict=True):
        value = {"+": value + number, "-": value - number, "*": value * number}[sign] % world.modulus
    assert final_answer(text) == str(value) == prompt.answer and rest == ""
    assert world.min_terms <= len(numbers) <= world.max_terms
    assert strategy(text) == style
    assert len(prompt.content) <= world.limits.max_prompt_tokens
    assert len(text) + 1 <= world.limits.max_new_tokens
    assert world.verifier().score([prompt.rollout(text)]).reward.tolist() == [1.0]


def test_plain_integers_fit_the_limits_too():
    world = ChainSum(digits=2, modulus=None, operations="+-", mixed=True, max_terms=8)
    rng = np.random.default_rng(0)
    for prompt in world.prompts().take(2000):
        for style in STYLES:
            assert len(world.expert(prompt, rng, style)) + 1 <= world.limits.max_new_tokens


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#5", "direct"),
        ("3+7=0;0+5=5;#5", "steps"),
        ("3+7=9;9+5=1;#1", "steps"),
        ("0+5;5;#5", "rewrite"),
        ("-4+5;1;#1", "rewrite"),
        ("3+7=0;0+5=5;", "other"),
        ("3+7=0;#", "other"),
        ("5", "other"),
        ("", "other"),
        ("3+7=0;#5#5", "other"),
    ],
)
def test_strategies_are_told_apart_by_form(text, found):
    assert strategy(text) == found


@pytest.mark.parametrize(
    ("completion", "reward"), [("#5", 1), ("#5#6", 0), ("#6#5", 1), ("#05", 0), ("#5 ", 0), ("5", 0), ("", 0), ("3+7=0;0+5=5;#5;", 0)]
)
def test_the_verifier_compares_character_for_character(completion, reward):
    assert ChainSum().verifier().score([Rollout("3+7+5=", completion, answer="5")]).reward.tolist() == [float(reward)]


def test_the_verifier_shows_the_strategy_and_needs_an_answer():
    scores = ChainSum().verifier().score([Rollout("p", "3+2=5;#5", answer="5"), Rollout("p", "#5", answer="5"), Rollout("p", "#5")])
    assert scores.parts["step_by_step"][:2].tolist() == [1.0, 0.0]
    assert scores.failed.tolist() == [False, False, True]
    assert ChainSum().metrics([], ["3+2=5;#5", "#5", "2;2;#2"])["step_by_step"].tolist() == [1.0, 0.0, 1.0]


def test_slips_are_as_frequent_as_asked_and_go_on_from_the_wrong_result():
    world, rng = ChainSum(min_terms=6, max_terms=6), np.random.default_rng(0)
    slips = steps = 0
    for prompt in world.prompts().take(400):
        text = world.expert(prompt, rng, "steps", 0.2)
        lines = re.findall(r"(\d)\+(\d)=(\d);", text)
        assert len(lines) == 5 and final_answer(text) == lines[-1][2]
        assert all(before[2] == after[0] for before, after in itertools.pairwise(lines))
        slips += sum((int(a) + int(b)) % 10 != int(c) for a, b, c in lines)
        steps += len(lines)
    assert slips / steps == pytest.approx(0.2, abs=0.03)


def test_verification_questions():
    world, rng = ChainSum(), np.random.default_rng(0)
    prompt = world.problem([3, 7, 5], "++")
    right, wrong = world.verification(prompt, "3+7=0;0+5=5;#5"), world.verification(prompt, "#6")
    assert (right.content, right.answer) == ("3+7+5=3+7=0;0+5=5;#5?", "1")
    assert wrong.answer == "0" and wrong.columns["about"] == prompt.key and wrong.key != right.key
    assert world.expert(right, rng) == "#1" and world.expert(wrong, rng) == "#0"


def test_operation_weights():
    world = ChainSum(operations="+*", operation_weights=(3.0, 1.0))
    drawn = [prompt.columns["operations"] for prompt in world.prompts().take(4000)]
    assert all(len(set(signs)) == 1 for signs in drawn)
    assert np.mean([signs[0] == "*" for signs in drawn]) == pytest.approx(0.25, abs=0.03)
    mixed = ChainSum(operations="+*", mixed=True, min_terms=4).prompts().take(50)
    assert any(len(set(prompt.columns["operations"])) == 2 for prompt in mixed)


def test_the_tokenizer_has_21_symbols_and_knows_every_prompt():
    world = ChainSum(operations="+-*", mixed=True)
    tokenizer = world.tokenizer()
    assert len(tokenizer) == 21
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    for prompt in world.prompts().take(50):
        text = world.verification(prompt, prompt.columns["solution"]).content
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == len(text) and tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"min_terms": 1}, "2 <= min_terms"),
        ({"min_terms": 7}, "min_terms <= max_terms"),
        ({"digits": 3}, "1 or 2 digits"),
        ({"modulus": 1}, "modulus of chain-sum"),
        ({"operations": "/"}, "different characters"),
        ({"operations": "++"}, "different characters"),
        ({"operations": ""}, "different characters"),
        ({"operations": "*", "modulus": None}, "needs a modulus"),
        ({"operation_weights": (1.0, 2.0)}, "one weight"),
        ({"operation_weights": (0.0,)}, "one weight"),
        ({"validation_share": 1.0}, "validation_share"),
    ],
)
def test_knobs_that_make_no_world(knobs, message):
    with pytest.raises(RheostatError, match=message):
        language_task("chain-sum", **knobs)


def test_demonstrations_that_make_no_sense():
    world = ChainSum()
    with pytest.raises(RheostatError, match="written as direct, steps, rewrite"):
        world.demonstrate([1, 2], "+", "poetry")  # type: ignore[arg-type]
    with pytest.raises(RheostatError, match="need a random generator"):
        world.demonstrate([1, 2], "+", error_rate=0.1)
    with pytest.raises(RheostatError, match="no chain"):
        world.parse("hello")
