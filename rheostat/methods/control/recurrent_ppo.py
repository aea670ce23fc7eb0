"""Recurrent PPO: proximal policy optimisation with an LSTM under actor and critic, for tasks in which one observation is not enough.

Paper: Schulman et al. 2017, arXiv 1707.06347; details of the LSTM numbered as in Huang et al. 2022, "The 37 implementation details of PPO".

Equations (x_t the encoded observation, m_t the memory: hidden and cell state of the LSTM)
    m_t      = LSTM(x_t, m_{t-1}),       m = 0 before the first step of an episode;      h_t = the hidden state in m_t
    ratio_t  = pi(a_t | h_t) / pi_start(a_t | h_t),       both from the memory that the sequence began with
    A_t      = sum_l (gamma lam)^l delta_{t+l},           delta_t = r_t + gamma V(h_{t+1}) (1 - terminated_t) - V(h_t)
    loss     = as in ppo; its gradient flows back through all steps of the sequence and ends at the memory it began with

WHO ACTS   the policy itself with its memory, which is zero where an episode begins and goes on from one batch to the next.
KEPT       the fresh batch, one sequence per environment, with the memory it began with and where episodes begin.
WORTH      GAE; a truncated episode, and the end of a sequence, bootstrap from one more step of the memory onto the true successor.
MOVES      ``epochs`` passes of clipped-surrogate steps on minibatches of whole sequences.

What differs from ppo: the policy, and that sequences are never torn. Nothing burns in: a sequence starts from the memory that the policy
had when it acted, so no data older than a batch can be learned from (there is no window, and the dial refuses replay and experts). With
``dial.lag`` the memory is the older policy's.

A trained policy acts by ``run.policy(observation, memory)``. ``memory = run.memory()`` is made anew for every episode; ``run.memory(8)`` is
that of eight episodes side by side, of which ``memory.forget(ended)`` lets some begin anew.

What the codes do otherwise: CleanRL's (``ppo_atari_lstm``, whose numbers are the defaults) and Stable-Baselines3 Contrib's
(``RecurrentPPO``) take log-probabilities for the ratio as they were when acting, here they are computed again under the statistics of this
update. CleanRL's takes a truncation for a death. Contrib's gives the critic an LSTM of its own, has hidden layers after and not before the
LSTM, cuts sequences where a minibatch ends, and pads them; here both read one LSTM, as in CleanRL's.
Checked against: a plain implementation with loops and the LSTM's equations (``tests/plain/test_recurrent_ppo.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rheostat.collect.control.control_collectors import RecurrentRollout
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE, OldSequenceValues
from rheostat.learner.control_models import RecurrentPolicyNetwork
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import KLStop
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.sequences import RecurrentNetwork, SequencePPO
from rheostat.objectives.control_terms import ClippedSurrogate, SamplerWeight


@dataclass(frozen=True)
class RecurrentPPO:
    """Defaults are those of CleanRL's script for Atari with an LSTM."""

    collect: RecurrentRollout = RecurrentRollout(steps=1024)
    normalisation: Normalisation = Normalisation()
    gae: GAE = GAE()
    network: RecurrentNetwork = RecurrentNetwork()
    objective: ClippedSurrogate = ClippedSurrogate(epsilon=0.1)
    sampler: SamplerWeight = SamplerWeight()
    stop: KLStop = KLStop()
    update: SequencePPO = SequencePPO(epochs=4, minibatches=4, learning_rate=2.5e-4, entropy_coefficient=0.01)
    log: Evaluations = Evaluations()
    dial: Dial = Dial()
    """How far off-policy the data may be."""

    def compose(self) -> Composition:
        """PPO's four answers along sequences."""
        steps, sequences = self.collect.steps, self.collect.environments
        update = self.update.of(self.objective, batch_steps=steps, rows=steps, sampler=self.sampler, stop=self.stop, sequences=sequences)
        return Composition(
            collect=self.collect,
            retain=[replace(self.normalisation, gamma=self.gae.gamma)],
            credit=[OldSequenceValues(), self.gae],
            improve=[update],
            models={"policy": RecurrentPolicyNetwork(self.network, self.update.learning_rate)},
            stores=[self.log],
        )
