"""What falls over the budget of a language run, and a budget of epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import RheostatError
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings_from_options import settings_for
from tests.border.models import SMALL, build, sums, write_rows
from tests.border.rewards import __file__ as rewards
from tests.crash import differences
from tests.training.test_run import StopAfter

KEPT = {name: value for name, value in SMALL.items() if name not in ("progress", "group_size")}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model, ten prompts with a completion each, and a reward."""
    folder = tmp_path_factory.mktemp("files")
    prompts = write_rows(folder / "prompts.jsonl", [row | {"completion": row["answer"]} for row in sums(10)])
    own = {"validation_share": 0.0}
    return {"model": build(folder / "model"), "prompts": prompts, "rewards": (f"{rewards}:digits",), "environment_options": own}


def rates(settings: Any) -> list[float]:
    """The learning rate of every update."""
    one = build_method(settings, "prompts")
    found = []
    while one.steps < settings.steps:
        one.turn()
        found.append(one.context.models["policy"].optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1.0, 1.0, 1.0, 1.0]),
        ({"learning_rate_decay": "linear"}, [1.0, 0.75, 0.5, 0.25]),
        ({"learning_rate_decay": "cosine"}, [0.5 * (1 + math.cos(math.pi * spent)) for spent in (0.0, 0.25, 0.5, 0.75)]),
        ({"learning_rate_decay": "linear", "warmup": 2}, [0.5, 0.75, 0.5, 0.25]),
    ],
)
def test_the_learning_rate_falls_over_the_budget(options: dict[str, Any], expected: list[float], files: dict[str, Any]) -> None:
    found = rates(settings_for("sft", "prompts", **(KEPT | files | {"steps": 4, "learning_rate": 1e-3} | options)))
    assert found == pytest.approx([1e-3 * each for each in expected])


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_an_epoch_is_a_pass_over_the_prompts(method: str, files: dict[str, Any]) -> None:
    """Ten prompts, four at a time: two passes are five updates, in which the rate falls with every one."""
    own: dict[str, Any] = {"budget": "epochs", "steps": 2, "learning_rate": 1e-3, "learning_rate_decay": "linear"}
    own |= {"group_size": 2} if method == "grpo" else {}
    settings = settings_for(method, "prompts", **(KEPT | files | own))
    assert rates(settings) == pytest.approx([1e-3 * (1 - updates * 4 / 20) for updates in range(5)])
    one = build_method(settings, "prompts")
    for _ in range(5):
        one.collect()
    assert one.steps == 2 and one.unit == "epochs" and one.context.spent == 2.0


def test_a_run_of_epochs_resumes_exactly(files: dict[str, Any], tmp_path: Path) -> None:
    settings = settings_for("sft", "prompts", **(KEPT | files | {"budget": "epochs", "steps": 3, "learning_rate_decay": "cosine"}))
    whole = Run.create(tmp_path / "whole", settings).train()
    assert whole.method.updates == 8 and [row["steps"] for row in whole.metrics] == [0, 0, 1, 1, 2, 2, 2, 3]
    halted = Run.create(tmp_path / "halted", settings)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(4))
    Run.load(tmp_path / "halted").train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_prompts_without_end_have_no_epochs() -> None:
    with pytest.raises(RheostatError, match="chain-sum makes prompts without end"):
        build_method(settings_for("grpo", "chain-sum", budget="epochs"), "chain-sum")
