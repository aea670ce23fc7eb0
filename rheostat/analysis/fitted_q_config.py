"""Options of fitted Q evaluation; in a module of their own, so that the command line can list them without loading PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.errors import RheostatError
from rheostat.options import check_fields, option


@dataclass(frozen=True)
class FQEConfig:
    """Of the critic; its discount is that of all estimators."""

    steps: int = option(20_000, at_least=1)
    """Gradient steps at most; with a horizon, exactly these."""
    batch_size: int = option(256, at_least=1)
    """Transitions per gradient step."""
    learning_rate: float = option(1e-3, above=0)
    """Adam step size, of values in multiples of their expected size; a tenth of it at the end."""
    target_every: int = option(50, at_least=1)
    """Gradient steps per iteration: after them the slow copy takes over."""
    tolerance: float = option(0.005, above=0)
    """The fit ends when the policy's value has moved by less than this share of the expected size of values over ten iterations."""
    horizon: int | None = option(None, at_least=1)
    """Steps that count; None for ever, also beyond time limits."""
    hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of the critic."""
    gamma: float = option(0.99, share=True)
    """Discount per step, of all estimators."""
    draws: int = option(4, at_least=1)
    """Actions per state where the policy's value is the mean over its actions (doubly robust)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.horizon is not None and self.horizon > self.steps:
            raise RheostatError(f"horizon is {self.horizon}: it needs one gradient step each of the {self.steps:,}.")
