"""Neural sampling error: how far a finite batch's action frequencies are from the policy that should have produced them.

    SE(D, theta) = 1/|D| sum_(s,a) [log pi_D(a|s) - log pi_theta(a|s)],      pi_D = the maximum-likelihood policy on D

(Zhong et al. 2022, arXiv 2111.14552; Corrado & Hanna 2023, arXiv 2311.08290.) The exact tabular form is ``objectives.sampling_error``.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.policies.control.actor_critic import ActorCritic
from rheostat.policies.control.distributions import Distribution, Gaussian
from rheostat.policies.parameters import ParameterVector

LOG_STD_RANGE = (-3.0, 1.0)


def neural_sampling_error(
    policy: ActorCritic,
    observation: Tensor,
    action: Tensor,
    *,
    generator: torch.Generator,
    epochs: int = 250,
    minibatches: int = 2,
    learning_rate: float = 1e-3,
    max_grad_norm: float = 1.0,
) -> float:
    """Fit a copy of the policy's head (and log standard deviation) to the data by maximum likelihood, features frozen, and compare.

    The defaults are those of the authors' first code release (Adam 1e-3, 250 epochs, 512 |D| / n rows per minibatch, which is two
    minibatches at n = 1024). Their code freezes the hidden weights but not the hidden biases, and at its last commit weights rows by the
    absolute normalised advantage; here the features are wholly frozen and rows are not weighted, as the paper says.

    Args:
        policy: the target policy; it is not changed.
        observation: ``[n, ...]`` normalised observations.
        action: ``[n, ...]`` the actions taken in them.
        generator: shuffles the rows; use a stream of its own.

    Returns:
        The sampling error in nats per step.

    Raises:
        RheostatError: no data.
    """
    count = len(action)
    if count == 0:
        raise RheostatError("Sampling error needs at least one state-action pair, and was given none.")
    with torch.no_grad():
        features = policy.features(observation)
        target = _clamped(policy.head(features)).log_prob(action)
    empirical = copy.deepcopy(policy)
    fitted = torch.nn.ModuleList([empirical.actor_head])
    if empirical.kind == "gaussian":
        fitted.register_parameter("log_std", empirical.log_std)
    parameters = ParameterVector(fitted)
    optimizer = torch.optim.Adam([parameters.vector], lr=learning_rate, fused=True)
    size = -(-count // minibatches)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        for rows, acts in zip(features[order].split(size), action[order].split(size), strict=True):
            loss = -_clamped(empirical.head(rows)).log_prob(acts).mean()
            parameters.gradient.zero_()
            loss.backward()
            parameters.clip_gradient(max_grad_norm)
            optimizer.step()
    with torch.no_grad():
        return (_clamped(empirical.head(features)).log_prob(action) - target).mean().item()


def _clamped(distribution: Distribution) -> Distribution:
    """A Gaussian with its log standard deviation limited, so that a degenerate fit cannot run away."""
    if isinstance(distribution, Gaussian):
        return replace(distribution, log_std=distribution.log_std.clamp(*LOG_STD_RANGE))
    return distribution
