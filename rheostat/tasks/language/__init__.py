"""Language tasks: prompts that can be rewound, validation that never overlaps, verifiers; tiny tasks and their base models.

>>> task = language_task("chain-sum", max_terms=8)
>>> prompts = task.prompts("train", seed=0).take(16)
"""

from rheostat.tasks.language.chain_sum import ChainSum, final_answer, strategy
from rheostat.tasks.language.characters import character_tokenizer
from rheostat.tasks.language.encoding import PromptEncoder, encode_prompt
from rheostat.tasks.language.guess_number import GuessNumber
from rheostat.tasks.language.gymnasium_text import GymnasiumText
from rheostat.tasks.language.openenv_text import OpenEnvText
from rheostat.tasks.language.prompt_files import FilePrompts, load_prompts
from rheostat.tasks.language.reasoning import ReasoningGym
from rheostat.tasks.language.recipes import BASE_RECIPES, BaseRecipe, Lesson, ModelSize, base_recipe
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, PromptStream
from rheostat.tasks.language.task_list import LANGUAGE_TASKS, is_language_task, knobs_of, language_task
from rheostat.tasks.language.text_episodes import OneTurn, Partners, Reply, Said, Step, TextEpisodes
from rheostat.tasks.language.tool_environments import ToolEnvironment
from rheostat.tasks.language.verifiers_tasks import VerifiersTasks

__all__ = [
    "BASE_RECIPES",
    "LANGUAGE_TASKS",
    "BaseRecipe",
    "ChainSum",
    "FilePrompts",
    "GuessNumber",
    "GymnasiumText",
    "LanguageTask",
    "Lesson",
    "Limits",
    "ModelSize",
    "OneTurn",
    "OpenEnvText",
    "Partners",
    "Prompt",
    "PromptEncoder",
    "PromptStream",
    "ReasoningGym",
    "Reply",
    "Said",
    "Step",
    "TextEpisodes",
    "ToolEnvironment",
    "VerifiersTasks",
    "base_recipe",
    "character_tokenizer",
    "encode_prompt",
    "final_answer",
    "is_language_task",
    "knobs_of",
    "language_task",
    "load_prompts",
    "strategy",
]
