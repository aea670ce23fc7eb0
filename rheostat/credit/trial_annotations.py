"""WHAT IS IT WORTH? as parts, for trials of many episodes that a policy has in its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rheostat.credit.returns import gae
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD


@dataclass(frozen=True)
class ValuesInContext:
    """Log-probabilities and values of all steps when the update begins, from the whole context as it stands now, permuted or not.

    The value of a successor is that of the next step, whose observation is the next one of the environment after the last row.
    """

    model: str = "policy"
    reads: ClassVar[Sequence[str]] = ("begins", "seen", "previous_action", "previous_reward")
    writes: ClassVar[Sequence[str]] = ("learner_logp", "value", "next_value")

    @property
    def models(self) -> Sequence[str]:
        """Who is asked."""
        return (self.model,)

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, model, trial = batch.rows, context.models[self.model], context.stores["trial"]
        network, memory = model.network, trial.memory
        context.flops += FORWARD * model.weights * rows.shape.numel()
        seen = context.see(torch.cat([rows.observation, context.collector.observation.unsqueeze(1)], 1), self.model)
        along = network.along(trial.read(seen, memory.before(context.environments.upcoming)["begins"]))
        head = network.head(along[:, :-1].flatten(0, 1))
        rows.learner_logp = head.log_prob(rows.action.flatten(0, 1)).view(rows.shape)
        value = network.judge(along.flatten(0, 1)).view(along.shape[:2])
        rows.value, rows.next_value = value[:, :-1], value[:, 1:]
        return batch


@dataclass(frozen=True)
class EpisodeGAE:
    """Generalised advantages within episodes: however one ends, credit does not cross its end, though information does.

    ``delta_t = r_t + gamma m_{t+1} V_{t+1} - V_t`` and ``A_t = delta_t + gamma lam m_{t+1} A_{t+1}``, with m = 0 in the first step of an
    episode. Computed over all steps of the trial at every update, because values change and episodes change places.
    """

    gamma: float = option(0.99, share=True)
    """Discount per step."""
    lam: float = option(0.95, share=True)
    """GAE lambda."""
    reads: ClassVar[Sequence[str]] = ("value", "next_value", "seen")
    writes: ClassVar[Sequence[str]] = ("advantage", "value_target")

    @torch.no_grad()
    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows, scale = batch.rows, context.stores.get("rewards")
        reward = rows.reward if scale is None else scale.scale(rows.reward)
        rows.advantage, rows.value_target = gae(
            reward,
            rows.value,
            rows.next_value,
            rows.terminated,
            rows.truncated,
            gamma=self.gamma,
            lam=self.lam,
            mask=batch.columns["seen"],
            bootstrap_on_truncation=False,
        )
        return batch
