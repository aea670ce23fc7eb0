"""``translations``: three small languages, groups whose meaning is decided by running them, and hostile programs in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.language import translations as world
from rheostat.tasks.language.stack_programs import StackError, evaluate
from rheostat.tasks.language.task_list import language_task
from rheostat.tasks.language.translations import (
    CHANGES,
    MACHINES,
    Translations,
    formula_of,
    lines_of,
    lowered,
    prefix,
    run_lines,
    same,
    written,
)

FORMULAS = st.tuples(
    st.lists(st.sampled_from("0123456789?"), min_size=2, max_size=6), st.lists(st.sampled_from("+-*"), min_size=5, max_size=5)
).map(lambda drawn: drawn[0][0] + "".join(sign + value for sign, value in zip(drawn[1], drawn[0][1:], strict=False)))


@given(FORMULAS, st.integers(0, 9))
def test_every_language_says_the_same(formula: str, value: int) -> None:
    assert formula_of(prefix(formula)) == formula
    for end, language in world.ENDS.items():
        assert MACHINES[language](world.translated(formula, end), value) == evaluate(formula, value)


@given(FORMULAS, st.integers(0, 2**31))
def test_changes_keep_the_meaning_and_the_form(formula: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines = lowered(formula)
    for change in (*CHANGES, *CHANGES):
        lines = change(lines, rng)
        assert lines_of(written(lines)) == lines and same(lines, lowered(formula)), change
    assert len(lines_of(written(world.altered(lines, rng)))) == len(lines)


def test_changes_do_change() -> None:
    lines, rng = lowered("2*3+?*4"), np.random.default_rng(0)
    assert all(change(lines, rng) != lines for change in CHANGES)
    assert written(world.folded(lines, rng)) == "?*4;6+#1"
    assert written(world.with_line(lines, 1, ("1", "+", "1"))) == "2*3;1+1;?*4;#1+#3"


def test_members_are_what_they_are_called() -> None:
    for group in Translations().representations("train", 1).take(60):
        meant = lowered(formula_of(str(group.content)[:-1]))
        equivalent, inequivalent = group.columns["equivalent"], group.columns["inequivalent"]
        assert len({*equivalent, *inequivalent}) == 8
        assert all(same(lines_of(each), meant) for each in equivalent) and not any(same(lines_of(each), meant) for each in inequivalent)
        assert max(map(len, [*equivalent, *inequivalent])) <= Translations().longest


def test_sides_share_no_formula() -> None:
    task = Translations()
    sides = [
        {formula_of(str(each.content)[:-1]) for each in [*task.prompts(side, seed).take(300), *task.representations(side, seed).take(100)]}
        for side, seed in (("train", 0), ("validation", 3))
    ]
    assert not sides[0] & sides[1] and min(map(len, sides)) > 20


def test_the_expert_is_right_and_slips_on_request() -> None:
    task, rng = Translations(into="both"), np.random.default_rng(0)
    prompts = task.prompts("train", 0).take(100)
    right = task.verifier().score([each.rollout(task.expert(each, rng)) for each in prompts])
    assert right.reward.mean() == 1 and set(task.metrics(prompts, [task.expert(each, rng) for each in prompts])) == {"postfix", "infix"}
    assert task.verifier().score([each.rollout(task.expert(each, rng, error_rate=1.0)) for each in prompts]).reward.mean() < 0.4


def test_prompts_of_others_are_located() -> None:
    task = Translations(into="infix")
    prompt = task.prompts("train", 0).take(1)[0]
    side, own = task.locate(prompt)  # type: ignore[misc]
    assert (side, own) == ("train", prompt)
    for text in ("+?1:", "?+1=", "+?=", "+12=", "1", "", "*+?12=", "+" * 90 + "="):
        assert task.locate(type(prompt)(text)) is None, text


HOSTILE = [
    "",
    ";" * 30,
    "#" * 63,
    "?+" * 500,
    "#1+1",
    "#9*#9",
    "?+1;" * 40,
    "1+",
    "+",
    "﹖+1",
    "١+1",
    "__import__('os')",
    "?*?;#0+1",
    "#-1",
    "9" * 64,
]


@pytest.mark.parametrize("language", MACHINES)
@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_program_is_wrong_and_nothing_else(language: str, text: str) -> None:
    with pytest.raises(StackError):
        MACHINES[language](text, 3)
    end = {value: key for key, value in world.ENDS.items()}[language]
    scores = Translations().verifier().score([Translations().prompt("?+1", end).rollout(text)])
    assert scores.reward.item() == 0 and bool(scores.valid.all()) and scores.notes["error"][0]


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"into": "ada"}, "translates into both, postfix, infix, three-address; got into='ada'"),
        ({"min_operations": 0}, "needs 1 <= min_operations"),
        ({"max_operations": 6}, "max_operations <= 5"),
        ({"validation_share": 1.0}, "validation_share lies in"),
    ],
)
def test_knobs_that_make_no_task(knobs: dict[str, object], said: str) -> None:
    with pytest.raises(RheostatError, match=said):
        language_task("translations", **knobs)


def test_the_lines_run_in_order() -> None:
    assert run_lines([("2", "*", "?"), ("#1", "-", "9")], 4) == 9
