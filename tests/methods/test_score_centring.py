"""Score centring in training: what stays as it was, who can have it, experts beside it, micro-batches, and a kill with replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure
from rheostat.trajectories import Source
from tests.crash import differences
from tests.learners import credited, step_plainly, weights
from tests.methods.test_language_methods import Lenient, built, save, small
from tests.training.test_run import StopAfter

LAG: dict[str, Any] = {"dial.lag": 1, "learning_rate": 1e-2, "steps": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def test_without_it_nothing_is_noted(model: str) -> None:
    one = built("grpo", model, epochs=2)
    rows = credited(one).rows
    assert rows.head is None and rows.sampler_head is None and rows.learner_head is None


def test_the_head_is_what_the_sampler_thought(model: str) -> None:
    """One update behind, the sampler's probabilities of its own tokens are those that it noted as it sampled."""
    one = built("grpo", model, score_centring=10_000, **LAG)
    one.turn()
    batch = one.retain(one.collect())
    rows = batch.rows
    place = (rows.head == rows.action[..., None]).int().argmax(-1, keepdim=True)
    again = rows.sampler_head.gather(-1, place)[..., 0]
    torch.testing.assert_close(again[rows.mask], rows.sampler_logp[rows.mask], atol=1e-5, rtol=1e-5)
    assert rows.head.shape[-1] == one.policy.vocabulary == rows.sampler_head.shape[-1]
    torch.testing.assert_close(rows.sampler_head[rows.mask].exp().sum(-1), torch.ones(rows.count()))
    assert float((rows.sampler_head.exp() - one.context.score(rows).head.exp())[rows.mask].abs().max()) > 1e-4


def test_micro_batches_change_nothing_and_stale_data_do(model: str) -> None:
    def end(**options: Any) -> torch.Tensor:
        one = built("grpo", model, **LAG | options)
        step_plainly(one, 1.0)
        one.turn()
        one.turn()
        return weights(one.policy)

    whole = end(score_centring=3)
    torch.testing.assert_close(end(score_centring=3, micro_batch_rows=3), whole, atol=1e-6, rtol=1e-4)
    assert (end() - whole).abs().max() > 1e-4


def test_an_experts_tokens_have_no_sampler_and_are_left_alone(model: str) -> None:
    one = built("grpo", model, score_centring=3, max_new_tokens=48, **{"dial.expert_share": 0.25})
    rows = credited(one).rows
    expert = (rows.source == int(Source.EXPERT)) & rows.mask
    assert bool(expert.any()) and bool(rows.sampler_head[expert].isnan().all())
    assert bool(rows.sampler_head[rows.mask & ~expert].isfinite().all())
    chord = built("chord", model, score_centring=3, max_new_tokens=48)  # its expert rows are joined below
    metrics = chord.turn()
    assert metrics["meter/total_variation"] < 1e-4  # fresh rows


def test_a_killed_run_with_old_groups_ends_where_it_would_have(model: str, tmp_path: Path) -> None:
    options = {"score_centring": 2, "dial.lag": 1, "dial.replay_share": 0.5, "steps": 4}
    Run.create(tmp_path / "whole", small("grpo", model, **options), task=Lenient()).train()
    halted = Run.create(tmp_path / "halted", small("grpo", model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(3))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_what_cannot_be_centred_is_refused_in_one_sentence(model: str) -> None:
    for method, sentence, options in (
        ("grpo", "score_centring needs a loss of every token for itself: it cannot use ratio 'sequence'", {"ratio": "sequence"}),
        ("gspo", "it cannot use ratio 'sequence-token'", {}),
        ("grpo", "it cannot use sampler_correction 'sequence'", {"sampler_correction": "sequence"}),
        ("grpo", "it cannot use rejection 'token'", {"rejection": "token", "rejection_high": 0.1}),
        ("grpo", "it cannot use clip 'searched', which looks at all tokens", {"clip": "searched"}),
        ("grpo", "with top_k or top_p some have no probability", {"top_k": 5}),
        ("grpo", r"correction.centring is -1; it must be at least 0", {"score_centring": -1}),
    ):
        with pytest.raises(RheostatError, match=sentence) as error:
            built(method, model, **{"score_centring": 4} | options)
        assert "\n" not in str(error.value)
    with pytest.raises(RheostatError, match="lp-reg has no option score_centring"):
        configure("lp-reg", {"score_centring": 4})
