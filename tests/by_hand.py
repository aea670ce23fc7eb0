"""Learners of control methods with a replay, to be looked at and moved by hand: models, options and rows by short names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rheostat.buffers.control_retainers import Draw
from rheostat.learner.off_policy import AsRead, PerStep, meter
from rheostat.options import options_of
from rheostat.parts import Batch
from rheostat.trajectories import Transitions

MODELS = {
    "actor": "policy",
    "critics": "critics",
    "targets": "target critics",
    "actor_target": "target policy",
    "values": "value",
    "thermostat": "temperature",
    "constraint": "multiplier",
    "balance": "balance",
    "balance_temperature": "balance temperature",
}
"""Short names of models, in the order of the published codes."""


def step_of(learner: Any) -> PerStep:
    """The update of gradient steps of a learner: of a method with stages, that of the present one."""
    composition = getattr(learner, "learner", learner).composition
    return next(part for part in composition.improve if isinstance(part, PerStep))


class ByHand:
    """A learner and what a test asks of it; anything else is the learner's own, or its context's."""

    def __init__(self, learner: Any) -> None:
        self.learner = learner
        self.context: Any = learner.context
        self.config = SimpleNamespace(**{each.short: each.value for each in options_of(learner.config)})

    def __getattr__(self, name: str) -> Any:
        if name in MODELS:
            return self.context.models[MODELS[name]]
        return getattr(self.learner, name) if hasattr(self.learner, name) else getattr(self.context, name)

    # --- models and stores ------------------------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Any:
        """The network that acts."""
        return self.context.models["policy"].network

    @property
    def temperature(self) -> Any:
        """The network of the temperature."""
        return self.thermostat.network

    @property
    def multiplier(self) -> Any:
        """The network of the multiplier."""
        return self.constraint.network

    @property
    def replay(self) -> Any:
        """The replay."""
        return self.context.stores["replay"]

    @property
    def data(self) -> Any:
        """The data set beside it."""
        return self.context.stores["data"]

    def parts(self) -> dict[str, Any]:
        """Everything that has parameters, by short name."""
        return {name: self.context.models[of] for name, of in MODELS.items() if of in self.context.models}

    def distribution(self, seen: Tensor) -> Any:
        """The policy, for observations as the networks read them."""
        return self.context.models["policy"].distribution(seen)

    def normalise(self, observation: Tensor) -> Tensor:
        """As the networks read it."""
        found: Tensor = self.context.see(observation)
        return found

    # --- parts ------------------------------------------------------------------------------------------------------------------------

    def part(self, kind: type) -> Any:
        """The part of a class: of the present stage, or inside its gradient steps."""
        return part_of(self.learner, kind)

    def due(self) -> int:
        """Gradient steps that are due now."""
        return int(self.part(Draw).due(self.context))

    def draw_batches(self, count: int) -> Transitions:
        """Batches, one after the other, as they are kept."""
        found: Transitions = self.part(Draw).draw(self.context, count)
        return found

    def read(self, rows: Transitions) -> Transitions:
        """Rows as the networks read them."""
        found: Transitions = self.part(AsRead)(self.context, Batch(rows)).rows
        return found

    def one_batch(self) -> Transitions:
        """A batch as a gradient step gets it, in the default dtype."""
        rows = self.read(self.draw_batches(1))
        return rows.apply(lambda x: x.to(torch.get_default_dtype()) if x.is_floating_point() else x)  # type: ignore[no-any-return]

    def credited(self, rows: Transitions) -> Batch:
        """Rows with the credit of a gradient step: its targets."""
        batch = Batch(rows)
        for annotate in step_of(self.learner).credit:
            batch = annotate(self.context, batch)
        return batch

    def target(self, rows: Transitions) -> Tensor:
        """What the critics regress on, ``[B]``."""
        return self.credited(rows).columns["target"]

    def step(self, kind: type, rows: Transitions | Batch, **facts: Any) -> dict[str, Any]:
        """One step of an update of this class alone, with facts that others leave."""
        batch = rows if isinstance(rows, Batch) else Batch(rows)
        batch.facts |= facts
        found: dict[str, Any] = self.part(kind).step(self.context, batch)
        return found

    def gradient_step(self, rows: Transitions) -> dict[str, Any]:
        """One gradient step of everything that learns; what is logged."""
        return step_of(self.learner).step(self.context, Batch(rows))

    def meter(self, rows: Transitions) -> dict[str, float]:
        """How far the policy is from whoever sampled rows as the networks read them."""
        return meter(self.context, rows)


def part_of(learner: Any, kind: type) -> Any:
    """The part of a class among those of the present stage, inside its gradient steps too."""
    composition = getattr(learner, "learner", learner).composition
    found = [*composition.parts().values()]
    for part in list(found):
        found += part.inner() if isinstance(part, PerStep) else [part.part] if hasattr(part, "part") else []
    return next(part for part in found if isinstance(part, kind))
