"""AceReason: one step per batch is REINFORCE, more steps are not; easy prompts go; the ablation's metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.tasks.language import FilePrompts
from rheostat.training.run import Interrupted, Run
from tests.crash import differences
from tests.learners import credited, losses
from tests.methods.test_language_methods import Odd, built, save, small
from tests.training.test_run import StopAfter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def test_the_gradient_of_the_only_step_is_reinforces(model: str) -> None:
    one = built("acereason", model)
    found = credited(one)
    batch = found.rows
    scores, loss, _, _ = losses(one, found)
    parameters = [each for each in one.policy.parameters() if each.requires_grad]
    mine = torch.autograd.grad(loss, parameters, retain_graph=True)
    plain = -(batch.advantage * scores.logp)[batch.mask].sum() / batch.mask.sum()
    theirs = torch.autograd.grad(plain, parameters)
    assert any(bool(each.abs().max() > 1e-4) for each in theirs)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_ratios_differ_from_one_after_the_first_step_only(model: str) -> None:
    row = built("acereason", model).turn()
    assert row["gradient_steps"] == 1 and row.get("meter/kl_behaviour_k3", 0.0) == pytest.approx(0, abs=1e-9)
    assert row.get("meter/clip_fraction", 0.0) == 0
    again = built("acereason", model, minibatches=4, learning_rate=0.05).turn()
    assert again["gradient_steps"] == 4 and again["meter/clip_fraction"] > 0


def test_groups_of_equal_rewards_stay_in_the_mean(model: str) -> None:
    """Half of the groups carry no signal: the gradient is that of the others, divided by the tokens of all."""
    one = built("acereason", model)
    found = credited(one)
    batch = found.rows
    flat = batch.group[:, 0] == batch.group[0, 0]
    batch.advantage[flat] = 0.0
    scores, loss, _, _ = losses(one, found)
    rest = ~flat[:, None] & batch.mask
    torch.testing.assert_close(loss, -batch.advantage[rest].sum() / batch.mask.sum())
    assert scores.logp.requires_grad


def task(folder: Path, count: int, *, easy: int) -> FilePrompts:
    """Prompts whose answers are all right (the first ``easy`` of them), or right when odd."""
    rows = [{"prompt": f"{number // 10}+{number % 10}=", "answer": "1", "always": number < easy} for number in range(count)]

    class Some(Odd):
        def score(self, rollouts: Any, progress: Any = None) -> Any:
            found = super().score(rollouts, progress)
            found.reward[torch.tensor([bool(each.columns["always"]) for each in rollouts])] = 1.0
            return found

    return FilePrompts(rows, Some(), validation_share=0.0)


def test_easy_prompts_are_not_asked_again(model: str, tmp_path: Path) -> None:
    prompts = task(tmp_path, 12, easy=8)
    one = built("acereason", model, prompts, easy="drop", prompts_per_batch=4, group_size=4)
    asked: list[set[str]] = []
    for _ in range(6):
        batch = one.collect()
        asked.append({prompt.content for prompt in batch.facts["graded"].prompts})
        assert len(batch.rows) == 16 and batch.metrics["easy_prompts"] == len(one.composition.collect.solved)
    easy = {f"0+{number}=" for number in range(8)}
    assert set.union(*asked[:3]) >= easy and not set.union(*asked[3:]) & easy, "gone from the second epoch on"
    kept = built("acereason", model, prompts, prompts_per_batch=4, group_size=4)
    later = [{prompt.content for prompt in kept.collect().facts["graded"].prompts} for _ in range(6)]
    assert set.union(*later[3:]) & easy


def test_nothing_left_is_one_sentence(model: str, tmp_path: Path) -> None:
    one = built("acereason", model, task(tmp_path, 8, easy=8), easy="drop", prompts_per_batch=4, group_size=2)
    one.collect()
    one.collect()
    with pytest.raises(RheostatError, match=r"Nothing is left to train on: .* to 8 prompts were right") as error:
        one.collect()
    assert "\n" not in str(error.value)


def test_what_was_dropped_stays_dropped_after_a_stop(model: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"easy": "drop", "prompts_per_batch": 2, "steps": 6, "checkpoint_every": 1}
    prompts = task(tmp_path, 8, easy=3)
    Run.create(tmp_path / "whole", small("acereason", model, prompts, **options), task=prompts).train()
    with pytest.raises(Interrupted):
        Run.create(tmp_path / "halted", small("acereason", model, prompts, **options), task=prompts).train(progress=StopAfter(4))
    Run.load(tmp_path / "halted", task=prompts).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["easy_prompts"] >= 3
