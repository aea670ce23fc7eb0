"""The interface of token engines: token ids in, token ids with their log-probabilities, finish reasons and weight versions out.

Text never passes through here. A served engine on another machine fits behind the same two methods as the embedded one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, Protocol

import torch
from torch import Tensor

from rheostat.collect.language.generation.sampling import Sampling
from rheostat.collect.language.generation.stopping import Stopping
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.trajectories import Source, Trajectories

OnLong = Literal["error", "refuse"]


class FinishReason(IntEnum):
    """Why a completion ended."""

    STOP = 0  # an end token or a stop string, which is its last token
    LENGTH = 1  # the limit on new tokens: truncated, and no end token is added
    REFUSED = 2  # the prompt was too long, and nothing was generated


@dataclass(frozen=True)
class Generations:
    """Completions of ``P`` prompts, ``G`` each: ``N = P G`` rows, those of one prompt next to each other."""

    prompts: list[list[int]]
    """The ``P`` prompts."""
    group_size: int
    """``G``."""
    tokens: Tensor
    """``[N, R]`` int64; undefined past a row's length."""
    logp: Tensor
    """``[N, R]`` float32 under the distribution that sampled (after temperature and filters); NaN past a row's length."""
    lengths: Tensor
    """``[N]`` int64, tokens of each completion, the end token included where it was sampled."""
    finish: Tensor
    """``[N]`` int64, a :class:`FinishReason`."""
    versions: Tensor
    """``[N, R]`` int64, number of policy updates of the weights that sampled each token; -1 past a row's length."""
    sampling: Sampling
    """How they were sampled."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def mask(self) -> Tensor:
        """``[N, R]`` bool, tokens that were sampled."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]

    @property
    def refused(self) -> int:
        """Number of rows without a completion because their prompt was too long."""
        return int((self.finish == FinishReason.REFUSED).sum())

    def completions(self) -> list[list[int]]:
        """Token ids of each completion, without padding."""
        return [row[:length] for row, length in zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)]

    def without_refused(self) -> tuple[Generations, Tensor]:
        """The groups that were answered, and the indices of their prompts. A group is refused as a whole, so groups stay complete."""
        answered = (self.finish != FinishReason.REFUSED).view(-1, self.group_size).all(1).nonzero()[:, 0]
        return self.take(answered), answered

    def take(self, prompts: Tensor | Sequence[int]) -> Generations:
        """The groups of these prompts (indices), in this order."""
        chosen = torch.as_tensor(prompts, dtype=torch.int64).cpu()
        rows = (chosen[:, None] * self.group_size + torch.arange(self.group_size)).flatten()
        fields = {name: getattr(self, name)[rows] for name in ("tokens", "logp", "lengths", "finish", "versions")}
        return Generations([self.prompts[i] for i in chosen.tolist()], self.group_size, sampling=self.sampling, **fields)

    def trajectories(self, pad_id: int = 0, *, first_group: int = 0) -> Trajectories:
        """Rows for training: prompts padded on the left, completions on the right, rewards 0.

        Args:
            pad_id: what padding is filled with.
            first_group: group number of the first prompt.

        Returns:
            ``[N, T]``. ``terminated`` marks the last token of a completion that stopped, ``truncated`` that of one cut by the limit.
        """
        count, width = len(self), max((len(prompt) for prompt in self.prompts), default=0)
        prompt = torch.full((len(self.prompts), width), pad_id)
        real = torch.zeros(len(self.prompts), width, dtype=torch.bool)
        for index, ids in enumerate(self.prompts):
            prompt[index, width - len(ids) :] = torch.tensor(ids)
            real[index, width - len(ids) :] = True
        prompt, real = (x.repeat_interleave(self.group_size, 0).to(self.tokens.device) for x in (prompt, real))
        sampled = self.mask
        nowhere = torch.zeros_like(real)
        last = sampled & (torch.arange(sampled.shape[1], device=sampled.device) == self.lengths[:, None] - 1)
        action = torch.cat([prompt, torch.where(sampled, self.tokens, pad_id)], 1)
        group = torch.arange(first_group, first_group + len(self.prompts), device=action.device).repeat_interleave(self.group_size)
        return Trajectories(
            action=action,
            mask=torch.cat([nowhere, sampled], 1),
            reward=torch.zeros(action.shape, device=action.device),
            terminated=torch.cat([nowhere, last & (self.finish == FinishReason.STOP)[:, None]], 1),
            truncated=torch.cat([nowhere, last & (self.finish == FinishReason.LENGTH)[:, None]], 1),
            sampler_logp=torch.cat([torch.full(prompt.shape, torch.nan, device=action.device), self.logp], 1),
            attention=torch.cat([real, sampled], 1),
            version=torch.cat([torch.full_like(prompt, -1), self.versions], 1),
            group=group[:, None].expand(action.shape),
            source=torch.tensor(int(Source.FRESH), device=action.device).expand(action.shape),
            batch_size=[count, action.shape[1]],
        )


class Engine(Protocol):
    """Generates completions with the weights it was last given."""

    version: int
    """Number of policy updates behind the weights in use."""

    def generate(
        self, prompts: Sequence[Sequence[int]], *, streams: Tensor, group_size: int = 1, sampling: Sampling | None = None
    ) -> Generations:
        """``group_size`` completions of each prompt.

        Args:
            prompts: token ids of each prompt.
            streams: ``[len(prompts) * group_size]`` int64, see :func:`rheostat.collect.language.generation.sampling.row_streams`.
            group_size: completions per prompt.
            sampling: how to draw and when to stop; the defaults of :class:`Sampling` when None.

        Raises:
            RheostatError: an empty prompt, ids the model does not know, a prompt too long (unless the engine refuses those), streams of
                another length, logits that are not finite, or weights that changed without :meth:`update_weights`.
        """

    def update_weights(self, policy: LanguagePolicy, version: int) -> None:
        """Use the policy's present weights from now on, and stamp what they sample with ``version``."""


class LocalEngine:
    """Base class of engines that decode with the policy's own weights in place: updating weights copies nothing.

    Args:
        policy: the language model.
        version: number of policy updates behind its present weights.
        max_rows: rows decoded at once (bounds the memory of the cache).
        max_prompt_tokens: longest prompt accepted; by default the model's positions less those of the completion.
        on_long: whether a longer prompt is an error, or its group is refused (and counted in ``Generations.refused``). Never cut silently.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        *,
        version: int = 0,
        max_rows: int = 1024,
        max_prompt_tokens: int | None = None,
        on_long: OnLong = "error",
    ) -> None:
        self.max_rows, self.max_prompt_tokens, self.on_long = max_rows, max_prompt_tokens, on_long
        self._stopping: dict[tuple[tuple[int, ...], tuple[str, ...]], Stopping] = {}
        self.update_weights(policy, version)

    def update_weights(self, policy: LanguagePolicy, version: int) -> None:
        """Use the policy's present weights as ``version``."""
        self.policy, self.version = policy, version
        self._seen = self._fingerprint()

    def _fingerprint(self) -> int:
        """Changes whenever an optimiser or a load writes to the weights."""
        return sum(parameter._version for parameter in self.policy.model.parameters())

    def _stop_rule(self, sampling: Sampling) -> Stopping:
        ids = self.policy.stop_ids if sampling.stop_ids is None else sampling.stop_ids
        key = (ids, sampling.stop_strings)
        if key not in self._stopping:
            self._stopping[key] = Stopping(*key, self.policy.vocabulary, self.policy.tokenizer, self.policy.device)
        return self._stopping[key]

    def _open(
        self, prompts: Sequence[Sequence[int]], streams: Tensor, group_size: int, sampling: Sampling
    ) -> tuple[Generations, list[int]]:
        """Check the request; returns an empty result (every row refused so far) and the indices of the prompts that fit."""
        if self._fingerprint() != self._seen:
            raise RheostatError(
                f"The policy's weights changed since version {self.version} was announced: call update_weights(policy, version) after "
                "every update, so that each token is stamped with the weights that sampled it."
            )
        room = self.policy.longest and self.policy.longest - sampling.max_new_tokens
        if room is not None and room < 1:
            raise RheostatError(
                f"The model has {self.policy.longest} positions, which leaves no room for a prompt before {sampling.max_new_tokens} new "
                "tokens: lower max_new_tokens."
            )
        longest = min((limit for limit in (self.max_prompt_tokens, room) if limit is not None), default=None)
        fits = check_prompts(prompts, streams, group_size, vocabulary=self.policy.readable, longest=longest, on_long=self.on_long)
        rows, width, device = len(prompts) * group_size, sampling.max_new_tokens, self.policy.device
        result = Generations(
            prompts=[list(map(int, prompt)) for prompt in prompts],
            group_size=group_size,
            tokens=torch.zeros(rows, width, dtype=torch.int64, device=device),
            logp=torch.full((rows, width), torch.nan, device=device),
            lengths=torch.zeros(rows, dtype=torch.int64, device=device),
            finish=torch.full((rows,), int(FinishReason.REFUSED), device=device),
            versions=torch.full((rows, width), -1, device=device),
            sampling=sampling,
        )
        return result, [index for index, fit in enumerate(fits) if fit]

    def _close(self, result: Generations) -> Generations:
        """Cut the unused columns, blank the entries past each row's end, stamp the rest, and refuse numbers that are not finite."""
        width = max(1, int(result.lengths.max()))
        sampled, logp = result.mask[:, :width], result.logp[:, :width]
        lost = sampled & ~torch.isfinite(logp)
        if lost.any():
            row, column = lost.nonzero()[0].tolist()
            raise RheostatError(
                f"The model's logits are not finite at token {column} of row {row}: its weights (version {self.version}) have diverged, or "
                "its dtype is too narrow."
            )
        return replace(
            result,
            tokens=torch.where(sampled, result.tokens[:, :width], self.policy.pad_id),
            logp=torch.where(sampled, logp, torch.nan),
            versions=torch.where(sampled, self.version, -1),
        )


def check_prompts(
    prompts: Sequence[Sequence[int]], streams: Tensor, group_size: int, *, vocabulary: int, longest: int | None, on_long: OnLong
) -> list[bool]:
    """Refuse prompts that cannot be completed; returns for each prompt whether it fits.

    Raises:
        RheostatError: see :meth:`Engine.generate`.
    """
    if not prompts or group_size < 1:
        raise RheostatError(f"Nothing to generate: {len(prompts)} prompts with {group_size} samples each; both must be at least 1.")
    if tuple(streams.shape) != (len(prompts) * group_size,):
        raise RheostatError(
            f"{len(prompts)} prompts with {group_size} samples each need {len(prompts) * group_size} random streams, "
            f"but they have shape {list(streams.shape)}: use row_streams(seed, update, prompt indices, group_size)."
        )
    fits = []
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise RheostatError(f"Prompt {index} is empty: it needs at least one token (a bos token will do).")
        if min(prompt) < 0 or max(prompt) >= vocabulary:
            raise RheostatError(f"Prompt {index} has token ids outside the model's vocabulary of {vocabulary}: wrong tokenizer?")
        fits.append(longest is None or len(prompt) <= longest)
        if not fits[-1] and on_long == "error":
            raise RheostatError(
                f"Prompt {index} has {len(prompt)} tokens, more than the {longest} that leave room for the completion: shorten it, lower "
                "max_new_tokens, or build the engine with on_long='refuse' to skip and count such prompts."
            )
    return fits
