"""Methods of groups on a game of several turns: they train, resume exactly, and micro-batches change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.api import settings_for
from rheostat.errors import RheostatError
from rheostat.parts import Batch
from rheostat.tasks.language import GuessNumber
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from tests.crash import differences
from tests.learners import credited, step_plainly, weights
from tests.methods.test_language_methods import save
from tests.training.test_run import StopAfter

SMALL: dict[str, Any] = {
    "prompts_per_batch": 4, "group_size": 4, "learning_rate": 1e-3, "evaluate_every": 0, "evaluation_episodes": 0, "steps": 3,
    "checkpoint_every": 2, "threads": 1,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {"dapo": {"max_sampling_rounds": 2}, "ppo-lm": {"minibatches": 2}}
METHODS = ["grpo", "dapo", "rloo", "gspo", "nft", "reinforce-pp", "ppo-lm", "best-of-n"]


class Easy(GuessNumber):
    """Two numbers, six turns: a random model finds some of them."""

    def __init__(self) -> None:
        super().__init__(largest=1, smallest_range=2, turns=6, validation_share=0.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def small(method: str, model: str, **options: Any) -> Any:
    return settings_for(method, Easy(), **(SMALL | OWN.get(method, {}) | {"model": model} | options))


def built(method: str, model: str, **options: Any) -> Any:
    return build_method(small(method, model, **options), Easy())


@pytest.mark.parametrize("method", METHODS)
def test_stopping_anywhere_changes_nothing(method: str, model: str, tmp_path: Path) -> None:
    options = {"evaluate_every": 2, "evaluation_prompts": 2}
    whole = Run.create(tmp_path / "whole", small(method, model, **options), task=Easy())
    start = weights(whole.method.policy)
    whole.train()
    assert not torch.equal(start, weights(whole.method.policy))
    first, _, second, _ = whole.metrics
    assert second["turns"] > 1 and "validation_turns" in second and "reward/found" in second and first["validation_turns"] > 1
    halted = Run.create(tmp_path / "halted", small(method, model, **options), task=Easy())
    with pytest.raises(Interrupted, match="rheostat resume"):
        halted.train(progress=StopAfter(1))
    Run.load(tmp_path / "halted", task=Easy()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.parametrize("method", ["grpo", "ppo-lm"])
def test_micro_batches_change_nothing(method: str, model: str) -> None:
    ends = []
    for rows in (0, 1, 3):
        one = built(method, model, micro_batch_rows=rows)
        step_plainly(one, 1.0)
        start = weights(one.policy)
        one.turn()
        ends.append(weights(one.policy))
        assert (ends[-1] - start).abs().max() > 1e-4
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], atol=1e-6, rtol=1e-4)


def test_turn_level_ppo_is_that_of_the_loops(model: str) -> None:
    """A turn is an action: its reward is its own, its value that of its first token, and its tokens share one advantage."""
    gamma, lam = 0.9, 0.8
    one = built("ppo-lm", model, gae_over="turns", gamma=gamma, lam=lam, kl_coefficient=0.0)
    batch = credited(one)
    rows, turn = batch.rows, batch.columns["turn"]
    tokens: list[float] = []
    for row in range(len(rows)):
        places = [(turn[row] == number).nonzero().flatten() for number in range(1, int(turn[row].max()) + 1)]
        rewards = [float(rows.reward[row][place].sum()) for place in places]
        if bool(rows.truncated[row].any()):
            rewards[-1] += gamma * float(rows.next_value[row][places[-1][-1]])
        values = [float(rows.value[row][place[0]]) for place in places]
        advantage = 0.0
        found = []
        for number in reversed(range(len(places))):
            after = values[number + 1] if number + 1 < len(places) else 0.0
            advantage = rewards[number] + gamma * after - values[number] + gamma * lam * advantage
            found.append((places[number], advantage))
            target = rows.value_target[row][places[number]]
            torch.testing.assert_close(target, torch.full_like(target, advantage + values[number]), atol=1e-5, rtol=1e-5)
        tokens += [worth for place, worth in reversed(found) for _ in place]
    plain = torch.tensor(tokens)
    plain = (plain - plain.mean()) / (plain.var() + 1e-8).sqrt()
    torch.testing.assert_close(rows.advantage[rows.mask], plain, atol=1e-4, rtol=1e-4)
    assert int(turn.max()) > 1
    start = weights(one.policy)
    one.improve(batch)
    assert not torch.equal(start, weights(one.policy))


def test_the_batch_of_an_update(model: str) -> None:
    one = built("grpo", model)
    batch = credited(one)
    rows, turn = batch.rows, batch.columns["turn"]
    assert turn.shape == rows.shape and torch.equal(turn > 0, rows.mask) and int(turn.max()) > 1
    assert one.context.longest == 6 * one.context.sampling.max_new_tokens == 18
    with torch.no_grad():
        logp = one.context.score(rows).logp
    torch.testing.assert_close(logp[rows.mask], rows.sampler_logp[rows.mask], atol=1e-4, rtol=1e-4)
    said = rows.attention & ~rows.mask & (rows.mask.cumsum(1) > 0)
    assert bool(said.any()) and not bool(rows.advantage[said].any()) and bool(rows.advantage[rows.mask].any())


@pytest.mark.parametrize("method", ["dapo", "nft"])
def test_dynamic_sampling_joins_rounds_of_different_widths(method: str, model: str) -> None:
    """The rows of a round are as wide as its longest conversation; the joined ones keep their rewards, turns and masks."""
    one = built(method, model, max_sampling_rounds=8, minibatches=1, prompts_per_batch=2, group_size=2)
    inner = one.composition.innermost
    parts: list[Batch] = []
    collect = type(inner).collect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(inner), "collect", lambda self, context: parts.append(collect(self, context)) or parts[-1])
        found = [one.collect() for _ in range(4)]
    assert len({part.rows.shape[1] for part in parts}) > 1 and max(batch.metrics["sampling_rounds"] for batch in found) > 1
    sampled = {told for part in parts for told in _told(part)}
    for batch in found:
        assert batch.columns["turn"].shape == batch.rows.shape and torch.equal(batch.columns["turn"] > 0, batch.rows.mask)
        assert set(_told(batch)) <= sampled
        one.improve(one.credit(one.retain(batch)))


def _told(batch: Batch) -> list[tuple[Any, ...]]:
    """Of every row its group, the policy's tokens, their turns and rewards."""
    rows, turn = batch.rows, batch.columns["turn"]
    return [
        (int(rows.group[i, 0]), *(tuple(values[i][rows.mask[i]].tolist()) for values in (rows.action, turn, rows.reward)))
        for i in range(len(rows))
    ]


def test_the_dial_knows_conversations(model: str) -> None:
    one = built("grpo", model, **{"dial.replay_share": 0.5, "dial.lag": 1, "steps": 5})
    for _ in range(3):
        batch = credited(one)
        one.improve(batch)
    assert len(batch.rows) > 16 and batch.columns["turn"].shape == batch.rows.shape
    assert not bool(batch.columns["turn"][16:].any()), "nobody has kept the turns of what is replayed"


def test_what_belongs_to_single_completions_is_refused(model: str, tmp_path: Path) -> None:
    for method, options, sentence in (
        ("luffy", {}, "choose a method without experts"),
        ("sft", {"group_size": None}, "choose a method without experts"),
        ("grpo", {"rewards": ("length",)}, "which its environment grades: leave out --reward"),
        ("grpo", {"dial.expert_share": 0.25}, "choose a method without experts"),
        ("treepo", {"segment": 1}, "guess-number has several turns, but a path through a tree is one completion: choose a method that"),
        ("dpo", {"prompts_per_batch": None, "group_size": None}, "several turns, but both answers of a preference pair are one completion"),
    ):
        chosen = {name: value for name, value in (SMALL | options).items() if value is not None}
        with pytest.raises(RheostatError, match=sentence) as error:
            rheostat.train(method, "guess-number", model=model, directory=tmp_path / method, progress=False, **chosen)
        assert "\n" not in str(error.value)


def test_by_name(model: str, tmp_path: Path) -> None:
    options = SMALL | {"steps": 1, "environment_options": {"turns": 2}}
    run = rheostat.train("grpo", "guess-number", model=model, directory=tmp_path / "run", progress=False, **options)
    shown = run.method.rollouts(4)
    assert run.metrics[-1]["turns"] <= 2 and any(mark in shown[0]["completion"] for mark in "\n")
