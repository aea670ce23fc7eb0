"""Offline data sets in memory: what is known of them, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from rheostat.buffers.offline import OfflineData
from rheostat.buffers.offline_summary import summarise
from rheostat.errors import RheostatError
from rheostat.trajectories import Source
from tests.buffers.offline_worlds import ACTIONS, OBSERVATIONS, build, fields


def test_episodes_returns_and_lengths_follow_the_breaks() -> None:
    data = build()
    assert len(data) == 5 and data.episodes == [slice(0, 3), slice(3, 5)]
    assert data.returns.tolist() == [6.0, 9.0] and data.lengths.tolist() == [3, 2]
    assert (data.transitions.source == int(Source.OFFLINE)).all()


def test_a_cut_episode_does_not_count_among_the_whole_returns() -> None:
    assert build(cut=torch.tensor([False, True])).whole_returns.tolist() == [6.0]
    assert build(cut=torch.tensor([True, True])).whole_returns.tolist() == [6.0, 9.0]  # better than nothing


@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e3), st.floats(-1e3, 1e3))
def test_a_normalised_score_is_0_for_random_and_100_for_the_expert_and_straight_between(random: float, gap: float, value: float) -> None:
    data = build(reference=(random, random + gap))
    assert data.normalised_score(random) == 0 and data.normalised_score(random + gap) == pytest.approx(100, rel=1e-6)
    assert data.normalised_score(value) == pytest.approx(100 * (value - random) / gap, rel=1e-6, abs=1e-6)


def test_a_score_without_reference_returns_is_refused() -> None:
    with pytest.raises(RheostatError, match="has no reference returns"):
        build().normalised_score(1.0)


def test_the_digest_changes_with_every_kind_of_number() -> None:
    values, plain = fields(), build()
    assert build().digest == plain.digest
    other = {
        "action": values["action"] * 0.5,
        "reward": values["reward"] + 1,
        "sampler_logp": values["sampler_logp"] * 2,
        "terminated": torch.zeros(5, dtype=torch.bool),
    }
    for name, value in other.items():
        changes = {name: value} | ({"truncated": values["truncated"] | values["terminated"]} if name == "terminated" else {})
        assert build(changes).digest != plain.digest, name
    last = values["next_observation"].clone()
    last[-1] += 1  # the final observation is in no other place
    assert build({"next_observation": last}).digest != plain.digest
    assert build(task="Other-v0").digest != plain.digest
    assert build(drawn_action=values["action"]).digest != plain.digest
    assert build(cut=torch.tensor([False, True])).digest != plain.digest


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("observation", math.nan, "observation of step 1 of episode 1 is not a number"),
        ("action", math.inf, "action of step 1 of episode 1 is infinite"),
        ("reward", math.nan, "reward of step 1 of episode 1 is not a number"),
        ("next_observation", -math.inf, "next observation of step 1 of episode 1 is infinite"),
    ],
)
def test_numbers_that_are_none_are_refused_with_their_place(field: str, value: float, what: str) -> None:
    changed = fields()[field].clone()
    changed[4] = value
    with pytest.raises(RheostatError, match=what):
        build({field: changed})


def test_an_end_in_the_middle_and_an_unknown_end_are_refused() -> None:
    middle = fields()["truncated"].clone()
    middle[1] = True
    with pytest.raises(RheostatError, match="says that the episode ended at step 1 of episode 0, but more steps follow"):
        build({"truncated": middle})
    with pytest.raises(RheostatError, match=r"step 1 of episode 1 is the last one and neither terminated nor truncated.*unknown_end"):
        build({"truncated": torch.zeros(5, dtype=torch.bool)})


def test_steps_out_of_the_order_of_time_are_refused() -> None:
    shuffled = fields()["observation"][[1, 0, 2, 3, 4]]
    with pytest.raises(RheostatError, match="next observation of step 0 of episode 0 is not the observation of the step after it"):
        build({"observation": shuffled})


def test_actions_outside_their_bounds_are_refused_or_clipped_and_rounding_is_forgiven() -> None:
    action = fields()["action"].clone()
    action[3] = 1.5
    with pytest.raises(RheostatError, match=r"action 1\.5 of step 0 of episode 1 lies outside -1 to 1 \(1 of 5 actions do\)"):
        build({"action": action})
    assert build({"action": action}, outside="clip").transitions.action[3] == 1
    action[3] = 1 + 5e-6
    assert build({"action": action}).transitions.action[3] == 1


def test_categories_outside_their_space_are_refused_even_when_clipping() -> None:
    choice = torch.tensor([0, 1, 2, 3, 1])
    with pytest.raises(RheostatError, match=r"action 3 of step 0 of episode 1 is not in Discrete\(3\)"):
        build({"action": choice}, action_space=spaces.Discrete(3), outside="clip")
    with pytest.raises(RheostatError, match=r"action \[2, 0\] of step 0 of episode 0 is not in MultiDiscrete"):
        build({"action": torch.tensor([[2, 0]] * 5)}, action_space=spaces.MultiDiscrete([2, 3]))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(RheostatError, match="is empty"):
        build({name: value[:0] for name, value in fields().items()}, breaks=torch.zeros(0, dtype=torch.bool))
    with pytest.raises(RheostatError, match="breaks must be bool"):
        build(breaks=torch.ones(4, dtype=torch.bool))
    with pytest.raises(RheostatError, match="last step of the data set does not end an episode"):
        build(breaks=torch.tensor([True, False, False, False, False]))
    with pytest.raises(RheostatError, match=r"observations of the data set have shape \[2\]; their space is"):
        build(observation_space=spaces.Box(-1, 1, (3,)))
    with pytest.raises(RheostatError, match=r"actions of the data set have shape \[1\]"):
        build(action_space=spaces.Box(-1, 1, (2,)))


def test_another_task_is_refused_by_its_spaces() -> None:
    data = build()
    data.require_spaces(OBSERVATIONS, ACTIONS, "Pendulum-v1")
    with pytest.raises(RheostatError, match=r"observations of the data set are .* those of Other are .*another task"):
        data.require_spaces(spaces.Box(-1, 1, (3,)), ACTIONS, "Other")
    with pytest.raises(RheostatError, match="actions of the data set"):
        data.require_spaces(OBSERVATIONS, spaces.Box(-2, 2, (1,)), "Other")
    with pytest.raises(RheostatError, match="actions of the data set"):
        data.require_spaces(OBSERVATIONS, spaces.Discrete(2), "Other")


def test_one_trajectory_is_allowed_with_a_remark_and_refused_where_more_are_needed() -> None:
    single = build(lengths=(4,))
    assert any("one trajectory only" in sentence for sentence in single.warnings)
    assert build().warnings == []
    build().require_episodes(2, "A validation split")
    with pytest.raises(RheostatError, match="A validation split needs at least 2 episodes; the data set has 1"):
        single.require_episodes(2, "A validation split")
    unknown = build({"sampler_logp": torch.full((5,), math.nan)})
    assert any("does not say how likely" in sentence for sentence in unknown.warnings)


def test_joined_data_sets_keep_their_episodes_and_draws() -> None:
    first, second = build(drawn_action=fields()["action"] * 2), build(lengths=(2, 4))
    both = OfflineData.join([first, second])
    assert both.lengths.tolist() == [3, 2, 2, 4] and torch.equal(both.transitions.action[:5], first.transitions.action)
    assert both.drawn_action is not None and torch.equal(both.drawn_action[5:], second.transitions.action)
    with pytest.raises(RheostatError, match="another task"):
        OfflineData.join([first, build(action_space=spaces.Box(-3, 3, (1,)))])
    with pytest.raises(RheostatError, match="no data sets"):
        OfflineData.join([])


def test_a_summary_counts_ends_returns_and_scores() -> None:
    found = summarise(build(reference=(0.0, 12.0), reference_source="made up", cut=torch.tensor([False, True])))
    assert found["steps"] == 5 and found["episodes"] == 2 and found["cut_episodes"] == 1
    assert found["terminated_share"] == 0.5 and found["truncated_share"] == 0.5
    assert found["return"]["mean"] == 6.0 and found["score"]["mean"] == 50.0  # of the whole episode only
    assert summarise(build())["score"] is None
