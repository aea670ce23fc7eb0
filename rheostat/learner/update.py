"""HOW DOES THE POLICY MOVE? The gradient loop over tokens: it minimises a weighted sum of terms; micro-batches do not change the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rheostat.masking import masked_mean
from rheostat.objectives.meter import off_policyness, rare_tokens
from rheostat.options import option
from rheostat.parts import BEGUN, Batch, Metrics, NonFinite, Weighted
from rheostat.policies.flops import FORWARD, TRAIN
from rheostat.policies.optimizers import moments_on_the_meter
from rheostat.trajectories import Source

Before = list[tuple[Tensor, Tensor]]
"""Log-probabilities and entropies of the masked tokens, as the only gradient step of an update found them."""


DECAYS: dict[str, Callable[[float], float]] = {
    "none": lambda spent: 1.0,
    "linear": lambda spent: 1.0 - spent,
    "cosine": lambda spent: 0.5 * (1.0 + math.cos(math.pi * spent)),
}
"""What is left of the learning rate, of the share of the budget that is spent."""


@dataclass(frozen=True)
class Update:
    """Gradient steps of one model on a batch."""

    epochs: int = option(1, at_least=1)
    """Passes over a batch."""
    minibatches: int = option(1, at_least=1)
    """Gradient steps per pass; rows of one group may be in different steps."""
    micro_batch_rows: int = option(0, at_least=0)
    """Rows per forward and backward pass, for memory; 0 takes a whole minibatch. The result does not depend on it."""
    learning_rate: float = option(1e-6, at_least=0)
    """AdamW step size."""
    warmup: int = option(0, at_least=0)
    """Updates over which the learning rate rises linearly."""
    decay: Literal["none", "linear", "cosine"] = option("none", short="learning_rate_decay")
    """How the learning rate falls to 0 over the budget: not at all, by a line, or by half a cosine."""
    weight_decay: float = option(0.0, at_least=0)
    """AdamW weight decay."""
    max_grad_norm: float = option(1.0, above=0)
    """Global gradient norm limit."""
    terms: tuple[Weighted, ...] = ()
    model: str = "policy"

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "dial.updates_per_batch says how many gradient steps there are, so use one of both"
        return {} if method.dial.updates_per_batch is None else dict.fromkeys(("epochs", "minibatches"), why)

    def of(self, *terms: Weighted | None, model: str = "policy") -> Update:
        """A copy of this update that minimises the sum of the terms; None entries are dropped."""
        return replace(self, terms=tuple(term for term in terms if term is not None), model=model)

    @property
    def gradient_steps(self) -> int:
        """Gradient steps on a batch."""
        return self.epochs * self.minibatches

    @property
    def needs_value_head(self) -> bool:
        """Whether a term trains a critic on tokens."""
        return any(getattr(each.term, "needs_value_head", False) for each in self.terms)

    def metrics_mask(self, batch: Batch) -> Tensor:
        """``[B, T]`` bool: the tokens that the diagnostics of a step are means over, those of the first term."""
        return self.terms[0].term.mask(batch)

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Make all gradient steps; returns metrics.

        Raises:
            NonFinite: a loss or the gradient is not finite; carries the batch.
        """
        batch, rejected = self.accepted(batch)
        model, rows = context.models[self.model], batch.rows
        self.prepare(context)
        usable = usable_rows(batch)
        reports: list[dict[str, Tensor]] = []
        before: Before = []
        for _ in range(self.epochs if len(usable) else 0):
            for index in self.minibatch_rows(context, batch, usable):
                reports.append(self.step(context, batch[index], before))
        context.finish_update(self.model)
        metrics: Metrics = {}
        if reports:
            for name in dict.fromkeys(name for report in reports for name in report):  # a step without some source says nothing of it
                metrics[name] = torch.stack([report[name] for report in reports if name in report]).mean().item()
            if self.model == context.deployed and (rows.learner_logp is not None or len(reports) == 1):
                metrics |= self.meter(context, batch, before)
            metrics |= moments_on_the_meter(model.optimizer)
            for each in self.terms:
                metrics |= each.term.summary(batch) if hasattr(each.term, "summary") else {}
            if self.model == context.deployed:
                context.learner_tokens += int(rows.mask.sum()) * self.epochs
        return metrics | rejected | {"gradient_steps": len(reports)}

    def accepted(self, batch: Batch) -> tuple[Batch, Metrics]:
        """The batch without the tokens that its terms reject, and which shares of tokens and completions these are."""
        rejecting = [each.term for each in self.terms if getattr(each.term, "rejects", False)]
        if not rejecting:
            return batch, {}
        before = after = batch.rows.mask
        for term in rejecting:
            after = after & (term.accepted(batch) | ~term.mask(batch))
        gone, there = (before & ~after).sum(), before.sum().clamp(min=1)
        empty, full = (before.any(1) & ~after.any(1)).sum(), before.any(1).sum().clamp(min=1)
        rows = batch.rows.clone(recurse=False)
        rows.mask = after
        shares = {"rejected_token_share": (gone / there).item(), "rejected_completion_share": (empty / full).item()}
        return batch.with_rows(rows), {f"meter/{name}": value for name, value in shares.items()}

    def prepare(self, context: Any) -> None:
        """Set the model's step size for this update."""
        warm = min(1.0, (context.updates_of(self.model) + 1) / max(1, self.warmup))
        left = DECAYS[self.decay](context.spent_share)
        context.models[self.model].set_learning_rate(self.learning_rate * warm * left)

    def minibatch_rows(self, context: Any, batch: Batch, usable: Tensor) -> Sequence[Tensor]:
        """Indices of the rows of every minibatch of one pass; units stay whole."""
        if self.minibatches == 1:
            return [usable]
        generator = context.streams["minibatches"]
        if batch.units is None:
            order = usable[torch.randperm(len(usable), generator=generator)]
            return order.tensor_split(min(self.minibatches, len(usable)))
        unit = batch.units[usable]
        known = unit.unique()
        order = known[torch.randperm(len(known), generator=generator)]
        return [usable[torch.isin(unit, part)] for part in order.tensor_split(min(self.minibatches, len(known)))]

    def step(self, context: Any, batch: Batch, before: Before) -> dict[str, Tensor]:
        """One optimiser step on some rows.

        Args:
            context: of the learner.
            batch: the rows of this step.
            before: receives the present log-probabilities and entropies where the old ones are not stored yet.

        Returns:
            Scalars by name.

        Raises:
            NonFinite: a loss or the gradient is not finite; carries the rows.
        """
        context.count_flops(TRAIN, batch.rows, self.model)
        total = self.accumulate(context, batch, before)
        norm = context.models[self.model].step()
        if not bool(norm.isfinite()) or not all(bool(value.isfinite()) for value in total.values()):
            names = [name for name, value in total.items() if not bool(value.isfinite())] or ["the gradient"]
            raise NonFinite(f"{', '.join(names)} became non-finite in update {context.updates_of(self.model) + 1}", batch.rows)
        return total | {"meter/gradient_norm": norm.detach()}

    def accumulate(self, context: Any, batch: Batch, before: Before | None = None, seen: list[Any] | None = None) -> dict[str, Tensor]:
        """Accumulate the gradient of the terms for some rows, without an optimiser step.

        Args:
            context: of the learner.
            batch: the rows of a gradient step.
            before: see :meth:`step`.
            seen: takes the log-probabilities (which then keep their gradients) and the clipped tokens of every micro-batch.

        Returns:
            Scalars by name.
        """
        model = context.models[self.model]
        denominators = [each.term.denominator(batch, context) for each in self.terms]
        model.optimizer.zero_grad(set_to_none=True)
        size = self.micro_batch_rows or len(batch)
        batch = self.begun(context, batch, size)
        tokens = self.metrics_mask(batch).sum().clamp(min=1)
        sources = sources_of(batch)
        total: dict[str, Tensor] = {}
        for part in batch.split(size):
            with context.dropping(self.model):
                scores = context.score(part.rows, self.model)
                if seen is not None:
                    scores.logp.retain_grad()
                loss, sums, means, clipped = self.losses(context, scores, part, denominators)
                loss.backward()
            if part.rows.learner_logp is None and before is not None:
                before.append(self.undropped(context, part, scores))
            if seen is not None:
                seen.append((scores.logp, clipped))
            mask = self.metrics_mask(part)
            share = mask.sum() / tokens
            means["entropy"] = masked_mean(scores.entropy.detach(), mask)
            if clipped is not None:
                for kind, count in sources.items():
                    mine = part.rows.mask & (part.rows.source == int(kind))
                    sums[f"meter/{kind.name.lower()}/clip_fraction"] = (clipped & mine).sum() / count
            for name, value in sums.items():
                total[name] = total.get(name, torch.zeros(())) + value
            for name, value in means.items():
                total[name] = total.get(name, torch.zeros(())) + value * share
        return total

    def undropped(self, context: Any, part: Batch, scores: Any) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of the masked tokens under the policy that samples: a pass of its own where adapters drop."""
        if context.drops(self.model):
            with torch.no_grad():
                scores = context.score(part.rows, self.model)
        return scores.logp.detach()[part.rows.mask], scores.entropy.detach()[part.rows.mask]

    def losses(
        self, context: Any, scores: Any, part: Batch, denominators: list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor], Tensor | None]:
        """The weighted sum of the terms on a micro-batch; scalars that add up over micro-batches, scalars that are means over tokens, and
        the tokens that the first term clips."""
        update = context.updates_of(self.model)
        loss: Any = 0.0
        sums: dict[str, Tensor] = {}
        means: dict[str, Tensor] = {}
        clipped: Tensor | None = None
        for each, denominator in zip(self.terms, denominators, strict=True):
            value, report = each.term(scores, part, denominator, context)
            loss = loss + each.at(update) * value
            sums |= report.sums
            if each.name:
                sums[f"{each.name}_loss"] = value.detach()
            means |= report.means
            clipped = report.clipped if clipped is None else clipped
        return loss, sums, means, clipped

    def begun(self, context: Any, batch: Batch, size: int) -> Batch:
        """All rows of a step, with what terms must find out about them before its micro-batches."""
        waiting = [each.term for each in self.terms if getattr(each.term, "needs_whole_step", False)]
        if not waiting or size >= len(batch):
            return batch
        with torch.no_grad():
            logp = torch.cat([context.score(part.rows, self.model, count=False).logp for part in batch.split(size)])
        context.count_flops(FORWARD, batch.rows, self.model)
        for term in waiting:
            batch = term.begin(context, logp, batch)
        return replace(batch, facts=batch.facts | {BEGUN: True})

    def meter(self, context: Any, batch: Batch, before: Before) -> Metrics:
        """Measure how far off-policy the batch is, by source."""
        rows = batch.rows
        if rows.learner_logp is None:  # a single step: its forward pass was the start of the update
            logp, entropy = (torch.cat(parts) for parts in zip(*before, strict=True))
            rows.learner_logp = torch.zeros(rows.shape).masked_scatter(rows.mask, logp)
            rows.entropy = torch.zeros(rows.shape).masked_scatter(rows.mask, entropy)
        kept = rows.transitions()
        age = torch.where(kept.version < 0, -1, context.updates - 1 - kept.version)
        found = off_policyness(kept.learner_logp, kept.sampler_logp, age=age, source=kept.source, entropy=kept.entropy)
        return found | rare_tokens(kept.learner_logp, kept.advantage)


def usable_rows(batch: Batch) -> Tensor:
    """Indices of the rows with at least one masked token."""
    return batch.rows.mask.any(1).nonzero().flatten()


def sources_of(batch: Batch) -> dict[Source, int]:
    """Masked tokens by source, where they come from several."""
    counts = torch.bincount(batch.rows.source[batch.rows.mask], minlength=len(Source)).tolist()
    return {kind: counts[kind] for kind in Source if counts[kind]} if sum(map(bool, counts)) > 1 else {}


@dataclass(frozen=True)
class Logged:
    """Logs a schedule's value in this update."""

    name: str
    schedule: Any

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """The value, before the update."""
        return {self.name: self.schedule.at(context.updates)}

    def check_budget(self, updates: int) -> None:
        """Refuse a schedule that is longer than the run."""
        if hasattr(self.schedule, "check"):
            self.schedule.check(updates, self.name)
