"""Controllers over the layers of a network: recurrent policies whose observation is the whole chain of layers (section 3.2 of N2N).

Both read a layer as five numbers, its type, kernel, stride, size and padding. As they are (sizes up to 512) they would saturate an LSTM,
so they are scaled first: ``type / 10, kernel / 7, stride / 4, log2(1 + size) / 9, padding / 3``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

NUMBERS = 5
SIZE = 3
HIDDEN, LAYERS = 30, 2


@dataclass
class DecisionScores:
    """Of the decisions that were made, each ``[B, T]`` and 0 outside the mask."""

    logp: Tensor
    entropy: Tensor
    """Of the distribution a decision was drawn from, in nats."""


def scaled(layers: Tensor) -> Tensor:
    """Numbers of layers ``[..., 5]`` as a controller reads them."""
    found = layers / layers.new_tensor([10.0, 7.0, 4.0, 1.0, 3.0])
    found[..., SIZE] = torch.log2(1 + layers[..., SIZE]) / 9
    return found


def scores_of(logits: Tensor, action: Tensor, mask: Tensor) -> DecisionScores:
    """Log-probabilities of actions int64 ``[B, T]`` under logits ``[B, T, A]``, and entropies."""
    logp = functional.log_softmax(logits, -1)
    chosen = logp.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    return DecisionScores(torch.where(mask, chosen, 0.0), torch.where(mask, entropy, 0.0))


def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One action of every distribution, int64 ``[...]`` of logits ``[..., A]``."""
    flat = logits.softmax(-1).reshape(-1, logits.shape[-1])
    return torch.multinomial(flat, 1, generator=generator).view(logits.shape[:-1])


class RemovalController(nn.Module):
    """Which layers stay: a bidirectional LSTM over the chain, and one independent choice of two per layer.

    Args:
        hidden: units of a direction.
    """

    actions = 2
    kept = 1
    """Action of a layer that must stay."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.memory = nn.LSTM(NUMBERS, hidden, LAYERS, batch_first=True, bidirectional=True)
        self.choice = nn.Linear(2 * hidden, self.actions)

    def logits(self, layers: Tensor) -> Tensor:
        """``[L, 2]`` of a chain float32 ``[L, 5]``."""
        found: Tensor = self.choice(self.memory(scaled(layers).unsqueeze(0))[0])[0]
        return found

    @torch.no_grad()
    def draw(self, layers: Tensor, mask: Tensor, rows: int, generator: torch.Generator) -> Tensor:
        """Actions int64 ``[rows, L]``; where the mask bool ``[L]`` is False, the layer stays.

        Args:
            layers: float32 ``[L, 5]``.
            mask: bool ``[L]``.
            rows: how many.
            generator: of chance.
        """
        found = drawn(self.logits(layers).expand(rows, -1, -1), generator)
        return torch.where(mask, found, self.kept)

    def score(self, layers: Tensor, action: Tensor, mask: Tensor) -> DecisionScores:
        """Of actions int64 ``[B, L]`` at a mask bool ``[B, L]``, for one chain float32 ``[L, 5]``."""
        return scores_of(self.logits(layers).expand(len(action), -1, -1), action, mask)


class ShrinkageController(nn.Module):
    """What is left of every number of every layer: two stacked LSTM cells that decide one number after the other.

    The cells run once per number, from a state of zeros on; what they read is the present layer, with the numbers decided so far as they
    will be (but unrounded).

    Args:
        lookup: what an action leaves.
        hidden: units of a cell.
    """

    def __init__(self, lookup: tuple[float, ...], hidden: int = HIDDEN) -> None:
        super().__init__()
        self.lookup = lookup
        self.actions, self.kept = len(lookup), len(lookup) - 1
        self.memory = nn.LSTM(NUMBERS, hidden, LAYERS, batch_first=True)
        self.choice = nn.Linear(hidden, self.actions)

    @torch.no_grad()
    def draw(self, layers: Tensor, mask: Tensor, rows: int, generator: torch.Generator) -> Tensor:
        """Actions int64 ``[rows, 5 L]``; where the mask bool ``[5 L]`` is False, the number stays.

        Args:
            layers: float32 ``[L, 5]``.
            mask: bool ``[5 L]``.
            rows: how many.
            generator: of chance.
        """
        found = torch.full((rows, NUMBERS * len(layers)), self.kept)
        lookup, state = layers.new_tensor(self.lookup), None
        for index, layer in enumerate(layers):
            now = layer.repeat(rows, 1)
            for number in range(NUMBERS):
                out, state = self.memory(scaled(now).unsqueeze(1), state)
                place = NUMBERS * index + number
                if bool(mask[place]):
                    found[:, place] = drawn(self.choice(out[:, 0]), generator)
                    now[:, number] *= lookup[found[:, place]]
        return found

    def read(self, layers: Tensor, action: Tensor) -> Tensor:
        """What the cells read before every decision, ``[B, 5 L, 5]``, of actions int64 ``[B, 5 L]``."""
        rows, length = len(action), len(layers)
        left = layers.new_tensor(self.lookup)[action].view(rows, length, NUMBERS)
        before = torch.ones(NUMBERS, NUMBERS, dtype=torch.bool).tril(-1)  # [decision, number]: decided already
        scale = torch.where(before, left.unsqueeze(2), 1.0)
        return (layers.unsqueeze(1) * scale).view(rows, NUMBERS * length, NUMBERS)

    def logits(self, layers: Tensor, action: Tensor) -> Tensor:
        """``[B, 5 L, 11]`` of every decision, given those before it."""
        found: Tensor = self.choice(self.memory(scaled(self.read(layers, action)))[0])
        return found

    def score(self, layers: Tensor, action: Tensor, mask: Tensor) -> DecisionScores:
        """Of actions int64 ``[B, 5 L]`` at a mask bool ``[B, 5 L]``, for one chain float32 ``[L, 5]``."""
        return scores_of(self.logits(layers, action), action, mask)
