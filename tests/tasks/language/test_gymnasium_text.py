"""Environments of users that speak: the interface, and what happens where they hang, crash or show what is no text."""

from __future__ import annotations

import threading
from typing import Any

import gymnasium
import pytest

from rheostat.errors import RheostatError
from rheostat.tasks.language import GymnasiumText, Said, language_task
from rheostat.tasks.language.task_list import knobs_of


class Echo(gymnasium.Env[str, str]):
    """Shows a number; the word is its double, three tries."""

    action_space = gymnasium.spaces.Text(8)
    observation_space = gymnasium.spaces.Text(8)

    def __init__(self, fault: Any = None, opening: Any = None) -> None:
        self.fault, self.opening, self.closed = fault, opening, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.number, self.tries = int(self.np_random.integers(10)), 0
        return (f"{self.number}:" if self.opening is None else self.opening()), {}

    def step(self, action: str) -> Any:
        if self.fault is not None:
            return self.fault()
        self.tries += 1
        right = action == str(2 * self.number)
        return f"{self.tries}:", float(right), right, self.tries == 3, {"is_success": right}

    def close(self) -> None:
        self.closed = True
        raise RuntimeError("nobody cares")


def begun(task: GymnasiumText, count: int = 1) -> tuple[Any, list[Any]]:
    prompts = task.prompts().take(count)
    episodes = task.episodes()
    episodes.reset(prompts, list(range(count)))
    return episodes, prompts


def test_steps_are_those_of_the_environment() -> None:
    task = GymnasiumText(Echo, turns=9)
    assert task.name == "Echo" and task.base is None
    episodes, (prompt, other) = begun(task, 2)
    number = int(str(prompt.content).rstrip(":"))
    step = episodes.step([0, 1], [Said(str(2 * number)), Said("no")])
    assert step.observations == ["1:", "1:"] and step.terminated == [True, False] and step.scores.reward.tolist()[0] == 1
    assert step.scores.parts["won"][0] == 1
    for _ in range(2):
        step = episodes.step([1], [Said("no")])
    assert step.truncated == [True] and step.terminated == [False] and step.scores.parts["won"][0] == 0
    again = [each.content for each in GymnasiumText(Echo).prompts("train", 0).take(40)]
    assert again == [each.content for each in GymnasiumText(Echo).prompts("train", 0).take(40)]
    keys = {each.key for each in task.prompts("train").take(40)}
    assert not keys & {each.key for each in task.validation(20)} and other.key in keys
    chat = GymnasiumText(Echo, chat=True, rules="Double it.").prompts().take(1)[0]
    assert chat.content[0]["content"].startswith("Double it.\n\n")


def test_state_is_replayed() -> None:
    task = GymnasiumText(Echo)
    episodes, _ = begun(task, 2)
    episodes.step([0, 1], [Said("x"), Said("y")])
    other = task.episodes()
    other.load_state_dict(episodes.state_dict())
    assert other.step([0], [Said("z")]).observations == episodes.step([0], [Said("z")]).observations == ["2:"]


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda: threading.Event().wait(), "TimeoutError: the environment ran past its limit of 0.05 s"),
        (lambda: _raise(KeyError("board")), "KeyError: 'board'"),
        (lambda: _raise(SystemExit(3)), "RuntimeError: the environment raised SystemExit"),
        (lambda: (7, 0.0, False, False, {}), "TypeError: the environment showed a int, which is no text"),
        (lambda: (None, 0.0, False, False, {}), "showed a NoneType, which is no text"),
        (lambda: ("a", "1", False, False, {}), "a reward that is no finite number"),
        (lambda: ("a", float("nan"), False, False, {}), "a reward that is no finite number"),
        (lambda: ("a", 0.0, False, {}), "step returned no tuple"),
    ],
)
def test_what_misbehaves_fails_alone(fault: Any, reason: str) -> None:
    """The other conversations go on, and the failed one says why."""
    made: list[Echo] = []

    def make() -> Echo:
        made.append(Echo(fault if len(made) == 3 else None))  # two openings of prompts, then the conversations
        return made[-1]

    task = GymnasiumText(make, patience=0.05 if "Timeout" in reason else 30.0)
    prompts = [task.prompt(seed) for seed in (1, 2)]
    episodes = task.episodes()
    episodes.reset(prompts, [0, 1])
    step = episodes.step([0, 1], [Said("x"), Said("x")])
    assert step.over == [False, True] and step.scores.failed.tolist() == [False, True]
    assert reason in step.scores.messages[1] and "\n" not in step.scores.messages[1]
    assert episodes.step([0], [Said("x")]).observations == ["2:"]


def test_an_opening_that_changes_fails_its_conversation() -> None:
    count = iter(range(9))
    task = GymnasiumText(lambda: Echo(opening=lambda: f"{next(count)}:"))
    prompt = task.prompt(0)
    episodes = task.episodes()
    episodes.reset([prompt], [0])
    assert "another text than before" in episodes.step([0], [Said("x")]).scores.messages[0]


def test_bad_environments_are_refused_before_training() -> None:
    for opening, sentence in (
        (lambda: 5, "cannot begin with seed .*: TypeError: the environment showed a int, which is no text"),
        (lambda: _raise(OSError("no\nboard")), "cannot begin with seed .*: OSError: no board"),
    ):
        with pytest.raises(RheostatError, match=sentence):
            GymnasiumText(lambda opening=opening: Echo(opening=opening)).prompts().take(1)  # type: ignore[misc]
    for options, sentence in (({"turns": 0}, "takes 1 to 1024 turns"), ({"patience": 0.0}, "seconds above 0"),
                              ({"validation_share": 1.0}, "validation_share lies in")):  # fmt: skip
        with pytest.raises(RheostatError, match=sentence):
            GymnasiumText(Echo, **options)  # type: ignore[arg-type]


def test_by_name() -> None:
    gymnasium.register("EchoText-v0", entry_point=f"{__name__}:Echo", max_episode_steps=2)
    try:
        task = language_task("gymnasium-text:EchoText-v0", turns=4, rules="Double.")
        episodes = task.episodes()
        assert episodes is not None
        episodes.reset(task.prompts().take(1), [0])
        assert task.name == "gymnasium-text:EchoText-v0" and episodes.step([0], [Said("x")]).observations == ["1:"]
        assert episodes.step([0], [Said("x")]).truncated == [True], "Gymnasium's own time limit"
        assert "patience" in knobs_of("gymnasium-text:EchoText-v0")
        with pytest.raises(RheostatError, match="Unknown knob of gymnasium-text"):
            language_task("gymnasium-text:EchoText-v0", size=3)
    finally:
        del gymnasium.registry["EchoText-v0"]
    for name in ("gymnasium-text:Nowhere-v0", "gymnasium-text:no_such_module:Nowhere-v0"):
        with pytest.raises(RheostatError, match="register the environment, and name it as MODULE:ID") as error:
            language_task(name)
        assert "\n" not in str(error.value)
