"""Warnings about a run that learns nothing: its rewards carry no signal, or its off-policy correction can have no effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SILENT_UPDATES = 3
"""Updates in a row without a signal after which a warning is given."""
LEAST_UPDATES = 10
"""Updates before a run is judged."""
SMALL_KL = 1e-3
"""Nats per action below which data count as on-policy."""
ROUNDING = 1e-9
"""Nats by which the order of a sum changes its value."""


def warnings_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings about the corrections of a run.

    Args:
        rows: of its ``metrics.jsonl``; those of updates carry ``meter/kl_behaviour_k3``.

    Returns:
        Sentences; none for runs that are on-policy, shorter than ten updates, or well.
    """
    return no_signal(rows) + _corrections(rows)


def no_signal(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader should know about updates that move nothing: rewards without a signal, or gradients of exactly 0.

    Args:
        rows: of a ``metrics.jsonl``.

    Returns:
        A sentence where the newest ``SILENT_UPDATES`` updates moved nothing.
    """
    if found := silent_rewards(rows):
        return found
    if found := all_rejected(rows):
        return found
    updates = [row for row in rows if "meter/gradient_norm" in row][-SILENT_UPDATES:]
    if len(updates) < SILENT_UPDATES:
        return []
    if all(row["meter/gradient_norm"] == 0 for row in updates):
        group = "no group of completions carries a signal, or " if any("reward_spread" in row for row in updates) else ""
        return [
            f"The gradient was exactly 0 in the last {len(updates)} updates, so nothing moved: {group}every advantage is 0 or the clip "
            "cuts all of it."
        ]
    if all(row.get("learning_rate") == 0 for row in updates):
        return [f"The learning rate was 0 in the last {len(updates)} updates, so nothing moved."]
    return []


def all_rejected(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning about a rejection that leaves nothing to learn from.

    Args:
        rows: of a ``metrics.jsonl``; those of updates that may reject carry ``meter/rejected_token_share``.

    Returns:
        A sentence where the newest ``SILENT_UPDATES`` updates rejected every token.
    """
    shares = [row["meter/rejected_token_share"] for row in rows if "meter/rejected_token_share" in row][-SILENT_UPDATES:]
    if len(shares) < SILENT_UPDATES or min(shares) < 1:
        return []
    return [
        f"Every token was rejected in the last {len(shares)} updates, so nothing was learned: all completions are further from their "
        "sampler than rejection_low and rejection_high allow. Widen these bounds, or lower dial.lag."
    ]


def idle_run(rows: Sequence[Mapping[str, Any]], steps: int, updates: int, unit: str) -> list[str]:
    """What a reader should know about a run that has ended: that it never learned, or that its training return is empty.

    Args:
        rows: of its ``metrics.jsonl``.
        steps, unit: what was spent.
        updates: of the policy.
    """
    found = []
    if not updates:
        found.append(
            f"No update has happened in {steps:,} {unit}, so the policy is the one that the run began with: give it more steps, or let it "
            "learn earlier (start_steps, batch_steps)."
        )
    counts = [row["episodes"] for row in rows if "episodes" in row]
    if counts and not counts[-1]:
        found.append(
            f"No episode has ended in {steps:,} {unit}, so there is no training return: give it more steps than an episode has in every "
            "environment (num_envs of them go side by side)."
        )
    return found


def silent_rewards(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning about rewards that are equal for all completions, or missing for all.

    Args:
        rows: of a ``metrics.jsonl``; those that sampled carry ``reward_spread`` and ``abstained_share``.

    Returns:
        A sentence where the newest ``SILENT_UPDATES`` updates had no signal.
    """
    graded = [row for row in rows if "reward_spread" in row]
    last = graded[-SILENT_UPDATES:]
    if len(last) < SILENT_UPDATES or any(row["reward_spread"] for row in last):
        return []
    count = next((number for number, row in enumerate(reversed(graded)) if row["reward_spread"]), len(graded))
    if all(row["abstained_share"] == 1 for row in last):
        return [
            f"Every reward was None in the last {count} updates, so nothing was learned: no reward function takes these prompts for its "
            "own. Look at the condition on which it returns None (a data_source, say)."
        ]
    rewards = {row.get("reward") for row in last}
    if len(rewards) > 1:  # equal within a batch, but not from batch to batch: not a fault of the reward function
        return []
    value = next(iter(rewards))
    part = next((name for name in last[-1] if name.startswith("reward/") and name.endswith("answered")), None)
    why = " No completion held an answer that could be found." if part and not any(row.get(part) for row in last) else ""
    shown = "the same reward" if value is None else f"the reward {value:g}"
    return [
        f"All completions got {shown} in the last {count} updates, so no group carries a signal and nothing was learned from them.{why}"
    ]


def _corrections(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    updates = [row for row in rows if "meter/kl_behaviour_k3" in row and row.get("gradient_steps", 1)]
    if len(updates) < LEAST_UPDATES:
        return []

    def values(name: str) -> list[float]:
        return [row[name] for row in updates if row.get(name) is not None]

    found = []
    kl = max(values("meter/kl_behaviour_k3"))
    oldest = max(values("meter/age_max"), default=0)
    capped = values("meter/capped_share")
    expert = max(values("meter/share_expert"), default=0)
    # data that are as old as their update began are on-policy, however far the first gradient steps then move the policy
    off_policy = kl > SMALL_KL and (oldest > 0 or expert > 0)
    inside, clipped = values("approx_kl"), values("meter/clip_fraction")
    if off_policy and inside and max(inside) < ROUNDING:
        if capped:  # the weight corrects, whatever the ratio does
            return _capped(capped)
        found.append(
            f"The ratio was exactly 1 in every gradient step although the data are up to {oldest:.0f} updates old (KL up to {kl:.2g} nats "
            "per action): the policy is only compared with itself at the start of the update, so nothing corrects for who sampled. "
            "Consider sampler_correction."
        )
    elif off_policy and inside and clipped and max(clipped) == 0:
        found.append(
            f"The clip on the ratio never acted in {len(updates)} updates although the data are off-policy (KL up to {kl:.2g} nats "
            "per action): it has no effect here."
        )
    return found + _capped(capped)


def _capped(shares: list[float]) -> list[str]:
    if shares and min(shares) == 1:
        return ["Every importance weight was at its cap: the correction is a constant factor and corrects nothing. Raise sampler_cap."]
    return []
