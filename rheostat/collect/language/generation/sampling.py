"""Sampling of the next token, and the random streams it uses.

Each row has a random stream of its own: the number that decides its token at a step is a function of (seed, update, prompt, sample, step)
and of nothing else. A row therefore has the same noise whatever its neighbours, its batch, or how often that batch was
compacted; and a run that is resumed needs no generator state, only its counters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.policies.language.chunked_logprobs import CHUNK_ELEMENTS, LogitRule

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # odd integer nearest 2^64 / golden ratio, as a signed 64-bit number
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


@dataclass(frozen=True)
class Sampling:
    """The distribution completions are drawn from, and when they end."""

    max_new_tokens: int = 256
    """Tokens after which a completion is cut and marked as truncated."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    top_k: int = 0
    """Keep only the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep only the smallest set of most likely tokens whose probability reaches p."""
    stop_ids: tuple[int, ...] | None = None
    """Tokens that end a completion (and belong to it); None means those of the model."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end a completion as soon as it contains one (they belong to it too)."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise RheostatError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}.")
        if self.temperature < 0:
            raise RheostatError(f"The temperature must be 0 (greedy) or more, not {self.temperature}.")
        if any(not text for text in self.stop_strings):
            raise RheostatError("A stop string is empty: every completion would end before it began.")
        if not self.greedy:
            LogitRule(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)  # checks the rest

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64, whose own shift copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64-bit integers without visible structure."""
    x = (x ^ _shift_right(x, 30)) * FIRST
    x = (x ^ _shift_right(x, 27)) * SECOND
    return x ^ _shift_right(x, 31)


def _unmix(x: Tensor) -> Tensor:
    """The inverse of :func:`_mix`."""
    x = (x ^ _shift_right(x, 31) ^ _shift_right(x, 62)) * _inverse(SECOND)
    x = (x ^ _shift_right(x, 27) ^ _shift_right(x, 54)) * _inverse(FIRST)
    return x ^ _shift_right(x, 30) ^ _shift_right(x, 60)


def _inverse(odd: int) -> int:
    """Of multiplication by an odd number modulo 2^64, as a signed 64-bit number."""
    found = pow(odd, -1, 2**64)
    return found - 2**64 if found >= 2**63 else found


def row_streams(seed: int, update: int, prompts: Sequence[int] | Tensor, group_size: int) -> Tensor:
    """Names of the random streams of ``group_size`` samples of each prompt.

    Args:
        seed: of the run (or of the evaluation: another seed gives other samples).
        update: number of the policy update, or any other counter that never repeats.
        prompts: index of each prompt; its place in the batch, or better its place in the data.
        group_size: samples per prompt.

    Returns:
        ``[prompts * group_size]`` int64, samples of one prompt next to each other.
    """
    prompt = torch.as_tensor(prompts, dtype=torch.int64).repeat_interleave(group_size)
    sample = torch.arange(group_size).repeat(len(prompt) // max(group_size, 1))
    key = _mix(torch.tensor(seed, dtype=torch.int64) + GOLDEN)
    for part in (torch.tensor(update, dtype=torch.int64), prompt, sample):
        key = _mix((key ^ part) + GOLDEN)
    return key


def continued(streams: Tensor, steps: Tensor | int) -> Tensor:
    """Streams that begin where others are after some steps, so that a completion made in several calls draws the noise of one made at once.

    Args:
        streams: ``[rows]`` int64.
        steps: drawn before; a number, or one for every row.

    Returns:
        ``[rows]`` int64 with ``uniforms(continued(streams, k), 0, n) == uniforms(streams, k, n)``.
    """
    return _unmix(_mix(streams) + torch.as_tensor(steps, device=streams.device) * GOLDEN)


def uniforms(streams: Tensor, first: int, count: int) -> Tensor:
    """Random numbers of steps ``first`` to ``first + count`` of each stream, ``[rows, count]`` float64 strictly between 0 and 1."""
    step = torch.arange(first + 1, first + count + 1, device=streams.device)
    bits = _shift_right(_mix(_mix(streams)[:, None] + step * GOLDEN), 32)
    return (bits.double() + 0.5) * 2.0**-32


def draw(raw: Tensor, rule: LogitRule | None, noise: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row, by inversion of the cumulative distribution.

    Args:
        raw: ``[n, V]`` float32 logits of the model.
        rule: from them to the distribution that is sampled; None takes the most likely token.
        noise: ``[n]`` float64 in (0, 1), from :func:`uniforms`.

    Returns:
        Tokens ``[n]`` int64 and their log-probabilities ``[n]`` float32 under the distribution they were drawn from: after temperature and
        filters, renormalised. The greedy choice is deterministic: log-probability 0.
    """
    if rule is None:
        return raw.argmax(-1), torch.zeros(len(raw), device=raw.device)
    rows = max(1, CHUNK_ELEMENTS // raw.shape[-1])
    if len(raw) > rows:
        parts = [draw(x, rule, u) for x, u in zip(raw.split(rows), noise.split(rows), strict=True)]
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    p = torch.softmax(rule.apply(raw), -1)
    reach = p.cumsum(-1, dtype=torch.float64)
    # the first token whose cumulative probability exceeds the noise, never one of probability 0; the clamp is for NaN, refused later
    token = torch.searchsorted(reach, noise[:, None] * reach[:, -1:], right=True).clamp_(max=raw.shape[-1] - 1)
    return token[:, 0], p.gather(-1, token).log()[:, 0]
