"""The studies of preferences: judges read their own claims' cells alone, and their rules follow the numbers in both directions."""

from __future__ import annotations

from typing import Any

import pytest

from rheostat.experiments.studies import Cell, Claim
from rheostat.experiments.studies.results import load_study
from studies import online_offline_gap as gap
from studies import suboptimal_onpolicy_prefs as prefs
from studies import suboptimal_onpolicy_sequence as sequence


def verdicts(claim: Claim, found: Any) -> list[str]:
    """Outcomes on results that are made up; no cell of another claim may be asked for."""
    own = {cell.key for cell in claim.cells}

    def result(cell: Cell) -> Any:
        assert cell.key in own, (claim.name, cell.label)
        return found(cell)

    return [condition.outcome for condition in claim.judge(result).conditions]


def bandit(better: float) -> Any:
    """Results in which on-policy arms, IPO, more reuse and PPO are better by so much; seeds differ a little."""

    def found(cell: Cell) -> Any:
        arguments = cell.arguments
        if cell.function.endswith("divergences"):
            return {"forward": 74, "reverse": 74 - int(10 * better)}
        config, noise = arguments["config"], 0.001 * arguments["seed"]
        reward = 0.3 + noise * (1 + config["learning_rate"])
        reward += better * (config.get("on_policy_sampling", True) + (config["loss"] in ("ipo", "reinforce", "ppo")))
        reward -= better * (config.get("loss.negative_gradient") is False)
        reward += better * (config.get("reuse") == 2) - (better * (config.get("reuse") == 30) if config["loss"] != "ppo" else 0.0)
        if arguments["task"].endswith("aligned"):
            reward = 0.3 + (reward - 0.3) * (0.1 if better > 0 else 3)
        numbers = {"evaluation_return": reward, "kl_to_reference": 1.0, "win_rate": 0.5, "reward_calls": 100.0}
        ipo = config["loss"] == "ipo"
        batch = {"margin": [3.0 + noise if better > 0 else 0.5 + noise], "loser_log_ratio": [-1.0]}
        batch["winner_log_ratio"] = [-better * ipo + noise * (1 + ipo)]
        curve = {"steps": [0.0, 1.0]}
        return {"start": numbers, "final": numbers, "curve": curve, "batch": batch}

    return found


@pytest.mark.parametrize(("better", "wanted"), [(0.3, "supported"), (-0.3, "refuted")])
def test_bandit_rules(better: float, wanted: str) -> None:
    for claim in [*prefs.claims(prefs.Sizes()), *sequence.claims(sequence.Sizes())]:
        assert set(verdicts(claim, bandit(better))) == {wanted}, claim.name


def game(better: float) -> Any:
    """Results in which online arms win more by so much."""

    def found(cell: Cell) -> Any:
        noise = 0.002 * cell.arguments["seed"]

        def curve(wins: float, **columns: float) -> dict[str, list[float]]:
            numbers = dict.fromkeys(("steps", *gap.KEPT), 0.5) | {"kl_to_reference": 1.0} | columns
            whole = {name: [value, value, value] for name, value in numbers.items()}
            whole["win_rate"] = whole["win_rate_against_start"] = [0.3, wins, wins - max(better, 0.0)]
            return whole

        online = {"accuracy_on_data": 0.5 - better + noise, "winner_log_ratio_on_data": 5 * better + noise}
        names = [*gap.SWEEP, "shuffled", "of the last", "base and early", "best-of-2 offline", "larger offline"]
        arms = {name: curve(0.4 + noise) for name in names}
        arms["base and early"] = curve(0.4 + better + 1.5 * noise)
        arms["of the last"] = curve(0.4 - better + 0.5 * noise)
        arms |= {name: curve(0.4 + better + 1.5 * noise, **online) for name in ("online", "best-of-2 online", "larger online")}
        return {"proxy_accuracy": 0.7, "proxy_accuracy_larger": 0.7, "arms": arms}

    return found


def test_game_rules() -> None:
    claims = {claim.name: claim for claim in gap.claims(gap.Sizes())}
    for name, claim in claims.items():
        assert set(verdicts(claim, game(0.3))) == {"supported"}, name
    against = {name: set(verdicts(claim, game(-0.3))) for name, claim in claims.items()}
    for name in ("coverage", "quality", "loss", "scale", "winners fall", "base and early"):
        assert against[name] == {"refuted"}, name
    assert "refuted" in against["gap"] and "refuted" in against["discrimination"]
    assert "supported" not in against["over-optimisation"]


def test_frontiers_pool_the_sweep_and_keep_to_the_kl() -> None:
    one = {"kl_to_reference": [0.0, 1.0, 5.0], "win_rate": [0.1, 0.3, 0.9]}
    other = {"kl_to_reference": [0.0, 0.5, 2.0], "win_rate": [0.1, 0.2, 0.5]}
    assert [gap.best_within([one, other], kl) for kl in gap.KL] == [0.3, 0.5, 0.5, 0.9]
    assert gap.peak(one) == 2 and gap.top(other) == 0.5


@pytest.mark.parametrize(
    "slug", ["suboptimal-onpolicy-prefs", "suboptimal-onpolicy-sequence", "online-offline-gap", "preferences-language"]
)
def test_arms_of_a_claim_have_one_budget(slug: str) -> None:
    study = load_study(slug)
    for claim in study.claims(study.full):
        spent = {cell.arguments.get("budget", cell.arguments.get("steps")) for cells in claim.arms.values() for cell in cells.values()}
        assert len(spent) == 1, claim.name
