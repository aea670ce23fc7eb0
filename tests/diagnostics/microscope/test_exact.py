"""Exact values against independent ways to them, and estimators against exact values by summing over every possible batch."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from rheostat.collect.language.language_collectors import batch_of
from rheostat.collect.language.prompt_groups import Graded
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.diagnostics.microscope.exact import Problem
from rheostat.diagnostics.microscope.gradients import ControlSampler, LanguageSampler, sampler
from rheostat.diagnostics.microscope.language_problem import LanguageProblem, TinyWords
from rheostat.diagnostics.microscope.problems import build_problem
from rheostat.errors import RheostatError
from rheostat.parts import Batch
from rheostat.trajectories import Trajectories

LAG = 6
ROUNDING = 2e-5  # relative, of float32 parameters and log-probabilities; the smallest bias asserted is fifty times as large


class OneWord(TinyWords):
    PROMPTS: ClassVar[tuple[str, ...]] = ("ab",)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small() -> LanguageProblem:
    """One prompt, 13 completions of at most two tokens."""
    return LanguageProblem(OneWord(2), 2, seed=3, step=0.5)


@pytest.mark.parametrize("name", ["tiny-words", "gridworld", "two-step"])
def test_outcomes_are_all_there_is(name: str) -> None:
    problem = build_problem(name)
    assert problem.outcome_logp(problem.theta).double().exp().sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["tiny-words", "gridworld", "two-step"])
def test_the_exact_gradient_is_the_slope_of_the_exact_value(name: str) -> None:
    problem = build_problem(name)
    _, gradient = problem.exact(problem.theta)
    draw = torch.Generator().manual_seed(1)
    for direction in (
        gradient / gradient.norm(),
        torch.nn.functional.normalize(torch.randn(len(gradient), generator=draw).double(), dim=0),
    ):
        eps = 3e-3  # float32 parameters: smaller steps drown in rounding
        ahead, behind = (problem.value((problem.theta.double() + sign * eps * direction).float()) for sign in (1, -1))
        assert (ahead - behind) / (2 * eps) == pytest.approx(float(gradient @ direction), abs=2e-4)


def test_values_of_a_world_agree_with_its_list_of_episodes() -> None:
    problem = build_problem("gridworld")
    assert float(problem.state_values(problem.theta) @ problem.mdp.start) == pytest.approx(problem.value(problem.theta), abs=1e-9)


def test_the_path_climbs_and_leaves_the_behaviour_policy_behind() -> None:
    problem = build_problem("tiny-words")
    path = problem.path(4)
    values = [problem.value(theta) for theta in path]
    assert values == sorted(values)
    distances = [problem.distance(path[0], theta) for theta in path]
    assert distances[0] == pytest.approx((0, 1), abs=1e-6)
    assert all(later[0] > earlier[0] and later[1] < earlier[1] for earlier, later in itertools.pairwise(distances))


def test_generated_completions_have_the_listed_probabilities() -> None:
    """What the engine samples is what is enumerated: frequencies of 8,192 completions of one prompt."""
    problem = build_problem("tiny-words")
    looked = sampler("rloo", problem, [problem.theta], 0, seed=0, options={"prompts_per_batch": 4, "group_size": 2048})
    assert isinstance(looked, LanguageSampler)
    rows = looked.learner.collect().rows
    first = rows.group[:, 0] == 0
    found = rows.action[first][:, -problem.length :][:, 0]
    p = problem.outcome_logp(problem.theta).double().exp().detach()[: problem.outcomes_per_prompt] * len(problem.prompts)
    opening = problem.rows.action[: problem.outcomes_per_prompt, -problem.length]
    for token in range(4):
        expected = float(p[opening == token].sum())
        assert (found == token).float().mean().item() == pytest.approx(expected, abs=4 * (0.25 / 2048) ** 0.5)


# --- every batch of two completions -----------------------------------------------------------------------------------------------------


def expectation(
    name: str, problem: LanguageProblem, lag: int, updates: int = 0, *, returns: Tensor | None = None, **options: Any
) -> Tensor:
    """The expected gradient of a method over all batches of two completions of the one prompt, through its own code.

    ``returns`` are what the completions earn in the batches; the learner has come from the behaviour policy by the problem's own.
    """
    returns = problem.returns if returns is None else returns
    path = problem.path(lag + updates)
    looked = sampler(name, problem, path, lag, seed=0, options={"prompts_per_batch": 1, "group_size": 2} | options)
    assert isinstance(looked, LanguageSampler)
    old = problem.token_logp(path[0]).detach()
    p = old.double().sum(1).exp()
    total = torch.zeros(len(path[0]), dtype=torch.float64)
    for pair in itertools.combinations_with_replacement(range(len(p)), 2):
        rows: Trajectories = problem.rows[list(pair)].clone()
        rows.sampler_logp = torch.where(rows.mask, old[list(pair)], torch.nan)
        rows.reward = reward_at_last_token(returns[list(pair)].float(), rows.mask)
        rows.valid = torch.ones_like(rows.mask)
        ones = torch.ones(2)
        graded = Graded(rows, [problem.prompts[0]] * 2, ["", ""], Scores(ones, ones.bool(), ~ones.bool()))
        weight = p[pair[0]] * p[pair[1]] * (1 if pair[0] == pair[1] else 2)
        total += weight * looked.gradient_on(batch_of(graded))
    return total


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def sine(found: Tensor, exact: Tensor) -> float:
    return float((found / found.norm() - exact / exact.norm() * (found @ exact).sign()).norm())


def exact_at(problem: Problem, steps: int) -> Tensor:
    return problem.exact(problem.path(steps)[-1])[1]


def test_rloo_is_unbiased_on_policy(small: LanguageProblem) -> None:
    assert error(expectation("rloo", small, 0), exact_at(small, 0)) < ROUNDING


def test_reinforce_with_the_groups_mean_is_short_by_one_of_the_group(small: LanguageProblem) -> None:
    """The mean contains the completion itself: with two of them half the gradient is left, in the right direction."""
    assert error(2 * expectation("reinforce", small, 0), exact_at(small, 0)) < ROUNDING


def test_reinforce_without_a_baseline_is_unbiased(small: LanguageProblem) -> None:
    assert error(expectation("reinforce", small, 0, advantage="reward"), exact_at(small, 0)) < ROUNDING


def test_grpo_points_elsewhere_even_on_policy(small: LanguageProblem) -> None:
    assert sine(expectation("grpo", small, 0), exact_at(small, 0)) > 0.05


def test_stale_rloo_is_biased_and_the_sequence_weight_mends_it(small: LanguageProblem) -> None:
    exact = exact_at(small, LAG)
    assert error(expectation("rloo", small, LAG), exact) > 0.1
    mended = expectation("reinforce", small, LAG, advantage="rloo", sampler_correction="sequence", sampler_cap=1e9)
    assert error(mended, exact) < ROUNDING
    per_token = expectation("reinforce", small, LAG, advantage="rloo", sampler_correction="token", sampler_cap=1e9)
    assert error(per_token, exact) > 0.005


@pytest.mark.parametrize(
    "name",
    ["is:none", "is:token", "is:prefix", "is:truncated", "is:masked", "is:self-normalised", "is:centred", "is:token-truncated-centred"],
)
def test_incomplete_weights_are_biased_off_policy(small: LanguageProblem, name: str) -> None:
    assert error(expectation(name, small, LAG), exact_at(small, LAG)) > 1e-3


def test_the_sequence_weight_is_unbiased_off_policy(small: LanguageProblem) -> None:
    assert error(expectation("is:sequence", small, LAG), exact_at(small, LAG)) < ROUNDING


NO_NEWS: dict[str, Any] = {"advantage": "reward", "aggregation": "sequence-sum"}
"""Every completion earns 1 and nothing is subtracted: there is nothing to learn. Sums of tokens do not know how long a completion is."""


@pytest.mark.parametrize(
    ("name", "updates", "options"),
    [
        ("reinforce", 0, {}),
        ("reinforce", 0, {"sampler_correction": "token", "sampler_cap": 1.1}),
        ("grpo", 1, {"clip": "none"}),
        ("grpo", 1, {}),
        ("tis", 1, {"sampler_cap": 1.1}),
        ("cispo", 1, {}),
    ],
)
def test_centring_cancels_the_drift_to_the_last_digit(small: LanguageProblem, name: str, updates: int, options: dict[str, Any]) -> None:
    """Without news the expected gradient should be 0; off-policy it is not, unless the score is centred over the whole vocabulary."""
    ones = torch.ones_like(small.returns)

    def size(**more: Any) -> float:
        return float(expectation(name, small, LAG, updates, returns=ones, **NO_NEWS | options | more).norm())

    drifting, near = size(), size(score_centring=2)
    assert drifting > 0.01 and near < 0.5 * drifting and size(score_centring=4) < ROUNDING * drifting


def test_plain_estimators_with_and_without_the_drift(small: LanguageProblem) -> None:
    exact = exact_at(small, LAG)
    plain, centred, weighted, both = (
        sine(expectation(name, small, LAG), exact) for name in ("is:none", "is:centred", "is:token-truncated", "is:token-truncated-centred")
    )
    assert centred < 0.6 * plain and both < weighted


def test_a_mean_over_tokens_knows_how_long_completions_are_and_keeps_some_drift(small: LanguageProblem) -> None:
    ones = torch.ones_like(small.returns)
    drifting, centred = (
        expectation("grpo", small, LAG, returns=ones, advantage="reward", score_centring=tokens).norm() for tokens in (0, 4)
    )
    assert 0.01 * drifting < centred < 0.2 * drifting


def test_centring_changes_nothing_on_policy_or_under_exact_weights(small: LanguageProblem) -> None:
    plain, centred = (expectation("rloo", small, 0, score_centring=tokens, ratio="token") for tokens in (0, 2))
    assert error(centred, plain) < ROUNDING
    exact: dict[str, Any] = {"advantage": "rloo", "sampler_correction": "token", "sampler_cap": 1e9}
    plain, centred = (expectation("reinforce", small, LAG, score_centring=tokens, **exact) for tokens in (0, 2))
    assert error(centred, plain) < ROUNDING


@pytest.mark.parametrize("name", ["grpo", "tis", "cispo"])
def test_centring_turns_a_stale_gradient_towards_the_exact_one(small: LanguageProblem, name: str) -> None:
    exact = exact_at(small, LAG)
    plain, centred = (sine(expectation(name, small, LAG, score_centring=tokens), exact) for tokens in (0, 4))
    assert 0.05 < centred < 0.75 * plain  # what is left is the covariance under the sampler


def test_after_updates_on_the_batch_the_gradient_is_that_of_where_the_learner_has_come(small: LanguageProblem) -> None:
    exact = exact_at(small, 3)
    assert error(expectation("is:sequence", small, 1, updates=2), exact) < ROUNDING
    assert error(expectation("rloo", small, 0, updates=3, clip="none"), exact) < ROUNDING  # the ratio to the start of the update mends it
    assert error(expectation("rloo", small, 0, updates=3), exact) > 0.01  # the clip


def test_a2c_with_an_exact_critic_is_the_policy_gradient_per_step() -> None:
    """Every episode of two-step has two steps, and the loss is a mean over steps: exactly half the gradient."""
    problem = build_problem("two-step")
    looked = sampler("a2c", problem, [problem.theta], 0, seed=0, options={"gamma": 1.0})
    assert isinstance(looked, ControlSampler)
    world, total = problem.mdp, torch.zeros(len(problem.theta), dtype=torch.float64)
    p = problem.outcome_logp(problem.theta).exp().tolist()
    for episode in range(len(problem.returns)):
        state, action = problem.state[episode : episode + 1], problem.action[episode : episode + 1]

        def one_hot(index: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(index, world.num_states).float()

        rows = Trajectories(
            observation=one_hot(state),
            next_observation=one_hot(world.next_state[state, action]),
            action=action,
            mask=torch.ones(1, 2, dtype=torch.bool),
            reward=world.reward[state, action],
            terminated=world.ends[state, action],
            truncated=torch.zeros(1, 2, dtype=torch.bool),
            sampler_logp=torch.zeros(1, 2),
            version=torch.zeros(1, 2, dtype=torch.int64),
            source=torch.zeros(1, 2, dtype=torch.int64),
            batch_size=[1, 2],
        )
        total += p[episode] * looked.gradient_on(looked.learner.credit(Batch(rows)))
    looked.close()
    assert error(2 * total, problem.exact(problem.theta)[1]) < ROUNDING


def test_too_large_is_refused_with_size_and_limit() -> None:
    with pytest.raises(RheostatError, match=r"tiny-words has 39,364 outcomes, more than the 20,000 .*--length"):
        build_problem("tiny-words", length=8)
    with pytest.raises(RheostatError, match=r"gridworld has [\d,]+ outcomes, more than the 20,000"):
        build_problem("gridworld", length=12)
    for name in ("gridworld", "tiny-words"):
        with pytest.raises(RheostatError, match="has more than 1,000,000,000,000,000 outcomes"):
            build_problem(name, length=5_000)
