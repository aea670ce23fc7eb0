"""PROPS: does repairing the data lower its sampling error, and does learning profit?

Paper: Corrado & Hanna, "On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling", arXiv 2311.08290; its parent ROS
is Zhong et al. 2022, arXiv 2111.14552. Run it with ``rheostat study props``; finished cells are kept, so a second call continues.
Its parts:

A   A target that does not move, where sampling error is exact: a 5x5 grid with a tabular softmax policy; and a trained CartPole network.
B   Learning TwoStep from twelve trajectories per update.
C   Learning CartPole-v1 and Hopper-v5 with equal settings in every arm.
D   A randomly initialised target that does not move on Hopper-v5, HalfCheetah-v5 and Walker2d-v5, beside the numbers in the authors' logs.

All settings and rules were fixed before any adaptive arm was run. The behaviour policies' own settings are the authors' (none was tuned
here); everything they share with the baselines is equal in all arms. Part B's reference run does not say how returns enter its
gradient: of six ways tried with on-policy data only, standardised returns summed over the trajectory come closest to its on-policy
numbers. Comparisons listed as "besides" were added after a first look and enter no verdict. What cannot be
shown at this scale: the MuJoCo returns of the paper (50 seeds, millions of steps), Humanoid, and sampling error late in training.
"""

from __future__ import annotations

from rheostat.experiments.studies import Claim, Study
from studies._props_claims import SMOKE, Sizes
from studies._props_fixed import TASKS_D, cartpole, fixed_mujoco, grid
from studies._props_learning import learning, two_step
from studies._props_report import draw


def claims(sizes: Sizes) -> list[Claim]:
    """All claims, in the order of the parts."""
    return [
        grid(sizes),
        cartpole(sizes),
        two_step(sizes),
        *(learning(sizes, i) for i in range(sizes.tasks_c)),
        *(fixed_mujoco(sizes, task) for task in TASKS_D[: sizes.tasks_d]),
    ]


STUDY = Study("props", "PROPS", "arXiv 2311.08290", claims, full=Sizes(), smoke=SMOKE, draw=draw)
