"""Latent states of reasoning steps as trained models: found in right chains, fitted by their bound, then frozen, while transitions learn.

CTRLS, arXiv 2507.08182. Three models move in the lessons before the first batch: the language model (a little, or not at all), the states
with their encoder, and the transition policy. Afterwards only the transition policy moves.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from rheostat.collect.language.experts import written_rows
from rheostat.collect.language.language_collectors import Groups
from rheostat.collect.language.latent_chains import LatentChains, StepRules, split_steps, step_embeddings, summaries
from rheostat.collect.language.prompt_groups import Graded
from rheostat.errors import RheostatError
from rheostat.learner.models import Trainable
from rheostat.learner.update import Update
from rheostat.objectives.dirichlet import ActionEntropy, TransitionGradient, steps_of
from rheostat.objectives.state_likelihood import state_gap, step_bound
from rheostat.options import option
from rheostat.parts import Batch, Metrics, NonFinite, Weighted
from rheostat.policies.flops import FORWARD, TRAIN, matrix_weights
from rheostat.policies.language.latent_states import StateModel, TransitionPolicy, mean_state
from rheostat.policies.language.soft_prefix import install, vectors_like
from rheostat.streams import derive_seed
from rheostat.trajectories import Source, Trajectories

RESTARTS = 10
"""Of k-means; the one with the smallest distortion counts."""


class Latent(Trainable):
    """A network beside the language model.

    Args:
        learning_rate: Adam step size.
        max_grad_norm: global gradient norm limit.
    """

    weights: ClassVar[int] = 0
    """Per token: it reads steps, and its operations are counted by whoever lets it."""

    def __init__(self, learning_rate: float, max_grad_norm: float = 1.0) -> None:
        super().__init__(learning_rate, 0.0, max_grad_norm)

    def built(self, context: Any, name: str, network: nn.Module) -> None:
        """Take a new network."""
        context.networks[name] = network.to(context.networks["policy"].device)
        super().bind(context, name)

    def count(self, context: Any, operations: int, steps: int) -> None:
        """Count a pass over so many steps."""
        context.flops += operations * matrix_weights(self.network) * steps


def sizes(policy: Any, rules: StepRules) -> tuple[int, int]:
    """Numbers of a hidden state, and of a step's embedding."""
    width = policy.causal.get_input_embeddings().weight.shape[1]
    return int(policy.causal.config.get_text_config().hidden_size), rules.eigenvectors * int(width)


class StatesModel(Latent):
    """The states' vectors and their encoder; the language model reads the vectors from now on."""

    def __init__(self, rules: StepRules, learning_rate: float) -> None:
        super().__init__(learning_rate)
        self.rules, self.first_prefix = rules, 0

    def bind(self, context: Any, name: str) -> None:
        """Build the network, drawn from the run's seed."""
        policy, rules = context.networks["policy"], self.rules
        draw = torch.Generator().manual_seed(derive_seed(context.streams.seed, "state vectors"))
        vectors = vectors_like(policy, rules.states, draw)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(context.streams.seed, "state encoder"))
            self.built(context, name, StateModel(vectors, sizes(policy, rules)[1], rules.width))
        self.first_prefix = install(policy, self.network.vectors)


class TransitionModel(Latent):
    """The transition policy."""

    def __init__(self, rules: StepRules, learning_rate: float, max_grad_norm: float) -> None:
        super().__init__(learning_rate, max_grad_norm)
        self.rules = rules

    def bind(self, context: Any, name: str) -> None:
        """Build the network, drawn from the run's seed."""
        summary, step = sizes(context.networks["policy"], self.rules)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(context.streams.seed, "transition policy"))
            self.built(context, name, TransitionPolicy(summary, self.rules.states, step, self.rules.width))


@dataclass(frozen=True)
class Exploration:
    """How often an action is drawn uniformly from the simplex."""

    epsilon: float = option(0.2, short="exploration", at_least=0, below=1)
    """Probability of a uniform action at the start; it falls by a line to 0 over the budget."""

    def at(self, spent: float) -> float:
        """Of the share of the budget that is spent."""
        return self.epsilon * (1 - spent)


# --- lessons ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChainLessons:
    """How states are found in the model's own right chains, and fitted to them, before the transition policy acts."""

    prompts: int = option(64, short="lesson_prompts", at_least=1)
    """Prompts whose completions are looked at for right chains."""
    samples: int = option(8, short="lesson_samples", at_least=1)
    """Completions of each of them."""
    least_reward: float = option(1.0, short="right_at_least")
    """Smallest reward of a chain that is learned from."""
    encoder_steps: int = option(200, at_least=1)
    """Gradient steps of the encoder towards the clusters of k-means."""
    steps: int = option(200, short="offline_steps", at_least=1)
    """Gradient steps on the bound (ELBO), of encoder, transitions and generator together."""
    chains: int = option(8, short="offline_chains", at_least=1)
    """Chains of such a step; each of their steps is scored in every state."""
    learning_rate: float = option(1e-3, short="offline_learning_rate", at_least=0)
    """Adam step size of the states' vectors, the encoder and the transition policy on the bound."""
    adapt: float = option(1e-5, short="adapt_learning_rate", at_least=0)
    """AdamW step size of the language model's own weights on the bound; 0 leaves them alone. Later they never move."""
    beta: float = option(1.0, short="elbo_beta", at_least=0)
    """Weight of the KL from the encoder to the transition policy."""
    encoder_held: float = option(0.8, share=True)
    """Share of the steps on the bound in which the encoder stays as the clusters taught it; before its states are read, they collapse."""


@dataclass(frozen=True)
class Steps:
    """A right chain."""

    prompt: list[int]
    steps: list[list[int]]

    @property
    def ids(self) -> list[int]:
        """Prompt and completion."""
        return self.before(len(self.steps))

    def before(self, step: int) -> list[int]:
        """What a step is written after, as plain tokens."""
        return self.prompt + [token for each in self.steps[:step] for token in each]


def right_chains(context: Any, rules: StepRules, lessons: ChainLessons) -> tuple[list[Steps], Metrics]:
    """The language model's own right chains for the next prompts, and how many there were.

    Raises:
        RheostatError: none is right, or none has more than one step.
    """
    collector: LatentChains = context.collector
    drawn, numbers = collector.draw(lessons.prompts)
    options: dict[str, Any] = {"numbers": numbers, "purpose": "lessons", "version": context.updates, "progress": context.progress}
    graded = collector.sample_plainly(drawn, lessons.samples, context.sampling, **options)
    graded = collector.enter(graded, graded.trajectories.count())
    context.count_flops(FORWARD, graded.trajectories)
    chains = chains_of(graded, [ids for _, ids in drawn for _ in range(lessons.samples)], context, rules, lessons)
    if not chains:
        raise RheostatError(
            f"None of {len(graded.prompts)} completions is right, so there is no chain to find states in: raise lesson_prompts or "
            "lesson_samples, lower right_at_least, or begin with a better model."
        )
    if all(len(chain.steps) == 1 for chain in chains):
        raise RheostatError(
            f"Each of {len(chains)} right chains has one step, so there are no transitions to learn: no step but the last ends with "
            f"step_separator {rules.separator!r}; name the text that ends a step."
        )
    counts = [len(chain.steps) for chain in chains]
    return chains, {"latent/right_chains": float(len(chains)), "latent/lesson_steps": sum(counts) / len(counts)}


def chains_of(graded: Graded, prompts: list[list[int]], context: Any, rules: StepRules, lessons: ChainLessons) -> list[Steps]:
    """The right ones of graded completions, as steps; one that was cut, or has more steps than a chain may have, is left out."""
    rows, scores, found = graded.trajectories, graded.scores, []
    for row, prompt in enumerate(prompts):
        right = bool(scores.valid[row]) and float(scores.reward[row]) >= lessons.least_reward
        if not right or bool(rows.truncated[row].any()):
            continue
        steps = split_steps(rows.action[row][rows.mask[row]].tolist(), context.setup.policy.tokenizer, rules.separator)
        if len(steps) <= rules.most_steps:
            found.append(Steps(prompt, steps))
    return found


def discover(embeddings: Tensor, states: int, seed: int) -> Tensor:
    """Clusters of steps by k-means, int64 ``[N]``.

    Args:
        embeddings: ``[N, k, d]``.
        states: K.
        seed: of the first centroids.

    Raises:
        RheostatError: fewer different steps than states.
    """
    points = embeddings.flatten(1).double().cpu().numpy()
    different = len(np.unique(points.round(9), axis=0))
    if different < states:
        raise RheostatError(
            f"The right chains have {different} different steps, and k-means cannot find {states} states in them: lower states, or raise "
            "lesson_prompts or lesson_samples."
        )
    draw, best, least = np.random.default_rng(seed), np.zeros(len(points), dtype=np.int64), np.inf
    for _ in range(RESTARTS):
        with warnings.catch_warnings():  # of a cluster that has become empty: its distortion says how much that costs
            warnings.simplefilter("ignore", UserWarning)
            centroids, labels = kmeans2(points, states, minit="++", iter=50, rng=draw)
        distortion = float(((points - centroids[labels]) ** 2).sum())
        if distortion < least:
            best, least = labels, distortion
    return torch.from_numpy(best.astype(np.int64))


def fit_encoder(context: Any, scaled: Tensor, labels: Tensor, steps: int, learning_rate: float) -> Metrics:
    """Teach the encoder the clusters, by cross-entropy over all steps at once; returns its share of right labels.

    Args:
        context: of the learner.
        scaled: ``[N, k d]`` embeddings.
        labels: ``[N]``.
        steps: gradient steps.
        learning_rate: of Adam.
    """
    model: StatesModel = context.models["states"]
    model.set_learning_rate(learning_rate)
    labels = labels.to(scaled.device)
    for _ in range(steps):
        model.optimizer.zero_grad(set_to_none=True)
        nn.functional.nll_loss(model.network.posterior(scaled), labels).backward()
        model.step()
        model.count(context, TRAIN, len(scaled))
    with torch.no_grad():
        right = (model.network.posterior(scaled).argmax(-1) == labels).float().mean()
    return {"latent/label_accuracy": right.item(), "latent/clusters": float(len(labels.unique()))}


@dataclass(frozen=True)
class Fit:
    """What the bound of some chains is made of, for all of their steps in order."""

    posterior: Tensor
    """``[n, K]`` log-probabilities."""
    prior: Tensor
    """``[n, K, K]`` log-probabilities given the state before; of a first step they are all the same."""
    loglik: Tensor
    """``[n, K]``."""
    first: Tensor
    """``[n]`` bool, first steps of their chains."""

    @property
    def before(self) -> Tensor:
        """``[n, K]`` probabilities of the state before; any for a first step."""
        q = self.posterior.exp()
        shifted = torch.cat([q[:1], q[:-1]])
        return torch.where(self.first[:, None], torch.full_like(q, 1 / q.shape[1]), shifted)


def fit_of(context: Any, chains: Sequence[Steps], rules: StepRules) -> Fit:
    """Score chains under all three models, with gradients where they are on.

    Every step is scored in every state, after the plain tokens of the steps before; what rows have in common is computed once.
    """
    states, transition = context.models["states"], context.models["transition"]
    policy, network = context.setup.policy, states.network
    steps = [step for chain in chains for step in chain.steps]
    scaled = network.scaled(step_embeddings(policy, steps, rules))
    first = torch.tensor([not index for chain in chains for index in range(len(chain.steps))], device=scaled.device)
    ends = [[len(chain.before(index)) for index in range(len(chain.steps))] for chain in chains]
    summary = summaries(policy, [chain.ids for chain in chains], ends)
    last = torch.where(first[:, None], 0.0, torch.cat([scaled[:1], scaled[:-1]]))
    earlier = torch.arange(rules.states, device=scaled.device).expand(len(steps), -1)
    earlier = torch.where(first[:, None], -1, earlier)
    text, step = (each[:, None].expand(-1, rules.states, -1) for each in (summary, last))
    alpha = transition.network(transition.network.inputs(text, earlier, step))
    transition.count(context, TRAIN, len(steps) * rules.states)
    states.count(context, TRAIN, len(steps))
    rows = state_rows(context, chains, rules)
    context.count_flops(TRAIN, rows)
    loglik = context.score(rows, entropy=False, count=False).logp.sum(1).view(len(steps), rules.states)
    context.learner_tokens += sum(map(len, steps))
    return Fit(network.posterior(scaled), mean_state(alpha).log(), loglik, first)


def state_rows(context: Any, chains: Sequence[Steps], rules: StepRules) -> Trajectories:
    """Every step behind what came before it and the vector of each state: ``[steps * K, T]``, the step's tokens masked."""
    prefix = context.models["states"].first_prefix
    pairs = [
        ([*chain.before(index), prefix + state], step)
        for chain in chains
        for index, step in enumerate(chain.steps)
        for state in range(rules.states)
    ]
    rows = written_rows(pairs, [False] * len(pairs), list(range(len(pairs))), context.setup.policy.pad_id, Source.FRESH)
    moved: Trajectories = rows.to(context.setup.policy.device)
    return moved


def fit_bound(context: Any, chains: Sequence[Steps], rules: StepRules, lessons: ChainLessons) -> Metrics:
    """All gradient steps on the bound; returns means over the last tenth of them, per step of a chain.

    Raises:
        NonFinite: a gradient is not finite.
    """
    models = {name: context.models[name] for name in ("policy", "states", "transition")}
    rates = {"policy": lessons.adapt, "states": lessons.learning_rate, "transition": lessons.learning_rate}
    draw, told = np.random.default_rng(derive_seed(context.streams.seed, "lessons")), []
    order: list[int] = []
    for number in range(lessons.steps):
        while len(order) < lessons.chains:
            order += draw.permutation(len(chains)).tolist()
        some, order = [chains[place] for place in order[: lessons.chains]], order[lessons.chains :]
        for model in models.values():
            model.optimizer.zero_grad(set_to_none=True)
        fit = fit_of(context, some, rules)
        if number < lessons.encoder_held * lessons.steps:
            fit = replace(fit, posterior=fit.posterior.detach())
        q = fit.posterior.exp()
        bound = step_bound(q, fit.prior, fit.loglik, before=fit.before, beta=lessons.beta)
        (-bound.elbo.mean()).backward()
        for name, model in models.items():
            if rates[name]:
                model.set_learning_rate(rates[name])
                if not bool(model.step().isfinite()):
                    raise NonFinite(f"the gradient of {name} became non-finite in lesson {number + 1}", state_rows(context, some, rules))
        with torch.no_grad():
            parts = (bound.elbo.mean(), bound.reconstruction.mean(), bound.kl.mean(), state_gap(q, fit.loglik))
            told.append(torch.stack(parts))
    last = torch.stack(told[-max(1, len(told) // 10) :]).mean(0).tolist()
    return dict(zip(("latent/elbo", "latent/reconstruction", "latent/kl", "latent/state_gap"), last, strict=True))


def teach(context: Any, rules: StepRules, lessons: ChainLessons) -> Metrics:
    """Find the states and fit them; the language model and the encoder are frozen from then on.

    Raises:
        RheostatError: see :func:`right_chains` and :func:`discover`.
        NonFinite: see :func:`fit_bound`.
    """
    chains, told = right_chains(context, rules, lessons)
    policy, network = context.setup.policy, context.models["states"].network
    embeddings = step_embeddings(policy, [step for chain in chains for step in chain.steps], rules)
    labels = discover(embeddings, rules.states, derive_seed(context.streams.seed, "k-means"))
    network.scale.copy_(embeddings.square().mean().sqrt())
    told |= fit_encoder(context, network.scaled(embeddings), labels, lessons.encoder_steps, lessons.learning_rate)
    told |= fit_bound(context, chains, rules, lessons)
    for name in ("policy", "states", "transition"):
        context.models[name].optimizer.state.clear()
        context.models[name].optimizer.zero_grad(set_to_none=True)
    network.ready.fill_(True)
    context.sync_engine()
    return told


# --- acting and moving -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentGroups(Groups):
    """Groups of chains whose steps are chosen by the transition policy; the first batch comes after the lessons."""

    rules: StepRules = StepRules()
    lessons: ChainLessons = ChainLessons()
    exploration: Exploration = Exploration()
    writes: ClassVar[Sequence[str]] = ("latent_input", "latent_action", "latent_state", "latent_steps", "exploration")
    models: ClassVar[Sequence[str]] = ("policy", "states", "transition")
    single_turn: ClassVar[str] = "a chain of reasoning steps is one completion"
    refuses: ClassVar[Mapping[str, str]] = {
        "lag": "the language model stands still, and the transition policy that acts is the present one",
        "replay_share": "densities of actions have no clip, so a batch is used once",
        "expert_share": "an expert's steps have no state that the transition policy chose",
        "updates_per_batch": "densities of actions have no clip, so a batch is used for one gradient step",
    }

    def bind(self, context: Any) -> None:
        """From now on chains are what the run samples, in training and in measurements."""
        states, transition = context.models["states"], context.models["transition"]
        context.setup.policy.share = "beginnings"
        context.collector = LatentChains(
            context.setup,
            context.streams.seed,
            self.rules,
            states.network,
            transition.network,
            states.first_prefix,
            max_invalid_share=context.collector.max_invalid_share,
        )

    def collect(self, context: Any) -> Batch:
        """``[prompts * size, T]``, members of a group next to each other; the first time with what the lessons told."""
        told: Metrics = {} if bool(context.models["states"].network.ready) else teach(context, self.rules, self.lessons)
        epsilon = self.exploration.at(context.spent_share)
        context.collector.epsilon = epsilon
        batch = super().collect(context)
        context.models["transition"].count(context, FORWARD, int(batch.columns["latent_steps"].sum()))
        batch.metrics = batch.metrics | told | {"latent/exploration": epsilon}
        return batch


@dataclass(frozen=True)
class TransitionUpdate:
    """One gradient step of the transition policy on a batch; nothing else moves."""

    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the transition policy."""
    entropy_coefficient: float = option(0.01)
    """Weight of the bonus on the entropy of the Dirichlet, which pulls its concentrations towards 1."""
    max_grad_norm: float = option(1.0, above=0)
    """Global gradient norm limit."""
    micro_batch_rows: int = option(0, at_least=0)
    """Rows per forward and backward pass; 0 takes the whole batch. The result does not depend on it."""
    model: ClassVar[str] = "transition"
    minibatches: ClassVar[int] = 1
    gradient_steps: ClassVar[int] = 1

    @property
    def terms(self) -> tuple[Weighted, ...]:
        """What it descends."""
        bonus = [Weighted(ActionEntropy(), -self.entropy_coefficient, "")] if self.entropy_coefficient else []
        return (Weighted(TransitionGradient()), *bonus)

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Move the transition policy, and count it as an update of the whole policy.

        Raises:
            NonFinite: a loss or the gradient is not finite; carries the batch.
        """
        update = Update(
            micro_batch_rows=self.micro_batch_rows,
            learning_rate=self.learning_rate,
            max_grad_norm=self.max_grad_norm,
            terms=self.terms,
            model=self.model,
        )
        found = update.improve(context, batch)
        context.models[self.model].count(context, TRAIN, int(steps_of(batch).sum()))
        context.finish_update(context.deployed)
        return {name: value for name, value in found.items() if name != "entropy"}  # of tokens, which it has none of

    def trained(self, rules: StepRules) -> TransitionModel:
        """The model that this moves."""
        return TransitionModel(rules, self.learning_rate, self.max_grad_norm)
