"""Studies on other models and at other scales: studies of their own, whose results stay beside their cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from rheostat.cli.studies import StudyCommand
from rheostat.errors import RheostatError
from rheostat.experiments.studies import results, scales
from rheostat.experiments.studies.runner import Nothing

SCALED = ("bapo", "chord", "rl-plus")


def test_another_model_is_another_study() -> None:
    """Its name, its cells and its words have the model; arms and budgets are the same."""
    study = results.load_study("chord")
    other = scales.adapted(study, model="chain-sum")
    assert other.slug.startswith("chord-chain-sum-") and other.search is None
    assert scales.adapted(study, model="a/chain-sum").slug != other.slug  # of the same name, from elsewhere
    ours, theirs = (each.claims(each.sizes())[0] for each in (study, other))
    assert "from chain-sum," in theirs.setting
    for arm, cells in ours.arms.items():
        assert cells[0].arguments | {"settings": None} == theirs.arms[arm][0].arguments | {"settings": None}
        assert theirs.arms[arm][0].arguments["settings"]["model"] == "chain-sum"


def test_a_study_without_a_model_is_refused() -> None:
    with pytest.raises(RheostatError, match="trains no language model"):
        scales.adapted(results.load_study("repair"), model="chain-sum")


def test_a_scale_that_is_not_there_is_refused() -> None:
    study = results.load_study("chord")
    with pytest.raises(RheostatError, match="did you mean gpu"):
        scales.adapted(study, scale="gpus", smoke=True)
    with pytest.raises(RheostatError, match="declares no other scale"):
        scales.adapted(results.load_study("repair"), scale="gpu", smoke=True)


@pytest.mark.parametrize("slug", SCALED)
def test_a_scale_needs_its_gpu_and_its_smoke_form_does_not(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = results.load_study(slug)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RheostatError, match="trains on a GPU"):
        scales.adapted(study, scale="gpu")
    small = scales.adapted(study, scale="gpu", smoke=True)
    assert small.smoke.device == "cpu" and small.full.device == "cuda"
    assert small.smoke.learning_rate == small.full.learning_rate == 1e-6  # its options are tried, not only its name
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert scales.adapted(study, scale="gpu").full.model.count("/") == 1


@pytest.mark.slow
@pytest.mark.parametrize("slug", SCALED)
def test_every_scale_runs_in_its_smoke_form(slug: str, tmp_path: Path) -> None:
    study = scales.adapted(results.load_study(slug), scale="gpu", smoke=True)
    done = results.run_study(study, smoke=True, jobs=0, cells=tmp_path, output=tmp_path, watcher=Nothing())
    assert done.path == tmp_path / f"{slug}-gpu.json" and done.result["claims"]


def test_both_go_with_a_name() -> None:
    for command in (StudyCommand("", smoke=True, model="chain-sum"), StudyCommand("", smoke=True, scale="gpu")):
        with pytest.raises(RheostatError, match="go with the name of a study"):
            command.run()
