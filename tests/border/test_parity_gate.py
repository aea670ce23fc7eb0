"""What an engine samples is checked against the weights that were announced to it, in every run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import rheostat
from rheostat.collect.language.generation.checked import ROWS, CheckedEngine
from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy
from rheostat.training.building import build_method
from rheostat.training.settings_from_options import settings_for
from tests import tiny_language as tiny
from tests.border.models import SMALL

PROMPTS = [[3, 4], [5, 6, 7], [8], [9, 10], [11, 12], [13]]


class Stale(EmbeddedEngine):
    """Samples from weights of its own, whatever is announced, after the first ``right`` announcements."""

    def __init__(self, policy: LanguagePolicy, right: int) -> None:
        self.right, self.announced = right, 0
        super().__init__(policy)

    def update_weights(self, policy: LanguagePolicy, version: int) -> None:
        self.announced += 1
        if self.announced > self.right:
            policy = copy.deepcopy(policy)
            with torch.no_grad():
                policy.causal.get_output_embeddings().weight.mul_(1.5)
        super().update_weights(policy, version)


def method(model: str, prompts: str, digits: str, **options: Any) -> Any:
    options = {key: value for key, value in SMALL.items() if key != "progress"} | options
    return build_method(settings_for("grpo", "prompts", model=model, prompts=prompts, rewards=(digits,), **options), "prompts")


def test_the_worst_gap_is_a_metric_of_every_update(model: str, prompts: str, digits: str, tmp_path: Path) -> None:
    run = rheostat.train("grpo", model=model, prompts=prompts, rewards=(digits,), directory=tmp_path / "run", **SMALL)
    assert len(run.metrics) == 2 and all(0 <= row["meter/parity_worst"] < 1e-3 for row in run.metrics)


def test_a_run_with_a_lag_is_compared_with_the_weights_that_act(model: str, prompts: str, digits: str) -> None:
    one = method(model, prompts, digits, steps=4, learning_rate=1e-2, **{"dial.lag": 1})
    for _ in range(3):
        found = one.turn()
    assert found is not None and found["meter/parity_worst"] < 1e-3 and found["meter/kl_behaviour_k3"] > 1e-4


@pytest.mark.parametrize("right", [1, 2])  # one announcement is the engine's own, the other the method's
def test_an_engine_with_other_weights_is_refused(right: int, model: str, prompts: str, digits: str) -> None:
    one = method(model, prompts, digits)
    one.context.setup.engine = Stale(one.policy, right)
    if right == 2:
        one.context.sync_engine()
        one.turn()  # its weights are right until it misses an announcement
    else:
        one.context.sync_engine()
    with pytest.raises(RheostatError, match=r"does not sample from the policy of update .*differ by"):
        one.turn()


def test_an_engine_of_another_model_is_refused(model: str, prompts: str, digits: str) -> None:
    one = method(model, prompts, digits)
    other = LanguagePolicy.load(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    one.context.setup.engine = EmbeddedEngine(other)
    with pytest.raises(RheostatError, match="Parity check failed"):
        one.turn()


def test_few_rows_are_scored_and_only_after_an_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = LanguagePolicy(tiny.model(), tiny.tokenizer())
    engine = CheckedEngine(EmbeddedEngine(learner), learner)
    seen: list[int] = []
    monkeypatch.setattr(
        learner, "score", lambda *args, **options: seen.append(len(args[0])) or type(learner).score(learner, *args, **options)
    )
    for update, greedy in ((0, True), (1, False), (2, False)):
        streams = row_streams(0, update, range(6), 3)
        engine.generate(PROMPTS, streams=streams, group_size=3, sampling=Sampling(max_new_tokens=5, temperature=0.0 if greedy else 1.0))
        assert seen == ([] if greedy else [ROWS])  # a greedy sample says nothing; one sample is enough
    assert engine.metrics()["meter/parity_worst"] < 1e-4
    engine.update_weights(learner, 3)
    assert engine.metrics() == {}
    engine.generate(PROMPTS[:1], streams=row_streams(0, 9, [0], 1), sampling=Sampling(max_new_tokens=5))
    assert seen == [ROWS, 1]
