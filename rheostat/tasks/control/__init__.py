"""Control: environments of any backend as one stream of rows, probes with known answers, and small tabular worlds."""

from rheostat.tasks.control.environments import Environments, Step, known_tasks, make
from rheostat.tasks.control.registration import register

__all__ = ["Environments", "Step", "known_tasks", "make", "register"]
