"""WHO ACTS? in several turns: groups of conversations for each of the next prompts.

Token in, token out. A row is one list of token ids that only grows: the policy's ids as they were sampled, and between two turns the
environment's text, tokenised once. The policy's text is never tokenised again, so training uses exactly the sampled tokens.

The mask of a row is the union of the spans of the policy's turns; a reward lies on the last token of the turn that earned it. The batch's
column ``turn`` int64 ``[B, T]`` numbers the policy's tokens by their turn, from 1, and is 0 everywhere else.

The noise of a turn is a function of (seed, purpose, turn, update, prompt, sample, position): a conversation does not depend on the length
of its neighbours. The limit on new tokens is of one turn. A conversation that has no room left for a whole turn within the model's
positions is truncated, and its message tells it. Every turn computes the previous turns anew; the count of operations is that of one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rheostat.collect.language.generation.engine import FinishReason, Generations
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.collect.language.prompt_groups import Graded, LanguageSetup, PromptCollector
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Scores, grades_of
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.observations import Observations
from rheostat.tasks.language.task_interface import Prompt
from rheostat.tasks.language.text_episodes import PROGRESS, Said, TextEpisodes, total_scores
from rheostat.trajectories import Source, Trajectories


def collector_of(setup: LanguageSetup, seed: int, *, max_invalid_share: float = 0.1) -> PromptCollector:
    """The collector of a task: of conversations where it has several turns, else of single completions.

    Args:
        setup: task, policy, engine and verifier.
        seed: of the run.
        max_invalid_share: share of rows on which graders or environments may fail before the run stops.
    """
    if setup.task.episodes() is None:
        return PromptCollector(setup, seed, max_invalid_share=max_invalid_share)
    return Conversations(setup, seed, max_invalid_share=max_invalid_share)


@dataclass
class Talk:
    """One conversation as it grows; lists are per token of everything after the prompt."""

    prompt: list[int]
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    version: list[int] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    """What a turn has changed in the environment's potential, on its last token; 0 elsewhere."""
    terminated: bool = False
    truncated: bool = False
    lines: list[str] = field(default_factory=list)
    """The conversation as text, for inspection."""
    failure: str = ""
    message: str = ""

    def speak(self, ids: list[int], logp: list[float], version: list[int], turn: int) -> None:
        """Append a turn of the policy."""
        self.ids += ids
        self.logp += logp
        self.version += version
        self.turn += [turn] * len(ids)
        self.reward += [0.0] * len(ids)
        self.progress += [0.0] * len(ids)

    def hear(self, ids: list[int]) -> None:
        """Append an observation."""
        self.speak(ids, [torch.nan] * len(ids), [-1] * len(ids), 0)


class Conversations(PromptCollector):
    """Draws prompts and samples a group of conversations of the policy with the task's environment for each.

    Args:
        setup: task, policy, engine; its verifier grades nothing here, the environment does.
        seed: of the run.
        max_invalid_share: share of conversations on which the environment may fail before the run stops.
        make: new episodes; None takes the task's.
    """

    def __init__(
        self, setup: LanguageSetup, seed: int, *, max_invalid_share: float = 0.1, make: Callable[[], TextEpisodes | None] | None = None
    ) -> None:
        super().__init__(setup, seed, max_invalid_share=max_invalid_share)
        self.make = setup.task.episodes if make is None else make
        self.episodes = self._new()
        self.observations = Observations(setup.policy.tokenizer, setup.encoder.template_options)

    def _new(self) -> TextEpisodes:
        found = self.make()
        if found is None:
            raise RheostatError(f"The task {self.setup.task.name!r} has no conversations: its method episodes returns None.")
        return found

    @property
    def turns(self) -> int:
        """Turns that a conversation may have."""
        return self.episodes.max_turns

    @property
    def grader(self) -> str:
        """Name of the verifier, for messages."""
        return f"The environment {self.episodes.name!r}"

    def sample(
        self,
        drawn: list[tuple[Prompt, list[int]]],
        group_size: int,
        sampling: Sampling,
        *,
        numbers: list[int],
        purpose: str,
        version: int,
        progress: Progress | None = None,
        openings: list[str] | None = None,
    ) -> Graded:
        """Conversations and their grades for encoded prompts; see :meth:`PromptCollector.sample`. Evaluations use
        an environment of their own, so that they change no state.

        Raises:
            RheostatError: hints, which conversations cannot have, or an environment that raised for all of them.
        """
        if openings is not None:
            raise RheostatError(
                f"Hints continue one answer, and the conversations of {self.episodes.name} have several turns: leave them out."
            )
        episodes = self.episodes if purpose == "train" else self._new()
        prompts = [prompt for prompt, _ in drawn for _ in range(group_size)]
        talks = [Talk(list(ids)) for _, ids in drawn for _ in range(group_size)]
        chance = row_streams(derive_seed(self.seed, purpose, "environment"), version, numbers, group_size)
        episodes.reset(prompts, chance.tolist())
        steps: list[tuple[list[int], Scores]] = []
        live, known = list(range(len(talks))), False
        while live:
            turn = len(steps) + 1
            found = self._generate(drawn, talks, live, turn, group_size, sampling, numbers=numbers, purpose=purpose, version=version)
            said = self.said_of(found)
            self._append(talks, live, found, said, turn)
            step = episodes.step(live, said, progress)
            steps.append((live, step.scores))
            changed = step.scores.parts.get(PROGRESS)
            known = known or changed is not None
            refused = (found.finish == FinishReason.REFUSED).tolist()
            going = []
            for place, row in enumerate(live):
                talk = talks[row]
                if talk.ids and bool(step.scores.valid[place]):
                    talk.reward[-1] = float(step.scores.reward[place])
                    talk.progress[-1] = 0.0 if changed is None else float(changed[place].nan_to_num())
                talk.terminated, talk.truncated = step.terminated[place], step.truncated[place]
                if not step.over[place] and not refused[place] and self.hears(talk, step.observations[place], prompts[row], sampling):
                    going.append(row)
                else:
                    episodes.over[row] = True
            live = going
        scores = _failing(total_scores(steps, len(talks)), talks)
        rows, turn_of = self.rows_of(talks, [ids for _, ids in drawn], found.tokens.device)
        texts = ["\n".join(talk.lines) for talk in talks]
        reward = torch.where(scores.valid[:, None], rows.reward, torch.zeros(()))
        graded = self.graded(rows, prompts, texts, scores, [number for number in numbers for _ in range(group_size)], reward=reward)
        graded.columns["turn"] = turn_of
        if known:
            graded.columns[PROGRESS] = _spread([talk.progress for talk in talks], turn_of)
        taken = turn_of.amax(1).float()
        graded.metrics |= {"turns": taken.mean().item(), "out_of_room_share": sum(bool(talk.message) for talk in talks) / len(talks)}
        return graded

    def _generate(
        self,
        drawn: list[tuple[Prompt, list[int]]],
        talks: Sequence[Talk],
        live: list[int],
        turn: int,
        group_size: int,
        sampling: Sampling,
        *,
        numbers: list[int],
        purpose: str,
        version: int,
    ) -> Generations:
        """Sample the next turn of the unfinished conversations; in the first one a prompt is computed once for its group."""
        seed = derive_seed(self.seed, purpose, *([] if turn == 1 else [f"turn {turn}"]))
        streams = row_streams(seed, version, numbers, group_size)
        if turn == 1:
            return self.setup.engine.generate([ids for _, ids in drawn], streams=streams, group_size=group_size, sampling=sampling)
        heard = [talks[row].prompt + talks[row].ids for row in live]
        return self.setup.engine.generate(heard, streams=streams[live], group_size=1, sampling=sampling)

    def said_of(self, found: Generations) -> list[Said]:
        """The turns of the policy, as rewards and environments read them."""
        tokens = found.completions()
        texts, raws = self.setup.texts(tokens)
        cut = (found.finish == FinishReason.LENGTH).tolist()
        return [Said(text, tuple(ids), long, raw) for text, ids, long, raw in zip(texts, tokens, cut, raws, strict=True)]

    @staticmethod
    def _append(talks: list[Talk], live: list[int], found: Generations, said: list[Said], turn: int) -> None:
        for row, each, logp, versions in zip(live, said, found.logp.tolist(), found.versions.tolist(), strict=True):
            count = len(each.ids)
            talks[row].speak(list(each.ids), logp[:count], versions[:count], turn)
            talks[row].lines.append(each.text)

    def hears(self, talk: Talk, text: str, prompt: Prompt, sampling: Sampling) -> bool:
        """Append the environment's text; returns whether the policy can answer."""
        try:
            ids = self.observations.encode(text, prompt, talk.ids[-1] if talk.ids else None)
        except RheostatError as error:
            talk.failure = str(error)
            return False
        room = self._room(sampling)
        if room is not None and len(talk.prompt) + len(talk.ids) + len(ids) > room:
            talk.truncated = True
            talk.message = (
                f"the conversation ran out of room: another turn needs more than the {room + sampling.max_new_tokens} positions there are"
            )
            return False
        talk.hear(ids)
        talk.lines.append(text)
        return True

    def _room(self, sampling: Sampling) -> int | None:
        """Limit of the tokens before a turn; None: as many as there are."""
        longest = self.setup.policy.longest
        limits = (longest and longest - sampling.max_new_tokens, getattr(self.setup.checked, "max_prompt_tokens", None))
        return min((limit for limit in limits if limit is not None), default=None)

    def rows_of(self, talks: list[Talk], prompts: list[list[int]], device: torch.device) -> tuple[Trajectories, Tensor]:
        """``[B, T]``, prompts padded on the left and what follows on the right; and the turn of every token."""
        count, width = len(talks), max((len(ids) for ids in prompts), default=0)
        shape = (count, width + max(1, max((len(talk.ids) for talk in talks), default=0)))
        pad = self.setup.policy.pad_id
        action, version, turn = torch.full(shape, pad), torch.full(shape, -1), torch.zeros(shape, dtype=torch.int64)
        logp, reward = torch.full(shape, torch.nan), torch.zeros(shape)
        attention, terminated, truncated = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
        for row, talk in enumerate(talks):
            start, end = width - len(talk.prompt), width + len(talk.ids)
            action[row, start:end] = torch.tensor(talk.prompt + talk.ids)
            attention[row, start:end] = True
            if not talk.ids:
                continue
            place = slice(width, end)
            logp[row, place], reward[row, place] = torch.tensor(talk.logp), torch.tensor(talk.reward)
            version[row, place], turn[row, place] = torch.tensor(talk.version), torch.tensor(talk.turn)
            last = width + max(index for index, number in enumerate(talk.turn) if number)
            terminated[row, last], truncated[row, last] = talk.terminated, talk.truncated
        rows = Trajectories(
            action=action,
            mask=turn > 0,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            sampler_logp=logp,
            attention=attention,
            version=version,
            source=torch.tensor(int(Source.FRESH)).expand(shape),
            batch_size=list(shape),
        ).to(device)
        return rows, turn.to(device)

    def state_dict(self) -> dict[str, Any]:
        """The cursor of the prompts, the counters, and the state of the environment."""
        return super().state_dict() | {"episodes": self.episodes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        super().load_state_dict(state)
        self.episodes.load_state_dict(state["episodes"])


def _spread(values: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Numbers of the tokens after the prompt as float32 ``[B, T]``, placed as in ``like`` ``[B, T]``; 0 elsewhere."""
    found = torch.zeros(like.shape)
    start = like.shape[1] - max(1, max(map(len, values), default=0))
    for row, each in enumerate(values):
        found[row, start : start + len(each)] = torch.tensor(each)
    return found.to(like.device)


def _failing(scores: Scores, talks: Sequence[Talk]) -> Scores:
    """The verdicts, changed where the environment's text could not be encoded, and with further messages."""
    if not any(talk.failure or talk.message for talk in talks):
        return scores
    grades = grades_of(scores)
    for row, talk in enumerate(talks):
        if talk.failure:
            grades[row] = Grade.failure(talk.failure)
        elif talk.message and not grades[row].failed:
            grades[row].message = talk.message
    return Scores.from_grades(grades, scores.metrics)
