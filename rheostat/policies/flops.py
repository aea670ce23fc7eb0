"""How much computing a run has used, estimated from the shapes of its networks.

A forward pass costs 2 floating-point operations per weight of a matrix and per token (or state): one multiplication, one addition. A
backward pass costs twice that, so a training step costs 6 (Kaplan et al. 2020, arXiv 2001.08361, table 1). Left out: attention scores
(small while sequences are shorter than a few times the width), norms, softmaxes, sampling, simulators and graders.
Looking up an embedding is free; an output layer that shares its weights with the embedding counts once.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from rheostat.policies.language.packing import distinct_beginnings
from rheostat.trajectories import Trajectories

FORWARD, TRAIN = 2, 6
"""Operations per weight and token."""


def matrix_weights(module: nn.Module) -> int:
    """Weights that take part in matrix products."""
    shared: dict[int, int] = {}
    for parameter in module.parameters():
        if parameter.dim() >= 2:
            shared[id(parameter)] = parameter.numel()
    causal: Any = getattr(module, "causal", None)
    if causal is not None and causal.get_input_embeddings().weight is not causal.get_output_embeddings().weight:
        shared.pop(id(causal.get_input_embeddings().weight), None)
    return sum(shared.values())


def tokens_seen(rows: Trajectories, *, beginnings: bool = False) -> int:
    """Tokens that one pass over rows ``[B, T]`` computes.

    Args:
        rows: with group numbers.
        beginnings: what rows begin with in common is computed once; otherwise every completion, and every prompt once per group.
    """
    if beginnings:
        return distinct_beginnings(rows.action, rows.attention)
    own = rows.attention & (rows.mask.int().cumsum(1) > 0)
    completions = own.sum(1)
    prompts = (rows.attention.sum(1) - completions).tolist()
    return int(completions.sum()) + sum(dict(zip(rows.group[:, 0].tolist(), prompts, strict=True)).values())
