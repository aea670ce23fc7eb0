"""The report on files of expert rows: what it counts, and what it measures with a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.analysis.corpus import facts_of, latent_shift
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.experiments.corpora import encode, policy_of, pooled
from rheostat.tasks.language.demonstrations import read_demonstrations
from tests.border.conftest import model as model
from tests.border.models import SMALL, sums, write_rows
from tests.methods.test_language_methods import save

ROWS = [
    {"prompt": "1+2=", "completion": "#3"},
    {"prompt": "1+2=", "completion": "#3"},
    {"prompt": "1+2=", "completion": "1+2=3;#3"},
    {"prompt": "2+2=", "completion": "2+2=4;#4"},
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_what_is_counted_without_a_model(tmp_path: Path) -> None:
    (found,) = rheostat.corpus(write(tmp_path / "a.jsonl", ROWS))
    assert (found.rows, found.questions, found.duplicates, found.unit) == (4, 2, 0.25, "characters")
    assert (found.mean_length, found.median_length, found.longest) == (5.0, 5.0, 8)
    assert found.distance == pytest.approx((0 + 6 / 8 + 6 / 8) / 3) and found.entropy is None and found.latent_shift is None
    assert facts_of("alone", ["a", "b"], ["x", "y"], "characters").distance is None


def test_the_entropy_is_the_models_own(small: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    (found,) = rheostat.corpus(path, model=small)
    policy = policy_of(small)
    total, count = 0.0, 0
    for prompt, answer in encode(read_demonstrations(path), policy):
        with torch.no_grad():
            logits = policy.causal(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double()
        total -= float((logits.softmax(-1) * logits.log_softmax(-1)).sum())
        count += len(answer)
    assert found.entropy == pytest.approx(total / count, rel=1e-5) and found.unit == "tokens" and found.longest == 9


def test_the_shift_of_clouds(small: str, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(40, 6, generator=draw)
    assert latent_shift(before, before) == pytest.approx(0, abs=1e-6)
    far = torch.zeros(6)
    far[2] = 30.0
    assert latent_shift(before, before + far) == pytest.approx(30.0, rel=1e-3), "the first component points from one to the other"
    hidden = torch.zeros(6)
    hidden[5] = 1e-3
    wide = before * torch.tensor([50.0, 40.0, 0.1, 0.1, 0.1, 0.1])
    assert latent_shift(wide, wide + hidden) < 1e-3, "what lies across both components is not seen"
    path = write(tmp_path / "a.jsonl", ROWS)
    assert rheostat.corpus(path, model=small, after=small)[0].latent_shift == pytest.approx(0, abs=1e-6)
    policy = policy_of(small)
    rows = encode(read_demonstrations(path), policy)
    (prompt, answer), found = rows[2], pooled(policy, rows)[2]
    with torch.no_grad():
        states = policy.causal.model(input_ids=torch.tensor([prompt + answer])).last_hidden_state[0, len(prompt) :]
    torch.testing.assert_close(found, states.mean(0), rtol=1e-4, atol=1e-5)


def test_from_the_command_line_before_and_after_a_run(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [row | {"completion": "it is 3"} for row in sums()])
    options = {name: value for name, value in SMALL.items() if name != "group_size"} | {"max_new_tokens": 24, "steps": 1}
    rheostat.train("sft", model=model, experts=path, directory=tmp_path / "run", **options)
    main(["corpus", path, "--model", model, "--after", str(tmp_path / "run"), "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["latent_shift"] > 0 and row["entropy"] > 0 and row["rows"] == len(sums())
    main(["corpus", path])
    out = capsys.readouterr().out
    assert "rows.jsonl" in out and "duplicates" in out and "entropy" not in out.splitlines()[2]


def test_what_is_refused(small: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    for sentence, options in (
        ("name the one before as well", {"after": small}),
        ("have different tokens", {"model": small, "after": model}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            rheostat.corpus(path, **options)
    long = write(tmp_path / "long.jsonl", [{"prompt": "1+2=", "completion": "1+2=3;" * 30}])
    with pytest.raises(RheostatError, match=r"Line 1 of .* has 185 tokens, and the model reads 128"):
        rheostat.corpus(long, model=small)
    foreign = write(tmp_path / "foreign.jsonl", [{"prompt": "1+2=", "completion": "three"}])
    with pytest.raises(RheostatError, match=r"Line 1 of .* has a completion that the tokenizer cannot encode"):
        rheostat.corpus(foreign, model=small)
    with pytest.raises(SystemExit):
        main(["corpus", str(tmp_path / "nothing.jsonl")])
    assert "There is no file of expert rows" in capsys.readouterr().err
