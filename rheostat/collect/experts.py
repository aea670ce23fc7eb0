"""Demonstrations as trajectories: what somebody else would have said."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rheostat.collect.prompts import Graded, PromptCollector, World, join
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.credit.verifiers.interface import Progress
from rheostat.errors import RheostatError
from rheostat.streams import derive_seed
from rheostat.tasks.language.interface import Prompt
from rheostat.trajectories import Source, Trajectories

COLUMNS = ("completion", "demonstration", "response")
"""Columns of a prompt's row that hold a demonstration, in order of preference."""


def demonstration(world: World, prompt: Prompt, seed: int, number: int) -> str:
    """The text a demonstrator answers: the row's own column where there is one, else the task's expert.

    Raises:
        RheostatError: there is neither.
    """
    for column in COLUMNS:
        if isinstance(prompt.columns.get(column), str):
            return prompt.columns[column]
    return world.task.expert(prompt, np.random.default_rng(derive_seed(seed, "expert", number)))


def with_experts(collector: PromptCollector, own: Graded, count: int, progress: Progress) -> Graded:
    """Groups that an expert has joined: ``count`` demonstrations below the policy's own completions of every prompt, graded like them.

    Args:
        collector: that made ``own``; its graded rows are counted.
        own: the policy's completions, in whole groups.
        count: demonstrations per prompt.
        progress: of the training, for rewards that depend on it.

    Returns:
        The policy's rows, then the expert's, which carry the numbers of their groups. ``expert_reward`` joins the metrics.

    Raises:
        RheostatError: a prompt without a demonstration, or one that is empty or too long.
    """
    world = collector.world
    numbers = own.trajectories.group[:, 0].tolist()
    first = {number: row for row, number in reversed(list(enumerate(numbers)))}
    order = sorted(first, key=first.__getitem__)
    wanted = [(number, own.prompts[first[number]], copy) for number in order for copy in range(count)]
    texts = [demonstration(world, prompt, collector.seed, number * count + copy) for number, prompt, copy in wanted]
    encoded = [(prompt, world.encoder.encode(prompt) or []) for _, prompt, _ in wanted]
    rows = expert_rows(world, encoded, texts, [number for number, _, _ in wanted])
    prompts = [prompt for _, prompt, _ in wanted]
    scores = world.verifier.score([prompt.rollout(text) for prompt, text in zip(prompts, texts, strict=True)], progress)
    rows.reward = reward_at_last_token(torch.where(scores.valid, scores.reward, torch.zeros(())), rows.mask)
    rows.valid = scores.valid[:, None].expand(rows.shape)
    joined = join([own, Graded(rows, prompts, texts, scores, {})], len(own.prompts) + len(prompts))
    assert joined is not None
    collector.graded_rows += len(prompts)
    known = scores.reward[scores.valid]
    joined.metrics = own.metrics | ({"expert_reward": known.mean().item()} if len(known) else {})
    return joined


def expert_rows(world: World, prompts: list[tuple[Prompt, list[int]]], texts: list[str], numbers: list[int]) -> Trajectories:
    """Demonstrations as trajectories ``[N, T]`` of source EXPERT: the sampler's log-probability is unknown (NaN), the reward 0 for now.

    The completion ends with the model's end token, as a policy's own would.

    Raises:
        RheostatError: an empty demonstration, or one longer than completions may be.
    """
    tokenizer = world.policy.tokenizer
    end = tokenizer.eos_token_id
    rows: list[tuple[list[int], list[int]]] = []
    for (prompt, ids), text in zip(prompts, texts, strict=True):
        completion = [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
        if len(completion) == 1:
            raise RheostatError(f"The demonstration for prompt {prompt.key} is empty: remove the row or give it a text.")
        if len(completion) > world.max_new_tokens:
            raise RheostatError(
                f"The demonstration for prompt {prompt.key} has {len(completion)} tokens, more than {world.max_new_tokens} that a "
                "completion may have: raise max_new_tokens or filter the file."
            )
        rows.append((ids, completion))
    left = max(len(ids) for ids, _ in rows)
    width = left + max(len(completion) for _, completion in rows)
    shape = (len(rows), width)
    action = torch.full(shape, world.policy.pad_id)
    attention, mask, terminated = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for row, (ids, completion) in enumerate(rows):
        action[row, left - len(ids) : left] = torch.tensor(ids)
        action[row, left : left + len(completion)] = torch.tensor(completion)
        attention[row, left - len(ids) : left + len(completion)] = True
        mask[row, left : left + len(completion)] = True
        terminated[row, left + len(completion) - 1] = True

    def per_row(values: Tensor) -> Tensor:
        return values[:, None].expand(shape)

    return Trajectories(
        action=action,
        attention=attention,
        mask=mask,
        reward=torch.zeros(shape),
        terminated=terminated,
        truncated=torch.zeros(shape, dtype=torch.bool),
        sampler_logp=torch.full(shape, float("nan")),
        group=per_row(torch.tensor(numbers)),
        version=per_row(torch.full((len(rows),), -1)),
        source=per_row(torch.full((len(rows),), int(Source.EXPERT))),
        valid=per_row(torch.ones(len(rows), dtype=torch.bool)),
        batch_size=list(shape),
    )
