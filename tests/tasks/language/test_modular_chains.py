"""modular-chains: the three ways to ask, what is drawn, and what is told of answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.language.chain_sum import final_answers
from rheostat.tasks.language.modular_chains import ModularChains
from rheostat.tasks.language.task_interface import Prompt, Worked


@given(st.integers(0, 50), st.sampled_from(["plain", "working", "correction"]))
def test_every_prompt_is_solved_by_its_expert(number: int, asked: str) -> None:
    task = ModularChains(asked=asked, shown=0 if asked == "plain" else 2)  # type: ignore[arg-type]
    prompts = task.block(number, "train", 3)[:20]
    answers = [task.expert(prompt, np.random.default_rng(0)) for prompt in prompts]
    scores = task.verifier().score([prompt.rollout(text) for prompt, text in zip(prompts, answers, strict=True)])
    assert bool((scores.reward == 1).all()) and all(len(text) < task.limits.max_new_tokens for text in answers)
    for prompt in prompts:
        assert 0 <= int(prompt.answer) < 97
        assert {"plain": "?" not in str(prompt.content), "working": "?" in str(prompt.content), "correction": "#" in str(prompt.content)}[
            asked
        ]


def test_how_it_asks_again() -> None:
    task, prompt = ModularChains(), Prompt("45+7+8=", "60")
    assert task.decomposition(prompt, [Worked("9+4=", "9+4=13;#13")]).content == "?9+4=9+4=13;#13:?45+7+8="
    asked = task.reflection(prompt, ["#51", "45+7=53;#61", "none", "#"], [Worked("9+4=", "#13", ("#12",))])
    assert asked.content == "#12?9+4=#13:#51#61?45+7+8=" and asked.key == prompt.key and asked.answer == "60"
    assert final_answers(["#123456", "#-3"]) == "#-3"


def test_it_finds_its_own_prompts_and_no_others() -> None:
    task = ModularChains()
    for split in ("train", "validation"):
        for prompt in task.block(0, split, 1)[:20]:  # type: ignore[arg-type]
            assert task.locate(Prompt(str(prompt.content))) == (split, prompt)
    assert [task.locate(Prompt(text)) for text in ("97+1=", "05+1=", "1+12=", "?1+2=", "1=")] == [None] * 5


def test_easy_and_hard_are_told_apart() -> None:
    task = ModularChains()
    easy, hard = task.problem([1, 2], "+"), task.problem([1, 2, 3, 4], "+++")
    told = task.metrics([easy, hard, hard], ["#3", "#10", "#9"])
    assert told["easy"].nanmean() == 1 and told["hard"].nanmean() == 0.5
    assert [task.family(task.problem([1] * terms, "+" * (terms - 1))) for terms in (3, 4, 7, 8)] == ["easy", "middle", "middle", "long"]


def test_knobs_that_make_no_task() -> None:
    for sentence, knobs in (
        ("adds digits modulo a number of at most 100", {"digits": 2}),
        ("is plain, or asks for the working or a correction; got 'loudly'", {"asked": "loudly"}),
        ("stand before prompts that are not plain", {"shown": 1}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            ModularChains(**knobs)  # type: ignore[arg-type]
