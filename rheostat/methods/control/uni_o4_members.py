"""Several clones of a behaviour, improved by clipped steps around their old policies, which follow only through a gate.

The offline half of Uni-O4 (:mod:`rheostat.methods.control.uni_o4` has the equations). Not a method itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rheostat.collect.control.model_rollouts import imagine
from rheostat.credit.am_q import am_q_score, improved
from rheostat.objectives.diverse_cloning import diverse_cloning_loss
from rheostat.objectives.limits import Clip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.weights import sided_advantage
from rheostat.policies.control.behaviour_critics import BehaviourCritics
from rheostat.policies.control.dynamics import DynamicsModel
from rheostat.policies.control.ensembles import GaussianMembers, TrainedMembers
from rheostat.policies.parameters import Target
from rheostat.streams import Streams, derive_seed
from rheostat.trajectories import Transitions

if TYPE_CHECKING:
    from rheostat.methods.control.uni_o4 import UniO4Config

RELEASED_DECAY = 0.02
"""Share of the steps during which the released clip falls."""
Found = dict[str, Tensor | float]
"""Numbers of a gradient step."""


class GatedMembers:
    """K policies pi_i with their old policies mu_i.

    Args:
        config: of the method.
        policies: pi.
        critics: of the behaviour; they judge actions.
        model: of the world, in which episodes are imagined; None where none is learned.
        states: observations of the data ``[n, ...]``, as the networks read them.
        ended: whether the world has ended at such observations, bool ``[N]``.
        steps: clipped steps there will be.
        streams: of the run.

    Attributes:
        scores: the last AM-Q of every member, ``[K]``; 0 where there is no model.
        best: the best AM-Q of what each old policy was, ``[K]``.
        replaced: how often an old policy has followed.
    """

    def __init__(
        self,
        config: UniO4Config,
        policies: GaussianMembers,
        critics: BehaviourCritics,
        model: DynamicsModel | None,
        *,
        states: Tensor,
        ended: Callable[[Tensor], Tensor],
        steps: int,
        streams: Streams,
    ) -> None:
        self.config, self.critics, self.model, self.streams = config, critics, model, streams
        self.states, self.ended, self.steps = states, ended, steps
        self.learner = TrainedMembers(policies, config.learning_rate)
        self.policies = policies
        self.target = Target(self.learner)
        self.scores = torch.zeros(config.members)
        self.best = torch.full((config.members,), -torch.inf)
        self.replaced = 0

    @property
    def old(self) -> GaussianMembers:
        """mu."""
        return self.target.network

    # --- cloning ----------------------------------------------------------------------------------------------------------------------

    def clone(self, rows: Transitions) -> Found:
        """One step: all members imitate the same rows, apart from each other."""
        config, policies = self.config, self.policies.distribution(rows.observation)
        logp = policies.log_prob(rows.action)  # [K, B]
        losses = diverse_cloning_loss(
            logp,
            policies.mean,
            policies.log_std,
            alpha=config.diversity,
            kind=config.diversity_kind,
            dimensions=config.diversity_dimensions,
        )
        self.learner.descend(losses.sum())
        spread = policies.mean.detach().std(0).mean() if config.members > 1 else 0.0
        return {"cloning_loss": losses.detach().mean(), "likelihood": logp.detach().mean(), "spread_of_members": spread}

    def begin(self) -> None:
        """The clones become the old policies, and their scores the ones to beat; the optimiser starts anew."""
        self.target.follow(1.0)
        self.learner.forget()
        if self.model is not None:
            self.best = self.scores = self.am_q()

    # --- clipped steps ----------------------------------------------------------------------------------------------------------------

    def improve(self, rows: Transitions, step: int) -> Found:
        """Clipped step number ``step`` of every member around its old policy, at the states of the rows; now and then the gate."""
        config, left = self.config, 1 - step / self.steps
        action, advantage, start_logp = self.judge(rows.observation)
        policies, clip = self.policies.distribution(rows.observation), self.clip_at(step)
        surrogate = policy_gradient(
            policies.log_prob(action),
            advantage,
            denominator_logp=start_logp,
            limit=Clip(clip, clip),
            aggregate="sequence-mean",
            denominator=1.0,  # the sum over members of the mean over states
        )
        entropy = policies.entropy().mean(-1)
        self.learner.learning_rate = config.policy_learning_rate * left
        norm = self.learner.descend(surrogate.loss - config.offline_entropy * entropy.sum(), max_grad_norm=config.max_grad_norm)
        found: Found = {
            "policy_loss": surrogate.loss.detach() / config.members,
            "entropy": entropy.detach().mean(),
            "approx_kl": surrogate.approx_kl,
            "meter/limited_share": surrogate.limited_share,
            "meter/gradient_norm": norm,
            "clip": clip,
        }
        return found | (self.pass_gate() if (step + 1) % config.gate_every == 0 else {})

    def clip_at(self, step: int) -> float:
        """The clip range of a step."""
        config = self.config
        if config.clip_decay == "none":
            return config.offline_clip
        last = self.steps if config.clip_decay == "linear" else round(RELEASED_DECAY * self.steps)
        return config.offline_clip * (1 - min(step, last) / self.steps)

    @torch.no_grad()
    def judge(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions ``[K, B, D]`` that the old policies draw, what they are worth and their log-probabilities, ``[K, B]``."""
        old = self.old.distribution(observation)
        action = old.sample(self.streams["updates"])
        members, rows = action.shape[:2]
        everywhere = observation.expand(members, rows, -1).flatten(0, 1)
        q = self.critics.q(everywhere, action.flatten(0, 1)).view(members, rows)
        omega = 0.5 if self.critics.kind == "iql" else self.config.omega
        advantage = torch.stack([sided_advantage(one, omega) for one in q - self.critics.value(observation)])
        return action, advantage, old.log_prob(action)

    # --- the gate ---------------------------------------------------------------------------------------------------------------------

    def pass_gate(self) -> Found:
        """Let old policies follow, by the rule of the gate."""
        if self.config.gate == "never":
            return {}
        if self.config.gate == "always":
            return self.follow(torch.ones_like(self.best, dtype=torch.bool))
        self.scores = self.am_q()
        better = improved(self.scores, self.best)
        self.best = torch.where(better, self.scores, self.best)
        return {"am_q": self.scores.mean(), "am_q_best": self.best.mean()} | self.follow(better)

    def follow(self, which: Tensor) -> Found:
        """``mu_i <- pi_i`` where ``which`` (bool ``[K]``) is True; pi_i goes on from where it is in any case."""
        self.old.replace(which, self.policies)
        self.replaced += int(which.sum())
        return {"replaced_share": which.float().mean()}

    @torch.no_grad()
    def am_q(self) -> Tensor:
        """AM-Q of every pi_i ``[K]``, all from the same start states."""
        assert self.model is not None
        config, members, generator = self.config, self.config.members, self.streams["imagined"]
        if config.fixed_starts:
            generator = torch.Generator().manual_seed(derive_seed(self.streams.seed, "imagined"))
        start = self.states[torch.randint(len(self.states), (config.starts,), generator=generator)].repeat(members, 1)

        def act(observation: Tensor) -> Tensor:
            return self.policies.distribution(observation.view(members, config.starts, -1)).mean.flatten(0, 1)

        q, alive = [], []
        for step in imagine(self.model.predict, act, start, config.horizon, generator=generator, ended=self.ended):
            q.append(self.critics.q(step.observation, step.action).view(members, config.starts))
            alive.append(step.alive.view(members, config.starts))
        return am_q_score(torch.stack(q, 1), torch.stack(alive, 1))

    # --- the choice -------------------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Bring the last scores up to date."""
        fresh = self.steps == 0 or (self.config.gate == "am-q" and self.steps % self.config.gate_every == 0)
        if self.model is not None and not fresh:
            self.scores = self.am_q()

    @property
    def candidates(self) -> GaussianMembers:
        """The policies that may go online."""
        return self.old if self.config.deploy == "best" else self.policies

    @property
    def ranking(self) -> list[int]:
        """The members, best first, by the score that belongs to what may go online."""
        scores = self.best if self.config.deploy == "best" and self.model is not None else self.scores
        return scores.argsort(descending=True, stable=True).tolist()

    def state_dict(self) -> dict[str, Any]:
        """Policies, optimiser, old policies and scores."""
        return {"learner": self.learner.state_dict(), "target": self.target.state_dict()} | {name: getattr(self, name) for name in KEPT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self.learner.load_state_dict(state["learner"])
        self.target.load_state_dict(state["target"])
        for name in KEPT:
            setattr(self, name, state[name])


KEPT = ("scores", "best", "replaced")
