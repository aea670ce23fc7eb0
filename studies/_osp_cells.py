"""The cells of the OSP study: labelled pairs, a small model that was taught to answer and to judge, and a policy that learns from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rheostat.collect.language.self_judge import judging_rows
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier
from rheostat.streams import derive_seed
from rheostat.tasks.language.characters import character_tokenizer
from rheostat.tasks.language.preference_rows import PreferencePrompts
from rheostat.tasks.language.task_interface import LanguageTask, Limits, Prompt, Split, is_validation
from rheostat.training.building import build_method
from rheostat.training.settings import Settings, configure, plain
from studies._osp_judge import LENGTH, LETTERS, preference, utility

BLOCK = 256
PAIRS, MODEL = "pairs.json", "model"
JUDGE = f"{Path(__file__).parent / '_osp_judge.py'}:judge"


@dataclass(frozen=True)
class Letters(LanguageTask):
    """Three wanted letters, and answers of eight: ``cfa=`` is answered ``cbfqdalk``. Prompts are compared as ``cfa=ANSWER:ANSWER?``."""

    name: str = "letters"
    wanted: int = 3
    validation_share: float = 0.2
    verdicts: tuple[str, str] = ("1", "2")

    @property
    def limits(self) -> Limits:  # type: ignore[override]
        """Questions about two answers; an answer and its end."""
        return Limits(self.wanted + 2 * LENGTH + 3, LENGTH + 1)

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """The prompts of one draw that belong to the split."""
        rng = np.random.default_rng([derive_seed(seed, "letters", split), number])
        drawn = ["".join(rng.choice(list(LETTERS), self.wanted, replace=False)) + "=" for _ in range(BLOCK)]
        return [Prompt(text) for text in drawn if is_validation(Prompt(text).key, self.validation_share) == (split == "validation")]

    def verifier(self) -> Verifier:
        """The gold utility."""
        return Utility()

    def comparison(self, prompt: Prompt, first: str, second: str) -> Prompt:
        """Characters."""
        return Prompt(f"{prompt.content}{first}:{second}?", None, {"about": prompt.key})

    def answer(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """What is shown: a quarter of the letters are wanted ones, the others are any."""
        wanted, others = list(str(prompt.content)[:-1]), list(LETTERS)
        return "".join(str(rng.choice(wanted if rng.random() < 0.25 else others)) for _ in range(LENGTH))


class Utility:
    """The gold utility as a reward."""

    name = "letters"

    def score(self, rollouts: Any, progress: Progress | None = None) -> Scores:
        """Grade."""

        def grade(rollout: Rollout) -> Grade:
            return Grade(utility(rollout.prompt_text.rstrip("="), rollout.completion))

        return Scores.from_grades([grade(rollout) for rollout in rollouts])


class Taught(Letters):
    """Letters whose training prompts are rows with a completion."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__()
        object.__setattr__(self, "rows", [Prompt(row["prompt"], None, {"completion": row["completion"]}) for row in rows])

    def block(self, number: int, split: Split, seed: int) -> list[Prompt]:
        """An epoch of rows."""
        if split == "validation":
            return super().block(number, split, seed)
        rows: list[Prompt] = vars(self)["rows"]
        return [rows[place] for place in np.random.default_rng([derive_seed(seed, "taught"), number]).permutation(len(rows))]


class Compared(PreferencePrompts):
    """Labelled pairs, graded and judged as letters are."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(rows, reward=[Utility()], max_new_tokens=LENGTH + 1, validation_share=0.1, verdicts=Letters().verdicts,
                         comparison="{prompt}{first}:{second}?")  # fmt: skip


def draw_pairs(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs of shown answers, labelled by the gold preference, which errs."""
    task, rng = Letters(), np.random.default_rng(derive_seed(seed, "pairs"))
    found: list[dict[str, Any]] = []
    for prompt in task.prompts("train", derive_seed(seed, "prompts of pairs")).take(2 * count):
        first, second = (task.answer(prompt, rng) for _ in range(2))
        wins = rng.random() < preference(str(prompt.content)[:-1], first, second)
        if first != second and len(found) < count:
            found.append({"prompt": prompt.content, "chosen": first if wins else second, "rejected": second if wins else first})
    return found


def prepare(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell that draws pairs and teaches a new model to answer (the chosen answers) and to judge (every pair in both orders).

    Arguments: ``seed``, ``pairs``, ``steps`` of likelihood, ``batch`` rows, ``hidden`` and ``layers`` of the model, ``held_out``.

    Returns:
        ``accuracy``: share of new pairs on which the judge agrees with the better utility; ``utility`` of the model's samples.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    pairs = draw_pairs(arguments["pairs"], arguments["seed"])
    (place / PAIRS).write_text(json.dumps(pairs))
    rows = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs]
    rows += judging_rows(Letters(), [(Prompt(pair["prompt"]), pair["chosen"], pair["rejected"]) for pair in pairs])
    tokenizer = character_tokenizer(LETTERS + "=:?12")
    size: dict[str, Any] = {
        "hidden_size": arguments["hidden"],
        "intermediate_size": 3 * arguments["hidden"],
        "num_hidden_layers": arguments["layers"],
    }
    size |= {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": arguments["hidden"] // 4, "max_position_embeddings": 64}
    config = Qwen3Config(vocab_size=len(tokenizer), tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2, **size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(arguments["seed"], "model"))
        model = Qwen3ForCausalLM(config)
    options = {"prompts_per_batch": arguments["batch"], "learning_rate": 2e-3, "learning_rate_decay": "cosine", "warmup": 20}
    method = build(arguments | {"method": "sft", "config": options}, Taught(rows), (model, tokenizer))
    for _ in range(arguments["steps"]):
        method.turn()
    found = method.evaluate(arguments["held_out"])
    accuracy = judged(build(arguments | {"method": "osp", "config": {}}, Letters(), method.policy), arguments["held_out"])
    method.policy.causal.save_pretrained(place / MODEL)
    tokenizer.save_pretrained(place / MODEL)
    return {"accuracy": accuracy, "utility": found["accuracy"]}


def judged(method: Any, count: int) -> float:
    """Share of new pairs of shown answers with different utilities on which the policy's judgement has the right sign."""
    task, rng = Letters(), np.random.default_rng(derive_seed(0, "held-out pairs"))
    prompts = task.validation(count)
    pairs = [(prompt, task.answer(prompt, rng), task.answer(prompt, rng)) for prompt in prompts]
    gold = torch.tensor([utility(str(p.content)[:-1], a) - utility(str(p.content)[:-1], b) for p, a, b in pairs])
    judge = method.config.strength.asked(method.context)
    asked, first, second = (list(each) for each in zip(*pairs, strict=True))
    said = 0.5 * (judge(asked, first, second) + 1 - judge(asked, second, first))
    known = gold != 0
    return float(((said > 0.5) == (gold > 0))[known].float().mean())


def build(arguments: dict[str, Any], task: LanguageTask, policy: Any = None) -> Any:
    """A method on a task, from a model at hand or from a folder."""
    config = plain(configure(arguments["method"], arguments["config"] | {"evaluate_every": 0}))
    more = {} if policy is not None else {"model": arguments["model"]}
    settings = Settings(
        arguments["method"], "letters", arguments["seed"], arguments["steps"], evaluation_episodes=0, config=config, threads=1,
        judge=arguments.get("judge"), **more,
    )  # fmt: skip
    return build_method(settings, task, policy)


def learn(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell that learns.

    Arguments: ``method``, ``config``, ``seed``, ``steps`` (updates), ``data`` (key of the cell with model and pairs), ``true_judge``:
    whether the true probabilities judge, ``look_every``, ``look_prompts``, ``held_out``.

    Returns:
        ``start`` and ``final``: utility, length, KL to the start and win rate of held-out samples; ``curve``: utility and KL on fewer
        prompts against updates; ``margin``: mean absolute margin on the scale beta in the last tenth of the updates that had a pair;
        ``without pairs``: the other updates, in which all answers to every prompt were equal; ``accuracy``: of the policy as a judge at the
        end.
    """
    source = place.parent / arguments["data"]
    arguments = arguments | {"model": str(source / MODEL), "judge": JUDGE if arguments["true_judge"] else None}
    offline = arguments["method"] == "dpo"
    task: LanguageTask = Compared(json.loads((source / PAIRS).read_text())) if offline else Letters()
    method = build(arguments, task)
    judge = build(arguments | {"method": "osp", "config": {}, "judge": None}, Letters(), method.policy)
    start, looks, margins = look(method, arguments["held_out"]), [], []
    for update in range(arguments["steps"]):
        if update % arguments["look_every"] == 0:
            looks.append(look(method, arguments["look_prompts"]) | {"steps": update})
        metrics = method.turn()
        if "margin" in metrics:
            margins.append(metrics.get("absolute_margin", arguments["config"].get("beta", 0.1) * abs(metrics["margin"])))
    final = look(method, arguments["held_out"])
    looks.append(look(method, arguments["look_prompts"]) | {"steps": arguments["steps"]})
    tail = max(1, len(margins) // 10)
    found = {
        "start": start,
        "final": final,
        "curve": {name: [one[name] for one in looks] for name in looks[0]},
        "margin": round(float(np.mean(margins[-tail:])), 5),
        "without pairs": arguments["steps"] - len(margins),
        "accuracy": round(judged(judge, arguments["held_out"]), 4),
    }
    method.close()
    return found


def look(method: Any, prompts: int) -> dict[str, float]:
    """Held-out samples of letters, beside those of the start; changes nothing."""
    task, method.context.setup.task = method.context.setup.task, Letters()
    held, method.context.collector.held_out = method.context.collector.held_out, []
    try:
        found = method.evaluate(prompts)
    finally:
        method.context.setup.task, method.context.collector.held_out = task, held
    names = {"accuracy": "utility", "validation_length": "length", "validation_kl": "kl", "validation_win_rate": "win rate"}
    return {new: round(float(found[old]), 5) for old, new in names.items()}
