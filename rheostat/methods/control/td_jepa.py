"""TD-JEPA: representations that predict their own long-term future, from data without rewards, and a policy for any reward given later.

Paper: Bagatella et al. 2025, "TD-JEPA: Latent-predictive Representations for Zero-Shot Reinforcement Learning", arXiv 2510.00739.

Equations (phi: features of states, psi: of tasks, both on spheres of radius sqrt(D); F, G: ensembles of M predictors; bars: slow copies)
    z          = a direction, or psi of the next state of another row (``goal_share``), on the sphere of radius sqrt(Ds)
    a'         = pi_z(phibar(s')) with clipped noise
    y_F        = psibar(s') + gamma (1 - terminated) mean_M Fbar(phibar(s'), z, a'),        F(phi(s), z, a) learns psi's sum from phi
    y_G        = phibar(s') + gamma (1 - terminated) mean_M Gbar(psibar(s'), z, a'),        G(psi(s), z, a) learns phi's sum from psi
    loss       = mean |F - y_F|^2 + mean |G - y_G|^2 + c_phi Orth(phi(s)) + c_psi Orth(psi(s))
    Orth(e)    = 1/2 mean_{i != j} (e_i . e_j)^2 - mean_i |e_i|^2
    policies   = -mean Q,    Q = mean_M F(phi(s), z, a) . z,    a = pi_z(phi(s)) with noise
                 with imitation -mean Q / mean |Q| + c mean (a - a_data)^2
    a reward r : z = the least-squares solution of psi(s') z = r over rows of the data, on the sphere;      a goal g: z = psi(g)

At its fixed point F is the sum of discounted psi under pi_z (successor features), so that F . z is the value of the reward psi . z.

WHO ACTS   nobody while it learns; pi_z of the task of a reward, or of a goal, afterwards.
KEPT       the data set. Its rewards are never learned from.
WORTH      successor features of the task encoder times z.
MOVES      encoders and predictors in one step down one loss, then the policies; slow copies by ``tau``.

Symmetric (``form``): one encoder is both, and F its only predictor. Flow actor (``actor``): an action per draw of noise, held near ten
Euler steps of a flow that imitates the data.

A reward is one of the state that an action leads to. Its scale is lost, and a constant has no direction: it is refused.

What the authors' code does otherwise: it also reads pixels, by convolutions and shifts, which are not offered; its flow actor always draws
noise, also where it is asked for the mean, which here is the action of no noise.
Reconstruction: which rows a task is inferred from (the same ones for all rewards of a run).
Checked against: the authors' code (``tests/vectors``: td-jepa), a plain implementation (``tests/plain``), and a table's successor features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from rheostat.learner.actor_critic_updates import Found
from rheostat.learner.control_models import TrainableNetwork
from rheostat.learner.stages import Staged
from rheostat.learner.zero_shot import (
    DrawTasks,
    TaskActorStep,
    ZeroShot,
    encoder,
    features_told,
    move_together,
    next_action,
    one_sided_loss,
    predictor,
    two_sided_loss,
)
from rheostat.objectives.latent_prediction import latent_target
from rheostat.options import option, value_or
from rheostat.parts import Batch

Form = Literal["asymmetric", "symmetric"]
SYMMETRIC = "the symmetric form has one encoder, that of states, so leave it alone, or use form asymmetric"


@dataclass(frozen=True)
class Encoders:
    """Features of states and of tasks."""

    form: Form = option("asymmetric")
    """Two encoders that predict each other's future, or one that predicts its own."""
    state_features: int = option(256, at_least=1)
    """Numbers of phi; of the symmetric form also those of a task."""
    task_features: int = option(50, at_least=1)
    """Numbers of psi, and of a task."""
    state_hidden: tuple[int, ...] = option((), at_least=1)
    """Hidden layers of phi; none is one linear map."""
    task_hidden: tuple[int, ...] = option((256, 256), at_least=1)
    """Hidden layers of psi."""
    state_orthonormality: float = option(0.1, at_least=0)
    """Weight of the orthonormality of phi."""
    task_orthonormality: float = option(0.1, at_least=0)
    """Weight of the orthonormality of psi."""
    state_learning_rate: float | None = option(None, at_least=0)
    """Adam step size of phi; None takes learning_rate, and 0 freezes it."""
    task_learning_rate: float | None = option(None, at_least=0)
    """Adam step size of psi; None takes learning_rate, and 0 freezes it."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        names = ("task_features", "task_hidden", "task_orthonormality", "task_learning_rate")
        return dict.fromkeys(names, SYMMETRIC) if self.symmetric else {}

    @property
    def symmetric(self) -> bool:
        """Whether one encoder is both."""
        return self.form == "symmetric"


@dataclass(frozen=True)
class TwoSidedStep:
    """Both encoders and both predictors, each side towards the other's future."""

    pessimism: float
    weights: tuple[float, float]
    reads: ClassVar[tuple[str, ...]] = ("task",)
    models: ClassVar[tuple[str, ...]] = ("state encoder", "task encoder", "predictor", "task predictor")

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of all four networks on rows ``[B]``; returns the parts of the loss, and now and then the ``effective_rank``."""
        rows, z, models = batch.rows, batch.columns["task"], context.models
        net = {name: models[name].network for name in (*self.models, *(f"target {name}" for name in self.models))}
        with torch.no_grad():
            phi_next, psi_next = net["target state encoder"](rows.next_observation), net["target task encoder"](rows.next_observation)
            action = next_action(context, batch, phi_next)
            ahead = net["target predictor"](phi_next, z, action), net["target task predictor"](psi_next, z, action)
            targets = tuple(
                latent_target(features, members, rows.discount, self.pessimism)
                for features, members in zip((psi_next, phi_next), ahead, strict=True)
            )
        phi, psi = net["state encoder"](rows.observation), net["task encoder"](rows.observation)
        predicted = net["predictor"](phi, z, rows.action), net["task predictor"](psi, z, rows.action)
        loss, found = two_sided_loss(predicted, (targets[0], targets[1]), (phi, psi), self.weights)
        move_together(context, self.models, loss)
        with torch.no_grad():
            features = net["task encoder"](rows.next_observation)
        return (
            {"representation_loss": loss.detach()}
            | {name: each.detach() for name, each in found.items()}
            | features_told(context, features)
        )


@dataclass(frozen=True)
class OneSidedStep:
    """The encoder and its predictor, towards the encoder's own future."""

    pessimism: float
    weight: float
    reads: ClassVar[tuple[str, ...]] = ("task",)
    models: ClassVar[tuple[str, ...]] = ("state encoder", "predictor")

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of both networks on rows ``[B]``; returns the parts of the loss, and now and then the ``effective_rank``."""
        rows, z, models = batch.rows, batch.columns["task"], context.models
        with torch.no_grad():
            following = models["target state encoder"].network(rows.next_observation)
            action = next_action(context, batch, following)
            ahead = models["target predictor"].network(following, z, action)
            target = latent_target(following, ahead, rows.discount, self.pessimism)
        phi = models["state encoder"].network(rows.observation)
        loss, found = one_sided_loss(models["predictor"].network(phi, z, rows.action), target, phi, self.weight)
        move_together(context, self.models, loss)
        with torch.no_grad():
            features = models["state encoder"].network(rows.next_observation)
        return (
            {"representation_loss": loss.detach()}
            | {name: each.detach() for name, each in found.items()}
            | features_told(context, features)
        )


@dataclass(frozen=True)
class TDJEPA(ZeroShot):
    """The published setting for states of DeepMind Control; the preset ogbench is that for states of OGBench."""

    encoders: Encoders = Encoders()
    actor_reads: Literal["features", "observation"] = option("features")
    """The policies read phi, or the observation itself (OGBench)."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "ogbench": {
            "batch_size": 256,
            "gamma": 0.99,
            "tau": 0.005,
            "state_features": 50,
            "state_hidden": (512, 512, 512, 512),
            "task_hidden": (512, 512, 512, 512),
            "hidden": (512, 512),
            "state_orthonormality": 1.0,
            "task_orthonormality": 1.0,
            "actor": "flow",
            "imitation": 0.3,
            "actor_reads": "observation",
            "scale_goals": True,
        },
        "small": {
            "batch_size": 256,
            "tau": 0.005,
            "learning_rate": 3e-4,
            "actor_learning_rate": 3e-4,
            "state_features": 16,
            "task_features": 16,
            "state_hidden": (128, 128),
            "task_hidden": (128, 128),
            "hidden": (128,),
            "state_orthonormality": 1.0,
            "task_orthonormality": 1.0,
        },
    }
    """The authors' sizes for OGBench's ant mazes; a maze of ours in minutes."""

    def compose(self) -> Staged:
        """Representation, then policies, in every gradient step."""
        shape = self.encoders
        psi = "state encoder" if shape.symmetric else "task encoder"
        phis, tasks = shape.state_features, shape.state_features if shape.symmetric else shape.task_features
        reads = "state encoder" if self.actor_reads == "features" else ""
        models = self.family(tasks, psi=psi, reads=reads, features=phis)
        moving = {"state encoder": self._encoder(phis, shape.state_hidden, shape.state_learning_rate)}
        if not shape.symmetric:
            moving["task encoder"] = self._encoder(tasks, shape.task_hidden, shape.task_learning_rate)
        moving["predictor"] = self._predictor(phis, tasks, tasks)
        step: Any = OneSidedStep(self.pessimism, shape.state_orthonormality)
        if not shape.symmetric:
            moving["task predictor"] = self._predictor(tasks, tasks, phis)
            step = TwoSidedStep(self.pessimism, (shape.state_orthonormality, shape.task_orthonormality))
        draw = DrawTasks(self.sampling, psi, tasks)
        return self.staged(models | self.followed(moving), draw, [step, TaskActorStep(self.policies, "state encoder")])

    def _encoder(self, features: int, hidden: tuple[int, ...], rate: float | None) -> TrainableNetwork:
        return TrainableNetwork(encoder(features, hidden), value_or(rate, self.learning_rate))

    def _predictor(self, states: int, tasks: int, features: int) -> TrainableNetwork:
        return TrainableNetwork(predictor(states, tasks, features, self.predictors, self.hidden), self.learning_rate)
