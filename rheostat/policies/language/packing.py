"""Padded rows as a flat list of tokens, each prompt of a group once, and attention over it.

A prompt of ``P`` tokens with ``G`` completions of ``R`` tokens costs ``P + G R`` tokens instead of ``G (P + R)`` plus padding. What may
be shared follows from the tokens themselves (rows that are equal up to their first scored position), so rows come in any order, with
or without group ids, and nothing is shared that differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.policies.language.decoder import Attend
from rheostat.policies.language.matmul import usual_above
from rheostat.policies.language.short_attention import LONGEST, future_mask, short_attention

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


def pack(action: Tensor, attention: Tensor, needed: Tensor, *, share: bool = True) -> Packing:
    """Lay out the tokens that the hidden states at the ``needed`` positions depend on.

    Args:
        action: ``[B, T]`` int64 token ids; padding on either side may hold anything.
        attention: ``[B, T]`` bool, True on real tokens, which must be one run in each row.
        needed: ``[B, T]`` bool, positions (of real tokens) whose hidden state is wanted.
        share: compute equal beginnings (up to and including the first needed position) once.

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
    own = column < length[:, None]
    if share:
        lead = column <= first[:, None]
        owner = first_of_equal(torch.where(lead, ids, -1)).to(device)  # [b]
        own &= ~lead | (owner == torch.arange(len(owner), device=device))[:, None]
    slot = own.flatten().cumsum(0).view_as(own) - 1  # [b, W] packed index of the tokens a row owns
    if share:
        slot = torch.where(lead, slot[owner], slot)

    row = torch.empty(len(action), dtype=torch.int64, device=device)
    row[order] = torch.arange(len(order), device=device)
    which, where = needed.nonzero(as_tuple=True)
    which = row[which]
    buckets, scatter, offset = [], torch.empty(int(own.sum()), dtype=torch.int64, device=device), 0
    count = min(MOST_BUCKETS, -(-len(order) // ROWS_PER_BUCKET))
    valid = column < length[:, None]
    for chunk in torch.arange(len(order)).chunk(count):
        part = slice(int(chunk[0]), int(chunk[-1]) + 1)
        wide = int(length[part.start])
        gather = torch.where(valid[part, :wide], slot[part, :wide], 0).flatten()
        mine = own[part, :wide].flatten().nonzero()[:, 0]
        scatter[gather[mine]] = offset + mine
        buckets.append(Bucket(len(chunk), wide, gather))
        offset += len(gather)
    # a little padding, so that matrix products have few different sizes; no token attends to it and no result comes from it
    extra = (0, usual_above(len(scatter)) - len(scatter))
    packed = [F.pad(values, extra) for values in (ids[own], column.expand_as(own)[own], scatter)]
    return Packing(packed[0], packed[1], slot[which, where - start[which]], tuple(buckets), packed[2])
