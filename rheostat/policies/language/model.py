"""A language model as a policy: log-probabilities, entropies and values of the tokens it chose.

Wraps any Hugging Face causal LM. Models of the Llama family run on packed tokens with shared prompts
(:mod:`rheostat.policies.language.decoder`),
every other architecture through its own forward pass; the vocabulary projection is chunked for all of them.

Dropout of the model's own is always off: a policy whose log-probabilities change between two passes over the same token has no ratio to its
former self. Dropout of adapters is on inside of :meth:`LanguagePolicy.dropping` only.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rheostat.errors import MissingExtra, RheostatError
from rheostat.masking import require_same_shape
from rheostat.policies.language import decoder as decoders
from rheostat.policies.language.adapter_dropout import dropping, install
from rheostat.policies.language.chunked_logprobs import CHUNK_ELEMENTS, LogitRule, head_logprobs, of_head, token_logprobs
from rheostat.policies.language.matmul import linear
from rheostat.policies.language.model_loading import (
    check_vocabulary,
    load_model,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
    stop_ids,
    without_bars,
)
from rheostat.policies.language.packing import Packing, Sharing, first_of_pairs, pack
from rheostat.policies.language.value_head import FILE as VALUE_FILE
from rheostat.policies.language.value_head import ValueHead

SCORED_AT_ONCE = 2**16  # tokens per forward pass when no gradient is wanted


@dataclass(frozen=True)
class TokenScores:
    """The policy's scores of the masked tokens, each ``[B, T]`` float32 and 0 outside the mask."""

    logp: Tensor
    entropy: Tensor | None = None
    """Of the distribution the token was drawn from, in nats."""
    value: Tensor | None = None
    """V of the state before the token."""
    next_value: Tensor | None = None
    """V of the state after the token: what a truncated row bootstraps from."""
    head: Tensor | None = None
    """``[B, T, K + 1]``: log-probabilities of other tokens in its place, last that of all that were not asked for."""


class LanguagePolicy(nn.Module):
    """A causal LM with an optional value head and optional adapters.

    Args:
        model: a Hugging Face causal LM, used in place (a ``PeftModel`` is fine).
        tokenizer: its tokenizer; None when only token ids are ever used.
        device, dtype: where and in what precision it computes; None leaves the model as it is. Parameters are the master weights of the
            optimiser, so train in float32 unless memory forbids it.
        value_head: add a critic (:class:`ValueHead`).
        adapters: a ``peft`` configuration: train adapters and freeze the rest.
        adapter_dropout: share of what adapters read that is dropped inside of :meth:`dropping`; 0 drops nothing.
        share: what rows begin with in common is computed once (Llama family only).
        recompute: gradient checkpointing, layer by layer (Llama family only).

    Raises:
        RheostatError: see :func:`resolve_device` and :func:`check_vocabulary`, a model that is not a causal LM, or dropout without
            adapters.
    """

    model: Any
    tokenizer: Any

    def __init__(
        self,
        model: Any,
        tokenizer: Any | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        value_head: bool = False,
        adapters: Any | None = None,
        adapter_dropout: float = 0.0,
        share: Sharing = "prompts",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if getattr(model, "get_output_embeddings", None) is None or model.get_output_embeddings() is None:
            raise RheostatError(f"A {type(model).__name__} is no causal language model: it has no output layer over the vocabulary.")
        if tokenizer is not None:
            check_vocabulary(model, tokenizer)
        if device is not None or dtype is not None:
            model = model.to(
                device=None if device is None else resolve_device(device), dtype=None if dtype is None else resolve_dtype(dtype)
            )
        if adapters is not None:
            model = _with_adapters(model, adapters)
        self.model = model.eval()
        if adapter_dropout and not self.adapted:
            raise RheostatError("adapter_dropout is about adapters, and there are none: set adapter_rank.")
        self._dropouts = install(self.model, adapter_dropout) if adapter_dropout else []
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids(self.causal, tokenizer)
        self.share, self.recompute = share, recompute
        self.cached = True  # whether generation may use the model's own cache (decided by collect.language.generation.trial)
        config = self.causal.config
        self._scale = float(getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0))
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self.value_head = ValueHead(config.get_text_config().hidden_size).to(self.device) if value_head else None
        self.decoder = self._find_decoder()
        if recompute and self.decoder is None:
            raise RheostatError(f"recompute is for the Llama family ({', '.join(decoders.MODEL_TYPES)}), not for {config.model_type!r}.")

    @classmethod
    def load(
        cls, path: str | Path, *, device: str = "cpu", dtype: str = "float32", value_head: bool = False, **options: Any
    ) -> LanguagePolicy:
        """A policy from a Hugging Face folder or hub name; a value head saved beside the model is loaded too.

        Raises:
            RheostatError: no such model, device or dtype, or model and tokenizer that do not belong together.
        """
        found = Path(path) / VALUE_FILE
        model = load_model(path, resolve_device(device), resolve_dtype(dtype))
        policy = cls(model, load_tokenizer(path), value_head=value_head or found.is_file(), **options)
        if policy.value_head is not None and found.is_file():
            policy.value_head.load(Path(path))
        return policy

    def save_pretrained(self, path: str | Path, *, adapters_only: bool = False) -> None:
        """Write an ordinary Hugging Face folder (safetensors), the tokenizer and, as a file of its own, the value head.

        Args:
            path: the folder, made if need be.
            adapters_only: write the adapters alone (needs the base model to load); by default they are merged into a copy of it.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        merge = self.adapted and not adapters_only
        with without_bars():
            (copy.deepcopy(self.model).merge_and_unload() if merge else self.model).save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        if self.value_head is not None:
            self.value_head.save(folder)

    @property
    def adapted(self) -> bool:
        """Whether the model carries adapters."""
        return hasattr(self.model, "disable_adapter")

    @property
    def causal(self) -> Any:
        """The Hugging Face causal LM inside the adapters' wrapper."""
        return self.model.get_base_model() if self.adapted else self.model

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.causal.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.causal.get_input_embeddings().weight.dtype

    @property
    def vocabulary(self) -> int:
        """Number of token ids the model knows."""
        return self.causal.get_input_embeddings().weight.shape[0]

    @property
    def readable(self) -> int:
        """Number of token ids the model can read: those it knows, and soft prefixes."""
        return getattr(self.causal.get_input_embeddings(), "readable", self.vocabulary)

    @property
    def longest(self) -> int | None:
        """Number of positions that prompts and completions may have, if its configuration gives it.

        LongRoPE (Ding et al. 2024, arXiv 2402.13753) turns all positions by other angles once a row is longer than the model was first made
        for. A cache keeps the earlier angles, so sampled tokens would have another probability when they are scored: that length is the
        limit.
        """
        config = self.causal.config.get_text_config()
        found: int | None = getattr(config, "max_position_embeddings", None)
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            found = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", found)
        return found

    @property
    def pad_id(self) -> int:
        """The token id that fills padding; its value never matters."""
        if self.tokenizer is None:
            return 0
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def train(self, mode: bool = True) -> LanguagePolicy:
        """Accept the call, but keep dropout off (see the module's docstring)."""
        return super().train(False)

    @property
    def drops(self) -> bool:
        """Whether :meth:`dropping` changes anything."""
        return bool(self._dropouts)

    def dropping(self, seed: int) -> AbstractContextManager[None]:
        """Switch the dropout of adapters on inside the context; it is the same for equal seeds. The backward pass belongs inside."""
        return dropping(self._dropouts, seed)

    def rule(self, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> LogitRule:
        """The rule from this model's raw logits to the distribution that is sampled."""
        return LogitRule(self._scale, self._softcap, temperature, top_k, top_p)

    def raw_logits(self, hidden: Tensor) -> Tensor:
        """Output layer on hidden states ``[n, C]``, ``[n, V]`` float32, before :meth:`rule`. For sampling: ``n`` is a batch of rows."""
        head = self.causal.get_output_embeddings()
        if type(head) is not nn.Linear:
            return head(hidden).float()
        return linear(hidden.float(), head.weight.float(), None if head.bias is None else head.bias.float())

    def score(
        self,
        action: Tensor,
        attention: Tensor,
        mask: Tensor,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        entropy: bool = False,
        value: bool = False,
        head: Tensor | None = None,
    ) -> TokenScores:
        """Log-probabilities of the masked tokens given what precedes them, under the distribution that would be sampled.

        Args:
            action: ``[B, T]`` int64 token ids, prompts and completions; padding may be anything, on either side.
            attention: ``[B, T]`` bool, real tokens: one contiguous run per row.
            mask: ``[B, T]`` bool, tokens to score.
            temperature, top_k, top_p: those of the sampler. The token itself always counts as kept by the filters, and the filters' choice
                is a constant for the gradient.
            entropy: also of the distribution each token was drawn from.
            value: also the critic's values, before and after each token.
            head: ``[B, T, K]`` int64, tokens to score in the place of each masked one; without filters only.

        Raises:
            RheostatError: different shapes, an empty mask, a masked token without a predecessor, a gap inside a row, or no value head.
        """
        require_same_shape(action=action, attention=attention, mask=mask)
        if value and self.value_head is None:
            raise RheostatError("This policy has no value head: build it with value_head=True.")
        rule = self.rule(temperature, top_k, top_p)
        if torch.is_grad_enabled() or action.numel() <= SCORED_AT_ONCE:
            return self._score(action, attention, mask, rule, entropy, value, head)
        rows = max(1, SCORED_AT_ONCE // action.shape[1])
        split = zip(action.split(rows), attention.split(rows), mask.split(rows), _split(head, rows, len(action)), strict=True)
        parts = [
            self._score(ids, real, asked, rule, entropy, value, tokens)
            if asked.any()
            else _nothing(asked, entropy, value, tokens, self.vocabulary)
            for ids, real, asked, tokens in split
        ]
        return TokenScores(
            torch.cat([part.logp for part in parts]),
            *(_join([getattr(part, name) for part in parts]) for name in ("entropy", "value", "next_value", "head")),
        )

    @torch.no_grad()
    def likeliest(self, action: Tensor, attention: Tensor, mask: Tensor, count: int, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """The likeliest tokens in the place of every masked one, and their log-probabilities.

        Args:
            action, attention, mask, temperature: as in :meth:`score`.
            count: how many; at most the whole vocabulary.

        Returns:
            Tokens ``[B, T, K]`` int64, and ``[B, T, K + 1]`` float32 as :attr:`TokenScores.head`; 0 outside the mask.
        """
        rule, chunk, rows = self.rule(temperature), max(1, CHUNK_ELEMENTS // self.vocabulary), max(1, SCORED_AT_ONCE // action.shape[1])
        tokens, logp = [], []
        for ids, real, asked in zip(action.split(rows), attention.split(rows), mask.split(rows), strict=True):
            for states in self.hidden_states(ids, real, predicting(asked)).split(chunk) if asked.any() else ():
                z = rule.apply(self.raw_logits(states))
                tokens.append(z.topk(min(count, self.vocabulary), -1).indices)
                logp.append(of_head(z, tokens[-1]))
        if not tokens:
            return torch.zeros((*mask.shape, 1), dtype=torch.int64), torch.zeros((*mask.shape, 2))
        return _spread(torch.cat(tokens), mask), _spread(torch.cat(logp), mask)

    @torch.no_grad()
    def read_logits(self, action: Tensor, attention: Tensor, mask: Tensor, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """One number per masked token from the model's logits before it, chunk by chunk, without a gradient.

        Args:
            action: ``[B, T]`` int64 token ids.
            attention: ``[B, T]`` bool, real tokens.
            mask: ``[B, T]`` bool, tokens to evaluate.
            read: of logits ``[n, V]`` float32 at temperature 1 and of the tokens ``[n]`` that followed, numbers ``[n]``.

        Returns:
            ``[B, T]`` float32, 0 outside the mask.

        Raises:
            RheostatError: a masked token without a predecessor, or a gap inside a row.
        """
        rule, chunk, rows = self.rule(), max(1, CHUNK_ELEMENTS // self.vocabulary), max(1, SCORED_AT_ONCE // action.shape[1])
        found = []
        for ids, real, asked in zip(action.split(rows), attention.split(rows), mask.split(rows), strict=True):
            if asked.any():
                hidden = self.hidden_states(ids, real, predicting(asked))
                parts = zip(hidden.split(chunk), ids[asked].split(chunk), strict=True)
                found += [read(rule.apply(self.raw_logits(states)), tokens) for states, tokens in parts]
        return _spread(torch.cat(found), mask) if found else torch.zeros(mask.shape, device=mask.device)

    def _score(
        self, action: Tensor, attention: Tensor, mask: Tensor, rule: LogitRule, entropy: bool, value: bool, head: Tensor | None = None
    ) -> TokenScores:
        before = predicting(mask)
        needed = before | mask if value else before
        hidden, place = self._states(action, attention, needed)
        asked, tokens = hidden[before[needed]] if value else hidden, action[mask]
        if place is None:
            logp, spread = token_logprobs(asked, tokens, self.causal.get_output_embeddings(), rule, entropy=entropy)
        else:  # the same token after the same beginning is scored once
            first, copies = first_of_pairs(place[before[needed]] if value else place, tokens)
            logp, spread = token_logprobs(asked[first], tokens[first], self.causal.get_output_embeddings(), rule, entropy=entropy)
            logp, spread = logp[copies], None if spread is None else spread[copies]
        result = TokenScores(_spread(logp, mask), None if spread is None else _spread(spread, mask))
        if head is not None:
            result = replace(result, head=_spread(head_logprobs(asked, head[mask], self.causal.get_output_embeddings(), rule), mask))
        if not value or self.value_head is None:
            return result
        earlier, after = _around(self.value_head(hidden), needed, mask)
        return replace(result, value=earlier, next_value=after)

    def hidden_states(self, action: Tensor, attention: Tensor, needed: Tensor) -> Tensor:
        """Final hidden states ``[n, C]`` of the needed positions ``[B, T]``, row-major.

        Raises:
            RheostatError: nothing needed, something needed on padding, or a gap inside a row.
        """
        return self._states(action, attention, needed)[0]

    def _states(self, action: Tensor, attention: Tensor, needed: Tensor) -> tuple[Tensor, Tensor | None]:
        """See :meth:`hidden_states`; also, where rows share what they have computed, which computed token each of them is, ``[n]``."""
        packing = pack(action, attention, needed, share=self.share)  # checks the rows for both ways
        if self.decoder is not None:
            flat = self.decoder.forward(*self._packed(packing), recompute=self.recompute)
            return flat[packing.needed], packing.needed if self.share == "beginnings" else None
        states, needed = self._own_pass(action, attention, needed)
        return states.last_hidden_state[needed], None

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.causal.config.get_text_config().num_hidden_layers)

    @torch.no_grad()
    def latents(self, action: Tensor, attention: Tensor, needed: Tensor, layers: Sequence[int]) -> Tensor:
        """What some layers add up to at the needed positions ``[B, T]``, row-major: ``[n, L, C]`` float32, without a gradient.

        Args:
            action: ``[B, T]`` int64 token ids.
            attention: ``[B, T]`` bool, real tokens.
            needed: ``[B, T]`` bool.
            layers: numbers from 0, in rising order. The output of the last one is taken before the norm that follows it.

        Raises:
            RheostatError: as :meth:`hidden_states`, no layer, or one that does not exist.
        """
        missing = [layer for layer in layers if not 0 <= layer < self.layers]
        if missing or not layers:
            named = f"no layer {', '.join(map(str, missing))}" if missing else "latents of no layer"
            raise RheostatError(f"This {self.causal.config.model_type} has {named}: its {self.layers} layers are 0 to {self.layers - 1}.")
        rows = len(action) if not bool(needed.any()) else max(1, SCORED_AT_ONCE // action.shape[1])
        parts = list(zip(action.split(rows), attention.split(rows), needed.split(rows), strict=True))
        return torch.cat([self._latents(*part, layers) for part in parts if len(parts) == 1 or bool(part[2].any())])

    def _latents(self, action: Tensor, attention: Tensor, needed: Tensor, layers: Sequence[int]) -> Tensor:
        packing = pack(action, attention, needed, share=self.share)
        if self.decoder is not None:
            outputs = islice(self.decoder.outputs(*self._packed(packing)), layers[-1] + 1)
            found = [output[packing.needed] for index, output in enumerate(outputs) if index in layers]
            return torch.stack(found, 1).float()
        kept: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            return lambda module, given, output: kept.update({layer: output[0] if isinstance(output, tuple) else output})

        modules = self._layer_modules()
        hooks = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
        try:
            _, needed = self._own_pass(action, attention, needed)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack([kept[layer][needed] for layer in layers], 1).float()

    def _layer_modules(self) -> nn.ModuleList:
        """The model's own layers, of an architecture that is not computed here.

        Raises:
            RheostatError: they are not one list.
        """
        lists = [each for each in self.causal.base_model.modules() if isinstance(each, nn.ModuleList) and len(each) == self.layers]
        if not lists:
            raise RheostatError(f"The layers of this {self.causal.config.model_type} are no list of {self.layers}: no latents can be read.")
        return lists[0]

    def _packed(self, packing: Packing) -> tuple[Tensor, tuple[Tensor, Tensor], decoders.Attend]:
        """What the packed forward pass computes on."""
        assert self.decoder is not None
        attend = packing.attention(self.decoder.query_heads, self.decoder.key_heads)
        return packing.ids, self.decoder.angles(packing.positions), attend

    def _own_pass(self, action: Tensor, attention: Tensor, needed: Tensor) -> tuple[Any, Tensor]:
        """The model's own forward pass over the columns that hold tokens, and the needed positions among them."""
        columns = attention.any(0).nonzero()[:, 0]
        window = slice(int(columns[0]), int(columns[-1]) + 1)
        real = attention[:, window].long()
        found = self.causal.base_model(
            input_ids=torch.where(real.bool(), action[:, window], self.pad_id),
            attention_mask=real,
            position_ids=(real.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        )
        return found, needed[:, window]

    @contextmanager
    def without_adapters(self) -> Iterator[None]:
        """The policy is the base model inside the context."""
        with self.model.disable_adapter() if self.adapted else nullcontext():
            yield

    def reference(self, *, whole: bool = False) -> Reference:
        """This policy as it is now, frozen. With adapters only those are copied, or with ``whole`` everything."""
        return Reference(self, whole=whole)

    def _find_decoder(self) -> decoders.Decoder | None:
        """The packed forward pass, where the architecture has one and it reproduces the model's logits; checks the head on the way."""
        ids = torch.arange(6, device=self.device).remainder(self.vocabulary).expand(2, 6)
        every = torch.ones_like(ids, dtype=torch.bool)
        every[1, :2] = False
        with torch.no_grad():
            expected = self.model(input_ids=ids[:1], use_cache=False).logits[0].float()
            tolerance = (1e-3 if self.dtype in (torch.float32, torch.float64) else 0.1) * (1.0 + float(expected.abs().max()))
            self.decoder = decoders.Decoder(self.causal.base_model) if decoders.supports(self.causal) else None
            if self.decoder is not None:
                got = self.rule().apply(self.raw_logits(self.hidden_states(ids, every, every)[:6]))
                if bool((got - expected).abs().max() <= tolerance):
                    return self.decoder
                kind = self.causal.config.model_type
                warnings.warn(f"The packed forward pass does not reproduce this {kind}: using the model's own.", stacklevel=3)
                self.decoder = None
            got = self.rule().apply(self.raw_logits(self.hidden_states(ids, every, every)[:6]))
            if not bool((got - expected).abs().max() <= tolerance):
                raise RheostatError(
                    f"The logits of this {self.causal.config.model_type} are not its output layer on its last hidden states, so they "
                    "cannot be computed in chunks: this architecture is not supported."
                )
        return None


def predicting(mask: Tensor) -> Tensor:
    """The positions ``[B, T]`` whose hidden states predict the masked tokens.

    Raises:
        RheostatError: a masked token without a predecessor.
    """
    if mask[:, 0].any():
        raise RheostatError("A masked token stands first in its row, where nothing predicts it: every row needs a prompt.")
    return torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)


class Reference:
    """A frozen policy, to which the distance is measured.

    With adapters the base model is shared. Adapters that do nothing yet are switched off; those that were trained before the run began are
    part of the policy it begins with, so their weights are kept and put in place while the reference scores. Without adapters (or
    ``whole``) it is a copy. What is kept belongs in the run's state.
    """

    def __init__(self, policy: LanguagePolicy, *, whole: bool = False) -> None:
        self._copy = None if policy.adapted and not whole else copy.deepcopy(policy).requires_grad_(False)
        self._policy = policy
        self._adapters: dict[str, Tensor] = {}
        if self._copy is None and not _adds_nothing(policy.model):
            self._adapters = {name: p.detach().clone() for name, p in policy.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def score(self, action: Tensor, attention: Tensor, mask: Tensor, **options: Any) -> TokenScores:
        """As :meth:`LanguagePolicy.score`, of rows ``[B, T]``, without a gradient."""
        with self.acting() as policy:
            return policy.score(action, attention, mask, **options)

    @contextmanager
    def acting(self) -> Iterator[LanguagePolicy]:
        """A policy with these weights that can sample, for as long as the context lasts."""
        if self._copy is not None:
            yield self._copy
        else:
            with self._in_place() if self._adapters else self._policy.without_adapters():
                yield self._policy

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Exchange the present adapters for the stored ones; values are exchanged in memory, so references to the weights stay valid."""
        parameters = dict(self._policy.model.named_parameters())
        present = {name: parameters[name].data for name in self._adapters}
        try:
            for name, kept in self._adapters.items():
                parameters[name].data = kept
            yield
        finally:
            for name, data in present.items():
                parameters[name].data = data

    def state_dict(self) -> dict[str, Any]:
        """Weights of the copy, or the adapters that were kept; empty where the base model alone is the reference."""
        return dict(self._adapters) if self._copy is None else dict(self._copy.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load saved weights."""
        if self._copy is not None:
            self._copy.load_state_dict(state)
        else:  # also where the run began with adapters that are not in the model's folder
            self._adapters = {name: kept.to(self._policy.device, copy=True) for name, kept in state.items()}


def values_of_tokens(policy: LanguagePolicy, head: ValueHead, action: Tensor, attention: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """A head's values of the states before and after each masked token, ``[B, T]`` each and 0 elsewhere.

    Args:
        policy: its hidden states are read.
        head: maps them to values.
        action, attention, mask: as in :meth:`LanguagePolicy.score`.

    Raises:
        RheostatError: as there.
    """
    needed = mask | torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return _around(head(policy.hidden_states(action, attention, needed)), needed, mask)


def _around(values: Tensor, needed: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``[n]`` of the needed positions, as those before and after each masked token ``[B, T]``."""
    after = _spread(values, needed)
    earlier = torch.cat([torch.zeros_like(after[:, :1]), after[:, :-1]], 1)
    return torch.where(mask, earlier, 0.0), torch.where(mask, after, 0.0)


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """``values`` ``[n, ...]`` at the positions of ``mask`` ``[B, T]``, 0 elsewhere."""
    there = mask.view(*mask.shape, *[1] * (values.dim() - 1))
    return torch.zeros((*mask.shape, *values.shape[1:]), dtype=values.dtype, device=values.device).masked_scatter(there, values)


def _join(parts: list[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None


def _split(values: Tensor | None, rows: int, count: int) -> Sequence[Tensor | None]:
    return [None] * -(-count // rows) if values is None else values.split(rows)


def _nothing(mask: Tensor, entropy: bool, value: bool, head: Tensor | None, vocabulary: int) -> TokenScores:
    zeros = torch.zeros(mask.shape, device=mask.device)
    asked = None if head is None else zeros.new_zeros((*mask.shape, min(head.shape[-1] + 1, vocabulary)))
    return TokenScores(zeros, zeros if entropy else None, zeros if value else None, zeros if value else None, asked)


def _adds_nothing(model: nn.Module) -> bool:
    """Whether adapters leave the base model as it is: LoRA adds the product of two matrices, of which new ones have the second at 0."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained or not all("lora_" in name for name in trained):
        return False
    second = [parameter for name, parameter in trained.items() if "lora_B" in name or "lora_embedding_B" in name]
    return bool(second) and not any(bool(parameter.any()) for parameter in second)


def _with_adapters(model: nn.Module, adapters: Any) -> nn.Module:
    if hasattr(model, "disable_adapter"):
        present = getattr(model.active_peft_config, "r", None)
        if present != getattr(adapters, "r", None):
            raise RheostatError(f"The model carries adapters of rank {present} already, which are trained on: leave out the new ones.")
        return model
    try:
        from peft import get_peft_model
    except ImportError as error:
        raise MissingExtra("peft", "peft", "Training adapters") from error
    return get_peft_model(model, adapters)
