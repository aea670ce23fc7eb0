"""The token engine inside the training process: batched decoding with shared prompts, compaction and a random stream per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from rheostat.collect.language.generation.beginnings import MOST_TOKENS, Memory
from rheostat.collect.language.generation.cached_decoding import PackedDecoding, decoding
from rheostat.collect.language.generation.engine import FinishReason, Generations, LocalEngine
from rheostat.collect.language.generation.sampling import Sampling, draw, uniforms
from rheostat.policies.language.matmul import usual_above
from rheostat.policies.language.model import LanguagePolicy

COMPACT_AT = 1 / 8  # share of finished rows at which they are dropped (docs/speed-language.md)
LOOK_EVERY = 8  # steps between checks for finished rows on a GPU, where a check stalls the queue of kernels
NOISE_STEPS = 64  # steps of random numbers made at once


class EmbeddedEngine(LocalEngine):
    """Decodes many rows at once; more prompts than ``max_rows`` allows are done in waves.

    A row's tokens depend on the weights, its prompt and its stream alone, so the same call gives the same tokens in any batch.
    """

    _memory: Memory | None = None

    @contextmanager
    def remembering(self, most: int = MOST_TOKENS) -> Iterator[Memory]:
        """Keep what rows have computed that their limit cuts, and continue from it where a prompt is such a row (Llama family only).

        Args:
            most: tokens that are kept at once.
        """
        self._memory = Memory(most if self.policy.decoder is not None else 0)
        try:
            yield self._memory
        finally:
            self._memory = None

    def update_weights(self, policy: LanguagePolicy, version: int) -> None:
        """Use the policy's present weights as ``version``."""
        super().update_weights(policy, version)
        if self._memory is not None:
            self._memory.clear()

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], *, streams: Tensor, group_size: int = 1, sampling: Sampling | None = None
    ) -> Generations:
        """See :meth:`rheostat.collect.language.generation.engine.Engine.generate`."""
        result, accepted = self._open(prompts, streams, group_size, sampling or Sampling())
        per_wave = max(1, self.max_rows // group_size)
        device = result.tokens.device
        memory = self._memory or Memory(0)
        known, new = list[int](), list[int]()
        for index in accepted:
            (new if memory.of(result.prompts[index]) is None else known).append(index)
        for indices in (known, new):
            for start in range(0, len(indices), per_wave):
                wave = indices[start : start + per_wave]
                rows = (torch.tensor(wave)[:, None] * group_size + torch.arange(group_size)).flatten()
                self._wave([result.prompts[index] for index in wave], rows.to(device), streams.to(device), result)
        return self._close(result)

    def _wave(self, prompts: list[list[int]], rows: Tensor, streams: Tensor, result: Generations) -> None:
        """Complete these prompts, writing to the given rows of the result."""
        sampling, on_gpu = result.sampling, rows.device.type != "cpu"
        rule = None if sampling.greedy else self.policy.rule(sampling.temperature, sampling.top_k, sampling.top_p)
        stopping = self._stop_rule(sampling)
        state = decoding(self.policy, sampling.max_new_tokens)
        kept = [] if self._memory is None else [beginning for prompt in prompts if (beginning := self._memory.of(prompt)) is not None]
        if kept and isinstance(state, PackedDecoding):  # then all of them are known
            hidden = state.recall(prompts, result.group_size, kept)
        else:
            hidden = state.prefill(prompts, result.group_size)
        raw = self.policy.raw_logits(hidden).repeat_interleave(result.group_size, 0)
        result.finish[rows] = int(FinishReason.STOP)  # rows that are still alive at the end were cut
        alive = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        noise, dead = streams[:0], 0
        for step in range(sampling.max_new_tokens):
            if step % NOISE_STEPS == 0:
                noise = uniforms(streams, step, min(NOISE_STEPS, sampling.max_new_tokens - step))
            token, logp = draw(raw, rule, noise[rows, step % NOISE_STEPS])
            result.tokens[rows, step], result.logp[rows, step] = token, logp
            result.lengths.index_add_(0, rows, alive.long())
            alive &= ~stopping(token, result.tokens, rows, step)
            if not on_gpu or (step + 1) % LOOK_EVERY == 0:
                dead = len(rows) - int(alive.sum())
            if dead == len(rows) or step + 1 == sampling.max_new_tokens:
                break
            if dead and dead >= COMPACT_AT * len(rows) and (count := usual_above(len(rows) - dead)) < len(rows):
                movers = alive[count:].nonzero()[:, 0] + count
                holes = (~alive[:count]).nonzero()[:, 0][: len(movers)]
                state.keep(holes, movers, count)
                rows[holes], token[holes], alive[holes] = rows[movers], token[movers], True
                rows, token, alive = rows[:count], token[:count], alive[:count]
                dead = count - int(alive.sum())
            raw = self.policy.raw_logits(state.step(token))
        result.finish[rows[alive]] = int(FinishReason.LENGTH)
        if self._memory is not None and self._memory.most and isinstance(state, PackedDecoding):
            living = alive.nonzero()[:, 0]
            for row, beginning in zip(rows[living].tolist(), state.beginnings(living), strict=True):
                begun = result.prompts[row // result.group_size] + result.tokens[row, : int(result.lengths[row])].tolist()
                self._memory.keep(begun[:-1], beginning)
