"""ReLIC: does a policy get better at a new task by remembering its earlier episodes, and what of the recipe makes it so?

Darkroom of 6 x 6 cells: the goal is not marked, an episode has 20 steps and begins in a corner, every step on the goal pays 1. 28 goals are
trained on, 8 are held out; a trial has 10 episodes of one goal. Arms:

ReLIC           five updates per trial, the last of them full; sink with key and value; episodes permuted, context refreshed
one update      one full update per trial, with five times the passes: as many gradient steps per environment step
no refresh      keys and values stay as they were when a step was taken
single episode  a step sees those of its own episode alone
RL^2            recurrent-ppo with an LSTM of 64 units on trials that are one episode each: its memory, and its credit, cross episodes

Equal in all arms but the last: 32 environments, 40 trials each (256,000 steps), two layers of width 64 with four heads, Adam 1e-3 after a
warm-up of 10,000 steps and without decay, two passes of two minibatches per update, the paper's other numbers. RL^2 has the same
environment steps, and CleanRL's numbers with four passes of four minibatches at 1e-3. Number of trials and widths were set by the
time of one cell, on a seed that is none of the study's (2000); ReLIC was seen there with the paper's limit of the gradient at 1e-3 and
with a limit of 0.5 at 3e-3, which ended alike. Nothing else was tried.

Returns are means over 64 trials on held-out goals, by episode in context; actions are sampled. No return is above 20 less the way.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

learns       the return of the last episode in context is above 1.5 times that of the first, on held-out goals. Testable if the last is
             above 3, several times what a policy gets that does not know the goal.
attention    ReLIC is above the single-episode policy over the whole trial; for the latter the last episode is within 1 of the first.
partial      the mean height of the curve of training returns over environment steps is larger with five updates than with one.
refresh      ReLIC is not lower than without a refresh, over the whole trial.
recurrent    in the last episode ReLIC is above RL^2.
minigrid     MiniGrid-MemoryS7 of EnvPool (memory inside an episode; every reset draws anew): ReLIC is not lower than recurrent-ppo, 40,000
             steps each. Testable if ReLIC is above 0.6, where no policy without a memory gets.

A return of 0.5 does not matter (0.05 in MiniGrid). What cannot be shown here: contexts of 64,000 steps, houses, imitation of demonstrations
in context, and the sinks, whose kinds differ in long contexts and large models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import (
    Arm,
    Cell,
    Claim,
    Judgement,
    Precondition,
    Results,
    Study,
    alike,
    areas,
    better,
    curves,
    finals,
    not_worse,
    summary,
    trained,
)

MARGIN, FLAT, IN_MINIGRID = 0.5, 1.0, 0.05
"""Returns that do not matter: of means, between two episodes of a policy that remembers nothing, in MiniGrid."""
FACTOR = 1.5
LEAST, ABOVE_CHANCE = 3.0, 0.6
UPDATES = 5
FIRST, LAST = "evaluation_return_first", "evaluation_return_last"
TASK, MINIGRID = "rheostat/Darkroom-v0", "MiniGrid-MemoryS7-v0"
Arms = Mapping[str, dict[int, Cell]]


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    trials: int = 40
    environments: int = 32
    size: int = 6
    horizon: int = 20
    episodes: int = 10
    width: int = 64
    held_out: int = 64
    minigrid_steps: int = 40_000
    minigrid_environments: int = 16
    first_seed: int = 0


SMOKE = Sizes(1, 1, 4, 3, 4, 5, 8, 4, 500, 2)


def told(cells: Mapping[int, Cell], result: Results, name: str) -> dict[int, float]:
    """A number of the final evaluation, by seed; of RL^2 as it was looked at."""
    found = {seed: result(cell) for seed, cell in cells.items()}
    return {seed: float(each.get("look", each["summary"])[name]) for seed, each in found.items()}


def by_episode(cells: Arms, result: Results, episodes: int) -> dict[str, Any]:
    """Return of every episode in context, of every arm, for the report."""
    names = [f"in_context/episode_{number + 1}" for number in range(episodes)]
    return {arm: {name: summary(told(found, result, name)) for name in names} for arm, found in cells.items()}


def claims(sizes: Sizes) -> list[Claim]:
    """Five in the dark room, one in MiniGrid."""
    trial_steps = sizes.horizon * sizes.episodes
    rollout = sizes.environments * trial_steps
    steps = sizes.trials * rollout
    world = {"size": sizes.size, "horizon": sizes.horizon}
    network = {"layers": 2, "width": sizes.width, "heads": 4, "inner": sizes.width}
    passes = {"minibatches": 2, "learning_rate": 1e-3}
    relic = network | passes | {"accumulated_minibatches": 1, "warmup_steps": 10_000, "decay_steps": 0}
    settings = {"evaluation_episodes": sizes.held_out, "checkpoint_every": steps}
    metrics = ("episode_return", "entropy", "meter/ess", "meter/clip_fraction")
    seeds = {"seeds": sizes.seeds, "first_seed": sizes.first_seed}
    parts = {"batch_steps": rollout // UPDATES, "updates_per_trial": UPDATES, "epochs": 2}
    cells: dict[str, dict[int, Cell]] = trained(
        {
            "ReLIC": Arm("relic", parts),
            "one update": Arm("relic", {"batch_steps": rollout, "updates_per_trial": 1, "epochs": 2 * UPDATES}),
            "no refresh": Arm("relic", parts | {"refresh_cache": False}),
            "single episode": Arm("relic", parts | {"across_episodes": False}),
        },
        task=TASK,
        steps=steps,
        **seeds,
        shared=relic | {"num_envs": sizes.environments},
        settings=settings | {"environment_options": world},
        metrics=metrics,
        cost=95.0,
    )
    cells |= trained(
        {"RL^2": Arm("recurrent-ppo", {"lstm_units": sizes.width, "minibatches": 4, "epochs": 4, "learning_rate": 1e-3})},
        task=TASK,
        steps=steps,
        **seeds,
        shared={"num_envs": sizes.environments, "batch_steps": rollout},
        settings=settings | {"environment_options": world | {"trial_episodes": sizes.episodes}},
        metrics=metrics,
        cost=25.0,
        look="studies._relic_cells:look",
    )
    in_minigrid = sizes.minigrid_environments * 100
    memory = trained(
        {
            "ReLIC": Arm("relic", relic | {"updates_per_trial": UPDATES, "epochs": 2}),
            "recurrent-ppo": Arm("recurrent-ppo", {"lstm_units": sizes.width, "minibatches": 2, "epochs": 4, "learning_rate": 1e-3}),
        },
        task=MINIGRID,
        steps=sizes.minigrid_steps,
        **seeds,
        shared={"num_envs": sizes.minigrid_environments, "batch_steps": in_minigrid, "normalise_observations": True},
        settings={"evaluation_episodes": sizes.held_out, "checkpoint_every": sizes.minigrid_steps, "threads": 1},
        metrics=metrics,
        cost=20.0,
    )
    setting = (
        f"Darkroom {sizes.size} x {sizes.size}, {sizes.horizon} steps, {sizes.episodes} episodes per trial, {steps:,} environment steps; "
        f"mean return over {sizes.held_out} trials on held-out goals"
    )

    def some(*names: str) -> dict[str, dict[int, Cell]]:
        return {name: cells[name] for name in names}

    def judge_learns(result: Results) -> Judgement:
        first, last = told(cells["ReLIC"], result, FIRST), told(cells["ReLIC"], result, LAST)
        goal = {seed: FACTOR * value for seed, value in first.items()}
        condition = better(f"return of the last episode and {FACTOR:g} times the first", last, goal, margin=MARGIN)
        return Judgement([condition], {"by episode": by_episode(cells, result, sizes.episodes)}, curves(cells, result))

    def judge_attention(result: Results) -> Judgement:
        final = {arm: finals(cells[arm], result) for arm in ("ReLIC", "single episode")}
        alone = {name: told(cells["single episode"], result, name) for name in (FIRST, LAST)}
        conditions = [
            better("return of ReLIC and of the single episode", final["ReLIC"], final["single episode"], margin=MARGIN),
            alike("last and first episode of the single-episode policy", alone[LAST], alone[FIRST], margin=FLAT),
        ]
        return Judgement(conditions, {arm: summary(each) for arm, each in final.items()})

    def judge_partial(result: Results) -> Judgement:
        height = {arm: areas(cells[arm], result, "episode_return", steps) for arm in ("ReLIC", "one update")}
        condition = better("mean training return with five updates and with one", height["ReLIC"], height["one update"], margin=MARGIN)
        return Judgement([condition], {arm: summary(each) for arm, each in height.items()})

    def judge_refresh(result: Results) -> Judgement:
        final = {arm: finals(cells[arm], result) for arm in ("ReLIC", "no refresh")}
        condition = not_worse("return of ReLIC and without a refresh", final["ReLIC"], final["no refresh"], margin=MARGIN)
        return Judgement([condition], {arm: summary(each) for arm, each in final.items()})

    def judge_recurrent(result: Results) -> Judgement:
        last = {arm: told(cells[arm], result, LAST) for arm in ("ReLIC", "RL^2")}
        condition = better("return of the last episode of ReLIC and RL^2", last["ReLIC"], last["RL^2"], margin=MARGIN)
        return Judgement([condition], {arm: summary(each) for arm, each in last.items()})

    def judge_minigrid(result: Results) -> Judgement:
        final = {arm: finals(memory[arm], result) for arm in memory}
        condition = not_worse("return of ReLIC and recurrent-ppo", final["ReLIC"], final["recurrent-ppo"], margin=IN_MINIGRID)
        return Judgement([condition], {arm: summary(each) for arm, each in final.items()}, curves(memory, result))

    knows = Precondition(
        "ReLIC finds goals", "return of ReLIC's last episode", lambda result: told(cells["ReLIC"], result, LAST), least=LEAST
    )
    remembers = Precondition(
        "ReLIC remembers in MiniGrid", "final return of ReLIC", lambda result: finals(memory["ReLIC"], result), least=ABOVE_CHANCE
    )
    margins = {"return": MARGIN}
    return [
        Claim(
            "learns",
            "A policy gets better at a new task from episode to episode, without an update",
            "Unseen houses: success rises with the episodes in context, 43 % after 15 of them, 22 % for the best baseline",
            setting,
            cells,
            judge_learns,
            margins=margins,
            preconditions=(knows,),
        ),
        Claim(
            "attention",
            "Attention to earlier episodes is what makes it better",
            "Without attention between episodes there is no gain over a trial",
            setting,
            some("ReLIC", "single episode"),
            judge_attention,
            margins={"return": MARGIN, "episodes of one policy": FLAT},
            preconditions=(knows,),
        ),
        Claim(
            "partial",
            "Partial updates learn from fewer environment steps",
            "Partial updates are essential (ablation)",
            setting,
            some("ReLIC", "one update"),
            judge_partial,
            margins=margins,
            preconditions=(knows,),
        ),
        Claim(
            "refresh",
            "A refreshed context is no worse than a stale one",
            "The cache is refreshed after every partial update; no ablation is known",
            setting,
            some("ReLIC", "no refresh"),
            judge_refresh,
            margins=margins,
            preconditions=(knows,),
        ),
        Claim(
            "recurrent",
            "A transformer over all episodes is better than a recurrent memory",
            "RL^2 with a GRU is among the baselines that ReLIC beats",
            setting,
            some("ReLIC", "RL^2"),
            judge_recurrent,
            margins=margins,
            preconditions=(knows,),
        ),
        Claim(
            "minigrid",
            "In MiniGrid's memory task ReLIC is no worse than recurrent PPO",
            "Not in the paper; the most real world that is at hand",
            f"{MINIGRID}, {sizes.minigrid_steps:,} environment steps; mean return",
            memory,
            judge_minigrid,
            margins={"return": IN_MINIGRID},
            preconditions=(remembers,),
        ),
    ]


STUDY = Study("relic", "ReLIC", "arXiv 2410.02751", claims, full=Sizes(), smoke=SMOKE)
