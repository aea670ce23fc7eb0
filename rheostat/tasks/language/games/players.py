"""Scripted players of text games: the baselines beside a policy, and the teachers of the base models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rheostat.streams import derive_seed
from rheostat.tasks.language.games.text_game import Game, TextGame, opening_of
from rheostat.tasks.language.task_interface import Prompt
from rheostat.tasks.language.text_episodes import Said

Player = Callable[[Game, np.random.Generator], str]
"""The next move in a game."""


def at_random(game: Game, rng: np.random.Generator) -> str:
    """Any of the moves that are understood."""
    moves = game.moves()
    return moves[int(rng.integers(len(moves)))]


def expert(game: Game, rng: np.random.Generator) -> str:
    """The scripted expert, who knows what the policy does not see."""
    return game.best()


def careless(share: float) -> Player:
    """The expert, who makes a random move at that rate."""
    return lambda game, rng: at_random(game, rng) if rng.random() < share else game.best()


@dataclass(frozen=True)
class Played:
    """One game, played."""

    opening: str
    moves: tuple[str, ...]
    answers: tuple[str, ...]
    """Of the game, one for every move."""
    reward: float
    won: bool


def play(task: TextGame, prompt: Prompt, player: Player, rng: np.random.Generator) -> Played:
    """One game of a player, up to its end or the limit on turns."""
    game, reward = task.start(prompt), 0.0
    moves: list[str] = []
    answers: list[str] = []
    while not game.over and len(moves) < task.turns:
        moves.append(player(game, rng))
        reply = game.reply(Said(moves[-1]))
        answers.append(reply.text)
        reward += reply.grade.reward or 0.0
    return Played(opening_of(prompt), tuple(moves), tuple(answers), reward, game.won)


def baseline(task: TextGame, player: Player, games: int = 200, seed: int = 0) -> dict[str, float]:
    """How a player does on the validation games: mean ``reward``, share ``won``, mean ``turns``."""
    rng = np.random.default_rng(derive_seed(seed, task.name, "baseline"))
    played = [play(task, prompt, player, rng) for prompt in task.validation(games)]
    return {
        "reward": float(np.mean([each.reward for each in played])),
        "won": float(np.mean([each.won for each in played])),
        "turns": float(np.mean([len(each.moves) for each in played])),
    }
