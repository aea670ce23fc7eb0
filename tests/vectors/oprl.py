"""Golden vectors of OPRL: the reward model's loss over trajectory pairs, step rewards, advantages, and both policy losses.

A row of the file is one step; here a row is a trajectory, whose steps stand one behind the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.credit.step_rewards import StepAdvantage
from rheostat.credit.turns import on_tokens, per_step
from rheostat.learner.reward_training import TrajectoryPreferenceUpdate
from rheostat.masking import masked_mean
from rheostat.methods.language.oprl import OPRL
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl import kl_estimate
from rheostat.options import with_options
from rheostat.parts import Batch
from tests.vectors.methods import around, batch_of, minimised, scores_of
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor

FORMS: dict[str, dict[str, Any]] = {
    "rloo": {"form": "rloo"},
    "rloo_process_only": {"form": "rloo", "episode": 0.0},
    "grpo_mean": {"form": "mean-baseline"},
    "grpo_mean_std": {"form": "grpo", "unbiased": True},
    "reinforce_pp_baseline": {"form": "mean-baseline", "whiten": True},
    "merged_rewards_rloo": {"form": "rloo", "combine": "rewards"},
}
"""The options of the part, by the end of a case's name."""


class Layout:
    """Which trajectory and step a row of the file is.

    Args:
        inputs: of a case, with ``mask``; ``traj`` and ``group`` where steps have episodes.
    """

    def __init__(self, inputs: dict[str, Any]) -> None:
        self.mask = boolean(inputs["mask"])
        count = len(self.mask)
        names = inputs.get("traj", list(range(count)))
        self.order = [[row for row in range(count) if names[row] == name] for name in dict.fromkeys(names)]
        groups = inputs.get("group", [0] * count)
        numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
        self.group = torch.tensor([numbers[groups[rows[0]]] for rows in self.order])
        self.steps = max(map(len, self.order))
        self.turn = self.joined(torch.arange(1, self.steps + 1)[self.place()][:, None] * self.mask)

    def place(self) -> Tensor:
        """``[N]``: the step of a row of the file within its trajectory, from 0."""
        return torch.tensor([next(rows.index(row) for rows in self.order if row in rows) for row in range(len(self.mask))])

    def joined(self, values: Tensor) -> Tensor:
        """Token values ``[N, t]`` of the file as ``[B, T]``; carries the gradient."""
        rows = [torch.cat([values[row] for row in rows]) for rows in self.order]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def numbers(self, values: Tensor) -> Tensor:
        """Numbers ``[N]`` of steps as ``[B, S]``."""
        return torch.nn.utils.rnn.pad_sequence([values[rows] for rows in self.order], batch_first=True)

    def taken_apart(self, values: Tensor) -> Tensor:
        """Token values ``[B, T]`` as in the file."""
        width = self.mask.shape[1]
        found = torch.zeros(self.mask.shape, dtype=values.dtype)
        for episode, rows in enumerate(self.order):
            for place, row in enumerate(rows):
                found[row] = values[episode, place * width : (place + 1) * width]
        return found

    def batch(self, **fields: Any) -> Batch:
        """The rows with their steps."""
        mask = self.turn > 0
        return batch_of(mask, columns={"turn": self.turn}, group=self.group[:, None].expand(mask.shape), **fields)


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if "mask" not in inputs:  # numbers of steps alone
        inputs = inputs | {"mask": [[1]] * len(inputs["traj"])}
    layout = Layout(inputs)
    if name.startswith("prm_trajectory_dpo"):
        return plain(preference(layout, inputs, params, "sum" if "sum_over_steps" in name else "mean"))
    if name.startswith("implicit_step_reward"):
        return plain(rewards(layout, inputs, params))
    if name == "advantage_paper_eq3_5":
        part = StepAdvantage(coefficient=params["alpha"], epsilon=params["eps"], unbiased=bool(params["ddof"]))
        found = of(part, layout, layout.numbers(tensor(inputs["step_reward"])), layout.numbers(tensor(inputs["outcome_per_row"])))
        return plain({"advantage_per_step": layout.taken_apart(found)[:, 0]})
    if name.startswith("advantage_official_"):
        form = FORMS[name.removeprefix("advantage_official_")]
        part = StepAdvantage(coefficient=params["alpha"], statistics="first", **form)
        step, episode = (
            per_step(layout.joined(tensor(inputs[each])), layout.turn) for each in ("step_reward_tokens", "episode_reward_tokens")
        )
        return plain({"advantages": layout.taken_apart(of(part, layout, step, episode))})
    if name.startswith("policy_loss"):
        return plain(loss(layout, inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def of(part: StepAdvantage, layout: Layout, reward: Tensor, outcome: Tensor) -> Tensor:
    """The method's advantages ``[B, T]``."""
    found: Any = OPRL(advantage=part).compose().credit[1]
    return found.of(layout.batch(), reward, outcome)


def preference(layout: Layout, inputs: dict[str, Any], params: dict[str, Any], score: Any) -> dict[str, Tensor]:
    """What the reward model's update minimises, whole and in micro-batches."""
    logp = leaf(inputs["logp_prm"])
    outcome = layout.numbers(tensor(inputs["outcome"]))[:, 0]
    reward = torch.zeros(layout.turn.shape, dtype=torch.float64)
    reward[:, 0] = outcome
    batch = layout.batch(learner_logp=layout.joined(tensor(inputs["logp_old"])), reward=reward)
    config = OPRL(reward_model=TrajectoryPreferenceUpdate(beta=params["beta"], score=score))
    part: Any = config.compose().improve[0]
    found = part.update.losses(around(), scores_of(layout.joined(logp)), batch, [torch.ones(())])[0]
    return {"loss": found, "grad_logp_prm": gradients(found, logp)[0]}


def rewards(layout: Layout, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Tensor]:
    """Step rewards, as they are and scaled; on the last token of a step, as the code writes them."""
    batch, logp = layout.batch(learner_logp=layout.joined(tensor(inputs["logp_old"]))), layout.joined(tensor(inputs["logp_prm"]))
    found = {}
    for name, scale in (("raw", "none"), ("normalised", "largest")):
        config = OPRL(advantage=StepAdvantage(scale=scale), reward_model=TrajectoryPreferenceUpdate(beta=params["beta"]))  # type: ignore[arg-type]
        part: Any = config.compose().credit[1]
        found[name] = part.rewards(batch, logp)
    tokens = layout.taken_apart(on_tokens(found["raw"], layout.turn))
    last = layout.mask & (layout.mask.flip(1).cumsum(1).flip(1) == 1)
    return {
        "step_reward_raw": tokens[:, 0],
        "step_reward_token_tensor": torch.where(last, tokens, 0.0),
        "step_reward_normalised": layout.taken_apart(on_tokens(found["normalised"], layout.turn))[:, 0],
    }


def loss(layout: Layout, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Tensor]:
    """The paper's loss with a ratio per step; the code's with one per token and a dual clip."""
    logp, old = leaf(inputs["logp"]), layout.joined(tensor(inputs["logp_old"]))
    advantage = on_tokens(layout.numbers(tensor(inputs["advantage_per_step"])), layout.turn)
    batch = layout.batch(learner_logp=old, advantage=advantage)
    clip, eps = params.get("dual_clip_c"), params["eps"]
    config = OPRL(clip=Clip(eps, eps, dual=clip), ratio="step" if clip is None else "token", entropy_coefficient=0.0)
    found, told = minimised(config, layout.joined(logp), batch)
    outputs = {"loss": found, "grad_logp": gradients(found, logp)[0]}
    if clip is None:
        return outputs
    _, single = minimised(with_options(config, {"dual_clip": None}, "oprl"), layout.joined(logp), batch)
    return outputs | {
        "clipfrac": single["meter/clip_fraction"],
        "clipfrac_lower": told["meter/clip_fraction"] - single["meter/clip_fraction"],
        "ppo_kl": masked_mean(kl_estimate(old, layout.joined(logp), "k1", mask=layout.turn > 0), layout.turn > 0),
    }
