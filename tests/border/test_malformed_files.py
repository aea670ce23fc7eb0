"""Files of prompts as they come: cut, mixed, in other encodings, nested; and the same rows have one digest in every kind of file."""

from __future__ import annotations

import csv
import datetime
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language import FilePrompts, load_prompts
from rheostat.tasks.language.demonstrations import read_demonstrations

ROW = '{"prompt": "a", "answer": "b"}'
OTHER = '{"prompt": "c", "answer": "d"}'

MALFORMED: dict[str, tuple[str, bytes, str]] = {
    "cut line": ("p.jsonl", f"{ROW}\n{OTHER[:12]}".encode(), r"Line 2 of .* is not JSON"),
    "cut array": ("p.json", f"[{ROW},\n{OTHER}".encode(), r"p.json is not JSON .*at line 2.*so it has to be one to its end"),
    "lines after an array": ("p.json", f"[{ROW}]\n{OTHER}\n".encode(), r"is not JSON \(Extra data at line 2"),
    "an array after lines": ("p.json", f"{ROW}\n[{OTHER}]\n".encode(), "Line 2 of .* is a JSON list"),
    "an array of texts": ("p.json", b'["a", "b"]', "Entry 1 of .* is a JSON str"),
    "an object on several lines": ("p.json", b'{\n "prompt": "a"\n}\n', "Line 1 of .* is not JSON"),
    "two objects on a line": ("p.jsonl", f"{ROW} {OTHER}".encode(), "Line 1 of .* is not JSON .*Extra data"),
    "endless nesting": ("p.jsonl", b'{"prompt": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "Line 1 of .* is nested too deep"),
    "deep nesting": ("p.jsonl", b'{"prompt": "a", "x": ' + b"[" * 80 + b"]" * 80 + b"}", "column 'x' that is nested more than 64 deep"),
    "an endless number": ("p.jsonl", b'{"prompt": "a", "x": ' + b"1" * 5000 + b"}", "Line 1 of .* holds what cannot be read"),
    "Latin-1": ("p.jsonl", '{"prompt": "é"}'.encode("latin-1"), "is not text in UTF-8"),
    "Latin-1 in a later line": ("p.jsonl", f"{ROW}\n".encode() * 2000 + '{"prompt": "é"}'.encode("latin-1"), "is not text in UTF-8"),
    "UTF-16": ("p.jsonl", ROW.encode("utf-16"), "is not text in UTF-8"),
    "Latin-1 in a table": ("p.csv", "prompt\né\n".encode("latin-1"), "is not text in UTF-8"),
    "an open quote": ("p.csv", b'prompt\n"a\n', "is not a table"),
    "too many cells": ("p.csv", b"prompt,answer\na,b,c\n", "Line 2 of .* more cells than the header"),
    "a column twice": ("p.csv", b"prompt,prompt\na,b\n", "names a column twice"),
    "no parquet": ("p.parquet", b"PAR1 and more PAR1", "cannot be read as a parquet file"),
    "an empty parquet": ("p.parquet", b"", "cannot be read as a parquet file"),
    **{f"an empty {kind}": (f"p.{kind}", b"", "There are no prompts in") for kind in ("jsonl", "json", "ndjson", "csv", "tsv")},
    "only a mark": ("p.jsonl", b"\xef\xbb\xbf", "There are no prompts in"),
    "only blanks": ("p.jsonl", b" \n\t\n \n", "There are no prompts in"),
    "an empty array": ("p.json", b" [ ]\n", "There are no prompts in"),
    "only a header": ("p.csv", b"prompt,answer\n", "There are no prompts in"),
    "tools that are no JSON": ("p.csv", b"prompt,tools\na,[[[\n", "'tools' that is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_said_in_one_sentence(name: str, tmp_path: Path) -> None:
    file, content, message = MALFORMED[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(RheostatError, match=message) as caught:
        load_prompts(tmp_path / file)
    assert "\n" not in str(caught.value)
    with pytest.raises(RheostatError):
        read_demonstrations(tmp_path / file)


def test_a_cut_parquet_and_a_damaged_folder(tmp_path: Path) -> None:
    datasets, parquet = pytest.importorskip("datasets"), pytest.importorskip("pyarrow.parquet")
    table = datasets.Dataset.from_list([{"prompt": f"{n}?", "answer": str(n)} for n in range(500)])
    parquet.write_table(table.data.table, tmp_path / "p.parquet")
    whole = (tmp_path / "p.parquet").read_bytes()
    for middle in (len(whole) // 3, len(whole) // 2):  # the end is whole, the pages are not
        (tmp_path / "cut.parquet").write_bytes(whole[:4] + bytes(middle) + whole[4 + middle :])
        with pytest.raises(RheostatError, match="cannot be read as a parquet file"):
            load_prompts(tmp_path / "cut.parquet")
    table.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(RheostatError, match="cannot be read as a saved data set"):
        load_prompts(tmp_path / "saved")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(ROW)

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RheostatError, match=r"p.jsonl cannot be read \(Permission denied\)"):
        load_prompts(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", f"\ufeff{ROW}\r\n\r\n{OTHER}\r\n"),
        ("p.jsonl", f"{ROW}\n\ufeff{OTHER}"),
        ("p.json", f"\ufeff [\n{ROW},\n{OTHER}]\n"),
        ("p.csv", "\ufeffprompt,answer\r\na,b\r\nc,d\r\n"),
        ("p.tsv", "prompt\tanswer\na\tb\nc\td\n"),
    ],
)
def test_marks_and_ends_of_lines_change_nothing(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert load_prompts(tmp_path / name).digest == FilePrompts([json.loads(ROW), json.loads(OTHER)]).digest


def test_a_cell_may_be_a_long_text(tmp_path: Path) -> None:
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "answer"], ["word " * 60_000, "x"]])
    assert len(load_prompts(tmp_path / "p.csv", validation_share=0.0).named[0][1].content) == 300_000


# --- one digest -------------------------------------------------------------------------------------------------------------------------

CHAT = [{"role": "system", "content": "brief"}, {"role": "user", "content": "hi"}]
NESTED: list[dict[str, Any]] = [
    {"prompt": CHAT, "answer": "1", "meta": {"level": 1, "tags": ["x", "y"]}, "score": 0.5, "from": 7, "note": "only here"},
    {"prompt": CHAT[1:], "answer": "2", "meta": {"level": 2, "tags": []}, "score": 52.0},
]


def test_the_digest_is_that_of_the_rows_and_not_of_the_file(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in NESTED))
    (tmp_path / "p.json").write_text(json.dumps(NESTED, indent=1))
    table = datasets.Dataset.from_list(NESTED)  # fills gaps with null
    table.to_parquet(str(tmp_path / "p.parquet"))
    table.save_to_disk(str(tmp_path / "saved"))
    arrays = [{key: np.array(value) if key == "from" else value for key, value in row.items()} for row in NESTED]
    reversed_columns = [dict(reversed(row.items())) for row in NESTED]
    gaps = [{"note": None, "from": float("nan")} | row for row in NESTED]
    sources = [*(tmp_path / name for name in ("p.jsonl", "p.json", "p.parquet", "saved")), table, NESTED, arrays, reversed_columns, gaps]
    digests = {str(source)[-60:]: load_prompts(source).digest for source in sources}
    assert len(set(digests.values())) == 1, digests
    changed = [NESTED[0], NESTED[1] | {"meta": {"level": 3, "tags": []}}]
    assert load_prompts(changed).digest not in digests.values()
    long = [[NESTED[0] | {"x": np.arange(2000) + shift}, NESTED[1]] for shift in (0, np.eye(1, 2000, 1000, dtype=int)[0])]
    assert load_prompts(long[0]).digest != load_prompts(long[1]).digest  # numpy writes the middle of long arrays as three dots


ODD = """
import datetime, sys
from decimal import Decimal
from rheostat.tasks.language import FilePrompts
class Thing: pass
row = {"prompt": "a", "s": set("abcdefgh"), "t": Thing(), "d": datetime.date(2020, 1, 1), "n": Decimal("1.5"), 3: {1: "x", "1b": b"y"}}
print(FilePrompts([row]).digest)
"""


def test_the_digest_is_the_same_in_every_process() -> None:
    """Sets come in another order and objects lie elsewhere in each."""
    found = []
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        found.append(subprocess.run([sys.executable, "-c", ODD], env=environment, capture_output=True, text=True, check=True).stdout)
    assert found[0] == found[1] and len(found[0].strip()) == 16
    for one, other in ((datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)), (Decimal("1.5"), Decimal("1.6")), (b"a", b"b")):
        assert FilePrompts([{"prompt": "a", "x": one}]).digest != FilePrompts([{"prompt": "a", "x": other}]).digest


# --- folders of adapters ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "adapter_config.json is damaged"),
        (b'{"base_model_name_or_path": "x"', "adapter_config.json is damaged"),
        (b"[]", "is damaged .a list instead of an object"),
        (b"{}", "do not say what they sit on"),
        (b'{"base_model_name_or_path": 3}', "do not say what they sit on"),
        ('{"base_model_name_or_path": "é"}'.encode("latin-1"), "adapter_config.json is damaged"),
        (b"[" * 100_000, "adapter_config.json is damaged"),
        (b'{"base_model_name_or_path": "./nowhere", "peft_type": "LORA"}', "Could not load a model from './nowhere'"),
    ],
)
def test_damaged_adapter_configurations(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes(content)
    with pytest.raises(RheostatError, match=message):
        LanguagePolicy.load(str(tmp_path))


@pytest.mark.parametrize("fault", ["no weights", "cut weights", "another rank", "unknown kind"])
def test_damaged_adapters(fault: str, model: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model), peft.LoraConfig(r=4, target_modules="all-linear"))
    adapted.save_pretrained(tmp_path)
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    if fault == "no weights":
        weights.unlink()
    elif fault == "cut weights":
        weights.write_bytes(weights.read_bytes()[:100])
    else:
        change = {"r": 8} if fault == "another rank" else {"peft_type": "NOPE"}
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(RheostatError, match="cannot be put on their base model") as caught:
        LanguagePolicy.load(str(tmp_path))
    assert "\n" not in str(caught.value)
