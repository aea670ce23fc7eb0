"""Preference data in the formats that people have: what each row teaches, what is counted, and what is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.tasks.language.preference_rows import Lesson, PreferencePrompts, load_preferences

PAIR = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
USER = {"role": "user", "content": "1+1?"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def taught(rows: list[dict[str, Any]], lesson: Lesson = "pairs", **options: Any) -> list[dict[str, Any]]:
    """The rows that come of some rows: prompt and columns."""
    task = PreferencePrompts(rows, lesson, validation_share=0.0, **options)
    return [{"prompt": prompt.content, **prompt.columns} for _, prompt in task.named]


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"chosen": "1+1=2", "rejected": "1+1=3"},
        {"prompt": "1+1=", "completions": ["3", "2"], "ranks": [2, 1]},
    ],
    ids=["explicit", "implicit", "ranked"],
)
def test_a_pair_of_texts_in_each_form(row: dict[str, Any]) -> None:
    assert taught([row]) == [PAIR]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [said("2")], "rejected": [said("3")]},
        {"prompt": [USER], "chosen": "2", "rejected": "3"},
        {"prompt": [USER], "chosen": [USER, said("2")], "rejected": [USER, said("3")]},
        {"chosen": [USER, said("2")], "rejected": [USER, said("3")]},
        {"prompt": [USER], "completions": [[said("2")], [said("3")]], "ranks": [1, 2]},
    ],
    ids=["explicit", "text", "repeated", "implicit", "ranked"],
)
def test_a_pair_of_chats_in_each_form(row: dict[str, Any]) -> None:
    assert taught([row]) == [{"prompt": [USER], "chosen": "2", "rejected": "3"}]


def test_an_implicit_prompt_leaves_the_space_to_the_answer() -> None:
    rows = [{"chosen": "Human: hi\n\nAssistant: yes", "rejected": "Human: hi\n\nAssistant: no"}]
    assert taught(rows) == [{"prompt": "Human: hi\n\nAssistant:", "chosen": " yes", "rejected": " no"}]


def test_ranked_and_scored_answers_are_every_pair_of_which_one_is_better() -> None:
    row = {"prompt": "?", "completions": ["a", "b", "c"], "ranks": [2, 1, 2], "source": "me"}
    task = PreferencePrompts([row], validation_share=0.0)
    assert [(p.columns["chosen"], p.columns["rejected"], p.columns["source"]) for _, p in task.named] == [
        ("b", "a", "me"),
        ("b", "c", "me"),
    ]
    assert task.counts["ties"] == 1
    single = [{"prompt": "?", "completion": text, "score": score} for text, score in (("a", 1.0), ("b", 3.0), ("c", 1.5))]
    found = taught([single[0], {"prompt": "!", "completions": ["x", "y"], "scores": [0, 1]}, *single[1:]])
    assert [(row["chosen"], row["rejected"], row["margin"]) for row in found] == [
        ("b", "a", 2.0),
        ("c", "a", 0.5),
        ("b", "c", 1.5),
        ("y", "x", 1.0),
    ]


def test_the_prompt_may_stand_in_another_column() -> None:
    row = {"question": "1+1=", "chosen": "2", "rejected": "3"}
    assert taught([row], prompt_column="question") == [PAIR]
    with pytest.raises(RheostatError, match=r"has no column 'question' .it has prompt, chosen, rejected.: rename it"):
        taught([PAIR], prompt_column="question")


def test_margins_and_scores_of_pairs_say_by_how_much() -> None:
    assert taught([PAIR | {"margin": 0.5}]) == [PAIR | {"margin": 0.5}]
    assert taught([PAIR | {"score_chosen": 8.0, "score_rejected": 6.5}]) == [PAIR | {"margin": 1.5}]


def test_labels_and_scores() -> None:
    labelled = {"prompt": "?", "completion": "a", "label": True}
    assert taught([labelled], "labels") == [labelled]
    both = [{"prompt": "1+1=", "completion": "2", "label": True}, {"prompt": "1+1=", "completion": "3", "label": False}]
    assert taught([PAIR], "labels") == taught([PAIR | {"score_chosen": 2, "score_rejected": 1}], "labels") == both
    assert taught([{"prompt": "?", "completions": ["a", "b"], "scores": [1, -2]}], "scores") == [
        {"prompt": "?", "completion": "a", "score": 1.0},
        {"prompt": "?", "completion": "b", "score": -2.0},
    ]


def test_contradictions_are_counted_and_kept_and_equal_answers_can_be_left_out() -> None:
    task = PreferencePrompts([PAIR, PAIR | {"chosen": "3", "rejected": "2"}, PAIR | {"prompt": "2+0="}], validation_share=0.0)
    assert task.counts["contradictions"] == 2 and len(task) == 3
    assert task.sentences() == [
        "2 pairs of the preferences contradict another one, with the same two answers the other way round; they are kept."
    ]
    task = PreferencePrompts([PAIR, PAIR | {"rejected": "2"}], unusable="drop", validation_share=0.0)
    assert len(task) == 1 and task.sentences() == ["1 pairs of equal answers left out of the preferences."]


def test_answers_that_are_too_long_are_refused_or_counted() -> None:
    rows = [PAIR, PAIR | {"prompt": "9+9=", "chosen": "18 and nothing else"}]
    with pytest.raises(
        RheostatError, match=r"1 of 2 rows of the preferences have an answer of more than 4 tokens, the first of them Row 2"
    ):
        PreferencePrompts(rows, validation_share=0.0).at_most(4, lambda texts: [len(text) for text in texts])
    task = PreferencePrompts(rows, unusable="drop", validation_share=0.0)
    task.at_most(4, lambda texts: [len(text) for text in texts])
    assert len(task) == 1 and task.sentences() == ["1 rows with an answer that is too long left out of the preferences."]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_files_of_every_kind_teach_the_same(kind: str, tmp_path: Path) -> None:
    rows = [{"prompt": [USER], "chosen": [said("2")], "rejected": [said("3")], "margin": None}, {"prompt": [USER], "chosen": [said("x")],
            "rejected": [said("y")], "margin": 1.5}]  # fmt: skip
    path = tmp_path / f"pairs.{kind}"
    if kind == "parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) if kind == "jsonl" else json.dumps(rows))
    task = load_preferences(path, validation_share=0.0)
    assert [dict(prompt.columns) for _, prompt in task.named] == [
        {"chosen": "2", "rejected": "3"},
        {"chosen": "x", "rejected": "y", "margin": 1.5},
    ]


ZOO = {"prompt": "1+1=", "completions": ["2", "2.", "3"], "policies": ["a", "a", "b"]}


def test_a_zoo_in_each_form() -> None:
    single = [{"prompt": "1+1=", "completion": text, "policy": who} for text, who in zip(ZOO["completions"], ZOO["policies"], strict=True)]
    for rows in ([ZOO], single, [ZOO | {"ranks": [1, 2, 3]}]):
        assert taught(rows, "zoo") == [ZOO]


def test_a_zoo_needs_two_different_answers_of_one_policy_and_a_third() -> None:
    poor = [ZOO | {"completions": found} for found in (["2", "2", "3"], ["2", "2.", "2"])] + [ZOO | {"policies": [0, 1, 2]}]
    task = PreferencePrompts(
        [ZOO | {"prompt": "2="}, *(row | {"prompt": f"{n}="} for n, row in enumerate(poor))], "zoo", validation_share=0.0
    )
    assert len(task) == 1 and list(task.counts.values()) == [3]
    with pytest.raises(RheostatError, match=r"No row of the preferences teaches zoo .3 prompts without two different answers"):
        PreferencePrompts([row | {"prompt": f"{n}="} for n, row in enumerate(poor)], "zoo", validation_share=0.0)


def test_pairs_beside_a_reference_in_each_form() -> None:
    found = {"prompt": "1+1=", "reference": "1", "chosen": "2", "rejected": "3"}
    assert taught([found], "references") == [found]
    assert taught([found | {"reference": [said("1")]}], "references") == [found]
    assert taught([{"prompt": "1+1=", "completions": ["3", "1", "2"], "ranks": [3, 1, 2]}], "references") == [found]
    assert taught([ZOO | {"completions": ["3", "1", "2"], "ranks": [3, 1, 2]}], "references") == [found]
    scored = taught([{"prompt": "1+1=", "completions": ["3", "1", "2"], "scores": [0, 9, 5]}], "references")
    assert scored == [found | {"margin": 5.0}]


def test_the_best_of_four_is_the_reference_and_the_others_are_pairs() -> None:
    rows = [{"prompt": "?", "completions": ["c", "a", "d", "b"], "ranks": [3, 1, 3, 2]}]
    task = PreferencePrompts(rows, "references", validation_share=0.0)
    assert [tuple(prompt.columns.values()) for _, prompt in task.named] == [("a", "b", "c"), ("a", "b", "d")] and task.counts["ties"] == 1
    tied = PreferencePrompts(
        [*rows, {"prompt": "!", "completions": ["a", "b", "c"], "ranks": [1, 1, 2]}], "references", validation_share=0.0
    )
    assert tied.counts["rows with two best answers left out"] == 1


REFUSED: list[tuple[str, Lesson, Any]] = [
    ("Row 1 of the preferences has no column 'rejected'", "pairs", {"prompt": "?", "chosen": "a"}),
    ("has no column 'prompt' .it has completion", "labels", {"completion": "a", "label": True}),
    ("has the columns prompt, which are no preferences: give prompt, chosen and rejected; or", "pairs", {"prompt": "?"}),
    ("has the same text as its chosen and its rejected answer: remove the row, or leave such rows out", "pairs", PAIR | {"rejected": "2"}),
    ("has the same text as its chosen and its rejected answer", "labels", PAIR | {"rejected": "2"}),
    ("has an empty answer in its column 'chosen'", "pairs", PAIR | {"chosen": " "}),
    ("has no text in its column 'rejected'", "pairs", PAIR | {"rejected": 3}),
    ("that do not end with the assistant's", "pairs", PAIR | {"rejected": [USER]}),
    ("has messages before the answer in its column 'chosen' that are not those", "pairs", PAIR | {"chosen": [USER, said("2")]}),
    ("share no beginning: add the column 'prompt'", "pairs", {"chosen": "a", "rejected": "b"}),
    ("share no first message", "pairs", {"chosen": [said("a")], "rejected": [said("b")]}),
    ("are not two chats or two texts", "pairs", {"chosen": [USER, said("a")], "rejected": "b"}),
    ("neither 'ranks' nor 'scores'", "pairs", {"prompt": "?", "completions": ["a", "b"]}),
    ("two lists of one length", "pairs", {"prompt": "?", "completions": ["a", "b"], "ranks": [1]}),
    ("has nan in its column 'scores': a finite number", "pairs", {"prompt": "?", "completions": ["a", "b"], "scores": [1, float("nan")]}),
    ("has inf in its column 'score': a finite number", "scores", {"prompt": "?", "completion": "a", "score": float("inf")}),
    ("has 'good' in its column 'score'", "scores", {"prompt": "?", "completion": "a", "score": "good"}),
    ("has the label 2: it must be true", "labels", {"prompt": "?", "completion": "a", "label": 2}),
    ("has the margin -1", "pairs", PAIR | {"margin": -1}),
    ("gives its rejected answer the higher score .2 > 1.", "pairs", PAIR | {"score_chosen": 1, "score_rejected": 2}),
    ("labels of single answers make no pairs: use kto", "pairs", {"prompt": "?", "completion": "a", "label": True}),
    ("which answer is better, not which is desirable", "labels", {"prompt": "?", "completion": "a", "score": 1.0}),
    ("needs a number for every answer", "scores", PAIR),
    ("teaches pairs .1 ties.: give others", "pairs", {"prompt": "?", "completions": ["a", "b"], "ranks": [1, 1]}),
    ("is a str, not an object", "pairs", "a"),
    ("the names of policies say who wrote an answer, not which is better: use polar", "pairs", ZOO),
    ("it does not say who wrote the answers: give the column policies, or policy", "zoo", PAIR),
    ("has True as the name of a policy: give a text or a whole number", "zoo", {"prompt": "?", "completion": "a", "policy": True}),
    ("two lists of one length in 'completions' and 'policies'", "zoo", ZOO | {"policies": ["a"]}),
    ("it orders no answers: give ranks, scores, or a pair with the column reference", "references", ZOO),
    ("a pair needs a reference answer beside it: give the column reference, or at least three", "references", PAIR),
    ("has an empty answer in its column 'reference'", "references", PAIR | {"reference": " "}),
    ("has the same text as its reference and a candidate: remove the row", "references", PAIR | {"reference": "3"}),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "lesson", "row"), REFUSED)
def test_what_cannot_be_used_is_one_sentence(sentence: str, lesson: Lesson, row: Any) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        PreferencePrompts([row], lesson, validation_share=0.0)
    assert "\n" not in str(error.value)


def test_an_empty_file_and_an_unknown_option_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(RheostatError, match="There are no preferences in"):
        load_preferences(tmp_path / "none.jsonl")
    with pytest.raises(RheostatError, match="Unknown option of your own prompts 'validaton'"):
        load_preferences([PAIR], validaton=[PAIR])
