"""Observations become one tensor, actions what the world expects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.control import make
from rheostat.tasks.control.actions import ActionDecoder
from rheostat.tasks.control.spaces import ObservationEncoder
from tests.tasks.worlds import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Spaces, Text, Tuple


def observed(space: Any, **options: Any) -> tuple[Any, torch.Tensor]:
    """What the environment gave, and what the policy sees of it."""
    environment = Spaces(space)
    environments = make(environment, num_envs=1, seed=0, **options)
    encoded = environments.reset()
    assert encoded.shape == (1, *environments.observation_space.shape)
    assert encoded.numpy().dtype == environments.observation_space.dtype
    return environment.given, encoded[0]


def test_dict_and_tuple_observations_are_concatenated_by_name() -> None:
    space = Dict([("z", Box(-1, 1, (2, 2), np.float64)), ("a", Tuple((Discrete(3), Box(-1, 1, (), np.float32)))), ("m", MultiBinary(2))])
    raw, encoded = observed(space)
    expected = [*np.eye(3)[raw["a"][0]], raw["a"][1], *raw["m"], *raw["z"].ravel()]
    torch.testing.assert_close(encoded, torch.tensor(np.array(expected, dtype=np.float32)))


def test_dm_control_dicts_are_concatenated() -> None:
    environments = make("WalkerWalk-v1", num_envs=3, seed=0)  # height is a vector without a trailing axis
    assert environments.reset().shape == (3, 14 + 1 + 9)


def test_integers_are_one_hot() -> None:
    raw, encoded = observed(Discrete(5, start=3))
    assert encoded.tolist() == np.eye(5)[raw - 3].tolist()
    raw, encoded = observed(MultiDiscrete([2, 4], start=[0, -2]))
    assert encoded.tolist() == [*np.eye(2)[raw[0]], *np.eye(4)[raw[1] + 2]]
    environments = make("Taxi-v3", num_envs=4, seed=0)
    observation = environments.reset()
    assert observation.shape == (4, 500) and (observation.sum(1) == 1).all()


def test_integers_outside_their_space_are_refused() -> None:
    encode = ObservationEncoder(Dict([("a", Discrete(3)), ("b", Discrete(3))]), "Toy")
    for wrong in (3, -1):
        with pytest.raises(RheostatError, match=r"observation\['a'\] of Toy in environment 1"):
            encode({"a": np.array([0, wrong]), "b": np.array([0, 0])}, 2)


@pytest.mark.parametrize(
    ("shape", "expected"), [((7, 9, 3), (3, 7, 9)), ((4, 8, 8), (4, 8, 8)), ((20, 20, 12), (12, 20, 20)), ((6, 5), (1, 6, 5))]
)
def test_images_stay_bytes_with_channels_first(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    raw, encoded = observed(Box(0, 255, shape, np.uint8))
    assert encoded.dtype == torch.uint8 and encoded.shape == expected
    last = np.moveaxis(raw, -1, 0) if len(shape) == 3 and expected != shape else raw.reshape(expected)
    assert np.array_equal(encoded.numpy(), last)


def test_fields_choose_entries_and_an_image_among_them_stays_an_image() -> None:
    environments = make("MiniGrid-DoorKey-5x5-v0", num_envs=2, seed=0, fields=("image",))
    observation = environments.reset()
    assert observation.shape == (2, 3, 7, 7) and observation.dtype == torch.uint8
    step = environments.step(torch.tensor([0, 2]))
    assert step.observation.dtype == torch.uint8
    both = make("MiniGrid-DoorKey-5x5-v0", num_envs=2, seed=0, fields=("direction", "image")).reset()
    assert both.shape == (2, 4 + 147) and (both[:, :4].sum(1) == 1).all()
    assert torch.equal(both[:, 4:].view(2, 7, 7, 3), observation.permute(0, 2, 3, 1).float())
    with pytest.raises(RheostatError, match="direction, image, mission"):
        make("MiniGrid-DoorKey-5x5-v0", num_envs=2, seed=0, fields=("picture",))


def test_float64_is_cast_once() -> None:
    raw, encoded = observed(Box(-1, 1, (3,), np.float64))
    assert np.array_equal(encoded.numpy(), raw.astype(np.float32))


def test_unsupported_observations_are_refused_in_a_sentence() -> None:
    with pytest.raises(RheostatError, match=r"observation\['mission'\] .*Text.*fields"):
        make(Spaces(Dict({"mission": Text(5), "x": Box(0, 1, (2,))})), num_envs=1, seed=0)
    with pytest.raises(RheostatError, match="too many for a one-hot"):
        make(Spaces(Discrete(10**6)), num_envs=1, seed=0)
    environments = make(Spaces(Dict({"mission": Text(5), "x": Box(0, 1, (2,))})), num_envs=1, seed=0, fields=("x",))
    assert environments.reset().shape == (1, 2)


@pytest.mark.parametrize(
    ("space", "action", "seen"),
    [
        (Discrete(3, start=2), torch.tensor([1]), 3),
        (MultiDiscrete([2, 4]), torch.tensor([[1, 3]]), [1, 3]),
        (MultiDiscrete([2, 4], start=[1, 5]), torch.tensor([[1, 3]]), [2, 8]),
        (MultiBinary(3), torch.tensor([[1, 0, 1]]), [1, 0, 1]),
        (Box(np.array([2, 0]), np.array([4, 9]), dtype=np.int32), torch.tensor([[2, 7]]), [4, 7]),
        (Box(-1, 1, (2,), np.float64), torch.tensor([[0.25, 7.0]]), [0.25, 1.0]),
        (Box(-np.inf, np.inf, (1, 2), np.float32), torch.tensor([[[0.5, 70.0]]]), [[0.5, 70.0]]),
    ],
)
def test_actions_reach_the_world(space: Any, action: torch.Tensor, seen: Any) -> None:
    environment = Spaces(Box(0, 1, (1,)), space)
    environments = make(environment, num_envs=1, seed=0)
    environments.reset()
    environments.step(action)
    assert environment.seen_action.tolist() == seen


def test_the_policy_sees_spaces_that_start_at_zero() -> None:
    assert ActionDecoder(Discrete(3, start=2), "Toy", 1).space == Discrete(3)
    assert ActionDecoder(Box(2, 4, (2,), np.int64), "Toy", 1).space == MultiDiscrete([3, 3])


def test_unsupported_actions_are_refused_in_a_sentence() -> None:
    with pytest.raises(RheostatError, match=r"Dict.*TransformAction"):
        make(Spaces(Box(0, 1, (1,)), Dict({"a": Discrete(2)})), num_envs=1, seed=0)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5), st.floats(0.1, 5.0))
def test_decoding_keeps_what_lies_within_the_bounds(values: list[float], bound: float) -> None:
    decode = ActionDecoder(Box(-bound, bound, (len(values),), np.float64), "Toy", 1)
    action = torch.tensor([values])
    command = torch.from_numpy(decode(action))
    inside = action.double().abs() <= bound
    assert torch.equal(command[inside], action[inside].double()) and (command.abs() <= bound).all()
