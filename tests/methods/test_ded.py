"""DED: which answers are kept, in what order the filters act, and what is refused."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.collect.language.chosen_rows import ChosenRows, RowChoice, Teacher
from rheostat.collect.language.language_collectors import Demonstrations
from rheostat.errors import RheostatError
from rheostat.tasks.language import ChainSum
from rheostat.tasks.language.task_interface import Prompt
from rheostat.tasks.language.trajectory_choice import edit_distances, exact_max_sum, far_apart, greedy_max_min, well_formed
from rheostat.training.run import Interrupted, Run
from tests.crash import differences
from tests.methods.test_language_methods import Lenient, built, save, small
from tests.training.test_run import StopAfter

ANSWERS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def plain_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Wagner and Fischer's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@given(ANSWERS)
def test_distances_are_those_of_the_table(answers: list[list[int]]) -> None:
    found, normal = edit_distances(answers), edit_distances(answers, normalise=True)
    for i, j in itertools.product(range(len(answers)), repeat=2):
        plain = plain_distance(answers[i], answers[j])
        assert found[i, j] == plain and abs(len(answers[i]) - len(answers[j])) <= plain
        assert normal[i, j] == plain / max(len(answers[i]), len(answers[j]), 1) <= 1


def plain_greedy(distances: Any, count: int) -> list[int]:
    """As the paper is read, in loops."""
    n = len(distances)
    if count >= n:
        return list(range(n))
    if count == 1:
        sums = [sum(row) for row in distances.tolist()]
        return [sums.index(max(sums))]
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    taken = list(max(pairs, key=lambda pair: distances[pair]))
    while len(taken) < count:
        taken.append(max((i for i in range(n) if i not in taken), key=lambda i: min(distances[i, j] for j in taken)))
    return taken


@given(ANSWERS, st.integers(1, 8))
def test_both_choices_are_what_they_say(answers: list[list[int]], count: int) -> None:
    distances, size = edit_distances(answers), min(count, len(answers))
    greedy, exact = greedy_max_min(distances, count), exact_max_sum(distances, count)
    assert greedy == plain_greedy(distances, count)

    def total(several: Sequence[int]) -> float:
        return float(sum(distances[i, j] for i, j in itertools.combinations(several, 2)))

    sets = list(itertools.combinations(range(len(answers)), size))
    assert exact == list(next(each for each in sets if total(each) == max(map(total, sets))))
    for found in (greedy, exact, far_apart(answers, count, "random", np.random.default_rng(0))):
        assert len(set(found)) == size and set(found) <= set(range(len(answers)))


def test_answers_that_are_all_the_same_are_still_different_rows() -> None:
    for rule in (greedy_max_min, exact_max_sum):
        assert rule(np.zeros((5, 5)), 3) == [0, 1, 2]
    with pytest.raises(RheostatError, match="at most 12 answers, and a question has 13"):
        exact_max_sum(np.zeros((13, 13)), 3)


def test_one_block_of_thoughts_and_an_answer() -> None:
    for text, right in (
        ("<think>a</think>b", True), (" \n<think></think> 5", True), ("<think>a</think>", False), ("<think>a</think> \n", False),
        ("x<think>a</think>b", False), ("<think>a<think></think>b", False), ("<think>a</think>b</think>", False), ("a", False),
    ):  # fmt: skip
        assert well_formed(text, "think") is right and well_formed(text, "any")


QUESTIONS = [prompt.content for prompt in ChainSum().prompts("train", 3).take(6)]


def write(path: Path, rows: list[tuple[Any, str]]) -> str:
    path.write_text("".join(json.dumps({"prompt": question, "completion": text}) + "\n" for question, text in rows))
    return str(path)


def odd(text: str) -> bool:
    """What :class:`Lenient` calls right."""
    return sum(map(ord, text)) % 2 == 1


ROWS = [(question, text) for question in QUESTIONS for text in ("#1", "#3", "0;#1", "00;#1", "#2", "0000;#1", "1+1=2;1+1=2;#1")]


def plain_corpus(rows: list[tuple[Any, str]], count: int, longest: int = 40) -> list[tuple[Any, str]]:
    """Right and short answers, the farthest of each question, in the order of the file."""
    kept = []
    for question in dict.fromkeys(question for question, _ in rows):
        right = [text for asked, text in rows if asked == question and odd(text) and len(text) + 1 <= longest]
        distances = np.array([[plain_distance(list(map(ord, a)), list(map(ord, b))) for b in right] for a in right])
        kept += [(question, right[place]) for place in sorted(plain_greedy(distances, count))]
    return kept


def corpus(one: Any) -> list[tuple[Any, str]]:
    """What a method learns from, after its first batch."""
    one.collect()
    part = one.composition.collect
    rows = part.candidates()
    return [(rows[number].content, str(rows[number].columns["completion"])) for number in part.kept]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_learned_from_is_what_plain_loops_choose(model: str, tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    options: dict[str, Any] = {"questions": 64, "answers_per_question": 8, "most_solved": 1.0, "per_question": count}
    one = built("ded", model, experts=path, **options)
    assert corpus(one) == plain_corpus(ROWS, count) != plain_corpus(ROWS, count + 1)
    drawn = one.context.collector.stream.take(2 * len(plain_corpus(ROWS, count)))  # of an epoch and of parts of two others
    assert {(row.content, str(row.columns["completion"])) for row in drawn} == set(plain_corpus(ROWS, count))


def test_wrong_answers_are_gone_before_the_farthest_are_taken(model: str, tmp_path: Path) -> None:
    loop = "1+1=2;" * 5 + "#2"
    assert not odd(loop)
    path = write(tmp_path / "rows.jsonl", [*ROWS, *((question, loop) for question in QUESTIONS)])
    one = built("ded", model, experts=path, **{"questions": 64, "answers_per_question": 8}, most_solved=1.0, per_question=2)
    assert loop not in {text for _, text in corpus(one)}
    everything = built(
        "ded", model, experts=path, **{"questions": 64, "answers_per_question": 8}, most_solved=1.0, per_question=2, least_reward=0
    )
    assert loop in {text for _, text in corpus(everything)}


def test_questions_are_dropped_by_what_the_student_itself_solves(model: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    options: dict[str, Any] = {"experts": path, "questions": 64, "answers_per_question": 8, "student_samples": 6, "choice": "all"}
    one = built("ded", model, most_solved=0.35, **options)
    tokens = one.context.collector.generated_tokens
    kept = {question for question, _ in corpus(one)}
    rates = {}
    fresh = built("ded", model, most_solved=0.35, **options)
    collector = fresh.context.collector
    rows = list({row.key: row for row in fresh.context.setup.experts.rows}.values())
    drawn = [(row, collector.setup.encoder.encode(row)) for row in rows]
    graded = collector.sample(drawn, 6, fresh.context.sampling, numbers=list(range(len(rows))), purpose="pass rates", version=0)
    for place, row in enumerate(rows):
        rates[row.content] = sum(map(odd, graded.completions[6 * place : 6 * place + 6])) / 6
    assert kept == {question for question, rate in rates.items() if rate <= 0.35} and 0 < len(kept) < len(rates)
    assert one.context.collector.generated_tokens > tokens + graded.trajectories.count(), "the student's answers count"


def test_the_random_control_keeps_as_many(model: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    options: dict[str, Any] = {"experts": path, "questions": 64, "answers_per_question": 8, "most_solved": 1.0, "per_question": 2}
    far, control = (corpus(built("ded", model, choice=choice, **options)) for choice in ("max-min", "random"))
    assert far != control and [question for question, _ in far] == [question for question, _ in control]


def test_a_teacher_without_a_right_answer_is_refused_in_one_sentence(model: str, tmp_path: Path) -> None:
    rows = [(question, text) for question in QUESTIONS for text in ("#1", "0;#2", "1+1=2;" * 6)]
    assert not any(odd(text) for _, text in rows)
    path = write(tmp_path / "rows.jsonl", rows)
    one = built("ded", model, experts=path, questions=64, answers_per_question=8)
    with pytest.raises(RheostatError, match="no correct answer to learn from: of 18 answers 18 wrong") as error:
        one.collect()
    assert "\n" not in str(error.value)
    spoken = built("ded", model, experts=path, questions=64, answers_per_question=8, answer_form="think")
    with pytest.raises(RheostatError, match="of 18 answers 18 ill formed"):
        spoken.collect()


def test_a_student_that_solves_everything_is_refused(model: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    one = built("ded", model, experts=path, questions=64, answers_per_question=8, most_solved=0.0, student_samples=40)
    with pytest.raises(RheostatError, match=r"solves every question too often already: its pass rates on 6 questions lie from 0\.\d+ to"):
        one.collect()


def test_fewer_answers_than_asked_for_are_kept_and_told(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(question, text) for question in QUESTIONS for text in ("#2", "#2", "#2", "0;#1", "#1")]
    path = write(tmp_path / "rows.jsonl", rows)
    one = built("ded", model, experts=path, questions=64, answers_per_question=8, most_solved=1.0, per_question=3)
    batch = one.collect()
    said = capsys.readouterr().err
    assert "6 of 6 questions have fewer than 3 different correct answers (per_question): what they have is kept." in said
    assert batch.metrics["corpus/questions_short"] == 6 and batch.metrics["corpus/rows"] == 18 and batch.metrics["corpus/wrong"] == 6
    assert batch.metrics["corpus/good_share"] == pytest.approx(0.8) and batch.metrics["corpus/candidates"] == 30


def test_ded_refuses_what_makes_no_sense(model: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS * 2)
    for sentence, options in (
        ("and the run has a file of expert rows: leave them out", {"experts": path}),
        ("per_question is 0; it must be at least 1", {"per_question": 0}),
        ("most_solved is 1.5", {"most_solved": 1.5}),
        ("rows.among is 'farthest'; it must be one of", {"choice": "farthest"}),
        ("rows.student_samples.*most_solved is 1", {"student_samples": 3, "most_solved": 1.0}),
        ("rows.per_question.*choice is all", {"per_question": 3, "choice": "all"}),
        ("rows.unit.*looks at no distance", {"distance_unit": "characters", "choice": "random"}),
        ("ded cannot honour dial.lag: nothing is sampled", {"dial.lag": 1}),
    ):
        with pytest.raises(RheostatError, match=sentence) as error:
            built("ded", model, **options)
        assert "\n" not in str(error.value)
    many = built("ded", model, experts=path, questions=64, answers_per_question=8, most_solved=1.0, choice="max-sum", per_question=2)
    assert len(corpus(many)) == 12
    path = write(tmp_path / "many.jsonl", ROWS * 4)
    with pytest.raises(RheostatError, match="at most 12 answers, and a question has 16: take max-min"):
        built("ded", model, experts=path, questions=64, answers_per_question=8, most_solved=1.0, choice="max-sum").collect()


def test_a_stopped_run_goes_on_with_the_same_corpus_and_no_other_file(model: str, tmp_path: Path) -> None:
    """The student is not asked again: its answers would be those of a student that has learned."""
    path = write(tmp_path / "rows.jsonl", ROWS)
    options: dict[str, Any] = {"experts": path, "questions": 64, "answers_per_question": 8, "steps": 4, "checkpoint_every": 1}
    Run.create(tmp_path / "whole", small("ded", model, **options), task=Lenient()).train()
    with pytest.raises(Interrupted):
        Run.create(tmp_path / "halted", small("ded", model, **options), task=Lenient()).train(progress=StopAfter(2))
    halted = Run.load(tmp_path / "halted", task=Lenient())
    before = halted.method.context.collector.graded_rows
    halted.train()
    assert halted.method.context.collector.graded_rows == before and differences(tmp_path / "whole", tmp_path / "halted") == []
    with pytest.raises(Interrupted):
        Run.create(tmp_path / "other", small("ded", model, **options), task=Lenient()).train(progress=StopAfter(2))
    write(tmp_path / "rows.jsonl", ROWS[1:])
    with pytest.raises(RheostatError, match="begun with other expert rows"):
        Run.load(tmp_path / "other", task=Lenient()).train()


def test_a_distance_counts_tokens_or_characters() -> None:
    """One long word against three short ones: far in characters, near in tokens."""
    words = ["a b c d", "a b x y", "incomprehensible b c d"]
    ids = {word: number for number, word in enumerate(sorted({word for text in words for word in text.split()}))}
    rows = [Prompt("?", None, {"completion": text}, "0" * 16) for text in words]
    tokens = [[ids[word] for word in text.split()] for text in words]
    found = {}
    for unit in ("tokens", "characters"):
        part = ChosenRows(Demonstrations(4), RowChoice(per_question=1, unit=unit), Teacher())  # type: ignore[arg-type]
        part.context = SimpleNamespace(streams=SimpleNamespace(seed=0))
        found[unit] = part.diverse("0" * 16, [0, 1, 2], rows, tokens)
    assert found == {"tokens": [1], "characters": [2]}
