"""The end of a completion: an end token or a stop string."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.errors import RheostatError


class Stopping:
    """Finds rows that have just ended.

    A stop string can only be complete at a token whose text holds its last character, so decoding (the slow part) is done for the few
    rows that just drew such a token. Text is decoded without special tokens; a stop string that *is* a special token
    (``<|im_end|>``) acts as its id.

    Args:
        stop_ids: end tokens.
        stop_strings: texts.
        vocabulary: number of token ids.
        tokenizer: needed for stop strings.
        device: of the tokens.

    Raises:
        RheostatError: an end token outside the vocabulary, or stop strings without a tokenizer.
    """

    def __init__(
        self, stop_ids: tuple[int, ...], stop_strings: tuple[str, ...], vocabulary: int, tokenizer: Any | None, device: torch.device
    ) -> None:
        outside = [token for token in stop_ids if not 0 <= token < vocabulary]
        if outside:
            raise RheostatError(f"The stop ids {outside} are outside the model's vocabulary of {vocabulary}.")
        if stop_strings and tokenizer is None:
            raise RheostatError("Stop strings need a tokenizer: give the policy one, or stop by token ids.")
        special: dict[str, int] = {}
        if stop_strings and tokenizer is not None:
            special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self._ends = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        self._ends[[*stop_ids, *(special[text] for text in stop_strings if text in special)]] = True
        stop_strings = tuple(text for text in stop_strings if text not in special)
        self._strings, self._tokenizer = stop_strings, tokenizer
        self._tail = 8 + 4 * max((len(text) for text in stop_strings), default=0)  # tokens: a character has at most four bytes
        self._may_complete = self._candidates(vocabulary, device) if stop_strings else None

    def _text(self, ids: list[int]) -> str:
        assert self._tokenizer is not None
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _candidates(self, vocabulary: int, device: torch.device) -> Tensor:
        last = {text[-1] for text in self._strings}
        if any(character.isspace() for character in last):  # some tokenizers drop a space at the edge of what they decode
            return torch.ones(vocabulary, dtype=torch.bool, device=device)
        texts = [self._text([token]) for token in range(vocabulary)]
        # a character outside ASCII may be spread over several tokens, which then decode to the replacement character
        return torch.tensor([bool(last & set(text)) or "\ufffd" in text for text in texts], device=device)

    def __call__(self, tokens: Tensor, written: Tensor, rows: Tensor, step: int) -> Tensor:
        """Which of the live rows end with the token they just drew.

        Args:
            tokens: ``[n]`` just drawn.
            written: ``[N, R]`` all tokens so far, those just drawn included.
            rows: ``[n]`` row of ``written`` of each token.
            step: column of the tokens just drawn.

        Returns:
            ``[n]`` bool.
        """
        over = self._ends[tokens]
        if self._may_complete is not None:
            for index in (self._may_complete[tokens] & ~over).nonzero()[:, 0].tolist():
                text = self._text(written[rows[index], max(0, step + 1 - self._tail) : step + 1].tolist())
                over[index] = any(string in text for string in self._strings)
        return over
