"""Reasoning steps as discrete states: the encoder from a step to its state, and the policy of transitions between states.

CTRLS, arXiv 2507.08182; the networks are reconstructions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, one_hot, softplus

from rheostat.policies.language.model import TokenScores

LEAST = 0.1
"""Of a concentration: below 1 the density of a Dirichlet has no bound where an entry of the action is 0."""


class StateModel(nn.Module):
    """The vectors of the states, which the generator reads, and the encoder ``Q(z | step)``.

    Args:
        vectors: ``[K, C]``, first values.
        inputs: numbers of a step's embedding.
        width: of the hidden layer.
    """

    ready: Tensor
    scale: Tensor

    def __init__(self, vectors: Tensor, inputs: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)
        self.encoder = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, len(vectors)))
        self.register_buffer("scale", torch.ones(()))  # root mean square of the embeddings that the states were found in
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))  # whether there are states yet

    @property
    def count(self) -> int:
        """K."""
        return len(self.vectors)

    def scaled(self, embedding: Tensor) -> Tensor:
        """Embeddings ``[..., k, d]`` as inputs of the networks, ``[..., k d]`` float32."""
        return embedding.flatten(-2).float() / self.scale

    def posterior(self, scaled: Tensor) -> Tensor:
        """Log-probabilities ``[..., K]`` of the states."""
        found: Tensor = self.encoder(scaled).log_softmax(-1)
        return found


class TransitionPolicy(nn.Module):
    """Concentrations of the next state's distribution, from a summary of the text, the present state and the present step.

    Args:
        summary: numbers of the summary, which are normalised.
        states: K.
        inputs: numbers of a step's embedding.
        width: of the hidden layer.
    """

    def __init__(self, summary: int, states: int, inputs: int, width: int) -> None:
        super().__init__()
        self.summary, self.states, self.width = summary, states, summary + states + inputs
        self.network = nn.Sequential(nn.Linear(self.width, width), nn.SiLU(), nn.Linear(width, states))

    def inputs(self, summary: Tensor, state: Tensor, step: Tensor) -> Tensor:
        """What it reads.

        Args:
            summary: ``[..., C]``, the language model's hidden state at the end of the text so far.
            state: ``[...]`` int64; -1 before the first step, where there is none.
            step: ``[..., k d]``, 0 before the first step.
        """
        there = (state >= 0)[..., None]
        return torch.cat([summary.float(), one_hot(state.clamp(min=0), self.states) * there, step.float()], -1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Concentrations ``[..., K]``, at least :data:`LEAST`."""
        summary = layer_norm(inputs[..., : self.summary], (self.summary,))
        return softplus(self.network(torch.cat([summary, inputs[..., self.summary :]], -1))) + LEAST

    def score(self, action: Tensor, attention: Tensor, mask: Tensor, **options: Any) -> TokenScores:
        """It has no distribution over tokens ``[B, T]``: log-probabilities and entropies are 0, and nothing is computed.

        Args:
            action, attention, mask: as of every model that is trained on rows.
            options: of the sampler, not read.
        """
        nothing = torch.zeros(mask.shape, device=mask.device)
        return TokenScores(nothing, nothing)


def mean_state(alpha: Tensor) -> Tensor:
    """Mean of the Dirichlet, ``[..., K]``: the distribution of the next state."""
    return alpha / alpha.sum(-1, keepdim=True)


def uncertainties(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Total concentration ``[...]`` (how sure the policy is of the distribution) and the entropy in nats of the mean state ``[...]``."""
    mean = mean_state(alpha)
    return alpha.sum(-1), -torch.xlogy(mean, mean).sum(-1)
