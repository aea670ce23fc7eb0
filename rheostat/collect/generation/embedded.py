"""The token engine inside the training process: batched decoding with shared prompts, compaction and a random stream per row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rheostat.collect.generation.cached_decoding import decoding
from rheostat.collect.generation.engine import Engine, FinishReason, Generations, OnLong, check_prompts
from rheostat.collect.generation.sampling import Sampling, draw, row_streams, uniforms
from rheostat.collect.generation.stopping import Stopping
from rheostat.errors import RheostatError
from rheostat.policies.language import LanguagePolicy

__all__ = ["EmbeddedEngine", "row_streams"]

COMPACT_AT = 1 / 8  # share of finished rows at which they are dropped (docs/speed-language.md)
LOOK_EVERY = 8  # steps between looks at who has finished on a GPU, where looking stalls the queue of kernels
NOISE_STEPS = 64  # steps of random numbers made at once


class EmbeddedEngine(Engine):
    """Decodes with the policy's own weights, in place: updating weights copies nothing.

    Args:
        policy: the language model.
        version: number of policy updates behind its present weights.
        max_rows: rows decoded at once; more prompts are done in waves (bounds the memory of the cache).
        max_prompt_tokens: longest prompt accepted; by default what the model's positions leave beside the completion.
        on_long: whether a longer prompt is an error or makes its group refused (counted in ``Generations.refused``). Never cut silently.
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
        self.policy, self.version = policy, version
        self._seen = self._fingerprint()

    def _fingerprint(self) -> int:
        """Changes whenever an optimiser or a load writes to the weights."""
        return sum(parameter._version for parameter in self.policy.model.parameters())

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], *, streams: Tensor, group_size: int = 1, sampling: Sampling | None = None
    ) -> Generations:
        sampling = sampling or Sampling()
        if self._fingerprint() != self._seen:
            raise RheostatError(
                f"The policy's weights changed since version {self.version} was announced: call update_weights(policy, version) after every "
                "update, so that each token is stamped with the weights that sampled it."
            )
        limits = [self.max_prompt_tokens, self.policy.longest and self.policy.longest - sampling.max_new_tokens]
        longest = min((limit for limit in limits if limit is not None), default=None)
        fits = check_prompts(
            prompts, streams, group_size, vocabulary=self.policy.vocabulary, longest=longest, on_long=self.on_long
        )
        asked = [list(map(int, prompt)) for prompt in prompts]
        rows = len(prompts) * group_size
        device = self.policy.device
        result = Generations(
            prompts=asked,
            group_size=group_size,
            tokens=torch.zeros(rows, sampling.max_new_tokens, dtype=torch.int64, device=device),
            logp=torch.full((rows, sampling.max_new_tokens), torch.nan, device=device),
            lengths=torch.zeros(rows, dtype=torch.int64, device=device),
            finish=torch.full((rows,), int(FinishReason.REFUSED), device=device),
            versions=torch.full((rows, sampling.max_new_tokens), -1, device=device),
            sampling=sampling,
        )
        per_wave = max(1, self.max_rows // group_size)
        accepted = [index for index, fit in enumerate(fits) if fit]
        for start in range(0, len(accepted), per_wave):
            wave = accepted[start : start + per_wave]
            place = torch.tensor(wave)[:, None] * group_size + torch.arange(group_size)
            self._wave([asked[index] for index in wave], place.flatten().to(device), streams.to(device), result)
        return self._finish(result)

    def _wave(self, prompts: list[list[int]], rows: Tensor, streams: Tensor, result: Generations) -> None:
        """Complete these prompts, writing to the given rows of the result."""
        sampling, on_gpu = result.sampling, rows.device.type != "cpu"
        rule = None if sampling.greedy else self.policy.rule(sampling.temperature, sampling.top_k, sampling.top_p)
        stopping = self._stop_rule(sampling)
        state = decoding(self.policy, sampling.max_new_tokens)
        hidden = state.prefill(prompts, result.group_size)
        raw = self.policy.raw_logits(hidden).repeat_interleave(result.group_size, 0)
        result.finish[rows] = int(FinishReason.STOP)  # whoever is still alive at the end was cut
        alive = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        noise, dead = torch.empty(0), 0
        for step in range(sampling.max_new_tokens):
            if rule is not None and step % NOISE_STEPS == 0:
                noise = uniforms(streams, step, min(NOISE_STEPS, sampling.max_new_tokens - step))
            token, logp = draw(raw, rule, noise[rows, step % NOISE_STEPS] if rule is not None else noise)
            result.tokens[rows, step], result.logp[rows, step] = token, logp
            result.lengths.index_add_(0, rows, alive.long())
            alive &= ~stopping(token, result.tokens, rows, step)
            if not on_gpu or (step + 1) % LOOK_EVERY == 0:
                dead = len(rows) - int(alive.sum())
            if dead == len(rows) or step + 1 == sampling.max_new_tokens:
                result.finish[rows[alive]] = int(FinishReason.LENGTH)
                break
            if dead and dead >= COMPACT_AT * len(rows):
                count = len(rows) - dead
                holes = (~alive[:count]).nonzero()[:, 0]
                movers = alive[count:].nonzero()[:, 0] + count
                state.keep(holes, movers, count)
                for tensor in (rows, token):
                    tensor[holes] = tensor[movers]
                rows, token, alive, dead = rows[:count], token[:count], torch.ones_like(alive[:count]), 0
            raw = self.policy.raw_logits(state.step(token))

    def _stop_rule(self, sampling: Sampling) -> Stopping:
        ids = self.policy.stop_ids if sampling.stop_ids is None else sampling.stop_ids
        key = (ids, sampling.stop_strings)
        if key not in self._stopping:
            self._stopping[key] = Stopping(*key, self.policy.vocabulary, self.policy.tokenizer, self.policy.device)
        return self._stopping[key]

    def _finish(self, result: Generations) -> Generations:
        """Cut the unused columns, blank what lies past each row's end, and refuse numbers that are not finite."""
        width = max(1, int(result.lengths.max()))
        sampled = result.mask[:, :width]
        logp = result.logp[:, :width]
        if not bool(torch.isfinite(logp[sampled]).all()):
            row, column = (sampled & ~torch.isfinite(logp)).nonzero()[0].tolist()
            raise RheostatError(
                f"The model's logits are not finite at token {column} of row {row}: its weights (version {self.version}) have diverged, or its "
                "dtype is too narrow."
            )
        return Generations(
            prompts=result.prompts,
            group_size=result.group_size,
            tokens=torch.where(sampled, result.tokens[:, :width], self.policy.pad_id),
            logp=torch.where(sampled, logp, torch.nan),
            lengths=result.lengths,
            finish=result.finish,
            versions=torch.where(sampled, self.version, -1),
            sampling=result.sampling,
        )
