"""A trained reward model as a reward by name: ``run:DIRECTORY`` of a run of ``reward-model`` or ``polar``, or of a folder with a model and
its head. What the head reads is kept with it: a prompt and an answer, or a candidate beside the prompt's reference answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rheostat.collect.language.experts import encoded_answer, token_rows
from rheostat.collect.language.referenced import Form, ReferenceReader, reference_of
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores
from rheostat.errors import RheostatError
from rheostat.objectives.preference_terms import answer_rewards
from rheostat.policies.language.model import LanguagePolicy
from rheostat.policies.language.value_head import FILE
from rheostat.tasks.language.encoding import Turn, encode_prompt
from rheostat.tasks.language.task_interface import Prompt

PREFIX = "run:"
"""How the name of such a reward begins."""


def model_folder(name: str) -> Path:
    """The folder with the model of ``run:DIRECTORY``.

    Raises:
        RheostatError: there is no such directory, or no reward model in it.
    """
    place = Path(name.removeprefix(PREFIX)).expanduser()
    if not place.is_dir():
        raise RheostatError(f"The reward {name} is no directory: give that of a run of reward-model.")
    found = next((folder for folder in (place / "model", place) if (folder / FILE).is_file()), None)
    if found is None:
        raise RheostatError(f"There is no reward model in {place}: it has no value head; train one with rheostat train reward-model.")
    return found


class LearnedReward:
    """A reward model that grades answers: its head after their last token. It runs in this process, with its own tokenizer.

    Args:
        name: ``run:DIRECTORY``.
        device: where it computes.

    Raises:
        RheostatError: what :func:`model_folder` refuses, or a folder that is no model.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        folder = model_folder(name)
        self.name = folder.parent.name if folder.name == "model" else folder.name
        self.policy = LanguagePolicy.load(folder, device=device).requires_grad_(False)
        self.turn = Turn(self.policy.tokenizer)
        form = Form.of(self.policy)
        self.reader = None if form is None else ReferenceReader(form, self.policy)

    def require(self, rows: Sequence[tuple[str, Rollout]]) -> None:
        """Refuse rows, by their places, without what is compared with.

        Raises:
            RheostatError: a row without a reference answer for a model that reads one.
        """
        if self.reader is not None:
            for where, rollout in rows:
                reference_of(rollout.columns, where)

    def encode(self, rollout: Rollout) -> tuple[list[int], list[int]]:
        """Token ids of a prompt and of its answer with its end.

        Raises:
            RheostatError: a prompt or an answer that the tokenizer cannot encode, more tokens than the model has positions, or no
                reference answer for a model that reads one.
        """
        prompt = Prompt(rollout.prompt, rollout.answer, rollout.columns)
        if self.reader is not None:
            return self.reader.row(prompt, reference_of(rollout.columns, "the prompt"), rollout.completion)
        asked = encode_prompt(prompt, self.policy.tokenizer)
        said = encoded_answer(self.policy.tokenizer, self.turn, prompt, rollout.completion, cut=rollout.truncated)
        longest = self.policy.longest
        if longest is not None and len(asked) + len(said) > longest:
            raise RheostatError(f"prompt and answer have {len(asked) + len(said)} tokens, and the reward model has {longest} positions")
        return asked, said or [self.turn.end]

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """Grade the rollouts, in order; one that cannot be read, or gets no finite number, is a failure of its own."""
        grades: dict[int, Grade] = {}
        read: dict[int, tuple[list[int], list[int]]] = {}
        for row, rollout in enumerate(rollouts):
            try:
                read[row] = self.encode(rollout)
            except RheostatError as error:
                grades[row] = Grade.failure(str(error))
        if read:
            action, attention, mask, _ = token_rows(list(read.values()), self.policy.pad_id)
            device = self.policy.device
            with torch.no_grad():
                found = self.policy.score(action.to(device), attention.to(device), mask.to(device), value=True).next_value
            assert found is not None
            grades |= {row: Grade(value) for row, value in zip(read, answer_rewards(found.cpu(), mask).tolist(), strict=True)}
        return Scores.from_grades([grades[row] for row in range(len(rollouts))])
