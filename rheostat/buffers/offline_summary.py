"""An offline data set in numbers."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.buffers.offline import OfflineData

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def summarise(data: OfflineData) -> dict[str, Any]:
    """Sizes, returns, ends, ranges and origin, as plain JSON.

    Returns and scores are of whole episodes where there are any; ``score`` is in percent, None without reference returns.
    """
    rows, returns = data.transitions, data.whole_returns
    levels = torch.quantile(returns, torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
    scored = data.reference is not None
    names = [f"{100 * level:.0f}" for level in QUANTILES]
    ends = data.breaks
    return {
        "task": data.task,
        "steps": len(data),
        "episodes": len(data.episodes),
        "cut_episodes": int(data.cut.sum()),
        "episode_length": {"least": int(data.lengths.min()), "mean": float(data.lengths.double().mean()), "most": int(data.lengths.max())},
        "return": {"mean": float(returns.mean()), "quantiles": dict(zip(names, levels, strict=True))},
        "score": {
            "mean": data.normalised_score(float(returns.mean())),
            "quantiles": {name: data.normalised_score(level) for name, level in zip(names, levels, strict=True)},
        }
        if scored
        else None,
        "reference": {"random": data.reference[0], "expert": data.reference[1], "source": data.reference_source}
        if data.reference is not None
        else None,
        "terminated_share": float(rows.terminated[ends].double().mean()),
        "truncated_share": float((rows.truncated & ~rows.terminated)[ends].double().mean()),
        "observation_space": str(data.observation_space),
        "action_space": str(data.action_space),
        "action_range": {
            "least": rows.action.reshape(len(rows), -1).amin(0).tolist(),
            "most": rows.action.reshape(len(rows), -1).amax(0).tolist(),
        },
        "log_probabilities": bool(rows.sampler_logp.isfinite().all()),
        "behaviour": data.behaviour,
        "digest": data.digest,
        "facts": data.facts,
        "warnings": data.warnings,
    }
