"""Finding the environment a task stands for: an id, an environment, a vector environment, or a function that makes one."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rheostat import plugins
from rheostat.errors import MissingExtra, RheostatError, shown, unknown
from rheostat.tasks.control.backends import Backend, EnvPoolEnvs, Envs, GymnasiumEnvs
from rheostat.tasks.control.distractors import name_with, take_distractors, wrapped

if TYPE_CHECKING:
    from gymnasium import Env


def find(
    task: Any, *, num_envs: int, seed: int, backend: Backend | Literal["auto"], threads: int | None, options: dict[str, Any]
) -> tuple[Envs, str]:
    """The environments a task stands for, and its name.

    Raises:
        RheostatError: unknown id, impossible backend, or the environment refuses its options.
        MissingExtra: the environment needs a package that is not installed.
    """
    import gymnasium

    if backend not in ("auto", "envpool", "gymnasium"):
        raise RheostatError(f"Unknown backend {backend!r}: one of auto, envpool, gymnasium.")
    if isinstance(task, str):
        envs, name = _by_name(task, num_envs, seed, backend, threads, options)
        return envs, name_with(name, take_distractors(options)[0])
    if backend == "envpool":
        raise RheostatError("backend='envpool' needs the id of an EnvPool task, not an environment object.")
    if isinstance(task, gymnasium.vector.VectorEnv):
        if task.num_envs != num_envs:
            raise RheostatError(f"The vector environment given has {task.num_envs} environments, but num_envs={num_envs} was asked for.")
        _refuse(options, "a vector environment that is already made")
        return GymnasiumEnvs(task, _name_of(task), seed, owned=False), _name_of(task)
    if isinstance(task, gymnasium.Env):
        if num_envs != 1:
            raise RheostatError(
                f"One environment object cannot be stepped as num_envs={num_envs}: pass a function that makes a new one, or num_envs=1."
            )
        _refuse(options, "an environment that is already made")
        name = _name_of(task)
        return _sync([lambda: task], name, seed, owned=False), name
    if callable(task):
        distractors, options = take_distractors(options)
        name = getattr(task, "__name__", type(task).__name__)
        _require_call(task, name, options)
        name = name_with(name, distractors)
        return _sync([wrapped(lambda: task(**options), distractors)] * num_envs, name, seed), name
    from rheostat.tasks.control.copies import like

    raise RheostatError(
        "A control task is an id, a gymnasium environment, a vector environment or a function that makes one, not "
        f"{shown(task)}{like(task)}."
    )


def _require_call(task: Callable[..., Any], name: str, options: dict[str, Any]) -> None:
    """Refuse a function or class that cannot be called with the options of the environment, and nothing else."""
    try:
        inspect.signature(task).bind(**options)
    except TypeError as error:
        given = f"the options {options}" if options else "no arguments"
        raise RheostatError(
            f"{name} cannot be called with {given}: {error}. Give environment_options, or a function without arguments that makes the "
            "environment."
        ) from error
    except ValueError:  # its signature cannot be read
        return


def _by_name(
    task: str, num_envs: int, seed: int, backend: Backend | Literal["auto"], threads: int | None, options: dict[str, Any]
) -> tuple[Envs, str]:
    import gymnasium

    from rheostat.tasks.control.registration import NAMES, register
    from rheostat.tasks.fleet.city_list import CITIES

    register()
    task = NAMES.get(task, task)
    prefixes: tuple[Backend, Backend] = ("envpool", "gymnasium")
    for prefix in prefixes:
        if task.startswith(prefix + ":"):
            backend, task = prefix, task.removeprefix(prefix + ":")
    distractors, _ = take_distractors(options)
    if distractors is not None and backend == "envpool":
        raise RheostatError(f"Distractors stand behind observations of Gymnasium's tasks, and {task} was asked of EnvPool: leave one out.")
    # Rheostat's own environments and 'module:id' names are Gymnasium's; do not load EnvPool for them.
    others = backend == "gymnasium" or distractors is not None or (backend == "auto" and (task.startswith("rheostat/") or ":" in task))
    pools = set() if others else set(_envpool_ids())
    if task in pools:
        return EnvPoolEnvs(task, num_envs, seed, threads, options), task
    if backend == "envpool":
        raise unknown("EnvPool task", task, pools)
    if task not in gymnasium.registry and task in plugins.added("tasks"):
        made = plugins.load("tasks", task)
        return find(made, num_envs=num_envs, seed=seed, backend=backend, threads=threads, options=options)[0], task
    if task in CITIES:
        raise RheostatError(f"{task} is a task of fleets: train it with ospo.")
    if task not in gymnasium.registry and ":" not in task:
        if backend == "gymnasium":
            raise unknown("Gymnasium task", task, gymnasium.registry)
        raise unknown("control task", task, {*gymnasium.registry, *_envpool_ids()})
    with working_directory_on_path(":" in task):
        return _copies_of(task, num_envs, seed, options), task


def _copies_of(task: str, num_envs: int, seed: int, options: dict[str, Any]) -> GymnasiumEnvs:
    """Copies of a task that Gymnasium knows, or a module registers; with distractors where they are asked for."""
    import gymnasium

    from rheostat.tasks.control.copies import whose

    module, colon, name = task.partition(":")
    named = name and not module.endswith(".py") and all(part.replace("-", "_").isidentifier() for part in module.split("."))
    if colon and not named:
        raise RheostatError(
            f"{task!r} is not of the form MODULE:ID, the name of a module that registers an environment (not its file) and the "
            "environment's id, for example my_worlds:Line-v0."
        )
    if colon and importlib.util.find_spec(module.partition(".")[0]) is None:
        raise RheostatError(
            f"There is no module {module!r}, neither installed nor in the working directory: start rheostat where {module}.py is, or name "
            "its folder in PYTHONPATH."
        )
    distractors, options = take_distractors(options)
    if distractors is not None and "vector_kwargs" in options:
        raise RheostatError("Distractors stand in single environments, and vector_kwargs makes Gymnasium's own vector: leave one out.")
    try:
        if "vector_kwargs" in options:  # Gymnasium's own vector, for another autoreset mode
            return GymnasiumEnvs(gymnasium.make_vec(task, num_envs=num_envs, vectorization_mode="sync", **options), task, seed)
        if task in gymnasium.registry and gymnasium.spec(task).entry_point is None:  # there are several of it at once, or none
            if distractors is not None:
                raise RheostatError(f"Distractors stand in single environments, and those of {task} are stepped as one: leave them out.")
            vector = gymnasium.make_vec(task, num_envs=num_envs, vectorization_mode="vector_entry_point", **options)
            return GymnasiumEnvs(vector, task, seed)
        make = wrapped(lambda: gymnasium.make(task, disable_env_checker=True, **options), distractors)
        return _sync([make] * num_envs, name_with(task, distractors), seed)
    except gymnasium.error.DependencyNotInstalled as error:
        if "box2d" in str(error).lower():
            raise MissingExtra("box2d", "box2d", f"The Gymnasium task {task}") from error
        raise RheostatError(f"The Gymnasium task {task} needs a package that is not installed: {error}") from error
    except ImportError as error:
        hint = f": pip install {error.name}" if error.name else ""
        raise RheostatError(f"The Gymnasium task {task} needs a package that is not installed ({error}){hint}.") from error
    except (gymnasium.error.Error, TypeError) as error:
        if whose(error) and not isinstance(error, gymnasium.error.Error) and not _refuses_options(error):
            raise
        raise RheostatError(f"Gymnasium could not make {task} with options {options}: {error}") from error


def _refuses_options(error: BaseException) -> bool:
    """Whether a TypeError comes from a call with arguments a constructor does not have."""
    return "unexpected keyword argument" in str(error)


@contextmanager
def working_directory_on_path(wanted: bool) -> Iterator[None]:
    """Modules of the working directory can be imported, as with ``python -m``: a console script does not look there."""
    here = os.getcwd()
    if not wanted or here in sys.path or "" in sys.path:
        yield
        return
    sys.path.append(here)  # last, so that it hides no installed module
    try:
        yield
    finally:
        sys.path.remove(here)


def _envpool_ids() -> list[str]:
    import envpool

    return envpool.list_all_envs()


def _sync(makers: list[Callable[[], Env]], name: str, seed: int, *, owned: bool = True) -> GymnasiumEnvs:
    from rheostat.tasks.control.copies import Copies

    return GymnasiumEnvs(Copies(makers, name, owned=owned), name, seed)


def _name_of(environment: Any) -> str:
    spec = environment.spec
    return spec.id if spec is not None else type(environment.unwrapped).__name__


def _refuse(options: dict[str, Any], what: str) -> None:
    if options:
        raise RheostatError(f"The options {', '.join(options)} cannot be given to {what}.")
