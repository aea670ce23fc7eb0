"""The library's own form: one rollout, with everything about it."""

from rheostat.credit.verifiers import Rollout


def brief(rollout: Rollout) -> float | None:
    if rollout.truncated:
        return None  # abstains: the row is masked, and nobody has failed
    return -0.01 * len(rollout.completion_ids)
