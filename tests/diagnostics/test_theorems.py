"""The pictures of theorems: exact probabilities beside what really runs, and the command that draws them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rheostat import tabular as lab
from rheostat.cli.entry import main
from rheostat.diagnostics import theorems
from rheostat.diagnostics.pictures import PICTURES
from rheostat.diagnostics.theorems import Picture, exact_success, lock_of, median_error
from rheostat.reporting.theorem_figures import save_theorem


def test_the_exact_median_is_that_of_many_data_sets() -> None:
    """Of 3,000 data sets of 40 transitions; the share below the median is one half within five standard deviations."""
    share, samples, gamma = 0.5, 40, 0.9
    problem, features = lab.two_states(share, gamma)
    draw = torch.Generator().manual_seed(0)
    state = torch.multinomial(problem.data.flatten(), 3000 * samples, replacement=True, generator=draw).view(3000, samples)
    reward = 0.5 * torch.randn(3000, samples, generator=draw, dtype=torch.float64)
    phi = features[:, 0, 0][state]
    weights = (phi * reward).sum(1) / (phi * (phi - gamma * 2.0)).sum(1)
    size = float(lab.bellman_error(problem, features[..., 0]))
    below = (weights.abs() * size < median_error(share, samples, 0.5, gamma)).double().mean()
    assert float(below) == pytest.approx(0.5, abs=2.5 / 3000**0.5)
    one = lab.sample_transitions(problem, samples, generator=draw)
    found = lab.linear_minimax(lab.Moments.of_data(one, problem.policy, gamma, features))
    phi, reward = features[:, 0, 0][one.state], one.reward
    assert found.item() == pytest.approx(float((phi * reward).sum() / (phi * (phi - gamma * 2.0)).sum()))


def test_the_median_approaches_the_law_of_the_theorem() -> None:
    for share in (0.9, 0.5, 0.1):
        problem, features = lab.two_states(share)
        beta = lab.linear_incompleteness(problem, features)
        law = theorems.HALF * 0.5 / (1 - beta**2) ** 0.5
        assert median_error(share, 20_000, 0.5, 0.99) * 20_000**0.5 == pytest.approx(law, rel=5e-3)


@pytest.mark.parametrize("horizon", [4, 6])
def test_exact_success_is_that_of_runs(horizon: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so few episodes that all three methods succeed sometimes; 150 runs, five standard deviations."""
    lock, flower, _, _ = lock_of(horizon)
    monkeypatch.setattr(theorems, "lock_of", lambda number: (lock, flower, 3, 4))
    exact, draw = exact_success(horizon), torch.Generator().manual_seed(0)
    value = lab.policy_values(lock, flower.policies)
    runs = [lab.popler(lock, flower, first=3, second=4, generator=draw) for _ in range(150)]
    assert max(run.episodes for run in runs) == exact["episodes"]
    won: dict[str, list[bool]] = {"popler": [float(value[run.member]) > 0.5 for run in runs], "uniform": [], "core": []}
    for _ in range(150):
        number = int(exact["episodes"])
        uniform = lab.sample_episodes(lock, lab.random_actions(lock, number, draw), generator=draw)
        core = lab.sample_episodes(lock, lab.mixture(flower.core, number, draw), generator=draw)
        found = {"uniform": lab.uniform_values(flower.policies, 2, uniform), "core": lab.core_values(flower.core, flower.policies, core)}
        for name, values in found.items():
            best = (values == values.max()).nonzero()[:, 0]
            won[name].append(bool(value[best[torch.randint(len(best), (1,), generator=draw)]] > 0.5))
    for name, outcomes in won.items():
        assert np.mean(outcomes) == pytest.approx(exact[name], abs=2.5 / 150**0.5), name
    assert 0.1 < exact["popler"] < 0.9 and exact["core"] < exact["uniform"] < 1


def test_completeness_in_numbers() -> None:
    found = theorems.completeness(repeats=3)
    assert found.facts["limit"] == {"incomplete": pytest.approx(0.5), "complete": 0.0}
    assert found.rows[-1]["incomplete"] == pytest.approx(0.5) and found.rows[-1]["complete"] == 0
    by = found.facts["by_bias"]
    assert all((gap > 0) == (bias > 2 / 3) for bias, gap in zip(by["bias"], by["incomplete"], strict=True)) and max(by["complete"]) == 0


def test_drawn_and_written(tmp_path: Path) -> None:
    pictures = [theorems.amplification(samples=20, repeats=2), theorems.exploration(repeats=1), theorems.completeness(repeats=2)]
    for picture in pictures:
        written = save_theorem(picture, tmp_path / "lab")
        assert [path.name for path in written] == [f"{picture.name}.{kind}" for kind in ("json", "png", "svg")]
        assert json.loads(written[0].read_text())["rows"] == picture.rows and written[1].read_bytes().startswith(b"\x89PNG")
    assert [picture.name for picture in pictures] == list(theorems.THEOREMS)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"rollouts": 1.0}]
    monkeypatch.setitem(PICTURES, "completeness", lambda seed: Picture("completeness", "T", "Says.", "S", {"seed": seed}, rows))
    main(["lab"])
    listed = capsys.readouterr().out
    assert all(name in listed for name in PICTURES)
    main(["lab", "--json"])
    assert [row["theorem"] for row in json.loads(capsys.readouterr().out)] == list(PICTURES)
    main(["lab", "completeness", "--seed", "3", "--json"])
    assert json.loads(capsys.readouterr().out)["facts"] == {"seed": 3}
    for words, says in (
        (["lab", "--output", str(tmp_path)], "Say which theorem to draw: amplification, exploration, completeness, mode-seeking."),
        (["lab", "complete"], "Unknown theorem 'complete': did you mean completeness?"),
        (["lab", "completeness", "--seed", "-1"], "--seed is -1"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert says in capsys.readouterr().err
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SystemExit):
        main(["lab", "completeness", "--output", str(blocked / "below")])
    assert "Could not write to" in capsys.readouterr().err
