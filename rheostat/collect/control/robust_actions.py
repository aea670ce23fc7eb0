"""Choosing the action that repairs the sampling error most, one step at a time."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from rheostat.policies.control.actor_critic import ControlPolicy
from rheostat.policies.control.distributions import Categorical, Distribution, Gaussian, MultiCategorical


class ScoreGradients:
    """Per-sample gradients of ``log pi_theta(a|s)`` with respect to the parameters that influence it."""

    def __init__(self, policy: ControlPolicy) -> None:
        module = cast(nn.Module, policy)
        parameters = {name: value.detach() for name, value in module.named_parameters() if not name.startswith("critic")}
        constants = {name: value.detach() for name, value in module.named_parameters() if name.startswith("critic")}

        def log_prob(values: dict[str, Tensor], observation: Tensor, action: Tensor) -> Tensor:
            distribution = functional_call(
                _Distribution(policy), {f"policy.{k}": v for k, v in (constants | values).items()}, observation[None]
            )
            return distribution.log_prob(action[None])[0]

        self.parameters = parameters
        self._each = vmap(grad(log_prob), in_dims=(None, 0, 0))

    def each(self, observation: Tensor, action: Tensor) -> Tensor:
        """``[N, P]``: one gradient per row."""
        return torch.cat([gradient.flatten(1) for gradient in self._each(self.parameters, observation, action).values()], 1)

    def total(self, observation: Tensor, action: Tensor, chunk: int = 512) -> Tensor:
        """``[P]``: the sum over rows, without holding all of them."""
        size = sum(value.numel() for value in self.parameters.values())
        total = torch.zeros(size)
        for rows, acts in zip(observation.split(chunk), action.split(chunk), strict=True):
            total += self.each(rows, acts).sum(0)
        return total


class _Distribution(nn.Module):
    """Lets ``functional_call`` reach ``policy.distribution``."""

    def __init__(self, policy: ControlPolicy) -> None:
        super().__init__()
        self.policy = cast(nn.Module, policy)

    def forward(self, observation: Tensor) -> Distribution:
        return cast(ControlPolicy, self.policy).distribution(observation)


class RepairingSampler:
    """Samples actions like a distribution, but with probability ``epsilon`` takes the candidate that makes the average score smallest.

    At the true frequencies of an on-policy sample the average of ``grad log pi`` over the data is zero in expectation; the candidate whose
    addition brings its mean absolute entry closest to zero repairs most. Environments of one step choose independently of each other.

    Args:
        scores: gradients of the target policy.
        running: ``[P]`` sum of the gradients of all steps already kept; updated in place with every draw (dividing it by the number of
            rows, as the paper does, does not change which candidate is best).
        epsilon: probability of choosing instead of sampling.
        quantiles: number of Gaussian candidates per state (the authors use 9).
    """

    def __init__(self, scores: ScoreGradients, running: Tensor, *, epsilon: float, quantiles: int) -> None:
        self.scores, self.running = scores, running
        self.epsilon, self.quantiles = epsilon, quantiles

    def draw(self, observation: Tensor, distribution: Distribution, generator: torch.Generator, real: Tensor) -> tuple[Tensor, Tensor]:
        """Actions ``[E, ...]`` and their log-probabilities ``[E]`` (NaN for continuous actions: the mixture has no density).

        Rows where ``real`` is False only begin an episode: their action is ignored and does not count.
        """
        candidates = self.candidates(distribution, generator)  # [K, E, ...]
        kinds, rows = candidates.shape[:2]
        gradients = self.scores.each(observation.repeat(kinds, *[1] * (observation.dim() - 1)), candidates.flatten(0, 1))
        merit = (self.running + gradients).abs().mean(1).view(kinds, rows)
        best = merit.argmin(0)  # [E]
        chosen = candidates[best, torch.arange(rows)]
        sampled = distribution.sample(generator)
        choose = torch.rand(rows, generator=generator) < self.epsilon
        action = torch.where(choose.view(-1, *[1] * (sampled.dim() - 1)), chosen, sampled)
        self.running += self.scores.each(observation, action)[real].sum(0)
        if isinstance(distribution, Gaussian):
            return action, torch.full((rows,), float("nan"))
        same = (action == chosen).reshape(rows, -1).all(1)
        return action, ((1 - self.epsilon) * distribution.log_prob(action).exp() + self.epsilon * same).log()

    def candidates(self, distribution: Distribution, generator: torch.Generator) -> Tensor:
        """``[K, E, ...]`` actions to choose among: all discrete ones, or equally spaced Gaussian quantiles.

        With several continuous dimensions each dimension sees every quantile once, in an order of its own (reconstruction: the authors
        treat one dimension only). Several discrete choices are paired likewise.
        """
        if isinstance(distribution, Categorical):
            rows, actions = distribution.logits.shape
            return torch.arange(actions)[:, None].expand(actions, rows)
        if isinstance(distribution, MultiCategorical):
            rows, widest = len(distribution.logits), max(distribution.sizes)
            orders = [torch.arange(widest)[torch.randperm(widest, generator=generator)] % size for size in distribution.sizes]
            return torch.stack(orders, -1)[:, None].expand(widest, rows, len(orders))
        assert isinstance(distribution, Gaussian)
        levels = torch.special.ndtri(torch.arange(1, self.quantiles + 1, dtype=torch.float64) / (self.quantiles + 1)).float()
        dimensions = distribution.mean.shape[-1]
        orders = [torch.arange(self.quantiles)] + [torch.randperm(self.quantiles, generator=generator) for _ in range(dimensions - 1)]
        noise = torch.stack([levels[order] for order in orders], -1)[:, None]  # [K, 1, D]
        return distribution.mean + distribution.log_std.exp() * noise
