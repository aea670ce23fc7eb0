"""BAPO in the real training path: what its ratio is to, when the window moves, and that micro-batches see the same window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.objectives.searched_clip import SearchedClip, behaviour_logp
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure, derived
from rheostat.trajectories import Source
from tests.crash import differences
from tests.learners import credited, losses, policy_losses, step_plainly, weights
from tests.methods.test_language_methods import Lenient, built, save, small
from tests.training.test_run import StopAfter

SGD = {"learning_rate": 0.3, "weight_decay": 0.0, "max_grad_norm": 1.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def trained(method: str, model: str, updates: int = 3, **options: Any) -> tuple[torch.Tensor, list[dict[str, float]]]:
    """Weights and metrics after some updates of plain gradient descent."""
    one = built(method, model, steps=10, **(SGD | options))
    step_plainly(one, SGD["learning_rate"])
    metrics = [one.turn() for _ in range(updates)]
    return weights(one.policy), metrics


def test_a_met_target_is_grpo_with_that_window(model: str) -> None:
    ours, seen = trained("bapo", model, 1, target=0.0)
    same = {"clip_low": 0.4, "clip_high": 0.2, "aggregation": "token-mean", "kl_coefficient": 0.0, "epochs": 2, "minibatches": 4}
    theirs, _ = trained("grpo", model, 1, **same)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)  # equal but for the rounding between sampler and learner
    for row in seen:
        assert row["meter/clip_low"] == pytest.approx(0.6) and row["meter/clip_high"] == pytest.approx(1.2)
        assert row["meter/positive_share"] == row["meter/positive_share_at_start"]


def searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any, Any]]:
    """Every search from now on, as (bounds, rows, mask)."""
    found: list[tuple[Any, Any, Any]] = []
    find = SearchedClip.find

    def spied(self: SearchedClip, logp: Any, rows: Any, mask: Any) -> Any:
        found.append((find(self, logp, rows, mask), rows, mask))
        return found[-1][0]

    monkeypatch.setattr(SearchedClip, "find", spied)
    return found


def test_the_window_widens_until_the_target_is_met(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = built("bapo", model, steps=10, target=0.5, **SGD, **{"dial.lag": 2})
    found = searches(monkeypatch)
    for _ in range(3):
        one.turn()
    assert len(found) == 3 * 8 and {bounds.moves for bounds, *_ in found} > {0}
    for bounds, *_ in found:
        at_the_end = bounds.low == pytest.approx(0.9) and bounds.high == pytest.approx(3.0)
        assert bounds.share >= 0.5 or at_the_end
        assert bounds.share_at_start < 0.5 or bounds.moves == 0


@pytest.mark.parametrize("search", ["paper", "released"])
def test_micro_batches_share_one_window(search: str, model: str) -> None:
    """Targets that make the bounds move: the window of a step does not depend on how its rows are cut."""
    options = {"search": search, "target": 0.55 if search == "paper" else 1.2, "clip_low_step": 0.1, "updates": 1}
    weights, expected = trained("bapo", model, **options)
    assert any(row["meter/clip_high"] > 1.2001 for row in expected)
    for rows in (1, 3):
        other, seen = trained("bapo", model, micro_batch_rows=rows, **options)
        torch.testing.assert_close(other, weights, atol=1e-5, rtol=0)
        for a, b in zip(seen, expected, strict=True):
            names = [name for name in a if name.startswith(("meter/clip", "meter/positive", "meter/entropy_drift"))]
            assert len(names) == 7
            assert [a[name] for name in names] == pytest.approx([b[name] for name in names], abs=1e-4)
            assert a["flops"] > b["flops"]  # the window costs a pass of its own


def test_the_ratio_is_to_whoever_sampled(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = built("bapo", model, steps=10, **{"dial.lag": 2, "dial.updates_per_batch": 1}, learning_rate=1e-2)
    rows = [one.turn() for _ in range(4)]
    assert rows[0]["approx_kl"] < 1e-8 < 1e-4 < rows[3]["approx_kl"]
    batch = credited(one)
    seen = policy_losses(monkeypatch)
    with torch.no_grad():
        scores, *_ = losses(one, batch)
    expected = (scores.logp - batch.rows.sampler_logp).exp()
    torch.testing.assert_close(seen[-1].ratio[batch.rows.mask], expected[batch.rows.mask])


def test_first_step_on_fresh_data_is_reinforce(model: str) -> None:
    """At ratio 1 no window binds, whatever the search does."""
    options = {"epochs": 1, "minibatches": 1, "aggregation": "token-mean", "updates": 1}
    expected = trained("grpo", model, clip="none", kl_coefficient=0.0, **options)[0]
    for search, target in (("paper", 0.0), ("paper", 1.0), ("released", 100.0)):
        torch.testing.assert_close(trained("bapo", model, search=search, target=target, **options)[0], expected, atol=1e-5, rtol=0)


def test_experts_have_the_learner_for_a_denominator(model: str) -> None:
    one = built("bapo", model, max_new_tokens=48, **{"dial.expert_share": 0.5})
    metrics = one.turn()
    batch = one.context.graded.trajectories
    expert = batch.mask & (batch.source == int(Source.EXPERT))
    assert bool(expert.any()) and torch.equal(behaviour_logp(batch.learner_logp, batch)[expert], batch.learner_logp[expert])
    assert 0 < metrics["meter/share_expert"] < 1


def test_resume_with_stale_and_replayed_data(model: str, tmp_path: Path) -> None:
    options = {"steps": 4, "target": 0.6, "dial.lag": 1, "dial.replay_share": 0.5}
    Run.create(tmp_path / "whole", small("bapo", model, **options), task=Lenient()).train()
    halted = Run.create(tmp_path / "halted", small("bapo", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(3))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"limit": "detached"}, "bapo has no option limit"),
        ({"clip": "detached"}, "bapo: clip is a part with options"),
        ({"ratio": "sequence"}, "bapo has no option ratio"),
        ({"sampler_correction": "token"}, "bapo has no option sampler_correction"),
        ({"clip_low": None}, "clip.low is None; it must be of type float"),
        ({"clip_low": 0.1, "clip_low_end": 0.2}, "the lower bound rises towards 1, so clip_low_end is at most clip_low"),
        ({"clip_high": 2.5}, "the upper bound rises, so clip_high_end is at least clip_high"),
        ({"clip_high_step": -0.1}, "clip.high_step is -0.1; it must be at least 0"),
        ({"target": 1.5}, "with search 'paper' it is a share between 0 and 1"),
    ],
)
def test_refusals(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        configure("bapo", options)
    assert "\n" not in str(error.value)


def test_presets_are_the_published_windows() -> None:
    def window(preset: str | None) -> list[tuple[float, ...]]:
        config = configure("bapo", {}, preset=preset)
        return [tuple(round(x, 9) for x in (part.start, part.end, part.step)) for part in config.clip.ranges]

    assert window(None) == [(0.6, 0.9, 0.02), (1.2, 3.0, 0.05)]
    assert window("released") == [(0.6, 0.8, 0.05), (1.2, 2.0, 0.05)]
    assert window("released-script") == [(0.8, 0.95, 0.05), (1.2, 2.0, 0.1)]
    assert derived("bapo", configure("bapo", {}))["upper bound"] == "1.2 to 3 by 0.05"
