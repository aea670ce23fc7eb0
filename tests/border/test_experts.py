"""Expert rows as people have them, and how they end."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rheostat
from rheostat.collect.language.experts import expert_rows
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language import load_prompts
from rheostat.tasks.language.demonstrations import read_demonstrations
from rheostat.tasks.language.encoding import Turn, encode_prompt
from tests.border.models import CHATML, SMALL, build, sums, tokenizer, write_rows

CHAT = [{"role": "user", "content": "1 + 2?"}]
ASKED = "<|im_start|>user\n1 + 2?<|im_end|>\n<|im_start|>assistant\n"


def taught(folder: str, row: dict[str, Any]) -> tuple[str, Any]:
    """The text a model is taught by an expert row, and the row."""
    policy = LanguagePolicy.load(folder)
    shown = read_demonstrations([{"prompt": CHAT, **row}]).rows
    prompts = [(prompt, encode_prompt(prompt, policy.tokenizer)) for prompt in shown]
    rows = expert_rows(SimpleNamespace(policy=policy, max_new_tokens=99), prompts, [shown[0].columns["completion"]], [0])  # type: ignore[arg-type]
    return policy.tokenizer.decode(rows.action[0][rows.attention[0]].tolist()), rows


@pytest.mark.parametrize(
    ("kind", "row", "text"),
    [
        ("qwen3", {"completion": "it is 3"}, ASKED + "it is 3<|im_end|>"),
        ("qwen3", {"completion": "it is 3<|im_end|>"}, ASKED + "it is 3<|im_end|>"),
        ("two_ends", {"completion": "it is 3"}, ASKED + "it is 3<|im_end|>"),  # not its tokenizer's <|endoftext|>
        ("two_ends", {"prompt": ASKED, "completion": "it is 3"}, ASKED + "it is 3<|im_end|>"),  # rendered by the user
        ("two_ends", {"prompt": "1 + 2 =", "completion": "3"}, "1 + 2 =3<|endoftext|>"),
        ("thinks", {"completion": "<think>\n1 + 2\n</think>\n3"}, ASKED + "<think>\n1 + 2\n</think>\n3<|im_end|>"),
        ("thinks", {"completion": "<think>1 + 2</think>3"}, ASKED + "<think>\n1 + 2</think>3<|im_end|>"),
        ("thinks", {"completion": "1 + 2\n</think>\n3"}, ASKED + "<think>\n1 + 2\n</think>\n3<|im_end|>"),
        ("thinks", {"completion": "<answer>3</answer>"}, ASKED + "<think>\n<answer>3</answer><|im_end|>"),
        ("qwen3", {"completion": "<think>\nno\n</think>"}, ASKED + "<think>\nno\n</think><|im_end|>"),
    ],
)
def test_a_turn_is_taught_as_the_template_writes_it(kind: str, row: dict[str, Any], text: str, tmp_path: Path) -> None:
    written, rows = taught(build(tmp_path / "model", kind), row)
    assert written == text and rows.terminated.sum() == 1 and not rows.truncated.any()


@pytest.mark.parametrize("mark", [{"truncated": True}, {"finish_reason": "length"}, {"stop_reason": "max_tokens"}])
def test_a_completion_that_was_cut_is_not_taught_to_stop(mark: dict[str, Any], tmp_path: Path) -> None:
    text, rows = taught(build(tmp_path / "model"), {"completion": "Let me think. First,", **mark})
    assert text == ASKED + "Let me think. First," and not rows.terminated.any() and rows.truncated[0, -1]
    assert taught(build(tmp_path / "again"), {"completion": "3", "truncated": False, "finish_reason": "stop"})[0].endswith("<|im_end|>")


def test_cut_rows_stay_cut_in_groups(digits: str, model: str, tmp_path: Path) -> None:
    rows = [row | {"completion": "it goes on and", "truncated": True} for row in sums()]
    path = write_rows(tmp_path / "p.jsonl", rows)
    options = SMALL | {"steps": 1, "max_new_tokens": 24, "dial": {"expert_share": 0.25}}
    run = rheostat.train("grpo", model=model, prompts=path, experts=path, rewards=(digits,), directory=tmp_path / "run", **options)
    graded = run.method.context.graded
    mine = [row for row, text in enumerate(graded.completions) if text == "it goes on and"]
    assert len(mine) == 4 and graded.trajectories.truncated[mine].any(1).all() and not graded.trajectories.terminated[mine].any()


def test_the_end_of_templates() -> None:
    gemma = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}<e>\n{% endfor %}{% if add_generation_prompt %}<s>model\n{% endif %}"
    words = tokenizer(template=gemma, extra=("<s>", "<e>"))
    turn = Turn(words)
    assert words.decode([turn.end]) == "<e>" and turn.opening == "<s>model\n"
    assert Turn(tokenizer(template=None)).end == tokenizer().eos_token_id  # without a template, the tokenizer's own
    unmarked = tokenizer(template="{% for m in messages %}{{ m.content }}\n{% endfor %}")
    assert Turn(unmarked).end == unmarked.eos_token_id
    assert Turn(tokenizer(template="{{ raise_exception('no') }}")).end == tokenizer().eos_token_id
    assert Turn(tokenizer(template=CHATML)).end == tokenizer().convert_tokens_to_ids("<|im_end|>")


# --- forms of files ---------------------------------------------------------------------------------------------------------------------


def forms(folder: Path) -> dict[str, Path]:
    rows = sums(12)
    text = [{"prompt": row["prompt"][0]["content"], "answer": row["answer"]} for row in rows]
    found = {}
    for name, content in {
        "array.json": json.dumps(rows, indent=1),
        "lines.json": "\n".join(map(json.dumps, rows)),
        "bom.jsonl": "\ufeff" + "\n".join(map(json.dumps, rows)),
        "bom-array.json": "\ufeff\n  " + json.dumps(rows),
    }.items():
        found[name] = folder / name
        found[name].write_text(content, encoding="utf-8")
    for name, delimiter, mark in (("sums.csv", ",", ""), ("bom.csv", ",", "\ufeff"), ("sums.tsv", "\t", "")):
        found[name] = folder / name
        with found[name].open("w", encoding="utf-8", newline="") as file:
            file.write(mark)
            table = csv.DictWriter(file, ["prompt", "answer"], delimiter=delimiter)
            table.writeheader()
            table.writerows(text)
    return found


def test_every_form_gives_the_same_prompts(tmp_path: Path) -> None:
    for name, path in forms(tmp_path).items():
        task = load_prompts(path, validation_share=0)
        contents = [prompt.content if isinstance(prompt.content, str) else prompt.content[0]["content"] for _, prompt in task.named]
        assert contents == [row["prompt"][0]["content"] for row in sums(12)], name
        assert [prompt.answer for _, prompt in task.named] == [row["answer"] for row in sums(12)], name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"prompt": "1"}, 3]', "Entry 2 of .*a.json is a JSON int"),
        ("b.json", '[{"prompt": "1"},\n', r"b.json is not JSON \(Expecting value at line 2.*one array"),
        ("c.csv", "prompt,answer\na,b,c\n", "Line 2 of .*c.csv has more cells than the header has names"),
        ("d.csv", "prompt,prompt\na,b\n", "names a column twice"),
        ("e.csv", "question\na\n", "Line 2 of .*e.csv has no column 'prompt'"),
        ("f.csv", "", "There are no prompts"),
        ("g.csv", 'prompt,answer\n"a,b\n', "is not a table"),
    ],
)
def test_malformed_forms_are_one_sentence(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(RheostatError, match=message):
        load_prompts(tmp_path / name)


def test_gaps_in_tables_are_gaps(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('prompt,answer,note\n"two\nlines",,x\n')
    ((_, prompt),) = load_prompts(tmp_path / "p.csv", validation_share=0).named
    assert prompt.content == "two\nlines" and prompt.answer is None and prompt.columns["note"] == "x"


COMPLETION = [{"role": "assistant", "content": "it is 3"}]


@pytest.mark.parametrize("column", ["completion", "target", "demonstration", "response", "messages"])
@pytest.mark.parametrize("method", ["sft", "luffy"])
def test_rows_that_bring_their_completion_need_no_second_file(column: str, method: str, model: str, digits: str, tmp_path: Path) -> None:
    if column == "messages":
        rows = [{"messages": [*row["prompt"], *COMPLETION], "answer": row["answer"]} for row in sums()]
    else:
        rows = [row | {column: COMPLETION} for row in sums()]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    options = {name: value for name, value in SMALL.items() if name != "group_size" or method != "sft"} | {"max_new_tokens": 24, "steps": 1}
    alone = rheostat.train(method, model=model, prompts=path, rewards=(digits,), directory=tmp_path / "alone", **options)
    both = rheostat.train(method, model=model, prompts=path, experts=path, rewards=(digits,), directory=tmp_path / "both", **options)
    for run in (alone, both):
        assert "it is 3" in run.method.context.graded.completions


def test_a_file_of_whole_chats_is_enough_for_sft(model: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": [*row["prompt"], *COMPLETION]} for row in sums()])
    options = {name: value for name, value in SMALL.items() if name != "group_size"} | {"max_new_tokens": 24, "steps": 2}
    run = rheostat.train("sft", model=model, experts=path, directory=tmp_path / "run", **options)
    assert run.metrics[-1]["policy_loss"] < run.metrics[0]["policy_loss"] + 1 and set(run.method.context.graded.completions) == {"it is 3"}
    with pytest.raises(RheostatError, match=r"is missing .*Name the answer column"):  # what is measured has to be graded
        measured = options | {"evaluate_every": 1, "environment_options": {"validation_share": 0.2}}
        rheostat.train("sft", model=model, experts=path, directory=tmp_path / "no", **measured)
