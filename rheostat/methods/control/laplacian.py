"""Laplacian features with successor features: neighbours look alike, and policies learn to sum what they meet; no rewards are needed.

Papers: Wu et al. 2019, "The Laplacian in RL", arXiv 1810.04586; with successor features: Touati et al. 2023, arXiv 2209.14935. A baseline
of td-jepa.

Equations (psi on the sphere of radius sqrt(D); bars: slow copies; Orth, noise, tasks and policies as in td-jepa)
    features   = mean (psi(s) - psi(s'))^2 + 2 c Orth(psi(s))
    y          = psi(s') + gamma (1 - terminated) mean_M Fbar(s', z, a'),      psi a constant;      a' = pi_z(s') with clipped noise
    predictors = mean |F(s, z, a) - y|^2
    a reward r : z = the least-squares solution of psi(s') z = r over rows of the data, on the sphere;      a goal g: z = psi(g)

WHO ACTS   nobody while it learns; pi_z of the task of a reward, or of a goal, afterwards.
KEPT       the data set. Its rewards are never learned from.
WORTH      successor features of psi times z; psi knows which states follow each other, and nothing of policies.
MOVES      psi and F in one step, though F moves nothing of psi; then the policies; slow copies of F by ``tau``.

F and the policies read observations. What the code of TD-JEPA's authors does otherwise: the squares of the predictors are a mean over
features, which Adam cannot tell from a sum.
Checked against: a plain implementation (``tests/plain``).
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
from rheostat.objectives.latent_prediction import laplacian_loss, latent_loss, latent_target
from rheostat.options import value_or
from rheostat.parts import Batch


@dataclass(frozen=True)
class LaplacianStep:
    """psi down the Laplacian's loss, and F towards sums of psi."""

    pessimism: float
    weight: float
    reads: ClassVar[tuple[str, ...]] = ("task",)
    models: ClassVar[tuple[str, ...]] = ("task encoder", "predictor")

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of both networks on rows ``[B]``; returns the parts of the loss, and now and then the ``effective_rank``."""
        rows, z, models = batch.rows, batch.columns["task"], context.models
        psi = models["task encoder"].network
        features, following = psi(rows.observation), psi(rows.next_observation)
        with torch.no_grad():
            action = next_action(context, batch, rows.next_observation)
            ahead = models["target predictor"].network(rows.next_observation, z, action)
            target = latent_target(following, ahead, rows.discount, self.pessimism)
        error = latent_loss(models["predictor"].network(rows.observation, z, rows.action), target)
        smooth = laplacian_loss(features, following, self.weight)
        move_together(context, self.models, error + smooth)
        with torch.no_grad():
            told = features_told(context, psi(rows.next_observation))
        return {"representation_loss": smooth.detach(), "predictor_loss": error.detach()} | told


@dataclass(frozen=True)
class Laplacian(ZeroShot):
    """The setting of TD-JEPA's experiments on states of DeepMind Control."""

    features: TaskFeatures = TaskFeatures()

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
        """Features and predictors, then policies, in every gradient step."""
        shape, tasks = self.features, self.features.task_features
        models = self.family(tasks, psi="task encoder")
        rate = value_or(shape.task_learning_rate, self.learning_rate)
        models["task encoder"] = TrainableNetwork(encoder(tasks, shape.task_hidden), rate)
        network = predictor(None, tasks, tasks, self.predictors, self.hidden)
        models |= self.followed({"predictor": TrainableNetwork(network, self.learning_rate)})
        step = LaplacianStep(self.pessimism, shape.orthonormality)
        draw = DrawTasks(self.sampling, "task encoder", tasks)
        return self.staged(models, draw, [step, TaskActorStep(self.policies)])
