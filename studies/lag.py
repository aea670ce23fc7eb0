"""How performance falls when the data lag behind the policy, and which corrections hold it up.

The same method, task and budget, with rollouts sampled by the policy of k updates ago (``dial.lag``); the policy that is measured is always
the present one. Methods differ in how they treat what another policy sampled:

PPO, GRPO         not at all: the ratio compares the policy with itself at the start of the update
PPO to sampler    PPO's clip on the ratio to what really sampled
TIS               the uncorrected loss times min(learner / sampler, 2)
CISPO             the clipped ratio to the sampler as a constant weight (in language to the start of the update, as published)
BAPO              bounds searched so that positive advantages keep their share (language only)
Centred           GRPO with score centring: the drift between sampler and learner is subtracted (language only)
Centred TIS       TIS with score centring (language only)
IS                importance sampling without any limit

Everything else is equal in all arms of a task and was set before any arm was run. The tuned form gives every arm that a verdict rests on
the best of four learning rates. Lag itself costs something that no correction can give back: until the first lagged update has had an
effect, all data come from the initial policy.
Rules are for matched seeds, looked at as docs/rule.md says; the results of six seeds are pilots. What cannot be shown
at this scale: long training, where small biases add up, and models that do not reach the top of their task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rheostat.experiments.studies import (
    Arm,
    Claim,
    Judgement,
    Precondition,
    Results,
    Search,
    Study,
    Tuned,
    average,
    better,
    curves,
    finals,
    reaches,
    summary,
    trained,
)
from studies._lag_report import draw

CONTROL = {
    "PPO": Arm("ppo"),
    "PPO to sampler": Arm("ppo", {"ratio_to": "sampler"}),
    "TIS": Arm("ppo", {"sampler_correction": "token"}),
    "CISPO": Arm("ppo", {"ratio_to": "sampler", "clip_kind": "detached", "clip": 0.28}),
    "IS": Arm("ppo", {"ratio_to": "sampler", "clip_kind": "none"}),
}
LANGUAGE = {
    "GRPO": Arm("grpo"),
    "TIS": Arm("tis"),
    "CISPO": Arm("cispo"),
    "BAPO": Arm("bapo", {"epochs": 1, "weight_decay": 0.0}),  # as many gradient steps as the others, and the same optimiser
    "Centred": Arm("grpo", {"score_centring": 128}),  # more tokens than the vocabulary has: nothing is approximated
    "Centred TIS": Arm("tis", {"score_centring": 128}),
    "IS": Arm("tis", {"clip": "none", "sampler_cap": 1e6}),
}
SCALES = {"control": ("return", 25.0, 400.0), "language": ("accuracy", 0.02, 0.7)}
"""By domain: what is measured, the difference that does not matter, and what the uncorrected method must reach without lag."""
STALE = 0.005
"""Nats per row below which the lagged data are nearly the policy's own."""
SHARED_CONTROL: dict[str, Any] = {"num_envs": 8, "batch_steps": 512, "epochs": 4, "minibatches": 4, "learning_rate": 1e-3, "anneal": False}
SHARED_LANGUAGE: dict[str, Any] = {"learning_rate": 2e-4, "kl_coefficient": 0.0, "minibatches": 4, "evaluate_every": 0}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    steps: int = 30_000
    episodes: int = 40
    lags_control: tuple[int, ...] = (0, 4, 12, 24)
    updates: int = 40
    lags_language: tuple[int, ...] = (0, 4, 16)
    prompts: int = 8
    group_size: int = 16
    held_out: int = 512
    model: str = "chain-sum"
    first_seed: int = 0
    tuned: Tuned = Tuned()


SMOKE = Sizes(1, 1024, 1, (0, 1), 2, (0, 1), 2, 2, 4, "untrained")


def claims(sizes: Sizes) -> list[Claim]:
    """For each domain: the lag hurts where nothing corrects for it, and each correction against no correction at the largest lag."""
    control = {
        f"{label}, lag {lag}": Arm(arm.method, arm.config | {"dial.lag": lag})
        for label, arm in CONTROL.items()
        for lag in sizes.lags_control
    }
    language = {
        f"{label}, lag {lag}": Arm(arm.method, arm.config | {"dial.lag": lag})
        for label, arm in LANGUAGE.items()
        for lag in sizes.lags_language
    }
    size = {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size}
    return [
        *domain(
            "control",
            "CartPole-v1",
            control,
            list(CONTROL),
            sizes.lags_control,
            trained(
                control,
                task="CartPole-v1",
                steps=sizes.steps,
                seeds=sizes.seeds,
                first_seed=sizes.first_seed,
                shared=SHARED_CONTROL,
                settings={"evaluation_episodes": sizes.episodes, "checkpoint_every": sizes.steps},
                metrics=("episode_return", "meter/kl_behaviour_k3", "meter/ess", "meter/limited_share"),
                cost=4.0,
                tuned=sizes.tuned,
            ),
            f"{sizes.steps:,} steps, 512 per update, 4 epochs of 4 minibatches, {sizes.tuned.words('learning rate 1e-3', 'CartPole-v1')}; "
            f"{sizes.episodes} deterministic episodes at the end",
        ),
        *domain(
            "language",
            "chain-sum",
            language,
            list(LANGUAGE),
            sizes.lags_language,
            trained(
                language,
                task="chain-sum",
                steps=sizes.updates,
                seeds=sizes.seeds,
                first_seed=sizes.first_seed,
                shared=SHARED_LANGUAGE | size,
                settings={"model": sizes.model, "evaluation_episodes": sizes.held_out},
                metrics=("reward", "entropy", "meter/kl_behaviour_k3", "meter/ess", "meter/limited_share"),
                cost=12.0,
                tuned=sizes.tuned,
            ),
            f"{sizes.updates} updates of {sizes.prompts} prompts x {sizes.group_size}, 4 gradient steps each, "
            f"{sizes.tuned.words('learning rate 2e-4', 'chain-sum')}; accuracy of one sample for each of {sizes.held_out} held-out prompts",
        ),
    ]


def domain(name: str, task: str, arms: Any, labels: list[str], lags: tuple[int, ...], cells: Any, setting: str) -> list[Claim]:
    """The claims of one task; they share their cells."""
    plain, worst = labels[0], lags[-1]
    measure, margin, reached = SCALES[name]
    learns = reaches(f"{plain}, lag {lags[0]}", cells, least=reached)  # else there is nothing that lag could cost
    stale = Precondition(
        "the data are stale",
        f"nats from the sampler to the policy at lag {worst}, mean over training",
        lambda result: average(cells[f"{plain}, lag {worst}"], result, "meter/kl_behaviour_k3"),
        least=STALE,
    )

    def pair(a: str, b: str) -> Any:
        return {a: cells[a], b: cells[b]}

    def judge_all(result: Results) -> Judgement:
        values = {arm: finals(seeds, result) for arm, seeds in cells.items()}
        condition = better(
            f"{plain}, lag {lags[0]} and lag {worst}", values[f"{plain}, lag {lags[0]}"], values[f"{plain}, lag {worst}"], margin=margin
        )
        metrics = {"final": {arm: summary(found) for arm, found in values.items()}, "lags": list(lags)}
        return Judgement([condition], metrics, curves(cells, result))

    def judge_one(label: str) -> Any:
        def judge(result: Results) -> Judgement:
            a, b = (finals(cells[f"{one}, lag {worst}"], result) for one in (label, plain))
            return Judgement([better(f"{label} and {plain} at lag {worst}", a, b, margin=margin)])

        return judge

    first = Claim(
        f"{name}: lag",
        f"{task}: {plain} loses with lag {worst}",
        "Asynchronous training is a trade of freshness for speed: uncorrected methods degrade as data grow stale",
        setting,
        cells,
        judge_all,
        margins={measure: margin},
        preconditions=(learns, stale),
    )
    others = [
        Claim(
            f"{name}: {label}",
            f"{task}: {label} beats {plain} at lag {worst}",
            PUBLISHED[label],
            setting,
            pair(f"{label}, lag {worst}", f"{plain}, lag {worst}"),
            judge_one(label),
            margins={measure: margin},
            preconditions=(stale,),
        )
        for label in labels[1:]
    ]
    return [first, *others]


PUBLISHED = {
    "PPO to sampler": "Schulman et al. 2017: the ratio is to the policy that sampled",
    "TIS": "Yao et al. 2025: truncated importance sampling mends the mismatch of sampler and learner",
    "CISPO": "arXiv 2506.13585: clipping the weight instead of the gradient keeps all tokens learning off-policy",
    "BAPO": "arXiv 2510.18927: adaptive bounds stabilise off-policy training",
    "Centred": "arXiv 2609.20807: score centring alone stabilises training under a mismatch of sampler and learner",
    "Centred TIS": "arXiv 2609.20807: with staleness, score centring and importance weights together are better than the weights alone",
    "IS": "Textbook: importance sampling is unbiased at any lag; its variance grows with it",
}

JUDGED = tuple(
    f"{label}, lag {lag}"
    for arms, lags in ((CONTROL, Sizes.lags_control), (LANGUAGE, Sizes.lags_language))
    for label, lag in ((next(iter(arms)), lags[0]), *((label, lags[-1]) for label in arms))
)
SEARCH = Search((2e-4, 4e-4, 1e-3, 3e-3), arms=JUDGED)
"""Learning rates that every arm which a verdict rests on tries; those between are only drawn."""

STUDY = Study("lag", "Lag", "several", claims, full=Sizes(), smoke=SMOKE, draw=draw, search=SEARCH)
