"""Replaying a run's frozen batch through several methods, and the result as an object."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.credit.group_advantages import informative_groups
from rheostat.diagnostics.disagreement import similarity as measures
from rheostat.diagnostics.disagreement.batch_replay import Replay, replay
from rheostat.diagnostics.disagreement.batch_snapshot import Frozen, freeze
from rheostat.diagnostics.disagreement.method_specs import read_specs, require_domain
from rheostat.errors import RheostatError, unknown
from rheostat.methods import table
from rheostat.objectives.meter import off_policyness
from rheostat.training.progress import Bar
from rheostat.trajectories import Source

Matrix = list[list[float | None]]
STRETCH = 40
"""Tokens of a rollout that are shown at most."""
OFTEN = 5
"""Kinds of tokens that are named at most."""


@dataclass(frozen=True)
class Row:
    """One method."""

    name: str
    """Its name as requested."""
    method: str
    settings: dict[str, Any]
    """Its options that differ from the defaults."""
    gradient_norm: float
    """Of the policy's parameters, before its norm is clipped."""
    elsewhere: float | None
    """Share of the gradient's norm that does not come through log-probabilities: entropy bonus, a critic that shares weights."""
    tokens: measures.Tokens
    mostly: dict[str, int]
    """The tokens (or discrete actions) that the clip cuts most often, and how often."""
    stopped: bool
    """The method ended the update before this step."""
    added: int
    """Rows of its own that the method learns from in addition to the batch."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Shown:
    """A stretch of one rollout, token by token: where the methods disagree most.

    Attributes:
        row: of the batch.
        first: number of its first token shown.
        total: tokens of the whole rollout.
        prompt: its prompt, or a description.
        reward: of the whole rollout (in control of the whole row).
        source: its source.
        tokens: as text.
        weights: by method, ``-d loss / d log pi`` of every token.
        states: by method, one of ``up``, ``down``, ``clipped``, ``idle``, ``left out`` for every token.
    """

    row: int
    first: int
    total: int
    prompt: str
    reward: float
    source: str
    tokens: list[str]
    weights: dict[str, list[float]]
    states: dict[str, list[str]]


@dataclass(frozen=True)
class Disagreement:
    """The results of several methods on the same batch.

    Attributes:
        facts: of the run, the batch, how far off-policy it is, and the distance that the policy was moved.
        rows: one per method, in the requested order.
        cosines: of the gradients, ``[methods][methods]``; None where a gradient is 0.
        signs: share of tokens whose weights differ in sign; one that moves while the other does not counts.
        opposed: share of tokens that one makes more likely and the other less.
        distances: 1 - cosine of the weights over all tokens, in [0, 2]; None where all weights are 0.
        shown: the most disputed rollouts.
        notes: warnings for readers, one sentence each.
        tensors: ``mask`` ``[B, T]``, ``action``, and ``weight/NAME``, ``clipped/NAME``, ``kept/NAME`` over the ``n`` tokens of the mask.
    """

    facts: dict[str, Any]
    rows: list[Row]
    cosines: Matrix
    signs: Matrix
    opposed: Matrix
    distances: Matrix
    shown: list[Shown]
    notes: list[str]
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Row:
        """The row of this name."""
        return self.rows[self._place(name)]

    def _place(self, name: str) -> int:
        names = [row.name for row in self.rows]
        if name not in names:
            raise unknown("row", name, names)
        return names.index(name)

    def cosine(self, one: str, other: str) -> float | None:
        """Cosine of the gradients of two methods."""
        return self.cosines[self._place(one)][self._place(other)]

    def weight(self, name: str) -> Tensor:
        """Weight of every token under a method, float64 ``[n]``."""
        return self.tensors[f"weight/{self.rows[self._place(name)].name}"]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; the numbers of single tokens are there for the rollouts shown."""
        return {
            "facts": self.facts,
            "methods": [row.to_json() for row in self.rows],
            "cosines": self.cosines,
            "signs_differ": self.signs,
            "opposed": self.opposed,
            "distances": self.distances,
            "rollouts": [asdict(one) for one in self.shown],
            "notes": self.notes,
        }


def disagree(
    run: str | Path,
    methods: Sequence[str],
    *,
    update: int | None = None,
    steps: int = 0,
    rows: int = 2,
    task: Any = None,
    policy: Any = None,
    progress: bool = False,
    **options: Any,
) -> Disagreement:
    """Freeze the batch that a run would learn from next, and replay it through several methods.

    Every method starts from the run's policy and gets the same rows; its own ``retain``, ``credit`` and ``improve`` make one gradient step
    of the whole batch. The comparison is between the gradients that the optimisers would receive, and the weights of every token in them.

    Args:
        run: directory of a run, finished or stopped. It is only read.
        methods: at least two names of one domain, each perhaps with settings: ``grpo:clip_high=0.28,kl_coefficient=0``. The run's own
            method has the run's settings, any other its defaults.
        update: open the run at the checkpoint after so many policy updates; None takes the newest.
        steps: steps of the run's own method on the batch, with its own optimiser and learning rate, before the gradient is computed: the
            ratio to the start of the update is then not 1, and clips act.
        rows: rollouts shown, the most disputed ones.
        task, policy: for runs on Python objects, as in :func:`rheostat.load`.
        progress: show the progress of the replay.
        options: settings for every method.

    Raises:
        RheostatError: no run or checkpoint there, fewer than two methods, methods that cannot replay this batch, or numbers out of range.
    """
    if isinstance(methods, str):
        raise RheostatError(f"methods is the text {methods!r}: give a list of names.")
    specs = read_specs(methods, options)
    for name, number, least in (("steps", steps, 0), ("rows", rows, 1)):
        if number < least:
            raise RheostatError(f"--{name} is {number}: it must be at least {least}.")
    threads, began = torch.get_num_threads(), time.monotonic()
    bar = Bar("disagree") if progress else None
    if bar:
        bar.start(0, len(specs), "methods")
    frozen: Frozen | None = None
    try:
        frozen = freeze(run, update=update, steps=steps, task=task, policy=policy)
        require_domain(specs, frozen.run.settings)
        replays = []
        for number, spec in enumerate(specs, 1):
            if bar:
                bar.view.title = f"disagree {spec.label}"
            replays.append(replay(spec, frozen))
            if bar:
                bar.update(number, {})
        return _summarise(replays, frozen, steps, rows, time.monotonic() - began)
    finally:
        torch.set_num_threads(threads)
        if bar:
            bar.stop()
        if frozen is not None:
            frozen.run.close()


def _summarise(replays: Sequence[Replay], frozen: Frozen, steps: int, rows: int, seconds: float) -> Disagreement:
    mask = frozen.rows.mask
    weights = [measures.without_rounding(one.weight) for one in replays]
    described = [
        measures.describe_tokens(weight, clipped=one.clipped, kept=one.kept, advantage=one.advantage)
        for one, weight in zip(replays, weights, strict=True)
    ]
    found = []
    for one, tokens in zip(replays, described, strict=True):
        norm = float(one.gradient.double().norm())
        elsewhere = float((one.gradient - one.through_tokens).double().norm()) / norm if norm > measures.NOTHING else None
        norm = norm if norm > measures.NOTHING else 0.0
        mostly = _mostly(frozen, one.clipped)
        found.append(Row(one.spec.label, one.spec.method, one.spec.settings, norm, elsewhere, tokens, mostly, one.stopped, one.added))

    def matrix(measure: Any, values: Sequence[Tensor]) -> Matrix:
        return [[measure(a, b) for b in values] for a in values]

    facts = _facts(frozen, steps) | {"seconds": round(seconds, 1)}
    tensors = {"mask": mask, "action": frozen.rows.action}
    for one, weight in zip(replays, weights, strict=True):
        name = one.spec.label
        tensors |= {f"weight/{name}": weight, f"clipped/{name}": one.clipped, f"kept/{name}": one.kept}
    return Disagreement(
        facts=facts,
        rows=found,
        cosines=matrix(lambda a, b: measures.cosine(a, b, nothing=measures.NOTHING), [one.gradient for one in replays]),
        signs=matrix(measures.signs_differ, weights),
        opposed=matrix(measures.opposed, weights),
        distances=matrix(measures.distance, weights),
        shown=_shown(replays, weights, frozen, rows),
        notes=_notes(found, facts),
        tensors=tensors,
    )


def _facts(frozen: Frozen, steps: int) -> dict[str, Any]:
    """Facts of the run and the batch."""
    run, rows, mask = frozen.run, frozen.rows, frozen.rows.mask
    source, version = rows.source[mask], rows.version[mask]
    age = torch.where((source == int(Source.EXPERT)) | (version < 0), -1, frozen.update - version)
    meter = off_policyness(frozen.learner_logp.float(), rows.sampler_logp[mask], age=age, source=source)
    moved = (frozen.moved_logp - frozen.learner_logp).double()
    facts: dict[str, Any] = {
        "run": str(run.directory),
        "method": run.settings.method,
        "task": run.settings.task,
        "domain": table.entry(run.settings.method).domain,
        "update": frozen.update,
        "steps": steps,
        "kl_moved": float((moved.exp() - 1 - moved).mean()),
        "rows": len(rows),
        "tokens": int(mask.sum()),
    }
    if facts["domain"] == "language":
        group = rows.group[:, 0]
        kept = informative_groups(rows.reward.sum(1), group, valid=rows.valid[:, 0])
        facts |= {"groups": len(group.unique()), "informative_groups": len(group[kept].unique())}
        facts |= {"reward": rows.reward.sum(1)[rows.valid[:, 0]].mean().item()}
    return facts | {name.removeprefix("meter/"): value for name, value in meter.items() if name.count("/") == 1}


def _notes(rows: Sequence[Row], facts: dict[str, Any]) -> list[str]:
    """Warnings for readers."""
    notes = []
    still = [row.name for row in rows if row.gradient_norm == 0]
    if facts.get("informative_groups") == 0:
        notes.append(
            f"In none of the {facts['groups']} groups of this batch do rewards differ, so what is relative to a group carries no signal: "
            "look at another update, or at a task that is sometimes solved."
        )
    if still:
        notes.append(f"The gradient of {', '.join(still)} is 0, so it has no direction: its cosines are undefined (–).")
    for row in rows:
        if row.stopped:
            notes.append(f"{row.name} ends the update before this step (target_kl).")
        if row.added:
            notes.append(f"{row.name} learns from {row.added} rows of its own beside the batch; they are in its gradient and in no share.")
        if row.elsewhere is not None and row.elsewhere > 1e-3:
            notes.append(
                f"{row.elsewhere:.0%} of the norm of {row.name}'s gradient does not come through log-probabilities: an entropy bonus, or a "
                "critic that shares the policy's weights."
            )
    if facts["steps"] and facts["kl_moved"] < 1e-9:
        notes.append("The run's own method did not move the policy on this batch, so every ratio to the start of the update is still 1.")
    return notes


def _shown(replays: Sequence[Replay], weights: Sequence[Tensor], frozen: Frozen, rows: int) -> list[Shown]:
    """The most disputed stretches."""
    batch, mask = frozen.rows, frozen.rows.mask
    starts = torch.cat([torch.zeros(1, dtype=torch.long), mask.sum(1).cumsum(0)])
    found = []
    for row, first, end in measures.most_disputed(torch.stack(list(weights)), mask, rows, STRETCH):
        places = slice(int(starts[row]) + first, int(starts[row]) + end)
        actions = batch.action[row][mask[row]][first:end]
        found.append(
            Shown(
                row=row,
                first=first,
                total=int(mask[row].sum()),
                prompt=_prompt(frozen, row),
                reward=round(batch.reward[row][mask[row]].sum().item(), 6),
                source=Source(int(batch.source[row][mask[row]][first])).name.lower(),
                tokens=_texts(frozen, actions),
                weights={one.spec.label: weight[places].tolist() for one, weight in zip(replays, weights, strict=True)},
                states={one.spec.label: _states(one, weight, places) for one, weight in zip(replays, weights, strict=True)},
            )
        )
    return found


def _mostly(frozen: Frozen, clipped: Tensor) -> dict[str, int]:
    """The most frequent ones among what is clipped, at most :data:`OFTEN`."""
    actions = frozen.rows.action[frozen.rows.mask][clipped]
    if actions.is_floating_point() or actions.dim() > 1 or not len(actions):
        return {}
    kinds, counts = actions.unique(return_counts=True)
    order = counts.argsort(descending=True, stable=True)[:OFTEN]
    return dict(zip(_texts(frozen, kinds[order]), counts[order].tolist(), strict=True))


def _states(one: Replay, weight: Tensor, places: slice) -> list[str]:
    triples = zip(weight[places].tolist(), one.clipped[places].tolist(), one.kept[places].tolist(), strict=True)
    return [
        "left out" if not kept else "clipped" if clipped else "up" if value > 0 else "down" if value < 0 else "idle"
        for value, clipped, kept in triples
    ]


def _prompt(frozen: Frozen, row: int) -> str:
    batch = frozen.rows
    if batch.attention is None:
        return f"environment {row}"
    begun = int(batch.mask[row].nonzero()[0])
    return frozen.run.method.policy.tokenizer.decode(batch.action[row, :begun][batch.attention[row, :begun]].tolist())


def _texts(frozen: Frozen, actions: Tensor) -> list[str]:
    if frozen.rows.attention is not None:
        return [frozen.run.method.policy.tokenizer.decode([token]) for token in actions.tolist()]
    if actions.is_floating_point() or actions.dim() > 1:
        return [""] * len(actions)  # no space for several numbers
    return [str(action) for action in actions.tolist()]
