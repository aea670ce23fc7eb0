"""ReMix in the real training path: what a batch is made of, its two anchors, the switch, and exact resume across it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.buffers.retainers import StaleGroups
from rheostat.errors import RheostatError
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure
from rheostat.trajectories import Source
from tests.crash import differences
from tests.learners import credited, losses, policy_losses, step_plainly
from tests.methods.test_language_methods import Lenient, built, save, small
from tests.training.test_run import StopAfter

OPTIONS: dict[str, Any] = {"prompts_per_batch": 5, "steps": 6, "switch_after": 3, "convex_start": 1, "convex_interval": 1}
"""Three of five groups are fresh up to update 3; lambda is 1, 0.9, 0.8, 0.7, 0.6, 0.5."""
NO_ANCHOR: dict[str, Any] = {"kl_coefficient": 0.0, "convex_start": 50, "convex_interval": 10}
"""The schedule is as it begins: without a KL it is no option."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def remix(model: str, **options: Any) -> Any:
    return built("remix", model, **(OPTIONS | options))


def weights(policy: Any) -> torch.Tensor:
    return torch.cat([value.detach().flatten().clone() for value in policy.state_dict().values()])


def test_what_a_batch_is_made_of(model: str) -> None:
    one = remix(model, window=2)
    sampled: dict[int, int] = {}
    for update in range(5):
        collected = one.collect()
        fresh = collected.rows
        mixing = update < 3
        assert len(fresh.group[:, 0].unique()) == (3 if mixing else 5)
        sampled |= dict.fromkeys(fresh.group[:, 0].tolist(), update)
        retained = one.retain(collected)
        batch = retained.rows
        groups, sizes = batch.group[:, 0].unique(return_counts=True)
        assert sizes.tolist() == [4] * len(groups) and len(groups) == (3 if update == 0 else 5)
        stale = batch[len(fresh) :]
        if mixing and update:
            assert set(stale.source.flatten().tolist()) == {int(Source.REPLAY)}
            assert all(1 <= update - sampled[group] <= 2 for group in stale.group[:, 0].tolist())
            assert torch.equal(stale.version[stale.mask], torch.tensor([sampled[g] for g in stale.group[stale.mask].tolist()]))
        else:
            assert not len(stale)
        one.improve(one.credit(retained))
        (window,) = [part for part in one.composition.retain if isinstance(part, StaleGroups)]
        assert len(window.recent.batches) == (update + 1 if mixing else 0)
    assert one.context.collector.graded_rows == 4 * (3 * 3 + 2 * 5)  # only what is fresh is sampled


def test_stale_groups_keep_their_own_statistics(model: str) -> None:
    one = remix(model)
    found = credited(one)
    first = found.rows
    worth = {int(row.group[0]): row for row in first}
    assert len(worth) == 3
    one.improve(found)
    second = credited(one).rows
    for number in worth:
        then, now = (batch.advantage[batch.group[:, 0] == number].flatten() for batch in (first, second))
        if len(now):
            assert torch.equal(then[then != 0], now[now != 0])


def test_nothing_is_limited_when_a_step_begins(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stale rows have ratios far from 1; around 1 the window clips them at once, around the current policy none."""
    found = {}
    for correction in ("mix", "behaviour", "none"):
        one = remix(model, correction=correction, learning_rate=3e-2, window=1, stale_share=0.5, **NO_ANCHOR)
        for _ in range(2):
            one.turn()
        credit = credited(one)
        batch = credit.rows
        with monkeypatch.context() as patch, torch.no_grad():
            seen = policy_losses(patch)
            losses(one, credit)
        found[correction] = seen[0]
        stale = batch.mask & (batch.source == int(Source.REPLAY))
        moved = (found[correction].ratio[stale] - 1).abs()
        assert bool((moved > 0.2).any()) == (correction != "none")
        assert bool(found[correction].clipped[stale].any()) == (correction == "behaviour")
        assert not bool(found[correction].clipped[batch.mask & ~stale].any())


def test_without_stale_data_it_is_grpo(model: str) -> None:
    ours = remix(model, stale_share=0.0, window=2, switch_after=0, convex_floor=1.0, convex_start=50, convex_interval=10)
    same = {"prompts_per_batch": 5, "epochs": 2, "aggregation": "token-mean", "kl_coefficient": 0.001, "steps": 6}
    theirs = built("grpo", model, **same)
    for _ in range(3):
        a, b = ours.turn(), theirs.turn()
        assert a.pop("base_share") == 1 and a == b
    assert torch.equal(weights(ours.policy), weights(theirs.policy))


def test_anchors(model: str) -> None:
    one = remix(model)
    past = [weights(one.policy)]
    for update in range(5):
        found = credited(one)
        batch, models = found.rows, one.context.models
        base = past[3] if update >= 3 else past[0]
        assert torch.equal(weights(models["reference"].network), base)
        if update:
            assert torch.equal(weights(models["previous"].network), past[update - 1])
            with torch.no_grad():
                expected = models["previous"].network.score(batch.action, batch.attention, batch.mask, temperature=1.0).logp
            assert torch.equal(batch.previous_logp, expected) and not torch.equal(expected, batch.learner_logp)
        else:
            assert batch.previous_logp is None
        metrics = one.improve(found)
        assert metrics["base_share"] == pytest.approx(1 - 0.1 * update)
        past.append(weights(one.policy))
    kept = remix(model, reset_base=False)
    for _ in range(4):
        kept.turn()
    assert torch.equal(weights(kept.context.models["reference"].network), past[0])


def test_micro_batches_change_nothing_with_stale_rows(model: str) -> None:
    ends = []
    for rows in (0, 1, 3):
        one = remix(model, micro_batch_rows=rows, kl_coefficient=0.5, convex_start=0)
        step_plainly(one, 1e-3)
        for _ in range(2):
            metrics = one.turn()
        assert metrics["meter/share_replay"] > 0 and metrics["kl_reference"] > 0 and metrics["base_share"] == pytest.approx(0.8)
        ends.append(weights(one.policy))
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], atol=2e-5, rtol=0)


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_resume_before_at_and_after_the_switch(stop: int, model: str, tmp_path: Path) -> None:
    options = OPTIONS | {"checkpoint_every": 10, "dial.lag": 1}
    whole = Run.create(tmp_path / "whole", small("remix", model, **options), task=Lenient()).train()
    assert [row.get("meter/share_replay", 0) > 0 for row in whole.metrics] == [False, True, True, False, False, False]
    halted = Run.create(tmp_path / "halted", small("remix", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(stop))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_adapters_are_part_of_a_new_base(model: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    options = OPTIONS | {"adapter_rank": 2, "learning_rate": 1e-2}
    runs = []
    for name in ("whole", "halted"):
        with torch.random.fork_rng():  # peft draws the adapters' first weights from the global generator
            torch.manual_seed(0)
            runs.append(Run.create(tmp_path / name, small("remix", model, **options), task=Lenient()))
    whole, halted = runs
    whole.train()
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(4))
    again = Run.load(tmp_path / "halted", task=Lenient())
    assert any(
        "lora" in name and bool(value.any())
        for name, value in again.method.context.models["reference"].network.state_dict().items()
        if "lora_B" in name
    )
    again.train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clip": "detached"}, "remix: clip is a part with options"),
        ({"ratio": "sequence"}, "remix has no option ratio"),
        ({"sampler_correction": "token"}, "remix has no option sampler_correction"),
        ({"dynamic_sampling": True}, "remix has no option dynamic_sampling"),
        ({"kl_in_reward": True, "advantage": "rloo"}, "remix has no option kl_in_reward"),
        ({"switch_after": -1}, r"mixture\.until is -1; it must be at least 0"),
        ({"window": 60}, "window is 60, but the run mixes for switch_after 50 steps, so it never keeps that many: lower window"),
        ({"stale_share": 1.0}, r"mixture\.share is 1.0; it must be at least 0 and below 1"),
        ({"stale_share": 0.8}, "a window of 2 batches with 3 fresh ones each holds only 6"),
        ({"convex_interval": 0}, r"convex\.interval is 0; it must be at least 1"),
        ({"dial.replay_share": 0.5}, "remix cannot honour dial.replay_share: it keeps earlier batches by options of its own"),
        ({"dial.replay_age": 3}, r"dial\.replay_age is the age of replayed data"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        configure("remix", options)
    assert "\n" not in str(error.value)


def test_a_switch_past_the_end_is_refused(model: str) -> None:
    with pytest.raises(RheostatError, match="switch_after is 50, but the run makes 20 updates"):
        remix(model, switch_after=50, steps=20)
    one = remix(model, switch_after=50, steps=20, budget="generated tokens")
    assert one.config.mixture.mixing(one.context)
