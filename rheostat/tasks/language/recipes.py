"""Recipes of tiny base models: their definitions as data with a content hash, and the ready ones by name.

A recipe is supervised training in two phases, or three. First the working is taught alone, which is quick; then a short phase trains on the
mixture of styles of the finished base. Training on the mixture from the start is several times slower, because the bare
answers, which a model of this size cannot learn, dominate the loss. A third phase may add errors with demonstrations that slip:
with slips from the start, a model of this size learns nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rheostat.errors import RheostatError, unknown
from rheostat.tasks.language.chain_sum import STYLES, ChainSum, Style
from rheostat.tasks.language.chain_sum_variants import Elicit, Interfere, Teach
from rheostat.tasks.language.modular_chains import ModularChains
from rheostat.tasks.language.operation_chains import OperationChains
from rheostat.tasks.language.stack_programs import StackPrograms
from rheostat.tasks.language.translations import Translations

LATER = {"length_weights": None, "reads": "", "graded": "answer", "bare_up_to": 0, "slips": None} | {
    "spoiling": (),
    "spoil_steps": 80,
    "spoil_lr": 1e-3,
    "measured_on": None,
}
"""Fields that came later, with the values under which a recipe builds the same model as before: those values are left out of the digest."""
FORMAT = 1
"""Raised when the same recipe would build another model, so that old caches are not used for new ones."""


World = ChainSum | StackPrograms | OperationChains | Translations
"""Tasks that a base can be taught."""


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
    """The content of a share of the demonstrations."""

    world: World = field(default_factory=ChainSum)
    """The task. The name of the field is part of the digest of every base model, so it stays."""
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
        """The same lesson without bare answers, for the first phase."""
        worked = tuple((style, share) for style, share in self.styles if style != "direct" and share > 0)
        return replace(self, styles=worked) if worked else self


@dataclass(frozen=True)
class BaseRecipe:
    """A base model as data: the same recipe on the same machine builds the same weights."""

    name: str
    lessons: tuple[Lesson, ...] = field(default_factory=lambda: (Lesson(),))
    model: ModelSize = field(default_factory=ModelSize)
    teach_steps: int = 600
    """Most steps on the working alone."""
    taught_below: float = 0.05
    """Smoothed loss (nats per token) at which the working counts as learned."""
    teach_batch: int = 64
    teach_lr: float = 2e-3
    warmup: int = 30
    mix_steps: int = 80
    """Steps on the mixture of styles after that, at a rate that falls to a twentieth."""
    mix_batch: int = 128
    mix_lr: float = 2e-3
    spoiling: tuple[Lesson, ...] = ()
    """Lessons of a third phase, if there is one."""
    spoil_steps: int = 80
    """Steps of the third phase, of ``mix_batch`` rows, at a constant rate."""
    spoil_lr: float = 1e-3
    clip: float = 1.0
    """Largest norm of the gradient."""
    measured_on: World | None = None
    """The task on which the finished base is measured; None: that of the first lesson."""
    seed: int = 3

    def __post_init__(self) -> None:
        if not self.lessons:
            raise RheostatError(f"The recipe {self.name!r} has no lessons: give at least one.")
        if min(self.teach_steps, self.mix_steps) < 0 or self.most_steps < 1 or min(self.teach_batch, self.mix_batch) < 1:
            raise RheostatError(f"The recipe {self.name!r} needs at least one training step and batches of at least one row.")

    @property
    def most_steps(self) -> int:
        """Steps when the teaching phase runs to its end."""
        return self.teach_steps + self.mix_steps + (self.spoil_steps if self.spoiling else 0)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over everything but the name."""
        content = {**_counting(asdict(self)), "name": "", "format": FORMAT}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def task(self) -> World:
        """The task on which the finished base is measured."""
        return self.lessons[0].world if self.measured_on is None else self.measured_on


def _counting(content: Any) -> Any:
    """Nested fields of a recipe without later ones that have their old values."""
    if isinstance(content, dict):
        return {name: _counting(value) for name, value in content.items() if name not in LATER or value != LATER[name]}
    return [_counting(each) for each in content] if isinstance(content, (list, tuple)) else content


STEPS: tuple[tuple[Style, float], ...] = (("steps", 1.0),)
BARE: tuple[tuple[Style, float], ...] = (("direct", 1.0),)
PLUS, MINUS = (ChainSum(min_terms=3, max_terms=5, operations=sign) for sign in "+-")
WORKING = ModularChains(max_terms=7, asked="working", shown=1)
CORRECTION = ModularChains(asked="correction", shown=1)
LONG, SHORT = ChainSum(min_terms=4, max_terms=5), ChainSum(min_terms=2, max_terms=2)


BASE_RECIPES: dict[str, BaseRecipe] = {
    recipe.name: recipe
    for recipe in (
        # The default: a third of the answers are worked out, and 95 % of those are right (accuracy 0.38): poor pass@1, good pass@k.
        BaseRecipe("chain-sum", (Lesson(styles=(("steps", 0.32), ("direct", 0.68))),)),
        # Rare sparks: 3 answers in 100 are worked out, and 57 % of those are right (accuracy 0.11, which is chance).
        BaseRecipe("chain-sum-rare", (Lesson(styles=(("steps", 0.03), ("direct", 0.97))),)),
        # Knows chains of 2 to 4 terms (accuracy 0.36); longer ones are beyond it (chance): capacity mismatch, curricula, hints.
        BaseRecipe("chain-sum-short", (Lesson(ChainSum(min_terms=2, max_terms=4)),)),
        # Knows both operations, then imitated an expert who slips.
        BaseRecipe(
            "chain-sum-elicit",
            (Lesson(PLUS, STEPS, weight=0.7), Lesson(MINUS, STEPS, weight=0.3)),
            teach_steps=450,
            taught_below=0.0,
            mix_steps=60,
            spoiling=(Lesson(PLUS, STEPS, error_rate=0.2), Lesson(MINUS, STEPS, error_rate=0.6)),
            measured_on=Elicit(),
        ),
        # Adds with '+'; writes chains of '*' in the right form with a uniform digit for every result.
        BaseRecipe(
            "chain-sum-teach",
            (
                Lesson(ChainSum(min_terms=4, max_terms=5, operations="*", reads="*=+"), STEPS, error_rate=0.9, weight=0.3),
                Lesson(LONG, STEPS, weight=0.7),
            ),
            taught_below=0.0,
            measured_on=Teach(),
        ),
        # Answers bare nearly always; its rare workings are right, but for short chains only every second time.
        BaseRecipe(
            "chain-sum-interfere",
            (
                Lesson(LONG, (("steps", 0.03), ("direct", 0.97)), weight=0.5),
                Lesson(SHORT, BARE, weight=0.1),
                Lesson(SHORT, STEPS, error_rate=0.5, weight=0.4),
            ),
            teach_steps=500,
            taught_below=0.0,
            measured_on=Interfere(),
        ),
        # As chain-sum, and it knows the form of questions about solutions, with answers that are little better than chance.
        BaseRecipe("chain-sum-verify", (Lesson(styles=(("steps", 0.32), ("direct", 0.68)), verification_share=0.1),)),
        # Sums of two or three digits, with a quarter of the weights and a few slips: built in ten seconds, for demonstrations.
        BaseRecipe(
            "chain-sum-quick",
            (Lesson(ChainSum(min_terms=2, max_terms=3), styles=(("steps", 0.32), ("direct", 0.68))),),
            model=ModelSize(hidden=64, layers=2, heads=2, kv_heads=1, head_size=32, mlp=128),
            teach_steps=300,
            teach_lr=4e-3,
            mix_steps=50,
            mix_lr=4e-3,
        ),
        # Both sides of math-and-code: a third of the sums are worked out, and a program in three has a slip.
        BaseRecipe(
            "math-and-code",
            (
                Lesson(styles=(("steps", 0.4), ("direct", 0.6)), weight=0.6),
                Lesson(StackPrograms(), STEPS, weight=0.4),
            ),
            spoiling=(
                Lesson(styles=(("steps", 0.4), ("direct", 0.6)), weight=0.5),
                Lesson(StackPrograms(), STEPS, error_rate=0.6, weight=0.5),
            ),
            spoil_steps=60,
        ),
        # Works operations out, stops where it has arrived, and chooses them at random.
        BaseRecipe(
            "operation-chains",
            (Lesson(OperationChains(), STEPS, error_rate=1.0),),
            model=ModelSize(hidden=64, layers=2, heads=2, kv_heads=1, head_size=32, mlp=128),
            teach_steps=700,
            taught_below=0.0,
            teach_lr=4e-3,
            mix_lr=4e-3,
        ),
        # Nearly every translation of the last phase has a slip (accuracy 0.31); of a group it has seen the straight representation only.
        BaseRecipe(
            "translations",
            (Lesson(Translations(), STEPS, weight=0.75), Lesson(Translations(into="three-address"), STEPS, weight=0.25)),
            taught_below=0.1,
            spoiling=(
                Lesson(Translations(), STEPS, error_rate=0.9, weight=0.75),
                Lesson(Translations(into="three-address"), STEPS, weight=0.25),
            ),
            spoil_steps=60,
        ),
        # Adds step by step when it is asked to, with slips (0.66 for one addition, 0.07 for six); answers a plain chain by a guess.
        BaseRecipe(
            "modular-chains",
            (Lesson(WORKING, STEPS, weight=0.6), Lesson(replace(CORRECTION, min_terms=4), STEPS, weight=0.4)),
            teach_steps=480,
            taught_below=0.0,
            teach_lr=3e-3,
            mix_steps=0,
            mix_batch=96,
            spoiling=(
                Lesson(ModularChains(max_terms=3), BARE, weight=0.35),
                Lesson(ModularChains(min_terms=4), BARE, error_rate=0.9, weight=0.15),
                Lesson(WORKING, STEPS, error_rate=0.12, weight=0.25),
                Lesson(CORRECTION, STEPS, error_rate=0.25, weight=0.25),
            ),
            measured_on=ModularChains(),
        ),
        # Two layers after a single step, which can compare two parts of a row but know nothing.
        BaseRecipe("policy-zoo", model=ModelSize(64, 2, 4, 2, 16, 192), teach_steps=1, mix_steps=0),
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
