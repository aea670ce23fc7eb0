"""The simulation of the rule: it runs, its committed numbers are those of the page, and they say what the page says."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from rheostat.analysis.verdict import RULE
from rheostat.json_text import unsigned
from studies import rule_check


def test_it_runs_and_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_check, "SCENARIOS", {"normal": rule_check.SCENARIOS["normal"]})
    monkeypatch.setattr(rule_check, "SIZES", (5, 8))
    monkeypatch.setattr(rule_check, "EFFECTS", (1.0,))
    monkeypatch.setattr(sys, "argv", ["rule_check", "--trials", "300", "--json"])
    rule_check.main()
    found = json.loads(capsys.readouterr().out)
    normal = found["scenarios"]["normal"]
    assert found["trials"] == 300 and found["rule"] == {"looks": list(RULE.looks), "alpha": RULE.alpha}
    assert normal["the rule"]["false positives"] < 0.1 and normal["the rule"]["effect 1"]["power"] > 0.9
    assert normal["coverage"]["5"]["percentile bootstrap"] < normal["coverage"]["5"]["t"]
    assert normal["the old rule"]["false no worse, half a deviation"] > 0.3 > 0.06 > normal["margins"]["0.75"]["false no worse"]
    monkeypatch.setattr(sys, "argv", ["rule_check", "--trials", "300"])
    rule_check.main()
    assert "| normal | " in capsys.readouterr().out


@pytest.mark.parametrize("name", rule_check.SCENARIOS)
def test_differences_have_mean_0_and_deviation_1(name: str) -> None:
    d = rule_check.SCENARIOS[name](np.random.default_rng(0), (200_000,))
    assert d.mean() == pytest.approx(0.0, abs=0.01) and d.std() == pytest.approx(1.0, abs=0.03)


def test_the_page_shows_the_committed_numbers() -> None:
    found = unsigned(json.loads(rule_check.RESULT.read_text()))
    assert rule_check.page(found) == rule_check.PAGE.read_text()
    assert found["trials"] == rule_check.TRIALS and found["rule"] == {"looks": list(RULE.looks), "alpha": RULE.alpha}
    rates = {name: one["the rule"]["false positives"] for name, one in found["scenarios"].items()}
    assert rates["normal"] <= 0.05 and rates["t3"] <= 0.05 and rates["failures, both"] <= 0.05
    factors = rule_check.factors(found["scenarios"])
    worst = {kind: max((row[kind], name) for name, row in factors.items()) for kind in factors["normal"]}
    text = " ".join(rule_check.PAGE.read_text().split())
    assert worst["any verdict"][1] == worst["worse"][1] == "skewed" and worst["no worse"][1] == worst["better"][1] == "failures, one"
    total = f"{rates['skewed']:.3f}".removeprefix("0")
    assert f"the rule gives {worst['any verdict'][0]:.1f} times as many false verdicts as it promises ({total} instead of .05)" in text
    assert f"{worst['worse'][0]:.1f} times as many as promised there" in text
    assert f'"no worse" {worst["no worse"][0]:.1f} times as often as promised' in text
    assert f'"no relevant difference" {worst["no relevant difference"][0]:.1f} times for skewed differences' in text
    normal = found["scenarios"]["normal"]["the rule"]
    assert normal["effect 1"]["power"] > 0.97 and 12 <= normal["effect 1"]["seeds"] <= 14  # "13 seeds on average"
    assert 0.45 <= normal["effect 0.5"]["power"] <= 0.55  # "about half"


def test_factors_come_from_the_rule_itself(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh simulation with fewer series finds the factors that the page states, as far as its size can tell."""
    monkeypatch.setattr(rule_check, "SCENARIOS", {name: rule_check.SCENARIOS[name] for name in ("normal", "skewed")})
    monkeypatch.setattr(rule_check, "MARGINS", (0.5,))
    monkeypatch.setattr(rule_check, "SEED", 7)
    monkeypatch.setattr(sys, "argv", ["rule_check", "--factors", "--json", "--trials", "1500"])
    rule_check.main()
    fresh = json.loads(capsys.readouterr().out)
    written = rule_check.factors(json.loads(rule_check.RESULT.read_text())["scenarios"])
    assert fresh["skewed"]["worse"] == pytest.approx(written["skewed"]["worse"], abs=0.9)  # three standard errors
    assert fresh["skewed"]["no relevant difference"] == pytest.approx(written["skewed"]["no relevant difference"], abs=1.0)
    assert fresh["normal"]["any verdict"] < 1.4 < 2 < fresh["skewed"]["worse"]
    monkeypatch.setattr(sys, "argv", ["rule_check", "--factors", "--trials", "100"])
    rule_check.main()
    assert capsys.readouterr().out.startswith("| differences | any verdict | better | worse |")
