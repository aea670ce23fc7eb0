"""The ids of Rheostat's own environments, registered with Gymnasium when they are first needed.

Entry points are strings, so that registering imports none of them; listing every id imports no PyTorch.
"""

from __future__ import annotations

PROBES = {
    "ConstantReward": None,
    "RewardFromObservation": None,
    "DelayedReward": None,
    "RewardFromAction": None,
    "RewardFromBoth": None,
    "TimeLimit": 5,
}  # name -> steps after which the episode is truncated


NAMES = {
    "darkroom": "rheostat/Darkroom-v0",
    "keys-and-doors": "rheostat/KeysAndDoors-v0",
    "point-maze": "rheostat/PointMaze-v0",
}
"""Short names of tasks."""


def register() -> None:
    """Register every ``rheostat/...`` id with Gymnasium; calling it again does nothing.

    - ``rheostat/Probe-<name>-v0`` and ``rheostat/Probe-<name>-Continuous-v0``: :mod:`rheostat.tasks.control.probes`;
    - ``rheostat/GridWorld5x5-v0``, ``rheostat/GridWorld8x8-v0``, ``rheostat/TwoStep-v0``: the tables of PROPS' toy experiments;
    - ``rheostat/Discrete2D-v0`` (``headings=K``) and ``rheostat/Discrete2D100-v0``: :mod:`rheostat.tasks.control.discrete2d`;
    - ``rheostat/TwoBumps-v0``, ``rheostat/JumpingBump-v0``, ``rheostat/TwoGoals-v0``: :mod:`rheostat.tasks.control.two_optima`;
    - ``rheostat/TwoHalves-v0``: :mod:`rheostat.tasks.control.two_halves`;
    - ``rheostat/Recall-v0`` (``delay=K``): :mod:`rheostat.tasks.control.recall`;
    - ``rheostat/Darkroom-v0`` (``darkroom``) and ``rheostat/KeysAndDoors-v0`` (``keys-and-doors``), with ``size``, ``horizon`` and
      ``trial_episodes``: :mod:`rheostat.tasks.control.hidden_tasks`;
    - ``rheostat/PointMaze-v0`` (``point-maze``), with ``horizon``, ``goal`` and ``noise``: :mod:`rheostat.tasks.control.point_maze`.
    """
    import gymnasium

    here = "rheostat.tasks.control"

    def add(name: str, entry_point: str, limit: int | None, **options: object) -> None:
        id = f"rheostat/{name}-v0"
        if id not in gymnasium.registry:
            gymnasium.register(id, f"{here}.{entry_point}", max_episode_steps=limit, kwargs=options)

    for name, limit in PROBES.items():
        add(f"Probe-{name}", f"probes:{name}", limit)
        add(f"Probe-{name}-Continuous", f"probes:{name}", limit, continuous=True)
    add("GridWorld5x5", "gridworld:SamplingErrorGrid", 50)
    add("GridWorld8x8", "gridworld:ToyGrid", 30)
    add("TwoStep", "two_step:TwoStep", None)
    add("Discrete2D", "discrete2d:Discrete2D", 50)
    add("Discrete2D100", "discrete2d:Discrete2D", 50, headings=100)
    add("TwoBumps", "two_optima:TwoBumps", None)
    add("JumpingBump", "two_optima:JumpingBump", None)
    add("TwoGoals", "two_optima:TwoGoals", 30)
    add("TwoHalves", "two_halves:TwoHalves", 50)
    add("Recall", "recall:Recall", None)
    vectorised = {"Darkroom": "hidden_tasks", "KeysAndDoors": "hidden_tasks", "PointMaze": "point_maze"}
    for name, module in vectorised.items():
        id = f"rheostat/{name}-v0"
        if id not in gymnasium.registry:
            gymnasium.register(id, vector_entry_point=f"{here}.{module}:{name}")


def known_tasks() -> dict[str, list[str]]:
    """Every id that an environment can be made of, sorted, by family: Rheostat's own, those only Gymnasium has, EnvPool's by kind."""
    import gymnasium
    from envpool.registration import registry

    register()
    families: dict[str, list[str]] = {"rheostat": [], "gymnasium": []}
    for task in gymnasium.registry:
        if task not in registry.specs:
            families["rheostat" if task.startswith("rheostat/") else "gymnasium"].append(task)
    for task, (module, *_) in registry.specs.items():
        families.setdefault(f"envpool {module.rsplit('.')[-1]}", []).append(task)
    return {family: sorted(ids) for family, ids in sorted(families.items())}
