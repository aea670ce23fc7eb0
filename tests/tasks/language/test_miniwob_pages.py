"""Tasks on web pages: what is an action, what is shown, pages that conversations share, and the real browser where there is one."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import pytest

from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.language import Said, language_task
from rheostat.tasks.language.miniwob_pages import Action, Pages, Visit, action_of, listed, program
from rheostat.tasks.language.task_list import knobs_of

REAL = pytest.mark.skipif(
    importlib.util.find_spec("miniwob") is None or not shutil.which("chromium") or not shutil.which("chromedriver"),
    reason="the extra 'miniwob' or Chromium and its driver are not installed",
)


class Counting:
    """A page that counts clicks up to its seed; the click that reaches it wins."""

    made = 0

    def __init__(self) -> None:
        Counting.made += 1
        self.opened = 0
        self.killed = False

    def open(self, seed: int) -> str:
        self.seed, self.clicks = seed, 0
        self.opened += 1
        return f"{seed}:"

    def act(self, action: Action) -> tuple[str, float, bool]:
        if action == ("key", "Escape"):
            raise RuntimeError("stuck")
        self.clicks += action[1]
        return f"{self.clicks}", 1.0, self.clicks >= self.seed

    def kill(self) -> None:
        self.killed = True


@pytest.mark.parametrize(
    ("said", "action"),
    [
        ("click 7", ("click", 7)),
        ("I think\n\n  type 12 hello, world  ", ("type", (12, "hello, world"))),
        ("key Enter", ("key", "Enter")),
        ("at 40 120", ("at", (40, 120))),
        ("", None),
        ("click", None),
        ("click -1", None),
        ("click 7; click 8", None),
        ("key C-l", None),
        ("type 3 " + 65 * "x", None),
        ("type 3 caf\u00e9", None),
        ("click 1\ndone", None),
    ],
)
def test_only_the_last_line_is_an_action(said: str, action: Any) -> None:
    assert action_of(said) == action


def test_elements_are_listed_with_what_tells_them_apart() -> None:
    def element(ref: int, tag: str, text: str = "", value: str = "", name: str = "") -> dict[str, Any]:
        return {"ref": ref, "tag": tag, "text": text, "value": value, "id": name}

    page = [element(1, "body"), element(2, "label", "User\n name"), element(3, "input_text", value="ann", name="user")]
    assert listed([*page, element(4, "button", "OK", name="ok")]) == "2 label User name\n3 input_text (user) = ann\n4 button OK"


def test_a_conversation_that_lost_its_page_repeats_its_actions() -> None:
    Counting.made = 0
    pages = Pages(Counting, 2)
    visits = [Visit(pages) for _ in range(3)]
    for seed, visit in zip((5, 6, 7), visits, strict=True):
        assert visit.reset(seed=seed)[0] == f"{seed}:"
    assert Counting.made == 2
    shown = [[visit.step("click 2")[0] for visit in visits] for _ in range(2)]
    assert shown == [["2"] * 3, ["4"] * 3]
    assert visits[0].step("nonsense")[0].startswith("That is no action") and visits[0].step("click 1") == (
        "5",
        1.0,
        True,
        False,
        {"is_success": True},
    )


def test_a_page_that_raised_is_given_up_and_the_others_go_on() -> None:
    pages = Pages(Counting, 1)
    lost, other = Visit(pages), Visit(pages)
    lost.reset(seed=3)
    broken = pages.kept[0].page
    with pytest.raises(RuntimeError, match="stuck"):
        lost.step("key Escape")
    assert other.reset(seed=4)[0] == "4:" and isinstance(broken, Counting) and broken.killed and len(pages.kept) == 1
    pages.close()
    assert not pages.kept


def test_actions_that_no_longer_repeat_end_a_conversation() -> None:
    pages = Pages(Counting, 1)
    visit, other = Visit(pages), Visit(pages)
    visit.reset(seed=9)
    visit.step("click 2")
    other.reset(seed=1)
    visit.seed = 1  # as if the page had another state
    with pytest.raises(ValueError, match="cannot be repeated"):
        visit.step("click 2")


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(RheostatError, match=r"needs chromium, and 'no-such-browser' is no program on the path"):
        program("chromium", "no-such-browser")
    assert "browsers" in knobs_of("miniwob:click-test")


@pytest.mark.skipif(importlib.util.find_spec("miniwob") is not None, reason="the extra 'miniwob' is installed")
def test_without_the_package_it_says_so() -> None:
    with pytest.raises(MissingExtra, match=r"MiniWoB\+\+ needs the package 'miniwob'"):
        language_task("miniwob:click-test")


@REAL
def test_tasks_that_cannot_be_played_are_refused() -> None:
    for name, knobs, sentence in (
        ("no-such-task", {}, "Unknown task of MiniWoB"),
        ("choose-date", {}, "remember earlier episodes"),
        ("click-test", {"browsers": 0}, "1 to 64 browsers"),
    ):
        with pytest.raises(RheostatError, match=sentence):
            language_task(f"miniwob:{name}", **knobs)


@REAL
@pytest.mark.slow
def test_two_conversations_log_in_on_one_real_page() -> None:
    task = language_task("miniwob:login-user", browsers=1)
    prompts = task.prompts().take(2)
    assert [each.content for each in prompts] == [each.content for each in language_task("miniwob:login-user").prompts().take(2)]
    episodes = task.episodes()
    episodes.reset(prompts, [0, 1])
    said, wrong = [], Said("click 999")
    for prompt in prompts:
        name, word = str(prompt.content).split('"')[1::2][:2]
        numbers = {line.split()[2]: line.split()[0] for line in str(prompt.content).splitlines() if "input_" in line or "button" in line}
        said.append([f"type {numbers['(username)']} {name}", f"type {numbers['(password)']} {word}", f"click {numbers['Login']}"])
    assert episodes.step([0], [wrong]).observations[0].startswith("There is no element 999.")
    for turn in range(2):
        step = episodes.step([0, 1], [Said(said[0][turn]), Said(said[1][turn])])
        assert not any(step.over)
    step = episodes.step([0, 1], [Said(said[0][2]), Said("click 1")])
    assert step.terminated == [True, False] and step.scores.reward[0] == 1 and step.scores.parts["won"][0] == 1
    task.pages.close()
