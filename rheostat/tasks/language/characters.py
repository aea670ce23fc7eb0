"""Characters as tokens: the vocabulary of the tiny tasks, as an ordinary Hugging Face tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rheostat.errors import RheostatError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
ARITHMETIC = "0123456789+-*=;#?:"
"""With pad, bos and eos: 21 symbols. One vocabulary for all arithmetic tasks, so that their base models are interchangeable."""


def character_tokenizer(symbols: str = ARITHMETIC) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are single characters, numbered after pad (0), bos (1) and eos (2); it adds no special tokens itself.

    Raises:
        RheostatError: repeated or no symbols.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if not symbols or len(set(symbols)) != len(symbols):
        raise RheostatError(f"The symbols of a character tokenizer must be different characters, at least one; got {symbols!r}.")
    vocabulary = {token: number for number, token in enumerate([PAD, BOS, EOS, *symbols])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, padding_side="left", clean_up_tokenization_spaces=False
    )
