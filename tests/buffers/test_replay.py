"""The replay against plain Python: what is drawn, what is summed, what is refused, and what a resumed run draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.buffers.replay import Replay
from rheostat.errors import RheostatError
from rheostat.training import checkpoint
from rheostat.trajectories import Source, Trajectories, Transitions

GAMMA = 0.9


def block(envs: int, steps: int, generator: torch.Generator, *, ends: float = 0.2, holes: float = 0.15, first: int = 0) -> Trajectories:
    """Random steps; observations, actions and rewards are all different, counted from ``first``."""
    shape = (envs, steps)
    count = torch.arange(first, first + envs * steps, dtype=torch.float32).view(shape)

    def chance(share: float) -> torch.Tensor:
        return torch.rand(shape, generator=generator) < share

    return Trajectories(
        observation=torch.stack([count, -count], -1),
        next_observation=torch.stack([count + 0.5, -count - 0.5], -1),
        action=count.unsqueeze(-1) * 10,
        reward=torch.randn(shape, generator=generator),
        terminated=chance(ends),
        truncated=chance(ends),
        mask=~chance(holes),
        sampler_logp=-count,
        version=count.long(),
        batch_size=list(shape),
    )


@dataclass
class PlainStep:
    observation: float
    action: float
    reward: float
    next_observation: float
    terminated: bool
    truncated: bool
    following: PlainStep | None = None


@dataclass
class PlainReplay:
    """A list of steps with a pointer to the next; what the replay must equal."""

    capacity: int
    steps: list[PlainStep] = field(default_factory=list)
    newest: dict[int, PlainStep] = field(default_factory=dict)

    def append(self, rows: Trajectories) -> None:
        for t in range(rows.shape[1]):
            for e in range(rows.shape[0]):
                before = self.newest.pop(e, None)
                if not rows.mask[e, t]:
                    continue
                step = PlainStep(
                    rows.observation[e, t, 0].item(),
                    rows.action[e, t, 0].item(),
                    rows.reward[e, t].item(),
                    rows.next_observation[e, t, 0].item(),
                    bool(rows.terminated[e, t]),
                    bool(rows.truncated[e, t]),
                )
                self.steps.append(step)
                if before is not None:
                    before.following = step
                if not step.terminated and not step.truncated:
                    self.newest[e] = step
        self.steps = self.steps[-self.capacity :]

    def cut(self) -> None:
        for step in self.newest.values():
            step.truncated = True
        self.newest.clear()

    def returned(self, step: PlainStep, n_step: int, sarsa: bool) -> tuple[float, float, float, bool, bool, float | None]:
        total, factor = step.reward, GAMMA
        for _ in range(n_step - 1):
            after = step.following
            if after is None or (sarsa and after.following is None and not after.terminated):
                break
            step = after
            total += factor * step.reward
            factor *= GAMMA
        action = step.following.action if step.following is not None else step.action
        discount = 0.0 if step.terminated else factor
        return total, step.next_observation, discount, step.terminated, step.truncated, action if sarsa else None


def by_observation(replay: Replay) -> dict[float, int]:
    """Places of the stored steps."""
    return {replay.columns["observation"][place, 0].item(): place for place in range(len(replay))}


def drawn(replay: Replay, places: list[int], monkeypatch: pytest.MonkeyPatch, *, sarsa: bool) -> Transitions:
    """What a draw of exactly these places gives."""
    monkeypatch.setattr(replay, "_draw", lambda size, generator: torch.tensor(places))
    return replay.sample(len(places), torch.Generator(), sarsa=sarsa)


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
    generator = torch.Generator().manual_seed(seed)
    replay, plain = Replay(capacity, n_step=n_step, gamma=GAMMA), PlainReplay(capacity)
    count = 1
    for length, cut in blocks:
        rows = block(envs, length, generator, first=count)
        count += envs * length
        replay.append(rows)
        plain.append(rows)
        if cut:
            replay.cut()
            plain.cut()
    assert len(replay) == len(plain.steps)
    place = by_observation(replay)
    assert sorted(place) == sorted(step.observation for step in plain.steps)
    usable = [step for step in plain.steps if not sarsa or step.following is not None or step.terminated]
    if not usable:
        return
    with pytest.MonkeyPatch.context() as monkeypatch:
        rows = drawn(replay, [place[step.observation] for step in usable], monkeypatch, sarsa=sarsa)
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


@given(st.integers(1, 3), st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(1, 40), st.integers(0, 2**20))
def test_the_episode_view_walks_every_step_once_in_order_of_time(envs: int, blocks: list[int], capacity: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    replay, plain = Replay(capacity), PlainReplay(capacity)
    count = 1
    for length in blocks:
        rows = block(envs, length, generator, first=count)
        count += envs * length
        replay.append(rows)
        plain.append(rows)
    inside = {id(step.following) for step in plain.steps if step.following is not None}
    expected = []
    for step in plain.steps:
        if id(step) not in inside:
            episode, walker = [], step
            while walker is not None:
                episode.append(walker.observation)
                walker = walker.following
            expected.append(episode)
    observations = replay.columns["observation"][:, 0] if len(replay) else torch.zeros(0)
    assert [observations[places].tolist() for places in replay.episodes()] == expected


def state_after_resuming(replay: Replay, folder: Path, **settings: Any) -> Replay:
    """A new replay with what was saved to disk."""
    path = checkpoint.write(folder, "000001", replay.state_dict())
    other = Replay(replay.capacity, **settings)
    other.load_state_dict(checkpoint.read(path))
    return other


def same(one: Transitions, other: Transitions) -> bool:
    fields, others = one.to_dict(), other.to_dict()
    return fields.keys() == others.keys() and all(
        value is None if others[name] is None else torch.equal(value, others[name]) for name, value in fields.items()
    )


@pytest.mark.parametrize("settings", [{}, {"n_step": 3}, {"priority": 0.6}, {"priority": 1.0, "n_step": 2}])
@pytest.mark.parametrize("blocks", [3, 12])  # half full, and gone round
def test_a_resumed_replay_draws_the_same(tmp_path: Path, settings: dict[str, Any], blocks: int) -> None:
    generator = torch.Generator().manual_seed(0)
    replay = Replay(100, **settings)
    for number in range(blocks):
        replay.append(block(2, 7, generator, first=1 + 14 * number))
        if "priority" in settings:
            rows = replay.sample(8, generator)
            replay.set_priorities(rows.index, torch.randn(8, generator=generator))
    other = state_after_resuming(replay, tmp_path, **settings)
    assert len(other) == len(replay)
    saved, loaded = (checkpoint.tensors_of(each.state_dict()) for each in (replay, other))
    assert saved.keys() == loaded.keys() and all(torch.equal(value, loaded[name]) for name, value in saved.items())
    first, second = (torch.Generator().manual_seed(5) for _ in range(2))
    for step in range(6):
        assert same(replay.sample(16, first), other.sample(16, second))
        assert same(replay.sample(16, first, sarsa=True), other.sample(16, second, sarsa=True))
        if "priority" in settings:
            error, index = torch.randn(16, generator=first), replay.sample(16, first).index
            replay.set_priorities(index, error)
            other.set_priorities(other.sample(16, second).index, torch.randn(16, generator=second)) if False else None
            second.set_state(first.get_state())
            other.set_priorities(index, error)
        more = block(2, 5, torch.Generator().manual_seed(step), first=1000 + 10 * step)
        replay.append(more)
        other.append(more)


def test_refusals_of_a_first_version() -> None:
    assert Source.REPLAY
    with pytest.raises(RheostatError, match="The replay is empty"):
        Replay(10).sample(4, torch.Generator())
