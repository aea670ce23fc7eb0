"""Log-probabilities and entropies of chosen tokens, in chunks from hidden states.

A batch of 8 x 1024 tokens over a vocabulary of 150 000 takes 5 GB for one float32 copy of its logits, and log-softmax with its gradient
keeps three. Here a chunk of tokens is projected, reduced to one log-probability and one entropy per token, and forgotten; the backward pass
projects it again. No tensor larger than ``CHUNK_ELEMENTS`` entries is ever made, whatever the number of tokens, and only the
requested tokens are projected at all.

With ``z`` the tempered logits, ``p = softmax(z)`` and ``H`` its entropy, the gradients are (one line of calculus each)
``d logp_a / d z_j = [j = a] - p_j`` and ``d H / d z_j = -p_j (log p_j + H)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rheostat.errors import RheostatError
from rheostat.policies.language.matmul import linear

CHUNK_ELEMENTS = 2**24  # entries of one chunk of logits: 64 MB in float32
HEAD_CHUNK = 512  # tokens whose logits are kept for their backward pass at once
LOWEST = torch.finfo(torch.float32).min  # a logit whose probability is exactly 0, and which stays finite


@dataclass(frozen=True)
class LogitRule:
    """From the output of a model's last layer to the logits of the distribution that is sampled, in this order.

    The sampler and the learner share this rule, so their log-probabilities mean the same thing.
    """

    scale: float = 1.0  # of the model (Cohere, Granite)
    softcap: float | None = None  # of the model (Gemma): softcap * tanh(z / softcap)
    temperature: float = 1.0
    top_k: int = 0  # keep the k most likely tokens (and ties with the last of them); 0 keeps all
    top_p: float = 1.0  # keep the smallest set of likely tokens whose probability reaches p

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise RheostatError(f"Log-probabilities need a temperature above 0, not {self.temperature}: at 0 the sampler is deterministic.")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise RheostatError(f"top_k must be 0 (off) or more and top_p in (0, 1]; they are {self.top_k} and {self.top_p}.")

    def apply(self, z: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Logits ``[n, V]`` float32 of the sampled distribution. ``chosen`` ``[n]`` are kept by all filters."""
        if self.scale != 1.0:
            z = z * self.scale
        if self.softcap is not None:
            z = torch.tanh(z / self.softcap) * self.softcap
        if self.temperature != 1.0:
            z = z / self.temperature
        return filter_logits(z, self.top_k, self.top_p, chosen)

    def derivative(self, z: Tensor) -> Tensor | float:
        """d result / d input, from the result (filtered entries carry no gradient: their probability is 0)."""
        gradient = self.scale / self.temperature
        if self.softcap is None:
            return gradient
        return (1.0 - (z * (self.temperature / self.softcap)).clamp(-1, 1).square()) * gradient


def filter_logits(z: Tensor, top_k: int = 0, top_p: float = 1.0, chosen: Tensor | None = None) -> Tensor:
    """Set every logit outside the top-k and then outside the top-p set to ``LOWEST`` (probability exactly 0).

    Args:
        z: ``[n, V]`` float32 tempered logits.
        top_k, top_p: as in :class:`LogitRule`; the most likely token always stays.
        chosen: ``[n]`` int64 tokens that are always kept: the learner must be able to score what the sampler drew, although its
            own set may differ by a tie or a rounding.
    """
    drop, kept = None, z
    if 0 < top_k < z.shape[-1]:
        drop = z < z.topk(top_k, -1).values[:, -1:]
        kept = z.masked_fill(drop, LOWEST)
    if top_p < 1.0:
        ordered, order = kept.sort(-1, descending=True)
        p = torch.softmax(ordered, -1)
        beyond = p.cumsum(-1) - p >= top_p
        beyond[:, 0] = False
        tail = torch.zeros_like(beyond).scatter_(-1, order, beyond)
        drop = tail if drop is None else drop | tail
    if drop is None:
        return z
    if chosen is not None:
        drop = drop.scatter(-1, chosen[:, None], False)
    return z.masked_fill(drop, LOWEST)


def _reduce(z: Tensor, chosen: Tensor, entropy: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-normaliser, log-probability of the chosen token and entropy of each row of ``[n, V]``."""
    normaliser = z.logsumexp(-1)
    logp = z.gather(-1, chosen[:, None])[:, 0] - normaliser
    return normaliser, logp, normaliser - (torch.softmax(z, -1) * z).sum(-1) if entropy else None


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, chosen: Tensor, rule: LogitRule, entropy: bool, chunk: int
    ) -> tuple[Tensor, Tensor]:
        wide = weight.float()
        n = len(hidden)
        normaliser, logp, spread = (hidden.new_empty(n, dtype=torch.float32) for _ in range(3))
        for part in (slice(i, min(i + chunk, n)) for i in range(0, n, chunk)):
            z = rule.apply(linear(hidden[part].float(), wide, None if bias is None else bias.float()), chosen[part])
            normaliser[part], logp[part], h = _reduce(z, chosen[part], entropy)
            if h is not None:
                spread[part] = h
        ctx.save_for_backward(hidden, weight, bias, chosen, normaliser, spread if entropy else None)
        ctx.rule, ctx.chunk = rule, chunk
        ctx.set_materialize_grads(False)  # the gradient of an entropy that no loss uses costs nothing
        return logp, spread

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, chosen, normaliser, spread = ctx.saved_tensors
        wide = weight.float()
        grad_logp = torch.zeros_like(normaliser) if grads[0] is None else grads[0]
        grad_entropy = grads[1]
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(wide) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        n, chunk = len(hidden), ctx.chunk
        with torch.no_grad():
            for part in (slice(i, min(i + chunk, n)) for i in range(0, n, chunk)):
                x, picked = hidden[part].float(), chosen[part, None]
                z = ctx.rule.apply(linear(x, wide, None if bias is None else bias.float()), chosen[part])
                gradient = ctx.rule.derivative(z)
                z = z.sub_(normaliser[part, None])  # log p
                grad_z = z.exp()
                if grad_entropy is None or spread is None:
                    grad_z.mul_(-grad_logp[part, None])
                else:
                    z.clamp_(min=-1e30).add_(spread[part, None]).mul_(grad_entropy[part, None]).add_(grad_logp[part, None])
                    grad_z.mul_(z).neg_()
                grad_z.scatter_add_(-1, picked, grad_logp[part, None]).mul_(gradient)
                if grad_hidden is not None:
                    grad_hidden[part] = linear(grad_z, wide.t())
                if grad_weight is not None:
                    grad_weight.addmm_(grad_z.t(), x)
                if grad_bias is not None:
                    grad_bias += grad_z.sum(0)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *(None,) * 4,
        )


def of_head(z: Tensor, head: Tensor) -> Tensor:
    """Log-probabilities of some tokens, and of any other one.

    Args:
        z: ``[n, V]`` float logits of the sampled distribution.
        head: ``[n, K]`` int64, different tokens of each row.

    Returns:
        ``[n, K + 1]`` in nats; the last column is ``log(1 - sum of the others)``, computed without that subtraction. ``[n, V]`` where the
        head is the whole vocabulary, which leaves no other token.
    """
    normaliser = z.logsumexp(-1, keepdim=True)
    known = z.gather(-1, head) - normaliser
    if head.shape[-1] >= z.shape[-1]:
        return known
    rest = z.scatter(-1, head, LOWEST).logsumexp(-1, keepdim=True) - normaliser
    return torch.cat([known, rest], -1)


def head_logprobs(hidden: Tensor, head: Tensor, layer: nn.Module, rule: LogitRule) -> Tensor:
    """:func:`of_head` from hidden states, in chunks that the backward pass computes again; differentiable.

    Args:
        hidden: ``[n, C]`` final hidden states, each of the position before its token.
        head: ``[n, K]`` int64.
        layer: the model's output layer.
        rule: from its output to the distribution that is sampled, without filters.
    """

    weight, bias = (layer.weight, layer.bias) if type(layer) is nn.Linear else (None, None)

    def score(x: Tensor, tokens: Tensor) -> Tensor:
        z = layer(x).float() if weight is None else linear(x.float(), weight.float(), None if bias is None else bias.float())
        return of_head(rule.apply(z), tokens)

    parts = zip(hidden.split(HEAD_CHUNK), head.split(HEAD_CHUNK), strict=True)
    return torch.cat([checkpoint(score, x, tokens, use_reentrant=False) for x, tokens in parts])


def token_logprobs(
    hidden: Tensor, chosen: Tensor, head: nn.Module, rule: LogitRule | None = None, *, entropy: bool = False, chunk: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each chosen token, and the entropy of the distribution it was chosen from.

    The vocabulary projection, the log-softmax and everything after it are float32 whatever the model's dtype. Both results are
    differentiable with respect to ``hidden`` and the head's parameters.

    Args:
        hidden: ``[n, C]`` final hidden states, each of the position *before* its token.
        chosen: ``[n]`` int64 token ids.
        head: the model's output layer; anything but a plain ``nn.Linear`` (an adapter, say) is called chunk by chunk under gradient
            checkpointing.
        rule: temperature, filters and the model's own scaling; plain softmax when None.
        entropy: compute the entropy too (it needs the probabilities of all tokens, hence some more time).
        chunk: tokens per chunk; by default as many as make ``CHUNK_ELEMENTS`` logits.

    Returns:
        ``logp`` ``[n]`` and ``entropy`` ``[n]`` (nats) or None, float32.
    """
    rule = rule or LogitRule()
    if type(head) is nn.Linear:
        chunk = chunk or max(1, CHUNK_ELEMENTS // len(head.weight))
        logp, spread = _TokenLogProbs.apply(hidden, head.weight, head.bias, chosen, rule, entropy, chunk)
        return logp, spread if entropy else None

    def score(x: Tensor, picked: Tensor) -> tuple[Tensor, Tensor | None]:
        return _reduce(rule.apply(head(x).float(), picked), picked, entropy)[1:]

    chunk = chunk or 128
    parts = [checkpoint(score, x, picked, use_reentrant=False) for x, picked in zip(hidden.split(chunk), chosen.split(chunk), strict=True)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]) if entropy else None
