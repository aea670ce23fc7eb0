"""Transformer policies that read all episodes of a trial, the rows they are evaluated on, and the context of running trials.

A token is one step: ``concat(observation, previous action or the mark of a beginning, previous reward)``. The number of the step in its
episode is a learned embedding, the number of the episode in the trial a rotary one. Layers are those of LLaMA: RMS norm before attention
and before a gated perceptron, no biases (Touvron et al. 2023). Attention is causal, always.

Hugging Face's LLaMA has neither a sink nor a cache whose steps can be counted out per row, so the layers are made here of PyTorch's own
parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, one_hot

from rheostat.errors import RheostatError
from rheostat.policies.control.actor_critic import ActorCritic, Evaluation
from rheostat.policies.control.distributions import Distribution
from rheostat.policies.control.pixels import Pixels
from rheostat.policies.control.recurrent import EpisodeMemory
from rheostat.policies.control.sink_attention import Sink, counters, rotated, sink_attention, visible_steps
from rheostat.policies.control.views import Views

SinkKind = Literal["key-value", "key", "value", "zero", "token", "none"]
ALONE = (
    "A policy that reads a whole trial cannot judge an observation alone: act with run.policy(observation, memory), where memory = "
    "run.memory() is made anew for every trial, and tell it what came of an action with memory.observe(reward, ended)."
)


@dataclass(frozen=True)
class TrialRows:
    """Steps of trials, from their first on, with what came before each."""

    observation: Tensor
    """``[B, T, ...]``, as networks read them."""
    action: Tensor
    """``[B, T, A]``, the action before, encoded; what stands there in the first step of an episode is not read."""
    reward: Tensor
    """``[B, T]``, the reward before; 0 in the first step of a trial."""
    begins: Tensor
    """bool ``[B, T]``: the step is the first of an episode."""
    seen: Tensor
    """bool ``[B, T]``: False for rows that are no step of an episode, which no other step sees."""
    mask: Tensor
    """bool ``[B, T]``: steps to evaluate."""
    layers: Tensor | None = None
    """float ``[L]``, factors of the layers in training (depth dropout); None is 1."""

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, rows: Tensor) -> TrialRows:
        """Some of the rows, whole."""
        before = (self.observation[rows], self.action[rows], self.reward[rows])
        return TrialRows(*before, self.begins[rows], self.seen[rows], self.mask[rows], self.layers)


def action_width(space: Any) -> int:
    """Numbers of an encoded action."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    return math.prod(space.shape)


def encoded_action(action: Tensor, space: Any) -> Tensor:
    """Actions ``[..., k]`` of a space as the next step's token holds them, float32 ``[..., A]``: choices one-hot, numbers as they are."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return one_hot(action.long(), int(space.n)).float()
    if isinstance(space, spaces.MultiDiscrete):
        sizes = [int(n) for n in space.nvec.flatten()]
        return torch.cat([one_hot(part.long(), n).float() for part, n in zip(action.unbind(-1), sizes, strict=True)], -1)
    return action.float()


class Block(nn.Module):
    """A layer: attention and a gated perceptron, each added to what it reads.

    Args:
        width: W. heads: H. inner: width of the perceptron.
        sink: which of the sink's key and value exist, and which of them learn.
    """

    def __init__(self, width: int, heads: int, inner: int, sink: SinkKind) -> None:
        super().__init__()
        self.heads, size = heads, width // heads
        self.attention_norm, self.perceptron_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.project, self.merge = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.sinks = sink not in ("token", "none")
        if self.sinks:
            self.sink_key = nn.Parameter(torch.zeros(heads, 1, size), requires_grad=sink in ("key-value", "key"))
            self.sink_value = nn.Parameter(torch.zeros(heads, 1, size), requires_grad=sink in ("key-value", "value"))

    @property
    def sink(self) -> Sink | None:
        """The layer's own key and value; None where it has none."""
        return (self.sink_key, self.sink_value) if self.sinks else None

    def heads_of(self, x: Tensor, episode: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value ``[B, H, T, d]`` of ``[B, T, W]``; the first two are turned by their episode ``[B, T]``."""
        rows, steps, width = x.shape
        parts = self.project(self.attention_norm(x)).view(rows, steps, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        return (query, key, value) if episode is None else (rotated(query, episode), rotated(key, episode), value)

    def after(self, x: Tensor, attended: Tensor, factor: Tensor | float) -> Tensor:
        """The layer's output ``[B, T, W]`` from its input and what its heads found ``[B, H, T, d]``; ``factor`` scales both branches."""
        x = x + factor * self.merge(attended.transpose(1, 2).flatten(2))
        gate, up = self.up(self.perceptron_norm(x)).chunk(2, -1)
        return x + factor * self.down(gelu(gate) * up)


class Cache:
    """Keys and values of the steps of running trials, in every layer.

    Args:
        rows: number of trials E. layers: L. heads: H. size: d. steps: most steps N.

    Attributes:
        length: steps that are in it.
        keys, values: ``[L, E, H, N, d]``.
        seen: bool ``[E, N]``, as in :class:`TrialRows`.
        episode: int64 ``[E, N]``, number of a step's episode.
    """

    def __init__(self, rows: int, layers: int, heads: int, size: int, steps: int) -> None:
        self.length, self.steps = 0, steps
        self.keys, self.values = torch.zeros(layers, rows, heads, steps, size), torch.zeros(layers, rows, heads, steps, size)
        self.seen = torch.zeros(rows, steps, dtype=torch.bool)
        self.episode = torch.zeros(rows, steps, dtype=torch.int64)

    def fill(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Write a layer's keys and values ``[E, H, T, d]`` of the first T steps."""
        steps = key.shape[2]
        self.keys[layer, :, :, :steps], self.values[layer, :, :, :steps] = key, value

    def permute(self, places: Tensor) -> None:
        """Put the step of ``places`` ``[E, T]`` at each of the first T places."""
        for row, order in enumerate(places):
            steps = len(order)
            for part in (self.keys, self.values):
                part[:, row, :, :steps] = part[:, row].index_select(2, order)
            for column in (self.seen, self.episode):
                column[row, :steps] = column[row][order]

    def state_dict(self) -> dict[str, Any]:
        """What is in it."""
        end = self.length
        parts = {name: getattr(self, name)[..., :end, :].clone() for name in ("keys", "values")}
        return {"length": end} | parts | {name: getattr(self, name)[:, :end].clone() for name in ("seen", "episode")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what was saved."""
        end = self.length = int(state["length"])
        for name in ("keys", "values"):
            getattr(self, name)[..., :end, :] = state[name]
        for name in ("seen", "episode"):
            getattr(self, name)[:, :end] = state[name]


class TransformerActorCritic(nn.Module):
    """A causal transformer over the steps of a trial, that actor and critic share, and a linear head for each.

    Args:
        observation_space: a Gymnasium ``Box`` (vector, or uint8 image ``[C, H, W]``).
        action_space: ``Box``, ``Discrete``, ``MultiDiscrete`` or ``MultiBinary``.
        steps: most steps of a trial N.
        longest_episode: most steps of an episode; each has an embedding.
        layers: L.
        width: W.
        heads: H.
        inner: width of the gated perceptrons.
        sink: what a head can attend to besides steps.
        across_episodes: False: a step sees those of its own episode alone.
        reads_reward: whether a token holds the reward before it.
        seed: of the initial weights.

    Raises:
        RheostatError: an action space no head exists for, or a width that makes no heads of even size.
    """

    def __init__(
        self,
        observation_space: Any,
        action_space: Any,
        *,
        steps: int,
        longest_episode: int,
        layers: int = 2,
        width: int = 64,
        heads: int = 8,
        inner: int = 256,
        sink: SinkKind = "key-value",
        across_episodes: bool = True,
        reads_reward: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        from gymnasium.spaces import Box

        if width % (2 * heads):
            raise RheostatError(f"A width of {width} does not divide into {heads} heads of an even size: use a multiple of {2 * heads}.")
        self.action_space, self.steps, self.longest_episode = action_space, steps, longest_episode
        self.width, self.across_episodes, self.reads_reward, self.sink_kind = width, across_episodes, reads_reward, sink
        with torch.random.fork_rng(devices=[]):  # initialisers only know the global generator: borrow it and give it back
            torch.manual_seed(seed)
            self.encoder: nn.Module
            if len(observation_space.shape) == 3:
                self.encoder, features = Pixels(observation_space.shape), 256
            elif getattr(observation_space, "pictures", ()):
                views = Views(observation_space)
                self.encoder, features = views, views.width
            else:
                self.encoder, features = nn.Flatten(), math.prod(observation_space.shape)
            self.token = nn.Linear(features + action_width(action_space) + 1 + reads_reward, width)
            self.position = nn.Embedding(longest_episode + 2, width)  # with the sink's, and that of a row after the last step
            nn.init.normal_(self.position.weight, std=0.02)
            self.blocks = nn.ModuleList(Block(width, heads, inner, sink) for _ in range(layers))
            if sink == "token":
                self.sink_token = nn.Parameter(0.02 * torch.randn(width))
            self.norm = nn.RMSNorm(width, eps=1e-6)
            seed_of_heads = int(torch.randint(2**30, ()))
        self.heads = ActorCritic(Box(-math.inf, math.inf, (width,), np.float32), action_space, hidden=(), seed=seed_of_heads)

    @property
    def shift(self) -> int:
        """1 where a sink holds index 0 of the positions."""
        return int(self.sink_kind != "none")

    # --- layers -----------------------------------------------------------------------------------------------------------------------

    def tokens(self, observation: Tensor, action: Tensor, reward: Tensor, begins: Tensor, position: Tensor) -> Tensor:
        """The input of the first layer, ``[B, T, W]``; ``position`` is int64 ``[B, T]``."""
        rows, steps = begins.shape
        encoded = self.encoder(observation.flatten(0, 1)).view(rows, steps, -1)
        first = begins.unsqueeze(-1)
        parts = [encoded, action.masked_fill(first, 0.0), first.float(), *([reward.unsqueeze(-1)] if self.reads_reward else [])]
        return self.token(torch.cat(parts, -1)) + self.position(position)

    def sinks(self, factors: Tensor | None) -> list[Sink | None]:
        """The sink of every layer; a sink token passes through the layers, and sees itself alone."""
        if self.sink_kind != "token":
            return [block.sink for block in self.blocks]  # type: ignore[misc]
        x, found = self.sink_token.view(1, 1, -1), list[Sink | None]()
        for number, block in enumerate(self.blocks):
            _, key, value = block.heads_of(x, None)  # type: ignore[operator]
            found.append((key[0], value[0]))
            x = block.after(x, value, 1.0 if factors is None else factors[number])  # type: ignore[operator]
        return found

    def along(self, rows: TrialRows, cache: Cache | None = None) -> Tensor:
        """Features of all steps ``[B, T, W]``; fills a cache with their keys and values where one is given."""
        position, episode = counters(rows.begins, self.shift)
        self.require_short(position, rows.seen)
        visible = visible_steps(rows.seen, None if self.across_episodes else episode)
        x, sinks = self.tokens(rows.observation, rows.action, rows.reward, rows.begins, position), self.sinks(rows.layers)
        for number, (block, sink) in enumerate(zip(self.blocks, sinks, strict=True)):
            query, key, value = block.heads_of(x, episode)  # type: ignore[operator]
            attended = sink_attention(query, key, value, visible, sink)
            x = block.after(x, attended, 1.0 if rows.layers is None else rows.layers[number])  # type: ignore[operator]
            if cache is not None:
                cache.fill(number, key, value)
        if cache is not None:
            cache.length = rows.begins.shape[1]
            cache.seen[:, : cache.length], cache.episode[:, : cache.length] = rows.seen, episode
        return self.norm(x)

    def step(self, observation: Tensor, action: Tensor, reward: Tensor, begins: Tensor, position: Tensor, cache: Cache) -> Tensor:
        """Features ``[E, W]`` of one more step of every trial, whose place ``cache.length`` in the cache says what it is.

        Args:
            observation: ``[E, ...]``.
            action: ``[E, A]``, before it, encoded.
            reward: ``[E]``, before it.
            begins: bool ``[E]``.
            position: int64 ``[E]``, number in the episode.
            cache: with ``seen`` and ``episode`` of this step; the step's keys and values are added.
        """
        here = cache.length
        single = (each.unsqueeze(1) for each in (observation, action, reward, begins, position))
        x, episode = self.tokens(*single), cache.episode[:, here : here + 1]
        visible = cache.seen[:, : here + 1].clone()
        if not self.across_episodes:
            visible &= cache.episode[:, : here + 1] == episode
        visible[:, here] = True
        for number, (block, sink) in enumerate(zip(self.blocks, self.sinks(None), strict=True)):
            query, key, value = block.heads_of(x, episode)  # type: ignore[operator]
            cache.keys[number, :, :, here], cache.values[number, :, :, here] = key[:, :, 0], value[:, :, 0]
            keys, values = cache.keys[number, :, :, : here + 1], cache.values[number, :, :, : here + 1]
            x = block.after(x, sink_attention(query, keys, values, visible.unsqueeze(1), sink), 1.0)  # type: ignore[operator]
        cache.length = here + 1
        return self.norm(x)[:, 0]

    def require_short(self, position: Tensor, seen: Tensor) -> None:
        """Refuse steps beyond the longest episode that has positions.

        Raises:
            RheostatError: there is one.
        """
        if bool((position.masked_fill(~seen, 0) > self.longest_episode - 1 + self.shift).any()):
            raise RheostatError(
                f"An episode lasts longer than the {self.longest_episode} steps that this policy has positions for: train it with a larger "
                "longest_episode, or cut the episode there."
            )

    # --- outputs of actor and critic --------------------------------------------------------------------------------------------------

    def features(self, rows: TrialRows) -> Tensor:
        """Features of the steps to evaluate, ``[N, W]``, row by row.

        Raises:
            RheostatError: observations alone.
        """
        if not isinstance(rows, TrialRows):
            raise RheostatError(ALONE)
        return self.along(rows)[rows.mask]

    def head(self, features: Tensor) -> Distribution:
        """The action distribution from features ``[N, W]``."""
        return self.heads.distribution(features)

    def judge(self, features: Tensor) -> Tensor:
        """The critic's value ``[N]`` from features ``[N, W]``."""
        return self.heads.value(features)

    def distribution(self, rows: TrialRows) -> Distribution:
        """The action distribution at the steps to evaluate, row by row; raises as :meth:`features`."""
        return self.head(self.features(rows))

    def value(self, rows: TrialRows) -> Tensor:
        """The critic's value at the steps to evaluate, ``[N]``; raises as :meth:`features`."""
        return self.judge(self.features(rows))

    def evaluate(self, rows: TrialRows, *, critic: bool = True) -> Evaluation:
        """Both, and the backward pass to the parameters."""
        features = self.features(rows)
        return Evaluation(self.head(features), self.judge(features) if critic else None)

    def memory(self, rows: int) -> TrialMemory:
        """The empty context of so many trials."""
        return TrialMemory(self, rows)


class TrialMemory:
    """A policy's context of running trials: call it with their next observations, and tell it what came of the actions.

    Args:
        network: the policy.
        rows: number of trials E.
    """

    def __init__(self, network: TransformerActorCritic, rows: int) -> None:
        self.network, self.rows = network, rows
        block: Any = network.blocks[0]
        self.cache = Cache(rows, len(network.blocks), block.heads, network.width // block.heads, network.steps)
        self.clear()

    def clear(self) -> None:
        """Forget everything: new trials begin."""
        rows = self.rows
        self.cache.length = 0
        self.action, self.reward = torch.zeros(rows, action_width(self.network.action_space)), torch.zeros(rows)
        self.begins = torch.ones(rows, dtype=torch.bool)
        self.position, self.episode = torch.zeros(rows, dtype=torch.int64), torch.full((rows,), self.network.shift)
        self.last: Distribution | None = None

    def before(self, acting: Tensor) -> dict[str, Tensor]:
        """What the next token holds besides the observation: ``action`` ``[E, A]``, ``reward`` ``[E]`` and ``begins`` bool ``[E]``.

        Args:
            acting: bool ``[E]``: False for a row that is no step of an episode.
        """
        return {"action": self.action, "reward": self.reward, "begins": self.begins & acting}

    @torch.no_grad()
    def __call__(self, seen: Tensor, acting: Tensor | None = None) -> Distribution:
        """The distribution of the next actions.

        Args:
            seen: one observation of every trial, as the network reads it, ``[E, ...]``.
            acting: bool ``[E]``: False for a row that is no step of an episode; None: all are.

        Raises:
            RheostatError: another number of observations than trials, a context that is full, an episode that is too long, or nobody said
                what came of the last action.
        """
        acting = torch.ones(self.rows, dtype=torch.bool) if acting is None else acting
        if len(seen) != self.rows:
            raise RheostatError(
                f"The memory is of {self.rows} trials, and there are {len(seen)} observations: make one with run.memory(N) for N."
            )
        if self.last is not None:
            raise RheostatError("The policy reads what came of its last action: call memory.observe(reward, ended) after every step.")
        cache, here = self.cache, self.cache.length
        if here >= cache.steps:
            raise RheostatError(
                f"The context of this policy is full: it holds the {cache.steps} steps of a trial in training. Make a new one with "
                "run.memory(), or train with longer trials."
            )
        token = self.before(acting)
        counted = token["begins"] & (here > 0)  # a beginning in the first step is not counted
        self.position = torch.where(token["begins"] | (here == 0), self.network.shift, self.position + 1)
        self.episode = self.episode + counted
        self.network.require_short(self.position.unsqueeze(1), acting.unsqueeze(1))
        cache.seen[:, here], cache.episode[:, here] = acting, self.episode
        self.last = self.network.head(self.network.step(seen, **token, position=self.position, cache=cache))
        return self.last

    def observe(self, reward: Any, ended: Any = False, action: Any = None, acting: Tensor | None = None) -> None:
        """Remember what came of the actions.

        Args:
            reward: ``[E]``, or a number for a single trial.
            ended: bool ``[E]``: the next observation is the first of another episode of the same task.
            action: ``[E, ...]``, as the policy drew it; None: its most likely one, which run.policy returns.
            acting: bool ``[E]``, as of the call; None: all did.

        Raises:
            RheostatError: the policy has not acted since the last one.
        """
        if self.last is None:
            raise RheostatError("Nothing has happened since the last memory.observe: act with run.policy(observation, memory) first.")
        acting = torch.ones(self.rows, dtype=torch.bool) if acting is None else acting
        taken = self.last.mode() if action is None else torch.as_tensor(action)
        reward = torch.as_tensor(reward, dtype=torch.float32).expand(self.rows)
        self.action = torch.where(acting.unsqueeze(-1), encoded_action(taken, self.network.action_space), self.action)
        self.reward = torch.where(acting, reward, self.reward)
        self.begins = (self.begins & ~acting) | torch.as_tensor(ended, dtype=torch.bool).expand(self.rows)
        self.last = None

    KEPT = ("action", "reward", "begins", "position", "episode")

    def state_dict(self) -> dict[str, Any]:
        """The cache, and what the next token needs."""
        return {"cache": self.cache.state_dict()} | {name: getattr(self, name) for name in self.KEPT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what was saved."""
        self.cache.load_state_dict(state["cache"])
        for name in self.KEPT:
            setattr(self, name, state[name])
        self.last = None


Memory = EpisodeMemory | TrialMemory
"""What a policy remembers: of an episode, or of a trial."""


def kept_layers(layers: int, dropout: float, generator: torch.Generator) -> Tensor | None:
    """Factors of the layers in one training pass, 0 or 1, ``[L]``: each layer is left out with probability ``dropout``, and the others are
    not scaled up. None without dropout."""
    return (torch.rand(layers, generator=generator) >= dropout).float() if dropout else None
