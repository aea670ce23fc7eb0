"""A checked engine: after every update of its weights, the policy scores the engine's first completions again.

An engine with other weights, another precision or another definition of temperature would otherwise be used without notice, with a wrong
ratio from the first token on (:mod:`rheostat.collect.language.generation.parity`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rheostat.collect.language.generation.engine import Engine, Generations
from rheostat.collect.language.generation.parity import Parity, parity
from rheostat.collect.language.generation.sampling import Sampling
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy

ROWS = 4
"""Completions that are scored again after an update of the weights: enough to detect other weights, few enough to cost little."""


class CheckedEngine:
    """Calls an engine, and refuses its completions where the policy gives them other probabilities.

    Greedy samples cannot be checked and pass; the check is made at the next sample drawn at a temperature above 0.

    Args:
        engine: that samples.
        policy: the engine must use its weights.
    """

    def __init__(self, engine: Engine, policy: LanguagePolicy) -> None:
        self.engine, self.policy = engine, policy
        self.found: Parity | None = None
        """Of the first sample since the last announcement; None where none has been drawn."""

    @property
    def version(self) -> int:
        """Number of policy updates behind the weights in use."""
        return self.engine.version

    def update_weights(self, policy: LanguagePolicy, version: int) -> None:
        """Announce other weights; the next sample is checked against them."""
        self.engine.update_weights(policy, version)
        self.policy, self.found = policy, None

    def generate(
        self, prompts: Sequence[Sequence[int]], *, streams: Tensor, group_size: int = 1, sampling: Sampling | None = None
    ) -> Generations:
        """See :meth:`~rheostat.collect.language.generation.engine.Engine.generate`.

        Raises:
            RheostatError: as there, or the engine does not sample from the weights that were announced.
        """
        result = self.engine.generate(prompts, streams=streams, group_size=group_size, sampling=sampling)
        if self.found is None and not result.sampling.greedy and bool((result.lengths > 0).any()):
            found = parity(self.policy, self._few(result).trajectories(self.policy.pad_id), result.sampling)
            try:
                self.found = found.require()
            except RheostatError as error:
                raise RheostatError(f"The engine does not sample from the policy of update {self.version}. {error}") from error
        return result

    @staticmethod
    def _few(result: Generations) -> Generations:
        """Completions of a few prompts, spread over the batch: one of each."""
        answered = (result.lengths.view(-1, result.group_size) > 0).all(1).nonzero()[:, 0]
        chosen = answered[torch.linspace(0, len(answered) - 1, min(ROWS, len(answered))).round().long()].tolist()
        rows = torch.tensor([prompt * result.group_size + place % result.group_size for place, prompt in enumerate(chosen)])
        width = max(1, int(result.lengths[rows].max()))
        tokens, logp, versions = (values[rows][:, :width] for values in (result.tokens, result.logp, result.versions))
        lengths, finish = result.lengths[rows], result.finish[rows]
        return Generations([result.prompts[prompt] for prompt in chosen], 1, tokens, logp, lengths, finish, versions, result.sampling)

    def metrics(self) -> dict[str, float]:
        """``meter/parity_worst``: largest gap in nats between sampler and learner since the last announcement."""
        return {} if self.found is None else {"meter/parity_worst": self.found.worst}

    def __getattr__(self, name: str) -> Any:
        if name == "engine":  # while a copy is being made there is none yet
            raise AttributeError(name)
        return getattr(self.engine, name)
