"""The plain side of a training run: the gradient of a plain loss at the weights that every step began with, and AdamW by hand.

Everything is float64, so that what differs is the rounding of the training path alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rheostat.trajectories import Source
from tests.plain import flow
from tests.plain.real_path import GradientStep, Turn, Watch, Weights, trained
from tests.plain.rows import Row, appraise, distributions, speak, vocabulary

ROUNDING = 1e-5
"""Largest difference that is called rounding: of two log-probabilities, of two weights, of two gradients in the largest entry of one."""

Loss = Callable[["World", list[Row]], Tensor]


@dataclass(frozen=True, eq=False)
class Case:
    """A method with settings, and the plain loss that it must descend."""

    name: str
    method: str
    loss: Loss
    options: dict[str, Any] = field(default_factory=dict)
    sees: frozenset[str] = frozenset()
    """What must have happened for the case to say anything: clips that acted, stale rows, an expert's."""
    turns: int = 1
    task: Callable[[], Any] | None = None
    kept: Callable[[World, Row], bool] = lambda world, row: row.valid
    """Whether a row is learned from."""
    reward_loss: Loss | None = None
    """Of the reward model, where there is one."""
    flow_loss: Loss | None = None
    """Of the flow field, where there is one."""
    refresh: int | None = None
    """The update after which the base model is taken anew."""

    def __str__(self) -> str:
        return self.name

    @property
    def temperature(self) -> float:
        """Of the sampler."""
        return float(self.options.get("temperature", 1.0))

    @property
    def layers(self) -> tuple[int, ...]:
        """Whose outputs are latents: the model has one."""
        return (0,)

    @property
    def top_k(self) -> int:
        """Of the sampler."""
        return int(self.options.get("top_k", 0))


class World:
    """What plain losses may ask in one gradient step.

    Attributes:
        batch: every row of the turn.
        update: number of the turn, from 0.
        longest: tokens that a completion may have.
        seen: what has happened, in words.
    """

    def __init__(self, case: Case, networks: dict[str, Any], longest: int) -> None:
        self.case, self.networks, self.longest = case, networks, longest
        self.network, self.judge = networks["policy"], networks.get("reward")
        self.batch: list[Row] = []
        self.start: Weights = []
        self.starts: list[Weights] = []
        self.update = 0
        self.seen: set[str] = set()
        self._weights: dict[str, Weights] = {}
        self._said: dict[Row, tuple[Tensor, Tensor]] = {}

    def begin(self, turn: Turn, update: int) -> None:
        """A new turn."""
        self.batch, self.start, self.update = turn.rows, turn.start["policy"], update

    def at(self, weights: Weights, model: str = "policy") -> None:
        """The weights of a model from now on."""
        if self._weights.get(model) is weights:
            return
        self._weights[model] = weights
        parameters = [parameter for parameter in self.networks[model].parameters() if parameter.requires_grad]
        with torch.no_grad():
            for parameter, value in zip(parameters, weights, strict=True):
                parameter.copy_(value)
        if model == "policy":
            self._said = {}

    def speak(self, row: Row) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of a row's chosen tokens under the present weights."""
        if row not in self._said:
            self._said[row] = speak(self.network.causal, row, self.case.temperature, self.case.top_k)
        return self._said[row]

    def now(self, row: Row) -> Tensor:
        """Log-probabilities alone."""
        return self.speak(row)[0]

    def at_first(self, row: Row) -> list[list[float]]:
        """Probabilities of the whole vocabulary at a row's chosen tokens, under the policy when this update began."""
        self.at(self.start, "past")
        return distributions(self.networks["past"].causal, row)

    def at_sampling(self, row: Row) -> list[list[float]]:
        """The same under the policy that sampled the row."""
        self.at(self.starts[row.version], "past")
        return distributions(self.networks["past"].causal, row)

    def every(self, row: Row) -> Tensor:
        """Log-probabilities of the whole vocabulary now, ``[n, V]``."""
        return vocabulary(self.network.causal, row)

    def values(self, row: Row) -> Tensor:
        """A critic's values before a row's chosen tokens."""
        return appraise(self.network.causal, self.network.value_head.linear, row)[0]

    def deviations(self, row: Row, number: int) -> Tensor:
        """A flow field's squared errors at a row's chosen tokens, ``[tokens, times]``: for the reward (0), or in a pass of its update."""
        pre, times = self.case.options.get("flow_pairing") == "token-pre", self.case.options.get("flow_times", (0.8,))
        seed = row.facts["flow_seed"] + number
        return flow.deviations(self.networks["flow"], row, 1, self.case.layers, seed=seed, times=times, pre=pre)

    def kept(self) -> list[Row]:
        """Rows of the batch that are learned from."""
        return [row for row in self.batch if self.case.kept(self, row)]


def follow(case: Case, watch: Watch) -> tuple[list[Weights], set[str]]:
    """The plain gradient of every gradient step of a run, in order, and what was seen on the way.

    Raises:
        AssertionError: the run made other steps, or a sampler's log-probabilities are not those of the weights it had.
    """
    method = watch.method
    networks = {name: copy.deepcopy(model.network).double() for name, model in trained(method).items()}
    networks["past"] = copy.deepcopy(networks["policy"])
    world = World(case, networks, method.context.longest)
    found: list[Weights] = []
    for update, turn in enumerate(watch.turns):
        world.begin(turn, update)
        look_back(world, watch.turns, update)
        plan = list(steps_of(world, turn, method))
        assert [name for name, _ in plan] == [step.model for step in turn.steps]
        for (name, rows), step in zip(plan, turn.steps, strict=True):
            world.at(step.before, name)
            loss = {"policy": case.loss, "reward": case.reward_loss, "flow": case.flow_loss}[name]
            assert loss is not None
            found.append(gradient(loss(world, rows), networks[name]))
    return found, world.seen


def gradient(loss: Tensor, network: Any) -> Weights:
    """Of a loss by what is trained of a network, 0 where it plays no part."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def look_back(world: World, turns: list[Turn], update: int) -> None:
    """Tell the rows of a turn what earlier policies say of them, and hold the sampler's word against the weights it had."""
    case, rows = world.case, [row for row in world.batch if len(row)]
    starts = world.starts = [turn.start["policy"] for turn in turns[: update + 1]]
    base = case.refresh if case.refresh is not None and update >= case.refresh else 0
    times = {"old": update, "reference": base, "previous": max(0, update - 1)}
    said: dict[tuple[int, Row], list[float]] = {}

    def recall(when: str | int, row: Row) -> list[float]:
        turn = times[when] if isinstance(when, str) else when
        if (turn, row) not in said:
            world.at(starts[turn], "past")
            with torch.no_grad():
                said[turn, row] = speak(world.networks["past"].causal, row, case.temperature, case.top_k)[0].tolist()
        return said[turn, row]

    for row in rows:
        row.__dict__ = {name: value for name, value in row.__dict__.items() if name not in times}
        row.recall = recall
        if row.version >= 0:
            plain = recall(row.version, row)
            assert max(abs(a - b) for a, b in zip(plain, row.sampled, strict=True)) < ROUNDING
            row.sampled = plain
        if row.source == Source.REPLAY:
            assert row.version < update and any(same(row, other) for other in turns[row.version].rows)
    with torch.no_grad():
        if getattr(world.network, "value_head", None) is not None:
            world.at(starts[update])
            for row in rows:
                row.facts["valued"] = [each.tolist() for each in appraise(world.network.causal, world.network.value_head.linear, row)]
        if world.judge is not None:
            world.at(turns[update].start["reward"], "reward")
            for row in rows:
                row.facts["judged"] = judged(world.judge, row)
        if "flow" in world.networks:
            world.at(starts[update], "past")
            world.at(turns[update].start["flow"], "flow")
            for row in rows:
                row.facts["latents"] = flow.latents(world.networks["past"].causal, row, case.layers)
                row.facts["deviations"] = world.deviations(row, 0).tolist()
    world.seen |= {f"source {row.source.name.lower()}" for row in world.kept() if len(row)}
    world.seen |= {"an invalid row" for row in rows if not row.valid} | {"a row that was cut" for row in rows if row.cut}
    world.seen |= {"a stale sampler" for row in rows if 0 <= row.version < update}
    world.seen |= {"rows of different lengths" for row in rows if len(row) != len(rows[0])}


def same(row: Row, other: Row) -> bool:
    """Whether two rows are one that came again."""
    return (row.ids, row.places, row.reward, row.group) == (other.ids, other.places, other.reward, other.group)


def judged(network: Any, row: Row) -> Any:
    """What a reward model says of a row: values before and after every token, or log-probabilities of its own."""
    if hasattr(network, "head"):
        return [each.tolist() for each in appraise(network.body.causal, network.head.linear, row)]
    return speak(network.causal, row)[0].tolist()


def steps_of(world: World, turn: Turn, method: Any) -> Iterator[tuple[str, list[Row]]]:
    """The rows of every gradient step of a turn, model by model."""
    config = method.config
    rows = [row for row in world.kept() if len(row)]
    if "reward" in turn.start:
        for _ in range(config.reward_model.passes):
            yield "reward", rows
    chance = torch.Generator()
    chance.set_state(turn.chance)
    if "flow" in turn.start:
        right = [row for row in rows if row.reward >= 1 and row.facts["deviations"]]
        for _ in range(config.online.passes if right else 0):
            yield from (("flow", part) for part in cut(right, config.update.minibatches, chance))
    epochs, parts = config.update.epochs, config.update.minibatches
    if config.dial.updates_per_batch is not None:
        epochs, parts = max(1, config.dial.updates_per_batch), 1
    for _ in range(epochs if rows else 0):
        yield from (("policy", part) for part in cut(rows, parts, chance))


def cut(rows: list[Row], parts: int, chance: torch.Generator) -> Iterator[list[Row]]:
    """Minibatches of one pass; pairs stay together."""
    if parts == 1:
        yield rows
        return
    paired = rows[0].unit is not None
    units = sorted({row.unit for row in rows}) if paired else list(range(len(rows)))
    order = [units[index] for index in torch.randperm(len(units), generator=chance).tolist()]
    parts = min(parts, len(units))
    for part in range(parts):
        size = len(units) // parts + (part < len(units) % parts)
        chosen, order = order[:size], order[size:]
        yield [row for row in rows if row.unit in chosen] if paired else [rows[place] for place in chosen]


def difference(plain: Weights, real: Weights) -> tuple[float, float]:
    """Largest difference of two gradients, and the largest entry of the first."""
    pairs = zip(plain, real, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs), max(float(each.abs().max()) for each in plain)


def departure(plain: list[Weights], steps: list[GradientStep]) -> str:
    """Where the gradients of a run, or of its beginning, first leave the plain ones, in words; empty where they never do."""
    if len(plain) < len(steps):
        return f"{len(steps)} gradient steps, not {len(plain)}"
    for number, (mine, step) in enumerate(zip(plain, steps, strict=False), 1):
        gap, size = difference(mine, step.gradient)
        if not gap <= ROUNDING * size:
            return f"gradient step {number} ({step.model}): {gap:.2g} from a gradient whose largest entry is {size:.2g}"
    return ""


def adamw(steps: list[GradientStep], network: Any, *, decay: float, limit: float) -> float:
    """Every step of AdamW by hand (Loshchilov and Hutter 2019, algorithm 2), from the raw gradients; the largest difference of a weight.

    Args:
        steps: of one model.
        network: whose matrices are decayed.
        decay: its weight.
        limit: of the gradient's norm.
    """
    matrices = [each.dim() >= 2 for each in network.parameters() if each.requires_grad]
    mean = [torch.zeros_like(each).double() for each in steps[0].before]
    square = [torch.zeros_like(each) for each in mean]
    worst = 0.0
    for count, step in enumerate(steps, 1):
        norm = math.sqrt(sum(float((each.double() ** 2).sum()) for each in step.gradient))
        scale = min(1.0, limit / (norm + 1e-6))
        for place, (before, raw, after) in enumerate(zip(step.before, step.gradient, step.after, strict=True)):
            slope = raw.double() * scale
            mean[place] = 0.9 * mean[place] + 0.1 * slope
            square[place] = 0.999 * square[place] + 0.001 * slope**2
            direction = mean[place] / (1 - 0.9**count) / ((square[place] / (1 - 0.999**count)).sqrt() + 1e-8)
            moved = before.double() * (1 - step.rate * decay * matrices[place]) - step.rate * direction
            worst = max(worst, float((moved - after).abs().max()))
    return worst
