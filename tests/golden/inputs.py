"""What the cases need besides numbers, made in a temporary folder on first use: a base model, tasks, a data set, an expert, a network.

Names in a case that begin with ``@`` stand for what :data:`INPUTS` makes. The weights of the base model are drawn here and not by its
library, so that they do not depend on how that one initialises.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from rheostat.api import settings_for
from rheostat.credit.verifiers import Grade, Scores
from rheostat.policies.control.distributions import Categorical
from rheostat.tasks.control.games import Coordination, Dominance
from rheostat.tasks.language import ChainSum, character_tokenizer
from rheostat.tasks.language.translations import Translations
from rheostat.training.run import Run
from tests import tiny_compression
from tests.annotated import GROUPS
from tests.teams import Quarry
from tests.tiny_control import random_data
from tests.tiny_language import model as random_model


@functools.cache
def folder() -> Path:
    """A temporary folder of this process."""
    return Path(tempfile.mkdtemp(prefix="rheostat-golden-"))


# --- language ---------------------------------------------------------------------------------------------------------------------------


class Residue:
    """1 where the sum of the characters' codes leaves the residue 1, so that a random model is right once in ``modulus`` tries.

    Args:
        modulus: of the residue.
        broken: share of the rows, the first ones, that cannot be graded.
        bonus: added to completions of odd length.
    """

    name = "residue"

    def __init__(self, modulus: int = 2, broken: float = 0.0, bonus: float = 0.0) -> None:
        self.modulus, self.broken, self.bonus = modulus, broken, bonus

    def grade(self, completion: str) -> Grade:
        """Of one completion."""
        right = float(sum(map(ord, completion)) % self.modulus == 1)
        return Grade(right + self.bonus * (len(completion) % 2), {"length": float(len(completion)), "right": right})

    def score(self, rollouts: Any, progress: Any = None) -> Scores:
        """One grade per rollout."""
        failing = round(self.broken * len(rollouts))
        grades = [self.grade(rollout.completion) for rollout in rollouts]
        return Scores.from_grades([Grade.failure("not graded") if row < failing else grade for row, grade in enumerate(grades)])


class Easy(ChainSum):
    """Chains of sums that a random model gets right half of the time."""

    def verifier(self) -> Any:
        """By residue."""
        return Residue()


class Ungraded(ChainSum):
    """The same, with a quarter of the completions not graded."""

    def verifier(self) -> Any:
        """By residue, with failures."""
        return Residue(broken=0.25)


class Hard(ChainSum):
    """The same, right once in sixteen tries, so that whole groups fail."""

    def verifier(self) -> Any:
        """By residue."""
        return Residue(16)


class Noting:
    """Right, wrong and no answer, by the characters of a completion."""

    name = "noting"

    def score(self, rollouts: Any, progress: Any = None) -> Scores:
        """The sum of the characters modulo 3 says which."""
        kind = torch.tensor([sum(map(ord, each.completion)) % 3 for each in rollouts])
        return Scores((kind == 0).float(), kind >= 0, kind < 0, notes={"answer": ["" if each == 2 else "?" for each in kind.tolist()]})


class Spoken(ChainSum):
    """Chains of sums whose judgements may state any of three scores, or none, by their characters."""

    def verifier(self) -> Any:
        """By residue."""
        return Noting()

    @property
    def verification_scores(self) -> None:  # type: ignore[override]
        """Any."""
        return None

    def stated_score(self, completion: str) -> float | None:
        """The sum of the characters modulo 4 says which."""
        return {0: None, 1: 1.0, 2: -0.5, 3: -1.0}[sum(map(ord, completion)) % 4]


class Translated(Translations):
    """Programs that a random model gets right half of the time."""

    def verifier(self) -> Any:
        """By residue."""
        return Residue()


class Shaped(ChainSum):
    """The same, with a bonus beside what is right."""

    def verifier(self) -> Any:
        """By residue and length."""
        return Residue(16, bonus=0.1)


@functools.cache
def base_model() -> str:
    """Folder of a two-layer model of characters."""
    tokenizer = character_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
    model = random_model("qwen3", vocabulary=len(tokenizer), **sizes)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.25 + float("norm" in name))
    model.save_pretrained(folder() / "model")
    tokenizer.save_pretrained(folder() / "model")
    return str(folder() / "model")


@functools.cache
def prompts() -> str:
    """A file of prompts with answers and completions."""
    rows = [{"prompt": f"{a}+{b}=", "answer": str((a + b) % 10), "completion": str((a + b) % 10)} for a in range(10) for b in range(10)]
    path = folder() / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def answers() -> str:
    """A file of an expert's answers, six to each of twelve questions, of several styles and lengths."""
    draw = np.random.default_rng(5)
    task = ChainSum()
    rows = []
    for prompt in task.prompts("train", 7).take(12):
        numbers, operations, _ = task.parse(str(prompt.content))
        for style in ("steps", "rewrite", "direct"):
            for slips in (0.0, 0.5):
                rows.append({"prompt": prompt.content, "completion": task.demonstrate(numbers, operations, style, draw, slips)})
    path = folder() / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def pairs() -> str:
    """A file of preference pairs: the right digit, and a wrong and longer answer."""
    rows = [
        {"prompt": f"{a}+{b}=", "answer": str((a + b) % 10), "chosen": str((a + b) % 10), "rejected": f"{(a + b + 1) % 10}{a}"}
        for a in range(10)
        for b in range(10)
    ]
    path = folder() / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def judge() -> str:
    """A judge of pairs that prefers the shorter answer."""
    path = folder() / "judge.py"
    path.write_text("def judge(completions, other, **columns):\n    return [float(len(a) < len(b)) for a, b in zip(completions, other)]\n")
    return f"{path}:judge"


def margins() -> str:
    """The same with margins, and some rejected answers longer still."""
    rows = [json.loads(line) for line in Path(pairs()).read_text().splitlines()]
    rows = [row | {"margin": 0.1 * number, "rejected": row["rejected"] + "0" * (number % 2)} for number, row in enumerate(rows)]
    path = folder() / "margins.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def zoo() -> str:
    """Answers of two policies, ordered: one writes the right digit, alone and with more digits, the other the wrong digit."""
    rows = [
        {
            "prompt": f"{a}+{b}=",
            "completions": [f"{(a + b) % 10}", f"{(a + b) % 10}0{a}"[: 2 + b % 2], f"{(a + b + 1) % 10}"],
            "policies": [0, 0, 1],
            "ranks": [1, 2, 3],
        }
        for a in range(10)
        for b in range(10)
    ]
    path = folder() / "zoo.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def scores() -> str:
    """Single answers with a number each."""
    rows = [
        {"prompt": f"{a}+{b}=", "completion": str((a + b + off) % 10) * (1 + off), "score": 1.0 - off + 0.1 * b, "answer": "0"}
        for a in range(10)
        for b in range(10)
        for off in range(2)
    ]
    path = folder() / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


# --- control ----------------------------------------------------------------------------------------------------------------------------


class Images(gymnasium.Env):
    """Images that drift with the actions; the reward is the mean of the image. Saves its state."""

    observation_space = gymnasium.spaces.Box(0, 255, (2, 6, 6), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """A random image."""
        super().reset(seed=seed)
        self.count = 0
        self.image = self.np_random.integers(0, 256, (2, 6, 6), np.uint8)
        return self.image.copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Rolls and brightens the image; the episode is cut after nine steps."""
        self.count += 1
        self.image = np.roll(self.image, int(action) - 1, axis=2) + np.uint8(3 * int(action))
        return self.image.copy(), float(self.image.mean()) / 255, False, self.count == 9, {}

    def save_state(self) -> dict[str, Any]:
        """Everything."""
        return {"count": self.count, "image": self.image.tolist()}

    def load_state(self, state: dict[str, Any]) -> None:
        """The way back."""
        self.count, self.image = state["count"], np.array(state["image"], np.uint8)


class OwnNetwork(nn.Module):
    """A user's network: one shared layer, then logits of two actions and a value."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.logits, self.judge = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 1)
        draw = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for _, parameter in sorted(self.named_parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)

    def distribution(self, observation: Tensor) -> Categorical:
        """Of actions."""
        return Categorical(self.logits(self.shared(observation).tanh()))

    def value(self, observation: Tensor) -> Tensor:
        """``[N]``."""
        return self.judge(self.shared(observation).tanh()).squeeze(-1)


@functools.cache
def expert(task: str = "CartPole-v1") -> str:
    """The directory of a finished run."""
    few: dict[str, Any] = {"num_envs": 4, "batch_steps": 64, "epochs": 2, "minibatches": 2, "hidden": (8,), "evaluation_episodes": 0}
    directory = folder() / f"expert-{task}"
    Run.create(directory, settings_for("ppo", task, steps=128, backend="gymnasium", **few)).train().close()
    return str(directory)


INPUTS: dict[str, Callable[[], Any]] = {
    "@easy": Easy,
    "@ungraded": Ungraded,
    "@hard": Hard,
    "@shaped": Shaped,
    "@spoken": Spoken,
    "@model": base_model,
    "@chain": tiny_compression.teacher,
    "@blocks": lambda: tiny_compression.teacher(tiny_compression.BLOCKS),
    "@translated": Translated,
    "@groups": lambda: str(GROUPS),
    "@prompts": prompts,
    "@answers": answers,
    "@pairs": pairs,
    "@judge": judge,
    "@margins": margins,
    "@scores": scores,
    "@zoo": zoo,
    "@images": lambda: Images,
    "@network": OwnNetwork,
    "@expert": expert,
    "@pendulum-expert": lambda: expert("Pendulum-v1"),
    "@dominance": lambda: lambda: Dominance(rounds=3),
    "@coordination": lambda: lambda: Coordination(rounds=3),
    "@quarry": lambda: Quarry,
    "@pendulum-data": lambda: random_data("Pendulum-v1"),
    "@goals-data": lambda: random_data("rheostat/TwoGoals-v0"),
    "@long-data": lambda: random_data("Pendulum-v1", 450),
    "@cartpole-data": lambda: random_data("CartPole-v1"),
}


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Options with what their names that begin with ``@`` stand for."""
    return {name: INPUTS[value]() if isinstance(value, str) and value.startswith("@") else value for name, value in options.items()}
