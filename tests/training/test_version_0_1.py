"""Configurations of version 0.1, every option on one level: read as today's, translated, or refused in a sentence."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.training.settings import configure
from rheostat.training.version_0_1 import defaults, is_old

LANGUAGE = [name for name, row in table.METHODS.items() if row.domain == "language" and name in defaults()]


def old(method: str, **changes: Any) -> dict[str, Any]:
    """A configuration of version 0.1, with some options changed."""
    found = copy.deepcopy(defaults()[method])
    dial = changes.pop("dial", {})
    assert set(changes) <= set(found) and set(dial) <= set(found["dial"])
    return found | changes | {"dial": found["dial"] | dial}


@pytest.mark.parametrize("method", LANGUAGE)
def test_the_defaults_are_those_of_today(method: str) -> None:
    assert is_old(method, old(method)) and configure(method, old(method)) == configure(method, {})
    assert not is_old(method, {}) and not is_old(method, {"learning_rate": 1.0})


@pytest.mark.parametrize("method", LANGUAGE)
def test_what_every_method_had_is_carried_over(method: str) -> None:
    changes = {
        "learning_rate": 0.125,
        "warmup": 3,
        "weight_decay": 0.5,
        "prompts_per_batch": 7,
        "evaluate_every": 4,
        "budget": "generated tokens",
    }
    dial = {"updates_per_batch": 1}
    found = configure(method, old(method, **changes, dial=dial))
    assert (found.update.learning_rate, found.update.warmup, found.update.weight_decay) == (0.125, 3, 0.5)
    assert (found.evaluation.every, found.budget.unit, found.dial.updates_per_batch) == (4, "generated tokens", 1)
    assert (found.demonstrations if method == "sft" else found.groups).prompts == 7
    today = {"update.warmup" if name == "warmup" else name: value for name, value in changes.items()}
    assert found == configure(method, today | {"dial": dial})


@pytest.mark.parametrize(
    ("method", "changes", "today"),
    [
        ("grpo", {"limit": "none"}, {"clip": "none"}),
        ("grpo", {"limit": "none", "clip_low": 0.1}, {"clip": "none"}),  # without a limit its width did nothing
        ("grpo", {"limit": "detached", "clip_low": None}, {"clip": "detached", "clip_low": None, "clip_high": 0.2}),
        ("grpo", {"dynamic_sampling": True, "max_sampling_rounds": 3}, {"dynamic": "on", "max_sampling_rounds": 3}),
        ("grpo", {"max_sampling_rounds": 3}, {}),
        ("dapo", {"dynamic_sampling": False}, {"dynamic": "none"}),
        ("dapo", {"limit": "searched"}, {"clip": "searched", "clip_high": 0.28}),
        ("grpo", {"kl_in_reward": True, "advantage": "rloo"}, {"kl": "reward", "advantage": "rloo", "kl_coefficient": 0.04}),
        ("reinforce-pp", {"kl_in_reward": False}, {"kl": "loss", "kl_coefficient": 0.01}),
        ("ppo-lm", {"kl_in_reward": False, "kl_estimator": "k2"}, {"kl": "loss", "kl_coefficient": 0.001, "kl_estimator": "k2"}),
        ("chord", {"limit": "searched", "target": 0.6}, {"clip": "searched", "target": 0.6, "dual_clip": 3.0}),
        ("chord", {"target": 0.6, "clip_low_step": 0.5}, {}),  # nothing was searched for
        ("chord", {"mu_peak": 0.4, "mu_warmup": 3, "warmup": 2}, {"mu.peak": 0.4, "mu.warmup": 3, "update.warmup": 2}),
        ("remix", {"switch_after": 20, "convex_drop": 0.2}, {"mixture.until": 20, "convex.drop": 0.2}),
        ("ghpo", {"hints": [0.5], "hint_after": 3}, {"hints.fractions": (0.5,), "hints.after": 3}),
        ("tis", {"sampler_correction": "none", "sampler_cap": 3.0}, {"sampler_correction": "none"}),
        ("bapo", {"target": 0.5, "clip_high_end": 1.0}, {"clip.target": 0.5, "clip.high_end": 1.0}),
        ("rl-plus", {"limit": "clip", "clip_low": 0.3}, {"clip": "clip", "clip_low": 0.3}),
        ("ppo", {"limit": "detached", "clip": 0.3}, {"clip_kind": "detached", "clip": 0.3}),
        ("a2c", {"limit": "clip", "epochs": 1}, {}),
        ("grpo", {"dial": {"lag": 2, "replay_share": 0.5}}, {"dial.lag": 2, "dial.replay_share": 0.5}),
    ],
)
def test_changed_options_are_translated(method: str, changes: dict[str, Any], today: dict[str, Any]) -> None:
    assert configure(method, old(method, **changes)) == configure(method, today)


@pytest.mark.parametrize(
    ("method", "changes", "sentence"),
    [
        ("sft", {"group_size": 4}, "This run of version 0.1 set group_size to 4, which sft no longer has"),
        ("gspo", {"limit": "searched", "ratio": "token"}, "This run of version 0.1 set limit to 'searched', which gspo no longer has"),
        ("luffy", {"overlong_buffer": 4}, "This run of version 0.1 set overlong_buffer to 4, which luffy no longer has"),
        ("sft", {"mask_truncated": True}, "This run of version 0.1 set mask_truncated to True, which sft no longer has"),
        ("grpo", {"group_size": 0}, r"grpo: groups\.size is 0; it must be at least 1"),
        ("grpo", {"learning_rate": float("nan")}, r"grpo: update\.learning_rate is nan; it must be finite and at least 0"),
    ],
)
def test_what_has_no_counterpart_is_refused(method: str, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        configure(method, old(method, **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("limit", r"ppo: the option limit of version 0\.1 is now objective\.clip_kind: say objective\.clip_kind none\."),
        ("objective.limit", r"ppo: the option objective\.limit is now objective\.clip_kind: say objective\.clip_kind none\."),
    ],
)
def test_the_old_name_of_the_clip_of_control_is_answered_with_the_new_one(name: str, sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        configure("ppo", {name: "none"})
    assert configure("ppo", {"clip_kind": "none"}).objective.clip_kind == "none"
