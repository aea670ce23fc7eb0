"""Prompt files as people have them: every row is looked at before training, and a run goes on only with the rows it began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language import Prompt, encode_prompt, load_prompts
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings_from_options import settings_for
from tests.border.models import CHATML, SMALL, build, sums, tokenizer, write_rows
from tests.crash import differences
from tests.training.test_run import StopAfter

LONG = {"prompt": [{"role": "user", "content": "1 + " * 400}], "answer": "1"}
SYSTEM = {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}], "answer": "2"}


def train(model: str, prompts: Any, digits: str, folder: Path, **options: Any) -> Any:
    return rheostat.train("grpo", model=model, prompts=prompts, rewards=(digits,), directory=folder, **(SMALL | options))


def with_bad(folder: Path, bad: dict[str, Any], place: int = 11) -> str:
    rows = sums()
    rows.insert(place, bad)
    return write_rows(folder / "rows.jsonl", rows)


@pytest.mark.parametrize("place", [0, 11, 20])
def test_a_prompt_that_is_too_long_is_found_before_training(place: int, model: str, digits: str, tmp_path: Path) -> None:
    with pytest.raises(
        RheostatError, match=rf"Line {place + 1} of .* is a prompt of \d+ tokens, more than the limit of 244: .*--long drop"
    ):
        train(model, with_bad(tmp_path, LONG, place), digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_or_dropped_counted_and_told(model: str, digits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = with_bad(tmp_path, LONG)
    main(["train", "grpo", "--model", model, "--prompts", path, "--reward", digits, "--long", "drop", "--steps", "2", "--prompts-per-batch",
          "4", "--group-size", "4", "--max-new-tokens", "12", "--evaluate-every", "0", "--evaluation-episodes", "0", "--threads", "1",
          "--directory", str(tmp_path / "run")])  # fmt: skip
    assert "1 of 21 prompts of" in capsys.readouterr().err
    rows = Run.load(tmp_path / "run").metrics
    assert [row["prompts_dropped"] for row in rows] == [1, 1]


def test_dropping_everything_is_refused(model: str, digits: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=r"No training prompt .* is left, because 2 were dropped"):
        train(model, write_rows(tmp_path / "p.jsonl", [LONG, LONG | {"answer": "2"}]), digits, tmp_path / "run", long="drop")


def test_a_template_that_refuses_a_role_is_found_before_training(digits: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=r"Line 12 of .* cannot be used. The chat template cannot render .*System role not supported"):
        train(build(tmp_path / "model", "nosystem"), with_bad(tmp_path, SYSTEM), digits, tmp_path / "run", long="drop")


@pytest.mark.parametrize("column", ["prompt", "answer", "completion", "deep"])
def test_half_a_surrogate_pair_is_found_before_training(column: str, model: str, digits: str, tmp_path: Path) -> None:
    bad: dict[str, Any] = {"prompt": "1?", "answer": "1", "completion": "1"}
    bad |= {"deep": [{"text": "\udc00"}]} if column == "deep" else {column: "1 \ud83d 1"}
    with pytest.raises(RheostatError, match=rf"Line 12 of .* holds half a surrogate pair in its column '{column}'"):
        train(model, with_bad(tmp_path, bad), digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_whole_pairs_are_text(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "\\ud83d\\ude00"}\n', encoding="utf-8")
    assert load_prompts(path, validation_share=0).named[0][1].content == "\U0001f600"


# --- special tokens ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "prompt", "expected"),
    [
        ("adds_eos", "1?", "<bos>1?"),
        ("adds_eos", "<bos>1?", "<bos>1?"),
        ("bos", "1?", "<bos>1?"),
        ("bos", "<bos><|im_start|>user\n1?<|im_end|>\n", "<bos><|im_start|>user\n1?<|im_end|>\n"),
        ("bos", [{"role": "user", "content": "1?"}], "<bos><|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n"),
        ("qwen3", "1?", "1?"),
        ("qwen3", "1?<|im_end|>", "1?<|im_end|>"),  # written by the user, and meant
    ],
)
def test_one_beginning_and_no_end(kind: str, prompt: Any, expected: str) -> None:
    from tests.border.models import TOKENIZERS

    words = tokenizer(**TOKENIZERS.get(kind, {}))
    assert words.decode(encode_prompt(Prompt(prompt), words)) == expected


def test_tools_and_options_of_a_row_reach_the_template_or_are_refused() -> None:
    words = tokenizer(template="{% for t in tools or [] %}[{{ t.name }}]{% endfor %}{{ flag or '' }}" + CHATML)
    chat = [{"role": "user", "content": "1?"}]
    rows = [
        {"prompt": chat, "tools": [{"name": "add"}], "chat_template_kwargs": {"flag": "yes"}},
        {"prompt": chat, "tools": '[{"name": "b"}]'},
    ]
    first, second = (words.decode(encode_prompt(prompt, words)) for _, prompt in load_prompts(rows, validation_share=0).named)
    assert first.startswith("[add]yes<|im_start|>") and second.startswith("[b]<|im_start|>")
    with pytest.raises(RheostatError, match="does not show it: remove the column 'tools'"):
        encode_prompt(Prompt(chat, columns={"tools": [{"name": "add"}]}), tokenizer())
    with pytest.raises(RheostatError, match="is text but has 'tools'"):
        encode_prompt(Prompt("1?", columns={"tools": [{"name": "add"}]}), words)
    for bad in ({"tools": 3}, {"tools": "not json"}, {"chat_template_kwargs": [1]}):
        with pytest.raises(RheostatError, match="Row 1 of the prompts has a column"):
            load_prompts([{"prompt": chat, **bad}])


# --- options ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"promt_column": "question"}, "Unknown option of your own prompts 'promt_column': did you mean prompt_column"),
        ({"max_prompt_tokens": "abc"}, "must be a number of tokens"),
        ({"max_new_tokens": 0}, "must be a number of tokens"),
        ({"validation_share": "x"}, "must be a number in"),
        ({"stop": "</answer>"}, "must be a list of texts"),
        ({"stop": [""]}, "must be a list of texts"),
        ({"stop_ids": ["a"]}, "must be a list of token ids"),
        ({"stop_ids": [99999]}, "outside the model's vocabulary"),
        ({"template_options": [1]}, "must be an object"),
        ({"template_options": {"enable_thinking": False}}, "does not read enable_thinking"),
        ({"on_long": "drop"}, "--long drop"),
    ],
)
def test_options_of_own_prompts_are_checked(
    options: dict[str, Any], message: str, model: str, prompts: str, digits: str, tmp_path: Path
) -> None:
    with pytest.raises(RheostatError, match=message):
        train(model, prompts, digits, tmp_path / "run", environment_options=options)
    assert not (tmp_path / "run").exists()


def test_stops_end_completions(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    words = tokenizer()
    letter = words.encode("a", add_special_tokens=False)[0]
    for name, options in {"texts": {"stop": ["a", "e"]}, "ids": {"stop_ids": [letter]}}.items():
        run = train(model, prompts, digits, tmp_path / name, environment_options=options, max_new_tokens=200, prompts_per_batch=8)
        graded = run.method.context.graded.trajectories
        ends = [row[mask].tolist()[-1] for row, mask in zip(graded.action, graded.mask, strict=True)]
        stopped = [words.decode([end]) for end, over in zip(ends, graded.terminated.any(1).tolist(), strict=True) if over]
        assert any("a" in text for text in stopped) and run.metrics[-1]["truncated_share"] < 1


def test_template_options_reach_every_prompt(digits: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "model")
    path = Path(folder) / "chat_template.jinja"
    path.write_text(CHATML.replace("assistant\n{%", "assistant\n{% if enable_thinking is false %}<none>{% endif %}{%"))
    prompts = write_rows(tmp_path / "p.jsonl", sums())
    run = train(folder, prompts, digits, tmp_path / "run", environment_options={"template_options": {"enable_thinking": False}})
    rows = run.method.context.graded.trajectories
    words = LanguagePolicy.load(folder).tokenizer
    assert all("<none>" in words.decode(row[real].tolist()) for row, real in zip(rows.action, rows.attention, strict=True))


# --- the same rows on resuming ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["fewer", "another answer", "another order", "another column", "none"])
def test_a_run_goes_on_only_with_the_rows_it_began_with(change: str, model: str, digits: str, tmp_path: Path) -> None:
    path = Path(write_rows(tmp_path / "p.jsonl", sums(level=1)))
    options = {key: value for key, value in SMALL.items() if key != "progress"} | {"steps": 3, "checkpoint_every": 1}
    settings = settings_for("grpo", "prompts", model=model, prompts=str(path), rewards=(digits,), **options)
    Run.create(tmp_path / "whole", settings).train()
    halted = Run.create(tmp_path / "halted", settings)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if change == "fewer":
        rows.pop()
    elif change == "another answer":
        rows[3]["answer"] = "no"
    elif change == "another order":
        rows[3], rows[4] = rows[4], rows[3]
    elif change == "another column":
        rows[3]["level"] = 2
    write_rows(path, rows)
    if change == "none":
        Run.load(tmp_path / "halted").train()
        assert differences(tmp_path / "whole", tmp_path / "halted") == []
    else:
        with pytest.raises(RheostatError, match=r"begun with other prompts than .*p.jsonl holds now: put the file back"):
            Run.load(tmp_path / "halted")
