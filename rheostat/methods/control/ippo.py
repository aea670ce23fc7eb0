"""Independent PPO: several agents learn side by side, each by PPO, as if the others were a part of its environment.

Paper: de Witt et al. 2020, arXiv 2011.09533, "Is Independent Learning All You Need in the StarCraft Multi-Agent Challenge?"

Equations (agent i sees o_i, its own reward is r_i)
    ratio_i  = pi_i(a_i | o_i) / pi_i,start(a_i | o_i)
    A_i,t    = sum_l (gamma lam)^l delta_i,t+l,           delta_i,t = r_i,t + gamma V_i(o_i,t+1) (1 - terminated_i,t) - V_i(o_i,t)
    loss_i   = that of ppo, of agent i alone

WHO ACTS   every agent by its own policy, all at once, in ``num_envs`` environments of PettingZoo's parallel interface.
KEPT       the rows of an agent, one per environment, for its own policy; steps at which it was out are no data.
WORTH      GAE of the agent's own rewards, with a critic that sees what the agent sees.
MOVES      every policy by PPO on its own rows, one after the other.

What differs from ppo: the environments. Every policy has a network, statistics, random streams and an update of its own, and all parts of
ppo are as they are. With ``share_policies`` the agents of equal observation and action spaces have one policy, which learns from the rows
of all of them; what tells them apart is their observations alone. A step of the budget is a step of an environment, whoever acts in it.

What the authors' code does otherwise: it shares one network with memory among all agents, adds the agent's number and its last action to
the observation, and masks actions that are not available. Others' learning makes the environment of each agent move, so nothing promises
that it converges; in games of zero sum with a mixed equilibrium it goes round in circles.
Checked against: a plain implementation with loops, one agent at a time (``tests/plain/test_ippo.py``); games of known best play.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import TeamRollout
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import FastPPO, KLStop, Network, SamplingErrorMeter
from rheostat.learner.measuring import Evaluations
from rheostat.learner.on_policy import on_policy
from rheostat.learner.teamed import Policies, Teamed
from rheostat.objectives.control_terms import ClippedSurrogate, SamplerWeight


@dataclass(frozen=True)
class IPPO:
    """PPO's defaults, for every policy."""

    several_agents: ClassVar[bool] = True

    collect: TeamRollout = TeamRollout()
    policies: Policies = Policies()
    keep: Window = Window()
    normalisation: Normalisation = Normalisation()
    gae: GAE = GAE()
    network: Network = Network()
    objective: ClippedSurrogate = ClippedSurrogate()
    sampler: SamplerWeight = SamplerWeight()
    stop: KLStop = KLStop()
    update: FastPPO = FastPPO()
    meter: SamplingErrorMeter = SamplingErrorMeter()
    log: Evaluations = Evaluations()
    dial: Dial = Dial()
    """How far off-policy the data may be."""

    def compose(self) -> Teamed:
        """PPO's four answers, once for every policy; the team is measured as a whole."""
        return Teamed(replace(on_policy(self, self.objective, stop=self.stop), stores=[]), share=self.policies.share, log=self.log)
