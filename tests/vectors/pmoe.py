"""Golden vectors of PMOE: its soft update with critics that are products, the density of the mixture, and the loss of its PPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rheostat.learner.actor_critic_updates import Entropy
from rheostat.learner.mixture import Mixture
from rheostat.masking import standardise
from rheostat.methods.control.pmoe import PMOE
from rheostat.methods.control.pmoe_ppo import PMOEPPO
from rheostat.objectives.control_terms import ClippedSurrogate
from rheostat.objectives.mixture_of_experts import best_expert, frequency_loss
from rheostat.objectives.temporal_difference import critic_loss
from rheostat.policies.control.mixtures import MixtureOfGaussians
from tests.vectors.control_methods import Recorded, clipped_losses, learned, objective_of, rows_of
from tests.vectors.tools import Unsupported, gradients, integer, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("sac_update"):
        return plain(soft_update(inputs, params))
    if name.startswith("gmm_log_prob"):
        return plain(density(inputs))
    if name == "ppo_total_loss":
        return plain(clipped_update(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def column(x: Tensor) -> Tensor:
    """``[B]`` as the ``[B, 1]`` of the recorded outputs."""
    return x.unsqueeze(-1)


@dataclass
class RecordedMixture:
    """A policy of experts whose draws and whose choice are recorded."""

    logits: Tensor
    actions: Tensor
    log_prob: Tensor
    index: Tensor | None = None

    def noise(self, generator: Any) -> None:
        """None is needed."""

    def draw(self, noise: Any) -> tuple[Tensor, Tensor]:
        """An action of every expert and its log-probability."""
        return self.actions, self.log_prob

    def choose(self, generator: Any) -> Tensor | None:
        """As recorded."""
        return self.index


def soft_update(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """PMOE's gradient step: targets, critics, the best expert and the mixture's weights, temperature; rewards standardised in the batch."""
    logits, actions, log_prob = (leaf(inputs[key]) for key in ("mix_logits", "actions_per_expert", "log_prob_per_expert"))
    q1, q2, log_alpha = (leaf(inputs[key]) for key in ("q1", "q2", "log_alpha"))
    weights = torch.stack([tensor(inputs[f"q{k}_action_weight"]) for k in (1, 2)])
    values: list[Tensor] = []

    def of_many(seen: Tensor, taken: Tensor, frozen: bool) -> Tensor:
        """The recorded critics, ``[2, B, K]``."""
        values.append((weights @ taken.unsqueeze(-1)).squeeze(-1).movedim(-1, 0))
        return values[-1]

    after = tensor(inputs["next_log_prob_per_expert"]).squeeze(-1)
    following = RecordedMixture(logits, torch.zeros_like(actions), after, integer(inputs["next_expert_index"]))
    models = {
        "policy": Recorded(following, RecordedMixture(logits, actions, log_prob.squeeze(-1))),
        "critics": Recorded(torch.stack([q1, q2]).squeeze(-1), of_many=of_many),
        "target critics": Recorded(torch.stack([tensor(inputs[f"q{k}_target_next"]).squeeze(-1) for k in (1, 2)])),
        "temperature": Recorded(log=log_alpha, value=log_alpha.exp().item()),
    }
    entropy = Entropy(target=params["target_entropy"], form="log")
    method = PMOE(batch_reward_scale=params["reward_scale"], mixture=Mixture(logits.shape[1]), entropy=entropy)
    batch = learned(method, models, rows_of(tensor(inputs["rewards"]), params["gamma"] * (1 - tensor(inputs["dones"]))))
    grad_q1, grad_q2 = gradients(models["critics"].loss, q1, q2)
    grad_logits, grad_actions, grad_log_prob = gradients(models["policy"].loss, logits, actions, log_prob)
    return {
        "best_expert": best_expert(values[0].amin(0)),
        "reward_normalised": batch.rows.reward,
        "target": column(batch.columns["target"]),
        "grad_mix_logits": grad_logits,
        "grad_actions": grad_actions,
        "grad_log_prob": grad_log_prob,
        "grad_q1": grad_q1,
        "grad_q2": grad_q2,
        "grad_log_alpha": gradients(models["temperature"].loss, log_alpha)[0],
    }


def density(inputs: dict[str, Any]) -> dict[str, Any]:
    """The mixture's density with its derivatives by hand; the deviation is shared by all rows, whose derivatives are summed."""
    mixture = MixtureOfGaussians(tensor(inputs["mix_logits"]), tensor(inputs["mu"]), tensor(inputs["log_std"])[0])
    actions = tensor(inputs["actions"])
    log_prob, gradient = mixture.log_prob_and_gradient(actions)
    rows, experts, dimensions = mixture.mean.shape
    to_logits, to_mean, to_log_std = gradient.split([experts, experts * dimensions, experts * dimensions], -1)
    return {
        "log_prob": log_prob,
        "responsibilities": mixture.responsibilities(actions),
        "grad_mix_logits": to_logits,
        "grad_mu": to_mean.view(rows, experts, dimensions),
        "grad_log_std": to_log_std.sum(0).view(1, experts, dimensions),
    }


def clipped_update(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The loss of a minibatch: mixture's weights, clipped ratio of the mixture's density, critic, and the extra state-action critic."""
    logits, mean, log_std = (leaf(inputs[key]) for key in ("mix_logits", "mu", "log_std"))
    value, q = leaf(inputs["values"]), leaf(inputs["q_of_data_action"])
    old_value, advantage = tensor(inputs["old_values"]), tensor(inputs["advantages"])
    target = old_value + advantage
    policy, critic = clipped_losses(
        objective_of(PMOEPPO(objective=ClippedSurrogate(params["clip"], value=True))),
        MixtureOfGaussians(logits, mean, log_std[0]).log_prob(tensor(inputs["actions"])),
        value,
        old_logp=tensor(inputs["old_log_prob"]),
        advantage=standardise(advantage),
        target=target,
        old_value=old_value,
    )
    mixture = frequency_loss(logits, best_expert(tensor(inputs["q_of_expert_samples"])))
    judge = critic_loss(q.unsqueeze(0), target)
    total = mixture + policy.loss + params["vf_coef"] * critic + judge
    grad_logits, grad_mean, grad_log_std, grad_q, grad_v = gradients(total, logits, mean, log_std, q, value)
    return {
        "mix_loss": mixture,
        "policy_loss": policy.loss,
        "value_loss": critic,
        "q_loss": judge,
        "total": total,
        "grad_mix_logits": grad_logits,
        "grad_mu": grad_mean,
        "grad_log_std": grad_log_std,
        "grad_q": grad_q,
        "grad_v": grad_v,
    }
