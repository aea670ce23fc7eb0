"""The kernel on eight tokens: PPO, CISPO and GSPO differ in the clip and the ratio."""

from __future__ import annotations

import torch
from torch import Tensor

from rheostat.objectives.clipping import Clip, ClipRule, DetachedClip
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.objectives.ratio import RatioKind

METHODS: dict[str, tuple[ClipRule, RatioKind]] = {
    "ppo": (Clip(0.2, 0.2), "token"),
    "cispo": (DetachedClip(None, 0.28), "token"),
    "gspo": (Clip(3e-4, 4e-4), "sequence"),
}


def main() -> dict[str, tuple[float, Tensor]]:
    start = torch.tensor([[-1.0, -2.0, -0.5, -3.0], [-0.7, -1.2, -2.5, -0.1]])  # when the update began
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])  # the second row is short
    advantage = torch.tensor([[1.0], [-1.0]]).expand(2, 4)
    found = {}
    for name, (clip, ratio) in METHODS.items():
        logp = (start + torch.tensor([0.3, 0.1, 0.0, -0.4])).requires_grad_()  # the learner after a few steps
        result = policy_gradient(
            logp,
            advantage,
            denominator_logp=start,
            mask=mask,
            clip=clip,
            ratio=ratio,
            aggregate="sequence-mean",
        )
        result.loss.backward()
        assert logp.grad is not None
        found[name] = result.loss.item(), logp.grad
        print(f"{name:6} loss {result.loss.item():+.4f}  clipped {result.clip_fraction.item():.2f}")
        for row in logp.grad.tolist():
            print("      ", *(f"{x:+.3f}" for x in row))
    return found


if __name__ == "__main__":
    main()
