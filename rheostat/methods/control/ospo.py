"""OSPO: a fleet that shares one policy is a group, and the rewards of one minute are enough.

Paper: Zhao and Li 2025, arXiv 2507.15351, "One Step is Enough: Multi-Agent Reinforcement Learning Based on One-Step Policy Optimization for
Order Dispatch on Ride-Sharing Platforms".

Equations (S the vehicles that accepted an order in the same minute; C and C' the fleet's cumulative rewards before and after it)
    p_ij   = softmax over the open orders j of f(vehicle i, order j), plus 1e-8
    match  = the assignment of the largest total of p_ij, in which exploration sets some to 1e8
    A_i    = (r_i - mean_S r) / (std_S r + 1e-8) - (std C' - std C)
    rho    = p_theta[j] / p_old[j]
    loss   = mean -min(rho A, clip(rho, 1 - low, 1 + high) A) + beta mean_j p_j log(p_j / q_j) - c_H H(p),      q = the best policy so far

WHO ACTS   the policy with a matching, in an episode of ``cities`` cities; exploration forces pairs on the matching.
KEPT       the orders that were accepted in this episode.
WORTH      the reward of the minute, compared with the other vehicles'; ``advantage=to-go`` and ``advantage=critic`` look further.
MOVES      clipped steps on samples drawn with replacement, with a distance to the best policy so far once an evaluation has failed.

``advantage=to-go`` is the fleet form of GRPO of the same paper: rewards standardised over the episode, then summed along each vehicle's
own orders with a discount. ``advantage=critic`` is independent PPO: a critic sees a vehicle, and generalised advantage estimation runs
along the vehicle's orders. Nothing else differs between the three, but that vehicles know their own cumulative advantage with one-step, as
the release has it, and their cumulative reward with the others. The matching to the nearest vehicle, which learns nothing, is measured
beside the policy in every evaluation (``evaluation_nearest_return``).

The authors' settings, for a thousand vehicles and a fresh 95 % of the taxi trips of an hour: cities 1, exploration_decay 0.99,
learning_rate 1e-5, learning_rate_decay 0.99, judge_cities 1. The defaults here are for small cities and 150 turns: a larger step size that
does not decay, and exploration that is over sooner. All other defaults are theirs: clip 0.2 and 0.28, ten steps on 256 rows, entropy 0.05,
kl_coefficient 0.5, kl_gate 0.01, gamma 0.99, judge_every 10, patience 10, least_turns 1000, two hidden layers of 128.

What the authors' code does otherwise: a router drives the vehicles, and here a table of whole minutes does; with to-go it adds the
fairness term with the other sign (``fairness=-1``) and counts vehicles as of the minute in which they store their sample
(``stored_minutes``); it leaves out gradient steps that are not a number, and here the run stops and keeps the batch; it takes the standard
deviation of the fleet over a thousand entries whatever its size, and here it is that of the fleet; it shifts longitudes wrongly.
The stored share is not the probability of the action, in the release and here: the matching decides jointly, and exploration forces pairs.
``forced_rows=False`` leaves the forced ones out; the joint decision remains. Sizes of cities, the demand and the counter-example are ours,
since the paper's data are not public; so is the critic.
Checked against: the authors' code, number by number (``tests/vectors``: ospo); a plain implementation with loops (``tests/plain``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from rheostat.collect.fleet.fleet_episodes import FleetRollout
from rheostat.credit.fleet_advantages import FleetAdvantage
from rheostat.learner.control_models import TrainableNetwork
from rheostat.learner.dial import Dial
from rheostat.learner.fleet_updates import DispatchUpdate, FleetNetwork, Judgement, Reference, ValueFit
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations


@dataclass(frozen=True)
class OSPO:
    """Coefficients of the release, and step sizes and exploration for small cities."""

    fleet: ClassVar[bool] = True

    collect: FleetRollout = FleetRollout()
    advantage: FleetAdvantage = FleetAdvantage()
    network: FleetNetwork = FleetNetwork()
    update: DispatchUpdate = DispatchUpdate()
    judgement: Judgement = Judgement()
    log: Evaluations = Evaluations()
    dial: Dial = Dial()
    """How far off-policy the data may be."""

    def compose(self) -> Composition:
        """The four answers."""
        one_step, critic = self.advantage.form == "one-step", self.advantage.form == "critic"
        rate = self.update.learning_rate
        models = {"policy": TrainableNetwork(self.network.policy, rate), "reference": Reference()}
        return Composition(
            collect=replace(self.collect, known=self.advantage if one_step else None),
            retain=[],
            credit=[self.advantage],
            improve=[
                self.update,
                *([ValueFit(self.update)] if critic else []),
                replace(self.judgement, gamma=self.advantage.gamma),
            ],
            models=models | ({"value": TrainableNetwork(self.network.value, rate)} if critic else {}),
            stores=[self.log],
        )
