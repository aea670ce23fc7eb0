"""Spectral embeddings of steps: the leading directions of a step's token embeddings, which do not depend on the order of its tokens.

    G = E^T E,   rows sqrt(l_i) q_i of the k largest eigenvalues l_1 >= l_2 >= ...            (E: [n, d], one row per token)

The eigenvectors of G are the right singular vectors of E, and l_i its squared singular values, so G is never built. A sign makes the
component of largest magnitude positive; equal eigenvalues leave their basis open, so compare embeddings by ``sum_i l_i q_i q_i^T``.
CTRLS, arXiv 2507.08182.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spectral_embedding(tokens: Tensor, lengths: Tensor, count: int, *, normalise: bool = False) -> Tensor:
    """Embeddings ``[N, k, d]`` of steps, float64.

    Args:
        tokens: ``[N, n, d]`` token embeddings of each step.
        lengths: ``[N]`` int64, tokens of each step; what lies beyond is not read.
        count: k. Directions beyond the number of tokens, or of dimensions, are 0.
        normalise: divide G by the number of tokens, so that its scale does not grow with the length of a step.
    """
    there = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    stacked = torch.where(there[..., None], tokens.double(), 0.0)
    _, size, direction = torch.linalg.svd(stacked, full_matrices=False)
    known = min(count, size.shape[1])
    size, direction = size[:, :known], direction[:, :known]
    size = torch.where(torch.arange(known, device=size.device) < lengths[:, None], size, 0.0)
    if normalise:
        size = size / lengths.clamp(min=1).double().sqrt()[:, None]
    largest = direction.gather(-1, direction.abs().argmax(-1, keepdim=True))
    found = size[..., None] * direction * torch.where(largest < 0, -1.0, 1.0)
    return torch.nn.functional.pad(found, (0, 0, 0, count - known))
