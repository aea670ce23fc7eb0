"""Light-R1: the length reward, an expert's answers against wrong ones of the policy, and the recipe of the library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rheostat
from rheostat.cli.entry import main
from rheostat.credit.annotations import LengthReward
from rheostat.credit.token_rewards import cosine_length_reward
from rheostat.errors import RheostatError
from rheostat.experiments.recipe import check_recipe, library_recipes, read_recipe, recipe_of
from rheostat.training.run import Interrupted
from rheostat.trajectories import Source
from tests.crash import differences
from tests.methods.test_language_methods import Hopeless, built, save
from tests.training.test_run import StopAfter
from tests.vectors.methods import batch_of

TAUGHT: dict[str, Any] = {"data": "taught", "link": "nca", "max_new_tokens": 48}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


# --- the length reward -------------------------------------------------------------------------------------------------------------------


@given(length=st.integers(1, 80), more=st.integers(1, 10))
def test_short_right_and_long_wrong_completions_earn_most(length: int, more: int) -> None:
    lengths = torch.tensor([length, min(length + more, 83)])
    good, bad = (cosine_length_reward(torch.tensor([each] * 2), lengths, max_length=100) for each in (True, False))
    assert 1 < good[1] < good[0] < 2 and -10 < bad[0] < bad[1] < 0


def test_whatever_comes_near_the_limit_is_punished() -> None:
    lengths, right = torch.tensor([83, 84, 100, 84]), torch.tensor([True, True, True, False])
    found = cosine_length_reward(right, lengths, max_length=100, exceed=-7.0)
    assert found[0] > 1 and found[1:].tolist() == [-7.0] * 3


def test_ranges_are_not_exchanged() -> None:
    with pytest.raises(RheostatError, match="A right completion earns at least 2 and at most 1"):
        cosine_length_reward(torch.tensor([True]), torch.tensor([1]), max_length=9, correct=(2.0, 1.0))
    with pytest.raises(RheostatError, match="least_wrong is 0 and most_wrong -1"):
        LengthReward(least_wrong=0.0, most_wrong=-1.0)


def test_the_reported_reward_stays() -> None:
    mask = torch.ones(2, 10, dtype=torch.bool)
    reward = torch.zeros(2, 10)
    reward[0, -1] = 1.0
    batch = LengthReward(margin=0)(SimpleNamespace(longest=20), batch_of(mask, reward=reward))  # type: ignore[arg-type]
    torch.testing.assert_close(batch.columns["row_reward"], torch.tensor([0.95, -0.75]))
    assert batch.rows.reward.sum() == 1 and batch.metrics == {"right_length": 10.0, "wrong_length": 10.0}


def test_rows_without_a_grade_have_no_length_to_report(model: str) -> None:
    metrics = built("light-r1", model, Hopeless(), max_invalid_share=1.0).turn()
    assert metrics["gradient_steps"] == 0 and not {"right_length", "wrong_length"} & set(metrics)


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("length_margin is 16, and a completion may have 12 tokens", {"length_margin": 16}),
        ("least_right is 2 and most_right 1", {"least_right": 2.0}),
        ("compares the members of a group: group_size must be at least 2", {"group_size": 1}),
    ],
)
def test_what_the_last_stage_refuses(sentence: str, options: dict[str, Any], model: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        built("light-r1", model, **options)


# --- an expert against the policy --------------------------------------------------------------------------------------------------------


def test_the_expert_is_preferred_to_a_wrong_answer(model: str) -> None:
    one = built("dpo", model, **TAUGHT)
    batch = one.collect()
    rows, told = batch.rows, batch.rows.mask.any(1)
    chosen = batch.columns["chosen"]
    assert bool((rows.source[chosen] == int(Source.EXPERT)).all() and (rows.source[~chosen] == int(Source.FRESH)).all())
    assert torch.equal(rows.group[chosen], rows.group[~chosen][:, : rows.group.shape[1]]) and torch.equal(told[chosen], told[~chosen])
    earned = rows.reward.sum(1)
    assert bool((earned[chosen & told] >= 1).all() and (earned[~chosen & told] < 1).all())
    assert batch.metrics["paired_share"] == told[chosen].float().mean().item() > 0
    assert one.turn()["gradient_steps"] == 1


def test_without_a_wrong_answer_or_a_right_expert_nothing_is_taught(model: str) -> None:
    assert built("dpo", model, **TAUGHT, right_at_least=-1.0).turn()["gradient_steps"] == 0
    assert built("dpo", model, **TAUGHT, right_at_least=2.0).turn()["gradient_steps"] == 0
    assert built("dpo", model, Hopeless(), **TAUGHT, max_invalid_share=1.0).turn()["gradient_steps"] == 0


@pytest.mark.parametrize("method", ["ipo", "orpo", "simpo", "cdpo"])
def test_every_method_of_pairs_learns_from_an_expert(method: str, model: str) -> None:
    assert built(method, model, data="taught", max_new_tokens=48).turn()["gradient_steps"] == 1


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("dpo cannot honour dial.expert_share: the chosen answer of every pair is an expert's", {"dial.expert_share": 0.5}),
        ("dpo cannot honour dial.replay_share: its pairs are thrown away", {"dial.replay_share": 0.5}),
        ("Tokens that the policy did not write may lie outside top_k and top_p", {"top_k": 3}),
    ],
)
def test_what_taught_pairs_refuse(sentence: str, options: dict[str, Any], model: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        built("dpo", model, **TAUGHT, **options)


# --- the recipe --------------------------------------------------------------------------------------------------------------------------


def small(model: str) -> dict[str, Any]:
    """The library's recipe on a tiny model, two updates a stage."""
    found = read_recipe("light-r1.toml").to_json() | {"model": model, "evaluation_episodes": 0, "threads": 1}
    sizes = {"steps": 2, "prompts_per_batch": 4, "evaluate_every": 0}
    stages = [stage | sizes | ({"group_size": 4} if "group_size" in stage else {}) for stage in found["stage"]]
    return found | {"stage": stages}


def test_the_recipe_is_known_by_name(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe("light-r1.toml")
    assert library_recipes() == ["light-r1.toml"] and recipe.name == "light-r1"
    assert [(stage.name, stage.method) for stage in recipe.stages] == [
        ("easy", "sft"),
        ("hard", "sft"),
        ("preference", "dpo"),
        ("reinforce", "light-r1"),
    ]
    main(["show", "light-r1.toml"])
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    assert read_recipe(tmp_path / "mine.toml").to_json() == recipe.to_json()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "light-r1.toml").write_text((tmp_path / "mine.toml").read_text().replace('"light-r1"\ntask', '"own"\ntask'))
    assert read_recipe("light-r1.toml").name == "own", "a file of the user's goes before"
    with pytest.raises(SystemExit):
        main(["show", "dark-r1.toml"])
    assert "light-r1.toml" in capsys.readouterr().err


def test_the_recipe_can_be_built(model: str) -> None:
    check_recipe(recipe_of(small(model)))


def test_the_recipe_goes_on_exactly(model: str, tmp_path: Path) -> None:
    halted = tmp_path / "recipe"  # a run knows the path of the weights that it began with
    done = rheostat.train_recipe(small(model), halted, progress=False)
    assert [row["steps"] for row in done.stages] == [2, 2, 2, 2] and done.run("reinforce").finished
    whole = halted.rename(tmp_path / "whole")
    for turns in (1, 2, 1):
        try:
            rheostat.train_recipe(small(model), halted, progress=StopAfter(turns))
        except Interrupted:
            continue
    rheostat.train_recipe(small(model), halted, progress=False)
    for folder in ("1-easy", "2-hard", "3-preference", "4-reinforce"):
        assert differences(whole / folder, halted / folder) == []
