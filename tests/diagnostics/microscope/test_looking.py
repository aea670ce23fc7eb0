"""The microscope as a whole: statistics, tables, pictures, command and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.api import save
from rheostat.cli.entry import parse
from rheostat.diagnostics.microscope.advantages import ADVANTAGES
from rheostat.diagnostics.microscope.gradients import NO_REWARD
from rheostat.diagnostics.microscope.kl_estimators import KL_ESTIMATORS
from rheostat.diagnostics.microscope.microscope_result import DEFAULT, MicroscopeResult, kind_of
from rheostat.diagnostics.microscope.summary import squared_mean, summarise
from rheostat.errors import RheostatError
from rheostat.methods import table
from tests.tiny_control import fleet, remembers, replays, several_agents


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- statistics -------------------------------------------------------------------------------------------------------------------------


def test_squared_mean_is_unbiased_and_its_interval_honest() -> None:
    """300 experiments of 40 vectors: the estimate averages to the truth, and chance seldom looks like a bias."""
    draw = torch.Generator().manual_seed(0)
    spread = (0.7 ** torch.arange(30.0).double()).sqrt()
    for size in (0.0, 0.5):
        truth = torch.zeros(30, dtype=torch.float64)
        truth[0] = size
        found = [squared_mean(torch.randn(40, 30, generator=draw, dtype=torch.float64) * spread + truth, 0.95) for _ in range(300)]
        estimates = torch.tensor([one.estimate for one in found])
        assert estimates.mean().item() == pytest.approx(size**2, abs=4 * float(estimates.std()) / 300**0.5)
        covered = sum(one.low <= size**2 <= one.high for one in found) / 300
        assert covered >= 0.93


def test_verdicts_of_made_up_gradients() -> None:
    draw = torch.Generator().manual_seed(0)
    exact = torch.randn(20, generator=draw, dtype=torch.float64)
    aside = torch.randn(20, generator=draw, dtype=torch.float64)
    aside -= (aside @ exact) / exact.square().sum() * exact

    def row(mean: torch.Tensor) -> Any:
        return summarise("x", mean + 0.5 * torch.randn(200, 20, generator=draw, dtype=torch.float64), exact)

    assert row(exact).verdict == "unbiased"
    assert row(0.5 * exact).verdict == "biased in scale only"
    assert row(0.5 * exact).variance_rescaled == pytest.approx(4 * row(0.5 * exact).variance, rel=0.1)
    turned = row(exact + aside)
    assert turned.verdict == "biased"
    angle = torch.atan2(aside.norm(), exact.norm())
    assert turned.direction.estimate == pytest.approx(float(angle.sin()), abs=0.05)
    assert turned.cosine_of_mean == pytest.approx(float(angle.cos()), abs=0.05)
    noisy = exact + 4 * torch.randn(20, 20, generator=draw, dtype=torch.float64)
    assert summarise("x", noisy, exact).verdict == "undecided"
    assert row(-exact).verdict == "biased" and row(-exact).cosine_of_mean < -0.9


def test_an_estimator_of_zero_is_biased_but_not_an_error() -> None:
    row = summarise("x", torch.zeros(10, 4, dtype=torch.float64), torch.ones(4, dtype=torch.float64), torch.zeros(10))
    assert row.verdict == "biased" and row.cosine == 0 and row.bias.estimate == pytest.approx(1)


# --- looking ----------------------------------------------------------------------------------------------------------------------------


def test_on_policy_verdicts() -> None:
    look = rheostat.microscope(["rloo", "reinforce", "dr-grpo", "grpo"], lag=0, batches=20, prompts_per_batch=256)
    verdicts = {row.name: row.verdict for row in look.rows}
    assert verdicts["rloo"] == "unbiased"
    assert verdicts["reinforce"] == verdicts["dr-grpo"] == "biased in scale only"
    assert verdicts["grpo"] == "biased"
    assert look["reinforce"].scale.low < 0.75 < look["reinforce"].scale.high  # three of four, the group's size
    assert look["rloo"].improvement.estimate > 0.5


@pytest.mark.slow
def test_off_policy_verdicts() -> None:
    look = rheostat.microscope(["rloo", "is:sequence"], lag=4, batches=40, prompts_per_batch=256, seed=1)
    assert look["rloo"].verdict == "biased"
    assert look["is:sequence"].verdict == "unbiased"
    assert look["rloo"].bias.low > 0.3


def test_the_same_seed_gives_the_same_numbers_in_any_company() -> None:
    look = rheostat.microscope(["rloo", "is:sequence"], batches=4, seed=1)
    assert rheostat.microscope(["is:sequence", "rloo"], batches=4, seed=1)["rloo"] == look["rloo"]
    assert rheostat.microscope(["rloo"], batches=4, seed=2)["rloo"] != look["rloo"]


def test_a_clip_acts_only_after_updates_on_the_batch() -> None:
    few: dict[str, Any] = {"lag": 0, "batches": 20, "prompts_per_batch": 16}
    assert rheostat.microscope(["grpo"], **few)["grpo"] == rheostat.microscope(["grpo"], **few, clip="none")["grpo"]
    clipped = rheostat.microscope(["grpo"], **few, updates=3)["grpo"]
    free = rheostat.microscope(["grpo"], **few, updates=3, clip="none")["grpo"]
    assert clipped.scale.high < free.scale.low


@pytest.mark.parametrize("name", ["ppo", "ppo-buffer", "a2c", "ros", "robust-acting"])
def test_control_methods(name: str) -> None:
    look = rheostat.microscope([name], lag=0, batches=12, problem="two-step")
    row = look[name]
    assert row.cosine_of_mean > 0.9 and 0.2 < row.scale.estimate < 1.5
    assert look.facts["effective_sample_size"] == pytest.approx(1)


def test_every_method_is_either_looked_at_or_refused() -> None:
    for name in table.METHODS:
        if name in (*NO_REWARD, "props"):  # refused; tested below, being slow
            continue
        control = table.entry(name).domain == "control"
        apart = control and (replays(name) or remembers(name) or several_agents(name) or fleet(name))
        # no gradient step by step, whole trials, or the problem is discrete
        if name in ("pmoe-ppo", "relic") or apart or table.entry(name).domain == "compression":
            with pytest.raises(RheostatError, match=r"built on grpo or ppo|a mixture of experts"):
                rheostat.microscope([name], batches=3, problem="two-step")
            continue
        own: dict[str, dict[str, Any]] = {
            "light-r1": {"length_margin": 1},
            "oorl": {"preference_weight": 0.0},  # the problem has no groups of representations
            "treepo": {"segment": 2},  # the problem's completions are shorter than one segment of the paper's
            "rlfr": {"offline_steps": 0},  # nor for an expert
            "rise": {"verification_prompts": 0, "solution_rewards": "task"},  # the problem has no words for a judgement
            "cog-rethinker": {"last_stage": 0},  # nor to ask again
        }
        options = own.get(name, {})
        look = rheostat.microscope([name], batches=3, problem="two-step" if control else None, **options)
        assert look[name].scale.estimate != 0


def test_props_is_looked_at() -> None:
    options = {"behaviour_epochs": 1, "behaviour_minibatches": 1, "behaviour_steps": 64}
    assert rheostat.microscope(["props"], lag=0, batches=5, problem="two-step", **options)["props"].cosine_of_mean > 0.9


# --- KL and advantages ------------------------------------------------------------------------------------------------------------------


def test_kl_estimators_are_what_they_are() -> None:
    look = rheostat.microscope(["kl"])
    assert [row.name for row in look.rows] == list(KL_ESTIMATORS)
    unbiased = {row.name for row in look.rows if row.verdict == "unbiased"}
    assert unbiased == {"kl:k1", "kl:k1-reward", "kl:k3", "kl:k3-sequence", "kl:k3-with-k2"}
    assert look["kl:k1"].gradient_of == "nothing: 0"
    assert look["kl:k1-reward"].gradient_of == look["kl:k2-sequence"].gradient_of == "KL(learner, reference)"
    assert look["kl:k3-sequence"].gradient_of == "KL(reference, learner)"
    assert look["kl:k2"].gradient_of == look["kl:k3"].gradient_of == "neither", "tokens are moved as if none followed them"
    assert look["kl:k3"].deviation < look["kl:k1"].deviation / 2
    assert all(abs(row.stale_bias) > 0.05 for row in look.rows)


def test_advantage_estimators_are_what_they_are() -> None:
    look = rheostat.microscope(["advantage"])
    assert [row.name for row in look.rows] == list(ADVANTAGES)
    assert look["advantage:gae-1"].verdict == look["advantage:monte-carlo"].verdict == "unbiased on-policy only"
    assert look["advantage:vtrace-unclipped"].verdict == look["advantage:importance"].verdict == "unbiased"
    lambdas = [look[f"advantage:gae-{lam}"] for lam in ("0", "0.5", "0.9", "0.95", "1")]
    assert [row.bias for row in lambdas] == sorted((row.bias for row in lambdas), reverse=True)
    assert [row.deviation for row in lambdas] == sorted(row.deviation for row in lambdas)
    assert look["advantage:gae-0"].exact_critic_bias < 1e-6 < look["advantage:gae-0.95"].exact_critic_bias
    assert look["advantage:retrace"].stale_bias < look["advantage:q-lambda"].stale_bias
    same = rheostat.microscope(["advantage"], lag=0)
    assert all(row.stale_bias == pytest.approx(row.bias, abs=1e-9) for row in same.rows)


# --- refusals ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["grop"], {}, "Unknown method or estimator 'grop': did you mean grpo"),
        (["is:sequnce"], {}, "did you mean is:sequence"),
        (["sft"], {}, "no policy gradient of the reward to look at: it imitates"),
        (["dpo"], {}, "no policy gradient of the reward to look at: its loss compares"),
        (["grpo", "ppo"], {}, "grpo is a language method and ppo a control method"),
        (["grpo", "kl:k3"], {}, "look at them in two calls"),
        (["grpo"], {"problem": "gridworld"}, "needs a language problem and gridworld is one of control"),
        (["grpo"], {"problem": "gridwrld"}, "Unknown problem"),
        (["grpo"], {"length": 9}, "outcomes, more than the 20,000"),
        (["a2c"], {"problem": "two-step", "length": 3}, "two-step have 2 steps"),
        (["grpo"], {"lag": -1}, "--lag is -1"),
        (["grpo"], {"batches": 2}, "--batches is 2"),
        (["grpo"], {"step_size": 0.0}, "--step-size is 0"),
        (["grpo"], {"minibatches": 4}, "leave minibatches alone"),
        (["grpo"], {"dial.lag": 1}, "a dial of its own"),
        (["grpo"], {"prompts_per_batch": 6}, "multiple of 4"),
        (["grpo"], {"group_siz": 6}, "Unknown option of grpo 'group_siz'"),
        (["is:token"], {"group_siz": 6}, "Unknown option of is:token"),
        (["reinforce"], {"updates": 1}, "REINFORCE takes one gradient step per batch"),
        (["kl"], {"lag": 0}, "divergence is 0"),
        (["kl"], {"updates": 1}, "leave --updates out"),
        (["advantage:gae-0.7"], {}, "Unknown method or estimator"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(names: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RheostatError, match=message):
        rheostat.microscope(names, **options)


def test_the_default_shows_at_least_twelve_estimators_of_one_kind() -> None:
    assert len(DEFAULT) >= 12 and kind_of(DEFAULT) == ("gradient", "language")


# --- output -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["rloo", "is:masked"], ["kl"], ["advantage"]])
def test_command_prints_and_writes(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parse(["microscope", *names, "--batches", "4", "--lag", "2", "--output", str(tmp_path / "out")]).run()
    printed = capsys.readouterr().out
    expected = {"kl": "kl:k3-with-k2", "advantage": "advantage:vtrace-unclipped"}.get(names[0], names[0])
    assert expected in printed and "lag 2" in printed and "Not shown for want of room" in printed
    assert max(len(line) for line in printed.splitlines() if not line.startswith(("Not shown", str(tmp_path)))) <= 80
    saved = json.loads((tmp_path / "out" / "microscope.json").read_text())
    assert expected in [row["name"] for row in saved["rows"]] and saved["facts"]["lag"] == 2
    assert (tmp_path / "out" / "microscope.png").stat().st_size > 10_000
    assert expected in (tmp_path / "out" / "microscope.svg").read_text()


def test_command_options_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    parse(["microscope", "reinforce", "--lag", "0", "--batches", "40", "--json", "--options", "group_size", "2"]).run()
    found = json.loads(capsys.readouterr().out)
    scale = found["rows"][0]["scale"]
    assert scale["low"] < 0.5 < scale["high"], "one of two"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RheostatError, match="Could not write"):
        save(MicroscopeResult("kl", {}, []), tmp_path / "file" / "below")
