"""TreePO against loops: trees grown one token at a time by the raw model, advantages from dictionaries of prefixes, a loss row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.collect.language.generation.sampling import row_streams, uniforms
from rheostat.streams import derive_seed
from tests.learners import step_plainly, weights
from tests.methods.test_language_methods import built, save

WIDTH, SEGMENT, BRANCHES, LONGEST, BUFFER = 6, 3, 2, 12, 4
OPTIONS: dict[str, Any] = {
    "group_size": WIDTH, "segment": SEGMENT, "branches": BRANCHES, "max_new_tokens": LONGEST, "overlong_buffer": BUFFER, "dynamic": "none",
    "prompts_per_batch": 3, "max_grad_norm": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


@dataclass
class Path:
    """A completion so far."""

    ids: list[int]
    nodes: tuple[int, ...]
    sample: int
    stopped: bool = False


def grow(one: Any, prompt: list[int], number: int) -> tuple[list[Path], int]:
    """The leaves of a prompt's tree and how many tokens were sampled: one path and one token at a time."""
    causal, end = one.policy.causal, one.policy.stop_ids
    chance = torch.Generator().manual_seed(derive_seed(one.context.streams.seed, "trees", one.updates, number))
    noise = uniforms(row_streams(derive_seed(one.context.streams.seed, "train"), one.updates, [number], 64), 0, LONGEST)
    samples, nodes, tokens = BRANCHES, 0, 0
    leaves: list[Path] = []
    active = [Path([], (), sample) for sample in range(BRANCHES)]
    while active:
        alive, ended = [], 0
        for path in active:
            grown = Path(list(path.ids), (*path.nodes, nodes), path.sample)
            nodes += 1
            for _ in range(min(SEGMENT, LONGEST - len(path.ids))):
                with torch.no_grad():
                    logits = causal(input_ids=torch.tensor([prompt + grown.ids])).logits[0, -1]
                reach = torch.softmax(logits.double(), -1).cumsum(-1)
                grown.ids.append(int((reach <= noise[grown.sample, len(grown.ids)]).sum()))
                tokens += 1
                if grown.ids[-1] in end:
                    grown.stopped = True
                    break
            if grown.stopped or len(grown.ids) == LONGEST:
                leaves.append(grown)
                ended += 1
            else:
                alive.append(grown)
        active = []
        if alive:
            total = max(min(max(WIDTH - len(leaves), 0), BRANCHES * (ended + len(alive))), len(alive))
            for place, path in enumerate(alive):
                copies = total // len(alive) + (total % len(alive) if place == len(alive) - 1 else 0)
                for copy in range(copies):
                    active.append(Path(path.ids, path.nodes, path.sample if not copy else samples))
                    samples += copy > 0
        elif len(leaves) < WIDTH:
            stopped = [leaf for leaf in leaves if leaf.stopped]
            order = torch.randperm(len(stopped), generator=chance).tolist()
            missing = WIDTH - len(leaves)
            for leaf in [stopped[index] for index in order] or [Path([], (), 0)]:
                keep = int(torch.randint(len(leaf.nodes), (), generator=chance)) if leaf.nodes else 0
                for _ in range(min(BRANCHES, missing)):
                    active.append(Path(leaf.ids[: keep * SEGMENT], leaf.nodes[:keep], samples))
                    samples, missing = samples + 1, missing - 1
                if not missing:
                    break
    return sorted(leaves, key=lambda leaf: leaf.sample), tokens


def rows_of(batch: Any) -> list[tuple[list[int], list[int], tuple[int, ...], int]]:
    """Prompt, completion, path and group of every row."""
    found = []
    for row in range(len(batch)):
        rows = batch.rows[row]
        prompt = rows.action[rows.attention & ~rows.mask].tolist()
        path = tuple(node for node in batch.columns["path"][row].tolist() if node >= 0)
        found.append((prompt, rows.action[rows.mask].tolist(), path, int(rows.group[0])))
    return found


def test_trees_are_those_that_loops_grow(model: str) -> None:
    """Tokens, paths, log-probabilities and books, for two batches; some tree dries up and is refilled."""
    one = built("treepo", model, **OPTIONS)
    one.policy.stop_ids = (*one.policy.stop_ids, *range(4, 9))  # a random model hardly ever ends
    refilled, before = 0.0, 0
    for _ in range(2):
        batch = one.collect()
        found = rows_of(batch)
        expected, sampled = [], 0
        for number in dict.fromkeys(group for *_, group in found):
            prompt = next(prompt for prompt, *_, group in found if group == number)
            leaves, tokens = grow(one, prompt, number)
            expected += [(prompt, leaf.ids, leaf.nodes, number) for leaf in leaves]
            sampled += tokens
        assert found == expected
        assert batch.metrics["tree/generated_tokens"] == sampled == one.context.collector.generated_tokens - before
        before, refilled = one.context.collector.generated_tokens, refilled + batch.metrics["tree/refilled_share"]
        for row, (prompt, ids, *_) in enumerate(found):
            with torch.no_grad():
                logp = torch.log_softmax(one.policy.causal(input_ids=torch.tensor([prompt + ids])).logits[0].float(), -1)
            plain = torch.stack([logp[len(prompt) + step - 1, token] for step, token in enumerate(ids)])
            torch.testing.assert_close(batch.rows.sampler_logp[row][batch.rows.mask[row]], plain, atol=1e-5, rtol=0)
            ended = ids[-1] in one.policy.stop_ids
            assert bool(batch.rows.terminated[row].any()) == ended != bool(batch.rows.truncated[row].any())
            assert set(batch.rows.version[row][batch.rows.mask[row]].tolist()) == {one.updates}
        one.improve(one.credit(one.retain(batch)))
    assert refilled > 0


def advantages(one: Any, batch: Any) -> list[float]:
    """Per row, from the texts of its tokens; whitened over tokens."""
    found = rows_of(batch)
    reward = []
    for _, ids, *_ in found:
        text = one.policy.tokenizer.decode(ids, skip_special_tokens=True)
        grade = float(sum(map(ord, text)) % 2)
        reward.append(grade + min(0.0, -(len(ids) - (LONGEST - BUFFER)) / BUFFER))
    groups: dict[tuple[Any, ...], list[float]] = {}
    for (_, _, path, tree), worth in zip(found, reward, strict=True):
        for level in range(len(path)):
            groups.setdefault((tree, *path[:level]), []).append(worth)
    raw = []
    for (_, _, path, tree), worth in zip(found, reward, strict=True):
        mine = [groups[tree, *path[:level]] for level in range(len(path))]
        parts = [worth - sum(group) / len(group) for level, group in enumerate(mine) if not level or len(group) > 1]
        raw.append(sum(parts) / len(parts))
    tokens = [value for value, (_, ids, *_) in zip(raw, found, strict=True) for _ in ids]
    mean = sum(tokens) / len(tokens)
    variance = sum((value - mean) ** 2 for value in tokens) / (len(tokens) - 1)
    return [(value - mean) / math.sqrt(variance + 1e-8) for value in raw]


def plain_loss(one: Any, batch: Any, worth: list[float], old: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
    """The clipped loss over tokens and the log-probabilities of every row, from the raw model."""
    found = rows_of(batch)
    total, count, seen = torch.zeros(()), 0, []
    for row, (prompt, ids, *_) in enumerate(found):
        logits = one.policy.causal(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float()
        logp = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        seen.append(logp.detach())
        for token in range(len(ids)):
            ratio = (logp[token] - (seen[row] if old is None else old[row])[token]).exp()
            cost = torch.maximum(-worth[row] * ratio, -worth[row] * ratio.clamp(0.8, 1.28))
            if worth[row] < 0:
                cost = torch.minimum(cost, torch.tensor(-10 * worth[row]))
            total, count = total + cost, count + 1
    return total / count, seen


def test_two_gradient_steps_are_the_plain_ones(model: str) -> None:
    """The gradient of the first to 1e-5; the weights after a second, whose ratios have left the clip."""
    one = built("treepo", model, **OPTIONS, epochs=2)
    other = built("treepo", model, **OPTIONS, epochs=2)
    rate = 0.5
    step_plainly(one, rate)
    batch = one.credit(one.retain(one.collect()))
    worth = advantages(other, batch)
    torch.testing.assert_close(
        batch.rows.advantage[batch.rows.mask],
        torch.tensor([value for value, (_, ids, *_) in zip(worth, rows_of(batch), strict=True) for _ in ids]),
        atol=1e-5,
        rtol=0,
    )
    loss, old = plain_loss(other, batch, worth, None)
    parameters = list(other.policy.parameters())
    for step in range(2):
        loss = plain_loss(other, batch, worth, old)[0]
        gradient = torch.autograd.grad(loss, parameters)
        if not step:
            one.composition.update_of().accumulate(one.context, batch)
            for mine, plain in zip(one.policy.parameters(), gradient, strict=True):
                torch.testing.assert_close(mine.grad, plain, atol=1e-5, rtol=0)
        norm = torch.sqrt(sum((each**2).sum() for each in gradient))  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter, each in zip(parameters, gradient, strict=True):
                parameter -= rate * each * min(1.0, OPTIONS["max_grad_norm"] / float(norm))
    metrics = one.improve(batch)
    assert metrics["meter/clip_fraction"] > 0
    torch.testing.assert_close(weights(one.policy), weights(other.policy), atol=1e-5, rtol=0)
