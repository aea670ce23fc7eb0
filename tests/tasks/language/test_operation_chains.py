"""Chains of operations: ways that experts find, what is graded as right, and bad knobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rheostat.errors import RheostatError
from rheostat.tasks.language import language_task
from rheostat.tasks.language.operation_chains import OperationChains
from rheostat.tasks.language.task_interface import Prompt

TASK = OperationChains()


def reward(text: str, prompt: Prompt | None = None) -> float:
    return float(TASK.verifier().score([(prompt or TASK.prompt(5, 9)).rollout(text)]).reward[0])


def test_a_way_is_right_where_every_step_is_and_the_last_one_arrives() -> None:
    assert reward("*2=10;+1=0;-3=8;+1=9#") == 1 and reward("+1=6;+1=7;*2=3;-3=0#") == 0
    for wrong in ("*2=10;+1=0;-3=8;+1=9", "*2=10;+1=1;-3=9#", "*2=10;-1=9#", "#", "", "+4=9#", "9#", "*2=10;;-1=9#", "٣=9#"):
        assert reward(wrong) == 0
    assert reward("+1=6;-3=3;*2=6;*5=8;+1=9#") == 1, "five steps are as many as there may be"
    assert reward("+1=6;-3=3;*2=6;-3=3;*2=6;*5=8;+1=9#") == 0
    assert not bool(TASK.verifier().score([Prompt("5?9:").rollout("+1=6#")]).valid[0])


def test_the_expert_takes_a_shortest_way_and_a_stray_one_works_out_what_it_does() -> None:
    rng = np.random.default_rng(0)
    for prompt in TASK.prompts("train", 0).take(40):
        text = TASK.expert(prompt, rng)
        assert reward(text, prompt) == 1 and text.count("=") == prompt.columns["distance"]
        stray = TASK.expert(prompt, rng, error_rate=1.0)
        read = TASK.read(stray, prompt.columns["start"])
        assert read is not None and (read[1] == prompt.columns["target"] or len(read[0]) == TASK.most_steps)
        assert len(TASK.tokenizer()(stray)["input_ids"]) + 1 <= TASK.limits.max_new_tokens
    with pytest.raises(RheostatError, match="is no problem such as"):
        TASK.expert(Prompt("5?5:"), rng)


def test_splits_do_not_overlap_and_prompts_are_located() -> None:
    train = {prompt.key for prompt in TASK.prompts("train", 0).take(2000)}
    held_out = TASK.validation(200)
    assert not train & {prompt.key for prompt in held_out} and len(train) + len(held_out) == 11 * 10
    assert TASK.locate(Prompt("05?9:")) is None and TASK.locate(Prompt("5?19:")) is None
    found = TASK.locate(held_out[0])
    assert found is not None and found[0] == "validation" and found[1].columns == held_out[0].columns
    assert {TASK.family(prompt) for prompt in held_out} <= {f"distance {steps}" for steps in range(1, 6)}


def test_valid_chains_are_counted_wherever_they_lead() -> None:
    found = TASK.metrics([TASK.prompt(5, 9)] * 3, ["+1=6#", "+1=7#", "+1=6"])
    assert found["valid_chain"].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"modulus": 2}, "a modulus from 3 to 1000"),
        ({"most_steps": 0}, "most_steps from 1 to 20"),
        ({"operations": ("+1", "+1")}, "different ones such as"),
        ({"operations": ("/2",)}, "different ones such as"),
        ({"operations": ("*1",)}, r"No number is reached from another by \*1"),
        ({"validation_share": 1.0}, "validation_share"),
    ],
)
def test_bad_knobs(knobs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        language_task("operation-chains", **knobs)
