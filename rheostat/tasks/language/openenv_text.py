"""``openenv:URL``: environments of OpenEnv, behind a server, as a task of several turns.

``ws://HOST:PORT`` (or ``wss``) speaks the session protocol of openenv-core 0.3: one connection to ``/ws`` is one episode, with messages
``{"type": "reset", "data": {"seed": 3}}``, ``{"type": "step", "data": ACTION}`` and ``{"type": "close"}``; it takes the extra ``openenv``.
``http://HOST:PORT`` (or ``https``) posts to ``/reset`` and ``/step``. OpenEnv's own server makes a new environment for every request over
HTTP, so that serves episodes of one step there; a server that keeps episodes finds theirs by the ``episode_id`` that every request carries.

An action is ``{says: TEXT}``, the policy's turn under the name of the environment's field. What the policy reads is the field ``shows`` of
the observation; where an observation has one field of text, it needs no name. ``done`` ends an episode; newer servers say ``terminated``
and ``truncated``. A prompt is the opening of a seed, and the environment must be a function of its seed and of the actions.

A server that is away, answers with an error, with no JSON or with no text ends a conversation as failed, with the reason; see
:mod:`rheostat.tasks.language.gymnasium_text`, whose ``patience`` is the limit on every answer.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rheostat.credit.verifiers.verifier_interface import number_of
from rheostat.errors import MissingExtra, RheostatError
from rheostat.tasks.language.gymnasium_text import GymnasiumText, named

PREFIX = "openenv:"
SCHEMES = ("http", "https", "ws", "wss")


class OpenEnvText(GymnasiumText):
    """Conversations with an environment behind a server of OpenEnv's interface.

    Args:
        url: of the server.
        says: field of an action that holds the policy's turn.
        shows: field of an observation that the policy reads; empty: its only text.
        turns: of the policy, after which a conversation is truncated.
        chat: open with a chat message instead of plain text.
        rules: stands before every opening.
        patience: seconds that one answer of the server may take.
        max_prompt_tokens, max_new_tokens: default limits; new tokens are of one turn.
        validation_share: share of all seeds set aside for validation.

    Raises:
        RheostatError: no address of a server, or limits that are none; MissingExtra: ``ws`` without the package websockets.
    """

    def __init__(
        self,
        url: str,
        *,
        says: str = "message",
        shows: str = "",
        turns: int = 15,
        chat: bool = False,
        rules: str = "",
        patience: float = 30.0,
        max_prompt_tokens: int = 1024,
        max_new_tokens: int = 64,
        validation_share: float = 0.2,
    ) -> None:
        address = urlsplit(url)
        if address.scheme not in SCHEMES or not address.netloc:
            raise RheostatError(
                f"{url!r} is no address of a server: openenv: takes one such as http://localhost:8000 or ws://localhost:8000."
            )
        if not says:
            raise RheostatError("An action of OpenEnv holds the policy's turn in a field with a name: set says.")
        session: Any = HTTPSession
        if address.scheme.startswith("ws"):
            socket_client()  # refuse a missing package now
            session = SocketSession
        make = named(partial(SpeakingServer, session, url.rstrip("/"), says, shows, patience), PREFIX + url)
        super().__init__(
            make,
            turns=turns,
            chat=chat,
            rules=rules,
            patience=2 * patience,  # of a call; the server has its own limit, which ends what waits for it
            max_prompt_tokens=max_prompt_tokens,
            max_new_tokens=max_new_tokens,
            validation_share=validation_share,
        )


class SpeakingServer:
    """An environment behind a server, with Gymnasium's interface.

    Args:
        session: makes the connection.
        url: of the server.
        says, shows: fields of actions and observations.
        patience: seconds that an answer may take.
    """

    def __init__(self, session: Any, url: str, says: str, shows: str, patience: float) -> None:
        self.session, self.says, self.shows = session(url, patience), says, shows

    def reset(self, seed: int) -> tuple[str, dict[str, Any]]:
        """Begin an episode; returns its opening."""
        return self.text(self.session.ask("reset", {"seed": seed})), {}

    def step(self, text: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """One action."""
        found = self.session.ask("step", {self.says: text})
        terminated, truncated = found.get("terminated", found.get("done", False)), found.get("truncated", False)
        over = bool(terminated) or bool(truncated)
        reward = found.get("reward")
        number = 0.0 if reward is None else number_of(reward)
        if number is None:
            raise TypeError(f"the server answered with the reward {str(reward)[:40]!r}, which is no number")
        return self.text(found, needed=not over), number, bool(terminated), bool(truncated), {}

    def text(self, found: dict[str, Any], *, needed: bool = True) -> str:
        """What the policy reads of an answer; an episode that is over needs to show nothing.

        Raises:
            TypeError: no observation, or no text in it.
        """
        shown = found.get("observation")
        if not isinstance(shown, dict):
            raise TypeError("the server answered without an observation")
        texts = [name for name, value in shown.items() if isinstance(value, str)]
        name = self.shows or (texts[0] if len(texts) == 1 else "")
        if isinstance(shown.get(name), str):
            return str(shown[name])
        if not needed:
            return ""
        if self.shows:
            raise TypeError(f"the observation has no text in its field {self.shows!r}; it has text in {', '.join(texts) or 'none'}")
        raise TypeError(f"the observation has text in {', '.join(texts) or 'no field'}: say with shows which field the policy reads")

    def close(self) -> None:
        """End the session."""
        self.session.close()

    def __del__(self) -> None:
        """A conversation that was cut leaves no session behind."""
        with suppress(Exception):
            self.close()


class HTTPSession:
    """An episode by requests.

    Args:
        url: of the server.
        patience: seconds that an answer may take.
    """

    def __init__(self, url: str, patience: float) -> None:
        self.url, self.patience, self.episode = url, patience, uuid.uuid4().hex

    def ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """The answer to a reset or a step.

        Raises:
            OSError: no answer, or an error. TypeError: the answer is no JSON object.
        """
        body = {"episode_id": self.episode} | (data if kind == "reset" else {"action": data})
        request = Request(f"{self.url}/{kind}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST")
        try:
            with urlopen(request, timeout=self.patience) as answer:
                return object_of(answer.read())
        except HTTPError as error:
            raise OSError(f"the server answered {kind} with the status {error.code}") from error
        except TimeoutError as error:
            raise TimeoutError(f"the server did not answer within {self.patience:g} s") from error
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise TimeoutError(f"the server did not answer within {self.patience:g} s") from error
            raise OSError(f"the server {self.url} is away: {error.reason}") from error

    def close(self) -> None:
        """Nothing is held."""


class SocketSession:
    """An episode by a connection of its own.

    Args:
        url: of the server.
        patience: seconds that an answer may take.

    Raises:
        OSError: the server is away.
    """

    def __init__(self, url: str, patience: float) -> None:
        self.patience = patience
        try:
            self.connection = socket_client().connect(f"{url}/ws", open_timeout=patience, max_size=None)
        except (OSError, TimeoutError) as error:
            raise OSError(f"the server {url} is away: {error}") from error

    def ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """The answer to a reset or a step.

        Raises:
            OSError: no answer, or an error. TypeError: the answer is no JSON object.
        """
        self.connection.send(json.dumps({"type": kind, "data": data}))
        try:
            found = object_of(self.connection.recv(timeout=self.patience))
        except TimeoutError as error:
            raise TimeoutError(f"the server did not answer within {self.patience:g} s") from error
        told = found.get("data")
        if found.get("type") != "observation" or not isinstance(told, dict):
            reason = told.get("message", "") if isinstance(told, dict) else ""
            raise OSError(f"the server answered {kind} with {str(found.get('type'))[:40]!r}: {str(reason)[:200]}".rstrip(": "))
        return told

    def close(self) -> None:
        """Say goodbye."""
        self.connection.send(json.dumps({"type": "close"}))
        self.connection.close()


def object_of(answer: str | bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        TypeError: it is none.
    """
    try:
        found = json.loads(answer)
    except ValueError as error:
        raise TypeError("the server answered with what is no JSON") from error
    if not isinstance(found, dict):
        raise TypeError("the server answered with JSON that is no object")
    return found


def socket_client() -> Any:
    """The client of the package websockets.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from websockets.sync import client
    except ImportError as error:
        raise MissingExtra("websockets", "openenv", "Sessions with OpenEnv servers (ws://)") from error
    return client
