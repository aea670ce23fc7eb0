"""What a policy of tasks earns for rewards, and how often it reaches goals, that were given after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rheostat.analysis.shares import wilson
from rheostat.analysis.statistics import interval_of, mean
from rheostat.credit.verifiers.reward_loading import load_object
from rheostat.errors import RheostatError
from rheostat.learner.zero_shot import goal_of, reached, returns_for, task_of, task_of_goal
from rheostat.methods import table
from rheostat.tasks.control.state_rewards import RewardFunction, StateReward


def reward_of(reward: str | RewardFunction) -> StateReward:
    """A reward function by ``FILE.py:NAME``, ``MODULE:NAME``, or itself.

    Raises:
        RheostatError: there is none of that name, or it is no function.
    """
    found = load_object(reward) if isinstance(reward, str) else reward
    if not callable(found):
        raise RheostatError(f"The reward {reward} is a {type(found).__name__}: name a function of the observation after the action.")
    return StateReward(found, reward.rpartition(":")[2] if isinstance(reward, str) else "")


def require_zero_shot(run: Any, what: str) -> None:
    """Refuse a run whose policy cannot be asked for another reward.

    Raises:
        RheostatError: its method has one policy, of the reward that it learned.
    """
    if not getattr(table.entry(run.settings.method).load(), "zero_shot", False):
        names = sorted(name for name, row in table.METHODS.items() if row.domain == "control" and getattr(row.load(), "zero_shot", False))
        raise RheostatError(
            f"{what} asks a policy for something that it was not trained for, which {run.settings.method} has none for: use "
            f"{' or '.join(names)}."
        )


def evaluate_rewards(run: Any, rewards: Sequence[str | RewardFunction], episodes: int = 20) -> list[dict[str, Any]]:
    """Mean return of each reward by the policy of its task, with Student's interval over episodes; training does not change.

    Args:
        run: of a zero-shot method.
        rewards: functions of raw observations ``[N, k]`` after the action to N numbers, or their names.
        episodes: of each.

    Returns:
        Rows of ``reward``, ``return``, ``low`` and ``high`` (95 %), and ``episodes``.

    Raises:
        RheostatError: another method, a reward that cannot be computed, or one that is constant on the data.
    """
    require_zero_shot(run, "A reward")
    found = []
    for each in [reward_of(reward) for reward in rewards]:
        interval = interval_of(np.array(returns_for(run.method.context, each, episodes)), mean)
        found.append({"reward": each.name, "return": interval.estimate, "low": interval.low, "high": interval.high, "episodes": episodes})
    return found


def evaluate_goal(run: Any, goal: Sequence[float], distance: float, episodes: int = 20) -> dict[str, Any]:
    """Share of episodes that come within a distance of a goal, by the policy of the goal, with Wilson's 95 % interval.

    Args:
        run: of a zero-shot method.
        goal: an observation.
        distance: Euclidean, in its units.
        episodes: how many.

    Raises:
        RheostatError: another method, or a goal that is no observation.
    """
    require_zero_shot(run, "A goal")
    context = run.method.context
    found = reached(context, goal_of(context, goal), distance, episodes)
    share = wilson(sum(found), episodes)
    return {"goal_reached": share.estimate, "low": share.low, "high": share.high, "evaluation_episodes": episodes}


def pursue(run: Any, *, reward: str | RewardFunction | None = None, goal: Sequence[float] | None = None) -> None:
    """Let ``run.policy(observation)`` act for a reward or a goal from now on; for the recorded rewards where neither is given.

    Raises:
        RheostatError: another method, both a reward and a goal, or what :func:`evaluate_rewards` and :func:`evaluate_goal` refuse.
    """
    require_zero_shot(run, "A reward or a goal")
    if reward is not None and goal is not None:
        raise RheostatError("A policy pursues a reward or a goal: leave one out.")
    context = run.method.context
    find = None
    if reward is not None:
        find = task_of(reward_of(reward))
    elif goal is not None:
        find = task_of_goal(goal_of(context, goal))
    policy = context.models[context.deployed]
    policy.pursue(find)
    _ = policy.task  # a reward that has no task is refused now
