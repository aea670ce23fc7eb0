"""RLFR on the plain side: a field's velocity from its weights, one completion at a time, deviations and penalties from lists."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.plain.rows import Row

EPS = 1e-6


def latents(causal: Any, row: Row, layers: tuple[int, ...]) -> Tensor:
    """Outputs of some layers at every token of a row, ``[layers, tokens, width]``."""
    seen: dict[int, Tensor] = {}
    hooks = [
        causal.base_model.layers[layer].register_forward_hook(
            lambda module, given, output, layer=layer: seen.update({layer: output[0] if isinstance(output, tuple) else output})
        )
        for layer in layers
    ]
    with torch.no_grad():
        causal(input_ids=torch.tensor([row.ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack([seen[layer].reshape(len(row.ids), -1) for layer in layers])


def wave(x: float) -> Tensor:
    """A number from 0 to 1 as 128 cosines and 128 sines."""
    angles = [1000 * x * 10_000 ** (-place / 128) for place in range(128)]
    return torch.tensor([math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles], dtype=torch.float64)


def swish(x: Tensor) -> Tensor:
    """x times its logistic function."""
    return x / (1 + (-x).exp())


def affine(layer: Any, x: Tensor) -> Tensor:
    """By its definition."""
    return x @ layer.weight.T + layer.bias


def normed(x: Tensor) -> Tensor:
    """Divided by the root mean square."""
    return x / ((x**2).mean(-1, keepdim=True) + EPS).sqrt()


def embedded(pair: Any, x: float) -> Tensor:
    """Two layers on the waves of a number."""
    return affine(pair[2], swish(affine(pair[0], wave(x))))


def velocity(field: Any, x: Tensor, times: list[float], beside: Tensor, depth: float) -> Tensor:
    """Of every row of ``x``."""
    y = torch.stack([embedded(field.time, time) for time in times]) + embedded(field.depth, depth) + affine(field.condition, beside)
    x = affine(field.point, x)
    width = x.shape[-1]
    for block in field.blocks:
        knobs = affine(block.modulation, swish(y))
        shift, scale, gate = knobs[:, :width], knobs[:, width : 2 * width], knobs[:, 2 * width :]
        x = x + gate * affine(block.outer, swish(affine(block.inner, normed(x) * (1 + scale) + shift)))
    knobs = affine(field.modulation, swish(y))
    return affine(field.velocity, normed(x) * (1 + knobs[:, width:]) + knobs[:, :width])


def chance(seed: int, repeats: int, layers: int, width: int, count: int) -> tuple[Tensor, Tensor]:
    """The noise and the times of a row's tokens that a seed stands for."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, repeats, layers, width, generator=draw)
    return noise.double(), 1 / (1 + (-torch.randn(count, repeats, layers, generator=draw).double()).exp())


def deviations(
    field: Any, row: Row, depth: int, layers: tuple[int, ...], *, seed: int, times: tuple[float, ...], repeats: int = 1, pre: bool = False
) -> Tensor:
    """Squared errors at a row's chosen tokens that have a partner, ``[tokens, times]``, a mean over layers and repeats.

    Args:
        field: its network.
        row: with the facts ``latents`` and ``flow_seed``.
        depth: layers of the policy.
        layers: whose outputs the latents are.
        seed: of the noise.
        times: none draws one for every token.
        repeats: of noise.
        pre: the partner is the token after, not the one before.
    """
    states: Tensor = row.facts["latents"]
    places = [place for place in row.places if not pre or place + 1 < len(row.ids)]
    beside = [place + 1 if pre else place - 1 for place in places]
    if not places:
        return torch.zeros(0, max(1, len(times)), dtype=torch.float64)
    noise, drawn = chance(seed, repeats, len(layers), states.shape[-1], len(places))
    total = torch.zeros(len(places), max(1, len(times)), dtype=torch.float64)
    for number, layer in enumerate(layers):
        h, near = states[number][places], states[number][beside]
        for repeat in range(repeats):
            for column in range(total.shape[1]):
                t = [times[column]] * len(places) if times else drawn[:, repeat, number].tolist()
                weight, mine = torch.tensor(t, dtype=torch.float64)[:, None], noise[:, repeat, number]
                moved = velocity(field, weight * h + (1 - weight) * mine, t, near, layer / depth)
                error = ((moved - (h - mine)) ** 2).mean(-1)
                total = total + torch.nn.functional.pad(error[:, None], (column, total.shape[1] - column - 1))
    return total / (len(layers) * repeats)


def penalties(scores: list[float], *, coefficient: float, threshold: float, top_k: int) -> list[float]:
    """What tokens lose: relative to the best and the worst of their completion, the largest alone."""
    low, high = min(scores), max(scores)
    shares = [(score - low) / (high - low) if high > low else 0.0 for score in scores]
    left = sorted((share for share in shares if share > threshold), reverse=True)[:top_k]
    return [-coefficient * share if share in left else 0.0 for share in shares]
