"""DPO through the training path: the plain loss, pairs that nothing tears apart, measurements of held-out pairs, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.api import settings_for
from rheostat.errors import RheostatError
from rheostat.objectives.preference import BY_LENGTH, SMOOTHED, preference_loss
from rheostat.parts import Batch
from rheostat.tasks.language import FilePrompts
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from tests.crash import differences
from tests.learners import credited, step_plainly, weights
from tests.methods.test_language_methods import save
from tests.tiny_language import naive_scores
from tests.training.test_run import StopAfter

OPTIONS: dict[str, Any] = {
    "pairs_per_batch": 4, "max_new_tokens": 8, "learning_rate": 1e-3, "evaluate_every": 0, "evaluation_episodes": 0, "steps": 2,
    "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def pairs(count: int = 40) -> FilePrompts:
    """Sums, right and wrong by one; the wrong answer is longer."""
    rows = [
        {"prompt": f"{a}+{b}=", "chosen": str((a + b) % 10), "rejected": f"{(a + b + 1) % 10}{a}"} for a in range(10) for b in range(10)
    ]
    return FilePrompts(rows[:count])


def built(model: str, task: Any = None, **options: Any) -> Any:
    task = task or pairs()
    return build_method(settings(model, task, **options), task)


def settings(model: str, task: Any, **options: Any) -> Any:
    return settings_for("dpo", task, **(OPTIONS | {"model": model} | options))


def test_a_step_is_the_plain_one(model: str) -> None:
    one = built(model, beta=0.3, max_grad_norm=1e9)
    step_plainly(one, 1.0)
    one.turn()  # away from the reference
    start, batch = weights(one.policy), credited(one)
    rows, total = batch.rows, torch.zeros(())
    for pair in range(0, len(rows), 2):
        sides = []
        for row in (pair, pair + 1):
            logp, _ = naive_scores(one.policy.causal, rows.action[row : row + 1], rows.attention[row : row + 1], rows.mask[row : row + 1])
            sides.append(logp.sum() - rows.reference_logp[row][rows.mask[row]].sum())
        total = total - torch.log(1 / (1 + torch.exp(-0.3 * (sides[0] - sides[1]))))
    for parameter in one.policy.parameters():
        parameter.grad = None
    (total / (len(rows) / 2)).backward()
    expected = torch.cat([p.grad.flatten() for p in one.policy.parameters()])
    one.improve(batch)
    torch.testing.assert_close(start - weights(one.policy), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_change_nothing_and_tear_no_pair(model: str, micro: int) -> None:
    whole, parts = built(model), built(model, micro_batch_rows=micro)
    for one in (whole, parts):
        step_plainly(one, 1.0)
        one.turn()
    torch.testing.assert_close(weights(whole.policy), weights(parts.policy), atol=1e-5, rtol=0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 6))
def test_units_stay_whole(units: list[int], size: int) -> None:
    batch = Batch(torch.arange(len(units)), units=torch.tensor(units))
    parts = batch.split(size)
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(len(units)))
    found = [set(part.units.tolist()) for part in parts if part.units is not None]
    if size < len(units):
        assert all(not a & b for i, a in enumerate(found) for b in found[i + 1 :])
        assert all(len(part) <= size or len(set(part.units.tolist())) == 1 for part in parts if part.units is not None)


def test_it_learns_to_rank_pairs_it_has_not_seen_and_resumes_exactly(model: str, tmp_path: Path) -> None:
    options = {"steps": 6, "evaluate_every": 3, "checkpoint_every": 3, "minibatches": 2, "pairs_per_batch": 16, "evaluation_episodes": 4}
    task = pairs(100)
    whole = Run.create(tmp_path / "whole", settings(model, task, **options), task=task).train()
    assert whole.metrics[-1]["preference_accuracy"] > whole.metrics[1]["preference_accuracy"]
    before, *later = (row["validation_preference_accuracy"] for row in whole.metrics if "validation_preference_accuracy" in row)
    assert len(later) == 2 and later[-1] > before
    assert whole.summary["validation_preference_accuracy"] > 0.5 and "accuracy" not in whole.summary
    halted = Run.create(tmp_path / "halted", settings(model, task, **options), task=task)
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(2))
    Run.load(tmp_path / "halted", task=task).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.05, 3))
def test_links_fall_with_the_margin_and_stay_finite(chosen: float, rejected: float, beta: float) -> None:
    up_side, down_side = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (chosen, rejected))
    for link in ("sigmoid", "robust", "hinge", "sigmoid-mean", "bco", "apo-zero", "exo"):
        smoothing = 0.01 if link in SMOOTHED else 0.0
        lengths = {"chosen_length": torch.tensor([3.0]), "rejected_length": torch.tensor([0.0])} if link in BY_LENGTH else {}
        loss = preference_loss(up_side, down_side, link=link, beta=beta, smoothing=smoothing, **lengths)  # type: ignore[arg-type]
        up = torch.autograd.grad(loss.sum(), [up_side, down_side], allow_unused=True)
        assert bool(loss.isfinite()) and all(bool(g.isfinite()) for g in up if g is not None)
        if smoothing == 0.0:
            assert up[0] is not None and up[0].item() <= 0 and (up[1] is None or up[1].item() >= 0), link


def test_bad_input_is_one_sentence(model: str) -> None:
    good = {"prompt": "1+1=", "chosen": "2", "rejected": "3"}
    for sentence, row in (
        ("has no answer in its column 'rejected'", {"prompt": "1+2=", "chosen": "3"}),
        ("are the same: remove the row", good | {"prompt": "1+2=", "rejected": "2"}),
        ("The demonstration for prompt .* is empty", good | {"prompt": "1+2=", "chosen": ""}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            built(model, FilePrompts([row], validation=[good]), pairs_per_batch=1).turn()
    for sentence, options in (
        ("does not know label smoothing", {"link": "hinge", "label_smoothing": 0.1}),
        ("compares with smoothed labels", {"link": "exo"}),
        (r"dpo cannot honour dial\.lag: nothing is sampled", {"dial.lag": 2}),
        ("Unknown option of dpo 'group_siz'", {"group_siz": 2}),
    ):
        with pytest.raises(RheostatError, match=sentence):
            built(model, **options)
