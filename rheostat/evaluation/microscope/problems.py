"""Problems small enough to list every outcome: the expected reward and its gradient are sums, not estimates.

| problem | domain | outcomes | policy |
|---|---|---|---|
| tiny-words | language | every completion of four prompts over the letters a, b, c and the end | a transformer with 1,600 parameters |
| gridworld | control | every action sequence in a 3 x 3 grid, the step's number being part of the state | one logit per state and action |
| two-step | control | the four ways through PROPS' toy | one logit per state and action |

A problem is a table of outcomes with their returns and a differentiable log-probability of each. From these follow
``J(theta) = sum_y p_theta(y) R(y)``, its gradient, the divergence of two parameter vectors and the effective sample size between them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rheostat.collect.generation.embedded import EmbeddedEngine
from rheostat.collect.generation.engine import FinishReason, Generations
from rheostat.collect.generation.sampling import Sampling
from rheostat.collect.prompts import World
from rheostat.credit.verifiers.interface import Grade, Progress, Rollout, Scores, Verifier
from rheostat.errors import RheostatError, unknown
from rheostat.policies.control import TabularSoftmax
from rheostat.policies.language import LanguagePolicy
from rheostat.tasks.control.gridworld import grid_world
from rheostat.tasks.control.tabular import TabularEnvironment, TabularWorld
from rheostat.tasks.control.two_step import two_step
from rheostat.tasks.language.encoding import PromptEncoder
from rheostat.tasks.language.interface import LanguageTask, Limits, Prompt, Split
from rheostat.trajectories import Trajectories

if TYPE_CHECKING:
    from rheostat.tasks.control.environments import Environments

LIMIT = 20_000
"""Most outcomes that are listed."""


def require_small(name: str, outcomes: int) -> None:
    """Refuse what cannot be listed.

    Raises:
        RheostatError: with the size and the limit.
    """
    if outcomes > LIMIT:
        raise RheostatError(
            f"The problem {name} has {outcomes:,} outcomes, more than the {LIMIT:,} that can be listed: make it smaller with --length."
        )


def flat(parameters: Sequence[Tensor]) -> Tensor:
    """The parameters as one vector ``[P]``, a copy."""
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


@torch.no_grad()
def assign(parameters: Sequence[Tensor], theta: Tensor) -> None:
    """Write a vector ``[P]`` into the parameters."""
    for parameter, part in zip(parameters, theta.split([parameter.numel() for parameter in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


class Problem:
    """What the microscope asks of a problem.

    Attributes:
        name: as on the command line.
        domain: whose methods can be looked at.
        step: default step size of the exact ascent that separates the behaviour policy from the learner.
        theta: ``[P]``, parameters of the behaviour policy.
        returns: ``[N]`` float64, the reward of every outcome.
    """

    name: str
    domain: ClassVar[Literal["control", "language"]]
    step: float
    theta: Tensor
    returns: Tensor

    def outcome_logp(self, theta: Tensor) -> Tensor:
        """Log-probability of every outcome under these parameters, ``[N]``; carries the gradient of the internal parameters."""
        raise NotImplementedError

    @property
    def parameters(self) -> list[Tensor]:
        """The tensors that ``theta`` is made of."""
        raise NotImplementedError

    def value(self, theta: Tensor) -> float:
        """The expected reward ``J(theta)``."""
        with torch.no_grad():
            return float((self.outcome_logp(theta).double().exp() * self.returns).sum())

    def exact(self, theta: Tensor) -> tuple[float, Tensor]:
        """``J(theta)`` and its gradient ``[P]`` float64, by summing over all outcomes."""
        value = (self.outcome_logp(theta).double().exp() * self.returns).sum()
        gradients = torch.autograd.grad(value, self.parameters)
        return value.item(), flat(gradients).double()

    def path(self, steps: int, step_size: float | None = None) -> list[Tensor]:
        """``theta`` and where each of ``steps`` steps of exact gradient ascent leads, ``steps + 1`` vectors."""
        thetas = [self.theta]
        for _ in range(steps):
            ascent = self.exact(thetas[-1])[1] * (self.step if step_size is None else step_size)
            thetas.append((thetas[-1].double() + ascent).to(self.theta.dtype))
        return thetas

    def distance(self, behaviour: Tensor, learner: Tensor) -> tuple[float, float]:
        """KL(behaviour, learner) in nats per outcome, and the effective sample size of the outcomes' weights, a share."""
        with torch.no_grad():
            old, new = self.outcome_logp(behaviour).double(), self.outcome_logp(learner).double()
            p = old.exp() / old.exp().sum()
            return float((p * (old - new)).sum()), float(1 / (p * (2 * (new - old)).exp()).sum())


# --- language ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TinyWords(LanguageTask):
    """Four prompts over three letters: nearly always, half the time, partly and hardly ever rewarded by a random model."""

    length: int = 4
    """Tokens of a completion, the end token included."""
    validation_share: float = 0.0
    name: str = "tiny-words"

    PROMPTS: ClassVar[tuple[str, ...]] = ("a", "b", "ab", "c")

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        return Limits(2, self.length)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Every prompt once: batches of a multiple of four hold each equally often."""
        return [Prompt(text, answer=text) for text in self.PROMPTS]

    def verifier(self) -> Verifier:
        return TinyWordsVerifier(self.length)

    def tokenizer(self) -> Any:
        """End (also padding), a, b, c: four tokens."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.WordLevel({token: number for number, token in enumerate(["<eos>", "a", "b", "c"])}))
        inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        inner.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>", clean_up_tokenization_spaces=False)

    def expert(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """A best answer."""
        return {"a": "a", "b": "b", "ab": "b" * (self.length - 1), "c": "ca"[: self.length - 1]}[str(prompt.content)]


@dataclass
class TinyWordsVerifier:
    """``a``: an a anywhere; ``b``: b first; ``ab``: the share of places that hold a b; ``c``: the word "ca" and then the end."""

    length: int
    name: str = "tiny-words"

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        return Scores.from_grades([Grade(self.grade(rollout)) for rollout in rollouts])

    def grade(self, rollout: Rollout) -> float:
        """In [0, 1]."""
        text = rollout.completion
        if rollout.prompt == "a":
            return float("a" in text)
        if rollout.prompt == "b":
            return float(text.startswith("b"))
        if rollout.prompt == "ab":
            return text.count("b") / self.length
        return float(text == "ca" and not rollout.truncated)


def tiny_model(vocabulary: int, seed: int, spread: float = 0.2) -> Any:
    """A one-layer transformer with weights large enough for its next token to depend on what came before."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=8, tie_word_embeddings=True, max_position_embeddings=32, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):  # the library's own initialisation only knows the global generator
        model = Qwen3ForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(noise if parameter.dim() > 1 else torch.ones_like(parameter))
    return model


def every_completion(vocabulary: int, stops: Sequence[int], length: int) -> list[list[int]]:
    """All completions: up to ``length`` tokens, ended early by a stop token only."""
    open_, done = [[]], []  # type: ignore[var-annotated]
    for _ in range(length):
        grown = [[*row, token] for row in open_ for token in range(vocabulary)]
        done += [row for row in grown if row[-1] in stops]
        open_ = [row for row in grown if row[-1] not in stops]
    return done + open_


class LanguageProblem(Problem):
    """A tiny language model and a task with a handful of prompts, each equally likely.

    Args:
        task: whose ``block`` holds every prompt once.
        length: longest completion in tokens.
        model: a causal LM; None makes a random one.
        seed: of its weights.
        step: see :class:`Problem`.

    Raises:
        RheostatError: more outcomes than can be listed.
    """

    domain = "language"

    def __init__(self, task: LanguageTask, length: int, *, model: Any = None, seed: int = 0, step: float = 1.0) -> None:
        self.task, self.length, self.name, self.step = task, length, task.name, step
        tokenizer: Any = task.tokenizer()
        self.prompts = task.block(0, "train", 0)
        words = len(tokenizer) if model is None else model.config.vocab_size
        going_on = words - 1
        require_small(self.name, len(self.prompts) * (sum(going_on**t for t in range(length)) + going_on**length))
        self._model = tiny_model(words, seed) if model is None else model
        self._policy = LanguagePolicy(self._model, tokenizer)
        completions = every_completion(words, self._policy.stop_ids, length)
        self.rows = self._rows(completions)
        self.theta = flat(self.parameters)

    @property
    def parameters(self) -> list[Tensor]:
        return list(self._model.parameters())

    @property
    def outcomes_per_prompt(self) -> int:
        """Completions of each prompt."""
        return len(self.returns) // len(self.prompts)

    def _rows(self, completions: list[list[int]]) -> Trajectories:
        """Every completion of every prompt ``[N, T]``, in the form a batch has, graded by the task's verifier."""
        encoder = PromptEncoder(self._policy.tokenizer, self.task.limits.max_prompt_tokens)
        prompts = [encoder.encode(prompt) or [] for prompt in self.prompts]
        count, many = len(completions), len(prompts)
        tokens = torch.zeros(count, self.length, dtype=torch.int64)
        for row, ids in enumerate(completions):
            tokens[row, : len(ids)] = torch.tensor(ids)
        lengths = torch.tensor([len(ids) for ids in completions])
        cut = torch.tensor([ids[-1] not in self._policy.stop_ids for ids in completions])
        finish = torch.where(cut, int(FinishReason.LENGTH), int(FinishReason.STOP)).repeat(many)
        unknown_logp = torch.full((count * many, self.length), torch.nan)
        listed = Generations(
            prompts, count, tokens.repeat(many, 1), unknown_logp, lengths.repeat(many), finish, torch.zeros_like(unknown_logp).long(),
            Sampling(max_new_tokens=self.length),
        )  # fmt: skip
        texts = self._policy.tokenizer.batch_decode(completions, skip_special_tokens=True)
        rollouts = [
            prompt.rollout(text, ids, truncated=long)
            for prompt in self.prompts
            for text, ids, long in zip(texts, completions, cut.tolist(), strict=True)
        ]
        self.returns = self.task.verifier().score(rollouts).reward.double()
        return listed.trajectories(self._policy.pad_id)

    def token_logp(self, theta: Tensor) -> Tensor:
        """Log-probability of every token of every outcome, ``[N, T]``, 0 outside the completions."""
        assign(self.parameters, theta)
        return self._policy.score(self.rows.action, self.rows.attention, self.rows.mask).logp

    def outcome_logp(self, theta: Tensor) -> Tensor:
        return self.token_logp(theta).double().sum(1) - math.log(len(self.prompts))

    def world(self, *, value_head: bool = False) -> World:
        """A world of its own for a method: a copy of the model, an engine and the grader."""
        assign(self.parameters, self.theta)
        policy = LanguagePolicy(copy.deepcopy(self._model), self._policy.tokenizer, value_head=value_head)
        encoder = PromptEncoder(policy.tokenizer, self.task.limits.max_prompt_tokens)
        return World(self.task, policy, EmbeddedEngine(policy), self.task.verifier(), encoder, self.length)


# --- control ----------------------------------------------------------------------------------------------------------------------------


def unrolled(world: TabularWorld) -> TabularWorld:
    """The same world with the number of the step as part of the state, so that the limit is an end like any other.

    State ``t * S + s``; nothing is truncated any more, and the value of a state is one number.
    """
    states, actions = world.next_state.shape
    later = torch.arange(world.limit).clamp(max=world.limit - 1)
    following = (later + 1).clamp(max=world.limit - 1)
    next_state = (following[:, None, None] * states + world.next_state).reshape(-1, actions)
    ends = world.ends.expand(world.limit, states, actions).clone()
    ends[-1] = True
    start = torch.zeros(world.limit * states, dtype=torch.float64)
    start[:states] = world.start
    return TabularWorld(next_state, world.reward.repeat(world.limit, 1), ends.reshape(-1, actions), start, world.limit)


class ControlProblem(Problem):
    """A table and a tabular softmax policy.

    Args:
        name: of the problem.
        world: every episode of which ends by itself within ``limit`` steps (see :func:`unrolled`).
        spread: standard deviation of the initial logits.
        seed: of these logits.
        step: see :class:`Problem`.

    Raises:
        RheostatError: more outcomes than can be listed, or a world whose limit truncates.

    Attributes:
        state, action: int64 ``[N, T]``, every way through the world.
        reward: float64 ``[N, T]``, 0 after the end.
        mask: bool ``[N, T]``.
    """

    domain = "control"

    def __init__(self, name: str, world: TabularWorld, *, spread: float = 0.5, seed: int = 0, step: float = 1.0) -> None:
        self.name, self.world, self.step = name, world, step
        require_small(name, self._count())
        self._list()
        draw = torch.Generator().manual_seed(seed)
        self.logits = (torch.randn(world.num_states, world.num_actions, generator=draw) * spread).requires_grad_()
        self.theta = flat(self.parameters)

    @property
    def parameters(self) -> list[Tensor]:
        return [self.logits]

    def _count(self) -> int:
        """Ways through the world, counted without listing them."""
        counts = (self.world.start > 0).long().tolist()
        next_state, ends, total = self.world.next_state.tolist(), self.world.ends.tolist(), 0
        for _ in range(self.world.limit):
            later = [0] * len(counts)
            for state, ways in enumerate(counts):
                for following, end in zip(next_state[state], ends[state], strict=True):
                    if end:
                        total += ways
                    else:
                        later[following] += ways
            counts = later
        if sum(counts):
            raise RheostatError(f"Episodes of {self.name} can outlast its limit of {self.world.limit} steps: unroll the world first.")
        return total

    def _list(self) -> None:
        paths: list[list[tuple[int, int]]] = []
        open_: list[tuple[int, list[tuple[int, int]]]] = [(state, []) for state in self.world.start.nonzero().flatten().tolist()]
        while open_:
            state, path = open_.pop()
            for action in range(self.world.num_actions):
                longer = [*path, (state, action)]
                if self.world.ends[state, action]:
                    paths.append(longer)
                else:
                    open_.append((int(self.world.next_state[state, action]), longer))
        width = max(map(len, paths))
        padded = torch.tensor([[*path, *[(0, 0)] * (width - len(path))] for path in paths])
        self.state, self.action = padded.unbind(-1)
        self.mask = torch.arange(width) < torch.tensor([len(path) for path in paths])[:, None]
        self.reward = self.world.reward[self.state, self.action].double() * self.mask
        self.returns = self.reward.sum(1)

    def step_logp(self, theta: Tensor) -> Tensor:
        """Log-probability of every action of every outcome, ``[N, T]`` float64, 0 after the end."""
        assign(self.parameters, theta)
        return self.logits.double().log_softmax(-1)[self.state, self.action] * self.mask

    def outcome_logp(self, theta: Tensor) -> Tensor:
        start = self.world.start / self.world.start.sum()
        return self.step_logp(theta).sum(1) + start[self.state[:, 0]].log()

    def probabilities(self, theta: Tensor) -> Tensor:
        """The policy ``[S, A]`` float64."""
        return theta.view(self.world.num_states, -1).double().softmax(-1)

    def action_values(self, theta: Tensor, gamma: float = 1.0) -> Tensor:
        """Q ``[S, A]`` float64, exact."""
        policy, reward = self.probabilities(theta), self.world.reward.double()
        q = reward
        for _ in range(self.world.limit):
            following = (policy * q).sum(-1)[self.world.next_state].masked_fill(self.world.ends, 0.0)
            q = reward + gamma * following
        return q

    def state_values(self, theta: Tensor, gamma: float = 1.0) -> Tensor:
        """V ``[S]`` float64, exact."""
        return (self.probabilities(theta) * self.action_values(theta, gamma)).sum(-1)

    def policy(self) -> nn.Module:
        """A network of its own for a method, with this table of logits and values of 0."""
        network = TabularSoftmax(self.world.num_states, self.world.num_actions)
        assign([network.logits], self.theta)
        return network

    def environments(self, num_envs: int, seed: int) -> Environments:
        """The world as a method steps through it."""
        from rheostat.tasks.control.environments import make

        return make(lambda: TabularEnvironment(self.world), num_envs=num_envs, seed=seed)


# --- the table --------------------------------------------------------------------------------------------------------------------------


def _tiny_words(length: int) -> Problem:
    if length < 0 or length == 1:
        raise RheostatError(f"tiny-words needs completions of at least 2 tokens, not {length}.")
    length = length or 4
    return LanguageProblem(TinyWords(length), length, seed=3, step=0.05)


def _gridworld(length: int) -> Problem:
    if length < 0:
        raise RheostatError(f"gridworld needs episodes of at least 1 step, not {length}.")
    return ControlProblem("gridworld", unrolled(grid_world(3, limit=length or 5)), step=1.0)


def _two_step(length: int) -> Problem:
    if length not in (0, 2):
        raise RheostatError(f"Episodes of two-step have 2 steps, not {length}: leave --length out, or take gridworld.")
    return ControlProblem("two-step", two_step(), step=1.0)


PROBLEMS: dict[str, Callable[[int], Problem]] = {"tiny-words": _tiny_words, "gridworld": _gridworld, "two-step": _two_step}
DEFAULT_PROBLEM = {"language": "tiny-words", "control": "gridworld"}


def build_problem(name: str, *, length: int = 0) -> Problem:
    """A problem by name; its policy's parameters are always the same.

    Args:
        name: of :data:`PROBLEMS`.
        length: tokens of a completion or steps of an episode; 0 takes the problem's own (4 and 5).

    Raises:
        RheostatError: unknown, too large, or of a length it cannot have.
    """
    if name not in PROBLEMS:
        raise unknown("problem", name, PROBLEMS)
    return PROBLEMS[name](length)
