"""A task of several turns: the partner says a digit, the policy answers with the next one, until it is wrong or its turns are over."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import rheostat
from rheostat.credit.verifiers import Grade
from rheostat.streams import derive_seed
from rheostat.tasks.language import LanguageTask, Limits, Partners, Prompt, Reply, Said
from rheostat.tasks.language.guess_number import TurnByTurn
from rheostat.tasks.language.task_interface import Split, is_validation
from rheostat.training.run import Run


class Successor(LanguageTask):
    """Prompts are one digit and a question mark."""

    def __init__(self, turns: int = 3) -> None:
        self.name, self.turns, self.validation_share = "successor", turns, 0.2
        self.limits = Limits(max_prompt_tokens=3, max_new_tokens=3)  # of one turn

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        rng = np.random.default_rng([derive_seed(seed, self.name), number])
        prompts = [Prompt(f"{first}{second}?") for first, second in rng.integers(0, 10, (32, 2))]
        return [each for each in prompts if is_validation(each.key, self.validation_share) == (split == "validation")]

    def episodes(self) -> Partners:
        """One partner for every conversation; this method is what makes it a task of several turns."""
        return Partners(self.name, Partner, self.turns)

    def verifier(self) -> TurnByTurn:
        return TurnByTurn(self.name)


class Partner:
    """What it says follows from the prompt, the seed and what was said: nothing else has to be saved."""

    def __init__(self, prompt: Prompt, seed: int) -> None:
        self.shown, self.rng = int(str(prompt.content)[1]), np.random.default_rng(seed & 0xFFFFFFFF)

    def reply(self, said: Said) -> Reply:
        """A reward for every right answer (``8`` or ``#8``); the first wrong one ends the conversation."""
        right = said.text.removeprefix("#") == str((self.shown + 1) % 10)
        self.shown = int(self.rng.integers(10))
        return Reply(f"{self.shown}?", Grade(float(right), {"right": float(right)}), terminated=not right)


def main(model: str, directory: Path, steps: int = 150) -> Run:
    sizes: dict[str, Any] = {"prompts_per_batch": 16, "group_size": 16, "evaluate_every": 0}
    return rheostat.train("grpo", Successor(), model=model, directory=directory, steps=steps, **sizes)


if __name__ == "__main__":
    run = main(sys.argv[1] if len(sys.argv) > 1 else "chain-sum", Path("runs/successor"))
    for name in ("reward", "turns"):
        print(name, round(run.metrics[0][name], 3), "->", round(run.metrics[-1][name], 3))
