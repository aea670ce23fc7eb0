"""Equal tuning: every arm gets the same search on seeds of its own, and a study of its own afterwards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rheostat.cli.studies import StudyCommand
from rheostat.errors import RheostatError
from rheostat.experiments.studies import Arm, Cell, Claim, Judgement, Results, Search, Study, Tuned, better, finals, tuning
from rheostat.experiments.studies import results as studies
from rheostat.experiments.studies.runner import Nothing as Watching
from rheostat.experiments.studies.study import check
from rheostat.experiments.studies.training import trained

BEST = {"a": 3e-4, "b": 1e-3}
VALUES = (1e-4, 3e-4, 1e-3)


def number(arguments: dict[str, Any], place: Path) -> dict[str, float]:
    """The cell: the nearer an arm's rate is to its best, the better it ends; arm b ends higher."""
    rate, arm = arguments["config"]["learning_rate"], arguments["arm"]
    return {"final": (arm == "b") + 1.0 - abs(rate - BEST[arm]) * 1000 + arguments["seed"] * 1e-6}


@dataclass(frozen=True)
class Sizes:
    """Of the toy study."""

    seeds: int = 8
    first_seed: int = 0
    tuned: Tuned = Tuned()


def claims(sizes: Sizes) -> list[Claim]:
    """One: b above a."""
    seeds = range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    cells: dict[str, dict[int, Cell]] = {
        arm: {seed: cell(arm, seed, {"learning_rate": 2e-4} | sizes.tuned.of("toy", arm)) for seed in seeds} for arm in BEST
    }

    def judge(result: Results) -> Judgement:
        return Judgement([better("b and a", finals(cells["b"], result), finals(cells["a"], result))])

    return [Claim("above", "b is above a", "none", f"toy, {sizes.tuned.words('learning rate 2e-4')}", cells, judge)]


def cell(arm: str, seed: int, config: dict[str, Any]) -> Cell:
    """One number."""
    arguments = {"method": "ppo", "task": "toy", "steps": 1, "config": config, "arm": arm, "seed": seed}
    return Cell(f"{__name__}:number", arguments, f"{arm}, {seed}", sources=())


STUDY = Study("toy", "Toy", "none", claims, full=Sizes(), smoke=Sizes(1), search=Search(VALUES))
Searched = Callable[..., tuple[dict[str, Any], Path]]


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searched:
    """Runs the toy's search in this process."""
    monkeypatch.setattr("rheostat.experiments.studies.jobs.code_hash", lambda roots: "code")
    monkeypatch.setattr("rheostat.experiments.studies.jobs.uncommitted", lambda roots: [])

    def run(study: Study = STUDY) -> tuple[dict[str, Any], Path]:
        return studies.run_search(study, jobs=0, cells=tmp_path / "cells", output=tmp_path / "results", watcher=Watching())

    return run


def test_every_arm_gets_its_own_best_value_of_the_same_few(search: Searched) -> None:
    """All combinations are run on seeds from 2000 on; the best mean is chosen, and the edge is marked."""
    found, path = search()
    assert {row["arm"]: row["chosen"] for row in found["arms"]} == BEST
    assert {row["arm"]: row["at_the_edge"] for row in found["arms"]} == {"a": False, "b": True}
    assert found["seeds"] == [2000, 2001]
    assert found["provenance"]["cells"] == len(BEST) * len(VALUES) * 2
    assert all(set(finals) == {"2000", "2001"} for row in found["arms"] for _, finals in row["finals"])
    assert tuning.read_search(path, "toy")["arms"] == found["arms"]
    assert tuning.rows_of(found)[1] == ("toy", "b", "1.1", "1.3", "2", "0.001 (edge)")


def test_equal_values_go_to_the_smallest(search: Searched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tie is decided before the results are there."""
    monkeypatch.setitem(BEST, "a", 2e-4)
    monkeypatch.setattr("tests.experiments.studies.test_tuning.number", lambda arguments, place: {"final": 0.5})
    assert {row["arm"]: row["chosen"] for row in search()[0]["arms"]} == {"a": 1e-4, "b": 1e-4}


def test_the_tuned_form_is_a_study_of_its_own(search: Searched, tmp_path: Path) -> None:
    """Its arms have what was found, its words say so, and its seeds are those of any study; the published form is as it was."""
    found, _ = search()
    form = tuning.tuned_form(STUDY, found)
    (claim,) = form.claims(form.sizes())
    check(form, [claim])
    assert form.slug == "toy-tuned"
    assert {arm: cells[0].arguments["config"]["learning_rate"] for arm, cells in claim.arms.items()} == BEST
    assert claim.setting == "toy, learning rate by the same search in every arm (a 0.0003, b 0.001)"
    (published,) = STUDY.claims(STUDY.sizes())
    assert published.setting == "toy, learning rate 2e-4"
    assert {cells[0].arguments["config"]["learning_rate"] for cells in published.arms.values()} == {2e-4}
    common = {"jobs": 0, "cells": tmp_path / "tuned", "output": tmp_path / "results", "watcher": Watching()}
    studies.run_study(form, pilot=True, **common)
    result = studies.run_study(form, **common).result
    assert result["verdicts"] == {"above": "supported"}
    assert "no verdict uses" in tuning.search_text(result["search"])
    assert "a 0.0003, b 0.001 (at the edge)" in tuning.search_text(result["search"])


def test_a_search_after_results_is_refused(search: Searched, tmp_path: Path) -> None:
    """The tuned form rests on the search before it, its pilot too."""
    form = tuning.tuned_form(STUDY, search()[0])
    studies.run_study(form, pilot=True, jobs=0, cells=tmp_path / "tuned", output=tmp_path / "results", watcher=Watching())
    with pytest.raises(RheostatError, match="rests on the search"):
        search()


def test_some_arms_only(search: Searched) -> None:
    """The others stay as they are declared; a name that is no arm is refused."""
    found, _ = search(dataclasses.replace(STUDY, search=Search(VALUES, arms=("b",))))
    assert [row["arm"] for row in found["arms"]] == ["b"]
    assert Tuned("learning_rate", {"toy": {"b": 1e-3}}).of("toy", "a") == {}
    with pytest.raises(RheostatError, match="has no cells for c"):
        search(dataclasses.replace(STUDY, search=Search(VALUES, arms=("c",))))


@pytest.mark.parametrize("values", [(1e-4, 2e-4), (1e-4, 1e-4, 2e-4), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)])
def test_a_search_is_small_and_says_what_it_tries(values: tuple[float, ...]) -> None:
    """Three to five different values."""
    with pytest.raises(RheostatError, match="3 to 5 different values"):
        Search(values)


def test_what_cannot_be_searched_is_refused(search: Searched) -> None:
    """A study without a search, and sizes without a place for what is found."""
    with pytest.raises(RheostatError, match="declares no search"):
        search(dataclasses.replace(STUDY, search=None))

    @dataclass(frozen=True)
    class Without:
        seeds: int = 8
        first_seed: int = 0

    with pytest.raises(RheostatError, match="no field tuned"):
        search(dataclasses.replace(STUDY, full=Without()))


@pytest.mark.parametrize(
    ("change", "words"), [(lambda text: text.replace("0.0003", "0.0001", 1), "damaged"), (lambda text: text[:40], "damaged")]
)
def test_a_damaged_search_is_refused(search: Searched, change: Callable[[str], str], words: str) -> None:
    """It has a digest."""
    _, path = search()
    path.write_text(change(path.read_text()))
    with pytest.raises(RheostatError, match=words):
        tuning.read_search(path, "toy")


def test_a_tuned_study_without_its_search_is_refused() -> None:
    """The next command is named."""
    with pytest.raises(RheostatError, match="rheostat study chord --search"):
        tuning.read_search(Path("nowhere.json"), "chord")
    with pytest.raises(RheostatError, match="declares no search"):
        studies.load_study("estimators-tuned")


def test_every_searched_study_has_cells_for_it() -> None:
    """Of those that are here: each arm of the search has the value it searches, in every method."""
    found = []
    for slug in studies.study_names():
        study = studies.load_study(slug)
        if study.search is None:
            continue
        found.append(slug)
        for value, arms in tuning.search_cells(study).items():
            for cells in arms.values():
                assert {json.dumps(cell.arguments["config"]).count(f"{value}") > 0 for cell in cells.values()} == {True}
                assert all(seed >= tuning.SEARCH_SEED for seed in cells)
    assert {"chord", "bapo", "rl-plus", "joint", "lag", "repair"} <= set(found)


def test_trained_takes_it_up() -> None:
    """The value of an arm stands above the one that all share."""
    tuned = Tuned("learning_rate", {"CartPole-v1": {"x": 0.5}})
    arms = {"x": Arm("ppo"), "y": Arm("ppo")}
    cells = trained(arms, task="CartPole-v1", steps=64, seeds=1, shared={"learning_rate": 0.1}, tuned=tuned)
    assert [json.dumps(cells[arm][0].arguments["config"]) for arm in arms] == ['{"learning_rate": 0.5}', '{"learning_rate": 0.1}']


def test_options_that_a_search_would_ignore_are_refused() -> None:
    """Its seeds and arms are declared."""
    for command in (
        StudyCommand("chord", search=True, seeds=3),
        StudyCommand("", search=True),
        StudyCommand("chord", search=True, pilot=True),
    ):
        with pytest.raises(RheostatError, match="--search goes with"):
            command.run()
