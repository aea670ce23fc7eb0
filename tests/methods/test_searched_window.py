"""BAPO's searched window as a setting of its relatives, above all on CHORD's mixture, and where it is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure, derived
from rheostat.trajectories import Source
from tests.crash import differences
from tests.methods.test_bapo import searches, trained
from tests.methods.test_language_methods import LANGUAGE, Lenient, built, save, small
from tests.training.test_run import StopAfter

FIXED: dict[str, Any] = {"clip": "searched", "clip_low_step": 0.0, "clip_high_step": 0.0}
WIDE: dict[str, Any] = {"clip": "searched", "clip_low": 0.4, "target": 0.55, "clip_low_step": 0.1}
ONE_RULE = ("acereason", "bapo", "cispo", "gmpo", "gspo", "light-r1", "lp-reg", "oprl", "remix", "rise", "rlfr", "self-curation")
"""Methods with one rule for how far a ratio may move: ``clip`` is no choice there."""
NO_RULE = ("best-of-n", "ded", "luffy", "nft", "online-dpo", "osp", "reinforce", "rft", "rwr", "sft")
REFUSED = {name: f"{name}: clip is a part with options: say which, clip.low or " for name in ONE_RULE}
REFUSED |= {name: f"{name} has no option clip (" for name in NO_RULE} | {
    "pairwise-policy-gradient": "it must be one of separate, joint, none",
    "rloo": "The searched clip cannot use ratio 'sequence-product': it searches the bounds of token ratios",
    "tis": "The searched clip cannot use sampler_correction 'token': the ratio is to the sampler already",
}
TAKEN = [name for name in LANGUAGE if name not in REFUSED]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("method", LANGUAGE)
def test_every_method_takes_the_window_or_says_why_not(method: str) -> None:
    if method in REFUSED:
        with pytest.raises(RheostatError) as error:
            configure(method, {"clip": "searched"})
        assert REFUSED[method] in str(error.value) and "\n" not in str(error.value)
    else:
        config = configure(method, {"clip": "searched"})
        assert "lower bound" in derived(method, config)


def test_only_the_fixed_setting_is_in_the_way() -> None:
    """What refuses is the sequence ratio or the correction, not the name."""
    assert configure("rloo", {"clip": "searched", "ratio": "token", "clip_low": 0.4, "clip_high": 0.2}).clip.kind == "searched"
    assert configure("tis", {"clip": "searched", "sampler_correction": "none"}).clip.kind == "searched"


@pytest.mark.parametrize("method", TAKEN)
def test_the_window_moves_in_training(method: str, model: str) -> None:
    needed: dict[str, Any] = {} if method in ("prime", "process-reward") else {"kl_coefficient": 0.0}
    needed |= {"kl": "loss"} if method in ("reinforce-pp", "ppo-lm") else {}
    one = built(method, model, steps=4, learning_rate=1e-2, epochs=2, minibatches=2, **needed, **WIDE, **{"dial.lag": 1})
    metrics = [one.turn() for _ in range(3)]
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
    ours, seen = trained("chord", model, clip="searched", clip_low=0.4, mu_peak=0.0, mu_valley=0.0, expert_ratio=0.0, **both)
    theirs, expected = trained("bapo", model, **both)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert seen[0]["meter/clip_high"] == pytest.approx(expected[0]["meter/clip_high"])
    fixed = trained("chord", model, mu_peak=1.0, mu_valley=1.0, **{name: value for name, value in both.items() if name != "target"})[0]
    torch.testing.assert_close(
        trained("chord", model, clip="searched", clip_low=0.4, mu_peak=1.0, mu_valley=1.0, **both)[0], fixed, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("size", [0, 3])
def test_the_search_sees_own_tokens_alone(size: int, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = built("chord", model, steps=4, epochs=2, micro_batch_rows=size, learning_rate=1e-2, **WIDE)
    found = searches(monkeypatch)
    one.turn()
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
        assert len(names) == 7
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
        ({"clip_low": None}, r"clip\.low is None; it must be of type float"),
        ({"clip_low": 0.05}, "the lower bound rises towards 1, so clip_low_end is at most clip_low"),
        ({"clip_high": 2.5}, "the upper bound rises, so clip_high_end is at least clip_high"),
        ({"clip_low_step": -0.1}, r"clip\.low_step is -0.1; it must be at least 0"),
        ({"target": 1.5}, "with search 'paper' it is a share between 0 and 1"),
        ({"sampler_correction": "sequence"}, "the ratio is to the sampler already"),
    ],
)
def test_windows_that_are_none(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        configure("chord", {"clip": "searched"} | options)
    assert "\n" not in str(error.value)


def test_the_search_has_its_options_only_where_there_is_one() -> None:
    for options in ({"clip_low": 0.05}, {"clip_high": 2.5}, {"sampler_correction": "sequence"}):
        configure("chord", options)  # where nothing is searched for, nothing is asked
    for options in ({"clip_low_step": 0.1}, {"target": 0.5}, {"search": "paper"}):
        with pytest.raises(RheostatError, match=rf"the option {next(iter(options))} goes with clip\.kind searched"):
            configure("chord", options)


def test_the_composed_preset_is_phi_with_bapos_window() -> None:
    ours, bapo, phi = configure("chord", {}, preset="tiny-searched"), configure("bapo", {}), configure("chord", {})
    assert replace(ours.clip, dual=None) == bapo.clip
    assert (ours.update.epochs, ours.update.minibatches) == (bapo.update.epochs, bapo.update.minibatches)
    assert (ours.mu, ours.expert_weight, ours.expert_ratio) == (phi.mu, "phi", phi.expert_ratio)
