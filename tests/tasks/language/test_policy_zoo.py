"""The zoo of synthetic policies: what its prompts carry, which policies a side shows, exact probabilities, utility and divergence."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.tasks.language.policy_zoo import ASKED, LENGTH, SYMBOLS, PolicyZoo
from rheostat.tasks.language.preference_rows import triples_of
from rheostat.tasks.language.task_list import language_task

ZOO = PolicyZoo(originals=4, held_out=1)


def symbols(text: str) -> np.ndarray:
    return np.array([SYMBOLS.index(each) for each in text])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_prompt_carries_a_triple_of_the_zoo_and_a_ranking(split: str) -> None:
    prompts = ZOO.block(0, split, 3)  # type: ignore[arg-type]
    assert prompts and prompts == ZOO.block(0, split, 3) != ZOO.block(0, split, 4)  # type: ignore[arg-type]
    shown = set(ZOO.pool(split).tolist())  # type: ignore[arg-type]
    for prompt in prompts:
        columns, topic = prompt.columns, SYMBOLS.index(str(prompt.content)[0])
        answers = [*columns["completions"], *(columns[name] for name in ("reference", "chosen", "rejected"))]
        assert len(prompt.content) == ASKED and all(len(each) == LENGTH and set(each) <= set(SYMBOLS) for each in answers)
        one, same, other = columns["policies"]
        assert one == same != other and {one, other} <= shown
        worth = [float(ZOO.utility(topic, symbols(each))) for each in answers[3:]]
        assert worth[0] > worth[1] > worth[2] and worth == [ZOO.worth(str(prompt.content), each) for each in answers[3:]]
    whole = [prompt for prompt in prompts if triples_of(prompt.columns["policies"], prompt.columns["completions"])]
    assert len(whole) == len(prompts)


def test_policies_that_repeat_themselves_make_no_prompt_without_a_triple() -> None:
    peaked = PolicyZoo(originals=4, held_out=1, favoured=1, strength=9.0, spread=2.0)
    prompts = [prompt for number in range(4) for prompt in peaked.block(number, "train", 0)]
    assert 20 < len(prompts) < sum(len(ZOO.block(number, "train", 0)) for number in range(4))
    assert all(len(set(prompt.columns["completions"])) == 3 for prompt in prompts)


def test_sides_share_no_prompt_and_no_policy_and_the_gold_one_is_in_no_zoo() -> None:
    sides = [set(ZOO.pool(split).tolist()) for split in ("train", "validation")]
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(range(8)) and ZOO.gold == 8
    assert all((number + 4) % 8 in side for side in sides for number in side)  # a copy is on the side of its original
    held_out = {prompt.key for prompt in ZOO.validation(50)}
    assert not held_out & {prompt.key for number in range(3) for prompt in ZOO.block(number, "train", 0)}


def test_answers_are_drawn_with_the_probabilities_that_are_said() -> None:
    rng, count = np.random.default_rng(0), 20_000
    asked = np.tile(symbols("3+7="), (count, 1))
    policy = np.full(count, 2)
    drawn = ZOO.write(policy, ZOO.rules[policy, asked[:, 0]], asked, rng)
    said = ZOO.probabilities(policy[:1], ZOO.rules[[2], asked[0, 0]], asked[:1, -1])[0]
    found = np.bincount(drawn[:, 0], minlength=len(SYMBOLS)) / count
    assert said.sum() == pytest.approx(1.0) and np.abs(found - said).max() < 4 * np.sqrt(0.25 / count)


def test_a_copy_is_nearer_to_its_original_than_others_are() -> None:
    prompts = PolicyZoo().validation(200)
    pairs = [(prompt.columns["policies"], prompt.columns["divergence"]) for prompt in prompts]
    near = [apart for (one, _, other), apart in pairs if abs(one - other) == 20]
    far = [apart for (one, _, other), apart in pairs if abs(one - other) != 20]
    assert near and max(near) < np.mean(far) and all(0 < apart < 1 for _, apart in pairs)


def test_a_given_number_of_prompts_comes_again_in_another_order() -> None:
    task = PolicyZoo(originals=4, held_out=1, prompts_in_all=7)
    stream = task.prompts("train", 5)
    first, second = stream.take(7), stream.take(7)
    assert stream.epochs == 2.0 and stream.epoch == 7
    assert Counter(p.key for p in first) == Counter(p.key for p in second) and [p.key for p in first] != [p.key for p in second]
    assert {p.key for p in PolicyZoo(originals=4, held_out=1, prompts_in_all=7).prompts("train", 6).take(7)} == {p.key for p in first}


def test_utility_reads_twelve_symbols_and_counts_what_is_missing() -> None:
    prompt = "3+7="
    good = [symbol for symbol in SYMBOLS if ZOO.worth(prompt, symbol * LENGTH) == 1.0]
    bad = next(symbol for symbol in SYMBOLS if symbol not in good)
    assert len(good) == ZOO.favoured and ZOO.chance == ZOO.favoured / len(SYMBOLS)
    assert ZOO.worth(prompt, good[0] * 3) == 0.25 and ZOO.worth(prompt, bad * 12 + good[0]) == 0.0 and ZOO.worth(prompt, "x") == 0.0
    scores = ZOO.verifier().score([ZOO.block(0, "train", 0)[0].rollout("")])
    assert scores.reward.tolist() == [0.0]
    assert torch.equal(ZOO.metrics(ZOO.block(0, "train", 0)[:1], [""])["utility"], torch.zeros(1))


def test_its_expert_answers_and_a_foreign_prompt_is_none_of_its() -> None:
    prompt = ZOO.block(0, "train", 0)[0]
    assert len(ZOO.expert(prompt, np.random.default_rng(0))) == LENGTH
    from rheostat.tasks.language.task_interface import Prompt

    assert ZOO.locate(Prompt("abc")) is None and ZOO.locate(prompt) == ("train", prompt)


@pytest.mark.parametrize(
    ("sentence", "knobs"),
    [
        ("holds out at least 1 and leaves at least 2 of its 4 originals", {"originals": 4, "held_out": 3}),
        ("favours 1 to 17 symbols", {"favoured": 18}),
        ("0 or more prompts in all", {"prompts_in_all": -1}),
        (r"a weakness in \(0, 1\]", {"weakness": 0.0}),
        (r"validation_share lies in \(0, 1\)", {"validation_share": 0.0}),
    ],
)
def test_knobs_that_make_no_task_are_refused(sentence: str, knobs: dict[str, float]) -> None:
    with pytest.raises(RheostatError, match=sentence):
        language_task("policy-zoo", **knobs)
