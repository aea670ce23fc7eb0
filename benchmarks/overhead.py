"""What methods of language models cost beside GRPO, in turn on one machine: ``python -m benchmarks.overhead``.

Every method trains the same tiny base on the same prompts with the same batch (16 prompts x 16 completions), two passes of two gradient
steps over it, and a learning rate so small that the lengths stay those of the base throughout. Each is a process of its own, so that its
peak memory is its own; all are started and warmed up, then take turns, so that a busy machine slows all of them. Seconds are of the
processor (of all threads together), which other jobs disturb less than they disturb the clock. ReMix's KL-Convex is compared with GRPO with
a KL, the others with GRPO without one.

A method may process more data than GRPO: an expert's rows, old rollouts, groups sampled again with a hint. To tell extra data from extra
work, generating counts as what it takes (the engine is the same for all), and the same turn of GRPO says what a trained token costs: its
seconds outside the engine over the tokens, prompts included, that its gradient steps passed through the model.

    raw overhead    seconds per update / GRPO's - 1
    net overhead    seconds per update / (own seconds in the engine + own trained tokens x GRPO's seconds per trained token) - 1
    FLOP overhead   booked FLOPs per update / (2 x generated + 6 x trained tokens, per weight) / GRPO's own quotient - 1

The net overhead is what the method's own work costs; the FLOPs say how much of it is arithmetic (a second anchor, a search of its own).
Numbers are medians over the turns (of the turn's ratio).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.language import peak_mb
from benchmarks.rows import machine, median, table

PROMPTS = GROUP = 16
BASE = "chain-sum-short"
TASK_OPTIONS = {"min_terms": 3, "max_terms": 8}
SHARED: dict[str, Any] = {
    "learning_rate": 1e-7,
    "weight_decay": 0.0,
    "entropy_coefficient": 0.0,
    "kl_coefficient": 0.0,
    "epochs": 2,
    "minibatches": 2,
    "evaluate_every": 0,
}
PLAIN, WITH_KL = "GRPO", "GRPO with a KL"
GROUPS = Path(__file__).parents[1] / "tests" / "groups.jsonl"
"""Of equivalent and inequivalent answers, in the vocabulary of the base."""
LIMIT = 0.15
"""Net overhead that is worth a remark."""


@dataclass(frozen=True)
class Side:
    """One method, and what it is compared with."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    beside: str = PLAIN


SIDES = {
    PLAIN: Side("grpo"),
    WITH_KL: Side("grpo", {"kl_coefficient": 0.001}),
    "CHORD-phi": Side("chord"),
    "RL-PLUS": Side("rl-plus"),
    "ReMix": Side("remix", {"kl_coefficient": 0.001, "switch_after": 0, "convex_start": 0, "convex_interval": 1}, WITH_KL),
    "BAPO": Side("bapo"),
    "GHPO": Side("ghpo", {"hint_after": 0, "hint_place": "answer"}),
    "Cog-Rethinker": Side("cog-rethinker"),
    "CHORD-phi + window": Side("chord", {"clip": "searched", "clip_low": 0.4}),
    "Lp-Reg": Side("lp-reg", {"rare_share": 0.05}),
    "NFT": Side("nft", {"dynamic": "none"}),
    "SELF": Side("self-curation"),
    "RISE": Side("rise"),
    "RLFR": Side("rlfr", {"offline_steps": 0}),
    "AceReason": Side("acereason"),
    "REINFORCE++": Side("reinforce-pp"),
    "OORL": Side("oorl", {"representations": str(GROUPS), "groups_per_batch": 4}, "REINFORCE++"),
    "OPRL": Side("oprl"),
    "DialTree-RPO": Side("dialtree-rpo", {"branches": 8}),
    "PRIME": Side("prime"),
    "RWR": Side("rwr", {"compare_with_start": False}),
    "Best-of-N": Side("best-of-n", {"compare_with_start": False}),
    "Online DPO": Side("online-dpo"),
    "OSP": Side("osp", {}, "Online DPO"),
    "Light-R1": Side("light-r1", {"length_margin": 1}, WITH_KL),
    "GRPO, score centring": Side("grpo", {"score_centring": 128}),
    "GRPO, Clip-Cov": Side("grpo", {"clip": "clip-cov"}),
    "GRPO, KL-Cov": Side("grpo", {"clip": "kl-cov"}),
}


def side(pipe: Connection, name: str, sizes: dict[str, Any]) -> None:
    """A process: answers each number of updates with seconds, tokens and FLOPs."""
    import torch

    from rheostat import api
    from rheostat.methods.table import entry
    from rheostat.options import having
    from rheostat.policies.flops import TRAIN, tokens_seen
    from rheostat.training.run import build_method

    torch.set_num_threads(sizes["threads"])
    mine = SIDES[name]
    size = {"prompts_per_batch": sizes["prompts"], "group_size": sizes["group"]}
    options = {"preset": "tiny", "model": sizes["model"], "steps": sizes["updates"], "environment_options": TASK_OPTIONS}
    shared = having(entry(mine.method).load()(), SHARED, mine.method)
    settings = api.settings_for(mine.method, "chain-sum", **(options | shared | size | mine.options))
    method: Any = build_method(settings, settings.task)
    clock = {"generating": 0.0}
    generate = method.context.setup.engine.generate

    def timed(*arguments: Any, **rest: Any) -> Any:
        began = time.process_time()
        found = generate(*arguments, **rest)
        clock["generating"] += time.process_time() - began
        return found

    method.context.setup.engine.generate = timed
    clock["trained"] = 0.0
    count_flops = method.context.count_flops

    def counted(operations: int, rows: Any, model: str = "policy") -> None:
        clock["trained"] += tokens_seen(rows) if operations == TRAIN else 0
        count_flops(operations, rows, model)

    method.context.count_flops = counted
    pipe.send(0)
    while count := pipe.recv():
        before, began = counts(method, clock), time.process_time()
        for _ in range(count):
            method.turn()
        found = {"seconds": time.process_time() - began}
        found |= {what: value - before[what] for what, value in counts(method, clock).items()}
        pipe.send({what: value / count for what, value in found.items()} | {"peak": peak_mb()})


def counts(method: Any, clock: dict[str, float]) -> dict[str, float]:
    """What a method has used so far."""
    return {
        "generated": method.context.collector.generated_tokens,
        "learned": method.context.learner_tokens,
        "flops": method.context.flops / method.context.weights,
    } | clock


def race(sizes: dict[str, Any], turns: int, per_turn: int, names: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """These sides in turn, after three updates each to warm up (ReMix has filled its window by then)."""
    context = multiprocessing.get_context("spawn")
    running: dict[str, tuple[Any, Connection]] = {}
    for name in names:
        here, there = context.Pipe()
        process = context.Process(target=side, args=(there, name, sizes), daemon=True)
        process.start()
        there.close()
        running[name] = process, here
    for _, pipe in running.values():
        pipe.recv()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(turns + 1):
        for name, (_, pipe) in running.items():
            pipe.send(3 if not turn else per_turn)
            row = pipe.recv()
            if turn:
                found[name].append(row)
    for process, pipe in running.values():
        pipe.send(0)
        process.join(60)
    return found


def compared(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A row per side: medians, and overheads over the side it is compared with."""
    rows = []
    for name, mine in found.items():
        theirs = found[SIDES[name].beside]
        raw = [a["seconds"] / b["seconds"] - 1 for a, b in zip(mine, theirs, strict=True)]
        net = [a["seconds"] / expected(a, b) - 1 for a, b in zip(mine, theirs, strict=True)]
        work = [needed_flops(a) / needed_flops(b) - 1 for a, b in zip(mine, theirs, strict=True)]
        rows.append(
            {
                "side": name,
                "beside": SIDES[name].beside,
                "processor_seconds_per_update": median(row["seconds"] for row in mine),
                "generated_tokens": median(row["generated"] for row in mine),
                "learner_tokens": median(row["learned"] for row in mine),
                "trained_tokens": median(row["trained"] for row in mine),
                "raw_overhead": median(raw),
                "net_overhead": median(net),
                "flop_overhead": median(work),
                "peak_memory_mb": max(row["peak"] for row in mine),
                "memory_ratio": max(row["peak"] for row in mine) / max(row["peak"] for row in theirs),
            }
        )
    return rows


def expected(mine: dict[str, float], theirs: dict[str, float]) -> float:
    """Seconds that the other side would have needed to train on as many tokens, after the same generating."""
    return mine["generating"] + mine["trained"] * (theirs["seconds"] - theirs["generating"]) / theirs["trained"]


def needed_flops(row: dict[str, float]) -> float:
    """Booked FLOPs over those that its tokens need: a forward pass to generate one, a forward and a backward pass to learn from one."""
    return row["flops"] / (2 * row["generated"] + 6 * row["trained"])


def measure(
    *, threads: int, turns: int, per_turn: int, prompts: int = PROMPTS, group: int = GROUP, model: str = BASE, sides: Sequence[str] = ()
) -> dict[str, Any]:
    """Some sides (all, where none is named) and what they are compared with, as plain JSON."""
    names = [name for name in SIDES if not sides or name in {*sides, *(SIDES[each].beside for each in sides)}]
    from rheostat.tasks.language.base_models import build_base_model

    if model in (BASE, "untrained"):
        build_base_model(model, progress=False)
    sizes = {"threads": threads, "prompts": prompts, "group": group, "model": model, "updates": 3 + turns * per_turn}
    load = [os.getloadavg()[0]]
    found = race(sizes, turns, per_turn, names)
    load.append(os.getloadavg()[0])
    return {
        "rows": compared(found),
        "batch": {"prompts": prompts, "completions": group, "passes": SHARED["epochs"], "steps_per_pass": SHARED["minibatches"]},
        "turns": turns,
        "updates_per_turn": per_turn,
        "machine": {"name": machine(), "threads": threads, "load_before_and_after": [round(x, 1) for x in load]},
        "versions": {name: version(name) for name in ("rheostat", "torch", "transformers")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--quick", action="store_true", help="an untrained model, two short turns, small batches")
    parser.add_argument("--turns", type=int, default=8, help="turns of each side")
    parser.add_argument("--updates", type=int, default=3, help="updates per turn")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of each side")
    parser.add_argument("--sides", nargs="+", default=[], choices=list(SIDES), metavar="SIDE", help=f"some of: {', '.join(SIDES)}")
    options = parser.parse_args()
    if options.quick:
        found = measure(threads=options.threads, turns=2, per_turn=1, prompts=4, group=4, model="untrained", sides=options.sides)
    else:
        found = measure(threads=options.threads, turns=options.turns, per_turn=options.updates, sides=options.sides)
    print(json.dumps(found, indent=1) if options.json else shown(found))


def shown(found: dict[str, Any]) -> str:
    """The rows as text."""
    header = ["method", "beside", "s/update", "generated", "learned", "trained", "raw", "net", "FLOPs", "MB", "MB ratio", ""]
    lines = [
        [
            row["side"],
            row["beside"],
            f"{row['processor_seconds_per_update']:.3f}",
            f"{row['generated_tokens']:,.0f}",
            f"{row['learner_tokens']:,.0f}",
            f"{row['trained_tokens']:,.0f}",
            f"{row['raw_overhead']:+.1%}",
            f"{row['net_overhead']:+.1%}",
            f"{row['flop_overhead']:+.1%}",
            f"{row['peak_memory_mb']:.0f}",
            f"{row['memory_ratio']:.2f}",
            f"above {LIMIT:.0%}" if row["net_overhead"] > LIMIT else "",
        ]
        for row in found["rows"]
    ]
    where = f"Machine: {found['machine']['name']}, load {found['machine']['load_before_and_after']}."
    return f"{table(header, lines)}\nTokens are per update, trained ones with their prompts. {where}"


if __name__ == "__main__":
    main()
