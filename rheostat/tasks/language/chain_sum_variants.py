"""Three forms of ``chain-sum`` in which published effects can appear, each with a tiny base model of its own.

In all three the whole working is graded, so guessing is right once in ten to the number of steps. The base model's abilities differ:
it knows how but slips (``chain-sum-elicit``), it lacks one fact that only an expert has (``chain-sum-teach``), or short prompts and
long ones compete for the same weights (``chain-sum-interfere``).
"""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.tasks.language.chain_sum import ChainSum, Graded


@dataclass(frozen=True)
class Elicit(ChainSum):
    """Known, but spoiled by slips: poor pass@1, good pass@64; reinforcement alone lifts it.

    Chains of ``+`` and chains of ``-``; the base was taught both and then imitated an expert that slips, far more often with ``-``.
    """

    min_terms: int = 3
    max_terms: int = 5
    operations: str = "+-"
    graded: Graded = "working"
    slips: tuple[float, ...] | None = (0.2, 0.6)
    name: str = "chain-sum-elicit"

    @property
    def base(self) -> str:
        """The recipe of the same name."""
        return "chain-sum-elicit"


@dataclass(frozen=True)
class Teach(ChainSum):
    """A sign that only an expert can read: ``*`` means ``+``. Reinforcement alone finds nothing, imitation and mixtures do.

    The base adds with ``+`` and knows the form of ``*`` chains, whose every result is a uniform digit to it. Its own expert slips a
    little.
    """

    min_terms: int = 5
    max_terms: int = 5
    operations: str = "*"
    reads: str = "*=+"
    graded: Graded = "working"
    slips: tuple[float, ...] | None = (0.15,)
    name: str = "chain-sum-teach"

    @property
    def base(self) -> str:
        """The recipe of the same name."""
        return "chain-sum-teach"


@dataclass(frozen=True)
class Interfere(ChainSum):
    """Short prompts win: most chains have two terms and may be answered bare, the rest have four or five and need the working.

    The base mostly answers bare. Learning from all prompts rewards the bare answer and forgets the rare, longer chains.
    """

    min_terms: int = 2
    max_terms: int = 5
    length_weights: tuple[float, ...] | None = (0.85, 0.0, 0.075, 0.075)
    graded: Graded = "working"
    bare_up_to: int = 2
    name: str = "chain-sum-interfere"

    @property
    def base(self) -> str:
        """The recipe of the same name."""
        return "chain-sum-interfere"
