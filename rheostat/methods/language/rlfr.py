"""RLFR: tokens whose hidden states leave the flow of good solutions cost a little.

Paper: Zhang et al. 2025, "RLFR: Extending Reinforcement Learning for LLMs with Flow Environment", arXiv 2510.10201;
code: Jinghaoleven/RLFR.

Equations (h_t the output of a layer of the policy after token t, v the flow field, noise ~ N(0, I); a mean over layers)
    x     = tau h_t + (1 - tau) noise,   u = h_t - noise
    e_t   = mean over the width of (v(x, tau, h_{t-1}, layer) - u)^2,   score = tau / (1 - tau) e_t                     (tau = 0.8)
    s_t   = (score - smallest) / (largest - smallest) of the completion, where above 0.6 and among the 15 largest; else 0
    A_it  = (R_i - mean_g R) / (std_g R + 1e-9) - lambda sum over t' >= t of s_it'
    loss  = mean over completions of mean over tokens of max(-r A, -clip(r, 0.8, 1.2) A),  r at most 3
    L(v)  = mean over right completions of mean over tokens of e_t

WHO ACTS   the policy samples ``group_size`` completions for each of ``prompts_per_batch`` prompts.
KEPT       the fresh batch; of it the field also learns from the right completions (rejection sampling), and before the first update from
           an expert's rows.
WORTH      the task's reward relative to the group (the paper: 1 right, 0.5 wrong but well formed, 0 malformed), and the penalties to come.
MOVES      the field: first, while the policy stands still, ``offline_steps`` times on an expert's rows, at times drawn for every token;
           then in every update, on the latents of the policy as the update begins. Then the policy, by the clipped surrogate.

What differs from grpo: a second network, its penalties, the cap on the ratio (``dual_clip`` 3 is the same for both signs of A), no KL.
Penalties are relative within a completion: each has some, however well the field fits, and completions are not compared.
``flow_coefficient 0`` is grpo with these settings; ``offline_steps 0 --flow-passes 0`` penalises by a field that knows nothing, a control.

What the released code does differently: its scripts switch on re-entrant gradient checkpointing, inside of which the field's loss reaches
no weight, so that the online update does nothing (here a test demands that it moves the field); offline it pairs a token with the one after
it, and online with the one before (here ``flow_pairing`` is one for both); the smallest score of a row is searched as if every row had
padding, and several times weigh as the last one does (``flow_released``); the DAPO option of its loss never acts; the field is updated
between the policy's steps (here before them, in as many steps).
Choices of ours: a time is written in waves of up to 1,000 radians; a first token's partner is the last of the prompt; the field forgets its
moments after the expert's rows; a policy with few layers has each of the three once.
Checked against: the authors' code (``tests/vectors``: rlfr).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from rheostat.buffers.retainers import Valid
from rheostat.collect.language.language_collectors import Groups, SamplingOptions
from rheostat.credit.annotations import GroupAdvantage
from rheostat.credit.flow_rewards import FlowRewards, FlowSeeds
from rheostat.learner.context import Budget, Evaluation, Grading
from rheostat.learner.dial import Dial
from rheostat.learner.flow_training import FlowLessons, FlowOptions, FlowUpdate, LessonOptions
from rheostat.learner.language import LossKL, group_policy_gradient
from rheostat.learner.learner import Composition
from rheostat.learner.update import Update
from rheostat.objectives.clipping import Clip
from rheostat.objectives.terms import PolicyGradient
from rheostat.options import option
from rheostat.parts import Aggregate, Tokens, Weighted


@dataclass(frozen=True)
class RLFR:
    """The setting of the 1.5B and 3B models, with batch sizes for one machine."""

    groups: Groups = Groups(16, 8)
    sampling: SamplingOptions = SamplingOptions()
    keep: Valid = Valid()
    flow: FlowOptions = FlowOptions()
    offline: LessonOptions = LessonOptions()
    online: FlowUpdate = FlowUpdate()
    advantage: GroupAdvantage = GroupAdvantage("grpo", epsilon=1e-9)
    penalty: FlowRewards = FlowRewards()
    clip: Clip = Clip(0.2, 0.2, dual=3.0)
    aggregate: Aggregate = Aggregate("sequence-mean")
    kl: LossKL = LossKL(0.0)
    entropy_coefficient: float = option(0.0)
    """Weight of an entropy bonus."""
    update: Update = Update(minibatches=8)
    evaluation: Evaluation = Evaluation()
    grading: Grading = Grading()
    budget: Budget = Budget()
    dial: Dial = Dial()

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "7b": {"flow_blocks": 6, "offline_repeats": 2},
        "tiny": {"learning_rate": 2e-4, "flow_learning_rate": 1e-3, "offline_learning_rate": 1e-3},
    }

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        if not self.penalty.coefficient:
            parts: dict[str, Any] = {"flow": self.flow, "offline": self.offline, "online": self.online, "penalty": self.penalty}
            names = [f"{name}.{each.name}" for name, part in parts.items() for each in fields(part) if each.metadata]
            names.remove("penalty.coefficient")
            return dict.fromkeys(names, "flow_coefficient is 0, so there is no flow field; leave it alone")
        found = dict[str, str]()
        if not self.online.passes:
            why = "flow_passes is 0, so the field does not learn while the policy trains; leave it alone"
            found |= dict.fromkeys(("online.learning_rate", "online.right", "online.entropy_share"), why)
            if not self.offline.steps:
                found["online.max_grad_norm"] = "offline_steps and flow_passes are 0, so the field does not learn; leave it alone"
        return found

    def compose(self) -> Composition:
        """The four answers."""
        found = group_policy_gradient(self, Weighted(PolicyGradient(Tokens(self.aggregate), self.clip, clamp_log_ratio=False)))
        if not self.penalty.coefficient:
            return found
        shared: dict[str, Any] = {"times": self.flow.times, "pairing": self.flow.pairing}
        steps: dict[str, Any] = {"minibatches": self.update.minibatches, "micro_batch_rows": self.update.micro_batch_rows}
        online = replace(self.online, **shared, **steps)
        lessons = [FlowLessons(self.offline, online)] if self.offline.steps else []
        return replace(
            found,
            retain=[*found.retain, *lessons],
            credit=[*found.credit, FlowSeeds(), replace(self.penalty, **shared)],
            improve=[online, *found.improve],
            models=found.models | {"flow": online.trained(self.flow)},
        )
