"""Expert rows: what is read, what is refused, what is left out and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.tasks.language import ChainSum, FilePrompts, character_tokenizer
from rheostat.tasks.language.demonstrations import Demonstrations, read_demonstrations
from rheostat.tasks.language.task_interface import is_validation

ROWS = [{"prompt": f"{i}+1=", "completion": f"{i}+1={(i + 1) % 10};#{(i + 1) % 10}"} for i in range(10)]


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


def chains(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Worked solutions of chains on the training side."""
    prompts = ChainSum().prompts("train", seed).take(count)
    return [{"prompt": str(prompt.content), "completion": prompt.columns["solution"]} for prompt in prompts]


def refused(sentence: str, source: Any) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        read_demonstrations(source)
    assert "\n" not in str(error.value)


def test_text_chat_and_whole_chats_are_the_same_rows(tmp_path: Path) -> None:
    question, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
    forms: list[dict[str, Any]] = [
        {"prompt": [question], "completion": "hello", "answer": "x"},
        {"prompt": [question], "completion": [answer], "answer": "x"},
        {"messages": [question, answer], "answer": "x"},
        {"prompt": [question], "demonstration": "hello", "answer": "x"},
        {"prompt": [question], "response": [answer], "answer": "x"},
    ]
    rows = read_demonstrations(write(tmp_path / "e.jsonl", *forms)).rows
    assert {row.key for row in rows} == {rows[0].key} and [row.columns["completion"] for row in rows] == ["hello"] * 5
    assert all(row.answer == "x" and row.content == [question] for row in rows)


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).to_parquet(str(tmp_path / "e.parquet"))
    chat = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}]
    datasets.Dataset.from_list(chat).to_parquet(str(tmp_path / "c.parquet"))
    assert read_demonstrations(tmp_path / "e.parquet").digest == read_demonstrations(write(tmp_path / "e.jsonl", *ROWS)).digest
    assert read_demonstrations(tmp_path / "c.parquet").rows[0].columns["completion"] == "hello"


def test_malformed_files_are_one_sentence(tmp_path: Path) -> None:
    good = ROWS[0]
    refused("There is no file of expert rows at nowhere.jsonl", "nowhere.jsonl")
    refused(r"There are no expert rows in .*e.jsonl: the file is empty; give at least one", write(tmp_path / "e.jsonl", ""))
    refused(r"Line 2 of .*e.jsonl is not JSON", write(tmp_path / "e.jsonl", good, "{"))
    refused(r"Line 3 of .*e.jsonl has no completion: .* \(it has prompt\)", write(tmp_path / "e.jsonl", good, "", {"prompt": "1="}))
    refused(r"Line 1 of .*e.jsonl has no column 'prompt'", write(tmp_path / "e.jsonl", {"completion": "a"}))
    refused("Line 1 of .* has an empty completion", write(tmp_path / "e.jsonl", good | {"completion": " "}))
    refused("Line 1 of .* has a completion of type int", write(tmp_path / "e.jsonl", good | {"completion": 3}))
    user = {"role": "user", "content": "hi"}
    refused("Line 1 of .* has no completion: .*whole chat", write(tmp_path / "e.jsonl", {"messages": [user, user]}))
    refused("Expert rows cannot be read from .*e.txt", write(tmp_path / "e.txt", good))
    refused("Row 2 of the expert rows has no completion", [good, {"prompt": "1="}])


def test_several_completions_are_chosen_by_seed_and_number() -> None:
    rows = read_demonstrations([{"prompt": "1=", "completion": text} for text in "abcd"])
    prompt = rows.rows[0]
    assert sorted(rows.chosen(prompt, 0, 5, 4)) == list("abcd") and rows.chosen(prompt, 0, 5, 6)[4:] == rows.chosen(prompt, 0, 5, 2)
    assert rows.chosen(prompt, 0, 5) == rows.chosen(prompt, 0, 5)
    assert len({rows.chosen(prompt, 0, number)[0] for number in range(30)}) == 4
    assert [rows.chosen(prompt, 0, n) for n in range(9)] != [rows.chosen(prompt, 1, n) for n in range(9)]


def test_every_epoch_of_the_stream_has_every_row_once_in_a_new_order() -> None:
    stream = read_demonstrations(ROWS * 2).stream(0)
    first, second = ([prompt.content for prompt in stream.take(20)] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(row["prompt"] for row in ROWS * 2) and first != second
    assert sorted(prompt.content for prompt in read_demonstrations(ROWS * 2).prompts(0).take(10)) == sorted(row["prompt"] for row in ROWS)


def test_rows_take_the_tasks_answers_and_unknown_prompts_are_refused() -> None:
    rows = read_demonstrations(chains(20)).within(ChainSum())
    assert len(rows) == 20 and all(row.columns["completion"].endswith(f"#{row.answer}") for row in rows.rows)
    for content in ("1+2=", "hello", "10+2+3=", "1-2-3=", "01+2+3="):
        with pytest.raises(RheostatError, match=r"Row 1 of the expert rows is for the prompt .*, which chain-sum never draws: remove"):
            read_demonstrations([{"prompt": content, "completion": "#1"}]).within(ChainSum())
    task = FilePrompts([{"prompt": "a", "answer": "b", "level": 3}], validation_share=0.0)
    found = read_demonstrations([{"prompt": "a", "completion": "c"}]).within(task).rows[0]
    assert found.answer == "b" and found.columns["level"] == 3 and found.columns["completion"] == "c"
    with pytest.raises(RheostatError, match=r"Row 2 of .* is for the prompt 'x' \(key .*\), which prompts never draws"):
        read_demonstrations([{"prompt": "a", "completion": "c"}, {"prompt": "x", "completion": "c"}]).within(task)


def test_what_is_validated_on_is_never_learned_from() -> None:
    prompts = [{"prompt": f"question {i}", "answer": "a"} for i in range(60)]
    task = FilePrompts(prompts, validation_share=0.3)
    rows = read_demonstrations([{**row, "completion": "a"} for row in prompts]).within(task)
    held_out = len(task.validation())
    assert rows.dropped == {"validation prompts": held_out} and len(rows) == 60 - held_out
    assert not any(is_validation(row.key, 0.3) for row in rows.rows)
    apart = FilePrompts(prompts[:30], validation=prompts[30:])
    assert read_demonstrations([{**row, "completion": "a"} for row in prompts]).within(apart).dropped == {"validation prompts": 30}


def test_long_rows_are_an_error_or_counted_never_cut() -> None:
    rows, tokenizer = read_demonstrations([*ROWS, {"prompt": "1+1=", "completion": "#" * 30}]), character_tokenizer()
    assert len(rows.at_most(31, tokenizer)) == 11  # the end token counts
    with pytest.raises(RheostatError, match=r"Row 11 .* has a completion of 31 tokens with its end, more than the 30 .*expert_long drop"):
        rows.at_most(30, tokenizer)
    kept = rows.at_most(30, tokenizer, "drop")
    assert kept.dropped == {"too long": 1} and len(kept) == 10 and kept.places[-1].startswith("Row 10")
    with pytest.raises(RheostatError, match=r"all were left out \(11 too long\); give at least one row"):
        rows.at_most(3, tokenizer, "drop")
    with pytest.raises(RheostatError, match=r"Row 1 of .* has a completion that the tokenizer cannot encode"):
        read_demonstrations([{"prompt": "1+1=", "completion": "words"}]).at_most(30, tokenizer)


def test_wrong_rows_can_be_left_out() -> None:
    wrong = [row | {"completion": "#x"} for row in chains(3, seed=1)]
    rows = read_demonstrations([*chains(5), *wrong])
    judged = rows.within(ChainSum()).worth(1.0, ChainSum().verifier())
    assert len(judged) == 5 and judged.dropped == {"with a reward below 1": 3}
    with pytest.raises(RheostatError, match=r"all were left out \(8 without a grade\)"):
        rows.worth(1.0, ChainSum().verifier())
    assert isinstance(judged, Demonstrations) and len(judged.places) == 5
