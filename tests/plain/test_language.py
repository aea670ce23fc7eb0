"""Every gradient step of a real run of every language method is the plain one, and every step of its optimiser is AdamW by hand."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.plain.cases import CASES, METHODS, Sums
from tests.plain.following import ROUNDING, Case, adamw, departure, follow
from tests.plain.real_path import settings_of, trained, watch_run


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_takes_the_plain_steps(case: Case, tiny: str, tmp_path: Path) -> None:
    task = (case.task or Sums)()
    watch = watch_run(settings_of(case.method, tiny, task, case.turns, case.options), task, tmp_path / "run")
    steps, (plain, seen) = watch.steps, follow(case, watch)
    assert len(watch.turns) >= case.turns and steps and not case.sees - seen, sorted(seen)
    assert not departure(plain, steps) and len(plain) == len(steps)
    assert sum(any(bool(each.any()) for each in gradient) for gradient in plain) >= min(2, len(plain))
    config = watch.method.config
    for name, model in trained(watch.method).items():
        part = getattr(config, {"policy": "update", "reward": "reward_model", "flow": "online"}[name])
        mine = [step for step in steps if step.model == name]
        assert adamw(mine, model.network, decay=getattr(part, "weight_decay", 0.0), limit=part.max_grad_norm) < ROUNDING


def test_every_language_method_has_a_plain_case() -> None:
    assert {case.method for case in CASES} == set(METHODS)


@pytest.mark.parametrize("name", ["rows", "worth", "flow", "losses", "following"])
def test_the_plain_side_asks_the_library_for_nothing_but_names_of_sources(name: str) -> None:
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {each.name for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names}
    assert {module for module in modules if module and module.startswith("rheostat")} <= {"rheostat.trajectories"}
