"""What one GPU gives in a few minutes: ``python -m benchmarks.gpu --minutes 8``; without a GPU the same code runs on a toy shape.

One row per measurement, the most valuable first; a part that fails has a row that says why, and the rest goes on; no part begins after
the minutes are over. The model has the shape of Qwen3-0.6B and random weights, which are made here: nothing is downloaded.

==================  ======================================================================================================================
ceilings            TFLOP/s of a matrix product, GB/s of a copy: what the other rows are shares of
decode              tokens per second of 64, 256 and 1,024 rows, and the share of the floor that reading the weights sets
parity              log-probabilities of the sampler beside those of the learner
learn               tokens per second and memory of a gradient step: bfloat16, float32, and with recomputing
refit               milliseconds to copy a policy into a sampler of the same process
resume              six steps at once, and three, a saved state and three, bit for bit
control             updates of a small actor and critic per second, one operation after the other and as one CUDA graph
==================  ======================================================================================================================
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from benchmarks.rows import machine
from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.generation.parity import parity
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.objectives.policy_gradient import policy_gradient
from rheostat.policies.language.model import LanguagePolicy
from rheostat.policies.optimizers import language_optimizer

Found = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    model: dict[str, int]
    rows: tuple[int, ...]
    """Decoded at once."""
    prompt: int
    tokens: int
    """Longest completion."""
    batch: tuple[int, int]
    """Rows and tokens of a gradient step."""
    square: int
    """Side of the matrices of the ceiling."""


QWEN = {"vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16}
LITTLE = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
WHOLE = Sizes(QWEN | {"num_key_value_heads": 8, "head_dim": 128}, (64, 256, 1024), 128, 512, (64, 640), 8192)
TOY = Sizes(LITTLE | {"num_key_value_heads": 2, "head_dim": 16}, (8,), 2, 16, (4, 24), 128)
GROUP = 8


@dataclass
class Bench:
    """Where and how large."""

    device: str
    sizes: Sizes
    ceilings: dict[str, float] = field(default_factory=dict)

    def policy(self, dtype: str, *, recompute: bool = False) -> LanguagePolicy:
        """A fresh policy with random weights."""
        from transformers import Qwen3Config, Qwen3ForCausalLM

        config = Qwen3Config(**self.sizes.model, max_position_embeddings=4096, tie_word_embeddings=True, eos_token_id=2, pad_token_id=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return LanguagePolicy(Qwen3ForCausalLM(config), device=self.device, dtype=dtype, recompute=recompute)

    def seconds(self, work: Callable[[], Any], repeats: int = 1) -> float:
        """Of one call, after a first one that is not counted."""
        work()
        self.wait()
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - began) / repeats

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def peak_gib(self) -> float:
        """Largest memory of this part on the device; 0 without a GPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if self.device == "cuda" else 0.0


# --- parts --------------------------------------------------------------------------------------------------------------------------------


def ceilings(bench: Bench) -> Iterator[Found]:
    """Matrix product and memory."""
    side = bench.sizes.square
    x, y = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    bench.ceilings["TFLOP/s"] = 2 * side**3 / bench.seconds(lambda: x @ y, 20) / 1e12
    out = torch.empty_like(x)
    bench.ceilings["GB/s"] = 2 * x.nbytes / bench.seconds(lambda: out.copy_(x), 20) / 1e9
    yield {"bfloat16 product, TFLOP/s": bench.ceilings["TFLOP/s"], "copy, GB/s": bench.ceilings["GB/s"]}


def decode(bench: Bench) -> Iterator[Found]:
    """Sampling, and its parity with the learner."""
    sizes, policy = bench.sizes, bench.policy("bfloat16")
    engine, sampling = EmbeddedEngine(policy, max_rows=4096), Sampling(max_new_tokens=sizes.tokens, stop_ids=())
    weights = sum(each.nbytes for each in policy.parameters())
    for rows in sizes.rows:
        groups = rows // GROUP
        prompts = [list(range(5 + index, 5 + index + sizes.prompt)) for index in range(groups)]
        streams = row_streams(0, 1, list(range(groups)), GROUP)
        made: list[Any] = []
        seconds = bench.seconds(lambda: made.append(engine.generate(prompts, streams=streams, group_size=GROUP, sampling=sampling)))  # noqa: B023
        first, second = made
        equal = torch.equal(first.tokens, second.tokens) and torch.equal(first.logp.nan_to_num(), second.logp.nan_to_num())
        found: Found = {"rows": rows, "tokens/s": int(second.lengths.sum()) / seconds, "ms per step": seconds / sizes.tokens * 1e3}
        if "GB/s" in bench.ceilings:
            found["share of the floor of reading weights"] = weights / bench.ceilings["GB/s"] / 1e9 / (seconds / sizes.tokens)
        yield found | {"repeats bit for bit": bool(equal), "peak, GiB": bench.peak_gib()}
    compared = parity(policy, second.trajectories()[: sizes.rows[0]], sampling)
    yield {"parity, mean": compared.mean, "parity, worst": compared.worst}


def learn(bench: Bench) -> Iterator[Found]:
    """Gradient steps of the clipped surrogate in four micro-batches."""
    rows, length = bench.sizes.batch
    ids = torch.randint(5, 500, (rows, length), device=bench.device)
    attention = torch.ones_like(ids, dtype=torch.bool)
    mask = attention.clone()
    mask[:, : bench.sizes.prompt] = False
    advantage = torch.randn(rows, 1, device=bench.device).expand(rows, length).contiguous()
    for dtype, recompute in (("bfloat16", False), ("float32", False), ("float32", True)):
        policy = bench.policy(dtype, recompute=recompute)
        optimizer = language_optimizer(policy, 1e-6)

        def step(policy: LanguagePolicy = policy, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            for part in torch.arange(rows).tensor_split(4):
                logp = policy.score(ids[part], attention[part], mask[part]).logp
                loss = policy_gradient(
                    logp, advantage[part], denominator_logp=logp.detach(), mask=mask[part], denominator=mask.sum().float()
                ).loss
                loss.backward()
            optimizer.step()

        seconds = bench.seconds(step, 3)
        count = sum(each.numel() for each in policy.parameters())
        found: Found = {"dtype": dtype, "recompute": recompute, "tokens/s": rows * length / seconds, "seconds per step": seconds}
        if "TFLOP/s" in bench.ceilings:
            found["share of the ceiling of products"] = 6 * count * rows * length / seconds / 1e12 / bench.ceilings["TFLOP/s"]
        yield found | {"peak, GiB": bench.peak_gib()}


def refit(bench: Bench) -> Iterator[Found]:
    """A copy in place."""
    learner, sampler = bench.policy("bfloat16"), bench.policy("bfloat16")

    @torch.no_grad()
    def copied() -> None:
        for mine, theirs in zip(sampler.parameters(), learner.parameters(), strict=True):
            mine.copy_(theirs)

    yield {"ms": bench.seconds(copied, 3) * 1e3}


def resume(bench: Bench) -> Iterator[Found]:
    """Six steps, and three and three."""
    dtype = "bfloat16" if bench.device == "cuda" else "float32"
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 500, (4, 64), generator=draw).to(bench.device)
    attention = torch.ones_like(ids, dtype=torch.bool)
    mask = attention.clone()
    mask[:, :8] = False
    ends = []
    for cut in (False, True):
        policy = bench.policy(dtype)
        optimizer = language_optimizer(policy, 1e-4)
        for step in range(6):
            if cut and step == 3:
                saved = {name: value.clone() for name, value in policy.state_dict().items()}, copy.deepcopy(optimizer.state_dict())
                policy = bench.policy(dtype)
                policy.load_state_dict(saved[0])
                optimizer = language_optimizer(policy, 1e-4)
                optimizer.load_state_dict(saved[1])
            optimizer.zero_grad()
            (-policy.score(ids, attention, mask).logp.sum() / mask.sum()).backward()
            optimizer.step()
        ends.append(torch.cat([each.detach().float().flatten() for each in policy.parameters()]))
    yield {"bit for bit": bool(torch.equal(*ends)), "worst": float((ends[0] - ends[1]).abs().max())}


def control(bench: Bench) -> Iterator[Found]:
    """Minibatch steps of 64-64 networks."""
    device = bench.device
    network = nn.Sequential(nn.Linear(17, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 7)).to(device)
    optimizer = torch.optim.Adam(network.parameters(), capturable=device == "cuda")
    x, y = torch.randn(256, 17, device=device), torch.randn(256, 7, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        (network(x) - y).square().mean().backward()
        optimizer.step()

    step()
    yield {"one operation after the other, steps/s": 1 / bench.seconds(step, 50)}
    if device != "cuda":
        return
    beside = torch.cuda.Stream()
    with torch.cuda.stream(beside):  # what a capture needs first
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    yield {"one CUDA graph, steps/s": 1 / bench.seconds(graph.replay, 50)}


PARTS: tuple[Callable[[Bench], Iterator[Found]], ...] = (ceilings, decode, learn, refit, resume, control)


def measure(bench: Bench, minutes: float, say: Callable[[str], None]) -> Iterator[Found]:
    """Rows, as they are found."""
    began = time.monotonic()
    for part in PARTS:
        if time.monotonic() - began > 60 * minutes:
            yield {"part": part.__name__, "left out": "the minutes are over"}
            continue
        gc.collect()
        if bench.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            for found in part(bench):
                say(f"{time.monotonic() - began:6.1f} s  {part.__name__}: {shown(found)}")
                yield {"part": part.__name__} | found
        except Exception as error:  # a part costs only itself: out of memory, a driver without an operation
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            say(f"{time.monotonic() - began:6.1f} s  {part.__name__} failed: {said}")
            yield {"part": part.__name__, "failed": said}


def shown(found: Found) -> str:
    """One row as text."""
    return ", ".join(f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items())


def report(minutes: float, *, toy: bool, say: Callable[[str], None]) -> Found:
    """Everything, as plain JSON; the card's name and the date belong to every number."""
    device = "cuda" if torch.cuda.is_available() and not toy else "cpu"
    card = torch.cuda.get_device_name() if device == "cuda" else f"none (toy shape on {machine()})"
    say(card)
    rows = list(measure(Bench(device, TOY if toy or device == "cpu" else WHOLE), minutes, say))
    versions = {name: version(name) for name in ("rheostat", "torch", "transformers")}
    return {"card": card, "date": datetime.now(UTC).date().isoformat(), "versions": versions, "rows": rows}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=8, help="no part begins after so many")
    parser.add_argument("--toy", action="store_true", help="the toy shape on the CPU, even with a GPU")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    options = parser.parse_args()
    found = report(options.minutes, toy=options.toy, say=lambda line: None if options.json else print(line, flush=True))
    if options.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
