"""Pilots, declarations and looks: what a study is held to, and every refusal in one sentence. Cells are numbers from this file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.experiments.studies import Cell, Claim, Judgement, Precondition, Results, Study, better, declaration, exact
from rheostat.experiments.studies import results as results_module
from rheostat.experiments.studies.results import Standing, read_result, run_study, standing
from rheostat.experiments.studies.runner import Nothing
from rheostat.json_text import signed, unsigned

HERE = __name__


@pytest.fixture(autouse=True)
def own_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells whose code is this file."""
    from rheostat.experiments.studies import jobs

    monkeypatch.setattr(jobs, "code_hash", lambda roots: "")
    monkeypatch.setattr(jobs, "uncommitted", lambda roots: [])


def number(arguments: dict[str, Any], place: Path) -> float:
    """The cell: an arm's number for a seed, with a little that differs from seed to seed."""
    return float(arguments["level"] + 0.01 * (arguments["seed"] * 7 % 5) * (1 if arguments["arm"] == "A" else -1))


@dataclass(frozen=True)
class Sizes:
    seeds: int = 8
    first_seed: int = 0


@dataclass(frozen=True)
class Trial:
    """A study with a clear claim and one that stays open."""

    gap: float = 1.0
    margin: float = 0.05
    least: float = 0.5
    first: int | None = None
    names: tuple[str, ...] = ("clear", "open")
    said: str = "p"
    strict: bool = False

    def claims(self, sizes: Sizes) -> list[Claim]:
        start = sizes.first_seed if self.first is None else self.first
        numbers = range(start, start + sizes.seeds)

        def cells(arm: str, level: float) -> dict[int, Cell]:
            return {seed: Cell(f"{HERE}:number", {"arm": arm, "level": level, "seed": seed}, f"{arm} {seed}") for seed in numbers}

        def claim(name: str, gap: float) -> Claim:
            arms = {"A": cells("A", 1.0 + gap), "B": cells("B", 1.0)}

            def values(arm: str, result: Results) -> dict[int, float]:
                return {seed: float(result(cell)) for seed, cell in arms[arm].items()}

            def judge(result: Results) -> Judgement:
                a = values("A", result)
                b = values("B", result) if gap else {seed: x + (-1) ** seed * 0.5 for seed, x in a.items()}
                return Judgement([better("A and B", a, b, margin=self.margin)])

            def judge_strictly(result: Results) -> Judgement:
                judged = judge(result)
                return Judgement([*judged.conditions, *judged.conditions])

            room = Precondition("room", "B", lambda result: values("B", result), least=self.least)
            used = judge_strictly if self.strict else judge
            return Claim(name, name.title(), self.said, "s", arms, used, margins={"number": self.margin}, preconditions=(room,))

        return [claim(name, self.gap if name == "clear" else 0.0) for name in self.names]

    @property
    def study(self) -> Study:
        return Study("trial", "Trial", "-", self.claims, full=Sizes(), smoke=Sizes(1))


Runner = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    def runner(trial: Trial = Trial(), **options: Any) -> dict[str, Any]:
        return run_study(trial.study, jobs=0, cells=tmp_path / "cells", output=tmp_path, watcher=Nothing(), **options).result

    return runner


def test_a_pilot_measures_and_decides_nothing(run: Runner, tmp_path: Path) -> None:
    found = run(pilot=True)
    assert found["form"] == "pilot" and found["pilot"] and set(found["verdicts"].values()) == {"undecided"}
    (first, _) = found["claims"]
    assert first["seeds"] == [1000, 1001, 1002, 1003] and first["margins"] == {"number": 0.05} and first["pilot"]
    assert first["conditions"][0]["numbers"]["low"] > 0 and first["p_value"] is None
    (room,) = first["preconditions"]
    assert room["passed"] and room["bounds"] == "at least 0.5" and room["measured"] == pytest.approx(0.9825)
    assert read_result(tmp_path / "pilots" / "trial.json")["form"] == "pilot"
    assert declaration.read_record(tmp_path / "cells") is None  # margins may still be chosen
    assert run(pilot=True, seeds=2)["claims"][0]["seeds"] == [1000, 1001]


def test_a_pilot_of_preconditions_alone_runs_what_they_read(run: Runner, tmp_path: Path) -> None:
    found = run(pilot=True, preconditions=True)
    assert found["provenance"]["cells"] == 4  # the arm B of four seeds, which both claims read
    assert set(found["verdicts"].values()) == {"undecided"} and found["pilot"] and found["claims"][0]["conditions"][0]["numbers"] == {}
    held = {claim["name"]: claim["preconditions"] for claim in found["claims"]}
    assert held == {claim["name"]: claim["preconditions"] for claim in run(pilot=True)["claims"]}
    run(pilot=True, preconditions=True)
    assert run()["verdicts"] == {"clear": "supported", "open": "undecided"}
    for wrong in ({}, {"pilot": True, "arms": ["A"]}, {"smoke": True}):
        with pytest.raises(RheostatError, match="Preconditions alone are run of a pilot, with all the arms that they need"):
            run(preconditions=True, **wrong)


def test_a_precondition_that_fails_alone_keeps_a_claim_from_being_run(run: Runner) -> None:
    run(Trial(least=2.0), pilot=True, preconditions=True)
    assert set(run(Trial(least=2.0))["verdicts"].values()) == {"not testable here"}


def test_from_pilot_to_verdict(run: Runner, tmp_path: Path) -> None:
    run(pilot=True)
    found = run()
    assert found["verdicts"] == {"clear": "supported", "open": "undecided"} and not found["pilot"]
    clear, open_ = found["claims"]
    assert len(clear["seeds"]) == 8 and len(open_["seeds"]) == 24  # what is decided is not run on
    assert clear["holm_p"] == pytest.approx(2 * clear["p_value"], rel=1e-6) and open_["holm_p"] >= clear["holm_p"]
    held = json.loads((tmp_path / "cells" / declaration.FILE).read_text())
    assert held["looks"] == [8, 12, 16, 24] and held["digest"] == declaration.digest(found["declaration"])
    assert run() == found | {"provenance": run()["provenance"]}


def test_one_look_at_a_time(run: Runner) -> None:
    run(pilot=True)
    assert len(run(seeds=8)["claims"][1]["seeds"]) == 8
    with pytest.raises(RheostatError, match="has not been looked at with 12 seeds yet: no look is skipped"):
        run(seeds=16)
    assert len(run(seeds=12)["claims"][1]["seeds"]) == 12
    assert len(run(seeds=16)["claims"][1]["seeds"]) == 16
    with pytest.raises(RheostatError, match="has been looked at with 16 seeds: going back would be choosing"):
        run(seeds=8)
    with pytest.raises(RheostatError, match="looked at after 8, 12, 16, 24 seeds, not after 10"):
        run(seeds=10)
    with pytest.raises(RheostatError, match="6 seeds decide nothing: run them as a pilot with --pilot --seeds 6"):
        run(seeds=6)


def test_a_study_whose_pilot_is_missing_is_refused(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="has no pilot yet: run `rheostat study trial --pilot` first"):
        run()
    assert not (tmp_path / "cells").exists()
    run(pilot=True)
    with pytest.raises(RheostatError, match="does not measure the preconditions of claim 'clear' as they are declared"):
        run(Trial(least=0.9))


def test_a_failed_precondition_is_not_testable_and_not_run(run: Runner, tmp_path: Path) -> None:
    trial = Trial(least=5.0)
    run(trial, pilot=True)
    found = run(trial)
    assert set(found["verdicts"].values()) == {"not testable here"} and found["provenance"]["cells"] == 0
    (condition,) = found["claims"][0]["conditions"]
    assert condition["rule"] == "precondition room: B at least 5" and condition["numbers"]["measured"] == pytest.approx(0.9825)
    assert found["claims"][0]["p_value"] is None and len(list((tmp_path / "cells").glob("*/result.json"))) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"margin": 0.5}, "claim 'clear': its margins were number 0.05 when the first seeds were run and are number 0.5 now"),
        (
            {"said": "more"},
            "claim 'clear': its title, the published claim or its setting was worded otherwise",
        ),
        ({"strict": True}, "claim 'clear': its judge, or a precondition's measure, was other code when the first seeds were run"),
        ({"names": ("clear", "open", "new")}, "data that are older than its claim 'new'"),
        ({"names": ("clear",)}, "has data for claims that it no longer makes: open; leaving claims out would be choosing"),
    ],
)
def test_what_is_declared_after_the_data_is_refused(run: Runner, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    run(pilot=True)
    run(seeds=8)
    changed = dataclasses.replace(Trial(), **change)
    run(changed, pilot=True)  # another pilot is no way around it
    with pytest.raises(RheostatError, match=words):
        run(changed)
    (tmp_path / "cells" / declaration.FILE).unlink()  # nor are cells computed elsewhere: the result says it too
    with pytest.raises(RheostatError, match=words):
        run(changed)


def test_other_looks_are_refused_too(run: Runner, tmp_path: Path) -> None:
    run(pilot=True)
    run(seeds=8)
    now = declaration.declared(Trial().claims(Sizes()))
    with pytest.raises(RheostatError, match=r"made under the looks \[8, 12, 16, 24\], not \[100\]"):
        declaration.require_same("trial", now, now | {"looks": [100]})
    (tmp_path / "cells" / declaration.FILE).write_text("{")
    with pytest.raises(RheostatError, match=r"declaration\.json is damaged"):
        run(seeds=8)


def test_pilot_seeds_and_study_seeds_stay_apart(run: Runner) -> None:
    with pytest.raises(RheostatError, match="claim 'clear': seed 0 is not a pilot seed; pilots have the seeds from 1000 on"):
        run(Trial(first=0), pilot=True)
    run(pilot=True)
    with pytest.raises(RheostatError, match="claim 'clear': seed 1000 is a pilot seed"):
        run(Trial(first=1000))


def test_what_has_no_seeds_needs_no_pilot(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Plain:
        size: int = 3

    def claims(sizes: Plain) -> list[Claim]:
        cell = Cell(f"{HERE}:number", {"arm": "A", "level": 1.0, "seed": 0}, "one")
        return [Claim("sum", "Sum", "p", "s", {"A": {0: cell}}, lambda result: Judgement([exact("x", result(cell) == 1.0)]), seeded=False)]

    study = Study("plain", "Plain", "-", claims, full=Plain(), smoke=Plain())
    found = run_study(study, jobs=0, cells=tmp_path / "cells", output=tmp_path, watcher=Nothing()).result
    assert found["verdicts"] == {"sum": "supported"} and not found["pilot"] and found["claims"][0]["holm_p"] is None
    with pytest.raises(RheostatError, match="has no seeds: it is computed in one piece, without a pilot"):
        run_study(study, pilot=True, jobs=0, cells=tmp_path / "cells", output=tmp_path)
    late = Study("late", "Late", "-", Trial().claims, full=dataclasses.make_dataclass("Few", [("seeds", int, 8)])(), smoke=Sizes(1))
    with pytest.raises(RheostatError, match="have no field first_seed, so its pilot cannot have its own seeds"):
        run_study(late, pilot=True, jobs=0, cells=tmp_path / "cells", output=tmp_path)
    with pytest.raises(RheostatError, match="in smoke form or as a pilot, not both"):
        run_study(study, smoke=True, pilot=True, jobs=0, cells=tmp_path / "cells", output=tmp_path)


def test_a_margin_must_be_the_claims(tmp_path: Path) -> None:
    def claims(sizes: Sizes) -> list[Claim]:
        return [dataclasses.replace(claim, margins={}) for claim in Trial().claims(sizes)]

    study = Study("trial", "Trial", "-", claims, full=Sizes(), smoke=Sizes(1))
    with pytest.raises(RheostatError, match=r"Claim 'clear' uses the margin 0.05 in .* and does not declare it"):
        run_study(study, smoke=True, jobs=0, cells=tmp_path, watcher=Nothing())


def test_standing(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_module, "result_path", lambda slug: tmp_path / f"{slug}.json")
    study = Trial().study
    assert standing(study) == Standing("none") and str(standing(study)) == "none"
    run(pilot=True)
    assert str(standing(study)) == "pilot, 4 seeds, decides nothing, of the present code"
    run()
    assert str(standing(study)) == "by the rule, 8 to 24 seeds, of the present code"
    for change in ({"said": "more"}, {"strict": True}, {"margin": 0.5}):
        assert str(standing(dataclasses.replace(Trial(), **change).study)).endswith("of the present code, declared otherwise since")
    found = standing(Trial(gap=2.0).study)
    assert (found.code, found.kind) == ("other code", "looked at") and "of other code (commit " in str(found)
    old = unsigned(json.loads((tmp_path / "trial.json").read_text()))
    del old["declaration"], old["pilot"]
    (tmp_path / "trial.json").write_text(json.dumps(signed(old)))
    assert str(standing(study)).startswith("pilot, 8 to 24 seeds, decides nothing, of other code (commit ")
    pilot = tmp_path / "pilots" / "trial.json"
    pilot.write_text(pilot.read_text().replace('"measured": ', '"measured": 1', 1))
    with pytest.raises(RheostatError, match=r"pilots/trial\.json is damaged \(it does not match its own digest\)"):
        standing(study)
