"""Dropout of adapters: what it multiplies, where it acts, its stream, and that a run with it resumes exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.policies.language.adapter_dropout import AdapterDropout
from rheostat.policies.language.model import LanguagePolicy
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings_from_options import settings_for
from tests import tiny_language
from tests.border.models import SMALL, build, sums, write_rows
from tests.border.rewards import __file__ as rewards
from tests.crash import differences
from tests.training.test_run import StopAfter

peft = pytest.importorskip("peft")
ROWS = tiny_language.rows()
KEPT = {name: value for name, value in SMALL.items() if name != "progress"}


def policy(share: float, *, recompute: bool = False) -> LanguagePolicy:
    """Random adapters on a tiny model, the same for every share."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        return LanguagePolicy(tiny_language.model(), adapters=config, adapter_dropout=share, recompute=recompute)


def test_a_share_is_dropped_and_the_rest_scaled_up() -> None:
    x = torch.randn(400, 50)
    layer, other = AdapterDropout(0.25, 0), AdapterDropout(0.25, 1)
    assert layer(x) is x
    layer.seed = other.seed = 7
    found = layer(x)
    dropped = found == 0
    assert torch.equal(found[~dropped], x[~dropped] / 0.75)
    assert abs(float(dropped.float().mean()) - 0.25) < 0.01  # 20,000 draws: three standard errors
    assert torch.equal(layer(x), found) and not torch.equal(other(x), found)
    layer.seed = 8
    assert not torch.equal(layer(x), found)


def test_it_acts_inside_of_dropping_alone() -> None:
    plain, noisy = policy(0.0), policy(0.5)
    assert noisy.drops and not plain.drops
    expected = plain.score(*ROWS).logp
    assert torch.equal(noisy.score(*ROWS).logp, expected)
    with noisy.dropping(3):
        once, again = (noisy.score(*ROWS).logp for _ in range(2))
    with noisy.dropping(4):
        other = noisy.score(*ROWS).logp
    assert torch.equal(once, again) and not torch.equal(once, other) and (once - expected).abs().max() > 1e-3
    assert torch.equal(noisy.score(*ROWS).logp, expected)
    noisy.train()
    assert torch.equal(noisy.score(*ROWS).logp, expected)


def test_the_numbers_are_those_of_dropout_before_the_first_matrix() -> None:
    noisy = policy(0.5)
    layer = noisy.causal.base_model.layers[0].mlp.down_proj
    x = torch.randn(5, layer.in_features)
    with noisy.dropping(3):
        dropped, found = layer.lora_dropout["default"](x), layer(x)
    low, high = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = x @ layer.base_layer.weight.T + layer.scaling["default"] * (dropped @ low.T) @ high.T
    torch.testing.assert_close(found, expected)


def test_layers_that_are_computed_again_drop_the_same() -> None:
    gradients = []
    for recompute in (False, True):
        one = policy(0.5, recompute=recompute)
        with one.dropping(3):
            one.score(*ROWS).logp.sum().backward()
        gradients.append([parameter.grad for parameter in one.parameters() if parameter.requires_grad])
    assert all(bool(gradient.any()) for gradient in gradients[0])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model, prompts with a completion each, and a reward."""
    folder = tmp_path_factory.mktemp("files")
    prompts = write_rows(folder / "prompts.jsonl", [row | {"completion": row["answer"]} for row in sums()])
    return {"model": build(folder / "model"), "prompts": prompts, "rewards": (f"{rewards}:digits",), "adapter_rank": 2}


@pytest.mark.parametrize("options", [{}, {"epochs": 2}], ids=["one step", "several steps"])
def test_a_run_resumes_exactly(options: dict[str, Any], files: dict[str, Any], tmp_path: Path) -> None:
    own = {"steps": 3, "checkpoint_every": 2, "adapter_dropout": 0.3, "learning_rate": 1e-2}
    chosen = settings_for("grpo", "prompts", **(KEPT | files | options | own))
    whole = Run.create(tmp_path / "whole", chosen).train()
    halted = Run.create(tmp_path / "halted", chosen)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(1))
    Run.load(tmp_path / "halted").train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
    assert all(row["meter/parity_worst"] < 1e-4 for row in whole.metrics)  # the gate compares policies that are whole
    exported, trained = LanguagePolicy.load(tmp_path / "whole" / "model").model, whole.method.policy.model
    ids = torch.arange(3, 15)[None]
    torch.testing.assert_close(exported(ids).logits, trained(ids).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_the_meter_sees_the_policy_that_samples(method: str, files: dict[str, Any]) -> None:
    """In the first update, where the weights are equal, dropout moves the gradient, and nothing that tells how far the data is away."""
    options = {name: value for name, value in KEPT.items() if method == "grpo" or name != "group_size"} | files | {"learning_rate": 1e-2}
    settled, noisy = (build_method(settings_for(method, "prompts", **options, adapter_dropout=share), "prompts") for share in (0.0, 0.5))
    draw = torch.Generator().manual_seed(0)
    for name, parameter in settled.policy.named_parameters():
        if "lora_B" in name:  # new ones add nothing, so that there would be nothing to drop
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.3
    noisy.policy.load_state_dict(settled.policy.state_dict())
    for one in (settled, noisy):
        one.context.sync_engine()
    mine, theirs = settled.turn(), noisy.turn()
    measured = [name for name in mine if name.startswith("meter/") and name != "meter/gradient_norm" and "snr" not in name]
    assert "meter/kl_behaviour_k3" in measured or method == "sft"
    assert measured and [theirs[name] for name in measured] == [mine[name] for name in measured]
    assert theirs["meter/gradient_norm"] != mine["meter/gradient_norm"]


def test_what_cannot_drop_is_refused(files: dict[str, Any]) -> None:
    with pytest.raises(RheostatError, match="adapter_dropout is about adapters"):
        build_method(settings_for("grpo", "prompts", **(KEPT | files | {"adapter_rank": 0, "adapter_dropout": 0.1})), "prompts")
    for share in (-0.1, 1.0):
        with pytest.raises(RheostatError, match="it must be at least 0 and below 1"):
            settings_for("grpo", "prompts", **(KEPT | files | {"adapter_dropout": share}))
