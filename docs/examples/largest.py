"""A language task of your own: find the largest digit. ``3817=`` is answered ``#8``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import rheostat
from rheostat.credit.verifiers import Grade, Progress, Rollout, Scores, Verifier
from rheostat.streams import derive_seed
from rheostat.tasks.language import LanguageTask, Limits, Prompt
from rheostat.tasks.language.task_interface import Split, is_validation
from rheostat.training.run import Run

BLOCK = 64


class Largest(LanguageTask):
    """Prompts of 2 to ``longest`` digits."""

    def __init__(self, longest: int = 6) -> None:
        self.name = "largest"
        self.longest = longest
        self.validation_share = 0.1
        self.limits = Limits(max_prompt_tokens=longest + 1, max_new_tokens=12)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """A function of its arguments alone: this is what makes the stream rewindable."""
        rng = np.random.default_rng([derive_seed(seed, self.name), number])
        lengths = rng.integers(2, self.longest + 1, BLOCK)
        words = ["".join(map(str, rng.integers(0, 10, length))) for length in lengths]
        prompts = [Prompt(f"{word}=", answer=max(word)) for word in words]
        wanted = split == "validation"
        return [each for each in prompts if is_validation(each.key, self.validation_share) == wanted]

    def verifier(self) -> Verifier:
        return Grader()

    def expert(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """Optional: with it ``sft`` and ``luffy`` can learn from demonstrations."""
        return f"#{prompt.answer}"


class Grader:
    """1 for the right digit after the last ``#``; a part says how often there is an answer at all."""

    name = "largest"

    def score(self, rollouts: Sequence[Rollout], progress: Progress | None = None) -> Scores:
        return Scores.from_grades([self.grade(rollout) for rollout in rollouts])

    @staticmethod
    def grade(rollout: Rollout) -> Grade:
        _, mark, found = rollout.completion.rpartition("#")
        parts, notes = {"answered": float(bool(mark))}, {"answer": found}
        return Grade(float(bool(mark) and found == rollout.answer), parts, notes)


def main(model: str, directory: Path, steps: int = 100) -> Run:
    sizes = {"prompts_per_batch": 16, "group_size": 8, "evaluate_every": 0}
    return rheostat.train("grpo", Largest(), model=model, directory=directory, steps=steps, **sizes)


if __name__ == "__main__":
    run = main(sys.argv[1] if len(sys.argv) > 1 else "chain-sum", Path("runs/largest"))
    print(run.metrics[0]["reward"], "->", run.metrics[-1]["reward"])
    print("on new prompts", run.summary["accuracy"])
