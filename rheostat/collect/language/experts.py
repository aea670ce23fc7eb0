"""Demonstrations as trajectories: completions of an expert.

They come from the run's file of expert rows (:mod:`rheostat.tasks.language.demonstrations`), from the completion column of the prompts'
own rows, or from the task's expert, and are used in two ways: as members of the groups of drawn prompts (:func:`with_experts`), or as a
stream of their own in addition (:class:`ExpertStream`). Every token carries the source EXPERT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rheostat.collect.language.prompt_groups import Graded, LanguageSetup, PromptCollector, join
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.credit.verifiers.verifier_interface import Progress
from rheostat.errors import RheostatError
from rheostat.parts import Batch
from rheostat.streams import derive_seed
from rheostat.tasks.language.demonstrations import Completion, own_completion, short
from rheostat.tasks.language.encoding import Turn
from rheostat.tasks.language.task_interface import Prompt
from rheostat.tasks.language.text_episodes import grade
from rheostat.trajectories import Source, Trajectories, join_rows


def demonstrations(setup: LanguageSetup, prompt: Prompt, seed: int, number: int, count: int = 1) -> list[str]:
    """``count`` completions of an expert for a drawn prompt: rows of the run's file where it has one, else :func:`demonstration`.

    Args:
        setup: holds the file or the task.
        prompt: the drawn one.
        seed: of the run; with the prompt's number it decides which of several completions are taken.
        number: of the prompt in the run.
        count: how many; they repeat where there are fewer.

    Raises:
        RheostatError: the file has no row for the prompt, and the settings do not allow the task's expert.
    """
    experts = setup.experts
    if experts is not None:
        found = experts.chosen(prompt, seed, number, count)
        if found:
            return found
        if experts.missing == "error":
            raise RheostatError(
                f"{experts.name} has no row for the prompt {short(prompt)}, which the task draws: add one, draw only prompts that have "
                "one (expert_missing skip), or let the task's own expert step in (expert_missing task)."
            )
    return [demonstration(setup, prompt, seed, number * count + copy) for copy in range(count)]


def demonstration(setup: LanguageSetup, prompt: Prompt, seed: int, number: int) -> str:
    """The completion in the prompt's own row where there is one, else the completion of the task's expert.

    Raises:
        RheostatError: there is neither.
    """
    own = own_completion(prompt)
    if own is not None:
        return own
    return setup.task.expert(prompt, np.random.default_rng(derive_seed(seed, "expert", number)))


def with_experts(collector: PromptCollector, own: Graded, count: int, progress: Progress) -> Graded:
    """Groups that an expert has joined: ``count`` demonstrations below the policy's own completions of every prompt, graded like them.

    Args:
        collector: of ``own``; it counts the graded rows.
        own: the policy's completions, in whole groups.
        count: demonstrations per prompt.
        progress: of the training, for rewards that depend on it.

    Returns:
        The policy's rows, then the expert's, which carry the numbers of their groups. ``expert_reward`` joins the metrics.

    Raises:
        RheostatError: a prompt without a demonstration, or one that is empty or too long.
    """
    setup = collector.setup
    numbers = own.trajectories.group[:, 0].tolist()
    first = {number: row for row, number in reversed(list(enumerate(numbers)))}
    order = sorted(first, key=first.__getitem__)
    asked = [(number, own.prompts[first[number]]) for number in order]
    texts = [text for number, prompt in asked for text in demonstrations(setup, prompt, collector.seed, number, count)]
    prompts = [prompt for _, prompt in asked for _ in range(count)]
    encoded = [(prompt, setup.encoder.encode(prompt) or []) for prompt in prompts]
    rows = expert_rows(setup, encoded, texts, [number for number, _ in asked for _ in range(count)])
    written = [row[chosen].tolist() for row, chosen in zip(rows.action, rows.mask, strict=True)]
    texts, raws = setup.texts(written)  # in the form in which graders read the policy's completions
    cut = rows.truncated.any(1).tolist()
    rollouts = [
        prompt.rollout(text, ids, truncated=long, raw=raw)
        for prompt, text, ids, long, raw in zip(prompts, texts, written, cut, raws, strict=True)
    ]
    scores = grade(prompts, rollouts, setup.verifier, progress)
    rows.reward = reward_at_last_token(torch.where(scores.valid, scores.reward, torch.zeros(())), rows.mask)
    rows.valid = scores.valid[:, None].expand(rows.shape)
    joined = join([own, Graded(rows, prompts, texts, scores, {})], len(own.prompts) + len(prompts))
    assert joined is not None
    collector.graded_rows += len(prompts)
    known = scores.reward[scores.valid]
    joined.metrics = own.metrics | ({"expert_reward": known.mean().item()} if len(known) else {})
    return joined


class ExpertStream:
    """Expert rows in a stream of their own, independent of the policy's prompts: shuffled anew every epoch, with a cursor that can be
    saved.

    Without a file of expert rows the prompts are a second stream of the task's.

    Args:
        setup: holds the expert rows, or the task.
        seed: of the run.
    """

    def __init__(self, setup: LanguageSetup, seed: int) -> None:
        self.setup, self.seed = setup, derive_seed(seed, "experts")
        self.stream = setup.experts.stream(self.seed) if setup.experts is not None else setup.task.prompts("train", self.seed)

    def take(self, count: int) -> Trajectories:
        """The next ``count`` demonstrations, ``[count, T]``; each is a group of its own, numbered below 0.

        Raises:
            RheostatError: the task has no expert, or a demonstration is empty or too long.
        """
        first = self.stream.drawn
        drawn = self.setup.encoder.take(self.stream, count)
        texts = [demonstration(self.setup, prompt, self.seed, first + row) for row, (prompt, _) in enumerate(drawn)]
        return expert_rows(self.setup, drawn, texts, [-1 - first - row for row in range(count)])

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and the identity of its rows."""
        return {"cursor": self.stream.state_dict(), "digest": "" if self.setup.experts is None else self.setup.experts.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved cursor.

        Raises:
            RheostatError: the expert rows are not those of the saved run.
        """
        mine = self.state_dict()["digest"]
        if state.get("digest", mine) != mine:
            name = "the expert rows" if self.setup.experts is None else self.setup.experts.name
            raise RheostatError(f"The run was begun with other expert rows than {name} holds now: put the file back as it was.")
        self.stream.load_state_dict(state["cursor"])


class ExpertsBeside:
    """The next rows of a stream of expert rows below the policy's own (a retainer).

    Args:
        count: rows per batch.
    """

    uses_experts = True
    refuses: ClassVar[Mapping[str, str]] = {"expert_share": "it has expert rows beside the groups already"}

    def __init__(self, count: int) -> None:
        self.count = count
        self.stream: ExpertStream | None = None

    def bind(self, context: Any) -> None:
        """Begin the stream."""
        self.stream = ExpertStream(context.setup, context.streams.seed)

    def retain(self, context: Any, batch: Batch) -> Batch:
        """The batch with the expert rows joined below."""
        assert self.stream is not None
        return batch.with_rows(join_rows([batch.rows, self.stream.take(self.count)])) if self.count else batch

    def describe(self) -> dict[str, int | str]:
        """Derived numbers, for printing."""
        return {"expert rows per batch": self.count}

    def state_dict(self) -> dict[str, Any]:
        """The cursor of the stream."""
        assert self.stream is not None
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved cursor."""
        assert self.stream is not None
        self.stream.load_state_dict(state)


def expert_rows(setup: LanguageSetup, prompts: list[tuple[Prompt, list[int]]], texts: Sequence[str], numbers: list[int]) -> Trajectories:
    """Demonstrations as trajectories ``[N, T]`` of source EXPERT: the sampler's log-probability is unknown (NaN), the reward 0 for now.

    An answer in a chat ends with the token its template ends a turn with, other text with the tokenizer's end token, and text that was cut
    with nothing. A tag that the template has opened already (``<think>``) is not opened again.

    Raises:
        RheostatError: an empty demonstration, or one longer than completions may be.
    """
    tokenizer = setup.policy.tokenizer
    encoder = getattr(setup, "encoder", None)
    turn = Turn(tokenizer, encoder.template_options if encoder is not None else None)
    rows: list[tuple[list[int], list[int]]] = []
    ended: list[bool] = []
    for (prompt, ids), text in zip(prompts, texts, strict=True):
        cut = isinstance(text, Completion) and text.cut
        completion = encoded_answer(tokenizer, turn, prompt, text, cut=cut)
        ended.append(not cut)
        if not text:
            raise RheostatError(f"The demonstration for prompt {prompt.key} is empty: remove the row or give it a text.")
        if len(completion) > setup.max_new_tokens:
            raise RheostatError(
                f"The demonstration for prompt {prompt.key} has {len(completion)} tokens, more than {setup.max_new_tokens} that a "
                "completion may have: raise max_new_tokens or filter the file."
            )
        rows.append((ids, completion))
    return written_rows(rows, ended, numbers, setup.policy.pad_id, Source.EXPERT)


def written_rows(
    rows: list[tuple[list[int], list[int]]], ended: Sequence[bool], numbers: list[int], pad: int, source: Source
) -> Trajectories:
    """Answers that no policy of the run has sampled, as trajectories ``[N, T]``: the sampler's log-probability is unknown (NaN), the
    reward 0.

    Args:
        rows: token ids of each prompt and of its answer.
        ended: whether the answers end, or were cut.
        numbers: of their groups.
        pad: fills what is left of prompts and right of answers.
        source: of every token.
    """
    action, attention, mask, left = token_rows(rows, pad)
    shape = action.shape
    terminated, truncated = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (_, completion) in enumerate(rows):
        (terminated if ended[row] else truncated)[row, left + len(completion) - 1] = True

    def per_row(values: Tensor) -> Tensor:
        return values[:, None].expand(shape)

    return Trajectories(
        action=action,
        attention=attention,
        mask=mask,
        reward=torch.zeros(shape),
        terminated=terminated,
        truncated=truncated,
        sampler_logp=torch.full(shape, float("nan")),
        group=per_row(torch.tensor(numbers)),
        version=per_row(torch.full((len(rows),), -1)),
        source=per_row(torch.full((len(rows),), int(source))),
        valid=per_row(torch.ones(len(rows), dtype=torch.bool)),
        batch_size=list(shape),
    )


def encoded_answer(tokenizer: Any, turn: Turn, prompt: Prompt, text: str, *, cut: bool) -> list[int]:
    """Token ids of an answer with its end: the token that closes a turn, or the tokenizer's; text that was cut has none.

    Args:
        tokenizer: of the model that reads it.
        turn: how its template writes the assistant's turn.
        prompt: that is answered.
        text: the answer.
        cut: whether its writer was stopped by a limit.
    """
    answer = turn.ends(prompt)
    words = list(tokenizer(turn.continued(text) if answer else text, add_special_tokens=False)["input_ids"])
    end = turn.end if answer else tokenizer.eos_token_id
    return words if cut or words[-1:] == [end] else [*words, end]


def token_rows(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Prompts and their answers as rows: tokens, attention and the mask of the answers, ``[B, T]`` each, and where answers begin.

    Args:
        rows: token ids of each prompt and of its answer.
        pad: fills what is left of prompts and right of answers.
    """
    left = max(len(asked) for asked, _ in rows)
    shape = (len(rows), left + max(len(said) for _, said in rows))
    action = torch.full(shape, pad)
    attention, mask = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, (asked, said) in enumerate(rows):
        action[row, left - len(asked) : left] = torch.tensor(asked)
        action[row, left : left + len(said)] = torch.tensor(said)
        attention[row, left - len(asked) : left + len(said)] = True
        mask[row, left : left + len(said)] = True
    return action, attention, mask, left
