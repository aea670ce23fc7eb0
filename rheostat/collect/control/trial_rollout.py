"""Acting in trials: many episodes of one task, whose whole course a policy has in its context; and the trial that is running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.buffers.trial_order import Due, last_step, of_last_step, permuted_episodes, update_schedule
from rheostat.collect.control.control_collectors import Rollout
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.control.in_context import TrialMemory, TrialRows, encoded_action
from rheostat.streams import derive_seed
from rheostat.trajectories import Source, Trajectories, join_in_time


class Trial:
    """The trials that are running, one per environment: their rows so far, and the policy's context.

    Args:
        memory: the policy's context, empty.

    Attributes:
        number: trials that have begun before.
        updates: of the policy in this trial.
        rows: ``[E, T]``, raw; None before the first. ``mask`` says which are steps of an episode.
        begins: bool ``[E, T]``, the first step of an episode.
    """

    def __init__(self, memory: TrialMemory) -> None:
        self.memory, self.number = memory, 0
        self.clear()

    def clear(self) -> None:
        """Forget everything: other tasks begin."""
        self.updates = 0
        self.rows: Any = None
        self.begins: Any = None
        self.memory.clear()

    def finish(self) -> None:
        """The trial is over."""
        self.number += 1
        self.clear()

    def append(self, block: Trajectories, begins: Tensor) -> None:
        """Add the newest rows ``[E, U]``."""
        self.rows = block if self.rows is None else join_in_time([self.rows, block])
        self.begins = begins if self.begins is None else torch.cat([self.begins, begins], 1)

    @property
    def before(self) -> tuple[Tensor, Tensor]:
        """The action before every step, encoded, and before the next one ``[E, T + 1, A]``; and the reward ``[E, T + 1]``."""
        last = last_step(self.rows.mask)
        action = encoded_action(of_last_step(self.rows.action, last), self.memory.network.action_space)
        return action.masked_fill((last < 0).unsqueeze(-1), 0.0), of_last_step(self.rows.reward, last)

    def read(self, seen: Tensor, beginning: Tensor | None = None) -> TrialRows:
        """All steps as the network reads them.

        Args:
            seen: their observations, as the network reads those.
            beginning: bool ``[E]``, whether an episode begins in the next step; given, ``seen`` holds the next observation, too.
        """
        action, reward = self.before
        valid, begins = self.rows.mask, self.begins
        if beginning is None:
            return TrialRows(seen, action[:, :-1], reward[:, :-1], begins, valid, valid)
        valid = torch.cat([valid, torch.zeros_like(beginning).unsqueeze(1)], 1)  # nothing follows that would see it
        return TrialRows(seen, action, reward, torch.cat([begins, beginning.unsqueeze(1)], 1), valid, valid)

    def shuffle(self, generator: torch.Generator) -> Tensor:
        """Permute the finished episodes of every environment, with all that is known of their steps.

        Returns:
            For every place the step that it got, int64 ``[E, T]``.
        """
        last = last_step(self.rows.mask)[:, -1:]
        ended = of_last_step(self.rows.terminated | self.rows.truncated, last)[:, 0]
        places = permuted_episodes(self.begins, ended, generator)
        rows = torch.arange(len(places)).unsqueeze(1)
        self.rows, self.begins = self.rows[rows, places], self.begins[rows, places]
        self.recall()
        return places

    def recall(self) -> None:
        """Let the context go on from the last step as it stands now."""
        action, reward = self.before
        self.memory.action, self.memory.reward = action[:, -1], reward[:, -1]

    def state_dict(self) -> dict[str, Any]:
        """Rows, counters and context."""
        rows = {} if self.rows is None else {name: value for name, value in self.rows.items() if value is not None}
        state = {"number": self.number, "updates": self.updates, "memory": self.memory.state_dict(), "rows": rows}
        return state | ({} if self.begins is None else {"begins": self.begins})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.number, self.updates = state["number"], state["updates"]
        self.memory.load_state_dict(state["memory"])
        self.begins = state.get("begins")
        self.rows = Trajectories(**state["rows"], batch_size=list(self.begins.shape)) if state["rows"] else None


@dataclass(frozen=True)
class TrialRollout(Rollout):
    """Collects a part of a trial with the policy and its context; a new trial has another task in every environment."""

    updates: int = option(16, short="updates_per_trial", at_least=1)
    """Updates within a trial (K), whose environments take batch_steps / num_envs steps before each."""
    writes: ClassVar[tuple[str, ...]] = ("begins",)
    refuses: ClassVar[dict[str, str]] = {
        "lag": "the context is in the present policy's keys and values",
        "replay_share": "a context holds the steps of one trial, and no others",
        "expert_share": "a context holds the policy's own steps",
    }

    @property
    def trial_steps(self) -> int:
        """Steps of every environment in a trial (N)."""
        return self.vector_steps * self.updates

    def describe(self) -> dict[str, int | str]:
        """Numbers that follow."""
        return super().describe() | {"steps of a trial": self.trial_steps}

    def bind(self, context: Any) -> None:
        """Begin the first trial.

        Raises:
            RheostatError: there is one task, an episode outlasts a trial, or a trial the network's context.
        """
        worlds = context.environments.facts
        if worlds.tasks == 1:
            raise RheostatError(
                f"{worlds.name} has one task to train on: a policy learns it by heart, and nothing is left to find out in context. Give it "
                "at least two."
            )
        if worlds.tasks is not None and (worlds.longest_episode or 0) > self.trial_steps:
            raise RheostatError(
                f"An episode of {worlds.name} may last {worlds.longest_episode} steps, and a trial has {self.trial_steps}, so that a task "
                "would end before an episode of it. Raise batch_steps or updates_per_trial, or shorten the episodes."
            )
        network = context.models[self.acting].network
        if network.steps < self.trial_steps:
            raise RheostatError(
                f"The network holds contexts of {network.steps} steps, and a trial has {self.trial_steps}: make it for longer trials, "
                "or lower batch_steps or updates_per_trial."
            )
        trial = context.stores["trial"] = Trial(network.memory(self.environments))
        context.on_restart.append(trial.clear)

    def collect(self, context: Any) -> Batch:
        """A block of steps ``[environments, steps]``, with the column ``begins`` (bool, the same shape)."""
        trial: Trial = context.stores["trial"]
        if trial.number and not trial.updates:
            context.collector.restart(derive_seed(context.streams.seed, "trial", trial.number))
            for restart in context.on_restart:
                restart()
        memory, begins, taken = trial.memory, list[Tensor](), list[Tensor]()

        def draw(observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            acting = context.environments.upcoming
            begins.append(memory.before(acting)["begins"])
            distribution = context.in_environment_units(memory(context.see(observation, self.acting), acting))
            action = distribution.sample(generator)
            taken[:] = [action, acting]
            return action, distribution.log_prob(action)

        context.turns += 1
        rows = context.collector.collect(
            draw,
            self.vector_steps,
            generator=context.streams["actions"],
            version=context.version(self.acting),
            after=lambda step: memory.observe(step.reward, step.ended, *taken),
        )
        return Batch(rows, {"begins": torch.stack(begins, 1)})


@dataclass(frozen=True)
class WholeTrial:
    """Keeps the rows of the running trial; the loss is about the newest ones, or in a full update about all."""

    full: int = option(1, short="full_updates", at_least=0)
    """Updates of a trial whose loss is about all of its steps (F); the others' is about the steps since the last update."""
    shuffle: bool = option(True, short="shuffle_episodes")
    """Permute the finished episodes of a trial after every update."""
    refresh: bool = option(True, short="refresh_cache")
    """Compute keys and values of the whole context anew after every update, with the new weights."""
    updates: int = 1
    steps: int = 0
    reads: ClassVar[tuple[str, ...]] = ("begins",)
    writes: ClassVar[tuple[str, ...]] = ("previous_action", "previous_reward", "seen")

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if method.collect.updates == 1:
            why = "updates_per_trial is 1, so the context ends with its only update; raise that, or leave it alone"
            return dict.fromkeys(("full", "shuffle", "refresh"), why)
        return {} if method.network.across_episodes else {"shuffle": "steps see their own episode alone, so its place does not matter"}

    @property
    def schedule(self) -> list[Due]:
        """The updates of a trial."""
        return update_schedule(self.steps, self.updates, self.full)

    def check(self, composition: Any) -> None:
        """Refuse full updates that do not divide the updates."""
        _ = self.schedule

    def retain(self, context: Any, batch: Batch) -> Batch:
        """All rows of the trials, ``[E, T]``; ``mask`` are those that the loss is about, the column ``seen`` all steps."""
        trial: Trial = context.stores["trial"]
        trial.append(batch.rows, batch.columns["begins"])
        rows = trial.rows.clone(recurse=False)
        action, reward = trial.before
        loss_from = self.schedule[trial.updates].loss_from
        rows.mask = trial.rows.mask & (torch.arange(rows.shape[1]) >= loss_from)
        rows.source = torch.where(rows.version < context.updates, int(Source.STALE), int(Source.FRESH))
        columns = {"begins": trial.begins, "seen": trial.rows.mask, "previous_action": action[:, :-1], "previous_reward": reward[:, :-1]}
        return Batch(rows, columns, None, batch.metrics)

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """After an update: permute the episodes and compute the context anew, or end the trial."""
        trial: Trial = context.stores["trial"]
        trial.updates += 1
        metrics = {"context_steps": float(trial.rows.shape[1]), "context_episodes": float(trial.begins.sum(1).float().mean())}
        if trial.updates == self.updates:
            trial.finish()
            return metrics
        places = trial.shuffle(context.streams["episode order"]) if self.shuffle else None
        cache, network = trial.memory.cache, trial.memory.network
        if self.refresh:
            with torch.no_grad():
                network.along(trial.read(context.see(trial.rows.observation)), cache)
        elif places is not None:
            cache.permute(places)
        return metrics
