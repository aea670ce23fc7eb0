"""Two models on the same problems: coverage and interference, by hand and through the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rheostat
from rheostat.analysis.coverage import coverage
from rheostat.analysis.interference import influence, interference
from rheostat.cli import entry as cli
from rheostat.errors import RheostatError
from rheostat.experiments.language_runs import sample_validation
from rheostat.training.run import Run
from rheostat.training.untrained import baseline, opened
from tests.methods.test_language_methods import save
from tests.tiny_language import naive_scores

OPTIONS = {"prompts": 12, "samples": 8, "threshold": 0.0}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A base and a run from it, which has moved."""
    place = tmp_path_factory.mktemp("pair")
    model = save(place)
    rheostat.train(
        "sft", "chain-sum", model=model, steps=2, directory=place / "run", evaluation_episodes=0, progress=False,
        prompts_per_batch=4, learning_rate=1e-2, max_new_tokens=48,
    )  # fmt: skip
    return model, place / "run"


def test_right_solutions_are_scored_by_both_models(pair: tuple[str, Path]) -> None:
    """At a threshold of 0 every completion is right, so the first four of each prompt are scored: here row by row with the raw models."""
    model, run = pair
    found = rheostat.boundary(run, run, **OPTIONS)
    assert found.interference is not None and found.interference.change.estimate == 0.0 and found.interference.harmed.estimate == 0.0
    found = rheostat.boundary(model, run, **OPTIONS)
    second = Run.load(run)
    first = baseline(model, "chain-sum", None, (), dict(second.settings.environment_options), max_new_tokens=48)
    samples = sample_validation(first, OPTIONS["prompts"], OPTIONS["samples"])
    changes = []
    with torch.no_grad():
        for prompt in range(OPTIONS["prompts"]):
            own = []
            for member in range(4):
                row = slice(prompt * 8 + member, prompt * 8 + member + 1)
                rows = samples.parts[0].trajectories[row]
                before, after = (
                    naive_scores(one.method.policy.causal, rows.action, rows.attention, rows.mask)[0].sum().item()
                    for one in (first, second)
                )
                own.append(after - before)
            changes.append(np.mean(own))
    assert found.interference is not None
    np.testing.assert_allclose(found.interference.per_problem, changes, atol=1e-3)
    assert found.interference.harmed.estimate == np.mean(np.array(changes) < 0)
    assert found.coverage.after[8].estimate == 1.0


def test_the_command_prints_what_python_finds(pair: tuple[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model, run = pair
    arguments = ["boundary", model, str(run), "--episodes", "12", "--samples", "8", "--threshold", "0"]
    cli.main([*arguments, "--json", "--output", str(tmp_path / "pictures")])
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(json.dumps(rheostat.boundary(model, run, **OPTIONS).to_json()))
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"boundary.png", "boundary.svg"}
    cli.main(arguments)
    out = capsys.readouterr().out
    assert "pass@8" in out and "became less" in " ".join(out.split()) and "Mean change by the rate" in out


def test_bad_input_is_one_sentence(pair: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, run = pair
    for sentence, arguments in (
        ("say on which --task", [model, model]),
        ("A run is measured on its own task", [model, str(run), "--task", "chain-sum"]),
        ("--episodes is 1", [model, str(run), "--episodes", "1"]),
        ("--samples is 0", [model, str(run), "--samples", "0"]),
    ):
        with pytest.raises(SystemExit):
            cli.main(["boundary", *arguments])
        error = capsys.readouterr().err
        assert sentence in " ".join(error.split()) and "Traceback" not in error


def test_two_tasks_are_not_compared(pair: tuple[str, Path], tmp_path: Path) -> None:
    model, run = pair
    rheostat.train(
        "sft", "chain-sum", model=model, steps=1, directory=tmp_path / "run", evaluation_episodes=0, progress=False, seed=1,
        prompts_per_batch=2, max_new_tokens=48, environment_options={"max_terms": 4},
    )  # fmt: skip
    with pytest.raises(RheostatError, match="other prompts, or other tokens"):
        rheostat.boundary(run, tmp_path / "run", prompts=4, samples=2)


def test_both_models_are_sampled_alike(pair: tuple[str, Path], tmp_path: Path) -> None:
    """A model beside a run takes the run's temperature; two runs must have the same."""
    model, run = pair
    rheostat.train(
        "grpo", "chain-sum", model=model, steps=1, directory=tmp_path / "warm", evaluation_episodes=0, progress=False, preset=None,
        prompts_per_batch=2, group_size=2, temperature=0.5, top_k=4, max_new_tokens=6, evaluate_every=0, kl_coefficient=0.0,
    )  # fmt: skip
    first, second = opened(model, tmp_path / "warm")
    sampling = first.method.context.sampling
    assert sampling == second.method.context.sampling and (sampling.temperature, sampling.top_k, sampling.max_new_tokens) == (0.5, 4, 6)
    with pytest.raises(RheostatError, match="sampled differently, so pass@k cannot be compared"):
        rheostat.boundary(run, tmp_path / "warm", prompts=4, samples=2)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12))
def test_lost_and_gained_are_counted(counts: list[tuple[int, int]]) -> None:
    before, after = (np.arange(6)[None] < np.array([pair[side] for pair in counts])[:, None] for side in (0, 1))
    found = coverage(before, after)
    assert found.lost.estimate == np.mean([a > 0 and b == 0 for a, b in counts])
    assert found.gained.estimate == np.mean([a == 0 and b > 0 for a, b in counts])
    assert found.change[1].estimate == pytest.approx(np.mean([(b - a) / 6 for a, b in counts]))
    assert sum(each.problems for each in found.deciles) == len(counts)
    mirrored = coverage(after, before)
    assert (mirrored.lost.estimate, mirrored.gained.estimate) == (found.gained.estimate, found.lost.estimate)


def test_what_does_not_vary_has_no_rank() -> None:
    assert math.isnan(coverage([[1, 0], [1, 0]], [[1, 1], [1, 0]]).rank_correlation)


def test_measurements_refuse_what_they_cannot_compare() -> None:
    with pytest.raises(RheostatError, match="equally many completions"):
        coverage([[1, 0]], [[1, 0, 1]])
    with pytest.raises(RheostatError, match="three equally long lists"):
        interference([1.0], [1.0, 2.0], [0])
    with pytest.raises(RheostatError, match="at least two"):
        influence([[1.0, 2.0]], 0.1)


def test_solutions_of_a_problem_are_averaged_first() -> None:
    found = interference([0.0, 0.0, 0.0], [-1.0, 3.0, -2.0], [7, 7, 9])
    assert found.per_problem.tolist() == [1.0, -2.0] and found.harmed.estimate == 0.5 and found.change.estimate == -0.5
