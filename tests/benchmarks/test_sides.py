"""Every benchmark in its smallest form: our sides for real, the peers' where they are installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from benchmarks import ceilings, control, gpu, in_context, language, off_policy, overhead, race, startup
from rheostat.buffers import control_retainers
from tests.benchmarks.sides import answers

SMALL = {"threads": 1, "prompts": 2, "group": 4, "model": "untrained", "updates": 2}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Benchmarks set the number of threads of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """PPO on short rollouts, little random data."""
    for module, values in (
        (control, {"ROLLOUT": 128, "MINIBATCH": 64, "EPOCHS": 1}),
        (control_retainers, {"OFFLINE_TURN": 2}),
        (off_policy, {"START": 40, "ROWS": 2000, "BATCH": 8, "HIDDEN": (8,)}),
        (language, {"BASE": "untrained", "PROMPTS": 2, "GROUP": 2, "VOCABULARY": 50, "HIDDEN": 8}),
    ):
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    off_policy.random_data.cache_clear()
    yield
    off_policy.random_data.cache_clear()


@pytest.mark.parametrize("name", overhead.SIDES)
def test_every_method_of_mixed_data_is_timed(name: str) -> None:
    (row,) = answers(overhead.side, name, SMALL, questions=[1])
    assert row["flops"] > 0 and row["generated"] > 0
    equal = name in ("NFT", "Online DPO", "Cog-Rethinker")  # which leave out groups whose rewards are equal, as all are here
    assert row["trained"] > row["learned"] > 0 or equal


@pytest.mark.parametrize("side", in_context.SIDES, ids=lambda side: side.name)
def test_sides_in_context_make_whole_trials(side: race.Side, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ENVIRONMENTS", 4), ("EPISODES", 5), ("WORLD", {"size": 3, "horizon": 4}), ("WIDTH", 8)):
        monkeypatch.setattr(in_context, name, value)
    assert side.make().advance(80) == 80


def test_our_language_side_says_where_its_seconds_go(small: None) -> None:
    (row,) = answers(language.ours, 1, 3, questions=[1])
    assert row["tokens"] > 0 and set(row["split"]) == {"generation", "update", "scoring"} and min(row["split"].values()) >= 0
    found = language.summarised([row, row])
    assert found["steps_per_second"] == [1 / row["seconds"]] * 2


@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_log_probabilities_over_a_vocabulary(small: None, kind: str) -> None:
    (found,) = answers(language.logprob_memory, kind, 6, 1, questions=[], greeted=False)
    (other,) = answers(language.logprob_memory, "plain", 6, 1, questions=[], greeted=False)
    assert found["checksum"] == pytest.approx(other["checksum"], rel=1e-5)


SMALL_WORK = race.Work("PPO CartPole-v1", "steps", {"task": "CartPole-v1", "environments": 8}, 128, 128, target=5.0, limit=1024)
OURS_AND_CEILINGS = [side for side in control.SIDES if side.package in ("rheostat", "envpool", "numpy")]


@pytest.mark.parametrize("side", OURS_AND_CEILINGS, ids=[side.name for side in OURS_AND_CEILINGS])
def test_our_sides_and_the_ceilings(small: None, side: race.Side) -> None:
    """A turn says steps, both kinds of seconds, memory and who makes the products; a way to a return says whether it was reached."""
    if side.missing:
        pytest.skip(side.missing)
    (found,) = answers(race.answer_all, side, SMALL_WORK, questions=[(128, None)], greeted=False)
    assert found["steps"] >= 128 and found["processor"] > 0 and found["wall"] > 0 and found["peak_mb"] > 50 and "PyTorch's" in found["blas"]
    (found,) = answers(race.answer_all, side, SMALL_WORK, questions=[(256, 5.0)], greeted=False)
    assert found["reached"] is (side.package == "rheostat")


def test_a_side_that_is_missing_or_fails_has_a_row_that_says_so() -> None:
    missing = race.Side("nobody's", "no-such-package", control.Ours, modules=("no_such_module", "numpy"))
    (row,) = race.race(SMALL_WORK, [missing], turns=1, to_return=True, say=lambda line: None)
    assert row["missing"] == "no_such_module not installed" and "no_such_module not installed" in race.shown([row])
    nowhere = race.Work("PPO", "steps", {"task": "Nowhere-v0", "environments": 8}, 1, 1)
    (found,) = answers(race.answer_all, race.Side("ours", "rheostat", control.Ours), nowhere, questions=[], greeted=False)
    assert found["failed"].startswith("RheostatError: ") and "Nowhere-v0" in found["failed"]


def test_ceilings_stand_one_after_the_other() -> None:
    rows: list[dict[str, Any]] = [{"side": side, "per_processor_second": rate} for side, rate in (("x", 50.0), ("a", 200.0), ("b", 200.0))]
    expected = {"ceiling": 100.0, "share_of_ceiling": 0.5}
    assert race.with_ceiling(rows, ("a", "b"))[0] == {"side": "x", "per_processor_second": 50.0} | expected
    assert "ceiling" not in race.with_ceiling([{"side": "x", "per_processor_second": 50.0}], ("a",))[0]


def test_products_count_their_rounds() -> None:
    """A pass that belongs to every second round is made in every second one."""
    made: list[ceilings.Pass] = []
    passes = [ceilings.Pass((3, 2, 1), 4, "train"), ceilings.Pass((3, 2), 4, "input", times=0.5), ceilings.Pass((2, 1), 4, times=3)]
    alone = ceilings.Products(passes, 10)
    make = alone.make
    alone.make = lambda each: (made.append(each), make(each))[1]  # type: ignore[method-assign]
    assert alone.advance(35) == 40
    assert [made.count(each) for each in passes] == [4, 2, 12]


@pytest.mark.slow
def test_sides_take_turns_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = [race.Side("Rheostat", "rheostat", control.Ours), race.Side("EnvPool alone", "envpool", control.Stepping)]
    rows = race.race(SMALL_WORK, sides, turns=2, to_return=True, say=lambda line: None)
    assert all(row["per_processor_second"] > 0 and row["per_second"] > 0 and len(row["turns"]) == 2 for row in rows)
    assert rows[0]["to_return"]["reached"] and not rows[1]["to_return"]["reached"] and "5" in race.shown(rows)


def test_our_learning_curve(small: None) -> None:
    curve = control.learning_curve("ours", "CartPole-v1", 8, 0, 4 * 128)
    assert len(curve) == control.POINTS and all(value > 5 for value in curve)


def test_the_gpu_benchmark_in_its_toy_form() -> None:
    """Every part measures something on a CPU, and what has to repeat does."""
    found = gpu.report(8, toy=True, say=lambda line: None)
    assert "toy shape" in found["card"] and not any("failed" in row or "left out" in row for row in found["rows"])
    assert {row["part"] for row in found["rows"]} == {part.__name__ for part in gpu.PARTS}
    assert all(row[name] for row in found["rows"] for name in row if "bit for bit" in name)


def test_a_part_that_fails_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bench: gpu.Bench) -> Any:
        raise MemoryError("too large")
        yield {}

    monkeypatch.setattr(gpu, "PARTS", (broken, gpu.refit, gpu.ceilings))
    first, second, third = gpu.report(8, toy=True, say=lambda line: None)["rows"]
    assert first == {"part": "broken", "failed": "MemoryError: too large"} and second["ms"] > 0 and third["part"] == "ceilings"
    assert all("left out" in row for row in gpu.report(-1, toy=True, say=lambda line: None)["rows"])


@pytest.mark.parametrize("name", ["sac", "td3", "iql", "cql"])
def test_off_policy_and_its_products(small: None, name: str) -> None:
    work = race.Work(name, "steps", {"name": name}, 2, 2)
    for side in (off_policy.sides_of(name)[0], off_policy.sides_of(name)[-1]):
        (found,) = answers(race.answer_all, side, work, questions=[(2, None)], greeted=False)
        assert found["steps"] >= 2 and found["processor"] > 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="needs stable-baselines3")
def test_ppo_beside_stable_baselines(small: None) -> None:
    (theirs,) = (side for side in control.SIDES if side.name == "Stable-Baselines3")
    (found,) = answers(race.answer_all, theirs, SMALL_WORK, questions=[(256, 5.0)], greeted=False)
    assert found["reached"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl")
def test_grpo_beside_trl() -> None:
    found = language.measure(threads=1, turns=1, per_turn=1, tokens=8)
    assert {row["unit"] for row in found["rows"]} == {"steps/s", "generated tokens/s", "MB"}


def test_what_a_start_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "AIMS", {"import json": 100.0, "import ctypes": 0.0})
    alone, met, missed = startup.measure(1)
    assert alone["command"] == startup.ALONE and alone["processor_seconds"] > 0 and "met" not in alone
    assert met["met"] is True and missed["met"] is False
    with pytest.raises(RuntimeError, match=r"(?s)import nothing_like_this failed: .*nothing_like_this"):
        startup.cost("import nothing_like_this")
