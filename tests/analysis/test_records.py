"""Reading run directories, and grouping them into arms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheostat.analysis.curves import arm_curve, band
from rheostat.analysis.metrics import GROUPS, METER, describe, ordered
from rheostat.analysis.records import find_runs, group_arms, read_record, regenerate
from rheostat.analysis.summaries import leading, summarise, verdict_text
from rheostat.errors import RheostatError
from rheostat.experiments.studies.training import columns
from tests.analysis.synthetic import write_comparison, write_run


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def append(directory: Path, *rows: str) -> None:
    with (directory / "metrics.jsonl").open("a") as file:
        file.write("".join(rows))


def test_a_record_is_the_run(tmp_path: Path) -> None:
    record = read_record(write_run(tmp_path / "run", method="props", seed=3, rows=20))
    assert (record.method, record.task, record.seed, record.steps, record.finished) == ("props", "Hopper-v5", 3, 100_000, True)
    assert record.headline == "episode_return"
    rows, values = record.curve("meter/sampling_error")
    assert rows.tolist() == [3, 7, 11, 15, 19]
    assert np.isfinite(values).all()
    gradient = record.axis("gradient_steps")
    assert gradient is not None
    assert gradient[-1] == 20 * 320  # rows hold what each update used
    assert record.speed == pytest.approx(100_000 / (20 * 1.4))
    assert record.axis("flops") is None


def test_final_is_the_evaluation_else_the_last_tenth(tmp_path: Path) -> None:
    finished = read_record(write_run(tmp_path / "a"))
    assert finished.final == finished.summary["evaluation_return"]
    assert finished.final_metric == "evaluation_return"
    open_ended = read_record(write_run(tmp_path / "b", finished=False))
    steps, returns = open_ended.columns["steps"], open_ended.columns["episode_return"]
    assert open_ended.final == pytest.approx(returns[steps >= 90_000].mean())
    assert open_ended.final_metric == "episode_return"


def test_nan_is_counted_and_never_averaged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=4)
    append(run, '{"iteration": 5, "steps": 110000, "value_loss": NaN, "meter/gap": Infinity}\n')
    record = read_record(run)
    assert record.nonfinite == {"value_loss": 1, "meter/gap": 1}
    assert len(record.curve("value_loss")[1]) == 4
    _, notes = summarise(group_arms([record])["Hopper-v5"])
    assert "ppo: 1 value(s) of Value loss are NaN or infinite and are left out." in notes
    (run / "summary.json").write_text(json.dumps({"evaluation_return": float("nan")}))
    with pytest.raises(RheostatError, match=r"summary.json is damaged: it holds NaN"):
        read_record(run)


def test_old_names_of_metrics_are_read_as_the_new_ones(tmp_path: Path) -> None:
    """Also of one source and of one agent; a study may ask for a curve by the name that its declaration has."""
    run = write_run(tmp_path / "run", rows=1, finished=False)
    old = {
        "meter/limited_share": 0.25,
        "meter/fresh/limited_share": 0.5,
        "digger/meter/limited_share": 0.125,
        "behaviour_limited_share": 1.0,
    }
    (run / "metrics.jsonl").write_text(json.dumps({"iteration": 1, "steps": 50} | old) + "\n")
    record = read_record(run)
    new = {key.replace("limited_share", "clip_fraction"): value for key, value in old.items()}
    assert {key: record.columns[key].tolist() for key in new} == {key: [value] for key, value in new.items()}
    assert not set(old) & set(record.columns)
    assert record.curve("meter/limited_share")[1].tolist() == [0.25]
    assert columns(record, ("meter/limited_share",))["meter/limited_share"] == [0.25]
    assert {describe(key).label for key in record.columns if "clip_fraction" in key} == {
        "Clip fraction",
        "Clip fraction (fresh data)",
        "Behaviour clip fraction",
    }


def test_a_half_written_line_is_no_damage(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows=4)
    append(run, '{"iteration": 5, "ste')
    assert len(read_record(run).columns["steps"]) == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", ["ppo"]), ("task", None), ("seed", "text"), ("seed", True), ("seed", 1.5), ("steps", "many"), ("online_steps", {}),
        ("model", 3), ("prompts", []), ("environment_options", [1]), ("environment_options", None), ("config", "text"), ("config", None),
    ],
)  # fmt: skip
def test_settings_of_another_type_are_damage(tmp_path: Path, name: str, value: Any) -> None:
    run = write_run(tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["settings"][name] = value
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(RheostatError, match=rf"config\.json is damaged: the setting {name} is"):
        read_record(run)
    (run / "config.json").write_text(json.dumps({**config, "settings": config["settings"] | {name: 1}, "versions": [name]}))
    with pytest.raises(RheostatError, match=r"config\.json is damaged"):
        read_record(run)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", "no JSON object"),
        ("config.json", '{"settings": {"method": "ppo"}}', "does not name a method, a task and a seed"),
        ("metrics.jsonl", '{"steps": 1}\nnonsense\n{"steps": 2}\n', "damaged at line 2"),
        ("summary.json", "nonsense", "summary.json is damaged"),
    ],
)
def test_damage_is_named(tmp_path: Path, file: str, text: str, words: str) -> None:
    run = write_run(tmp_path / "run")
    (run / file).write_text(text)
    with pytest.raises(RheostatError, match=words):
        read_record(run)


def test_finding_runs(tmp_path: Path) -> None:
    write_comparison(tmp_path / "c", seeds=11, levels={"ppo": 1.0})
    names = [path.name for path in find_runs([tmp_path / "c", tmp_path / "c" / "ppo-s3"])]
    assert names == [f"ppo-s{seed}" for seed in range(11)]  # each once, s2 before s10
    (tmp_path / "empty").mkdir()
    with pytest.raises(RheostatError, match="There is no run in"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(RheostatError, match="does not exist"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "file").write_text("")
    with pytest.raises(RheostatError, match="There is no run in"):
        find_runs([tmp_path / "file"])


def test_arms_are_settings_and_members_are_seeds(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a0", seed=1),
        write_run(tmp_path / "a1", seed=0),
        write_run(tmp_path / "b", learning_rate=1e-3),
        write_run(tmp_path / "c", method="props"),
        write_run(tmp_path / "d", task="CartPole-v1"),
    ]
    tasks = group_arms([read_record(run) for run in runs])
    assert list(tasks) == ["Hopper-v5", "CartPole-v1"]
    arms = tasks["Hopper-v5"]
    assert [arm.label for arm in arms] == ["ppo (learning_rate=0.0003)", "ppo (learning_rate=0.001)", "props"]
    assert arms[0].seeds == [0, 1]
    assert arms[0].differences == {"learning_rate": 3e-4, "window": 1}
    assert arms[2].differences == {"learning_rate": 1e-3, "window": 2, "behaviour_steps": 256, "behaviour_target_kl": 0.05}
    assert tasks["CartPole-v1"][0].differences == {}
    assert arms[0].unit == "environment steps"


def test_the_same_result_never_counts_twice(tmp_path: Path) -> None:
    twins = [read_record(write_run(tmp_path / name, seed=4)) for name in "ab"]
    with pytest.raises(RheostatError, match="same seed 4"):
        group_arms(twins)


def test_curves_aggregate_seeds_over_what_all_of_them_cover(tmp_path: Path) -> None:
    short = read_record(write_run(tmp_path / "short", seed=0, rows=20, steps=50_000, finished=False))
    long = read_record(write_run(tmp_path / "long", seed=1, rows=40))
    curve = arm_curve([short, long], "episode_return")
    assert curve is not None
    first = max(record.columns["steps"][1] for record in (short, long))
    assert (curve.x["steps"][0], curve.x["steps"][-1]) == (first, 50_000)
    assert curve.seeds.shape == (2, len(curve.y))
    assert curve.low is None  # of two seeds a band would hide everything
    again = read_record(write_run(tmp_path / "again", seed=2, rows=40))
    three = arm_curve([short, long, again], "episode_return")
    assert three is not None and three.low is not None and three.high is not None
    assert ((three.low <= three.y + 1e-9) & (three.y <= three.high + 1e-9)).all()
    np.testing.assert_allclose(curve.y, curve.seeds.mean(0))  # two seeds: nothing to trim
    np.testing.assert_allclose(curve.seeds[1], np.interp(curve.x["steps"], *(long.columns[key][1:] for key in ("steps", "episode_return"))))
    assert set(curve.x) == {"steps", "updates", "gradient_steps", "seconds"}
    assert all((np.diff(axis) > 0).all() for axis in curve.x.values())
    assert arm_curve([short, long], "meter/unknown") is None


def test_long_logs_are_thinned_by_averaging(tmp_path: Path) -> None:
    record = read_record(write_run(tmp_path / "run", rows=1000))
    curve = arm_curve([record], "value_loss", points=100)
    assert curve is not None
    assert (len(curve.y), curve.averaged, curve.low) == (100, 10, None)
    np.testing.assert_allclose(curve.y, record.columns["value_loss"].reshape(100, 10).mean(1))
    short = arm_curve([record], "meter/sampling_error", points=10_000)
    assert short is not None
    assert (len(short.y), short.averaged) == (250, 1)


def test_a_band_refuses_nan() -> None:
    with pytest.raises(RheostatError, match="not finite"):
        band(np.array([[1.0, np.nan]]))


def test_a_band_widens_with_the_spread() -> None:
    values = rng().normal(size=(6, 130)) * np.linspace(0.1, 2, 130)
    _, low, high = band(values)
    assert (high - low)[100:].mean() > 5 * (high - low)[:10].mean()
    _, first_low, first_high = band(values[:, :10])
    np.testing.assert_allclose((first_low, first_high), (low[:10], high[:10]))


def test_summaries_compare_with_the_first_arm(tmp_path: Path) -> None:
    write_comparison(tmp_path / "c", seeds=8, levels={"ppo": 900.0, "props": 2500.0})
    arms = group_arms([read_record(path) for path in find_runs([tmp_path / "c"])])["Hopper-v5"]
    rows, notes = summarise(arms)
    assert [note for note in notes if "skewed" not in note and "cannot be told" not in note] == []
    assert rows[0].verdict is None
    assert rows[1].verdict is not None
    assert rows[1].verdict.outcome == "supported"
    assert rows[1].family_p == pytest.approx(2 / 256 * 0.05 / 0.0172)  # the one comparison there is, over all looks
    assert rows[1].sampling_error is not None
    assert rows[1].sampling_error.estimate == pytest.approx(0.06, rel=0.1)
    assert rows[0].mean_over_training is not None
    json.dumps([row.to_json() for row in rows], allow_nan=False)
    assert rows[1].to_json()["verdict"] == "supported"
    assert rows[0].to_json()["probability_of_improvement"] is None


def test_a_missing_seed_is_waited_for() -> None:
    values = {seed: float(seed) for seed in range(10)}
    assert leading(values, values) == list(range(10))
    assert leading({seed: x for seed, x in values.items() if seed != 4}, values) == [0, 1, 2, 3]
    assert leading({seed: x for seed, x in values.items() if seed != 4}, {seed: x for seed, x in values.items() if seed != 4}) == [
        0,
        1,
        2,
        3,
    ]
    assert leading(values, dict.fromkeys(range(3), 0.0)) == [0, 1, 2]
    assert leading({}, values) == []


def test_several_arms_are_a_family(tmp_path: Path) -> None:
    write_comparison(tmp_path / "c", seeds=8, levels={"a2c": 900.0, "ppo": 900.0, "props": 2500.0})
    rows, _ = summarise(group_arms([read_record(path) for path in find_runs([tmp_path / "c"])])["Hopper-v5"])
    words = {row.label: verdict_text(row.verdict) for row in rows if row.verdict is not None}
    assert words == {"props": "better", "ppo": "undecided; next look at 12 seeds"}
    assert {row.label: row.family_p for row in rows}["props"] == pytest.approx(2 * 2 / 256 * 0.05 / 0.0172)


def test_unfinished_seeds_and_unequal_budgets_are_told(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", seed=0),
        write_run(tmp_path / "b", seed=1, finished=False),
        write_run(tmp_path / "c", method="props", steps=50_000),
    ]
    rows, notes = summarise(group_arms([read_record(run) for run in runs])["Hopper-v5"])
    assert (rows[0].seeds, rows[0].unfinished) == ((0,), (1,))
    assert any("budgets differ (50,000, 100,000 steps)" in note for note in notes)
    assert any("seed 1 not finished" in note for note in notes)
    assert rows[1].verdict is None


def test_metrics_have_one_order_and_unknown_ones_a_place() -> None:
    keys = [
        metric.key for metric in ordered(["zebra", "value_loss", "meter/brand_new", "meter/ess", "steps", "episode_return", "new_loss"])
    ]
    assert keys == ["episode_return", "meter/ess", "meter/brand_new", "value_loss", "new_loss", "zebra"]
    assert describe("meter/brand_new").group == METER
    assert describe("meter/brand_new").label == "Brand new"
    assert describe("meter/share_stale").label == "Share: stale"
    assert all(metric.group in GROUPS for metric in map(describe, keys))


def test_the_command_that_makes_a_run_again(tmp_path: Path) -> None:
    typed = read_record(write_run(tmp_path / "a", command="rheostat train ppo Hopper-v5 --steps 100_000"))
    assert regenerate(typed) == "rheostat train ppo Hopper-v5 --steps 100_000"
    python = read_record(write_run(tmp_path / "b", command="python script.py", num_envs=4, anneal=False, hidden=[32, 16], target_kl=0.1))
    command = regenerate(python)
    assert command.split(" --") == [
        "rheostat train ppo Hopper-v5",
        "seed 0",
        "steps 100000",
        "evaluation-episodes 10",
        "num-envs 4",
        "hidden 32 16",
        "no-anneal",
        "target-kl 0.1",
    ]
    custom = read_record(write_run(tmp_path / "c", task="custom:Mine", command="python script.py"))
    assert regenerate(custom) == "python script.py"
