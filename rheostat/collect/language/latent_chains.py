"""WHO ACTS? Chains of reasoning steps, each of which a transition policy gives a latent state before a frozen language model writes it.

A step is a run of tokens that ends with a separator, or with the completion. Before step t the policy draws a distribution over the states
from its Dirichlet (or, exploring, from the uniform one), and a state from that. The generator reads the prompt, the steps so far as plain
tokens, and the vector of the state as one soft prefix; then it writes the step. Earlier states are no part of what it reads.

The noise is a function of (seed, purpose, update, prompt, sample, step, position): a chain does not depend on its neighbours, and nothing
has to be saved. Only training explores. Before there are states, completions are sampled from the model as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.collect.language.experts import token_rows
from rheostat.collect.language.generation.engine import FinishReason, Generations
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.collect.language.prompt_groups import Graded, LanguageSetup, PromptCollector
from rheostat.credit.verifiers.verifier_interface import Progress
from rheostat.errors import RheostatError
from rheostat.objectives.dirichlet import on_the_simplex
from rheostat.options import option
from rheostat.policies.language.latent_states import StateModel, TransitionPolicy, uncertainties
from rheostat.policies.language.model import SCORED_AT_ONCE, LanguagePolicy
from rheostat.policies.language.spectral import spectral_embedding
from rheostat.streams import derive_seed
from rheostat.tasks.language.task_interface import Prompt

CONCENTRATION, STATE_ENTROPY = "concentration", "state entropy"
READOUTS = (CONCENTRATION, STATE_ENTROPY)
"""Columns ``[B]`` of a chain, means over its steps: the total concentration, and the entropy of the mean distribution over states."""


@dataclass(frozen=True)
class StepRules:
    """What a step is, and its states."""

    states: int = option(8)
    """Latent states of a step (K)."""
    eigenvectors: int = option(3, at_least=1)
    """Leading eigenvectors of a step's Gram matrix that are its embedding (k)."""
    normalise: bool = option(False, short="normalise_by_n")
    """Divide the Gram matrix by the number of tokens; otherwise long steps lie far from short ones."""
    separator: str = option("\n", short="step_separator")
    """Text that ends a step; the end of the completion ends the last one."""
    most_steps: int = option(16, short="max_steps", at_least=2)
    """Most steps of a chain; one that is not finished then is cut."""
    width: int = option(128, short="latent_width", at_least=1)
    """Hidden units of the encoder and of the transition policy."""
    permute: bool = option(False, short="permute_states")
    """A control: the generator reads a state that a random permutation of every step puts in the place of the chosen one."""

    def __post_init__(self) -> None:
        if self.states < 2:
            raise RheostatError(f"states is {self.states}, and with fewer than 2 there is nothing to choose between: take at least 2.")
        if not self.separator:
            raise RheostatError("step_separator is empty, so a step would end before it began: name the text that ends a step.")


def split_steps(ids: Sequence[int], tokenizer: Any, separator: str) -> list[list[int]]:
    """A completion's tokens as steps: each ends as soon as its text contains the separator; the rest is the last one."""
    steps: list[list[int]] = []
    now: list[int] = []
    for token in ids:
        now.append(token)
        if separator in tokenizer.decode(now, skip_special_tokens=True, clean_up_tokenization_spaces=False):
            steps.append(now)
            now = []
    return [*steps, now] if now else steps


@torch.no_grad()
def step_embeddings(policy: LanguagePolicy, steps: Sequence[Sequence[int]], rules: StepRules) -> Tensor:
    """Spectral embeddings ``[N, k, d]`` of steps, from the model's token embeddings."""
    lengths = torch.tensor([len(step) for step in steps])
    ids = torch.zeros(len(steps), int(lengths.max()), dtype=torch.int64)
    for row, step in enumerate(steps):
        ids[row, : len(step)] = torch.tensor(step)
    tokens = policy.causal.get_input_embeddings()(ids.to(policy.device))
    return spectral_embedding(tokens, lengths.to(policy.device), rules.eigenvectors, normalise=rules.normalise)


@torch.no_grad()
def summaries(policy: LanguagePolicy, texts: Sequence[Sequence[int]], lengths: Sequence[Sequence[int]]) -> Tensor:
    """Final hidden states ``[n, C]`` at the ends of beginnings of texts, text by text.

    Args:
        policy: the language model.
        texts: token ids.
        lengths: of each text's beginnings, in rising order and at least 1.
    """
    found, rows = [], max(1, SCORED_AT_ONCE // max(map(len, texts)))
    for start in range(0, len(texts), rows):
        action, attention, _, left = token_rows([([], list(text)) for text in texts[start : start + rows]], policy.pad_id)
        needed = torch.zeros_like(attention)
        for row, ends in enumerate(lengths[start : start + rows]):
            needed[row, [left + end - 1 for end in ends]] = True
        found.append(policy.hidden_states(*(each.to(policy.device) for each in (action, attention, needed))))
    return torch.cat(found)


@dataclass
class Chain:
    """A completion as it grows."""

    prompt: list[int]
    stream: int
    """Names its random numbers."""
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    steps: list[list[int]] = field(default_factory=list)
    states: list[int] = field(default_factory=list)
    actions: list[Tensor] = field(default_factory=list)
    """``[K]`` each."""
    inputs: list[Tensor] = field(default_factory=list)
    """Of the transition policy."""
    alphas: list[Tensor] = field(default_factory=list)
    """``[K]`` each."""
    finish: FinishReason | None = None

    @property
    def text(self) -> list[int]:
        """Prompt and completion so far."""
        return self.prompt + self.ids


class LatentChains(PromptCollector):
    """Samples groups of chains.

    Args:
        setup: task, policy, engine and verifier.
        seed: of the run.
        rules: of steps and states.
        states: the state model, whose vectors the policy reads.
        transition: the policy that acts.
        first_prefix: id of the first state's vector.
        max_invalid_share: share of rows on which graders may fail before the run stops.
    """

    readouts = READOUTS

    def __init__(
        self,
        setup: LanguageSetup,
        seed: int,
        rules: StepRules,
        states: StateModel,
        transition: TransitionPolicy,
        first_prefix: int,
        *,
        max_invalid_share: float = 0.1,
    ) -> None:
        super().__init__(setup, seed, max_invalid_share=max_invalid_share)
        self.rules, self.states, self.transition, self.first_prefix = rules, states, transition, first_prefix
        self.epsilon = 0.0
        """Probability that training draws an action uniformly."""

    def sample_plainly(self, drawn: list[tuple[Prompt, list[int]]], group_size: int, sampling: Sampling, **options: Any) -> Graded:
        """Completions of the model as it is, without states; see :meth:`PromptCollector.sample`."""
        return super().sample(drawn, group_size, sampling, **options)

    def sample(
        self,
        drawn: list[tuple[Prompt, list[int]]],
        group_size: int,
        sampling: Sampling,
        *,
        numbers: list[int],
        purpose: str,
        version: int,
        progress: Progress | None = None,
        openings: list[str] | None = None,
    ) -> Graded:
        """Chains and their grades for encoded prompts; see :meth:`PromptCollector.sample`.

        The columns ``latent_input`` ``[B, S, H]``, ``latent_action`` ``[B, S, K]`` and ``latent_steps`` bool ``[B, S]`` are of its steps,
        ``latent_state`` int64 ``[B, S]`` is -1 where there is none; ``exploration`` ``[B]`` is the probability of a uniform action.

        Raises:
            RheostatError: hints, which would be a step that nobody chose.
        """
        options: dict[str, Any] = {"numbers": numbers, "purpose": purpose, "version": version, "progress": progress}
        if openings is not None:
            raise RheostatError("Hints are the beginning of an answer, which would be a step whose state nobody chose: leave them out.")
        if not bool(self.states.ready):
            return self.sample_plainly(drawn, group_size, sampling, **options)
        streams = row_streams(derive_seed(self.seed, purpose, "states"), version, numbers, group_size)
        chains = [Chain(list(ids), stream) for ids, stream in zip(repeated(drawn, group_size), streams.tolist(), strict=True)]
        epsilon = self.epsilon if purpose == "train" else 0.0
        for step in range(self.rules.most_steps):
            for chain in chains:
                chain.finish = FinishReason.LENGTH if chain.finish is None and self.room(chain, sampling) < 1 else chain.finish
            live = [row for row, chain in enumerate(chains) if chain.finish is None]
            if not live:
                break
            self.choose([chains[row] for row in live], step, epsilon)
            noise = row_streams(derive_seed(self.seed, purpose, *([] if not step else [f"step {step}"])), version, numbers, group_size)
            self.write([chains[row] for row in live], noise[live], step, sampling)
        prompts = [prompt for prompt, _ in drawn for _ in range(group_size)]
        found = completions(chains, sampling, self.setup.policy.device)
        graded = self.grade(found, prompts, [number for number in numbers for _ in range(group_size)], progress=progress)
        graded.columns |= self.columns_of(chains, epsilon)
        graded.metrics |= {
            "latent/steps": sum(len(chain.steps) for chain in chains) / len(chains),
            "latent/concentration": graded.columns[CONCENTRATION].mean().item(),
            "latent/state_entropy": graded.columns[STATE_ENTROPY].mean().item(),
        }
        return graded

    @torch.no_grad()
    def choose(self, chains: list[Chain], step: int, epsilon: float) -> None:
        """Draw an action and a state for the next step of every chain."""
        policy, device = self.setup.policy, self.setup.policy.device
        summary = summaries(policy, [chain.text for chain in chains], [[len(chain.text)] for chain in chains])
        if step:
            embedding = self.states.scaled(step_embeddings(policy, [chain.steps[-1] for chain in chains], self.rules))
            state = torch.tensor([chain.states[-1] for chain in chains], device=device)
        else:
            size = self.rules.eigenvectors * summary.shape[1]
            embedding, state = summary.new_zeros(len(chains), size), torch.full((len(chains),), -1, device=device)
        inputs = self.transition.inputs(summary, state, embedding)
        alphas = self.transition(inputs)
        for chain, mine, alpha in zip(chains, inputs, alphas, strict=True):
            action, state_drawn = drawn_action(chain.stream, step, alpha, epsilon)
            chain.inputs.append(mine)
            chain.alphas.append(alpha)
            chain.actions.append(action)
            chain.states.append(state_drawn)

    def write(self, chains: list[Chain], streams: Tensor, step: int, sampling: Sampling) -> None:
        """Let the model write the next step of every chain.

        Args:
            chains: with a state for it.
            streams: ``[n]`` int64, of its tokens.
            step: its number.
            sampling: of whole completions.
        """
        calls: dict[int, list[int]] = {}
        for row, chain in enumerate(chains):
            calls.setdefault(self.room(chain, sampling), []).append(row)
        ends = (self.rules.separator, *(stop for stop in sampling.stop_strings if stop != self.rules.separator))
        for width, rows in sorted(calls.items()):
            prompts = [[*chains[row].text, self.first_prefix + self.read_state(chains[row], step)] for row in rows]
            limits = replace(sampling, max_new_tokens=width, stop_strings=ends)
            found = self.setup.engine.generate(prompts, streams=streams[rows], group_size=1, sampling=limits)
            written = zip(rows, found.completions(), found.logp.tolist(), found.versions.tolist(), found.finish.tolist(), strict=True)
            for row, ids, logp, versions, why in written:
                chain = chains[row]
                chain.ids += ids
                chain.logp += logp[: len(ids)]
                chain.version += versions[: len(ids)]
                chain.steps.append(ids)
                chain.finish = self.ending(chain, FinishReason(why), sampling)

    def read_state(self, chain: Chain, step: int) -> int:
        """The state that the generator reads: the chosen one, or what a random permutation of this step makes of it."""
        if not self.rules.permute:
            return chain.states[-1]
        return int(chance(chain.stream, step, "permutation").permutation(self.rules.states)[chain.states[-1]])

    def room(self, chain: Chain, sampling: Sampling) -> int:
        """Most tokens of the next step: what is left of the completion, or of the model's positions beside the state's vector."""
        left = sampling.max_new_tokens - len(chain.ids)
        positions = self.setup.policy.longest
        return left if positions is None else min(left, positions - len(chain.text) - 1)

    def ending(self, chain: Chain, why: FinishReason, sampling: Sampling) -> FinishReason | None:
        """Why a chain ends with the step that it has just got; None where it goes on."""
        if why != FinishReason.STOP:
            return FinishReason.LENGTH
        tokenizer, step = self.setup.policy.tokenizer, chain.steps[-1]
        text = tokenizer.decode(step, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        own = [stop for stop in sampling.stop_strings if stop in text]
        if step[-1] in self.setup.policy.stop_ids or own or self.rules.separator not in text:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(chain.steps) == self.rules.most_steps else None

    def columns_of(self, chains: list[Chain], epsilon: float) -> dict[str, Tensor]:
        """What the update and the read-outs need of every step."""
        device, most, states = self.setup.policy.device, max(len(chain.states) for chain in chains), self.rules.states
        shape = (len(chains), most)
        inputs = torch.zeros(*shape, self.transition.width, device=device)
        actions = torch.full((*shape, states), 1 / states, device=device)
        state, there = torch.full(shape, -1), torch.zeros(shape, dtype=torch.bool)
        sure, spread = torch.full((len(chains),), torch.nan), torch.full((len(chains),), torch.nan)
        for row, chain in enumerate(chains):
            if count := len(chain.states):
                inputs[row, :count], actions[row, :count] = torch.stack(chain.inputs), torch.stack(chain.actions)
                state[row, :count], there[row, :count] = torch.tensor(chain.states), True
                sure[row], spread[row] = (each.mean() for each in uncertainties(torch.stack(chain.alphas)))
        found = {"latent_input": inputs, "latent_action": actions, "latent_state": state, "latent_steps": there}
        found |= {"exploration": torch.full((len(chains),), epsilon), CONCENTRATION: sure, STATE_ENTROPY: spread}
        return {name: value.to(device) for name, value in found.items()}


def repeated(drawn: Sequence[tuple[Prompt, list[int]]], group_size: int) -> list[list[int]]:
    """Token ids of every prompt, once for each member of its group."""
    return [ids for _, ids in drawn for _ in range(group_size)]


def chance(stream: int, step: int, *names: str) -> np.random.Generator:
    """Random numbers of one step of a chain."""
    return np.random.default_rng([stream % 2**64, derive_seed(step, *names)])


def drawn_action(stream: int, step: int, alpha: Tensor, epsilon: float) -> tuple[Tensor, int]:
    """An action ``[K]`` float32 and the state that is drawn from it.

    Args:
        stream: of the chain.
        step: its number.
        alpha: ``[K]`` concentrations.
        epsilon: probability that the action is drawn uniformly from the simplex.
    """
    draw = chance(stream, step)
    explores = draw.random() < epsilon
    weights = np.ones(len(alpha)) if explores else alpha.double().cpu().numpy()
    action = on_the_simplex(torch.as_tensor(draw.dirichlet(weights), device=alpha.device).float())
    p = action.double().cpu().numpy()
    return action, int(draw.choice(len(p), p=p / p.sum()))


def completions(chains: list[Chain], sampling: Sampling, device: torch.device) -> Generations:
    """Chains as completions of one row each; states are no tokens of them."""
    lengths = torch.tensor([len(chain.ids) for chain in chains])
    shape = (len(chains), max(1, int(lengths.max())))
    tokens, versions = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -1)
    logp = torch.full(shape, torch.nan)
    for row, chain in enumerate(chains):
        count = len(chain.ids)
        tokens[row, :count], versions[row, :count] = torch.tensor(chain.ids), torch.tensor(chain.version)
        logp[row, :count] = torch.tensor(chain.logp)
    finish = torch.tensor([int(FinishReason.LENGTH if chain.finish is None else chain.finish) for chain in chains])
    tokens, logp, lengths, finish, versions = (each.to(device) for each in (tokens, logp, lengths, finish, versions))
    return Generations([chain.prompt for chain in chains], 1, tokens, logp, lengths, finish, versions, sampling)
