"""The user's own prompts, good and bad."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.language import FilePrompts, load_prompts

ROWS = [{"prompt": f"what is {i}+{i}?", "answer": str(2 * i), "level": i % 3} for i in range(40)]


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


def keys(task: FilePrompts) -> set[str]:
    return {prompt.key for prompt in task.block(0, "train", 0)} | {prompt.key for prompt in task.block(0, "validation", 0)}


def test_json_lines(tmp_path):
    task = load_prompts(write(tmp_path / "p.jsonl", *ROWS, ""))
    prompt = next(prompt for prompt in task.block(0, "train", 0) if prompt.content == "what is 4+4?")
    assert prompt.answer == "8" and prompt.columns == {"answer": "8", "level": 1}
    assert len(keys(task)) == 40 and len(task) < 40
    assert task.verifier().score([prompt.rollout("8"), prompt.rollout("7")]).reward.tolist() == [1.0, 0.0]


def test_every_source_gives_the_same_prompts(tmp_path):
    datasets, parquet = pytest.importorskip("datasets"), pytest.importorskip("pyarrow.parquet")
    table = datasets.Dataset.from_list(ROWS)
    parquet.write_table(table.data.table, tmp_path / "p.parquet")
    table.save_to_disk(str(tmp_path / "saved"))
    expected = keys(FilePrompts(ROWS))
    for source in (tmp_path / "p.parquet", str(tmp_path / "saved"), table, ROWS, (row for row in ROWS)):
        assert keys(load_prompts(source)) == expected
    saved = load_prompts(str(tmp_path / "saved"))
    assert saved.block(0, "train", 7)[0] == FilePrompts(ROWS).block(0, "train", 7)[0]


def test_chat_messages_from_parquet(tmp_path):
    datasets = pytest.importorskip("datasets")
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    rows = [{"prompt": chat, "data_source": "x", "reward_model": {"style": "rule", "ground_truth": "72"}}]
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "verl.parquet"))
    prompt = load_prompts(tmp_path / "verl.parquet", validation_share=0).block(0, "train", 0)[0]
    assert prompt.content == chat and prompt.answer == "72" and prompt.columns["data_source"] == "x"


def test_every_epoch_has_every_prompt_once_in_a_new_order():
    task = FilePrompts(ROWS, validation_share=0.0)
    first, second = ([prompt.content for prompt in task.block(number, "train", 0)] for number in (0, 1))
    assert sorted(first) == sorted(second) == sorted(row["prompt"] for row in ROWS) and first != second


def test_duplicates_stay_on_one_side():
    task = FilePrompts(ROWS * 3, validation_share=0.3)
    train, held_out = ({prompt.key for prompt in task.block(0, split, 0)} for split in ("train", "validation"))
    assert train and held_out and not train & held_out


def test_a_validation_file_of_its_own(tmp_path):
    held_out = write(tmp_path / "v.jsonl", *ROWS[30:])
    task = load_prompts(write(tmp_path / "p.jsonl", *ROWS[:30]), validation=held_out)
    assert len(task) == 30 and [prompt.answer for prompt in task.validation()] == [row["answer"] for row in ROWS[30:]]
    with pytest.raises(RheostatError, match=r"10 prompts of .* are also in the validation rows"):
        load_prompts(write(tmp_path / "p.jsonl", *ROWS), validation=held_out)


def test_columns_can_be_named():
    task = FilePrompts([{"q": "a", "gold": 5, "answer": 6}], prompt_column="q", answer_column="gold", validation_share=0)
    assert task.block(0, "train", 0)[0].answer == 5


def test_own_rewards_with_weights():
    task = FilePrompts(ROWS, ["exact", lambda completions: [1.0] * len(completions)], reward_weights=[1.0, 0.5])
    prompt = task.block(0, "train", 0)[0]
    assert task.verifier().score([prompt.rollout(prompt.answer)]).reward.tolist() == [1.5]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([ROWS[0], '{"prompt": "a"'], r"Line 2 of .*p.jsonl is not JSON"),
        ([ROWS[0], "", "[1, 2]"], r"Line 3 of .*p.jsonl is a JSON list"),
        ([ROWS[0], "", {"question": "a", "answer": "b"}], r"Line 3 of .* has no column 'prompt' \(it has question, answer\)"),
        ([{"prompt": None}], r"Line 1 of .* has no column 'prompt'"),
        ([{"prompt": "  "}], "empty prompt"),
        ([{"prompt": 5}], "prompt of type int"),
        ([{"prompt": []}], "prompt of type list"),
        ([{"prompt": [{"role": "user"}]}], "needs a 'role' and a 'content'"),
        ([{"prompt": ["hi"]}], "needs a 'role' and a 'content'"),
        (["", ""], "There are no prompts in"),
    ],
)
def test_malformed_lines(tmp_path, lines, message):
    with pytest.raises(RheostatError, match=message):
        load_prompts(write(tmp_path / "p.jsonl", *lines))


def test_other_malformed_sources(tmp_path):
    (tmp_path / "p.txt").write_text("prompt\n1\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}\n')
    (tmp_path / "no.parquet").write_bytes(b"hello")
    (tmp_path / "folder").mkdir()
    for source, message in (
        (tmp_path / "nowhere.jsonl", "There is no file of prompts"),
        (tmp_path / "p.txt", r"give a \.jsonl, .*\.parquet file"),
        (tmp_path / "latin.jsonl", "not text in UTF-8"),
        (tmp_path / "no.parquet", "cannot be read as a parquet file"),
        (tmp_path / "folder", "no folder written by"),
        ({"train": ROWS, "test": ROWS}, "keys train, test: pass one"),
        (5, "cannot be read from a int"),
        ([], "There are no prompts"),
        (["text"], "Row 1 of the prompts is a str"),
    ):
        with pytest.raises(RheostatError, match=message):
            load_prompts(source)
    with pytest.raises(RheostatError, match="no answer column 'gold'"):
        FilePrompts(ROWS, answer_column="gold")
    with pytest.raises(RheostatError, match="validation_share lies in"):
        FilePrompts(ROWS, validation_share=1.0)
    with pytest.raises(RheostatError, match="no validation prompts"):
        FilePrompts(ROWS, validation_share=0.0).validation()
    with pytest.raises(RheostatError, match="fell into validation"):
        FilePrompts(ROWS[:1], validation_share=0.999)


def test_missing_extras(tmp_path, monkeypatch):
    (tmp_path / "p.parquet").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (tmp_path / "p.parquet", tmp_path / "folder"):
        with pytest.raises(MissingExtra, match=r"pip install .*\[data\]"):
            load_prompts(source)
