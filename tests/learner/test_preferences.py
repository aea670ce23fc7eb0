"""The trainer of worlds of preferences: its switches, what it refuses, the command, and a replay that repeats the online run."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.api import settings_for
from rheostat.cli.entry import main
from rheostat.errors import RheostatError
from rheostat.learner.preferences import PreferenceLearner, build
from rheostat.streams import Streams
from rheostat.tasks.preferences.game import TINY, PreferenceGame
from rheostat.tasks.preferences.problem import PROBLEMS, Answers, make_problem
from rheostat.training.run import Run
from rheostat.training.settings import configure

PREFS, GAP = "suboptimal-onpolicy-prefs", "online-offline-gap"
SMALL: dict[str, Any] = {"prompts_per_batch": 3, "samples": 4, "reuse": 2, "log_every": 1}


def learner(task: Any = "bandit-away", steps: int = 6, method: str = PREFS, seed: int = 3, **options: Any) -> PreferenceLearner:
    small = SMALL if method == PREFS else {"prompts_per_batch": 4, "log_every": 1}
    return build(configure(method, small | options), method, task, Streams(seed), steps)


def batches(one: PreferenceLearner) -> list[Any]:
    """The batch in use after every gradient step."""
    found = []
    while one.steps < one.context.total_steps:
        one.turn()
        found.append(one.context.batch)
    return found


def test_reuse_says_how_long_a_batch_is_used() -> None:
    used = batches(learner(reuse=2))
    assert [a is b for a, b in pairwise(used)] == [True, False, True, False, True]
    assert len({id(each) for each in batches(learner(reuse=0))}) == 1


def test_who_answers_is_a_switch_apart() -> None:
    """Off-policy batches do not depend on the policy; on-policy ones are scored by it at their time."""
    fast, slow = (batches(learner(on_policy_sampling=False, learning_rate=rate)) for rate in (0.1, 0.0))
    assert all(torch.equal(a.answer, b.answer) for a, b in zip(fast, slow, strict=True))
    fast, slow = (batches(learner(loss="best-of-n", learning_rate=rate, reuse=1, samples=50)) for rate in (0.3, 0.0))
    assert torch.equal(fast[0].answer, slow[0].answer) and not torch.equal(fast[-1].answer, slow[-1].answer)
    one = learner(reuse=3)
    one.turn()
    batch = one.context.batch
    assert batch is not None and not torch.equal(batch.old_logp, one.policy.logp(batch.prompt, batch.answer))


def test_a_share_of_the_answers_is_static() -> None:
    one = learner(static_share=0.5, reuse=1)
    first, *_, last = batches(one)
    old = one.context.problem.offline(0, 3, 4).answer[:, :2]
    assert torch.equal(first.answer[:, 2:], old) and torch.equal(last.answer[:, 2:], old)
    assert not torch.equal(first.answer[:, :2], last.answer[:, :2])


def test_weights_are_made_once_per_batch() -> None:
    one = learner(loss="reinforce", reuse=3, steps=3)
    found = batches(one)
    assert one.composition.credit[0].running.count == 12 and torch.equal(found[0].weight, found[2].weight)
    assert not torch.equal(found[0].weight, found[0].reward)


def test_replaying_the_online_stream_repeats_the_online_run() -> None:
    """The same batches in the same order give the same weights; shuffled they do not."""
    world = PreferenceGame.of(3, TINY)
    online = learner(world, 5, GAP)
    stream = batches(online)
    whole = Answers(*(torch.cat([getattr(each, part) for each in stream]) for part in ("prompt", "answer", "reward")))
    found = []
    for window in (1, None):
        again = learner(world.with_data(whole, window), 5, GAP, on_policy_sampling=False)
        batches(again)
        same = [torch.equal(a, b) for a, b in zip(online.policy.parameters(), again.policy.parameters(), strict=True)]
        found.append(all(same))
    assert found == [True, False]


def test_every_world_is_measured_and_acts() -> None:
    for name in ("bandit-away", "sequence-aligned", "preference-game-tiny"):
        assert name in PROBLEMS
        one = learner(name, 1, samples=2) if not name.startswith("preference") else learner(name, 1, GAP)
        found = one.evaluate(1)
        assert {"evaluation_return", "kl_to_reference", "kl_from_reference", "win_rate"} <= set(found)
        assert found == one.evaluate(1) and 0 <= found["win_rate"] <= 1
        prompt = one.context.problem.prompts(2, torch.Generator().manual_seed(0))
        assert one.context.act(prompt.numpy()).shape == (2,) and one.context.act(prompt[0].numpy()).shape == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "bandit-near"}, "Unknown task of preferences 'bandit-near'"),
        ({"prompts_per_batch": 300}, "lower prompts_per_batch"),
        ({"on_policy_sampling": False, "static_share": 0.5}, "static_share"),
        ({"static_share": 0.01}, "that share is none"),
        ({"loss": "best-of-n", "negative_weight": 0.5}, "nothing is pushed down"),
        ({"loss": "best-of-n", "negative_gradient": "worst"}, "negative_weight is 0"),
        ({"baseline": "batch-mean"}, "takes rewards as they are"),
        ({"loss": "ppo", "reuse": 1, "clip": 0.1}, "every gradient step has its own batch"),
        ({"dial.lag": 2}, "cannot honour"),
        ({"backend": "gymnasium"}, "backend is about environments"),
        ({"environment_options": {"size": 3}}, "environment_options"),
        ({"offline": "somewhere"}, "learns from its own data only"),
        ({"compute": "fast"}, "there is none for worlds of preferences"),
    ],
)
def test_refused_before_anything_is_spent(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    task = options.pop("task", "bandit-away")
    with pytest.raises(RheostatError, match=says):
        Run.create(tmp_path / "run", settings_for(PREFS, task, steps=5, evaluation_episodes=0, **options)).train()


def test_a_data_set_of_pairs_has_two_answers(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="set samples to 2"):
        batches(learner(make_problem("preference-game-tiny", 0), 2, GAP, samples=3, on_policy_sampling=False))


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    one = learner(loss="rwr", temperature=1e-3)
    with pytest.raises(RheostatError, match="lower the learning rate"):
        batches(one)


def test_the_command_and_python_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--steps", "6", "--prompts-per-batch", "3", "--samples", "4", "--reuse", "2", "--loss", "best-of-n"]
    words += ["--negative-gradient", "worst", "--negative-weight", "0.3", "--no-on-policy-sampling", "--seed", "3"]
    main(["train", PREFS, "bandit-aligned", *words, "--json"])
    told = json.loads(capsys.readouterr().out)
    options = SMALL | {"loss": "best-of-n", "negative_gradient": "worst", "negative_weight": 0.3, "on_policy_sampling": False}
    run = rheostat.train(PREFS, "bandit-aligned", directory=tmp_path / "again", steps=6, seed=3, **options | {"log_every": 10})
    assert run.summary["evaluation_return"] == told["evaluation_return"] and run.method.unit == "gradient steps"
    with pytest.raises(RheostatError, match="no memory"):
        run.method.context.act(torch.zeros(100), memory=1)
