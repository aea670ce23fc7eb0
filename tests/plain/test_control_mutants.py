"""The plain tests are tested: a method with one of its parts a little wrong must be told from the plain one."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from rheostat.buffers.control_retainers import DataAlone, Window
from rheostat.buffers.mixing import interleave
from rheostat.buffers.offline import OfflineData
from rheostat.collect.control.behaviour_policy import BehaviourPolicy
from rheostat.collect.control.robust_actions import ScoreGradients
from rheostat.collect.control.trial_rollout import Trial
from rheostat.credit.am_q import improved
from rheostat.credit.returns import gae
from rheostat.credit.td_annotations import bounded_draw
from rheostat.learner.behaviour_updates import rows_to_repair
from rheostat.learner.conservative_critics import Penalty
from rheostat.learner.fast_ppo import FastPPO
from rheostat.learner.off_policy import PerStep
from rheostat.masking import standardise_pieces
from rheostat.methods import table
from rheostat.objectives.actor import behaviour_regularised_loss, smoothed_action, soft_actor_loss, temperature_loss
from rheostat.objectives.conservative import conservative_gap, multiplier_loss
from rheostat.objectives.control_terms import ClippedSurrogate
from rheostat.objectives.derivatives import behaviour_dloss_dlogp, ros_dloss_dlogp
from rheostat.objectives.diverse_cloning import likeliest_other
from rheostat.objectives.expectile import expectile_loss
from rheostat.objectives.kl import kl_estimate
from rheostat.objectives.mixture_of_experts import best_expert
from rheostat.objectives.temporal_difference import absolute_td_error, critic_loss, greedy_value, min_over_critics
from rheostat.objectives.weights import family_weight, sided_advantage
from rheostat.policies.control.balance import coefficient_of, sin_cos_encoding
from rheostat.policies.control.distributions import Categorical, Gaussian
from rheostat.policies.control.ensembles import TrainableEnsemble
from rheostat.policies.control.in_context import TrialMemory
from rheostat.policies.control.recurrent import EpisodeMemory
from rheostat.policies.control.sink_attention import counters, visible_steps
from rheostat.policies.parameters import Adam, ParameterVector, PolyakCopy
from tests.plain.control_cases import Case, alone, differences
from tests.plain.control_mutants import Place, called, replaced, times
from tests.plain.control_path import Turn
from tests.plain.control_plain import Followed, compare
from tests.plain.test_control_methods import CASES
from tests.tiny_control import CONTROL

BY_NAME = {case.name: case for case in CASES}
PARTS = ("rheostat.objectives", "rheostat.credit")
"""Where losses, their derivatives, targets and advantages are."""
TOLD = re.compile(r"objectives\.meter\.|PolicyTerms\._seen_by_clip|BehaviourLoss\.clip_fraction|behaviour\.behaviour_loss")
"""What only the log says."""
LOSS_OF_DERIVATIVES = re.compile(
    r"objectives\.(policy_gradient|ratio|value)\.|(Clip|Surrogate)\.(loss|log_ratio|policy_loss|value_loss|denominator)$"
)
"""The losses that PPO's derivatives by hand belong to: in training they are only told (``tests/objectives/test_derivatives.py``)."""
BOUNDS = re.compile(r"\.value_clip$|kl_estimate$|holdout_error$")
"""What is only compared, with a bound or with others of its kind: a hundredth more moves nothing over it. Larger changes are below."""
RATIO_ONE = re.compile(r"DetachedClip\.log_ratio$|ratio\.combine_log_ratio$")
"""The logarithm of a policy's ratio to itself, in imitation: it is 0."""
LOOKED_AT = (
    "a2c-continuous", "awac", "bc-stochastic", "cql", "cql-corl antmaze", "dqn-priorities", "famo2o", "famo2o-cql", "ippo-three agents",
    "iql-authors", "pmoe-all score", "pmoe-ppo-score", "ppo-continuous", "ppo-buffer-sampler correction", "props-continuous",
    "recurrent-ppo-continuous", "relic-continuous", "rlpd", "robust-acting-discrete", "ros-continuous", "sac", "td3", "td3-bc", "uni-o4",
)  # fmt: skip
"""Cases whose every part is made wrong."""


@functools.cache
def right(name: str) -> tuple[list[Turn], list[Followed], list[Place]]:
    """An untouched run, which goes as the plain one, and the parts it goes through."""
    case, turns = BY_NAME[name], []
    parts = called(lambda: turns.extend(case.turned()), PARTS)
    plain = case.followed(turns)
    differences(turns, plain)
    return turns, plain, parts


def is_told(case: Case, plain: list[Followed]) -> bool:
    """Whether a run with a wrong part is told from the plain one: by its steps, or by what it says of its rows."""
    left = iter(plain)

    def check(turn: Turn) -> None:
        for each in alone(turn):
            compare(each, next(left))

    try:
        turns = case.turned(check)
        assert next(left, None) is None
        case.followed(turns)
    except AssertionError:
        return True
    return False


def nightly(names: Iterable[str]) -> list[Any]:
    """Cases of which those of PPO run always, and the others at night: these tests are about tests."""
    return [pytest.param(name, marks=() if name.startswith("ppo-continuous") else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", nightly(LOOKED_AT))
def test_every_part_counts_to_the_hundredth(name: str) -> None:
    case, (_, plain, parts) = BY_NAME[name], right(name)
    fast = hasattr(table.entry(case.method).load()(), "gae") and case.method != "uni-o4"
    left_out = [TOLD, BOUNDS, LOSS_OF_DERIVATIVES if fast else RATIO_ONE]
    wrong = [part for part in parts if not any(each.search(str(part)) for each in left_out)]
    assert wrong
    unseen = []
    for part in wrong:
        with replaced(part, times):
            if not is_told(case, plain):
                unseen.append(str(part))
    assert unseen == []


# --- other mistakes -----------------------------------------------------------------------------------------------------------------------

Change = Callable[[Callable[..., Any]], Callable[..., Any]]


def instead(wrong: Callable[..., Any]) -> Change:
    """Another function."""
    return lambda function: wrong


def with_value(place: int, change: Callable[[Any], Any]) -> Change:
    """The same function of another argument."""

    def changed(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrong(*values: Any, **options: Any) -> Any:
            return function(*values[:place], change(values[place]), *values[place + 1 :], **options)

        return wrong

    return changed


def with_option(name: str, change: Callable[[Any], Any]) -> Change:
    """The same function with another option."""
    return lambda function: lambda *values, **options: function(*values, **(options | {name: change(options.get(name))}))


def then(change: Callable[[Any], Any]) -> Change:
    """The same function with another result."""
    return lambda function: lambda *values, **options: change(function(*values, **options))


def later(part: Any) -> Any:
    """Gradient steps whose first update comes last."""
    return dataclasses.replace(part, updates=[*part.updates[1:], part.updates[0]])


Mistake = tuple[Any, Change]
LARGEST: Mistake = (min_over_critics, instead(lambda q, subset=None: q.amax(0)))
SLOWER: Mistake = (PolyakCopy.update_target, with_value(1, lambda tau: 1.01 * tau))
STANDARD: Mistake = (standardise_pieces, then(lambda x: 1.01 * x))
DEATHS: Mistake = (gae, with_option("bootstrap_on_truncation", lambda value: not value))
WIDER: Mistake = (ClippedSurrogate.clip_rule, then(lambda rule: type(rule)(0.1, 0.1)))
FLIPPED: Mistake = (temperature_loss, then(lambda loss: -loss))
LATER: Mistake = (PerStep.step, with_value(0, later))
WORST: Mistake = (best_expert, instead(lambda value: value.argmin(-1)))
ALL_KEPT: Mistake = (rows_to_repair, instead(lambda batch, block: batch.rows.transitions()))
RELEASED: Mistake = (coefficient_of, with_option("released", lambda value: not value))
MIRRORED: Mistake = (expectile_loss, with_value(2, lambda tau: 1 - tau))
WRONG: dict[str, list[Mistake]] = {
    "a2c-continuous": [DEATHS, (Gaussian.entropy_gradient, times)],
    "awac": [LARGEST, SLOWER, LATER, (bounded_draw, then(lambda action: 1.2 * action))],
    "bc-deterministic": [(OfflineData.best, with_value(1, lambda share: 1 - share))],
    "cql": [LARGEST, SLOWER, FLIPPED, LATER],
    "cql-corl antmaze": [(multiplier_loss, then(lambda loss: -loss)), (Penalty.gap, then(lambda gap: gap - 0.5))],
    "cql-plain gap": [(conservative_gap, with_option("temperature", lambda t: 1.1 * t))],
    "dqn-double": [(greedy_value, lambda greedy: lambda value, selector=None: greedy(value))],
    "dqn-priorities": [
        SLOWER,
        (critic_loss, with_option("huber", lambda size: 1.5 * size)),
        (absolute_td_error, then(lambda error: 2 * error)),
    ],
    "famo2o": [
        LARGEST,
        RELEASED,
        (family_weight, with_option("broadcast", lambda v: not v)),
        (sin_cos_encoding, then(lambda x: x.flip(-1))),
    ],
    "famo2o-cql": [LARGEST, LATER, RELEASED],
    "ippo-three agents": [DEATHS, STANDARD, WIDER],
    "iql-authors": [LARGEST, SLOWER, LATER, MIRRORED],
    "pmoe-max frequency": [LARGEST, SLOWER, WORST],
    "pmoe-ppo-frequency": [WORST, STANDARD],
    "ppo-continuous": [DEATHS, STANDARD, WIDER, (Adam.step, lambda step: lambda self: (step(self), step(self)))],
    "ppo-limited gradient": [(ParameterVector.clip_gradient, with_value(1, lambda limit: 1.01 * limit))],
    "ppo-discrete": [DEATHS, WIDER, (Categorical.entropy_gradient, then(lambda slope: -slope))],
    "ppo-stops before a step": [(FastPPO.stops, instead(lambda self, step, when: False))],
    "ppo-buffer-window": [WIDER, (Window.retain, instead(lambda self, context, batch: batch))],
    "ppo-buffer-ratio to the sampler": [(ClippedSurrogate.denominator, instead(lambda self, rows: rows.learner_logp))],
    "props-continuous": [
        ALL_KEPT,
        (BehaviourPolicy.restart_from, instead(lambda self, target: None)),
        (Gaussian.kl_gradient, lambda slope: lambda self, other: self.reverse_kl_gradient(other)),
        (behaviour_dloss_dlogp, with_option("clip", lambda clip: 2 * clip)),
    ],
    "props-stops": [(kl_estimate, then(lambda k: 0 * k))],
    "recurrent-ppo-continuous": [DEATHS, WIDER, (EpisodeMemory.forget, instead(lambda self, ended=None: None))],
    "relic-discrete": [
        WIDER,
        (TrialMemory.observe, lambda observe: lambda self, reward, *rest: observe(self, 2 * reward, *rest)),
        (Trial.shuffle, instead(lambda self, generator: None)),
        (counters, then(lambda found: (found[0], torch.zeros_like(found[1])))),
        (visible_steps, then(torch.ones_like)),
    ],
    "rlpd": [LARGEST, SLOWER, (interleave, lambda mix: lambda offline, online: mix(online, offline))],
    "robust-acting-discrete": [(ScoreGradients.total, then(lambda total: -total))],
    "ros-continuous": [ALL_KEPT, (ros_dloss_dlogp, then(lambda slope: -slope))],
    "sac": [LARGEST, SLOWER, FLIPPED, LATER, (soft_actor_loss, with_value(2, lambda alpha: 1.01 * alpha))],
    "td3": [LARGEST, SLOWER, (smoothed_action, with_option("clip", lambda clip: 2 * clip))],
    "td3-bc": [LARGEST, (behaviour_regularised_loss, with_option("alpha", lambda alpha: 1.01 * alpha))],
    "uni-o4": [
        SLOWER,
        (sided_advantage, with_value(1, lambda omega: 1 - omega)),
        (likeliest_other, lambda other: lambda logp: other(-logp)),
        (improved, then(lambda better: ~better)),
        (DataAlone.prepare, lambda prepare: lambda self, context: prepare(DataAlone(self.folder), context)),
    ],
    "uni-o4-iql": [LARGEST, MIRRORED, (TrainableEnsemble._limit, with_value(1, lambda limit: 1.01 * limit))],
}
"""By case: what is made wrong, and how."""


@pytest.mark.parametrize("name", nightly(WRONG))
def test_other_mistakes_are_told(name: str) -> None:
    (_, plain, _), unseen = right(name), []
    for function, change in WRONG[name]:
        place = Place.of(function)
        with replaced(place, change):
            if not is_told(BY_NAME[name], plain):
                unseen.append(str(place))
    assert unseen == []


ELSEWHERE = {"ospo", "mbpo", "vagram", "td-jepa", "forward-backward", "laplacian"}
"""A fleet, models that move while rows are kept, and policies of tasks: ``test_ospo``, ``test_model_based`` and ``test_zero_shot``."""


def test_mistakes_are_made_in_every_method() -> None:
    for names in (WRONG, LOOKED_AT):
        assert {BY_NAME[name].method for name in names} == set(CONTROL) - ELSEWHERE
