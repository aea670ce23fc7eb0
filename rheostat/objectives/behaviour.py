"""How a behaviour policy is moved so that the data it adds repairs the sampling error of the data already there.

PROPS (Corrado and Hanna, arXiv 2311.08290) and its parent ROS (Zhong et al. 2022, arXiv 2111.14552). Both *push down* the probability of
state-actions that are already in the buffer, and hence push up the under-sampled ones. The reference of the ratio and of the KL is always
the target policy theta, never the previous behaviour policy; the behaviour policy phi restarts from theta before every update.

Differences of the authors' code: v1 of the PROPS code minimises *minus* the mean log-ratio in its ROS arm, which raises the
probability of sampled actions (``ros_loss(..., as_released=True)``); its discrete KL term broadcasts ``[M, 1]`` against ``[M]`` and is not
reproduced here; v2 has no KL term in effect.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.clipping import Bound, Clip, NoClip
from rheostat.objectives.policy_gradient import PolicyLoss, policy_gradient


@dataclass(eq=False, slots=True)
class BehaviourLoss:
    """The loss of one PROPS step and its parts."""

    loss: Tensor
    """Scalar, ``clip_loss + kl_coef * kl``; carries the gradient."""
    policy: PolicyLoss
    """The clipped part with its diagnostics."""
    kl: Tensor | None
    """Scalar regulariser before its coefficient, None without one."""

    @property
    def clip_loss(self) -> Tensor:
        """Scalar, ``mean max(rho, clip(rho))``."""
        return self.policy.loss

    @property
    def approx_kl(self) -> Tensor:
        """k3 estimate of KL(theta, phi) at the buffer's actions, scalar, in nats."""
        return self.policy.approx_kl

    @property
    def outside_fraction(self) -> Tensor:
        """Share of rows whose ratio is outside the window on either side."""
        return self.policy.outside_fraction

    @property
    def clip_fraction(self) -> Tensor:
        """Share of rows that give no gradient because their probability was pushed down far enough."""
        return self.policy.clip_fraction

    def exceeds(self, kl_limit: float) -> bool:
        """PROPS's stop rule: True ends the whole update *before* this step is taken."""
        return bool(self.approx_kl > kl_limit)


def behaviour_loss(
    logp: Tensor,
    target_logp: Tensor,
    kl: Tensor | None = None,
    *,
    clip: Bound,
    kl_coef: float,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
) -> BehaviourLoss:
    """PROPS's loss, ``mean max(rho, clip(rho, 1 - clip, 1 + clip)) + kl_coef * mean(kl)``, to be minimised.

    ``rho = pi_phi(a|s) / pi_theta(a|s)`` with joint log-probs (summed over action dimensions). The maximum means that a row whose
    probability fell below 1 - clip gives no gradient: it was pushed far enough.

    Args:
        logp: ``[N]`` log-prob of the buffer's actions under the behaviour policy phi; carries the gradient.
        target_logp: ``[N]`` under the target policy theta; a constant.
        kl: any shape, averaged over all its entries. As the authors coded it for Gaussians:
            ``gaussian_kl(phi, theta)`` ``[N, action dimension]``, the mean over rows *and* dimensions of KL(phi, theta); for the other
            direction swap the arguments. For discrete actions ``categorical_kl(theta, phi)`` ``[N]``. None leaves the term out.
        clip: half width of the window.
        kl_coef: the paper's lambda.
        weight: ``[N]`` optional factor of the clipped part, see :func:`advantage_weight`; a constant.
        mask: ``[N]`` bool of the clipped part; None keeps every row. With a mask ``kl`` must hold kept rows only.

    Raises:
        RheostatError: different shapes, or a coefficient without a KL.
    """
    if kl is None and kl_coef != 0.0:
        raise RheostatError(f"The behaviour loss has kl_coef={kl_coef} but no kl: pass gaussian_kl or categorical_kl, or kl_coef=0.")
    push_down = torch.full_like(target_logp, -1.0)  # advantage -1 turns PPO's pessimistic minimum into the maximum above
    policy = policy_gradient(logp, push_down, denominator_logp=target_logp, mask=mask, clip=Clip(clip, clip), weight=weight)
    if kl is None:
        return BehaviourLoss(policy.loss, policy, None)
    kl = kl.mean()
    return BehaviourLoss(policy.loss + kl_coef * kl, policy, kl)


def advantage_weight(advantage: Tensor, *, eps: float = 1e-8) -> Tensor:
    """PROPS's optional row weight ``|A / (std(A) + eps)|``, unbiased std, *not* centred (off by default in the released runs).

    Args:
        advantage: ``[N]``, N >= 2.
        eps: keeps the division finite.
    """
    return (advantage / (advantage.std() + eps)).abs()


def ros_loss(logp: Tensor, target_logp: Tensor, *, as_released: bool = False) -> Tensor:
    """ROS as a loss, ``mean(pi_phi / pi_theta)``, whose first descent step from phi = theta is the ROS step.

    Args:
        logp: ``[N]`` log-prob of the buffer's actions under phi; carries the gradient.
        target_logp: ``[N]`` under theta; a constant.
        as_released: the v1 code's ``-mean(log rho)``, which has the wrong sign and raises the probability of sampled actions.

    Raises:
        RheostatError: different shapes.
    """
    if as_released:
        return -(logp - target_logp.detach()).mean()
    return policy_gradient(logp, torch.full_like(target_logp, -1.0), denominator_logp=target_logp, clip=NoClip()).loss


def ros_tabular_step(theta: Tensor, states: Tensor, actions: Tensor, *, lr: float) -> tuple[Tensor, Tensor]:
    """One ROS step of a tabular softmax policy: ``theta - lr * (1/N) sum_i grad log pi_theta(a_i | s_i)``.

    Args:
        theta: logits ``[states, actions]`` of the target policy.
        states: int64 ``[N]`` of every pair in the buffer.
        actions: int64 ``[N]``.
        lr: step size; the paper's are large (1e3 for bandits and GridWorld) because the softmax is tabular.

    Returns:
        Logits of the behaviour policy and the average gradient, both ``[states, actions]``.

    Raises:
        RheostatError: an empty buffer.
    """
    if states.numel() == 0:
        raise RheostatError("ROS needs at least one state-action pair in the buffer: act with the target policy until there is one.")
    counts = torch.zeros_like(theta).index_put((states, actions), theta.new_ones(()).expand(states.shape), accumulate=True)
    gradient = (counts - counts.sum(-1, keepdim=True) * torch.softmax(theta, -1)) / states.numel()
    return theta - lr * gradient, gradient
