"""Soft prefixes: learned vectors that a language model reads as tokens and never writes.

The id ``V + k`` stands for vector k, V the size of the vocabulary. It is an input alone: the output layer keeps its V tokens, and nothing
of the model's own folder changes. So a row with prefixes is sampled and scored like every other row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rheostat.policies.language.model import LanguagePolicy


class PrefixEmbedding(nn.Embedding):
    """A model's own embedding, on the same parameter, that also knows the ids of prefixes.

    Args:
        own: the model's embedding.
        vectors: ``[K, C]``; the model that trains them holds them, so they are no parameter of this module.
    """

    def __init__(self, own: nn.Embedding, vectors: nn.Parameter) -> None:
        super().__init__(own.num_embeddings, own.embedding_dim, own.padding_idx, _weight=own.weight.detach())
        self.weight = own.weight  # the same object, which an output layer may share
        self._vectors = [vectors]

    @property
    def readable(self) -> int:
        """How many ids can be read."""
        return self.num_embeddings + len(self._vectors[0])

    def forward(self, ids: Tensor) -> Tensor:
        """``[..., C]``."""
        prefix = ids >= self.num_embeddings
        found = super().forward(ids.masked_fill(prefix, 0))
        vectors = self._vectors[0].to(found.dtype)[(ids - self.num_embeddings).clamp(min=0)]
        return torch.where(prefix[..., None], vectors, found)


def install(policy: LanguagePolicy, vectors: nn.Parameter) -> int:
    """Let a policy read prefixes; returns the id of the first one.

    Args:
        policy: a language model, changed in place.
        vectors: ``[K, C]``.
    """
    embedding: Any = policy.causal.get_input_embeddings()
    policy.causal.set_input_embeddings(PrefixEmbedding(embedding, vectors))
    return policy.vocabulary


def vectors_like(policy: LanguagePolicy, count: int, generator: torch.Generator) -> Tensor:
    """First vectors ``[K, C]``: the mean of the model's token embeddings, and noise of their deviation."""
    weight = policy.causal.get_input_embeddings().weight.detach().float()
    noise = torch.randn(count, weight.shape[1], generator=generator).to(weight.device)
    return weight.mean(0) + weight.std(0) * noise
