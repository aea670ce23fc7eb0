"""Tiny base models: what a recipe determines, what the cache holds, and that the smallest one is what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.files import cache_root
from rheostat.tasks.language import BASE_RECIPES, BaseRecipe, ChainSum, Lesson, ModelSize, strategy
from rheostat.tasks.language import base_models as building
from rheostat.tasks.language.base_models import base_model_path, build_base_model, demonstrations, lesson_rows, sample_text

SMALL = BaseRecipe(
    "small",
    (Lesson(ChainSum(min_terms=2, max_terms=3)),),
    ModelSize(16, 1, 2, 1, 8, 16),
    teach_steps=3,
    teach_batch=8,
    mix_steps=2,
    mix_batch=8,
)


def test_a_built_model_is_a_hugging_face_folder(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reports = []
    path = build_base_model(SMALL, tmp_path, lambda done, total, loss: reports.append((done, total, loss)))
    assert path == base_model_path(SMALL, tmp_path) and path.name == f"small-{SMALL.digest}"
    assert [done for done, _, _ in reports] == [1, 2, 3, 4, 5] and all(np.isfinite(loss) for _, _, loss in reports)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    assert (path / "model.safetensors").is_file() and not list(path.glob("*.bin"))
    assert model.config.vocab_size == len(tokenizer) == 21
    assert model.config.eos_token_id == tokenizer.eos_token_id == model.generation_config.eos_token_id
    facts = json.loads((path / "recipe.json").read_text())
    assert facts["digest"] == SMALL.digest and facts["recipe"]["teach_steps"] == 3
    assert set(facts["measured"]) == {"accuracy", "step_by_step", "accuracy_step_by_step", "samples"}
    trained, _ = building.train_base_model(SMALL)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_the_cache_is_used_and_told(tmp_path, monkeypatch, capsys):
    path = build_base_model(SMALL, tmp_path, False)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(building, "_build", lambda *_: pytest.fail("built twice"))
    assert build_base_model(SMALL, tmp_path) == path
    assert str(path) in capsys.readouterr().out


def test_an_interrupted_build_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_base_model(SMALL, tmp_path, interrupt)
    assert list((tmp_path / "base-models").iterdir()) == []


def test_the_second_of_two_builders_keeps_the_first_ones_model(tmp_path):
    path = build_base_model(SMALL, tmp_path, False)
    stamp = (path / "recipe.json").stat().st_mtime_ns
    workshop = tmp_path / "other"
    workshop.mkdir()
    building._move_into_place(workshop, path)
    assert (path / "recipe.json").stat().st_mtime_ns == stamp
    (path / "recipe.json").unlink()
    with pytest.raises(RheostatError, match="is in the way"):
        building._move_into_place(workshop, path)


def test_building_does_not_touch_the_global_random_streams(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]
    build_base_model(SMALL, tmp_path, False)
    assert torch.equal(before, torch.get_rng_state()) and np.array_equal(numpy_before, np.random.get_state()[1])


def test_the_digest_covers_everything_but_the_name():
    assert replace(SMALL, name="other").digest == SMALL.digest
    changes = [{"seed": 9}, {"mix_lr": 1e-5}, {"model": ModelSize()}, {"lessons": (Lesson(),)}, {"lessons": (*SMALL.lessons, Lesson())}]
    assert len({SMALL.digest, *(replace(SMALL, **change).digest for change in changes)}) == 1 + len(changes)
    assert len({recipe.digest for recipe in BASE_RECIPES.values()}) == len(BASE_RECIPES) >= 3


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("RHEOSTAT_CACHE", str(tmp_path / "r"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_root("there") == Path("there") and cache_root() == tmp_path / "r"
    monkeypatch.delenv("RHEOSTAT_CACHE")
    assert cache_root() == tmp_path / "x" / "rheostat"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "rheostat"


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RheostatError, match="set RHEOSTAT_CACHE"):
        build_base_model(SMALL, tmp_path / "file", False)


def test_unknown_and_impossible_recipes():
    with pytest.raises(RheostatError, match="did you mean chain-sum"):
        build_base_model("chainsum")
    for wrong in ({"lessons": ()}, {"teach_steps": 0, "mix_steps": 0}, {"mix_batch": 0}, {"teach_steps": -1}):
        with pytest.raises(RheostatError):
            replace(SMALL, **wrong)
    for wrong in ({"styles": ()}, {"styles": (("prose", 1.0),)}, {"styles": (("steps", 0.0),)}, {"error_rate": 2}, {"weight": 0}):
        with pytest.raises(RheostatError):
            Lesson(**wrong)


def test_lessons_show_what_they_say():
    lesson = Lesson(styles=(("steps", 0.2), ("direct", 0.7), ("rewrite", 0.1)), verification_share=0.25)
    rng = np.random.default_rng(0)
    rows = lesson_rows(lesson, lesson.world.prompts(), 2000, rng)
    asked = [(question, answer) for question, answer in rows if question.endswith("?")]
    assert len(asked) / 2000 == pytest.approx(0.25, abs=0.03)
    assert np.mean([answer == "#1" for _, answer in asked]) == pytest.approx(0.5, abs=0.07)
    styles = [strategy(answer) for question, answer in rows if not question.endswith("?")]
    assert {style: styles.count(style) / len(styles) for style in set(styles)} == pytest.approx(
        {"steps": 0.2, "direct": 0.7, "rewrite": 0.1}, abs=0.04
    )
    assert {strategy(answer) for _, answer in lesson_rows(lesson.taught(), lesson.world.prompts(), 100, rng)} <= {
        "steps",
        "rewrite",
        "direct",
    }
    assert dict(lesson.taught().styles) == {"steps": 0.2, "rewrite": 0.1}
    assert Lesson(styles=(("direct", 1.0),)).taught().styles == (("direct", 1.0),)


def test_batches_hold_the_rows_and_targets_only_on_the_answers():
    tokenizer = SMALL.task.tokenizer()
    (batch,) = [next(demonstrations([Lesson()], 32, 0, tokenizer))]
    assert sum(len(ids) for ids, _ in batch) == 32 and 1 <= len(batch) <= 2
    for ids, labels in batch:
        for row, targets in zip(ids, labels, strict=True):
            text = tokenizer.decode(row[row != 0])
            question, equals, answer = text.partition("=")
            shown = tokenizer.decode(targets[targets >= 0])
            assert equals and shown == answer and shown.endswith("<eos>")
            assert (targets[: len(question) + 1] == -100).all()


def test_base_models_train_on_the_training_split_only():
    world = ChainSum(min_terms=2, max_terms=2)
    held_out = {prompt.content for prompt in world.validation()}
    rows = lesson_rows(Lesson(world), world.prompts("train", 1), 500, np.random.default_rng(0))
    assert held_out and not held_out & {question for question, _ in rows}


def test_sampling_is_repeatable_and_independent_of_padding():
    model, tokenizer = building.train_base_model(SMALL)
    draw = lambda prompts, seed: sample_text(model, tokenizer, prompts, 12, torch.Generator().manual_seed(seed))  # noqa: E731
    prompts = ["1+2=", "3+4+5="]
    assert draw(prompts, 0) == draw(prompts, 0)
    assert draw(prompts, 0) != draw(prompts, 1)
    with torch.no_grad():
        model.model.norm.weight.mul_(1e4)  # so peaked that the noise decides nothing
    assert [draw([prompt], 0)[0] for prompt in prompts] == draw(prompts, 1)


@pytest.mark.slow
def test_the_smallest_base_is_weak_but_knows_how(tmp_path):
    path = build_base_model("chain-sum", tmp_path, False)
    facts = json.loads((path / "recipe.json").read_text())
    assert 0.35 <= facts["measured"]["accuracy"] <= 0.5
    assert 0.25 <= facts["measured"]["step_by_step"] <= 0.43
    assert facts["measured"]["accuracy_step_by_step"] >= 0.85
