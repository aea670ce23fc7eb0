"""Python objects in place of names: reward functions, rows of prompts, a model and its tokenizer, data sets.

A run stores names only. An object has to be passed again to open the run, and is recorded as such. Data sets are
the exception: the run keeps a copy in its directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.training.settings import CUSTOM

if TYPE_CHECKING:
    from rheostat.buffers.offline import OfflineData

NAMES = ("prompts", "rewards", "model", "tokenizer", "teacher")


@dataclass
class HandedOver:
    """The objects of a run; None where there is a name instead."""

    task: Any
    policy: Any
    options: dict[str, Any]
    """The settings that are left, names instead of objects."""
    data: OfflineData | None = None


def handed_over(method: str, task: Any, policy: Any, options: dict[str, Any]) -> HandedOver:
    """Turn the objects among a run's settings into a task and a policy.

    Args:
        method: its name.
        task: a name, an object, or None.
        policy: an object or None.
        options: settings of the run, in which ``rewards`` may hold functions, ``prompts`` be rows, ``model`` a model (with ``tokenizer``),
            and ``offline`` data.

    Raises:
        RheostatError: objects where the method takes none, two objects in the same role, or a model without a tokenizer.
    """
    options = dict(options)
    if table.entry(method).domain == "compression":
        return HandedOver(_images_of(task, options), _teacher_of(method, policy, options), options)
    if table.entry(method).domain != "language":
        given = [name for name in NAMES if options.get(name) is not None and not isinstance(options[name], str)]
        if given:
            raise RheostatError(f"{given[0]} is about language models, and {method} trains control policies: leave it out.")
        return HandedOver(task, policy, options, _data_of(options))
    for name in ("model", "prompts", "preferences", "reference", "experts"):
        if isinstance(options.get(name), Path):
            options[name] = str(options[name])
    if options.get("experts") is not None and not isinstance(options["experts"], str):
        raise RheostatError(
            f"experts is a {type(options['experts']).__name__}: name a file of expert rows, or give the prompts' own rows a completion."
        )
    task = _task_of(task, options)
    policy = _policy_of(policy, options)
    return HandedOver(task, policy, options)


def _images_of(task: Any, options: dict[str, Any]) -> Any:
    """The set of images, which may be given as ``data`` as well; ``controller`` is the run whose controllers this one begins with."""
    data, controller = options.pop("data", None), options.pop("controller", None)
    if data is not None and task not in (None, "", data):
        raise RheostatError(f"data is the set of images, and so is the task {task}: leave one out.")
    if controller is not None and options.get("from_run") is not None:
        raise RheostatError("controller and from_run both name the run whose controllers this one begins with: leave one out.")
    options |= {} if controller is None else {"from_run": controller}
    found = task if data is None else data
    if found is not None and not isinstance(found, str | Path):
        raise RheostatError(f"The set of images is a {type(found).__name__}: name shapes, digits or a file of NumPy arrays (.npz).")
    found = found and str(found)
    return str(Path(found).resolve()) if found and found.endswith(".npz") and Path(found).exists() else found


def _teacher_of(method: str, policy: Any, options: dict[str, Any]) -> Any:
    """The network to compress, where it is an object."""
    if policy is not None:
        raise RheostatError(f"{method} makes its own controllers: hand over the network to compress as teacher=..., and no policy.")
    teacher = options.get("teacher")
    if teacher is None or isinstance(teacher, str | Path):
        options |= {} if teacher is None else {"teacher": str(teacher)}
        return None
    options["teacher"] = CUSTOM + type(teacher).__name__
    return teacher


def _data_of(options: dict[str, Any]) -> OfflineData | None:
    if options.get("offline") is None:
        return None
    from rheostat.buffers.repairs import Repairs
    from rheostat.collect.control.offline_objects import handed_data

    found = handed_data(options["offline"], Repairs.of(options.get("repair") or {}))
    if isinstance(found, str):
        options["offline"] = found
        return None
    options["offline"] = CUSTOM + type(options["offline"]).__name__
    return found


def _task_of(task: Any, options: dict[str, Any]) -> Any:
    rewards = options.get("rewards")
    if rewards is not None:
        several = isinstance(rewards, (list, tuple))
        options["rewards"] = tuple(rewards) if several else (rewards,)
    functions = [reward for reward in options.get("rewards") or () if not isinstance(reward, (str, Path))]
    prompts = options.get("prompts")
    if not functions and (prompts is None or isinstance(prompts, str)):
        return task
    from rheostat.tasks.language.prompt_files import FilePrompts, load_prompts
    from rheostat.tasks.language.regraded import Regraded
    from rheostat.tasks.language.task_interface import LanguageTask
    from rheostat.tasks.language.task_list import language_task

    knobs = options.get("environment_options") or {}
    own = options.pop("rewards", ()) if functions else ()
    if prompts is not None:
        if task is not None:
            raise RheostatError("prompts are a task of their own: leave the task out, or the prompts.")
        found: LanguageTask = load_prompts(prompts, **knobs)
        if not isinstance(prompts, str):
            del options["prompts"]
    elif isinstance(task, LanguageTask):
        found = task
    elif isinstance(task, str):
        found = language_task(task, **knobs)
    else:
        return task  # the task's name is given where the task is missing
    if isinstance(found, FilePrompts):
        found.rewards = list(own) or found.rewards
        return found
    return Regraded(found, own) if own else found


def _policy_of(policy: Any, options: dict[str, Any]) -> Any:
    model, tokenizer = options.get("model"), options.pop("tokenizer", None)
    if model is None or isinstance(model, str):
        if tokenizer is not None:
            raise RheostatError("tokenizer goes with a model that is an object; a folder brings its own.")
        return policy
    if policy is not None:
        raise RheostatError("model and policy are both objects: hand over one of them.")
    if not hasattr(model, "parameters"):
        raise RheostatError(f"model is a {type(model).__name__}: give a folder, a hub name, or a Hugging Face causal language model.")
    if tokenizer is None or isinstance(tokenizer, (str, Path)):
        from rheostat.policies.language.model_loading import load_tokenizer

        place = tokenizer or getattr(getattr(model, "config", None), "_name_or_path", "")
        if not place:
            raise RheostatError(
                "The model is an object that does not say where it was loaded from: hand over its tokenizer too (tokenizer=...)."
            )
        tokenizer = load_tokenizer(place)
    options["model"] = CUSTOM + type(model).__name__
    return model, tokenizer
