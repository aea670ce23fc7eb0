"""WHAT IS IT WORTH? as parts, for stretches of environment steps: values and log-probabilities at the start of an update, GAE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rheostat.credit.returns import gae
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.actor_critic import evaluate
from rheostat.policies.flops import FORWARD
from rheostat.trajectories import Source


@dataclass(frozen=True)
class OldValues:
    """Log-probabilities and values when the update begins, under the current statistics; the rows that are kept stay as they are."""

    model: str = "policy"
    writes: ClassVar[Sequence[str]] = ("learner_logp", "value", "next_value")

    @property
    def models(self) -> Sequence[str]:
        """Who is asked."""
        return (self.model,)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        kept, model = batch.rows, context.models[self.model]
        rows = kept.clone(recurse=False)
        context.flops += 2 * FORWARD * model.weights * kept.count()  # every state, and its successor for the critic
        observation = context.see(kept.observation, self.model).flatten(0, 1)
        following = context.see(kept.next_observation, self.model).flatten(0, 1)
        start = evaluate(model.network, observation)
        assert start.value is not None
        rows.learner_logp = start.distribution.log_prob(kept.action.flatten(0, 1)).view(kept.shape)
        rows.value = start.value.view(kept.shape)
        rows.next_value = model.network.value(following).view(kept.shape)
        older = (kept.source == int(Source.FRESH)) & (kept.version < context.updates)
        rows.source = torch.where(older, int(Source.STALE), kept.source)  # what was fresh has aged in the window
        return batch.with_rows(rows)


@dataclass(frozen=True)
class OldSequenceValues:
    """The same along sequences, by a policy that remembers: every row from the memory it began with.

    The value of a successor is that of the next step, or, where an episode or the row ends, one more step of the memory onto the true
    final observation. The memory at the beginning of a row is as it was when the row was sampled.
    """

    model: str = "policy"
    reads: ClassVar[Sequence[str]] = ("begins", "memory")
    writes: ClassVar[Sequence[str]] = ("learner_logp", "value", "next_value")

    @property
    def models(self) -> Sequence[str]:
        """Who is asked."""
        return (self.model,)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, model = batch.rows.clone(recurse=False), context.models[self.model]
        network, place = model.network, 0
        context.flops += FORWARD * model.weights * rows.count()
        features, following = [], []
        seen = context.see(rows.observation, self.model)
        for stretch, memory in network.stretches(seen, batch.columns["begins"], batch.columns["memory"]):
            place += stretch.shape[1]
            beyond, _ = network.step(context.see(rows.next_observation[:, place - 1], self.model), memory)
            features.append(stretch)
            following.append(torch.cat([stretch[:, 1:], beyond.unsqueeze(1)], 1))
        along = torch.cat(features, 1).flatten(0, 1)
        rows.learner_logp = network.head(along).log_prob(rows.action.flatten(0, 1)).view(rows.shape)
        rows.value = network.judge(along).view(rows.shape)
        rows.next_value = network.judge(torch.cat(following, 1).flatten(0, 1)).view(rows.shape)
        return batch.with_rows(rows)


@dataclass(frozen=True)
class OldValuesApart:
    """The same of a policy of unit actions and a critic apart from it; observations and actions come as the networks read them."""

    model: str = "policy"
    critic: str = "value"
    writes: ClassVar[Sequence[str]] = ("learner_logp", "value", "next_value")

    @property
    def models(self) -> Sequence[str]:
        """Who is asked."""
        return (self.model, self.critic)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, critic = batch.rows, context.models[self.critic].network
        seen, shape = rows.observation.flatten(0, 1), rows.shape
        rows.learner_logp = context.models[self.model].distribution(seen).log_prob(rows.action.flatten(0, 1)).view(shape)
        rows.value = critic(seen).view(shape)
        rows.next_value = critic(rows.next_observation.flatten(0, 1)).view(shape)
        return batch


@dataclass(frozen=True)
class GAE:
    """Generalised advantages over whole rows, and what the critic regresses on; rewards divided by their running scale, if there is one."""

    gamma: float = option(0.99, share=True)
    """Discount per step."""
    lam: float = option(0.95, share=True)
    """GAE lambda."""
    bootstrap_on_truncation: bool = option(True)
    """Bootstrap from the final observation's value when an episode is cut by a time limit; False treats it as death, as CleanRL does."""
    reads: ClassVar[Sequence[str]] = ("value", "next_value")
    writes: ClassVar[Sequence[str]] = ("advantage", "value_target")

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, scale = batch.rows, context.stores.get("rewards")
        rows.reward = rows.reward if scale is None else scale.scale(rows.reward)
        rows.advantage, rows.value_target = gae(
            rows.reward,
            rows.value,
            rows.next_value,
            rows.terminated,
            rows.truncated,
            gamma=self.gamma,
            lam=self.lam,
            mask=rows.mask,
            bootstrap_on_truncation=self.bootstrap_on_truncation,
        )
        return batch
