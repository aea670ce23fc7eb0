"""Exact state of Gymnasium environments: real snapshots where an environment can be saved, a recording where it cannot.

A Gymnasium environment can be saved when every layer of it can: Rheostat's own environments and any environment with ``save_state()`` and
``load_state(state)``, classic control, toy text and MuJoCo from Gymnasium itself, under Gymnasium's standard wrappers. The generator
behind ``np_random`` is saved here for all of them, so ``save_state`` need not save it.

Any other Gymnasium environment is recorded (:mod:`rheostat.tasks.control.recording`), and EnvPool pools store what restores them
themselves (:mod:`rheostat.tasks.control.pools`). Batched environments without ``save_state`` are replayed from their seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rheostat.errors import RheostatError
from rheostat.tasks.control.plain_data import NotPlain, pack, restore_generator, save_generator, unpack
from rheostat.tasks.control.recording import Recorder, layers_of

# Attributes that change after construction, by the exact class (a subclass may hold more).
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gymnasium.envs.classic_control.cartpole.CartPoleEnv": ("state", "steps_beyond_terminated"),
    "gymnasium.envs.classic_control.pendulum.PendulumEnv": ("state", "last_u"),
    "gymnasium.envs.classic_control.acrobot.AcrobotEnv": ("state",),
    "gymnasium.envs.classic_control.mountain_car.MountainCarEnv": ("state",),
    "gymnasium.envs.classic_control.continuous_mountain_car.Continuous_MountainCarEnv": ("state",),
    "gymnasium.envs.toy_text.frozen_lake.FrozenLakeEnv": ("s", "lastaction"),
    "gymnasium.envs.toy_text.cliffwalking.CliffWalkingEnv": ("s", "lastaction"),
    "gymnasium.envs.toy_text.taxi.TaxiEnv": ("s", "lastaction", "fickle_step", "taxi_orientation"),
    "gymnasium.envs.toy_text.blackjack.BlackjackEnv": ("dealer", "player", "dealer_top_card_suit", "dealer_top_card_value_str"),
    "gymnasium.wrappers.common.TimeLimit": ("_elapsed_steps",),
    "gymnasium.wrappers.common.OrderEnforcing": ("_has_reset",),
    "gymnasium.wrappers.common.PassiveEnvChecker": ("checked_reset", "checked_step"),
    "gymnasium.wrappers.common.RecordEpisodeStatistics": ("episode_returns", "episode_lengths", "episode_count"),
    "gymnasium.wrappers.stateful_observation.TimeAwareObservation": ("timesteps",),
}
STATELESS = {
    "gymnasium.wrappers.transform_action.ClipAction",
    "gymnasium.wrappers.transform_action.RescaleAction",
    "gymnasium.wrappers.transform_action.DiscretizeAction",
    "gymnasium.wrappers.transform_observation.FilterObservation",
    "gymnasium.wrappers.transform_observation.FlattenObservation",
    "gymnasium.wrappers.transform_observation.GrayscaleObservation",
    "gymnasium.wrappers.transform_observation.ResizeObservation",
    "gymnasium.wrappers.transform_observation.ReshapeObservation",
    "gymnasium.wrappers.transform_observation.RescaleObservation",
    "gymnasium.wrappers.transform_observation.DtypeObservation",
    "gymnasium.wrappers.transform_reward.ClipReward",
}
MUJOCO_ATTRIBUTES = ("goal", "goal_pos", "cylinder_pos")  # Reacher and Pusher keep their targets outside the simulation


# -- one Gymnasium environment -------------------------------------------------------------------------------------------------------


def _class(layer: Any) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def _has_own_state(layer: Any) -> bool:
    # hasattr() would look through wrappers of gymnasium < 1.0; the class is what defines the pair.
    return all(callable(getattr(type(layer), method, None)) for method in ("save_state", "load_state"))


def _is_mujoco(layer: Any) -> bool:
    return _class(layer).startswith("gymnasium.envs.mujoco.") and hasattr(layer, "data") and hasattr(layer, "model")


def _layer_savable(layer: Any) -> bool:
    return _has_own_state(layer) or _class(layer) in ATTRIBUTES or _class(layer) in STATELESS or _is_mujoco(layer)


def environment_savable(environment: Any) -> bool:
    """Whether every layer of a Gymnasium environment can be saved."""
    return all(_layer_savable(layer) for layer in layers_of(environment))


def record(environment: Any) -> Any:
    """The environment itself where it can be saved, else recorded from now on."""
    return environment if environment_savable(environment) else Recorder(environment)


def save_environment(environment: Any) -> dict[str, Any]:
    """The state of one Gymnasium environment, wrappers and generator included."""
    if isinstance(environment, Recorder):
        return {"recording": environment.save_state()}
    layers = []
    for layer in layers_of(environment):
        if _has_own_state(layer):
            layers.append(_own_state(layer))
        elif _is_mujoco(layer):
            layers.append(_save_mujoco(layer))
        else:
            layers.append({name: pack(getattr(layer, name)) for name in ATTRIBUTES.get(_class(layer), ()) if hasattr(layer, name)})
    # _np_random is None until first used; asking for np_random would seed it from the operating system
    return {"layers": layers, "generator": save_generator(environment.unwrapped._np_random)}


def load_environment(environment: Any, state: dict[str, Any]) -> list[str]:
    """Put one Gymnasium environment, made in the same way, into a saved state; returns sentences about what cannot be checked.

    Raises:
        Lost: it was recorded and cannot be restored.
    """
    if "recording" in state:
        return (environment if isinstance(environment, Recorder) else Recorder(environment)).load_state(state["recording"])
    environment.reset(seed=0)  # some wrappers need a first reset
    for layer, saved in zip(layers_of(environment), state["layers"], strict=True):
        if _has_own_state(layer):
            layer.load_state(unpack(saved))
        elif _is_mujoco(layer):
            _load_mujoco(layer, saved)
        else:
            for name, value in saved.items():
                setattr(layer, name, unpack(value))
    environment.unwrapped._np_random = restore_generator(state["generator"])
    return []


def _own_state(layer: Any) -> Any:
    """The saved state of a layer.

    Raises:
        RheostatError: it is no plain data.
    """
    try:
        return pack(layer.save_state())
    except NotPlain as error:
        raise RheostatError(
            f"What save_state() of {type(layer).__name__} returns holds {error}: return numbers, text, arrays and containers of these."
        ) from error


def _save_mujoco(environment: Any) -> dict[str, Any]:
    """The integration state, and every derived array.

    The integration state alone would continue the physics exactly, but rewards and observations also read derived arrays (body positions,
    contact forces) that lag one substep behind the joints, so that a recomputation gives other numbers.
    """
    import mujoco

    model, data = environment.model, environment.data
    integration = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(model, data, integration, mujoco.mjtState.mjSTATE_INTEGRATION)
    return {
        "integration": torch.from_numpy(integration),
        "derived": {name: torch.from_numpy(np.array(getattr(data, name))) for name in _fixed_arrays(model)},
        "attributes": {name: pack(getattr(environment, name)) for name in MUJOCO_ATTRIBUTES if hasattr(environment, name)},
    }


def _load_mujoco(environment: Any, state: dict[str, Any]) -> None:
    import mujoco

    model, data = environment.model, environment.data
    mujoco.mj_setState(model, data, state["integration"].numpy(), mujoco.mjtState.mjSTATE_INTEGRATION)
    mujoco.mj_forward(model, data)  # allocates contacts and constraints
    for name, value in state["derived"].items():
        getattr(data, name)[...] = value.numpy()
    mujoco.mj_setState(model, data, state["integration"].numpy(), mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, packed in state["attributes"].items():
        setattr(environment, name, unpack(packed))


def _fixed_arrays(model: Any) -> list[str]:
    """Names of the arrays of MjData whose size is fixed by the model; those on the arena are empty in fresh data."""
    import mujoco

    fresh = mujoco.MjData(model)
    names = (name for name in dir(fresh) if not name.startswith("_"))
    arrays = ((name, getattr(fresh, name)) for name in names if isinstance(getattr(fresh, name), np.ndarray))
    return [name for name, array in arrays if array.size and array.flags.writeable]


# -- batches of environments ---------------------------------------------------------------------------------------------------------


def savable(envs: Any) -> bool:
    """Whether Gymnasium environments can be saved (or are recorded); the others are replayed from their seed."""
    from gymnasium.vector import SyncVectorEnv

    return isinstance(envs.vector, SyncVectorEnv) or _has_own_state(envs.vector)


def save_envs(envs: Any) -> dict[str, Any]:
    """The state of savable Gymnasium environments."""
    vector: Any = envs.vector
    if _has_own_state(vector):
        return {"own": _own_state(vector), "generator": save_generator(vector._np_random)}
    return {
        "environments": [save_environment(environment) for environment in vector.envs],
        "autoreset": torch.from_numpy(vector._autoreset_envs.copy()),
    }


def load_envs(envs: Any, state: dict[str, Any]) -> list[str]:
    """Put savable Gymnasium environments into a saved state; returns sentences about what cannot be checked.

    Raises:
        Lost: an environment cannot be restored.
    """
    vector: Any = envs.vector
    if "own" in state:
        vector.load_state(unpack(state["own"]))
        vector._np_random = restore_generator(state["generator"])
        return []
    said = [load_environment(environment, saved) for environment, saved in zip(vector.envs, state["environments"], strict=True)]
    vector._autoreset_envs = state["autoreset"].numpy().copy()
    return sorted({sentence for each in said for sentence in each})
