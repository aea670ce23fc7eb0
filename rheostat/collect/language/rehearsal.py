"""Rehearsal: samples of the starting model, so that the policy does not forget its behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from rheostat.collect.language.gates import Gated
from rheostat.collect.language.generation.sampling import row_streams
from rheostat.errors import RheostatError
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD
from rheostat.streams import derive_seed
from rheostat.trajectories import Source, join_rows

Rehearsed = Literal["unsolved", "solved", "all"]
"""Prompts that pass the gate, those that do not, or both."""


@dataclass(frozen=True)
class Rehearsal:
    """One sample of the starting model for each gated prompt, below the policy's own rows (a retainer).

    Its rows carry the source EXPERT, belong to no group (their numbers are below 0) and have the starting model's log-probabilities for
    those of the sampler. They are not graded.
    """

    of: Rehearsed = "unsolved"
    models: ClassVar[tuple[str, ...]] = ("reference",)
    refuses: ClassVar[Mapping[str, str]] = {"expert_share": "rehearsed rows are the only ones that the policy did not write"}

    def retain(self, context: Any, batch: Batch) -> Batch:
        """The batch with the rehearsed rows joined below.

        Raises:
            RheostatError: no gate has seen the batch.
        """
        if "gated" not in batch.facts:
            raise RheostatError("it rehearses the prompts of a gate, which a batch that was kept does not know.")
        gated: Gated = batch.facts["gated"]
        asked = {"unsolved": gated.passed, "solved": gated.held_back, "all": [*gated.passed, *gated.held_back]}[self.of]
        if not asked:
            return batch
        numbers = [number for _, number in asked]
        streams = row_streams(derive_seed(context.streams.seed, "rehearsal"), context.updates, numbers, 1)
        with context.sampling_from("reference"):
            found = context.setup.engine.generate([ids for (_, ids), _ in asked], streams=streams, group_size=1, sampling=context.sampling)
        rows = found.trajectories(context.setup.policy.pad_id)
        context.count_flops(FORWARD, rows)
        context.collector.generated_tokens += rows.count()
        rows.source = torch.full(rows.shape, int(Source.EXPERT))
        rows.version = torch.full(rows.shape, -1)
        rows.group = torch.tensor([-1 - number for number in numbers])[:, None].expand(rows.shape)
        rows.valid = torch.ones(rows.shape, dtype=torch.bool)
        return batch.with_rows(join_rows([batch.rows, rows]))
