"""Learning the TwoStep toy from few trajectories per update, with data sampled on-policy or repaired.

Many seeds at once: ``copies`` independent copies of the world and of its tabular policy lie side by side in one table (copy c owns the
rows ``3 c .. 3 c + 2``), so one call of an objective serves all of them. Objectives average over all copies' rows; multiplying the step
size (ROS) or the loss (PROPS, policy gradient) by the number of copies undoes that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rheostat.credit.returns import discounted_return
from rheostat.masking import standardise
from rheostat.objectives.behaviour import behaviour_loss, ros_tabular_step
from rheostat.objectives.clipping import DetachedClip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.sampling_error import sampling_error_tabular, visit_counts
from rheostat.policies.control.distributions import Categorical
from rheostat.tasks.control.tabular import TabularBatch
from rheostat.tasks.control.two_step import two_step

LENGTH = 2
"""Steps of an episode."""


class OnPolicy:
    """Who acts: the learned policy."""

    def __init__(self, copies: int, settings: dict[str, Any]) -> None:
        self.copies, self.settings = copies, settings

    def logits(self, theta: Tensor, states: list[Tensor], actions: list[Tensor]) -> Tensor:
        """Logits of the acting policy, given this batch's data so far."""
        return theta


class ROS(OnPolicy):
    """Who acts: theta moved one gradient step away from the batch's data, re-derived before every step."""

    def logits(self, theta: Tensor, states: list[Tensor], actions: list[Tensor]) -> Tensor:
        if not states:
            return theta
        return ros_tabular_step(theta, torch.cat(states), torch.cat(actions), lr=self.settings["learning_rate"] * self.copies)[0]


class PROPS(OnPolicy):
    """Who acts: theta moved by Adam down the clipped ratio, re-derived every ``every`` steps; Adam's moments are kept. No KL stop: it would
    have to be taken for every copy by itself (the authors' limit for this toy, 0.3 to 1, is out of the clip's reach)."""

    def __init__(self, copies: int, settings: dict[str, Any]) -> None:
        super().__init__(copies, settings)
        self.phi = nn.Parameter(torch.empty(0))
        self.optimizer: torch.optim.Optimizer | None = None

    def logits(self, theta: Tensor, states: list[Tensor], actions: list[Tensor]) -> Tensor:
        if not states:
            return theta
        if self.optimizer is None:
            self.phi = nn.Parameter(theta.clone())
            self.optimizer = torch.optim.Adam([self.phi], lr=self.settings["learning_rate"], eps=1e-5)
        if len(states) % self.settings["every"]:
            return self.phi.detach()
        with torch.no_grad():
            self.phi.copy_(theta)
        state, action = torch.cat(states), torch.cat(actions)
        target_logp = Categorical(theta[state]).log_prob(action)
        for _ in range(self.settings["epochs"]):
            step = behaviour_loss(Categorical(self.phi[state]).log_prob(action), target_logp, clip=self.settings["clip"], kl_coef=0.0)
            self.optimizer.zero_grad()
            (step.loss * self.copies).backward()
            self.optimizer.step()
        return self.phi.detach()


SAMPLERS: dict[str, type[OnPolicy]] = {"on-policy": OnPolicy, "ros": ROS, "props": PROPS}


def learn(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: all seeds of one arm.

    Policy gradient: all steps of a batch with the batch-standardised return that follows them, summed over a trajectory and averaged over
    trajectories; plain gradient ascent. Its data are those of the present batch alone, so the sampler starts every batch with none.

    Arguments: ``arm``, ``settings`` of the sampler, ``seeds``, ``seed`` (of the one generator), ``updates``, ``trajectories`` per update,
    ``learning_rate``.

    Returns:
        Per seed: ``optimal`` (both greedy actions right at the end), ``expected_return`` (of the final policy), ``sampling_error`` (mean
        over batches); and ``curve``: mean sampling error of every batch.
    """
    copies, count = arguments["seeds"], arguments["trajectories"]
    world, generator = two_step(), torch.Generator().manual_seed(arguments["seed"])
    worlds = TabularBatch(world, copies, generator)
    rows, kinds = copies * world.num_states, world.num_actions
    offset = torch.arange(copies) * world.num_states
    theta = torch.zeros(rows, kinds)
    sampler = SAMPLERS[arguments["arm"]](copies, arguments["settings"])
    errors: list[Tensor] = []
    for _ in range(arguments["updates"]):
        states: list[Tensor] = []
        actions: list[Tensor] = []
        rewards: list[Tensor] = []
        ends: list[Tensor] = []
        for _ in range(count * LENGTH):
            state = worlds.state + offset
            action = Categorical(sampler.logits(theta, states, actions)[state]).sample(generator)
            step = worlds.step(action)
            states.append(state)
            actions.append(action)
            rewards.append(step.reward)
            ends.append(step.terminated)
        state, action, end = torch.cat(states), torch.cat(actions), torch.stack(ends, 1)
        counts = visit_counts(state, action, shape=(rows, kinds)).view(copies, world.num_states, kinds)
        probs = theta.double().softmax(-1).view_as(counts)
        errors.append(torch.stack([sampling_error_tabular(p, n) for p, n in zip(probs, counts, strict=True)]))
        returns = discounted_return(torch.stack(rewards, 1), end, torch.zeros_like(end), gamma=1.0)
        advantage = torch.vmap(standardise)(returns).T.flatten()  # [step, copy], as the states
        leaf = theta.clone().requires_grad_()
        loss = policy_gradient(Categorical(leaf[state]).log_prob(action), advantage, denominator_logp=None, clip=DetachedClip()).loss
        (loss * copies * LENGTH).backward()
        assert leaf.grad is not None
        theta = theta - arguments["learning_rate"] * leaf.grad
    probs = theta.double().softmax(-1).view(copies, world.num_states, kinds)
    leaves = (probs[:, 1:] * world.reward[1:].double()).sum(-1)
    expected = (probs[:, 0] * leaves).sum(-1)
    greedy = (probs[:, 0].argmax(-1) == 0) & (probs[:, 1].argmax(-1) == 0)
    per_batch = torch.stack(errors)
    return {
        "optimal": greedy.int().tolist(),
        "expected_return": [round(x, 6) for x in expected.tolist()],
        "sampling_error": [round(x, 8) for x in per_batch.mean(0).tolist()],
        "curve": [round(x, 6) for x in per_batch.mean(1).tolist()],
    }
