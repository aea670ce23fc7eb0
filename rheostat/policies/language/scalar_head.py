"""A reward model on tokens: a language model's body with a scalar head that predicts the outcome of the whole row after every token."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError
from rheostat.policies.flops import matrix_weights
from rheostat.policies.language.model import SCORED_AT_ONCE, LanguagePolicy, TokenScores, values_of_tokens
from rheostat.policies.language.value_head import ValueHead


def whole_copy(policy: LanguagePolicy) -> LanguagePolicy:
    """A copy of a policy's network that shares nothing with it, without the head of a critic.

    Raises:
        RheostatError: the policy carries adapters, whose base the two would share.
    """
    if policy.adapted:
        raise RheostatError("A reward model is a copy of the policy's whole network, so adapters cannot be trained beside it.")
    found = copy.deepcopy(policy)
    found.value_head = None
    return found


class TokenRewardModel(nn.Module):
    """A copy of a policy's network with a scalar head of its own, which starts at 0 everywhere.

    Args:
        policy: is copied as it is now; nothing is shared with it.

    Raises:
        RheostatError: the policy carries adapters, whose base the two would share.
    """

    def __init__(self, policy: LanguagePolicy) -> None:
        super().__init__()
        self.body = whole_copy(policy)
        if self.unasked is not self.body.causal.get_input_embeddings().weight:
            self.unasked.requires_grad_(False)
        self.head = ValueHead(policy.causal.config.get_text_config().hidden_size).to(policy.device)

    @property
    def unasked(self) -> Tensor:
        """The head over the vocabulary, which is not used (but it may be tied to the embedding)."""
        found: Tensor = self.body.causal.get_output_embeddings().weight
        return found

    @property
    def weights(self) -> int:
        """Weights that take part in matrix products: the body's without the head over the vocabulary, and the scalar head's."""
        return matrix_weights(self.body) - self.unasked.numel() + matrix_weights(self.head)

    def score(self, action: Tensor, attention: Tensor, mask: Tensor, **options: Any) -> TokenScores:
        """Predicted outcome of a row, before and after each masked token: ``value`` and ``next_value`` of :class:`TokenScores`.

        It has no distribution over tokens: log-probabilities and entropies are 0, and how tokens are sampled does not matter.

        Args:
            action: ``[B, T]`` int64 token ids.
            attention: ``[B, T]`` bool.
            mask: ``[B, T]`` bool, tokens to score.
            options: of the sampler, not read.
        """
        rows = len(action) if torch.is_grad_enabled() else max(1, SCORED_AT_ONCE // max(1, action.shape[1]))
        parts = [
            values_of_tokens(self.body, self.head, *part) if bool(part[2].any()) else (torch.zeros_like(part[2], dtype=torch.float32),) * 2
            for part in zip(action.split(rows), attention.split(rows), mask.split(rows), strict=True)
        ]
        before, after = (torch.cat(values) for values in zip(*parts, strict=True))
        nothing = torch.zeros_like(before)
        return TokenScores(nothing, nothing, before, after)
