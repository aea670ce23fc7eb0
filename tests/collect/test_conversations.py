"""Conversations: masks that never cover what the environment said, tokens that are never made twice, noise of a row's own, one turn as
before, and environments that misbehave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.collect.language.conversations import Conversations, collector_of
from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.generation.parity import parity
from rheostat.collect.language.generation.sampling import Sampling
from rheostat.collect.language.language_collectors import batch_of
from rheostat.collect.language.prompt_groups import Graded, LanguageSetup, PromptCollector, join
from rheostat.credit.verifiers.verifier_interface import Grade, Progress
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language import GuessNumber, OneTurn, Partners, PromptEncoder, Reply, Said, character_tokenizer
from rheostat.trajectories import join_rows
from tests import tiny_language as tiny
from tests.methods.test_language_methods import Lenient, Sulking

TOKENIZER = character_tokenizer()
POLICIES: dict[int, LanguagePolicy] = {}


def policy(positions: int = 128) -> LanguagePolicy:
    if positions not in POLICIES:
        model = tiny.model("qwen3", vocabulary=len(TOKENIZER), max_position_embeddings=positions)
        POLICIES[positions] = LanguagePolicy(model, TOKENIZER)
    return POLICIES[positions]


@dataclass
class Script:
    """Says what a function of (turn, what was said) tells it to."""

    act: Any
    turn: int = 0

    def reply(self, said: Said) -> Any:
        self.turn += 1
        return self.act(self.turn, said)


@dataclass(frozen=True)
class Scripted(GuessNumber):
    """A task whose partners follow a script that is made from the prompt and the seed."""

    script: Any = None

    def episodes(self) -> Partners:
        return Partners(self.name, lambda prompt, seed: Script(self.script(prompt, seed)), self.turns)


def chatty(prompt: Any, seed: int) -> Any:
    """Answers of other lengths in every conversation and turn, and a reward for every turn."""

    def act(turn: int, said: Said) -> Reply:
        text = "".join("+-?;:="[(seed >> (3 * place + turn)) % 6] for place in range((seed + turn) % 4))
        return Reply(text, Grade(float(len(said.text)) + turn / 4), terminated=(seed + turn) % 5 == 0)

    return act


def world(task: Any, *, positions: int = 128, new: int = 5) -> LanguageSetup:
    learner = policy(positions)
    return LanguageSetup(task, learner, EmbeddedEngine(learner), task.verifier(), PromptEncoder(TOKENIZER, 40), new)


def collect(
    task: Any = None,
    *,
    prompts: int = 3,
    size: int = 4,
    sampling: Sampling | None = None,
    positions: int = 128,
    seed: int = 0,
    **options: Any,
) -> Graded:
    sampling = sampling or Sampling(max_new_tokens=5)
    collector = Conversations(world(task or Scripted(script=chatty), positions=positions), seed, max_invalid_share=1.0)
    return collector.collect(prompts, size, sampling, version=3, progress=Progress(3, 9))


def spans(row: Any, turn: torch.Tensor) -> list[tuple[int, int, int]]:
    """(turn, first column, last column + 1) of every span of one row."""
    found: list[tuple[int, int, int]] = []
    for column, number in enumerate(turn.tolist()):
        if number and found and found[-1][0] == number and found[-1][2] == column:
            found[-1] = (number, found[-1][1], column + 1)
        elif number:
            found.append((number, column, column + 1))
    return found


# --- laws ---------------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5))
def test_rows_are_prompt_turns_and_observations(seed: int, prompts: int, size: int, new: int, turns: int) -> None:
    """Every token of a row is accounted for: the prompt, the policy's turns (the mask, with log-probabilities and versions) and what the
    environment said (none of these)."""
    heard: dict[int, list[str]] = {}

    def script(prompt: Any, number: int) -> Any:
        act = chatty(prompt, number)

        def listening(turn: int, said: Said) -> Reply:
            reply: Reply = act(turn, said)
            heard.setdefault(number, []).extend([said.text, reply.text])
            return reply

        return listening

    graded = collect(Scripted(script=script, turns=turns), prompts=prompts, size=size, sampling=Sampling(max_new_tokens=new), seed=seed)
    rows, turn = graded.trajectories, graded.columns["turn"]
    assert turn.shape == rows.shape and torch.equal(turn > 0, rows.mask)
    assert torch.equal(rows.sampler_logp.isnan(), ~rows.mask) and torch.equal(rows.version == 0, rows.mask)
    assert not (rows.mask & ~rows.attention).any() and int(turn.max()) <= turns
    lines = sorted(tuple(each) for each in heard.values())
    assert len(lines) == prompts * size
    written = []
    for row in range(len(rows)):
        found = spans(rows[row], turn[row])
        assert [number for number, _, _ in found] == list(range(1, len(found) + 1)), "a turn is one span, in order"
        real = rows.attention[row].nonzero().flatten().tolist()
        prompt = rows.action[row, real[0] : found[0][1]].tolist()
        assert TOKENIZER.decode(prompt) == graded.prompts[row].content
        said: list[Any] = []
        for place, (_, start, end) in enumerate(found):
            following = found[place + 1][1] if place + 1 < len(found) else real[-1] + 1
            said += [
                TOKENIZER.decode(rows.action[row, start:end], skip_special_tokens=True),
                TOKENIZER.decode(rows.action[row, end:following]),
            ]
        assert real[-1] + 1 == found[-1][2], "what is said at the end is not heard any more"
        ends = (rows.terminated[row] | rows.truncated[row]).nonzero().flatten().tolist()
        assert ends == [found[-1][2] - 1] and not bool((rows.terminated[row] & rows.truncated[row]).any())
        assert bool(rows.truncated[row].any()) <= (len(found) == turns)
        earned = [rows.reward[row, end - 1].item() for _, _, end in found]
        assert earned == [len(said[2 * place]) + (place + 1) / 4 for place in range(len(found))]
        assert rows.reward[row].sum().item() == pytest.approx(graded.scores.reward[row].item())
        written.append((*said[:-1],))
    assert sorted(written) == sorted(each[:-1] for each in lines), "token for token what was said"


def test_the_learner_gives_every_token_the_probability_the_sampler_did() -> None:
    sampling = Sampling(max_new_tokens=5, temperature=0.8)
    graded = collect(prompts=6, sampling=sampling)
    rows = graded.trajectories
    assert int(graded.columns["turn"].max()) == 4
    gap = parity(policy(), rows, sampling).require()
    assert gap.worst < 1e-4 and gap.tokens == int(rows.mask.sum())
    logp, _ = tiny.naive_scores(policy().causal, rows.action, rows.attention, rows.mask, 0.8)
    torch.testing.assert_close(rows.sampler_logp[rows.mask], logp, rtol=1e-5, atol=2e-5)


def test_a_conversation_does_not_depend_on_its_neighbours() -> None:
    """The same prompts in another batch: other widths, neighbours that stop earlier or speak longer."""
    long = collect(prompts=4, size=2)
    task = Scripted(script=chatty)
    collector = Conversations(world(task), 0, max_invalid_share=1.0)
    drawn, numbers = collector.draw(4)
    for place in range(4):
        options: dict[str, Any] = {"numbers": numbers[place : place + 1], "purpose": "train", "version": 3, "progress": Progress(3, 9)}
        alone = collector.sample(drawn[place : place + 1], 2, Sampling(max_new_tokens=5), **options)
        for member in range(2):
            one, other = alone.trajectories[member], long.trajectories[2 * place + member]
            assert torch.equal(one.action[one.attention], other.action[other.attention])
            torch.testing.assert_close(one.sampler_logp[one.mask], other.sampler_logp[other.mask], atol=1e-5, rtol=1e-5)
            assert torch.equal(one.reward[one.mask], other.reward[other.mask])


def test_turns_draw_noise_of_their_own() -> None:
    """An environment that says nothing and a policy that forgets everything would otherwise repeat itself."""
    graded = collect(Scripted(script=lambda prompt, seed: lambda turn, said: Reply("?", Grade(0.0)), turns=6), prompts=4, size=8)
    turn = graded.columns["turn"]
    firsts = torch.stack([graded.trajectories.action[turn == number][:8] for number in (2, 3, 4)])
    assert len({tuple(each.tolist()) for each in firsts}) == 3


# --- one turn -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [Lenient(), Sulking()])
@pytest.mark.parametrize("new", [1, 7])
def test_one_turn_is_todays_path(task: Any, new: int) -> None:
    here, sampling = world(task), Sampling(max_new_tokens=new)
    today = PromptCollector(here, 5, max_invalid_share=1.0)
    turns = Conversations(here, 5, max_invalid_share=1.0, make=lambda: OneTurn(task, here.verifier))
    for version in (0, 1):
        first, second = (each.collect(4, 3, sampling, version=version, progress=Progress(1, 2)) for each in (today, turns))
        for name, value in first.trajectories.items():
            other = getattr(second.trajectories, name)
            assert (value is None) == (other is None), name
            if value is not None:
                same = torch.equal(value.nan_to_num(), other.nan_to_num()) if value.is_floating_point() else torch.equal(value, other)
                assert same and value.dtype == other.dtype, name
        assert torch.equal(first.trajectories.sampler_logp.isnan(), second.trajectories.sampler_logp.isnan())
        assert (first.prompts, first.completions) == (second.prompts, second.completions)
        assert first.scores.messages == second.scores.messages and first.scores.notes == second.scores.notes
        assert second.metrics.pop("turns") == 1 and second.metrics.pop("out_of_room_share") == 0
        assert first.metrics == second.metrics
    looked = [each.validation(5, sampling, version=2) for each in (today, turns)]
    assert looked[0].items() <= looked[1].items()
    assert today.state_dict().items() <= turns.state_dict().items()


def test_a_prompt_brings_its_grader() -> None:
    class Fixed:
        name = "fixed"

        def score(self, rollouts: Sequence[Any], progress: Any = None) -> Any:
            from rheostat.credit.verifiers.verifier_interface import Scores

            return Scores.from_grades([Grade(7.0, {"own": 1.0}) for _ in rollouts])

    task = Lenient()
    here = world(task)
    for collector in (PromptCollector(here, 1), Conversations(here, 1, make=lambda: OneTurn(task, here.verifier))):
        drawn, numbers = collector.draw(3)
        plain = collector.sample(drawn, 2, Sampling(max_new_tokens=5), numbers=numbers, purpose="train", version=0)
        drawn[1] = (replace(drawn[1][0], grader=Fixed()), drawn[1][1])
        mixed = collector.sample(drawn, 2, Sampling(max_new_tokens=5), numbers=numbers, purpose="train", version=0)
        expected = plain.scores.reward.clone()
        expected[2:4] = 7.0
        assert (
            torch.equal(mixed.scores.reward, expected)
            and mixed.scores.parts["own"].isnan().tolist() == [True] * 2 + [False] * 2 + [True] * 2
        )


# --- limits and misbehaviour --------------------------------------------------------------------------------------------------------------


def test_a_conversation_without_room_is_truncated_and_says_so() -> None:
    endless = Scripted(script=lambda prompt, seed: lambda turn, said: Reply("+" * 6, Grade(1.0)), turns=50)
    graded = collect(endless, positions=64)
    rows = graded.trajectories
    assert bool(rows.truncated.any(1).all()) and not bool(rows.terminated.any()) and bool(rows.valid.all())
    length = rows.attention.sum(1)
    assert int(length.max()) <= 64 and int(length.min()) > 64 - 6 - 2 * 5, "as many turns as fit whole"
    assert set(graded.scores.messages.values()) == {
        "the conversation ran out of room: another turn needs more than the 64 positions there are"
    }
    assert graded.metrics["out_of_room_share"] == 1 and graded.metrics["invalid_share"] == 0


def test_a_turn_that_is_cut_goes_on_and_turns_run_out() -> None:
    seen: list[Said] = []

    def act(turn: int, said: Said) -> Reply:
        seen.append(said)
        return Reply("?")

    graded = collect(Scripted(script=lambda prompt, seed: act, turns=3), prompts=1, size=6, sampling=Sampling(max_new_tokens=2))
    assert any(said.cut for said in seen) and len(seen) == 18
    assert bool(graded.trajectories.truncated.any(1).all()) and graded.metrics["turns"] == 3
    assert not bool(graded.scores.valid.any()) and bool(graded.scores.abstained.all()), "nobody ever gave a grade"


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda turn, said: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda turn, said: Reply(3, Grade(1.0)), "the environment replied with a int, which is no text"),  # type: ignore[arg-type]
        (lambda turn, said: "higher", "the environment replied with a str, which is no Reply"),
        (lambda turn, said: Reply("?", Grade(float("nan"))), "the grader returned nan, which is not a reward"),
        (lambda turn, said: Reply("ä", Grade(1.0)), "what the environment said cannot be encoded"),
    ],
)
def test_what_fails_is_an_invalid_row(act: Any, reason: str) -> None:
    def script(prompt: Any, seed: int) -> Any:
        return (lambda turn, said: act(turn, said) if turn == 2 else Reply("+", Grade(1.0))) if seed % 3 == 0 else chatty(prompt, seed)

    task = Scripted(script=script)
    graded = collect(task, prompts=4, size=4)
    failed = graded.scores.failed
    assert 0 < int(failed.sum()) < 16 and torch.equal(graded.trajectories.valid[:, 0], ~failed)
    assert all(reason in graded.scores.messages[row] for row in failed.nonzero().flatten().tolist())
    assert not bool(graded.trajectories.reward[failed].any()) and bool((graded.columns["turn"][failed].amax(1) <= 2).all())
    with pytest.raises(RheostatError, match="The environment 'guess-number' failed on") as error:
        Conversations(world(task), 0, max_invalid_share=0.0).collect(4, 4, Sampling(max_new_tokens=5), version=3, progress=Progress())
    assert "\n" not in str(error.value)


def test_a_partner_that_cannot_be_made_is_an_invalid_row() -> None:
    def script(prompt: Any, seed: int) -> Any:
        if seed % 2:
            raise ValueError("no\nboard")
        return chatty(prompt, seed)

    graded = collect(Scripted(script=script), prompts=3, size=4)
    assert set(graded.scores.messages.values()) == {"ValueError: no board"} and bool(graded.scores.valid.any())


def test_hints_are_refused() -> None:
    collector = Conversations(world(GuessNumber()), 0)
    drawn, numbers = collector.draw(1)
    with pytest.raises(RheostatError, match="Hints continue one answer"):
        collector.sample(drawn, 1, Sampling(), numbers=numbers, purpose="train", version=0, openings=["#"])


def test_the_task_chooses_the_collector() -> None:
    assert type(collector_of(world(Lenient()), 0)) is PromptCollector
    assert type(collector_of(world(GuessNumber()), 0)) is Conversations
    with pytest.raises(RheostatError, match="has no conversations"):
        Conversations(world(Lenient()), 0)


# --- columns ------------------------------------------------------------------------------------------------------------------------------


def test_columns_follow_their_rows() -> None:
    graded = collect(prompts=3, size=2)
    turn = graded.columns["turn"]
    assert torch.equal(graded.select(torch.tensor([4, 1])).columns["turn"], turn[[4, 1]])
    other = collect(Scripted(script=lambda prompt, seed: lambda turn, said: Reply("", Grade(0.0), terminated=True)), prompts=2, size=2)
    joined = join([graded, other], 9)
    assert joined is not None and torch.equal(joined.columns["turn"] > 0, joined.trajectories.mask)
    batch = batch_of(graded)
    below = batch.with_rows(join_rows([batch.rows, other.trajectories]))
    assert torch.equal(below.columns["turn"][:6, : turn.shape[1]], turn) and not bool(below.columns["turn"][6:].any())
    assert below[torch.tensor([0, 7])].columns["turn"].shape == (2, below.rows.shape[1])


def test_state_is_the_cursor(tmp_path: Path) -> None:
    sampling = Sampling(max_new_tokens=5)
    whole, halved = (Conversations(world(GuessNumber()), 2, max_invalid_share=1.0) for _ in range(2))
    options: dict[str, Any] = {"progress": Progress()}
    whole.collect(3, 2, sampling, version=0, **options)
    halved.collect(3, 2, sampling, version=0, **options)
    halved.validation(4, sampling, version=1)
    again = Conversations(world(GuessNumber()), 2, max_invalid_share=1.0)
    again.load_state_dict(halved.state_dict())
    first, second = (each.collect(3, 2, sampling, version=1, **options) for each in (whole, again))
    assert torch.equal(first.trajectories.action, second.trajectories.action) and torch.equal(first.scores.reward, second.scores.reward)
    assert whole.state_dict() == again.state_dict()
