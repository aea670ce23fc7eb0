"""Tiny words: a language model so small that all its completions can be listed."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.generation.engine import FinishReason, Generations
from rheostat.collect.language.generation.sampling import Sampling
from rheostat.collect.language.prompt_groups import LanguageSetup
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier
from rheostat.diagnostics.microscope.exact import Problem, assign, flat, require_small
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language.encoding import PromptEncoder
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split
from rheostat.trajectories import Trajectories


@dataclass(frozen=True)
class TinyWords(LanguageTask):
    """Four prompts over three letters: nearly always, half the time, partly and hardly ever rewarded by a random model."""

    length: int = 4
    """Tokens of a completion, the end token included."""
    validation_share: float = 0.0
    name: str = "tiny-words"

    PROMPTS: ClassVar[tuple[str, ...]] = ("a", "b", "ab", "c")

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        return Limits(2, self.length)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Every prompt once: batches of a multiple of four hold each equally often."""
        return [Prompt(text, answer=text) for text in self.PROMPTS]

    def verifier(self) -> Verifier:
        return TinyWordsVerifier(self.length)

    def tokenizer(self) -> Any:
        """End (also padding), a, b, c: four tokens."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.WordLevel({token: number for number, token in enumerate(["<eos>", "a", "b", "c"])}))
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        inner.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>", clean_up_tokenization_spaces=False)

    def expert(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """A best answer."""
        return {"a": "a", "b": "b", "ab": "b" * (self.length - 1), "c": "ca"[: self.length - 1]}[str(prompt.content)]


@dataclass
class TinyWordsVerifier:
    """``a``: an a anywhere; ``b``: b first; ``ab``: the share of places that hold a b; ``c``: the word "ca" and then the end."""

    length: int
    name: str = "tiny-words"

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        return Scores.from_grades([Grade(self.grade(rollout)) for rollout in rollouts])

    def grade(self, rollout: Rollout) -> float:
        """In [0, 1]."""
        text = rollout.completion
        if rollout.prompt == "a":
            return float("a" in text)
        if rollout.prompt == "b":
            return float(text.startswith("b"))
        if rollout.prompt == "ab":
            return text.count("b") / self.length
        return float(text == "ca" and not rollout.truncated)


def tiny_model(vocabulary: int, seed: int, spread: float = 0.2) -> Any:
    """A one-layer transformer with weights large enough for its next token to depend on what came before."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, tie_word_embeddings=True, max_position_embeddings=32, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # the library's own initialisation only knows the global generator
        model = Qwen3ForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(noise if parameter.dim() > 1 else torch.ones_like(parameter))
    return model


def every_completion(vocabulary: int, stops: Sequence[int], length: int) -> list[list[int]]:
    """All completions: up to ``length`` tokens, ended early by a stop token only."""
    open_, done = [[]], []  # type: ignore[var-annotated]
    for _ in range(length):
        grown = [[*row, token] for row in open_ for token in range(vocabulary)]
        done += [row for row in grown if row[-1] in stops]
        open_ = [row for row in grown if row[-1] not in stops]
    return done + open_


class LanguageProblem(Problem):
    """A tiny language model and a task with a handful of prompts, each equally likely.

    Args:
        task: whose ``block`` holds every prompt once.
        length: longest completion in tokens.
        model: a causal LM; None makes a random one.
        seed: of its weights.
        step: see :class:`Problem`.

    Raises:
        RheostatError: more outcomes than can be listed.
    """

    domain = "language"

    def __init__(self, task: LanguageTask, length: int, *, model: Any = None, seed: int = 0, step: float = 1.0) -> None:
        self.task, self.length, self.name, self.step = task, length, task.name, step
        tokenizer: Any = task.tokenizer()
        self.prompts = task.block(0, "train", 0)
        words = len(tokenizer) if model is None else model.config.vocab_size
        going_on = words - 1
        counted = min(length, 50)  # beyond, any number is too many
        require_small(self.name, len(self.prompts) * (sum(going_on**t for t in range(counted)) + going_on**counted))
        self._model = tiny_model(words, seed) if model is None else model
        self._policy = LanguagePolicy(self._model, tokenizer)
        completions = every_completion(words, self._policy.stop_ids, length)
        self.rows = self._rows(completions)
        self.theta = flat(self.parameters)

    @property
    def parameters(self) -> list[Tensor]:
        return list(self._model.parameters())

    @property
    def outcomes_per_prompt(self) -> int:
        """Completions of each prompt."""
        return len(self.returns) // len(self.prompts)

    def _rows(self, completions: list[list[int]]) -> Trajectories:
        """Every completion of every prompt ``[N, T]``, in the form a batch has, graded by the task's verifier."""
        encoder = PromptEncoder(self._policy.tokenizer, self.task.limits.max_prompt_tokens)
        prompts = [encoder.encode(prompt) or [] for prompt in self.prompts]
        count, many = len(completions), len(prompts)
        tokens = torch.zeros(count, self.length, dtype=torch.int64)
        for row, ids in enumerate(completions):
            tokens[row, : len(ids)] = torch.tensor(ids)
        lengths = torch.tensor([len(ids) for ids in completions])
        cut = torch.tensor([ids[-1] not in self._policy.stop_ids for ids in completions])
        finish = torch.where(cut, int(FinishReason.LENGTH), int(FinishReason.STOP)).repeat(many)
        unknown_logp = torch.full((count * many, self.length), torch.nan)
        listed = Generations(
            prompts, count, tokens.repeat(many, 1), unknown_logp, lengths.repeat(many), finish, torch.zeros_like(unknown_logp).long(),
            Sampling(max_new_tokens=self.length),
        )  # fmt: skip
        texts = self._policy.tokenizer.batch_decode(completions, skip_special_tokens=True)
        rollouts = [
            prompt.rollout(text, ids, truncated=long)
            for prompt in self.prompts
            for text, ids, long in zip(texts, completions, cut.tolist(), strict=True)
        ]
        self.returns = self.task.verifier().score(rollouts).reward.double()
        return listed.trajectories(self._policy.pad_id)

    def token_logp(self, theta: Tensor) -> Tensor:
        """Log-probability of every token of every outcome, ``[N, T]``, 0 outside the completions."""
        assign(self.parameters, theta)
        return self._policy.score(self.rows.action, self.rows.attention, self.rows.mask).logp

    def outcome_logp(self, theta: Tensor) -> Tensor:
        return self.token_logp(theta).double().sum(1) - math.log(len(self.prompts))

    def setup(self, *, value_head: bool = False) -> LanguageSetup:
        """The context of a method, with nothing shared: a copy of the model, an engine and the grader."""
        assign(self.parameters, self.theta)
        policy = LanguagePolicy(copy.deepcopy(self._model), self._policy.tokenizer, value_head=value_head)
        encoder = PromptEncoder(policy.tokenizer, self.task.limits.max_prompt_tokens)
        return LanguageSetup(self.task, policy, EmbeddedEngine(policy), self.task.verifier(), encoder, self.length)
