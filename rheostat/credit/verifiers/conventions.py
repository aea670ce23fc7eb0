"""Reward functions written for TRL, verl or Rheostat: each is called as it expects, and the results are grades.

The convention is read off the signature:

| convention | recognised by | called with | returns |
|---|---|---|---|
| TRL | ``completions`` (or only ``**kwargs``) | lists: prompts, completions, completion_ids, columns | a number or None per completion |
| verl | ``solution_str`` | one sample: data_source, solution_str, ground_truth, extra_info | a number, or a dict with ``score`` |
| verl, batch | ``solution_strs`` | the same in plural lists | one of the above per sample |
| native | ``rollouts`` | the list of :class:`Rollout` | a number, None, dict or :class:`Grade` per rollout, or :class:`Scores` |
| native, one | ``rollout`` | one :class:`Rollout` | a number, None, dict or :class:`Grade` |

Plain or async. TRL passes chat completions as a list with one assistant message, and text as text; its ``None`` means "not mine", which
abstains. A function gets only the arguments it takes. An exception is a failed grade, never 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal, cast

from rheostat.credit.verifiers.asynchronous import EventLoop, Raised, is_async
from rheostat.credit.verifiers.reward_loading import describe
from rheostat.credit.verifiers.sandbox.levels import Standing
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier, grades_of, number_of
from rheostat.errors import RheostatError, shown

Convention = Literal["trl", "verl", "verl-batch", "native", "native-one"]
Report = Callable[[int, Grade], None]

_TRL_GIVEN = ("prompts", "completions", "completion_ids", "raw_completions", "trainer_state", "log_extra", "log_metric")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def detect_convention(function: Callable[..., Any], name: str) -> Convention:
    """Which convention a function follows.

    Raises:
        RheostatError: none of them, or it cannot be called at all.
    """
    if not callable(function):
        raise RheostatError(f"The reward {name!r} is a {type(function).__name__}, not a function: name a function that grades completions.")
    parameters = _parameters(function)
    named = [key for key, parameter in parameters.items() if parameter.kind in _NAMED]
    if "rollouts" in named:
        return "native"
    if "rollout" in named:
        return "native-one"
    if "completions" in named:
        return "trl"
    if "solution_strs" in named:
        return "verl-batch"
    if "solution_str" in named:
        return "verl"
    if not named and any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return "trl"
    raise RheostatError(
        f"The reward function {name!r} takes ({', '.join(parameters)}), which is no known convention: TRL's functions take completions and "
        "columns such as answer, verl's take solution_str and ground_truth, native ones take rollouts."
    )


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise RheostatError(
            f"The signature of the reward function {function!r} cannot be read: wrap it in a plain Python function."
        ) from error


class Grader:
    """One reward function of any convention.

    Args:
        function: what the user wrote.
        name: for messages and for the part its reward is shown as.
        alone: what a function of the whole batch does after the batch call raised: True grades every rollout by itself, so that one odd
            completion does not spoil the others (the messages of the rows tell it); False fails the whole batch, which is right for
            functions that compare the completions of a batch with each other.

    Raises:
        RheostatError: the function follows no known convention.
    """

    def __init__(self, function: Callable[..., Any], name: str, alone: bool = True) -> None:
        self.function, self.name, self.alone = function, name, alone
        self.convention = detect_convention(function, name)
        self.batched = self.convention in ("trl", "verl-batch", "native")
        parameters = _parameters(function)
        self.open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
        self.named = [key for key, parameter in parameters.items() if parameter.kind in _NAMED]
        self.required = [key for key in self.named if parameters[key].default is inspect.Parameter.empty]
        self.asynchronous = is_async(function)
        self._loop = EventLoop()

    def grade(
        self,
        rollouts: Sequence[Rollout],
        progress: Progress | None = None,
        report: Report | None = None,
        limit: float | None = None,
    ) -> tuple[list[Grade], dict[str, float]]:
        """Grade rollouts in order (async functions of one sample: all at once).

        Args:
            rollouts: a batch.
            progress: the position of training.
            report: called with (row, grade) as soon as a row is graded by itself.
            limit: seconds an async call may take; a plain call cannot be stopped from within its process.

        Returns:
            One grade per rollout, and the scalars the function logged.

        Raises:
            RheostatError: the function asks for a column that is missing, or returns something that is not one reward per completion.
        """
        if self.batched:
            return self._grade_batch(rollouts, progress or Progress(), report, limit)
        grades: list[Grade] = [Grade()] * len(rollouts)

        def settle(row: int, outcome: Any) -> None:
            grades[row] = self._read(outcome, row)
            if report is not None:
                report(row, grades[row])

        waiting: dict[int, Awaitable[Any]] = {}
        for row, rollout in enumerate(rollouts):
            outcome = self._call(self._arguments([rollout], None, None))
            if inspect.isawaitable(outcome):
                waiting[row] = outcome
            else:
                settle(row, outcome)
        if waiting:
            self._loop.run_all(waiting, settle, limit)
        return grades, {}

    def require_columns(self, rollouts: Sequence[Rollout]) -> None:
        """Refuse rollouts that lack a column the function asks for.

        Raises:
            RheostatError: naming the column.
        """
        for part in [rollouts] if self.batched else [[rollout] for rollout in rollouts]:
            self._arguments(part, Progress(), _Log(len(part)))

    def _grade_batch(
        self, rollouts: Sequence[Rollout], progress: Progress, report: Report | None, limit: float | None
    ) -> tuple[list[Grade], dict[str, float]]:
        log = _Log(len(rollouts))
        outcome = self._call(self._arguments(rollouts, progress, log))
        if inspect.isawaitable(outcome):
            outcome = self._loop.run(outcome, limit)
        if isinstance(outcome, Raised) and self.alone and len(rollouts) > 1:
            message = f"graded by itself, because the call for the whole batch raised {outcome.text}"
            grades: list[Grade] = []
            for row, rollout in enumerate(rollouts):
                (grade,), metrics = self._grade_batch([rollout], progress, None, limit)
                grade.message = grade.message or message
                grades.append(grade)
                log.metrics |= metrics
                if report is not None:
                    report(row, grade)
            return grades, log.metrics
        if isinstance(outcome, Raised):
            grades = [Grade.failure(outcome.text) for _ in rollouts]
        elif isinstance(outcome, Scores):
            grades = self._from_scores(outcome, len(rollouts))
        else:
            grades = [self._read(value, row) for row, value in enumerate(self._as_list(outcome, len(rollouts)))]
        for name, values in log.extra.items():
            for grade, value in zip(grades, values, strict=True):
                grade.notes[name] = str(value)
        return grades, log.metrics

    def _call(self, arguments: dict[str, Any]) -> Any:
        """The function's result (or its awaitable); an exception of the function is an outcome, not an error of the library."""
        try:
            return self.function(**arguments)
        except (Exception, SystemExit) as error:
            return Raised(describe(error))

    def _arguments(self, rollouts: Sequence[Rollout], progress: Progress | None, log: _Log | None) -> dict[str, Any]:
        if self.convention == "native":
            offered: dict[str, Any] = {"rollouts": list(rollouts), "progress": progress}
        elif self.convention == "native-one":
            offered = {"rollout": rollouts[0]}
        elif self.convention == "trl":
            offered = self._trl_arguments(rollouts, cast(Progress, progress), cast(_Log, log))
        else:
            samples = [verl_arguments(rollout) for rollout in rollouts]
            if self.convention == "verl":
                offered = samples[0]
            else:
                plural = {key: key if key.endswith("s") else f"{key}s" for key in samples[0]}
                offered = {plural[key]: [sample[key] for sample in samples] for key in samples[0]}
        missing = [key for key in self.required if key not in offered]
        if missing:
            held = sorted({column for rollout in rollouts for column in rollout.columns}) or ["none"]
            raise RheostatError(
                f"The reward function {self.name!r} asks for {', '.join(map(repr, missing))}, which the prompts do not have "
                f"(their columns: {', '.join(held)}): add the column to the prompts or drop the argument."
            )
        return offered if self.open_ended else {key: value for key, value in offered.items() if key in self.named}

    @staticmethod
    def _trl_arguments(rollouts: Sequence[Rollout], progress: Progress, log: _Log) -> dict[str, Any]:
        names = dict.fromkeys(column for rollout in rollouts for column in rollout.columns)
        columns = {name: [rollout.columns.get(name) for rollout in rollouts] for name in names if name not in _TRL_GIVEN}
        if "answer" not in columns and any(rollout.answer is not None for rollout in rollouts):
            columns["answer"] = [rollout.answer for rollout in rollouts]
        return columns | {
            "prompts": [rollout.prompt for rollout in rollouts],
            "completions": [
                rollout.completion if isinstance(rollout.prompt, str) else [{"role": "assistant", "content": rollout.completion}]
                for rollout in rollouts
            ],
            "completion_ids": [list(rollout.completion_ids) for rollout in rollouts],
            "raw_completions": [rollout.raw or rollout.completion for rollout in rollouts],  # Rheostat's own: text with special tokens
            "trainer_state": SimpleNamespace(global_step=progress.step, max_steps=progress.total_steps),
            "log_extra": log.log_extra,
            "log_metric": log.log_metric,
        }

    def _as_list(self, outcome: Any, count: int) -> list[Any]:
        if hasattr(outcome, "tolist"):
            outcome = outcome.tolist()
        if not isinstance(outcome, (list, tuple)):
            raise RheostatError(
                f"The reward function {self.name!r} must return one reward per completion, a list of {count}; "
                f"it returned a {type(outcome).__name__}."
            )
        if len(outcome) != count:
            raise RheostatError(
                f"The reward function {self.name!r} returned {len(outcome)} rewards for {count} completions: return one for each."
            )
        return list(outcome)

    def _read(self, value: Any, row: int) -> Grade:
        if isinstance(value, Raised):
            return Grade.failure(value.text)
        if isinstance(value, Grade):
            read = self._read_dict({**value.parts, **value.notes, "score": value.reward})
            return Grade(read.reward, read.parts, read.notes, read.failed or value.failed, value.message or read.message)
        if value is None:
            return Grade()
        if isinstance(value, Mapping):
            if "score" not in value:
                raise RheostatError(
                    f"The reward function {self.name!r} returned a dict with the keys {', '.join(map(str, value))} for row {row}: "
                    "it must have the key 'score'."
                )
            return self._read_dict(value)
        number = number_of(value)
        return Grade.failure(f"it returned {shown(value)}, which is not a number") if number is None else Grade(number)

    def _read_dict(self, value: Mapping[Any, Any]) -> Grade:
        numbers = {str(key): number_of(entry) for key, entry in value.items()}
        parts = {key: number for key, number in numbers.items() if number is not None and key != "score"}
        notes = {str(key): str(entry) for key, entry in value.items() if numbers[str(key)] is None and key != "score" and entry is not None}
        if value["score"] is None:
            return Grade(None, parts, notes)
        if numbers["score"] is None:
            return Grade(None, parts, notes, True, f"its score is {shown(value['score'])}, which is not a number")
        return Grade(numbers["score"], parts, notes)

    def _from_scores(self, scores: Scores, count: int) -> list[Grade]:
        if len(scores) != count:
            raise RheostatError(
                f"The reward function {self.name!r} returned {len(scores)} rewards for {count} completions: return one for each."
            )
        return grades_of(scores)


class FunctionVerifier:
    """A reward function in this process, as a :class:`Verifier`. It has no sandbox and no time limit: see :class:`Isolated`."""

    def __init__(self, function: Callable[..., Any] | Verifier, name: str | None = None, alone: bool = True) -> None:
        self.name = name or name_of(function)
        self._grader = Grader(as_function(function), self.name, alone)

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order."""
        return Scores.from_grades(*self._grader.grade(rollouts, progress))

    def standings(self) -> list[Standing]:
        """No sandbox."""
        return [Standing(self.name, "off")]


def as_function(found: Any) -> Callable[..., Any]:
    """The callable to grade with: a function as it is, a verifier's ``score``, an instance of a class that needs no arguments.

    Raises:
        RheostatError: a class that needs arguments.
    """
    if inspect.isclass(found):
        try:
            found = found()
        except TypeError as error:
            raise RheostatError(
                f"The reward {found.__name__!r} is a class that needs arguments ({error}): name an instance of it."
            ) from error
    score = getattr(found, "score", None)
    return score if callable(score) and not inspect.isroutine(found) else found


def name_of(function: Any) -> str:
    """A grader's name in messages and parts."""
    for candidate in (getattr(function, "name", None), getattr(function, "__name__", None), getattr(function, "func", None)):
        if isinstance(candidate, str):
            return candidate
        if candidate is not None:
            return name_of(candidate)
    return type(function).__name__


def verl_arguments(rollout: Rollout) -> dict[str, Any]:
    """The arguments that verl passes to a per-sample reward function, from the columns of verl's data files, or from the answer."""
    columns = rollout.columns
    model = columns.get("reward_model")
    truth = model["ground_truth"] if isinstance(model, Mapping) and "ground_truth" in model else columns.get("ground_truth", rollout.answer)
    extra = columns.get("extra_info")
    if extra is None:
        extra = {key: value for key, value in columns.items() if key not in ("data_source", "reward_model", "ground_truth")}
    return {
        "data_source": columns.get("data_source", "unknown"),
        "solution_str": rollout.completion,
        "ground_truth": truth,
        "extra_info": extra,
    }


class _Log:
    """TRL's ``log_extra`` and ``log_metric``."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.extra: dict[str, list[Any]] = {}
        self.metrics: dict[str, float] = {}

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        if len(values) != self.rows:
            raise ValueError(f"log_extra({column!r}) got {len(values)} values for {self.rows} completions")
        self.extra[column] = list(values)

    def log_metric(self, name: str, value: Any) -> None:
        self.metrics[name] = float(value)
