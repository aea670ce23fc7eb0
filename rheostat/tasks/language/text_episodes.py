"""Several turns: the policy and an environment write in turn, and the environment grades the conversation.

    reset(prompts, seeds)         every prompt opens a conversation
    step(rows, said, progress)    the policy's turns in some of them  ->  observations, scores, terminated, truncated

The interface is Gymnasium's, for a batch of conversations and for text. Limits are truncations: an environment's own time limit is
reported as ``truncated``, and the limit on turns is kept here for every environment. A task of one turn is :class:`OneTurn`: the
completion is graded and the conversation is over.

The policy's text is passed as text and nothing else. Tokens never pass through here: the collector tokenises an observation
once, and never tokenises the policy's text (:mod:`rheostat.collect.language.conversations`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier, grades_of
from rheostat.errors import RheostatError
from rheostat.tasks.language.task_interface import LanguageTask, Prompt

PROGRESS = "progress"
"""Part of a turn's grade, where an environment knows it: by how much the turn has changed a potential of the conversation. It becomes a
column of the batch, a step-reward oracle."""


@dataclass(frozen=True)
class Said:
    """One turn of the policy."""

    text: str
    """As a reward reads it: decoded, without the token that ends it."""
    ids: tuple[int, ...] = ()
    """Its tokens."""
    cut: bool = False
    """It was cut at the limit on the tokens of a turn."""
    raw: str = ""
    """The text with its special tokens."""


@dataclass(frozen=True)
class Reply:
    """The environment's reply to one turn of the policy, in one conversation."""

    text: str = ""
    """The environment's text; it is ignored where the conversation is over."""
    grade: Grade = field(default_factory=Grade)
    """Grade of the turn; without a reward: no grade yet."""
    terminated: bool = False
    """The conversation has ended."""
    truncated: bool = False
    """The environment truncates the conversation, because of a limit of its own."""


@dataclass(frozen=True)
class Step:
    """The environment's replies to one turn of the policy, in ``n`` conversations."""

    observations: list[str]
    """Its texts."""
    scores: Scores
    """Grades of the turns. ``abstained``: no grade yet; otherwise invalid: the environment failed, and the conversation is over."""
    terminated: list[bool]
    truncated: list[bool]

    @property
    def over(self) -> list[bool]:
        """Conversations that are over."""
        ends = zip(self.terminated, self.truncated, self.scores.failed.tolist(), strict=True)
        return [ended or cut or failed for ended, cut, failed in ends]


class TextEpisodes(ABC):
    """A batch of conversations. Subclasses define how they begin (:meth:`begin`) and how the environment replies (:meth:`reply`).

    Its replies must be a function of the prompts, the seeds and the policy's turns: the state of unfinished conversations is their turns so
    far, and loading it replays them. An environment with further state (a generator of its own, say) adds that to the state.
    """

    name: str
    max_turns: int
    """Turns of the policy after which a conversation is truncated."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.seeds: list[int] = []
        self.turns: list[int] = []
        """Turns of the policy so far, of every conversation."""
        self.over: list[bool] = []
        self._log: list[tuple[list[int], list[Said], Progress | None]] = []

    @abstractmethod
    def begin(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> None:
        """Open a conversation with each prompt; its randomness comes from its seed (64 bits, may be negative)."""

    @abstractmethod
    def reply(self, rows: Sequence[int], said: Sequence[Said], progress: Progress | None) -> Step:
        """Answer the policy in the conversations ``rows``, none of which is over."""

    def reset(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> None:
        """Open new conversations; unfinished ones are dropped.

        Raises:
            RheostatError: not one seed for every prompt, or the environment raised.
        """
        if len(prompts) != len(seeds):
            raise RheostatError(f"{len(prompts)} conversations need as many seeds, but there are {len(seeds)}.")
        self.prompts, self.seeds = list(prompts), list(seeds)
        self.turns, self.over, self._log = [0] * len(prompts), [False] * len(prompts), []
        with _Naming(self.name, "when its conversations began"):
            self.begin(self.prompts, self.seeds)

    def step(self, rows: Sequence[int], said: Sequence[Said], progress: Progress | None = None) -> Step:
        """The environment's replies to the policy's turns in the conversations ``rows``.

        An observation that is no text makes its conversation invalid, with the reason.

        Raises:
            RheostatError: a conversation that is over or unknown, or an environment that raised or replied in another number of them.
        """
        unknown = [row for row in rows if not 0 <= row < len(self.over) or self.over[row]]
        if unknown or len(rows) != len(said):
            raise RheostatError(f"Turns can only be taken in conversations that go on, one in each; got {len(said)} for {list(rows)}.")
        with _Naming(self.name, f"in turn {max((self.turns[row] for row in rows), default=0) + 1}"):
            found = self.reply(rows, said, progress)
        lengths = {len(found.observations), len(found.scores), len(found.terminated), len(found.truncated)}
        if lengths != {len(rows)}:
            raise RheostatError(f"The environment {self.name!r} was asked about {len(rows)} conversations and answered {sorted(lengths)}.")
        self._log.append((list(rows), list(said), progress))
        for row in rows:
            self.turns[row] += 1
        found = self._limited(rows, _with_text_only(found))
        for row, over in zip(rows, found.over, strict=True):
            self.over[row] = over
        return found

    def _limited(self, rows: Sequence[int], found: Step) -> Step:
        """Conversations that have used all their turns are truncated."""
        spent = [self.turns[row] >= self.max_turns for row in rows]
        ends = zip(found.terminated, found.truncated, spent, strict=True)
        return replace(found, truncated=[cut or (late and not ended) for ended, cut, late in ends])

    def state_dict(self) -> dict[str, Any]:
        """The turns of the unfinished conversations; empty where all are over.

        Raises:
            RheostatError: a prompt of an unfinished conversation has a grader of its own, which cannot be saved.
        """
        if all(self.over):
            return {"prompts": [], "seeds": [], "log": []}
        if any(prompt.grader is not None for prompt in self.prompts):
            raise RheostatError(
                f"Conversations of {self.name!r} whose prompts have graders of their own can only be saved when all are over."
            )
        kept = [{"content": each.content, "answer": each.answer, "columns": dict(each.columns), "key": each.key} for each in self.prompts]
        log = [
            {
                "rows": list(rows),
                "said": [asdict(each) | {"ids": list(each.ids)} for each in said],
                "progress": None if progress is None else [progress.step, progress.total_steps],
            }
            for rows, said, progress in self._log
        ]
        return {"prompts": kept, "seeds": list(self.seeds), "log": log}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replay the turns."""
        self.reset([Prompt(**each) for each in state["prompts"]], state["seeds"])
        for entry in state["log"]:
            said = [Said(**(each | {"ids": tuple(each["ids"])})) for each in entry["said"]]
            self.step(entry["rows"], said, None if entry["progress"] is None else Progress(*entry["progress"]))


class _Naming:
    """What an environment raises becomes a sentence that names it."""

    def __init__(self, name: str, when: str) -> None:
        self.name, self.when = name, when

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, RheostatError):
            raise RheostatError(f"The environment {self.name!r} failed {self.when}: {_told(error)}.") from error


def _told(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")


def _with_text_only(found: Step) -> Step:
    """The same, where every observation is text; where it is none, the row has failed."""
    bad = {place: type(each).__name__ for place, each in enumerate(found.observations) if not isinstance(each, str)}
    if not bad:
        return found
    grades = grades_of(found.scores)
    for place, kind in bad.items():
        grades[place] = Grade.failure(f"the environment replied with a {kind}, which is no text")
    observations = ["" if place in bad else each for place, each in enumerate(found.observations)]
    return replace(found, observations=observations, scores=Scores.from_grades(grades, found.scores.metrics))


class Partner(Protocol):
    """The policy's partner in one conversation."""

    def reply(self, said: Said) -> Reply:
        """Its reply to a turn of the policy."""
        ...


class Partners(TextEpisodes):
    """Independent conversations, each with a partner of its own.

    A partner that raises makes its conversation invalid, with the reason; the others continue.

    Args:
        name: for messages.
        make: a partner, from the prompt and the conversation's seed.
        max_turns: of the policy.
    """

    def __init__(self, name: str, make: Callable[[Prompt, int], Partner], max_turns: int) -> None:
        super().__init__()
        if max_turns < 1:
            raise RheostatError(f"A conversation of {name!r} needs at least one turn, not {max_turns}.")
        self.name, self.make, self.max_turns = name, make, max_turns
        self.partners: list[Partner | str] = []

    def begin(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> None:
        """Make the partners; if one cannot be made, the first turn fails with the reason."""
        self.partners = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            try:
                self.partners.append(self.make(prompt, seed))
            except Exception as error:
                self.partners.append(_told(error))

    def reply(self, rows: Sequence[int], said: Sequence[Said], progress: Progress | None) -> Step:
        """The reply of every partner."""
        replies = [self._one(self.partners[row], each) for row, each in zip(rows, said, strict=True)]
        return Step(
            [reply.text for reply in replies],
            Scores.from_grades([reply.grade for reply in replies]),
            [reply.terminated for reply in replies],
            [reply.truncated for reply in replies],
        )

    @staticmethod
    def _one(partner: Partner | str, said: Said) -> Reply:
        if isinstance(partner, str):
            return Reply(grade=Grade.failure(partner))
        try:
            found = partner.reply(said)
        except Exception as error:
            return Reply(grade=Grade.failure(_told(error)))
        if not isinstance(found, Reply):
            return Reply(grade=Grade.failure(f"the environment replied with a {type(found).__name__}, which is no Reply"))
        return found


class OneTurn(TextEpisodes):
    """A task of one turn: its prompt, then the verdict on the completion.

    Args:
        task: whose prompts they are.
        verifier: grades prompts that have no grader of their own; None takes the task's.
    """

    max_turns = 1

    def __init__(self, task: LanguageTask, verifier: Verifier | None = None) -> None:
        super().__init__()
        self.name, self.verifier = task.name, task.verifier() if verifier is None else verifier

    def begin(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> None:
        """Nothing to prepare."""

    def reply(self, rows: Sequence[int], said: Sequence[Said], progress: Progress | None) -> Step:
        """Grade; a completion that was cut at the length limit is truncated, every other one has terminated."""
        prompts = [self.prompts[row] for row in rows]
        rollouts = [
            prompt.rollout(each.text, each.ids, truncated=each.cut, raw=each.raw) for prompt, each in zip(prompts, said, strict=True)
        ]
        scores = grade(prompts, rollouts, self.verifier, progress)
        return Step([""] * len(said), scores, [not each.cut for each in said], [each.cut for each in said])


def grade(prompts: Sequence[Prompt], rollouts: Sequence[Rollout], verifier: Verifier, progress: Progress | None = None) -> Scores:
    """The verdicts on completions: of the prompt's own grader where it has one, else of the verifier.

    Args:
        prompts: of the rows.
        rollouts: of the same rows.
        verifier: of all other prompts.
        progress: of the training.
    """
    graders: dict[int, tuple[Verifier, list[int]]] = {}
    for row, prompt in enumerate(prompts):
        mine = verifier if prompt.grader is None else prompt.grader
        graders.setdefault(id(mine), (mine, []))[1].append(row)
    if len(graders) == 1:
        return next(iter(graders.values()))[0].score(rollouts, progress)
    parts = [(rows, mine.score([rollouts[row] for row in rows], progress)) for mine, rows in graders.values()]
    order = [row for rows, _ in parts for row in rows]
    joined = Scores.joined([scores for _, scores in parts])
    return joined.select(sorted(range(len(order)), key=order.__getitem__))


def total_scores(steps: Sequence[tuple[Sequence[int], Scores]], count: int) -> Scores:
    """The verdicts on ``count`` conversations from those on their turns.

    Rewards and parts add up; the last of several notes is kept. A conversation is invalid where a turn of it failed (the first reason is
    kept) or where no turn was ever graded.

    Args:
        steps: of every turn, its conversations and the verdicts on them.
        count: conversations.
    """
    totals = [Grade() for _ in range(count)]
    metrics: dict[str, float] = {}
    for rows, scores in steps:
        metrics |= scores.metrics
        for row, one in zip(rows, grades_of(scores), strict=True):
            totals[row] = added(totals[row], one)
    return Scores.from_grades(totals, metrics)


def added(before: Grade, now: Grade) -> Grade:
    """The verdict on a conversation so far and on its next turn."""
    if before.failed:
        return before
    rewards = [each.reward for each in (before, now) if each.reward is not None]
    parts = {name: before.parts.get(name, 0.0) + now.parts.get(name, 0.0) for name in [*before.parts, *now.parts]}
    reward = sum(rewards) if rewards and not now.failed else None
    return Grade(reward, parts, before.notes | now.notes, now.failed, now.message or before.message)
