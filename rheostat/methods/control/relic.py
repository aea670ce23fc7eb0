"""ReLIC: one transformer that gets better at a task by remembering its earlier episodes, trained by PPO on trials of many episodes.

Paper: Elawady et al. 2024, "ReLIC: A Recipe for 64k Steps of In-Context Reinforcement Learning for Embodied AI", arXiv 2410.02751.

Equations (N steps of a trial, K updates in it; c_t the context of step t: all steps of the trial up to it)
    attention  = a_0 v_0 + sum_j a_j v_j,      a = softmax([q . k_0, q . k_1, ..., q . k_t] / sqrt(d)),      k_0 and v_0 learned (Sink-KV)
    rho_t      = pi(a_t | c_t) / pi_acting(a_t | c_t when it was taken)
    A_t        = sum_l (gamma lam)^l delta_{t+l} inside the episode,        delta_t = r_t + gamma m_{t+1} V(c_{t+1}) - V(c_t)
    loss       = mean(-min(rho A, clip(rho, 1 - eps, 1 + eps) A)) + c_V mean(1/2 (V - R)^2) - c_H mean(entropy),     R_t = A_t + V(c_t)

WHO ACTS   the policy, with keys and values of all earlier steps of the trial in a cache; N steps per environment on one task, then another.
KEPT       the rows of the running trial; after every update its finished episodes change places, and the cache is computed anew.
WORTH      GAE inside episodes, over the whole trial as it stands now; however an episode ends, credit does not cross it.
MOVES      after every N / K steps: PPO's loss on the steps since the last update (``loss_from``), in the last update on all N; the older
           steps are context, and gradients flow through their keys and values. A minibatch is some environments' whole trials; gradients
           of several minibatches are summed for a step.

Attention is causal, always; a step's output does not depend on later ones. The learning rate goes by environment steps. Tasks come from the
environments: a restart with another seed draws another task, and a world with held-out tasks is measured on those (darkroom,
keys-and-doors). An environment that draws anew in every reset, as EnvPool's do, has episodes of one kind and not of one task in a trial.

A trained policy acts by ``run.policy(observation, memory)``, where ``memory = run.memory()`` is made anew for every trial, and is told what
came of it by ``memory.observe(reward, ended)``. A context is never longer than those of training.

What the authors' code does otherwise (github.com/aielawady/relic): without the package flash-attn its attention has no causal mask, so that
training sees the future; its configurations for the simulator learn the sink's key alone (``--sink key``), and those of Darkroom both, as
here; the query of the sink, and the sink's row, exist and are closed; observations and numbers are kept in half precision; the action after
an update was drawn before it; a value clip is inherited (``--clip-value``). An action is embedded before it enters the token, which is one
linear map here. The reward before the first step of an episode is the last one of the episode before it, so that the end of an episode is
seen. With ``--ratio-to start`` old log-probabilities are computed anew (their ``update_stale_action_probs``).
Reconstruction: initial weights (PyTorch's; heads as in ppo), and that evaluations sample.
Checked against: the authors' code (``tests/vectors``: attention, positions, GAE, loss, schedule, order) and a plain implementation with
loops (``tests/plain/control_trials.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rheostat.collect.control.running_statistics import Normalisation
from rheostat.collect.control.trial_rollout import TrialRollout, WholeTrial
from rheostat.credit.trial_annotations import EpisodeGAE, ValuesInContext
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.trial_updates import TransformerNetwork, TransformerPolicyNetwork, TrialEvaluations, TrialPPO
from rheostat.objectives.control_terms import ClippedSurrogate


@dataclass(frozen=True)
class ReLIC:
    """Defaults are those of the authors' example on Darkroom."""

    collect: TrialRollout = TrialRollout()
    keep: WholeTrial = WholeTrial()
    normalisation: Normalisation = Normalisation(observations=False, rewards=False)
    gae: EpisodeGAE = EpisodeGAE()
    network: TransformerNetwork = TransformerNetwork()
    objective: ClippedSurrogate = ClippedSurrogate(ratio_to="sampler", pessimistic=False)
    update: TrialPPO = TrialPPO(
        epochs=4,
        minibatches=8,
        learning_rate=2e-4,
        entropy_coefficient=0.01,
        max_grad_norm=0.2,
        normalise_advantage=False,
    )
    log: TrialEvaluations = TrialEvaluations()
    dial: Dial = Dial()
    """How far off-policy the data may be."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "num_envs": 32,
            "batch_steps": 1280,
            "updates_per_trial": 5,
            "heads": 4,
            "inner": 64,
            "epochs": 2,
            "minibatches": 2,
            "accumulated_minibatches": 1,
            "learning_rate": 1e-3,
            "decay_steps": 0,
        },
        "single-episode": {"updates_per_trial": 1, "across_episodes": False},
        "simulator": {
            "num_envs": 20,
            "batch_steps": 5120,
            "layers": 4,
            "width": 256,
            "inner": 1024,
            "sink": "key",
            "minibatches": 20,
            "accumulated_minibatches": 10,
            "warmup_steps": 100_000,
            "decay_steps": 1_000_000_000,
            "depth_dropout": 0.1,
        },
    }
    """Darkroom of 6 x 6 cells in a minute; the authors' baseline that sees one episode; their sizes for embodied search."""

    def compose(self) -> Composition:
        """The four answers along trials."""
        rollout = self.collect
        keep = replace(self.keep, updates=rollout.updates, steps=rollout.trial_steps)
        network = self.network.of(rollout.trial_steps)
        trials = rollout.environments
        update = self.update.of(self.objective, batch_steps=rollout.steps, rows=rollout.steps, sequences=trials)
        return Composition(
            collect=rollout,
            retain=[replace(self.normalisation, gamma=self.gae.gamma), keep],
            credit=[ValuesInContext(), self.gae],
            improve=[update, keep],
            models={"policy": TransformerPolicyNetwork(network, self.update.learning_rate)},
            measure=self.log.measure,
            stores=[self.log],
        )
