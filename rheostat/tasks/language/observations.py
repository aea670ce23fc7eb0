"""The text of an environment as token ids: tokenised once, and appended to the policy's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rheostat.errors import RheostatError
from rheostat.tasks.language.task_interface import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "rheostat turn"


class Observations:
    """Encodes observations.

    After a prompt of text, an observation is its plain text. After chat messages it is a message of the user's in the model's chat
    template: the end of the assistant's turn, the message, and the header of the next answer.

    Args:
        tokenizer: of the policy.
        options: of the chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: dict[str, Any] | None = None) -> None:
        self.tokenizer, self.options = tokenizer, dict(options or {})

    def encode(self, text: str, prompt: Prompt, last: int | None) -> list[int]:
        """Token ids of an observation.

        Args:
            text: of the environment.
            prompt: that opened the conversation.
            last: the policy's last token; where it has closed its turn itself, the turn is not closed again.

        Raises:
            RheostatError: text that the tokenizer or the chat template cannot encode.
        """
        try:
            if isinstance(prompt.content, str):
                return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            ids = list(self.tokenizer(self._message(text, prompt), add_special_tokens=False)["input_ids"])
        except Exception as error:  # a tokenizer may raise a bare Exception, a template anything
            raise RheostatError(f"what the environment said cannot be encoded: {' '.join(str(error).split())}") from error
        return ids[1:] if ids and ids[0] == last else ids

    def _message(self, text: str, prompt: Prompt) -> str:
        options = self.options | dict(prompt.columns.get("chat_template_kwargs") or {})
        chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": MARK}, {"role": "user", "content": text}]
        render: Any = self.tokenizer.apply_chat_template  # its declared type covers every call
        return str(render(chat, tokenize=False, add_generation_prompt=True, **options)).partition(MARK)[2]
