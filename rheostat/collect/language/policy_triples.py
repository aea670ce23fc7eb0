"""Triples for a policy discriminator: a reference answer and two candidates, of which one is nearer to it (POLAR, arXiv 2507.05197).

Before labels exist, the reference and one candidate are two different samples of one policy and the other candidate is another policy's:
the task is to tell who wrote an answer (:class:`ZooTriples`). With labels, the reference is the best answer, and two others are ordered
(:class:`RankedTriples`). Both become rows of pairs: a candidate is the completion, all before it is the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch

from rheostat.collect.language.experts import written_rows
from rheostat.collect.language.language_collectors import batch_of
from rheostat.collect.language.pairs import Pairs, answers_of
from rheostat.collect.language.prompt_groups import Graded
from rheostat.collect.language.referenced import COLUMN, Form, ReferenceReader, reference_of
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.streams import derive_seed
from rheostat.tasks.language.preference_rows import triples_of
from rheostat.tasks.language.task_interface import VALIDATION_SEED, Prompt
from rheostat.trajectories import Source

Drawn = list[tuple[Prompt, list[int]]]


@dataclass(frozen=True)
class Triples(Pairs):
    """The next prompts with a reference and two candidates (a collector)."""

    separator: str = option("")
    """The token between both halves of a row; empty is that of the starting model where it has one, else its beginning token. A run that
    begins with the weights of another one (--from-run) must be given it again."""
    join: str = option("")
    r"""What stands between a prompt and an answer; empty is nothing, or what the starting model has."""
    writes: ClassVar[tuple[str, ...]] = ("chosen",)
    single_turn: ClassVar[str] = "the candidates of a triple are one completion"

    def bind(self, context: Any) -> None:
        """Say with the model's head how rows are written, and look at every row of a file.

        Raises:
            RheostatError: tokens that the tokenizer does not have, other ones than the starting model learned with, or a row that makes no
                triple.
        """
        setup = context.setup
        for _, prompt in getattr(setup.task, "named", ()):
            told(self.triple(prompt, VALIDATION_SEED, 0))
        form = self.form(setup.policy, setup.max_new_tokens)
        ReferenceReader(form, setup.policy, setup.encoder.template_options)
        setup.policy.value_head.form = form.to_text()

    def form(self, policy: Any, longest_answer: int) -> Form:
        """How rows are written.

        Raises:
            RheostatError: another separator or join than the starting model learned with, or none that can be taken.
        """
        tokenizer, before = policy.tokenizer, Form.of(policy)
        if before is None:
            separator = self.separator or tokenizer.bos_token
            if not separator or (not self.separator and separator == tokenizer.eos_token):
                raise RheostatError("The tokenizer has no beginning token of its own that could separate two answers: name a --separator.")
            return Form(separator, tokenizer.eos_token, self.join, longest_answer)
        for name in ("separator", "join"):
            given, known = getattr(self, name), getattr(before, name)
            if given and given != known:
                raise RheostatError(f"The starting model reads rows with the {name} {known!r}, not {given!r}: leave {name} out.")
        return replace(before, longest_answer=longest_answer)

    def collect(self, context: Any) -> Batch:
        """``[2 * pairs, T]``: the nearer and the other candidate in turn, column ``chosen`` bool ``[B]``."""
        collector = context.collector
        drawn, numbers = collector.draw(self.pairs)
        batch = self.rows_of(context, drawn, numbers, context.streams.seed)
        collector.generated_tokens += batch.rows.count()  # the budget counts the tokens that are learned from
        return batch

    def held_out(self, context: Any, drawn: Drawn, numbers: list[int]) -> Batch:
        """The same of held-out prompts; of several triples always the same one."""
        return self.rows_of(context, drawn, numbers, VALIDATION_SEED)

    def rows_of(self, context: Any, drawn: Drawn, numbers: list[int], seed: int) -> Batch:
        """Encoded prompts with a reference and two candidates each, as rows of source ANNOTATION.

        Raises:
            RheostatError: a prompt without them.
        """
        setup = context.setup
        form = Form.of(setup.policy)
        assert form is not None
        reader = ReferenceReader(form, setup.policy, setup.encoder.template_options)
        prompts = [self.triple(prompt, seed, number) for (prompt, _), number in zip(drawn, numbers, strict=True)]
        triples = [(prompt, *told(prompt)) for prompt in prompts]
        texts = [text for _, _, *candidates in triples for text in candidates]
        written = [reader.row(prompt, reference, text) for prompt, reference, *candidates in triples for text in candidates]
        units = torch.tensor(numbers).repeat_interleave(2)
        rows = written_rows(written, [True] * len(written), units.tolist(), setup.policy.pad_id, Source.ANNOTATION)
        ones, none = torch.ones(len(texts)), torch.zeros(len(texts), dtype=torch.bool)
        batch = batch_of(Graded(rows, [prompt for prompt in prompts for _ in range(2)], texts, Scores(ones, ones.bool(), none)))
        batch.units, batch.columns["chosen"] = units, torch.arange(len(texts)) % 2 == 0
        batch.metrics = {"completion_length": rows.mask.sum(1).float().mean().item()}
        return batch

    def triple(self, prompt: Prompt, seed: int, number: int) -> Prompt:
        """A prompt with the columns ``reference``, ``chosen`` and ``rejected``."""
        return prompt


@dataclass(frozen=True)
class ZooTriples(Triples):
    """Answers of a zoo of policies: reference and one candidate are of the same one, the other candidate is another one's."""

    kind: ClassVar[str] = "zoo"
    lesson: ClassVar[str] = "zoo"

    def triple(self, prompt: Prompt, seed: int, number: int) -> Prompt:
        """One of the prompt's triples, by its number in the run.

        Raises:
            RheostatError: it has none.
        """
        columns = prompt.columns
        if not {"completions", "policies"} <= set(columns):
            raise RheostatError(
                f"The prompt with key {prompt.key} has no answers of several policies: a zoo has the columns prompt, completions and "
                "policies."
            )
        answers = columns["completions"]
        found = triples_of(columns["policies"], answers)
        if not found:
            raise RheostatError(f"The prompt with key {prompt.key} has no two different answers of one policy and a third of another one.")
        draw = np.random.default_rng(derive_seed(seed, "triple", number))
        places = found[int(draw.integers(len(found)))]
        chosen = dict(zip((COLUMN, "chosen", "rejected"), (answers[place] for place in places), strict=True))
        return replace(prompt, columns={**columns, **chosen})


@dataclass(frozen=True)
class RankedTriples(Triples):
    """Ranked answers: the best one is the reference, and of two others one is better."""

    kind: ClassVar[str] = "ranked"
    lesson: ClassVar[str] = "references"


def told(prompt: Prompt) -> tuple[str, str, str]:
    """The reference, the chosen and the rejected answer of a prompt's row.

    Raises:
        RheostatError: one is missing, or both candidates are the same.
    """
    return reference_of(prompt.columns, f"The prompt with key {prompt.key}"), *answers_of(prompt)
