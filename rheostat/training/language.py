"""Building the world of a language run: task, model, engine and graders, from settings."""

from __future__ import annotations

from typing import Any

import torch

from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.groups import World
from rheostat.credit.verifiers import Verifier, load_rewards
from rheostat.errors import MissingExtra, RheostatError
from rheostat.learner.language import composition_of
from rheostat.learner.learner import Composition
from rheostat.methods import table
from rheostat.policies.language.model import LanguagePolicy
from rheostat.streams import derive_seed
from rheostat.tasks.language.base_models import base_model_path, build_base_model
from rheostat.tasks.language.demonstrations import Demonstrations, read_demonstrations
from rheostat.tasks.language.encoding import PromptEncoder
from rheostat.tasks.language.files import load_prompts
from rheostat.tasks.language.interface import LanguageTask
from rheostat.tasks.language.recipes import BASE_RECIPES
from rheostat.tasks.language.task_list import language_task
from rheostat.training.settings import Settings

ROOM = 2048  # tokens a prompt may have when neither task nor model sets a limit


def build_world(settings: Settings, config: Any, task: Any = None, policy: Any = None) -> World:
    """Everything the method acts in.

    Args:
        settings: of the run.
        config: of the method.
        task: a :class:`LanguageTask` instead of the named one.
        policy: a :class:`LanguagePolicy`, or a pair of a Hugging Face model and its tokenizer, instead of the named model.

    Raises:
        RheostatError: an unknown task, model, reward or device, or parts that do not fit each other.
    """
    composition = composition_of(config, settings.method)
    value_head = composition.any("needs_value_head")
    found = task if isinstance(task, LanguageTask) else named_task(settings)
    found.sandbox, found.reward_needs = settings.sandbox, tuple(settings.reward_needs)
    if config.evaluation.every or settings.evaluation_episodes:
        found.validation(1)  # refuse now, not at the first measurement, where there is nothing to validate on
    walls: dict[str, Any] = {"sandbox": settings.sandbox, "needs": settings.reward_needs}
    if settings.reward_needs and not settings.rewards and not isinstance(task, LanguageTask):
        raise RheostatError("reward_needs says what reward functions of your own need, and there are none: name them with --reward.")
    verifier: Verifier = load_rewards(list(settings.rewards), **walls) if settings.rewards else found.verifier()
    if isinstance(policy, tuple):
        learner = LanguagePolicy(*policy, device=settings.device, value_head=value_head)
    elif policy is None or isinstance(policy, LanguagePolicy):
        learner = policy or load_policy(settings, found, value_head)
    else:
        raise RheostatError(f"policy is a {type(policy).__name__}: give a LanguagePolicy, or a pair (model, tokenizer).")
    limits = found.limits
    new_tokens = config.sampling.max_new_tokens or limits.max_new_tokens
    room = (learner.longest or limits.max_prompt_tokens + new_tokens) - new_tokens
    if room < 1:
        raise RheostatError(
            f"The model has {learner.longest} positions, which leaves no room for a prompt before {new_tokens} new tokens: "
            "lower max_new_tokens."
        )
    encoder = PromptEncoder(learner.tokenizer, min(limits.max_prompt_tokens or ROOM, room))
    experts = load_experts(settings, composition, found, learner, verifier, new_tokens)
    return World(found, learner, EmbeddedEngine(learner), verifier, encoder, new_tokens, limits.stop, experts)


def load_experts(
    settings: Settings, composition: Composition, task: LanguageTask, learner: LanguagePolicy, verifier: Verifier, new_tokens: int
) -> Demonstrations | None:
    """The run's expert rows, filtered as the settings say; None where it has no file of them.

    Raises:
        RheostatError: a file for a method that uses no experts, or what :mod:`rheostat.tasks.language.demonstrations` refuses.
    """
    if settings.experts is None:
        return None
    if not composition.any("uses_experts") and settings.expert_missing != "skip":  # skip restricts what is drawn
        names = ", ".join(name for name, row in table.METHODS.items() if row.domain == "language" and uses_experts(name))
        raise RheostatError(
            f"{settings.method} uses no experts, but {settings.experts} was given: set --dial.expert-share, or choose one of {names}."
        )
    rows = read_demonstrations(settings.experts, missing=settings.expert_missing).within(task)
    rows = rows.at_most(new_tokens, learner.tokenizer, settings.expert_long)
    if settings.expert_least_reward is not None:
        rows = rows.worth(settings.expert_least_reward, verifier)
    return rows


def uses_experts(method: str) -> bool:
    """Whether a language method learns from expert rows with its default options."""
    return composition_of(table.entry(method).load()(), method).any("uses_experts")


def named_task(settings: Settings) -> LanguageTask:
    """The task by name, or the user's own prompts."""
    if settings.prompts is not None:
        return load_prompts(settings.prompts, **settings.environment_options)
    return language_task(settings.task, **settings.environment_options)


def automatic_preset(method: str, task: str | None, model: str | None) -> str | None:
    """``tiny`` where a method runs on one of the tiny base models: the papers' learning rates are for models ten thousand times larger.

    Args:
        method: its name.
        task: the named task; None for the user's own prompts or task object.
        model: as in :class:`Settings`.
    """
    tiny = model in BASE_RECIPES or (model is None and task is not None)
    return "tiny" if tiny and "tiny" in getattr(table.entry(method).load(), "presets", {}) else None


def model_path(settings: Settings, task: LanguageTask) -> str:
    """The folder of the run's model; a recipe's base is built on first use and cached.

    Raises:
        RheostatError: no model was named and the task has no tiny base of its own.
    """
    name = settings.model or task.base
    if name is None:
        raise RheostatError(f"The task {task.name!r} has no base model of its own: name one with --model (a Hugging Face folder).")
    if name not in BASE_RECIPES:
        return name
    built = base_model_path(name).is_dir()
    return str(build_base_model(name, progress=not built))  # a bar while it is built, silence where the cache has it


def load_policy(settings: Settings, task: LanguageTask, value_head: bool) -> LanguagePolicy:
    """The language policy that the settings describe."""
    options: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype, "value_head": value_head}
    if settings.adapter_rank:
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise MissingExtra("peft", "peft", "Training adapters") from error
        options["adapters"] = LoraConfig(r=settings.adapter_rank, lora_alpha=2 * settings.adapter_rank, target_modules="all-linear")
    path = model_path(settings, task)
    with torch.random.fork_rng(devices=[]):  # peft draws the adapters from the global generator, which stays as it was
        torch.manual_seed(derive_seed(settings.seed, "adapters"))
        return LanguagePolicy.load(path, **options)
