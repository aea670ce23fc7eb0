"""Vectors are of methods, not of functions that methods happen to use: without a method's own parts, its cases fail."""

from __future__ import annotations

from typing import Any, Never

import pytest

from rheostat.methods import table
from tests.vectors.runner import run_file

LOSSES: dict[str, tuple[str, str]] = {
    "acereason": ("acereason", "second_update"),
    "bapo": ("bapo", "search/"),
    "best-of-n": ("baselines-preference", "best_of_n_seqsum"),
    "cdpo": ("baselines-preference", "cdpo_"),
    "chord": ("chord", "mix/"),
    "cispo": ("baselines-llm", "loss/cispo"),
    "ctrls": ("ctrls", "policy_loss"),
    "cog-rethinker": ("cog-rethinker", "joint_loss"),
    "dapo": ("baselines-llm", "trl/dapo/token_hi"),
    "ded": ("ded", "sft_loss"),
    "dialtree-rpo": ("dialtree-rpo", "loss_"),
    "dpo": ("baselines-preference", "dpo_sigmoid_beta"),
    "dr-grpo": ("baselines-llm", "trl/dr_grpo/token"),
    "ghpo": ("ghpo", "loss/"),
    "gmpo": ("baselines-llm", "loss/gmpo"),
    "ipo": ("baselines-preference", "dpo_ipo"),
    "kto": ("baselines-preference", "kto_"),
    "online-dpo": ("baselines-preference", "online_dpo_"),
    "oorl": ("oorl", "combined/"),
    "oprl": ("oprl", "policy_loss"),
    "orpo": ("baselines-preference", "orpo_"),
    "osp": ("osp", "spce_"),
    "polar": ("polar", "bt_"),
    "reward-model": ("baselines-preference", "bt_rm_"),
    "robust-dpo": ("baselines-preference", "dpo_robust"),
    "rwr": ("baselines-preference", "rwr_"),
    "simpo": ("baselines-preference", "cpo_"),
    "grpo": ("baselines-llm", "loss/ppo_symmetric"),
    "gspo": ("baselines-llm", "loss/gspo"),
    "light-r1": ("light-r1", "grpo_policy_loss"),
    "lp-reg": ("lp-reg", "offpolicy_"),
    "luffy": ("baselines-llm", "loss/luffy/p_div"),
    "nft": ("nft", "token_"),
    "reinforce": ("baselines-llm", "loss/reinforce"),
    "remix": ("remix", "mixppg/"),
    "rise": ("rise", "ppo_step"),
    "rl-plus": ("rl-plus", "loss/"),
    "rlfr": ("rlfr", "policy_loss"),
    "rloo": ("baselines-llm", "trl/rloo"),
    "self-curation": ("self-curation", "policy_loss"),
    "tis": ("baselines-llm", "loss/clip_higher_with_sampler_weights"),
    "treepo": ("treepo", "policy_loss"),
}
"""Of a method, the file that holds its loss, and how the cases begin."""
ADVANTAGES = {
    "rheostat.credit.annotations.GroupAdvantage.of": [("baselines-llm", "adv/grpo"), ("baselines-llm", "adv/rloo"), ("ghpo", "advantage/")],
    "rheostat.credit.annotations.MixedAdvantage.of": [("rl-plus", "advantage/")],
    "rheostat.credit.dialogue_credit.PathAdvantage.of": [("dialtree-rpo", "loss_")],
    "rheostat.collect.language.dialogue_trees.Growth.goes_on": [("dialtree-rpo", "collect_"), ("dialtree-rpo", "outcome_")],
    "rheostat.credit.flow_rewards.FlowRewards.rewards": [("rlfr", "shaping_"), ("rlfr", "full_row")],
    "rheostat.credit.step_rewards.StepAdvantage.of": [("oprl", "advantage_")],
    "rheostat.objectives.trajectory_preference.TrajectoryPreference.begin": [("oprl", "prm_")],
    "rheostat.credit.tree_advantages.SubgroupAdvantage.of": [("treepo", "subtree_")],
}
ELSEWHERE = {"pairwise-policy-gradient", "ppo-lm", "prime", "process-reward", "reinforce-pp", "rft", "sft"}
"""Methods whose loss no file holds; the advantage of reinforce-pp and the critic of ppo-lm are there."""


def broken(*given: Any, **options: Any) -> Never:
    """In the place of a part."""
    raise ZeroDivisionError("this part is broken")


def outcomes(file: str, start: str) -> set[str]:
    """Of the cases whose names begin so."""
    found = {result.outcome for result in run_file(file) if result.case.startswith(start)}
    assert found, f"{file} has no case {start}"
    return found


@pytest.mark.parametrize("method", LOSSES)
def test_a_loss_is_the_methods_own(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file, start = LOSSES[method]
    assert outcomes(file, start) == {"passed"}
    monkeypatch.setattr(table.entry(method).load(), "compose", broken)
    assert outcomes(file, start) == {"failed"}


@pytest.mark.parametrize("part", ADVANTAGES)
def test_an_advantage_is_the_methods_own(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, broken)
    for file, start in ADVANTAGES[part]:
        assert outcomes(file, start) == {"failed"}


def test_every_language_method_is_accounted_for() -> None:
    assert set(LOSSES) | ELSEWHERE == {name for name, row in table.METHODS.items() if row.domain == "language"}
