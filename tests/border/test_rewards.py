"""Rewards of the command line: weights, time, batches, text, references that can never match, and silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rheostat
from rheostat.cli.entry import main
from rheostat.credit.verifiers import ExactMatch, Rollout, load_reward, load_rewards
from rheostat.credit.verifiers.mathematics import MathGrader
from rheostat.credit.verifiers.reward_loading import arguments_of
from rheostat.errors import RheostatError
from rheostat.training.warnings import silent_rewards
from tests.border import rewards as own
from tests.border.conftest import REWARDS
from tests.border.models import SMALL, build, sums, write_rows

FLAGS = [
    *("--threads", "1", "--steps", "1", "--prompts-per-batch", "4", "--group-size", "4", "--max-new-tokens", "12"),
    *("--evaluate-every", "0", "--evaluation-episodes", "0"),
]


def train(model: str, prompts: Any, folder: Path, *rewards: str, **options: Any) -> Any:
    names = tuple(f"{REWARDS}:{name}" if hasattr(own, name) else name for name in rewards)
    return rheostat.train("grpo", model=model, prompts=prompts, rewards=names, directory=folder, **(SMALL | {"steps": 1} | options))


def test_weights_of_the_command_line(model: str, prompts: str, tmp_path: Path) -> None:
    rewards = [f"{REWARDS}:one", f"{REWARDS}:three"]
    main(["train", "grpo", "--model", model, "--prompts", prompts, "--reward", *rewards, "--reward-weights", "1", "0.1", *FLAGS,
          "--directory", str(tmp_path / "a")])  # fmt: skip
    row = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["reward"] == pytest.approx(1.3) and (row["reward/one"], row["reward/three"]) == (1.0, 3.0)
    assert json.loads((tmp_path / "a" / "config.json").read_text())["settings"]["reward_weights"] == [1.0, 0.1]


def test_of_several_rewards_the_first_says_what_is_right(
    model: str, prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their weighted sum is -2.9 for every completion, and the first reward is 1."""
    run = train(model, prompts, tmp_path / "run", "one", "three", reward_weights=(0.1, -1.0), environment_options={"validation_share": 0.5})
    for words, right, share in (
        ([], "reward one at least 1", 1.0),
        (["--right-by", "three", "--threshold", "3.5"], "reward three at least 3.5", 0.0),
        (["--right-by", "three", "--threshold", "3"], "reward three at least 3", 1.0),
    ):
        main(["evaluate", str(run.directory), "--episodes", "4", "--samples", "2", "--json", *words])
        found = json.loads(capsys.readouterr().out)
        estimates = {row["result"]: row["estimate"] for row in found["results"]}
        assert found["right"] == right and estimates["pass@1"] == share
        assert estimates["reward"] == pytest.approx(-2.9) and (estimates["reward one"], estimates["reward three"]) == (1.0, 3.0)
    with pytest.raises(SystemExit):
        main(["evaluate", str(run.directory), "--right-by", "thre"])
    assert "Unknown reward of this run 'thre': did you mean three?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_weights": (1.0,)}, "2 rewards have 1 weights"),
        ({"environment_options": {"reward_weights": [1, 0.1]}}, "no effect beside --reward: use --reward-weights"),
        ({"environment_options": {"reward_options": {"timeout": 3}}}, "no effect beside --reward"),
        ({"reward_timeout": 0.0}, "reward_timeout is .*; it must be .*above 0"),
        ({"reward_timeout": -1.0}, "reward_timeout is .*; it must be .*above 0"),
        ({"reward_timeout": float("inf")}, "reward_timeout is .*; it must be .*above 0"),
        ({"reward_timeout": float("nan")}, "reward_timeout is .*; it must be .*above 0"),
    ],
)
def test_what_would_be_ignored_is_refused(options: dict[str, Any], message: str, model: str, prompts: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=message):
        train(model, prompts, tmp_path / "run", "one", "three", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"reward_weights": (1.0,)}, {"reward_timeout": 3.0}, {"reward_calls": "single"}])
def test_options_of_rewards_need_rewards(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=f"{next(iter(options))} is about the rewards of --reward"):
        rheostat.train("grpo", "chain-sum", model="nowhere", directory=tmp_path / "run", **(SMALL | options))


def test_a_judge_of_a_whole_batch_is_never_asked_alone(model: str, prompts: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=r"'rank' failed on 16 of 16 .*its limit of 1 s.*--reward-timeout"):
        train(model, prompts, tmp_path / "short", "rank", reward_timeout=1.0)
    run = train(model, prompts, tmp_path / "long", "rank", reward_timeout=60.0)
    assert run.metrics[0]["reward"] == pytest.approx(0.5) and run.metrics[0]["meter/gradient_norm"] > 0
    assert run.summary["seconds in reward rank"] > 2.5


def test_a_function_of_lists_may_be_asked_one_by_one(model: str, prompts: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=r"'sulks' failed on 16 of 16 .*ValueError: odd"):
        train(model, prompts, tmp_path / "batch", "sulks")
    run = train(model, prompts, tmp_path / "single", "sulks", reward_calls="single", max_invalid_share=1.0)
    assert 0 < run.metrics[0]["invalid_share"] < 1 and run.metrics[0]["reward"] == 1.0  # each saw a batch of one


def test_tags_that_are_special_tokens_can_be_read(tmp_path: Path) -> None:
    folder = build(tmp_path / "tags", "tags")
    prompts = write_rows(tmp_path / "p.jsonl", sums())
    seen = {}
    for text in ("plain", "special"):
        options = {"max_new_tokens": 100, "reward_text": text, "prompts_per_batch": 8}
        seen[text] = train(folder, prompts, tmp_path / text, "tags", **options).metrics[0]["reward"]
    assert seen["plain"] > 0 and seen["special"] == pytest.approx(1.1 * seen["plain"])  # raw text in both, graded text in one


# --- references -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extract", "answer", "completion", "reward"),
    [
        ("hash", "so much work\n#### 21", "so\n#### 21", 1.0),
        ("hash", "so much work\n#### 21", "so\n#### 22", 0.0),
        ("hash", "work #### 1,080", "#### 1080", 1.0),
        ("hash", "1080", "#### 1,080", 1.0),
        ("hash", 52.0, "#52", 1.0),
        ("hash", 52.0, "#52.0", 1.0),
        ("hash", 52.5, "#52", 0.0),
        ("hash", 1080, "#1,080", 1.0),
        ("hash", ["52", "52.0"], "#52.0", 1.0),
        ("hash", ["52", "52.0"], "#53", 0.0),
        ("hash", ("a", 7), "#7", 1.0),
        ("hash", "52", "#52.0", 0.0),
        ("hash", 52, "#fifty-two", 0.0),
        ("whole", "1,2", "12", 0.0),
        ("whole", " a ", "a", 1.0),
        ("whole", True, "True", 1.0),
        ("tag", "<answer>x</answer>", "so <answer>x</answer>", 1.0),
        ("tag", "x", "x", 0.0),
        ("boxed", r"hence \boxed{\frac{1}{2}}", r"\boxed{\frac{1}{2}}", 1.0),
        ("last-line", "a\nb", "c\nb", 1.0),
    ],
)  # fmt: skip
def test_exact_answers(extract: str, answer: Any, completion: str, reward: float) -> None:
    verifier = ExactMatch(extract)
    assert verifier.score([Rollout("q", completion, (), answer)]).reward.tolist() == [reward]
    assert (
        verifier.score(
            [Rollout("q", verifier.completion(answer if not isinstance(answer, (list, tuple)) else answer[0]), (), answer)]
        ).reward
        == 1
    )


@pytest.mark.parametrize("answer", [None, float("nan"), "", [], [None]])
def test_a_gap_is_no_answer(answer: Any) -> None:
    assert ExactMatch().score([Rollout("q", "nan", (), answer)]).failed.all()


@pytest.mark.parametrize(
    ("answer", "completion", "reward"),
    [("work\n#### 21", r"\boxed{21}", 1.0), (52.0, "so 52", 1.0), (["1/2", "0.25"], r"\boxed{0.25}", 1.0), (["1/2"], r"\boxed{0.25}", 0.0)],
)
def test_mathematical_answers(answer: Any, completion: str, reward: float) -> None:
    pytest.importorskip("math_verify")
    assert MathGrader()(completion, answer)["score"] == reward


def test_gsm8k_rows_are_graded_by_their_own_column(model: str, tmp_path: Path) -> None:
    rows = [{"question": f"{n} apples?", "answer": f"count them\n#### {n}"} for n in range(20)]
    options = {"environment_options": {"prompt_column": "question"}}
    assert train(model, rows_file(tmp_path, rows), tmp_path / "run", "exact-hash", **options).metrics[0]["invalid_share"] == 0


def rows_file(folder: Path, rows: list[dict[str, Any]]) -> str:
    return write_rows(folder / "rows.jsonl", rows)


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"answer": None}, r"1 of 21 prompts: the reference answer of Line 21 .* is missing"), ({"answer": {"value": 3}}, "is an object")],
)
def test_a_reference_that_can_never_match_is_found_before_training(bad: dict[str, Any], message: str, model: str, tmp_path: Path) -> None:
    rows = [*sums(), {"prompt": "what?"} | bad]
    with pytest.raises(RheostatError, match=message):
        train(model, rows_file(tmp_path, rows), tmp_path / "run", "exact-hash")
    train(model, rows_file(tmp_path, rows), tmp_path / "watched", "one", "exact-hash", reward_weights=(1.0, 0.0))


def test_a_reference_that_is_no_mathematics_is_found_before_training(model: str, tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    rows = [*sums(), {"prompt": "what?", "answer": None}]
    with pytest.raises(RheostatError, match=r"1 of 21 prompts: the reference answer of Line 21 .*\(reward 'math'\)"):
        train(model, rows_file(tmp_path, rows), tmp_path / "run", "math")


# --- columns ----------------------------------------------------------------------------------------------------------------------------


def test_a_missing_column_is_found_before_training(model: str, tmp_path: Path) -> None:
    rows = [*sums(5, level=1), *({"prompt": f"{n}?"} for n in range(3))]
    with pytest.raises(RheostatError, match=r"'with_level' asks for 'level', which Line 6 .* and 2 more does not have"):
        train(model, rows_file(tmp_path, rows), tmp_path / "run", "with_level")
    told = [row | {"level": row.get("level")} for row in rows]
    assert train(model, rows_file(tmp_path, told), tmp_path / "null", "with_level").metrics  # null says that there is none


def test_arguments_are_read_without_running_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.py"
    path.write_text("raise SystemExit\n\ndef f(completions, a, *, b, c=1, **kw):\n    return []\n\nclass G: pass\n")
    assert arguments_of(f"{path}:f") == (["completions", "a", "b", "c"], ["completions", "a", "b"])
    assert arguments_of(f"{path}:G") is None and arguments_of("exact") is None
    assert arguments_of(lambda completions, x=1: []) == (["completions", "x"], ["completions"])


# --- silence ----------------------------------------------------------------------------------------------------------------------------


def test_rewards_that_are_all_none_are_told(model: str, prompts: str, tmp_path: Path) -> None:
    run = train(
        model, prompts, tmp_path / "run", "never_mine", steps=3, evaluation_episodes=4, environment_options={"validation_share": 0.2}
    )
    assert run.summary["warnings"] == [silent_rewards(run.metrics)[0]] and "was None in the last 3 updates" in run.summary["warnings"][0]
    for name in ("metrics.jsonl", "summary.json"):
        assert "NaN" not in (tmp_path / "run" / name).read_text()
    assert (tmp_path / "run" / "report.html").is_file()


def test_rewards_that_are_all_equal_are_told(model: str, prompts: str, tmp_path: Path) -> None:
    run = train(model, prompts, tmp_path / "run", "exact-boxed", steps=4)
    assert run.summary["warnings"] == [
        "All completions got the reward 0 in the last 4 updates, so no group carries a signal and nothing was learned from them. "
        "No completion held an answer that could be found."
    ]


def test_silence_must_last() -> None:
    silent, loud = {"reward_spread": 0.0, "abstained_share": 0.0, "reward": 1.0}, {"reward_spread": 0.5, "abstained_share": 0.0}
    assert not silent_rewards([silent] * 2) and not silent_rewards([silent] * 9 + [loud]) and not silent_rewards([{}] * 9)
    assert "reward 1 in the last 3 updates" in silent_rewards([loud] + [silent] * 3)[0]
    assert not silent_rewards([silent | {"reward": float(step)} for step in range(4)])  # moves from batch to batch


def test_what_a_grader_says_can_be_written(model: str, prompts: str, tmp_path: Path) -> None:
    run = train(model, prompts, tmp_path / "run", "surrogate")
    assert (run.directory / "report.html").is_file()
    scores = load_reward(f"{REWARDS}:surrogate").score([Rollout("q", "a")])
    assert scores.notes["why"] == ["half ? a pair"]


def test_functions_given_directly_are_not_asked_alone_either() -> None:
    def compare(completions: list[str]) -> list[float]:
        if len(completions) > 1:
            raise RuntimeError("the judge is away")
        return [0.0]

    rollouts = [Rollout("q", text) for text in "ab"]
    assert load_reward(compare).score(rollouts).failed.all() and load_rewards([compare]).score(rollouts).failed.all()
    assert load_reward(compare, alone=True).score(rollouts).valid.all() and load_reward(compare, single=True).score(rollouts).valid.all()
