"""Exact state of environments: real snapshots where a world can be saved, a rewindable cursor where it cannot.

A Gymnasium environment can be saved when every layer of it can: our own worlds and any environment with ``save_state()`` and
``load_state(state)``, classic control, toy text and MuJoCo from Gymnasium itself, under Gymnasium's standard wrappers. The generator
behind ``np_random`` is saved here for all of them, so ``save_state`` need not bother with it.

EnvPool cannot save or restore. It is deterministic, so the seed and all actions since the pool was made are a complete description.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rheostat.tasks.control.backends import GymnasiumWorlds, Worlds

# What changes after construction, by the exact class (a subclass may hold more).
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
MUJOCO_ATTRIBUTES = ("goal", "goal_pos", "cylinder_pos")  # Reacher and Pusher keep their targets beside the simulation


# -- plain data ----------------------------------------------------------------------------------------------------------------------


def pack(value: Any) -> Any:
    """A value as nested dicts and lists of tensors, numbers and strings, so that :func:`unpack` gives the same types back."""
    if value is None or type(value) in (bool, float, str):
        return value
    if type(value) is int:
        return value if abs(value) < 2**63 else {"big": hex(value)}  # PCG64 holds 128 bits
    if isinstance(value, np.generic):
        return {"scalar": str(value)} if value.dtype.kind == "U" else {"scalar": torch.from_numpy(np.array(value))}
    if isinstance(value, np.ndarray):
        return {"array": torch.from_numpy(value.copy())}
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [pack(item) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: pack(item) for key, item in value.items()}}
    raise TypeError(f"cannot save a {type(value).__name__}")


def unpack(value: Any) -> Any:
    """The inverse of :func:`pack`."""
    if not isinstance(value, dict):
        return value.clone() if isinstance(value, Tensor) else value
    ((kind, content),) = value.items()
    if kind == "big":
        return int(content, 16)
    if kind == "scalar":
        return np.str_(content) if isinstance(content, str) else content.numpy()[()]
    if kind == "array":
        return content.numpy().copy()
    if kind == "dict":
        return {key: unpack(item) for key, item in content.items()}
    items = [unpack(item) for item in content]
    return tuple(items) if kind == "tuple" else items


# -- one Gymnasium environment -------------------------------------------------------------------------------------------------------


def _layers(environment: Any) -> list[Any]:
    """The wrappers from the outermost to the environment itself."""
    import gymnasium

    layers = [environment]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    return layers


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
    return all(_layer_savable(layer) for layer in _layers(environment))


def save_environment(environment: Any) -> dict[str, Any]:
    """The state of one Gymnasium environment, wrappers and generator included."""
    layers = []
    for layer in _layers(environment):
        if _has_own_state(layer):
            layers.append(pack(layer.save_state()))
        elif _is_mujoco(layer):
            layers.append(_save_mujoco(layer))
        else:
            layers.append({name: pack(getattr(layer, name)) for name in ATTRIBUTES.get(_class(layer), ()) if hasattr(layer, name)})
    return {"layers": layers, "generator": _save_generator(environment.unwrapped)}


def load_environment(environment: Any, state: dict[str, Any]) -> None:
    """Put one Gymnasium environment, made in the same way, into a saved state."""
    for layer, saved in zip(_layers(environment), state["layers"], strict=True):
        if _has_own_state(layer):
            layer.load_state(unpack(saved))
        elif _is_mujoco(layer):
            _load_mujoco(layer, saved)
        else:
            for name, value in saved.items():
                setattr(layer, name, unpack(value))
    _load_generator(environment.unwrapped, state["generator"])


def _save_generator(owner: Any) -> Any:
    # _np_random is None until first used; asking for np_random would seed it from the operating system.
    return None if owner._np_random is None else pack(owner._np_random.bit_generator.state)


def _load_generator(owner: Any, state: Any) -> None:
    if state is None:
        owner._np_random = None
        return
    saved = unpack(state)
    bits = getattr(np.random, saved["bit_generator"])()
    bits.state = saved
    owner._np_random = np.random.Generator(bits)


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


def savable(worlds: Worlds) -> bool:
    """Whether the worlds can be saved as they are (otherwise the cursor describes them)."""
    from gymnasium.vector import SyncVectorEnv

    if not isinstance(worlds, GymnasiumWorlds):
        return False
    if type(worlds.vector) is SyncVectorEnv:
        return all(environment_savable(environment) for environment in worlds.vector.envs)
    return _has_own_state(worlds.vector)


def save_worlds(worlds: Worlds) -> dict[str, Any]:
    """The state of savable worlds."""
    assert isinstance(worlds, GymnasiumWorlds)
    vector: Any = worlds.vector
    if _has_own_state(vector):
        return {"own": pack(vector.save_state()), "generator": _save_generator(vector)}
    return {
        "environments": [save_environment(environment) for environment in vector.envs],
        "autoreset": torch.from_numpy(vector._autoreset_envs.copy()),
    }


def load_worlds(worlds: Worlds, state: dict[str, Any]) -> None:
    """Put savable worlds into a saved state."""
    assert isinstance(worlds, GymnasiumWorlds)
    vector: Any = worlds.vector
    if "own" in state:
        vector.load_state(unpack(state["own"]))
        _load_generator(vector, state["generator"])
        return
    for environment, saved in zip(vector.envs, state["environments"], strict=True):
        load_environment(environment, saved)
    vector._autoreset_envs = state["autoreset"].numpy().copy()


class Cursor:
    """A seed and everything done since: the whole state of a deterministic world that cannot be saved.

    Attributes:
        seed: of the pool.
        actions: one array ``[E, ...]`` per step, as given to the world.
        resets: the numbers of steps after which ``reset()`` was called again.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.actions: list[np.ndarray] = []
        self.resets: list[int] = []

    def record(self, action: np.ndarray) -> None:
        """Note one step."""
        self.actions.append(action)

    def record_reset(self) -> None:
        """Note a reset of all environments in the middle."""
        self.resets.append(len(self.actions))

    def replay(self, reset: Callable[[], Any], step: Callable[[np.ndarray], Any]) -> None:
        """Do everything again on fresh worlds of the same seed."""
        resets = list(self.resets)
        reset()
        for index, action in enumerate(self.actions):
            while resets and resets[0] == index:
                resets.pop(0)
                reset()
            step(action)
        for _ in resets:
            reset()

    def state_dict(self) -> dict[str, Any]:
        """Seed, resets, and actions ``[T, E, ...]`` (None before the first step)."""
        actions = torch.from_numpy(np.stack(self.actions)) if self.actions else None
        return {"seed": self.seed, "resets": list(self.resets), "actions": actions}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Cursor:
        """The cursor that was saved."""
        cursor = cls(state["seed"])
        cursor.resets = list(state["resets"])
        cursor.actions = [] if state["actions"] is None else list(state["actions"].numpy())
        return cursor
