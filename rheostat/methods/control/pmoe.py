"""PMOE: soft actor-critic with a probabilistic mixture of experts for a policy.

Paper: Ren et al. 2021, "Probabilistic Mixture-of-Experts for Efficient Deep Reinforcement Learning", arXiv 2104.09122.

Equations (K experts; q_k = min_j Q_j(s, a_k) with a_k reparameterised from expert k; k* = argmax_k q_k, the first of equals)
    pi(a|s)     = sum_k w_k(s) N_k(a|s),      w = softmax(W s + b)
    y           = r + gamma (1 - terminated) [min_j Qbar_j(s', a') - alpha log pi_k'(a'|s')],      k' ~ w(s'), a' ~ pi_k'(s')
    experts     = mean [alpha log pi_k*(a_k*|s) - q_k*]
    weights     = mean over rows and k of (w_k - 1{k = k*})^2
    temperature = -log alpha mean (log pi_k*(a_k*|s) + target)

WHO ACTS   one expert, drawn from the weights.
KEPT       as in sac.
WORTH      as in sac, of an action of one drawn expert.
MOVES      the best expert alone, along the critic's gradient; the weights, towards how often each expert is the best.

What differs from sac: the policy, the loss of its weights, and which expert moves. With one expert it is sac, number by number. The index
of an expert has no derivative; the weights' regression on the best one is the paper's "frequency approximate gradient", and
``mixture_gradient`` has what it is compared with. ``update`` says which experts move: the best (max), all, or the one that was drawn
(sampled: with gumbel or score, the ordinary gradient of such a policy). That "all" is a mean over experts is a reconstruction, as is the
form of the two other gradients: the paper's text was not at hand, only the code of one of its authors.
Nothing balances the experts: one that is never the best does not move and is asked less and less; the log shows it (``mixture/...``).

What the authors' code does otherwise: it standardises rewards inside every batch, times 10 (``batch_reward_scale``), which changes the
objective from batch to batch; its deterministic action is that of an expert drawn from the weights (``deterministic``); the preset
"authors" has both, and their widths. Its critics' last layer starts within +-0.003 too (here only the experts' does). As there, the entropy
is that of the expert that acted, which makes the mixture more spread out than alpha thinks; ``entropy_of`` mixture takes the density of the
whole, which is another algorithm: its gradient moves all experts and the weights.
Checked against: the authors' code (``tests/vectors``: pmoe, cases sac_update and sac_update_tied_q).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rheostat.buffers.control_retainers import ReplayBuffer, Rewards
from rheostat.collect.control.control_collectors import RandomFirst
from rheostat.credit.td_annotations import SoftTarget, StandardisedRewards
from rheostat.learner.actor_critic_updates import Critics, CriticStep, Entropy, reading
from rheostat.learner.dial import Dial
from rheostat.learner.learner import Composition
from rheostat.learner.mixture import EntropyOf, Mixture, MixtureActorStep, MixturePolicy, OfDrawnExpert
from rheostat.learner.off_policy import AsRead, Logging, PerStep, Rhythm, from_replay
from rheostat.options import option
from rheostat.policies.control.mixture_networks import MixtureActor


@dataclass(frozen=True)
class PMOE:
    """The authors' setting, but for the rewards."""

    collect: RandomFirst = RandomFirst()
    replay: ReplayBuffer = ReplayBuffer()
    rewards: Rewards = Rewards()
    batch_reward_scale: float | None = option(None)
    """Standardise the rewards of every batch, times this (the authors: 10); None takes them as they are."""
    batches: Rhythm = Rhythm(300)
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    tau: float = option(0.01, share=True)
    """Share of the new critics in the target critics after each gradient step."""
    learning_rate: float = option(3e-4, at_least=0)
    """Adam step size of the policy, and of everything without one of its own."""
    hidden: tuple[int, ...] = option((512, 512, 512), at_least=1)
    """Hidden layers of the critics, and of the experts' network unless it has its own."""
    actor_hidden: tuple[int, ...] | None = option(None, at_least=1)
    """Hidden layers of the experts' network; None takes hidden."""
    mixture_hidden: tuple[int, ...] = option((), at_least=1)
    """Hidden layers of the weights' network; none is a single linear layer, as the authors have it."""
    initial_output: float | None = option(3e-3, above=0)
    """The experts' last layer starts uniform in +- this; None starts it as sac does."""
    mixture: Mixture = Mixture()
    update: Literal["max", "all", "sampled"] = option("max")
    """Experts that move in a gradient step: the one with the best action, all (the mean of their losses), or the one that was drawn."""
    entropy_of: EntropyOf = option("component")
    """Density in the entropy terms: of the expert that acted (the authors), or of the whole mixture."""
    critics: Critics = Critics()
    entropy: Entropy = Entropy(form="log")
    entropy_in_backup: bool = option(True)
    """The entropy of later actions counts in the critics' target."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for these methods: replay is what they are."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "authors": {"actor_hidden": (512, 512, 512, 512), "batch_reward_scale": 10.0, "deterministic": "sampled"}
    }

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found: dict[str, str] = {}
        if self.mixture.size == 1:
            why = "one expert has nothing to choose between, so leave it alone, or raise mixture_size"
            found |= dict.fromkeys(("update", "entropy_of", "mixture_hidden"), why)
        if self.batch_reward_scale is not None:
            why = "batch_reward_scale standardises the rewards of every batch, which undoes it; leave one of them alone"
            found |= dict.fromkeys(("rewards.scale", "rewards.shift"), why)
        return found

    def network(self, context: Any) -> MixtureActor:
        """Experts and weights, untrained."""
        seen, others = reading(context)
        return MixtureActor(
            seen,
            context.action_size,
            experts=self.mixture.size,
            hidden=self.hidden if self.actor_hidden is None else self.actor_hidden,
            mixture_hidden=self.mixture_hidden,
            initial_output=self.initial_output,
            **others,
        )

    def compose(self) -> Composition:
        """SAC's answers with a mixture for a policy."""
        models: dict[str, Any] = {"policy": MixturePolicy(self.network, self.learning_rate, self.mixture)}
        models |= self.critics.models(self.hidden, self.learning_rate, self.tau)
        models["temperature"] = self.entropy.model(self.learning_rate)
        rewards = [] if self.batch_reward_scale is None else [StandardisedRewards(self.batch_reward_scale)]
        target = SoftTarget(self.entropy_in_backup, sampler=OfDrawnExpert(self.entropy_of))
        actor = MixtureActorStep(self.mixture, self.update, self.entropy_of)
        updates = [CriticStep(self.critics.over, self.critics.scale), actor, *self.entropy.steps]
        return from_replay(
            self.collect,
            self.replay.with_discount(self.gamma),
            self.batches.draw(after=self.collect.random_steps),
            PerStep(self.batches.size, [*rewards, target], updates),
            models,
            stores=[self.rewards],
            read=AsRead(),
            log=self.log,
        )
