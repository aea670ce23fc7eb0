"""Padded rows as a flat list of tokens, what they begin with in common once, and attention over it.

A prompt of ``P`` tokens with ``G`` completions of ``R`` tokens costs ``P + G R`` tokens instead of ``G (P + R)`` plus padding; a tree of
completions costs its nodes. What may be shared follows from the tokens themselves, so rows come in any order, with or without group ids,
and nothing is shared that differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.policies.language.decoder import Attend
from rheostat.policies.language.matmul import usual_above
from rheostat.policies.language.short_attention import LONGEST, future_mask, short_attention

Sharing = Literal["prompts", "beginnings", "nothing"]
"""What rows have in common is computed once: up to the first scored position where they are equal so far, as far as they are equal, or
not at all."""
ROWS_PER_BUCKET = 32  # attention is computed on rectangles of at most this many rows of similar length
MOST_BUCKETS = 6  # more rectangles waste less padding but cost more calls (docs/speed-language.md)


@dataclass(frozen=True)
class Bucket:
    """Rows of similar length, for attention: ``rows`` times ``width`` slots."""

    rows: int
    width: int
    gather: Tensor  # [rows * width] packed token of every slot (0 on padding, to which no real token attends: it lies to the right)


@dataclass(frozen=True)
class Packing:
    """Where the tokens of padded rows lie in the flat list."""

    ids: Tensor  # [N] int64; the last few may be padding (0)
    positions: Tensor  # [N] int64, counted from the row's first real token
    needed: Tensor  # [n] packed token of every needed position, row-major
    buckets: tuple[Bucket, ...]
    scatter: Tensor  # [N] slot of every packed token in the buckets laid one after another

    def attention(self, query_heads: int, key_heads: int) -> Attend:
        """Causal attention inside each row, for :class:`rheostat.policies.language.decoder.Decoder`."""

        device = self.ids.device
        futures = {bucket.width: future_mask(bucket.width, device) for bucket in self.buckets if bucket.width <= LONGEST}

        def attend(_: int, qkv: Tensor) -> Tensor:
            heads, size = qkv.shape[1:]
            flat, outputs = qkv.reshape(len(qkv), -1), []
            plain = device.type == "cpu" and qkv.dtype == torch.float32
            for bucket in self.buckets:
                block = flat.index_select(0, bucket.gather).view(bucket.rows, bucket.width, heads, size)
                if plain and bucket.width in futures:
                    mixed = short_attention(block, query_heads, key_heads, futures[bucket.width])
                else:
                    query, key, value = block.transpose(1, 2).split([query_heads, key_heads, key_heads], 1)
                    grouped = query_heads != key_heads
                    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped).transpose(1, 2)
                outputs.append(mixed.reshape(-1, query_heads * size))
            return torch.cat(outputs).index_select(0, self.scatter).view(-1, query_heads, size)

        return attend


def first_of_equal(rows: Tensor) -> Tensor:
    """Index ``[B]`` of the first row of ``[B, W]`` with the same contents as each row."""
    first: dict[bytes, int] = {}
    contents = rows.cpu().numpy()
    return torch.tensor([first.setdefault(row.tobytes(), index) for index, row in enumerate(contents)])


def first_of_pairs(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The first place of every distinct pair of ``[n]`` and ``[n]`` numbers, ``[m]``, and the index ``[n]`` of each pair in that."""
    found, copies = torch.stack([one, other]).unique(dim=1, return_inverse=True)
    places = torch.arange(len(one), device=one.device)
    first = torch.full((found.shape[1],), len(one), device=one.device).scatter_reduce(0, copies, places, "amin")
    return first, copies


def longest_shared(rows: Tensor) -> Tensor:
    """The row ``[B, W]`` that owns each position of ``[B, W]``: one of those whose contents up to and including it are equal.

    Rows with the same beginning stand next to each other when they are in order, whatever the order of single tokens is.
    """
    contents = rows.cpu().contiguous().numpy()
    order = torch.tensor(sorted(range(len(contents)), key=lambda row: contents[row].tobytes()))
    lined = rows.cpu()[order]
    new = torch.ones_like(lined, dtype=torch.bool)
    new[1:] = (lined[1:] != lined[:-1]).int().cummax(1).values.bool()  # from the first token that differs from the row before on
    begins = torch.where(new, torch.arange(len(lined))[:, None], 0).cummax(0).values
    owner = torch.empty_like(begins)
    owner[order] = order[begins]
    return owner.to(rows.device)


def distinct_beginnings(action: Tensor, attention: Tensor) -> int:
    """Tokens that rows ``[B, T]`` have together, where those of a common beginning count once."""
    rows = attention.any(1).nonzero()[:, 0]
    ids, real = action[rows], attention[rows]
    column = torch.arange(ids.shape[1], device=ids.device)
    place = (real.int().argmax(1)[:, None] + column).clamp(max=ids.shape[1] - 1)  # shifted to the left edge
    valid = column < real.sum(1, keepdim=True)
    owner = longest_shared(torch.where(valid, ids.gather(1, place), -1))
    return int((valid & (owner == torch.arange(len(ids), device=ids.device)[:, None])).sum())


def pack(action: Tensor, attention: Tensor, needed: Tensor, *, share: Sharing = "prompts") -> Packing:
    """Lay out the tokens that the hidden states at the ``needed`` positions depend on.

    Args:
        action: ``[B, T]`` int64 token ids; padding on either side may hold anything.
        attention: ``[B, T]`` bool, True on real tokens, which must be one run in each row.
        needed: ``[B, T]`` bool, positions (of real tokens) whose hidden state is wanted.
        share: what is computed once. Prompts end with the first needed position.

    Raises:
        RheostatError: a row with a gap inside, a needed position on padding, or nothing needed at all.
    """
    if not needed.any():
        raise RheostatError("No token is to be scored: the mask is empty.")
    if (needed & ~attention).any():
        raise RheostatError("A position to be scored lies on padding: the attention must cover every masked token and the one before it.")
    device, width = action.device, action.shape[1]
    column = torch.arange(width, device=device)
    start = attention.int().argmax(1)
    if (attention.sum(1) != torch.where(attention, column + 1, 0).amax(1) - torch.where(attention.any(1), start, 0)).any():
        raise RheostatError("The real tokens of a row must be contiguous: the attention has a gap inside a row.")
    first = needed.int().argmax(1) - start  # [B] last token of what can be shared, counted from the row's start
    length = torch.where(needed, column + 1, 0).amax(1) - start  # [B] tokens a row needs (not positive where it needs none)

    order = length.argsort(descending=True, stable=True)[: int((length > 0).sum())]  # long rows first
    start, first, length = start[order], first[order], length[order]
    column = column[: int(length[0])]
    ids = action[order].gather(1, (start[:, None] + column).clamp(max=width - 1))  # [b, W] rows shifted to the left edge
    valid, mine = column < length[:, None], torch.arange(len(ids), device=device)[:, None]
    owner = mine.expand_as(ids)  # [b, W] the row that computes a token
    if share == "prompts":
        lead = column <= first[:, None]
        owner = torch.where(lead, first_of_equal(torch.where(lead, ids, -1)).to(device)[:, None], owner)
    elif share == "beginnings":
        owner = longest_shared(torch.where(valid, ids, -1))
    own = valid & (owner == mine)
    slot = (own.flatten().cumsum(0).view_as(own) - 1)[owner, column]  # [b, W] packed index

    row = torch.empty(len(action), dtype=torch.int64, device=device)
    row[order] = torch.arange(len(order), device=device)
    which, where = needed.nonzero(as_tuple=True)
    which = row[which]
    buckets, scatter, offset = [], torch.empty(int(own.sum()), dtype=torch.int64, device=device), 0
    count = min(MOST_BUCKETS, -(-len(order) // ROWS_PER_BUCKET))
    for chunk in torch.arange(len(order)).chunk(count):
        part = slice(int(chunk[0]), int(chunk[-1]) + 1)
        wide = int(length[part.start])
        gather = torch.where(valid[part, :wide], slot[part, :wide], 0).flatten()
        owned = own[part, :wide].flatten().nonzero()[:, 0]
        scatter[gather[owned]] = offset + owned
        buckets.append(Bucket(len(chunk), wide, gather))
        offset += len(gather)
    # a little padding, so that matrix products have few different sizes; no token attends to it and no result comes from it
    extra = (0, usual_above(len(scatter)) - len(scatter))
    packed = [F.pad(values, extra) for values in (ids[own], column.expand_as(own)[own], scatter)]
    return Packing(packed[0], packed[1], slot[which, where - start[which]], tuple(buckets), packed[2])
