"""Carrying results over: only where golden runs, own modules, arms and declaration are what they were. On a small git repository."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rheostat.cli import entry as cli
from rheostat.errors import RheostatError
from rheostat.experiments.studies import Cell, Claim, Judgement, Precondition, Study, above, claims, jobs, restamp, results
from rheostat.experiments.studies.restamp import TABLE
from rheostat.experiments.studies.results import run_study, standing
from rheostat.experiments.studies.runner import Nothing
from rheostat.json_text import signed, unsigned
from rheostat.reporting.report import write_report

ROW = {"weights": "w", "metrics": "m", "resumed": "r"}
GOLDEN = {"numerics": "n", "cases": {"ppo/plain": ROW, "ppo/lag": ROW, "sac/plain": ROW}}
OWN = "def cell(x):\n    return x\n"


def number(arguments: dict[str, Any], place: Path) -> float:
    """The cell: one number."""
    return 1.0 + 0.01 * (arguments["seed"] % 3)


@dataclass(frozen=True)
class Sizes:
    seeds: int = 8
    first_seed: int = 0


def study(method: str | None = "ppo", config: dict[str, Any] | None = None, bound: float = 0.5) -> Study:
    def claims(sizes: Sizes) -> list[Claim]:
        plain = {"config": config or {}} | ({} if method is None else {"method": method})
        cells = {
            seed: Cell(f"{__name__}:number", plain | {"seed": seed}, f"cell {seed}")
            for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds)
        }

        def judge(result: Any) -> Judgement:
            return Judgement([above("x", {seed: result(cell) for seed, cell in cells.items()}, bound)])

        room = Precondition("room", "x", lambda result: {seed: result(cell) for seed, cell in cells.items()}, least=0.0)
        return [Claim("one", "One", "p", "s", {"A": cells}, judge, preconditions=(room,))]

    return Study("trial", "Trial", "-", claims, full=Sizes(), smoke=Sizes(1))


class Repo:
    """A repository with a golden table, a module of a study and the study's result at its first commit."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.patch = root, monkeypatch
        for name, text in ((TABLE, json.dumps(GOLDEN)), ("studies/own.py", OWN), ("studies/trial.py", ""), ("lib.py", "x = 1\n")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        self.git("init", "-q")
        self.first = self.commit()
        monkeypatch.setattr(jobs, "uncommitted", lambda roots: [])
        monkeypatch.setattr(
            restamp, "source_files", lambda roots: {"studies.own": root / "studies/own.py", "rheostat.lib": root / "lib.py"}
        )
        monkeypatch.setattr(results, "load_study", lambda slug: study())
        monkeypatch.chdir(root)
        self.source("first")
        for pilot in (True, False):
            run_study(study(), pilot=pilot, jobs=0, cells=root / "cells", output=root / "studies/results", watcher=Nothing())
        self.source("second")

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads(results.result_path("trial").read_text()))

    def source(self, name: str) -> None:
        """Make the present source another one, at the present commit."""
        head = self.git("rev-parse", "HEAD").strip()
        self.patch.setattr(jobs, "code_hash", lambda roots: name)
        self.patch.setattr(jobs, "commit", lambda: head)
        self.patch.setattr(results, "commit", lambda: head)

    def git(self, *words: str) -> str:
        own = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", "-C", str(self.root), *own, *words], check=True, capture_output=True, text=True).stdout

    def commit(self, **files: str) -> str:
        names = {"golden": TABLE, "own": "studies/own.py", "lib": "lib.py"}
        for name, text in files.items():
            (self.root / names[name]).write_text(text)
        self.git("add", "-A", "--", TABLE, "studies/own.py", "lib.py")
        self.git("commit", "-q", "-m", "c", "--allow-empty")
        return self.git("rev-parse", "HEAD").strip()

    def carry(self, one: Study | None = None) -> restamp.Carried | None:
        return restamp.restamp(one or study(), results.result_path("trial"), self.root)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        found = unsigned(self.result)
        change(found)
        results.result_path("trial").write_text(json.dumps(signed(found)))


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    return Repo(tmp_path, monkeypatch)


def golden(**rows: Any) -> str:
    return json.dumps(GOLDEN | {"cases": {**GOLDEN["cases"], **{name.replace("_", "/"): row for name, row in rows.items()}}})  # type: ignore[dict-item]


def test_a_change_of_structure_carries_over(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    assert standing(study()).code == "other code"
    second = repo.commit(lib="x = 1 + 0\n", own=OWN + "# words\n", golden=golden(sac_plain={"weights": "other"}, ppo_new=ROW))
    before = repo.result
    cli.main(["study", "trial", "--restamp"])
    said = capsys.readouterr().out
    assert (
        f"trial: carried over from {repo.first[:10]} to {second[:10]} by equal golden runs (ppo 2)" in said
        and "trial, pilot: carried" in said
    )
    after = repo.result
    (step,) = after["provenance"].pop("carried_over")
    assert step["to"] == second and step["golden"] == {"ppo": 2} and after["provenance"] == before["provenance"]
    assert after["verdicts"] == before["verdicts"] and after["content"] != before["content"]
    now = standing(study())
    assert now.code == "current"
    assert str(now).endswith(f"of the present code, carried over from {repo.first[:10]} to {second[:10]} by equal golden runs (ppo 2)")
    cli.main(["study", "trial", "--restamp"])
    assert "trial: of the present code already" in capsys.readouterr().out


def test_it_is_shown_wherever_the_commit_is(repo: Repo) -> None:
    second = repo.commit(lib="x = 2\n")
    repo.carry()
    shown = f"`{repo.first[:10]}`, carried over to `{second[:10]}` by equal golden runs (ppo 2)"
    found = claims.rows()
    assert found[0].to_json()["carried_to"] == second[:10] and found[0].commit == repo.first[:10]
    own = claims.study_page("trial", found)
    assert shown in claims.study_table(found) and shown in claims.summary_table(found) and f"commit {shown}." in own
    page = write_report([results.result_path("trial")], repo.root / "report.html").read_text()
    assert f"carried over to <code>{second[:10]}</code> by equal golden runs (ppo 2)" in page
    third = repo.commit(lib="x = 3\n")
    repo.source("third")
    assert repo.carry() is not None
    assert [step["to"] for step in repo.result["provenance"]["carried_over"]] == [second, third]
    assert claims.rows()[0].carried_to == third[:10]
    page = write_report([results.result_path("trial")], repo.root / "report.html").read_text()
    assert third[:10] in page and second[:10] not in page  # the last step says all


def test_numbers_that_moved_are_refused(repo: Repo) -> None:
    repo.commit(golden=golden(ppo_lag=ROW | {"metrics": "other"}))
    before = repo.result
    with pytest.raises(RheostatError, match=f"golden runs differ since {repo.first[:10]}: ppo/lag$"):
        repo.carry()
    repo.commit(golden=json.dumps(GOLDEN | {"cases": {"ppo/plain": ROW}}))  # a row that is gone says nothing either
    with pytest.raises(RheostatError, match=r"golden runs differ since .*: ppo/lag$"):
        repo.carry()
    assert repo.result == before
    with pytest.raises(RheostatError, match="result of trial cannot be carried over: golden runs differ since"):
        cli.StudyCommand("trial", restamp=True).run()


def test_what_golden_runs_do_not_cover_is_refused(repo: Repo) -> None:
    with pytest.raises(RheostatError, match="the method td3 has no golden run at"):
        repo.carry(study("td3"))
    with pytest.raises(RheostatError, match="no golden run covers its cell 'cell 0', which trains no method of the table"):
        repo.carry(study(None))
    repo.commit(own=OWN.replace("return x", "return -x"))
    with pytest.raises(RheostatError, match=r"the study's own module studies/own\.py is other code than at"):
        repo.carry()


def test_other_numerics_and_missing_tables_are_refused(repo: Repo) -> None:
    repo.commit(golden=json.dumps(GOLDEN | {"numerics": "other"}))
    with pytest.raises(RheostatError, match="come from other numerics, so hashes cannot be compared"):
        repo.carry()
    (repo.root / TABLE).unlink()
    with pytest.raises(RheostatError, match="there is no table of golden runs in"):
        repo.carry()


def test_a_commit_without_a_table_or_that_nobody_knows_is_refused(repo: Repo) -> None:
    (repo.root / TABLE).unlink()
    repo.git("commit", "-q", "-am", "no table")
    bare = repo.git("rev-parse", "HEAD").strip()
    repo.commit(golden=json.dumps(GOLDEN))
    for commit, words in ((bare, f"there is no table of golden runs at {bare[:10]}"), ("0" * 40, "the commit 0000000000 is not in this")):
        repo.edit(lambda result, commit=commit: result["provenance"].update(cell_commits=[commit]))  # type: ignore[misc]
        with pytest.raises(RheostatError, match=words):
            repo.carry()


def test_arms_declaration_and_uncommitted_code(repo: Repo) -> None:
    with pytest.raises(RheostatError, match="the arm 'A' of claim 'one' has other options, or another task or budget, now"):
        repo.carry(study(config={"learning_rate": 1.0}))
    with pytest.raises(RheostatError, match="its judge, or a precondition's measure, was other code"):
        repo.carry(study(bound=0.4))
    repo.edit(lambda result: result["provenance"].update(uncommitted_sources=["lib.py"]))
    with pytest.raises(RheostatError, match=r"made with uncommitted changes in lib\.py"):
        repo.carry()
    repo.edit(lambda result: result["provenance"].update(uncommitted_sources=[]))
    (repo.root / "lib.py").write_text("x = 5\n")
    with pytest.raises(RheostatError, match=r"uncommitted changes in lib\.py, and a stamp names a commit: commit first"):
        repo.carry()
    gone = dataclasses.replace(study(), claims=lambda sizes: [dataclasses.replace(study().claims(sizes)[0], name="two")])
    with pytest.raises(RheostatError, match="the study no longer makes its claim 'one'"):
        repo.carry(gone)


def test_results_from_before_the_rule_are_refused(repo: Repo) -> None:
    repo.edit(lambda result: result.pop("declaration"))
    with pytest.raises(RheostatError, match="older than the rule, and does not say what was declared"):
        repo.carry()


def test_all_of_them_are_told_one_by_one_and_nothing_else_is_taken(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.commit(golden=golden(ppo_lag=ROW | {"metrics": "other"}))
    cli.main(["study", "--restamp"])
    assert "trial: not carried over: golden runs differ since" in capsys.readouterr().out
    with pytest.raises(RheostatError, match="--restamp goes with the name of a study and with nothing else"):
        cli.StudyCommand("trial", restamp=True, smoke=True).run()
    results.result_path("trial").unlink()
    results.pilot_path(results.result_path("trial").parent, "trial").unlink()
    with pytest.raises(RheostatError, match="The study trial has no result to carry over"):
        cli.StudyCommand("trial", restamp=True).run()
