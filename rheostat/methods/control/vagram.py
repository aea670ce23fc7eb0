"""VaGraM: MBPO whose model is judged by the gradient of the value, so that it spends itself on what matters.

Paper: Voelcker et al. 2022, "Value Gradient weighted Model-Based Reinforcement Learning", arXiv 2204.01464. IterVAML: Farahmand 2018.

Equations (what differs from mbpo; e: predicted minus observed next state, e_r: of the reward, n: dimensions of the state)
    V_k(s)         = Q_k(s, tanh of the policy's mean at s),    k over critics and target critics; the action is a constant
    g_k            = dV_k/ds at the observed next state
    value-gradient = mean over d of [mean_k (g_kd e_d)^2 + e_r^2]          at least the unbounded one divided by n
    unbounded      = mean_k (g_k . e)^2 + e_r^2
    itervaml       = mean_k (V_k(s' + e) - V_k(s'))^2 + e_r^2
    first steps    = + mean over all outputs of squared errors, for ``squared_error_steps``

WHO ACTS   as mbpo.
KEPT       as mbpo.
WORTH      as mbpo.
MOVES      the model down these errors, by which its networks are also judged and chosen; g anew in every round. Its predictions are points.

The weights forget what does not matter now: where g is 0, only the reward is learned. The squared error of the first steps and fresh
gradients in every round are what keeps the model sound.

What differs from the authors' code, where a setting says how to have it their way:
gradients (``accumulate_gradients``): theirs sums up the gradients of the value functions one after the other, by accident.
limits (``gradient_quantile``): theirs describes a limit at the 95th percentile that was never reached in the version we recorded; later
ones also divide by a running mean of the lengths, which is not offered. Here nothing is cut by default.
held-out rows: theirs marks the wrong cache as known; here nothing is cached beyond a round.
acting (``act``): theirs acts by the deterministic action; the first steps are uniform here, those of the untrained policy there.
critics: theirs divide the last features by their length, which is not offered; ``critic_normalisation`` normalises layers.
imagined rows (``imagined_mixing``): as theirs, every batch is of one kind; mbpo mixes rows. Terminal states are weighed like all others.
Checked against: the authors' code (``tests/vectors``: vagram).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.learner.actor_critic_updates import Critics, Entropy
from rheostat.learner.learner import Composition
from rheostat.learner.model_based import ActingOutside, Imagination, ModelBased
from rheostat.learner.replay_model import ReplayModelOptions
from rheostat.learner.value_aware_model import ValueAware
from rheostat.options import option


@dataclass(frozen=True)
class VaGraM(ModelBased):
    """The published setting for Hopper; the preset small is for two cores."""

    collect: ActingOutside = ActingOutside(random_steps=10_000)
    target_every: int = option(4, at_least=1)
    learning_rate: float = option(3e-5, at_least=0)
    temperature_learning_rate: float | None = option(3e-4, at_least=0)
    hidden: tuple[int, ...] = option((1024, 1024), at_least=1)
    critics: Critics = Critics(learning_rate=3e-4)
    entropy: Entropy = Entropy(initial=0.1, target=-1.0)
    model: ReplayModelOptions = ReplayModelOptions(batch_size=1024, decay=(5e-5, 5e-5))
    imagination: Imagination = Imagination(length=(1, 5), share=(0.0, 0.95), mixing="batches")
    weights: ValueAware = ValueAware()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "distraction": {"rollout_length": (1, 1), "imagined_share_steps": (0, 50_000)},
        "released": {"accumulate_gradients": True, "act": "mean"},
        "small": {
            "hidden": (64, 64),
            "batch_size": 64,
            "learning_rate": 1e-3,
            "critic_learning_rate": 1e-3,
            "temperature_learning_rate": 1e-3,
            "target_entropy": None,
            "target_every": 1,
            "update_to_data": 4.0,
            "start_steps": 1_000,
            "rollout_length": (1, 1),
            "rollouts_per_step": 40,
            "imagined_share_steps": (0, 2_000),
            "model_hidden": (64, 64),
            "model_networks": 3,
            "model_elites": 2,
            "model_batch_size": 256,
            "model_passes": 10,
        },
    }

    def compose(self) -> Composition:
        """MBPO's answers with a value-aware model."""
        return self.composed(self.weights)
