"""One token for every live row: two ways to do it with a key-value cache.

Prompts are computed once, then the cache is copied to the rows of their group; rows that have finished are dropped by moving the last
rows into their places, so that a compaction copies as many rows as have finished and not all that continue.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rheostat.collect.language.generation.beginnings import Beginning
from rheostat.policies.language.decoder import Attend, Decoder
from rheostat.policies.language.model import LanguagePolicy

GROWTH = 16  # columns by which the cache grows (or an eighth of it): attention reads all of it, and reading without gaps is what is fast


class CachedDecoding(Protocol):
    """Decoding state of a batch of rows."""

    def prefill(self, prompts: list[list[int]], group_size: int) -> Tensor:
        """Compute the prompts, copy them to their groups, and return the last hidden states ``[len(prompts), C]``."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token ``[n]`` to every row and return the hidden states ``[n, C]``."""

    def keep(self, holes: Tensor, movers: Tensor, count: int) -> None:
        """Move the rows ``movers`` into the places ``holes``, then keep the first ``count`` rows."""


def decoding(policy: LanguagePolicy, most_new: int) -> CachedDecoding:
    """The faster way this policy's model allows."""
    if policy.decoder is not None:
        return PackedDecoding(policy.decoder, most_new)
    return ModuleDecoding(policy) if policy.cached else RecomputedDecoding(policy)


class PackedDecoding:
    """For the Llama family: flat operators, and a cache that each step writes one column of.

    Prompts lie at the left edge of the cache with their padding after them, so prefilling needs no mask (causality hides what lies to the
    right), and all rows write the same column. Columns not written yet are masked like padding.
    """

    def __init__(self, decoder: Decoder, most_new: int) -> None:
        self.decoder, self.most_new = decoder, most_new
        self.layers = decoder.prepare()

    def prefill(self, prompts: list[list[int]], group_size: int) -> Tensor:
        device = self.decoder.backbone.embed_tokens.weight.device
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        width = int(lengths.max())
        padded = torch.zeros(len(prompts), width, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            padded[row, : len(prompt)] = torch.tensor(prompt)
        padded, lengths = padded.to(device), lengths.to(device)
        positions = torch.arange(width + self.most_new, device=device)
        self._angles = self.decoder.angles(positions)
        self._lay_out(width, lengths.repeat_interleave(group_size), self.most_new)
        self._prompt = torch.arange(len(prompts), device=device).repeat_interleave(group_size)
        self._kept: list[Beginning] | None = None
        self._cache: list[tuple[Tensor, Tensor]] = []  # per layer keys and values [rows, key heads, places, D]
        heads, keys = self.decoder.query_heads, self.decoder.key_heads

        def attend(_: int, qkv: Tensor) -> Tensor:
            query, key, value = qkv.view(len(prompts), width, -1, qkv.shape[-1]).transpose(1, 2).split([heads, keys, keys], 1)
            self._cache.append((self._copied(key, group_size), self._copied(value, group_size)))
            return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=heads != keys).transpose(1, 2)

        every = positions[:width].repeat(len(prompts))
        hidden = self.decoder.forward(padded.flatten(), self._at(every), attend, layers=self.layers)
        return hidden.view(len(prompts), width, -1)[torch.arange(len(prompts), device=device), lengths - 1]

    def _lay_out(self, width: int, lengths: Tensor, most_new: int) -> None:
        """Rows of these lengths in the first ``width`` columns, and room after them."""
        self._rows, self._column, self._places, self._width = len(lengths), width, width + min(most_new, GROWTH), width
        self._position = lengths
        hidden_from = torch.arange(self._places, device=lengths.device) >= lengths[:, None]
        self._bias = torch.zeros(hidden_from.shape, device=lengths.device, dtype=self._angles[0].dtype).masked_fill_(
            hidden_from, -torch.inf
        )

    def recall(self, prompts: list[list[int]], group_size: int, kept: list[Beginning]) -> Tensor:
        """As :meth:`prefill`, where all of every prompt but its last token has been computed before."""
        device = self.decoder.backbone.embed_tokens.weight.device
        width = max(beginning.length for beginning in kept)
        self._angles = self.decoder.angles(torch.arange(width + 1 + self.most_new, device=device))
        self._lay_out(width, torch.tensor([beginning.length for beginning in kept], device=device), 1 + self.most_new)
        self._prompt, self._kept = torch.arange(len(prompts), device=device), kept
        keys, size = self.decoder.key_heads, self.decoder.head_size
        like = kept[0].layers[0][0]
        self._cache = []
        for layer in range(len(kept[0].layers)):
            pair = (like.new_zeros(len(kept), keys, self._places, size), like.new_zeros(len(kept), keys, self._places, size))
            for row, beginning in enumerate(kept):
                end = 0
                for part in beginning.line:
                    begin, end = end, part.length
                    for cache, piece in zip(pair, part.layers[layer], strict=True):
                        cache[row, :, begin:end] = piece
            self._cache.append(pair)
        hidden = self.step(torch.tensor([prompt[-1] for prompt in prompts], device=device))
        if group_size > 1:
            self._cache = [(key.repeat_interleave(group_size, 0), value.repeat_interleave(group_size, 0)) for key, value in self._cache]
            self._bias, self._position, self._prompt = (
                values.repeat_interleave(group_size, 0) for values in (self._bias, self._position, self._prompt)
            )
            self._rows *= group_size
        return hidden

    def beginnings(self, rows: Tensor) -> list[Beginning]:
        """What these rows have computed: all of their tokens but the last one, which has been drawn and not gone through the model."""
        found = []
        for row in rows.tolist():
            parent = None if self._kept is None else self._kept[int(self._prompt[row])]
            new = self._column - self._width
            lead = int(self._position[row]) - new if parent is None else 0
            layers = tuple(
                tuple(torch.cat([cache[row, :, :lead], cache[row, :, self._width : self._column]], 1) for cache in pair)
                for pair in self._cache
            )
            found.append(Beginning(parent, layers))  # type: ignore[arg-type]
        return found

    def _copied(self, heads: Tensor, group_size: int) -> Tensor:
        return F.pad(heads.repeat_interleave(group_size, 0), (0, 0, 0, self._places - self._width))

    def _at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self._angles[0].index_select(0, positions), self._angles[1].index_select(0, positions)

    def step(self, tokens: Tensor) -> Tensor:
        if self._column == self._places:
            self._grow()
        hidden = self.decoder.forward(tokens, self._at(self._position), self._attend(), layers=self.layers)
        self._position = self._position + 1
        self._column += 1
        return hidden

    def _attend(self) -> Attend:
        rows, column, keys = self._rows, self._column, self.decoder.key_heads
        heads, size = self.decoder.query_heads, self.decoder.head_size
        bias = self._bias[:rows]
        bias[:, column] = 0.0

        def attend(layer: int, qkv: Tensor) -> Tensor:
            key, value = (cache[:rows] for cache in self._cache[layer])
            key[:, :, column], value[:, :, column] = qkv[:, heads : heads + keys], qkv[:, heads + keys :]
            # the query heads that share a key head are laid out along the axis of positions
            if qkv.dtype != torch.float32 or qkv.device.type != "cpu":
                query = qkv[:, :heads].view(rows, keys, -1, size)
                return F.scaled_dot_product_attention(query, key, value, attn_mask=bias[:, None, None])
            # plain products are faster than the CPU's fused kernel when there is one query per row
            query = (qkv[:, :heads] * size**-0.5).view(rows * keys, -1, size)
            scores = torch.bmm(query, key.view(rows * keys, -1, size).transpose(1, 2))
            scores.view(rows, heads, -1).add_(bias[:, None])
            return torch.bmm(torch.softmax(scores, -1), value.view(rows * keys, -1, size))

        return attend

    def _grow(self) -> None:
        more = min(max(GROWTH, self._places // 8), len(self._angles[0]) - self._places)
        self._places += more
        gap = (0, 0, 0, more)
        self._cache = [(F.pad(key[: self._rows], gap), F.pad(value[: self._rows], gap)) for key, value in self._cache]
        self._bias = F.pad(self._bias[: self._rows], (0, more), value=-torch.inf)

    def keep(self, holes: Tensor, movers: Tensor, count: int) -> None:
        for cache in (cache for pair in self._cache for cache in pair):
            cache[holes] = cache[movers]
        self._bias[holes] = self._bias[movers]
        self._position[holes], self._prompt[holes] = self._position[movers], self._prompt[movers]
        self._position, self._prompt = self._position[:count], self._prompt[:count]
        self._rows = count


class ModuleDecoding:
    """For every other architecture: its own forward pass and Hugging Face's cache, prompts padded on the left.

    The cache holds whatever the layers need (keys and values, windows, convolution and recurrent states); rows are repeated, moved and
    dropped by index, which every kind of layer knows how to do.
    """

    def __init__(self, policy: LanguagePolicy) -> None:
        self.policy = policy
        takes = inspect.signature(policy.causal.base_model.forward).parameters
        self._argument = "cache_params" if "cache_params" in takes else "past_key_values"

    def prefill(self, prompts: list[list[int]], group_size: int) -> Tensor:
        from transformers import DynamicCache

        device, width = self.policy.device, max(len(prompt) for prompt in prompts)
        padded = torch.full((len(prompts), width), self.policy.pad_id)
        real = torch.zeros(len(prompts), width, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            padded[row, width - len(prompt) :] = torch.tensor(prompt)
            real[row, width - len(prompt) :] = 1
        padded, real = padded.to(device), real.to(device)
        self._cache: Any = DynamicCache(config=self.policy.causal.config)
        hidden = self._run(padded, real, (real.cumsum(1) - 1).clamp(min=0))
        self._cache.reorder_cache(torch.arange(len(prompts), device=device).repeat_interleave(group_size))  # type: ignore[arg-type]
        self._real = real.repeat_interleave(group_size, 0)
        return hidden

    def _run(self, ids: Tensor, real: Tensor, positions: Tensor) -> Tensor:
        cache = {self._argument: self._cache}
        model = self.policy.causal.base_model
        return model(input_ids=ids, attention_mask=real, position_ids=positions, use_cache=True, **cache).last_hidden_state[:, -1]

    def step(self, tokens: Tensor) -> Tensor:
        position = self._real.sum(1, keepdim=True)
        self._real = torch.cat([self._real, torch.ones_like(position)], 1)
        return self._run(tokens[:, None], self._real, position)

    def keep(self, holes: Tensor, movers: Tensor, count: int) -> None:
        order = torch.arange(len(self._real), device=self._real.device)
        order[holes] = movers
        self._cache.reorder_cache(order[:count])
        self._real = self._real[order[:count]]


class RecomputedDecoding:
    """For models whose cache cannot be used: the whole row again for every token, by the forward pass that scores. Slow, and right."""

    def __init__(self, policy: LanguagePolicy) -> None:
        self.policy = policy

    def prefill(self, prompts: list[list[int]], group_size: int) -> Tensor:
        self._rows = [list(prompt) for prompt in prompts for _ in range(group_size)]
        return self._last(prompts)

    def step(self, tokens: Tensor) -> Tensor:
        for row, token in zip(self._rows, tokens.tolist(), strict=True):
            row.append(token)
        return self._last(self._rows)

    def _last(self, rows: list[list[int]]) -> Tensor:
        width, device = max(map(len, rows)), self.policy.device
        ids = torch.full((len(rows), width), self.policy.pad_id)
        real = torch.zeros(len(rows), width, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, width - len(row) :], real[index, width - len(row) :] = torch.tensor(row), True
        needed = torch.zeros_like(real)
        needed[:, -1] = True
        return self.policy.hidden_states(ids.to(device), real.to(device), needed.to(device))

    def keep(self, holes: Tensor, movers: Tensor, count: int) -> None:
        for hole, mover in zip(holes.tolist(), movers.tolist(), strict=True):
            self._rows[hole] = self._rows[mover]
        del self._rows[count:]
