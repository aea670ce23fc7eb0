"""Transformers' continuous batching behind the same interface as the embedded engine.

Advantages: paged memory, rows of new prompts joining while others finish, flash attention on GPUs. Limits, found in
transformers 5.23: it samples from PyTorch's global generator in a thread of its own, so rows have no streams of their own and a run does
not repeat exactly; on a CPU it is an order of magnitude slower than the embedded engine; it knows no stop strings (completions are cut at
them afterwards, which gives the same distribution). Log-probabilities come from the sampler itself, after temperature and filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rheostat.collect.language.generation.engine import FinishReason, Generations, LocalEngine
from rheostat.collect.language.generation.sampling import Sampling
from rheostat.errors import RheostatError

PAGE = 32  # tokens in a page of the cache


class ContinuousEngine(LocalEngine):
    """Generates through ``generate_batch`` of the Hugging Face model.

    The streams only seed the call as a whole: use :class:`rheostat.collect.language.generation.embedded.EmbeddedEngine` where a run must
    resume exactly.
    """

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Sequence[int]], *, streams: Tensor, group_size: int = 1, sampling: Sampling | None = None
    ) -> Generations:
        """See :meth:`rheostat.collect.language.generation.engine.Engine.generate`.

        Raises:
            RheostatError: as there; this transformers has no continuous batching that returns log-probabilities; or a request failed.
        """
        result, accepted = self._open(prompts, streams, group_size, sampling or Sampling())
        if accepted:
            outputs = self._run([result.prompts[index] for index in accepted], group_size, result.sampling, int(streams.sum()) & 0x7FFFFFFF)
            rows = (torch.tensor(accepted)[:, None] * group_size + torch.arange(group_size)).flatten().tolist()
            for row, output in zip(rows, outputs, strict=True):
                self._write(row, output, result)
            self._cut_at_stop_strings(result)
        return self._close(result)

    def _run(self, prompts: list[list[int]], group_size: int, sampling: Sampling, seed: int) -> list[Any]:
        from transformers import GenerationConfig

        try:
            from transformers.generation.configuration_utils import ContinuousBatchingConfig

            longest = max(len(prompt) for prompt in prompts) + sampling.max_new_tokens
            rows = min(self.max_rows, len(prompts) * group_size)
            memory = ContinuousBatchingConfig(
                page_size=PAGE,
                num_blocks=rows * (longest // PAGE + 2),
                max_batch_tokens=max(longest, rows),
                max_requests_per_batch=rows,
                return_logprobs=True,
                seed=seed,
            )
        except (ImportError, TypeError) as error:
            raise RheostatError(
                "This version of transformers has no continuous batching that returns log-probabilities: install transformers 5.23 or "
                "newer, or use the embedded engine."
            ) from error
        model, ends = self.policy.causal, self._end_ids(sampling)
        how = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            num_return_sequences=group_size,
            do_sample=not sampling.greedy,
            eos_token_id=list(ends) or -1,
            pad_token_id=self.policy.pad_id,
            # None switches a filter off; 1.0 and 0 would be warned about
            **({} if sampling.greedy else {"temperature": sampling.temperature, "top_k": sampling.top_k or None, "top_p": sampling.top_p}),
        )
        devices: list[int] | None = [] if self.policy.device.type == "cpu" else None
        with torch.random.fork_rng(devices=devices):  # it seeds and uses the global generator, whose state must not change
            outputs = list(model.generate_batch(inputs=prompts, generation_config=how, continuous_batching_config=memory).values())
        wrong = [output.error or "no result" for output in outputs if output.error or len(output.logprobs) != len(output.generated_tokens)]
        if wrong or len(outputs) != len(prompts) * group_size:
            raise RheostatError(
                f"Continuous batching returned {len(outputs)} of {len(prompts) * group_size} completions, {len(wrong)} of them broken "
                f"({wrong[0] if wrong else 'the others are missing'}): lower max_rows, or use the embedded engine."
            )
        return outputs

    def _end_ids(self, sampling: Sampling) -> tuple[int, ...]:
        return self.policy.stop_ids if sampling.stop_ids is None else sampling.stop_ids

    def _write(self, row: int, output: Any, result: Generations) -> None:
        length = len(output.generated_tokens)
        result.tokens[row, :length] = torch.tensor(output.generated_tokens)
        result.logp[row, :length] = torch.zeros(length) if result.sampling.greedy else torch.tensor(output.logprobs)
        result.lengths[row] = length
        stopped = output.generated_tokens[-1] in self._end_ids(result.sampling)
        result.finish[row] = int(FinishReason.STOP if stopped else FinishReason.LENGTH)

    def _cut_at_stop_strings(self, result: Generations) -> None:
        stopping, rows = self._stop_rule(result.sampling), torch.arange(len(result), device=result.tokens.device)
        if not result.sampling.stop_strings:
            return
        for step in range(int(result.lengths.max())):
            rows = rows[result.lengths[rows] > step]
            over = rows[stopping(result.tokens[rows, step], result.tokens, rows, step)]
            result.lengths[over] = step + 1
            result.finish[over] = int(FinishReason.STOP)
