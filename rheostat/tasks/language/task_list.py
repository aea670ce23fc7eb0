"""Language tasks by name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

from rheostat import plugins
from rheostat.errors import unknown
from rheostat.tasks.language.chain_sum import ChainSum
from rheostat.tasks.language.chain_sum_teachers import ChainSumTeachers
from rheostat.tasks.language.chain_sum_variants import Elicit, Interfere, Teach
from rheostat.tasks.language.games.corridor import TextCorridor
from rheostat.tasks.language.games.maze import TextMaze
from rheostat.tasks.language.games.negotiation import TextNegotiation
from rheostat.tasks.language.games.planned import PlannedNegotiation, PlannedQuestions
from rheostat.tasks.language.games.shop import TextShop
from rheostat.tasks.language.games.sokoban import TextSokoban
from rheostat.tasks.language.games.twenty_questions import TwentyQuestions
from rheostat.tasks.language.guess_number import GuessNumber
from rheostat.tasks.language.gymnasium_text import PREFIX as SPEAKING
from rheostat.tasks.language.gymnasium_text import GymnasiumText
from rheostat.tasks.language.miniwob_pages import WEB, WebPages
from rheostat.tasks.language.modular_chains import ModularChains
from rheostat.tasks.language.openenv_text import PREFIX as SERVED
from rheostat.tasks.language.openenv_text import OpenEnvText
from rheostat.tasks.language.operation_chains import OperationChains
from rheostat.tasks.language.policy_zoo import PolicyZoo
from rheostat.tasks.language.reasoning import PREFIX, ReasoningGym
from rheostat.tasks.language.stack_programs import MathAndCode, StackPrograms
from rheostat.tasks.language.task_interface import LanguageTask
from rheostat.tasks.language.text_world import NAME, TextWorld
from rheostat.tasks.language.tool_environments import PREFIX as TOOLED
from rheostat.tasks.language.tool_environments import ToolEnvironment
from rheostat.tasks.language.translations import Translations
from rheostat.tasks.language.verifiers_tasks import PREFIX as VERIFIED
from rheostat.tasks.language.verifiers_tasks import VerifiersTasks
from rheostat.tasks.language.word_sums import WordSums

LANGUAGE_TASKS: dict[str, str] = {
    "chain-sum": "sums of 3 to 6 digits modulo 10, in characters; has a tiny base model",
    "chain-sum-elicit": "the working of chains of + and of -, which its base knows and spoils by slips: reinforcement lifts it",
    "chain-sum-teach": "the working of chains whose sign only an expert can read: imitation and mixtures learn it, reinforcement does not",
    "chain-sum-interfere": "short chains answered bare beside rare long ones: learning the first forgets the second",
    "chain-sum-teachers": "the sums of chain-sum as one of four teachers writes them; the best of them is not the best to learn from",
    "modular-chains": "up to eight additions modulo 97, whose base is better when it is asked for the working or shown wrong answers",
    "stack-programs": "short programs for a stack machine that compute a formula, graded by running them",
    "math-and-code": "chain-sum and stack-programs for one model; learn=math or code trains on one side, both are measured",
    "operation-chains": "a number to be reached from another one by a few operations modulo 11; its base chooses them at random",
    "translations": "programs of a tiny language put into others, graded by running them; with groups of equivalent representations",
    "guess-number": "a number to be guessed, higher or lower, in several turns; plays with the base of chain-sum",
    "text-sokoban": "boxes to be pushed onto goals, in several turns",
    "text-maze": "the way out of a maze of which one cell is seen, in several turns",
    "text-corridor": "a key to be taken and a door to be opened, in several turns",
    "text-shop": "a good to be searched for and bought, in several turns",
    "text-negotiation": "a price to be agreed on with a seller, in several turns",
    "twenty-questions": "an animal to be found by questions, in several turns",
    "planned-questions": "twenty-questions, where every turn is a hidden plan and a message between tags",
    "planned-negotiation": "text-negotiation, where every turn is a hidden plan and a message between tags",
    "policy-zoo": "strings of a family of synthetic policies, for reward models that tell policies apart; has a tiny untrained base",
    "word-sums": "word problems in plain English, as chat prompts, for real models; its base is SmolLM2-135M",
    NAME: "text adventures in houses that TextWorld generates (extra 'textworld'), in several turns",
    f"{WEB}TASK": "a task of MiniWoB++ on web pages in a real headless Chromium (extra 'miniwob'), in several turns",
    f"{SPEAKING}ID": "an environment of Gymnasium that takes and shows text, of yours or of a package",
    f"{SERVED}URL": "an environment of OpenEnv behind a server, http or ws",
    f"{TOOLED}MODULE:CLASS": "an environment written for TRL's environment_factory, whose methods are tools",
    f"{VERIFIED}ID": "tasks of a verifiers v1 taskset (extra 'verifiers')",
    f"{PREFIX}NAME": "any data set of reasoning-gym (extra 'reasoning')",
}
TASKS: dict[str, type[Any]] = {
    "chain-sum": ChainSum,
    "chain-sum-elicit": Elicit,
    "chain-sum-teach": Teach,
    "chain-sum-interfere": Interfere,
    "chain-sum-teachers": ChainSumTeachers,
    "modular-chains": ModularChains,
    "stack-programs": StackPrograms,
    "math-and-code": MathAndCode,
    "operation-chains": OperationChains,
    "translations": Translations,
    "guess-number": GuessNumber,
    **{game.name: game for game in (TextSokoban, TextMaze, TextCorridor, TextShop, TextNegotiation, TwentyQuestions)},
    "planned-questions": PlannedQuestions,
    "planned-negotiation": PlannedNegotiation,
    "policy-zoo": PolicyZoo,
    "word-sums": WordSums,
}
"""Tasks whose fields are their knobs."""
ADAPTERS: dict[str, type[Any]] = {
    PREFIX: ReasoningGym,
    SPEAKING: GymnasiumText,
    WEB: WebPages,
    SERVED: OpenEnvText,
    TOOLED: ToolEnvironment,
    VERIFIED: VerifiersTasks,
}
"""Tasks of others, by what their names begin with; their knobs are the keyword arguments."""


def is_language_task(name: str) -> bool:
    """Whether :func:`language_task` knows the name; a task of an installed package is put into the table."""
    if name not in TASKS and name in plugins.added("tasks"):
        found = plugins.load("tasks", name)
        if isinstance(found, type) and dataclasses.is_dataclass(found):
            TASKS[name] = found
    return name in TASKS or name == NAME or adapter_of(name) is not None


def adapter_of(name: str) -> str | None:
    """What the name of another's task begins with; None where it is no such name."""
    return next((prefix for prefix in ADAPTERS if name.startswith(prefix)), None)


def language_task(name: str, **knobs: Any) -> LanguageTask:
    """A task by name, with its knobs.

    Raises:
        RheostatError: unknown name or knob, or knobs that make no task.
    """
    if is_language_task(name) and name in TASKS:
        refuse_unknown(name, knobs)
        task: LanguageTask = TASKS[name](**knobs)
        return task
    if name == NAME:
        refuse_unknown(name, knobs)
        return TextWorld(**knobs)
    if (prefix := adapter_of(name)) is not None:
        if prefix != PREFIX:  # a data set of reasoning-gym has options of its own
            refuse_unknown(name, knobs)
        adapted: LanguageTask = ADAPTERS[prefix](name.removeprefix(prefix), **knobs)
        return adapted
    raise unknown("language task", name, LANGUAGE_TASKS)


def refuse_unknown(name: str, knobs: Iterable[str]) -> None:
    """Refuse knobs that a task does not have.

    Raises:
        RheostatError: naming the knob.
    """
    known = knobs_of(name)
    for knob in knobs:
        if knob not in known:
            raise unknown(f"knob of {name}", knob, known)


def knobs_of(name: str) -> list[str]:
    """Names of a task's knobs (for adapters: those of the adapter; a data set's own options come on top).

    Raises:
        RheostatError: unknown name.
    """
    if not is_language_task(name):
        raise unknown("language task", name, LANGUAGE_TASKS)
    if name in TASKS:
        return [field.name for field in dataclasses.fields(TASKS[name]) if field.name != "name"]
    adapter: Any = TextWorld if name == NAME else ADAPTERS[adapter_of(name) or PREFIX]
    parameters = inspect.signature(adapter.__init__).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
