"""The cell of the ReLIC study that its method does not measure itself: a recurrent policy on trials that are one episode each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.collect.control.trial_evaluation import returns_by_episode
from rheostat.learner.trial_updates import by_episode
from rheostat.streams import derive_seed
from rheostat.tasks.control.environments import make


def look(run: Any) -> dict[str, float]:
    """Returns by episode of a task, of sampled actions, on as many held-out tasks as the final evaluation has episodes."""
    settings, context = run.settings, run.method.context
    seed = derive_seed(settings.seed, "by episode")
    options, trials = settings.environment_options, settings.evaluation_episodes
    environments = make(settings.task, num_envs=trials, seed=seed, **options)
    environments.hold_out()
    environments.restart(seed)
    memory, generator = context.remember(trials), torch.Generator().manual_seed(seed)

    def act(observation: Tensor, acting: Tensor) -> Tensor:
        action: Tensor = context.act_on_target(observation, memory).sample(generator)
        return action

    steps = options["horizon"] * options["trial_episodes"]
    found = by_episode(returns_by_episode(act, environments, steps, lambda step: memory.forget(step.ended)))
    environments.close()
    return found
