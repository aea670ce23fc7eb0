"""Forward-backward representations: where every policy pi_z goes, factored into F(s, z, a) . B(s'), from data without rewards.

Papers: Touati and Ollivier 2021, arXiv 2103.07945; Touati et al. 2023, arXiv 2209.14935. A baseline of td-jepa.

Equations (B on the sphere of radius sqrt(D); i, j: rows of a batch; bars: slow copies; Orth, noise and policies as in td-jepa)
    y_ij       = mean_M Fbar(s'_i, z_i, a'_i) . Bbar(s'_j),                 a' = pi_z(s') with clipped noise
    residual   = F_M(s_i, z_i, a_i) . B(s'_j) - gamma (1 - terminated_i) y_ij
    loss       = sum_M [1/2 mean_{i != j} residual_ij^2 - mean_i residual_ii] + c Orth(B(s'))
    policies   = -mean Q,   Q = mean_M F(s, z, a) . z
    a reward r : z = mean r B(s') over rows of the data, on the sphere;      a goal g: z = B(g)

WHO ACTS   nobody while it learns; pi_z of the task of a reward, or of a goal, afterwards.
KEPT       the data set. Its rewards are never learned from.
WORTH      the successor measure's factors: F . z is the value of the reward whose mean with B is z.
MOVES      F and B in one step down one loss, then the policies; slow copies by ``tau``.

F and the policies read observations. What the code of TD-JEPA's authors does otherwise: an added loss on Q alone, which is off there too;
images; running statistics of observations (``normalise_states`` takes them from the data).
Checked against: a plain implementation (``tests/plain``), and its exact minimum on a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from rheostat.learner.actor_critic_updates import Found
from rheostat.learner.control_models import TrainableNetwork
from rheostat.learner.stages import Staged
from rheostat.learner.zero_shot import (
    DrawTasks,
    TaskActorStep,
    TaskFeatures,
    ZeroShot,
    encoder,
    features_told,
    move_together,
    next_action,
    predictor,
)
from rheostat.objectives.latent_prediction import forward_backward_loss, orthonormality, pessimistic
from rheostat.options import value_or
from rheostat.parts import Batch


@dataclass(frozen=True)
class ForwardBackwardStep:
    """F and B down the residual of the successor measure."""

    pessimism: float
    weight: float
    reads: ClassVar[tuple[str, ...]] = ("task",)
    models: ClassVar[tuple[str, ...]] = ("task encoder", "predictor")

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of both networks on rows ``[B]``; returns the parts of the loss, and now and then the ``effective_rank``."""
        rows, z, models = batch.rows, batch.columns["task"], context.models
        with torch.no_grad():
            action = next_action(context, batch, rows.next_observation)
            ahead = models["target predictor"].network(rows.next_observation, z, action)
            target = pessimistic(ahead @ models["target task encoder"].network(rows.next_observation).T, self.pessimism)
        backward = models["task encoder"].network(rows.next_observation)
        forward = models["predictor"].network(rows.observation, z, rows.action)
        error, apart = forward_backward_loss(forward, backward, target, rows.discount), orthonormality(backward)
        loss = error + self.weight * apart
        move_together(context, self.models, loss)
        found = {"representation_loss": loss, "measure_loss": error, "task_orthonormality": apart}
        with torch.no_grad():
            features = models["task encoder"].network(rows.next_observation)
        return {name: each.detach() for name, each in found.items()} | features_told(context, features)


@dataclass(frozen=True)
class ForwardBackward(ZeroShot):
    """The setting of TD-JEPA's experiments on states of DeepMind Control."""

    backward: TaskFeatures = TaskFeatures()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "batch_size": 256,
            "tau": 0.005,
            "learning_rate": 3e-4,
            "actor_learning_rate": 3e-4,
            "task_features": 16,
            "task_hidden": (128, 128),
            "hidden": (128,),
        }
    }

    def compose(self) -> Staged:
        """Representation, then policies, in every gradient step."""
        shape, tasks = self.backward, self.backward.task_features
        models = self.family(tasks, psi="task encoder", least_squares=False)
        rate = value_or(shape.task_learning_rate, self.learning_rate)
        moving = {
            "task encoder": TrainableNetwork(encoder(tasks, shape.task_hidden), rate),
            "predictor": TrainableNetwork(predictor(None, tasks, tasks, self.predictors, self.hidden), self.learning_rate),
        }
        step = ForwardBackwardStep(self.pessimism, shape.orthonormality)
        draw = DrawTasks(self.sampling, "task encoder", tasks)
        return self.staged(models | self.followed(moving), draw, [step, TaskActorStep(self.policies)])
