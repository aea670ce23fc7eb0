"""The replay against plain Python: what is drawn, what is summed, what is refused, and what a resumed run draws."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.buffers.replay import LEAST_ERROR, Replay
from rheostat.errors import RheostatError
from rheostat.training import checkpoint
from rheostat.trajectories import Transitions
from tests.buffers.blocks import PlainReplay, data_set, random_block

GAMMA = 0.9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(capacity: int = 100, steps: int = 40, **settings: Any) -> Replay:
    """One endless episode whose observations count from 1."""
    replay = Replay(capacity, gamma=GAMMA, **settings)
    replay.append(random_block(1, steps, generator(), ends=0.0, holes=0.0))
    return replay


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 2**20),
)
def test_every_step_equals_a_plain_loop(
    envs: int, blocks: list[tuple[int, bool]], capacity: int, n_step: int, sarsa: bool, seed: int
) -> None:
    chance = generator(seed)
    replay, plain, count = Replay(capacity, n_step=n_step, gamma=GAMMA), PlainReplay(capacity, GAMMA), 1
    for length, cut in blocks:
        rows = random_block(envs, length, chance, first=count)
        count += envs * length
        for each in (replay, plain):
            each.append(rows)
            if cut:
                each.cut()
    usable = [step for step in plain.steps if step.known or not sarsa]
    if not usable:
        return
    place = {replay.columns["observation"][row, 0].item(): row for row in range(len(replay))}
    with pytest.MonkeyPatch.context() as patch:  # every usable step once
        patch.setattr(replay, "_draw", lambda size, generator: torch.tensor([place[step.observation] for step in usable]))
        rows = replay.sample(len(usable), chance, sarsa=sarsa)
    for row, step in enumerate(usable):
        reward, successor, discount, terminated, truncated, action = plain.returned(step, n_step, sarsa)
        assert rows.observation[row].tolist() == [step.observation, -step.observation]
        assert rows.action[row].item() == step.action
        assert rows.reward[row].item() == pytest.approx(reward, abs=1e-5)
        assert rows.next_observation[row].tolist() == [successor, -successor]
        assert rows.discount[row].item() == pytest.approx(discount)
        assert rows.terminated[row].item() is terminated and rows.truncated[row].item() is truncated
        assert rows.sampler_logp[row].item() == -step.observation and rows.version[row].item() == step.observation
        assert rows.index[row].item() == place[step.observation]
        if sarsa:
            assert rows.next_action[row].item() == action
    assert rows.weight is None and (rows.next_action is not None) == sarsa


def test_a_reward_summed_by_hand() -> None:
    replay = Replay(10, n_step=3, gamma=0.5)
    rows = random_block(1, 5, generator(), ends=0.0, holes=0.0)
    rows.reward[0] = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    rows.terminated[0, 4] = True
    replay.append(rows)
    drawn = replay.sample(500, generator())
    value = {row.observation[0].item(): (row.reward.item(), row.discount.item(), row.next_observation[0].item()) for row in drawn}
    assert value == {
        1.0: (3.0, 0.125, 3.5),
        2.0: (6.0, 0.125, 4.5),
        3.0: (12.0, 0.0, 5.5),
        4.0: (16.0, 0.0, 5.5),
        5.0: (16.0, 0.0, 5.5),
    }


def test_drawn_rows_are_copies() -> None:
    replay = filled(n_step=2)
    drawn = replay.sample(30, generator())
    before = replay.data.clone()
    for name in ("observation", "reward", "next_observation", "discount", "terminated"):
        getattr(drawn, name).zero_()
    assert torch.equal(replay.data, before) and replay.powers[1] == GAMMA


def test_uniform_draws_are_uniform_over_what_is_stored() -> None:
    for steps in (40, 250):  # part full, and gone round
        replay = filled(steps=steps)
        size = len(replay)
        counts = replay.sample(size * 1000, generator()).index.bincount(minlength=size)
        assert len(counts) == size and (counts - 1000).abs().max() < 5 * 1000**0.5


# --- SARSA ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", [0.0, 1.0])
def test_sarsa_draws_only_steps_whose_next_action_is_known_and_those_in_proportion(priority: float) -> None:
    replay = Replay(100, priority=priority)
    rows, breaks = data_set([4, 1, 3])
    rows.terminated[3] = True
    replay.append_transitions(rows, breaks)  # unknown after steps 4 (alone) and 7 (cut)
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 2.0, 4.0]) if priority else torch.ones(8)
    if priority:
        replay.set_priorities(torch.arange(8), weight - LEAST_ERROR)
    drawn = replay.sample(14_000, generator(), sarsa=True)
    usable = torch.tensor([0, 1, 2, 3, 5, 6])
    counts = drawn.index.bincount(minlength=8)
    expected = 14_000 * weight[usable] / weight[usable].sum()
    assert counts[[4, 7]].sum() == 0 and ((counts[usable] - expected).abs() < 5 * expected.sqrt()).all()
    following = drawn.index + 1
    assert torch.equal(drawn.next_action[~drawn.terminated, 0], rows.action[following[~drawn.terminated], 0])


@pytest.mark.parametrize("priority", [0.0, 1.0])
def test_sarsa_finds_the_few_usable_steps_among_many_others(priority: float) -> None:
    replay = Replay(3000, priority=priority)
    replay.append_transitions(*data_set([1] * 1000 + [4] + [1] * 1000))
    counts = replay.sample(3000, generator(), sarsa=True).index.bincount(minlength=2004)
    assert counts.sum() == counts[1000:1003].sum() and (counts[1000:1003] - 1000).abs().max() < 5 * 1000**0.5
    replay.close()
    replay.append_transitions(*data_set([1] * 50))
    with pytest.raises(RheostatError, match="No step in the replay has a known next action"):
        replay.sample(3, generator(), sarsa=True)


# --- priorities -------------------------------------------------------------------------------------------------------------------------


def test_steps_are_drawn_in_proportion_to_their_priorities() -> None:
    replay = filled(steps=20, priority=0.5)
    error = torch.linspace(-3.0, 5.0, 20)
    replay.set_priorities(torch.arange(20), error)
    share = (error.double().abs() + LEAST_ERROR) ** 0.5
    share /= share.sum()
    drawn = replay.sample(5000, generator(), beta=0.7)
    counts = drawn.index.bincount(minlength=20)
    assert ((counts - 5000 * share).abs() < 2).all()  # one draw from each of 5000 equal parts
    assert not torch.equal(drawn.index, drawn.index.sort().values)
    weight = (20 * share) ** -0.7
    torch.testing.assert_close(drawn.weight, (weight / weight[drawn.index.unique()].max())[drawn.index].float())
    assert drawn.weight.max() == 1 and (replay.sample(50, generator(), beta=0.0).weight == 1).all()


def test_new_steps_get_the_largest_priority_so_far() -> None:
    replay = filled(capacity=30, steps=20, priority=1.0)
    assert (replay.tree.leaves[:20] == 1.0).all() and replay.tree.total() == 20
    replay.set_priorities(torch.arange(20), torch.full((20,), 4.0))
    replay.set_priorities(torch.arange(20), torch.full((20,), 0.5))
    replay.append(random_block(1, 15, generator(), ends=0.0, holes=0.0, first=21))
    leaves = replay.tree.leaves[:30]
    assert torch.allclose(leaves[[*range(5), *range(20, 30)]], torch.tensor(4.0 + LEAST_ERROR, dtype=torch.float64))
    assert torch.allclose(leaves[5:20], torch.tensor(0.5 + LEAST_ERROR, dtype=torch.float64))


def test_of_a_step_that_was_drawn_twice_the_largest_error_counts() -> None:
    replay = filled(steps=5, priority=1.0)
    replay.set_priorities(torch.tensor([2, 0, 2, 2]), torch.tensor([1.0, 0.25, -3.0, 2.0]))
    assert replay.tree.leaves[:5].tolist() == pytest.approx([0.25, 1, 3, 1, 1], abs=2e-6)


# --- state and room ---------------------------------------------------------------------------------------------------------------------


def use(replay: Replay, chance: torch.Generator, rounds: int, first: int) -> list[Transitions]:
    """What a run does with a replay."""
    drawn = []
    for number in range(rounds):
        replay.append(random_block(2, 7, chance, first=first + 14 * number))
        drawn += [replay.sample(16, chance), replay.sample(16, chance, sarsa=True)]
        if replay.priority:
            replay.set_priorities(drawn[-2].index, torch.randn(16, generator=chance))
    return drawn


def same(one: Transitions, other: Transitions) -> bool:
    return all(
        (value is None and getattr(other, name) is None) or torch.equal(value, getattr(other, name)) for name, value in one.items()
    ) and {name for name, value in one.items() if value is not None} == {name for name, value in other.items() if value is not None}


SETTINGS = [{}, {"n_step": 3}, {"priority": 0.6}, {"priority": 1.0, "n_step": 2}]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("rounds", [1, 3, 12])  # nearly empty, part full, and gone round
@pytest.mark.parametrize("mapped", [False, True])
def test_a_resumed_replay_draws_the_same(tmp_path: Path, settings: dict[str, Any], rounds: int, mapped: bool) -> None:
    whole, half = Replay(100, **settings), Replay(100, **settings)
    chance, chance_of_half = generator(), generator()
    use(whole, chance, rounds, 1)
    use(half, chance_of_half, rounds, 1)
    path = checkpoint.write(tmp_path, "000001", {"replay": half.state_dict(), "chance": chance_of_half.get_state()})
    half.close()
    state = checkpoint.read(path)
    resumed = Replay(100, **settings, **({"memory_map": tmp_path / "map", "memory_share": 0.0} if mapped else {}))
    resumed.load_state_dict(state["replay"])
    del state["replay"]
    chance_of_half.set_state(state["chance"])
    saved, loaded = (checkpoint.tensors_of(each.state_dict()) for each in (whole, resumed))
    assert saved.keys() == loaded.keys() and all(torch.equal(value, loaded[name]) for name, value in saved.items())
    expected, got = use(whole, chance, 5, 1000), use(resumed, chance_of_half, 5, 1000)
    assert all(same(one, other) for one, other in zip(expected, got, strict=True))
    assert [each.tolist() for each in whole.episodes()] == [each.tolist() for each in resumed.episodes()]


def test_only_what_is_filled_is_saved(tmp_path: Path) -> None:
    replay = filled(capacity=1_000_000, steps=10)
    assert sum(value.numel() for value in checkpoint.tensors_of(replay.state_dict()).values()) < 10 * 100
    empty = Replay(10, priority=0.5)
    path = checkpoint.write(tmp_path, "000001", Replay(10, priority=0.5).state_dict())
    empty.load_state_dict(checkpoint.read(path))
    assert len(empty) == 0 and empty.layout is None


def test_a_state_of_another_replay_is_refused() -> None:
    state = filled().state_dict()
    with pytest.raises(RheostatError, match="a capacity of 100 steps and this one of 50: resume with the settings of the run"):
        Replay(50).load_state_dict(state)
    with pytest.raises(RheostatError, match="The saved replay is uniform and this one prioritised"):
        Replay(100, priority=1.0).load_state_dict(state)


def test_room_is_refused_before_a_step_is_collected(tmp_path: Path) -> None:
    observation, action = torch.zeros(4, 84, 84, dtype=torch.uint8), torch.zeros((), dtype=torch.int64)
    assert Replay.bytes_per_step(observation, action) == 2 * 4 * 84 * 84 + 48
    assert Replay.bytes_per_step(observation, action, priority=0.5) == pytest.approx(2 * 4 * 84 * 84 + 48 + 8.3, abs=0.1)
    for folder in (None, tmp_path):
        with pytest.raises(RheostatError, match=r"A replay of 100,000,000,000 steps needs 5,649,600\.0 GB \(56,496 bytes a step\)"):
            Replay(10**11, memory_map=folder).reserve(observation, action)
    assert list(tmp_path.iterdir()) == []


def test_drawing_takes_no_longer_from_a_full_replay() -> None:
    for settings in ({}, {"n_step": 3}, {"priority": 0.6}):
        replay, chance = Replay(200_000, **settings), generator()
        taken = []
        for steps in (100, 200_000):
            replay.append(random_block(10, steps // 10, chance, ends=0.01, holes=0.0))
            for sarsa in (False, True):
                best = float("inf")
                for _ in range(30):
                    start = time.perf_counter()
                    replay.sample(64, chance, sarsa=sarsa)
                    best = min(best, time.perf_counter() - start)
                taken.append(best)
        # Memory that is not in the cache costs a few times more; two thousand times as many steps would show.
        assert taken[2] < 20 * taken[0] and taken[3] < 20 * taken[1], (settings, taken)


def test_bad_requests_are_one_sentence() -> None:
    with pytest.raises(RheostatError, match="The replay is empty: collect steps or append a data set"):
        Replay(10).sample(4, generator())
    replay = filled()
    with pytest.raises(RheostatError, match="A batch of 0 rows holds nothing: ask for at least 1"):
        replay.sample(0, generator())
    with pytest.raises(RheostatError, match="draws uniformly and has no priorities: make it with priority above 0"):
        replay.set_priorities(torch.zeros(1, dtype=torch.int64), torch.zeros(1))
    replay = filled(priority=1.0)
    with pytest.raises(RheostatError, match=r"index has shape \[2\], error \[2, 1\]"):
        replay.set_priorities(torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1))
    with pytest.raises(RheostatError, match="An error given as a priority is not finite"):
        replay.set_priorities(torch.zeros(1, dtype=torch.int64), torch.full((1,), float("nan")))
    for settings, message in (
        ({"n_step": 0}, "n_step is 0"),
        ({"gamma": 1.5}, r"they are 1\.5 and 0"),
        ({"priority": -1.0}, "they are 0.99 and -1"),
    ):
        with pytest.raises(RheostatError, match=message):
            Replay(10, **settings)
