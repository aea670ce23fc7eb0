"""The data that flows through the house: one vocabulary for control steps and for tokens (a token is an action).

``Trajectories`` is ``[row, step]``: a row is one environment's stretch of time, or one prompt with its completion. ``Transitions`` is the
same data flattened to ``[n]`` with the masked steps dropped, which is what minibatches are cut from.

Three facts that other libraries fold into one ``done`` stay apart: ``terminated`` (the environment ended: nothing to bootstrap),
``truncated`` (we stopped looking: bootstrap from the value of the true final observation) and the value to bootstrap from (``next_value``).
"""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.tensors import TensorClass


class Source(IntEnum):
    """Where a row comes from."""

    FRESH = 0
    STALE = 1
    REPLAY = 2
    EXPERT = 3
    ANNOTATION = 4
    HINTED = 5
    OFFLINE = 6
    IMAGINED = 7


class Trajectories(TensorClass["nocast"]):  # type: ignore[type-arg, name-defined]
    """Rows of steps, batch size ``[B, T]``; facts that belong to a row are expanded over its steps (no memory is used for it).

    Control fills ``observation`` and ``next_observation``; language leaves them None, puts the token ids of the whole row (prompt, then
    completion) into ``action`` and marks real tokens in ``attention``.
    """

    action: Tensor  # [B, T, ...] the raw action the policy drew (before any clipping for the environment), or the token id
    mask: Tensor  # [B, T] bool, True where the policy chose: never a prompt, padding, hint, tool output or reset row
    reward: Tensor  # [B, T] float32, raw
    terminated: Tensor  # [B, T] bool
    truncated: Tensor  # [B, T] bool
    sampler_logp: Tensor  # [B, T] float32 under the distribution that really sampled (after temperature, top-k, ...); NaN where unknown
    observation: Tensor = None  # type: ignore[assignment]  # [B, T, ...] raw (not normalised)
    next_observation: Tensor = None  # type: ignore[assignment]  # [B, T, ...] the true successor: the final observation where the episode ends
    attention: Tensor = None  # type: ignore[assignment]  # [B, T] bool, language only: False on padding
    learner_logp: Tensor = None  # type: ignore[assignment]  # [B, T] under the learner's weights at the start of this update; never the sampler's
    reference_logp: Tensor = None  # type: ignore[assignment]  # [B, T] under a frozen reference policy
    head: Tensor = None  # type: ignore[assignment]  # [B, T, K] int64, the sampler's likeliest tokens of every step
    sampler_head: Tensor = None  # type: ignore[assignment]  # [B, T, K + 1] their log-probabilities as sampled, last that of all others; NaN where unknown
    learner_head: Tensor = None  # type: ignore[assignment]  # [B, T, K + 1] the same under the learner at the start of this update
    previous_logp: Tensor = None  # type: ignore[assignment]  # [B, T] under the learner as it was one update ago
    entropy: Tensor = None  # type: ignore[assignment]  # [B, T] of the learner's distribution at the start of this update, in nats
    value: Tensor = None  # type: ignore[assignment]  # [B, T] critic's value of the observation
    next_value: Tensor = None  # type: ignore[assignment]  # [B, T] critic's value of the true successor (used unless terminated)
    advantage: Tensor = None  # type: ignore[assignment]  # [B, T]
    value_target: Tensor = None  # type: ignore[assignment]  # [B, T] what the critic regresses on
    weight: Tensor = None  # type: ignore[assignment]  # [B, T] importance or source weight of the policy loss
    source: Tensor = None  # type: ignore[assignment]  # [B, T] int64, a Source
    version: Tensor = None  # type: ignore[assignment]  # [B, T] int64, number of policy updates before this step was sampled
    group: Tensor = None  # type: ignore[assignment]  # [B, T] int64, rows of one prompt share it
    parent: Tensor = None  # type: ignore[assignment]  # [B, T] int64, row it branched from in a tree, -1 for none
    valid: Tensor = None  # type: ignore[assignment]  # [B, T] bool, False where a verifier failed: invalid is not reward 0

    def transitions(self) -> Transitions:
        """The steps the policy chose, as ``[n]`` in row-major order."""
        kept = {name: value[self.mask] for name, value in self.items() if name != "mask"}
        return Transitions(**kept, batch_size=[self.count()])  # type: ignore[arg-type]

    def count(self) -> int:
        """Number of steps the policy chose: the unit of every budget."""
        return int(self.mask.sum())


class Transitions(TensorClass["nocast"]):  # type: ignore[type-arg, name-defined]
    """Single steps, batch size ``[n]``: the fields of :class:`Trajectories` without the mask, and what a replay adds."""

    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    sampler_logp: Tensor
    observation: Tensor = None  # type: ignore[assignment]
    next_observation: Tensor = None  # type: ignore[assignment]
    attention: Tensor = None  # type: ignore[assignment]
    learner_logp: Tensor = None  # type: ignore[assignment]
    reference_logp: Tensor = None  # type: ignore[assignment]
    head: Tensor = None  # type: ignore[assignment]
    sampler_head: Tensor = None  # type: ignore[assignment]
    learner_head: Tensor = None  # type: ignore[assignment]
    previous_logp: Tensor = None  # type: ignore[assignment]
    entropy: Tensor = None  # type: ignore[assignment]
    value: Tensor = None  # type: ignore[assignment]
    next_value: Tensor = None  # type: ignore[assignment]
    advantage: Tensor = None  # type: ignore[assignment]
    value_target: Tensor = None  # type: ignore[assignment]
    weight: Tensor = None  # type: ignore[assignment]
    source: Tensor = None  # type: ignore[assignment]
    version: Tensor = None  # type: ignore[assignment]
    group: Tensor = None  # type: ignore[assignment]
    parent: Tensor = None  # type: ignore[assignment]
    valid: Tensor = None  # type: ignore[assignment]
    discount: Tensor = None  # type: ignore[assignment]  # [n] factor of the value of next_observation: gamma^k, 0 where the environment ended
    index: Tensor = None  # type: ignore[assignment]  # [n] int64, the place in the replay it was drawn from
    next_action: Tensor = None  # type: ignore[assignment]  # [n, ...] the action that was taken in next_observation (SARSA)

    @classmethod
    def none(cls) -> Transitions:
        """No steps at all."""
        nothing, no = torch.zeros(0), torch.zeros(0, dtype=torch.bool)
        return cls(action=nothing, reward=nothing, terminated=no, truncated=no, sampler_logp=nothing, batch_size=[0])


OF_THE_SAMPLER = frozenset({"head", "sampler_head"})
"""Fields about other tokens than the chosen ones."""


def join_in_time(blocks: list[Trajectories]) -> Trajectories:
    """Blocks of the same rows, oldest first, as one stretch of time ``[B, T_1 + T_2 + ...]``.

    Raises:
        RheostatError: no blocks, or blocks with different numbers of rows.
    """
    if not blocks:
        raise RheostatError("There are no trajectories to join: collect at least one block first.")
    if len({block.shape[0] for block in blocks}) > 1:
        raise RheostatError(f"Blocks to join in time must have the same rows; they have {[block.shape[0] for block in blocks]}.")
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)  # type: ignore[arg-type, return-value]


def join_rows(parts: list[Trajectories]) -> Trajectories:
    """The rows of several batches, one below the other; shorter ones are padded at the end to the longest ``[B_1 + B_2 + ..., T]``.

    Fields that some part does not have are left out; what its sampler thought of other tokens (:data:`OF_THE_SAMPLER`) is unknown there.

    Raises:
        RheostatError: no parts.
    """
    if not parts:
        raise RheostatError("There are no trajectories to join: collect at least one batch first.")
    if len(parts) == 1:
        return parts[0]
    width = max(part.shape[1] for part in parts)
    present = {name: value for name, value in parts[0].items() if value is not None}
    known = {name: [getattr(part, name) for part in parts] for name in present}
    for name in OF_THE_SAMPLER & present.keys():
        known[name] = [_unknown(present[name], part) if value is None else value for value, part in zip(known[name], parts, strict=True)]
    shared = {name: values for name, values in known.items() if all(value is not None for value in values)}
    fields = {name: torch.cat([_padded(name, value, width) for value in values]) for name, values in shared.items()}
    return Trajectories(**fields, batch_size=[sum(len(part) for part in parts), width])  # type: ignore[arg-type]


def join_columns(parts: list[Tensor]) -> Tensor:
    """A column of several batches, one below the other.

    A column of steps ``[B, T]`` is padded at the end with 0 to its longest part, as the rows are; ``[B]``, and ``[B, k]`` with one k in
    every part, need nothing.
    """
    if parts[0].dim() < 2:
        return torch.cat(parts)
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])


def _unknown(like: Tensor, rows: Trajectories) -> Tensor:
    """A field of other rows ``[B, T, ...]`` for these, of which nothing is known: NaN, and token 0."""
    return like.new_full((*rows.shape, *like.shape[2:]), float("nan") if like.is_floating_point() else 0)


def _padded(name: str, value: Tensor, width: int) -> Tensor:
    """``[B, T, ...]`` with empty steps appended up to ``width``."""
    extra = width - value.shape[1]
    if not extra:
        return value
    if name in ("group", "version", "source", "valid"):  # facts of the row
        tail = value[:, -1:].expand(-1, extra)
    else:
        tail = value.new_full((len(value), extra, *value.shape[2:]), float("nan") if name in ("sampler_logp", "sampler_head") else 0)
    return torch.cat([value, tail], 1)
