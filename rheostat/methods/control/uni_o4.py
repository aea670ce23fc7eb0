"""Uni-O4: one clipped objective offline and online.

Paper: Lei et al. 2023, "Uni-O4: Unifying Online and Offline Deep Reinforcement Learning with Multi-Step On-Policy Optimization", arXiv
2311.03351; it builds on BPPO (Zhuang et al. 2023, arXiv 2302.11312).

Equations (members i = 1..K; D: the data; mu_i: the old policy of member i; M: a learned dynamics model)
    V, Q       = V towards the return R_t, Q towards r + gamma Qbar(s', a') with a' of the data; or both as in iql
    cloning    = mean_D [-log pi_i(a|s) - alpha KL(pi_i(.|s), pi_j(.|s))],         j: the other member under which a is likeliest
    A_i        = standardised Q(s, a) - V(s),    s of D, a ~ mu_i(.|s);            times omega where positive, else 1 - omega (not iql)
    policy_i   = -mean min(ratio A_i, clip(ratio, 1 - eps, 1 + eps) A_i),          ratio = pi_i(a|s) / mu_i(a|s)
    AM-Q_i     = mean of Q(s, a) over the pairs that the mean action of pi_i visits in M from states of D
    gate       = mu_i <- pi_i when AM-Q_i is above the best so far, every ``gate_every`` steps
    online     = the same clipped ratio with advantages by GAE, from the chosen pi_i and the offline V

WHO ACTS   no one: actions are drawn from mu_i and judged by Q, and episodes are imagined in M. Online the chosen member.
KEPT       the data set. Online one on-policy batch; the data set is left behind.
WORTH      Q - V of critics fitted to the data once; online GAE.
MOVES      clipped ratios: to mu_i offline, to the policy before the update online. Nothing else holds the policy near the data.

Stages share ``--steps`` in proportion to ``critic_part``, ``model_part``, ``cloning_part`` and ``policy_part``, by default the published
numbers of steps (the model has none: it stops by itself, and what it saves is not spent). ``--online-steps`` follow. ``preset small`` has
networks and shares for small tasks. Q is that of the behaviour and is never fitted again, so AM-Q measures one step of improvement under
the states of the new policy, not its value; and the largest of many noisy scores is too large (``fixed_starts`` removes the noise).

What differs from the authors' code, where a setting says how to have it their way:
diversity (``diversity_kind``): their default ("heuristic") has no gradient but that of cloning and only rescales its step; the divergence
above is what the term is meant to be (a reconstruction). All members move at once, theirs one after the other.
clip (``clip_decay``): meant to fall to 0 with the step size; theirs stops falling after 2 percent of the steps ("released").
log std (``log_std_online``): their online network squashes it twice, so the same weights are another policy ("double-tanh").
choice (``choose``): AM-Q alone decides; they measure three members online ("return"), which is counted as environment steps.
drawn actions (``clip_actions``): log-probabilities are those of the draw; theirs are those of the clipped action.
time limits (``bootstrap_on_truncation``): V bootstraps where an episode was cut; theirs lets the return end there.
states: standardised with 1e-3 added to the deviation, as in td3-bc; theirs adds 1e-10 and is off by default.
Not offered: V refitted on running reward scales, an imitation term beside the offline surrogate, their AntMaze rewards.
Checked against: the authors' code (``tests/vectors``: uni-o4).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from rheostat.buffers.control_retainers import NEVER_ACTS, DataAlone, DataRewards, DataSet, Draw, States, per_turn
from rheostat.collect.control.control_collectors import Nobody
from rheostat.credit.control_annotations import GAE, OldValuesApart
from rheostat.errors import RheostatError
from rheostat.learner.actor_critic_updates import state_value
from rheostat.learner.behaviour_model import (
    BehaviourCriticsModel,
    BehaviourCriticStep,
    CriticOptions,
    DataReturns,
    DrawForModel,
    ModelOptions,
    ModelStep,
    ReadData,
    WorldModel,
)
from rheostat.learner.control_models import TrainableNetwork
from rheostat.learner.dial import Dial
from rheostat.learner.gated_ensemble import Choice, ClippedStep, ClippedSteps, CloneStep, Cloning, Gate, GatedEnsemble
from rheostat.learner.going_online import ADAM_EPSILON, ChosenMember, Drawing, FreshRows, Online, OnlinePolicy
from rheostat.learner.learner import Composition
from rheostat.learner.off_policy import AsRead, Batches, Logging, PerStep, UsesData
from rheostat.learner.stages import GradientSteps, Stage, Staged
from rheostat.options import option

STAGES = ("critics", "model", "cloning", "policies")

NO_IMAGES = (
    "it gates and chooses its policies in episodes that a learned model imagines, and that model predicts vectors of numbers: use iql, "
    "or ppo online"
)
"""Why observations cannot be images."""


@dataclass(frozen=True)
class Parts:
    """The offline stages' steps, in proportion: together they are ``--steps``."""

    critics: float = option(2_000_000.0, short="critic_part", above=0)
    """Gradient steps of the critics, in proportion to the other parts: together they are ``--steps``."""
    model: float = option(300_000.0, short="model_part", at_least=0)
    """Of the dynamics model, at most; 0 makes none (then only gates without AM-Q, and the first member is chosen)."""
    cloning: float = option(400_000.0, short="cloning_part", above=0)
    """Of the cloning."""
    policies: float = option(10_000.0, short="policy_part", at_least=0)
    """Of the clipped policy optimisation; 0 leaves the clones."""

    def __iter__(self) -> Any:
        return iter((self.critics, self.model, self.cloning, self.policies))

    def length(self, stage: int, steps: int) -> int:
        """Gradient steps of a stage, of so many.

        Raises:
            RheostatError: a budget that leaves a stage without a step.
        """
        ends = [0, *(round(steps * total / sum(self)) for total in itertools.accumulate(self))]
        found = ends[stage + 1] - ends[stage]
        if list(self)[stage] and not found:
            raise RheostatError(
                f"{steps:,} steps leave none for the stage {STAGES[stage]!r}: raise steps or change the parts (preset small has others)."
            )
        return found

    def until(self, stage: int, or_when: Any = None) -> GradientSteps:
        """The end of a stage."""
        return GradientSteps(lambda context: self.length(stage, context.total_steps), or_when)

    def describe(self) -> dict[str, int | str]:
        """The shares."""
        shares = zip(STAGES, self, strict=True)
        return {"shares of the offline steps": ", ".join(f"{name} {100 * part / sum(self):.3g} %" for name, part in shares)}


@dataclass(frozen=True)
class UniO4:
    """The published setting."""

    parts: Parts = Parts()
    rewards: DataRewards = DataRewards()
    states: States = States(True)
    keep: DataAlone = DataAlone()
    batches: Batches = Batches(512)
    gamma: float = option(0.99, share=True)
    """Discount per step."""
    critics: CriticOptions = CriticOptions()
    model: ModelOptions = ModelOptions()
    cloning: Cloning = Cloning()
    clipped: ClippedSteps = ClippedSteps()
    gate: Gate = Gate()
    choice: Choice = Choice()
    online: Online = Online()
    max_grad_norm: float = option(0.5, above=0)
    """Gradient norm limit of every policy, and of V online."""
    log: Logging = Logging()
    dial: Dial = Dial()
    """Not for this method: it collects no data offline, and is on-policy online."""

    uses_data: ClassVar[UsesData] = "first"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {
            "critic_part": 20.0,
            "model_part": 5.0,
            "cloning_part": 10.0,
            "policy_part": 2.0,
            "hidden": (64, 64),
            "critic_hidden": (64, 64),
            "value_hidden": (64, 64),
            "critic_learning_rate": 1e-3,
            "learning_rate": 3e-4,
            "model_networks": 3,
            "model_elites": 3,
            "model_hidden": (64, 64),
            "horizon": 100,
            "batch_size": 256,
        }
    }

    def refuse(self) -> None:
        """Refuse what cannot work together.

        Raises:
            RheostatError: a gate or a choice that lacks its model, or an option that does nothing.
        """
        if self.choice.deploy == "best" and (self.gate.rule != "am-q" or not self.parts.model):
            raise RheostatError("deploy=best takes the policies that passed the gate am-q: use that gate (and a model), or deploy=last.")
        if self.gate.rule == "am-q" and self.parts.policies and not self.parts.model:
            raise RheostatError("The gate am-q imagines episodes in a model: set model_part above 0, or gate to always or never.")
        if self.critics.form == "iql" and self.clipped.omega != 0.7:
            raise RheostatError("omega weighs advantages of critics sarsa, and those of iql are not weighed: leave it alone.")

    @property
    def scores_members(self) -> bool:
        """Whether AM-Q opens a gate or chooses between members."""
        by_gate = self.gate.rule == "am-q" and self.parts.policies > 0
        return self.parts.model > 0 and (by_gate or self.cloning.members > 1)

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found: dict[str, str] = {}
        if not self.scores_members:
            names = [f"model.{each.name}" for each in fields(self.model)] + ["gate.horizon", "gate.starts", "gate.fixed_starts"]
            found |= dict.fromkeys(names, "no score AM-Q is asked for, so no episode is imagined; leave it alone")
        if self.gate.rule == "never":
            found["gate.every"] = "gate never does not open, so leave it alone, or choose another gate"
        if not self.parts.policies:
            names = [f"clipped.{each.name}" for each in fields(self.clipped)] + ["gate.rule", "gate.every"]
            found |= dict.fromkeys(names, "policy_part is 0, so no policy is optimised offline; raise it, or leave it alone")
        if self.cloning.members == 1:
            found["choice.by"] = "one member goes online in any case, so leave it alone, or raise members"
        return found

    def idle_in(self, method: Any, context: Any) -> dict[str, str]:
        """Options that cannot act in a run, and why."""
        found: dict[str, str] = {}
        steps = self.parts.length(STAGES.index("policies"), context.total_steps)
        if steps < self.gate.every:
            found["gate.every"] = f"the policies make {steps} gradient steps, so the gate is never reached; lower it, or raise steps"
        if context.never_acts:
            names = [f"online.{each.name}" for each in fields(self.online) if each.name != "environments"]
            found |= dict.fromkeys([*names, *([] if self.parts.policies else ["max_grad_norm"])], NEVER_ACTS)
        return found

    def models(self) -> dict[str, Any]:
        """By name, in the order in which networks are drawn."""
        online = TrainableNetwork(state_value(self.critics.value_hidden), self.online.critic_learning_rate, eps=ADAM_EPSILON)
        members = GatedEnsemble(self.cloning, self.clipped, self.gate, self.max_grad_norm, STAGES.index("policies"))
        return {
            "behaviour critics": BehaviourCriticsModel(self.critics),
            "online policy": OnlinePolicy(self.cloning, self.online.learning_rate, squash=self.online.log_std == "double-tanh"),
            "value": online,
            **({"world model": WorldModel(self.model)} if self.parts.model else {}),
            "members": members,
            "policy": ChosenMember(self.choice),
        }

    def compose(self) -> Staged:
        """Five stages over shared models: critics, model, cloning, clipped steps offline, and PPO online."""
        self.refuse()
        models, read, sarsa = self.models(), AsRead(no_images=NO_IMAGES), self.critics.form == "sarsa"
        chosen, members, world_model = models["policy"], models["members"], models.get("world model")

        def offline(draw: Any, step: Any, size: int, *credit: Any) -> Composition:
            return Composition(Nobody(), [draw], [read], [PerStep(size, credit, [step])], models)

        size, rows = self.batches.size, self.model.rows
        draw = Draw(size, per_turn)
        returns = [DataReturns(self.critics.bootstrap_on_truncation)] if sarsa else []
        stalled = None if world_model is None else lambda context: world_model.stalled
        online = Composition(
            Drawing(self.online.environments, self.online.batch_steps, self.online.clip_actions),
            [FreshRows()],
            [AsRead(no_images=NO_IMAGES, clip_actions=False), OldValuesApart("online policy"), GAE(self.gamma, self.online.lam)],
            [self.online.update(self.max_grad_norm)],
            models,
        )
        nothing = Composition(Nobody(), [], [], [], models)
        fit = offline(DrawForModel(rows), ModelStep(), rows) if world_model else nothing
        stages = [
            Stage("critics", offline(Draw(size, per_turn, sarsa=sarsa), BehaviourCriticStep(), size, *returns), self.parts.until(0)),
            Stage("model", fit, self.parts.until(1, stalled), finish=lambda context: world_model.finish() if world_model else None),
            Stage("cloning", offline(draw, CloneStep(), size), self.parts.until(2), finish=lambda context: members.begin()),
            Stage("policies", offline(draw, ClippedStep(), size), self.parts.until(3), finish=chosen.end_offline),
            Stage("online", online, start=chosen.choose_by_return, log_always=True),
        ]
        log = replace(self.log, metered=after_fitting)
        data = [DataSet(), self.rewards, self.states, self.choice, replace(self.keep, gamma=self.gamma), ReadData(read, self.gamma)]
        return Staged(stages, models, report=True, stores=[self.parts, read, *data, log])


def after_fitting(context: Any) -> bool:
    """Whether policies have begun to move: how far they are from the data is put on the meter from then on."""
    return bool(context.steps > sum(context.stages[:2]))
