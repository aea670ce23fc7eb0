"""Weights of a data set's actions in imitation, as parts with options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from rheostat.objectives.weights import batch_exponential_weight, exponential_weight, family_weight
from rheostat.options import option
from rheostat.parts import Batch


@dataclass(frozen=True)
class AdvantageWeights:
    """Weights of the data's actions."""

    temperature: float = option(1 / 3, short="advantage_temperature", above=0)
    """lambda, in units of value: small values imitate only the best actions, large ones the whole data."""
    form: Literal["capped", "normalised"] = option("capped", short="weights")
    """Weights of the data's actions have a cap, or are divided by their mean over the batch (the authors)."""
    cap: float = option(100.0, short="weight_cap", above=0)
    """Largest weight of an action of the data; of normalised ones, what the log counts as capped."""

    def __call__(self, context: Any, batch: Batch, advantage: Tensor) -> Tensor:
        """Weights ``[B]``, constants, of advantages ``[B]`` in units of value."""
        scale = 1 / self.temperature
        if self.form == "normalised":
            return batch_exponential_weight(advantage, scale)
        return exponential_weight(advantage, scale, self.cap)


@dataclass(frozen=True)
class ImitationWeights:
    """Weights of the data's actions."""

    inverse_temperature: float = option(3.0, at_least=0)
    """beta, in 1 / units of value: 0 imitates the data, large values only their best actions."""
    cap: float = option(100.0, short="weight_cap", above=0)
    """Largest weight of an action of the data."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that have no effect, and why."""
        why = "inverse_temperature 0 weighs every action alike, so leave weight_cap alone"
        return {} if self.inverse_temperature else {"cap": why}

    def __call__(self, context: Any, batch: Batch, advantage: Tensor) -> Tensor:
        """Weights ``[B]``, constants, of advantages ``[B]`` in units of value."""
        return exponential_weight(advantage, self.inverse_temperature, self.cap)


@dataclass(frozen=True)
class FamilyWeights:
    """Weights of the data's actions, by every row's own coefficient."""

    cap: float = option(100.0, short="weight_cap", above=0)
    """Largest weight of an action of the data."""
    released_broadcast: bool = option(False)
    """Weight every row by the batch's mean over coefficients, as the authors' code does."""
    reads: ClassVar[tuple[str, ...]] = ("coefficient",)

    def __call__(self, context: Any, batch: Batch, advantage: Tensor) -> Tensor:
        """Weights ``[B]``, constants, of advantages ``[B]`` in units of value."""
        return family_weight(advantage, batch.columns["coefficient"], self.cap, broadcast=self.released_broadcast)
