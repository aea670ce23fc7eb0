"""Recurrent policies: an LSTM under actor and critic, the sequences it is evaluated on, and the memory of running episodes.

Details as in Huang et al. 2022: orthogonal weights and zero biases in the LSTM (32), a memory of zeros where an episode begins (33, 34),
sequences that are evaluated from the memory they began with (36).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rheostat.errors import RheostatError
from rheostat.policies.control.actor_critic import ActorCritic, Evaluation, body
from rheostat.policies.control.distributions import Distribution
from rheostat.policies.control.pixels import Pixels
from rheostat.policies.control.views import Views

ALONE = (
    "A policy with a memory cannot judge an observation alone: act with run.policy(observation, memory), where memory = run.memory() is "
    "made anew for every episode."
)


@dataclass(frozen=True)
class Sequences:
    """Rows of consecutive steps, with the memory before them and where episodes begin."""

    observation: Tensor
    """``[B, T, ...]``, as networks read them."""
    begins: Tensor
    """bool ``[B, T]``: the step is the first of an episode, so the memory is reset before it."""
    mask: Tensor
    """bool ``[B, T]``: steps to evaluate; the others only update the memory."""
    memory: Tensor
    """``[B, S]``, before the first step of each row."""

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: Tensor) -> Sequences:
        """Some of the rows, whole."""
        return Sequences(self.observation[rows], self.begins[rows], self.mask[rows], self.memory[rows])


class RecurrentActorCritic(nn.Module):
    """An encoder, an LSTM that actor and critic share, and a linear head for each.

    A memory is ``[N, 2 H]``: the LSTM's hidden state and its cell state side by side.

    Args:
        observation_space: a Gymnasium ``Box`` (vector, or uint8 image ``[C, H, W]``).
        action_space: ``Box``, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``.
        hidden: widths of the encoder's hidden layers; images have convolutions instead.
        units: H.
        activation: ``tanh`` or ``relu``.
        seed: of the initial weights.

    Raises:
        RheostatError: an action space no head exists for.
    """

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        hidden: tuple[int, ...] = (64,),
        units: int = 64,
        activation: str = "tanh",
        seed: int = 0,
    ) -> None:
        super().__init__()
        from gymnasium.spaces import Box

        with torch.random.fork_rng(devices=[]):  # initialisers only know the global generator: borrow it and give it back
            torch.manual_seed(seed)
            if len(observation_space.shape) == 3:
                self.encoder: nn.Module = Pixels(observation_space.shape)
                width = 256
            else:
                views = Views(observation_space) if getattr(observation_space, "pictures", ()) else None
                inputs = math.prod(observation_space.shape) if views is None else views.width
                kind = {"tanh": nn.Tanh, "relu": nn.ReLU}[activation]
                self.encoder = nn.Sequential(nn.Flatten() if views is None else views, body(inputs, hidden, kind))
                width = hidden[-1] if hidden else inputs
            self.lstm = nn.LSTM(width, units, batch_first=True)
            for name, parameter in self.lstm.named_parameters():
                nn.init.orthogonal_(parameter, 1.0) if "weight" in name else nn.init.zeros_(parameter)
            heads = int(torch.randint(2**30, ()))
        self.heads = ActorCritic(Box(-math.inf, math.inf, (units,), np.float32), action_space, hidden=(), seed=heads)
        self.units = units

    # --- memory -----------------------------------------------------------------------------------------------------------------------

    def start(self, rows: int) -> Tensor:
        """The memory of episodes that begin, ``[rows, 2 H]``: zeros."""
        return self.heads.actor_head.weight.new_zeros(rows, 2 * self.units)

    def stretches(self, observation: Tensor, begins: Tensor, memory: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The LSTM along rows, from one step at which some row begins an episode to the next.

        Args:
            observation: ``[B, T, ...]``.
            begins: bool ``[B, T]``.
            memory: ``[B, 2 H]`` before the first step.

        Yields:
            Features ``[B, t, H]`` of the next t steps, and the memory after the last of them.
        """
        rows, steps = begins.shape
        encoded = self.encoder(observation.flatten(0, 1)).view(rows, steps, -1)
        cuts = sorted({0, *begins.any(0).nonzero().flatten().tolist(), steps})
        for start, end in itertools.pairwise(cuts):
            memory = memory.masked_fill(begins[:, start, None], 0.0)
            hidden, cell = (part.contiguous().unsqueeze(0) for part in memory.chunk(2, -1))
            features, (hidden, cell) = self.lstm(encoded[:, start:end], (hidden, cell))
            memory = torch.cat([hidden[0], cell[0]], -1)
            yield features, memory

    def step(self, observation: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[N, H]`` of one observation each, ``[N, ...]``, and the memory after it."""
        going_on = torch.zeros(len(observation), 1, dtype=torch.bool)
        ((features, memory),) = self.stretches(observation.unsqueeze(1), going_on, memory)
        return features.squeeze(1), memory

    # --- outputs of actor and critic --------------------------------------------------------------------------------------------------

    def features(self, sequences: Sequences) -> Tensor:
        """Features of the steps to evaluate, ``[N, H]``, row by row."""
        if not isinstance(sequences, Sequences):
            raise RheostatError(ALONE)
        along = self.stretches(sequences.observation, sequences.begins, sequences.memory)
        return torch.cat([features for features, _ in along], 1)[sequences.mask]

    def head(self, features: Tensor) -> Distribution:
        """The action distribution from features ``[N, H]``."""
        return self.heads.distribution(features)

    def judge(self, features: Tensor) -> Tensor:
        """The critic's value ``[N]`` from features ``[N, H]``."""
        return self.heads.value(features)

    def distribution(self, sequences: Sequences) -> Distribution:
        """The action distribution at the steps to evaluate, row by row.

        Raises:
            RheostatError: observations alone.
        """
        return self.head(self.features(sequences))

    def value(self, sequences: Sequences) -> Tensor:
        """The critic's value at the steps to evaluate, ``[N]``; raises as :meth:`distribution`."""
        return self.judge(self.features(sequences))

    def evaluate(self, sequences: Sequences, *, critic: bool = True) -> Evaluation:
        """Both, and the backward pass to the parameters."""
        features = self.features(sequences)
        return Evaluation(self.head(features), self.judge(features) if critic else None)

    def memory(self, rows: int | None = None) -> EpisodeMemory:
        """The memory of so many episodes that begin; None: as many as the first observations."""
        return EpisodeMemory(self, rows)


class EpisodeMemory:
    """A policy's memory of running episodes: call it with their next observations, and call :meth:`forget` where an episode ends.

    Args:
        network: the policy.
        rows: number of episodes N; None: as many as the first observations.
    """

    def __init__(self, network: RecurrentActorCritic, rows: int | None = None) -> None:
        self.network = network
        self._memory = None if rows is None else network.start(rows)
        self.begins = torch.ones(rows or 0, dtype=torch.bool)
        """bool ``[N]``: the next observation is the first of an episode."""

    @property
    def memory(self) -> Tensor:
        """``[N, 2 H]`` before the next observations: zeros where an episode begins."""
        assert self._memory is not None
        return self._memory.masked_fill(self.begins.unsqueeze(-1), 0.0)

    @torch.no_grad()
    def __call__(self, seen: Tensor) -> Distribution:
        """The distribution of the next actions.

        Args:
            seen: one observation of every episode, as the network reads it, ``[N, ...]``.

        Raises:
            RheostatError: another number of observations than episodes.
        """
        if self._memory is None:
            self._memory, self.begins = self.network.start(len(seen)), torch.ones(len(seen), dtype=torch.bool)
        if len(seen) != len(self._memory):
            raise RheostatError(
                f"The memory is of {len(self._memory)} episodes, and there are {len(seen)} observations: make one with run.memory(N) for N."
            )
        features, self._memory = self.network.step(seen, self.memory)
        self.begins = torch.zeros_like(self.begins)
        return self.network.head(features)

    def forget(self, ended: Any = None) -> None:
        """Reset the memory where new episodes begin.

        Args:
            ended: bool ``[N]``, where; everywhere if None.
        """
        self.begins = torch.ones_like(self.begins) if ended is None else self.begins | torch.as_tensor(ended, dtype=torch.bool)

    def state_dict(self) -> dict[str, Any]:
        """Memory and where episodes begin."""
        return {"memory": self._memory, "begins": self.begins}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what was saved."""
        self._memory, self.begins = state["memory"], state["begins"]
