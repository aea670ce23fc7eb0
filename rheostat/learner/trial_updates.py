"""Policies that learn in context: the network, its model, PPO's update on whole trials, and measuring them episode by episode."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rheostat.collect.control.trial_evaluation import returns_by_episode
from rheostat.errors import RheostatError
from rheostat.learner.control_models import OWN_NETWORK, SequencePolicyNetwork
from rheostat.learner.fast_ppo import Minibatch, Step
from rheostat.learner.measuring import Evaluations
from rheostat.learner.sequences import SequencePPO
from rheostat.objectives.control_terms import MinibatchTargets
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.control.in_context import SinkKind, TransformerActorCritic, TrialRows, kept_layers
from rheostat.policies.flops import TRAIN
from rheostat.streams import derive_seed
from rheostat.trajectories import Transitions

LOWEST_RATE, FIRST_FACTOR = 1e-5, 1e-3
"""Where the learning rate ends, and the factor that its warm-up begins with."""
BY_EPISODE = "in_context/"
"""Prefix of the mean return of the first, second, ... episode of a task."""
MOST_CURVE_POINTS = 64
MOST_SIDE_BY_SIDE = 64
"""Trials that are measured together."""


@dataclass(frozen=True)
class TransformerNetwork:
    """A causal transformer over all steps of a trial, and a linear head for actor and critic."""

    layers: int = option(2, at_least=1)
    """Layers of the transformer."""
    width: int = option(64, at_least=2)
    """Width of the transformer, over all heads."""
    heads: int = option(8, at_least=1)
    """Attention heads."""
    inner: int = option(256, at_least=1)
    """Width inside the gated perceptrons."""
    sink: SinkKind = option("key-value")
    """What a head can attend to besides steps: a learned key and value (Sink-KV), the key or the value alone (the other is 0), zeros
    (softmax-plus-one), a learned token, or nothing."""
    across_episodes: bool = option(True)
    """Attend to earlier episodes of the trial; off is the single-episode baseline."""
    reads_reward: bool = option(True)
    """Whether a token holds the reward before it."""
    longest_episode: int = option(0, at_least=0)
    """Most steps of an episode, each of which has an embedding; 0 takes the environment's limit, or the steps of a trial."""
    steps: int = 0

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        names = ("layers", "width", "heads", "inner", "sink", "across_episodes", "reads_reward", "longest_episode")
        return dict.fromkeys(names, OWN_NETWORK) if "policy" in context.networks else {}

    def of(self, steps: int) -> TransformerNetwork:
        """The same for trials of so many steps.

        Raises:
            RheostatError: an episode may be longer.
        """
        if self.longest_episode > steps:
            raise RheostatError(f"longest_episode {self.longest_episode} is more than the {steps} steps of a trial: use at most that.")
        return replace(self, steps=steps)

    def __call__(self, context: Any) -> TransformerActorCritic:
        """Build the untrained network for the spaces of the environments."""
        limit = context.environments.facts.longest_episode
        return TransformerActorCritic(
            context.observation_space,
            context.action_space,
            steps=self.steps,
            longest_episode=self.longest_episode or min(limit or self.steps, self.steps),
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            inner=self.inner,
            sink=self.sink,
            across_episodes=self.across_episodes,
            reads_reward=self.reads_reward,
            seed=derive_seed(context.streams.seed, "network"),
        )


class TransformerPolicyNetwork(SequencePolicyNetwork):
    """Actor and critic as one transformer: a :class:`~rheostat.policies.control.in_context.TransformerActorCritic`."""

    reads, trains, lacks = TransformerActorCritic, "a policy that reads whole trials", "does not"


@dataclass(frozen=True)
class TrialPPO(SequencePPO):
    """Minibatches are whole trials, whose older steps are context: gradients flow through their keys and values."""

    accumulated: int = option(4, short="accumulated_minibatches", at_least=1)
    """Minibatches whose gradients are summed, not averaged, for one step."""
    warmup: int = option(10_000, short="warmup_steps", at_least=0)
    """Environment steps over which the learning rate rises."""
    decay: int = option(5_000_000, short="decay_steps", at_least=0)
    """Environment steps after those over which it falls to 1e-5, along a cosine; 0 keeps it."""
    depth_dropout: float = option(0.0, at_least=0, below=1)
    """Probability of leaving a layer out of a training pass."""
    anneal: bool = True  # in a way of its own

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return (*super(SequencePPO, self).reads, "begins", "seen", "previous_action", "previous_reward")

    @property
    def gradient_steps(self) -> int:
        """Most gradient steps on a batch."""
        return self.epochs * -(-self.minibatches // self.accumulated)

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found = super().idle(method)
        if self.accumulated > self.minibatches or "minibatches" in found:
            found["accumulated"] = f"all {self.minibatches} minibatches are summed by then, so use at most that"
        return found

    def describe(self) -> dict[str, int | str]:
        """Derived numbers."""
        return {
            "trials per minibatch": -(-self.sequences // self.minibatches),
            "gradient steps per update": self.gradient_steps,
        }

    def rate(self, steps: int) -> float:
        """The learning rate after so many environment steps."""
        if steps < self.warmup:
            return self.learning_rate * (FIRST_FACTOR + (1 - FIRST_FACTOR) * steps / self.warmup)
        if not self.decay:
            return self.learning_rate
        along = min(1.0, (steps - self.warmup) / self.decay)
        lowest = min(LOWEST_RATE, self.learning_rate)
        return lowest + (self.learning_rate - lowest) * (1 + math.cos(math.pi * along)) / 2

    def slow_down(self, context: Any, rows: int) -> None:
        """Set the step size by the environment steps that have been made."""
        context.models[self.model].learning_rate = self.rate(context.steps)

    def read(self, context: Any, batch: Batch) -> TrialRows:  # type: ignore[override]
        """The batch's rows as trials."""
        columns = batch.columns
        seen = context.see(batch.rows.observation, self.model)
        before = (columns["previous_action"], columns["previous_reward"])
        return TrialRows(seen, *before, columns["begins"], columns["seen"], batch.rows.mask)

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Make all gradient steps; returns metrics."""
        older = int(batch.columns["seen"].sum()) - batch.rows.count()  # steps that are context, which every pass computes, too
        context.flops += TRAIN * context.models[self.model].weights * older * self.epochs
        return super().improve(context, batch)

    def one_pass(self, context: Any, rows: Transitions, observation: Any, steps: list[Step], reports: list[dict[str, float]]) -> bool:
        """One pass over the trials, a step down the sum of the gradients of every few minibatches; appends to ``steps``."""
        model = context.models[self.model]
        minibatches = list(self.passed(context, rows, observation))
        for start in range(0, len(minibatches), self.accumulated):
            total = torch.zeros_like(model.parameters.gradient)
            made = []
            for minibatch in minibatches[start : start + self.accumulated]:
                made.append(self.accumulate(context, minibatch, reports))
                total += model.parameters.gradient
            model.parameters.gradient.copy_(total)
            norm = model.parameters.clip_gradient(self.max_grad_norm)
            model.optimizer.step()
            steps.append(joined([step for step in made if step is not None], norm))
        return False

    def accumulate(self, context: Any, minibatch: Minibatch, reports: list[dict[str, float]] | None = None) -> Step | None:
        """The gradient of a minibatch, with some layers left out where depth dropout says so."""
        layers = len(context.models[self.model].network.blocks)
        kept = kept_layers(layers, self.depth_dropout, context.streams["depth dropout"]) if self.depth_dropout else None
        return super().accumulate(context, minibatch._replace(observation=replace(minibatch.observation, layers=kept)), reports)


def joined(steps: list[Step], norm: float) -> Step:
    """Minibatches as the one gradient step that they make."""
    targets = MinibatchTargets(*map(torch.cat, zip(*(step.targets for step in steps), strict=True)))
    return Step(torch.cat([step.log_prob for step in steps]), torch.cat([step.value for step in steps]), targets, norm)


@dataclass(frozen=True)
class TrialEvaluations(Evaluations):
    """When trials on held-out tasks are measured, each in a context of its own."""

    evaluate_episodes: int = option(20, at_least=1)
    """Trials per evaluation, each of another task and as long as those of training."""
    actions: Literal["sampled", "deterministic"] = option("sampled", short="evaluate_actions")
    """How the policy acts there: as in training, because exploring is a part of what it has learned, or by its most likely actions."""

    def measure(self, context: Any, trials: int) -> Metrics:
        """Returns by episode in context, as a mean over trials; see :func:`by_episode`."""
        found = [self._measured(context, min(MOST_SIDE_BY_SIDE, trials - start), start) for start in range(0, trials, MOST_SIDE_BY_SIDE)]
        whole = min(each.shape[1] for each in found)
        return by_episode(torch.cat([each[:, :whole] for each in found]))

    def _measured(self, context: Any, trials: int, start: int) -> Tensor:
        """Returns ``[trials, episodes]`` of the trials from this one on."""
        seed = derive_seed(context.streams.seed, "evaluation", context.updates, start)
        generator = torch.Generator().manual_seed(derive_seed(seed, "actions"))
        environments = context.make(trials, seed)
        try:
            environments.hold_out()
            environments.restart(seed)
            network = context.models[context.deployed].network
            memory, taken = network.memory(trials), list[Tensor]()

            def act(observation: Tensor, acting: Tensor) -> Tensor:
                policy = context.in_environment_units(memory(context.see(observation, context.deployed), acting))
                action = policy.sample(generator) if self.actions == "sampled" else policy.mode()
                taken[:] = [action, acting]
                return action

            return returns_by_episode(
                act, environments, network.steps, lambda step: memory.observe(step.reward, step.ended, taken[0], taken[1])
            )
        finally:
            environments.close()


def by_episode(returns: Tensor) -> Metrics:
    """Metrics of returns ``[trials, episodes]``.

    Returns:
        ``evaluation_return``: mean over all episodes, with its ``evaluation_deviation`` over trials; ``evaluation_return_first`` and
        ``evaluation_return_last``, of the first and last episode of a trial; ``in_context/episode_K``, the mean return of the K-th one (at
        most :data:`MOST_CURVE_POINTS` of them, evenly spaced); ``evaluation_trials``.
    """
    curve, of_trial = returns.mean(0), returns.mean(1)
    chosen = torch.linspace(0, len(curve) - 1, min(len(curve), MOST_CURVE_POINTS), dtype=torch.float64).round().long().tolist()
    return {
        "evaluation_return": of_trial.mean().item(),
        "evaluation_deviation": of_trial.std().item() if len(of_trial) > 1 else 0.0,
        "evaluation_return_first": curve[0].item(),
        "evaluation_return_last": curve[-1].item(),
        "evaluation_trials": len(returns),
    } | {f"{BY_EPISODE}episode_{index + 1}": curve[index].item() for index in chosen}
