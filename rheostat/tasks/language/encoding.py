"""From prompts to token ids: chat templates, and prompts that are too long (an error or a counted drop, never a silent cut)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from rheostat.errors import RheostatError
from rheostat.tasks.language.task_interface import Prompt, PromptStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OnLong = Literal["error", "drop"]
BARREN_DRAWS = 1_000
"""Prompts in a row that may be dropped before the stream counts as exhausted."""


def encode_prompt(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, template_options: dict[str, Any] | None = None) -> list[int]:
    """Token ids of one prompt: chat messages through the tokenizer's chat template (with the opening of the answer), text as it is.

    Text gets the tokenizer's own prefix (a bos, for many models), once, also where the text begins with it already; never its suffix
    (an end of sequence would end the answer before it began). A template has its own. The row's columns ``tools``
    and ``chat_template_kwargs`` go to the template.

    Raises:
        RheostatError: chat messages without a chat template or refused by it, tools that the template does not show to the model,
            characters the tokenizer does not know, or an empty result.
    """
    if isinstance(prompt.content, str):
        for name in ("tools", "chat_template_kwargs"):
            if prompt.columns.get(name):
                raise RheostatError(f"The prompt {_short(prompt.content)} is text but has {name!r}, which only a chat template reads.")
        ids = _encode_text(prompt.content, tokenizer)
    else:
        ids = _encode_chat(prompt, tokenizer, template_options or {})
    if not ids:
        raise RheostatError(f"The prompt {_short(str(prompt.content))} (key {prompt.key}) has no tokens: remove it.")
    return ids


def _encode_text(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    try:
        plain, full = (list(tokenizer(text, add_special_tokens=special)["input_ids"]) for special in (False, True))
    except Exception as error:  # a tokenizer without an unknown token raises a bare Exception
        raise RheostatError(f"The tokenizer cannot encode the prompt {_short(text)}: {error}.") from error
    start = next((place for place in range(len(full) - len(plain) + 1) if full[place : place + len(plain)] == plain), None)
    if start is None:  # not the plain ids with something around them
        return full
    return plain if plain[:start] == full[:start] else full[:start] + plain


def _encode_chat(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any]) -> list[int]:
    shown = _short(str(prompt.content))
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise RheostatError(
            f"The prompt {shown} is a list of chat messages, but the tokenizer has no chat template: "
            "use a chat model, set tokenizer.chat_template, or give the prompt as text."
        )
    tools = prompt.columns.get("tools")
    if tools and not reads_tools(template):
        raise RheostatError(f"The prompt {shown} has tools, which the model's chat template does not show it: remove the column 'tools'.")
    options = options | dict(prompt.columns.get("chat_template_kwargs") or {}) | ({"tools": tools} if tools else {})
    render: Any = tokenizer.apply_chat_template  # its declared type covers every call
    try:
        return list(render(prompt.content, add_generation_prompt=True, tokenize=True, return_dict=False, **options))
    except Exception as error:  # a template may raise anything, and the tokenizer a bare Exception
        raise RheostatError(f"The chat template cannot render the prompt {shown}: {type(error).__name__}: {error}.") from error


def reads_tools(template: Any) -> bool:
    """Whether a chat template (or one of several by name) mentions tools."""
    return any("tools" in text for text in (template.values() if isinstance(template, dict) else [template]))


class Turn:
    """How a chat template writes the assistant's turn.

    Args:
        tokenizer: has the template; without one, every text ends with the tokenizer's end token.
        options: of the template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any] | None = None) -> None:
        self.end: int = tokenizer.eos_token_id
        """The token that closes the turn."""
        self.opening = ""
        """The text between the last message and the answer."""
        if not getattr(tokenizer, "chat_template", None):
            return
        mark, chat = "rheostat turn", [{"role": "user", "content": "?"}]
        try:
            closed, opened, plain = (
                str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asked, **(options or {})))
                for messages, asked in (([*chat, {"role": "assistant", "content": mark}], False), (chat, True), (chat, False))
            )
            after = tokenizer(closed.rpartition(mark)[2], add_special_tokens=False)["input_ids"] if mark in closed else []
        except Exception:  # encoding a row reports what a template refuses; a template that takes no such chat has no turn to learn from
            return
        self.opening = opened.removeprefix(plain) if opened.startswith(plain) else ""
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        self.end = next((token for token in after if token in special), self.end)

    def ends(self, prompt: Prompt) -> bool:
        """Whether the answer to this prompt is a turn: of chat messages, or of a text that was rendered by the template."""
        return not isinstance(prompt.content, str) or bool(self.opening.strip() and prompt.content.rstrip().endswith(self.opening.rstrip()))

    def continued(self, text: str) -> str:
        """A turn's text without the tag it begins with, where the opening has written that tag already (``<think>``)."""
        opened, begun = re.search(r"(<[^<>\s]+>)(\s*)$", self.opening), re.match(r"\s*(<[^<>\s]+>)", text)
        if opened is None or begun is None or opened[1] != begun[1]:
            return text
        rest = text[begun.end() :]
        return rest.lstrip("\n") if opened[2] else rest


class PromptEncoder:
    """Encodes prompts and enforces the length limit.

    Args:
        tokenizer: of the policy.
        max_tokens: longest prompt allowed, in tokens.
        on_long: ``"error"`` stops at the first prompt that is longer; ``"drop"`` leaves it out and counts it in ``dropped``.
        template_options: passed on to the chat template (for example ``{"enable_thinking": False}``).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        on_long: OnLong = "error",
        template_options: dict[str, Any] | None = None,
    ) -> None:
        if on_long not in ("error", "drop"):
            raise RheostatError(f"on_long says what happens to prompts that are too long: 'error' or 'drop', not {on_long!r}.")
        if max_tokens < 1:
            raise RheostatError(f"The longest prompt allowed must have at least one token, not {max_tokens}.")
        self.tokenizer, self.max_tokens, self.on_long = tokenizer, max_tokens, on_long
        self.template_options = template_options
        self.dropped = 0

    def encode(self, prompt: Prompt) -> list[int] | None:
        """Token ids, or None for a prompt dropped because it is too long.

        Raises:
            RheostatError: too long with ``on_long="error"``, or it cannot be encoded.
        """
        ids = encode_prompt(prompt, self.tokenizer, self.template_options)
        if len(ids) <= self.max_tokens:
            return ids
        if self.on_long == "error":
            raise RheostatError(
                f"The prompt {_short(str(prompt.content))} (key {prompt.key}) has {len(ids)} tokens, more than the limit of "
                f"{self.max_tokens}: raise the prompt limit, or leave such prompts out (--long drop)."
            )
        self.dropped += 1
        return None

    def take(self, stream: PromptStream, count: int) -> list[tuple[Prompt, list[int]]]:
        """The next ``count`` prompts of a stream that fit, with their token ids.

        Raises:
            RheostatError: too long with ``on_long="error"``, or a thousand prompts in a row were dropped.
        """
        kept: list[tuple[Prompt, list[int]]] = []
        barren = 0
        while len(kept) < count:
            for prompt in stream.take(count - len(kept)):
                ids = self.encode(prompt)
                barren = 0 if ids is not None else barren + 1
                if ids is not None:
                    kept.append((prompt, ids))
            if barren >= BARREN_DRAWS:
                raise RheostatError(f"{barren} prompts in a row were longer than {self.max_tokens} tokens: raise the prompt limit.")
        return kept

    def state_dict(self) -> dict[str, int]:
        """The number of prompts dropped so far."""
        return {"dropped": self.dropped}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue counting."""
        self.dropped = int(state["dropped"])


def _short(text: str, width: int = 60) -> str:
    return repr(text if len(text) <= width else text[: width - 3] + "...")
