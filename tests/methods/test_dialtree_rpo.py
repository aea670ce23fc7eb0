"""DialTree-RPO in the real training path: what trees share, what is pruned, which tags are held back, and what is refused."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.cli.entry import main
from rheostat.collect.language.dialogue_trees import effective_number
from rheostat.credit.dialogue_credit import TagMask, node_advantage, tag_mask
from rheostat.credit.verifiers.verifier_interface import Grade
from rheostat.errors import RheostatError
from rheostat.tasks.language import GuessNumber, GymnasiumText, Partners, Reply, Said
from rheostat.tasks.language.games.planned import TAGS, PlannedNegotiation, PlannedQuestions
from rheostat.tasks.language.games.players import baseline, expert, play
from rheostat.tasks.language.reply_tags import message_of, well_formed
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure, derived
from tests.crash import crash, differences
from tests.learners import credited
from tests.methods.test_language_methods import built, save, small
from tests.training.test_run import StopAfter

TREE: dict[str, Any] = {"branches": 3, "width": 3, "group_size": 6, "prompts_per_batch": 3, "max_new_tokens": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


class Guesses(GuessNumber):
    """Two numbers, three turns."""

    def __init__(self) -> None:
        super().__init__(largest=1, smallest_range=2, turns=3, validation_share=0.3)


@dataclass(frozen=True)
class Told(GuessNumber):
    """A partner that is a function of the replies so far; what it heard is kept.

    Attributes:
        act: from all replies of a dialogue to the answer.
        ears: every reply that reached the partner.
    """

    act: Any = None
    ears: Any = None
    turns: int = 3

    def episodes(self) -> Partners:
        return Partners(self.name, lambda prompt, seed: Listener(self.act, self.ears), self.turns)


class Listener:
    """The partner of one dialogue."""

    def __init__(self, act: Any, ears: list[str] | None) -> None:
        self.act, self.ears, self.replies = act, ears, []

    def reply(self, said: Said) -> Any:
        self.replies.append(said.text)
        if self.ears is not None:
            self.ears.append(said.text)
        return self.act(self.replies)


def patient(replies: list[str]) -> Reply:
    """Never ends, never pays."""
    return Reply("-", Grade(0.0))


def learner(model: str, task: Any = None, **options: Any) -> Any:
    return built("dialtree-rpo", model, task or Guesses(), **(TREE | options))


def pieces(batch: Any, row: int) -> list[tuple[list[int], list[float]]]:
    """Tokens and log-probabilities of every reply of a row."""
    rows, turn = batch.rows, batch.columns["turn"][row]
    return [(rows.action[row][turn == k].tolist(), rows.sampler_logp[row][turn == k].tolist()) for k in range(1, int(turn.max()) + 1)]


# --- trees --------------------------------------------------------------------------------------------------------------------------------


def test_a_tree_without_branches_is_a_conversation(model: str) -> None:
    """Token by token, whatever the turn, and its reward is the success of the conversation."""
    one = learner(model, branches=1, width=1, group_size=1, prompts_per_batch=6)
    other = built("grpo", model, Guesses(), prompts_per_batch=6, max_new_tokens=2)
    mine = one.collect().rows
    context = other.context
    theirs = context.collector.collect(6, 1, context.sampling, version=0, progress=context.progress).trajectories
    assert [row.action[row.attention].tolist() for row in mine] == [row.action[row.attention].tolist() for row in theirs]
    assert torch.equal(mine.mask, theirs.mask) and torch.equal(mine.reward.sum(1), (theirs.reward.sum(1) > 0.5).float())
    torch.testing.assert_close(mine.sampler_logp[mine.mask], theirs.sampler_logp[theirs.mask], atol=1e-5, rtol=0)
    assert torch.equal(mine.terminated, theirs.terminated) and torch.equal(mine.truncated, theirs.truncated)


def test_paths_that_share_a_node_share_its_reply(model: str) -> None:
    batch = learner(model, group_size=27, width=9).collect()
    path, group = batch.columns["path"], batch.rows.group[:, 0]
    known: dict[tuple[int, int], Any] = {}
    for row in range(len(batch)):
        nodes = path[row][path[row] >= 0].tolist()
        assert len(nodes) == len(pieces(batch, row))
        for node, piece in zip(nodes, pieces(batch, row), strict=True):
            assert known.setdefault((int(group[row]), node), piece) == piece
    assert len(known) < sum(len(pieces(batch, row)) for row in range(len(batch)))
    assert len({(*key, *map(str, piece)) for key, piece in known.items()}) == len(known)
    assert batch.metrics["tree/first_turns"] > 1 and batch.metrics["tree/depth"] > 1


def test_a_tree_does_not_depend_on_its_neighbours(model: str) -> None:
    together, alone = learner(model).collect(), learner(model, prompts_per_batch=1)
    for number in range(3):
        mine, other = together[together.rows.group[:, 0] == number], alone.collect()
        assert torch.equal(mine.columns["path"], other.columns["path"])
        assert [row.action[row.attention].tolist() for row in mine.rows] == [row.action[row.attention].tolist() for row in other.rows]


@pytest.mark.parametrize(
    ("width", "paths", "replies", "expected"), [(2, 9, 0, 3 + 6 + 6), (9, 4, 0, 3 + 9 + 27), (9, 99, 7, 7), (9, 99, 3, 3)]
)
def test_limits_of_a_tree(width: int, paths: int, replies: int, expected: int, model: str) -> None:
    """Of dialogues alive, of paths, and of replies; within a budget of one path there is one."""
    one = learner(model, Told(act=patient), width=width, group_size=paths, tree_replies=replies)
    batch = one.collect()
    of_tree = batch.rows.group[:, 0].unique(return_counts=True)[1]
    assert batch.metrics["tree/replies"] == expected if replies != 7 else batch.metrics["tree/replies"] <= 7
    assert int(of_tree.max()) <= min(paths, 3 * width) and len(of_tree) == 3
    assert bool((batch.columns["path"] >= 0).all()) and bool(batch.rows.truncated.any(1).all())


def test_a_shallower_tree_is_truncated(model: str) -> None:
    batch = learner(model, Told(act=patient), tree_depth=2).collect()
    assert batch.columns["path"].shape[1] == 2 and int(batch.columns["turn"].max()) == 2 and bool(batch.rows.truncated.any(1).all())


# --- pruning ------------------------------------------------------------------------------------------------------------------------------


def test_malformed_replies_never_reach_the_partner_and_leave_no_row(model: str) -> None:
    ears: list[str] = []
    options = {"tags": "#", "max_new_tokens": 12, "branches": 8, "group_size": 99, "width": 99}
    batch = learner(model, Told(act=patient, ears=ears, turns=2), **options).collect()
    assert ears and all(text.count("#") == 1 for text in ears)
    assert 0 < batch.metrics["tree/malformed_share"] < 1
    assert all(
        ids.count(learner(model).policy.tokenizer.get_vocab()["#"]) == 1 for row in range(len(batch)) for ids, _ in pieces(batch, row)
    )


def test_all_branches_pruned_is_one_sentence(model: str) -> None:
    one = learner(model, tags="# * ;")
    with pytest.raises(RheostatError, match=r"All branches were pruned: of 9 replies 9 were malformed and 0 off topic; train the model"):
        one.collect()


def test_off_topic_ends_a_branch_but_not_a_success(model: str) -> None:
    def vague(replies: list[str]) -> Reply:
        return Reply("-", Grade(float(len(replies) == 2), {"understood": 0.5 if len(replies) == 2 else 1.0}))

    batch = learner(model, Told(act=vague)).collect()
    assert bool((batch.rows.reward.sum(1) == 1).all()) and batch.metrics["tree/off_topic_share"] == 0
    doubtful = lambda replies: Reply("-", Grade(0.0, {"understood": 0.95}))  # noqa: E731
    assert learner(model, Told(act=doubtful)).collect().metrics["tree/off_topic_share"] == 0
    with pytest.raises(RheostatError, match="9 off topic"):
        learner(model, Told(act=doubtful), topic_threshold=0.96).collect()


def test_a_success_is_a_leaf_and_scores_add_up(model: str) -> None:
    """0.3 a turn: more than one half after the second, where the branch ends; the environment itself would go on."""
    batch = learner(model, Told(act=lambda replies: Reply("-", Grade(0.3)))).collect()
    assert bool((batch.columns["path"][:, 2] == -1).all()) and bool((batch.rows.reward.sum(1) == 1).all())
    assert bool(batch.rows.terminated.any(1).all())
    assert batch.metrics["reward/score"] == pytest.approx(0.6)
    longer = learner(model, Told(act=lambda replies: Reply("-", Grade(0.3))), success_threshold=0.7).collect()
    assert bool((longer.columns["path"][:, 2] >= 0).all())


def test_a_dialogue_that_ends_without_success_is_a_failure(model: str) -> None:
    batch = learner(model, Told(act=lambda replies: Reply("", Grade(0.2), terminated=True))).collect()
    assert not bool(batch.rows.reward.any()) and bool(batch.rows.valid.all()) and batch.metrics["tree/depth"] == 1


# --- environments that misbehave ----------------------------------------------------------------------------------------------------------


class Odd:
    """An environment of Gymnasium's interface that misbehaves."""

    kind = ""

    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        return "0:1?", {}

    def step(self, text: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.kind == "hangs":
            time.sleep(0.5)
        if self.kind == "crashes":
            raise ValueError("no more paper")
        return (7 if self.kind == "is no text" else "+"), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("kind", "said"),
    [("hangs", "ran past its limit of 0.05 s"), ("crashes", "no more paper"), ("is no text", "showed a int, which is no text")],
)
def test_environments_that_hang_crash_or_are_no_text(kind: str, said: str, model: str) -> None:
    """Their rows have failed, with the reason, and teach nothing; with few of them allowed, the run stops in one sentence."""
    make = type("Odd", (Odd,), {"kind": kind})
    options = {"branches": 1, "width": 1, "group_size": 1, "prompts_per_batch": 1}
    one = learner(model, GymnasiumText(make, turns=2, patience=0.05), max_invalid_share=1.0, **options)
    batch = one.collect()
    assert not bool(batch.rows.valid.any()) and all(said in text for text in batch.facts["graded"].scores.messages.values())
    with pytest.raises(RheostatError, match=said):
        learner(model, GymnasiumText(make, turns=2, patience=0.05), **options).collect()


def test_an_environment_that_answers_differently_cannot_branch(model: str) -> None:
    count = iter(range(10_000))
    fickle = Told(act=lambda replies: Reply("+-*;"[next(count) % 4] * (1 + next(count) % 3), Grade(0.0)))
    graded = learner(model, fickle, max_invalid_share=1.0).collect().facts["graded"]
    assert any("answered the same replies differently" in text for text in graded.scores.messages.values())


def test_a_dialogue_without_room_is_a_truncated_leaf(model: str) -> None:
    long = Told(act=lambda replies: Reply("+" * 130, Grade(0.0)))
    batch = learner(model, long).collect()
    assert batch.metrics["tree/depth"] == 1 and bool(batch.rows.truncated.any(1).all()) and bool(batch.rows.valid.all())
    assert all("ran out of room" in text for text in batch.facts["graded"].scores.messages.values())


# --- credit -------------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 8), st.integers(1, 4))
def test_a_node_counts_once_with_its_mean(seed: int, leaves: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    path = torch.tensor(rng.integers(0, 2, (leaves, depth)).cumsum(1) * 10 + np.arange(depth))
    group, worth = torch.tensor(rng.integers(0, 2, leaves)), torch.tensor(rng.standard_normal(leaves))
    found = node_advantage(worth, group, path)
    for level in range(depth):
        for row in range(leaves):
            sharing = (group == group[row]) & (path[:, level] == path[row, level])
            assert float(found[sharing, level].sum()) == pytest.approx(float(worth[sharing].mean()), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.floats(-2, 2))
def test_masks_hold_tags_alone(ids: list[int], worth: float) -> None:
    tokens, advantage = torch.tensor([ids]), torch.full((1, len(ids)), worth, dtype=torch.float64)
    masks = {mode: tag_mask(tokens, advantage, [1, 4], mode)[0].tolist() for mode in ("none", "static", "adaptive")}
    assert masks["none"] == [True] * len(ids) and masks["static"] == [token not in (1, 4) for token in ids]
    assert masks["adaptive"] == (masks["static"] if worth < 0 else masks["none"])


def test_the_mask_looks_at_the_advantage_and_not_at_the_reward(model: str) -> None:
    """In a tree of failures nothing is masked; in a mixed one, tags of failures; tags count in the length of their path."""
    options: dict[str, Any] = {"tags": "1", "prune": "none", "prompts_per_batch": 8, "branches": 4, "group_size": 16}
    one = learner(model, **options)
    batch = credited(one)
    rows, tag = batch.rows, one.policy.tokenizer.get_vocab()["1"]
    plain = credited(learner(model, mask="none", **options)).rows
    held = rows.mask & (rows.action == tag) & (plain.advantage < 0)
    assert bool(held.any()) and not bool(rows.advantage[held].any())
    assert torch.equal(rows.advantage[~held], plain.advantage[~held]) and torch.equal(rows.mask, plain.mask)
    assert batch.metrics["tree/masked_share"] == pytest.approx(float(held.sum() / rows.mask.sum()))


def test_equal_rewards_and_lonely_paths_move_nothing(model: str) -> None:
    for task in (Told(act=lambda replies: Reply("-", Grade(0.6))), Told(act=patient)):
        assert not bool(credited(learner(model, task)).rows.advantage.any())
    lonely = credited(learner(model, Told(act=lambda replies: Reply("-", Grade(0.6))), group_size=1))
    assert not bool(lonely.rows.advantage.any()) and bool((lonely.rows.reward.sum(1) == 1).all())


def test_first_turns_are_counted_by_their_shares() -> None:
    assert effective_number(["a", "a", "b", "b"]) == pytest.approx(2) and effective_number(["a"] * 5) == 1
    assert effective_number(["a", "a", "a", "b"]) == pytest.approx(1 / (9 / 16 + 1 / 16))


# --- planned games ------------------------------------------------------------------------------------------------------------------------


def test_replies_and_their_messages() -> None:
    assert message_of("<3>& fur? .", TAGS) == "fur?" and well_formed("anything", ())
    for text in ("", "<3>&fur?", "3>&fur?.", "<3>&fur?..", ">3<&fur?.", "&fur?.<3>", "<3>.fur?&"):
        assert not well_formed(text, TAGS) and message_of(text, TAGS) is None


@pytest.mark.parametrize("task", [PlannedQuestions(), PlannedNegotiation()])
def test_the_partner_hears_the_message_alone(task: Any) -> None:
    prompt = task.prompts("train", 1).take(1)[0]
    played = play(task, prompt, expert, np.random.default_rng(0))
    inner = super(type(task), task).game(prompt)
    assert all(well_formed(move, TAGS) and len(move) <= task.longest_move for move in played.moves)
    for move, answer in zip(played.moves, played.answers, strict=True):
        inner.turns = task.turns
        inner.take(message_of(move, TAGS) or "")
        assert inner.shown == answer
    assert played.reward > 0.5
    game = task.start(prompt)
    reply = game.reply(Said(played.moves[0][:-1]))
    assert reply.grade.parts["understood"] == 0 and not reply.terminated
    assert baseline(task, expert, games=40)["reward"] > 0.6
    assert "<PLAN>&MESSAGE." in type(task)(chat=True).prompts("train", 1).take(1)[0].content[0]["content"]


# --- runs and refusals --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2])
def test_trees_resume_exactly(model: str, tmp_path: Path, at: int) -> None:
    options = TREE | {"evaluate_every": 2, "evaluation_prompts": 2, "steps": 3}
    whole = Run.create(tmp_path / "whole", small("dialtree-rpo", model, Guesses(), **options), task=Guesses()).train()
    assert whole.metrics[1]["tree/replies"] > 3
    halted = Run.create(tmp_path / "halted", small("dialtree-rpo", model, Guesses(), **options), task=Guesses())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(at))
    Run.load(tmp_path / "halted", task=Guesses()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.slow
def test_kills_in_the_middle_of_trees_change_nothing() -> None:
    sizes = "--prompts-per-batch 2 --group-size 4 --branches 2 --width 2 --checkpoint-every 2 --evaluate-every 3 --evaluation-prompts 2"
    words = f"--model untrained-games {sizes} --threads 1 --prune none --environment turns 2"
    crash("dialtree-rpo", "twenty-questions", kills=2, steps=12, options=words.split())


def test_from_the_command_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--branches 2 --width 2 --group-size 3 --prompts-per-batch 2 --max-new-tokens 1 --steps 1 --evaluation-episodes 0"
    words = (
        f"train dialtree-rpo guess-number --model {model} {sizes} --directory {tmp_path / 'run'} --environment largest 1 smallest_range 2"
    )
    main(words.split())
    assert Run.load(tmp_path / "run").metrics[-1]["tree/replies"] > 0
    capsys.readouterr()
    main(["show", "dialtree-rpo"])
    assert "tree.width" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tree_depth": 4}, r"tree_depth is 4, but guess-number has at most 3 turns"),
        ({"tree_replies": 2}, r"A budget of 2 replies is smaller than one path of 3 turns"),
        ({"tags": "12"}, r"The tag '12' is 2 tokens of this model, and the mask holds single tokens back"),
        ({"dial.replay_share": 0.5}, r"a replayed row does not carry the path"),
        ({"dial.expert_share": 0.5}, r"an expert's dialogue has no path in a tree"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_spent(options: dict[str, Any], said: str, model: str) -> None:
    with pytest.raises(RheostatError, match=said):
        learner(model, **options)


def test_a_threshold_that_cannot_act_is_refused() -> None:
    with pytest.raises(RheostatError, match="keeps replies that are off topic"):
        derived("dialtree-rpo", configure("dialtree-rpo", {"prune": "malformed", "topic_threshold": 0.5}))


def test_tags_are_the_tasks_unless_they_are_named(model: str) -> None:
    tokenizer = PlannedQuestions().tokenizer()
    context = SimpleNamespace(setup=SimpleNamespace(policy=SimpleNamespace(tokenizer=tokenizer), task=PlannedQuestions()))
    known = tokenizer.get_vocab()
    assert TagMask().ids(context) == [known[tag] for tag in TAGS] and TagMask(tags="? =").ids(context) == [known["?"], known["="]]
