"""From prompts to token ids: chat templates, and prompts that are too long (an error or a counted drop, never a silent cut)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rheostat.errors import RheostatError
from rheostat.tasks.language.interface import Prompt, PromptStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OnLong = Literal["error", "drop"]
BARREN_DRAWS = 1_000
"""Prompts in a row that may be dropped before drawing on is hopeless."""


def encode_prompt(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, template_options: dict[str, Any] | None = None) -> list[int]:
    """Token ids of one prompt: chat messages through the tokenizer's chat template (with the opening of the answer), text as it is.

    Text gets whatever special tokens the tokenizer adds by itself (a bos, for many models); a template brings its own.

    Raises:
        RheostatError: chat messages without a chat template, characters the tokenizer does not know, or an empty result.
    """
    if isinstance(prompt.content, str):
        try:
            ids = list(tokenizer(prompt.content)["input_ids"])
        except Exception as error:  # a tokenizer without an unknown token raises a bare Exception
            raise RheostatError(f"The tokenizer cannot encode the prompt {_short(prompt.content)}: {error}.") from error
    else:
        if not getattr(tokenizer, "chat_template", None):
            raise RheostatError(
                f"The prompt {_short(str(prompt.content))} is a list of chat messages, but the tokenizer has no chat template: "
                "use a chat model, set tokenizer.chat_template, or give the prompt as text."
            )
        ids = list(
            tokenizer.apply_chat_template(
                prompt.content, add_generation_prompt=True, tokenize=True, return_dict=False, **(template_options or {})
            )
        )
    if not ids:
        raise RheostatError(f"The prompt {_short(str(prompt.content))} (key {prompt.key}) has no tokens: remove it.")
    return ids


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
                f"{self.max_tokens}: raise the prompt limit, or choose to drop prompts that are too long."
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
        """Go on counting."""
        self.dropped = int(state["dropped"])


def _short(text: str, width: int = 60) -> str:
    return repr(text if len(text) <= width else text[: width - 3] + "...")
