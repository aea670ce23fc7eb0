"""Annotations: WHAT IS IT WORTH? as parts. Each fills fields or columns of a batch; the mathematics is in the room's other files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.credit.group_advantages import group_statistics, split_advantage, to_tokens
from rheostat.credit.token_advantages import Advantage, token_advantages
from rheostat.credit.token_returns import token_gae, turn_gae
from rheostat.credit.token_rewards import cosine_length_reward, kl_shaped_reward, overlong_penalty, reward_at_last_token
from rheostat.credit.turns import steps_of
from rheostat.errors import RheostatError
from rheostat.objectives.preference import exponential_weights, softmax_weights
from rheostat.options import option
from rheostat.parts import Batch, Context, row_reward
from rheostat.trajectories import Source, Trajectories

COMPARE_IN_GROUPS = ("grpo", "mean-baseline", "rloo")
"""Advantages that compare the members of a group."""
KL_IN_REWARD = ("rloo", "reinforce-pp")
"""Advantages that know a KL as part of the reward."""


@dataclass(frozen=True)
class OldScores:
    """The learner's log-probabilities, entropies and (with a value head) values at the start of the update.

    Args:
        when: of the context, whether they are computed apart; None asks the learner, which knows whether its update makes more than one
            gradient step. Where they are not, the first training pass is the start of the update.
    """

    when: Callable[[Any], bool] | None = None
    writes: ClassVar[Sequence[str]] = ("learner_logp",)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        if not (context.needs_old_scores or (self.when is not None and self.when(context))):
            return batch
        rows = batch.rows
        with torch.no_grad():
            scores = context.score(rows)
        rows.learner_logp, rows.entropy, rows.learner_head = scores.logp, scores.entropy, scores.head
        if scores.value is not None:
            rows.value, rows.next_value = scores.value, scores.next_value
        return batch


@dataclass(frozen=True)
class ModelScores:
    """Log-probabilities under another model of the learner, in a field of the rows."""

    model: str = "reference"
    into: str = "reference_logp"
    when: Callable[[Any], bool] | None = None
    """From the context: whether they are needed in this update; None: in every one."""

    @property
    def writes(self) -> Sequence[str]:
        """The field that it writes."""
        return (self.into,)

    @property
    def models(self) -> Sequence[str]:
        """Models that it evaluates."""
        return (self.model,)

    def __call__(self, context: Context, batch: Batch) -> Batch:
        if self.when is None or self.when(context):
            setattr(batch.rows, self.into, context.score(batch.rows, self.model, entropy=False).logp)
        return batch


@dataclass(frozen=True)
class OverlongPenalty:
    """A soft penalty for completions near the length limit (DAPO); it changes the return of a row, not its reported reward."""

    buffer: int | None = option(0, short="overlong_buffer", at_least=0)
    """Tokens before the limit over which the penalty grows; 0 for none, None for a quarter of the limit."""
    writes: ClassVar[Sequence[str]] = ("row_reward",)

    def __call__(self, context: Context, batch: Batch) -> Batch:
        buffer = max(1, context.longest // 4) if self.buffer is None else self.buffer
        if buffer:
            penalty = overlong_penalty(batch.rows.mask.sum(1), max_length=context.longest, buffer=buffer)
            batch.columns["row_reward"] = row_reward(batch) + penalty
        return batch

    def bind(self, context: Context) -> None:
        """Refuse a buffer that covers every completion."""
        if self.buffer is not None and self.buffer > context.longest:
            raise RheostatError(
                f"overlong_buffer is {self.buffer}, more than the {context.longest} tokens a completion may have: lower it, raise "
                "max_new_tokens, or switch it off with 0."
            )


@dataclass(frozen=True)
class LengthReward:
    """What a completion earns by whether it is right and by how long it is, in the place of its reward; the reported reward stays.

    See :func:`~rheostat.credit.token_rewards.cosine_length_reward`.
    """

    kind: ClassVar[str] = "cosine"
    least_right: float = option(0.9)
    """What the longest right completion earns."""
    most_right: float = option(1.0)
    """What the shortest right completion earns."""
    least_wrong: float = option(-1.0)
    """What the shortest wrong completion earns."""
    most_wrong: float = option(-0.5)
    """What the longest wrong completion earns."""
    exceed: float = option(-10.0, short="exceed_reward")
    """What a completion earns that comes near the limit of length, right or wrong."""
    margin: int = option(16, short="length_margin", at_least=0)
    """How near to the limit that is, in tokens."""
    right: float = option(1.0, short="right_at_least")
    """Smallest reward of a right completion."""
    writes: ClassVar[Sequence[str]] = ("row_reward",)

    def __post_init__(self) -> None:
        for name, least, most in (("right", self.least_right, self.most_right), ("wrong", self.least_wrong, self.most_wrong)):
            if least > most:
                raise RheostatError(f"least_{name} is {least:g} and most_{name} {most:g}: the least must not be above the most.")

    def bind(self, context: Context) -> None:
        """Refuse a margin that every completion comes into."""
        if self.margin + 1 >= context.longest:
            raise RheostatError(
                f"length_margin is {self.margin}, and a completion may have {context.longest} tokens, so every one would be too long: "
                "lower it, or raise max_new_tokens."
            )

    def __call__(self, context: Context, batch: Batch) -> Batch:
        rows = batch.rows
        length, right = rows.mask.sum(1), row_reward(batch) >= self.right
        batch.columns["row_reward"] = cosine_length_reward(
            right,
            length,
            max_length=context.longest,
            correct=(self.least_right, self.most_right),
            wrong=(self.least_wrong, self.most_wrong),
            exceed=self.exceed,
            margin=self.margin,
        )
        known = rows.valid[:, 0] & rows.mask.any(1)
        for name, those in (("right", right & known), ("wrong", ~right & known)):
            if bool(those.any()):
                batch.metrics[f"{name}_length"] = length[those].float().mean().item()
        return batch


@dataclass(frozen=True)
class GroupAdvantage:
    """A row's reward compared with those of its group or of the batch, on every token; see :mod:`rheostat.credit.token_advantages`."""

    form: Advantage = option("grpo", short="advantage")
    """What a completion's reward is compared with: its group (grpo, mean-baseline, rloo), the batch (reinforce-pp), or nothing (reward)."""
    epsilon: float | None = option(None, short="advantage_epsilon", above=0)
    """Added to the group's standard deviation (verl 1e-6, which None takes; TRL 1e-4)."""
    kl_penalty: float = 0.0
    """Weight of a KL to the reference that is part of the reward."""
    without: Source | None = None
    """Rows of this source enter no statistic and get 0."""
    writes: ClassVar[Sequence[str]] = ("advantage",)

    def __post_init__(self) -> None:
        if self.epsilon is not None and self.form != "grpo":
            raise RheostatError(
                f"advantage_epsilon is added to a group's deviation, which the advantage {self.form!r} does not divide by: set it to none."
            )
        if self.kl_penalty and self.form not in KL_IN_REWARD:
            names = " and ".join(KL_IN_REWARD)
            raise RheostatError(f"A KL that is part of the reward is for the advantages {names}, not for {self.form!r}.")

    @property
    def reads(self) -> Sequence[str]:
        """Log-probabilities, with a KL in the reward."""
        return ("learner_logp", "reference_logp") if self.kl_penalty else ()

    @property
    def needs_old_logp(self) -> bool:
        """Whether the log-probabilities at the start of the update are needed even for a single gradient step."""
        return bool(self.kl_penalty)

    def with_kl(self, coefficient: float) -> GroupAdvantage:
        """A copy with a KL as part of the reward."""
        return replace(self, kl_penalty=coefficient)

    def check(self, composition: Any) -> None:
        """Refuse groups of one where members are compared."""
        size = getattr(composition.innermost, "size", None)
        if size == 1 and self.form in COMPARE_IN_GROUPS:
            raise RheostatError(f"The advantage {self.form!r} compares the members of a group: group_size must be at least 2.")

    def __call__(self, context: Context, batch: Batch) -> Batch:
        batch.rows.advantage = self.of(batch.rows, row_reward(batch))
        return batch

    def of(self, rows: Trajectories, reward: Tensor) -> Tensor:
        """Token advantages ``[B, T]`` from row rewards ``[B]``."""
        mask, valid = rows.mask, rows.valid
        if self.without is not None:
            mine = rows.source != int(self.without)
            mask, valid = mask & mine, valid & mine
        return token_advantages(
            self.form,
            reward,
            rows.group[:, 0],
            mask,
            valid=valid[:, 0],
            eps=1e-6 if self.epsilon is None else self.epsilon,
            kl_penalty=self.kl_penalty,
            old_logp=rows.learner_logp,
            reference_logp=rows.reference_logp,
        )


@dataclass(frozen=True)
class MixedAdvantage(GroupAdvantage):
    """Relative to the mixed group, or to the policy's own rows in it."""

    statistics: Literal["all", "own"] = option("all")
    """Whose rewards make the group's mean and deviation: those of all its rows, or of the policy's own."""
    external_weight: float = option(1.0)
    """Factor on the advantage of expert tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.statistics == "own" and self.form not in ("grpo", "mean-baseline"):
            raise RheostatError("statistics 'own' is for the advantages grpo and mean-baseline, which have a mean of the group.")

    def of(self, rows: Trajectories, reward: Tensor) -> Tensor:
        """Token advantages ``[B, T]`` from row rewards ``[B]``."""
        expert = rows.source[:, 0] == int(Source.EXPERT)
        if self.statistics == "all":
            found = super().of(rows, reward)
        else:
            options: dict[str, Any] = {
                "scale": "group" if self.form == "grpo" else "none",
                "eps": 1e-6 if self.epsilon is None else self.epsilon,
                "valid": rows.valid[:, 0],
            }
            found = to_tokens(split_advantage(reward, rows.group[:, 0], ~expert, **options), rows.mask)
        return torch.where(expert[:, None], self.external_weight * found, found)


@dataclass(frozen=True)
class LabelsAndRates:
    """Marks right completions and computes their share in each group; masks groups without both kinds."""

    threshold: float = option(1.0)
    """Smallest reward that counts as right."""
    writes: ClassVar[Sequence[str]] = ("right", "rate")

    def __call__(self, context: Context, batch: Batch) -> Batch:
        rows = batch.rows
        valid = rows.valid[:, 0]
        right = (rows.reward.sum(1) >= self.threshold).float()
        rate = group_statistics(right, rows.group[:, 0], valid=valid).mean
        informative = (rate > 0) & (rate < 1) & valid
        rows.mask = rows.mask & informative[:, None]
        batch.columns |= {"right": right, "rate": rate}
        batch.metrics["mixed_share"] = informative.float().mean().item()
        return batch


@dataclass(frozen=True)
class TokenGAE:
    """Generalised advantages over the tokens of a completion, and what the critic regresses on (PPO for language models).

    Over turns, a turn of the policy is one action: rewards of turns stand where they were earned, the value of a turn is that of its first
    token, and all tokens of a turn share its advantage and what the critic regresses on.
    """

    gamma: float = option(1.0, share=True)
    """Discount per token (over turns, per turn)."""
    lam: float = option(1.0, share=True)
    """GAE lambda."""
    kl_penalty: float = 0.0
    """Weight of a KL to the reference that is part of the token rewards."""
    over: Literal["tokens", "turns"] = option("tokens", short="gae_over")
    """What one step is: a token, or a turn of the policy in a task of several turns (a whole completion in others)."""
    writes: ClassVar[Sequence[str]] = ("advantage", "value_target", "value")
    needs_old_logp: ClassVar[bool] = True

    @property
    def reads(self) -> Sequence[str]:
        """Log-probabilities, with a KL in the reward."""
        return ("learner_logp", "reference_logp") if self.kl_penalty else ("learner_logp",)

    def __call__(self, context: Context, batch: Batch) -> Batch:
        rows = batch.rows
        reward = row_reward(batch)
        tokens = reward_at_last_token(reward, rows.mask)
        if self.kl_penalty:
            tokens = kl_shaped_reward(reward, rows.learner_logp, rows.reference_logp, rows.mask, coefficient=self.kl_penalty)
        tokens = tokens + torch.where(rows.truncated, self.gamma * rows.next_value, 0.0)
        if self.over == "turns":
            earned = rows.reward - reward_at_last_token(rows.reward.sum(1), rows.mask)  # from the row's end to where it was earned
            rows.advantage, rows.value_target = turn_gae(tokens + earned, rows.value, steps_of(batch), gamma=self.gamma, lam=self.lam)
            return batch
        rows.advantage, rows.value_target = token_gae(tokens, rows.value, rows.mask, gamma=self.gamma, lam=self.lam)
        return batch


@dataclass(frozen=True)
class RewardWeights:
    """The weight of an answer's likelihood, from its reward (reward-weighted regression)."""

    form: Literal["exponential", "softmax"] = option("exponential", short="weights")
    """exp(r / tau), at most the cap; or a softmax of r / tau over the answers of a prompt."""
    temperature: float = option(1.0, short="weight_temperature", above=0)
    """tau: the smaller, the more the best answers alone are learned."""
    largest: float = option(20.0, short="largest_weight", above=0)
    """Cap of an exponential weight."""
    writes: ClassVar[Sequence[str]] = ("weight",)

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {"largest": "a softmax has no cap, so use exponential weights, or leave it alone"} if self.form == "softmax" else {}

    def __call__(self, context: Context, batch: Batch) -> Batch:
        reward, rows = row_reward(batch), batch.rows
        if self.form == "exponential":
            batch.columns["weight"] = exponential_weights(reward, self.temperature, self.largest)
            return batch
        batch.columns["weight"] = torch.zeros_like(reward)
        for group in rows.group[:, 0].unique():
            mine = (rows.group[:, 0] == group) & rows.mask.any(1)
            batch.columns["weight"][mine] = softmax_weights(reward[mine], self.temperature)
        return batch
