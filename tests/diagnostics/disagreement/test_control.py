"""A control run's frozen batch through several methods, and the measures on numbers made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.api import save
from rheostat.cli.entry import main, parse
from rheostat.diagnostics.disagreement import similarity as measures
from rheostat.diagnostics.disagreement.disagreement_result import Disagreement
from rheostat.errors import RheostatError
from rheostat.training.run import Interrupted, Run
from tests.diagnostics.disagreement.test_language import contents
from tests.training.test_run import StopAfter, small

PLAIN = "ppo:normalise_advantage=false"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(directory: Path, method: str = "ppo", task: str = "CartPole-v1", **options: Any) -> Path:
    Run.create(directory, small(method, task, **({"learning_rate": 1e-2} | options))).train().close()
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PPO, finished."""
    return trained(tmp_path_factory.mktemp("runs") / "ppo")


@pytest.fixture(scope="module")
def moved(run: Path) -> Disagreement:
    return rheostat.disagree(run, ["ppo", "ppo:clip_kind=none", "ppo:clip_kind=detached", "a2c", "ppo:clip=0.01"], steps=12)


def test_a2c_is_ppo_without_its_normalisation_on_one_step(run: Path) -> None:
    found = rheostat.disagree(run, ["ppo", PLAIN, "a2c:lam=0.95", "a2c", "ppo-buffer"])
    assert found.cosine(PLAIN, "a2c:lam=0.95") == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(found.weight(PLAIN), found.weight("a2c:lam=0.95"))
    assert found.cosine("ppo", "ppo-buffer") == pytest.approx(1, abs=1e-6)  # the same data, so the same method
    assert found.cosine("ppo", "a2c") < 0.9999 and found.signs[0][1] > 0  # a mean taken off turns signs
    assert found.facts["kl_behaviour_k3"] < 0.1 and found.facts["tokens"] <= 64 and found.facts["kl_moved"] == 0


def test_weights_and_log_probabilities_make_the_gradient(run: Path, moved: Disagreement) -> None:
    """The chain rule, which also says that every weight belongs to its own step: passes take them in random order."""
    for found in (moved, rheostat.disagree(run, ["ppo", "a2c", "ros", "props", "robust-acting"])):
        for row in found.rows:
            entropy = 0.01 if row.method == "props" else 0.0
            assert row.gradient_norm > 0 and (row.elsewhere < 1e-4) == (entropy == 0), row.name


def test_limited_steps_have_no_weight(moved: Disagreement) -> None:
    clipped, free = moved.tensors["clipped/ppo"], moved.weight("ppo:clip_kind=none")
    assert moved.facts["kl_moved"] > 1e-3 and 0 < clipped.double().mean() < 1
    assert bool((moved.weight("ppo")[clipped] == 0).all())
    torch.testing.assert_close(moved.weight("ppo")[~clipped], free[~clipped])
    assert moved["ppo:clip_kind=none"].tokens.clipped == moved["a2c"].tokens.clipped == 0
    assert moved["ppo:clip=0.01"].tokens.clipped > moved["ppo"].tokens.clipped
    assert sum(moved["ppo:clip=0.01"].mostly.values()) == round(moved["ppo:clip=0.01"].tokens.clipped * moved.facts["tokens"])
    assert set(moved["ppo:clip=0.01"].mostly) <= {"0", "1"}


def test_the_run_is_not_changed_and_the_batch_is_its_next(tmp_path: Path) -> None:
    """With one whole step per update the run's own gradient is in its log."""
    settings = small("ppo", epochs=1, minibatches=1, steps=1000, max_grad_norm=1e9, value_coefficient=0.0, backend="gymnasium")
    halted = Run.create(tmp_path / "run", settings)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(3))
    before = contents(tmp_path / "run")
    found = rheostat.disagree(tmp_path / "run", ["ppo", "a2c"])
    rheostat.disagree(tmp_path / "run", ["ppo", "a2c"], steps=2)
    assert contents(tmp_path / "run") == before and found.facts["update"] == 3
    continued = Run.load(tmp_path / "run").train()
    assert found["ppo"].gradient_norm == pytest.approx(continued.metrics[3]["meter/gradient_norm"], rel=1e-4)
    assert found.facts["kl_behaviour_k3"] == pytest.approx(continued.metrics[3]["meter/kl_behaviour_k3"], abs=1e-7)


def test_an_older_checkpoint(run: Path) -> None:
    updates = sorted(int(path.name.removeprefix("iteration-")) for path in (run / "checkpoints").iterdir())
    assert rheostat.disagree(run, ["ppo", "a2c"], update=updates[0]).facts["update"] == updates[0]
    with pytest.raises(RheostatError, match="has no checkpoint of update 2: the ones kept are of"):
        rheostat.disagree(run, ["ppo", "a2c"], update=2)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("props", {}),
        ("ppo-buffer", {}),
        ("ppo", {"dial.lag": 3}),
        ("ppo", {"dial.replay_share": 0.5}),
        ("ppo", {"task": "Pendulum-v1", "backend": "gymnasium"}),
    ],
)
def test_other_runs(method: str, options: dict[str, Any], tmp_path: Path) -> None:
    other = trained(tmp_path / "run", method, **options)
    found = rheostat.disagree(other, ["ppo:entropy_coefficient=0", "a2c", "ppo:clip_kind=none"], steps=1)
    assert all(row.elsewhere < 1e-4 for row in found.rows) and found.facts["kl_moved"] > 0
    if "dial.lag" in options:
        assert found.facts["age_mean"] == 3 and found.facts["kl_behaviour_k3"] > 1e-4
    if "dial.replay_share" in options:
        assert found.facts["share_replay"] > 0.2
    if method in ("props", "ppo-buffer"):
        assert found.facts["tokens"] > 100  # the whole window
    save(found, tmp_path / "out")


def test_a_stop_before_the_step_is_said(run: Path) -> None:
    found = rheostat.disagree(run, ["ppo", "props:target_kl=1e-9"], steps=2)
    assert found["props:target_kl=1e-9"].stopped and found.cosine("ppo", "props:target_kl=1e-9") is None
    assert any("props:target_kl=1e-9 ends the update before this step" in note for note in found.notes)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["ppo", "grpo"], {}, "grpo is a language method and the run is one of ppo, which is for control: name control methods"),
        (["ppo", "a2c:limit=none"], {}, "a2c has no option limit"),
        (["ppo", "ppo:window=2"], {}, "window is the run's"),
        (["ppo", "ppo:minibatches=4"], {}, "minibatches is left alone"),
    ],
)
def test_bad_input_is_one_sentence(run: Path, names: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RheostatError) as error:
        rheostat.disagree(run, names, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    parse(["disagree", str(run), "ppo", "ppo:clip_kind=detached,clip=0.1", "a2c", "--steps", "1", "--output", str(tmp_path / "out")]).run()
    printed = capsys.readouterr().out
    assert (
        "ppo:clip_kind=detached,clip=0.1" in printed and printed.count("Share of steps whose weights differ in sign") == 2
    )  # in two parts
    assert "Not shown for want of room" in printed
    tables = [line for line in printed.splitlines() if line.startswith("  ") and not line.endswith(".")]
    assert tables and max(map(len, tables)) <= 60
    saved = json.loads((tmp_path / "out" / "disagree.json").read_text())
    assert saved["methods"][1]["settings"] == {"objective.clip_kind": "detached", "objective.epsilon": 0.1}
    assert saved["facts"]["domain"] == "control"
    assert saved["rollouts"][0]["prompt"].startswith("environment")


def test_the_command_refuses_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["disagree", str(tmp_path / "nothing"), "ppo", "a2c"])
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error")]
    assert stop.value.code == 2 and error == [f"Error: There is no run in {tmp_path / 'nothing'}: it has no config.json."]


# --- measures ----------------------------------------------------------------------------------------------------------------------------


def test_measures_of_numbers_made_up() -> None:
    a, b = torch.tensor([1.0, -1.0, 0.0, 2.0]), torch.tensor([2.0, 1.0, 0.0, 0.0])
    assert measures.signs_differ(a, b) == 0.5 and measures.opposed(a, b) == 0.25
    assert measures.cosine(a, a) == 1 and measures.cosine(a, -a) == -1 and measures.cosine(a, torch.zeros(4)) is None
    assert measures.distance(a, -a) == 2 and measures.distance(a, 3 * a) == pytest.approx(0, abs=1e-12)
    assert measures.without_rounding(torch.tensor([1.0, 1e-9])).tolist() == [1, 0]


def test_shares_of_numbers_made_up() -> None:
    weight = torch.tensor([2.0, 2.0, -4.0, 0.0, 0.0, 0.0]).double()
    kept = torch.tensor([True, True, True, True, True, False])
    clipped = torch.tensor([False, False, False, True, False, False])
    advantage = torch.tensor([1.0, 1.0, -1.0, 1.0, 0.0, 0.0]).double()
    found = measures.describe_tokens(weight, clipped=clipped, kept=kept, advantage=advantage)
    assert [round(6 * share) for share in (found.up, found.down, found.clipped, found.idle, found.left_out)] == [2, 1, 1, 1, 1]
    assert found.scaled == pytest.approx(1 / 3) and found.effective == pytest.approx(64 / (6 * 24))


def test_the_most_disputed_rows_come_first() -> None:
    mask = torch.tensor([[True, True, True, False], [True, True, True, True], [False] * 4])
    agreed, disputed = [1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]
    weights = torch.tensor([agreed + disputed, [1.0] * 7])
    assert measures.most_disputed(weights, mask, rows=2, longest=2) == [(1, 2, 4), (0, 0, 2)]
    assert measures.dispute(torch.tensor([[1.0], [1.0], [-1.0]]))[0] >= 2 / 3
