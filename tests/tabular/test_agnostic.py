"""Classes of policies: spanning capacity, trees, importance sampling, POPLER, PSDP, CPI and emulators on random processes."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat import tabular as lab
from rheostat.errors import RheostatError
from tests.tabular.draws import deterministic, distribution, generator, layered, some_policies

seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=12)


def close(a: Any, b: Any, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64), atol=tolerance, rtol=tolerance
    )


def every_episode(mdp: lab.LayeredMDP) -> tuple[lab.Episodes, torch.Tensor]:
    """All sequences of states and actions, and the probability ``[B]`` of each sequence of states given its actions."""
    horizon, states, actions = mdp.shape
    rows = list(product(product(range(states), repeat=horizon), product(range(actions), repeat=horizon)))
    state, action = torch.tensor(rows).unbind(1)
    probability = mdp.start[state[:, 0]]
    for h in range(horizon - 1):
        probability = probability * mdp.transition[h, state[:, h], action[:, h], state[:, h + 1]]
    return lab.Episodes(state, action, mdp.reward[torch.arange(horizon), state, action]), probability


# --- values and coverage -----------------------------------------------------------------------------------------------------------------


@few
@given(seeds)
def test_values_are_occupancies_times_rewards(seed: int) -> None:
    draw = generator(seed)
    mdp, policies = layered(draw), some_policies(draw, 5)
    d, values = lab.layer_occupancies(mdp, policies), lab.policy_values(mdp, policies)
    close(d.sum(-1), torch.ones(5, 3))
    taken = mdp.reward[torch.arange(3)[:, None], torch.arange(3), policies]
    close((d * taken).sum((1, 2)), values)
    episodes, probability = every_episode(mdp)
    close(lab.consistent(policies, episodes.state, episodes.action).double() @ (probability * episodes.reward.sum(1)), values)
    best = lab.policy_values(mdp, lab.optimal_policy(mdp))
    close(best, lab.policy_values(mdp, lab.all_policies(3, 3, 2)).max()[None])


@few
@given(seeds, st.integers(1, 5))
def test_coverability_is_the_smallest_concentrability(seed: int, number: int) -> None:
    draw = generator(seed)
    d = lab.layer_occupancies(layered(draw), some_policies(draw, number))
    found = lab.coverability(d)
    assert 1 - 1e-12 <= found <= min(3, number) + 1e-12
    for _ in range(5):
        assert lab.concentrability(d, distribution(draw, 3, 3)) >= found - 1e-9
    best = d.amax(0)
    per_layer = [lab.concentrability(d[:, h], best[h] / best[h].sum()) for h in range(3)]
    close(max(per_layer), found)


@few
@given(seeds)
def test_a_deterministic_table_is_the_same_world_in_layers_and_with_a_discount(seed: int) -> None:
    """The microscope's exact action values of a policy, by this way and by its own."""
    from rheostat.diagnostics.microscope.control_problem import ControlProblem, unrolled
    from rheostat.tasks.control.gridworld import grid_world

    world = grid_world(2, limit=3)
    problem = ControlProblem("grid", unrolled(world), seed=seed % 1000)
    mdp = lab.DiscountedMDP.of_table(problem.mdp, 1.0)
    policy = problem.probabilities(problem.theta)
    close(lab.action_values(mdp, policy), problem.action_values(problem.theta), 1e-9)
    close(lab.policy_value(mdp, policy), problem.value(problem.theta), 1e-6)
    plan = policy.argmax(1)
    actions = torch.nn.functional.pad(plan.view(3, -1), (0, 1))[None]
    close(lab.policy_values(lab.LayeredMDP.of_table(world), actions), [lab.policy_value(mdp, lab.one_hot(plan, 4))])


# --- spanning capacity -------------------------------------------------------------------------------------------------------------------


def spanning_by_enumeration(policies: torch.Tensor, actions: int) -> int:
    """The definition: every deterministic process with every first state."""
    _, horizon, states = policies.shape
    best = 0
    for targets in product(range(states), repeat=(horizon - 1) * states * actions):
        move = torch.tensor(targets).view(horizon - 1, states, actions)
        for first in range(states):
            here = torch.full((len(policies),), first)
            for h in range(horizon):
                action = policies[torch.arange(len(policies)), h, here]
                best = max(best, len((here * actions + action).unique()))
                if h < horizon - 1:
                    here = move[h, here, action]
    return best


@few
@given(seeds, st.integers(1, 4))
def test_spanning_capacity_is_that_of_all_processes(seed: int, number: int) -> None:
    policies = some_policies(generator(seed), number, 2, 2)
    assert lab.spanning_capacity(policies) == spanning_by_enumeration(policies, 2)


@few
@given(seeds, st.integers(1, 6))
def test_spanning_capacity_is_bounded_and_grows_with_the_class(seed: int, number: int) -> None:
    policies = some_policies(generator(seed), number)
    found = [lab.spanning_capacity(policies[: n + 1]) for n in range(number)]
    assert found[0] == 1 and found == sorted(found)
    assert all(1 <= c <= lab.spanning_bound(policies[: n + 1], 2) for n, c in enumerate(found))


def test_too_large_and_empty_classes_say_so() -> None:
    with pytest.raises(RheostatError, match=r"1,048,576 deterministic policies .* more than the 100,000"):
        lab.all_policies(4, 5, 2)
    with pytest.raises(RheostatError, match=r"about 10\^\d+ deterministic"):
        lab.all_policies(20, 20, 3)
    mdp = layered(generator(0))
    nobody = torch.zeros(0, 3, 3, dtype=torch.int64)
    for refused in (lab.spanning_capacity, lambda x: lab.policy_values(mdp, x), lambda x: lab.spanning_bound(x, 2)):
        with pytest.raises(RheostatError, match="class of policies is empty"):
            refused(nobody)
    with pytest.raises(RheostatError, match=r"at least \d[\d,]* assignments of its 30 policies .* more than the 100 .* the bound 8"):
        lab.spanning_capacity(some_policies(generator(0), 30, 4, 4), limit=100)
    many = torch.zeros(100_001, 1, 1, dtype=torch.int64)
    with pytest.raises(RheostatError, match=r"100,001 policies, more than the 100,000"):
        lab.spanning_capacity(many)
    with pytest.raises(RheostatError, match="3 layers of 2 states, and the process has 3 of 3"):
        lab.policy_values(mdp, torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(RheostatError, match="takes the action 5"):
        lab.policy_values(mdp, torch.full((1, 3, 3), 5))
    with pytest.raises(RheostatError, match="int64 tensor"):
        lab.policy_values(mdp, torch.zeros(1, 3, 3))


# --- trees and importance sampling -------------------------------------------------------------------------------------------------------


@few
@given(seeds, st.integers(1, 6))
def test_a_tree_of_a_deterministic_process_is_exact_and_small(seed: int, number: int) -> None:
    draw = generator(seed)
    mdp, policies = deterministic(draw, 3, 2, 2), some_policies(draw, number, 3, 2)
    trees = lab.trajectory_trees(mdp, policies, 2, generator=draw)
    close(trees.returns, lab.policy_values(mdp, policies).expand(2, -1))
    assert int(trees.pairs.max()) <= lab.spanning_capacity(policies)


@few
@given(seeds)
def test_trees_and_simulated_values_are_unbiased_and_need_few_pairs(seed: int) -> None:
    draw = generator(seed)
    mdp, policies = layered(draw), some_policies(draw, 4)
    trees = lab.trajectory_trees(mdp, policies, 3000, noise=0.1, generator=draw)
    close(trees.returns.mean(0), lab.policy_values(mdp, policies), 6 * 1.0 / 3000**0.5)
    assert int(trees.pairs.max()) <= lab.spanning_capacity(policies) and int(trees.pairs.min()) >= 1
    q = lab.simulated_action_values(mdp, policies, 3000, draw)
    values = lab.layer_values(mdp, policies)
    for h in range(3):
        mine = q[h].gather(-1, policies[:, h, :, None])[..., 0]
        close(mine, values[:, h], 6 * 1.0 / 3000**0.5)


@few
@given(seeds, st.integers(1, 4))
def test_core_weights_are_unbiased_over_every_episode(seed: int, number: int) -> None:
    """The mean over all episodes of the mixture is the exact value, for targets whose episodes are all of the core."""
    draw = generator(seed)
    mdp, core = layered(draw, 2), some_policies(draw, number, 2)
    episodes, probability = every_episode(mdp)
    weight = lab.core_weights(core, core, episodes.state, episodes.action)
    acted = lab.consistent(core, episodes.state, episodes.action).double().mean(0)
    close(weight @ (acted * probability * episodes.reward.sum(1)), lab.policy_values(mdp, core))
    assert ((weight == 0) | (weight >= 1 - 1e-12)).all() and (weight <= number).all()
    targets = some_policies(draw, 3, 2)
    uniform = 2.0**2 * lab.consistent(targets, episodes.state, episodes.action).double()
    close(uniform @ (0.25 * probability * episodes.reward.sum(1)), lab.policy_values(mdp, targets))
    drawn = lab.sample_episodes(mdp, lab.random_actions(mdp, 4000, draw), generator=draw)
    close(lab.uniform_values(targets, 2, drawn), lab.policy_values(mdp, targets), 6 * 4.0 / 4000**0.5)


# --- sunflowers --------------------------------------------------------------------------------------------------------------------------


def violates(flower: lab.Sunflower, index: int) -> bool:
    """The definition, by listing every partial sequence of states."""
    policy, petals = flower.policies[index], flower.petals[index]
    horizon, states = policy.shape
    for begin in range(horizon):
        for end in range(begin + 1, horizon + 1):
            layers = torch.arange(begin, end)
            for path in product(range(states), repeat=end - begin):
                visited = torch.tensor(path)
                inside = bool(petals[layers[1:], visited[1:]].any())
                of_core = bool((flower.core[:, layers, visited] == policy[layers, visited]).all(1).any())
                if not inside and not of_core:
                    return True
    return False


@few
@given(seeds)
def test_sunflowers_are_recognised(seed: int) -> None:
    draw = generator(seed)
    policies, core = some_policies(draw, 3, 3, 2), some_policies(draw, 3, 3, 2)
    petals = torch.rand(3, 3, 2, generator=draw) < 0.4
    flower = lab.Sunflower(policies, core, petals)
    wrong = [index for index in range(3) if violates(flower, index)]
    assert flower.violation() == (wrong[0] if wrong else None)


def test_the_class_of_the_lock_is_a_sunflower_whose_core_does_not_suffice() -> None:
    flower = lab.lock_class(6)
    assert flower.violation() is None and flower.width == 2 and len(flower.core) == 7
    assert lab.Sunflower(flower.policies, flower.core, torch.zeros_like(flower.petals)).violation() is not None
    lock = lab.combination_lock(6, 1, 4)
    assert lab.policy_values(lock, flower.core).max() == 0 and lab.policy_values(lock, flower.policies).sum() == 1
    assert lab.policy_values(lock, lab.optimal_policy(lock)).item() == 1


def test_popler_estimates_every_policy_of_a_sunflower() -> None:
    """In a random process, where petals are hit by chance: estimates from many episodes are the exact values."""
    draw = generator(4)
    flower, mdp = lab.lock_class(3), layered(generator(1), 3, 2)
    found = lab.popler(mdp, flower, first=4000, second=4000, epsilon=0.01, generator=draw)
    exact = lab.policy_values(mdp, flower.policies)
    close(found.values, exact, 0.1)
    assert float(exact[found.member]) >= float(exact.max()) - 0.15
    assert found.episodes == 4000 * (1 + len(found.explored)) and set(found.explored) == {(0, 0), (1, 0), (2, 0)}


def test_popler_opens_a_lock_that_its_core_cannot() -> None:
    flower, lock = lab.lock_class(8), lab.combination_lock(8, 2, 5)
    values = lab.policy_values(lock, flower.policies)
    found = [lab.popler(lock, flower, first=20, second=50, generator=generator(seed)) for seed in range(6)]
    assert [float(values[each.member]) for each in found] == [1.0] * 6
    assert all(each.episodes == 20 + 6 * 50 for each in found)  # layers after the second digit are petals that no policy reaches
    with pytest.raises(RheostatError, match="at least one episode"):
        lab.popler(lock, flower, first=0, second=1, generator=generator(0))
    with pytest.raises(RheostatError, match="its two digits 1 lie in 3 and 2"):
        lab.combination_lock(8, 3, 2)
    with pytest.raises(RheostatError, match="Petals are bool"):
        lab.Sunflower(flower.policies, flower.core, flower.policies)


# --- resets ------------------------------------------------------------------------------------------------------------------------------


@few
@given(seeds)
def test_psdp_over_all_maps_is_dynamic_programming(seed: int) -> None:
    draw = generator(seed)
    mdp = layered(draw, 2)
    found = lab.psdp(mdp, lab.all_policies(2, 3, 2), distribution(draw, 2, 3))
    close(found.value, float(lab.policy_values(mdp, lab.optimal_policy(mdp))))
    sampled = lab.psdp(mdp, some_policies(draw, 4, 2), distribution(draw, 2, 3), rollouts=50, generator=draw)
    close(sampled.value, float(lab.policy_values(mdp, sampled.policy)))


@pytest.mark.parametrize("bias", [0.5, 0.6, 0.7, 0.9])
def test_psdp_needs_completeness(bias: float) -> None:
    mdp, resets = lab.two_roads(bias)
    two, every = lab.two_roads_class(), lab.all_policies(2, 2, 2)
    exact = lab.psdp(mdp, two, resets)
    gap = 0.5 if bias > 2 / 3 else 0.0
    assert lab.psdp_gap(mdp, two, exact) == pytest.approx(gap) and lab.psdp_gap(mdp, every, lab.psdp(mdp, every, resets)) == 0
    if abs(bias - 2 / 3) > 0.1:
        sampled = lab.psdp(mdp, two, resets, rollouts=4000, generator=generator(0))
        assert lab.psdp_gap(mdp, two, sampled) == pytest.approx(gap)


def test_resets_without_support_are_refused() -> None:
    mdp, _ = lab.two_roads()
    empty = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(RheostatError, match=r"resets\[1\] is no distribution: it has no support"):
        lab.psdp(mdp, lab.two_roads_class(), empty)
    with pytest.raises(RheostatError, match=r"resets\[1\] .* no support"):
        lab.policy_emulator(mdp, lab.two_roads_class(), empty, size=2, generator=generator(0))
    with pytest.raises(RheostatError, match="one road has no support"):
        lab.two_roads(1.0)
    with pytest.raises(RheostatError, match="need a generator"):
        lab.psdp(mdp, lab.two_roads_class(), lab.two_roads()[1], rollouts=5)
    missing = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(RheostatError, match=r"no support at \[1, 0\], where a policy is with probability 1"):
        lab.concentrability(lab.layer_occupancies(mdp, lab.two_roads_class()), missing)


@few
@given(seeds, st.floats(0.1, 0.95), st.booleans())
def test_a_conservative_step_gains_what_it_guarantees(seed: int, gamma: float, listed: bool) -> None:
    draw = generator(seed)
    problem = lab.random_prediction(4, 3, gamma, draw)
    resets = distribution(draw, 4)
    policies = torch.randint(3, (5, 4), generator=draw) if listed else None
    step = lab.cpi_step(problem.mdp, problem.policy, resets, policies)
    assert step.gain >= step.guaranteed - 1e-12 and step.guaranteed == pytest.approx(max(step.advantage, 0) ** 2 / 8)
    every = torch.tensor(list(product(range(3), repeat=4)))
    best = lab.cpi_step(problem.mdp, problem.policy, resets, every)
    assert best.advantage >= step.advantage - 1e-12 and best.advantage >= 0
    if not listed:
        close(best.advantage, step.advantage)
    close(step.occupancy.sum(), 1.0)


def test_conservative_policy_iteration_stops_below_epsilon() -> None:
    problem = lab.random_prediction(3, 2, 0.5, generator(0))
    resets = distribution(generator(1), 3)
    epsilon = lab.cpi_step(problem.mdp, problem.policy, resets).advantage / 2
    policy, steps = lab.cpi(problem.mdp, problem.policy, resets, epsilon=epsilon)
    assert 0 < len(steps) <= 8 / epsilon**2
    assert lab.cpi_step(problem.mdp, policy, resets).advantage <= epsilon < steps[-1].advantage
    with pytest.raises(RheostatError, match=r"rewards in \[0, 0.1\]"):
        lab.cpi_step(problem.mdp, policy, resets, reward_max=0.1)
    with pytest.raises(RheostatError, match="class of policies is empty"):
        lab.cpi_step(problem.mdp, policy, resets, torch.zeros(0, 3, dtype=torch.int64))


# --- emulators ---------------------------------------------------------------------------------------------------------------------------


def test_an_emulator_has_the_values_of_every_policy() -> None:
    """Latent states behind 12 observations each; policies follow a map of latent states, but for one observation in ten."""
    draw = generator(0)
    mdp, latent = lab.block_mdp(3, 3, 12, 2, draw)
    policies = lab.latent_policies(latent, 60, 2, draw)
    resets = torch.full((3, 36), 1 / 36, dtype=torch.float64)
    exact = lab.policy_values(mdp, policies)
    small = lab.policy_emulator(mdp, policies, resets, size=120, rollouts=200, tolerance=0.05, generator=draw)
    assert float((small.values(policies) - exact).abs().max()) < 0.1 < 3 * float(exact.std())
    assert all(len(tests) <= 6 for tests in small.tests) and len(small.tests) == 3
    close(small.transition.sum(-1), torch.ones(2, 120, 2))
    close(small.start.sum(), 1.0)
    blind = lab.policy_emulator(mdp, policies, resets, size=120, rollouts=200, tolerance=10.0, generator=draw)
    assert blind.tests == ((), (), ())
    assert float((blind.values(policies) - exact).abs().max()) > float((small.values(policies) - exact).abs().max())
    with pytest.raises(RheostatError, match="size, rollouts and successors"):
        lab.policy_emulator(mdp, policies, resets, size=0, generator=draw)
