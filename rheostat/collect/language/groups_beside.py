"""Groups of equivalent and inequivalent representations below the policy's own rows: a preference stream beside reinforcement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from rheostat.collect.language.experts import expert_rows
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.streams import derive_seed
from rheostat.tasks.language.encoding import PromptEncoder
from rheostat.tasks.language.representations import MakesRepresentations, members_of, read_representations
from rheostat.tasks.language.task_interface import VALIDATION_SEED, Prompt
from rheostat.trajectories import Source, Trajectories, join_rows

Group = tuple[Prompt, list[int], list[str], list[str]]
"""A prompt, its tokens, and the members of both kinds."""


@dataclass(frozen=True)
class RepresentationGroups:
    """Which groups, and how many of their members."""

    groups: int = option(8, short="groups_per_batch", at_least=1)
    """Groups of representations per batch."""
    equivalents: int = option(4, at_least=1)
    """Most equivalent members of a group that are taken, by chance."""
    inequivalents: int = option(4, at_least=1)
    """Most inequivalent members of a group that are taken, by chance."""
    file: str | None = option(None, short="representations")
    """A file of groups (JSON lines or parquet with the columns prompt, equivalent and inequivalent); None takes the groups of the task."""

    def source(self, task: Any) -> MakesRepresentations:
        """Where groups come from.

        Raises:
            RheostatError: neither a file nor a task that makes them, or what is wrong with the file.
        """
        if self.file is not None:
            return read_representations(Path(self.file).expanduser(), task.validation_share)
        task = getattr(task, "task", task)  # of a task with other rewards
        if not self.there(task):
            raise RheostatError(
                f"The task {task.name!r} has no groups of equivalent and inequivalent representations: give a file with --representations, "
                "or set preference_weight to 0."
            )
        found: MakesRepresentations = task
        return found

    def there(self, task: Any) -> bool:
        """Whether there are groups: a file is given, or the task makes them."""
        return self.file is not None or isinstance(getattr(task, "task", task), MakesRepresentations)


@dataclass
class GroupsBeside:
    """The next groups below the policy's own rows (a retainer).

    Rows of a group are one unit, each of the policy's own rows is one by itself. Column ``chosen`` says which rows of a group are
    equivalent; rows of groups have the source ANNOTATION, no reward and no sampler.
    """

    options: RepresentationGroups
    writes: ClassVar[tuple[str, ...]] = ("chosen",)
    makes_units: ClassVar[bool] = True
    single_turn: ClassVar[str] = "a representation is one completion"
    refuses: ClassVar[Mapping[str, str]] = {"expert_share": "it has rows that the policy did not write beside its groups already"}
    reader: GroupReader = field(init=False)

    def bind(self, context: Any) -> None:
        """Begin the stream."""
        self.reader = GroupReader(self.options, context.setup, context.streams.seed)

    def retain(self, context: Any, batch: Batch) -> Batch:
        """The batch with the groups joined below."""
        taken = self.reader.take(self.options.groups)
        rows, chosen, units = rows_of(context.setup, taken, len(batch))
        own = len(batch)
        found = batch.with_rows(join_rows([batch.rows, rows]))
        found.columns["chosen"] = torch.cat([torch.zeros(own, dtype=torch.bool), chosen])
        found.units = torch.cat([torch.arange(own), units])
        return found

    def describe(self) -> dict[str, int | str]:
        """Derived numbers, for printing."""
        many = self.options
        return {"groups of representations per batch": f"{many.groups}, of at most {many.equivalents} + {many.inequivalents} members"}

    def state_dict(self) -> dict[str, Any]:
        """The cursor of the stream."""
        return self.reader.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved cursor."""
        self.reader.stream.load_state_dict(state)


class GroupReader:
    """Groups in the order of a stream, their members chosen by the run's seed and the group's number.

    Args:
        options: which groups.
        setup: task, tokenizer and limits of the run.
        seed: of the run.
        split: the training side, or the one that is set aside.

    Raises:
        RheostatError: what :meth:`RepresentationGroups.source` refuses.
    """

    def __init__(self, options: RepresentationGroups, setup: Any, seed: int, split: Any = "train") -> None:
        self.options, self.setup, self.seed = options, setup, derive_seed(seed, "groups", split)
        self.stream = options.source(setup.task).representations(split, self.seed)

    def take(self, count: int) -> list[Group]:
        """The next groups that fit.

        Raises:
            RheostatError: a group without a member of a kind, or a prompt that is too long.
        """
        encoder: PromptEncoder = self.setup.encoder
        first = self.stream.drawn
        drawn = encoder.take(self.stream, count)
        return [(prompt, ids, *self._chosen(first + row, prompt)) for row, (prompt, ids) in enumerate(drawn)]

    def _chosen(self, number: int, prompt: Prompt) -> tuple[list[str], list[str]]:
        """Members of both kinds, in the order of the row."""
        rng = np.random.default_rng(derive_seed(self.seed, "members", number))
        equivalent, inequivalent = members_of(prompt)
        return _some(equivalent, self.options.equivalents, rng), _some(inequivalent, self.options.inequivalents, rng)


def _some(texts: list[str], most: int, rng: np.random.Generator) -> list[str]:
    """At most so many of some texts, by chance, in their order."""
    return [texts[place] for place in sorted(rng.permutation(len(texts))[:most].tolist())]


def rows_of(setup: Any, groups: list[Group], first: int = 0) -> tuple[Trajectories, torch.Tensor, torch.Tensor]:
    """Groups as rows ``[R, T]`` of source ANNOTATION, which of them are equivalent ``[R]`` bool, and their units ``[R]`` int64.

    Args:
        setup: of the run.
        groups: with their tokens.
        first: the number of the first unit.

    Raises:
        RheostatError: a member that is empty or longer than a completion may be.
    """
    prompts, texts, chosen, units = [], [], [], []
    for number, (prompt, ids, equivalent, inequivalent) in enumerate(groups):
        members = [*equivalent, *inequivalent]
        prompts += [(prompt, ids)] * len(members)
        texts += members
        chosen += [True] * len(equivalent) + [False] * len(inequivalent)
        units += [first + number] * len(members)
    rows = expert_rows(setup, prompts, texts, [-1 - unit for unit in units])
    rows.source = torch.full(rows.shape, int(Source.ANNOTATION))
    return rows, torch.tensor(chosen), torch.tensor(units)


def measure_groups(context: Any, options: RepresentationGroups, term: Any, count: int) -> Metrics:
    """How the policy ranks held-out groups, beside the reference; empty where none are set aside.

    Args:
        context: of the learner, with a model ``reference``.
        options: which groups.
        term: :class:`~rheostat.objectives.group_preference.GroupPreference`.
        count: groups.
    """
    reader = GroupReader(options, context.setup, VALIDATION_SEED, "validation")
    held_out = count if options.file is None else min(count, reader.stream.epoch)
    if not held_out:
        return {}
    taken = reader.take(held_out)
    rows, chosen, units = rows_of(context.setup, taken)
    batch = Batch(rows, {"chosen": chosen}, units)
    with torch.no_grad():
        rows.reference_logp = context.score(rows, "reference", entropy=False, count=False).logp
        found = term.groups(context.score(rows, entropy=False, count=False).logp, batch)
    return {
        "validation_preference_accuracy": (found.margin > 0).float().mean().item(),
        "validation_margin": found.margin.mean().item(),
        "validation_equivalent_variance": found.variance.mean().item(),
        "validation_equivalent_log_ratio": found.likelier.mean().item(),
    }
