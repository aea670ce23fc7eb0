"""Options of fitted Q evaluation; apart from it, so that the command line can list them without loading PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.errors import RheostatError


@dataclass(frozen=True)
class FQEConfig:
    """Of the critic; its discount is that of all estimators."""

    steps: int = 20_000
    """Gradient steps at most; with a horizon, exactly these."""
    batch_size: int = 256
    """Transitions per gradient step."""
    learning_rate: float = 1e-3
    """Adam step size, of values in multiples of their expected size; a tenth of it at the end."""
    target_every: int = 50
    """Gradient steps per iteration: after them the slow copy takes over."""
    tolerance: float = 0.005
    """The fit ends when the policy's value has moved by less than this share of the expected size of values over ten iterations."""
    horizon: int | None = None
    """Steps that count; None for ever, also beyond time limits."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden layers of the critic."""
    gamma: float = 0.99
    """Discount per step, of all estimators."""
    draws: int = 4
    """Actions per state where the policy's value is the mean over its actions (doubly robust)."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "target_every", "draws"):
            if getattr(self, name) < 1:
                raise RheostatError(f"{name} is {getattr(self, name)}: it must be at least 1.")
        if not 0 <= self.gamma <= 1 or not self.tolerance > 0:
            raise RheostatError(f"gamma {self.gamma:g} lies between 0 and 1, and tolerance {self.tolerance:g} above 0.")
        if self.horizon is not None and not 1 <= self.horizon <= self.steps:
            raise RheostatError(f"horizon is {self.horizon}: it needs at least 1 step, and one gradient step each of the {self.steps:,}.")
