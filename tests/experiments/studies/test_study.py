"""Studies: arms that are compared fairly, results that are never mixed, bad input in one sentence."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from rheostat.cli import entry as cli
from rheostat.errors import RheostatError
from rheostat.experiments.studies import Arm, Cell, Claim, Condition, Judgement, results, trained
from rheostat.experiments.studies.results import read_result, run_study
from rheostat.experiments.studies.study import check, effect_of, only_arms, report_of
from rheostat.experiments.studies.training import areas, columns
from rheostat.experiments.studies.training import train as train_cell
from rheostat.json_text import signed, unsigned
from rheostat.reporting.report import write_report
from rheostat.training.progress import Silent
from rheostat.training.run import Interrupted, Run
from tests.experiments.studies.toy import ARMS, SETTINGS, SHARED, Sizes, claims, study
from tests.training.test_run import StopAfter


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, results.Finished]:
    folder = tmp_path_factory.mktemp("toy")
    return folder, run_study(
        study(), pilot=True, seeds=2, jobs=0, cells=folder / "cells", output=folder, command="rheostat study toy --pilot"
    )


def test_a_result_says_everything(done: tuple[Path, results.Finished]) -> None:
    result = read_result(done[0] / "pilots" / "toy.json")
    (claim,) = result["claims"]
    assert result["form"] == "pilot" and claim["verdict"] == "undecided" and claim["seeds"] == [1000, 1001]
    assert claim["effect"]["what"].startswith("difference: return, PPO and A2C") and claim["effect"]["seeds"] == 2
    assert claim["arms"]["ppo"]["config"] == SHARED and claim["arms"]["ppo"]["steps"] == 256
    curve = claim["curves"]["a2c"]["1001"]
    assert {"steps", "updates", "gradient_steps", "flops", "seconds", "episode_return"} <= set(curve)
    assert len({len(values) for values in curve.values()}) == 1 and curve["steps"][-1] >= 256
    source = result["provenance"]
    assert source["command"] == "rheostat study toy --pilot" and source["cells"] == 4 and source["machine"]["cores"]
    assert set(source) >= {"commit", "date", "versions", "cpu_hours", "uncommitted_sources"}
    assert not list((done[0] / "cells").glob("*/run"))  # run directories are not kept


def test_a_result_is_a_report_too(done: tuple[Path, results.Finished]) -> None:
    page = write_report([done[0] / "pilots" / "toy.json"], done[0] / "report.html").read_text()
    for text in (
        "Verdicts: Toy",
        "undecided",
        "PPO learns CartPole faster than A2C",
        "FLOPs (estimated)",
        "Gradient steps",
        "rheostat study toy",
        "a pilot, which decides nothing",
        "return 25",
        "final performance of ppo at least 1",
    ):
        assert text in page


def test_a_run_that_was_interrupted_in_its_cell_is_resumed(done: tuple[Path, results.Finished], tmp_path: Path) -> None:
    """The cell continues the run it finds, and ends as if it had never stopped."""
    cell = claims(Sizes(2, first_seed=1000))[0].arms["ppo"][1000]
    from rheostat.api import settings_for

    options = SHARED | SETTINGS | {"seed": 1000, "steps": 256}
    halted = Run.create(tmp_path / "run", settings_for("ppo", "CartPole-v1", **options))
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(2))
    halted.close()
    found = curve_of(train_cell(cell.arguments, tmp_path))
    whole = results.read_result(done[0] / "pilots" / "toy.json")["claims"][0]["curves"]["ppo"]["1000"]
    assert found == {name: values for name, values in whole.items() if name != "seconds"}
    # killed while the finished run was being removed: the configuration is gone, checkpoints are left
    halted = Run.create(tmp_path / "run", settings_for("ppo", "CartPole-v1", **options))
    halted.train(progress=Silent())
    halted.close()
    (tmp_path / "run" / "config.json").unlink()
    assert curve_of(train_cell(cell.arguments, tmp_path)) == found and not (tmp_path / "run").exists()


def curve_of(cell: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the machine."""
    return {name: values for name, values in cell["curve"].items() if name != "seconds"}


def test_arms_are_equal() -> None:
    with pytest.raises(RheostatError, match="The arm 'ppo' sets steps, which is the same in all arms"):
        trained({"ppo": Arm("ppo", {"steps": 3})}, task="CartPole-v1", steps=64, seeds=1)
    with pytest.raises(RheostatError, match="'batch_stepz'"):
        trained(ARMS, task="CartPole-v1", steps=64, seeds=1, shared={"batch_stepz": 3})
    (claim,) = claims(Sizes())
    short = trained({"a2c": Arm("a2c")}, task="CartPole-v1", steps=64, seeds=8, shared=SHARED)
    with pytest.raises(RheostatError, match=r"claim 'return': the arms ppo and a2c have unequal budgets \(steps 256 and 64\)"):
        check(study(), [dataclasses.replace(claim, arms=claim.arms | short)])
    other = {seed: cell for seed, cell in claim.arms["a2c"].items() if seed == 0}
    with pytest.raises(RheostatError, match="the arms ppo and a2c have different seeds"):
        check(study(), [dataclasses.replace(claim, arms=claim.arms | {"a2c": other})])
    with pytest.raises(RheostatError, match="two claims of the same name"):
        check(study(), [claim, claim])
    with pytest.raises(RheostatError, match="--seeds is 0"):
        study().sizes(seeds=0)
    assert study().sizes(seeds=7).seeds == 7 and study().sizes() == Sizes(8)
    assert study().sizes(pilot=True) == Sizes(4, first_seed=1000) and study().sizes(smoke=True).seeds == 1


def judged(curve: dict[str, list[float]]) -> dict[str, Any]:
    cell = Cell("studies._two_step:learn", {"seed": 0}, "one")
    claim = Claim("c", "t", "p", "s", {"arm": {0: cell}}, lambda result: Judgement([], {}, {"arm": {0: curve}}))
    return report_of(claim, {cell.key: {"result": {}}})


def test_curves_are_never_averaged_in_silence(done: tuple[Path, results.Finished]) -> None:
    assert judged({"steps": [0, 1], "reward": [0.0, 1.0]})["curves"]["arm"]["0"]["reward"] == [0.0, 1.0]
    with pytest.raises(RheostatError, match=r"claim 'c', arm, seed 0 has nan in reward at point 1: look at that cell"):
        judged({"steps": [0, 1], "reward": [0.0, math.nan]})
    with pytest.raises(RheostatError, match="different lengths: steps 2, reward 1"):
        judged({"steps": [0, 1], "reward": [0.0]})
    with pytest.raises(RheostatError, match="no column 'steps'"):
        judged({"reward": [0.0]})
    cell = claims(Sizes())[0].arms["ppo"]
    with pytest.raises(RheostatError, match="Unknown metric 'accuracy'"):
        areas(cell, lambda one: {"curve": {"steps": [0, 1], "episode_return": [0, 1]}}, "accuracy", 1.0)


def test_a_metric_that_no_run_has(tmp_path: Path) -> None:
    from rheostat.analysis.records import read_record
    from tests.analysis.synthetic import write_run

    record = read_record(write_run(tmp_path / "run"))
    with pytest.raises(RheostatError, match="Unknown metric 'acuracy'"):
        columns(record, ("acuracy",))


def test_some_arms_only(tmp_path: Path) -> None:
    found = run_study(study(), arms=["ppo"], smoke=True, jobs=0, cells=tmp_path)
    assert found.left_out == ("return",) and found.result["claims"] == [] and len(list(tmp_path.glob("*/result.json"))) == 1
    whole = run_study(study(), smoke=True, jobs=0, cells=tmp_path)
    assert whole.left_out == () and whole.path == tmp_path / "toy.json" and whole.result["form"] == "smoke"
    with pytest.raises(RheostatError, match="Unknown arm 'props'"):
        only_arms(claims(Sizes()), ("props",))


def test_stored_results_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    with pytest.raises(RheostatError, match=r"The study 'toy' has no result at .*: run `rheostat study toy`"):
        read_result(path)
    path.write_text("{")
    with pytest.raises(RheostatError, match="is damaged"):
        read_result(path)
    path.write_text(json.dumps(signed({"claims": [{}], "format": results.FORMAT})))
    with pytest.raises(RheostatError, match=r"is no study's result \('name' is missing\)"):
        read_result(path)


def test_the_effect_is_that_of_the_condition_that_decides() -> None:
    assert effect_of([Condition("a", "supported", {"lower": 3})]) is None
    numbers = {"ratio": 0.5, "low": 0.4, "high": 0.6, "seeds": 6}
    effect = effect_of([Condition("a", "supported", {"lower": 3}), Condition("b", "supported", numbers)])
    assert effect is not None and (effect.estimate, effect.low, effect.high, effect.seeds) == (0.5, 0.4, 0.6, 6)
    open_one = Condition("c", "undecided", {"difference": 0.1, "low": -1.0, "high": 1.2, "seeds": 6})
    effect = effect_of([Condition("b", "supported", numbers), open_one])  # the claim is undecided, and not because of the first
    assert effect is not None and effect.what == "difference: c"
    effect = effect_of([Condition("b", "supported", numbers), Condition("d", "undecided", {"lower": 3})])
    assert effect is not None and effect.what == "ratio: b"


def test_results_of_other_code_are_known_as_such(done: tuple[Path, results.Finished], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "result_path", lambda slug: done[0] / f"{slug}.json")
    assert results.standing(study()).code == "current" and results.standing(study()).kind == "pilot"
    assert results.standing(study(full=Sizes(steps=512))).code == "other code"
    result = json.loads((done[0] / "pilots" / "toy.json").read_text())
    (done[0] / "toy.json").write_text(json.dumps(signed(unsigned(result) | {"form": "smoke"})))
    with pytest.raises(RheostatError, match="holds the smoke form"):
        results.standing(study())
    (done[0] / "toy.json").unlink()


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("Error: ") and text.count("\n") == 1
    return text


def test_figures_for_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.analysis.synthetic import write_comparison, write_run

    write_comparison(tmp_path / "c")
    write_run(tmp_path / "one", task="Walker2d-v5")
    page = tmp_path / "page.html"
    cli.main(["report", str(tmp_path / "c"), str(tmp_path / "one"), "grpo", "--output", str(page), "--figures"])
    names = {path.name for path in tmp_path.glob("page-*")}
    assert names == {f"page-{name}.{suffix}" for name in ("c-Hopper-v5", "one-Walker2d-v5", "grpo") for suffix in ("png", "svg")}
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)
    assert "page-grpo.svg" in capsys.readouterr().out


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Unknown study 'propz'" in refused(["study", "propz"], capsys)
    assert re.search("Say which study to run: .*grpo", refused(["study"], capsys))
    assert "Unknown arm 'PPPO'" in refused(["study", "grpo", "--smoke", "--arms", "PPPO"], capsys)
    cli.main(["study", "--list", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert (
        {"grpo", "props"} <= {row["study"] for row in listed}
        and "rule-check" not in {row["study"] for row in listed}
        and all(row["cells"] > 1 for row in listed)
    )
    assert next(row["result"] for row in listed if row["study"] == "bapo").startswith(
        "pilot, 6 seeds, decides nothing, of other code (commit 833475085d"
    )
