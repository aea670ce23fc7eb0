"""``trl-environment:MODULE:CLASS``: environments written for TRL's ``environment_factory``, as a task of several turns.

The interface is that of TRL 1.16: a factory without arguments makes an environment; ``reset(**row)`` begins an episode and returns
text that is added to the prompt, or nothing; every other public method is a tool, described by its docstring; ``get_reward()`` scores the
episode when it is over. An environment serves one episode at a time; here each conversation has its own.

A turn of the policy calls tools as ``<tool_call>{"name": "guess", "arguments": {"number": 3}}</tool_call>``, once or several times, and
reads what they returned. The turn without a call is the answer, which ends the episode. With ``chat``, tools are told to the model by its
own chat template, else by a line each. What a model writes is parsed as JSON and nothing else; it can call tools alone, with the arguments
that they have. A call that cannot be made, or a tool that raises, is answered with the reason.

Rows are those of a JSON Lines file (or of a list, from Python): ``prompt`` is the question, all columns are passed to ``reset``, as in TRL.
Without rows the environment owns its data: a row is then a seed, where ``reset`` takes one. Members of a group get the same row; a
``reset`` that opens the same row with another text is refused. What differs from TRL: tools that are coroutines, and several environments
in one run, are refused; results are text of a user's turn, not of a tool's.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rheostat.credit.verifiers.verifier_interface import number_of
from rheostat.errors import RheostatError
from rheostat.tasks.language.gymnasium_text import GymnasiumText, named
from rheostat.tasks.language.task_interface import Prompt, Split, content_key, is_validation

PREFIX = "trl-environment:"
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
OWN = ("reset", "get_reward")
"""Public methods that are no tools."""
FORM = 'Call a tool with <tool_call>{"name": NAME, "arguments": {...}}</tool_call>. A reply without a call is your answer. Tools:'


class ToolEnvironment(GymnasiumText):
    """Conversations with an environment whose methods are tools.

    Args:
        make: the factory, or ``MODULE:CLASS``.
        rows: of the data; a file of JSON Lines, or a list; None: seeds.
        turns: of the policy, after which a conversation is truncated and scored.
        chat: open with a chat message, in whose template the tools are told; else plain text.
        rules: stands before every question.
        patience: seconds that one call of the environment may take.
        max_prompt_tokens, max_new_tokens: default limits; new tokens are of one turn.
        validation_share: share of all rows set aside for validation.

    Raises:
        RheostatError: nothing to import, no rows, a missing method, or limits that are none.
    """

    def __init__(
        self,
        make: str | Callable[[], Any],
        *,
        rows: str | Path | Iterable[Mapping[str, Any]] | None = None,
        turns: int = 15,
        chat: bool = True,
        rules: str = "",
        patience: float = 30.0,
        max_prompt_tokens: int = 1024,
        max_new_tokens: int = 256,
        validation_share: float = 0.2,
    ) -> None:
        self.factory = imported(make) if isinstance(make, str) else make
        known = PREFIX + make if isinstance(make, str) else getattr(make, "__name__", type(make).__name__)
        self.tools, self.takes_seed = inspected(self.factory, known)
        self.given = None if rows is None else read_rows(rows, known)
        super().__init__(
            named(partial(self.play), known),
            turns=turns,
            chat=chat,
            rules=rules,
            patience=patience,
            max_prompt_tokens=max_prompt_tokens,
            max_new_tokens=max_new_tokens,
            validation_share=validation_share,
        )

    def play(self) -> ToolPlay:
        """A new environment, with Gymnasium's interface."""
        return ToolPlay(self.factory(), self.tools, self.turns, self.row)

    def row(self, seed: int) -> dict[str, Any]:
        """The columns of a row, by its number or by a seed."""
        if self.given is not None:
            return dict(self.given[seed])
        return {"seed": seed} if self.takes_seed else {}

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Rows of one pass in a new order, or openings of 16 seeds, as far as they belong to the split.

        Raises:
            RheostatError: the environment cannot be made or reset.
        """
        if self.given is None and self.takes_seed:
            return super().block(number, split, seed)
        size = self.seeds_per_block
        numbers = range(number * size, (number + 1) * size) if self.given is not None else range(1)
        count = 1 if self.given is None else len(self.given)
        wanted = split == "validation"
        mine = [each % count for each in numbers]
        if count > 1:
            mine = [each for each in mine if is_validation(content_key(f"{self.name} {each}"), self.validation_share) == wanted]
        return [self.prompt(each) for each in mine]

    def prompt(self, seed: int) -> Prompt:
        """The question of a row, with what its environment shows after its reset."""
        found = super().prompt(seed)
        if not self.chat:
            lines = [FORM, *(f"{name}{arguments_of(tool)}: {first_line(tool)}" for name, tool in self.tools.items())]
            return Prompt("\n".join(lines) + f"\n\n{found.content}", None, found.columns, found.key)
        from transformers.utils import get_json_schema

        schemas = {"chat_template_kwargs": {"tools": [get_json_schema(tool) for tool in self.tools.values()]}}
        return Prompt(found.content, None, dict(found.columns) | schemas, found.key)


class ToolPlay:
    """One episode with an environment of tools, with Gymnasium's interface.

    Args:
        environment: as the factory made it.
        tools: its class's tools by name.
        turns: of the policy, after which the episode is scored.
        row: the columns of a row, by its number.
    """

    def __init__(self, environment: Any, tools: Mapping[str, Any], turns: int, row: Callable[[int], dict[str, Any]]) -> None:
        self.environment, self.tools, self.left, self.row = environment, tools, turns, row

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        """The question, and what the environment adds to it.

        Raises:
            TypeError: neither text nor nothing.
        """
        row = self.row(seed)
        shown = self.environment.reset(**row)
        if shown is not None and not isinstance(shown, str):
            raise TypeError(f"reset returned a {type(shown).__name__}, which is neither text nor None")
        return question_of(row.get("prompt", "")) + (shown or ""), {}

    def step(self, text: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """The tools' answers, or the score of the episode."""
        self.left -= 1
        calls = CALL.findall(text)
        shown = "\n".join(self.answer(call) for call in calls)
        over = not calls or not self.left
        return shown, self.score() if over else 0.0, not calls, bool(calls) and over, {}

    def score(self) -> float:
        """Of the episode.

        Raises:
            TypeError: no finite number.
        """
        found = number_of(self.environment.get_reward())
        if found is None:
            raise TypeError("get_reward returned no number")
        return found

    def answer(self, text: str) -> str:
        """What a call returns, or why it could not be made."""
        try:
            call = json.loads(text)
            name, arguments = call["name"], call.get("arguments", {})
            tool = self.tools[name]
            inspect.signature(tool).bind(self.environment, **arguments)
        except KeyError as error:
            return f"error: there is no {error}; tools are {', '.join(self.tools)}"
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            return f"error: this is no call of a tool ({' '.join(str(error).split())})"
        try:
            return str(getattr(self.environment, name)(**arguments))
        except Exception as error:  # as in TRL, the model reads what a tool raised
            return f"error: {error}"


def question_of(prompt: Any) -> str:
    """The text of a row's prompt: a string, or the last message of a chat."""
    return str(prompt[-1]["content"]) if isinstance(prompt, list) else str(prompt)


def arguments_of(tool: Any) -> str:
    """A tool's parameters as a line: ``(number: int)``."""
    given = list(inspect.signature(tool).parameters.values())[1:]
    kinds = [each.annotation if isinstance(each.annotation, str) else getattr(each.annotation, "__name__", "") for each in given]
    return "(" + ", ".join(f"{each.name}: {kind}" for each, kind in zip(given, kinds, strict=True)) + ")"


def first_line(tool: Any) -> str:
    """Of a tool's docstring."""
    return (inspect.getdoc(tool) or "").partition("\n")[0]


def imported(name: str) -> Callable[[], Any]:
    """The factory ``MODULE:NAME``.

    Raises:
        RheostatError: it cannot be imported.
    """
    module, _, own = name.partition(":")
    try:
        found: Callable[[], Any] = getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError, ValueError) as error:
        raise RheostatError(f"{PREFIX}{name} cannot be imported ({error}): name it as MODULE:CLASS.") from error
    return found


def inspected(factory: Callable[[], Any], name: str) -> tuple[dict[str, Any], bool]:
    """The tools of an environment by name, and whether its reset takes a seed.

    Raises:
        RheostatError: the factory raises, or a method is missing or a coroutine.
    """
    try:
        kind = type(factory())
    except Exception as error:
        raise RheostatError(f"{name} cannot make an environment: {type(error).__name__}: {' '.join(str(error).split())}.") from error
    methods = dict(inspect.getmembers(kind, predicate=inspect.isfunction))
    for needed in OWN:
        if needed not in methods:
            raise RheostatError(f"{name} has no method {needed}, which an environment for environment_factory must have here.")
    tools = {each: method for each, method in methods.items() if each not in OWN and not each.startswith("_")}
    if not tools:
        raise RheostatError(f"{name} has no tool: every public method but reset and get_reward is one.")
    for each, method in methods.items():
        if (each in OWN or each in tools) and inspect.iscoroutinefunction(method):
            raise RheostatError(f"The method {each} of {name} is a coroutine: it must be an ordinary function here.")
    parameters = inspect.signature(methods["reset"]).parameters.values()
    seeded = any(each.name == "seed" or each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    return tools, seeded


def read_rows(rows: str | Path | Iterable[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Rows of a file of JSON Lines, or as they are.

    Raises:
        RheostatError: a file that cannot be read, a line that is no object, or no row.
    """
    if not isinstance(rows, str | Path):
        found = [dict(row) for row in rows]
    else:
        try:
            found = [json.loads(line) for line in Path(rows).read_text().splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise RheostatError(f"The rows of {name} cannot be read from {rows}: {error}.") from error
    if not found or not all(isinstance(row, dict) for row in found):
        raise RheostatError(f"The rows of {name} are a JSON object on every line, and at least one.")
    return found
