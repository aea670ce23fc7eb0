"""``miniwob:TASK``: small tasks on web pages in a real headless Chromium (MiniWoB++, Liu et al. 2018, arXiv 1802.08802). The extra is
``miniwob``; Chromium and its driver are found on the path, or named.

The opening is the instruction and a list of what stands on the page; the policy writes one action a turn:

    click 7              on element 7
    type 7 some text     into element 7
    key Enter            or Tab, Backspace, Escape, ArrowUp, ArrowDown, ArrowLeft, ArrowRight
    at 40 120            a click on a place, for what is drawn

The reward is the page's own, in [-1, 1], without its discount by seconds, and the page's clock does not run out: the limit is one of turns.
Pages are the package's own files, and nothing else can be loaded.

A browser is large, so many conversations share a few pages. A conversation whose page was taken meanwhile opens the same seed on another
one and repeats its actions; the pages that the package calls nondeterministic are refused for that reason.
"""

from __future__ import annotations

import atexit
import math
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from rheostat.errors import MissingExtra, RheostatError, unknown
from rheostat.tasks.language.gymnasium_text import GymnasiumText, within

WEB = "miniwob:"
RULES = (
    "You use a web page. Each element has a number. Answer with one action in the last line: "
    "click NUMBER, type NUMBER TEXT, key Enter, or at X Y."
)
KEYS = ("Enter", "Tab", "Backspace", "Escape", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight")
LONGEST_TEXT = 64
"""Characters that the package types at once."""
PATIENCE = 5.0
"""Seconds that a browser has for ending itself."""
NEVER = 10**9
"""Milliseconds of the page's clock: days."""
ACTION = re.compile(
    rf"(?P<what>click) (?P<ref>\d{{1,6}})|(?P<types>type) (?P<into>\d{{1,6}}) (?P<text>[ -~]{{1,{LONGEST_TEXT}}})"
    rf"|key (?P<key>{'|'.join(KEYS)})|at (?P<x>\d{{1,4}}) (?P<y>\d{{1,4}})"
)
SILENT = {"body", "div", "p", "span", "form", "table", "tbody", "tr", "td", "ul", "label", "svg", "g", "t"}
"""Elements that are listed only where they have a text of their own."""

Action = tuple[str, Any]
"""``click`` and an element, ``type`` and (element, text), ``key`` and its name, ``at`` and (x, y)."""
Shown = tuple[str, float, bool]
"""A text, the reward, and whether the task is over."""


class Page(Protocol):
    """A page of one task, in a browser of its own."""

    def open(self, seed: int) -> str:
        """Begin an episode; returns what is seen."""

    def act(self, action: Action) -> Shown:
        """Do something on it."""

    def kill(self) -> None:
        """End the browser, whatever it is doing."""


class Pages:
    """A few pages for many conversations; the one that was used longest ago is taken.

    Args:
        make: a new page.
        count: how many there are at most.
    """

    def __init__(self, make: Callable[[], Page], count: int) -> None:
        self.make, self.count = make, count
        self.kept: list[Lease] = []
        self.lock = threading.Lock()

    def open(self, visit: Visit) -> str:
        """The opening of a conversation's seed, on a page that is its own until another one needs it."""
        lease, page = self._take()
        lease.owner = None
        seen = page.open(visit.seed)
        lease.owner, lease.busy = visit, False
        return seen

    def act(self, visit: Visit, action: Action) -> Shown:
        """An action of a conversation, after those before it where it has lost its page.

        Raises:
            ValueError: they ended otherwise than before.
        """
        lease, page = self._take(visit)
        if lease.owner is not visit:
            lease.owner = None
            page.open(visit.seed)
            if any(page.act(each)[2] for each in visit.done):
                raise ValueError("the page ended after actions that had not ended it before, so its conversations cannot be repeated")
        found = page.act(action)
        lease.owner, lease.busy = visit, False
        return found

    def _take(self, visit: Visit | None = None) -> tuple[Lease, Page]:
        """The conversation's page, a new one, or the one that was used longest ago; pages that hang or raised are given up."""
        with self.lock:
            stuck = [lease for lease in self.kept if lease.busy]
            self.kept = [lease for lease in self.kept if not lease.busy]
            mine = next((lease for lease in self.kept if visit is not None and lease.owner is visit), None)
            if mine is None:
                mine = Lease() if len(self.kept) < self.count else self.kept[0]
            mine.busy = True
            self.kept = [lease for lease in self.kept if lease is not mine] + [mine]
        for lease in stuck:
            lease.kill()
        if mine.page is None:
            mine.page = self.make()
        return mine, mine.page

    def close(self) -> None:
        """End every browser."""
        with self.lock:
            gone, self.kept = self.kept, []
        for lease in gone:
            lease.kill()


class Lease:
    """A page, whose it is, and whether it is being used. One that is so when the next call comes hangs or has raised: calls come one after
    another."""

    def __init__(self) -> None:
        self.page: Page | None = None
        self.owner: Visit | None = None
        self.busy = False

    def kill(self) -> None:
        """End the browser, if there is one."""
        if self.page is not None:
            self.page.kill()


class Visit:
    """A conversation with a page, with Gymnasium's interface.

    Args:
        pages: shared with others.
    """

    def __init__(self, pages: Pages) -> None:
        self.pages, self.seed = pages, 0
        self.done: list[Action] = []

    def reset(self, *, seed: int, options: Any = None) -> tuple[str, dict[str, Any]]:
        """The instruction and the elements."""
        self.seed, self.done = seed, []
        return self.pages.open(self), {}

    def step(self, said: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """An action; a turn that is none changes nothing."""
        action = action_of(said)
        if action is None:
            return "That is no action. Write: click NUMBER, type NUMBER TEXT, key NAME, or at X Y.", 0.0, False, False, {}
        seen, reward, over = self.pages.act(self, action)
        self.done.append(action)
        return seen, reward, over, False, {"is_success": reward > 0}


class ChromiumPage:
    """A page of MiniWoB++ in Chromium.

    Args:
        task: its name.
        chromium, chromedriver: where the programs are.
    """

    def __init__(self, task: str, chromium: str, chromedriver: str) -> None:
        from miniwob.environment import MiniWoBEnvironment

        os.environ["MINIWOB_CHROME_BINARY"], os.environ["MINIWOB_CHROMEDRIVER"] = chromium, chromedriver
        self.environment = MiniWoBEnvironment(task)
        driver = self.environment.instance.driver
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*", "ws://*", "wss://*", "ftp://*"]})
        driver.execute_script(f"core.EPISODE_MAX_TIME = {NEVER};")

    def open(self, seed: int) -> str:
        """Begin an episode."""
        seen, _ = self.environment.reset(seed=seed, options={"record_screenshots": False})
        return f"{seen['utterance']}\n{listed(seen['dom_elements'])}"

    def act(self, action: Action) -> Shown:
        """Do it, if the element is there."""
        from miniwob.action import ActionTypes

        what, given = action
        if what in ("click", "type"):
            ref = given if what == "click" else given[0]
            if not self._there(ref):
                return f"There is no element {ref}.\n{self._seen()}", 0.0, False
        make = self.environment.create_action
        if what == "click":
            asked = make(ActionTypes.CLICK_ELEMENT, ref=given)
        elif what == "type":
            asked = make(ActionTypes.FOCUS_ELEMENT_AND_TYPE_TEXT, ref=given[0], text=given[1])
        elif what == "key":
            asked = make(ActionTypes.PRESS_KEY, key=self.environment.action_space_config.allowed_keys.index(f"<{given}>"))
        else:
            asked = make(ActionTypes.CLICK_COORDS, coords=[min(float(x), edge - 1.0) for x, edge in zip(given, self._size(), strict=True)])
        seen, _, over, _, info = self.environment.step(asked)
        reward = float(info["raw_reward"]) if over else 0.0
        if not math.isfinite(reward):
            raise TypeError("the page's reward is no finite number")
        return listed(seen["dom_elements"]), max(-1.0, min(1.0, reward)), bool(over)

    def _size(self) -> tuple[float, float]:
        space = self.environment.action_space_config
        return space.screen_width, space.screen_height

    def _seen(self) -> str:
        seen, _ = self.environment.instance.get_observation(use_cached_fields=True)
        return listed(seen["dom_elements"])

    def _there(self, ref: int) -> bool:
        seen, _ = self.environment.instance.get_observation(use_cached_fields=True)
        return any(int(each["ref"]) == ref for each in seen["dom_elements"])

    def kill(self) -> None:
        """End the browser and its driver; one that hangs is ended by its process."""
        driver = self.environment.instance.driver
        try:
            within(PATIENCE, driver.quit)
        except Exception:
            driver.service.process.kill()


class WebPages(GymnasiumText):
    """A task of MiniWoB++ and its knobs.

    Args:
        task: its name, for example ``click-button``.
        browsers: Chromium processes at most; each takes some 200 MB.
        chromium, chromedriver: the programs, where they are not on the path.
        turns, chat, patience, max_prompt_tokens, max_new_tokens, validation_share: as for
            :class:`~rheostat.tasks.language.gymnasium_text.GymnasiumText`.
        rules: stand before every opening.

    Raises:
        MissingExtra: MiniWoB++ is not installed.
        RheostatError: an unknown task, one that cannot be repeated, no Chromium, or knobs that make no task.
    """

    def __init__(
        self,
        task: str,
        *,
        browsers: int = 2,
        chromium: str = "chromium",
        chromedriver: str = "chromedriver",
        turns: int = 10,
        chat: bool = False,
        rules: str = RULES,
        patience: float = 60.0,
        max_prompt_tokens: int = 1024,
        max_new_tokens: int = 32,
        validation_share: float = 0.2,
    ) -> None:
        repeatable(task)
        if not 1 <= browsers <= 64:
            raise RheostatError(f"{WEB}{task} takes 1 to 64 browsers; got {browsers}.")
        programs = program("chromium", chromium), program("chromedriver", chromedriver)
        self.pages = Pages(lambda: ChromiumPage(task, *programs), browsers)
        atexit.register(self.pages.close)
        limits: dict[str, Any] = {"max_prompt_tokens": max_prompt_tokens, "max_new_tokens": max_new_tokens}
        limits |= {"turns": turns, "patience": patience, "validation_share": validation_share}
        super().__init__(lambda: Visit(self.pages), chat=chat, rules=rules, **limits)
        self.name = WEB + task


def repeatable(task: str) -> None:
    """Refuse a task that MiniWoB++ does not have, or whose pages remember earlier episodes.

    Raises:
        MissingExtra: MiniWoB++ is not installed.
        RheostatError: see above.
    """
    try:
        import miniwob  # noqa: F401  # registers its tasks
    except ImportError as error:
        raise MissingExtra("miniwob", "miniwob", "MiniWoB++") from error
    import gymnasium

    known = {name.removeprefix("miniwob/").removesuffix("-v1"): spec for name, spec in gymnasium.registry.items() if "miniwob/" in name}
    if task not in known:
        raise unknown("task of MiniWoB++", task, known)
    if known[task].nondeterministic:
        raise RheostatError(
            f"The pages of {WEB}{task} remember earlier episodes, so that its conversations cannot be repeated: take another task."
        )


def program(what: str, name: str) -> str:
    """Where a program is.

    Raises:
        RheostatError: it is not there.
    """
    found = shutil.which(name)
    if found is None:
        raise RheostatError(
            f"MiniWoB++ needs {what}, and {name!r} is no program on the path: install it, or name it (--environment {what} PATH)."
        )
    return found


def action_of(said: str) -> Action | None:
    """The action in a turn of the policy, which is hostile: its last line that is not empty; None if that is no action."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    found = ACTION.fullmatch(lines[-1]) if lines else None
    if found is None:
        return None
    if found["what"]:
        return "click", int(found["ref"])
    if found["types"]:
        return "type", (int(found["into"]), found["text"])
    return ("key", found["key"]) if found["key"] else ("at", (int(found["x"]), int(found["y"])))


def listed(elements: Iterable[Mapping[str, Any]]) -> str:
    """What stands on a page: a line for every element that can be used or has a text."""
    lines = []
    for each in elements:
        text, value = (" ".join(str(each[name]).split()) for name in ("text", "value"))
        if each["tag"] in SILENT and not text:
            continue
        named = f" ({each['id']})" if each["id"] and not text else ""
        lines.append(f"{int(each['ref'])} {each['tag']}{named}{f' {text}' if text else ''}{f' = {value}' if value else ''}")
    return "\n".join(lines)
