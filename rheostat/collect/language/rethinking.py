"""Three chances for a problem: a plain prompt, one that asks for smaller problems first, and one that shows the wrong answers so far.

A problem goes on to the next stage where its whole group is wrong. Answers of every stage are learned from under the prompt that they were
sampled with; right ones of the later stages are, besides, imitated under the plain prompt, so that the ability moves to where it is
measured. Rows of the later stages carry the source HINTED, rows to imitate the source EXPERT: the policy with help is the expert of the
policy without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from rheostat.buffers.traces import Trace, TraceBuffer
from rheostat.collect.language.experts import demonstration, written_rows
from rheostat.collect.language.language_collectors import AroundGroups, batch_of
from rheostat.collect.language.problem_stages import (
    DECOMPOSITION,
    DIRECT,
    NAMES,
    REFLECTION,
    STAGES,
    Asked,
    Problem,
    Tally,
    graded_of,
    note_wrong,
    plain_ids,
    refers_to_attempts,
    right_of,
    run_stages,
)
from rheostat.collect.language.prompt_groups import Graded, join
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch, Metrics
from rheostat.policies.flops import FORWARD
from rheostat.streams import derive_seed
from rheostat.tasks.language.encoding import encode_prompt
from rheostat.tasks.language.task_interface import Prompt, Worked, question_of
from rheostat.trajectories import Source, Trajectories, join_rows

PROBES = 8
"""Problems whose prompts of the later stages are tried for length before anything is sampled."""


class Examples(NamedTuple):
    """A prompt of a later stage."""

    prompt: Prompt
    ids: list[int]
    shots: int


@dataclass(frozen=True)
class Rethinking(AroundGroups):
    """A collector: groups of plain prompts; where every answer is wrong, a group after a prompt that asks for smaller problems, and where
    these fail too, one that shows wrong answers."""

    last: int = option(2, short="last_stage", at_least=0, at_most=2)
    """Last stage that is run: 0 asks plainly alone, 1 asks for smaller problems too, 2 also shows wrong answers."""
    learned: tuple[int, ...] = option(STAGES, short="rl_stages", at_least=0, at_most=2)
    """Stages whose groups the policy gradient learns from."""
    shots: int = option(2, at_least=0)
    """Worked traces that a prompt of the later stages shows."""
    demonstrations: int = option(4, at_least=0)
    """Worked solutions of an expert that the buffers of traces begin with; 0 begins with empty ones."""
    capacity: int = option(512, short="trace_capacity", at_least=1)
    """Most traces of each of the two later stages that are kept; the oldest go."""
    k1: float = option(1.5, short="bm25_k1", above=0)
    """BM25: how soon a repeated word stops to count."""
    b: float = option(0.75, short="bm25_b", share=True)
    """BM25: how much long problems are held back."""
    attempts: int = option(2, short="shown_attempts", at_least=1)
    """Most wrong answers that the third stage shows."""
    dangling: Literal["keep", "drop"] = option("keep")
    """What becomes of the third stage's right answers that speak of an attempt: they are imitated under the plain prompt, or not."""
    imitates: bool = field(default=True, kw_only=True)
    """Whether right answers of the later stages are imitated."""
    buffers: dict[int, TraceBuffer] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Of each later stage."""
    beside_the_loss: ClassVar[bool] = True
    """An expert's solutions are shown, and never learned from."""
    single_turn: ClassVar[str] = "its stages ask for single answers"
    refuses: ClassVar[Mapping[str, str]] = {"expert_share": "the rows that it imitates are the policy's own, with help"}

    def __post_init__(self) -> None:
        if not self.learned or len(set(self.learned)) < len(self.learned):
            raise RheostatError(f"rl_stages is {self.learned}: name at least one stage, each once.")
        if self.learned != STAGES and max(self.learned) > self.last:
            raise RheostatError(
                f"rl_stages names stage {max(self.learned)}, but last_stage is {self.last}: raise it, or leave the stage out."
            )

    @property
    def uses_experts(self) -> bool:
        """Whether an expert's solutions are shown."""
        return bool(self.last and self.shots and self.demonstrations)

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        found: dict[str, str] = {}
        if not self.last:
            why = "last_stage is 0, so nothing but plain prompts is asked; raise it, or leave this alone"
            found |= dict.fromkeys(("shots", "demonstrations", "capacity", "k1", "b"), why)
        elif not self.shots:
            why = "shots is 0, so no trace is shown; raise it, or leave this alone"
            found |= dict.fromkeys(("demonstrations", "capacity", "k1", "b"), why)
        if self.last < REFLECTION:
            why = f"last_stage is {self.last}, so no prompt shows wrong answers; set it to 2, or leave this alone"
            found |= dict.fromkeys(("attempts", "dangling"), why)
        elif not method.sft_weight:
            found["dangling"] = "sft_weight is 0, so nothing is imitated; raise it, or leave this alone"
        return found

    def describe(self) -> dict[str, int | str]:
        """Derived numbers, for printing."""
        return {"most groups per prompt": 1 + self.last, "stages": ", ".join(NAMES[: self.last + 1])}

    # --- traces -----------------------------------------------------------------------------------------------------------------------

    def bind(self, context: Any) -> None:
        """Begin the buffers with an expert's solutions, and try whether the prompts of the later stages fit.

        Raises:
            RheostatError: no problem has a solution, a solution is too long to be shown, or no prompt of a later stage fits.
        """
        for stage in STAGES[1 : self.last + 1]:
            self.buffers[stage] = TraceBuffer(self.capacity, k1=self.k1, b=self.b)
        if self.uses_experts:
            traces = [self._checked(context, *solved) for solved in islice(self.solved(context), self.demonstrations)]
            for buffer in self.buffers.values():
                buffer.add(traces)
        if self.last:
            self._check_room(context)

    def solved(self, context: Any) -> Iterator[tuple[Prompt, Trace]]:
        """Problems of the training side, and an expert's solutions.

        Raises:
            RheostatError: there is none.
        """
        setup, seed = context.setup, derive_seed(context.streams.seed, "worked solutions")
        stream = setup.experts.stream(seed) if setup.experts is not None else setup.task.prompts("train", seed)
        found, reason, tries = 0, "", max(PROBES * self.demonstrations, stream.epoch)
        for number, prompt in enumerate(stream.take(tries)):
            try:
                answer = str(demonstration(setup, prompt, seed, number))
            except RheostatError as error:
                reason = str(error)
                continue
            found += 1
            yield prompt, Trace(prompt.key, question_of(prompt), answer)
        if not found:
            raise RheostatError(
                f"The buffers of worked traces would begin empty, because none of {tries} problems has a worked solution. {reason} Or "
                "begin with empty buffers: set demonstrations 0."
            )

    def _checked(self, context: Any, prompt: Prompt, trace: Trace) -> Trace:
        """A trace that can be shown.

        Raises:
            RheostatError: it leaves no room in the model's context.
        """
        for stage in self.buffers:
            length, room = len(encoded(context, self.asked(context, stage, prompt, [trace], ("",)))), room_of(context)
            if length > room:
                raise RheostatError(
                    f"The worked solution of the problem {trace.key} cannot be shown: a prompt of the {NAMES[stage]} stage with it has "
                    f"{length} tokens, and the model's context leaves {room} beside an answer. Lower max_new_tokens, give shorter "
                    "solutions, or show none (shots 0)."
                )
        return trace

    def _check_room(self, context: Any) -> None:
        stream = context.setup.task.prompts("train", derive_seed(context.streams.seed, "prompts"))
        prompts = stream.take(PROBES)
        for stage in self.buffers:
            shortest = min(len(encoded(context, self.asked(context, stage, prompt, [], ("",)))) for prompt in prompts)
            if shortest > room_of(context):
                raise RheostatError(
                    f"The {NAMES[stage]} stage could never ask: its shortest prompt of {len(prompts)} has {shortest} tokens, and the "
                    f"model's context leaves {room_of(context)} beside an answer. Lower max_new_tokens, or last_stage to {stage - 1}."
                )

    def asked(self, context: Any, stage: int, prompt: Prompt, traces: Sequence[Trace], attempts: Sequence[str]) -> Prompt:
        """The prompt of a later stage."""
        examples = [Worked(trace.question, trace.answer, trace.attempts if stage == REFLECTION else ()) for trace in traces]
        task = context.setup.task
        found: Prompt = task.decomposition(prompt, examples) if stage == DECOMPOSITION else task.reflection(prompt, attempts, examples)
        return found

    def fitting(self, context: Any, stage: int, problem: Problem, attempts: Sequence[str]) -> Examples | None:
        """The prompt of a later stage with as many traces as fit; None where it does not fit without any."""
        traces = self.buffers[stage].nearest(question_of(problem.prompt), self.shots, without=problem.prompt.key)
        for count in range(len(traces), -1, -1):
            shown = self.asked(context, stage, problem.prompt, traces[:count], attempts)
            ids = encoded(context, shown)
            if len(ids) <= room_of(context):
                return Examples(shown, ids, count)
        return None

    def remember(self, problems: list[Problem], stages: dict[int, Asked], tally: Tally) -> None:
        """Put the first right answer to every problem that a later stage has solved into the stage's buffer."""
        for problem, stage in tally.taught():
            asked, prompt = stages[stage], problems[problem].prompt
            answer = asked.graded.completions[asked.right_rows(problem)[0]]
            self.buffers[stage].add([Trace(prompt.key, question_of(prompt), answer, asked.attempts.get(problem, ()))])

    # --- acting -----------------------------------------------------------------------------------------------------------------------

    def collect(self, context: Any) -> Batch:
        """Groups that are partly right, each under its own prompt, and below them the rows to imitate; the column ``stage`` ``[B]`` says
        where a row was sampled. Where no group teaches anything, one is kept without a token to learn from.

        The metrics are those of the plain prompts, and of the stages (``stages/...``).
        """
        own: Graded = self.inner.collect(context).facts["graded"]
        size = self.group_size
        problems = [
            Problem(own.prompts[row], plain_ids(own.trajectories, row), int(own.trajectories.group[row, 0]))
            for row in range(0, len(own.prompts), size)
        ]
        stages = {DIRECT: Asked(own, right_of(own, size), {place: place for place in range(len(problems))})}
        note_wrong(problems, stages[DIRECT])
        told: Metrics = {"stages/too_long": 0.0}

        def attempt(stage: int, failing: list[int]) -> tuple[list[int], Tensor, Tensor]:
            asked = self.ask(context, stage, problems, failing, told)
            if asked is None:
                nothing = torch.zeros(0, dtype=torch.int64)
                return [], nothing, nothing
            stages[stage] = asked
            note_wrong(problems, asked)
            return list(asked.place), asked.right.sum(1), graded_of(asked.graded, size)

        tally = run_stages(stages[DIRECT].right.sum(1), graded_of(own, size), size, attempt, self.last)
        self.remember(problems, stages, tally)
        batch = self.kept(context, problems, stages, tally, told)
        batch.metrics = own.metrics | told | self.told(stages, tally) | context.setup.checked.metrics()
        return batch

    def ask(self, context: Any, stage: int, problems: list[Problem], failing: list[int], told: Metrics) -> Asked | None:
        """New groups of failing problems, after the prompts of a later stage; None where no prompt fits."""
        shown: dict[int, tuple[str, ...]] = {}
        given: dict[int, Examples] = {}
        for index in failing:
            wrong = problems[index].wrong
            if stage == REFLECTION:
                chosen = torch.randperm(len(wrong), generator=context.streams["reflection"])[: self.attempts].tolist()
                shown[index] = tuple(wrong[place] for place in chosen)
            found = self.fitting(context, stage, problems[index], shown.get(index, ()))
            if found is None:
                told["stages/too_long"] += 1
            else:
                given[index] = found
        if not given:
            return None
        graded = context.collector.answer(
            [(problems[index].prompt, found.ids) for index, found in given.items()],
            self.group_size,
            context.sampling,
            numbers=[problems[index].number for index in given],
            purpose=NAMES[stage],
            version=context.updates,
            progress=context.progress,
        )
        context.count_flops(FORWARD, graded.trajectories)
        graded.prompts = [found.prompt for found in given.values() for _ in range(self.group_size)]
        graded.trajectories.source = torch.full(graded.trajectories.shape, int(Source.HINTED))
        told[f"stages/{NAMES[stage]}_shots"] = sum(found.shots for found in given.values()) / len(given)
        return Asked(graded, right_of(graded, self.group_size), {index: place for place, index in enumerate(given)}, shown)

    def kept(self, context: Any, problems: list[Problem], stages: dict[int, Asked], tally: Tally, told: Metrics) -> Batch:
        """The batch that is learned from."""
        learned = tally.learned(self.learned)
        rows = [(stage, row) for problem, stage in learned for row in stages[stage].rows(problem)]
        graded = picked(stages, rows or [(DIRECT, row) for row in range(self.group_size)])
        if not rows:
            graded.trajectories.mask = torch.zeros_like(graded.trajectories.mask)
        batch, stage_of = batch_of(graded), [stage for stage, _ in rows] or [DIRECT] * self.group_size
        imitated = self.to_imitate(stages, tally) if self.imitates else []
        if imitated:
            batch = batch.with_rows(join_rows([batch.rows, rewrapped(context, problems, stages, imitated)]))
        batch.columns["stage"] = torch.tensor([*stage_of, *(stage for _, stage, _ in imitated)])
        told["stages/imitated_rows"] = float(len(imitated))
        told["stages/usable_share"] = len({problem for problem, *_ in (*learned, *imitated)}) / len(problems)
        return batch

    def to_imitate(self, stages: dict[int, Asked], tally: Tally) -> list[tuple[int, int, int]]:
        """(problem, stage, row of the stage) of every right answer of the later stages that is imitated."""

        def dangles(stage: int, row: int) -> bool:
            return self.dangling == "drop" and stage == REFLECTION and refers_to_attempts(stages[stage].graded.completions[row])

        found = [(problem, stage, row) for problem, stage in tally.taught() for row in stages[stage].right_rows(problem)]
        return [(problem, stage, row) for problem, stage, row in found if not dangles(stage, row)]

    def told(self, stages: dict[int, Asked], tally: Tally) -> Metrics:
        """What became of the problems, what the stages cost, and how full the buffers are."""
        count, direct = tally.right.shape[1], tally.right[DIRECT]
        found: Metrics = {
            "stages/direct_usable_share": len(tally.learned([DIRECT])) / count,
            "stages/direct_solved_share": (direct > 0).float().mean().item(),
            "stages/solved_share": 1 - len(tally.dropped()) / count,
        }
        for stage in STAGES[: self.last + 1]:
            asked, name = stages.get(stage), NAMES[stage]
            found[f"stages/{name}_tokens"] = 0.0 if asked is None else float(asked.graded.trajectories.count())
            if stage == DIRECT:
                continue
            found[f"stages/{name}_share"] = 0.0 if asked is None else len(asked.place) / count
            found[f"stages/{name}_traces"] = float(len(self.buffers[stage]))
            if asked is not None:
                found[f"stages/{name}_reward"] = asked.graded.metrics["reward"]
        return found

    def state_dict(self) -> dict[str, Any]:
        """The buffers."""
        return {NAMES[stage]: buffer.state_dict() for stage, buffer in self.buffers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with saved buffers."""
        for stage, buffer in self.buffers.items():
            buffer.load_state_dict(state[NAMES[stage]])


def encoded(context: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, whatever its length."""
    encoder = context.setup.encoder
    return encode_prompt(prompt, encoder.tokenizer, encoder.template_options)


def room_of(context: Any) -> int:
    """Tokens that the model's context leaves for a prompt."""
    return int((context.setup.policy.longest or 10**9) - context.sampling.max_new_tokens)


def picked(stages: dict[int, Asked], rows: list[tuple[int, int]]) -> Graded:
    """Rows (stage, row of the stage) of several stages as one batch, without the columns that are padding in all of them."""
    parts = [asked.graded for asked in stages.values()]
    first = dict(zip(stages, accumulate([0, *(len(part.prompts) for part in parts)]), strict=False))
    everything = join(parts, sum(len(part.prompts) for part in parts))
    assert everything is not None
    found = everything.select(torch.tensor([first[stage] + row for stage, row in rows]))
    width = int(found.trajectories.attention.any(0).nonzero().max()) + 1
    found.trajectories = found.trajectories[:, :width]
    return found


def rewrapped(context: Any, problems: list[Problem], stages: dict[int, Asked], imitated: list[tuple[int, int, int]]) -> Trajectories:
    """Answers of the later stages, token by token, after the plain prompts; their groups are numbered below 0."""
    rows, ended = [], []
    for problem, stage, row in imitated:
        sampled = stages[stage].graded.trajectories
        rows.append((problems[problem].ids, sampled.action[row][sampled.mask[row]].tolist()))
        ended.append(not bool(sampled.truncated[row].any()))
    return written_rows(rows, ended, [-1 - place for place in range(len(rows))], context.setup.policy.pad_id, Source.EXPERT)
