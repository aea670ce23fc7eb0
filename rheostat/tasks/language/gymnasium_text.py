"""``gymnasium-text:ID``: environments of Gymnasium that speak, as a task of several turns.

Observations and actions are text: ``reset(seed=...)`` returns the opening, ``step(text)`` the next observation, a reward, ``terminated``
and ``truncated``. A prompt is the opening of a seed; members of its group play environments with the same seed. The environment must be a
function of its seed and of the actions, because unfinished conversations are replayed where a run is resumed.

The environment is the user's and may do anything. Where it raises, hangs, or returns what is no text or no number, its conversation fails
with the reason and the others go on. A call that hangs is waited for ``patience`` seconds; its thread cannot be ended and is left behind.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from rheostat.credit.verifiers.verifier_interface import Grade, number_of
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.guess_number import TurnByTurn
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split, content_key, is_validation
from rheostat.tasks.language.text_episodes import PROGRESS, Partners, Reply, Said

PREFIX = "gymnasium-text:"


class GymnasiumText(LanguageTask):
    """Conversations with environments that have Gymnasium's interface.

    Args:
        make: an environment, or the id of one that is registered with Gymnasium (``module:Name-v0`` imports the module).
        turns: of the policy, after which a conversation is truncated.
        chat: open with a chat message instead of plain text.
        rules: stands before every opening.
        patience: seconds that one call of the environment may take.
        max_prompt_tokens, max_new_tokens: default limits; new tokens are of one turn.
        validation_share: share of all seeds set aside for validation.

    Raises:
        RheostatError: an id that Gymnasium does not know, or limits that are none.
    """

    seeds_per_block = 16

    def __init__(
        self,
        make: str | Callable[[], Any],
        *,
        turns: int = 15,
        chat: bool = False,
        rules: str = "",
        patience: float = 30.0,
        max_prompt_tokens: int = 1024,
        max_new_tokens: int = 64,
        validation_share: float = 0.2,
    ) -> None:
        self.make = registered(make) if isinstance(make, str) else make
        self.name: str = PREFIX + make if isinstance(make, str) else getattr(make, "__name__", type(make).__name__)
        if not 1 <= turns <= 1024:
            raise RheostatError(f"A conversation of {self.name} takes 1 to 1024 turns; got {turns}.")
        if not 0 < patience < math.inf:
            raise RheostatError(f"The patience with {self.name} is seconds above 0; got {patience:g}.")
        if not 0 <= validation_share < 1:
            raise RheostatError(f"validation_share lies in [0, 1); got {validation_share}.")
        self.turns, self.chat, self.rules, self.patience = turns, chat, rules, patience
        self.validation_share, self.limits = validation_share, Limits(max_prompt_tokens, max_new_tokens)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Openings of the seeds of one draw, as far as they belong to the split.

        Raises:
            RheostatError: the environment cannot be made or reset, or its opening is no text.
        """
        rng = np.random.default_rng([derive_seed(seed, self.name, split), number])
        seeds = [int(each) for each in rng.integers(0, 2**31, self.seeds_per_block)]
        wanted = split == "validation"
        mine = [each for each in seeds if is_validation(content_key(f"{self.name} {each}"), self.validation_share) == wanted]
        return [self.prompt(each) for each in mine]

    def prompt(self, seed: int) -> Prompt:
        """The opening of a seed.

        Raises:
            RheostatError: see :meth:`block`.
        """
        try:
            environment, opening = self.open(seed)
        except Exception as error:
            told = " ".join(str(error).split()).rstrip(".")
            raise RheostatError(f"The environment {self.name!r} cannot begin with seed {seed}: {type(error).__name__}: {told}.") from error
        close(environment)
        text = f"{self.rules}\n\n{opening}" if self.rules else opening
        content: Any = [{"role": "user", "content": text}] if self.chat else text
        return Prompt(content, None, {"seed": seed, "opening": opening}, content_key(f"{self.name} {seed}"))

    def open(self, seed: int) -> tuple[Any, str]:
        """An environment and what it shows after its reset.

        Raises:
            Exception: whatever the environment raises; TimeoutError and TypeError from here.
        """

        def begin() -> tuple[Any, Any]:
            environment = self.make()
            return environment, environment.reset(seed=seed)[0]

        environment, shown = within(self.patience, begin)
        return environment, text_of(shown)

    def episodes(self) -> Partners:
        """An environment for every conversation."""
        return Partners(self.name, lambda prompt, _: Speaking(self, prompt), self.turns)

    def verifier(self) -> TurnByTurn:
        """The environment grades."""
        return TurnByTurn(self.name)


class Speaking:
    """One environment as a partner.

    Args:
        task: makes it.
        prompt: has its seed.

    Raises:
        Exception: the environment cannot begin; ValueError where it shows another opening than before.
    """

    def __init__(self, task: GymnasiumText, prompt: Prompt) -> None:
        self.task = task
        self.environment, opening = task.open(prompt.columns["seed"])
        if opening != prompt.columns["opening"]:
            raise ValueError("the environment opens the same seed with another text than before, so its conversations cannot be repeated")

    def reply(self, said: Said) -> Reply:
        """One step; the part ``won`` is what its info says about success."""
        found = within(self.task.patience, lambda: self.environment.step(said.text))
        if not isinstance(found, tuple) or len(found) != 5:
            raise TypeError("step returned no tuple of observation, reward, terminated, truncated and info")
        shown, reward, terminated, truncated, info = found
        number = number_of(reward)
        if number is None or not math.isfinite(number):
            raise TypeError("step returned a reward that is no finite number")
        success = number_of(info.get("is_success", info.get("success"))) if isinstance(info, dict) else None
        over = bool(terminated) or bool(truncated)
        parts = {} if success is None or not over else {"won": float(success > 0)}
        if self.task.knows_progress:
            parts[PROGRESS] = float(info["progress"])
        if over:
            close(self.environment)
        return Reply(text_of(shown), Grade(number, parts), bool(terminated), bool(truncated))


def named(make: partial[Any], name: str) -> partial[Any]:
    """A function that makes environments, under the name that sentences call them by."""
    make.__name__ = name  # type: ignore[attr-defined]
    return make


def close(environment: Any) -> None:
    """Let an environment release what it holds, if it can; what it raises then matters to nobody."""
    try:
        environment.close()
    except Exception:  # its conversation is over and graded
        return


def text_of(shown: Any) -> str:
    """What an environment shows.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(shown, str):
        raise TypeError(f"the environment showed a {type(shown).__name__}, which is no text")
    return str(shown)


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """The result of a call that may hang.

    Raises:
        TimeoutError: it took longer. Whatever the call raises, else.
    """
    found: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            found.append((call(), None))
        except BaseException as error:  # a SystemExit of the user's must not end the run
            found.append((None, error))

    thread = threading.Thread(target=run, daemon=True)  # what hangs does not keep the process alive
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError(f"the environment ran past its limit of {seconds:g} s")
    result, error = found[0]
    if isinstance(error, Exception):
        raise error
    if error is not None:
        raise RuntimeError(f"the environment raised {type(error).__name__}") from error
    return result


def registered(name: str) -> Callable[[], Any]:
    """A function that makes an environment that is registered with Gymnasium.

    Raises:
        RheostatError: unknown to Gymnasium, or its module cannot be imported.
    """
    import gymnasium

    module, _, own = name.rpartition(":")
    try:
        if module:
            import importlib

            importlib.import_module(module)
        spec = gymnasium.spec(own)
    except (ImportError, gymnasium.error.Error) as error:
        raise RheostatError(
            f"Gymnasium cannot find {name!r} ({' '.join(str(error).split())}): register the environment, and name it as MODULE:ID."
        ) from error
    return lambda: gymnasium.make(spec, disable_env_checker=True)
