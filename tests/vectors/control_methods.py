"""The own parts of control methods on recorded numbers: their annotations and updates with models that say what was recorded.

An adapter that put a loss together by itself would go on passing whatever a method made of the same functions.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rheostat.learner.off_policy import PerStep
from rheostat.objectives.control_terms import MinibatchTargets
from rheostat.parts import Batch
from rheostat.trajectories import Transitions


class Recorded:
    """A model with recorded answers, in the order in which it is asked; it does not move.

    Args:
        answers: of its network, or of its policy.
        extra: what else is asked of its network, by name.

    Attributes:
        losses: what it should have descended.
    """

    def __init__(self, *answers: Any, **extra: Any) -> None:
        self.answers, self.losses, self.network, self.learning_rate = list(answers), [], self, 0.0
        vars(self).update(extra)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        answer = self.answers.pop(0)
        return answer(*inputs) if callable(answer) else answer

    def distribution(self, seen: Tensor) -> Any:
        """The next answer, a policy."""
        return self(seen)

    def step(self, loss: Tensor) -> None:
        """Note a loss."""
        self.losses.append(loss)

    @property
    def loss(self) -> Tensor:
        """The only one."""
        (found,) = self.losses
        return found


class Drawn:
    """A policy whose draws are recorded.

    Args:
        log_prob: of the draw, or of the data's actions.
        action: the draw; zeros where nobody looks at it.
    """

    def __init__(self, log_prob: Tensor, action: Tensor | None = None, mean: Tensor | None = None) -> None:
        self.found = log_prob
        self.action = torch.zeros(*log_prob.shape, 1, dtype=log_prob.dtype) if action is None else action
        self.mean = self.action if mean is None else mean

    def noise(self, generator: Any) -> None:
        """None is needed."""

    def draw(self, noise: Any) -> tuple[Tensor, Tensor]:
        """Action and log-probability."""
        return self.action, self.found

    def sample(self, generator: Any) -> Tensor:
        """The action."""
        return self.action

    def log_prob(self, action: Tensor) -> Tensor:
        """As recorded."""
        return self.found

    def entropy(self) -> Tensor:
        """For the log."""
        return torch.zeros_like(self.found)


def rows_of(reward: Tensor, discount: Tensor | None = None, action: Tensor | None = None) -> Batch:
    """Transitions ``[B]`` of which only these facts are known."""
    nothing = torch.zeros(len(reward), 1, dtype=reward.dtype)
    no = torch.zeros(len(reward), dtype=torch.bool)
    known = {"observation": nothing, "next_observation": nothing, "action": nothing if action is None else action}
    return Batch(
        Transitions(
            **known,
            reward=reward,
            terminated=no,
            truncated=no,
            sampler_logp=reward,
            discount=torch.ones_like(reward) if discount is None else discount,
            batch_size=[len(reward)],
        )
    )


def around(models: dict[str, Any], dimensions: int = 1) -> Any:
    """What parts ask of a learner."""
    return SimpleNamespace(
        models=models,
        streams=defaultdict(torch.Generator),
        ranked=False,
        continuous=True,
        updates=0,
        sizes=(1, dimensions),
        budget=1,
        offline_budget=1,
        finish_update=lambda name: None,
    )


def step_of(config: Any) -> PerStep:
    """A method's gradient step; of several stages, that of the first."""
    composition = config.compose()
    composition = composition.stages[0].composition if hasattr(composition, "stages") else composition
    return next(part for part in composition.improve if isinstance(part, PerStep))


def learned(config: Any, models: dict[str, Any], batch: Batch, *, dimensions: int = 1) -> Batch:
    """A batch after a whole gradient step of a method: its annotations, then its updates."""
    step, context = step_of(config), around(models, dimensions)
    for annotate in step.credit:
        batch = annotate(context, batch)
    for update in step.updates:
        update.step(context, batch)
    return batch


def parts_of(config: Any, *kinds: type) -> list[Any]:
    """The annotations and updates of a method's gradient step that are of these classes, in order of the classes."""
    inner = step_of(config).inner()
    return [next(part for part in inner if isinstance(part, kind)) for kind in kinds]


def clipped_losses(
    objective: Any, log_prob: Tensor, value: Tensor, *, old_logp: Tensor, advantage: Tensor, target: Tensor, old_value: Tensor
) -> tuple[Any, Tensor]:
    """What a method's objective makes of a minibatch: the policy's loss with its diagnostics, and the critic's."""
    targets = MinibatchTargets(old_logp, advantage, target, old_value)
    return objective.policy_loss(log_prob, targets), objective.value_loss(value, targets)


def objective_of(config: Any) -> Any:
    """What a minibatch of a method's PPO minimises."""
    update = config.compose().update_of()
    return getattr(update, "part", update).objective  # in every so many turns
