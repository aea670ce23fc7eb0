"""The didactic bandits of Tajwar et al. 2024 (arXiv 2404.14367): where the reward's peak lies relative to the data is a setting.

A context of 100 uniform numbers, which the reward does not depend on, and 100 actions. The data policy is the histogram of 10,000 draws of
``tanh(c)`` with c from a Cauchy distribution around -0.7 of scale 0.4, in 100 bins on [-1, 1]: its body peaks near bin 20, and
the heavy tails fill the first and the last bin.

| name | reward of action a |
|---|---|
| bandit-away | ``exp(-((a - 70) / 10)^2)``: the peak lies where the data policy has little mass |
| bandit-aligned | ``exp(-((a - 20) / 10)^2)``: the peak lies in its mode |
| bandit-away-wide, bandit-aligned-wide | the same with 30 in the place of 10 |

``sequence-away`` and ``sequence-aligned`` draw nine tokens after one prompt token, each paid by the same kernel, and the reward is their
mean. The policy begins as a fit of the data policy: 100 Adam steps on KL(policy, data) for the bandits, likelihood at every position for
the sequences, whose reference is a frozen copy of that fit. The authors' sequence code reads the logits of a token at its own position;
here they are those of the position before it.
"""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.kl import categorical_kl
from rheostat.objectives.preference_model import path_kl, win_rate
from rheostat.policies.answers import Answering, AnswerPolicy, ContextMLP, TablePolicy, TransformerPolicy
from rheostat.policies.parameters import OptimizedNetwork
from rheostat.streams import derive_seed
from rheostat.tasks.preferences.problem import Answers, Measured

ACTIONS, CONTEXTS = 100, 100
PEAKS: dict[str, tuple[float, float]] = {
    "bandit-away": (70.0, 10.0),
    "bandit-aligned": (20.0, 10.0),
    "bandit-away-wide": (70.0, 30.0),
    "bandit-aligned-wide": (20.0, 30.0),
    "sequence-away": (70.0, 10.0),
    "sequence-aligned": (20.0, 10.0),
}
"""Centre and width of the kernel by the name of the world."""
DRAWS, CENTRE, SCALE = 10_000, -0.7, 0.4
TRAINING, HELD_OUT = 200, 100
"""Prompts."""
FIT_STEPS, FIT_RATE = 100, 1e-2
TOKENS = 9
"""Of an answer in the sequence bandit."""
SEQUENCE_FIT_STEPS, SEQUENCE_FIT_RATE, SEQUENCE_FIT_ROWS = 150, 3e-3, 50
GOOD = 0.5
"""Reward from which an action counts as good."""


def seeded(seed: int, *names: str | int) -> torch.Generator:
    """A generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def data_policy(generator: torch.Generator) -> Tensor:
    """The histogram ``[100]``, float32; a bin without a draw gets half of one, so that logarithms are finite."""
    uniform = torch.rand(DRAWS, generator=generator, dtype=torch.float64)
    drawn = torch.tanh(CENTRE + SCALE * torch.tan(torch.pi * (uniform - 0.5)))
    counts = torch.histc(drawn, ACTIONS, -1.0, 1.0).clamp(min=0.5)
    return (counts / counts.sum()).float()


def kernel(name: str) -> Tensor:
    """The reward ``[100]`` of every action in a world."""
    centre, width = PEAKS[name]
    return torch.exp(-(((torch.arange(ACTIONS) - centre) / width) ** 2))


def contexts_of(seed: int) -> tuple[Tensor, Tensor]:
    """Training and held-out contexts, ``[200, 100]`` and ``[100, 100]``."""
    contexts = torch.rand(TRAINING + HELD_OUT, CONTEXTS, generator=seeded(seed, "contexts"))
    return contexts[:TRAINING], contexts[TRAINING:]


@functools.lru_cache(maxsize=4)
def fitted_contexts(seed: int) -> ContextMLP:
    """A perceptron fitted to the data policy of a seed."""
    network = ContextMLP(CONTEXTS, ACTIONS, seeded(seed, "weights"))
    training, _ = contexts_of(seed)
    model, data = OptimizedNetwork(network, FIT_RATE), data_policy(seeded(seed, "data policy")).log().expand(TRAINING, -1)
    for _ in range(FIT_STEPS):
        model.step(categorical_kl(network.scores(training), data).mean())
    return network


class Bandit:
    """What both worlds share: fixed training prompts, a reward per token, and a reference that also answers offline.

    Attributes:
        name: of the world.
        seed: of offline batches.
        kernel: reward of every token ``[V]``.
        training: prompts ``[S, ...]``.
        reference: whose answers are the data.
    """

    name: str
    seed: int
    kernel: Tensor
    training: Tensor
    reference: AnswerPolicy

    def prompts(self, count: int, generator: torch.Generator) -> Tensor:
        """The first training prompts ``[count, ...]``."""
        return first(self.training, count, self.name)

    def reward(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """``[S, N]``: the mean over tokens of answers int64 ``[S, N, L]``."""
        return self.kernel[answer].mean(-1)

    def offline(self, turn: int, count: int, samples: int) -> Answers:
        """Draws of the reference."""
        prompt = first(self.training, count, self.name)
        answer = self.reference.sample(prompt, samples, seeded(self.seed, "offline", turn))
        return Answers(prompt, answer, self.reward(prompt, answer))


class DidacticBandit(Bandit):
    """Answers are single actions; everything is measured exactly.

    Args:
        name: of the world.
        seed: of contexts, data policy, weights and offline batches.
    """

    length = 1
    reference: TablePolicy

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.data = data_policy(seeded(seed, "data policy"))
        self.kernel = kernel(name)
        self.training, self.held_out = contexts_of(seed)
        self.reference = TablePolicy(self.data)

    def start(self) -> ContextMLP:
        """A perceptron fitted to the data policy."""
        return copy.deepcopy(fitted_contexts(self.seed))

    @torch.no_grad()
    def measure(self, policy: ContextMLP, generator: torch.Generator) -> Measured:
        """Expected reward, KL both ways, entropy, mass of good actions, the largest ratio to the data policy (how badly its data cover this
        one) and wins against it, exactly on held-out contexts."""
        scores = policy.scores(self.held_out)
        logp, data = scores.log_softmax(-1), self.data.log().expand_as(scores)
        p = logp.exp()
        wins = win_rate_table(self.kernel)
        return {
            "evaluation_return": float((p @ self.kernel).mean()),
            "kl_to_reference": float(categorical_kl(scores, data).mean()),
            "kl_from_reference": float(categorical_kl(data, scores).mean()),
            "policy_entropy": float(-(p * logp).sum(-1).mean()),
            "good_mass": float(p[:, self.kernel >= GOOD].sum(-1).mean()),
            "concentrability": float((logp - data).max(-1).values.exp().mean()),
            "win_rate": float((p @ wins @ self.data).mean()),
            "evaluation_episodes": len(self.held_out),
        }

    @torch.no_grad()
    def probabilities(self, policy: ContextMLP) -> Tensor:
        """Mean probability ``[100]`` of every action over held-out contexts."""
        return policy.scores(self.held_out).softmax(-1).mean(0)


def win_rate_table(paid: Tensor) -> Tensor:
    """``[V, V]``: 1 where the first action is paid more than the second, 1/2 where as much."""
    return 0.5 * ((paid[:, None] - paid[None]).sign() + 1)


def first(prompts: Tensor, count: int, name: str) -> Tensor:
    """The first of a fixed list.

    Raises:
        RheostatError: it is shorter.
    """
    if count > len(prompts):
        raise RheostatError(f"{name} has {len(prompts)} training prompts, and {count} are asked for: lower prompts_per_batch.")
    return prompts[:count]


@functools.lru_cache(maxsize=4)
def fitted_sequences(seed: int) -> TransformerPolicy:
    """A frozen transformer fitted to the data policy of a seed at every position."""
    network = TransformerPolicy(ACTIONS, 1, TOKENS, seeded(seed, "weights"))
    model, draw = OptimizedNetwork(network, SEQUENCE_FIT_RATE), seeded(seed, "fit")
    tokens = TablePolicy(data_policy(seeded(seed, "data policy")))
    for _ in range(SEQUENCE_FIT_STEPS):
        rows = tokens.sample(torch.zeros(SEQUENCE_FIT_ROWS, 1), 1 + TOKENS, draw).squeeze(-1)
        model.step(-network.logp(rows[:, :1], rows[:, None, 1:]).mean())
    return network.requires_grad_(False)


class SequenceBandit(Bandit):
    """Nine tokens after one, whose rewards are averaged; measured from samples.

    Args:
        name: of the world.
        seed: of data policy, weights and batches.
        answers: samples per held-out prompt of a measurement.
    """

    length = TOKENS
    reference: TransformerPolicy

    def __init__(self, name: str, seed: int, answers: int = 4) -> None:
        self.name, self.seed, self.answers = name, seed, answers
        self.data = data_policy(seeded(seed, "data policy"))
        self.kernel = kernel(name)
        tokens = TablePolicy(self.data).sample(torch.zeros(1, 1), TRAINING + HELD_OUT, seeded(seed, "contexts"))[0]
        self.training, self.held_out = tokens[:TRAINING], tokens[TRAINING:]
        self.reference = fitted_sequences(seed)

    def start(self) -> TransformerPolicy:
        """A copy of the fit."""
        return copy.deepcopy(self.reference).requires_grad_(True)

    @torch.no_grad()
    def measure(self, policy: TransformerPolicy, generator: torch.Generator) -> Measured:
        """Mean reward, KL both ways along the samples of each side, how likely the reference finds the policy's answers (how well its data
        cover them), and wins against the reference."""
        answer = policy.sample(self.held_out, self.answers, generator)
        theirs = self.reference.sample(self.held_out, self.answers, generator)
        paid, other = self.reward(self.held_out, answer), self.reward(self.held_out, theirs)
        return {
            "evaluation_return": float(paid.mean()),
            "kl_to_reference": kl_along(policy, self.reference, self.held_out, answer),
            "kl_from_reference": kl_along(self.reference, policy, self.held_out, theirs),
            "reference_logp": float(self.reference.logp(self.held_out, answer).sum(-1).mean()),
            "win_rate": float(win_rate(paid - other)),
            "evaluation_episodes": len(self.held_out),
        }


def kl_along(policy: Answering, other: Answering, prompt: Tensor, answer: Tensor) -> float:
    """KL(policy, other) from answers int64 ``[S, N, L]`` that the policy drew, in nats."""
    logits, theirs = policy.logits(prompt, answer).flatten(0, 1), other.logits(prompt, answer).flatten(0, 1)
    return float(path_kl(logits, theirs, torch.ones(logits.shape[:2], dtype=torch.bool))[1])
