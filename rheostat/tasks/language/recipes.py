"""Recipes of tiny base models: everything that makes one, as data with a content hash, and the ready ones by name.

A recipe is supervised training in two phases. First the working is taught alone, which is quick; then a short phase shows the mixture of
styles the base shall have. Showing the mixture from the start reaches the same point several times slower, because the bare answers,
which a model of this size cannot learn, drown the lesson.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace

from rheostat.errors import RheostatError, unknown
from rheostat.tasks.language.chain_sum import STYLES, ChainSum, Style

FORMAT = 1
"""Raised when the same recipe would build another model, so that old caches are not taken for new ones."""


@dataclass(frozen=True)
class ModelSize:
    """Shape of a Qwen3 decoder with tied embeddings."""

    hidden: int = 96
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    mlp: int = 256


@dataclass(frozen=True)
class Lesson:
    """What a share of the demonstrations shows."""

    world: ChainSum = field(default_factory=ChainSum)
    styles: tuple[tuple[Style, float], ...] = (("steps", 0.3), ("direct", 0.7))
    """How often each style is shown (need not sum to 1)."""
    error_rate: float = 0.0
    """Chance of a slip in every step: demonstrations of a weaker teacher."""
    verification_share: float = 0.0
    """Share of the rows that ask whether a given solution is right; half of those solutions are wrong."""
    weight: float = 1.0
    """Share of this lesson among the lessons (need not sum to 1)."""

    def __post_init__(self) -> None:
        known = all(style in STYLES for style, _ in self.styles)
        if not self.styles or not known or min(share for _, share in self.styles) < 0 or sum(share for _, share in self.styles) <= 0:
            raise RheostatError(
                f"A lesson's styles are pairs of a style ({', '.join(STYLES)}) and a share of at least 0; got {self.styles}."
            )
        if not 0 <= self.error_rate <= 1 or not 0 <= self.verification_share <= 1 or self.weight <= 0:
            raise RheostatError(
                "A lesson's error_rate and verification_share lie in [0, 1] and its weight above 0; got "
                f"{self.error_rate}, {self.verification_share} and {self.weight}."
            )

    def taught(self) -> Lesson:
        """The same lesson without bare answers: what the first phase shows."""
        worked = tuple((style, share) for style, share in self.styles if style != "direct" and share > 0)
        return replace(self, styles=worked) if worked else self


@dataclass(frozen=True)
class BaseRecipe:
    """A base model as data: the same recipe on the same machine builds the same weights."""

    name: str
    lessons: tuple[Lesson, ...] = field(default_factory=lambda: (Lesson(),))
    model: ModelSize = field(default_factory=ModelSize)
    teach_steps: int = 600
    """Most steps that show the working only."""
    taught_below: float = 0.05
    """Smoothed loss (nats per token) at which the working counts as understood."""
    teach_batch: int = 64
    teach_lr: float = 2e-3
    warmup: int = 30
    mix_steps: int = 80
    """Steps that then show the mixture of styles, at a rate that falls to a twentieth."""
    mix_batch: int = 128
    mix_lr: float = 2e-3
    clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 3

    def __post_init__(self) -> None:
        if not self.lessons:
            raise RheostatError(f"The recipe {self.name!r} has no lessons: give at least one.")
        if min(self.teach_steps, self.mix_steps) < 0 or self.most_steps < 1 or min(self.teach_batch, self.mix_batch) < 1:
            raise RheostatError(f"The recipe {self.name!r} needs at least one training step and batches of at least one row.")

    @property
    def most_steps(self) -> int:
        """Steps when the teaching phase runs to its end."""
        return self.teach_steps + self.mix_steps

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything but the name."""
        content = {**asdict(self), "name": "", "format": FORMAT}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def world(self) -> ChainSum:
        """The world of the first lesson, on which the finished base is measured."""
        return self.lessons[0].world


BASE_RECIPES: dict[str, BaseRecipe] = {
    recipe.name: recipe
    for recipe in (
        # The default: a third of the answers are worked out, and 95 % of those are right (accuracy 0.38): poor pass@1, good pass@k.
        BaseRecipe("chain-sum", (Lesson(styles=(("steps", 0.32), ("direct", 0.68))),)),
        # Rare sparks: 3 answers in 100 are worked out, and 57 % of those are right (accuracy 0.11, which is chance).
        BaseRecipe("chain-sum-rare", (Lesson(styles=(("steps", 0.03), ("direct", 0.97))),)),
        # Knows chains of 2 to 4 terms (accuracy 0.36); longer ones are beyond it (chance): capacity mismatch, curricula, hints.
        BaseRecipe("chain-sum-short", (Lesson(ChainSum(min_terms=2, max_terms=4)),)),
        # A tenth of the size, after a single step: knows nothing and costs a second. For trying out commands and smoke forms of studies.
        BaseRecipe("untrained", model=ModelSize(32, 1, 2, 1, 16, 32), teach_steps=1, mix_steps=0),
    )
}


def base_recipe(name: str) -> BaseRecipe:
    """A ready recipe.

    Raises:
        RheostatError: no recipe of that name.
    """
    if name not in BASE_RECIPES:
        raise unknown("base model", name, BASE_RECIPES)
    return BASE_RECIPES[name]
