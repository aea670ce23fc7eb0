"""Several clones of a behaviour, improved by clipped steps around their old policies, which follow only through a gate (Uni-O4).

:mod:`rheostat.methods.control.uni_o4` has the equations. The model named ``members`` holds the policies pi_i and their old policies mu_i;
it asks the models ``behaviour critics`` and, where there is one, ``world model``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rheostat.collect.control.model_rollouts import roll_out_model
from rheostat.credit.am_q import am_q_score, improved
from rheostat.errors import RheostatError
from rheostat.objectives.clipping import Clip
from rheostat.objectives.diverse_cloning import Diversity, OverDimensions, diverse_cloning_loss
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.weights import sided_advantage
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.control.ensembles import GaussianEnsemble, TrainableEnsemble
from rheostat.policies.parameters import PolyakCopy
from rheostat.streams import derive_seed
from rheostat.tasks.control.terminations import termination_of
from rheostat.trajectories import Transitions

RELEASED_DECAY = 0.02
"""Share of the steps during which the released clip falls."""
Found = dict[str, Tensor | float]
"""Numbers of a gradient step."""


@dataclass(frozen=True)
class Cloning:
    """Policies of one shape that imitate the data apart from each other."""

    members: int = option(4, at_least=1)
    """Policies of the ensemble (K)."""
    hidden: tuple[int, ...] = option((256, 256, 256), at_least=1)
    """Hidden layers of the policies."""
    activation: Literal["relu", "tanh"] = option("relu")
    """Of the policies' hidden layers (the authors take tanh for HalfCheetah medium and medium-replay)."""
    learning_rate: float = option(1e-4, at_least=0)
    """Adam step size of the cloning."""
    diversity: float = option(0.1)
    """alpha: how much the members are kept apart while cloning."""
    divergence: Diversity = option("distribution", short="diversity_kind")
    """A divergence between members; or the released log-likelihood ratio, which only rescales cloning (heuristic)."""
    dimensions: OverDimensions = option("mean", short="diversity_dimensions")
    """That divergence as a mean over action dimensions (the authors) or their sum."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if self.members == 1:
            why = "one member has no other to differ from, so leave it alone, or raise members"
            return dict.fromkeys(("diversity", "divergence", "dimensions"), why)
        if not self.diversity:
            return dict.fromkeys(("divergence", "dimensions"), "diversity is 0, so raise it, or leave this alone")
        heuristic = self.divergence == "heuristic"
        return {"dimensions": "diversity_kind heuristic has no divergence, so leave it alone"} if heuristic else {}

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        why = "actions of this task have one dimension, whose mean is its sum; leave it alone"
        return {"dimensions": why} if context.sizes[1] == 1 else {}

    def policies(self, context: Any, members: int, *, squash: bool = False) -> GaussianEnsemble:
        """Untrained policies of unit actions."""
        draw = context.streams["networks"]
        return GaussianEnsemble(members, *context.sizes, hidden=self.hidden, activation=self.activation, squash=squash, generator=draw)


@dataclass(frozen=True)
class ClippedSteps:
    """The offline optimisation of the policies around their old policies."""

    learning_rate: float = option(1e-4, short="policy_learning_rate", at_least=0)
    """Adam step size of the offline policy optimisation, falling to 0 (the authors: 1e-5 on Adroit)."""
    clip: float = option(0.25, short="offline_clip", at_least=0)
    """Clip range eps of the ratio to the old policy."""
    decay: Literal["linear", "released", "none"] = option("linear", short="clip_decay")
    """eps falls to 0 over the stage; or over its first 2 percent as if it would, and stays there; or is constant."""
    omega: float = option(0.7, share=True)
    """Weight of positive advantages against that of the others, 1 - omega (sarsa)."""
    entropy: float = option(0.0, short="offline_entropy")
    """Weight of the entropy bonus offline."""

    def clip_at(self, step: int, steps: int) -> float:
        """The clip range of a step, of so many."""
        if self.decay == "none":
            return self.clip
        last = steps if self.decay == "linear" else round(RELEASED_DECAY * steps)
        return self.clip * (1 - min(step, last) / steps)


@dataclass(frozen=True)
class Gate:
    """When an old policy follows."""

    rule: Literal["am-q", "always", "never"] = option("am-q", short="gate")
    """When the old policy follows: if AM-Q is better than ever, at every evaluation, or never (one-step improvement)."""
    every: int = option(100, short="gate_every", at_least=1)
    """Gradient steps of the policies between evaluations by the gate."""
    horizon: int = option(1000, at_least=1)
    """Longest imagined episode. Where the task's termination rule is not known, shorter is safer."""
    starts: int = option(512, at_least=1)
    """Imagined episodes of every member per evaluation."""
    fixed_starts: bool = option(False)
    """The same start states and draws of the model in every evaluation, so that scores differ by the policies alone."""


@dataclass(frozen=True)
class Choice:
    """Who goes online."""

    by: Literal["am-q", "return"] = option("am-q", short="choose")
    """Who goes online: the member with the best AM-Q; or, of the best ``choose_among``, the one with the best return online."""
    among: int = option(3, short="choose_among", at_least=1)
    """Members that are measured online."""
    episodes: int = option(10, short="choose_episodes", at_least=1)
    """Episodes of each; their steps are taken from ``--online-steps``."""
    deploy: Literal["last", "best"] = option("last")
    """The chosen member's policy as it is and its last score, or its last policy that passed the gate and that one's score."""

    def __post_init__(self) -> None:
        if self.by == "am-q" and (self.among, self.episodes) != (3, 10):
            raise RheostatError("choose_among and choose_episodes are of members measured online: set choose return too.")

    def prepare(self, context: Any) -> None:
        """Refuse online measurements without steps for them."""
        if self.by == "return" and not context.online_steps:
            raise RheostatError("choose=return measures members online: give it --online-steps to spend, or choose by am-q.")


class GatedEnsemble:
    """K policies pi_i with their old policies mu_i.

    Args:
        cloning: the policies and how they imitate.
        steps: how they are improved.
        gate: when old policies follow.
        max_grad_norm: gradient norm limit of every policy.
        stage: number of the stage in which they are improved.

    Attributes:
        scores: the last AM-Q of every member, ``[K]``; 0 where there is no model.
        best: the best AM-Q of what each old policy was, ``[K]``.
        replaced: how often an old policy has followed.
    """

    def __init__(self, cloning: Cloning, steps: ClippedSteps, gate: Gate, max_grad_norm: float, stage: int) -> None:
        self.cloning, self.clipped, self.gate, self.max_grad_norm, self._stage = cloning, steps, gate, max_grad_norm, stage

    def bind(self, context: Any, name: str) -> None:
        """Build the policies; the data set's states, as the networks read them, are where imagined episodes start."""
        self.context, self.streams = context, context.streams
        self.critics, self.model = context.models["behaviour critics"], context.models.get("world model")
        self.states, self.steps = context.stores["data as read"].rows.observation, context.stages[self._stage]
        self.termination = termination_of(context.environments.name)
        self.policies = self.cloning.policies(context, self.cloning.members)
        self.learner = TrainableEnsemble(self.policies, self.cloning.learning_rate)
        self.target = PolyakCopy(self.learner)
        self.scores = torch.zeros(self.cloning.members)
        self.best = torch.full((self.cloning.members,), -torch.inf)
        self.replaced = 0

    @property
    def old(self) -> GaussianEnsemble:
        """mu."""
        return self.target.network

    def ended(self, observation: Tensor) -> Tensor:
        """Whether the task has ended at observations as the networks read them, bool ``[N]``."""
        if self.termination is None:
            return torch.zeros(len(observation), dtype=torch.bool)
        seen = self.context.stores.get("observations")
        return self.termination(observation if seen is None else observation * seen.scale + seen.shift)

    # --- cloning ----------------------------------------------------------------------------------------------------------------------

    def clone(self, rows: Transitions) -> Found:
        """One step: all members imitate the same rows, apart from each other."""
        cloning, policies = self.cloning, self.policies.distribution(rows.observation)
        logp = policies.log_prob(rows.action)  # [K, B]
        losses = diverse_cloning_loss(
            logp, policies.mean, policies.log_std, alpha=cloning.diversity, kind=cloning.divergence, dimensions=cloning.dimensions
        )
        self.learner.step(losses.sum())
        spread = policies.mean.detach().std(0).mean() if cloning.members > 1 else 0.0
        return {"cloning_loss": losses.detach().mean(), "likelihood": logp.detach().mean(), "spread_of_members": spread}

    def begin(self) -> None:
        """The clones become the old policies, and their scores the ones to beat; the optimiser starts anew."""
        self.target.update_target(1.0)
        self.learner.forget()
        if self.model is not None:
            self.best = self.scores = self.am_q()

    # --- clipped steps ----------------------------------------------------------------------------------------------------------------

    def improve(self, rows: Transitions, step: int) -> Found:
        """Clipped step number ``step`` of every member around its old policy, at the states of the rows; now and then the gate."""
        left = 1 - step / self.steps
        action, advantage, old_logp = self.evaluate_actions(rows.observation)
        policies, clip = self.policies.distribution(rows.observation), self.clipped.clip_at(step, self.steps)
        surrogate = policy_gradient(
            policies.log_prob(action),
            advantage,
            denominator_logp=old_logp,
            clip=Clip(clip, clip),
            aggregate="sequence-mean",
            denominator=1.0,  # the sum over members of the mean over states
        )
        entropy = policies.entropy().mean(-1)
        self.learner.learning_rate = self.clipped.learning_rate * left
        norm = self.learner.step(surrogate.loss - self.clipped.entropy * entropy.sum(), max_grad_norm=self.max_grad_norm)
        found: Found = {
            "policy_loss": surrogate.loss.detach() / self.cloning.members,
            "entropy": entropy.detach().mean(),
            "approx_kl": surrogate.approx_kl,
            "meter/clip_fraction": surrogate.clip_fraction,
            "meter/gradient_norm": norm,
            "clip": clip,
        }
        return found | (self.pass_gate() if (step + 1) % self.gate.every == 0 else {})

    @torch.no_grad()
    def evaluate_actions(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions ``[K, B, D]`` that the old policies draw, their advantages and their log-probabilities, ``[K, B]``."""
        old = self.old.distribution(observation)
        action = old.sample(self.streams["updates"])
        members, rows = action.shape[:2]
        everywhere = observation.expand(members, rows, -1).flatten(0, 1)
        q = self.critics.q(everywhere, action.flatten(0, 1)).view(members, rows)
        omega = 0.5 if self.critics.kind == "iql" else self.clipped.omega
        advantage = torch.stack([sided_advantage(one, omega) for one in q - self.critics.value(observation)])
        return action, advantage, old.log_prob(action)

    # --- the gate ---------------------------------------------------------------------------------------------------------------------

    def pass_gate(self) -> Found:
        """Replace old policies where the gate's rule says so."""
        if self.gate.rule == "never":
            return {}
        if self.gate.rule == "always":
            return self.replace_old(torch.ones_like(self.best, dtype=torch.bool))
        self.scores = self.am_q()
        better = improved(self.scores, self.best)
        self.best = torch.where(better, self.scores, self.best)
        return {"am_q": self.scores.mean(), "am_q_best": self.best.mean()} | self.replace_old(better)

    def replace_old(self, which: Tensor) -> Found:
        """``mu_i <- pi_i`` where ``which`` (bool ``[K]``) is True; pi_i itself is unchanged."""
        self.old.replace(which, self.policies)
        self.replaced += int(which.sum())
        return {"replaced_share": which.float().mean()}

    @torch.no_grad()
    def am_q(self) -> Tensor:
        """AM-Q of every pi_i ``[K]``, all from the same start states."""
        assert self.model is not None
        gate, members, generator = self.gate, self.cloning.members, self.streams["imagined"]
        if gate.fixed_starts:
            generator = torch.Generator().manual_seed(derive_seed(self.streams.seed, "imagined"))
        start = self.states[torch.randint(len(self.states), (gate.starts,), generator=generator)].repeat(members, 1)

        def act(observation: Tensor) -> Tensor:
            return self.policies.distribution(observation.view(members, gate.starts, -1)).mean.flatten(0, 1)

        q, alive = [], []
        for step in roll_out_model(self.model.predict, act, start, gate.horizon, generator=generator, ended=self.ended):
            q.append(self.critics.q(step.observation, step.action).view(members, gate.starts))
            alive.append(step.alive.view(members, gate.starts))
        return am_q_score(torch.stack(q, 1), torch.stack(alive, 1))

    # --- the choice -------------------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """Update the latest scores."""
        fresh = self.steps == 0 or (self.gate.rule == "am-q" and self.steps % self.gate.every == 0)
        if self.model is not None and not fresh:
            self.scores = self.am_q()

    def candidates(self, deploy: str) -> GaussianEnsemble:
        """The policies that may go online."""
        return self.old if deploy == "best" else self.policies

    def ranking(self, deploy: str) -> list[int]:
        """The members, best first, by the score that belongs to what may go online."""
        scores = self.best if deploy == "best" and self.model is not None else self.scores
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


@dataclass(frozen=True)
class CloneStep:
    """Clones the data with every member."""

    models: ClassVar[tuple[str, ...]] = ("members",)

    def step(self, context: Any, batch: Batch) -> Found:
        """One Adam step of every member on the same rows ``[B]``; returns what :meth:`GatedEnsemble.clone` says."""
        found: Found = context.models["members"].clone(batch.rows)
        return found


@dataclass(frozen=True)
class ClippedStep:
    """Updates every member around its old policy."""

    models: ClassVar[tuple[str, ...]] = ("members", "behaviour critics")

    def step(self, context: Any, batch: Batch) -> Found:
        """One clipped step of every member at the observations of the rows ``[B, n]``; returns what :meth:`GatedEnsemble.improve` says."""
        found: Found = context.models["members"].improve(batch.rows, context.gradient_steps)
        return found
