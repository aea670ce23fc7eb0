"""The plain side: networks as products of matrices, one observation at a time; densities written out; gradients by autograd, in double
precision; Adam and RMSprop by their formulas. Nothing of the library's losses, credit or learners is in here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.plain.control_path import Move, Turn, Weights

Parameters = dict[str, Tensor]


def double(x: Any) -> Tensor:
    """As a float64 constant."""
    return torch.as_tensor(x).detach().double()


def number(x: Tensor) -> float:
    """Without a gradient."""
    return float(x.detach())


def mean(values: Sequence[Tensor]) -> Tensor:
    """Of numbers."""
    return torch.stack(list(values)).sum() / len(values)


def deviation(values: Sequence[float]) -> float:
    """The unbiased standard deviation of numbers."""
    middle = sum(values) / len(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))


# --- networks -----------------------------------------------------------------------------------------------------------------------------


def relu(x: Tensor) -> Tensor:
    """The larger of it and 0."""
    return torch.where(x > 0, x, torch.zeros_like(x))


def silu(x: Tensor) -> Tensor:
    """``x / (1 + exp(-x))``."""
    return x / (1 + torch.exp(-x))


def stacked(p: Parameters, k: int, x: Tensor, prefix: str = "stack", activation: Callable[[Tensor], Tensor] = relu) -> Tensor:
    """The outputs of perceptron ``k`` of an ensemble, with layer normalisation where it has scales."""
    layers = sum(name.startswith(f"{prefix}.weights.") for name in p)
    for layer in range(layers):
        x = p[f"{prefix}.weights.{layer}"][k] @ x + p[f"{prefix}.biases.{layer}"][k, 0]
        if layer == layers - 1:
            return x
        if f"{prefix}.scales.{layer}" in p:
            centred = x - x.sum() / len(x)
            x = centred / torch.sqrt((centred**2).sum() / len(x) + 1e-5)
            x = x * p[f"{prefix}.scales.{layer}"][k, 0] + p[f"{prefix}.shifts.{layer}"][k, 0]
        x = activation(x)
    return x


def members(p: Parameters, prefix: str = "stack") -> int:
    """Networks of an ensemble."""
    return len(p[f"{prefix}.weights.0"])


def judged(p: Parameters, seen: Tensor, action: Tensor) -> list[Tensor]:
    """Q_k(s, a) of all critics; of choices, one of their outputs."""
    if not action.ndim:
        return [stacked(p, k, seen)[int(action)] for k in range(members(p))]
    x = torch.cat([seen, action])
    return [stacked(p, k, x)[0] for k in range(members(p))]


def sequential(p: Parameters, name: str, x: Tensor, activation: Callable[[Tensor], Tensor] = torch.tanh) -> Tensor:
    """The outputs of hidden layers ``<name>_body`` and a layer ``<name>_head``."""
    places = sorted(int(key.split(".")[1]) for key in p if key.startswith(f"{name}_body.") and key.endswith("weight"))
    for place in places:
        x = activation(p[f"{name}_body.{place}.weight"] @ x + p[f"{name}_body.{place}.bias"])
    return p[f"{name}_head.weight"] @ x + p[f"{name}_head.bias"]


# --- densities ----------------------------------------------------------------------------------------------------------------------------


def normal(action: Tensor, middle: Tensor, log_std: Tensor) -> Tensor:
    """log N(a; mu, sigma), dimensions independent."""
    z = (action - middle) / torch.exp(log_std)
    return (-0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum()


def normal_entropy(log_std: Tensor) -> Tensor:
    """Of the same."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()


def normal_kl(middle: Tensor, log_std: Tensor, other: Tensor, other_log_std: Tensor) -> list[Tensor]:
    """KL(N || other) by dimension."""
    variance, others = torch.exp(2 * log_std), torch.exp(2 * other_log_std)
    return [other_log_std[d] - log_std[d] + (variance[d] + (middle[d] - other[d]) ** 2) / (2 * others[d]) - 0.5 for d in range(len(middle))]


def squashed(u: Tensor, middle: Tensor, log_std: Tensor) -> Tensor:
    """log pi(tanh u), the density of unit actions."""
    return normal(u, middle, log_std) - torch.log(1 - torch.tanh(u) ** 2).sum()


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities of choices."""
    return logits - logits.max().detach() - torch.log(torch.exp(logits - logits.max().detach()).sum())


# --- the course of learning ---------------------------------------------------------------------------------------------------------------


class Plain:
    """Weights that learn by themselves, from where a run began.

    Attributes:
        p: parameters by model, double precision, their gradients wanted.
        moves: of the present turn.
    """

    def __init__(self, start: Weights, eps: float = 1e-8) -> None:
        self.p: dict[str, Parameters] = {}
        self.begin(start)
        self.eps: dict[str, float] = dict.fromkeys(start, eps)
        self.moments: dict[str, dict[str, Any]] = {}
        self.moves: list[Move] = []
        self.counts: dict[str, int] = {}
        self.memory: dict[str, Any] = {}

    def begin(self, start: Weights) -> None:
        """A turn begins with the run's own weights, so that differences in the last digits do not grow from turn to turn."""
        for model, each in start.items():
            self.p[model] = {name: double(value).clone().requires_grad_() for name, value in each.items()}

    def gradient(self, model: str, loss: Tensor, limit: float | None = None) -> Parameters:
        """Of a loss by a model's parameters, shortened to a norm of at most ``limit``."""
        p = self.p[model]
        found = torch.autograd.grad(loss, list(p.values()), allow_unused=True)
        gradient = {name: torch.zeros_like(value) if g is None else g for (name, value), g in zip(p.items(), found, strict=True)}
        if limit is not None:
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))
            if norm > limit:
                self.counts["norm limit"] = self.counts.get("norm limit", 0) + 1
                gradient = {name: g * limit / (norm + 1e-6) for name, g in gradient.items()}
        return gradient

    def descend(self, model: str, loss: Tensor, rate: float, limit: float | None = None) -> None:
        """A step of Adam."""
        self.adam(model, self.gradient(model, loss, limit), rate)

    def adam(self, model: str, gradient: Parameters, rate: float) -> None:
        """A step of Adam down a gradient (Kingma and Ba 2015, algorithm 1)."""
        self.moves.append(Move(model, gradient, rate))
        p = self.p[model]
        state = self.moments.setdefault(model, {"t": 0, "m": {}, "v": {}})
        state["t"] += 1
        for name, g in gradient.items():
            m = state["m"][name] = 0.9 * state["m"].get(name, 0.0) + 0.1 * g
            v = state["v"][name] = 0.999 * state["v"].get(name, 0.0) + 0.001 * g**2
            first, second = m / (1 - 0.9 ** state["t"]), v / (1 - 0.999 ** state["t"])
            self.change(p, name, p[name].detach() - rate * first / (torch.sqrt(second) + self.eps[model]))

    def rmsprop(self, model: str, loss: Tensor, rate: float, limit: float) -> None:
        """A step of RMSprop with the decay 0.99."""
        gradient = self.gradient(model, loss, limit)
        self.moves.append(Move(model, gradient, rate))
        state = self.moments.setdefault(model, {})
        for name, g in gradient.items():
            state[name] = 0.99 * state.get(name, 0.0) + 0.01 * g**2
            self.change(self.p[model], name, self.p[model][name].detach() - rate * g / (torch.sqrt(state[name]) + self.eps[model]))

    @staticmethod
    def change(p: Parameters, name: str, value: Tensor) -> None:
        """Give a parameter another value."""
        p[name] = value.detach().clone().requires_grad_()

    def follow(self, slow: str, fast: str, tau: float) -> None:
        """Polyak averaging."""
        for name, value in self.p[fast].items():
            self.change(self.p[slow], name, (1 - tau) * self.p[slow][name].detach() + tau * value.detach())

    def followed(self) -> Followed:
        """The present turn, which is over."""
        moves, self.moves = self.moves, []
        return Followed(moves, {model: self.fixed(model) for model in self.p})

    def fixed(self, model: str) -> Parameters:
        """Parameters as constants."""
        return {name: value.detach() for name, value in self.p[model].items()}


GRADIENT, WEIGHT = 1e-5, 1e-5
"""Largest differences of gradients (of those with entries above 1, in shares of the largest one) and of weights."""
SHARE, LEAST = 1e-4, 1e-2
"""Largest difference of a gradient in shares of its largest entry, or of the second number where that is larger."""


@dataclass(frozen=True)
class Followed:
    """A turn of the plain side: steps of optimisers, and the weights after it."""

    moves: list[Move]
    weights: Weights


def compare(turn: Turn, plain: Followed) -> tuple[float, float]:
    """Whether a turn went as the plain one; returns the largest differences of gradients and of weights.

    Raises:
        AssertionError: it did not.
    """
    assert [move.model for move in turn.moves] == [move.model for move in plain.moves], "other models moved, or in another order"
    of_gradients, of_weights = 0.0, 0.0
    for number, (real, own) in enumerate(zip(turn.moves, plain.moves, strict=True)):
        assert math.isclose(real.learning_rate, own.learning_rate, rel_tol=1e-9), f"step {number}: {real.learning_rate} {own.learning_rate}"
        size = max(float(g.abs().max()) for g in own.gradient.values())
        for name, g in own.gradient.items():
            difference = float((real.gradient[name].double() - g).abs().max())
            of_gradients = max(of_gradients, difference / max(1.0, size))
            assert difference <= min(GRADIENT * max(1.0, size), SHARE * max(LEAST, size)), (
                f"step {number}: gradient of {real.model}, {name}: {difference:.2e}"
            )
    for model, each in turn.end.items():
        for name, value in each.items():
            difference = float((value.double() - plain.weights[model][name]).abs().max())
            of_weights = max(of_weights, difference)
            assert difference <= WEIGHT, f"weights of {model}, {name}: {difference:.2e}"
    return of_gradients, of_weights


def least(values: Iterable[Tensor]) -> Tensor:
    """The smallest of some numbers."""
    found, *others = values
    for each in others:
        found = torch.where(each < found, each, found)
    return found
