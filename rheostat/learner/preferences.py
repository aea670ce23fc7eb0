"""The learner of small worlds of preferences: who answers, how long a batch is used, and how the policy moves are settings apart.

A turn is one gradient step. A batch is kept, with the log-probabilities under the policy that it was made for, until it has been used so
many times; it belongs to the state of the run, so that a resumed run goes on in the middle of it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.credit.score_baselines import Baseline, RunningRewards, ScoreBaseline
from rheostat.errors import RheostatError
from rheostat.learner.compute import Asked, Compute
from rheostat.learner.context import LearnerContext
from rheostat.learner.control import composition_of
from rheostat.learner.control_models import TrainableNetwork
from rheostat.learner.learner import Composition, Learner
from rheostat.learner.measuring import Calendar, Evaluations, next_multiple
from rheostat.learner.preference_losses import WEIGHTED, Graded, Loss, pair_report
from rheostat.learner.starting_weights import StartingWeights
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.streams import Streams, derive_seed
from rheostat.tasks.preferences.problem import PreferenceProblem, make_problem


class PreferenceContext(LearnerContext):
    """What the parts share.

    Args:
        problem: the world.
        streams: the run's random streams.
        total_steps: gradient steps.
        who: the method's name, for sentences.

    Attributes:
        batch: the one in use; None before the first.
        used: gradient steps made on it.
        rounds: batches so far.
        reward_calls: answers that were graded for training.
    """

    unit = "gradient steps"
    never_acts = True

    def __init__(self, problem: PreferenceProblem, streams: Streams, total_steps: int, who: str) -> None:
        super().__init__(streams, total_steps)
        self.problem, self.who = problem, who
        self.batch: Graded | None = None
        self.used = self.rounds = self.reward_calls = 0
        self.log: Any = None
        self.compute = Compute()

    @property
    def steps(self) -> int:
        """Gradient steps made."""
        return self.updates

    @property
    def policy(self) -> Any:
        """The policy's module."""
        return self.models[self.deployed].network

    @torch.no_grad()
    def act(self, observation: Any, memory: Any = None) -> Any:
        """The likeliest next token for one prompt, or for several with a leading axis, as an integer or int64 array.

        Raises:
            RheostatError: a memory, which these policies do not have.
        """
        self.remember(memory)
        prompt = torch.as_tensor(observation)
        single = prompt.dim() == 1
        prompt = prompt[None] if single else prompt
        blank = torch.zeros(len(prompt), 1, self.problem.length, dtype=torch.int64)
        action = self.policy.logits(prompt, blank)[:, 0, 0].argmax(-1).numpy()
        return action[0] if single else action

    def remember(self, episodes: Any) -> None:
        """Nothing can be remembered.

        Raises:
            RheostatError: something is asked for.
        """
        if episodes is not None:
            raise RheostatError(f"The policy of {self.who} answers single prompts and has no memory: leave it out.")

    def empty(self, batch: Batch) -> bool:
        """Whether a batch has no row to learn from: never."""
        return False

    def finish_turn(self, batch: Batch) -> Metrics:
        """A row of the log where one is due."""
        return self.log.row(self, batch) if self.log is not None else {}

    def evaluate(self, episodes: int) -> Metrics:
        """The world's measurements, with a stream of their own; ``episodes`` is the world's."""
        generator = torch.Generator().manual_seed(derive_seed(self.streams.seed, "evaluation", self.updates))
        return self.problem.measure(self.policy, generator)

    def restart_episodes(self) -> None:
        """There are none."""

    def state_dict(self) -> dict[str, Any]:
        """Counters, streams and the batch in use."""
        batch = None if self.batch is None else {item.name: getattr(self.batch, item.name) for item in fields(Graded)}
        return super().state_dict() | {name: getattr(self, name) for name in COUNTERS} | {"batch": batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_state_dict(state)
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.batch = None if state["batch"] is None else Graded(**state["batch"])

    def close(self) -> None:
        """Nothing is open."""


COUNTERS = ("used", "rounds", "reward_calls")


@dataclass(frozen=True)
class Sampling:
    """WHO ACTS, and how long a batch is used."""

    prompts: int = option(10, short="prompts_per_batch", at_least=1)
    """Prompts S of a batch."""
    samples: int = option(10, at_least=2)
    """Answers N to each of them."""
    on_policy_sampling: bool = option(True)
    """The present policy answers; off, batches are data that it has no part in (draws of the reference, or a data set)."""
    reuse: int = option(15, at_least=0)
    """Gradient steps T on every batch; 0 uses the first batch for the whole run."""
    static_share: float = option(0.0, at_least=0, below=1)
    """Share of every prompt's answers that come from the first offline batch, rounded down."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if not self.on_policy_sampling:
            return {"static_share": "on_policy_sampling is off, so all answers are offline data; turn it on, or leave the share alone"}
        if self.static_share and not self.static:
            return {"static_share": f"of {self.samples} answers that share is none; raise it, or leave it alone"}
        return {}

    @property
    def static(self) -> int:
        """Answers per prompt from the first offline batch."""
        return int(self.static_share * self.samples)

    def collect(self, context: PreferenceContext) -> Batch:
        """The batch in use, or a new one."""
        if context.batch is None or (self.reuse and context.used >= self.reuse):
            context.batch, context.used = self.drawn(context), 0
            context.rounds += 1
        return Batch(context.batch)

    @torch.no_grad()
    def drawn(self, context: PreferenceContext) -> Graded:
        """A new batch; its weights are its rewards."""
        problem, policy = context.problem, context.policy
        if self.on_policy_sampling:
            old = problem.offline(0, self.prompts, self.samples) if self.static else None
            prompt = problem.prompts(self.prompts, context.streams["prompts"]) if old is None else old.prompt
            answer = policy.sample(prompt, self.samples - self.static, context.streams["actions"])
            if old is not None:
                answer = torch.cat([answer, old.answer[:, : self.static]], 1)
            reward = problem.reward(prompt, answer)
        else:
            given = problem.offline(context.rounds, self.prompts, self.samples)
            prompt, answer, reward = given.prompt, given.answer, given.reward
        context.reward_calls += reward.numel()
        logp, reference = policy.logp(prompt, answer), problem.reference.logp(prompt, answer)
        return Graded(prompt, answer, reward, reward.clone(), logp, reference)


class Weights:
    """WORTH: rewards as weights, once per batch, for losses that take them.

    Args:
        normalise: running, over the run; prompt, over a prompt's samples; or none.
        baseline: what is subtracted then.
    """

    def __init__(self, normalise: str, baseline: Baseline) -> None:
        self.normalise, self.running, self.baseline = normalise, RunningRewards(), ScoreBaseline(baseline)

    def __call__(self, context: PreferenceContext, batch: Batch) -> Batch:
        """Weigh a new batch; one that is used again keeps its weights."""
        if context.used == 0:
            reward: Tensor = batch.rows.reward
            if self.normalise == "running":
                reward = self.running.normalise(reward)
            elif self.normalise == "prompt":
                reward = (reward - reward.mean(-1, keepdim=True)) / (reward.std(-1, keepdim=True, correction=0) + 1e-12)
            batch.rows.weight.copy_(self.baseline(reward))
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Running numbers."""
        return {"running": self.running.state_dict(), "baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.running.load_state_dict(state["running"])
        self.baseline.load_state_dict(state["baseline"])


@dataclass(frozen=True)
class Descent:
    """MOVES: Adam."""

    learning_rate: float = option(1e-2, at_least=0)
    """Adam step size."""
    max_grad_norm: float | None = option(None, above=0)
    """Largest norm of a gradient; None does not clip."""


class Step:
    """One gradient step down a loss.

    Args:
        loss: see :mod:`rheostat.learner.preference_losses`.
        descent: the optimiser's options.
    """

    model: ClassVar[str] = "policy"

    def __init__(self, loss: Loss, descent: Descent) -> None:
        self.loss, self.max_grad_norm = loss, descent.max_grad_norm

    def improve(self, context: PreferenceContext, batch: Batch) -> Metrics:
        """Move the policy.

        Raises:
            RheostatError: the loss is not finite.
        """
        model, rows = context.models[self.model], batch.rows
        logp = model.network.logp(rows.prompt, rows.answer)
        loss, said = self.loss(logp, rows)
        if not bool(loss.isfinite()):
            raise RheostatError(f"The loss of {context.who} became {loss.item()} at step {context.steps + 1:,}: lower the learning rate.")
        norm = model.step(loss, max_grad_norm=self.max_grad_norm)
        context.finish_update(self.model)
        context.used += 1
        metrics = {"loss": float(loss.detach()), **said} | ({} if norm != norm else {"gradient_norm": norm})
        batch.metrics = metrics
        return metrics


@dataclass(frozen=True)
class Rows:
    """When the run says something: rows of the training batch, and measurements."""

    every: int = option(10, short="log_every", at_least=1)
    """Gradient steps between rows of the log."""
    evaluate_every: int = option(0, at_least=0)
    """Gradient steps between measurements on held-out prompts; the first comes before any step. 0 never measures before the end."""

    def prepare(self, context: PreferenceContext) -> None:
        """Become the context's log."""
        context.log = RowLog(self)
        context.stores["log"] = context.log
        if self.evaluate_every:
            context.calendar = context.stores["calendar"] = Calendar(Evaluations(self.evaluate_every, 1))


class RowLog:
    """Rows at an interval.

    Args:
        options: the interval.
    """

    def __init__(self, options: Rows) -> None:
        self.options, self.next = options, options.every

    def row(self, context: PreferenceContext, batch: Batch) -> Metrics:
        """What the training batch says, and a measurement where one is due; empty between rows."""
        steps = context.steps
        measured = context.measure_due(context.episodes_due())
        if steps < min(self.next, context.total_steps) and not measured:
            return {}
        self.next = next_multiple(steps, self.options.every)
        graded = batch.rows
        with torch.no_grad():
            logp = context.policy.logp(graded.prompt, graded.answer)
        found = batch.metrics | pair_report(logp, graded)
        found |= {"reward": float(graded.reward.mean()), "best_reward": float(graded.reward.max(-1).values.mean())}
        return found | {"rounds": context.rounds, "reward_calls": context.reward_calls} | measured

    def state_dict(self) -> dict[str, Any]:
        """When the next row is due."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.next = state["next"]


class AnswerModel(TrainableNetwork):
    """The policy, which begins as the world says.

    Args:
        learning_rate: Adam step size.
    """

    def __init__(self, learning_rate: float) -> None:
        super().__init__(lambda context: context.problem.start(), learning_rate)


def composition(sampling: Sampling, loss: Loss, descent: Descent, log: Rows, weights: Weights | None = None) -> Composition:
    """The parts of a method on such worlds."""
    return Composition(
        collect=sampling,
        retain=[],
        credit=[weights] if weights is not None and isinstance(loss, WEIGHTED) else [],
        improve=[Step(loss, descent)],
        models={"policy": AnswerModel(descent.learning_rate)},
        stores=[log],
    )


class PreferenceLearner(Learner):
    """A method on a world of preferences; only steps that are logged have metrics."""

    def improve(self, batch: Batch) -> Metrics:
        """HOW DOES THE POLICY MOVE?"""
        self.move(batch)
        return dict(self.context.finish_turn(batch))


def build(
    config: Any,
    who: str,
    problem: PreferenceProblem | str,
    streams: Streams,
    total_steps: int,
    *,
    weights: StartingWeights | None = None,
    compute: Asked = "plain",
) -> PreferenceLearner:
    """A learner on a world.

    Args:
        config: the method's dataclass object.
        who: its name.
        problem: the world, or its name: then the run's seed is the world's, too.
        streams: the run's random streams.
        total_steps: gradient steps.
        weights: of another run, to begin with.
        compute: who was asked to make the gradient steps; it is always PyTorch.

    Raises:
        RheostatError: options outside of their domains or that cannot act, a dial, or an unknown world.
    """
    parts = composition_of(config, who)
    assert isinstance(parts, Composition)
    world = make_problem(problem, streams.seed) if isinstance(problem, str) else problem
    context = PreferenceContext(world, streams, total_steps, who)
    context.begins_with = weights
    context.compute.asked = compute
    context.compute.leave("there is none for worlds of preferences")
    with torch.random.fork_rng(devices=[]):
        for part in parts.stores:
            part.prepare(context)
        return PreferenceLearner(config, parts, context)
