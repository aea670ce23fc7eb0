"""Terms of single answers that an annotator or a reward has judged: KTO, and likelihood weighted by rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.masking import Aggregation, masked_sum
from rheostat.objectives.preference import kto_baseline, kto_loss
from rheostat.objectives.supervised import weighted_likelihood
from rheostat.objectives.terms import TokenTerm
from rheostat.parts import BEGUN, Batch, Context, Report
from rheostat.trajectories import Trajectories

BASELINE = "kl_baseline"
"""The fact of a gradient step that holds KTO's baseline."""


@dataclass(frozen=True)
class KTO(TokenTerm):
    """See :func:`~rheostat.objectives.preference.kto_loss`; a mean over answers. The baseline is that of the present gradient step."""

    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    reads: ClassVar[Sequence[str]] = ("reference_logp", "desirable")
    models: ClassVar[Sequence[str]] = ("reference",)
    needs_whole_step: ClassVar[bool] = True

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Answers of the gradient step."""
        return batch.rows.mask.any(1).sum().clamp(min=1)

    def begin(self, context: Any, logp: Tensor, batch: Batch) -> Batch:
        """Measure the KL to the reference on prompts with the answers of other prompts; without a gradient.

        Raises:
            RheostatError: a gradient step of one answer, whose baseline would be its own log-ratio.
        """
        rows = batch.rows[batch.rows.mask.any(1)]
        if len(rows) < 2:
            raise RheostatError("KTO compares an answer with those of other prompts: a gradient step needs at least two answers.")
        others = rotated(rows)
        with torch.no_grad():
            now, base = (context.score(others, model, entropy=False).logp for model in ("policy", "reference"))
        baseline = kto_baseline(masked_sum(now - base, others.mask, -1))
        return replace(batch, facts=batch.facts | {BASELINE: baseline})

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        if not batch.facts.get(BEGUN):  # the batch is the whole step
            batch = self.begin(context, scores.logp, batch)
        rows, baseline = batch.rows, batch.facts[BASELINE]
        log_ratio, label = masked_sum(scores.logp - rows.reference_logp, rows.mask, -1), batch.columns["desirable"]
        loss = kto_loss(
            log_ratio,
            label,
            baseline,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        there = rows.mask.any(1)
        kept = log_ratio.detach()
        sums = {
            BASELINE: baseline * there.sum() / denominator,
            "desirable_log_ratio": kept[label & there].sum() / denominator,
            "undesirable_log_ratio": kept[~label & there].sum() / denominator,
        }
        return torch.where(there, loss, 0.0).sum() / denominator, Report(sums=sums)


def rotated(rows: Trajectories) -> Trajectories:
    """Every prompt with the answer of the row before it (the first with that of the last): ``[B, T']`` with the answers masked.

    Args:
        rows: ``[B, T]``, one answer per row: a prompt and, right after it, the masked tokens.
    """
    prompt = rows.attention & (rows.mask.cumsum(1) == 0)
    answers = [ids[chosen] for ids, chosen in zip(rows.action.roll(1, 0), rows.mask.roll(1, 0), strict=True)]
    prompts = [ids[chosen] for ids, chosen in zip(rows.action, prompt, strict=True)]
    left, right = max(map(len, prompts)), max(map(len, answers))
    shape = (len(rows), left + right)
    action = torch.full(shape, int(rows.action[0, 0]))
    attention, mask = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (asked, said) in enumerate(zip(prompts, answers, strict=True)):
        action[row, left - len(asked) : left], action[row, left : left + len(said)] = asked, said
        attention[row, left - len(asked) : left + len(said)] = True
        mask[row, left : left + len(said)] = True
    no, nothing = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape)
    return Trajectories(
        action=action,
        attention=attention,
        mask=mask,
        reward=nothing,
        terminated=no,
        truncated=no,
        sampler_logp=torch.full(shape, float("nan")),
        source=rows.source[:, :1].expand(shape),
        group=torch.arange(len(rows))[:, None].expand(shape),
        batch_size=list(shape),
    )


@dataclass(frozen=True)
class RewardWeighted(TokenTerm):
    """``-w log p`` with a weight of the whole answer (column ``weight``), which is a constant.

    ``per_prompt`` adds up the tokens of an answer and the answers of a prompt, and is a mean over prompts; else it is a mean over tokens,
    whose count knows no weights.
    """

    per_prompt: bool = False
    reads: ClassVar[Sequence[str]] = ("weight",)

    def denominator(self, batch: Batch, context: Context) -> Tensor:
        """Prompts, or tokens, of the gradient step."""
        mask = self.mask(batch)
        if self.per_prompt:
            return torch.tensor(float(max(1, len(batch.rows.group[:, 0][mask.any(1)].unique()))))
        return mask.sum().clamp(min=1)

    def __call__(self, scores: Any, batch: Batch, denominator: Tensor, context: Context) -> tuple[Tensor, Report]:
        weight = batch.columns["weight"][:, None].expand(scores.logp.shape)
        mode: Aggregation = "sequence-sum" if self.per_prompt else "token-mean"
        loss = weighted_likelihood(scores.logp, mask=self.mask(batch), weight=weight, aggregate=mode, denominator=denominator)
        return loss, Report()
