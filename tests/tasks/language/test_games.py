"""Text games: every opening can be won, experts win and random players rarely do, potentials telescope, and bad knobs are one sentence."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.tasks.language import Said, language_task
from rheostat.tasks.language.games import teaching
from rheostat.tasks.language.games.players import at_random, baseline, careless, expert, play
from rheostat.tasks.language.games.shop import catalogue
from rheostat.tasks.language.games.sokoban import read_picture, solutions
from rheostat.tasks.language.games.teaching import GAME_RECIPES, GameRecipe, lessons, measure_game, rows, train_game_model
from rheostat.tasks.language.games.text_game import TextGame, move_of
from rheostat.tasks.language.recipes import ModelSize
from rheostat.tasks.language.small_models import IGNORED
from rheostat.tasks.language.task_list import LANGUAGE_TASKS, TASKS, knobs_of

GAMES = [name for name, kind in TASKS.items() if issubclass(kind, TextGame)]
every_game = pytest.mark.parametrize("name", GAMES)


def game(name: str, **knobs: Any) -> TextGame:
    found = language_task(name, **knobs)
    assert isinstance(found, TextGame)
    return found


@every_game
def test_experts_win_and_random_players_seldom_do(name: str) -> None:
    task = game(name)
    best, worst = baseline(task, expert, 60), baseline(task, at_random, 60)
    assert best["reward"] == pytest.approx(1.0) and best["won"] == 1.0 and best["turns"] <= task.turns
    assert worst["reward"] < 0.5 and baseline(task, careless(0.5), 60)["reward"] < 1.0
    assert len(GAMES) == 8 and name in LANGUAGE_TASKS


@every_game
def test_games_come_from_the_seed_and_keep_their_side(name: str) -> None:
    task, text = game(name), game(name).tokenizer()
    take = lambda seed: [(each.content, each.answer) for each in task.prompts("train", seed).take(60)]  # noqa: E731
    assert take(0) == take(0) != take(1)
    held = {prompt.key for prompt in task.validation(40)}
    train = task.prompts("train", 5).take(80)
    assert held and not held & {each.key for each in train}
    assert all(len(text(str(each.content))["input_ids"]) <= task.limits.max_prompt_tokens for each in train)
    for each in train[:5]:
        json.dumps([dict(each.columns), each.answer])
        rng = np.random.default_rng(0)
        played = play(task, each, careless(0.5), rng)
        assert all(1 <= len(text(move)["input_ids"]) < task.limits.max_new_tokens for move in played.moves)
        assert all(text(answer)["input_ids"] and answer.endswith(":") for answer in played.answers)


@every_game
@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.2, 0.6, 1.0]))
def test_progress_adds_up_to_the_change_of_the_potential(name: str, seed: int, share: float) -> None:
    """Telescoping: whatever the player does, and moves that are not understood change nothing."""
    task, rng = game(name), np.random.default_rng(seed)
    one = task.start(task.prompts("train", seed).take(1)[0])
    first, total, player = one.potential(), 0.0, careless(share)
    for _ in range(task.turns):
        before = one.shown, one.potential()
        move = "zz" if rng.random() < 0.2 else player(one, rng)
        reply = one.reply(Said(move))
        if move == "zz":
            assert not reply.grade.parts["understood"] and reply.grade.reward == 0 and one.potential() == before[1]
        total += reply.grade.parts.get("progress", 0.0)
        if reply.terminated:
            break
    if first is None:
        assert not task.knows_progress and total == 0
    else:
        assert total == pytest.approx(one.potential() - first, abs=1e-9)  # type: ignore[operator]
        assert one.potential() == 0 if one.won else one.potential() < 0  # type: ignore[operator]


def test_the_limit_on_turns_truncates_and_the_end_terminates() -> None:
    task = game("text-corridor", turns=13, penalty=0.25)
    prompt = task.validation(1)[0]
    episodes = task.episodes()
    episodes.reset([prompt, prompt], [0, 1])
    one = task.start(prompt)
    while not episodes.over[0]:
        best = one.best()
        one.take(best)
        live = [row for row in range(2) if not episodes.over[row]]
        step = episodes.step(live, [Said(best if row == 0 else "?") for row in live])
        assert step.scores.reward[-1] == -0.25 and step.scores.parts["understood"][-1] == 0
    assert step.terminated[0] and not step.truncated[0] and step.scores.reward[0] == 1
    while not episodes.over[1]:
        step = episodes.step([1], [Said("")])
    assert (step.terminated, step.truncated) == ([False], [True])


# --- the single games ---------------------------------------------------------------------------------------------------------------------


def test_sokoban_rules() -> None:
    task = game("text-sokoban", size=3, walls=0)
    one = task.start(task.prompt("@$.\n---\n---:", None, {}))
    assert one.shown == "@$.\n---\n---:" and one.remaining() == 1 and one.best() == "r"
    pushed = one.reply(Said("R "))
    assert pushed.text == "-@*\n---\n---:" and pushed.terminated and pushed.grade.reward == 1
    stuck = task.start(task.prompt("-@-\n-$.\n---:", None, {}))
    assert stuck.reply(Said("u")).text == "-@-\n-$.\n---:", "a wall"
    assert stuck.reply(Said("d")).grade.parts["progress"] < 0, "the box stands at the wall, away from the goal"
    assert stuck.remaining() is None and stuck.potential() == -1 and stuck.best() in "udlr"
    two = task.start(task.prompt("@$$\n---\n..-:", None, {}))
    assert two.reply(Said("r")).text == "@$$\n---\n..-:", "two boxes cannot be pushed at once"
    assert read_picture("+*#\n---\n---:")[1:] == ((0, 0), frozenset({(0, 1)}))


@given(seed=st.integers(0, 10_000), boxes=st.integers(1, 2))
@settings(max_examples=10)
def test_sokoban_solutions_are_those_of_a_search_forwards(seed: int, boxes: int) -> None:
    task = game("text-sokoban", size=3, walls=1, boxes=boxes, shortest=1, furthest=15)
    one = task.start(task.prompts("train", seed).take(1)[0])
    start = (one.player, one.boxes)  # type: ignore[attr-defined]
    level, seen, found = [start], {start}, 0
    while level and not any(position[1] == one.room.goals for position in level):  # type: ignore[attr-defined]
        found += 1
        following = []
        for one.player, one.boxes in level:  # type: ignore[attr-defined]
            following += [one.after(way) for way in "udlr"]  # type: ignore[attr-defined]
        level = list({each for each in following if each not in seen})
        seen |= set(level)
    assert solutions(one.room)[start] == found  # type: ignore[attr-defined]


def test_the_corridor_needs_the_key_first() -> None:
    task = game("text-corridor")
    one = task.start(task.prompt("k2 d4 @3-:", None, {}))
    answers = [one.reply(Said(move)) for move in "rolltrro"]
    assert [each.text for each in answers] == ["4-:", "4-:", "3-:", "2-:", "2+:", "3+:", "4+:", "4+:"]
    assert [each.grade.reward for each in answers] == [0, 0, 0, 0, 0, 0, 0, 1] and answers[-1].terminated
    few = game("text-corridor", layouts=16)
    assert len(few.openings) == 16 == len({str(each.content) for side in ("train", "validation") for each in few.prompts(side).take(300)})  # type: ignore[attr-defined,arg-type]


def test_the_shop_grades_what_is_bought() -> None:
    task = game("text-shop")
    goods = catalogue(task.goods, 0)  # type: ignore[attr-defined]
    good = min(goods, key=lambda each: each.price)
    one = task.start(task.prompt(f"buy {good.colour} {good.thing} max {good.price}:", None, {}))
    assert one.reply(Said("b 1")).grade.parts["understood"] == 0, "nothing is shown yet"
    assert one.reply(Said("s qq")).text == "-:"
    shown = one.reply(Said(f"s {good.thing} {good.colour}")).text
    assert shown.splitlines()[0].startswith(f"1 {good.colour} {good.thing}")
    pages = {shown}
    for _ in range(20):
        pages.add(one.reply(Said("n")).text)
    assert len(pages) > 1
    wrong = next(each for each in goods if each.colour != good.colour and each.thing != good.thing and each.price > good.price)
    assert one.met(wrong) == 0 and one.met(good) == 1  # type: ignore[attr-defined]
    assert catalogue(50, 1) != catalogue(50, 2) and catalogue(50, 1) == catalogue(50, 1)


def test_the_seller_gives_way_and_leaves() -> None:
    task = game("text-negotiation")
    start = lambda: task.start(task.prompt("worth 9 ask 10:", 4, {"temper": 1.0}))  # noqa: E731
    talk = start()
    assert [talk.reply(Said("o 3")).text for _ in range(4)] == ["ask 9:", "ask 7:", "ask 6:", "ask 4:"]
    last = talk.reply(Said("y"))
    assert last.terminated and last.grade.reward == 1 and last.text == "deal:"
    assert start().reply(Said("o 1")).text == "no:"
    assert start().reply(Said("y")).grade.reward == pytest.approx(-0.2), "more than it is worth"
    assert start().reply(Said("o 99")).grade.reward == -1.0 and start().reply(Said("o 10")).terminated


def test_questions_divide_the_animals() -> None:
    task = game("twenty-questions")
    one = task.start(task.prompt("cat cow hen cod:", "cow", {}))
    asked = [one.reply(Said(move)).text for move in ("fur?", "hello", "farm?", "wing?")]
    assert asked == ["y:", "?:", "y:", "n:"] and one.left == ["cow"]  # type: ignore[attr-defined]
    assert one.reply(Said("=emu")).grade.parts["understood"] == 0, "not among the animals"
    assert one.reply(Said("=cow")).grade.reward == 1 and one.over
    lost = task.start(task.prompt("cat cow:", "cow", {}))
    assert lost.reply(Said("=cat")).grade.reward == 0 and lost.over and not lost.won and lost.potential() == -1


def test_chat_models_get_the_rules_and_may_think_aloud() -> None:
    task = game("text-sokoban", chat=True)
    prompt = task.prompts().take(1)[0]
    assert isinstance(prompt.content, list) and "push every box" in prompt.content[0]["content"] and task.base is None
    assert task.start(prompt).shown in prompt.content[0]["content"]
    assert move_of("I go left.\n\n  L \n") == "l" and move_of(" \n") == ""


@pytest.mark.parametrize(
    ("name", "knobs", "sentence"),
    [
        ("text-sokoban", {"size": 9}, "size of text-sokoban lies in 3 to 7"),
        ("text-sokoban", {"boxes": 3}, "boxes of text-sokoban lies in 1 to 2"),
        ("text-sokoban", {"shortest": 9, "furthest": 8}, "furthest of text-sokoban lies in 9 to 64"),
        ("text-sokoban", {"turns": 0}, "turns of text-sokoban lies in 1 to 64"),
        ("text-sokoban", {"turns": 3, "shortest": 4}, "shortest of text-sokoban lies in 1 to 3"),
        ("text-maze", {"size": 1}, "size of text-maze lies in 2 to 9"),
        ("text-corridor", {"layouts": -1}, "needs layouts of at least 0"),
        ("text-corridor", {"length": 3, "shortest": 12}, "a corridor with a solution of 12 to 13 moves"),
        ("text-shop", {"goods": 1}, "goods of text-shop lies in 3 to 500"),
        ("text-negotiation", {"highest": 5}, "highest of text-negotiation lies in 6 to 99"),
        ("twenty-questions", {"animals": 17}, "animals of twenty-questions lies in 2 to 16"),
        ("text-maze", {"penalty": 2.0}, "lies in 0 to 1"),
        ("text-maze", {"validation_share": 1.0}, "validation_share lies in"),
        ("text-maze", {"walls": 1}, "Unknown knob of text-maze"),
    ],
)
def test_bad_knobs_are_one_sentence(name: str, knobs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        game(name, **knobs).prompts().take(1)
    assert "\n" not in str(error.value)


def test_a_room_without_such_a_solution_is_refused() -> None:
    with pytest.raises(RheostatError, match="No room of text-sokoban has a shortest solution of 15 to 15 moves"):
        game("text-sokoban", size=3, walls=0, shortest=15, furthest=15).prompts().take(1)


# --- their base models --------------------------------------------------------------------------------------------------------------------

TINY = ModelSize(16, 1, 2, 1, 8, 16)


def test_rows_teach_the_moves_alone() -> None:
    task = game("text-corridor")
    tokenizer = task.tokenizer()
    played = [play(task, prompt, expert, np.random.default_rng(0)) for prompt in task.prompts().take(3)]
    ids, labels = rows(played, tokenizer)
    assert ids.shape == labels.shape and ids.dtype == torch.int64
    end = tokenizer.eos_token
    for row, one in enumerate(played):
        taught = tokenizer.decode(labels[row][labels[row] != IGNORED])
        assert taught == "".join(move + end for move in one.moves)
        whole = one.opening + "".join(move + end + answer for move, answer in zip(one.moves, one.answers, strict=True))
        assert tokenizer.decode(ids[row]).rstrip(tokenizer.pad_token) == whole.rstrip(tokenizer.pad_token)


def test_a_base_learns_to_play() -> None:
    recipe = GameRecipe("small", game("text-corridor", length=3, shortest=3, furthest=6, validation_share=0.5), 0.0, games=20, steps=25,
                        batch=8, rate=2e-2, model=TINY)  # fmt: skip
    losses: list[float] = []
    model, tokenizer = train_game_model(recipe, lambda done, total, loss: losses.append(loss))
    assert len(losses) == 25 and losses[-1] < losses[0] / 2
    found = measure_game(model, tokenizer, recipe.task)  # type: ignore[arg-type]
    assert 0 <= found["won"] == found["accuracy"] <= 1 and found["samples"] == len(recipe.task.validation())


def test_recipes_are_data(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = GAME_RECIPES["text-corridor"]
    assert len({each.digest for each in GAME_RECIPES.values()}) == len(GAME_RECIPES) and {*GAMES} < {*GAME_RECIPES}
    changed = {"games": 3, "carelessness": 0.1, "won": True, "steps": 1, "batch": 1, "rate": 0.1, "warmup": 1, "clip": 2.0, "model": TINY}
    values = {each.name: getattr(recipe, each.name) for each in fields(recipe)}
    for name, value in (changed | {"seed": 4, "task": game("text-corridor", length=9)}).items():
        assert GameRecipe(**(values | {name: value})).digest != recipe.digest, name
    assert GameRecipe(**(values | {"name": "other"})).digest == recipe.digest
    lucky = GameRecipe("lucky", game("text-maze"), 1.0, won=True, games=5)
    assert all(one.won for one in lessons(lucky))
    monkeypatch.setattr(teaching, "ATTEMPTS", 20)
    with pytest.raises(RheostatError, match="has won none of 20 games of text-corridor: lower its carelessness"):
        lessons(GameRecipe("hopeless", game("text-corridor"), 1.0, won=True))
    with pytest.raises(RheostatError, match="carelessness in"):
        GameRecipe("wrong", game("text-maze"), 1.5)


@every_game
def test_knobs_are_listed(name: str) -> None:
    assert {"turns", "penalty", "chat", "validation_share"} <= set(knobs_of(name))
