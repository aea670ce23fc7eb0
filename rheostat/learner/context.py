"""What the parts of a learner share: models, stores, random streams, counters; and for language the prompts, the engine and the graders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rheostat.collect.language.conversations import collector_of
from rheostat.collect.language.generation.sampling import Sampling
from rheostat.collect.language.language_collectors import SamplingOptions
from rheostat.collect.language.prompt_groups import Graded, LanguageSetup
from rheostat.collect.language.rollout_records import rollout_rows
from rheostat.credit.verifiers.verifier_interface import Progress
from rheostat.learner.measuring import Calendar
from rheostat.learner.starting_weights import StartingWeights
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.flops import FORWARD, matrix_weights, tokens_seen
from rheostat.policies.language.model import TokenScores
from rheostat.streams import Streams
from rheostat.trajectories import Trajectories


class LearnerContext(ABC):
    """What every part of a learner may see, in both domains.

    Attributes:
        streams: the run's random streams.
        total_steps: the budget.
        networks: untrained networks by the names of their models.
        models: bound models by name (:mod:`rheostat.learner.models`).
        stores: data and statistics that outlive a stage, by name.
        counts: updates made of every model, by its name, and what else is counted.
        flops: operations spent.
        deployed: name of the model that is evaluated, whose updates number the data.
        needs_old_scores: whether the learner's update needs the log-probabilities at its start apart from its first training pass.
        measured: what the measurement of this turn found; empty where none was due.
        calendar: when a control policy is measured while it trains; None never.
        ended: why the method itself ends the run after this turn; empty where it does not.
        begins_with: weights of another run, which models take over as they are bound; None where they begin by themselves.
    """

    def __init__(self, streams: Streams, total_steps: int) -> None:
        self.streams, self.total_steps = streams, total_steps
        self.networks: dict[str, Any] = {}
        self.models: dict[str, Any] = {}
        self.stores: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self.flops = 0
        self.deployed = "policy"
        self.needs_old_scores = False
        self.measured: Metrics = {}
        self.calendar: Calendar | None = None
        self.ended = ""
        self.begins_with: StartingWeights | None = None

    @property
    def updates(self) -> int:
        """How many times the deployed policy has been improved: the version of the next data."""
        return self.counts.get(self.clock, 0)

    @updates.setter
    def updates(self, value: int) -> None:
        self.counts[self.clock] = value

    @property
    def clock(self) -> str:
        """Which of the counts numbers the data."""
        return self.deployed

    def updates_of(self, model: str) -> int:
        """How many times a model has been improved."""
        return self.counts.get(model, 0)

    def learning(self) -> AbstractContextManager[None]:
        """What surrounds the updates of a turn."""
        return nullcontext()

    def finish_update(self, model: str) -> None:
        """A model has been improved: count it, and let the models that follow it know."""
        self.counts[model] = self.counts.get(model, 0) + 1
        for each in self.models.values():
            if getattr(each, "of", None) == model:
                each.after_update(self)

    @property
    def episodes_first(self) -> int:
        """Episodes (or prompts) of the measurement before the first update; 0 where the policy is not measured while it trains."""
        return 0 if self.calendar is None else self.calendar.first

    @property
    def measures(self) -> bool:
        """Whether the policy is measured while it trains."""
        return self.episodes_first > 0

    def begin(self) -> Metrics:
        """The measurement before the first update; empty where there is none."""
        return self.measure_due(self.episodes_first)

    def episodes_due(self, *, begins: bool = False) -> int:
        """Episodes of the measurement that is due after this turn; 0 is none. ``begins``: acting begins after a data set."""
        return 0 if self.calendar is None else self.calendar.episodes_due(self.steps, self.budget, begins=begins)

    def measure_due(self, episodes: int) -> Metrics:
        """Evaluate the policy over so many episodes (or prompts); 0 means that no evaluation is due."""
        self.measured = self.evaluate(episodes) if episodes else {}
        return self.measured

    @property
    @abstractmethod
    def steps(self) -> int:
        """How much of the budget has been used."""

    @property
    @abstractmethod
    def policy(self) -> Any:
        """The learned policy."""

    @property
    def budget(self) -> int:
        """The whole budget, offline and online."""
        return self.total_steps

    @abstractmethod
    def evaluate(self, episodes: int) -> Metrics:
        """Measure the deployed policy over so many episodes (or prompts), with random streams of its own."""

    def rollouts(self, count: int) -> list[dict[str, Any]]:
        """The latest samples, for inspection: at most about ``count`` rows; none where there is no text."""
        return []

    @abstractmethod
    def restart_episodes(self) -> None:
        """Begin new episodes; called after loading where environments could not be restored."""

    def after_load(self) -> None:  # noqa: B027  (most contexts have nothing to do)
        """Everything is bound or loaded; a context that keeps a copy of something takes it over here."""

    @abstractmethod
    def close(self) -> None:
        """Release what the context has opened."""

    def state_dict(self) -> dict[str, Any]:
        """Counters and streams."""
        return {"counts": dict(self.counts), "flops": self.flops, "streams": self.streams.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from saved counters and streams."""
        self.counts, self.flops = dict(state["counts"]), state["flops"]
        self.streams.load_state_dict(state["streams"])


@dataclass(frozen=True)
class Evaluation:
    """When the policy is measured on held-out prompts while it trains: before the first update, then at an interval."""

    every: int = option(10, short="evaluate_every", at_least=0)
    """Updates between measurements on the validation set; the first comes before any update. 0 never measures."""
    prompts: int = option(128, short="evaluation_prompts", at_least=1)
    """Validation prompts of such a measurement."""


@dataclass(frozen=True)
class Budget:
    """What a language run spends."""

    unit: Literal["updates", "generated tokens", "epochs"] = option("updates", short="budget")
    """What the run's steps count; epochs are passes over a file of prompts (or of expert rows, where they alone are learned from)."""


@dataclass(frozen=True)
class Grading:
    """What is done about completions without a grade."""

    max_invalid_share: float = option(0.1, share=True)
    """Share of rows on which graders may fail before the run stops."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        why = "nothing is graded for training, every row is an annotation; choose data sampled, or leave it alone"
        return {"max_invalid_share": why} if getattr(getattr(method, "data", None), "annotated", False) else {}


class LanguageContext(LearnerContext):
    """The context of a language method.

    Args:
        setup: task, policy, engine and verifier.
        streams: the run's random streams.
        total_steps: the budget, in its unit.
        sampling: how completions are drawn.
        evaluation: when the policy is measured.
        unit: what the budget counts.
        max_invalid_share: of rows without a grade.
        value_head: whether the policy is also asked for values.
    """

    def __init__(
        self,
        setup: LanguageSetup,
        streams: Streams,
        total_steps: int,
        *,
        sampling: SamplingOptions,
        evaluation: Evaluation,
        unit: str = "updates",
        max_invalid_share: float = 0.1,
        value_head: bool = False,
    ) -> None:
        super().__init__(streams, total_steps)
        self.setup, self.evaluation, self.unit, self.value_head = setup, evaluation, unit, value_head
        self.networks["policy"] = setup.policy
        self.collector = collector_of(setup, streams.seed, max_invalid_share=max_invalid_share)
        turn = sampling.max_new_tokens or setup.max_new_tokens
        self.longest = turn * self.collector.turns
        self.sampling = Sampling(
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            max_new_tokens=turn,
            stop_strings=setup.stop,
        )
        self.acting = "policy"
        self.learner_tokens = 0
        self.turn_began = 0.0  # what was spent before this turn
        self.weights = matrix_weights(setup.policy)
        self.group_size = 1
        self.graded: Graded | None = None
        self.measurement: Callable[[Any, int], Metrics] | None = None

    # --- what parts ask ---------------------------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        return int(self.spent)

    @property
    def spent(self) -> float:
        """The same with the present epoch's part."""
        if self.unit == "epochs":
            return float(self.collector.stream.epochs)
        return self.updates if self.unit == "updates" else self.collector.generated_tokens

    @property
    def episodes_first(self) -> int:
        """Prompts of the measurement before the first update, as many as of the later ones."""
        return self.evaluation.prompts if self.evaluation.every else 0

    @property
    def progress(self) -> Progress:
        """Of the training, for rewards that depend on it."""
        return Progress(self.updates, self.total_steps)

    def score(self, rows: Trajectories, model: str = "policy", *, entropy: bool = True, count: bool = True) -> TokenScores:
        """A model's log-probabilities of the masked tokens, under the distribution that is sampled: the only place that knows it.

        Args:
            rows: ``[B, T]``.
            model: its name. Without a gradient for all but models that are trained.
            entropy: also of the distribution each token was drawn from.
            count: whether a pass without a gradient enters the count of operations.
        """
        trained = self.models[model]
        options: dict[str, Any] = {name: getattr(self.sampling, name) for name in ("temperature", "top_k", "top_p")}
        if hasattr(trained, "optimizer"):
            if count and not torch.is_grad_enabled():
                self.count_flops(FORWARD, rows, model)
            deployed = model == self.deployed
            options |= {"value": self.value_head and deployed} | ({"head": rows.head} if deployed and rows.head is not None else {})
            return trained.network.score(rows.action, rows.attention, rows.mask, entropy=entropy, **options)
        if count:
            self.count_flops(FORWARD, rows, model)
        with torch.no_grad():
            return trained.network.score(rows.action, rows.attention, rows.mask, entropy=entropy, **options)

    def sampler_head(self, rows: Trajectories, count: int) -> tuple[Tensor, Tensor]:
        """The likeliest tokens of every step for the policy that samples now; see :meth:`LanguagePolicy.likeliest`."""
        self.count_flops(FORWARD, rows, self.acting)
        network = self.models[self.acting].network
        return network.likeliest(rows.action, rows.attention, rows.mask, count, temperature=self.sampling.temperature)

    def read_logits(self, rows: Trajectories, read: Callable[[Tensor, Tensor], Tensor], model: str = "policy") -> Tensor:
        """One number ``[B, T]`` per masked token of rows from a model's logits; see :meth:`LanguagePolicy.read_logits`."""
        self.count_flops(FORWARD, rows, model)
        return self.models[model].network.read_logits(rows.action, rows.attention, rows.mask, read)

    def read_latents(self, rows: Trajectories, needed: Tensor, layers: Sequence[int], model: str = "policy") -> Tensor:
        """What some layers of a model add up to at needed positions ``[B, T]``: ``[n, L, C]``; see :meth:`LanguagePolicy.latents`."""
        self.count_flops(FORWARD, rows, model)
        found: Tensor = self.models[model].network.latents(rows.action, rows.attention, needed, layers)
        return found

    @property
    def spent_share(self) -> float:
        """Of the budget, before this turn."""
        return min(1.0, self.turn_began / self.total_steps)

    def drops(self, model: str) -> bool:
        """Whether the adapters of a model drop something in training."""
        return bool(getattr(self.models[model].network, "drops", False))

    def dropping(self, model: str) -> AbstractContextManager[None]:
        """Inside, the adapters of a model that is trained drop what a stream of their own says, if they drop anything."""
        if not self.drops(model):
            return nullcontext()
        drawn = torch.randint(2**31, (), generator=self.streams["adapter dropout"])
        found: AbstractContextManager[None] = self.models[model].network.dropping(int(drawn))
        return found

    def count_flops(self, operations: int, rows: Trajectories, model: str = "policy") -> None:
        """Count a model's pass over rows that costs so many operations per weight and token."""
        found = self.models.get(model)
        share = getattr(getattr(found, "network", None), "share", "prompts")
        self.count_tokens(operations, tokens_seen(rows, beginnings=share == "beginnings"), model)

    def count_tokens(self, operations: int, tokens: int, model: str = "policy") -> None:
        """Count a model's pass over so many tokens."""
        self.flops += operations * getattr(self.models.get(model), "weights", self.weights) * tokens

    def sync_engine(self) -> None:
        """Tell the engine whose weights sample from now on: the present ones, or with a lag older ones."""
        model = self.models[self.acting]
        self.setup.engine.update_weights(model.network, self.updates - getattr(model, "age", 0))

    def finish_update(self, model: str) -> None:
        """A model has been improved; the engine samples from the new policy."""
        super().finish_update(model)
        if model == self.deployed:
            self.sync_engine()

    # --- what the learner asks --------------------------------------------------------------------------------------------------------

    def empty(self, batch: Batch) -> bool:
        """Whether a batch has no row to learn from."""
        return not bool(batch.rows.mask.any())

    def finish_turn(self, batch: Batch) -> Metrics:
        """Counters, and a measurement where one is due."""
        self.turn_began = self.spent
        self.graded = batch.facts.get("graded")
        if self.graded is not None:
            self.graded.trajectories = batch.rows[: len(self.graded.prompts)]  # with what was found out about them, for looking at
        metrics: Metrics = {
            "generated_tokens": self.collector.generated_tokens,
            "learner_tokens": self.learner_tokens,
            "reward_calls": self.collector.graded_rows,
            "flops": self.flops,
        }
        experts = self.setup.experts
        if experts is not None:
            metrics |= {"expert_rows": len(experts), "expert_rows_dropped": sum(experts.dropped.values())}
        due = self.evaluation.every and self.updates % self.evaluation.every == 0
        return metrics | self.measure_due(self.evaluation.prompts if due else 0)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the present policy samples whatever the lag, and no FLOPs are counted: an evaluation changes no training state."""
        flops = self.flops
        self.setup.engine.update_weights(self.models[self.deployed].network, self.updates)
        try:
            yield
        finally:
            self.flops = flops
            self.sync_engine()

    @contextmanager
    def sampling_from(self, model: str) -> Iterator[None]:
        """Inside, a frozen model samples (:class:`~rheostat.learner.models.Frozen`)."""
        with self.models[model].network.acting() as policy:
            self.setup.engine.update_weights(policy, self.updates)
            try:
                yield
            finally:
                self.sync_engine()

    def measure(self, prompts: int) -> Metrics:
        """Mean reward of one sample per validation prompt; it has a random stream of its own and changes no training state."""
        if self.measurement is not None:
            return self.measurement(self, prompts)
        with self.evaluating():
            return self.collector.validation(prompts, self.sampling, version=self.updates)

    def evaluate(self, episodes: int) -> Metrics:
        """The final measurement, on the whole validation set (at least as many prompts as while training)."""
        return self.measure(max(episodes, self.evaluation.prompts))

    def rollouts(self, count: int) -> list[dict[str, Any]]:
        """Whole groups of the last batch, for inspection: at most ``count`` rows."""
        if self.graded is None:
            return []
        return rollout_rows(self.graded, self.setup.policy.tokenizer, self.group_size, count, update=self.updates)

    @property
    def policy(self) -> Any:
        """The learned policy, which can be saved as a folder."""
        return self.setup.policy

    def state_dict(self) -> dict[str, Any]:
        """Counters, streams and the cursor of the prompts."""
        return super().state_dict() | {"collector": self.collector.state_dict(), "learner_tokens": self.learner_tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        super().load_state_dict(state)
        self.collector.load_state_dict(state["collector"])
        self.learner_tokens = state["learner_tokens"]

    def after_load(self) -> None:
        """Everything is loaded: the engine takes over the weights."""
        self.turn_began = self.spent
        self.sync_engine()

    def restart_episodes(self) -> None:
        """Nothing to begin anew: between two turns no generation is in flight."""

    def close(self) -> None:
        """Release graders that run in processes of their own."""
        for grader in (self.setup.verifier, self.setup.judge):
            if hasattr(grader, "close"):
                grader.close()


def named(parts: Iterable[Any], prefix: str) -> dict[str, Any]:
    """Parts by the question they answer and their class; equal classes are numbered in order."""
    found: dict[str, Any] = {}
    for part in parts:
        name = f"{prefix}.{type(part).__name__}"
        number = 2
        while name in found:
            name, number = f"{prefix}.{type(part).__name__}{number}", number + 1
        found[name] = part
    return found
