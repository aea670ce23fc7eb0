"""Base class of learners: the training loop over the four questions, the interface that runs use, and the state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from rheostat.learner.compute import Compute
from rheostat.parts import Batch, Metrics


class RunningMethod(ABC):
    """A method's parts, bound to the models and data of a run.

    Args:
        config: the method's dataclass object, for whoever asks.
        composition: its parts, or its stages.
        context: what they share.
    """

    def __init__(self, config: Any, composition: Any, context: Any) -> None:
        self.config, self.composition, self.context = config, composition, context

    def bind_models(self) -> None:
        """Bind every model once, in order, with the weights that the run begins with; models that are bound already (stages share them)
        stays as it is.

        Raises:
            RheostatError: those are the weights of other networks.
        """
        new = {name: model for name, model in self.composition.models.items() if self.context.models.get(name) is not model}
        weights = self.context.begins_with
        if weights is not None and new:
            weights.give_statistics(self.context.stores)
        for name, model in new.items():
            self.context.models[name] = model
            model.bind(self.context, name)
            if weights is not None:
                weights.give(name, model)
        if weights is not None and new:
            weights.require(self.context.deployed)

    # --- the four questions -----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def collect(self) -> Batch:
        """WHO ACTS?"""

    @abstractmethod
    def retain(self, batch: Batch) -> Batch:
        """WHAT IS KEPT?"""

    @abstractmethod
    def credit(self, batch: Batch) -> Batch:
        """WHAT IS IT WORTH?"""

    @abstractmethod
    def improve(self, batch: Batch) -> Metrics:
        """HOW DOES THE POLICY MOVE?"""

    def turn(self) -> Metrics:
        """Run one turn of the training loop; returns metrics."""
        self.context.ended = ""
        return self.improve(self.credit(self.retain(self.collect())))

    def begin(self) -> Metrics:
        """The evaluation before the first turn; empty where there is none."""
        return dict(self.context.begin())

    # --- what a run asks --------------------------------------------------------------------------------------------------------------

    @property
    def unit(self) -> str:
        """Unit of the budget."""
        return str(self.context.unit)

    @property
    def steps(self) -> int:
        """How much of the budget has been used."""
        return int(self.context.steps)

    @property
    def updates(self) -> int:
        """How many times the deployed policy has been improved."""
        return int(self.context.updates)

    @property
    def ended(self) -> str:
        """Why the method itself ends the run after this turn; empty where it does not."""
        return str(self.context.ended)

    @property
    def policy(self) -> Any:
        """The learned policy."""
        return self.context.policy

    @property
    def arithmetic(self) -> dict[str, int | str]:
        """Numbers derived from the budget and the machine, and where data come from, for printing."""
        return ({} if self.compute is None else self.compute.describe()) | getattr(self.context, "origin", {})

    @property
    def compute(self) -> Compute | None:
        """Who makes the gradient steps; None for language models, where it is always PyTorch."""
        return getattr(self.context, "compute", None)

    @property
    def measured(self) -> Metrics:
        """The evaluation of the last turn; empty where none was due."""
        return dict(self.context.measured)

    def evaluate(self, episodes: int) -> Metrics:
        """Measure the deployed policy with random streams of its own; never changes training."""
        return dict(self.context.evaluate(episodes))

    def rollouts(self, count: int) -> list[dict[str, Any]]:
        """The latest samples, for inspection; at most about ``count`` rows, empty where there is no text."""
        return list(self.context.rollouts(count))

    def restart_episodes(self) -> None:
        """Begin new episodes; called after loading where environments could not be restored."""
        self.context.restart_episodes()

    # --- state ------------------------------------------------------------------------------------------------------------------------

    def _remembering(self) -> dict[str, Any]:
        """Every object with state, once, by name."""
        found: dict[str, Any] = {"context": self.context}
        found |= {f"models.{name}": model for name, model in self.context.models.items()}
        found |= {f"stores.{name}": store for name, store in self.context.stores.items()}
        found |= self.composition.parts()
        seen: set[int] = set()
        chosen: dict[str, Any] = {}
        for name, each in found.items():
            if hasattr(each, "state_dict") and id(each) not in seen:
                seen.add(id(each))
                chosen[name] = each
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """Models, stores, parts and counters, by name."""
        return {name: each.state_dict() for name, each in self._remembering().items()}

    def acting_state(self) -> dict[str, Any]:
        """The part of the state that the policy needs to act: models, statistics and counters, without data."""
        return {name: each.state_dict() for name, each in self._remembering().items() if _acts(name)}

    def load_acting_state(self, state: dict[str, Any]) -> None:
        """Load the state that ``acting_state`` returned."""
        for name, each in self._remembering().items():
            if _acts(name):
                each.load_state_dict(state[name])
        self.context.after_load()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken."""
        for name, each in self._remembering().items():
            each.load_state_dict(state[name])
        self.context.after_load()

    def close(self) -> None:
        """Release environments, graders and models."""
        self.context.close()


def _acts(name: str) -> bool:
    """Whether the policy needs the object of this name to act."""
    return name.startswith("models.") or name in ("context", "stores.observations")
