"""The fast forms of :class:`ActorCritic`: for vectors on a CPU, perceptrons evaluated and differentiated by hand, straight from the
parameter vector; for images, convolutions computed once for actor and critic together.

A control network is so small that its price is overhead: one autograd node per operation, one gradient per parameter, and a ``tanh`` that
costs more than the matrix product before it. Here the whole forward pass is one autograd node, the whole backward pass another, and
``tanh`` is NumPy's, which is twelve times as fast as PyTorch's on a CPU with AVX-512. The numbers are those of the plain form up to
rounding; ``docs/speed-control.md`` has the measurements.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rheostat.policies.control.actor_critic import ActorCritic, ControlPolicy, Evaluation
from rheostat.policies.control.distributions import Distribution, Gaussian
from rheostat.policies.parameters import ParameterVector


class Linear(NamedTuple):
    """One layer as views into the parameter vector and its gradient."""

    weight: Tensor  # [O, I]
    weight_transposed: Tensor  # [I, O]
    bias: Tensor  # [O]
    weight_gradient: Tensor  # [O, I]
    bias_gradient: Tensor  # [O]


class Perceptron:
    """Linear layers with tanh or ReLU between them.

    Args:
        linears: the layers, first to last.
        parameters: the vector they are laid out in.
        tanh: the activation; False is ReLU.
    """

    def __init__(self, linears: list[nn.Linear], parameters: ParameterVector, *, tanh: bool) -> None:
        self.tanh = tanh
        self.layers = []
        vector, gradient = parameters.vector.detach(), parameters.gradient
        for linear in linears:
            weight, bias = (parameters.part(vector, parameter) for parameter in (linear.weight, linear.bias))
            weight_gradient, bias_gradient = (parameters.part(gradient, parameter) for parameter in (linear.weight, linear.bias))
            self.layers.append(Linear(weight, weight.t(), bias, weight_gradient, bias_gradient))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The input ``[N, I]``, the hidden activations, and last the output ``[N, O]``."""
        steps = [x]
        for layer in self.layers[:-1]:
            hidden = torch.addmm(layer.bias, steps[-1], layer.weight_transposed)
            if self.tanh:
                array = hidden.numpy()
                np.tanh(array, out=array)
            else:
                hidden.relu_()
            steps.append(hidden)
        steps.append(torch.addmm(self.layers[-1].bias, steps[-1], self.layers[-1].weight_transposed))
        return steps

    def backward(self, steps: list[Tensor], grad: Tensor) -> None:
        """Add the gradient of the parameters to the vector's, from ``forward``'s result and the output's gradient ``[N, O]``."""
        ones = grad.new_ones(len(grad))
        for index in range(len(self.layers) - 1, -1, -1):
            layer, transposed = self.layers[index], grad.t()
            layer.weight_gradient.addmm_(transposed, steps[index])
            layer.bias_gradient.addmv_(transposed, ones)
            if index:
                grad = grad.mm(layer.weight)
                if self.tanh:
                    torch.ops.aten.tanh_backward.grad_input(grad, steps[index], grad_input=grad)
                else:
                    grad.masked_fill_(steps[index] <= 0, 0.0)


class FastPerceptrons:
    """Stands in for ``policy`` wherever it is evaluated; make it with :func:`fast`. Everything it returns is a constant.

    Args:
        policy: separate perceptrons as actor and critic.
        parameters: the vector that holds the parameters of ``policy``.
    """

    def __init__(self, policy: ActorCritic, parameters: ParameterVector) -> None:
        self.policy = policy
        self.actor = _perceptron(policy.actor_body, policy.actor_head, parameters)
        self.critic = _perceptron(policy.critic_body, policy.critic_head, parameters)
        gaussian = policy.kind == "gaussian"
        self.log_std_gradient = parameters.part(parameters.gradient, policy.log_std) if gaussian else None

    @torch.no_grad()
    def distribution(self, observation: Tensor) -> Distribution:
        """The action distribution for normalised observations ``[N, ...]``."""
        return self.policy.distribution_of(self.actor.forward(observation.flatten(1))[-1])

    @torch.no_grad()
    def value(self, observation: Tensor) -> Tensor:
        """The critic's value ``[N]``."""
        return self.critic.forward(observation.flatten(1))[-1].squeeze(-1)

    @torch.no_grad()
    def evaluate(self, observation: Tensor, *, critic: bool = True) -> Evaluation:
        """Distribution and value, and the backward pass to the parameters."""
        observation = observation.flatten(1)
        return FastEvaluation(self, self.actor.forward(observation), self.critic.forward(observation) if critic else None)


class FastEvaluation(Evaluation):
    """An evaluation with a hand-written backward pass."""

    def __init__(self, network: FastPerceptrons, actor: list[Tensor], critic: list[Tensor] | None) -> None:
        self._network, self._actor, self._critic = network, actor, critic
        self.distribution = network.policy.distribution_of(actor[-1])
        self.value = None if critic is None else critic[-1].squeeze(-1)

    @torch.no_grad()
    def backward(self, distribution: Tensor, value: Tensor | None = None) -> None:
        """See :meth:`Evaluation.backward`."""
        network = self._network
        if isinstance(self.distribution, Gaussian):
            assert network.log_std_gradient is not None
            distribution, log_std = distribution.tensor_split(2, -1)
            network.log_std_gradient.add_(log_std.sum(0))
            if network.policy.tanh_mean:
                distribution = distribution * (1 - self.distribution.mean.square())
        network.actor.backward(self._actor, distribution)
        if value is not None:
            assert self._critic is not None
            network.critic.backward(self._critic, value.unsqueeze(-1))


class SharedTrunk:
    """Stands in for a ``policy`` whose actor and critic read the same convolutions."""

    def __init__(self, policy: ActorCritic) -> None:
        self.policy, self.distribution, self.value = policy, policy.distribution, policy.value

    def evaluate(self, observation: Tensor, *, critic: bool = True) -> Evaluation:
        """Distribution and value from one forward pass, and the backward pass to the parameters."""
        features = self.policy.trunk(observation)
        value = self.policy.critic_head(self.policy.critic_body(features)).squeeze(-1) if critic else None
        return Evaluation(self.policy.head(self.policy.actor_body(features)), value)


def fast(policy: ControlPolicy, parameters: ParameterVector) -> ControlPolicy:
    """The fast form of ``policy``, sharing its parameters; the policy itself where none exists (your own network, or a subclass).

    Args:
        policy: what to evaluate.
        parameters: the vector that holds its parameters.
    """
    if type(policy) is not ActorCritic:
        return policy
    if not isinstance(policy.trunk, nn.Flatten):
        return SharedTrunk(policy)
    return FastPerceptrons(policy, parameters) if parameters.vector.device.type == "cpu" else policy


def _perceptron(body: nn.Module, head: nn.Module, parameters: ParameterVector) -> Perceptron:
    modules = [*body.children(), head]
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    return Perceptron(linears, parameters, tanh=not any(isinstance(module, nn.ReLU) for module in modules))
