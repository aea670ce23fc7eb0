"""Rheostat: train policies with any mixture of on-policy and off-policy data, and measure which mixture pays.

    import rheostat
    run = rheostat.train("props", "Hopper-v5", seed=0, steps=100_000)
    run.plot()
    action = run.policy(observation)

The parts are imported when they are first used, so that ``import rheostat`` is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rheostat.api import (
        Callback,
        Recipe,
        Stage,
        boundary,
        compare,
        corpus,
        disagree,
        load,
        load_network,
        make_dataset,
        methods,
        microscope,
        resume,
        save,
        show,
        study,
        sweep,
        train,
        train_recipe,
    )

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "Recipe",
    "Stage",
    "boundary",
    "compare",
    "corpus",
    "disagree",
    "load",
    "load_network",
    "make_dataset",
    "methods",
    "microscope",
    "resume",
    "save",
    "show",
    "study",
    "sweep",
    "train",
    "train_recipe",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from rheostat import api

        return getattr(api, name)
    raise AttributeError(f"module 'rheostat' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
