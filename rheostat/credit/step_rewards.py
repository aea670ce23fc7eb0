"""Step rewards of agents: how much a turn of the policy was worth, and its advantage beside that of the whole episode.

A step reward comes from an implicit process reward model, ``r_t = beta sum_tokens (log pi_phi - log pi_old)`` (Liu et al. 2025, arXiv
2509.19199), or from an environment that knows by how much a turn has changed a potential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.credit.group_advantages import group_statistics
from rheostat.credit.process_rewards import implicit_rewards, pair_accuracy
from rheostat.credit.turns import on_tokens, per_step, steps_of, taken
from rheostat.errors import RheostatError
from rheostat.masking import masked_mean, require_same_shape, select, standardise
from rheostat.options import option
from rheostat.parts import Batch, row_reward

Form = Literal["grpo", "mean-baseline", "rloo"]
Statistics = Literal["steps", "first"]
LEAST = 1e-6
"""Added to the largest step reward before it divides, as in the authors' code."""


def compared(
    values: Tensor,
    there: Tensor,
    group: Tensor,
    *,
    form: Form = "grpo",
    statistics: Statistics = "steps",
    eps: float = 1e-6,
    unbiased: bool = False,
) -> Tensor:
    """Values of steps compared with those of their group.

    | form | advantage of a step |
    |---|---|
    | ``grpo`` | (value - mean) / (std + eps) |
    | ``mean-baseline`` | value - mean |
    | ``rloo`` | (value - mean) n / (n - 1), n the number of values in the mean |

    Args:
        values: ``[B, S]``; entries that are not there may be NaN.
        there: ``[B, S]`` bool.
        group: ``[B]`` integers.
        form: see the table.
        statistics: mean, deviation and n are over all steps of the group, or over the first step of each of its trajectories.
        eps: added to the deviation.
        unbiased: divide the variance by n - 1.

    Returns:
        ``[B, S]``; 0 where nothing is there, and in a group with one value.

    Raises:
        RheostatError: different shapes, or a value that is not finite.
    """
    require_same_shape(values=values, there=there)
    counted = there if statistics == "steps" else there & (there.cumsum(1) == 1)
    flat = group[:, None].expand(values.shape).flatten()
    found = group_statistics(select(values, there).flatten(), flat, valid=counted.flatten(), unbiased=unbiased)
    mean, std, size, centred = (each.view(values.shape) for each in (found.mean, found.std, found.size, found.centred))
    distance = torch.where(counted, centred, select(values, there) - mean)
    if form == "grpo":
        distance = distance / (std + eps)
    if form == "rloo":
        distance = distance * size / (size - 1).clamp(min=1)
    return select(distance, there & (size > 1))


@dataclass(frozen=True)
class StepAdvantage:
    """The advantage of every step: of its episode's outcome in the group, and of its own reward among those of the group's steps."""

    source: Literal["model", "environment"] = option("model", short="step_rewards")
    """Who gives step rewards: the reward model, or an environment that knows how a turn changes what is left to do (an oracle)."""
    granularity: Literal["step", "token"] = option("step", short="step_granularity")
    """What a step is: a turn of the policy, or a single token (as in PRIME, for comparison)."""
    form: Form = option("grpo", short="advantage")
    """How values are compared with those of their group: in deviations, with its mean, or with the mean of the others."""
    statistics: Statistics = option("steps", short="step_statistics")
    """What a step reward is compared with: all steps of the group, or the first step of each episode (as the authors' code does)."""
    unbiased: bool = option(False, short="unbiased_deviation")
    """Divide the variance of a group by n - 1."""
    epsilon: float = option(1e-6, short="advantage_epsilon", above=0)
    """Added to a group's deviation."""
    combine: Literal["advantages", "rewards", "outcome"] = option("advantages")
    """Add up both advantages; or compare once, with the step reward added to the outcome, or all of them (the paper's merged rewards)."""
    coefficient: float = option(1.0, short="step_coefficient", at_least=0)
    """Weight alpha of step rewards beside the outcome."""
    episode: float = option(1.0, short="episode_coefficient", at_least=0)
    """Weight of the outcome; 0 learns from step rewards alone."""
    scale: Literal["none", "largest"] = option("none", short="step_scale")
    """Divide step rewards by the largest of the batch in size, as the authors' code does."""
    whiten: bool = option(False)
    """Standardise each advantage over the tokens of the batch (REINFORCE++ with a baseline)."""
    beta: float = 0.05
    """Reward per nat."""
    model: str = "reward"
    writes: ClassVar[Sequence[str]] = ("advantage", "step_reward")
    needs_old_logp: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.coefficient and not self.episode:
            raise RheostatError("step_coefficient and episode_coefficient are both 0: then nothing is learned; raise one of them.")

    @property
    def learned(self) -> bool:
        """Whether a reward model gives step rewards that count."""
        return self.source == "model" and self.coefficient > 0

    @property
    def reads(self) -> Sequence[str]:
        """Log-probabilities at the start of the update."""
        return ("learner_logp",) if self.learned else ()

    @property
    def models(self) -> Sequence[str]:
        """Names of the models that it evaluates."""
        return (self.model,) if self.learned else ()

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found: dict[str, str] = {}
        if self.form != "grpo":
            found |= dict.fromkeys(("unbiased", "epsilon"), f"the advantage {self.form!r} divides by no deviation, so leave it alone")
        if self.combine != "advantages":
            why = f"combine {self.combine!r} compares the sum of outcome and step rewards"
            found["episode"] = f"{why}, so leave it alone"
            if self.combine == "outcome":
                found["statistics"] = f"{why}, which all steps of an episode share, so leave it alone"
        if not self.coefficient:
            why = "step_coefficient is 0, so raise it, or leave this alone"
            found |= dict.fromkeys(("source", "granularity", "statistics", "combine", "scale"), why)
        elif self.source == "environment":
            found["granularity"] = "an environment rewards whole turns, so leave it alone"
        return found

    def check(self, composition: Any) -> None:
        """Refuse groups of one."""
        if getattr(composition.innermost, "size", None) == 1:
            raise RheostatError("Step advantages compare the episodes of a group: group_size must be at least 2.")

    def bind(self, context: Any) -> None:
        """Refuse an oracle that the task does not have."""
        task = context.setup.task
        if self.source == "environment" and not task.knows_progress:
            raise RheostatError(f"step_rewards 'environment' needs a task that knows how far it is from its end, and {task.name} does not.")

    def steps(self, batch: Batch) -> Tensor:
        """``[B, T]``: the step of every token."""
        return steps_of(batch, single_tokens=self.granularity == "token")

    def rewards(self, batch: Batch, logp: Tensor | None) -> Tensor:
        """Step rewards ``[B, S]``, scaled where that is asked for.

        Args:
            batch: its rows have the log-probabilities ``learner_logp``, or it has the column ``progress``.
            logp: ``[B, T]`` under the reward model; None where none gives the rewards.
        """
        rows, step = batch.rows, self.steps(batch)
        if logp is None and self.source == "model":  # they weigh nothing
            return torch.zeros(taken(step).shape)
        tokens = batch.columns["progress"] if logp is None else implicit_rewards(logp, rows.learner_logp, rows.mask, beta=self.beta)
        found = per_step(tokens, step)
        return found / (found.abs().max() + LEAST) if self.scale == "largest" and found.numel() else found

    def of(self, batch: Batch, reward: Tensor, outcome: Tensor) -> Tensor:
        """Advantages ``[B, T]`` of tokens.

        Args:
            batch: rows and their steps.
            reward: ``[B, S]`` of steps.
            outcome: ``[B]`` of episodes, or ``[B, S]`` where it differs between the steps of an episode.
        """
        rows, step = batch.rows, self.steps(batch)
        there, group = taken(step), rows.group[:, 0]
        outcome = outcome[:, None].expand(reward.shape) if outcome.dim() == 1 else outcome
        options: dict[str, Any] = {"form": self.form, "eps": self.epsilon, "unbiased": self.unbiased}
        if self.combine == "advantages":
            parts = [
                (self.episode, compared(outcome, there, group, statistics="first", **options)),
                (self.coefficient, compared(reward, there, group, statistics=self.statistics, **options)),
            ]
        else:
            added = reward if self.combine == "rewards" else select(reward, there).sum(1, keepdim=True).expand(reward.shape)
            statistics: Statistics = "first" if self.combine == "outcome" else self.statistics
            parts = [(1.0, compared(outcome + self.coefficient * added, there, group, statistics=statistics, **options))]
        found = torch.zeros(rows.mask.shape, dtype=reward.dtype, device=reward.device)
        for weight, part in parts:
            tokens = on_tokens(part, step)
            found = found + weight * (standardise(tokens, rows.mask, eps_inside_root=True) if self.whiten else tokens)
        return found

    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, step = batch.rows, self.steps(batch)
        logp = None
        if self.learned:
            with torch.no_grad():
                logp = context.score(rows, self.model, entropy=False).logp
        reward, outcome = self.rewards(batch, logp), row_reward(batch)
        rows.advantage = self.of(batch, reward, outcome)
        batch.columns["step_reward"] = on_tokens(reward, step)
        batch.metrics |= self.told(batch, reward, outcome)
        return batch

    def told(self, batch: Batch, reward: Tensor, outcome: Tensor) -> dict[str, float]:
        """Metrics: size of step rewards; of the reward model, how it orders episodes and how it agrees with an oracle."""
        step, kept = self.steps(batch), batch.rows.mask.any(1)
        there = taken(step)
        found = {"steps/reward_size": masked_mean(reward.abs(), there).item()}
        if not self.learned:
            return found
        order = pair_accuracy(select(reward, there).sum(1), outcome, batch.rows.group[:, 0], kept)
        found |= {} if bool(order.isnan()) else {"reward_model/pair_accuracy": order.item()}
        if "progress" in batch.columns and self.granularity == "step":
            agreed = correlation(reward[there], per_step(batch.columns["progress"], step)[there])
            found |= {} if agreed is None else {"reward_model/progress_correlation": agreed}
        return found


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's, of two ``[N]``; None where one of them does not vary."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    size = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / size) if len(a) > 1 and bool(size > 0) else None
