"""Files of expert rows and the models that read them: the report of ``rheostat corpus``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rheostat.analysis.corpus import CorpusFacts, facts_of, latent_shift, mean_token_entropy
from rheostat.collect.language.experts import encoded_answer, token_rows
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language.base_models import base_models, build_base_model
from rheostat.tasks.language.demonstrations import Demonstrations, read_demonstrations
from rheostat.tasks.language.encoding import Turn, encode_prompt
from rheostat.training.run import Run
from rheostat.training.untrained import is_run

ROWS_AT_ONCE = 32

Tokens = tuple[list[int], list[int]]
"""Ids of a prompt and of its answer."""


def corpus_facts(files: Sequence[str | Path], model: str | Path | None = None, after: str | Path | None = None) -> list[CorpusFacts]:
    """What can be told of files of expert rows.

    Args:
        files: that :func:`~rheostat.tasks.language.demonstrations.read_demonstrations` reads.
        model: under which the entropy is measured and whose tokens are counted: the one that wrote the answers, or a student; a run's
            directory, a Hugging Face folder or hub name, or a base-model recipe. Without it characters are counted.
        after: the same student after training, for the latent shift.

    Raises:
        RheostatError: no such file or model, ``after`` without ``model``, a run of control, or rows that a model cannot read.
    """
    if after is not None and model is None:
        raise RheostatError("A latent shift is between two models: name the one before as well (--model).")
    read = [read_demonstrations(file) for file in files]  # a broken file is refused before a model is loaded
    first = None if model is None else policy_of(model)
    second = None if after is None else policy_of(after)
    if first is not None and second is not None and first.tokenizer.get_vocab() != second.tokenizer.get_vocab():
        raise RheostatError(f"{model} and {after} have different tokens, so they cannot be compared: name a model and what became of it.")
    return [_facts(rows, first, second) for rows in read]


def policy_of(model: str | Path) -> LanguagePolicy:
    """A language model by the name of a run's directory, a folder, a hub name or a base-model recipe.

    Raises:
        RheostatError: there is none, or it is a run of control.
    """
    if is_run(Path(model)):
        run = Run.load(Path(model))
        try:
            if table.entry(run.settings.method).domain != "language":
                raise RheostatError(f"{model} trained a control policy, which reads no text.")
            policy: LanguagePolicy = run.method.policy
            return policy
        finally:
            run.close()
    known = str(model) in base_models()
    return LanguagePolicy.load(build_base_model(str(model), progress=False) if known else model)


def _facts(rows: Demonstrations, model: LanguagePolicy | None, after: LanguagePolicy | None) -> CorpusFacts:
    questions = [row.key for row in rows.rows]
    if model is None:
        return facts_of(rows.name, questions, [row.columns["completion"] for row in rows.rows], "characters")
    encoded = encode(rows, model)
    shift = None if after is None else latent_shift(pooled(model, encoded), pooled(after, encoded))
    return facts_of(rows.name, questions, [answer for _, answer in encoded], "tokens", entropy=entropy_of(model, encoded), shift=shift)


def encode(rows: Demonstrations, model: LanguagePolicy) -> list[Tokens]:
    """Every row in a model's tokens.

    Raises:
        RheostatError: a row that the tokenizer cannot encode, or longer than the model has positions.
    """
    tokenizer = model.tokenizer
    turn = Turn(tokenizer)
    found = []
    for where, row in zip(rows.places, rows.rows, strict=True):
        text = row.columns["completion"]
        try:
            answer = encoded_answer(tokenizer, turn, row, text, cut=text.cut)
        except Exception as error:  # a tokenizer without an unknown token raises a bare Exception
            raise RheostatError(f"{where} has a completion that the tokenizer cannot encode: {error}.") from error
        prompt = encode_prompt(row, tokenizer)
        if model.longest is not None and len(prompt) + len(answer) > model.longest:
            raise RheostatError(f"{where} has {len(prompt) + len(answer)} tokens, and the model reads {model.longest}: shorten it.")
        found.append((prompt, answer))
    return found


def _batches(model: LanguagePolicy, rows: list[Tokens]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tokens, attention and the mask of answers, ``[B, T]`` each."""
    for first in range(0, len(rows), ROWS_AT_ONCE):
        action, attention, mask, _ = token_rows(rows[first : first + ROWS_AT_ONCE], model.pad_id)
        yield action.to(model.device), attention.to(model.device), mask.to(model.device)


@torch.no_grad()
def entropy_of(model: LanguagePolicy, rows: list[Tokens]) -> float:
    """Nats per token of the answers, at temperature 1."""
    parts = []
    for action, attention, mask in _batches(model, rows):
        entropy = model.score(action, attention, mask, entropy=True).entropy
        assert entropy is not None
        parts.append(entropy[mask])
    every = torch.cat(parts).double()
    return float(mean_token_entropy(every, torch.ones_like(every, dtype=torch.bool)))


@torch.no_grad()
def pooled(model: LanguagePolicy, rows: list[Tokens]) -> Tensor:
    """The mean of the final hidden states over every answer, ``[N, C]``."""
    found = []
    for action, attention, mask in _batches(model, rows):
        states = model.hidden_states(action, attention, mask).float()
        found += [part.mean(0) for part in states.split(mask.sum(1).tolist())]
    return torch.stack(found)
