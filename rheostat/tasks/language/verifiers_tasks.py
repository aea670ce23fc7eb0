"""``verifiers:ID``: tasks of a verifiers v1 taskset, one completion each (extra ``verifiers``).

The interface is that of verifiers 0.4 (``verifiers.v1``): a taskset loads tasks; a task has data (``prompt``, ``system_prompt``) and
methods marked as rewards and metrics, which read a trace. Here the trace holds the prompt and one sampled answer, and the package's own
``Task.score`` scores it: the reward is the weighted sum, single rewards and metrics are parts. ``ID`` is what verifiers calls a taskset:
the module of an installed package that exports it.

Tasks that need more than a model are refused: tools, a container, or hooks and rewards that ask for a runtime belong to a harness, which
this library has none of. Rewards are code of the user's and of the taskset's; a reward that raises or hangs makes its row invalid, with
the reason.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.language.gymnasium_text import within
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Message, Prompt, Split, content_key, is_validation

PREFIX = "verifiers:"
BLOCK = 64
MOST = 100_000
"""Tasks that are loaded of a taskset without end."""


class VerifiersTasks(LanguageTask):
    """The tasks of one taskset.

    Args:
        taskset: its id, or an object of ``verifiers.v1.Taskset``.
        most: tasks that are loaded; 0 for all (of a taskset without end, 100,000).
        patience: seconds that the scoring of one answer may take.
        max_prompt_tokens, max_new_tokens: default limits.
        validation_share: share of all tasks set aside for validation.

    Raises:
        RheostatError: no such taskset, no tasks, or tasks that need a harness; MissingExtra without verifiers.
    """

    def __init__(
        self,
        taskset: Any,
        *,
        most: int = 0,
        patience: float = 30.0,
        max_prompt_tokens: int = 1024,
        max_new_tokens: int = 1024,
        validation_share: float = 0.1,
    ) -> None:
        self.library = library()
        self.name = PREFIX + (taskset if isinstance(taskset, str) else type(taskset).__name__)
        if most < 0:
            raise RheostatError(f"most is a number of tasks, or 0 for all; got {most}.")
        if not 0 <= validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {validation_share}.")
        if not 0 < patience < float("inf"):
            raise RheostatError(f"The patience with {self.name} is seconds above 0; got {patience:g}.")
        self.patience, self.validation_share, self.limits = patience, validation_share, Limits(max_prompt_tokens, max_new_tokens)
        found = loaded(taskset, self.name) if isinstance(taskset, str) else taskset
        try:
            self.tasks = list(islice(iter(found), most or (None if found.bounded else MOST)))
        except Exception as error:
            raise RheostatError(f"{self.name} cannot load its tasks: {told(error)}.") from error
        if not self.tasks:
            raise RheostatError(f"{self.name} has no tasks.")
        for task in self.tasks:
            refuse_harness(task, self.library, self.name)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The next 64 tasks, from the first again after the last, as far as they belong to the split."""
        wanted = split == "validation"
        mine = [each % len(self.tasks) for each in range(number * BLOCK, number * BLOCK + min(BLOCK, len(self.tasks)))]
        prompts = [self.prompt(each) for each in mine]
        return [prompt for prompt in prompts if is_validation(prompt.key, self.validation_share) == wanted]

    def prompt(self, index: int) -> Prompt:
        """A task as a chat; its number is a column."""
        data = self.tasks[index].data
        chat: list[Message] = [] if data.system_prompt is None else [{"role": "system", "content": data.system_prompt}]
        if isinstance(data.prompt, str):
            chat.append({"role": "user", "content": data.prompt})
        else:
            chat += [{"role": each.role, "content": each.content} for each in data.prompt]
        return Prompt(chat, None, {"index": index}, content_key(f"{self.name} {self.tasks[index].key}"))

    def verifier(self) -> VerifiersTasks:
        """The tasks' own rewards."""
        return self

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """The package's verdicts on answers."""
        return Scores.from_grades([self.grade(rollout) for rollout in rollouts])

    def grade(self, rollout: Rollout) -> Grade:
        """Of one answer."""
        task = self.tasks[rollout.columns["index"]]
        try:
            trace = within(self.patience, lambda: scored(self.library, task, rollout.completion))
        except TimeoutError:
            return Grade.failure(f"the rewards of the task took more than {self.patience:g} s")
        except Exception as error:  # the taskset's code may raise anything
            return Grade.failure(told(error))
        parts = {name: reward.score for name, reward in trace.rewards.items() if reward is not None}
        parts |= {name: value for name, value in trace.metrics.items() if value is not None}
        return Grade(float(trace.reward), parts)


def scored(library: Any, task: Any, answer: str) -> Any:
    """A trace of a prompt and an answer, with the task's rewards and metrics."""
    from verifiers.v1.configs.agent import AgentConfig
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import AgentInfo, TraceTask

    shown = task.data.prompt
    messages = [library.UserMessage(content=shown)] if isinstance(shown, str) else list(shown)
    if task.data.system_prompt is not None:
        messages = [library.SystemMessage(content=task.data.system_prompt), *messages]
    nodes = [MessageNode(parent=place - 1 if place else None, message=message) for place, message in enumerate(messages)]
    nodes.append(MessageNode(parent=len(nodes) - 1, message=library.AssistantMessage(content=answer), sampled=True))
    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    trace = library.Trace(task=about, agent=AgentInfo(config=AgentConfig()), nodes=nodes, is_completed=True, ok=True)
    asyncio.run(task.score(trace))
    return trace


def refuse_harness(task: Any, library: Any, name: str) -> None:
    """Refuse what needs more than a model's answer.

    Raises:
        RheostatError: naming the need.
    """
    kind, data = type(task), task.data
    needs = {
        "a container": kind.NEEDS_CONTAINER or data.image is not None,
        "tools": bool(kind.toolsets(task.config)),
        "a runtime for its hooks": kind.setup is not library.Task.setup or kind.finalize is not library.Task.finalize,
        "a runtime for its rewards": any(asks_runtime(hook) for role in ("reward", "metric") for hook in task.hooks(role)),
        "a judge, which is another model": bool(task.config.judges),
    }
    for need, there in needs.items():
        if there:
            raise RheostatError(f"{name} has tasks that need {need}: only tasks of a prompt and its rewards can be trained on here.")
    if not task.hooks("reward"):
        raise RheostatError(f"{name} has tasks without a reward: mark a method of the task as one.")
    plain = isinstance(data.prompt, str) or (
        isinstance(data.prompt, Sequence) and all(isinstance(getattr(each, "content", None), str) for each in data.prompt)
    )
    if not plain or not data.prompt:
        raise RheostatError(f"{name} has a task whose prompt is no text: only prompts of text can be trained on here.")


def asks_runtime(hook: Any) -> bool:
    """Whether a reward has a parameter ``runtime`` without a default."""
    parameters: Mapping[str, Any] = inspect.signature(hook).parameters
    return "runtime" in parameters and parameters["runtime"].default is inspect.Parameter.empty


def loaded(name: str, full: str) -> Any:
    """A taskset by its id, with its default settings.

    Raises:
        RheostatError: it cannot be loaded.
    """
    from verifiers.v1.utils.loaders import load_taskset, taskset_config_type

    try:
        return load_taskset(taskset_config_type(name)(id=name))
    except Exception as error:  # importing a package of the user's may raise anything
        raise RheostatError(f"{full} cannot be loaded: {told(error)}.") from error


def told(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")


def library() -> Any:
    """The package ``verifiers.v1``.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import verifiers.v1 as found
    except ImportError as error:
        raise MissingExtra("verifiers", "verifiers", "Tasks of verifiers") from error
    return found
