"""Tiny base models of the text games: imitation of a careless expert, conversation by conversation.

The teacher is the scripted expert, who makes a random move at the rate ``carelessness``; with ``won`` only games that were won are shown.
A carelessness of 1 is a player who moves at random, whose lucky games are then all that the model sees. The base knows the form of every
move and plays somewhat like its teacher: well enough that some games of a group are won, badly enough that others are lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.games.corridor import TextCorridor
from rheostat.tasks.language.games.maze import TextMaze
from rheostat.tasks.language.games.negotiation import TextNegotiation
from rheostat.tasks.language.games.planned import PlannedNegotiation, PlannedQuestions
from rheostat.tasks.language.games.players import Played, careless, play
from rheostat.tasks.language.games.shop import TextShop
from rheostat.tasks.language.games.sokoban import TextSokoban
from rheostat.tasks.language.games.text_game import TextGame
from rheostat.tasks.language.games.twenty_questions import TwentyQuestions
from rheostat.tasks.language.recipes import ModelSize
from rheostat.tasks.language.small_models import IGNORED, Report, new_network, new_optimiser, sample_ids, supervised_step
from rheostat.tasks.language.text_episodes import Said, total_scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

FORMAT = 1
"""Raised when the same recipe would build another model, so that old caches are not used for new ones."""
ATTEMPTS = 10_000
"""Games in a row without one that is won after which a teacher counts as hopeless."""


@dataclass(frozen=True)
class GameRecipe:
    """A base model of a text game as data: the same recipe on the same machine builds the same weights."""

    name: str
    task: TextGame
    carelessness: float = 0.5
    """Share of the teacher's moves that are random."""
    won: bool = False
    """Show only games that were won."""
    games: int = 2000
    """Different games that are shown."""
    steps: int = 300
    """Gradient steps."""
    batch: int = 32
    """Games of a step."""
    rate: float = 4e-3
    """Learning rate, which falls to a twentieth."""
    warmup: int = 20
    clip: float = 1.0
    """Largest norm of the gradient."""
    model: ModelSize = field(default_factory=lambda: ModelSize(64, 2, 2, 1, 32, 128))
    seed: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.carelessness <= 1 or min(self.games, self.steps, self.batch) < 1:
            raise RheostatError(
                f"The recipe {self.name!r} needs a carelessness in [0, 1] and at least one game, step and row; got {self.carelessness}, "
                f"{self.games}, {self.steps} and {self.batch}."
            )

    @property
    def most_steps(self) -> int:
        """Gradient steps."""
        return self.steps

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything but the name."""
        content = {**asdict(self), "name": "", "game": self.task.name, "format": FORMAT}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


GAME_RECIPES: dict[str, GameRecipe] = {
    recipe.name: recipe
    for recipe in (
        GameRecipe("text-sokoban", TextSokoban(), carelessness=0.3, batch=16),
        GameRecipe("text-maze", TextMaze()),
        GameRecipe("text-corridor", TextCorridor(), carelessness=0.4),
        GameRecipe("text-shop", TextShop(), carelessness=0.3, steps=250, batch=16),
        GameRecipe("text-negotiation", TextNegotiation(), carelessness=0.4, steps=200),
        GameRecipe("twenty-questions", TwentyQuestions(), carelessness=0.3, steps=900),
        GameRecipe("planned-questions", PlannedQuestions(), carelessness=0.3, games=200, steps=300),
        GameRecipe("planned-negotiation", PlannedNegotiation(), carelessness=0.4, games=200, steps=120),
        # After a single step: knows nothing and costs a second. For trying out commands and smoke forms of studies.
        GameRecipe("untrained-games", TextCorridor(), games=8, steps=1, model=ModelSize(32, 1, 2, 1, 16, 32)),
    )
}


def lessons(recipe: GameRecipe) -> list[Played]:
    """The games that are shown, of training prompts.

    Raises:
        RheostatError: the teacher wins none.
    """
    rng = np.random.default_rng(derive_seed(recipe.seed, recipe.task.name, "lessons"))
    stream, teacher = recipe.task.prompts("train", recipe.seed), careless(recipe.carelessness)
    found: list[Played] = []
    barren = 0
    while len(found) < recipe.games:
        one = play(recipe.task, stream.take(1)[0], teacher, rng)
        barren = 0 if one.won or not recipe.won else barren + 1
        if not barren:
            found.append(one)
        elif barren >= ATTEMPTS:
            raise RheostatError(
                f"The teacher of the base model {recipe.name} has won none of {ATTEMPTS:,} games of {recipe.task.name}: lower its "
                "carelessness."
            )
    return found


def rows(played: list[Played], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Ids and labels ``[B, T]`` of conversations, padded on the right; the targets are the player's moves with their ends."""
    known, end = tokenizer.get_vocab(), tokenizer.eos_token_id
    ids: list[list[int]] = []
    labels: list[list[int]] = []
    for game in played:
        line = [known[symbol] for symbol in game.opening]
        goal = [IGNORED] * len(line)
        for move, answer in zip(game.moves, game.answers, strict=True):
            said, heard = [*(known[symbol] for symbol in move), end], [known[symbol] for symbol in answer]
            line += said + heard
            goal += said + [IGNORED] * len(heard)
        ids.append(line)
        labels.append(goal)
    width = max(map(len, ids))
    padded = lambda lists, value: torch.tensor([each + [value] * (width - len(each)) for each in lists])  # noqa: E731
    return padded(ids, tokenizer.pad_token_id), padded(labels, IGNORED)


def batches(recipe: GameRecipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of the games that are shown, in a new order on every pass; see :func:`rows`."""
    played, rng = lessons(recipe), np.random.default_rng(derive_seed(recipe.seed, "order"))
    waiting: list[int] = []
    while True:
        while len(waiting) < recipe.batch:
            waiting += rng.permutation(len(played)).tolist()
        chosen, waiting = waiting[: recipe.batch], waiting[recipe.batch :]
        yield rows([played[each] for each in chosen], tokenizer)


def train_game_model(recipe: GameRecipe, report: Report | None = None) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train a recipe's model in memory."""
    tokenizer = recipe.task.tokenizer()
    model = new_network(recipe.model, tokenizer, recipe.seed)
    optimiser, shown = new_optimiser(model), batches(recipe, tokenizer)
    for step in range(recipe.steps):
        rate = recipe.rate * min(1.0, (step + 1) / recipe.warmup) * (1 - 0.95 * step / recipe.steps)
        loss = supervised_step(model, optimiser, [next(shown)], rate, recipe.clip)
        if report is not None:
            report(step + 1, recipe.steps, loss)
    return model.eval(), tokenizer


def measure_game(model: Any, tokenizer: PreTrainedTokenizerFast, task: TextGame, count: int = 200, seed: int = 0) -> dict[str, float]:
    """Mean reward (``accuracy``) and share of games ``won``, of one game per validation prompt at temperature 1."""
    prompts = task.validation(count)
    episodes = task.episodes()
    episodes.reset(prompts, [0] * len(prompts))
    generator = torch.Generator().manual_seed(derive_seed(seed, "measure base"))
    known = tokenizer.get_vocab()
    encode = lambda text: [known[symbol] for symbol in text]  # noqa: E731
    talks, steps, live = [encode(str(prompt.content)) for prompt in prompts], [], list(range(len(prompts)))
    while live:
        width = max(len(talks[row]) for row in live)
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(talks[row])) + talks[row] for row in live])
        attention = torch.tensor([[0] * (width - len(talks[row])) + [1] * len(talks[row]) for row in live])
        drawn = sample_ids(model, tokenizer, ids, attention, task.limits.max_new_tokens, generator)
        texts = tokenizer.batch_decode(drawn, skip_special_tokens=True)
        step = episodes.step(live, [Said(text) for text in texts])
        steps.append((live, step.scores))
        for place, row in enumerate(live):
            said = [each for each in drawn[place].tolist() if each != tokenizer.pad_token_id]
            talks[row] += said + encode(step.observations[place])
        live = [row for place, row in enumerate(live) if not step.over[place]]
    scores = total_scores(steps, len(prompts))
    return {"accuracy": scores.reward.mean().item(), "won": scores.parts["won"].mean().item(), "samples": len(prompts)}
