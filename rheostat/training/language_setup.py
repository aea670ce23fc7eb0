"""Building the parts that a language run trains with: task, model, engine and graders, from settings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from rheostat.collect.language.generation.continuous import ContinuousEngine
from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.generation.engine import Engine
from rheostat.collect.language.generation.trial import try_generation
from rheostat.collect.language.learned_reward import PREFIX, LearnedReward
from rheostat.collect.language.pair_judge import PairJudge
from rheostat.collect.language.prompt_groups import LanguageSetup
from rheostat.credit.verifiers import Verifier, load_rewards
from rheostat.credit.verifiers.reward_checks import check_columns, check_references
from rheostat.credit.verifiers.timing import timed
from rheostat.credit.verifiers.verifier_interface import Ungraded
from rheostat.errors import MissingExtra, RheostatError
from rheostat.learner.language import composition_of
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen
from rheostat.methods import table
from rheostat.policies.language.model import LanguagePolicy
from rheostat.policies.language.model_loading import adapter_config, base_of_adapters
from rheostat.streams import derive_seed
from rheostat.tasks.language.base_models import base_model_path, base_models, build_base_model
from rheostat.tasks.language.demonstrations import Demonstrations, read_demonstrations
from rheostat.tasks.language.encoding import PromptEncoder, Turn, encode_prompt
from rheostat.tasks.language.games.teaching import GAME_RECIPES
from rheostat.tasks.language.packaged_models import PACKAGED_MODELS
from rheostat.tasks.language.preference_rows import PreferencePrompts, load_preferences
from rheostat.tasks.language.prompt_files import FilePrompts, load_prompts
from rheostat.tasks.language.recipes import BASE_RECIPES
from rheostat.tasks.language.regraded import Regraded
from rheostat.tasks.language.task_interface import LanguageTask, Limits
from rheostat.tasks.language.task_list import TASKS, language_task
from rheostat.training.settings import CUSTOM, Settings

ENGINES: dict[str, Callable[[LanguagePolicy], Engine]] = {"embedded": EmbeddedEngine, "continuous": ContinuousEngine}
ROOM = 2048  # tokens a prompt may have when neither task nor model sets a limit


def build_setup(settings: Settings, config: Any, task: Any = None, policy: Any = None) -> LanguageSetup:
    """The context of the method: task, model, engine and graders.

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
    lesson = next((part.lesson for part in composition.parts().values() if hasattr(part, "lesson")), None)
    found = task if isinstance(task, LanguageTask) else named_task(settings, lesson)
    check_lesson(found, lesson, settings.method)
    if settings.preferences is not None and not settings.rewards and not (composition.any("annotated") or composition.any("unrewarded")):
        raise RheostatError(
            f"{settings.method} learns from answers of its own here, which the file cannot grade: name a reward (--reward), or learn from "
            "the answers of the file where the method can (--data file)."
        )
    found.wall_off(settings.sandbox, tuple(settings.reward_needs))
    if found.episodes() is not None:
        check_turns(settings, composition, found)
    measured = bool(config.evaluation.every or settings.evaluation_episodes)
    if measured:
        found.validation(1)  # refuse now, not at the first evaluation, a task without validation prompts
    if settings.reward_needs and not settings.rewards and not isinstance(task, LanguageTask):
        raise RheostatError("reward_needs says what reward functions of your own need, and there are none: name them with --reward.")
    verifier = graders_of(settings, found)
    if composition.any("unrewarded") and not gradable(settings, composition, found):
        verifier = Ungraded()
    if isinstance(policy, tuple):
        own: dict[str, Any] = {"device": settings.device, "value_head": value_head, "recompute": settings.recompute}
        own["adapter_dropout"] = settings.adapter_dropout
        learner = LanguagePolicy(*policy, **own, adapters=new_adapters(settings))
    elif policy is None or isinstance(policy, LanguagePolicy):
        if policy is not None and settings.adapter_dropout:
            raise RheostatError("adapter_dropout is about a model that is loaded here: give it to the LanguagePolicy that is handed over.")
        learner = policy or load_policy(settings, found, value_head)
    else:
        raise RheostatError(f"policy is a {type(policy).__name__}: give a LanguagePolicy, or a pair (model, tokenizer).")
    if settings.export == "adapters" and not learner.adapted:
        raise RheostatError("There are no adapters to export alone: set adapter_rank, or export merged.")
    limits = found.limits
    new_tokens = config.sampling.max_new_tokens or limits.max_new_tokens
    room = (learner.longest or limits.max_prompt_tokens + new_tokens) - new_tokens
    if room < 1:
        raise RheostatError(
            f"The model has {learner.longest} positions, which leaves no room for a prompt before {new_tokens} new tokens: "
            "lower max_new_tokens."
        )
    if settings.engine == "embedded":
        try_generation(learner)
    add_ends(learner, limits)
    longest = min(limits.max_prompt_tokens or ROOM, room)
    encoder = PromptEncoder(learner.tokenizer, longest, settings.long, dict(limits.template_options))
    if isinstance(found, FilePrompts):
        check_prompts(found, encoder)
        if isinstance(found, PreferencePrompts):
            check_answers(found, learner.tokenizer, new_tokens)
        silent = composition.measure is not None and not gradable(settings, composition, found)
        if not silent and (measured or not composition.any("ungraded")):  # else nothing is ever graded
            rows = [(where, prompt.rollout("")) for where, prompt in found.named]
            check_columns(settings.rewards or found.rewards, rows)
            check_references(verifier, rows)
    experts = load_experts(settings, composition, found, learner, verifier, new_tokens)
    return LanguageSetup(
        found,
        learner,
        ENGINES[settings.engine](learner),
        timed(verifier),
        encoder,
        new_tokens,
        limits.stop,
        experts,
        special_text=settings.reward_text == "special",
        gradable=gradable(settings, composition, found),
        judge=load_judge(settings, composition),
        reference=load_reference(settings, composition, learner),
    )


def gradable(settings: Settings, composition: Composition, task: LanguageTask) -> bool:
    """Whether completions can be graded: a file of annotated answers needs a reward for that, and so do prompts without answers of a method
    that needs none."""
    if settings.rewards or not isinstance(task, FilePrompts) or task.rewards != ["exact"]:
        return True
    if composition.any("annotated"):
        return False
    return not (composition.any("unrewarded") and all(prompt.answer is None for _, prompt in task.named))


def load_judge(settings: Settings, composition: Composition) -> PairJudge | None:
    """The judge of pairs that the settings name.

    Raises:
        RheostatError: a method that compares no pairs, or what :func:`~rheostat.credit.verifiers.load_rewards` refuses.
    """
    if settings.judge is None:
        return None
    if composition.measure is None:
        raise RheostatError(f"{settings.method} compares no two answers: leave --judge out, or choose a method of preferences.")
    return PairJudge(load_rewards([settings.judge], timeout=settings.reward_timeout, sandbox=settings.sandbox, needs=settings.reward_needs))


def load_reference(settings: Settings, composition: Composition, learner: LanguagePolicy) -> LanguagePolicy | None:
    """The model that log-ratios are measured to, where the settings name one.

    Raises:
        RheostatError: a method without a reference model, no such folder, or a model with other tokens.
    """
    if settings.reference is None:
        return None
    if not isinstance(composition.models.get("reference"), Frozen):
        raise RheostatError(f"{settings.method} measures nothing to a reference model with these options: leave --reference out.")
    found = LanguagePolicy.load(settings.reference, device=settings.device, dtype=settings.dtype)
    if found.vocabulary != learner.vocabulary or found.tokenizer.get_vocab() != learner.tokenizer.get_vocab():
        raise RheostatError(
            f"The reference model {settings.reference} has other tokens than the model that is trained ({found.vocabulary} and "
            f"{learner.vocabulary} ids), so log-ratios to it mean nothing: use one with the same tokenizer."
        )
    return found.requires_grad_(False)


def check_turns(settings: Settings, composition: Composition, task: LanguageTask) -> None:
    """Refuse options of single completions for a task of several turns.

    Raises:
        RheostatError: rewards of the user's, experts, or a part whose rows are single completions.
    """
    for part in composition.parts().values():
        if hasattr(part, "single_turn"):
            raise RheostatError(f"{task.name} has several turns, but {part.single_turn}: choose a method that samples groups.")
    if settings.rewards:
        raise RheostatError(f"{task.name} has several turns, which its environment grades: leave out --reward.")
    if settings.experts is not None or composition.any("uses_experts"):
        raise RheostatError(f"{task.name} has several turns, and an expert's completion is a single one: choose a method without experts.")


def graders_of(settings: Settings, task: LanguageTask) -> Verifier:
    """The run's rewards as one verifier: those named in the settings, else the task's own.

    Raises:
        RheostatError: weights or a time limit without rewards, or what :func:`~rheostat.credit.verifiers.load_rewards` refuses.
    """
    options: dict[str, Any] = {"timeout": settings.reward_timeout, "single": settings.reward_calls == "single"}
    if settings.rewards:
        walls = {"sandbox": settings.sandbox, "needs": settings.reward_needs}
        rewards = [LearnedReward(each, settings.device) if each.startswith(PREFIX) else each for each in settings.rewards]
        return load_rewards(rewards, list(settings.reward_weights) or None, **options, **walls)
    if isinstance(task, FilePrompts | Regraded):
        return task.verifier(list(settings.reward_weights) or None, **{name: value for name, value in options.items() if value})
    given = {"reward_weights": settings.reward_weights, "reward_timeout": settings.reward_timeout, "reward_calls": options["single"]}
    for name, value in given.items():
        if value:
            raise RheostatError(f"{name} is about the rewards of --reward, but none was given and {task.name} grades in its own way.")
    return task.verifier()


def add_ends(policy: LanguagePolicy, limits: Limits) -> None:
    """Let completions end where the chat template ends a turn and at the task's own stop ids, in addition to the model's end tokens.

    Raises:
        RheostatError: a stop id that the model does not have, or an option that its chat template does not read.
    """
    outside = [token for token in limits.stop_ids if token >= policy.vocabulary]
    if outside:
        raise RheostatError(f"The stop ids {outside} are outside the model's vocabulary of {policy.vocabulary}.")
    template = str(getattr(policy.tokenizer, "chat_template", None) or "")
    ignored = [name for name in limits.template_options if name not in template]
    if ignored:
        raise RheostatError(
            f"The model's chat template does not read {', '.join(ignored)}"
            + (": look for the option's name in its chat_template." if template else ", because it has no chat template.")
        )
    turn = [Turn(policy.tokenizer, dict(limits.template_options)).end] if template else []
    policy.stop_ids = tuple(sorted({*policy.stop_ids, *limits.stop_ids, *turn}))


def check_prompts(task: FilePrompts, encoder: PromptEncoder) -> None:
    """Encode every row before training: rows that cannot be encoded are refused now, and not when they are drawn.

    With ``long drop`` the rows that are too long are left out on both sides.

    Raises:
        RheostatError: naming the first row that is too long or cannot be encoded, or no row is left.
    """
    unwanted = set()
    for number, (where, prompt) in enumerate(task.named):
        try:
            length = len(encode_prompt(prompt, encoder.tokenizer, encoder.template_options))
        except RheostatError as error:
            raise RheostatError(f"{where} cannot be used. {error}") from error
        if length <= encoder.max_tokens:
            continue
        if encoder.on_long == "error":
            raise RheostatError(
                f"{where} is a prompt of {length} tokens, more than the limit of {encoder.max_tokens}: raise the prompt limit, or leave "
                "such prompts out (--long drop)."
            )
        unwanted.add(number)
    if unwanted:
        total = len(task.named)
        task.drop(unwanted)
        print(f"{len(unwanted)} of {total} prompts of {task.name} are longer than {encoder.max_tokens} tokens: dropped.", file=sys.stderr)


def load_experts(
    settings: Settings, composition: Composition, task: LanguageTask, learner: LanguagePolicy, verifier: Verifier, new_tokens: int
) -> Demonstrations | None:
    """The run's expert rows, filtered by the settings; None where it has no file of them.

    Raises:
        RheostatError: a file for a method that uses no experts, or what :mod:`rheostat.tasks.language.demonstrations` refuses.
    """
    if settings.experts is None:
        return None
    if not composition.any("uses_experts") and settings.expert_missing != "skip":  # skip restricts the prompts that are drawn
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


def check_lesson(task: LanguageTask, lesson: str | None, method: str) -> None:
    """Refuse preferences for a method that does not learn from them, or that were read for another one.

    Raises:
        RheostatError: naming what the method learns from.
    """
    if not isinstance(task, PreferencePrompts) or lesson == task.lesson:
        return
    wanted = "does not learn from preferences: give its prompts with --prompts" if lesson is None else f"learns from {lesson}"
    raise RheostatError(f"{method} {wanted}; {task.name} was read as {task.lesson}.")


def check_answers(task: PreferencePrompts, tokenizer: Any, new_tokens: int) -> None:
    """Refuse or leave out rows with an answer that is too long, and say what was counted in the file.

    Raises:
        RheostatError: an answer that is longer than a completion may be, or that the tokenizer cannot encode.
    """
    task.at_most(new_tokens, lambda texts: [len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]])
    for sentence in task.sentences():
        print(sentence, file=sys.stderr)


def named_task(settings: Settings, lesson: Any = None) -> LanguageTask:
    """The task by name, the user's own prompts, or preference data as what a method learns from.

    Raises:
        RheostatError: preferences for a method that does not learn from them, or what is wrong with a file.
    """
    if settings.unusable != "error" and settings.preferences is None:
        raise RheostatError("unusable is about rows of preferences, and there are none: give a file with --preferences.")
    if settings.preferences is not None:
        if lesson is None:
            raise RheostatError(f"{settings.method} does not learn from preferences: leave --preferences out, and give prompts.")
        return load_preferences(settings.preferences, lesson, unusable=settings.unusable, **settings.environment_options)
    if settings.prompts is not None:
        graders = [name for name in settings.environment_options if name.startswith("reward")]
        if settings.rewards and graders:
            raise RheostatError(
                f"{graders[0]} among the options of the prompts has no effect beside --reward: use --reward-weights, --reward-timeout or "
                "--reward-calls."
            )
        return load_prompts(settings.prompts, **settings.environment_options)
    return language_task(settings.task, **settings.environment_options)


def automatic_preset(method: str, task: str | None, model: str | None) -> str | None:
    """``tiny`` where a method runs on one of the tiny base models: the papers' learning rates are for models ten thousand times larger.

    Args:
        method: its name.
        task: the named task; None for the user's own prompts or task object.
        model: as in :class:`Settings`.
    """
    real = task in TASKS and TASKS[task]().base in PACKAGED_MODELS
    tiny = model in (BASE_RECIPES | GAME_RECIPES) or (model is None and task is not None and not real)
    return "tiny" if tiny and "tiny" in getattr(table.entry(method).load(), "presets", {}) else None


def model_path(settings: Settings, task: LanguageTask) -> str:
    """The folder of the run's model; a recipe's base is built on first use and cached.

    Raises:
        RheostatError: no model was named and the task has no tiny base of its own.
    """
    name = settings.model or task.base
    if name is not None and name.startswith(CUSTOM):
        raise RheostatError(f"The run's model is an object ({name.removeprefix(CUSTOM)}): hand it over, with model=... and tokenizer=...")
    if name is None:
        raise RheostatError(f"The task {task.name!r} has no base model of its own: name one with --model (a Hugging Face folder).")
    if name not in base_models():
        return name
    built = base_model_path(name).is_dir()
    return str(build_base_model(name, progress=not built))  # a progress bar while it is built; none where the cache has it


def new_adapters(settings: Settings) -> Any:
    """The configuration of the adapters that the settings ask for; None where they ask for none.

    Raises:
        RheostatError: a scale or targets of adapters without a rank; MissingExtra without peft.
    """
    for name in ("adapter_alpha", "adapter_targets"):
        if getattr(settings, name) and not settings.adapter_rank:
            raise RheostatError(f"{name} is about new adapters, and there are none: set adapter_rank.")
    if not settings.adapter_rank:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtra("peft", "peft", "Training adapters") from error
    alpha = 2 * settings.adapter_rank if settings.adapter_alpha is None else settings.adapter_alpha
    targets: Any = list(settings.adapter_targets) or "all-linear"
    return LoraConfig(r=settings.adapter_rank, lora_alpha=alpha, target_modules=targets, lora_dropout=settings.adapter_dropout)  # type: ignore[arg-type]


def check_saved_adapters(settings: Settings, path: str) -> None:
    """Refuse settings of new adapters that contradict the adapters in the model's folder, which the run trains further.

    Raises:
        RheostatError: another rank, scale or targets.
    """
    saved = adapter_config(path) or {}
    targets = saved.get("target_modules")
    for name, given, found in (
        ("adapter_rank", settings.adapter_rank, saved.get("r")),
        ("adapter_alpha", settings.adapter_alpha, saved.get("lora_alpha")),
        ("adapter_targets", sorted(settings.adapter_targets), sorted(targets) if isinstance(targets, list) else [targets]),
    ):
        if given and given != found:
            raise RheostatError(
                f"{name} is {given}, but the adapters in {path}, which the run goes on with, have {found}: leave the option out, or merge "
                "the adapters into their base model and name that."
            )


def load_policy(settings: Settings, task: LanguageTask, value_head: bool) -> LanguagePolicy:
    """The language policy that the settings describe."""
    options: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype, "value_head": value_head}
    options |= {"recompute": settings.recompute, "adapter_dropout": settings.adapter_dropout}
    path = model_path(settings, task)
    if base_of_adapters(path) is None:
        options["adapters"] = new_adapters(settings)
    else:
        check_saved_adapters(settings, path)
    with torch.random.fork_rng(devices=[]):  # peft draws the adapters from the global generator, which stays as it was
        torch.manual_seed(derive_seed(settings.seed, "adapters"))
        return LanguagePolicy.load(path, **options)
