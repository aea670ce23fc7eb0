"""Speed and memory of language training, ours and TRL's ``GRPOTrainer`` in turn on one machine: ``python -m benchmarks.language``.

Both sides train the same tiny Qwen3 (the cached chain-sum base) on the same prompts in the same order: 16 prompts x 16 completions, the
same longest completion, temperature 1, one AdamW step per batch, no KL, the clipped surrogate averaged per completion, group-normalised
rewards from the same exact-match reward, float32, and a learning rate so small that the lengths stay those of the base throughout. What
TRL could do to save memory at the price of time (gradient checkpointing, its default) is switched off.

Each side is a process of its own, so that its peak memory is its own. Both are started and warmed up, then take turns: a few updates
here, a few updates there, so that a busy machine slows both. One row per comparison:

    work, peer, ours, theirs, unit, ratio, peak_memory_mb {ours, theirs}

``ratio`` is ours over theirs for speeds and theirs over ours for memory: above 1 we are better. Numbers are medians over the turns, and
the ratio is the median of the turns' ratios. Also reported: where our seconds go (generation, scoring, update), tokens per second, mean
lengths (equal work), the load of the machine, and the memory of log-probabilities over a vocabulary of 150 000.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.rows import Row, machine, median, table
from rheostat.errors import MissingExtra

PROMPTS = GROUP = 16
BASE = "chain-sum"
LEARNING_RATE = 1e-6
VOCABULARY, HIDDEN = 150_000, 96


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1024 if sys.platform != "darwin" else 1024**2)


# --- the two sides: processes that make as many updates as they are told, and say how long it took ---------------------------------------


def ours(pipe: Connection, threads: int, updates: int) -> None:
    """Our side: answers each number of updates with seconds, tokens and the split of the seconds."""
    import torch

    from rheostat import api
    from rheostat.training.run import build_method

    torch.set_num_threads(threads)
    settings = api.settings_for(
        "grpo", "chain-sum", preset="tiny", model=BASE, steps=updates, learning_rate=LEARNING_RATE, prompts_per_batch=PROMPTS,
        group_size=GROUP, evaluate_every=0,
    )  # fmt: skip
    method: Any = build_method(settings, settings.task)
    clock = {"generation": 0.0, "collect": 0.0, "credit": 0.0, "update": 0.0}
    watch(method.context.setup.engine, "generate", clock, "generation")
    watch(method, "collect", clock, "collect")
    watch(method, "credit", clock, "credit")
    watch(method, "improve", clock, "update")
    pipe.send("ready")
    while count := pipe.recv():
        before, tokens, began = dict(clock), method.context.collector.generated_tokens, time.perf_counter()
        for _ in range(count):
            method.turn()
        seconds = time.perf_counter() - began
        spent = {name: clock[name] - before[name] for name in clock}
        split = {"generation": spent["generation"], "update": spent["update"]}
        split["scoring"] = spent["collect"] - spent["generation"] + spent["credit"]
        tokens = method.context.collector.generated_tokens - tokens
        pipe.send({"seconds": seconds, "tokens": tokens, "updates": count, "split": split, "peak": peak_mb()})


def watch(owner: Any, name: str, clock: dict[str, float], key: str) -> None:
    """Add the seconds of every call of a method to the clock."""
    inner = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return inner(*arguments, **options)
        finally:
            clock[key] += time.perf_counter() - began

    setattr(owner, name, timed)


def trl(pipe: Connection, threads: int, updates: int) -> None:
    """TRL's side; its trainer owns the loop, so a callback at the end of each step waits for the next turn."""
    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from rheostat.streams import derive_seed
    from rheostat.tasks.language.base_models import build_base_model
    from rheostat.tasks.language.chain_sum import ChainSum, final_answer
    from rheostat.tasks.language.encoding import PromptEncoder

    torch.set_num_threads(threads)
    datasets.disable_progress_bars()
    task, path = ChainSum(), build_base_model(BASE, progress=False)
    tokenizer = AutoTokenizer.from_pretrained(path)
    stream = task.prompts("train", derive_seed(0, "prompts"))
    drawn = PromptEncoder(tokenizer, task.limits.max_prompt_tokens).take(stream, PROMPTS * updates)
    data = datasets.Dataset.from_list([{"prompt": prompt.content, "answer": prompt.answer} for prompt, _ in drawn])
    generated = [0]

    def reward(completions: list[str], completion_ids: list[list[int]], answer: list[str], **rest: Any) -> list[float | None]:
        generated[0] += sum(map(len, completion_ids))
        return [float(final_answer(text) == right) for text, right in zip(completions, answer, strict=True)]

    class Turns(TrainerCallback):
        def __init__(self) -> None:
            self.count = self.left = self.tokens = 0
            self.began = 0.0

        def wait(self, control: Any) -> None:
            self.count = self.left = pipe.recv()
            self.began, self.tokens = time.perf_counter(), generated[0]
            if not self.count:
                control.should_training_stop = True

        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            pipe.send("ready")
            self.wait(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.left -= 1
            if not self.left:
                seconds, tokens = time.perf_counter() - self.began, generated[0] - self.tokens
                pipe.send({"seconds": seconds, "tokens": tokens, "updates": self.count, "peak": peak_mb()})
                self.wait(control)

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):  # the trainer prints its summary
        config = GRPOConfig(
            output_dir=folder, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP, max_steps=updates,
            max_completion_length=task.limits.max_new_tokens, learning_rate=LEARNING_RATE, lr_scheduler_type="constant",
            max_grad_norm=1.0, weight_decay=0.0, beta=0.0, num_iterations=1, epsilon=0.2, scale_rewards="group", loss_type="grpo",
            temperature=1.0, shuffle_dataset=False, gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none",
            save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        GRPOTrainer(
            model=model, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[Turns()]
        ).train()


SIDES: dict[str, Callable[[Connection, int, int], None]] = {"ours": ours, "theirs": trl}


def start(side: str, threads: int, updates: int) -> tuple[Any, Connection]:
    """A side's process, ready for its first turn."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=SIDES[side], args=(there, threads, updates), daemon=True)
    process.start()
    there.close()
    here.recv()
    return process, here


def race(threads: int, turns: int, per_turn: int) -> dict[str, Any]:
    """Both sides in turn, after one update each to warm up."""
    from rheostat.tasks.language.base_models import build_base_model

    build_base_model(BASE, progress=False)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    running = {name: start(name, threads, 2 + turns * per_turn) for name in SIDES}  # one more than needed: TRL's own end is not timed
    for _, pipe in running.values():
        pipe.send(1)
        pipe.recv()
    for _ in range(turns):
        for name, (_, pipe) in running.items():
            pipe.send(per_turn)
            found[name].append(pipe.recv())
    for process, pipe in running.values():
        pipe.send(0)
        process.join(60)
    return {name: summarised(rows) for name, rows in found.items()} | {"turns": turns, "updates_per_turn": per_turn}


def summarised(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A side's turns as medians."""
    result: dict[str, Any] = {
        "steps_per_second": [row["updates"] / row["seconds"] for row in rows],
        "tokens_per_second": [row["tokens"] / row["seconds"] for row in rows],
        "mean_length": sum(row["tokens"] for row in rows) / sum(row["updates"] for row in rows) / (PROMPTS * GROUP),
        "peak_memory_mb": max(row["peak"] for row in rows),
    }
    if "split" in rows[0]:
        result["seconds_per_step"] = {
            part: statistics.median(row["split"][part] / row["updates"] for row in rows) for part in rows[0]["split"]
        }
    return result


# --- log-probabilities over a large vocabulary -------------------------------------------------------------------------------------------


def logprob_memory(pipe: Connection, kind: str, tokens: int, threads: int) -> None:
    """Seconds and extra memory of log-probabilities and entropies with their gradient, the plain way or ours."""
    import torch

    from rheostat.policies.language.chunked_logprobs import token_logprobs

    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False)
    with torch.no_grad():
        head.weight.uniform_(-0.1, 0.1, generator=draw)
    hidden = torch.randn(tokens, HIDDEN, generator=draw, requires_grad=True)
    chosen = torch.randint(VOCABULARY, (tokens,), generator=draw)
    head.weight.grad = torch.zeros_like(head.weight)  # the weights' gradient is needed either way
    before, began = peak_mb(), time.perf_counter()
    if kind == "ours":
        logp, _ = token_logprobs(hidden, chosen, head, entropy=True)
    else:
        logps = torch.log_softmax(head(hidden), -1)
        logp = logps.gather(-1, chosen[:, None])[:, 0]
        with torch.no_grad():
            _ = -(logps.exp() * logps).sum(-1)
    logp.mean().backward()
    pipe.send({"megabytes": peak_mb() - before, "seconds": time.perf_counter() - began, "checksum": float(logp.detach().mean())})


def logprobs(tokens: int, threads: int) -> dict[str, Any]:
    """Both ways, each in a fresh process."""
    context, found = multiprocessing.get_context("spawn"), {}
    for kind in ("ours", "plain"):
        here, there = context.Pipe()
        process = context.Process(target=logprob_memory, args=(there, kind, tokens, threads))
        process.start()
        there.close()
        found[kind] = here.recv()
        process.join()
    return found | {"tokens": tokens, "vocabulary": VOCABULARY}


# --- rows --------------------------------------------------------------------------------------------------------------------------------


def rows_of(measured: dict[str, Any], memory: dict[str, Any]) -> list[Row]:
    """One row per comparison."""
    peer = f"TRL {version('trl')} GRPOTrainer"
    mine, theirs = measured["ours"], measured["theirs"]
    peaks = mine["peak_memory_mb"], theirs["peak_memory_mb"]

    def speed(work: str, name: str, unit: str) -> Row:
        ratios = tuple(a / b for a, b in zip(mine[name], theirs[name], strict=True))
        return Row(work, peer, median(mine[name]), median(theirs[name]), unit, *peaks, ratios)

    ours_, plain = memory["ours"]["megabytes"], memory["plain"]["megabytes"]
    work = f"log-probabilities of {memory['tokens']} tokens over {VOCABULARY:,} with gradient, extra memory"
    return [
        speed("GRPO tiny Qwen3 16x16", "steps_per_second", "steps/s"),
        speed("GRPO tiny Qwen3 16x16, tokens", "tokens_per_second", "generated tokens/s"),
        Row("GRPO tiny Qwen3 16x16, peak memory", peer, *peaks, "MB", *peaks),
        Row(work, "torch.log_softmax", ours_, plain, "MB", ours_, plain),
    ]


def measure(*, threads: int, turns: int, per_turn: int, tokens: int) -> dict[str, Any]:
    """Everything, as plain JSON.

    Raises:
        MissingExtra: TRL or datasets is not installed.
    """
    try:
        import datasets  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise MissingExtra("trl", "bench", "Comparing with TRL") from error
    load = [os.getloadavg()[0]]
    measured = race(threads, turns, per_turn)
    memory = logprobs(tokens, threads)
    load.append(os.getloadavg()[0])
    return {
        "rows": [row.to_json() for row in rows_of(measured, memory)],
        "details": measured | {"log_probabilities": memory},
        "machine": {"name": machine(), "threads": threads, "load_before_and_after": [round(x, 1) for x in load]},
        "versions": {name: version(name) for name in ("rheostat", "torch", "transformers", "trl")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--quick", action="store_true", help="two short turns and a small batch of log-probabilities")
    parser.add_argument("--turns", type=int, default=8, help="turns of each side")
    parser.add_argument("--updates", type=int, default=4, help="updates per turn")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="torch threads of each side")
    options = parser.parse_args()
    turns, per_turn, tokens = (2, 2, 64) if options.quick else (options.turns, options.updates, 1024)
    try:
        found = measure(threads=options.threads, turns=turns, per_turn=per_turn, tokens=tokens)
    except MissingExtra as error:
        sys.exit(str(error))
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """Print the rows and where the time goes."""
    lines = [
        [row["work"], f"{row['ours']:,.4g}", f"{row['theirs']:,.4g}", row["unit"], f"{row['ratio']:.2f}", row["peer"]]
        for row in found["rows"]
    ]
    print(table(["work", "ours", "theirs", "unit", "ratio", "peer"], lines))
    mine, theirs = found["details"]["ours"], found["details"]["theirs"]
    parts = ", ".join(f"{part} {seconds:.3f}" for part, seconds in mine["seconds_per_step"].items())
    print(f"Our seconds per step: {parts}. Mean completion: ours {mine['mean_length']:.1f}, theirs {theirs['mean_length']:.1f} tokens.")
    print(f"Machine: {found['machine']}; versions: {found['versions']}")


if __name__ == "__main__":
    main()
