"""Two language models on the same problems: problems gained and lost by training, and the change of log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rheostat.analysis.coverage import Coverage, coverage
from rheostat.analysis.interference import Interference, interference
from rheostat.errors import RheostatError
from rheostat.experiments.language_runs import Samples, deciding_reward, sample_validation

SOLUTIONS = 4
"""Right completions of a prompt that are scored by both models, at most."""


@dataclass(frozen=True)
class Boundary:
    """The comparison of two models: winner-take-all and negative interference (arXiv 2510.02230)."""

    coverage: Coverage
    interference: Interference | None
    """Interference on right solutions of the first model; None where it has none."""
    prompts: int
    samples: int

    def to_json(self) -> dict[str, Any]:
        """As a plain object; unknown values are None."""
        deciles = [vars(each) for each in self.coverage.deciles]
        rows = [{name: None if value != value else value for name, value in row.items()} for row in self.rows()]
        return {"prompts": self.prompts, "samples": self.samples, "results": rows, "deciles": deciles}

    def rows(self) -> list[dict[str, Any]]:
        """One row per number, for tables: its name, both models' estimates, and the change with its 95 % interval."""
        found = self.coverage
        rows: list[dict[str, Any]] = [
            {"result": f"pass@{k}", "before": found.before[k].estimate, "after": found.after[k].estimate} | _of(found.change[k])
            for k in found.before
        ]
        rows += [{"result": f"problems {name}"} | _of(share) for name, share in (("lost", found.lost), ("gained", found.gained))]
        rows.append({"result": "rank correlation of the rate before and its change", "estimate": found.rank_correlation})
        if self.interference is not None:
            rows.append({"result": "problems whose right solutions became less likely"} | _of(self.interference.harmed))
            rows.append({"result": "log-probability of a right solution, nats"} | _of(self.interference.change))
        return rows


def _of(interval: Any) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def boundary(
    before: Any, after: Any, *, prompts: int = 200, samples: int = 64, threshold: float = 1.0, right_by: str | None = None
) -> Boundary:
    """Sample both models on the same validation prompts, and score the first one's right solutions with both.

    Args:
        before: a :class:`~rheostat.training.run.Run` of a language method (or of a model that no run has trained).
        after: another with the same task and tokenizer. The training of both does not change.
        prompts: of the fixed validation split, at most.
        samples: completions per prompt of each model.
        threshold: smallest reward that counts as right.
        right_by: name of the reward that is compared with it, of several; None takes the first.

    Raises:
        RheostatError: no reward of that name, their prompts or token ids differ, or what sampling refuses.
    """
    one, other = (run.method.context.sampling for run in (before, after))
    if one != other:
        raise RheostatError(f"The two models are sampled differently, so pass@k cannot be compared: {one} and {other}.")
    decides, also = deciding_reward(before, right_by), deciding_reward(after, right_by)
    first = sample_validation(before, prompts, samples)
    second = sample_validation(after, prompts, samples)
    if [(prompt.key, ids) for prompt, ids in first.drawn] != [(prompt.key, ids) for prompt, ids in second.drawn]:
        raise RheostatError("The two models see other prompts, or other tokens for them: compare models of one task and one tokenizer.")
    right = first.right(threshold, decides)
    return Boundary(
        coverage(right.numpy(), second.right(threshold, also).numpy()),
        _interference(before, after, first, right),
        len(first.drawn),
        samples,
    )


def _interference(before: Any, after: Any, samples: Samples, right: torch.Tensor) -> Interference | None:
    kept = right & (right.cumsum(1) <= SOLUTIONS)
    if not bool(kept.any()):
        return None
    log_probabilities: list[list[torch.Tensor]] = [[], []]
    for part, chosen in zip(samples.parts, kept.flatten().split([len(part.prompts) for part in samples.parts]), strict=True):
        if bool(chosen.any()):
            rows = part.trajectories[chosen]
            for found, run in zip(log_probabilities, (before, after), strict=True):
                context = run.method.context
                with context.evaluating(), torch.no_grad():
                    found.append(context.score(rows, entropy=False).logp.double().sum(1))
    first, second = (torch.cat(found).numpy() for found in log_probabilities)
    return interference(first, second, kept.nonzero()[:, 0].numpy())
