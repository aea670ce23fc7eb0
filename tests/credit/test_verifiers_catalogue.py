"""Rewards by name, from files, and weighted sums."""

from __future__ import annotations

import sys
import threading

import pytest
import torch

from rheostat.credit.verifiers import ExactMatch, Grade, Isolated, Rollout, Scores, WeightedSum, load_reward, load_rewards
from rheostat.credit.verifiers.mathematics import MathGrader
from rheostat.errors import MissingExtra, RheostatError


def rollouts(*completions: str, answer: str = "2") -> list[Rollout]:
    return [Rollout("p", text, [1], answer, {"answer": answer}) for text in completions]


class Fixed:
    """A verifier that says what it was told to say."""

    def __init__(self, name: str, *grades: Grade) -> None:
        self.name, self.grades = name, grades

    def score(self, rollouts, progress=None):
        return Scores.from_grades(self.grades, {"seen": len(rollouts)})


def test_files_are_isolated_unless_told_otherwise(tmp_path):
    (tmp_path / "helper.py").write_text("GOOD = 'ok'\n")
    (tmp_path / "my_rewards.py").write_text(
        "def score(completions, **kw):\n    import helper\n    return [float(c == helper.GOOD) for c in completions]\n"
    )
    target = f"{tmp_path}/my_rewards.py:score"
    isolated = load_reward(target, timeout=10)
    assert isinstance(isolated, Isolated) and isolated.name == "score"
    here = load_reward(target, isolate=False)
    for verifier in (isolated, here):
        assert verifier.score(rollouts("ok", "no")).reward.tolist() == [1.0, 0.0]
    isolated.close()


def test_verifiers_and_functions_are_taken_as_they_are():
    verifier = ExactMatch()
    assert load_reward(verifier) is verifier
    assert load_reward(ExactMatch).score(rollouts("2")).reward.tolist() == [1.0]
    assert load_reward(lambda completions: [1.0]).score(rollouts("a")).valid.all()
    assert load_reward("exact").score(rollouts("2")).reward.tolist() == [1.0]
    assert load_reward("exact-hash").score(rollouts("#2")).reward.tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mth", "Unknown reward 'mth': did you mean math"),
        ("exact-hahs", "Unknown answer extractor"),
        ("nowhere.py", "'file.py:function'"),
        ("nowhere.py:", "'file.py:function'"),
        (":f", "'file.py:function'"),
    ],
)
def test_names_that_mean_nothing(name, message):
    with pytest.raises(RheostatError, match=message):
        load_reward(name, isolate=False)


def test_a_file_without_a_function_name_is_told_its_functions(tmp_path):
    path = tmp_path / "r.py"
    path.write_text("from math import sqrt\ndef grade(completions):\n    return []\ndef _hidden():\n    pass\n")
    with pytest.raises(RheostatError, match=r"it defines grade\): for example .*r.py:grade"):
        load_reward(str(path))


def test_weighted_sum_and_its_parts():
    first = Fixed("a", Grade(1.0, {"x": 3.0}, {"n": "why"}), Grade(2.0))
    second = Fixed("a", Grade(10.0), Grade(20.0))
    scores = WeightedSum([first, second], [1.0, 0.5]).score(rollouts("p", "q"))
    assert scores.reward.tolist() == [6.0, 12.0]
    assert scores.parts["a"].tolist() == [1.0, 2.0] and scores.parts["a 2"].tolist() == [10.0, 20.0]
    assert scores.parts["a/x"][0] == 3.0 and scores.notes["a/n"] == ["why", ""]
    assert scores.metrics == {"a/seen": 2, "a 2/seen": 2}


def test_abstaining_is_left_out_of_the_sum_and_failing_is_not():
    nothing, failed = Grade(), Grade.failure("hung")
    first = Fixed("a", Grade(1.0), nothing, nothing, failed, Grade(1.0))
    second = Fixed("b", nothing, Grade(2.0), nothing, Grade(2.0), Grade(2.0))
    scores = WeightedSum([first, second]).score(rollouts(*"abcde"))
    assert scores.valid.tolist() == [True, True, False, False, True]
    assert scores.reward[scores.valid].tolist() == [1.0, 2.0, 3.0]
    assert scores.abstained.tolist() == [False, False, True, False, False]
    assert scores.messages == {3: "a: hung"}


def test_weight_zero_is_only_watched():
    scores = WeightedSum([Fixed("a", Grade(1.0)), Fixed("b", Grade.failure("hung"))], [1.0, 0.0]).score(rollouts("a"))
    assert scores.valid.all() and scores.reward.tolist() == [1.0] and "b: hung" in scores.messages[0]


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0, 3.0]])
def test_one_weight_for_each_reward(weights):
    with pytest.raises(RheostatError, match="give one weight for each"):
        load_rewards(["exact", "exact-hash"], weights)


def test_no_reward():
    with pytest.raises(RheostatError, match="give at least one"):
        load_rewards([])


def test_a_single_reward_needs_no_sum():
    assert isinstance(load_rewards(["exact"]), ExactMatch)
    assert load_rewards(["exact"], [2.0]).score(rollouts("2")).reward.tolist() == [2.0]


@pytest.mark.parametrize(
    ("completion", "answer", "reward"),
    [
        (r"so \boxed{\frac{1}{2}}", "0.5", 1.0),
        ("The answer is 0.5", r"\frac{1}{2}", 1.0),
        ("$x = 3$", "3", 1.0),
        ("I think 7", "8", 0.0),
        ("no idea", "8", 0.0),
        ("", "8", 0.0),
    ],
)
def test_math(completion, answer, reward):
    pytest.importorskip("math_verify")
    assert MathGrader()(completion, answer)["score"] == reward


def test_math_off_the_main_thread_and_with_a_useless_reference():
    pytest.importorskip("math_verify")
    result = []
    verifier = load_reward("math", timeout=20)
    rows = [Rollout("p", "#### 5", (), "5"), Rollout("p", "5", (), None), Rollout("p", "5", (), "")]
    thread = threading.Thread(target=lambda: result.append(verifier.score(rows)))
    thread.start()
    thread.join()
    verifier.close()
    assert torch.equal(result[0].valid, torch.tensor([True, False, False])) and result[0].reward[0] == 1.0
    assert "no answer to compare with" in result[0].messages[1]


def test_math_that_hangs_is_invalid_not_wrong():
    pytest.importorskip("math_verify")
    verifier = load_reward("math", timeout=2)
    scores = verifier.score([Rollout("p", r"\boxed{9^{9^{9^{9}}}}", (), "5"), Rollout("p", r"\boxed{5}", (), "5")])
    verifier.close()
    assert scores.failed[0] and scores.reward[1] == 1.0


def test_math_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(MissingExtra, match=r"pip install .*\[math\]'"):
        load_reward("math")


def test_rewards_that_trl_ships():
    rewards = pytest.importorskip("trl.rewards")
    chat = [{"role": "user", "content": "2+3?"}]
    rows = [Rollout(chat, text, [1], None, {"solution": "$5$"}) for text in (r"<think>a</think> \boxed{5}", r"\boxed{4}")]
    both = load_rewards([rewards.accuracy_reward, rewards.think_format_reward], [1.0, 0.5])
    scores = both.score(rows)
    assert scores.reward.tolist() == [1.5, 0.0]
    assert scores.parts["accuracy_reward"].tolist() == [1.0, 0.0] and scores.notes["accuracy_reward/solution"] == ["$5$", "$5$"]
    verifier = load_reward("trl.rewards:accuracy_reward", timeout=60)
    assert verifier.score(rows).reward.tolist() == [1.0, 0.0]
    verifier.close()
