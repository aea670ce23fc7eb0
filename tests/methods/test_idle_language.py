"""Options of language methods that cannot act under the other ones are refused in one sentence, and act where they can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.objectives.kl_convex import ConvexSchedule, KLConvex
from rheostat.options import options_of, resolve
from rheostat.training.settings import configure, plain

LANGUAGE = [name for name, row in table.METHODS.items() if row.domain == "language"]
NO_KL = {"kl_coefficient": 0.0}
FRESH = {"stale_share": 0.0, "window": 2}

IDLE: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("grpo", NO_KL, {"kl_estimator": "k2"}, {"kl_coefficient": 0.1}),
    ("dapo", {}, {"kl_estimator": "k2"}, {"kl_coefficient": 0.1}),
    ("rft", {}, {"kl_estimator": "abs"}, {"kl_coefficient": 0.1}),
    ("rloo", {"kl": "loss"}, {"kl_estimator": "k1"}, {"kl_coefficient": 0.1}),
    ("bapo", {"clip_low_step": 0.0}, {"clip_low_end": 0.2}, {"clip_low_step": 0.1}),
    ("bapo", {"clip_high_step": 0.0}, {"clip_high_end": 1.0}, {"clip_high_step": 0.1}),
    ("bapo", {"clip_low_step": 0.0, "clip_high_step": 0.0}, {"target": 0.5}, {"clip_low_step": 0.1}),
    ("grpo", {"ratio": "sequence"}, {"clamp_log_ratio": False}, {"ratio": "token"}),
    ("grpo", {"clip": "log-clip"}, {"clamp_log_ratio": False}, {"clip": "none"}),
    ("grpo", {"dial.updates_per_batch": 2}, {"epochs": 3}, {"dial.updates_per_batch": None}),
    ("sft", {"dial.updates_per_batch": 2}, {"minibatches": 3}, {"dial.updates_per_batch": None}),
    ("dpo", {}, {"link": "robust"}, {"label_smoothing": 0.1}),
    ("dpo", {}, {"max_invalid_share": 0.5}, {"data": "sampled"}),
    ("kto", {}, {"max_invalid_share": 0.5}, {"data": "sampled"}),
    ("simpo", {"link": "hinge"}, {"label_smoothing": 0.1}, {"link": "sigmoid"}),
    ("osp", {"labels": "hard"}, {"label_clip": 0.1}, {"labels": "composed"}),
    ("osp", {"labels": "direct"}, {"baseline": "first"}, {"labels": "hard"}),
    ("osp", {"compare_by": "judge"}, {"judge_refresh_every": 2}, {"compare_by": "self"}),
    ("pairwise-policy-gradient", {"clip": "none"}, {"clip_epsilon": 0.1}, {"clip": "joint"}),
    ("polar", {}, {"penalty_weight": 0.1}, {"penalty": "l2"}),
    ("rwr", {"weights": "softmax"}, {"largest_weight": 5.0}, {"weights": "exponential"}),
    ("lp-reg", {"pull": 0.0}, {"threshold": 0.1}, {"pull": 0.5}),
    ("lp-reg", {"pull": 0.0}, {"rare_share": 0.1}, {"pull": 0.5}),
    ("lp-reg", {"threshold": 0.0}, {"threshold_form": "fixed"}, {"threshold": 0.1}),
    ("lp-reg", {"threshold": 0.0}, {"delete": False}, {"threshold": 0.1}),
    ("lp-reg", {}, {"selection": "micro-batch"}, {"micro_batch_rows": 2}),
    ("rise", {"value_coefficient": 0.0, "solution_rewards": "task"}, {"value_clip": 0.2}, {"value_coefficient": 1.0}),
    ("cog-rethinker", {"last_stage": 0}, {"sft_weight": 0.5}, {"last_stage": 1}),
    ("cog-rethinker", {"last_stage": 0}, {"shots": 1}, {"last_stage": 1}),
    ("cog-rethinker", {"last_stage": 1}, {"shown_attempts": 1}, {"last_stage": 2}),
    ("cog-rethinker", {"last_stage": 1}, {"dangling": "drop"}, {"last_stage": 2}),
    ("cog-rethinker", {"sft_weight": 0.0}, {"dangling": "drop"}, {"sft_weight": 0.1}),
    ("cog-rethinker", {"shots": 0}, {"demonstrations": 2}, {"shots": 1}),
    ("cog-rethinker", {"shots": 0}, {"bm25_b": 0.5}, {"shots": 1}),
    ("dialtree-rpo", {"prune": "malformed"}, {"topic_threshold": 0.5}, {"prune": "all"}),
    ("dialtree-rpo", {"kl_coefficient": 0.0}, {"kl_estimator": "k2"}, {"kl_coefficient": 0.1}),
    ("rlfr", {"flow_coefficient": 0.0}, {"flow_layers": (0,)}, {"flow_coefficient": 0.1}),
    ("rlfr", {"flow_coefficient": 0.0}, {"offline_steps": 5}, {"flow_coefficient": 0.1}),
    ("rlfr", {"flow_coefficient": 0.0}, {"flow_top_k": 3}, {"flow_coefficient": 0.1}),
    ("rlfr", {"flow_passes": 0}, {"right_at_least": 0.5}, {"flow_passes": 1}),
    ("rlfr", {"flow_passes": 0, "offline_steps": 0}, {"flow_max_grad_norm": 0.5}, {"flow_passes": 1}),
    ("rlfr", {"offline_steps": 0}, {"offline_repeats": 2}, {"offline_steps": 5}),
    ("self-curation", {}, {"rehearse": "all"}, {"rehearsal_coefficient": 0.1}),
    ("nft", {"negative_weight": 0.0}, {"floor": 0.5}, {"negative_weight": 0.5}),
    ("ppo-lm", {"value_coefficient": 0.0}, {"value_clip": 0.2}, {"value_coefficient": 1.0}),
    ("chord", {}, {"mu_peak": 0.5}, {"mu_decay": 10}),
    ("chord", {}, {"mu_decay": 10}, {"mu_peak": 0.5}),
    ("chord", {"mu_valley": 0.2}, {"mu_decay_form": "linear"}, {"mu_decay": 10}),
    ("chord", {"expert_ratio": 0.0}, {"cutoff": 0.5}, {"expert_ratio": 0.1}),
    ("chord", {"mu_valley": 0.0}, {"expert_weight": "none"}, {"mu_warmup": 10}),
    ("remix", NO_KL, {"kl_estimator": "k2"}, {"kl_coefficient": 0.1}),
    ("remix", NO_KL, {"convex_start": 10}, {"kl_coefficient": 0.1}),
    ("remix", NO_KL, {"convex_drop": 0.2}, {"kl_coefficient": 0.1}),
    ("remix", NO_KL, {"reset_base": False}, {"kl_coefficient": 0.1}),
    ("remix", {"switch_after": 0}, {"reset_base": False}, {"switch_after": 20}),
    ("remix", {"convex_drop": 0.0}, {"convex_floor": 0.1}, {"convex_drop": 0.2}),
    ("remix", {"convex_floor": 1.0}, {"convex_interval": 3}, {"convex_floor": 0.2}),
    ("remix", {"stale_share": 0.0}, {"window": 3}, {"stale_share": 0.3}),
    ("remix", FRESH, {"correction": "none"}, {"dial.lag": 1}),
    ("remix", FRESH | NO_KL, {"switch_after": 20}, {"stale_share": 0.3}),
]
"""A method, options under which others cannot act, one of those, and what lets it act."""


@pytest.mark.parametrize(
    ("method", "others", "idle", "cure"), IDLE, ids=[f"{row[0]}-{next(iter(row[2]))}-{n}" for n, row in enumerate(IDLE)]
)
def test_what_cannot_act_is_refused(method: str, others: dict[str, Any], idle: dict[str, Any], cure: dict[str, Any]) -> None:
    config = configure(method, others)
    with pytest.raises(RheostatError) as error:
        configure(method, others | idle)
    path = resolve(next(iter(idle)), options_of(config), method)
    sentence = str(error.value)
    assert sentence.startswith(f"{method}: {path} would do nothing: ") and sentence.endswith(".") and "\n" not in sentence, sentence
    configure(method, others | cure | idle)


def test_a_switch_that_changes_nothing_can_be_left_out() -> None:
    """A run shorter than the default switch must be able to do without it."""
    assert configure("remix", FRESH | NO_KL | {"switch_after": 0}).mixture.until == 0


@pytest.mark.parametrize("method", LANGUAGE)
def test_every_preset_has_options_that_act_alone(method: str) -> None:
    for preset in (None, *table.entry(method).load().presets):
        config = configure(method, {}, preset=preset)
        assert configure(method, plain(config)) == config


@pytest.mark.parametrize("method", ["dpo", "kto", "reward-model", "simpo", "ded", "sft", "luffy", "ghpo", "rl-plus", "chord"])
def test_tokens_of_others_are_never_cut(method: str) -> None:
    for options in ({"top_k": 3}, {"top_p": 0.5}):
        with pytest.raises(RheostatError, match="Tokens that the policy did not write may lie outside top_k and top_p"):
            configure(method, options)


def test_both_anchors_are_asked_for() -> None:
    """A composition that never scores the second one is refused before anything is spent."""
    assert KLConvex().reads == ("reference_logp", "previous_logp")
    assert KLConvex(schedule=ConvexSchedule(floor=1.0)).reads == ("reference_logp",)
    whole = configure("remix", {}).compose()
    whole.check("remix")
    without = replace(whole, credit=[part for part in whole.credit if getattr(part, "model", "") != "previous"])
    with pytest.raises(RheostatError, match="KLConvex reads previous_logp, which no part before it writes"):
        without.check("remix")
