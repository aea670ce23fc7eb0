"""Control: environments of any backend as one stream of rows, probes with known answers, and small tabular MDPs.

The parts are imported when they are first used, so that listing the tasks does not load PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rheostat.tasks.control.environments import Environments, Step, make
    from rheostat.tasks.control.registration import known_tasks, register

__all__ = ["Environments", "Step", "known_tasks", "make", "register"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rheostat.tasks.control import registration

    if hasattr(registration, name):
        return getattr(registration, name)
    from rheostat.tasks.control import environments

    return getattr(environments, name)
