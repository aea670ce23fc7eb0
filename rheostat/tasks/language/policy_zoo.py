"""``policy-zoo``: a family of synthetic policies over short strings, for reward models that tell policies apart (POLAR, arXiv 2507.05197).

A prompt is four symbols, of which the first is its topic; an answer is twelve. A policy draws the next symbol by the one before (a table of
logits of its own) and favours a few symbols on every topic (a rule of its own). Half of the policies are weaker copies of the others: noisy
tables and a rule that is followed less. Answers all have one length, so that length tells nothing.

One more policy, the gold one, is in no zoo. Its rule says what is good: the utility of an answer is the share of its symbols that the gold
rule favours. Writers of ranked answers have the table of a policy of the zoo and follow the gold rule more or less.

Every prompt has, as columns:

| columns | what they are |
|---|---|
| ``completions``, ``policies`` | two answers of one policy and one of another, for ``polar`` |
| ``reference``, ``chosen``, ``rejected`` | an answer of the gold policy, and two writers' in order, for ``polar --data ranked`` |
| ``divergence`` | total variation per symbol between the two policies, on the way of their answers |

The reference is the best of the three. On the validation side prompts are unseen, and the policies are those that training never shows. The
same prompts train policies: the reward is the utility, or a reward model beside the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.characters import ARITHMETIC
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, PromptStream, Split, is_validation

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

SYMBOLS = ARITHMETIC
"""One vocabulary for all tiny tasks, so that their base models are interchangeable."""
ASKED, LENGTH, BLOCK = 4, 12, 256
"""Symbols of a prompt and of an answer, and prompts of a block."""
WRITERS = 3
"""Ranked answers that are drawn for a prompt, of which the first two with different utilities are kept."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PolicyZoo(LanguageTask):
    """The task and its knobs.

    Raises:
        RheostatError: knobs that make no task.
    """

    world: int = 0
    """Seed of the policies and of the gold rule."""
    originals: int = 20
    """Policies, each of which has a weaker copy."""
    held_out: int = 5
    """Originals that training never shows, with their copies."""
    favoured: int = 4
    """Symbols that a rule favours on a topic."""
    strength: float = 4.0
    """Nats by which they are likelier."""
    spread: float = 0.7
    """Standard deviation of the logits of a table."""
    noise: float = 0.3
    """Standard deviation of what a copy's table differs by."""
    weakness: float = 0.6
    """Share of the strength with which a copy follows the rule."""
    prompts_in_all: int = 0
    """Training prompts, with their answers; 0 for ever new ones."""
    validation_share: float = 0.1
    """Share of all prompts set aside for validation."""
    name: str = "policy-zoo"

    def __post_init__(self) -> None:
        if not 1 <= self.held_out <= self.originals - 2:
            raise RheostatError(
                f"policy-zoo holds out at least 1 and leaves at least 2 of its {self.originals} originals, not {self.held_out}."
            )
        if not 1 <= self.favoured < len(SYMBOLS) or self.prompts_in_all < 0:
            raise RheostatError(f"A rule of policy-zoo favours 1 to {len(SYMBOLS) - 1} symbols, and there are 0 or more prompts in all.")
        if not 0 < self.weakness <= 1 or min(self.strength, self.spread) <= 0 or self.noise < 0:
            raise RheostatError("policy-zoo needs a weakness in (0, 1], a strength and a spread above 0 and a noise of at least 0.")
        if not 0 < self.validation_share < 1:
            raise RheostatError(f"validation_share lies in (0, 1); got {self.validation_share}.")

    # --- the policies ------------------------------------------------------------------------------------------------------------------

    @cached_property
    def tables(self) -> Floats:
        """Logits of the next symbol by the one before: ``[P + 1, V, V]``, originals, their copies, and the gold policy last."""
        rng = np.random.default_rng(derive_seed(self.world, "policy-zoo tables"))
        own = self.spread * rng.standard_normal((self.originals, len(SYMBOLS), len(SYMBOLS)))
        copies = own + self.noise * rng.standard_normal(own.shape)
        return np.concatenate([own, copies, self.spread * rng.standard_normal((1, *own.shape[1:]))])

    @cached_property
    def rules(self) -> Floats:
        """What the rules add to logits: ``[P + 1, topics, V]``."""
        rng = np.random.default_rng(derive_seed(self.world, "policy-zoo rules"))
        order = rng.random((self.originals + 1, len(SYMBOLS), len(SYMBOLS))).argsort(-1)
        own = self.strength * (order < self.favoured)
        return np.concatenate([own[:-1], self.weakness * own[:-1], own[-1:]])

    @property
    def gold(self) -> int:
        """Number of the gold policy."""
        return 2 * self.originals

    def pool(self, split: Split) -> Ints:
        """Numbers of the policies of a side; a copy is on the side of its original."""
        first, last = (self.originals - self.held_out, self.originals) if split == "validation" else (0, self.originals - self.held_out)
        own = np.arange(first, last)
        return np.concatenate([own, own + self.originals])

    def probabilities(self, policy: Ints, rule: Floats, before: Ints) -> Floats:
        """Of the next symbol ``[N, V]``: tables by number ``[N]``, what rules add ``[N, V]``, and the symbols before ``[N]``."""
        logits = self.tables[policy, before] + rule
        found: Floats = np.exp(logits - logits.max(-1, keepdims=True))
        return found / found.sum(-1, keepdims=True)

    def write(self, policy: Ints, rule: Floats, asked: Ints, rng: np.random.Generator) -> Ints:
        """Answers ``[N, 12]`` to prompts ``[N, 4]``."""
        before, found = asked[:, -1], []
        for _ in range(LENGTH):
            share = self.probabilities(policy, rule, before).cumsum(-1)
            before = (rng.random((len(asked), 1)) > share).sum(-1).clip(max=len(SYMBOLS) - 1)
            found.append(before)
        return np.stack(found, 1)

    def divergence(self, one: Ints, other: Ints, asked: Ints, answers: Sequence[Ints]) -> Floats:
        """Total variation ``[N]`` between the next symbols of two policies, a mean over the places of answers ``[N, 12]``."""
        found = []
        for answer in answers:
            places = np.concatenate([asked[:, -1:], answer[:, :-1]], 1)
            for before in places.T:
                sides = [self.probabilities(policy, self.rules[policy, asked[:, 0]], before) for policy in (one, other)]
                found.append(0.5 * np.abs(sides[0] - sides[1]).sum(-1))
        return np.mean(found, axis=0)

    def utility(self, topic: Any, answer: Ints) -> Any:
        """Share of the symbols of answers ``[..., 12]`` that the gold rule favours on topics ``[...]``."""
        good = self.rules[self.gold] > 0
        return np.take_along_axis(good[np.asarray(topic)], np.asarray(answer), -1).mean(-1)

    # --- the prompts -------------------------------------------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """A prompt, and an answer with its end."""
        return Limits(ASKED, LENGTH + 1)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """Prompts with the answers of a side's policies; of a given number of them, all in another order."""
        if split == "train" and self.prompts_in_all:
            order = np.random.default_rng([derive_seed(seed, "epoch"), number]).permutation(self.prompts_in_all)
            return [self._fixed[place] for place in order.tolist()]
        return self._drawn(split, np.random.default_rng([derive_seed(seed, "policy-zoo", split), number]))

    @cached_property
    def _fixed(self) -> list[Prompt]:
        found: dict[str, Prompt] = {}
        number = 0
        while len(found) < self.prompts_in_all:
            for prompt in self._drawn("train", np.random.default_rng([derive_seed(self.world, "policy-zoo fixed"), number])):
                found.setdefault(prompt.key, prompt)
            number += 1
        return list(found.values())[: self.prompts_in_all]

    def prompts(self, split: Split = "train", seed: int = 0) -> PromptStream:
        """The stream of one split, in epochs where there is a given number of prompts."""
        epoch = self.prompts_in_all if split == "train" else 0
        return PromptStream(lambda number: self.block(number, split, seed), epoch=epoch)

    def _drawn(self, split: Split, rng: np.random.Generator) -> list[Prompt]:
        drawn = rng.integers(len(SYMBOLS), size=(BLOCK, ASKED))
        mine = [is_validation(Prompt(text(row)).key, self.validation_share) == (split == "validation") for row in drawn]
        asked = drawn[np.array(mine)]
        if not len(asked):
            return []
        pool = self.pool(split)
        one = rng.integers(len(pool), size=len(asked))
        other = (one + rng.integers(1, len(pool), size=len(asked))) % len(pool)
        one, other = pool[one], pool[other]
        zoo = [self.write(who, self.rules[who, asked[:, 0]], asked, rng) for who in (one, one, other)]
        apart = self.divergence(one, other, asked, zoo[1:])
        ranked = [self._writers(split, asked, rng) for _ in range(WRITERS)]
        gold = np.full(len(asked), self.gold)
        shown = self.write(gold, self.rules[gold, asked[:, 0]], asked, rng)
        found = []
        for row, question in enumerate(asked):
            order = self._ranking(question[0], shown[row], [each[row] for each in ranked])
            answers = [text(each[row]) for each in zoo]
            if order is not None and len(set(answers)) == len(answers):  # two samples may be the same, and would make no triple
                facts = {"completions": answers, "policies": [int(one[row])] * 2 + [int(other[row])]}
                found.append(Prompt(text(question), None, facts | order | {"divergence": float(apart[row])}))
        return found

    def _writers(self, split: Split, asked: Ints, rng: np.random.Generator) -> Ints:
        """Answers of writers with the tables of a side's policies, who follow the gold rule more or less."""
        policy = rng.choice(self.pool(split), size=len(asked))
        return self.write(policy, rng.random((len(asked), 1)) * self.rules[self.gold, asked[:, 0]], asked, rng)

    def _ranking(self, topic: int, reference: Ints, answers: list[Ints]) -> dict[str, str] | None:
        """The reference, and the first two answers of different utilities in order; None without two, or if the reference is not best."""
        by_worth: dict[float, str] = {}
        for answer in answers:
            by_worth.setdefault(float(self.utility(topic, answer)), text(answer))
        rejected, chosen = (sorted(list(by_worth.items())[:2]) * 2)[:2]
        if rejected == chosen or float(self.utility(topic, reference)) <= chosen[0]:
            return None
        return {"reference": text(reference), "chosen": chosen[1], "rejected": rejected[1]}

    def locate(self, prompt: Prompt) -> tuple[Split, Prompt] | None:
        """The side of a prompt of four symbols; its columns are those that it has."""
        asked = str(prompt.content)
        if len(asked) != ASKED or not set(asked) <= set(SYMBOLS):
            return None
        return ("validation" if is_validation(prompt.key, self.validation_share) else "train"), prompt

    def expert(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """The answer of a policy of the zoo."""
        asked = np.array([[SYMBOLS.index(symbol) for symbol in str(prompt.content)]])
        who = rng.choice(self.pool("train"), size=1)
        return text(self.write(who, self.rules[who, asked[:, 0]], asked, rng)[0])

    def verifier(self) -> Verifier:
        """The utility; an answer that is short lacks what is missing, and what is beyond twelve symbols is not read."""
        return Utility(self)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Characters."""
        from rheostat.tasks.language.characters import character_tokenizer

        return character_tokenizer()

    @property
    def base(self) -> str:
        """Two layers that know nothing."""
        return "policy-zoo"

    @property
    def chance(self) -> float:
        """The utility of any symbols."""
        return self.favoured / len(SYMBOLS)

    def worth(self, prompt: str, answer: str) -> float:
        """The utility of an answer of any length."""
        places = [SYMBOLS.find(symbol) for symbol in answer[:LENGTH]]
        good = self.rules[self.gold, SYMBOLS.index(prompt[0])] > 0
        return float(sum(good[place] for place in places if place >= 0) / LENGTH)

    def metrics(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> dict[str, Tensor]:
        """``utility``, whatever the reward is."""
        import torch

        return {"utility": torch.tensor([self.worth(str(p.content), text) for p, text in zip(prompts, completions, strict=True)])}


class Utility:
    """Grades with the gold rule of a task."""

    name = "utility"

    def __init__(self, task: PolicyZoo) -> None:
        self.task = task

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        """The utility of every answer."""
        return Scores.from_grades([Grade(self.task.worth(str(each.prompt), each.completion)) for each in rollouts])


def text(symbols: Ints) -> str:
    """Numbers of symbols as text."""
    return "".join(SYMBOLS[each] for each in symbols.tolist())
