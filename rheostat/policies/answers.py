"""Policies that answer a prompt with a few tokens, small enough for exact studies: a table, a perceptron on contexts, a transformer.

All of them have one interface. A batch has S prompts and N answers of each, of L tokens from V (a bandit's action is an answer of one
token): ``logits`` ``[S, N, L, V]`` of every token given those before it, ``logp`` ``[S, N, L]``, and samples at temperature 1.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class AnswerPolicy(Protocol):
    """What the learner asks of a policy."""

    def logits(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """``[S, N, L, V]`` for prompts ``[S, ...]`` and answers int64 ``[S, N, L]``; carries the gradient."""
        ...

    def logp(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """``[S, N, L]`` of the tokens, in nats; carries the gradient."""
        ...

    def sample(self, prompt: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """``count`` answers of every prompt, int64 ``[S, count, L]``."""
        ...


class Answering(nn.Module):
    """What follows from the logits."""

    def logits(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """See :class:`AnswerPolicy`."""
        raise NotImplementedError

    def logp(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """See :class:`AnswerPolicy`."""
        return self.logits(prompt, answer).log_softmax(-1).gather(-1, answer.unsqueeze(-1)).squeeze(-1)


class OneToken(Answering):
    """Answers of one token, whose distribution depends on the prompt alone."""

    def scores(self, prompt: Tensor) -> Tensor:
        """Logits ``[S, V]``."""
        raise NotImplementedError

    def logits(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """See :class:`AnswerPolicy`."""
        found = self.scores(prompt)[:, None, None]
        return found.expand(-1, answer.shape[1], answer.shape[2], -1)

    @torch.no_grad()
    def sample(self, prompt: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """See :class:`AnswerPolicy`."""
        return torch.multinomial(self.scores(prompt).softmax(-1), count, replacement=True, generator=generator).unsqueeze(-1)


class TablePolicy(OneToken):
    """The same distribution whatever the prompt; nothing is learned.

    Args:
        probability: ``[V]``.
    """

    def __init__(self, probability: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", probability.log())

    def scores(self, prompt: Tensor) -> Tensor:
        """See :class:`OneToken`."""
        table: Tensor = self.table  # type: ignore[assignment]
        return table.expand(len(prompt), -1)


class ContextMLP(OneToken):
    """The perceptron of the didactic bandit: a bottleneck, LayerNorm, and three layers above it; Xavier-uniform with gain 0.01, biases 0.

    Args:
        contexts: numbers of a context.
        actions: V.
        generator: draws the weights.
        bottleneck, hidden: units.
    """

    def __init__(self, contexts: int, actions: int, generator: torch.Generator, *, bottleneck: int = 50, hidden: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(contexts, bottleneck),
            nn.LayerNorm(bottleneck),
            nn.ReLU(),
            nn.Linear(bottleneck, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, actions),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, gain=0.01, generator=generator)
                nn.init.zeros_(layer.bias)

    def scores(self, prompt: Tensor) -> Tensor:
        """See :class:`OneToken`."""
        found: Tensor = self.layers(prompt)
        return found


class Block(nn.Module):
    """Attention and a perceptron, each on normalised inputs and added to them.

    Args:
        width, heads: of the network.
        causal: whether a position sees only those before it.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, past: list[Tensor] | None = None) -> Tensor:
        """``[B, T, width]`` to the same; ``past`` holds keys and values ``[B, heads, T', width / heads]`` of earlier positions, and gets
        those of the new one: then T is 1."""
        query, key, value = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in self.mixed(self.norms[0](x)).chunk(3, -1))
        alone = past is None or not past
        if past is not None:
            if past:
                key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
            past[:] = [key, value]
        seen = scaled_dot_product_attention(query, key, value, is_causal=self.causal and alone)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        found: Tensor = x + self.outer(gelu(self.inner(self.norms[1](x))))
        return found


class TokenTransformer(nn.Module):
    """A causal or bidirectional transformer over whole rows of tokens: learned positions, LayerNorm before each part, no dropout.

    Args:
        vocabulary: V.
        longest: tokens of a row.
        outputs: numbers per position.
        generator: draws the weights (normal, deviation 0.02; biases 0).
        width, layers, heads: of the network.
        causal: whether a position sees only those before it.
    """

    def __init__(
        self,
        vocabulary: int,
        longest: int,
        outputs: int,
        generator: torch.Generator,
        *,
        width: int = 48,
        layers: int = 3,
        heads: int = 3,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        self.blocks = nn.ModuleList([Block(width, heads, causal) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02, generator=generator)
            elif "norm" not in name:
                nn.init.zeros_(parameter)

    def forward(self, row: Tensor, past: list[list[Tensor]] | None = None) -> Tensor:
        """``[B, T, outputs]`` of rows int64 ``[B, T]``; with ``past`` (an empty list per block before the first call) of those that go on
        after the rows of earlier calls, one token each time."""
        begin = past[0][0].shape[2] if past is not None and past[0] else 0
        x = self.tokens(row) + self.places.weight[begin : begin + row.shape[1]]
        for index, block in enumerate(self.blocks):
            x = block(x, None if past is None else past[index])
        found: Tensor = self.head(self.norm(x))
        return found


class TransformerPolicy(Answering):
    """Answers of L tokens to prompts of tokens, int64 ``[S, P]``.

    Args:
        vocabulary: V, shared by prompts and answers.
        prompt: P.
        length: L.
        generator: draws the weights.
        width, layers, heads: of the network.
    """

    def __init__(
        self, vocabulary: int, prompt: int, length: int, generator: torch.Generator, *, width: int = 48, layers: int = 3, heads: int = 3
    ) -> None:
        super().__init__()
        self.length = length
        self.network = TokenTransformer(vocabulary, prompt + length, vocabulary, generator, width=width, layers=layers, heads=heads)

    def logits(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """See :class:`AnswerPolicy`: token t has the logits of the position before it."""
        prompts, count, length = answer.shape
        rows = torch.cat([prompt.repeat_interleave(count, 0), answer.flatten(0, 1)], 1)
        found: Tensor = self.network(rows[:, :-1])[:, -length:]
        return found.unflatten(0, (prompts, count))

    @torch.no_grad()
    def sample(self, prompt: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """See :class:`AnswerPolicy`; keys and values of earlier tokens are kept."""
        now = prompt.repeat_interleave(count, 0)
        past: list[list[Tensor]] = [[] for _ in self.network.blocks]
        found = []
        for _ in range(self.length):
            now = torch.multinomial(self.network(now, past)[:, -1].softmax(-1), 1, generator=generator)
            found.append(now)
        return torch.cat(found, 1).unflatten(0, (len(prompt), count))
