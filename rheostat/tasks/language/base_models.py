"""Building and caching base models: a small Qwen3 trained on a recipe's demonstrations or games, or a real model that a package carries.

The result is an ordinary Hugging Face folder (safetensors, tokenizer, ``recipe.json`` with its measurements); ``transformers`` and every
other library load it.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rheostat.errors import RheostatError, unknown
from rheostat.files import cache_root, sha256
from rheostat.json_text import NotJSON, signed, unsigned
from rheostat.json_text import read as read_json
from rheostat.locks import held
from rheostat.policies.language.model_loading import without_bars
from rheostat.streams import derive_seed
from rheostat.tasks.language.chain_sum import final_answer, strategy
from rheostat.tasks.language.games.teaching import GAME_RECIPES, GameRecipe, measure_game, train_game_model
from rheostat.tasks.language.packaged_models import PACKAGED_MODELS, PackagedModel, convert
from rheostat.tasks.language.recipes import BASE_RECIPES, BaseRecipe, Lesson, World
from rheostat.tasks.language.small_models import IGNORED, Report, new_network, new_optimiser, sample_text, supervised_step
from rheostat.tasks.language.task_interface import Prompt, PromptStream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

REPORT = "recipe.json"
Recipe = BaseRecipe | GameRecipe | PackagedModel
"""Of a base model: one that is trained on chains or on games, or one that a package carries."""


def base_models() -> dict[str, Recipe]:
    """Every ready base model by name: the tiny ones, and the real ones that a package carries."""
    return {**BASE_RECIPES, **GAME_RECIPES, **PACKAGED_MODELS}


def base_model(name: str) -> Recipe:
    """A ready base model.

    Raises:
        RheostatError: none of that name.
    """
    known = base_models()
    if name not in known:
        raise unknown("base model", name, known)
    return known[name]


def base_model_path(recipe: str | Recipe, cache_dir: str | Path | None = None) -> Path:
    """The folder of a base model, whether it is built yet or not."""
    recipe = base_model(recipe) if isinstance(recipe, str) else recipe
    return cache_root(cache_dir) / "base-models" / f"{recipe.name}-{recipe.digest}"


def build_base_model(recipe: str | Recipe, cache_dir: str | Path | None = None, progress: bool | Report = True) -> Path:
    """A base model, built unless the cache has it.

    Args:
        recipe: a recipe or a packaged model, or the name of a ready one.
        cache_dir: see :func:`rheostat.files.cache_root`.
        progress: True shows a bar and prints the model's folder; a function is called after every step; False is silent.

    Returns:
        The Hugging Face folder. It appears in one piece: a build that is interrupted leaves nothing there. One that is not what was
        written there any more is built again, and a note on stderr says so.

    Raises:
        RheostatError: unknown name, a cache folder that cannot be written, or a package that is missing or holds other weights.
    """
    recipe = base_model(recipe) if isinstance(recipe, str) else recipe
    target = base_model_path(recipe, cache_dir)
    wrong = fault_of(target)
    if wrong is not None or not (target / REPORT).is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        except OSError as error:
            raise RheostatError(
                f"Cannot write base models to {target.parent} ({error.strerror}): set RHEOSTAT_CACHE to another folder."
            ) from error
        lock, name = target.with_name(f".{target.name}.lock"), f"the base model {recipe.name}"
        try:
            with held(lock, name, patience=math.inf, say=lambda sentence: print(sentence, file=sys.stderr)):
                wrong = fault_of(target)
                if wrong is not None:
                    print(f"{target} is damaged ({wrong}): the base model {recipe.name} is built again.", file=sys.stderr)
                if wrong is not None or not (target / REPORT).is_file():  # else another process has built it meanwhile
                    _seal(workshop, _fill(recipe, workshop, progress))
                    if wrong is not None:
                        shutil.rmtree(target)
                    _move_into_place(workshop, target)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
    if progress is True:
        print(f"base model {recipe.name}: {_told(read_json(target / REPORT))}, at {target}")
    return target


def fault_of(folder: Path) -> str | None:
    """What is wrong with a finished base model; None where nothing is, or none is there.

    Models that were built by earlier versions have no digests of their files: of those only the report is looked at.
    """
    if not (folder / REPORT).is_file():
        return None
    try:
        facts = unsigned(read_json(folder / REPORT))
        if "digest" not in facts or not isinstance(facts.get("files", {}), dict):
            return f"{REPORT} is not a base model's"
        for name, digest in facts.get("files", {}).items():
            if not (folder / name).is_file():
                return f"{name} is gone"
            if sha256(folder / name) != digest:
                return f"{name} is not what was written"
    except (OSError, NotJSON) as error:
        return f"{REPORT} cannot be read: {error}"
    return None


def _seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the report of a finished base model, with the digests of its files."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    (folder / REPORT).write_text(json.dumps(signed(facts | {"files": files}), indent=2) + "\n")


def _told(facts: dict[str, Any]) -> str:
    """A short form of a finished model's report."""
    if "measured" not in facts:
        return f"{facts['parameters']:,} weights from {facts['package']} ({facts['licence']})"
    shares = {"step_by_step": "step by step", "won": "games won"}
    told = [f"{said} {facts['measured'][name]:.0%}" for name, said in shares.items() if name in facts["measured"]]
    return f"accuracy {facts['measured']['accuracy']:.2f}, {told[0]}"


def facts_of(recipe: Recipe, cache_dir: str | Path | None = None) -> dict[str, Any]:
    """Name, content hash, place and, once built, accuracy, parameters and seconds of a base model; ``fault`` says what is wrong with it."""
    path = base_model_path(recipe, cache_dir)
    wrong = fault_of(path)
    built = wrong is None and (path / REPORT).is_file()
    found = read_json(path / REPORT) if built else {}
    return {
        "name": recipe.name,
        "digest": recipe.digest,
        "path": str(path),
        "built": built,
        "fault": wrong,
        "accuracy": found.get("measured", {}).get("accuracy"),
        "parameters": found.get("parameters"),
        "seconds": found.get("seconds"),
    }


def train_base_model(recipe: BaseRecipe, report: Report | None = None) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """Train a recipe's model in memory (the global random streams are left as they were)."""
    tokenizer = recipe.task.tokenizer()
    model = new_network(recipe.model, tokenizer, recipe.seed)
    teach(model, tokenizer, recipe, report)
    mix(model, tokenizer, recipe, report)
    if recipe.spoiling:
        spoil(model, tokenizer, recipe, report)
    return model.eval(), tokenizer


def teach(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: BaseRecipe, report: Report | None) -> None:
    """Train on the working alone until the loss shows that it is learned.

    The step at which a network of this size learns which operand comes next is random (130 to 340 steps in trials), so the recipe gives
    the loss to reach and not the number of steps.
    """
    optimiser = new_optimiser(model)
    lessons = [lesson.taught() for lesson in recipe.lessons]
    batches = demonstrations(lessons, recipe.teach_batch, derive_seed(recipe.seed, "teach"), tokenizer)
    smoothed, step = float("inf"), 0
    while step < recipe.teach_steps and smoothed > recipe.taught_below:
        step += 1
        loss = supervised_step(model, optimiser, next(batches), recipe.teach_lr * min(1.0, step / max(1, recipe.warmup)), recipe.clip)
        smoothed = loss if step == 1 else 0.8 * smoothed + 0.2 * loss
        if report is not None:
            report(step, recipe.most_steps, loss)


def mix(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: BaseRecipe, report: Report | None) -> None:
    """Train on the mixture of styles at a falling rate.

    The bare answers, which cannot be learned, first disturb the working; it recovers while the rate is high and improves while it falls.
    """
    optimiser = new_optimiser(model)
    batches = demonstrations(list(recipe.lessons), recipe.mix_batch, derive_seed(recipe.seed, "mix"), tokenizer)
    for step in range(recipe.mix_steps):
        rate = min(1.0, (step + 1) / 10) * (1 - 0.95 * step / recipe.mix_steps)
        loss = supervised_step(model, optimiser, next(batches), recipe.mix_lr * rate, recipe.clip)
        if report is not None:
            report(recipe.teach_steps + step + 1, recipe.most_steps, loss)


def spoil(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: BaseRecipe, report: Report | None) -> None:
    """Train a model that has learned without slips on demonstrations with slips, at a constant rate."""
    optimiser = new_optimiser(model)
    batches = demonstrations(list(recipe.spoiling), recipe.mix_batch, derive_seed(recipe.seed, "spoil"), tokenizer)
    for step in range(recipe.spoil_steps):
        loss = supervised_step(model, optimiser, next(batches), recipe.spoil_lr, recipe.clip)
        if report is not None:
            report(recipe.teach_steps + recipe.mix_steps + step + 1, recipe.most_steps, loss)


def demonstrations(
    lessons: list[Lesson], rows: int, seed: int, tokenizer: PreTrainedTokenizerFast
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Endless supervised batches of ``rows`` rows.

    Yields:
        One or two buckets (short rows apart from long ones) of ids [b, t] int64 and labels [b, t] int64, -100 where there is no target.
    """
    vocabulary = tokenizer.get_vocab()
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    rng = np.random.default_rng(seed)
    streams = [lesson.world.prompts("train", derive_seed(seed, "lesson", number)) for number, lesson in enumerate(lessons)]
    weights = np.array([lesson.weight for lesson in lessons])
    while True:
        counts = rng.multinomial(rows, weights / weights.sum()).tolist()
        pairs = [pair for chosen in zip(lessons, streams, counts, strict=True) for pair in lesson_rows(*chosen, rng)]
        batch = [([vocabulary[c] for c in question], [*(vocabulary[c] for c in answer), end]) for question, answer in pairs]
        yield [_pad(bucket, pad) for bucket in _buckets(batch) if bucket]


def lesson_rows(lesson: Lesson, stream: PromptStream, count: int, rng: np.random.Generator) -> list[tuple[str, str]]:
    """``count`` pairs of prompt and demonstration of one lesson."""
    task = lesson.world
    styles = [style for style, _ in lesson.styles]
    shares = np.array([share for _, share in lesson.styles])
    chosen = rng.choice(len(styles), size=count, p=shares / shares.sum()).tolist()
    asks = (rng.random(count) < lesson.verification_share).tolist()
    rows = []
    for prompt, style, ask in zip(stream.take(int(count)), chosen, asks, strict=True):
        if ask:
            wrong, solution = rng.random() < 0.5, str(prompt.columns["solution"])
            while wrong and final_answer(solution) == prompt.answer:
                solution = task.expert(prompt, rng, "steps", 1.0 / len(prompt.columns["operations"]))
            prompt = task.verification(prompt, solution, "")
        rows.append((str(prompt.content), task.expert(prompt, rng, styles[style], lesson.error_rate)))
    return rows


def _buckets(rows: list[tuple[list[int], list[int]]]) -> tuple[list[tuple[list[int], list[int]]], list[tuple[list[int], list[int]]]]:
    """Rows up to half the longest length, and the rest: bare answers need not be padded to the length of worked ones."""
    middle = max(len(question) + len(answer) for question, answer in rows) / 2
    short = [row for row in rows if len(row[0]) + len(row[1]) <= middle]
    return short, [row for row in rows if len(row[0]) + len(row[1]) > middle]


def _pad(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor]:
    width = max(len(question) + len(answer) for question, answer in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), IGNORED)
    for row, (question, answer) in enumerate(rows):
        end = len(question) + len(answer)
        ids[row, :end] = torch.tensor(question + answer)
        labels[row, len(question) : end] = torch.tensor(answer)
    return ids, labels


def measure(model: Any, tokenizer: PreTrainedTokenizerFast, task: World, count: int = 500, seed: int = 0) -> dict[str, float]:
    """Accuracy and share of worked answers of one sample per validation prompt at temperature 1."""
    prompts: list[Prompt] = task.validation(count)
    generator = torch.Generator().manual_seed(derive_seed(seed, "measure base"))
    texts = sample_text(model, tokenizer, [str(prompt.content) for prompt in prompts], task.limits.max_new_tokens, generator)
    right = task.verifier().score([prompt.rollout(text) for text, prompt in zip(texts, prompts, strict=True)]).reward.bool().tolist()
    worked = [strategy(text) in ("steps", "rewrite") for text in texts]
    both = sum(r and w for r, w in zip(right, worked, strict=True))
    return {
        "accuracy": sum(right) / len(right),
        "step_by_step": sum(worked) / len(worked),
        "accuracy_step_by_step": both / max(1, sum(worked)),
        "samples": len(right),
    }


def _fill(recipe: Recipe, folder: Path, progress: bool | Report) -> dict[str, Any]:
    """Build or convert a base model into an empty folder; returns what its report says."""
    if isinstance(recipe, PackagedModel):
        return {"digest": recipe.digest, **convert(recipe, folder)}
    with _progress(recipe, progress) as report:
        return _build(recipe, folder, report)


def _build(recipe: BaseRecipe | GameRecipe, folder: Path, report: Report | None) -> dict[str, Any]:
    started = time.perf_counter()
    if isinstance(recipe, GameRecipe):
        model, tokenizer = train_game_model(recipe, report)
        measured = measure_game(model, tokenizer, recipe.task)
    else:
        model, tokenizer = train_base_model(recipe, report)
        measured = measure(model, tokenizer, recipe.task)
    seconds = time.perf_counter() - started
    with without_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {
        "recipe": asdict(recipe),
        "digest": recipe.digest,
        "measured": measured,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(seconds, 1),
    }


def _move_into_place(workshop: Path, target: Path) -> None:
    workshop.chmod(0o755)  # temporary folders are private; a model is not
    try:
        workshop.rename(target)
    except OSError:
        if not (target / REPORT).is_file():  # not the model of another process that was first, but other left-overs
            raise RheostatError(f"{target} is in the way and holds no finished base model: remove it and build again.") from None


@contextmanager
def _progress(recipe: BaseRecipe | GameRecipe, progress: bool | Report) -> Iterator[Report | None]:
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(f"building base model {recipe.name}", total=recipe.most_steps, loss=float("nan"))
        yield lambda done, total, loss: bar.update(task, completed=done, total=total, loss=loss)
