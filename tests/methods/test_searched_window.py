"""BAPO's searched window as a setting of its relatives, above all on CHORD's mixture, and where it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.learner.method import iterate
from rheostat.methods import table
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure
from rheostat.trajectories import Source
from tests.crash import differences
from tests.methods.test_bapo import trained
from tests.methods.test_language_methods import LANGUAGE, Lenient, built, save, small
from tests.training.test_run import StopAfter

FIXED: dict[str, Any] = {"limit": "searched", "clip_low_step": 0.0, "clip_high_step": 0.0}
WIDE: dict[str, Any] = {"limit": "searched", "clip_low": 0.4, "target": 0.55, "clip_low_step": 0.1}
REFUSED = {
    "cispo": "limit 'searched' has no meaning for CISPO: its bounds cap a constant weight",
    "gmpo": "limit 'searched' has no meaning for GMPO: it clips log-ratios",
    "gspo": "limit 'searched' cannot use ratio 'sequence-token': it searches the bounds of token ratios. Leave it at 'token'",
    "luffy": "limit 'searched' has no meaning for LUFFY: the experts of its groups have a weight of their own",
    "reinforce": "limit 'searched' has no meaning for Reinforce: it takes one step on fresh data",
    "remix": "remix cannot use limit 'searched': it centres the window of a token ratio. Leave it at 'clip'",
    "rft": "limit 'searched' has no meaning for RFT: every kept token counts 1",
    "rl-plus": "limit 'searched' has no meaning for RLPlus: the experts of its groups have a weight of their own",
    "rloo": "limit 'searched' cannot use ratio 'sequence-product'",
    "sft": "limit 'searched' has no meaning for SFT: every token counts 1",
    "tis": "limit 'searched' cannot use sampler_correction 'token': the ratio is to the sampler already. Leave it at 'none'",
}
TAKEN = [name for name in LANGUAGE if name not in REFUSED]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def own_rows(one: Any) -> list[Any]:
    """Searches of the method from now on, as (bounds, rows, mask)."""
    found, search = [], one.window.search

    def spied(logp: Any, rows: Any, mask: Any) -> Any:
        found.append((search(logp, rows, mask), rows, mask))
        return found[-1][0]

    one.window.search = spied
    return found


@pytest.mark.parametrize("method", LANGUAGE)
def test_every_method_takes_the_window_or_says_why_not(method: str) -> None:
    if method in REFUSED:
        with pytest.raises(RheostatError) as error:
            configure(method, {"limit": "searched"})
        assert REFUSED[method] in str(error.value) and "\n" not in str(error.value)
    else:
        config = configure(method, {"limit": "searched"})
        assert "lower bound" in table.entry(method).load().derived(config)


def test_only_the_fixed_setting_is_in_the_way() -> None:
    """What refuses is the sequence ratio or the correction, not the name."""
    assert configure("gspo", {"limit": "searched", "ratio": "token", "clip_low": 0.4, "clip_high": 0.2}).limit == "searched"
    assert configure("tis", {"limit": "searched", "sampler_correction": "none"}).limit == "searched"


@pytest.mark.parametrize("method", TAKEN)
def test_the_window_moves_in_training(method: str, model: str) -> None:
    needed = {"kl_coefficient": 0.0} | ({"kl_in_reward": False} if method in ("reinforce-pp", "ppo-lm") else {})
    one = built(method, model, steps=4, learning_rate=1e-2, epochs=2, minibatches=2, **needed, **WIDE, **{"dial.lag": 1})
    metrics = [iterate(one) for _ in range(3)]
    assert max(row["meter/clip_high"] for row in metrics) > 1.2001
    for row in metrics:
        assert 0.6 - 1e-6 <= row["meter/clip_low"] <= 0.9 + 1e-6 and 0 <= row["meter/positive_share"] <= 1


def test_a_window_that_cannot_move_on_fresh_data_is_chord(model: str) -> None:
    """Then the behaviour policy is the learner at the start of the update, up to rounding between the two."""
    for options in ({}, {"epochs": 2, "minibatches": 2}):
        ours, seen = trained("chord", model, 2, **FIXED, **options)
        theirs, plain = trained("chord", model, 2, **options)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        assert seen[-1]["meter/clip_low"] == pytest.approx(0.8) and seen[-1]["meter/clip_high"] == pytest.approx(1.2)
        assert seen[-1]["expert_loss"] == pytest.approx(plain[-1]["expert_loss"], rel=1e-4)


def test_at_mu_0_it_is_bapo_and_at_mu_1_the_expert_alone(model: str) -> None:
    both: dict[str, Any] = {"epochs": 2, "minibatches": 2, "dual_clip": None, "max_new_tokens": 48, "target": 0.55, "updates": 1}
    ours, seen = trained("chord", model, limit="searched", clip_low=0.4, mu_peak=0.0, mu_valley=0.0, expert_ratio=0.0, **both)
    theirs, expected = trained("bapo", model, **both)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert seen[0]["meter/clip_high"] == pytest.approx(expected[0]["meter/clip_high"])
    fixed = trained("chord", model, mu_peak=1.0, mu_valley=1.0, **both)[0]
    torch.testing.assert_close(
        trained("chord", model, limit="searched", clip_low=0.4, mu_peak=1.0, mu_valley=1.0, **both)[0], fixed, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("size", [0, 3])
def test_the_search_sees_own_tokens_alone(size: int, model: str) -> None:
    one = built("chord", model, steps=4, epochs=2, micro_batch_rows=size, learning_rate=1e-2, **WIDE)
    found = own_rows(one)
    iterate(one)
    assert len(found) == 2
    for bounds, rows, mask in found:
        expert = rows.source == int(Source.EXPERT)
        assert not (mask & expert).any() and bool(mask.any())
        if size:
            assert bool((rows.mask & expert).any())  # whole steps are handed over, and masked
        assert 0 < bounds.share <= 1


def test_micro_batches_share_one_window(model: str) -> None:
    options = {"epochs": 2, "minibatches": 2, "updates": 1}
    weights, expected = trained("chord", model, **WIDE, **options)
    assert expected[0]["meter/clip_high"] > 1.2001
    for rows in (1, 3):
        other, seen = trained("chord", model, micro_batch_rows=rows, **WIDE, **options)
        torch.testing.assert_close(other, weights, atol=1e-5, rtol=0)
        names = [name for name in seen[0] if name.startswith(("meter/clip", "meter/positive", "meter/entropy_drift"))]
        assert len(names) == 6
        assert [seen[0][name] for name in names] == pytest.approx([expected[0][name] for name in names], abs=1e-4)
        assert seen[0]["flops"] > expected[0]["flops"]


def test_resume_is_exact(model: str, tmp_path: Path) -> None:
    options = {"preset": "tiny-searched", "steps": 4, "target": 0.6, "max_new_tokens": 48, "dial.lag": 1, "dial.replay_share": 0.5}
    Run.create(tmp_path / "whole", small("chord", model, **options), task=Lenient()).train()
    halted = Run.create(tmp_path / "halted", small("chord", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(3))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clip_low": None}, "limit 'searched' searches from a window: give clip_low and clip_high a width"),
        ({"clip_low": 0.05}, "0 <= clip_low_end <= clip_low <= 1"),
        ({"clip_high": 2.5}, "0 <= clip_high <= clip_high_end"),
        ({"clip_low_step": -0.1}, "sizes of steps"),
        ({"target": 1.5}, "a share between 0 and 1 with search 'paper'"),
        ({"sampler_correction": "sequence"}, "the ratio is to the sampler already"),
    ],
)
def test_windows_that_are_none(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        configure("chord", {"limit": "searched"} | options)
    assert "\n" not in str(error.value)
    configure("chord", options)  # where nothing is searched for, nothing is asked


def test_the_composed_preset_is_phi_with_bapos_window() -> None:
    ours, bapo, phi = configure("chord", {}, preset="tiny-searched"), configure("bapo", {}), configure("chord", {})
    for name in ("limit", "search", "target", "clip_low", "clip_low_end", "clip_low_step", "clip_high", "clip_high_end", "clip_high_step"):
        assert getattr(ours, name) == getattr(bapo, name), name
    assert (ours.epochs, ours.minibatches) == (bapo.epochs, bapo.minibatches)
    assert (ours.mu_peak, ours.mu_valley, ours.expert_weight, ours.expert_ratio) == (phi.mu_peak, phi.mu_valley, "phi", phi.expert_ratio)
