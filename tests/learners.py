"""Looking into learners: one batch up to its update, plain gradient descent, the parts of an update."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.learner.update import Update
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient
from rheostat.parts import Batch


def credited(one: Any) -> Batch:
    """A batch as the update receives it."""
    return one.credit(one.retain(one.collect()))


def update_of(one: Any) -> Any:
    """The part that makes the gradient steps of the policy."""
    return one.composition.update_of()


def with_update(one: Any, **changes: Any) -> None:
    """Change fields of the part that makes the gradient steps."""
    one.composition.improve = [replace(part, **changes) if isinstance(part, Update) else part for part in one.composition.improve]


def step_plainly(one: Any, rate: float) -> None:
    """Plain gradient descent in the place of the optimiser, with this step size."""
    one.context.models["policy"].optimizer = torch.optim.SGD(one.policy.parameters(), lr=rate)
    with_update(one, learning_rate=rate, warmup=0)


def weights(policy: Any) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([parameter.detach().flatten().clone() for parameter in policy.parameters()])


def losses(one: Any, batch: Batch, of: Batch | None = None) -> tuple[Any, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Scores, loss, sums and means of some rows under the present weights, relative to the denominators of a whole gradient step.

    Args:
        one: the learner.
        batch: the rows.
        of: the rows of the whole step; None: the same.
    """
    update = update_of(one)
    denominators = [each.term.denominator(batch if of is None else of, one.context) for each in update.terms]
    scores = one.context.score(batch.rows)
    loss, sums, means, _ = update.losses(one.context, scores, batch, denominators)
    return scores, loss, sums, means


def policy_losses(monkeypatch: pytest.MonkeyPatch, module: str = "rheostat.objectives.terms") -> list[PolicyLoss]:
    """Every policy loss that a module computes from now on."""
    found: list[PolicyLoss] = []
    monkeypatch.setattr(
        f"{module}.policy_gradient", lambda *values, **options: found.append(policy_gradient(*values, **options)) or found[-1]
    )
    return found
