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
from rheostat.experiments.studies import Arm, Cell, Claim, Condition, Judgement, Sequential, Study, results, trained
from rheostat.experiments.studies.jobs import compute
from rheostat.experiments.studies.results import read_result, run_study
from rheostat.experiments.studies.study import check, effect_of, only_arms, report_of
from rheostat.experiments.studies.training import areas, columns
from rheostat.experiments.studies.training import train as train_cell
from rheostat.reporting.report import write_report
from rheostat.training.run import Interrupted, Run
from tests.experiments.studies.toy import ARMS, SETTINGS, SHARED, Sizes, claims, looked, study
from tests.training.test_run import StopAfter


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, results.Finished]:
    folder = tmp_path_factory.mktemp("toy")
    return folder, run_study(study(), jobs=0, cells=folder / "cells", output=folder, command="rheostat study toy")


def test_a_result_says_everything(done: tuple[Path, results.Finished]) -> None:
    result = read_result(done[0] / "toy.json")
    (claim,) = result["claims"]
    assert result["form"] == "declared" and claim["verdict"] == "undecided" and claim["seeds"] == [0, 1]
    assert claim["effect"]["what"].startswith("difference: return, PPO and A2C") and claim["effect"]["seeds"] == 2
    assert claim["arms"]["ppo"]["config"] == SHARED and claim["arms"]["ppo"]["steps"] == 256
    curve = claim["curves"]["a2c"]["1"]
    assert {"steps", "updates", "gradient_steps", "flops", "seconds", "episode_return"} <= set(curve)
    assert len({len(values) for values in curve.values()}) == 1 and curve["steps"][-1] >= 256
    source = result["provenance"]
    assert source["command"] == "rheostat study toy" and source["cells"] == 4 and source["machine"]["cores"]
    assert set(source) >= {"commit", "date", "versions", "cpu_hours", "uncommitted_sources"}
    assert not list((done[0] / "cells").glob("*/run"))  # run directories are not kept


def test_a_result_is_a_report_too(done: tuple[Path, results.Finished]) -> None:
    page = write_report([done[0] / "toy.json"], done[0] / "report.html").read_text()
    for text in (
        "Verdicts: Toy",
        "undecided",
        "PPO learns CartPole faster than A2C",
        "FLOPs (estimated)",
        "Gradient steps",
        "rheostat study toy",
    ):
        assert text in page


def test_a_run_that_was_interrupted_in_its_cell_is_resumed(done: tuple[Path, results.Finished], tmp_path: Path) -> None:
    """The cell continues the run it finds, and ends as if it had never stopped."""
    cell = claims(Sizes())[0].arms["ppo"][0]
    from rheostat.api import settings_for

    options = SHARED | SETTINGS | {"seed": 0, "steps": 256, "rollouts_kept": 0}
    halted = Run.create(tmp_path / "run", settings_for("ppo", "CartPole-v1", **options))
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(2))
    halted.close()
    found = train_cell(cell.arguments, tmp_path)
    whole = results.read_result(done[0] / "toy.json")["claims"][0]["curves"]["ppo"]["0"]
    assert {name: values for name, values in found["curve"].items() if name != "seconds"} == {
        name: values for name, values in whole.items() if name != "seconds"
    }


def test_arms_are_equal() -> None:
    with pytest.raises(RheostatError, match="The arm 'ppo' sets steps, which is the same in all arms"):
        trained({"ppo": Arm("ppo", {"steps": 3})}, task="CartPole-v1", steps=64, seeds=1)
    with pytest.raises(RheostatError, match="Unknown setting of ppo 'batch_stepz'"):
        trained(ARMS, task="CartPole-v1", steps=64, seeds=1, shared={"batch_stepz": 3})
    (claim,) = claims(Sizes())
    short = trained({"a2c": Arm("a2c")}, task="CartPole-v1", steps=64, seeds=2, shared=SHARED)
    with pytest.raises(RheostatError, match=r"claim 'return': the arms ppo and a2c have unequal budgets \(steps 256 and 64\)"):
        check(study(), [dataclasses.replace(claim, arms=claim.arms | short)])
    other = {seed: cell for seed, cell in claim.arms["a2c"].items() if seed == 0}
    with pytest.raises(RheostatError, match="the arms ppo and a2c have different seeds"):
        check(study(), [dataclasses.replace(claim, arms=claim.arms | {"a2c": other})])
    with pytest.raises(RheostatError, match="its rule needs at least 6 seeds, and there are 2"):
        check(study(), [dataclasses.replace(claim, least_seeds=6)])
    with pytest.raises(RheostatError, match="two claims of the same name"):
        check(study(), [claim, claim])
    with pytest.raises(RheostatError, match="--seeds is 0"):
        study().sizes(seeds=0)
    assert study().sizes(seeds=7).seeds == 7


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


class Coin:
    """A rule whose answers are given, to see when a study stops."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.seeds = list(answers), []

    def claims(self, sizes: Sizes) -> list[Claim]:
        cells = {seed: Cell("studies._two_step:learn", TINY | {"seed": seed}, "one") for seed in range(sizes.seeds)}

        def judge(result: Any) -> Judgement:
            self.seeds.append(sizes.seeds)
            return Judgement([Condition("coin", self.answers[len(self.seeds) - 1])])  # type: ignore[arg-type]

        return [Claim("coin", "Coin", "p", "s", {"arm": cells}, judge)]


TINY: dict[str, Any] = {"arm": "on-policy", "settings": {}, "seeds": 1, "updates": 1, "trajectories": 2, "learning_rate": 1.0}


def test_a_study_stops_early_only_by_its_declared_rule(tmp_path: Path) -> None:
    def run(*answers: str) -> tuple[list[int], int]:
        coin = Coin(*answers)
        one = Study("coin", "Coin", "-", coin.claims, full=Sizes(), smoke=Sizes(), sequential=Sequential((1, 2, 3)))
        done = run_study(one, jobs=0, cells=tmp_path / "cells", output=tmp_path)
        return coin.seeds, done.result["provenance"]["cells"]

    assert run("undecided", "held") == ([1, 2], 2)
    assert run("undecided", "undecided", "undecided") == ([1, 2, 3], 3)
    assert run("not held") == ([1], 1)
    assert Sequential((5, 10)).level() == pytest.approx(0.975)
    levels = {claims(looked((2, 3)).sizes(seeds=2))[0].name}
    assert levels == {"return"}


def test_stored_results_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    with pytest.raises(RheostatError, match=r"The study 'toy' has no result at .*: run `rheostat study toy`"):
        read_result(path)
    path.write_text("{")
    with pytest.raises(RheostatError, match="is damaged"):
        read_result(path)
    path.write_text('{"claims": [{}]}')
    with pytest.raises(RheostatError, match=r"is no study's result \('name' is missing\)"):
        read_result(path)


def test_the_effect_is_the_first_condition_with_an_interval() -> None:
    assert effect_of([Condition("a", "held", {"lower": 3})]) is None
    numbers = {"ratio": 0.5, "low": 0.4, "high": 0.6, "seeds": 6}
    effect = effect_of([Condition("a", "held", {"lower": 3}), Condition("b", "held", numbers)])
    assert effect is not None and (effect.estimate, effect.low, effect.high, effect.seeds) == (0.5, 0.4, 0.6, 6)


def test_results_of_other_code_are_known_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = study()
    monkeypatch.setattr(results, "result_path", lambda slug: tmp_path / f"{slug}.json")
    assert results.standing(one) == "none"
    cells = tmp_path / "cells"
    for claim in claims(Sizes()):
        for cell in claim.cells:
            compute(cell, cells, cell.key)
    run_study(one, jobs=0, cells=cells, output=tmp_path)
    assert results.standing(one) == "current"
    assert results.standing(study(full=Sizes(steps=512))) == "other code"
    result = json.loads((tmp_path / "toy.json").read_text())
    (tmp_path / "toy.json").write_text(json.dumps(result | {"form": "smoke"}))
    with pytest.raises(RheostatError, match="holds the smoke form"):
        results.standing(one)


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
    assert {"grpo", "props"} <= {row["study"] for row in listed} and all(row["cells"] > 1 for row in listed)
